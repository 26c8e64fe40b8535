"""Fingerprints: a name for people and a digest of what decides a model's output."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


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
