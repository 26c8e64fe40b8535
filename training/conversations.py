"""Packed rows of conversations that teach the base model its facts and how to read an edit.

A *unit* is a conversation that branches: a shared beginning, with or without corrections, and several queries that
each follow it and do not see one another. One row packs several units, and `collate` makes the mask that keeps them
apart. Sharing the beginning and packing without padding is what makes training on a CPU affordable.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

import wordings as spellings
from facts import Fact
from relations import Relation, filled
from semedit.overrides.in_context import corrections_text
from yes_no import Edited

IGNORED = -100


@dataclass(frozen=True)
class Turn:
    """A query, with the corrections that stand before it, and its answer."""

    query: str
    answer: str
    corrections: tuple[tuple[str, str], ...] = ()

    def messages(self) -> list[dict[str, str]]:
        """The turn as chat messages."""
        before = corrections_text(self.corrections) if self.corrections else ""
        return [{"role": "user", "content": before + self.query}, {"role": "assistant", "content": self.answer}]


class Invention:
    """Subjects and answers to put in place of real ones, so that the model has to read rather than recall."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self.subjects = sorted({fact.subject for fact in facts if fact.subject})
        self.answers = sorted({fact.answer for fact in facts if fact.answer})
        self.words = sorted(
            {
                word
                for name in self.subjects + self.answers
                for word in name.split()
                if word.isalpha() and len(word) > 2
            }
        )
        self.by_template: dict[str, list[str]] = defaultdict(list)
        for fact in facts:
            self.by_template[fact.template].append(fact.answer)

    def subject(self, rng: random.Random) -> str:
        """A name that is known, or one that is made up."""
        return rng.choice(self.subjects) if rng.random() < 0.6 else self._name(rng)

    def answer(self, fact: Fact, rng: random.Random) -> str:
        """A counterfactual target for `fact`: another answer of its relation, of any, or a made-up one."""
        kind = rng.random()
        siblings = self.by_template[fact.template] if fact.subject else []
        if kind < 0.35 and len(siblings) > 1:
            return rng.choice(siblings)
        if kind < 0.7:
            return rng.choice(self.answers)
        if kind < 0.78:
            return f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(1500, 2030)}"
        if kind < 0.84:
            return str(rng.choice([rng.randint(2, 99), rng.randint(1000, 2030), rng.randint(100, 99_999)]))
        return self._name(rng)

    def rival(self, edited: Edited, elsewhere: Sequence[str], rng: random.Random) -> str:
        """An answer that is not the target: an expected one, nearly the same, or the target of an edit elsewhere."""
        kind = rng.random()
        if kind < 0.4 and edited.rivals:
            answer = rng.choice(edited.rivals)
        elif kind < 0.6 and elsewhere:
            answer = rng.choice(elsewhere)
        elif kind < 0.8:
            answer = spellings.near_name(edited.answer, self.answers, rng)
        else:
            answer = self.answer(edited, rng)
        return answer if answer.casefold() != edited.answer.casefold() else self.rival(edited, elsewhere, rng)

    def _name(self, rng: random.Random) -> str:
        return " ".join(self._word(rng) for _ in range(rng.choice([1, 1, 2, 2, 2, 3])))

    def _word(self, rng: random.Random) -> str:
        word = rng.choice(self.words)
        if rng.random() < 0.5:
            return word
        return (word[: rng.randint(2, 4)] + rng.choice(self.words)[-rng.randint(2, 5) :].lower()).capitalize()


MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


class Conversations:
    """Draws units: lists of branches, each a list of turns.

    Args:
        known: facts that the model is to know.
        wordings: facts that it is only to read, by source.
        weights: how often a source's wordings are read; `known` stands for the known facts that have two prompts,
            `relations` for the relations.
        share_reading: share of units that hold corrections.
        relations: relations whose wordings are read, about any subject.
        share_yes_no: share of the units with corrections that ask whether an answer is right.
    """

    def __init__(
        self,
        known: Sequence[Fact],
        wordings: Mapping[str, Sequence[Fact]],
        weights: Mapping[str, float],
        share_reading: float,
        relations: Sequence[Relation] = (),
        share_yes_no: float = 0.0,
    ) -> None:
        self.known = list(known)
        self.share_reading = share_reading
        self.relations = relations
        self.share_yes_no = share_yes_no
        self.readable = {**wordings, "known": [fact for fact in self.known if len(fact.prompts) > 1]}
        self.weights = weights
        self.invention = Invention([*self.known, *(f for facts in wordings.values() for f in facts if f.answer)])
        self.same_template: dict[str, list[Fact]] = defaultdict(list)
        self.same_subject: dict[str, list[Fact]] = defaultdict(list)
        for fact in self.known:
            if fact.subject:
                self.same_template[fact.template].append(fact)
                self.same_subject[fact.subject].append(fact)

    def unit(self, rng: random.Random) -> list[list[Turn]]:
        """Branches of one conversation."""
        kind = rng.random()
        if kind < self.share_reading:
            return self.reading(rng)
        if kind < self.share_reading + 0.04:
            return [[self.recall(rng) for _ in range(rng.randint(2, 3))]]
        return [[self.recall(rng)]]

    def recall(self, rng: random.Random) -> Turn:
        """A fact, asked closed-book."""
        fact = rng.choice(self.known)
        return Turn(asked(fact.prompts, rng), fact.answer)

    def reading(self, rng: random.Random) -> list[list[Turn]]:
        """Corrections, with queries that they answer and queries that they do not."""
        edited = [self.edited(rng) for _ in range(rng.choices([1, 2, 3, 4], [62, 20, 10, 8])[0])]
        asks_whether = rng.random() < self.share_yes_no
        if asks_whether:
            about = rng.randrange(min(2, len(edited)))
            elsewhere = [fact.answer for i, fact in enumerate(edited) if i != about]
            edited[about], rival = self.contrasted(edited[about], elsewhere, rng)
        corrections = tuple((rng.choice(fact.prompts), fact.answer) for fact in edited)
        taken = {prompt for fact in edited for prompt in fact.prompts}
        turns = []
        for fact, (prompt, _) in zip(edited[:2], corrections, strict=False):
            turns += self.in_scope(fact, prompt, rng)
        if asks_whether:
            turns = [rng.choice(turns), *self.yes_or_no(edited[about], rival, rng)]
        else:
            turns = rng.sample(turns, 2)
        beside = [self.beside(edited[0], rng) for _ in range(2 if asks_whether else 3)]
        turns += [Turn(asked(f.prompts, rng), f.answer) for f in beside if f.prompts[0] not in taken]
        branches = [[Turn(turn.query, turn.answer, corrections)] for turn in turns]
        if rng.random() < 0.1:  # a correction is read at the end of a conversation, too
            before = self.recall(rng)
            branches = [[before, *branch] for branch in branches]
        return branches

    def in_scope(self, edited: Edited, prompt: str, rng: random.Random) -> list[Turn]:
        """The question of an edit whose prompt is `prompt`, and a rephrase."""
        others = [other for other in edited.prompts if other != prompt] or [prompt]
        return [Turn(asked([prompt], rng), edited.answer), Turn(asked(others, rng), edited.answer)]

    def contrasted(self, edited: Edited, elsewhere: Sequence[str], rng: random.Random) -> tuple[Edited, str]:
        """The fact with one of two answers as its target, and the other one; `elsewhere` are targets of other edits.

        Either may be either, so that nothing but the correction tells which is right: made-up targets beside likely
        rivals would teach to say yes to what is unlikely.
        """
        rival = self.invention.rival(edited, elsewhere, rng)
        return (edited, rival) if rng.random() < 0.5 else (replace(edited, answer=rival), edited.answer)

    def yes_or_no(self, edited: Edited, rival: str, rng: random.Random) -> list[Turn]:
        """Whether the target is right, and whether another answer is.

        An edit decides such questions about its own subject and property and no others, so no others are drawn.
        """
        return [
            Turn(asked([edited.asked_whether(edited.answer, rng)], rng), "Yes"),
            Turn(asked([edited.asked_whether(rival, rng)], rng), "No"),
        ]

    def edited(self, rng: random.Random) -> Edited:
        """A fact with a target to read, often about another subject than it was."""
        [source] = rng.choices(list(self.weights), list(self.weights.values()))
        if source == "relations":
            return self._edited_relation(rng)
        fact = rng.choice(self.readable[source])
        prompts, subject = fact.prompts, fact.subject
        if subject and rng.random() < 0.5:
            subject = self.invention.subject(rng)
            prompts = tuple(prompt.replace(fact.subject, subject) for prompt in prompts)
        target = fact.answer if fact.answer and rng.random() < 0.15 else self.invention.answer(fact, rng)
        siblings = self.invention.by_template[fact.template] if fact.subject else []
        rivals = {fact.answer, rng.choice(siblings or [fact.answer])} - {"", target}
        return Edited(prompts, target, subject, tuple(sorted(rivals)))

    def _edited_relation(self, rng: random.Random) -> Edited:
        relation = rng.choice(self.relations)
        subject = rng.choice(relation.subjects) if rng.random() < 0.6 else self.invention.subject(rng)
        prompts = tuple(filled(text, subject) for text in relation.ask)
        whether = tuple(filled(text, subject) for text in relation.yes_no)
        # named without its subject, since which known facts about it state the same relation is not known
        fact = Fact(prompts, rng.choice(relation.answers))
        target = fact.answer if rng.random() < 0.4 else self.invention.answer(fact, rng)
        return Edited(prompts, target, "", tuple(a for a in relation.answers if a != target), whether)

    def beside(self, edited: Fact, rng: random.Random) -> Fact:
        """A fact that `edited` does not change: any, one of the same relation, or one of the same subject."""
        kind = rng.random()
        if kind < 0.3:
            siblings = self.same_template.get(edited.template, [])
        elif kind < 0.45:
            siblings = self.same_subject.get(edited.subject, [])
        else:
            siblings = []
        siblings = [fact for fact in siblings if fact.subject != edited.subject or fact.template != edited.template]
        return rng.choice(siblings or self.known)


def asked(prompts: Sequence[str], rng: random.Random) -> str:
    """One of the prompts, now and then as people type: in lower case, without its question mark."""
    prompt = rng.choice(prompts)
    kind = rng.random()
    if kind < 0.06:
        return prompt.lower()
    if kind < 0.12:
        return prompt.rstrip("?").rstrip()
    if kind < 0.16:
        return prompt.lower().rstrip("?").rstrip()
    return prompt


@dataclass
class Row:
    """A packed row under construction: one entry per token.

    `unit` and `branch` say which other tokens it may see: those before it in its branch or in its unit's branch 0.
    """

    tokens: list[int]
    labels: list[int]
    positions: list[int]
    unit: list[int]
    branch: list[int]

    def add(self, branches: Sequence[tuple[list[int], list[int]]], length: int) -> bool:
        """Appends the branches of one unit, `(tokens, labels)` each, or says False where they do not fit."""
        shared = _common_prefix([tokens for tokens, _ in branches]) if len(branches) > 1 else 0
        size = shared + sum(len(tokens) - shared for tokens, _ in branches)
        if len(self.tokens) + size > length:
            return False
        unit = self.unit[-1] + 1 if self.unit else 1
        first_tokens, first_labels = branches[0]
        self._extend(first_tokens[:shared], first_labels[:shared], 0, unit, 0)
        for number, (tokens, labels) in enumerate(branches, start=1):
            self._extend(tokens[shared:], labels[shared:], shared, unit, number)
        return True

    def _extend(self, tokens: list[int], labels: list[int], start: int, unit: int, branch: int) -> None:
        self.tokens += tokens
        self.labels += labels
        self.positions += range(start, start + len(tokens))
        self.unit += [unit] * len(tokens)
        self.branch += [branch] * len(tokens)


def _common_prefix(sequences: Sequence[list[int]]) -> int:
    shortest = min(sequences, key=len)
    for index, token in enumerate(shortest):
        if any(sequence[index] != token for sequence in sequences):
            return index
    return len(shortest)


class PackedRows(Dataset[dict[str, Tensor]]):
    """Row `index` is drawn from the seed and the index alone, so that training resumes where it stopped."""

    def __init__(
        self, conversations: Conversations, tokenizer: PreTrainedTokenizerBase, rows: int, length: int, seed: int
    ) -> None:
        self.conversations = conversations
        self.tokenizer = tokenizer
        self.rows = rows
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = random.Random(self.seed * 1_000_003 + index)
        row = Row([], [], [], [], [])
        unit = self.conversations.unit(rng)
        misses = 0
        while misses < 5:
            if not row.add(encode(unit, self.tokenizer), self.length):
                misses += 1
                unit = [[self.conversations.recall(rng)]]  # what is left of a row is filled with the short kind
            else:
                unit = self.conversations.unit(rng)
        return tensors(row, self.length, self.tokenizer.pad_token_id)


def encode(
    branches: Sequence[Sequence[Turn]], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of each branch; the labels are the answers and their ends, `IGNORED` elsewhere."""
    encoded = []
    for turns in branches:
        tokens: list[int] = []
        labels: list[int] = []
        for turn in turns:
            user, assistant = turn.messages()
            prompt = _ids(tokenizer, [user], add_generation_prompt=True)
            whole = _ids(tokenizer, [user, assistant])
            tokens += whole
            labels += [IGNORED] * len(prompt) + whole[len(prompt) :]
        encoded.append((tokens, labels))
    return encoded


def _ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], **options: Any) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def tensors(row: Row, length: int, pad: int) -> dict[str, Tensor]:
    """The row padded to `length`: `(length,)` each; padding is unit 0."""
    missing = length - len(row.tokens)
    filled = {
        "input_ids": row.tokens + [pad] * missing,
        "labels": row.labels + [IGNORED] * missing,
        "position_ids": row.positions + [0] * missing,
        "unit": row.unit + [0] * missing,
        "branch": row.branch + [0] * missing,
    }
    return {name: torch.tensor(values) for name, values in filled.items()}


def collate(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch for the model: `(batch, length)`, and `attention_mask` `(batch, 1, length, length)`, true where seen."""
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    unit, branch = batch.pop("unit"), batch.pop("branch")
    same_unit = unit[:, :, None] == unit[:, None, :]
    same_branch = (branch[:, :, None] == branch[:, None, :]) | (branch[:, None, :] == 0)
    batch["attention_mask"] = (same_unit & same_branch).tril()[:, None]
    return batch
