"""Bulk work gives way to other threads, and leaves the interpreter as it found it."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from semedit.memory.turns import giving_way, let_go


def settings() -> tuple[float, tuple[int, int, int]]:
    return sys.getswitchinterval(), gc.get_threshold()


def test_turns_are_short_and_no_full_collection_begins_until_the_last_is_done():
    before = settings()
    assert before[0] > 0.001
    with giving_way():
        inside = settings()
        assert inside[0] <= 0.0005
        assert inside[1][:2] == before[1][:2]
        assert inside[1][2] > 1_000 * before[1][2]
        with giving_way():
            assert settings() == inside
        assert settings() == inside
    assert settings() == before


def test_an_error_inside_leaves_the_interpreter_as_it_was():
    before = settings()

    def fail() -> None:
        with giving_way():
            assert settings() != before
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail()
    assert settings() == before


@contextmanager
def thread_inside() -> Iterator[Callable[[], None]]:
    """Another thread is giving way; what is yielded ends it."""
    inside, go_on = threading.Event(), threading.Event()

    def work() -> None:
        with giving_way():
            inside.set()
            go_on.wait(20)

    def end() -> None:
        go_on.set()
        thread.join()

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(20)
    yield end
    end()


def test_threads_that_overlap_leave_the_interpreter_as_it_was():
    before = settings()
    with giving_way(), thread_inside() as end:
        end()
        assert settings() != before, "this thread is still inside"
    assert settings() == before
    with thread_inside():
        with giving_way():
            pass
        assert settings() != before, "another thread is still inside"
    assert settings() == before


def test_what_an_application_sets_afterwards_is_what_it_is_left_with():
    before = settings()
    with giving_way():
        pass
    try:
        gc.set_threshold(50_000, 20, 100)
        tuned = settings()
        with giving_way():
            assert settings() != tuned
        assert settings() == tuned
    finally:
        gc.set_threshold(*before[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_while_a_thread_is_inside_is_as_usual():
    before = settings()
    with thread_inside():
        assert settings() != before
        child = os.fork()
        if child == 0:
            usual = settings() == before
            with giving_way():
                usual &= settings() != before
            os._exit(0 if usual and settings() == before else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_letting_go_empties_each_list():
    one, two = list(range(2_500)), ["a"]
    let_go(one, two, [])
    assert one == two == []
