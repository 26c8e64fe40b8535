"""Pairs of an edit's prompt and a query, in scope or not, for training the scope classifier.

Each kind of pair is drawn by one method of `PairSource`, named in `KINDS`; the config says how many of each there are.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tqdm import tqdm

import wordings
from facts import Fact
from neighbours import Neighbours
from properties import Properties, Property
from relations import Relation, any_of, of_one_type
from scenes import Scene


@dataclass(frozen=True)
class ScopePair:
    """An edit's prompt and a query, and whether the query is in the edit's scope.

    `target` is the edit's target where it is known.
    """

    prompt: str
    query: str
    in_scope: bool
    kind: str
    target: str = ""


class PairSource:
    """Draws pairs of each kind.

    Args:
        facts: facts with two or more wordings each, by source.
        relations: relations with their near misses.
        scenes: facts with their near misses.
        specificity: groups of prompts about one subject, each of another property.
        rivals: questions that look alike and ask different things.
        beside: prompts beside a prompt of the same relation about another subject, and the former's target.
        queries: what people ask, by kind: `"questions"` and `"chat"`.
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
        neighbours: Neighbours,
    ) -> None:
        self.facts = facts
        self.relations = relations
        self.scenes = scenes
        self.specificity = specificity
        self.rivals = rivals
        self.beside = beside
        self.queries = queries
        self.neighbours = neighbours
        self.of_type = of_one_type(relations)
        self.properties = Properties({fact.template for fact in facts["zsre"] if fact.subject in fact.prompts[0]})
        self.by_template: dict[str, list[Fact]] = defaultdict(list)
        for fact in (*facts["zsre"], *facts["wikifactdiff"], *facts["pararel"]):
            self.by_template[fact.template].append(fact)
        self.subjects = sorted({f.subject for source in facts.values() for f in source if f.subject})
        self.by_letters: dict[str, list[str]] = defaultdict(list)
        for name in self.subjects:
            self.by_letters[name[:2].lower()].append(name)
        self.questions = [fact for fact in facts["zsre"] if len(fact.prompts) > 1]
        self.answers = {fact.prompts[0]: fact.answer for source in facts.values() for fact in source}
        self.prompts = sorted(self.answers)

    def build(self, counts: Mapping[str, int], rng: random.Random) -> list[ScopePair]:
        """As many pairs of each kind as `counts` asks for, without repeats, shuffled."""
        pairs: dict[tuple[str, str], ScopePair] = {}
        for kind, count in tqdm(counts.items(), desc="pairs"):
            draw: Callable[[PairSource, random.Random], ScopePair | None] = KINDS[kind]
            drawn = 0
            for _ in range(4 * count):  # a source may run dry
                if drawn == count:
                    break
                pair = draw(self, rng)
                if pair is None or (pair.prompt, pair.query) in pairs:
                    continue
                if pair.in_scope or pair.prompt.lower() != pair.query.lower():
                    pairs[pair.prompt, pair.query] = replace(pair, kind=kind)
                    drawn += 1
        built = list(pairs.values())
        rng.shuffle(built)
        return built

    def own_pairs(self) -> list[ScopePair]:
        """Every wording of a user's own edits beside every other."""
        return [
            ScopePair(prompt, query, True, "own paraphrase", fact.answer)
            for fact in self.facts["own"]
            for prompt in fact.prompts
            for query in fact.prompts
            if prompt != query
        ]

    # --- in scope

    def paraphrase(self, rng: random.Random) -> ScopePair | None:
        """Two wordings of one fact, often about another subject."""
        if rng.random() < 0.4:
            relation, subject = self._relation(rng)
            prompt, query = (any_of(relation.ask, subject, rng) for _ in range(2))
            return ScopePair(prompt, wordings.same(query, rng), True, "", rng.choice(relation.answers))
        [source] = rng.choices(list(_PARAPHRASES), list(_PARAPHRASES.values()))
        fact = rng.choice(self.facts[source])
        if fact.subject and rng.random() < 0.4:
            fact = _about(fact, self._subject(rng))
        prompt, query = rng.sample(fact.prompts, 2) if len(fact.prompts) > 1 else fact.prompts * 2
        return ScopePair(prompt, wordings.same(query, rng), True, "", fact.answer)

    def same_question(self, rng: random.Random) -> ScopePair | None:
        """Two questions of real users that ask the same."""
        prompt, query = rng.sample(rng.choice(self.facts["qqp"]).prompts, 2)
        return ScopePair(prompt, wordings.same(query, rng), True, "")

    def scene(self, rng: random.Random) -> ScopePair | None:
        """A scene's prompt, and a query in its scope or its other prompt."""
        scene = rng.choice(self.scenes)
        prompt = rng.choice(scene.prompts)
        query = rng.choice([*scene.in_scope, *scene.prompts])
        return ScopePair(prompt, wordings.same(query, rng), True, "", scene.target)

    def statement_and_question(self, rng: random.Random) -> ScopePair | None:
        """A property named in a noun phrase, asked as a beginning, a question, keywords or a request."""
        subject, prompts = rng.choice(self.specificity)
        property_ = wordings.property_of(rng.choice(prompts), subject)
        kind = rng.random()
        if kind < 0.4:
            fact = rng.choice(self.facts["zsre"])
            asked = self.properties.asked_by(fact.template)
            if asked is None:
                return None
            prompt, query = rng.choice(fact.prompts), self._named(asked, fact.subject, rng)
            if rng.random() < 0.5:
                prompt, query = query, prompt
            return ScopePair(prompt, wordings.same(query, rng), True, "", fact.answer)
        if kind < 0.6:
            property_ = rng.choice(rng.choice(self.properties.all).names)
        if property_ is None:
            return None
        if rng.random() < 0.5:
            subject = self._subject(rng)
        prompt, query = rng.sample(wordings.forms_of(property_, subject), 2)
        return ScopePair(prompt, wordings.same(query, rng), True, "")

    def yes_or_no(self, rng: random.Random) -> ScopePair | None:
        """Whether some answer is the answer."""
        if rng.random() < 0.6:
            relation, subject = self._relation(rng)
            if not relation.yes_no:
                return None
            query = any_of(relation.yes_no, subject, rng).replace("[A]", rng.choice(relation.answers))
            return ScopePair(any_of(relation.ask, subject, rng), query, True, "", rng.choice(relation.answers))
        fact = rng.choice(self.facts[rng.choice(["pokemqa", "counterfact", "pararel"])])
        answer = fact.answer if rng.random() < 0.5 else rng.choice(self.by_template[fact.template] or [fact]).answer
        statement = f"{fact.prompts[0]} {answer}"
        query = rng.choice(wordings.WHETHER).format(statement)
        return ScopePair(rng.choice(fact.prompts), query, True, "", fact.answer)

    def follow_up(self, rng: random.Random) -> ScopePair | None:
        """A turn that leans on the one before, in scope; now and then after an edit's own words."""
        relation, subject = self._relation(rng)
        if not relation.follow_up:
            return None
        query = f"{self._turn_about(relation, subject, rng)} {rng.choice(relation.follow_up)}"
        return ScopePair(any_of(relation.ask, subject, rng), query, True, "", rng.choice(relation.answers))

    def asked_after_another(self, rng: random.Random) -> ScopePair | None:
        """A statement about something else, and then the edit's question."""
        (fact, _), (noise, _) = rng.choice(self.beside), rng.choice(self.beside)
        before = f"{noise.prompts[0]} {noise.answer}." if rng.random() < 0.7 else rng.choice(self.queries["questions"])
        return ScopePair(rng.choice(fact.prompts), f"{before} {rng.choice(fact.prompts)}", True, "", fact.answer)

    # --- out of scope

    def other_subject(self, rng: random.Random) -> ScopePair | None:
        """The same relation of another subject."""
        kind = rng.random()
        if kind < 0.35:
            relation, subject = self._relation(rng)
            other = self._subject_of(relation, rng)
            if other == subject:
                return None
            prompt, query = any_of(relation.ask, subject, rng), any_of(relation.ask, other, rng)
            return ScopePair(prompt, wordings.same(query, rng), False, "", rng.choice(relation.answers))
        if kind < 0.6:
            fact, other = rng.choice(self.beside)
            return ScopePair(rng.choice(fact.prompts), wordings.same(other, rng), False, "", fact.answer)
        fact = rng.choice(self.facts[rng.choice(["zsre", "zsre", "pokemqa", "wikifactdiff", "pararel"])])
        if not fact.subject:
            return None
        subject = rng.choice(self.by_template[fact.template] or [fact]).subject
        subject = self._subject(rng) if subject == fact.subject else subject
        return ScopePair(rng.choice(fact.prompts), self._reworded(fact, subject, rng), False, "", fact.answer)

    def near_identical_name(self, rng: random.Random) -> ScopePair | None:
        """The same relation of a subject with nearly the same name."""
        if rng.random() < 0.5:
            relation, subject = self._relation(rng)
            other = wordings.near_name(subject, relation.subjects, rng)
            if other == subject:
                return None
            prompt, query = any_of(relation.ask, subject, rng), any_of(relation.ask, other, rng)
            target = rng.choice(relation.answers)
        else:
            fact = rng.choice(self.facts[rng.choice(["zsre", "counterfact"])])
            if not fact.subject:
                return None
            target = fact.answer
            other = wordings.near_name(fact.subject, self.subjects, rng)
            if rng.random() < 0.4:
                other = wordings.like_letters(fact.subject, self.by_letters[fact.subject[:2].lower()], rng)
            if other == fact.subject:
                return None
            prompt, query = rng.choice(fact.prompts), rng.choice(_about(fact, other).prompts)
        if rng.random() < 0.5:
            prompt, query = query, prompt
        return ScopePair(prompt, wordings.same(query, rng), False, "", target)

    def other_relation(self, rng: random.Random) -> ScopePair | None:
        """Another property of the same subject."""
        kind = rng.random()
        if kind < 0.4:
            relation, subject = self._relation(rng)
            if rng.random() < 0.5:
                query = any_of(relation.near["other"], subject, rng)
            else:
                other = rng.choice(self.of_type[relation.of])
                if other.name == relation.name:
                    return None
                query = any_of(other.ask, subject, rng)
            prompt, target = any_of(relation.ask, subject, rng), rng.choice(relation.answers)
            return ScopePair(prompt, wordings.same(query, rng), False, "", target)
        if kind < 0.5:
            subject, prompts = rng.choice(self.specificity)
            known = self.properties.named(wordings.property_of(rng.choice(prompts), subject) or "")
            if known is None:
                return None
            if rng.random() < 0.5:
                subject = self._subject(rng)
            named = [self._named(one, subject, rng) for one in (known, self.properties.other_than(known, rng))]
            rng.shuffle(named)
            return ScopePair(named[0], named[1], False, "")
        fact = rng.choice(self.facts["zsre"])
        asked = self.properties.asked_by(fact.template)
        if asked is None:
            return None
        if rng.random() < 0.4:
            query = self.properties.template_other_than(asked, rng).replace("[X]", fact.subject)
        else:
            query = self._named(self.properties.other_than(asked, rng), fact.subject, rng)
        prompt = rng.choice(fact.prompts)
        if rng.random() < 0.3:
            prompt, query = query, prompt
        return ScopePair(prompt, wordings.same(query, rng), False, "", fact.answer)

    def near_miss(self, kind: str, rng: random.Random) -> ScopePair | None:
        """A query of a relation's near misses of one kind."""
        relation, subject = self._relation(rng)
        if not relation.near[kind]:
            return None
        query = any_of(relation.near[kind], subject, rng)
        prompt, target = any_of(relation.ask, subject, rng), rng.choice(relation.answers)
        return ScopePair(prompt, wordings.same(query, rng), False, "", target)

    def scene_near_miss(self, rng: random.Random) -> ScopePair | None:
        """A scene's prompt, and a near miss."""
        scene = rng.choice(self.scenes)
        query = wordings.same(rng.choice(scene.out_of_scope), rng)
        return ScopePair(rng.choice(scene.prompts), query, False, "", scene.target)

    def mention(self, rng: random.Random) -> ScopePair | None:
        """A message that mentions the subject, or the question itself, and asks for something else."""
        if rng.random() < 0.5:
            return self.near_miss("mention", rng)
        fact = rng.choice(self.facts[rng.choice(["zsre", "counterfact", "pokemqa"])])
        if rng.random() < 0.4:
            relation, subject = self._relation(rng)
            fact = Fact((any_of(relation.ask, subject, rng),), rng.choice(relation.answers), subject)
        subject = fact.subject or self._subject(rng)
        query = wordings.task(rng.choice(fact.prompts), subject, self._subject(rng), rng)
        return ScopePair(rng.choice(fact.prompts), query, False, "", fact.answer)

    def follow_up_elsewhere(self, rng: random.Random) -> ScopePair | None:
        """A second turn that asks another property or is about another subject."""
        relation, subject = self._relation(rng)
        prompt = any_of(relation.ask, subject, rng)
        other = rng.choice(self.of_type[relation.of])
        kind = rng.random()
        if kind < 0.6:
            if other.name == relation.name or not other.follow_up:
                return None
            before = any_of(relation.ask, subject, rng) if kind < 0.4 else f"Tell me about {subject}."
            query = f"{before} {rng.choice(other.follow_up)}"
            return ScopePair(prompt, query, False, "", rng.choice(relation.answers))
        if not relation.follow_up:
            return None
        elsewhere = self._subject_of(relation, rng)
        if elsewhere == subject:
            return None
        query = f"{self._turn_about(relation, elsewhere, rng)} {rng.choice(relation.follow_up)}"
        return ScopePair(prompt, query, False, "", rng.choice(relation.answers))

    def statement_before(self, rng: random.Random) -> ScopePair | None:
        """The edit's own statement, and then the same question of another subject."""
        fact, other = rng.choice(self.beside)
        if rng.random() < 0.3:
            relation, subject = self._relation(rng)
            other = any_of(relation.ask, self._subject(rng), rng)
            fact = Fact((any_of(relation.ask, subject, rng),), rng.choice(relation.answers), subject)
        return ScopePair(rng.choice(fact.prompts), f"{fact.prompts[0]} {fact.answer}. {other}", False, "", fact.answer)

    def neighbour(self, rng: random.Random) -> ScopePair | None:
        """A prompt among those nearest to another fact's prompt."""
        fact = rng.choice(self.questions)
        near = self.neighbours.nearest(fact.prompts[0])
        return (
            ScopePair(fact.prompts[0], wordings.same(rng.choice(near), rng), False, "", fact.answer) if near else None
        )

    def look_alike(self, rng: random.Random) -> ScopePair | None:
        """Two questions of real users that share words and ask different things."""
        prompt, query = rng.choice(self.rivals)
        return ScopePair(prompt, wordings.same(query, rng), False, "")

    def traffic(self, kind: str, rng: random.Random) -> ScopePair | None:
        """What people ask, beside the edit that is nearest to it or any."""
        query = rng.choice(self.queries[kind])
        near = self.neighbours.nearest_prompts(query)
        prompt = rng.choice(near) if rng.random() < 0.8 else rng.choice(self.prompts)
        return ScopePair(prompt, query, False, "", self.answers[prompt])

    def serac(self, rng: random.Random) -> ScopePair | None:
        """SERAC's hard negative."""
        fact = rng.choice(self.questions)
        query = self.neighbours.serac(fact.prompts[0], rng)
        return ScopePair(fact.prompts[0], query, False, "", fact.answer) if fact.subject not in query else None

    def serac_uniform(self, rng: random.Random) -> ScopePair | None:
        """SERAC's other negative: any other fact."""
        fact, other = rng.sample(self.questions, 2)
        return ScopePair(fact.prompts[0], rng.choice(other.prompts), False, "", fact.answer)

    # --- what the kinds share

    def _relation(self, rng: random.Random) -> tuple[Relation, str]:
        relation = rng.choice(self.relations)
        return relation, self._subject_of(relation, rng)

    def _subject_of(self, relation: Relation, rng: random.Random) -> str:
        kind = rng.random()
        if kind < 0.68:
            return rng.choice(relation.subjects)
        if kind < 0.78:
            return wordings.numbered(rng.choice(relation.subjects), rng)
        if kind < 0.86:
            return wordings.near_name(rng.choice(relation.subjects), relation.subjects, rng)
        return self._subject(rng)

    def _subject(self, rng: random.Random) -> str:
        return rng.choice(self.subjects)

    def _named(self, one: Property, subject: str, rng: random.Random) -> str:
        """A property of a subject, called by one of its names."""
        return rng.choice(wordings.forms_of(rng.choice(one.names), subject))

    def _reworded(self, fact: Fact, subject: str, rng: random.Random) -> str:
        return wordings.same(rng.choice(_about(fact, subject).prompts), rng)

    def _turn_about(self, relation: Relation, subject: str, rng: random.Random) -> str:
        """A user's turn that names the subject and does not ask the relation."""
        if rng.random() < 0.6:
            other = rng.choice(self.of_type[relation.of])
            if other.name != relation.name:
                return any_of(other.ask, subject, rng)
        return rng.choice(wordings.OPENINGS).format(subject)


KINDS: dict[str, Callable[[PairSource, random.Random], ScopePair | None]] = {
    "paraphrase": PairSource.paraphrase,
    "same question": PairSource.same_question,
    "scene": PairSource.scene,
    "statement and question": PairSource.statement_and_question,
    "yes or no": PairSource.yes_or_no,
    "follow-up": PairSource.follow_up,
    "asked after another": PairSource.asked_after_another,
    "same relation, other subject": PairSource.other_subject,
    "near-identical name": PairSource.near_identical_name,
    "same subject, other relation": PairSource.other_relation,
    "qualifier": lambda source, rng: source.near_miss("qualified", rng),
    "negation": lambda source, rng: source.near_miss("negation", rng),
    "reversal": lambda source, rng: source.near_miss("reversal", rng),
    "comparison": lambda source, rng: source.near_miss("comparison", rng),
    "hypothetical": lambda source, rng: source.near_miss("hypothetical", rng),
    "mention": PairSource.mention,
    "scene, near miss": PairSource.scene_near_miss,
    "follow-up elsewhere": PairSource.follow_up_elsewhere,
    "statement before another": PairSource.statement_before,
    "nearest neighbour": PairSource.neighbour,
    "look-alike": PairSource.look_alike,
    "questions of others": lambda source, rng: source.traffic("questions", rng),
    "chat": lambda source, rng: source.traffic("chat", rng),
    "SERAC hard negative": PairSource.serac,
    "SERAC uniform negative": PairSource.serac_uniform,
}

_PARAPHRASES = {"zsre": 0.32, "counterfact": 0.26, "pokemqa": 0.14, "wikifactdiff": 0.08, "pararel": 0.1}


def _about(fact: Fact, subject: str) -> Fact:
    return replace(fact, prompts=tuple(p.replace(fact.subject, subject) for p in fact.prompts), subject=subject)
