"""Scope by a cross-encoder that reads query and key together (SERAC's cross-attend classifier)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from sentence_transformers import CrossEncoder
from transformers import PreTrainedModel

from semedit.errors import LoadError
from semedit.fingerprint import fingerprint
from semedit.models import shipped_model_path
from semedit.scope.base import Pair

DEFAULT_THRESHOLD = 0.5
DEFAULT_FLOOR = 0.4


class CrossEncoderScope:
    """A sentence-transformers cross-encoder with one label judges the candidates above a similarity floor.

    Args:
        model: the cross-encoder, or the name or path of one; None takes the one that semedit ships.
        threshold: the probability from which on a query is in scope; None takes what the model's configuration has
            under `semedit`, and else 0.5.
        floor: the cosine below which a candidate is not judged; most unrelated queries then cost the encoder alone.
            None takes what the model's configuration has under `semedit`, and else 0.4.
        batch_size: pairs a pass.

    Raises:
        LoadError: the model cannot be loaded, or has not one label.
    """

    def __init__(
        self,
        model: CrossEncoder | str | None = None,
        threshold: float | None = None,
        floor: float | None = None,
        batch_size: int = 32,
    ) -> None:
        name = model if isinstance(model, str) else "semedit-scope" if model is None else type(model).__name__
        if model is None or isinstance(model, str):
            model = _load(str(shipped_model_path("scope")) if model is None else model)
        if model.num_labels != 1:
            raise LoadError(f"the cross-encoder {name} has {model.num_labels} labels; a scope classifier has one")
        self.model = model
        transformer = cast("PreTrainedModel", model.model)
        settings: Mapping[str, float] = getattr(transformer.config, "semedit", {})
        self.threshold = settings.get("threshold", DEFAULT_THRESHOLD) if threshold is None else threshold
        self.floor = settings.get("floor", DEFAULT_FLOOR) if floor is None else floor
        self.batch_size = batch_size
        self.fingerprint = fingerprint(Path(name).name, transformer, str(model.tokenizer.model_max_length))

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """The sigmoid of the logit of each (text, query); pairs of like length are read together."""
        if not pairs:
            return []
        scores = self.model.predict(
            [(pair.text, pair.query) for pair in pairs],
            batch_size=self.batch_size,
            activation_fn=torch.nn.Sigmoid(),
            show_progress_bar=False,
        )
        return [float(score) for score in scores]


def _load(source: str) -> CrossEncoder:
    # weights may be stored in half precision, in which a CPU is slow
    precision = {} if torch.accelerator.is_available() else {"dtype": torch.float32}
    try:
        return cast("CrossEncoder", CrossEncoder(source, model_kwargs=precision))
    except (OSError, ValueError) as error:
        raise LoadError(f"cannot load the scope classifier {source}: {error}") from error
