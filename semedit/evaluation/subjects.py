"""What can be evaluated: anything that answers prompts, and by whatever means takes edits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from transformers import PreTrainedTokenizerBase

from semedit.edits import Edit, Route
from semedit.errors import EvaluationError
from semedit.evaluation.asking import LONGEST_ANSWER, ask_with_routes, texts_of
from semedit.memory.store import to_json
from semedit.model import EditedModel
from semedit.overrides.base import answer_separator, continuation_ids
from semedit.prompts import as_prompt, running_prompt


@dataclass(frozen=True)
class Answer:
    """What was answered to a prompt.

    Attributes:
        text: the answer.
        tokens: the same as token ids, without the end; empty where what answers has none.
        route: how it was decided who answers; None where nothing decides.
    """

    text: str
    tokens: tuple[int, ...] = ()
    route: Route | None = None

    def same_as(self, other: Answer) -> bool:
        """Whether both say the same, token for token."""
        return (self.text, self.tokens) == (other.text, other.tokens)


class LogLikelihood(NamedTuple):
    """Log p(target | prompt).

    Attributes:
        total: in nats.
        tokens: how many tokens the target has.
    """

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        """For each token."""
        return self.total / self.tokens


def likelihoods_of(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], answers: Sequence[str], totals: Sequence[float]
) -> list[LogLikelihood]:
    """The log likelihoods of answers as they follow their texts, with how many tokens each has."""
    tokens = [len(continuation_ids(tokenizer, text, answer)) for text, answer in zip(texts, answers, strict=True)]
    return [LogLikelihood(*pair) for pair in zip(totals, tokens, strict=True)]


class Subject(Protocol):
    """What is evaluated."""

    @property
    def note(self) -> str:
        """A sentence on what became of the edits; empty where there is nothing to say."""

    def apply(self, edits: Sequence[Edit]) -> None:
        """Makes edits, on top of those made before."""

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """Answers each prompt, greedily and to a natural stop. It is never told what is expected."""

    def log_likelihood(
        self, prompts: Sequence[str], targets: Sequence[str], *, running: bool = False
    ) -> list[LogLikelihood] | None:
        """How likely each target is as the answer to its prompt, or, where it is `running` text, as what follows it.

        None where that cannot be told.
        """

    def token_accuracy(self, prompts: Sequence[str], targets: Sequence[str]) -> list[float] | None:
        """The share of each target's tokens that are the likeliest, teacher-forced; None where it cannot be told."""

    def bytes(self) -> int | None:
        """How much memory the edits take; None where that is not known."""

    def restore(self) -> None:
        """Takes back what the edits changed on anything that is shared with others."""


class Edited:
    """A model that `semedit.wrap` gave; edits go into its memory and stay there.

    Args:
        model: the model; give it a memory of its own.
        learn: what is to be done with new edits ahead of the first question, such as `AdaptorOverride.learn`.
        size: how much is kept for the edits besides their text and vectors, in bytes.
    """

    note = ""

    def __init__(
        self,
        model: EditedModel,
        *,
        learn: Callable[[Sequence[Edit]], object] | None = None,
        size: Callable[[Sequence[Edit]], int] | None = None,
    ) -> None:
        self.model = model
        self._learn = learn
        self._size = size

    def apply(self, edits: Sequence[Edit]) -> None:
        """Adds the edits to the memory."""
        self.model.edits.add_many(edits)
        if self._learn is not None:
            self._learn(edits)

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """Answers each prompt, in a chat turn of its own where there is a template, with its route."""
        answers = ask_with_routes(self.model, prompts, max_new_tokens=LONGEST_ANSWER)
        texts = texts_of(self.model.tokenizer, [ids for ids, _ in answers])
        return [Answer(text, tuple(ids), route) for text, (ids, route) in zip(texts, answers, strict=True)]

    def log_likelihood(
        self, prompts: Sequence[str], targets: Sequence[str], *, running: bool = False
    ) -> list[LogLikelihood]:
        """How likely each target is as the answer to its prompt, or as what follows it."""
        read = [(running_prompt if running else as_prompt)(self.model.tokenizer, prompt) for prompt in prompts]
        totals = self.model.log_likelihood([prompt.text for prompt in read], targets)
        answers = [answer_separator(self.model, prompt) + target for prompt, target in zip(read, targets, strict=True)]
        return likelihoods_of(self.model.tokenizer, [prompt.text for prompt in read], answers, totals)

    def token_accuracy(self, prompts: Sequence[str], targets: Sequence[str]) -> list[float]:
        """The share of each target's tokens that are the likeliest, teacher-forced."""
        texts = [as_prompt(self.model.tokenizer, prompt).text for prompt in prompts]
        return self.model.token_accuracy(texts, targets)

    def bytes(self) -> int:
        """What the memory keeps of its edits: text, vectors, and what was learned for them."""
        edits = self.model.edits.list()
        dim = self.model.edits.encoder.dim
        size = sum(len(to_json(edit).encode()) + 4 * dim * len(edit.texts) for edit in edits)
        return size if self._size is None else size + self._size(edits)

    def restore(self) -> None:
        """Nothing is shared: the base is untouched."""


class Answering:
    """A function from prompts to answers, edited by whatever means.

    Args:
        answer: what answers; one string for each prompt.
        apply: makes edits; None where what answers was edited before.
    """

    note = ""

    def __init__(
        self,
        answer: Callable[[Sequence[str]], Sequence[str]],
        apply: Callable[[Sequence[Edit]], object] | None = None,
    ) -> None:
        self._answer = answer
        self._apply = apply

    def apply(self, edits: Sequence[Edit]) -> None:
        """Makes edits, where that can be done."""
        if self._apply is not None:
            self._apply(edits)

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """The function's answers.

        Raises:
            EvaluationError: they are not one string for each prompt.
        """
        texts = list(self._answer(list(prompts)))
        if len(texts) != len(prompts) or not all(isinstance(text, str) for text in texts):
            raise EvaluationError(f"expected {len(prompts)} answers, each a string, and found {texts!r:.200}")
        return [Answer(text.strip()) for text in texts]

    def log_likelihood(self, prompts: Sequence[str], targets: Sequence[str], *, running: bool = False) -> None:
        """A function has none."""

    def token_accuracy(self, prompts: Sequence[str], targets: Sequence[str]) -> None:
        """A function has none."""

    def bytes(self) -> None:
        """Nobody knows."""

    def restore(self) -> None:
        """Nothing is known to be shared."""
