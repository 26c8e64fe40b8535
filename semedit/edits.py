"""What the rest of the package speaks of: an edit, a candidate for a query, and the route that a query took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Action = Literal["add", "update", "negative", "retire", "supersede", "undo", "erase"]
Outcome = Literal["added", "superseded", "unchanged"]


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One edit descriptor, as one revision of the memory left it.

    Attributes:
        id: what names the edit in every call.
        prompt: the question or the beginning that the edit is about.
        target: what is to be answered.
        paraphrases: other ways to ask the same; each is a key of its own.
        negatives: queries on which the edit must not fire.
        namespace: a hard partition; a query sees the edits of the namespaces it names and of no other.
        valid_from, valid_until: the edit is in force from the first, up to and without the second.
        override: `"verbatim"` for approved wording; None answers with the model's own override.
        source, author: where the edit comes from and who made this revision.
        metadata: anything that can be written as JSON.
        active: False once the edit is retired or superseded.
        action: what this revision did.
        revision: its number in the memory, from 1; it orders all changes of all edits.
        change: the first revision of the change that it belongs to; a change is made, and undone, as a whole.
        previous: the revision of the same edit before this one; 0 where this is its first.
        time: when this revision was written, in UTC.
        outcome: what `add` did; None elsewhere.
    """

    id: str
    prompt: str
    target: str
    paraphrases: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    namespace: str = "default"
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    override: Literal["verbatim"] | None = None
    source: str | None = None
    author: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    active: bool = True
    action: Action = "add"
    revision: int = 0
    change: int = 0
    previous: int = 0
    time: datetime | None = None
    outcome: Outcome | None = field(default=None, compare=False)

    @property
    def keys(self) -> tuple[str, ...]:
        """The texts that the edit is found by: its prompt, then its paraphrases."""
        return (self.prompt, *self.paraphrases)

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text of the edit that has a vector: its keys, then its negatives."""
        return (*self.keys, *self.negatives)

    def same_target(self, other: Edit) -> bool:
        """Whether both answer alike; case and the white space around a target do not tell them apart."""
        return self.target.strip().casefold() == other.target.strip().casefold()

    def in_force(self, now: datetime) -> bool:
        """Whether `now` lies within the edit's validity."""
        return (self.valid_from is None or self.valid_from <= now) and (
            self.valid_until is None or now < self.valid_until
        )


@dataclass(frozen=True)
class Candidate:
    """An edit that the memory holds near to a query.

    Attributes:
        edit: the edit.
        key: the nearest of its keys, and once they are judged the one with the highest score.
        similarity: cosine of the query with that key.
        others: each of its other keys with its cosine.
        negatives: each negative of the edit with its cosine.
        score: the scope classifier's probability that the query is in scope; None where it was not asked.
        vetoed_by: the negative that keeps the edit from firing, if one does.
    """

    edit: Edit
    key: str
    similarity: float
    others: tuple[tuple[str, float], ...] = ()
    negatives: tuple[tuple[str, float], ...] = ()
    score: float | None = None
    vetoed_by: str | None = None

    @property
    def claim(self) -> float:
        """The score with which the edit claims the query; 0 where it was not judged or a negative vetoes it."""
        return 0.0 if self.score is None or self.vetoed_by is not None else self.score

    def in_scope(self, threshold: float) -> bool:
        """Whether the edit was judged, is not vetoed, and claims the query with at least that score."""
        return self.score is not None and self.vetoed_by is None and self.score >= threshold


@dataclass(frozen=True)
class Route:
    """The decision for one query, and why.

    Attributes:
        query: the text that was judged.
        edits: the edits that answer, best first; empty where the base model does.
        score: the scope score of the edit that answers, or else of the best candidate; None where none was judged.
        threshold: the score from which on an edit is in scope, the classifier's own or a calibration's.
        runner_up: the best candidate that does not answer.
        reason: the decision in words.
        candidates: all that were considered, best first.
        ambiguous: whether edits of other facts and targets claim the query about alike.
    """

    query: str
    edits: tuple[Edit, ...]
    score: float | None
    threshold: float
    runner_up: Candidate | None
    reason: str
    candidates: tuple[Candidate, ...] = ()
    ambiguous: bool = False

    @property
    def in_scope(self) -> bool:
        """Whether an edit answers."""
        return bool(self.edits)
