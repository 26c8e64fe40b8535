"""Pairs out of scope: the query asks something near what the edit's prompt asks, and not the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial

import wordings
from facts import Fact
from material import Material, ScopePair, about, asking
from relations import any_of


def other_subject(material: Material, rng: random.Random) -> ScopePair | None:
    """The same relation of another subject."""
    kind = rng.random()
    if kind < 0.35:
        relation, subject = material.relation(rng)
        other = material.subject_of(relation, rng)
        if other == subject:
            return None
        prompt, query = any_of(relation.ask, subject, rng), any_of(relation.ask, other, rng)
        return ScopePair(prompt, wordings.same(query, rng), False)
    if kind < 0.6:
        fact, other = rng.choice(material.beside)
        return ScopePair(rng.choice(fact.prompts), wordings.same(other, rng), False)
    fact = rng.choice(material.facts[rng.choice(["zsre", "zsre", "pokemqa", "wikifactdiff", "pararel"])])
    if not fact.subject:
        return None
    subject = rng.choice(material.by_template[fact.template] or [fact]).subject
    subject = material.subject(rng) if subject == fact.subject else subject
    asked = material.properties.asked_by(fact.template)
    query = rng.choice(about(fact, subject).prompts)
    if asked is not None and rng.random() < 0.4:
        query = asking(asked, subject, rng)
    return ScopePair(rng.choice(fact.prompts), wordings.same(query, rng), False)


def near_identical_name(material: Material, rng: random.Random) -> ScopePair | None:
    """The same relation of a subject with nearly the same name, or what else is asked of that one."""
    if rng.random() < 0.5:
        relation, subject = material.relation(rng)
        other = wordings.near_name(subject, relation.subjects, rng)
        asked = rng.choice(material.of_type[relation.of]) if rng.random() < 0.2 else relation
        prompt, query = any_of(relation.ask, subject, rng), any_of(asked.ask, other, rng)
    else:
        fact = rng.choice(material.facts[rng.choice(["zsre", "counterfact"])])
        if not fact.subject:
            return None
        subject = fact.subject
        alike = rng.random() < 0.6
        other = material.alike(subject, rng) if alike else wordings.near_name(subject, material.subjects, rng)
        of_other = material.by_subject[other] if alike and rng.random() < 0.6 else [about(fact, other)]
        prompt, query = rng.choice(fact.prompts), rng.choice(rng.choice(of_other).prompts)
    if other == subject:
        return None
    if rng.random() < 0.5:
        prompt, query = query, prompt
    return ScopePair(prompt, wordings.same(query, rng), False)


def other_relation(material: Material, rng: random.Random) -> ScopePair | None:
    """Another property of the same subject."""
    kind = rng.random()
    if kind < 0.4:
        relation, subject = material.relation(rng)
        if rng.random() < 0.5:
            query = any_of(relation.near["other"], subject, rng)
        else:
            other = material.other_of_type(relation, rng)
            if other is None:
                return None
            query = any_of(other.ask, subject, rng)
        return ScopePair(any_of(relation.ask, subject, rng), wordings.same(query, rng), False)
    if kind < 0.5:
        subject, prompts = rng.choice(material.specificity)
        known = material.properties.named(wordings.property_of(rng.choice(prompts), subject) or "")
        if known is None:
            return None
        if rng.random() < 0.5:
            subject = material.subject(rng)
        both = [asking(one, subject, rng) for one in (known, material.neighbours.other_property(known, rng))]
        rng.shuffle(both)
        return ScopePair(both[0], both[1], False)
    fact = rng.choice(material.facts["zsre"])
    asked = material.properties.asked_by(fact.template)
    if asked is None:
        return None
    if rng.random() < 0.3:
        template = material.properties.template_other_than(asked, rng)
        if template is None:
            return None
        query = template.replace("[X]", fact.subject)
    else:
        query = asking(material.neighbours.other_property(asked, rng), fact.subject, rng)
    prompt = rng.choice(fact.prompts)
    if rng.random() < 0.3:
        prompt, query = query, prompt
    return ScopePair(prompt, wordings.same(query, rng), False)


def near_miss(kind: str, material: Material, rng: random.Random) -> ScopePair | None:
    """A query of a relation's near misses of one kind."""
    relation, subject = material.relation(rng)
    if not relation.near[kind]:
        return None
    query = any_of(relation.near[kind], subject, rng)
    return ScopePair(any_of(relation.ask, subject, rng), wordings.same(query, rng), False)


def yes_or_no_elsewhere(material: Material, rng: random.Random) -> ScopePair | None:
    """Whether some answer is the answer, of another subject or another property."""
    kind = rng.random()
    if kind < 0.6:
        relation, subject = material.relation(rng)
        asked, other = relation, subject
        if kind < 0.3:
            asked = rng.choice(material.of_type[relation.of])
        elif kind < 0.45:
            other = material.subject_of(relation, rng)
        else:
            other = wordings.near_name(subject, relation.subjects, rng)
        if (asked.name, other) == (relation.name, subject) or not asked.yes_no:
            return None
        query = any_of(asked.yes_no, other, rng).replace("[A]", rng.choice(asked.answers))
        return ScopePair(any_of(relation.ask, subject, rng), query, False)
    fact = material.by_prompt[rng.choice(material.named)]
    near = material.neighbours.nearest(fact.prompts[0])
    if not near:
        return None
    elsewhere = material.by_prompt[rng.choice(near)]
    if elsewhere.prompts[0].endswith("?"):
        return None
    answer = rng.choice([fact.answer, elsewhere.answer])
    query = wordings.whether(f"{elsewhere.prompts[0]} {answer}", rng)
    return ScopePair(rng.choice(fact.prompts), query, False)


def scene_near_miss(material: Material, rng: random.Random) -> ScopePair | None:
    """A scene's prompt, and a near miss."""
    scene = rng.choice(material.scenes)
    query = wordings.same(rng.choice(scene.out_of_scope), rng)
    return ScopePair(scene.prompt(rng), query, False)


def scene_near_name(material: Material, rng: random.Random) -> ScopePair | None:
    """A scene's prompt, and a query in its scope with a number or a word of a name changed that both have."""
    for scene in rng.sample(material.scenes, 3):  # many share none
        prompt = rng.choice(scene.prompts)
        query = wordings.renamed(prompt, rng.choice([*scene.in_scope, *scene.prompts]), material.subjects, rng)
        if query is not None:
            return ScopePair(prompt, wordings.same(query, rng), False)
    return None


def mention(material: Material, rng: random.Random) -> ScopePair | None:
    """A message that mentions the subject, or the question itself, and asks for something else."""
    if rng.random() < 0.5:
        return near_miss("mention", material, rng)
    fact = rng.choice(material.facts[rng.choice(["zsre", "counterfact", "pokemqa"])])
    if rng.random() < 0.4:
        relation, subject = material.relation(rng)
        fact = Fact((any_of(relation.ask, subject, rng),), "", subject)
    subject = fact.subject or material.subject(rng)
    query = wordings.task(rng.choice(fact.prompts), subject, material.subject(rng), rng)
    return ScopePair(rng.choice(fact.prompts), query, False)


def follow_up_elsewhere(material: Material, rng: random.Random) -> ScopePair | None:
    """A second turn that asks another property or is about another subject."""
    relation, subject = material.relation(rng)
    prompt = any_of(relation.ask, subject, rng)
    kind = rng.random()
    if kind < 0.6:
        other = material.other_of_type(relation, rng)
        if other is None or not other.follow_up:
            return None
        before = any_of(relation.ask, subject, rng) if kind < 0.4 else f"Tell me about {subject}."
        query = f"{before} {rng.choice(other.follow_up)}"
        return ScopePair(prompt, query, False)
    if not relation.follow_up:
        return None
    elsewhere = material.subject_of(relation, rng)
    if elsewhere == subject:
        return None
    query = f"{material.turn_about(relation, elsewhere, rng)} {rng.choice(relation.follow_up)}"
    return ScopePair(prompt, query, False)


def statement_before(material: Material, rng: random.Random) -> ScopePair | None:
    """The edit's own statement, and then the same question of another subject."""
    fact, other = rng.choice(material.beside)
    if rng.random() < 0.3:
        relation, subject = material.relation(rng)
        other = any_of(relation.ask, material.subject(rng), rng)
        fact = Fact((any_of(relation.ask, subject, rng),), rng.choice(relation.answers), subject)
    return ScopePair(rng.choice(fact.prompts), f"{fact.prompts[0]} {fact.answer}. {other}", False)


def neighbour(material: Material, rng: random.Random) -> ScopePair | None:
    """A wording of a fact among those nearest to another fact, and about another subject."""
    prompt = rng.choice(material.named)
    near = material.neighbours.nearest(prompt)
    if not near:
        return None
    fact, other = material.by_prompt[prompt], material.by_prompt[rng.choice(near)]
    query = wordings.same(rng.choice(other.prompts), rng)
    return ScopePair(rng.choice(fact.prompts), query, False)


def look_alike(material: Material, rng: random.Random) -> ScopePair | None:
    """Two questions of real users that share words and ask different things."""
    prompt, query = rng.choice(material.rivals)
    return ScopePair(prompt, wordings.same(query, rng), False)


def traffic(kind: str, material: Material, rng: random.Random) -> ScopePair | None:
    """What people ask, beside the edit that is nearest to it or any."""
    query = rng.choice(material.queries[kind])
    near = material.neighbours.nearest_prompts(query)
    prompt = rng.choice(near) if rng.random() < 0.8 else rng.choice(material.prompts)
    return ScopePair(prompt, query, False)


def serac(material: Material, rng: random.Random) -> ScopePair | None:
    """SERAC's hard negative."""
    fact = rng.choice(material.questions)
    query = material.neighbours.serac(fact.prompts[0], rng)
    return ScopePair(fact.prompts[0], query, False) if fact.subject not in query else None


def serac_uniform(material: Material, rng: random.Random) -> ScopePair | None:
    """SERAC's other negative: any other fact."""
    fact, other = rng.sample(material.questions, 2)
    return ScopePair(fact.prompts[0], rng.choice(other.prompts), False)


OUT_OF_SCOPE: Mapping[str, Callable[[Material, random.Random], ScopePair | None]] = {
    "same relation, other subject": other_subject,
    "near-identical name": near_identical_name,
    "same subject, other relation": other_relation,
    "qualifier": partial(near_miss, "qualified"),
    "negation": partial(near_miss, "negation"),
    "reversal": partial(near_miss, "reversal"),
    "comparison": partial(near_miss, "comparison"),
    "hypothetical": partial(near_miss, "hypothetical"),
    "mention": mention,
    "yes or no, elsewhere": yes_or_no_elsewhere,
    "scene, near miss": scene_near_miss,
    "scene, near-identical name": scene_near_name,
    "follow-up elsewhere": follow_up_elsewhere,
    "statement before another": statement_before,
    "nearest neighbour": neighbour,
    "look-alike": look_alike,
    "questions of others": partial(traffic, "questions"),
    "chat": partial(traffic, "chat"),
    "SERAC hard negative": serac,
    "SERAC uniform negative": serac_uniform,
}
