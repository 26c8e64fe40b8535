"""Runtime edits for frozen language models: wrap a Hugging Face model, append an edit, and the next answer has it."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semedit.edits import Candidate, Edit, Route
    from semedit.errors import SemeditError, SemeditWarning
    from semedit.memory.edit_memory import EditMemory
    from semedit.memory.encoder import SentenceEncoder
    from semedit.model import EditedModel, wrap
    from semedit.overrides.adaptor import AdaptorOverride
    from semedit.overrides.adaptor_config import AdaptorConfig
    from semedit.overrides.counterfactual import CounterfactualOverride
    from semedit.overrides.ensemble import EnsembleOverride
    from semedit.overrides.in_context import InContextOverride
    from semedit.overrides.verbatim import VerbatimOverride
    from semedit.scope.calibration import Calibration
    from semedit.scope.cross_encoder import CrossEncoderScope
    from semedit.scope.similarity import SimilarityScope

__all__ = [
    "AdaptorConfig",
    "AdaptorOverride",
    "Calibration",
    "Candidate",
    "CounterfactualOverride",
    "CrossEncoderScope",
    "Edit",
    "EditMemory",
    "EditedModel",
    "EnsembleOverride",
    "InContextOverride",
    "Route",
    "SemeditError",
    "SemeditWarning",
    "SentenceEncoder",
    "SimilarityScope",
    "VerbatimOverride",
    "wrap",
]

# where each name lives: it is imported when it is first asked for, since what runs without a model (the help, the
# list of edits) should not wait seconds for torch and transformers
_HOMES = {
    "AdaptorConfig": "overrides.adaptor_config",
    "AdaptorOverride": "overrides.adaptor",
    "Calibration": "scope.calibration",
    "Candidate": "edits",
    "CounterfactualOverride": "overrides.counterfactual",
    "CrossEncoderScope": "scope.cross_encoder",
    "Edit": "edits",
    "EditMemory": "memory.edit_memory",
    "EditedModel": "model",
    "EnsembleOverride": "overrides.ensemble",
    "InContextOverride": "overrides.in_context",
    "Route": "edits",
    "SemeditError": "errors",
    "SemeditWarning": "errors",
    "SentenceEncoder": "memory.encoder",
    "SimilarityScope": "scope.similarity",
    "VerbatimOverride": "overrides.verbatim",
    "wrap": "model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'semedit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"semedit.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
