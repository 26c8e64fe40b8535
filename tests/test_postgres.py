"""What PostgreSQL brings: many processes on one log, a server that goes away, forks, passwords."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from fakes import WordEncoder
from postgres import Server, schema
from postgres_children import (
    add_in_a_row,
    add_when_told,
    append,
    die_in_a_transaction_and_leave_a_child,
    follow,
    fork_in_a_transaction,
    log,
    open_at_once,
    plain,
    sql,
    within,
    write_on_both_sides_of_a_fork,
)
from processes import CONTEXT, started

from semedit.cli import main
from semedit.edits import Edit
from semedit.errors import InvalidEditError, StoreError, StoreUnreachableError
from semedit.memory import postgres_connections, postgres_schema, postgres_watch, snapshot
from semedit.memory.edit_memory import EditMemory
from semedit.memory.opening import open_store
from semedit.memory.postgres import PostgresStore

SCHEMAS = 5


@pytest.fixture(autouse=True)
def no_network() -> None:
    """The network is not refused here: processes are started through a socket of this machine."""


@pytest.fixture
def opened(postgres_url: str) -> Iterator[Callable[[], PostgresStore]]:
    """Opens the store of this test, as often as it is called; all are closed in the end."""
    stores: list[PostgresStore] = []

    def open_it() -> PostgresStore:
        stores.append(PostgresStore(postgres_url))
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()


@pytest.fixture
def server(postgres_server: Server) -> Iterator[Server]:
    """A server that the test may stop."""
    yield postgres_server
    postgres_server.start()


@pytest.fixture
def server_url(server: Server) -> Iterator[str]:
    with schema(server.url) as url:
        yield url
        server.start()


# --- several processes


def test_an_edit_of_another_process_is_seen_within_a_second(opened: Callable[[], PostgresStore], postgres_url: str):
    memory = EditMemory(opened(), WordEncoder())
    memory.add("Who founded Acme?", "Jane Roe")
    edit = Edit(id="acme", prompt="Who runs Acme?", target="Jane Doe")
    together = CONTEXT.Barrier(2, timeout=60)
    process = started(add_when_told, postgres_url, together, edit, WordEncoder().encode([edit.prompt]))
    assert len(memory.search(edit.prompt)) == 1
    together.wait()
    together.wait()
    # it was added a moment ago
    assert within(1, lambda: len(memory.search(edit.prompt)) == 2)
    assert memory.search(edit.prompt)[0].edit.target == "Jane Doe"
    process.join()
    assert process.exitcode == 0


def test_writers_leave_one_order_and_readers_miss_nothing(opened: Callable[[], PostgresStore], postgres_url: str):
    store = opened()
    together = CONTEXT.Barrier(6, timeout=60)
    processes = [started(add_in_a_row, postgres_url, together, writer, 25) for writer in range(3)]
    processes += [started(follow, postgres_url, together, 75) for _ in range(3)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
    assert [revision for revision, _ in log(store)] == list(range(1, 76))
    for writer in range(3):
        assert [id for _, id in log(store) if id[0] == str(writer)] == [f"{writer} {i}" for i in range(25)]


def test_processes_that_make_the_tables_at_once_all_open_them(postgres_url: str):
    names = [f"{postgres_url.rpartition('%3D')[2]}_{i}" for i in range(SCHEMAS)]
    urls = [f"{postgres_url.partition('?')[0]}?options=-csearch_path%3D{name}" for name in names]
    sql(postgres_url, *(f"CREATE SCHEMA {name}" for name in names))
    together = CONTEXT.Barrier(4, timeout=60)
    processes = [started(open_at_once, urls, together) for _ in range(4)]
    for process in processes:
        process.join(60)
    made = [sql(url, "SELECT count(*) FROM semedit_counter")[0][0] for url in urls]
    sql(postgres_url, *(f"DROP SCHEMA {name} CASCADE" for name in names))
    assert [process.exitcode for process in processes] == [0] * 4
    assert made == [1] * SCHEMAS


# --- following the log


def test_the_head_moves_at_once_for_its_writer_and_then_for_others(opened: Callable[[], PostgresStore]):
    one, two = opened(), opened()
    append(one, "a")
    assert one.head() == (1, 0, 0)
    assert within(1, lambda: two.head() == (1, 0, 0))
    with two.transaction() as writer:
        writer.put_setting("threshold", "0.5")
        writer.replace_vectors("words@1", [], np.zeros((0, 3), np.float32))
    assert two.head() == (1, 1, 1)
    assert within(1, lambda: one.head() == (1, 1, 1))


def test_stores_of_one_database_do_not_hear_of_each_other(opened: Callable[[], PostgresStore], postgres_url: str):
    store = opened()
    with schema(postgres_url.partition("?")[0]) as url, closing(PostgresStore(url)) as other:
        assert other.identity() != store.identity()
        append(other, "a", "b")
        append(store, "c")
        time.sleep(0.1)
        assert (other.head().revision, store.head().revision) == (2, 1)


def test_what_nobody_told_of_is_found_at_the_next_heartbeat(
    opened: Callable[[], PostgresStore], postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(postgres_watch, "_HEARTBEAT", 0.1)
    store = opened()
    sql(postgres_url, "UPDATE semedit_counter SET settings = 7")
    assert within(1, lambda: store.head() == (0, 0, 7))


def test_a_log_that_came_back_older_is_followed_back(opened: Callable[[], PostgresStore], postgres_url: str):
    store = opened()
    append(store, "a", "b")
    sql(postgres_url, "UPDATE semedit_counter SET revision = 1")
    assert store.head().revision == 2
    sql(postgres_url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ 'semedit_counter$'")
    assert within(2, lambda: store.head().revision == 1)


def test_a_store_that_nobody_holds_ends_its_thread_and_its_connections(postgres_url: str):
    def watching() -> int:
        return sum(thread.name == "semedit-watch" for thread in threading.enumerate())

    before = watching()
    store = PostgresStore(postgres_url)
    assert watching() == before + 1
    connections = store._connections
    assert len(connections._open) == 2
    del store
    gc.collect()
    assert watching() == before
    assert not connections._open


# --- a server that goes away


def test_while_the_server_is_away_a_replica_serves_what_it_has_and_says_so(server: Server, server_url: str):
    with closing(PostgresStore(server_url)) as store, closing(PostgresStore(server_url)) as other:
        memory, writer = EditMemory(store, WordEncoder()), EditMemory(other, WordEncoder())
        memory.add("Who runs Acme?", "Jane Doe")
        assert memory.staleness == 0.0
        server.stop()
        stopped = time.monotonic()
        assert within(2, lambda: store.staleness > 0)
        assert [c.edit.target for c in memory.search("Who runs Acme?")] == ["Jane Doe"]
        for call in (
            lambda: store.history("a"),
            lambda: store.snapshot().__enter__(),
            lambda: memory.add("Who founded Acme?", "John Roe"),
        ):
            with pytest.raises(StoreUnreachableError, match=r"see that .* runs and can be reached") as refusal:
                call()
            assert server.password not in str(refusal.value)
        assert [c.edit.target for c in memory.search("Who runs Acme?")] == ["Jane Doe"]
        time.sleep(0.2)
        assert time.monotonic() - stopped + 5 > store.staleness > 0.2
        server.start()
        # the first who notices writes
        assert writer.add("Who owns Acme?", "Jim Poe").revision == 2
        assert within(10, lambda: store.staleness == 0.0)
        assert within(1, lambda: store.head().revision == 2)
        assert len(memory.search("Who owns Acme?")) == 2
        assert memory.add("Who founded Acme?", "John Roe").revision == 3


def test_a_server_that_crashes_in_a_transaction_keeps_nothing_of_it(server: Server, server_url: str):
    with closing(PostgresStore(server_url)) as store:
        append(store, "a")

        def write_and_crash() -> None:
            with store.transaction() as writer:
                writer.append([plain("b")])
                server.stop()
                server.start()
                writer.append([plain("c")])

        with pytest.raises(StoreUnreachableError, match="cannot write to the edit memory"):
            write_and_crash()
        assert log(store) == [(1, "a")]
        assert append(store, "d")[0].revision == 2
        assert within(10, lambda: store.head().revision == 2 and store.staleness == 0.0)


def test_a_snapshot_that_loses_its_connection_says_so_and_the_next_call_has_a_new_one(
    opened: Callable[[], PostgresStore], postgres_url: str
):
    store = opened()
    append(store, "a")

    def read_and_lose() -> None:
        with store.snapshot():
            assert log(store) == [(1, "a")]
            sql(
                postgres_url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'semedit' AND pid <> pg_backend_pid()",
            )
            log(store)

    with pytest.raises(StoreUnreachableError, match="cannot read"):
        read_and_lose()
    assert log(store) == [(1, "a")]


def test_a_connection_that_is_lost_while_it_commits_leaves_open_what_was_kept(
    opened: Callable[[], PostgresStore], postgres_url: str
):
    store = opened()
    sql(
        postgres_url,
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'",
        "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON semedit_revisions DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION die()",
    )
    with pytest.raises(StoreUnreachableError, match="may be kept or not; look at the edit's history"):
        append(store, "a")
    assert log(store) == []
    assert store.head().revision == 0


def test_a_writer_that_waits_too_long_is_told(opened: Callable[[], PostgresStore], monkeypatch: pytest.MonkeyPatch):
    one = opened()
    monkeypatch.setattr(postgres_connections, "_SESSION", "-c lock_timeout=50ms")
    two = opened()
    with one.transaction(), pytest.raises(StoreError, match="another process has been writing"):
        append(two, "a")
    assert append(two, "a")[0].revision == 1


# --- forks


def test_a_fork_writes_on_both_sides_while_a_thread_writes(postgres_url: str):
    process = started(write_on_both_sides_of_a_fork, postgres_url, f"fork-{os.getpid()}")
    process.join(60)
    assert process.exitcode == 0


def test_the_child_of_a_fork_in_a_transaction_does_not_commit_it(postgres_url: str):
    process = started(fork_in_a_transaction, postgres_url)
    process.join(60)
    assert process.exitcode == 0


def test_a_process_that_dies_in_a_transaction_keeps_nobody_waiting_though_its_child_lives(
    opened: Callable[[], PostgresStore], postgres_url: str, tmp_path: Path
):
    store = opened()
    process = started(die_in_a_transaction_and_leave_a_child, postgres_url, tmp_path / "child")
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    start = time.monotonic()
    assert append(store, "a")[0].revision == 1
    assert time.monotonic() - start < 10
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)  # it lived


# --- texts, URLs, tables


@pytest.mark.parametrize(
    "fields",
    [{"id": "a\x00"}, {"target": "\\\x00"}, {"author": "\x00"}, {"metadata": {"deep": [{"\x00": 1}]}}],
)
def test_a_nul_is_refused_and_changes_nothing(opened: Callable[[], PostgresStore], fields: dict[str, Any]):
    memory = EditMemory(opened(), WordEncoder())
    with pytest.raises(InvalidEditError, match=r"edit '.*' holds a NUL character \(\\x00\).*take it out"):
        memory.add_many([plain("fine"), Edit(**{"id": "b", "prompt": "p", "target": "t", **fields})])
    assert memory.store.head() == (0, 0, 0)
    assert memory.store.vectors(["p"]) == {}
    # what only looks like its escape is a text like any other
    assert memory.add("prompt", "\\u0000 \\\\u0000").target == "\\u0000 \\\\u0000"
    assert memory.list()[0].target == "\\u0000 \\\\u0000"


@pytest.mark.parametrize("field", ["prompt", "paraphrases", "negatives"])
def test_a_nul_in_a_text_that_has_a_vector_is_refused_and_changes_nothing(
    opened: Callable[[], PostgresStore], field: str
):
    memory = EditMemory(opened(), WordEncoder())
    fields: dict[str, Any] = {"prompt": "p", field: "\x00 text" if field == "prompt" else ["\x00 text"]}
    with pytest.raises(InvalidEditError, match=r"holds a NUL character"):
        memory.add(target="t", **fields)
    assert memory.store.head() == (0, 0, 0)
    assert memory.search("text") == []


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("postgresql://ann:s%40cret@db:5/facts", "postgresql://ann@db:5/facts"),
        ("postgres://ann:s%40cret@[::1]/facts", "postgresql://ann@[::1]/facts"),
        ("postgresql://db/facts?password=s%40cret&sslpassword=s%40cret", "postgresql://db/facts"),
        (
            "postgresql://a%40b:s%40cret@/my%20facts?host=/run/x&options=-csearch_path%3Da,b",
            "postgresql:///my%20facts?user=a%40b&host=/run/x&options=-csearch_path%3Da%2Cb",
        ),
        ("postgresql://ann:s%40cret@one:1,two:2/facts", "postgresql:///facts?user=ann&host=one%2Ctwo&port=1%2C2"),
    ],
)
def test_a_location_says_all_but_the_password(url: str, location: str):
    connections = postgres_connections.PostgresConnections(url)
    assert connections.location == location
    values = psycopg.conninfo.conninfo_to_dict(location)
    assert values == {
        name: value
        for name, value in psycopg.conninfo.conninfo_to_dict(url).items()
        if name not in ("password", "sslpassword")
    }


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:s3 cret@db/facts",
        "postgresql://ann:s3/cret@db/facts",
        "postgresql://ann:s3@cret@db/facts",
        "postgresql://ann:1/s3cret@db/facts",
        "postgresql://ann:s3cret@db/facts?unknown=1",
        "postgresql://ann:s3cret@db:port/facts",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_a_word_of_it(url: str):
    with pytest.raises(StoreError, match=r"URL of the edit memory .* special characters as %XX") as refusal:
        open_store(url)
    assert "s3" not in str(refusal.value)
    assert "cret" not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__context__ is None or refusal.value.__suppress_context__


def test_a_wrong_password_is_refused_without_naming_it(postgres_server: Server):
    url = postgres_server.url.replace(postgres_server.password, "wr0ng")
    with pytest.raises(StoreError, match=r"authentication failed.*PGPASSWORD") as refusal:
        PostgresStore(url)
    assert "wr0ng" not in str(refusal.value)
    assert "postgresql://semedit@127.0.0.1" in str(refusal.value)


def test_what_stands_in_the_way_of_opening_is_told(postgres_server: Server):
    with pytest.raises(StoreError, match=r'database "nowhere" does not exist; make it, or name another'):
        PostgresStore(postgres_server.url.replace("/postgres", "/nowhere"))
    with pytest.raises(StoreError, match=r"make the schema that the URL's search_path names"):
        PostgresStore(postgres_server.url + "?options=-csearch_path%3Dnowhere")
    sql(
        postgres_server.url,
        "DROP DATABASE IF EXISTS ascii",
        "CREATE DATABASE ascii ENCODING SQL_ASCII TEMPLATE template0",
    )
    with pytest.raises(StoreError, match=r"keeps texts as SQL_ASCII.*make one with ENCODING 'UTF8'"):
        PostgresStore(postgres_server.url.replace("/postgres", "/ascii"))


def test_without_psycopg_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "semedit.memory.postgres")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install 'semedit\[postgres\]'"):
        open_store("postgresql://db/facts")


def tables(url: str) -> list[tuple[Any, ...]]:
    return sql(
        url,
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns "
        "WHERE table_schema = current_schema ORDER BY table_name, column_name",
    )


def test_tables_of_an_earlier_format_are_migrated_and_those_of_a_newer_one_refused(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    with closing(PostgresStore(postgres_url)) as store:
        append(store, "a")
    before = tables(postgres_url)
    later = (*postgres_schema.MIGRATIONS, ("later", "ALTER TABLE semedit_counter ADD COLUMN later BIGINT"))
    broken = (*later, ("broken", "CREATE TABLE semedit_more (a TEXT); CREATE TABLE semedit_counter (a TEXT)"))
    with monkeypatch.context() as patch:
        patch.setattr(postgres_schema, "MIGRATIONS", broken)
        patch.setattr(postgres_schema, "FORMAT", len(broken))
        with pytest.raises(StoreError, match=r'"semedit_counter" already exists'):
            PostgresStore(postgres_url)
        assert tables(postgres_url) == before
        patch.setattr(postgres_schema, "MIGRATIONS", later)
        patch.setattr(postgres_schema, "FORMAT", len(later))
        with closing(PostgresStore(postgres_url)) as store:
            assert log(store) == [(1, "a")]
        assert len(tables(postgres_url)) == len(before) + 1
        assert sql(postgres_url, "SELECT * FROM semedit_migrations ORDER BY format") == [
            (number, name) for number, (name, _) in enumerate(later, start=1)
        ]
    with pytest.raises(
        StoreError, match=rf"newer semedit \(format {len(later)}, this one reads up to {len(later) - 1}\)"
    ):
        PostgresStore(postgres_url)


def test_the_command_line_takes_a_url(postgres_url: str, capsys: pytest.CaptureFixture[str]):
    with closing(PostgresStore(postgres_url)) as store:
        EditMemory(store, WordEncoder()).add("Who runs Acme?", "Jane Doe", id="acme")
    assert main(["edit", "ls", "--memory", postgres_url, "--json"]) == 0
    assert [edit["id"] for edit in json.loads(capsys.readouterr().out)] == ["acme"]
    assert main(["edit", "rm", "acme", "--memory", postgres_url]) == 0
    with closing(PostgresStore(postgres_url)) as store:
        assert list(store.edits()) == []


# --- the index of a replica


def test_a_replica_with_a_cache_opens_from_it_and_reads_what_followed(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(snapshot, "FAR", 30)
    cache = tmp_path / "cache" / "semedit"
    whole_reads: list[str] = []
    edits = PostgresStore.edits

    def counted(self: PostgresStore, *args: Any, **kwargs: Any) -> Any:
        whole_reads.append("read")
        return edits(self, *args, **kwargs)

    first = EditMemory(PostgresStore(postgres_url, cache), WordEncoder())
    first.add_many([Edit(id=str(i), prompt=f"What is number {i}?", target=str(i)) for i in range(40)])
    first.close()
    assert (cache / "manifest").exists()
    assert cache.stat().st_mode & 0o777 == 0o700
    bare = EditMemory(PostgresStore(postgres_url), WordEncoder())
    bare.add("What is new?", "this")
    bare.close()

    monkeypatch.setattr(PostgresStore, "edits", counted)
    replica = EditMemory(PostgresStore(postgres_url, cache), WordEncoder())
    assert whole_reads == []
    assert [c.edit.target for c in replica.search("What is number 7?", k=1)] == ["7"]
    assert [c.edit.target for c in replica.search("What is new?", k=1)] == ["this"]
    replica.close()
    EditMemory(PostgresStore(postgres_url), WordEncoder()).close()
    assert whole_reads == ["read"]
