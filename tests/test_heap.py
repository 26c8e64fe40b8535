"""What was freed is given back to the system."""

from __future__ import annotations

import ctypes
from pathlib import Path

import psutil
import pytest

from semedit.memory.heap import give_back


@pytest.mark.skipif(
    not Path("/proc/self").exists() or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this is not glibc"
)
def test_what_was_freed_goes_back_to_the_system():
    process = psutil.Process()
    before = process.memory_info().rss
    # small pieces, of which the last stays, so that none of the rest stands at the end of the heap
    pieces = [bytes(4_000) for _ in range(50_000)]
    assert process.memory_info().rss > before + 150_000_000
    del pieces[:-1]
    held = process.memory_info().rss
    assert held > before + 100_000_000
    give_back()
    assert process.memory_info().rss < before + 50_000_000
