"""What was freed is given back to the system."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import pytest

# a process of its own: what other tests freed in this one would be used again before the heap grows
SCRIPT = """
import json

import psutil

from semedit.memory.heap import give_back

process = psutil.Process()
sizes = [process.memory_info().rss]
# small pieces, of which the last stays, so that none of the rest stands at the end of the heap
pieces = [bytes(4_000) for _ in range(50_000)]
sizes.append(process.memory_info().rss)
del pieces[:-1]
sizes.append(process.memory_info().rss)
give_back()
sizes.append(process.memory_info().rss)
print(json.dumps(sizes))
"""


@pytest.mark.skipif(
    not Path("/proc/self").exists() or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this is not glibc"
)
def test_what_was_freed_goes_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    before, filled, freed, given_back = json.loads(done.stdout)
    assert filled > before + 150_000_000
    assert freed > before + 100_000_000
    assert given_back < before + 50_000_000
