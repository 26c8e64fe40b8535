"""Edits a model by one method of benchmarks/grace.py, and counts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import semedit
from harness import timed
from semedit import AdaptorConfig, AdaptorOverride, Edit, EditMemory
from semedit.edits import Route
from semedit.errors import AdaptorWarning
from semedit.evaluation.asking import LONGEST_ANSWER, ask, inputs_of, texts_of
from semedit.evaluation.metrics import exact_match, wilson
from semedit.hooks import layer_at, replaced_output
from semedit.overrides.base import answer_separator, continuation_ids
from semedit.overrides.codebook_router import CodebookRouter
from semedit.overrides.learning import Lesson, make_batch
from semedit.overrides.suffix import Suffix
from semedit.prompts import as_prompt, read_prompts
from semedit.router import Router
from semedit.scope.base import ScopeClassifier

BATCH = 32
CHUNK = 25


@dataclass(frozen=True)
class Questions:
    """What is edited and asked.

    Attributes:
        edits, rephrases: one rephrase for each edit.
        unrelated, unedited: questions, and the unedited model's answer to each as token ids.
    """

    edits: list[Edit]
    rephrases: list[str]
    unrelated: list[str]
    unedited: list[list[int]]


class Subject:
    """A base model, edited by one method.

    Args:
        base, tokenizer: the model.
        name, config: the method, and how it learns and looks up.
        memory: methods may share one, and then learn values that are the same only once; each has a namespace there.
        scope: shared by all methods.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        config: AdaptorConfig,
        memory: EditMemory,
        scope: ScopeClassifier,
    ) -> None:
        self.tokenizer = tokenizer
        self.memory = memory
        self.namespace = name
        self.adaptor = AdaptorOverride(base, tokenizer, self.memory, config)
        self.model = semedit.wrap(base, tokenizer, memory=self.memory, scope=scope, override=self.adaptor)
        # decides as the wrapped model's own router does
        self.router: Router | CodebookRouter = Router(self.memory, scope)
        if config.routing == "codebook":
            self.router = CodebookRouter(self.memory, self.adaptor)

    def add(self, edits: Sequence[Edit]) -> None:
        """Adds and learns edits."""
        # ids are of all namespaces
        mine = [replace(edit, id=f"{self.namespace} {edit.id}", namespace=self.namespace) for edit in edits]
        self.memory.add_many(mine)
        if isinstance(self.router, CodebookRouter):
            self.router.book(self.namespace)
        else:
            self.adaptor.learn(edits)

    def right(self, questions: Sequence[str], targets: Sequence[str]) -> list[bool]:
        """Whether each question is answered by its target."""
        answers = self.answers(questions)
        return [exact_match(a, t) for a, t in zip(texts_of(self.tokenizer, answers), targets, strict=True)]

    def answers(self, questions: Sequence[str]) -> list[list[int]]:
        """The answer to each question, as token ids."""
        return ask(self.model, self.tokenizer, questions, max_new_tokens=LONGEST_ANSWER, namespaces=[self.namespace])

    def routes(self, questions: Sequence[str]) -> list[Route]:
        """The decision for each question, as the model comes to it."""
        routes = []
        for start in range(0, len(questions), BATCH):
            texts = [as_prompt(self.tokenizer, question).text for question in questions[start : start + BATCH]]
            inputs = inputs_of(self.model, self.tokenizer, texts)
            read = read_prompts(self.tokenizer, inputs["input_ids"], inputs["attention_mask"])
            routes += self.router.route([self.router.reads(prompt) for prompt in read], [self.namespace])
        return routes

    @torch.no_grad()
    def teacher_forced(self, edits: Sequence[Edit]) -> list[bool]:
        """Whether each token of an edit's target is the likeliest after its prompt and the target's tokens before it.

        The value is that of the edit that the router gives the prompt to; where it gives none, the base judges.
        """
        routes = self.routes([edit.prompt for edit in edits])
        exact: dict[str, bool] = {}
        for in_scope in (True, False):
            rows = [(e, r) for e, r in zip(edits, routes, strict=True) if r.in_scope == in_scope]
            for start in range(0, len(rows), BATCH):
                some = rows[start : start + BATCH]
                values = self._values([r.edits[0] for _, r in some]) if in_scope else None
                exact |= zip((e.id for e, _ in some), self._likeliest([e for e, _ in some], values), strict=True)
        return [exact[edit.id] for edit in edits]

    def keys(self) -> int | None:
        """How many entries the codebook has; None where there is none."""
        if not isinstance(self.router, CodebookRouter):
            return None
        codebook = self.router.book(self.namespace).codebook
        return 0 if codebook is None else len(codebook)

    def bytes(self, edits: Sequence[Edit]) -> int:
        """How much is kept of what was learned for edits."""
        size = self.adaptor.size(edits)
        if isinstance(self.router, CodebookRouter):
            size += self.adaptor.keys([text for edit in edits for text in edit.keys]).nbytes
        return size

    def _values(self, edits: Sequence[Edit]) -> Tensor:
        values = self.adaptor.values(edits)
        return torch.stack([values[edit.id] for edit in edits])

    def _likeliest(self, edits: Sequence[Edit], values: Tensor | None) -> list[bool]:
        model, tokenizer, layer = self.adaptor.model, self.tokenizer, self.adaptor.layer
        prompts = [as_prompt(tokenizer, edit.prompt) for edit in edits]
        lessons = [
            Lesson(
                [tokenizer(prompt.text, add_special_tokens=False)["input_ids"]],
                [continuation_ids(tokenizer, prompt.text, answer_separator(model, prompt) + edit.target)],
            )
            for prompt, edit in zip(prompts, edits, strict=True)
        ]
        batch = make_batch(model, layer, lessons, self.adaptor.config, tokenizer.pad_token_id)
        run = Suffix(model, layer)
        if values is None:
            logits = run(**batch.inputs)
        else:
            with replaced_output(layer_at(model, layer), values, batch.positions):
                logits = run(**batch.inputs)
        wrong = (logits.argmax(-1) != batch.targets) & (batch.targets >= 0)
        return [not row for row in wrong.any(1).tolist()]


def measure(
    subject: Subject, asked: Questions, checkpoints: Sequence[int], bar: tqdm, learning: dict[int, float]
) -> Iterator[dict[str, Any]]:
    """The figures of one method at each number of edits.

    Args:
        subject: what is edited.
        asked: the edits, and what is asked.
        checkpoints: after how many edits.
        bar: moves on with each edit.
        learning: how long each chunk took a method that learns the same values; empty for the first of them.
    """
    seconds, answered = 0.0, []
    for start, end in chunks(checkpoints):
        chunk = asked.edits[start:end]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AdaptorWarning)  # what is not reached shows in the figures
            took = timed(subject.add, chunk)[0]
            seconds += max(took, learning.setdefault(end, took))
            answered += subject.right([edit.prompt for edit in chunk], [edit.target for edit in chunk])
        bar.update(len(chunk))
        if end not in checkpoints:
            continue
        edits, rephrases = asked.edits[:end], asked.rephrases[:end]
        targets = [edit.target for edit in edits]
        given = subject.answers(asked.unrelated)
        judged = {
            "success": answered,
            "retention": subject.right([edit.prompt for edit in edits], targets),
            "teacher_forced": subject.teacher_forced(edits),
            "generality": subject.right(rephrases, targets),
            "routed": [
                any(one.prompt == edit.prompt or exact_match(one.target, edit.target) for one in route.edits[:1])
                for route, edit in zip(subject.routes(rephrases), edits, strict=True)
            ],
            "unrelated": [one == other for one, other in zip(given, asked.unedited, strict=True)],
        }
        keys = subject.keys()
        yield {
            "edits": end,
            **{name: rate(hits) for name, hits in judged.items()},
            "keys_per_edit": None if keys is None else keys / end,
            "seconds_per_edit": seconds / end,
            "bytes_per_edit": subject.bytes(edits) / end,
        }


def chunks(checkpoints: Sequence[int]) -> Iterator[tuple[int, int]]:
    """From where to where edits are added at once: at most CHUNK of them, and none beyond a checkpoint."""
    start = 0
    for checkpoint in checkpoints:
        while start < checkpoint:
            end = min(start + CHUNK, checkpoint)
            yield start, end
            start = end


def rate(hits: Sequence[bool]) -> dict[str, Any]:
    """How many of how many, with the 95 % Wilson interval."""
    low, high = wilson(sum(hits), len(hits))
    return {"right": sum(hits), "of": len(hits), "low": low, "high": high}
