"""What is edited and asked at each checkpoint, the same for everything that is compared."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from semedit.errors import EvaluationError
from semedit.evaluation.examples import Example, Probe

Question = tuple[str, Probe]  # the example's id, and what is asked


@dataclass(frozen=True)
class Step:
    """One checkpoint.

    Attributes:
        examples: whose edits are made since the checkpoint before.
        edits: how many edits have been made by then.
        questions: what is asked of all that was edited by then.
    """

    examples: tuple[Example, ...]
    edits: int
    questions: tuple[Question, ...]


def make_plan(
    examples: Sequence[Example], counts: Sequence[int], unrelated: Sequence[Probe], sample: int | None, seed: int
) -> list[Step]:
    """The checkpoints: each as soon as so many edits are made, and a last one where the examples end before.

    Args:
        examples: in the order in which they are edited; those without edits are asked from the first checkpoint on.
        counts: after how many edits.
        unrelated: asked at each checkpoint.
        sample: at most so many questions of each kind are asked at a checkpoint, drawn by the seed; None asks all.
        seed: of the draw.

    Raises:
        EvaluationError: there is nothing to evaluate, or a count is not above 0.
    """
    if not examples:
        raise EvaluationError("there are no examples to evaluate; check the file, and --limit")
    if not counts or min(counts) < 1:
        raise EvaluationError(f"checkpoints are numbers of edits above 0, such as 1,10,100, not {list(counts)}")
    wanted = sorted(set(counts))
    steps: list[Step] = []
    start = edits = 0
    for end, example in enumerate(examples, start=1):
        edits += len(example.edits)
        last = end == len(examples)
        if (wanted and edits >= wanted[0]) or last:
            wanted = [count for count in wanted if count > edits]
            asked = [(example.id, probe) for example in examples[:end] for probe in example.probes]
            asked += [("", probe) for probe in unrelated]
            steps.append(Step(tuple(examples[start:end]), edits, _drawn(asked, sample, f"{seed}, {edits}")))
            start = end
            if not wanted:
                break
    return steps


def _drawn(questions: Sequence[Question], sample: int | None, seed: str) -> tuple[Question, ...]:
    """At most so many of each kind, in their order."""
    if sample is None:
        return tuple(questions)
    by_kind: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, (_, probe) in enumerate(questions):
        by_kind[probe.kind, probe.detail].append(i)
    chosen: list[int] = []
    for kind, indices in by_kind.items():
        rng = random.Random(f"{seed}, {kind}")
        chosen += indices if len(indices) <= sample else rng.sample(indices, sample)
    return tuple(questions[i] for i in sorted(chosen))
