"""Evaluation by free generation: how well edits work, how far they reach, and what they break."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semedit.evaluation.datasets import consistent, read, unrelated
    from semedit.evaluation.evaluator import evaluate
    from semedit.evaluation.examples import Criterion, Example, Probe
    from semedit.evaluation.results import Evaluation

__all__ = ["Criterion", "Evaluation", "Example", "Probe", "consistent", "evaluate", "read", "unrelated"]

# where each name lives: it is imported when it is first asked for, as in semedit itself
_HOMES = {
    "Criterion": "examples",
    "Evaluation": "results",
    "Example": "examples",
    "Probe": "examples",
    "consistent": "datasets",
    "evaluate": "evaluator",
    "read": "datasets",
    "unrelated": "datasets",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'semedit.evaluation' has no attribute {name!r}")
    return getattr(importlib.import_module(f"semedit.evaluation.{_HOMES[name]}"), name)
