"""What traffic that no edit answers shows: whether a calibration holds, and what routing costs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from harness import summary, timed
from scope_measure import Rate, memory_of, route_all
from semedit import Edit, EditMemory
from semedit.memory.encoder import Encoder
from semedit.router import CANDIDATES, Router
from semedit.scope.base import Pair, ScopeClassifier
from semedit.scope.calibration import Calibration

TARGET = 0.001
WARM_UP = 20
JUDGED_EVERY = 8  # judging eight candidates takes many passes


def calibrated(
    scope: ScopeClassifier, edits: Sequence[Edit], traffic: Sequence[str], encoder: Encoder, what: str
) -> tuple[Calibration, Rate]:
    """Calibrates on the even rows of traffic, with all edits in memory.

    Returns:
        The calibration, and of the odd rows those that an edit claims at its threshold.
    """
    router = Router(memory_of(edits, encoder), scope)
    print(f"{what}: calibrating on {len(traffic[::2]):,} queries")
    calibration = router.calibrate(traffic[::2], target=TARGET)
    routes = route_all(router, traffic[1::2], what)
    # as a calibration counts: a query that edits claim alike is claimed
    claimed = [max((c.claim for c in route.candidates), default=0.0) >= route.threshold for route in routes.values()]
    return calibration, Rate(sum(claimed), len(claimed))


def holds(calibration: Calibration, checked: Rate) -> bool:
    """Whether the rate on other traffic is within the upper bound that the calibration states."""
    return checked.share <= calibration.overridden_bounds[1]


def sample(edits: Sequence[Edit], count: int) -> list[Edit]:
    """So many of the edits, always the same ones."""
    return random.Random(0).sample(edits, count)


def cost(
    scope: ScopeClassifier, edits: Sequence[Edit], traffic: Sequence[str], encoder: Encoder, kept: Encoder, what: str
) -> dict[str, Any]:
    """What routing one query costs, and judging eight candidates, in passes of the encoder over that query.

    Args:
        scope: the classifier.
        edits: what is in memory.
        traffic: the queries, one at a time; each is passed through the encoder beside it, in turns before and after.
        encoder: the encoder that is timed.
        kept: the same encoder, which has the vectors of the edits already.
        what: names the progress bar.
    """
    memory: EditMemory = memory_of(edits, kept)
    memory.encoder = encoder
    router = Router(memory, scope)
    ratios, judging, passes, routing, judged = [], [], [], [], 0
    for i, query in enumerate(tqdm(traffic, desc=what)):
        if i % 2:
            one_pass, _ = timed(encoder.encode, [query])
        seconds, [route] = timed(router.route, [query])
        if not i % 2:
            one_pass, _ = timed(encoder.encode, [query])
        if i < WARM_UP:
            continue
        ratios.append(seconds / one_pass)
        passes.append(one_pass)
        routing.append(seconds)
        judged += any(candidate.score is not None for candidate in route.candidates)
        if i % JUDGED_EVERY == 0 and len(route.candidates) == CANDIDATES:
            pairs = [Pair(query, candidate.key, candidate.similarity) for candidate in route.candidates]
            took, _ = timed(scope.score, pairs)
            judging.append(took / one_pass)
    return {
        "edits": len(edits),
        "queries": len(ratios),
        "judged": judged,
        "route_over_pass": summary(ratios),
        "eight_over_pass": summary(judging),
        "pass_seconds": summary(passes),
        "route_seconds": summary(routing),
    }
