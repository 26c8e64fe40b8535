"""The connections of one process to one SQLite file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator

from semedit.errors import StoreError


class Connections:
    """Lends each thread a connection of its own for as long as it needs one, so that no thread waits for another.

    No connection lives through a fork: SQLite would believe in the child that it holds its parent's locks, and what
    the child writes could be lost. A fork waits for the threads that hold one, and those that want one wait for it.

    Args:
        opener: makes a connection.
        single: whether all threads take turns with one connection that stays open, as a database must that is in
            memory alone.
        location: the file, for messages.

    Attributes:
        writing: held by the thread that writes.
    """

    def __init__(self, opener: Callable[[], sqlite3.Connection], location: str, *, single: bool = False) -> None:
        self._opener = opener
        self._location = location
        self._single = single
        self._closed = False
        self._mine = threading.local()
        self._idle = [opener()]
        self._begin(lent=0)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=weakly(self._before_fork),
                after_in_parent=weakly(self._after_fork_in_parent),
                after_in_child=weakly(self._after_fork_in_child),
            )

    def _begin(self, lent: int) -> None:
        self.writing = threading.Lock()
        self._changed = threading.Condition()
        self._lent = lent
        self._forking = False
        self._cut_off: sqlite3.Connection | None = None

    @property
    def held(self) -> sqlite3.Connection | None:
        """The connection that this thread holds, if it does."""
        connection: sqlite3.Connection | None = getattr(self._mine, "connection", None)
        return connection

    @property
    def closed(self) -> bool:
        """Whether they were closed."""
        return self._closed

    @contextlib.contextmanager
    def lent(self) -> Iterator[sqlite3.Connection]:
        """A connection for this thread; inside, the same one again.

        Raises:
            StoreError: all were closed.
        """
        if self.held is not None:
            yield self.held
            return
        connection = self._take()
        self._mine.connection = connection
        try:
            yield connection
        finally:
            self._mine.connection = None
            self._give_back(connection)

    def close(self) -> None:
        """Closes all; those that are lent, when they come back."""
        with self._changed:
            self._closed = True
            self._close_idle()
            self._changed.notify_all()

    def _take(self) -> sqlite3.Connection:
        with self._changed:
            while not self._closed and (self._forking or (self._single and self._lent)):
                self._changed.wait()
            if self._closed:
                raise StoreError(f"the edit memory {self._location} was closed; open it again")
            connection = self._idle.pop() if self._idle else self._opener()
            self._lent += 1
            return connection

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._changed:
            self._lent -= 1
            if connection is not self._cut_off:
                self._idle.append(connection)
            if self._closed:
                self._close_idle()
            self._changed.notify_all()

    def _close_idle(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _before_fork(self) -> None:
        with self._changed:
            self._forking = True
            mine = self.held
            while self._lent > (mine is not None):
                self._changed.wait()
            if not self._single:
                self._close_idle()
                if mine is not None:
                    # its transaction is rolled back, and who goes on with it is told that it is closed
                    mine.close()
                    self._cut_off = mine

    def _after_fork_in_parent(self) -> None:
        with self._changed:
            self._forking = False
            self._changed.notify_all()

    def _after_fork_in_child(self) -> None:
        # other threads are not there any more, nor what they held
        cut_off = self._cut_off
        self._begin(lent=0 if self.held is None else 1)
        self._cut_off = cut_off


def weakly(method: Callable[[], None]) -> Callable[[], None]:
    """Calls a method for as long as its object is there, without keeping it there."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        bound = reference()
        if bound is not None:
            bound()

    return call
