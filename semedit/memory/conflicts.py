"""Whether a new edit contradicts one that is there."""

from __future__ import annotations

from collections.abc import Sequence

from semedit.edits import Candidate, Edit
from semedit.scope.base import ScopeClassifier
from semedit.scope.judge import judge


def conflict_of(edit: Edit, near: Sequence[Candidate], scope: ScopeClassifier) -> str | None:
    """The worst conflict of a new edit with others, in words; None where there is none.

    Args:
        edit: the new edit.
        near: the edits near to its prompt; those with its target, itself among them, are passed over.
        scope: what judges whether the prompt is in their scope.
    """
    others = [c for c in near if not c.edit.same_target(edit)]
    [judged] = judge(scope, [edit.prompt], [others])
    claims = [c for c in judged if c.in_scope(scope.threshold)]
    if not claims:
        return None
    other = claims[0].edit
    return (
        f"the prompt of edit {edit.id} ({edit.prompt!r} => {edit.target!r}) is in the scope of edit {other.id} "
        f"({other.prompt!r} => {other.target!r}, score {claims[0].claim:.2f}); retire or update {other.id}, or keep "
        f"it from this prompt: add_negative({other.id!r}, {edit.prompt!r})"
    )
