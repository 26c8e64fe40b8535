"""The override that a caller of `wrap` chooses, by its name or as an object."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semedit.errors import WrapError
from semedit.memory.edit_memory import EditMemory
from semedit.overrides.adaptor import AdaptorOverride
from semedit.overrides.base import Override
from semedit.overrides.in_context import InContextOverride
from semedit.overrides.verbatim import VerbatimOverride


def chosen_override(
    override: Override | str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, memory: EditMemory
) -> Override:
    """The override of that name, or the object that was given.

    Raises:
        WrapError: there is none of that name, or the object is of another model or another memory.
    """
    if override == "in_context":
        return InContextOverride(model, tokenizer)
    if override == "verbatim":
        return VerbatimOverride(model, tokenizer)
    if override == "adaptor":
        return AdaptorOverride(model, tokenizer, memory)
    if isinstance(override, str):
        raise WrapError(
            f"no override is called {override!r}; there are 'in_context', 'verbatim' and 'adaptor', and objects "
            "such as semedit.CounterfactualOverride(...)"
        )
    if getattr(override, "model", model) is not model:
        raise WrapError("the override was made for another model; make it with the model that is wrapped")
    if isinstance(override, AdaptorOverride) and override.memory is not memory:
        raise WrapError("the adaptor keeps its values in another memory; give `wrap` the same EditMemory")
    return override
