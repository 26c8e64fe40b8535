"""The connections of one process to one PostgreSQL database."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from semedit.errors import StoreError, StoreUnreachableError
from semedit.memory.connections import weakly

Connection = psycopg.Connection[tuple[Any, ...]]

_BUSY_SECONDS = 60
# a thread that reads and one that writes; what more threads opened is closed when they are done
_IDLE_KEPT = 2
# Neither side waits long for one that is gone without a word: a dead server would leave its replicas in the belief
# that nothing changes, and a dead writer would hold the log.
_DEADLINES = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "tcp_user_timeout": "15000",
}
_SESSION = (
    f"-c lock_timeout={_BUSY_SECONDS}s "
    "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
)
_SECRETS = ("password", "sslpassword")

# a part of what the server says, and what to do
_ADVICE = (
    ("password", "give it in the URL, in PGPASSWORD or in ~/.pgpass"),
    ("does not exist", "make it, or name another in the URL"),
    ("no schema has been selected", "make the schema that the URL's search_path names"),
    ("permission denied", "grant it to the user of the URL, or name another user"),
    ("read-only transaction", "this is a standby, so name the primary server"),
    ("lock timeout", f"another process has been writing for over {_BUSY_SECONDS} s, so try again when it is done"),
    ("connection slots", "raise max_connections: each process that has the memory open holds two or three"),
    ("too many clients", "raise max_connections: each process that has the memory open holds two or three"),
    ("No space left", "nothing was changed, so make space on the server and try again"),
)


class PostgresConnections:
    """Lends each thread a connection of its own for as long as it needs one, so that no thread waits for another.

    No connection lives through a fork: the child lets go of its copies, and its parent notices nothing.

    Args:
        url: a PostgreSQL URL.

    Attributes:
        location: the URL without its secrets.

    Raises:
        StoreError: it is no such URL.
    """

    def __init__(self, url: str) -> None:
        self._values = _parsed(url)
        self.location = _shown(self._values)
        self._closed = False
        self._inherited: set[Connection] = set()
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=weakly(self._after_fork_in_child))

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []
        self._mine = threading.local()

    @property
    def held(self) -> Connection | None:
        """The connection that this thread holds, if it does."""
        connection: Connection | None = getattr(self._mine, "connection", None)
        return connection

    @contextlib.contextmanager
    def lent(self) -> Iterator[Connection]:
        """A connection for this thread, in autocommit mode; inside, the same one again.

        Raises:
            StoreError: all were closed.
        """
        if self.held is not None:
            yield self.held
            return
        connection = self._take()
        mine = self._mine
        mine.connection = connection
        try:
            yield connection
        finally:
            mine.connection = None
            self._give_back(connection)

    def connect(self) -> Connection:
        """A new connection, in autocommit mode, for the caller to `discard`."""
        values = {
            "application_name": "semedit",
            **_DEADLINES,
            **self._values,
            "client_encoding": "utf8",
            "options": f"{_SESSION} {self._values.get('options', '')}",
        }
        connection = psycopg.connect(make_conninfo(**values), autocommit=True)
        self._open.add(connection)
        return connection

    def discard(self, connection: Connection) -> None:
        """Closes a connection."""
        self._open.discard(connection)
        connection.close()

    def close(self) -> None:
        """Closes all; those that are lent, when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            self.discard(connection)

    def check_open(self) -> None:
        """Raises StoreError where all were closed."""
        if self._closed:
            raise StoreError(f"the edit memory {self.location} was closed; open it again")

    @contextlib.contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """What psycopg raises inside is raised as StoreError, with what to do."""
        try:
            yield
        except psycopg.Error as error:
            what = f"cannot {doing} the edit memory {self.location}: {_advice(error)}"
            raise StoreUnreachableError(what) if is_unreachable(error) else StoreError(what) from error

    def _take(self) -> Connection:
        while True:
            with self._lock:
                self.check_open()
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self.connect()
            if not _is_lost(connection):
                return connection
            self.discard(connection)

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            idle = connection.info.transaction_status == TransactionStatus.IDLE
            if idle and not self._closed and len(self._idle) < _IDLE_KEPT:
                self._idle.append(connection)
                return
        self.discard(connection)

    def _after_fork_in_child(self) -> None:
        # A copy of the parent's socket would keep its session alive when the parent dies, and to close it the usual
        # way would end the session while the parent lives. So each is replaced by one whose other side is gone. The
        # objects are kept: another thread of the parent may have been in the middle of them.
        for connection in self._open:
            if not connection.closed:
                gone, other = socket.socketpair()
                other.close()
                os.dup2(gone.fileno(), connection.fileno(), inheritable=False)
                gone.close()
        self._inherited |= self._open
        self._begin()


def _is_lost(connection: Connection) -> bool:
    """Whether the server ended an idle connection, which is the only thing that it has to say unasked."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        return bool(selector.select(0))


def _parsed(url: str) -> dict[str, str]:
    """What a URL says, as libpq reads it. Nothing of a URL that cannot be read is shown: it may hold a password."""
    form = "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with special characters as %XX"
    try:
        values = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.ProgrammingError:
        raise StoreError(f"the URL of the edit memory cannot be read; {form}") from None
    # where a password holds a bare / or @, libpq takes its end for a host or a database
    misread = any("@" in values.get(name, "") for name in ("host", "dbname"))
    if misread or not values.get("port", "0").replace(",", "").isdigit():
        raise StoreError(f"the URL of the edit memory has a host, port or database that is none; {form}")
    return values


def _shown(values: dict[str, str]) -> str:
    """A URL that says the same, without secrets."""
    rest = {name: value for name, value in values.items() if name not in _SECRETS}
    host, port = rest.get("host", ""), rest.get("port", "")
    place = ""
    if host and not any(mark in host for mark in "/,"):
        place = f"[{host}]" if ":" in host else host
        place += f":{port}" if port else ""
        del rest["host"]
        rest.pop("port", None)
    user = urllib.parse.quote(rest.pop("user"), safe="") + "@" if place and "user" in rest else ""
    database = urllib.parse.quote(rest.pop("dbname", ""), safe="")
    query = urllib.parse.urlencode(rest, quote_via=urllib.parse.quote, safe="/")
    return f"postgresql://{user}{place}/{database}{'?' if query else ''}{query}"


def is_unreachable(error: psycopg.Error) -> bool:
    """Whether there was no connection to the server, or it was lost."""
    # without a code where the connection broke or was not made; 08: connection exceptions; 57P: the server stops or
    # starts
    state = error.sqlstate or ""
    return isinstance(error, psycopg.OperationalError) and (not state or state[:2] == "08" or state[:3] == "57P")


def _advice(error: psycopg.Error) -> str:
    """What psycopg or the server found, and what to do."""
    what = " ".join(str(error).split())
    for part, advice in _ADVICE:
        if part in what:
            return f"{what}; {advice}"
    if is_unreachable(error):
        return f"{what}; see that the server runs and can be reached, and try again"
    return what
