"""The models that ship with the package."""

from __future__ import annotations

from pathlib import Path


def shipped_model_path() -> Path:
    """The folder of the small chat model that semedit ships; `from_pretrained` takes it."""
    return Path(__file__).parent / "base"
