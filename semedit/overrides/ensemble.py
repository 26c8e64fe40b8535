"""The inference-time ensemble of Hewitt et al. 2024, "Model Editing with Canonical Examples", gated by scope."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase

from semedit.edits import Edit
from semedit.errors import WrapError
from semedit.hooks import cache_name, takes
from semedit.overrides.base import ModelCall, answer_separator
from semedit.overrides.in_context import with_corrections
from semedit.overrides.suffix import position_ids
from semedit.prompts import Prompt


class EnsembleOverride:
    """The base reads the prompt as it is, and its next-token logits move by what the edits change in a small model.

    `logits += weight * (log p_edited - log p_original)`: the small model reads the edits in front of the prompt, as
    with `InContextOverride`, and the prompt alone. In the paper a fine-tuned small model gives `p_edited`, and every
    query is answered so; here those in scope are.

    Args:
        model, tokenizer: the base.
        small: has the base's vocabulary. It may be the base itself: at weight 1, that is the base with the edits in
            context.
        weight: how much of the difference counts; 0 leaves the base as it is.

    Raises:
        WrapError: only one of the models has an encoder, or their vocabularies differ in size.
    """

    name = "ensemble"
    writes_base_tokens = True

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        small: PreTrainedModel,
        weight: float = 1.0,
    ) -> None:
        if small.config.is_encoder_decoder != model.config.is_encoder_decoder:
            kinds = ["encoder-decoder" if m.config.is_encoder_decoder else "decoder-only" for m in (small, model)]
            raise WrapError(f"the small model is {kinds[0]} and the base {kinds[1]}; take a small model of its kind")
        sizes = [m.config.get_text_config().vocab_size for m in (small, model)]
        if sizes[0] != sizes[1]:
            raise WrapError(
                f"the small model's vocabulary has {sizes[0]:,} tokens and the base's {sizes[1]:,}; an ensemble needs "
                "the same one (where only its padding differs, small.resize_token_embeddings evens it out), and "
                "semedit.CounterfactualOverride takes any"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.small = small
        self.weight = weight

    @contextmanager
    def prepare(self, prompts: Sequence[Prompt], edits: Sequence[Sequence[Edit]]) -> Iterator[EnsembleCall]:
        """The base with each prompt, and the small model with and without its edits."""
        originals = [prompt.text for prompt in prompts]
        edited = [with_corrections(prompt, row) for prompt, row in zip(prompts, edits, strict=True)]
        separators = [answer_separator(self.model, prompt) for prompt in prompts]
        small = ModelCall(self.small, self.tokenizer, edited + originals, separators * 2)
        yield EnsembleCall(self.model, self.tokenizer, originals, separators, small=small, weight=self.weight)


@dataclass(frozen=True)
class EnsembleCall(ModelCall):
    """The base, which reads the prompts alone, beside a small model.

    Attributes:
        small: reads each prompt with its edits, and then each prompt alone.
        weight: how much of the difference counts.
    """

    small: ModelCall
    weight: float

    def room_after(self, read: int) -> int:
        """What both models have room for."""
        room = super().room_after(read)
        if self.model.config.is_encoder_decoder:
            return room
        return min(room, self.small.room_after(self.small.encode(pad=0)[0].shape[1]))

    def own_processors(self, read: int, pad: int) -> list[LogitsProcessor]:
        """What moves the base's scores."""
        # a decoder beside an encoder is shown its start token, which the small model reads as well
        begins = 0 if self.model.config.is_encoder_decoder else read
        return [_Shift(_Reader(self.small, pad), self.weight, begins)]

    @torch.no_grad()
    def log_probabilities(self, row: int, answer: Sequence[int]) -> Tensor:
        """The base's, moved as in `generate`, `(answer, vocabulary)`."""
        base = super().log_probabilities(row, answer)
        edited, original = (self.small.log_probabilities(i, answer) for i in (row, len(self.texts) + row))
        moved: Tensor = base + self.weight * (edited - original).to(base.device)
        return moved.log_softmax(-1)


class _Shift(LogitsProcessor):
    """Moves scores by what the edits change in the small model.

    The log of their summed exponentials stays as it was, so that beam search, whose scores are log probabilities, adds
    up log probabilities still. Where a config has ruled tokens out by then (minimum lengths, bad words), what is left
    to the others in a beam search is the base's share, as it knows it without the edits.

    Args:
        reader: of twice as many texts as the base has rows, with their edits and without.
        weight: how much of the difference counts.
        begins: where the answer begins in what the base has read and written.
    """

    def __init__(self, reader: _Reader, weight: float, begins: int) -> None:
        self.reader = reader
        self.weight = weight
        self.begins = begins

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        edited, original = self.reader(input_ids[:, self.begins :].repeat(2, 1)).chunk(2)
        moved = scores + self.weight * (edited - original).to(scores.device)
        return moved - moved.logsumexp(-1, keepdim=True) + scores.logsumexp(-1, keepdim=True)


class _Reader:
    """The small model, which reads on where answers grow by a token, and reads anew where they do not.

    Args:
        call: the model and the texts.
        pad: what the texts are padded with.
    """

    def __init__(self, call: ModelCall, pad: int) -> None:
        self._model = call.model
        self._ids, self._mask = call.encode(pad)
        self._encoder_decoder = call.model.config.is_encoder_decoder
        self._options = {"use_cache": True} | ({"logits_to_keep": 1} if takes(call.model, "logits_to_keep") else {})
        self._cache = cache_name(call.model)
        self._seen = self._ids[:0]
        self._state: dict[str, Any] = {}

    def __call__(self, answers: Tensor) -> Tensor:
        """Log p(next token | text, answer), `(texts * each, vocabulary)`, for `(texts * each, new)` token ids."""
        answers = answers.to(self._ids.device)
        parents = self._parents(answers)
        if parents is None:
            self._state = {}
        elif len(answers) > len(self._ids):
            self._state[self._cache].reorder_cache(parents)
        output = self._model(**self._inputs(answers), **self._state, **self._options)
        self._seen = answers
        self._state = {self._cache: getattr(output, self._cache)}
        if self._encoder_decoder:
            self._state["encoder_outputs"] = (output.encoder_last_hidden_state,)
        log_probabilities: Tensor = output.logits[:, -1].float().log_softmax(-1)
        return log_probabilities

    def _parents(self, answers: Tensor) -> Tensor | None:
        """Which answer of the last call each one continues by a token, `(answers,)`; None where one continues none.

        Beam search drops answers and goes on from others twice; it does not say which.
        """
        if len(answers) != len(self._seen) or answers.shape[1] != self._seen.shape[1] + 1:
            return None
        texts, length = len(self._ids), self._seen.shape[1]
        each = len(answers) // texts
        seen = self._seen.view(texts, 1, each, length)
        continues = (answers[:, :-1].view(texts, each, 1, length) == seen).all(-1)
        if not continues.any(-1).all():
            return None
        first = torch.arange(texts, device=answers.device)[:, None] * each
        return (first + continues.int().argmax(-1)).flatten()

    def _inputs(self, answers: Tensor) -> dict[str, Tensor]:
        """What the model has not read yet, and the mask of all that it then has read."""
        each = len(answers) // len(self._ids)
        new = answers[:, -1:] if self._state else answers
        mask = self._mask.repeat_interleave(each, 0)
        texts = {} if self._state else {"input_ids": self._ids.repeat_interleave(each, 0)}
        if self._encoder_decoder:
            return {**texts, "attention_mask": mask, "decoder_input_ids": new}
        new = torch.cat([*texts.values(), new], 1)
        mask = torch.cat([mask, torch.ones_like(answers)], 1)
        positions = {name: ids[:, -new.shape[1] :] for name, ids in position_ids(self._model, mask).items()}
        return {"input_ids": new, "attention_mask": mask, **positions}
