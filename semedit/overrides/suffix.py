"""The part of a model from an adaptor upward, to be run again and again over the same prompts."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from semedit.hooks import cache_name, takes


class Suffix:
    """Runs a model over one batch of prompts, computing what lies below the adaptor's block a single time.

    Blocks before the one that holds the adaptor do not depend on its value: each runs once, and from then on gives
    the output that it gave. The model itself is left as it is; its blocks stand in a view of it.

    Args:
        model: the model.
        path: the adaptor's layer.
    """

    def __init__(self, model: PreTrainedModel, path: str) -> None:
        self.model = _view_with_lower_kept(model, path)

    def __call__(self, **inputs: Any) -> Tensor:
        """The logits of a pass, `(rows, positions, vocabulary)`."""
        name = cache_name(self.model)
        cache = inputs.pop(name, None)
        if cache is not None:
            inputs[name] = _copied(cache)
        logits: Tensor = self.model(**inputs, use_cache=cache is not None).logits
        return logits


def prefix_cache(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> DynamicCache | None:
    """The keys and values of `(rows, prefix)` ids; None where the model keeps something else of what it read."""
    if not input_ids.shape[1]:
        return None
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **position_ids(model, attention_mask)}
    with torch.no_grad():
        cache = getattr(model(**inputs, use_cache=True), cache_name(model))
    kept = isinstance(cache, DynamicCache) and all(isinstance(layer, DynamicLayer) for layer in cache.layers)
    return cache if kept else None


def position_ids(model: PreTrainedModel, attention_mask: Tensor) -> dict[str, Tensor]:
    """Positions counted from each row's first token, for a model that takes them."""
    if not takes(model, "position_ids"):
        return {}
    return {"position_ids": (attention_mask.cumsum(1) - 1).clamp(min=0)}


class _Kept(nn.Module):
    """A block that runs once and gives the same output from then on."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.output: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the block gave at first."""
        if self.output is None:
            with torch.no_grad():
                self.output = self.block(*args, **kwargs)
        return self.output

    def __getattr__(self, name: str) -> Any:
        # models ask their blocks for their kind of attention
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)


def _view_with_lower_kept(model: PreTrainedModel, path: str) -> PreTrainedModel:
    """The model with a `_Kept` in place of each block before the one that holds the layer."""
    view: PreTrainedModel = _copied_module(model)
    node: nn.Module = view
    for name in path.split("."):
        child = node._modules[name]
        if isinstance(node, nn.ModuleList):
            for number in range(int(name)):
                node._modules[str(number)] = _Kept(node[number])
            return view
        assert child is not None
        node._modules[name] = _copied_module(child)
        node = node._modules[name]  # type: ignore[assignment]
    return view


def _copied_module(module: Any) -> Any:
    twin = copy.copy(module)
    twin.__dict__["_modules"] = dict(module._modules)
    return twin


def _copied(cache: DynamicCache) -> DynamicCache:
    """A cache that can grow without the other; what both hold is shared."""
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    return twin
