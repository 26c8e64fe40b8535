"""Pairs of an edit's prompt and a query, in scope or not, for training the scope classifier.

Each kind of pair is drawn by one function, named in `KINDS`; the config says how many of each there are. Those of a
user's own edits are made in `own.py`.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tqdm import tqdm

from material import Material, ScopePair
from pairs_in_scope import IN_SCOPE
from pairs_out_of_scope import OUT_OF_SCOPE

KINDS = {**IN_SCOPE, **OUT_OF_SCOPE}


def build_pairs(material: Material, counts: Mapping[str, int], rng: random.Random) -> list[ScopePair]:
    """As many pairs of each kind as `counts` asks for, without repeats and without texts left out, shuffled."""
    pairs: dict[tuple[str, str], ScopePair] = {}
    for kind, count in tqdm(counts.items(), desc="pairs"):
        drawn = 0
        for _ in range(4 * count):  # a source may run dry
            if drawn == count:
                break
            pair = KINDS[kind](material, rng)
            if pair is None or (pair.prompt, pair.query) in pairs or material.left_out.has(pair.prompt, pair.query):
                continue
            if pair.in_scope or pair.prompt.lower() != pair.query.lower():
                pairs[pair.prompt, pair.query] = replace(pair, kind=kind)
                drawn += 1
    built = list(pairs.values())
    rng.shuffle(built)
    return built


def count_kinds(pairs: Sequence[ScopePair], asked: Mapping[str, int]) -> dict[str, int]:
    """How many pairs there are of each kind; says on stderr of which there are fewer than were asked for."""
    counts = Counter(pair.kind for pair in pairs)
    for kind, count in asked.items():
        if counts[kind] < count:
            print(f"{kind}: only {counts[kind]:,} of {count:,} pairs could be drawn without repeats", file=sys.stderr)
    return dict(sorted(counts.items()))
