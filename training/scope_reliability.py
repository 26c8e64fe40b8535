"""How far the scope classifier's scores can be believed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BINS = 15


def reliability(scores: np.ndarray, right: np.ndarray) -> list[tuple[float, float, int]]:
    """Mean score, share that is right, and count of each of the bins of equal width that holds any score."""
    bin_of = np.minimum((scores * BINS).astype(int), BINS - 1)
    chosen = [bin_of == b for b in range(BINS) if (bin_of == b).any()]
    return [(float(scores[c].mean()), float(right[c].mean()), int(c.sum())) for c in chosen]


def calibration_error(bins: Sequence[tuple[float, float, int]]) -> float:
    """The expected calibration error (Guo et al. 2017, equation 3)."""
    total = sum(count for _, _, count in bins)
    return sum(count * abs(score - right) for score, right, count in bins) / max(1, total)
