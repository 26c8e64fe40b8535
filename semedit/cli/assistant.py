"""Asks an edited model, and knows the route that each answer took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from semedit.edits import Route
from semedit.model import EditedModel

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Assistant:
    """An edited model with its tokenizer.

    Attributes:
        model, tokenizer: what answers.
        namespaces: where it looks for edits; None is `"default"` alone.
        max_new_tokens: the most tokens of an answer.
    """

    model: EditedModel
    tokenizer: PreTrainedTokenizerBase
    namespaces: Sequence[str] | None = None
    max_new_tokens: int = 64

    def answer(self, messages: Messages, streamer: BaseStreamer | None = None) -> tuple[str, Route]:
        """The answer to the last turn of a conversation, and the route that it took."""
        with self.model.routes_taken() as routes:
            answer = answer_ids(
                self.model,
                self.tokenizer,
                messages,
                namespaces=self.namespaces,
                max_new_tokens=self.max_new_tokens,
                streamer=streamer,
            )
        return text_of(self.tokenizer, answer), routes[0]

    def fits(self, messages: Messages) -> bool:
        """Whether the model has room for a conversation and an answer to it."""
        room = getattr(self.model.config, "max_position_embeddings", None)
        ids = self.tokenizer(render(self.tokenizer, messages), add_special_tokens=False)["input_ids"]
        return room is None or len(ids) + self.max_new_tokens <= room


def render(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> str:
    """The prompt of a conversation; without a chat template, its last turn as it is."""
    if not tokenizer.chat_template:
        return messages[-1]["content"]
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))


def answer_ids(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, messages: Messages, **options: Any
) -> Tensor:
    """What `generate` writes after the prompt of a conversation, `(new,)`."""
    # a template writes the special tokens itself
    special = not tokenizer.chat_template
    batch = tokenizer(render(tokenizer, messages), return_tensors="pt", add_special_tokens=special)
    batch = batch.to(model.device)
    generate: Any = model.generate
    ids: Tensor = generate(**batch, **options)[0]
    return ids if model.config.is_encoder_decoder else ids[batch["input_ids"].shape[1] :]


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Tensor) -> str:
    """The text of an answer."""
    return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
