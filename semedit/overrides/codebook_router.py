"""Routing by GRACE's codebook: an edit answers where a prompt's key falls into the ball around one of its keys."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timezone

import numpy as np

from semedit.edits import Candidate, Edit, Route
from semedit.errors import CalibrationError
from semedit.memory.edit_memory import EditMemory
from semedit.memory.store import Head
from semedit.overrides.adaptor import AdaptorOverride
from semedit.overrides.codebook import Codebook, Floats, Nearby
from semedit.overrides.radius import measured_radius
from semedit.prompts import Prompt
from semedit.scope.calibration import Calibration

_CANDIDATES = 8


class CodebookRouter:
    """Decides by the distance of a prompt's key to the keys of the edits; no classifier is asked.

    Each namespace has a codebook. It follows from the active edits in their order alone: every process comes to the
    same one, and without a retired edit it is as if that edit had never been added.

    Args:
        memory: the edits.
        override: the adaptor that answers; edits that it has not learned yet are learned before the next decision.
    """

    threshold = 0.0

    def __init__(self, memory: EditMemory, override: AdaptorOverride) -> None:
        self.memory = memory
        self.override = override
        self._books: dict[str, tuple[Head, Book]] = {}  # each as of a head of the log
        self._lock = threading.RLock()  # of the books, which grow where they stand

    def reads(self, prompt: Prompt) -> str:
        """What of a prompt is routed: its text, as the model reads it."""
        return prompt.text

    def route(self, texts: Sequence[str], namespaces: Sequence[str] | None = None) -> list[Route]:
        """One route for each prompt, given as the model reads it.

        A route's score is 1 - d/ε, for the distance d to a key and its radius ε: 1 at the key, 0 at the ball's edge.
        """
        if not self.memory.holds_any(namespaces):
            reason = "no edit to consider: the base model answers"
            return [Route(text, (), None, self.threshold, None, reason) for text in texts]
        keys = self.override.prompt_keys(texts)
        now = datetime.now(timezone.utc)
        with self._lock:
            books = [self.book(name) for name in dict.fromkeys(("default",) if namespaces is None else namespaces)]
            return [self._route(text, key, books, now) for text, key in zip(texts, keys, strict=True)]

    def calibrate(self, *_: object, **__: object) -> Calibration:
        """Raises CalibrationError: radii decide, and there is no threshold."""
        raise CalibrationError(
            'the codebook decides scope by its radii; set AdaptorConfig(radius=...), or choose routing="scope"'
        )

    def book(self, namespace: str) -> Book:
        """The codebook of a namespace as of now, all its edits learned."""
        with self._lock:
            head = self.memory.store.head()
            made = self._books.get(namespace)
            if made is not None and made[0] == head:
                return made[1]
            edits = self.memory.list(namespace=namespace)
            if made is not None and made[1].is_beginning_of(edits):
                book = made[1]
            else:
                book = Book(self.override, self.override.config.radius or measured_radius(self.override))
            book.extend(edits)
            self._books[namespace] = (head, book)
            return book

    def _route(self, text: str, key: Floats, books: Sequence[Book], now: datetime) -> Route:
        near = sorted(
            (c for book in books for c in book.candidates(key, now)), key=lambda c: c.score or 0, reverse=True
        )
        hits = [hit for book in books if (hit := book.look_up(key, now))]
        if not hits:
            best = next(iter(near), None)
            reason = "no edit in force: the base model answers"
            if best is not None:
                reason = f"outside the ball of the nearest key {best.key!r}: the base model answers"
                if best.vetoed_by:
                    reason = f"vetoed: at least as near to the negative {best.vetoed_by!r}: the base model answers"
            return Route(text, (), best.score if best else None, self.threshold, best, reason, tuple(near))
        hit = min(hits, key=lambda hit: hit[0].distance)
        chosen = hit[1]
        reason = (
            f"in scope: {hit[0].distance:.3g} from the key {chosen.key!r}, within its radius {hit[0].entry.radius:.3g}"
        )
        others = [c for c in near if c.edit.id != chosen.edit.id]
        runner_up = others[0] if others else None
        return Route(text, (chosen.edit,), chosen.score, self.threshold, runner_up, reason, (chosen, *others))


class Book:
    """A codebook with the edits that it was made of.

    Args:
        override: gives keys, and learns values.
        radius: the deferral radius of a new key.

    Attributes:
        codebook: its keys and balls; an entry's owner is the id of an edit.
    """

    def __init__(self, override: AdaptorOverride, radius: float) -> None:
        self.override = override
        self.radius = radius
        self.codebook: Codebook | None = None
        self._edits: dict[str, Edit] = {}
        self._texts: list[str] = []  # of the codebook's entries

    def is_beginning_of(self, edits: Sequence[Edit]) -> bool:
        """Whether it was made of the first of these edits."""
        made_of = [(edit.id, edit.keys, edit.target) for edit in self._edits.values()]
        return made_of == [(edit.id, edit.keys, edit.target) for edit in edits[: len(made_of)]]

    def extend(self, edits: Sequence[Edit]) -> None:
        """Takes in the edits after those that it was made of; they are learned where they are not yet."""
        new = edits[len(self._edits) :]
        texts = [text for edit in new for text in edit.keys]
        keys = self.override.keys(texts) if new else None
        self._edits = {edit.id: edit for edit in edits}
        if keys is None:
            return
        if self.codebook is None:
            self.codebook = Codebook(keys.shape[1], self.radius, published=self.override.config.published_rules)
        key_of = dict(zip(texts, keys, strict=True))
        starts: dict[str, Edit] = {}
        for edit in new:
            label = self.override.label(edit)
            for text in edit.keys:
                nearest = self.codebook.nearest(key_of[text])
                owner = nearest.entry.owner if nearest else edit.id
                if self.codebook.add(key_of[text], label, edit.id) != "expand":
                    self._texts.append(text)
                elif owner != edit.id:
                    # the value that is there is trained further
                    starts[edit.id] = self._edits[owner]
        self.override.learn([edit for edit in new if edit.override is None], starts=starts)

    def look_up(self, key: Floats, now: datetime) -> tuple[Nearby, Candidate] | None:
        """The entry that answers a key, with its edit, or None."""
        if self.codebook is None:
            return None
        allowed = frozenset(id for id, edit in self._edits.items() if edit.in_force(now))
        while (hit := self.codebook.look_up(key, allowed)) is not None:
            candidate = self._candidate(hit, key)
            if not candidate.vetoed_by:
                return hit, candidate
            allowed -= {candidate.edit.id}
        return None

    def candidates(self, key: Floats, now: datetime) -> list[Candidate]:
        """The edits in force whose keys are nearest."""
        if self.codebook is None:
            return []
        near = self.codebook.nearby(key, _CANDIDATES)
        return [self._candidate(one, key) for one in near if self._edits[one.entry.owner].in_force(now)]

    def _candidate(self, near: Nearby, key: Floats) -> Candidate:
        assert self.codebook is not None
        edit, own = self._edits[near.entry.owner], self.codebook.keys[near.number]
        cosine = float(own @ key / max(float(np.linalg.norm(own) * np.linalg.norm(key)), 1e-12))
        vetoed_by = None
        if edit.negatives:
            distances = np.linalg.norm(self.override.keys(edit.negatives) - key, axis=1)
            nearest = int(distances.argmin())
            vetoed_by = edit.negatives[nearest] if distances[nearest] <= near.distance else None
        return Candidate(edit, self._texts[near.number], cosine, score=near.claim, vetoed_by=vetoed_by)
