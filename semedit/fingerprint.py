"""Fingerprints: a name for people and a digest of what decides a model's output."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from semedit.errors import LayerError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

_SAMPLED = 64  # numbers of each tensor


def fingerprint(name: str, model: nn.Module, settings: str) -> str:
    """`name@digest`, with a digest of 16 hexadecimal digits over the weights and what else decides the output.

    Args:
        name: what people call the model.
        model: the weights.
        settings: what decides the output beside them.
    """
    digest = hashlib.sha256(settings.encode())
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key} {tuple(tensor.shape)}".encode())
        # as float32 on the CPU, so that the same model on another device is the same model
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return f"{name}@{digest.hexdigest()[:16]}"


def sampled_fingerprint(model: PreTrainedModel, settings: str) -> str:
    """`name@revision:dtype:digest`, quick for a model of any size: a sample of each tensor stands for its weights.

    Args:
        model: the model; its name and revision are those that it was loaded by.
        settings: what decides the output beside it.

    Raises:
        LayerError: weights are offloaded.
    """
    digest = hashlib.sha256(settings.encode())
    for key, tensor in sorted(model.state_dict().items()):
        if tensor.is_meta:
            raise LayerError(
                f"{key} of this model is kept off the devices between passes, and an adaptor learns on weights that "
                'stay; load the model without offloading, or take another override, such as "in_context"'
            )
        flat = tensor.detach().flatten()
        sample = flat[:: max(1, len(flat) // _SAMPLED)]
        digest.update(f"{key} {tuple(tensor.shape)}".encode())
        digest.update(sample.float().cpu().numpy().tobytes())
    name = (model.config.name_or_path or type(model).__name__).rstrip("/").rsplit("/", 1)[-1]
    revision = getattr(model.config, "_commit_hash", None) or "local"
    return f"{name}@{revision[:12]}:{str(model.dtype).removeprefix('torch.')}:{digest.hexdigest()[:16]}"
