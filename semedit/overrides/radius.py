"""Deferral radii from measured distances."""

from __future__ import annotations

import warnings

import numpy as np

from semedit.errors import AdaptorWarning
from semedit.overrides.adaptor import AdaptorOverride
from semedit.overrides.codebook import Floats
from semedit.overrides.probes import PROBES

_UNRELATED = 0.01  # the balls of so large a share of unrelated questions may touch
_PARAPHRASES = 0.9  # fewer than this share of paraphrases within it is worth a warning


def measured_radius(override: AdaptorOverride) -> float:
    """The radius for new keys of an adaptor, measured on questions that semedit carries, asked in two ways each.

    Warns:
        AdaptorWarning: paraphrases and unrelated questions overlap.
    """
    keys = override.keys([text for pair in PROBES for text in pair])
    first, second = keys[::2], keys[1::2]
    between = np.linalg.norm(second[:, None] - first[None], axis=2)
    unrelated = between[~np.eye(len(between), dtype=bool)]
    return choose_radius(np.diag(between), unrelated)


def choose_radius(paraphrases: Floats, unrelated: Floats) -> float:
    """A radius with which the balls of at most one in a hundred pairs of unrelated questions touch.

    Args:
        paraphrases: distances between two wordings of one question.
        unrelated: distances between different questions.

    Warns:
        AdaptorWarning: of the paraphrases, fewer than nine in ten come within it.
    """
    radius = float(np.quantile(unrelated, _UNRELATED)) / 2
    found = float((paraphrases <= radius).mean())
    if found < _PARAPHRASES:
        warnings.warn(
            f"at this layer paraphrases and unrelated questions overlap: the radius {radius:.3g}, with which the "
            f"balls of 1 in 100 unrelated questions touch, holds {found:.0%} of the paraphrases; choose another layer "
            'with training/choose_layer.py, give edits paraphrases, or choose routing="scope"',
            AdaptorWarning,
            stacklevel=3,
        )
    return radius
