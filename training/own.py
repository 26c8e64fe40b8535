"""Pairs of a user's own edits and traffic, for training the scope classifier."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from facts import Fact, read_records
from material import ScopePair
from neighbours import nearest
from semedit import Edit
from semedit.memory.encoder import Encoder
from sources import is_held_out

_OTHER_EDITS = 4
_LOOKED_AT = 64  # some have the same target
_NEAR_TRAFFIC = 2


def read_own_edits(path: Path) -> list[Edit]:
    """The edits of a file as `semedit edit export` writes it, as far as training needs them."""
    return [
        Edit(
            id=f"own-{number}",
            prompt=record["prompt"],
            target=record["target"],
            paraphrases=tuple(record.get("paraphrases", ())),
            negatives=tuple(record.get("negatives", ())),
        )
        for number, record in enumerate(read_records(path))
    ]


def own_facts(edits: Iterable[Edit]) -> list[Fact]:
    """The edits as facts: all wordings of each."""
    return [Fact(edit.keys, edit.target) for edit in edits]


def read_own_traffic(path: Path) -> list[str]:
    """The queries of a file, one a line, as `semedit calibrate` reads them; none stands twice."""
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def own_pairs(
    edits: Sequence[Edit], traffic: Sequence[str], encoder: Encoder, share: float
) -> tuple[list[ScopePair], list[ScopePair]]:
    """What to train on, and what is held out of it: other edits, other queries. No pair stands twice.

    Args:
        edits: a user's edits.
        traffic: a user's queries that no edit is to answer.
        encoder: finds what is near.
        share: held-out share.
    """

    def part(held_out: bool) -> list[ScopePair]:
        own = [edit for edit in edits if is_held_out(edit.prompt, share) == held_out]
        queries = [query for query in traffic if is_held_out(query, share) == held_out]
        if not own:
            return []
        pairs = (_paraphrases(own), _negatives(own), _other_edits(own, encoder), _traffic(own, queries, encoder))
        return list(dict.fromkeys(pair for kind in pairs for pair in kind))

    return part(held_out=False), part(held_out=True)


def at_most(count: int, pairs: Sequence[ScopePair], rng: random.Random) -> list[ScopePair]:
    """So many of the pairs of each kind."""
    by_kind: dict[str, list[ScopePair]] = {}
    for pair in pairs:
        by_kind.setdefault(pair.kind, []).append(pair)
    return [pair for kind in by_kind.values() for pair in rng.sample(kind, min(count, len(kind)))]


def repeated(times: int, pairs: Sequence[ScopePair], most: int, rng: random.Random) -> list[ScopePair]:
    """The pairs so many times over, or as often as makes no more than `most`; where they are more, so many of them."""
    if len(pairs) > most:
        return rng.sample(pairs, most)
    return list(pairs) * min(times, most // max(1, len(pairs)))


def _paraphrases(edits: Sequence[Edit]) -> Iterator[ScopePair]:
    """Each wording beside the prompt, either way round, and beside the next wording."""
    for edit in edits:
        for wording in edit.paraphrases:
            yield ScopePair(edit.prompt, wording, True, "own paraphrase")
            yield ScopePair(wording, edit.prompt, True, "own paraphrase")
        for wording, following in zip(edit.paraphrases, edit.paraphrases[1:], strict=False):
            yield ScopePair(wording, following, True, "own paraphrase")


def _negatives(edits: Sequence[Edit]) -> Iterator[ScopePair]:
    """The prompt beside each negative."""
    for edit in edits:
        for negative in edit.negatives:
            yield ScopePair(edit.prompt, negative, False, "own negative")


def _other_edits(edits: Sequence[Edit], encoder: Encoder) -> Iterator[ScopePair]:
    """The prompt beside those of the nearest edits that have another target, and no wording in common."""
    by_prompt = {edit.prompt: edit for edit in edits}
    prompts = list(by_prompt)
    vectors = encoder.encode(prompts, progress=True)
    near = nearest(prompts, vectors, prompts, vectors, _LOOKED_AT)
    for prompt, edit in by_prompt.items():
        others = [by_prompt[other] for other, _ in near[prompt]]
        others = [o for o in others if not o.same_target(edit) and _wordings(o).isdisjoint(_wordings(edit))]
        for other in others[:_OTHER_EDITS]:
            yield ScopePair(prompt, other.prompt, False, "own, another edit")


def _traffic(edits: Sequence[Edit], traffic: Sequence[str], encoder: Encoder) -> Iterator[ScopePair]:
    """Each query beside the nearest wordings, but for one that it asks word for word: an edit is to answer that."""
    by_wording = {wording: edit for edit in edits for wording in edit.keys}
    wordings = list(by_wording)
    asked, vectors = (encoder.encode(texts, progress=True) for texts in (traffic, wordings))
    near = nearest(traffic, asked, wordings, vectors, _NEAR_TRAFFIC)
    for query in traffic:
        for wording, _ in near[query]:
            if query.casefold() not in _wordings(by_wording[wording]):
                yield ScopePair(wording, query, False, "own traffic")


def _wordings(edit: Edit) -> set[str]:
    return {wording.casefold() for wording in edit.keys}
