"""How a model is asked in an evaluation: freely, greedily and to a natural stop."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semedit.edits import Route
from semedit.errors import CutAnswerWarning
from semedit.model import EditedModel
from semedit.overrides.base import ModelCall, end_token_ids, pad_token_id
from semedit.prompts import as_prompt

# where an answer ends that does not end by itself, in tokens; no target's length bounds it
LONGEST_ANSWER = 64


def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    desc: str | None = None,
    **options: Any,
) -> list[list[int]]:
    """The greedy answer to each question, each asked in a chat turn of its own where there is a chat template.

    Args:
        model: edited or not.
        tokenizer: the model's.
        questions: what is asked.
        max_new_tokens: where an answer ends that does not end by itself.
        batch_size: how many are asked at once; those of like length are asked together.
        desc: what stands beside a progress bar; None shows none.
        **options: what else the model's `generate` takes, such as `namespaces`.

    Returns:
        Token ids, without the end token; `texts_of` makes texts of them.
    """
    texts = [as_prompt(tokenizer, question).text for question in questions]
    return complete(
        model, tokenizer, texts, max_new_tokens=max_new_tokens, batch_size=batch_size, desc=desc, **options
    )


def ask_with_routes(
    model: EditedModel,
    questions: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    desc: str | None = None,
    **options: Any,
) -> list[tuple[list[int], Route]]:
    """As `ask`; each answer with the route that it took."""
    texts = [as_prompt(model.tokenizer, question).text for question in questions]
    with model.routes_taken() as taken:
        answers = complete(
            model, model.tokenizer, texts, max_new_tokens=max_new_tokens, batch_size=batch_size, desc=desc, **options
        )
    routes = dict(zip(_by_length(texts), taken, strict=True))
    return [(answer, routes[i]) for i, answer in enumerate(answers)]


@torch.no_grad()
def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    desc: str | None = None,
    **options: Any,
) -> list[list[int]]:
    """As `ask`, for prompts as the model reads them, special tokens written out."""
    config = model.generation_config
    ends = {*end_token_ids(config), config.pad_token_id, tokenizer.pad_token_id}
    generate: Any = model.generate
    answers: list[list[int]] = [[] for _ in texts]
    by_length = _by_length(texts)
    with tqdm(total=len(texts), desc=desc, disable=desc is None) as bar:
        for start in range(0, len(texts), batch_size):
            some = by_length[start : start + batch_size]
            inputs = inputs_of(model, tokenizer, [texts[i] for i in some])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CutAnswerWarning)  # whoever evaluates sees what was cut
                output = generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=max_new_tokens, **options)
            read = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
            for i, row in zip(some, output[:, read:].tolist(), strict=True):
                length = next((n for n, token in enumerate(row) if token in ends), len(row))
                answers[i] = row[:length]
            bar.update(len(some))
    return answers


def texts_of(tokenizer: PreTrainedTokenizerBase, answers: Sequence[Sequence[int]]) -> list[str]:
    """The text of each answer, without special tokens and the white space around it."""
    return [str(tokenizer.decode(list(answer), skip_special_tokens=True)).strip() for answer in answers]


def inputs_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[str, Tensor]:
    """Prompts as `generate` takes them: `input_ids` and `attention_mask`, `(texts, longest)` each."""
    pad = pad_token_id(model.generation_config, tokenizer)
    input_ids, attention_mask = ModelCall(model, tokenizer, texts, []).encode(pad)
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def _by_length(texts: Sequence[str]) -> list[int]:
    """The order in which prompts are asked."""
    return sorted(range(len(texts)), key=lambda i: len(texts[i]))
