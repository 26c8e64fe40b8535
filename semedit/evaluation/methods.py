"""The ways of editing that `semedit evaluate` compares, by name."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semedit.evaluation.baselines import AllInContext, FineTuned, RetrieveAndPrompt, Unedited
from semedit.evaluation.subjects import Edited, Subject
from semedit.memory.edit_memory import EditMemory
from semedit.memory.encoder import Encoder
from semedit.model import wrap
from semedit.overrides.adaptor import AdaptorOverride
from semedit.overrides.adaptor_config import AdaptorConfig
from semedit.overrides.base import Override
from semedit.overrides.counterfactual import CounterfactualOverride
from semedit.overrides.ensemble import EnsembleOverride
from semedit.scope.base import ScopeClassifier


def make_subject(
    method: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    encoder: Encoder,
    scope: ScopeClassifier,
    adaptor: AdaptorConfig,
    small: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None,
) -> Subject:
    """A model to be edited by a method, with no edits yet.

    Args:
        method: one of `METHODS`, or `"none"`, the base as it is.
        model: the base.
        tokenizer: the base's.
        encoder: what finds edits; the methods may share it.
        scope: what decides their scope, likewise.
        adaptor: for `"adaptor"`.
        small: the other model of `"counterfactual"` and `"ensemble"`; None takes the base itself.
    """
    if method == "none":
        return Unedited(model, tokenizer)
    if method == "all_in_context":
        return AllInContext(model, tokenizer)
    if method == "retrieve_and_prompt":
        return RetrieveAndPrompt(model, tokenizer, encoder)
    if method == "fine_tuned":
        return FineTuned(model, tokenizer)
    memory = EditMemory(encoder=encoder)
    other, other_tokenizer = small or (model, tokenizer)
    override: Override | str = method
    if method == "adaptor":
        override = AdaptorOverride(model, tokenizer, memory, adaptor)
    elif method == "counterfactual":
        override = CounterfactualOverride(model, tokenizer, other, other_tokenizer)
    elif method == "ensemble":
        override = EnsembleOverride(model, tokenizer, other)
    edited = wrap(model, tokenizer, memory=memory, scope=scope, override=override)
    if isinstance(override, AdaptorOverride):
        return Edited(edited, learn=override.learn, size=override.size)
    return Edited(edited)
