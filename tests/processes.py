"""Processes of the tests' own: they begin from one that has imported what they need, and that has no threads."""

from __future__ import annotations

import multiprocessing
from multiprocessing.process import BaseProcess

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["semedit.memory.edit_memory", "semedit.memory.postgres", "fakes", "test_state"])


def started(function: object, *args: object) -> BaseProcess:
    process = CONTEXT.Process(target=function, args=args)
    process.start()
    return process
