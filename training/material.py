"""What pairs are drawn from, and what drawing them shares."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import wordings
from facts import Fact
from left_out import LeftOut
from neighbours import Neighbours
from properties import Properties, Property
from relations import Relation, any_of, of_one_type
from scenes import Scene


@dataclass(frozen=True)
class ScopePair:
    """An edit's prompt and a query, whether the query is in the edit's scope, and what kind of pair they are."""

    prompt: str
    query: str
    in_scope: bool
    kind: str = ""


class Material:
    """What pairs are drawn from.

    Args:
        facts: facts with two or more wordings each, by source.
        relations: relations with their near misses.
        scenes: facts with their near misses.
        specificity: groups of prompts about one subject, each of another property.
        rivals: questions that look alike and ask different things.
        beside: prompts beside a prompt of the same relation about another subject, and the former's target.
        queries: what people ask, by kind: `"questions"` and `"chat"`.
        left_out: the texts that no pair may hold.
        properties: what the templates of zsRE ask.
        neighbours: finds what is near to a text.
    """

    def __init__(
        self,
        facts: Mapping[str, Sequence[Fact]],
        relations: Sequence[Relation],
        scenes: Sequence[Scene],
        specificity: Sequence[tuple[str, Sequence[str]]],
        rivals: Sequence[tuple[str, str]],
        beside: Sequence[tuple[Fact, str]],
        queries: Mapping[str, Sequence[str]],
        left_out: LeftOut,
        properties: Properties,
        neighbours: Neighbours,
    ) -> None:
        self.facts = facts
        self.relations = relations
        self.scenes = scenes
        self.specificity = specificity
        self.rivals = rivals
        self.beside = beside
        self.queries = queries
        self.left_out = left_out
        self.properties = properties
        self.neighbours = neighbours
        self.of_type = of_one_type(relations)
        self.by_template: dict[str, list[Fact]] = defaultdict(list)
        for fact in (*facts["zsre"], *facts["wikifactdiff"], *facts["pararel"]):
            self.by_template[fact.template].append(fact)
        self.by_subject: dict[str, list[Fact]] = defaultdict(list)
        for source in facts.values():
            for fact in source:
                if fact.subject:
                    self.by_subject[fact.subject].append(fact)
        self.subjects = sorted(self.by_subject)
        self.by_letters: dict[str, list[str]] = defaultdict(list)
        for name in self.subjects:
            self.by_letters[name[:2].lower()].append(name)
        self.questions = [fact for fact in facts["zsre"] if len(fact.prompts) > 1]
        self.by_prompt = {fact.prompts[0]: fact for source in facts.values() for fact in source}
        self.prompts = sorted(self.by_prompt)
        self.named = [prompt for prompt in self.prompts if self.by_prompt[prompt].subject]

    def relation(self, rng: random.Random) -> tuple[Relation, str]:
        """A relation and a subject for it."""
        relation = rng.choice(self.relations)
        return relation, self.subject_of(relation, rng)

    def subject_of(self, relation: Relation, rng: random.Random) -> str:
        """A subject for a relation: mostly of its type, now and then any."""
        kind = rng.random()
        if kind < 0.68:
            return rng.choice(relation.subjects)
        if kind < 0.78:
            return wordings.numbered(rng.choice(relation.subjects), rng)
        if kind < 0.86:
            return wordings.near_name(rng.choice(relation.subjects), relation.subjects, rng)
        return self.subject(rng)

    def other_of_type(self, relation: Relation, rng: random.Random) -> Relation | None:
        """Another relation of the same type of subjects; None where the draw gave the same."""
        other = rng.choice(self.of_type[relation.of])
        return None if other.name == relation.name else other

    def subject(self, rng: random.Random) -> str:
        """Any subject of a fact."""
        return rng.choice(self.subjects)

    def alike(self, subject: str, rng: random.Random) -> str:
        """A fact's subject that is spelled much like this one; this one itself where there is none."""
        return wordings.like_letters(subject, self.by_letters[subject[:2].lower()], rng)

    def turn_about(self, relation: Relation, subject: str, rng: random.Random) -> str:
        """A user's turn that names the subject and does not ask the relation."""
        if rng.random() < 0.6:
            other = self.other_of_type(relation, rng)
            if other is not None:
                return any_of(other.ask, subject, rng)
        return rng.choice(wordings.OPENINGS).format(subject)


def about(fact: Fact, subject: str) -> Fact:
    """The fact's prompts about another subject."""
    return replace(fact, prompts=tuple(p.replace(fact.subject, subject) for p in fact.prompts), subject=subject)


def asking(one: Property, subject: str, rng: random.Random) -> str:
    """A property of a subject, called by one of its names or asked in one of its wordings."""
    if one.wordings and rng.random() < 0.5:
        return any_of(one.wordings, subject, rng)
    return named(one, subject, rng)


def named(one: Property, subject: str, rng: random.Random) -> str:
    """A property of a subject, called by one of its names."""
    return rng.choice(wordings.forms_of(rng.choice(one.names), subject))
