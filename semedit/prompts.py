"""What a prompt asks: the text of each row, and where in it the query stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from transformers import PreTrainedTokenizerBase

# words by which a question leans on the one before it
_REFERRING = re.compile(
    r"\b(it|its|he|him|his|she|her|hers|they|them|their|theirs|that|this|those|these|there|then|one|same|else|instead)\b"
    r"|^(and|or|but|so|also|what about|how about|since when|until when)\b|^why\W*$",
    re.IGNORECASE,
)
FOLLOW_UP_WORDS = 12
_PROBES = ("probe-one", "probe-two", "probe-three")


@dataclass(frozen=True)
class Prompt:
    """One row as text.

    Attributes:
        text: the whole prompt, special tokens written out, padding left away.
        start: where in `text` the last user turn begins; 0 where the prompt is no rendered conversation.
        question: the last user turn, or the whole prompt.
        query: what the router judges: the question, after the turn before it where it is a short follow-up.
        rendered: whether the text was rendered by the tokenizer's chat template.
    """

    text: str
    start: int
    question: str
    query: str
    rendered: bool


@dataclass(frozen=True)
class ChatFormat:
    """What a chat template writes around a user turn, as the tokenizer decodes it.

    Attributes:
        before: ends just where a user's words begin.
        after: begins just where they end.
        end: what follows an assistant's words.
    """

    before: str
    after: str
    end: str

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> ChatFormat | None:
        """The format of a tokenizer's chat template, found by rendering a conversation.

        None where there is no template, or one that does not write turns of plain text with marks around them.
        """
        if not tokenizer.chat_template:
            return None
        roles = ("user", "assistant", "user")
        messages = [{"role": role, "content": probe} for role, probe in zip(roles, _PROBES, strict=True)]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        # as it reads in a prompt that comes back from token ids
        text = decode(tokenizer, tokenizer(rendered, add_special_tokens=False)["input_ids"])
        if any(text.count(probe) != 1 for probe in _PROBES):
            return None
        opening, rest = text.split(_PROBES[0])
        to_assistant, rest = rest.split(_PROBES[1])
        to_user, to_generation = rest.split(_PROBES[2])
        before = _common_prefix(opening[::-1], to_user[::-1])[::-1]
        after = _common_prefix(to_assistant, to_generation)
        return cls(before, after, to_user) if before and after else None


def read_prompts(tokenizer: PreTrainedTokenizerBase, input_ids: Tensor, attention_mask: Tensor | None) -> list[Prompt]:
    """What each row of `(batch, prompt)` token ids asks.

    Without a mask, pad tokens at either end of a row are left away, as `generate` does.
    """
    chat = ChatFormat.of(tokenizer)
    rows = []
    for i, row in enumerate(input_ids.tolist()):
        if attention_mask is not None:
            ids = [token for token, seen in zip(row, attention_mask[i].tolist(), strict=True) if seen]
        else:
            ids = _without_padding(row, tokenizer.pad_token_id, tokenizer.eos_token_id)
        prompt = read_prompt(decode(tokenizer, ids), chat)
        if not prompt.rendered:
            # what the tokenizer puts around a text is no part of what is asked
            question = str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
            prompt = replace(prompt, question=question, query=question)
        rows.append(prompt)
    return rows


def read_prompt(text: str, chat: ChatFormat | None) -> Prompt:
    """What a prompt asks, given the format of the tokenizer's chat template."""
    turns = _user_turns(text, chat) if chat else []
    if not turns:
        question = text.strip()
        return Prompt(text, 0, question, question, rendered=False)
    start, question = turns[-1]
    before = turns[-2][1] if len(turns) > 1 else None
    return Prompt(text, start, question, query_of(question, before), rendered=True)


def as_prompt(tokenizer: PreTrainedTokenizerBase, question: str) -> Prompt:
    """The prompt that asks a question: a user turn where there is a chat template, or else the question alone."""
    chat = ChatFormat.of(tokenizer)
    if chat is None:
        text = decode(tokenizer, tokenizer(question)["input_ids"])
        return Prompt(text, 0, question, question, rendered=False)
    messages = [{"role": "user", "content": question}]
    text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    return read_prompt(text, chat)


def query_of(question: str, before: str | None) -> str:
    """What the router judges: a user's turn, after the user's turn before it where it is a short follow-up."""
    return f"{before} {question}" if before is not None and is_follow_up(question) else question


def is_follow_up(question: str) -> bool:
    """Whether a turn is short and leans on the one before it ("and who ran it before?")."""
    return len(question.split()) <= FOLLOW_UP_WORDS and _REFERRING.search(question.strip()) is not None


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The exact text of token ids, special tokens written out."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _user_turns(text: str, chat: ChatFormat) -> list[tuple[int, str]]:
    turns = []
    position = text.find(chat.before)
    while position >= 0:
        start = position + len(chat.before)
        end = text.find(chat.after, start)
        turns.append((start, text[start : end if end >= 0 else len(text)].strip()))
        position = text.find(chat.before, start)
    return turns


def _without_padding(row: list[int], pad: int | None, eos: int | None) -> list[int]:
    if pad is None or pad == eos:
        return row
    start, end = 0, len(row)
    while start < end and row[start] == pad:
        start += 1
    while end > start and row[end - 1] == pad:
        end -= 1
    return row[start:end]


def _common_prefix(left: str, right: str) -> str:
    length = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        length += 1
    return left[:length]
