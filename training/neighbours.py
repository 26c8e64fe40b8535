"""What stands near to a text in an encoder's space."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import faiss
import numpy as np

from facts import Fact
from properties import Property
from semedit.memory.encoder import Encoder

_NEAREST = 8
_NEAREST_PROPERTIES = 12
# SERAC's hard negatives: of so many nearest, without the first ones, at this temperature
_SERAC_NEAREST, _SERAC_WITHOUT, _SERAC_TEMPERATURE = 100, 25, 0.1


class Neighbours:
    """Neighbours among the first prompts of facts, by an encoder.

    Args:
        facts: the facts, by source.
        queries: texts whose nearest prompts will be asked for.
        properties: properties of which others will be asked for.
        encoder: the encoder.
    """

    def __init__(
        self,
        facts: Mapping[str, Sequence[Fact]],
        queries: Sequence[str],
        properties: Sequence[Property],
        encoder: Encoder,
    ) -> None:
        self.subject_of = {fact.prompts[0]: fact.subject for source in facts.values() for fact in source}
        self.prompts = list(self.subject_of)
        vectors = encoder.encode(self.prompts, progress=True)
        rows = dict(zip(self.prompts, vectors, strict=True))
        # SERAC's are those of its own data set
        questions = list(dict.fromkeys(fact.prompts[0] for fact in facts["zsre"]))
        of_questions = np.stack([rows[question] for question in questions])
        self._far = nearest(questions, of_questions, questions, of_questions, _SERAC_NEAREST)
        named = [prompt for prompt, subject in self.subject_of.items() if subject]
        self._near = nearest(named, np.stack([rows[p] for p in named]), self.prompts, vectors, _NEAREST)
        asked = encoder.encode(list(queries), progress=True)
        self._near_prompts = nearest(queries, asked, self.prompts, vectors, _NEAREST)

        names = encoder.encode([one.names[0] for one in properties])
        self._others = {
            one.key: [properties[i] for i in row if properties[i].key not in one.overlaps]
            for one, row in zip(properties, np.argsort(-names @ names.T, axis=1, kind="stable"), strict=True)
        }

    def nearest(self, prompt: str) -> list[str]:
        """The prompts nearest to the first prompt of a fact with a subject that are about other subjects."""
        return [near for near, _ in self._near[prompt] if self._is_other(prompt, near)]

    def nearest_prompts(self, query: str) -> list[str]:
        """The prompts nearest to a query."""
        return [near for near, _ in self._near_prompts[query]]

    def other_property(self, one: Property, rng: random.Random) -> Property:
        """A property that plainly asks something else; half of the time of those nearest by name."""
        others = self._others[one.key]
        return rng.choice(others[:_NEAREST_PROPERTIES] if rng.random() < 0.5 else others)

    def serac(self, prompt: str, rng: random.Random) -> str:
        """A zsRE question as a hard negative for another one, as SERAC draws them (Mitchell et al. 2022, appendix)."""
        far = self._far[prompt][_SERAC_WITHOUT:]
        return rng.choices([near for near, _ in far], [np.exp(cosine / _SERAC_TEMPERATURE) for _, cosine in far])[0]

    def _is_other(self, prompt: str, near: str) -> bool:
        subject, other = self.subject_of[prompt], self.subject_of[near]
        return bool(other) and other.lower() not in prompt.lower() and subject not in near


def nearest(
    texts: Sequence[str], of_texts: np.ndarray, prompts: Sequence[str], of_prompts: np.ndarray, k: int
) -> dict[str, list[tuple[str, float]]]:
    """The k prompts nearest to each text that are not the text itself, nearest first, with their cosines.

    Args:
        texts: the texts.
        of_texts: `(texts, dim)`, their vectors.
        prompts: the prompts to find; none may stand twice.
        of_prompts: `(prompts, dim)`, their vectors.
        k: how many.
    """
    index: Any = faiss.IndexFlatIP(of_prompts.shape[1])
    index.add(of_prompts)
    cosines, numbers = index.search(of_texts, k + 1)
    return {
        text: [(prompts[i], cosine) for i, cosine in zip(row, near, strict=True) if i >= 0 and prompts[i] != text][:k]
        for text, row, near in zip(texts, numbers.tolist(), cosines.tolist(), strict=True)
    }
