"""Fixtures: no network, real tiny models, a fresh memory for each test."""

from __future__ import annotations

import os
import socket

import pytest
from fakes import WordEncoder, byte_tokenizer, tiny_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

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
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte tokenizer without a chat template; not to be changed."""
    return byte_tokenizer()


@pytest.fixture(scope="session")
def chat_tokenizer() -> PreTrainedTokenizerFast:
    """A byte tokenizer with a chat template; not to be changed."""
    return byte_tokenizer(chat=True)


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()
