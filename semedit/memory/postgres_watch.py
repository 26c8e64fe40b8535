"""How a process comes to know that the log in PostgreSQL moved, without asking at every query."""

from __future__ import annotations

import os
import random
import selectors
import socket
import threading
import time

import psycopg

from semedit.memory.connections import weakly
from semedit.memory.postgres_connections import Connection, PostgresConnections
from semedit.memory.store import Head

_FIRST_PAUSE = 0.1  # seconds until a lost connection is tried again
_LONGEST_PAUSE = 5.0
_HEARTBEAT = 5.0  # seconds without news after which the server is asked


class Watch:
    """Follows the head of a log by LISTEN, in a thread and on a connection of its own.

    A lost connection is made again, with growing pauses. On each new one, and after some seconds without news, the
    head is read, so that nothing stays missed. A fork's child begins its own at its first question.

    Args:
        connections: makes the connection.

    Attributes:
        away: whether the server could not be reached when it was last tried.

    Raises:
        psycopg.Error: the first connection cannot be made.
    """

    def __init__(self, connections: PostgresConnections) -> None:
        self._connections = connections
        self._head = Head(0, 0, 0)
        self._begin()
        self._start(self._connect())
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=weakly(self._begin))

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._connected = False
        self.away = False

    @property
    def head(self) -> Head:
        """The newest head that this process knows of."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._start(None)
        return self._head

    @property
    def staleness(self) -> float:
        """Seconds since that was known to be the newest one there is; 0.0 while connected."""
        age = time.monotonic() - self._current_at
        # a server that has not answered for so long is as good as none
        return 0.0 if self._connected and age < 2 * _HEARTBEAT else age

    def moved(self, head: Head) -> None:
        """Takes note of a head that the server has just committed or told."""
        with self._lock:
            self._head = max(self._head, head)
        self.away = False

    def close(self) -> None:
        """Ends the thread and its connection."""
        thread = self._thread
        if thread is not None:
            with self._wake:
                self._wake.shutdown(socket.SHUT_WR)  # to close it would not do: the child of a fork may have it, too
            if thread is not threading.current_thread():
                thread.join(1.0)  # one that waits for a server that does not answer ends later

    def _start(self, connection: Connection | None) -> None:
        self._wake, woken = socket.socketpair()
        # a daemon, for a process may end without closing its memory
        self._thread = threading.Thread(target=self._run, args=(connection, woken), name="semedit-watch", daemon=True)
        self._thread.start()

    def _run(self, connection: Connection | None, woken: socket.socket) -> None:
        """Follows the log until `woken` says that the watch is closed."""
        pause = _FIRST_PAUSE
        with woken:
            while True:
                try:
                    connection = connection or self._connect()
                    pause = _FIRST_PAUSE
                    self._follow(connection, woken)
                except psycopg.Error:
                    self._connected, self.away = False, True
                if connection is not None:
                    self._connections.discard(connection)
                    connection = None
                # replicas that lost the same server should not all come back at the same moment
                if _readable(pause * random.uniform(0.5, 1.0), woken):
                    return
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _connect(self) -> Connection:
        connection = self._connections.connect()
        try:
            [[store]] = connection.execute("SELECT store FROM semedit_counter")
            connection.execute(f"LISTEN semedit_{store}")
            known = self._head
            head = self._ask(connection)
            if head < known:
                # the server came back with an older copy of the log
                with self._lock:
                    self._head = head
        except BaseException:
            self._connections.discard(connection)
            raise
        return connection

    def _follow(self, connection: Connection, woken: socket.socket) -> None:
        while True:
            ready = _readable(_HEARTBEAT, connection, woken)
            if woken in ready:
                return
            if not ready:
                self._ask(connection)
            for notification in connection.notifies(timeout=0):
                self.moved(Head(*map(int, notification.payload.split())))
                self._current_at = time.monotonic()

    def _ask(self, connection: Connection) -> Head:
        now = time.monotonic()
        [row] = connection.execute("SELECT revision, epoch, settings FROM semedit_counter")
        head = Head(*row)
        self.moved(head)
        self._current_at, self._connected = now, True
        return head


def _readable(timeout: float, *sources: socket.socket | Connection) -> list[object]:
    """Those that have something to read, or were closed by the other side, within so many seconds."""
    with selectors.DefaultSelector() as selector:
        for source in sources:
            selector.register(source, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(timeout)]
