"""What of an evaluation is finished, in a folder, so that an interrupted one goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from semedit.errors import EvaluationError
from semedit.evaluation.results import Checkpoint, checkpoint_of


class Progress:
    """The finished checkpoints of an evaluation.

    Args:
        folder: where they are kept, made where there is none; None keeps nothing.
        settings: what is evaluated; two evaluations with other settings do not mix.

    Raises:
        EvaluationError: the folder holds an evaluation with other settings, or cannot be written.
    """

    def __init__(self, folder: str | Path | None, settings: Mapping[str, Any]) -> None:
        self._folder = None if folder is None else Path(folder) / "checkpoints"
        if self._folder is None:
            return
        kept, wanted = self._folder / "settings.json", json.dumps(settings, indent=1, ensure_ascii=False)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if kept.exists() and kept.read_text(encoding="utf-8") != wanted:
                raise EvaluationError(
                    f"{folder} holds an evaluation with other settings or examples; name another folder, or delete it "
                    "to begin anew"
                )
            _write(kept, wanted)
        except OSError as error:
            raise EvaluationError(f"cannot keep an evaluation in {folder}: {error}") from error

    def read(self, method: str, edits: int) -> tuple[str, Checkpoint] | None:
        """A checkpoint that an earlier run finished, after the method's note then; or None."""
        path = self._path(method, edits)
        if path is None or not path.exists():
            return None
        kept = json.loads(path.read_text(encoding="utf-8"))
        return kept["note"], checkpoint_of(kept["checkpoint"])

    def write(self, method: str, checkpoint: Checkpoint, note: str) -> None:
        """Keeps a finished checkpoint."""
        path = self._path(method, checkpoint.edits)
        if path is not None:
            _write(path, json.dumps({"note": note, "checkpoint": asdict(checkpoint)}, ensure_ascii=False))

    def _path(self, method: str, edits: int) -> Path | None:
        return None if self._folder is None else self._folder / f"{method}-{edits}.json"


def _write(path: Path, text: str) -> None:
    """Wholly or not at all: an interruption must not leave half a file, and other methods may run beside this one."""
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
