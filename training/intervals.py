"""How sure a measured rate is."""

from __future__ import annotations

import math


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a rate."""
    if not total:
        return 0.0, 1.0
    z, rate = 1.959964, right / total
    centre = rate + z * z / (2 * total)
    spread = z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    return (centre - spread) / (1 + z * z / total), (centre + spread) / (1 + z * z / total)
