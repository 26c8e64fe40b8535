"""Letting other threads run while one has much to do in Python."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from typing import Any

# a search lets go of the interpreter some dozens of times, and each time may wait for a turn of another thread:
# at Python's 5 ms that makes 100 ms and more
_TURN_SECONDS = 0.0005
_ITEMS_AT_ONCE = 1_000

_inside: set[object] = set()
_usual: list[tuple[float, tuple[int, int, int]]] = []  # turn and thresholds, once they are known


@contextlib.contextmanager
def giving_way() -> Iterator[None]:
    """Has the threads of this process take shorter turns inside, and no full garbage collection begin.

    A full one stops all threads, and takes longer the more edits are at hand, none of which is garbage.
    """
    # no lock, which a fork could leave locked: at worst, turns are long for once
    if not _usual:
        _usual.append((sys.getswitchinterval(), gc.get_threshold()))
    seconds, (young, middle, _) = _usual[0]
    mine = object()
    _inside.add(mine)
    sys.setswitchinterval(min(_TURN_SECONDS, seconds))
    gc.set_threshold(young, middle, 1_000_000)
    try:
        yield
    finally:
        _inside.discard(mine)
        if not _inside:
            sys.setswitchinterval(seconds)
            gc.set_threshold(*_usual[0][1])


def let_go(*lists: list[Any]) -> None:
    """Empties lists bit by bit: Python frees what only a long list holds in one go, while all threads stand still."""
    for items in lists:
        while items:
            del items[-_ITEMS_AT_ONCE:]
