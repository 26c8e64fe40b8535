"""Every edit is a test case: whether the model still answers as its edits say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from semedit.edits import Edit, Route
from semedit.evaluation.asking import LONGEST_ANSWER, ask_with_routes, texts_of
from semedit.evaluation.metrics import exact_match
from semedit.memory.checks import check_search
from semedit.memory.edit_memory import EditMemory
from semedit.model import EditedModel

Kind = Literal["prompt", "paraphrase", "negative"]


@dataclass(frozen=True)
class Checked:
    """One question that an edit promises something about, and what came of it.

    Attributes:
        edit: the edit.
        kind: which of its texts was asked.
        asked: the question.
        got: the model's answer.
        route: how it was decided who answers.
        cut: whether the answer was cut off before it ended.
    """

    edit: Edit
    kind: Kind
    asked: str
    got: str
    route: Route
    cut: bool = False

    @property
    def routed(self) -> bool:
        """Whether the edit is among those that answered."""
        return any(edit.id == self.edit.id for edit in self.route.edits)

    @property
    def holds(self) -> bool:
        """Whether the edit answered with its target, or, to a negative, did not answer."""
        if self.kind == "negative":
            return not self.routed
        return self.routed and exact_match(self.got, self.edit.target)

    @property
    def why(self) -> str:
        """Who answered, and the route's reason."""
        others = [edit.id for edit in self.route.edits if edit.id != self.edit.id]
        how = "together with" if self.routed else "answered by"
        said = [f"{how} edit {' and '.join(others)}"] if others else []
        said.append(self.route.reason)
        if self.cut:
            said.append("the answer was cut off at the most tokens it may have")
        return "; ".join(said)


def check(
    model: EditedModel,
    *,
    max_new_tokens: int = LONGEST_ANSWER,
    namespaces: Sequence[str] | None = None,
    progress: bool = False,
) -> list[Checked]:
    """Asks the model the prompt, the paraphrases and the negatives of each edit that is in force now.

    Each is asked as a user would ask it, in a chat turn of its own where there is a chat template, and answered
    greedily to a natural stop. The prompt and the paraphrases must be answered by this edit, and with its target by
    exact match after normalisation; whatever answers a negative, it must not be this edit.

    Args:
        model: the edited model, as it is to be deployed.
        max_new_tokens: where an answer ends that does not end by itself; the longest target must fit.
        namespaces: where edits are looked for, and which edits are checked; None takes `"default"` alone.
        progress: whether to show a bar.

    Returns:
        What was checked, oldest edit first.

    Raises:
        InvalidQueryError: `namespaces` is no list.
    """
    wanted = [(edit, *text) for edit in edits_in_force(model.edits, namespaces) for text in _texts(edit)]
    answered = ask_with_routes(
        model,
        [text for _, _, text in wanted],
        max_new_tokens=max_new_tokens,
        desc="checking" if progress else None,
        namespaces=namespaces,
    )
    texts = texts_of(model.tokenizer, [ids for ids, _ in answered])
    return [
        Checked(edit, kind, asked, got, route, cut=len(ids) == max_new_tokens)
        for (edit, kind, asked), got, (ids, route) in zip(wanted, texts, answered, strict=True)
    ]


def edits_in_force(memory: EditMemory, namespaces: Sequence[str] | None = None) -> list[Edit]:
    """The active edits of these namespaces that are within their validity now, oldest first; None is `"default"`.

    Raises:
        InvalidQueryError: `namespaces` is no list.
    """
    check_search((), namespaces)
    names = ("default",) if namespaces is None else namespaces
    now = datetime.now(timezone.utc)
    return [edit for edit in memory.list() if edit.namespace in names and edit.in_force(now)]


def _texts(edit: Edit) -> Iterator[tuple[Kind, str]]:
    """What is asked of an edit."""
    yield "prompt", edit.prompt
    for text in edit.paraphrases:
        yield "paraphrase", text
    for text in edit.negatives:
        yield "negative", text
