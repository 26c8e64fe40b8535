"""What a prompt asks: the text of each row, and where in it the query stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

# words by which a question leans on the one before it
_REFERRING = re.compile(
    r"\b(it|its|he|him|his|she|her|hers|they|them|their|theirs|that|this|those|these|there|then|one|same|else|instead)\b"
    r"|^(and|or|but|so|also|what about|how about|since when|until when)\b|^why\W*$",
    re.IGNORECASE,
)
# what tells a turn that asks from one that closes a topic ("thanks, that helps"): a question mark, or how it begins
_ASKING = re.compile(
    r"\?|^\W*((and|or|but|so|also|then|ok|okay|well|now|please)\b\W*)*"
    r"(who|whom|whose|what|which|when|where|why|how|since|until|is|are|am|was|were|do|does|did|has|have|had|can|could|"
    r"will|would|shall|should|may|might|must|tell|name|give|list|show|say|explain|describe|find|remind)\b"
    r"|^\W*(and|or|also)\b|^\W*(its|his|her|their)(\W+\w+){1,3}\W*$",
    re.IGNORECASE,
)
# a turn that begins so, and asks nothing, is passed over by a follow-up
_REMARK = re.compile(
    r"^\W*(thank you|thanks|thx|ok|okay|great|good|nice|cool|perfect|alright|wow|interesting|got it|understood|"
    r"i see|i know|i knew|that's|that is)\b",
    re.IGNORECASE,
)
FOLLOW_UP_WORDS = 12
_PROBES = ("probe-one", "probe-two", "probe-three")
_SYSTEM_PROBE = "probe-system"


@dataclass(frozen=True)
class Prompt:
    """One row as text.

    Attributes:
        text: the whole prompt, special tokens written out, padding left away.
        start: where in `text` the last user turn begins; where the prompt is no rendered conversation, what comes
            after the special tokens that open it.
        question: the last user turn, or the whole prompt.
        query: what the router judges: the question, after the turn before it where it is a short follow-up; remarks
            such as thanks are passed over.
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
        system_end: what stands between a system message and the user's words where both are in one turn; empty where
            no mark does.
    """

    before: str
    after: str
    end: str
    system_end: str = ""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> ChatFormat | None:
        """The format of a tokenizer's chat template, found by rendering a conversation.

        None where there is no template, or one that does not write turns of plain text with marks around them.
        """
        if not tokenizer.chat_template:
            return None
        roles = ("user", "assistant", "user")
        messages = [{"role": role, "content": probe} for role, probe in zip(roles, _PROBES, strict=True)]
        text = _rendered(tokenizer, messages)
        if any(text.count(probe) != 1 for probe in _PROBES):
            return None
        opening, rest = text.split(_PROBES[0])
        to_assistant, rest = rest.split(_PROBES[1])
        to_user, to_generation = rest.split(_PROBES[2])
        before = _common_prefix(opening[::-1], to_user[::-1])[::-1]
        after = _common_prefix(to_assistant, to_generation)
        if not (before and after):
            return None
        try:
            text = _rendered(tokenizer, [{"role": "system", "content": _SYSTEM_PROBE}, *messages])
        except TemplateError:  # the template takes no system message
            return cls(before, after, to_user)
        head, found, rest = text.partition(_SYSTEM_PROBE)
        between = re.split("|".join(_PROBES), rest)[0]
        if found and before in head:  # the system message is a part of the user's turn
            return cls(before, after, to_user, between if between.strip() else "")
        # what closes an answer and what opens a text may end alike, in the middle of a mark
        return cls(_common_prefix(before[::-1], between[::-1])[::-1] or before, after, to_user)


def read_prompts(tokenizer: PreTrainedTokenizerBase, input_ids: Tensor, attention_mask: Tensor | None) -> list[Prompt]:
    """What each row of `(batch, prompt)` token ids asks.

    Without a mask, pad tokens at either end of a row are left away, as `generate` does.
    """
    chat = ChatFormat.of(tokenizer)
    rows = []
    for i, row in enumerate(input_ids.tolist()):
        if attention_mask is not None:
            # behind a cache the mask is longer: it begins with what was read before
            seen = attention_mask[i].tolist()[-len(row) :]
            ids = [token for token, read in zip(row, seen, strict=True) if read]
        else:
            ids = _without_padding(row, tokenizer.pad_token_id, tokenizer.eos_token_id)
        rows.append(_conversation(decode(tokenizer, ids), chat) or _running(tokenizer, ids))
    return rows


def read_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> Prompt:
    """What a text asks: a conversation as the chat template renders it, or any other text.

    Such a text is read with the special tokens that the tokenizer puts around one, unless they are written out.
    """
    conversation = _conversation(text, ChatFormat.of(tokenizer))
    return conversation or running_prompt(tokenizer, text)


def running_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> Prompt:
    """The prompt that goes on from a text outside of any conversation; where it is empty, from what begins a text."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not {*ids[:1], *ids[-1:]} & set(tokenizer.all_special_ids):
        ids = tokenizer(text)["input_ids"]
    beginning = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return _running(tokenizer, ids or [beginning])


def as_prompt(tokenizer: PreTrainedTokenizerBase, question: str) -> Prompt:
    """The prompt that asks a question: a user turn where there is a chat template, or else the question alone."""
    chat = ChatFormat.of(tokenizer)
    if chat is not None:
        messages = [{"role": "user", "content": question}]
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        conversation = _conversation(text, chat)
        if conversation is not None:
            return conversation
    return replace(_running(tokenizer, tokenizer(question)["input_ids"]), question=question, query=question)


def query_of(question: str, before: str | None) -> str:
    """What the router judges: a user's turn, after the user's turn before it where it is a short follow-up."""
    return f"{before} {question}" if before is not None and is_follow_up(question) else question


def is_follow_up(question: str) -> bool:
    """Whether a turn is short, leans on the one before it and asks something ("and who ran it before?")."""
    question = question.strip()
    short = len(question.split()) <= FOLLOW_UP_WORDS
    return short and all(found.search(question) is not None for found in (_REFERRING, _ASKING))


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The exact text of token ids, special tokens written out."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _conversation(text: str, chat: ChatFormat | None) -> Prompt | None:
    """What a text asks that the chat template rendered; None where it is another."""
    turns = _user_turns(text, chat) if chat else []
    if not turns:
        return None
    start, question = turns[-1]
    earlier = [turn for _, turn in turns[:-1] if _ASKING.search(turn) or not _REMARK.search(turn)]
    return Prompt(text, start, question, query_of(question, earlier[-1] if earlier else None), rendered=True)


def _running(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> Prompt:
    """What token ids ask that are no conversation; special tokens around the text are no part of what is asked."""
    special = set(tokenizer.all_special_ids)
    opening = list(takewhile(special.__contains__, ids))
    question = str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
    return Prompt(decode(tokenizer, ids), len(decode(tokenizer, opening)), question, question, rendered=False)


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    """A conversation as it reads in a prompt that comes back from token ids."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return decode(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"])


def _user_turns(text: str, chat: ChatFormat) -> list[tuple[int, str]]:
    turns = []
    position = text.find(chat.before)
    while position >= 0:
        start = position + len(chat.before)
        end = text.find(chat.after, start)
        end = end if end >= 0 else len(text)
        if chat.system_end and (system := text.find(chat.system_end, start, end)) >= 0:
            start = system + len(chat.system_end)
        turns.append((start, text[start:end].strip()))
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
