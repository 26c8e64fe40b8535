"""How an adaptor is placed, learned and looked up."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from semedit.errors import AdaptorConfigError
from semedit.overrides.probes import PROBES

Routing = Literal["scope", "codebook"]
Start = Literal["warm", "cold"]
Replace = Literal["last", "prompt", "all"]


@dataclass(frozen=True, kw_only=True)
class AdaptorConfig:
    """GRACE's settings; the defaults are the repaired method, `published()` gives those of the paper.

    Attributes:
        layer: path of the layer whose output values replace; None takes the embedding of a decoder-only model under
            `"scope"` routing, above which nothing of the wording is left, and else the last linear layer of the first
            block, above which most layers are left to read the value.
        routing: who decides scope: `"scope"`, the router with its scope classifier, or `"codebook"`, the balls around
            the keys.
        replace: where the value stands: at `"all"` tokens of the prompt, at the `"last"` one alone, or at all before
            it (`"prompt"`, the paper's way). At all of them it leaves the layers above little of the question's
            wording to read beside it; at the last one alone learning is quickest.
        start: where a value starts: from the layer's own output (`"warm"`), or drawn from U[0, 1) (`"cold"`).
        steps: the most steps of Adam.
        learning_rate: Adam's, in units of the root mean square of the layer's own output (its mean over the tokens
            where the value stands) if `scaled_rate`.
        scaled_rate: see there.
        norm_bound: the greatest norm of a value, as a multiple of the norm of that mean; None: no bound.
        stop: whether the token that ends the model's answers is learned after the target.
        stop_at_loss: learning ends once greedy decoding gives the target and the loss, in nats per token, is down to
            this; None always takes all steps.
        views: how many more readings of each prompt the value is learned on, with words left out or in another order,
            so that it does not hang on the very words; above the embedding it takes more of them (4) and a lower
            `stop_at_loss` (0.002), see configs/grace_layer.yaml.
        contexts: how many other questions it is learned on, so that it says the target whatever was asked.
        unit_keys: whether distances are taken between keys of length 1, from 0 to 2, and not between raw activations.
        radius: the deferral radius ε of a new key; None measures it on paraphrases and unrelated questions.
        published_rules: whether the codebook splits and looks up as published; see `Codebook`.
    """

    layer: str | None = None
    routing: Routing = "scope"
    replace: Replace = "all"
    start: Start = "warm"
    steps: int = 100
    learning_rate: float = 0.3
    scaled_rate: bool = True
    norm_bound: float | None = 30.0
    stop: bool = True
    stop_at_loss: float | None = 0.05
    views: int = 1
    contexts: int = 0
    unit_keys: bool = True
    radius: float | None = None
    published_rules: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("routing", Routing), ("replace", Replace), ("start", Start)):
            if getattr(self, name) not in get_args(choices):
                expected = ", ".join(map(repr, get_args(choices)))
                raise AdaptorConfigError(f"{name} must be one of {expected}, not {getattr(self, name)!r}")
        for name in ("steps", "learning_rate", "norm_bound", "radius", "stop_at_loss"):
            value = getattr(self, name)
            if value is None and name not in ("steps", "learning_rate"):
                continue
            if not (isinstance(value, int if name == "steps" else (int, float)) and value > 0):
                expected = (
                    "a whole number" if name == "steps" else "a number, such as 0.001 (YAML takes 1e-3 for text),"
                )
                raise AdaptorConfigError(f"{name} must be {expected} above 0, not {value!r}")
        counts = isinstance(self.views, int) and isinstance(self.contexts, int)
        if not (counts and self.views >= 0 and 0 <= self.contexts <= len(PROBES)):
            raise AdaptorConfigError(
                f"views must be 0 or more, not {self.views!r}, and contexts 0 to {len(PROBES)}, not {self.contexts!r}"
            )

    def of_values(self) -> dict[str, Any]:
        """The settings that decide what a value is, and not where it is used."""
        used = ("layer", "routing", "radius", "unit_keys", "published_rules")
        return {name: value for name, value in asdict(self).items() if name not in used}

    @classmethod
    def published(cls, **changes: Any) -> AdaptorConfig:
        """The settings of the paper (Hartvigsen et al. 2023) and its code, but for `changes`.

        They are those for decoders, whose code never teaches the end of an answer; for a T5 it does: `stop=True`.
        """
        return cls(**{**_PUBLISHED, **changes})

    @classmethod
    def from_file(cls, path: str | Path) -> AdaptorConfig:
        """The settings that a YAML file names, such as configs/grace.yaml; the others are the defaults.

        Raises:
            AdaptorConfigError: it cannot be read, or names something else.
        """
        try:
            settings = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise AdaptorConfigError(f"cannot read the adaptor's settings from {path}: {error}") from error
        known = [field.name for field in fields(cls)]
        if not isinstance(settings, dict) or not settings.keys() <= set(known):
            found = sorted(settings.keys() - set(known)) if isinstance(settings, dict) else settings
            raise AdaptorConfigError(f"{path} has {found!r}; an adaptor's settings are {', '.join(known)}")
        return cls(**settings)


_PUBLISHED: dict[str, Any] = {
    "routing": "codebook",
    "replace": "prompt",
    "start": "cold",
    "steps": 100,
    "learning_rate": 1.0,
    "scaled_rate": False,
    "norm_bound": None,
    "stop": False,
    "stop_at_loss": None,
    "views": 0,
    "unit_keys": False,
    "radius": 1.0,
    "published_rules": True,
}
