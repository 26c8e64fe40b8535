"""Answers that come as text and are written in the base's tokens."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from semedit.errors import CutAnswerWarning
from semedit.overrides.base import (
    Request,
    answer_separator,
    continuation_ids,
    decoder_start_token_id,
    end_token_ids,
    pad_token_id,
)
from semedit.prompts import ChatFormat, Prompt


def closing_token_ids(config: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token by which the model ends an answer, as a list; empty where it has none.

    Of several end tokens, it is the one that the chat template writes after an assistant's words.
    """
    ends = end_token_ids(config)
    chat = ChatFormat.of(tokenizer)
    if chat is not None:
        written = tokenizer(chat.end, add_special_tokens=False)["input_ids"]
        ends = [token for token in written if token in ends] or ends
    return ends[:1]


def to_base_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    answers: Sequence[str],
    ended: Sequence[bool],
    request: Request,
) -> Tensor:
    """Answers as `(answers, new)` ids of the base, padded on the right, and shown to the caller's streamer.

    Args:
        model: the base.
        tokenizer: the base's.
        prompts: one for each row of the request.
        answers: as many for each prompt as were asked for.
        request: what the caller asks.
        ended: whether each answer came to its natural end and so is closed as the model closes its own.
    """
    each = len(answers) // len(prompts)
    closing = closing_token_ids(request.config, tokenizer)
    rows = []
    for i, answer in enumerate(answers):
        prompt = prompts[i // each]
        ids = continuation_ids(tokenizer, prompt.text, answer_separator(model, prompt) + answer)
        rows.append((ids + closing if ended[i] else ids)[: request.max_new_tokens])
        if ended[i] and len(ids) > request.max_new_tokens:
            warnings.warn(
                f"an answer of {len(ids)} tokens is cut after {request.max_new_tokens}; give generate more "
                "max_new_tokens",
                CutAnswerWarning,
                stacklevel=4,
            )
    if request.streamer is not None:
        start = request.prompt_ids
        if model.config.is_encoder_decoder:
            start = start.new_tensor([[decoder_start_token_id(request.config)]])
        request.streamer.put(start.cpu())
        for token in rows[0]:
            request.streamer.put(torch.tensor([token]))
        request.streamer.end()
    pad = pad_token_id(request.config, tokenizer)
    width = max(map(len, rows))
    return torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=request.prompt_ids.device)


def to_its_end(answer: Tensor, ends: Sequence[int]) -> Tensor:
    """An answer `(new,)` up to its end token, without the padding after it."""
    for position, token in enumerate(answer.tolist()):
        if token in ends:
            return answer[: position + 1]
    return answer
