"""Fixtures: no network, real tiny models, a fresh memory for each test."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import postgres
import pytest
from fakes import WordEncoder, tiny_model
from transformers import PreTrainedModel

from semedit.memory.edit_memory import EditMemory
from semedit.memory.sqlite import SQLiteStore

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a test reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def models() -> dict[str, PreTrainedModel]:
    """Tiny models by kind; not to be changed."""
    return {kind: tiny_model(kind) for kind in ("llama", "gpt2", "t5")}


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A PostgreSQL server of the tests' own, which they may stop and start."""
    with postgres.running() as server:
        yield server


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty schema in a PostgreSQL database."""
    server_url = postgres.GIVEN or request.getfixturevalue("postgres_server").url
    with postgres.schema(server_url) as url:
        yield url


@pytest.fixture
def opening(tmp_path: Path) -> Iterator[Callable[..., EditMemory]]:
    """Opens the memory of this test, as often as it is called; all are closed in the end."""
    opened: list[EditMemory] = []

    def open_it(encoder: WordEncoder | None = None, store: SQLiteStore | None = None) -> EditMemory:
        opened.append(EditMemory(store or SQLiteStore(tmp_path / "edits.db"), encoder or WordEncoder()))
        return opened[-1]

    yield open_it
    for memory in opened:
        memory.store.close()


@pytest.fixture
def memory(opening: Callable[..., EditMemory]) -> EditMemory:
    return opening()


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()
