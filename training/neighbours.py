"""What stands near to a text in an encoder's space, and which question templates ask another property."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from facts import Fact
from semedit.memory.encoder import Encoder
from semedit.memory.index import VectorIndex

_NEAREST = 8
# SERAC's hard negatives: of so many nearest, without the first ones, at this temperature
_SERAC_NEAREST, _SERAC_WITHOUT, _SERAC_TEMPERATURE = 100, 25, 0.1
# cosines of question templates with their subject masked: above, they may ask the same; below, they are easy
_MAY_ASK_THE_SAME, _EASY = 0.62, 0.15


class Neighbours:
    """Neighbours among the first prompts of facts, by an encoder.

    Args:
        facts: the facts, by source.
        queries: texts whose nearest prompts will be asked for.
        encoder: the encoder.
    """

    def __init__(self, facts: Mapping[str, Sequence[Fact]], queries: Sequence[str], encoder: Encoder) -> None:
        self.encoder = encoder
        self.subject_of = {fact.prompts[0]: fact.subject for source in facts.values() for fact in source}
        self.prompts = list(self.subject_of)
        vectors = encoder.encode(self.prompts, progress=True)
        questions = dict.fromkeys(fact.prompts[0] for fact in facts["zsre"])
        rows = dict(zip(self.prompts, vectors, strict=True))
        self._near = self._nearest(list(questions), np.stack([rows[q] for q in questions]), vectors, _SERAC_NEAREST)
        self._near_prompts = self._nearest(queries, encoder.encode(list(queries), progress=True), vectors, _NEAREST)
        self._find_unlike(facts["zsre"])

    def nearest(self, prompt: str) -> list[str]:
        """The prompts nearest to the prompt of a zsRE fact that are about other subjects."""
        return [near for near, _ in self._near[prompt][:_NEAREST] if self._is_other(prompt, near)]

    def nearest_prompts(self, query: str) -> list[str]:
        """The prompts nearest to a query."""
        return [near for near, _ in self._near_prompts[query]]

    def serac(self, prompt: str, rng: random.Random) -> str:
        """A hard negative for the prompt of a zsRE fact, as SERAC draws them (Mitchell et al. 2022, appendix)."""
        far = self._near[prompt][_SERAC_WITHOUT:]
        return rng.choices([near for near, _ in far], [np.exp(cosine / _SERAC_TEMPERATURE) for _, cosine in far])[0]

    def unlike(self, template: str) -> list[str]:
        """Question templates that ask another property than `template`."""
        return self._unlike.get(template, [])

    def alike(self, property_: str, template: str) -> bool:
        """Whether a property with its subject masked may be what a template asks."""
        for text in (property_, template):
            if text not in self._masked:
                self._masked[text] = self.encoder.encode([text])[0]
        return bool(self._masked[property_] @ self._masked[template] > _MAY_ASK_THE_SAME)

    def _is_other(self, prompt: str, near: str) -> bool:
        subject, other = self.subject_of[prompt], self.subject_of[near]
        return bool(other) and other.lower() not in prompt.lower() and subject not in near

    def _nearest(
        self, texts: Sequence[str], queries: np.ndarray, vectors: np.ndarray, k: int
    ) -> dict[str, list[tuple[str, float]]]:
        """The k prompts nearest to each text that are not the text itself, nearest first, with their cosines."""
        index = VectorIndex(vectors.shape[1])
        index.add(range(len(vectors)), vectors)
        cosines, numbers = index.search(queries, k + 1)
        return {
            text: [
                (self.prompts[i], cosine)
                for i, cosine in zip(row, near, strict=True)
                if i >= 0 and self.prompts[i] != text
            ]
            for text, row, near in zip(texts, numbers.tolist(), cosines.tolist(), strict=True)
        }

    def _find_unlike(self, facts: Sequence[Fact]) -> None:
        answers: dict[str, set[str]] = defaultdict(set)
        rephrases: dict[str, set[str]] = defaultdict(set)
        for fact in facts:
            if fact.subject in fact.prompts[0]:
                answers[fact.template].add(fact.answer)
                rephrases[fact.template].update(p.replace(fact.subject, "[X]") for p in fact.prompts[1:])
        templates = sorted(answers)
        vectors = self.encoder.encode(templates)
        self._masked = dict(zip(templates, vectors, strict=True))
        cosines = vectors @ vectors.T
        self._unlike = {
            template: [
                other
                for j, other in enumerate(templates)
                if _EASY < cosines[i][j] < _MAY_ASK_THE_SAME
                and not answers[template] & answers[other]
                and not rephrases[template] & rephrases[other]
            ]
            for i, template in enumerate(templates)
        }
