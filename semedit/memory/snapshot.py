"""The state of a process, saved beside its store, so that opening a large memory need not build its index anew."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import uuid
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from semedit.errors import StoreError, StoreUnreachableError
from semedit.memory.encoder import Encoder
from semedit.memory.index import SegmentIndex
from semedit.memory.segment import Segment
from semedit.memory.state import Part, State
from semedit.memory.store import EditStore, Head

FORMAT = 1
# how many revisions the log moves on before the state is saved again; of fewer keys none is saved. Reading so much
# takes a second or so
FAR = 20_000
_ARRAYS = ("revisions", "keys", "namespaces", "body_ends", "negatives", "negative_ends", "timed", "windows")
_MANIFEST, _LOCK = "manifest", "lock"


class Snapshot:
    """A folder with the segments of a state and a manifest that names them, each file with its checksum.

    It is a cache: whatever is damaged, or is not of this store, encoder and version, counts as not there. A segment is
    written once and never changed. Files are whole when the manifest that names them takes its place.

    Args:
        folder: made where it is not there.
        store: whose state it is.
        encoder: what makes the store's vectors.
    """

    def __init__(self, folder: Path, store: EditStore, encoder: Encoder) -> None:
        self.folder = folder
        self._store = store
        self._encoder = encoder
        self._saved = (0, 0)  # epoch and revision
        self._names: weakref.WeakKeyDictionary[Segment, str] = weakref.WeakKeyDictionary()

    def load(self, head: Head) -> State | None:
        """The state that was saved, to catch up from; None where there is none to be trusted.

        Args:
            head: how far the store is.
        """
        tried, self._saved = None, (0, 0)
        # another process may put a new one in place of what is being read
        while (manifest := self._manifest()) is not None and manifest != tried and self._is_ours(manifest, head):
            tried = manifest
            with contextlib.suppress(OSError, ValueError, StoreError):
                parts = tuple(self._open(part) for part in manifest["parts"])
                self._saved = (manifest["epoch"], manifest["revision"])
                return State(Head(manifest["revision"], manifest["epoch"], 0), parts)
        return None

    def is_due(self, state: State) -> bool:
        """Whether a state is large, and far from what was saved."""
        epoch, revision = self._saved
        moved = state.head.revision - (revision if epoch == state.head.epoch else 0)
        return moved >= FAR and sum(part.keys for part in state.parts) >= FAR

    def save(self, state: State) -> None:
        """Saves a state where that is due, unless another process has just done so or is about to.

        What cannot be written, as to a full disk or while the store's server is away, is left: the next process then
        builds its index anew.
        """
        if not self.is_due(state):
            return
        # written or not, the next attempt is made when the log has moved on
        self._saved = (state.head.epoch, state.head.revision)
        with contextlib.suppress(OSError, StoreUnreachableError), self._alone() as alone:
            if alone and not self._is_fresh(self._manifest(), state) and not self._is_erased_from(state):
                self._write(state)

    def discard_before(self, revision: int, *, patience: float = 0.0) -> None:
        """Deletes what was saved before a revision.

        Args:
            revision: the newest that says that an edit is erased.
            patience: how many seconds to wait for another process that is saving.

        Raises:
            StoreError: it cannot be deleted, or another process is saving.
        """
        if not self.folder.exists():
            return
        try:
            with self._alone(patience) as alone:
                if not alone:
                    raise StoreError(
                        f"cannot delete the index in {self.folder}: another process writes it, or {_LOCK} in it is "
                        "damaged; try again, or delete that folder"
                    )
                manifest = self._manifest()
                if manifest is None or manifest["revision"] < revision:
                    self._saved = (0, 0)
                    self._names.clear()
                    self._delete_all_but(())
        except OSError as error:
            raise StoreError(f"cannot delete the index in {self.folder}: {error}; delete that folder") from error

    # --- reading

    def _manifest(self) -> dict[str, Any] | None:
        return _manifest_in(self.folder)

    def _is_ours(self, manifest: Mapping[str, Any], head: Head) -> bool:
        """Whether it is of this store, with these vectors, at a revision that the store has come by."""
        revision: int = manifest["revision"]
        return revision <= head.revision and manifest["of"] == self._origin(head.epoch, revision)

    def _origin(self, epoch: int, revision: int) -> list[object]:
        """What a state must share with the store to be of it."""
        # a store that was restored from a backup may have come to another revision of that number
        edit = next(iter(self._store.changes_since(revision - 1, 1)), None)
        if edit is None:
            raise StoreError(f"revision {revision} is missing in the edit memory {self._store.location}")
        return [self._store.identity(), epoch, self._encoder.fingerprint, edit.id, str(edit.time)]

    def _open(self, part: Mapping[str, Any]) -> Part:
        for file, checksum in part["files"].items():
            if not _is_whole(self.folder / file, checksum):
                raise ValueError(f"{file} is damaged")
        name = part["segment"]
        arrays = {array: self._array(f"{name}.{array}") for array in _ARRAYS}
        segment = Segment(
            index=SegmentIndex.open(self.folder / f"{name}.index"),
            names=tuple(part["names"]),
            bodies=self._array(f"{name}.bodies", mapped=True),
            **arrays,
        )
        self._names[segment] = name
        return Part.of(segment, self._array(part["alive"]))

    def _array(self, file: str, *, mapped: bool = False) -> Any:
        return np.load(self.folder / file, mmap_mode="r" if mapped else None, allow_pickle=False)

    # --- writing

    def _write(self, state: State) -> None:
        there = {part["segment"]: part for part in (self._manifest() or {"parts": []})["parts"]}
        parts = [self._write_part(part, there, state.head.revision) for part in state.parts]
        manifest = {
            "format": FORMAT,
            "of": self._origin(state.head.epoch, state.head.revision),
            "epoch": state.head.epoch,
            "revision": state.head.revision,
            "parts": parts,
        }
        text = json.dumps(manifest).encode()
        self._put(_MANIFEST, lambda file: file.write(f"{zlib.crc32(text):08x}\n".encode() + text))
        self._delete_all_but([_MANIFEST, *(file for part in parts for file in part["files"])])

    def _write_part(self, part: Part, there: Mapping[str, Any], revision: int) -> dict[str, Any]:
        """Writes what is not there of a part; gives its entry in the manifest."""
        segment = part.segment
        name = self._names.get(segment, "")
        if name in there:
            files = {file: checksum for file, checksum in there[name]["files"].items() if file != there[name]["alive"]}
        else:
            name = self._names[segment] = uuid.uuid4().hex
            files = {f"{name}.index": self._put_index(segment.index, f"{name}.index")}
            for array in ("bodies", *_ARRAYS):
                files[f"{name}.{array}"] = self._put_array(f"{name}.{array}", getattr(segment, array))
        alive = f"{name}.alive-{revision}"
        files[alive] = self._put_array(alive, part.alive)
        return {"segment": name, "names": segment.names, "alive": alive, "files": files}

    @contextlib.contextmanager
    def _alone(self, patience: float = 0.0) -> Iterator[bool]:
        """Whether this process is the only one that writes here, which it stays inside; waits so many seconds."""
        file = Path(self._store.location)
        mode = file.stat().st_mode & 0o666 if file.exists() else 0o600  # a server's is this user's alone
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(mode | mode >> 2 & 0o111)  # who may read the store may look in
        # SQLite locks files on every system, and lets go of them when a process dies
        with contextlib.ExitStack() as held:
            alone = True
            try:
                lock = sqlite3.connect(self.folder / _LOCK, timeout=patience, isolation_level=None)
                held.enter_context(contextlib.closing(lock)).execute("BEGIN EXCLUSIVE")
            except sqlite3.DatabaseError:  # held by another, or damaged
                alone = False
            yield alone

    def _is_fresh(self, manifest: Mapping[str, Any] | None, state: State) -> bool:
        """Whether another process has saved about this."""
        return (
            manifest is not None
            and self._is_ours(manifest, state.head)
            and state.head.revision - manifest["revision"] < FAR
        )

    def _is_erased_from(self, state: State) -> bool:
        """Whether an edit was erased since: what would be saved may still have it."""
        return any(edit.action == "erase" for edit in self._store.changes_since(state.head.revision))

    def _put_array(self, name: str, array: np.ndarray[Any, Any]) -> int:
        return self._put(name, lambda file: np.save(file, array, allow_pickle=False))

    def _put_index(self, index: SegmentIndex, name: str) -> int:
        index.save(self.folder / f"{name}.new")
        return self._put(name)

    def _put(self, name: str, write: Callable[[BinaryIO], object] | None = None) -> int:
        """Has a file written, or what stands beside it as new, and puts it in place; gives its checksum."""
        new = self.folder / f"{name}.new"
        with new.open("r+b" if write is None else "wb") as file:
            if write is not None:
                write(file)
            file.flush()
            os.fsync(file.fileno())
        checksum = _checksum(new)
        os.replace(new, self.folder / name)
        return checksum

    def _delete_all_but(self, files: Iterable[str]) -> None:
        kept = {_LOCK, *files}
        for path in self.folder.iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)


def snapshot_of(store: EditStore, encoder: Encoder) -> Snapshot | None:
    """Where the state of a store is saved; None where it is not."""
    return None if store.cache is None else Snapshot(store.cache, store, encoder)


def damaged_files(store: EditStore) -> list[str]:
    """What is wrong with the files of a store's snapshot, each in a sentence; none where there is no snapshot."""
    folder = store.cache
    if folder is None or not (folder / _MANIFEST).exists():
        return []
    while True:
        manifest = _manifest_in(folder)
        files = (
            {}
            if manifest is None
            else {file: sum for part in manifest["parts"] for file, sum in part["files"].items()}
        )
        damaged = [file for file, checksum in files.items() if not _is_whole(folder / file, checksum)]
        if _manifest_in(folder) == manifest:  # no other process has put a new one in place meanwhile
            break
    if manifest is None:
        damaged.append(_MANIFEST)
    return [f"{folder / file} is damaged; delete {folder}, and the index is built anew" for file in damaged]


def _manifest_in(folder: Path) -> dict[str, Any] | None:
    """What the manifest says; None where there is none, or a damaged one."""
    try:
        checksum, text = (folder / _MANIFEST).read_bytes().split(b"\n")
    except (OSError, ValueError):
        return None
    if checksum != f"{zlib.crc32(text):08x}".encode():
        return None
    manifest: dict[str, Any] = json.loads(text)
    return manifest if manifest["format"] == FORMAT else None


def _is_whole(path: Path, checksum: int) -> bool:
    try:
        return _checksum(path) == checksum
    except OSError:
        return False


def _checksum(path: Path) -> int:
    """The CRC-32 of a file."""
    checksum = 0
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            checksum = zlib.crc32(part, checksum)
    return checksum
