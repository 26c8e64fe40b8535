"""What an evaluation gives: for each method, at each number of edits, the metrics and every probe that was asked."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from semedit.evaluation.examples import Kind
from semedit.evaluation.metrics import Mean, Rate

# the means that no two runs share
TIMES = ("seconds_per_edit", "seconds_per_answer", "overhead")


@dataclass(frozen=True)
class Asked:
    """One probe, asked once.

    Attributes:
        example: the id of its example.
        kind, detail, prompt: as the probe has them.
        expected: the right answers; for the kinds that must not change the unedited model's answer alone.
        got: the answer in free generation; empty for a behaviour, which is not generated.
        right: for the kinds that must not change, whether the answer is token-identical to the unedited model's; for a
            behaviour, whether its criterion is met; else whether the answer matches exactly after normalisation.
        contains: whether the normalised answer contains a right one.
        overridden: whether an edit answered; None where what is evaluated has no router.
        edits: the ids of the edits that answered.
        score: the scope score of the best candidate; None where there is none.
        reason: the route in words; empty without a router.
    """

    example: str
    kind: Kind
    detail: str
    prompt: str
    expected: tuple[str, ...]
    got: str
    right: bool
    contains: bool
    overridden: bool | None
    edits: tuple[str, ...]
    score: float | None
    reason: str


@dataclass(frozen=True)
class Checkpoint:
    """What was measured after so many edits.

    Attributes:
        edits: how many edits had been made.
        rates, means: by the metric's name, in the order of display; one that does not apply is absent.
        asked: every probe that was asked here.
        threshold: the router's; None without a router.
    """

    edits: int
    rates: dict[str, Rate]
    means: dict[str, Mean]
    asked: tuple[Asked, ...]
    threshold: float | None


@dataclass(frozen=True)
class Row:
    """One method on one data set.

    Attributes:
        method: `"unedited"` or the method's name, such as `"in_context"`.
        note: a sentence about it, such as how many edits fit the context; may be empty.
        checkpoints: by number of edits.
    """

    method: str
    note: str
    checkpoints: tuple[Checkpoint, ...]


@dataclass(frozen=True)
class Evaluation:
    """Methods compared on one data set.

    Attributes:
        dataset: its name.
        model: the name of the base model.
        order: `"sequential"`, where each edit is made on top of those before it, or `"batch"`, all of them at once.
        seed: of every draw.
        sample: at most so many probes of each kind are asked at a checkpoint; None asks them all.
        left_out: how many examples were left out since they contradict earlier ones.
        rows: the unedited model first.
    """

    dataset: str
    model: str
    order: Literal["sequential", "batch"]
    seed: int
    sample: int | None
    left_out: int
    rows: tuple[Row, ...]

    def to_json(self) -> str:
        """As a JSON object without how long things took, so that the same evaluation gives the same text again."""
        fields = asdict(self)
        for row in fields["rows"]:
            for checkpoint in row["checkpoints"]:
                checkpoint["means"] = {n: mean for n, mean in checkpoint["means"].items() if n not in TIMES}
        return json.dumps(fields, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """The evaluation whose `to_json` is `text`."""
        fields = json.loads(text)
        return cls(**{**fields, "rows": tuple(map(_row, fields["rows"]))})


def _row(fields: dict[str, Any]) -> Row:
    return Row(**{**fields, "checkpoints": tuple(map(checkpoint_of, fields["checkpoints"]))})


def checkpoint_of(fields: dict[str, Any]) -> Checkpoint:
    """The checkpoint of which `fields` is the JSON object."""
    rates = {name: Rate(**rate) for name, rate in fields["rates"].items()}
    means = {name: Mean(**mean) for name, mean in fields["means"].items()}
    asked = tuple(map(_asked, fields["asked"]))
    return Checkpoint(**{**fields, "rates": rates, "means": means, "asked": asked})


def _asked(fields: dict[str, Any]) -> Asked:
    return Asked(**{**fields, "expected": tuple(fields["expected"]), "edits": tuple(fields["edits"])})
