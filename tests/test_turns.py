"""Bulk work gives way to other threads, and leaves the interpreter as it found it."""

from __future__ import annotations

import gc
import sys
import threading

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


def test_threads_that_overlap_leave_the_interpreter_as_it_was():
    before = settings()
    inside, go_on = threading.Event(), threading.Event()

    def work() -> None:
        with giving_way():
            inside.set()
            go_on.wait(20)

    thread = threading.Thread(target=work)
    with giving_way():
        thread.start()
        assert inside.wait(20)
    assert settings() != before, "another thread is still inside"
    go_on.set()
    thread.join()
    assert settings() == before


def test_letting_go_empties_each_list():
    one, two = list(range(2_500)), ["a"]
    let_go(one, two, [])
    assert one == two == []
