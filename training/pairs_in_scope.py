"""Pairs in scope: the query asks what the edit's prompt asks."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import wordings
from material import Material, ScopePair, about, asking, named
from relations import any_of

# shares of the sources of paraphrases that are not of our own relations
_PARAPHRASES = {"zsre": 0.32, "counterfact": 0.26, "pokemqa": 0.14, "wikifactdiff": 0.08, "pararel": 0.1}


def paraphrase(material: Material, rng: random.Random) -> ScopePair | None:
    """Two wordings of one fact, often about another subject."""
    if rng.random() < 0.4:
        relation, subject = material.relation(rng)
        prompt, query = (any_of(relation.ask, subject, rng) for _ in range(2))
        return ScopePair(prompt, wordings.same(query, rng), True)
    [source] = rng.choices(list(_PARAPHRASES), list(_PARAPHRASES.values()))
    fact = rng.choice(material.facts[source])
    if fact.subject and rng.random() < 0.4:
        fact = about(fact, material.subject(rng))
    prompt, query = rng.sample(fact.prompts, 2) if len(fact.prompts) > 1 else fact.prompts * 2
    return ScopePair(prompt, wordings.same(query, rng), True)


def serac_paraphrase(material: Material, rng: random.Random) -> ScopePair | None:
    """SERAC's positive: a question of zsRE and its rephrase, either way round."""
    prompt, query = rng.sample(rng.choice(material.questions).prompts, 2)
    return ScopePair(prompt, query, True)


def far_paraphrase(material: Material, rng: random.Random) -> ScopePair | None:
    """A question of zsRE, and its property asked in a wording written for it."""
    fact = rng.choice(material.facts["zsre"])
    asked = material.properties.asked_by(fact.template)
    if asked is None or not asked.wordings:
        return None
    if rng.random() < 0.3:
        fact = about(fact, material.subject(rng))
    query = any_of(asked.wordings, fact.subject, rng)
    prompt = rng.choice(fact.prompts) if rng.random() < 0.7 else any_of(asked.wordings, fact.subject, rng)
    if rng.random() < 0.2:
        prompt, query = query, prompt
    return ScopePair(prompt, wordings.same(query, rng), True)


def same_question(material: Material, rng: random.Random) -> ScopePair | None:
    """Two questions of real users that ask the same."""
    prompt, query = rng.sample(rng.choice(material.facts["qqp"]).prompts, 2)
    return ScopePair(prompt, wordings.same(query, rng), True)


def scene(material: Material, rng: random.Random) -> ScopePair | None:
    """A scene's prompt, and a query in its scope or another prompt."""
    one = rng.choice(material.scenes)
    prompt = one.prompt(rng)
    query = rng.choice([*one.in_scope, *one.prompts])
    if query == prompt:
        return None
    return ScopePair(prompt, wordings.same(query, rng), True)


def statement_and_question(material: Material, rng: random.Random) -> ScopePair | None:
    """A property named in a noun phrase, asked as a beginning, a question, keywords or a request."""
    subject, prompts = rng.choice(material.specificity)
    property_ = wordings.property_of(rng.choice(prompts), subject)
    kind = rng.random()
    if kind < 0.4:
        fact = rng.choice(material.facts["zsre"])
        asked = material.properties.asked_by(fact.template)
        if asked is None:
            return None
        prompt = asking(asked, fact.subject, rng) if rng.random() < 0.3 else rng.choice(fact.prompts)
        query = named(asked, fact.subject, rng)
        if rng.random() < 0.5:
            prompt, query = query, prompt
        return ScopePair(prompt, wordings.same(query, rng), True)
    if kind < 0.6:
        property_ = rng.choice(rng.choice(material.properties.all).names)
    if property_ is None:
        return None
    if rng.random() < 0.5:
        subject = material.subject(rng)
    prompt, query = rng.sample(wordings.forms_of(property_, subject), 2)
    return ScopePair(prompt, wordings.same(query, rng), True)


def yes_or_no(material: Material, rng: random.Random) -> ScopePair | None:
    """Whether some answer is the answer."""
    if rng.random() < 0.6:
        relation, subject = material.relation(rng)
        if not relation.yes_no:
            return None
        query = any_of(relation.yes_no, subject, rng).replace("[A]", rng.choice(relation.answers))
        return ScopePair(any_of(relation.ask, subject, rng), query, True)
    fact = rng.choice(material.facts[rng.choice(["pokemqa", "counterfact", "pararel"])])
    answer = fact.answer if rng.random() < 0.5 else rng.choice(material.by_template[fact.template] or [fact]).answer
    query = wordings.whether(f"{fact.prompts[0]} {answer}", rng)
    return ScopePair(rng.choice(fact.prompts), query, True)


def at_present(material: Material, rng: random.Random) -> ScopePair | None:
    """The question with a word that says that it is about the present, as an edit's prompt is anyway."""
    kind = rng.random()
    asked: Sequence[str]
    if kind < 0.3:
        asked = rng.choice(material.facts[rng.choice(["zsre", "pokemqa", "wikifactdiff"])]).prompts
    elif kind < 0.7:
        relation, subject = material.relation(rng)
        asked = [any_of(relation.ask, subject, rng) for _ in range(2)]
    else:
        asked = rng.choice(material.scenes).prompts
    query = wordings.now(rng.choice(asked), rng)
    return ScopePair(rng.choice(asked), query.lower() if rng.random() < 0.3 else query, True)


def follow_up(material: Material, rng: random.Random) -> ScopePair | None:
    """A turn that leans on the one before, in scope; now and then after an edit's own words."""
    relation, subject = material.relation(rng)
    if not relation.follow_up:
        return None
    query = f"{material.turn_about(relation, subject, rng)} {rng.choice(relation.follow_up)}"
    return ScopePair(any_of(relation.ask, subject, rng), query, True)


def asked_after_another(material: Material, rng: random.Random) -> ScopePair | None:
    """A statement about something else, and then the edit's question."""
    (fact, _), (noise, _) = rng.choice(material.beside), rng.choice(material.beside)
    before = f"{noise.prompts[0]} {noise.answer}." if rng.random() < 0.7 else rng.choice(material.queries["questions"])
    return ScopePair(rng.choice(fact.prompts), f"{before} {rng.choice(fact.prompts)}", True)


IN_SCOPE: Mapping[str, Callable[[Material, random.Random], ScopePair | None]] = {
    "paraphrase": paraphrase,
    "far paraphrase": far_paraphrase,
    "same question": same_question,
    "scene": scene,
    "statement and question": statement_and_question,
    "yes or no": yes_or_no,
    "at present": at_present,
    "follow-up": follow_up,
    "asked after another": asked_after_another,
    "SERAC paraphrase": serac_paraphrase,
}
