"""Pairs of an edit's prompt and a query, in scope or not, for training the scope classifier.

Each kind of pair is drawn by one function, named in `KINDS`; the config says how many of each there are.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from tqdm import tqdm

from material import Material, ScopePair
from pairs_in_scope import IN_SCOPE
from pairs_out_of_scope import OUT_OF_SCOPE

KINDS = {**IN_SCOPE, **OUT_OF_SCOPE}


def build_pairs(material: Material, counts: Mapping[str, int], rng: random.Random) -> list[ScopePair]:
    """As many pairs of each kind as `counts` asks for, without repeats, shuffled."""
    pairs: dict[tuple[str, str], ScopePair] = {}
    for kind, count in tqdm(counts.items(), desc="pairs"):
        drawn = 0
        for _ in range(4 * count):  # a source may run dry
            if drawn == count:
                break
            pair = KINDS[kind](material, rng)
            if pair is None or (pair.prompt, pair.query) in pairs:
                continue
            if pair.in_scope or pair.prompt.lower() != pair.query.lower():
                pairs[pair.prompt, pair.query] = replace(pair, kind=kind)
                drawn += 1
    built = list(pairs.values())
    rng.shuffle(built)
    return built


def own_pairs(material: Material) -> list[ScopePair]:
    """Every wording of a user's own edits beside every other."""
    return [
        ScopePair(prompt, query, True, "own paraphrase", fact.answer)
        for fact in material.facts["own"]
        for prompt in fact.prompts
        for query in fact.prompts
        if prompt != query
    ]
