"""Letting other threads run while one has much to do in Python."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

# a search lets go of the interpreter some dozens of times, and each time may wait for a turn of another thread:
# at Python's 5 ms that makes 100 ms and more
_TURN_SECONDS = 0.0005
_ITEMS_AT_ONCE = 1_000

_lock = threading.Lock()
_inside: set[object] = set()
_usual: list[tuple[float, tuple[int, int, int]]] = []  # turn and thresholds of the process, while some are inside


@contextlib.contextmanager
def giving_way() -> Iterator[None]:
    """Has the threads of this process take shorter turns inside, and no full garbage collection begin.

    A full one stops all threads, and takes longer the more edits are at hand, none of which is garbage.
    """
    mine = object()
    with _lock:
        if not _inside:
            _usual[:] = [(sys.getswitchinterval(), gc.get_threshold())]
        _inside.add(mine)
        seconds, (young, middle, _) = _usual[0]
        sys.setswitchinterval(min(_TURN_SECONDS, seconds))
        gc.set_threshold(young, middle, 1_000_000)
    try:
        yield
    finally:
        with _lock:
            _inside.discard(mine)
            if not _inside:
                _as_usual()


def _as_usual() -> None:
    while _usual:
        seconds, thresholds = _usual.pop()
        sys.setswitchinterval(seconds)
        gc.set_threshold(*thresholds)


def _after_fork() -> None:
    # the threads that were inside are not there any more, and one of them may have held the lock
    global _lock
    _lock = threading.Lock()
    _inside.clear()
    _as_usual()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def let_go(*lists: list[Any]) -> None:
    """Empties lists bit by bit: Python frees what only a long list holds in one go, while all threads stand still."""
    for items in lists:
        while items:
            del items[-_ITEMS_AT_ONCE:]
