"""A model's layers by name, and hooks on them that exist for one call and act in the thread that made it alone."""

from __future__ import annotations

import difflib
import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from semedit.errors import LayerError, UnsupportedArgumentError

_NEVER_REACHED = "the model's pass never came to this layer; name a layer that every prompt passes"


def takes(model: PreTrainedModel, argument: str) -> bool:
    """Whether a model's pass takes an argument of that name."""
    return argument in inspect.signature(model.forward).parameters


def cache_name(model: PreTrainedModel) -> str:
    """What a model's pass and its output call the keys and values of what was read before."""
    return "cache" if takes(model, "cache") else "past_key_values"


def keeps_a_cache(model: PreTrainedModel) -> bool:
    """Whether a model can go on from what it read before, and need not read it again for each token."""
    return any(takes(model, name) for name in ("cache", "past_key_values", "cache_params"))


def layer_at(model: nn.Module, path: str) -> nn.Module:
    """The module at a path such as `"model.layers.3.mlp.down_proj"`.

    Raises:
        LayerError: there is none; it says which modules are near.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if path and path in modules:
        return modules[path]
    names = [name for name in modules if name]
    near = difflib.get_close_matches(path, names, n=4, cutoff=0.5)
    if not near:
        parts = path.split(".")
        known = [".".join(parts[:n]) for n in range(len(parts)) if ".".join(parts[:n]) in modules]
        near = [f"{known[-1]}.{name}".lstrip(".") for name, _ in modules[known[-1]].named_children()]
    raise LayerError(f"{type(model).__name__} has no module {path!r}; near to it are {', '.join(near)}")


def linear_layers(model: PreTrainedModel) -> list[str]:
    """The path of the last linear layer of each block: of the decoder, or of an encoder where there is one.

    Raises:
        LayerError: the model has no list of blocks with linear layers.
    """
    names: dict[int, str] = {id(module): name for name, module in model.named_modules()}
    part = model.get_encoder() if model.config.is_encoder_decoder else model
    lists = [module for module in part.modules() if isinstance(module, nn.ModuleList)]
    blocks = max(lists, key=len, default=nn.ModuleList())
    linear = [[m for m in block.modules() if isinstance(m, (nn.Linear, Conv1D))] for block in blocks]
    if not any(linear):
        raise LayerError(f"cannot tell which layer of {type(model).__name__} to adapt; name one with layer=")
    return [names[id(layers[-1])] for layers in linear if layers]


def embedding_path(model: PreTrainedModel) -> str:
    """The path of the layer that turns tokens into vectors: of the encoder where there is one."""
    embedding = (model.get_encoder() if model.config.is_encoder_decoder else model).get_input_embeddings()
    return str(next(path for path, module in model.named_modules() if module is embedding))


def first_layer(model: PreTrainedModel) -> str:
    """The path of the last linear layer of the first block, as `linear_layers` finds it."""
    return linear_layers(model)[0]


class _Reached(Exception):
    """The layer that was asked for has its input."""


@torch.no_grad()
def layer_inputs(model: PreTrainedModel, layer: nn.Module, **inputs: Any) -> Tensor:
    """What a layer is given in a pass over `inputs`, `(rows, positions, features)`; the pass ends there."""
    thread = threading.get_ident()
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        if threading.get_ident() == thread:
            seen.append(args[0])
            raise _Reached

    handle = layer.register_forward_pre_hook(keep)
    try:
        model(**inputs, use_cache=False)
    except _Reached:
        return seen[0]
    finally:
        handle.remove()
    raise LayerError(_NEVER_REACHED)


@contextmanager
def layer_outputs(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collects what a layer gives in the passes inside, each `(rows, positions, features)`; there must be one."""
    thread = threading.get_ident()
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if threading.get_ident() == thread:
            seen.append(output)

    handle = layer.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
    if not seen:
        raise LayerError(_NEVER_REACHED)


@contextmanager
def replaced_output(
    layer: nn.Module, values: Tensor, positions: Tensor, *, every_pass: bool = False
) -> Iterator[None]:
    """A layer gives each row's value in place of its own output, at some positions of the prompt.

    This happens in the first pass, from where a key-value cache carries it on.

    Args:
        layer: gives `(rows, positions, features)`.
        values: `(rows, features)`; the model may run several sequences for each row, one after the other.
        positions: `(rows, prompt)`, true where the value stands.
        every_pass: whether nothing is cached, so that each pass begins with the prompt and needs the values.
    """
    thread = threading.get_ident()
    passes = 0

    def replace(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        nonlocal passes
        if threading.get_ident() != thread:
            return None
        passes += 1
        read, length = positions.shape[1], output.shape[1]
        if passes == 1 and length < read:
            raise UnsupportedArgumentError(
                f"the first pass read {length} of {read} tokens, and an adaptor needs the prompt in one; leave "
                "prefill_chunk_size away"
            )
        if passes > 1 and (not every_pass or length < read):  # a shorter pass goes on from something that was kept
            return None
        each = output.shape[0] // len(values)
        own = output[:, :read]
        chosen = positions.repeat_interleave(each, 0)[:, :, None].to(output.device)
        value = values.repeat_interleave(each, 0)[:, None].to(output.device, output.dtype)
        return torch.cat([torch.where(chosen, value, own), output[:, read:]], dim=1)

    handle = layer.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
