"""A PostgreSQL server of the tests' own, or one that they are given."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

# names a running server for the tests to use: a URL without a query, of a user who may make schemas
GIVEN = os.environ.get("SEMEDIT_TEST_POSTGRES")
# of no use to tests is what keeps a server's files through a loss of power
SETTINGS = {"listen_addresses": "127.0.0.1", "fsync": "off", "max_connections": "60"}


class Server:
    """A private cluster on loopback. PostgreSQL refuses to run as root, so it then runs as another user.

    Args:
        programs: the folder of PostgreSQL's programs.
        folder: an empty one, for the cluster.
        settings: in place of those of `SETTINGS`, or beside them.
    """

    def __init__(self, programs: Path, folder: Path, **settings: str) -> None:
        self._programs = programs
        self._settings = SETTINGS | settings
        self._folder = folder
        self._port = free_port()
        self._as = ["runuser", "-u", "nobody", "--"] if os.getuid() == 0 else []
        self._runs = False
        self.password = secrets.token_hex(8)
        self.url = f"postgresql://semedit:{self.password}@127.0.0.1:{self._port}/postgres"
        (folder / "password").write_text(self.password)
        if self._as:
            for path in (folder, folder / "password"):
                shutil.chown(path, "nobody")
        self._run(
            "initdb", "--username=semedit", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}",
            "--encoding=UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip

    def start(self) -> None:
        """Starts it, unless it runs."""
        if self._runs:
            return
        options = " ".join(f"-c {name}={value}" for name, value in self._settings.items())
        options += f" -c port={self._port} -c unix_socket_directories={self._folder}"
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder / 'log'}", f"--options={options}")
        self._runs = True

    def stop(self) -> None:
        """As a crash would: nothing is written to its files before it ends."""
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate")
        self._runs = False

    def kill(self) -> None:
        """Kills its first process. The others end when they notice, which some never do."""
        pid = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        self._orphans = _children(pid)
        os.kill(pid, signal.SIGKILL)
        self._runs = False

    def start_again(self) -> None:
        """Starts it after it was killed, without what is left of it."""
        for pid in self._orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _until(self.start, AssertionError)

    def recover(self) -> None:
        """Waits until it answers, which it does not at once when one of its processes was killed."""
        _until(lambda: psycopg.connect(self.url).close(), psycopg.OperationalError)

    def guard(self) -> subprocess.Popen[bytes]:
        """Stops the server when it is left, or when this process ends in whatever way."""
        command = [*self._as, "sh", "-c", 'read _; "$0" stop --pgdata="$1" --mode=immediate']
        return subprocess.Popen(
            [*command, str(self._programs / "pg_ctl"), str(self._folder / "data")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self._programs / program), f"--pgdata={self._folder / 'data'}", *arguments]
        # what it says goes to a file: a server that was started would hold a pipe open
        with tempfile.TemporaryFile("w+") as out:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd="/")
            out.seek(0)
            log = self._folder / "log"
            assert done.returncode == 0, out.read() + (log.read_text()[-2_000:] if log.exists() else "")


def _children(pid: int) -> list[int]:
    """The processes that a process started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # its number, its name in brackets, how it is, and its parent
            if int(status.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


def _until(do: Callable[[], None], fails: type[Exception]) -> None:
    """Does what fails at first, until it does not."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return do()
        except fails:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def programs() -> Path | None:
    """The folder of PostgreSQL's programs; the newest version where there are several."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = [Path(path).parent for path in glob.glob("/usr/lib/postgresql/*/bin/initdb")]
    return max(folders, key=lambda folder: int(folder.parent.name), default=None)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


@contextlib.contextmanager
def running(**settings: str) -> Iterator[Server]:
    """A server, started; skips where PostgreSQL is not installed. The settings are those of `Server`."""
    folder = programs()
    if folder is None:
        pytest.skip("no PostgreSQL server: install Debian's postgresql, or name one in SEMEDIT_TEST_POSTGRES")
    # not among pytest's folders, which only the user who runs the tests may enter
    with tempfile.TemporaryDirectory(prefix="semedit-postgres-", ignore_cleanup_errors=True) as path:
        server = Server(folder, Path(path), **settings)
        with server.guard():
            server.start()
            yield server


@contextlib.contextmanager
def schema(url: str) -> Iterator[str]:
    """The URL of a schema of its own in that database, gone in the end."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    yield f"{url}?options=-csearch_path%3D{name}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {name} CASCADE")
