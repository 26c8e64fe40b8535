"""The models that ship with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def shipped_model_path(name: Literal["base", "scope"] = "base") -> Path:
    """The folder of a model that semedit ships.

    Args:
        name: `"base"` is the small chat model, which `from_pretrained` takes; `"scope"` is the scope classifier, which
            `CrossEncoderScope` takes.
    """
    return Path(__file__).parent / name
