"""Runtime edits for frozen language models: wrap a Hugging Face model, append an edit, and the next answer has it."""

from semedit.edits import Candidate, Edit, Route
from semedit.errors import SemeditError
from semedit.memory.edit_memory import EditMemory
from semedit.memory.encoder import SentenceEncoder
from semedit.model import EditedModel, wrap
from semedit.overrides.counterfactual import CounterfactualOverride
from semedit.overrides.in_context import InContextOverride
from semedit.overrides.verbatim import VerbatimOverride
from semedit.scope.cross_encoder import CrossEncoderScope
from semedit.scope.similarity import SimilarityScope

__all__ = [
    "Candidate",
    "CounterfactualOverride",
    "CrossEncoderScope",
    "Edit",
    "EditMemory",
    "EditedModel",
    "InContextOverride",
    "Route",
    "SemeditError",
    "SentenceEncoder",
    "SimilarityScope",
    "VerbatimOverride",
    "wrap",
]
