"""What the training scripts share: an output folder holds one run, and a run's log."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint


def begin(arguments: TrainingArguments, config: Mapping[str, Any], **others: Any) -> str | None:
    """The last checkpoint in the output folder, if there is one; the folder's `run.json` says of what run it is.

    Where it is of another run the process ends with a message: training would go on from that run's checkpoint, or
    find nothing left to do.

    Args:
        arguments: say where the folder is.
        config: the config; its `training` may change from call to call, such as to more epochs.
        others: what else decides what is trained: the seed, the start, a digest of the data.
    """
    settings = {name: value for name, value in config.items() if name != "training"}
    run = json.loads(json.dumps({"config": settings, **others}))
    folder = Path(arguments.output_dir)
    description = folder / "run.json"
    with arguments.main_process_first():
        checkpoint = get_last_checkpoint(folder) if folder.is_dir() else None
        if description.exists():
            differing = _differing(json.loads(description.read_text()), run)
            if differing:
                sys.exit(f"{folder} holds a run of other {', '.join(differing)}: give another --output or delete it")
        elif checkpoint:
            sys.exit(f"{folder} holds a run without a run.json to say of what: give another --output or delete it")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            description.write_text(json.dumps(run, indent=2) + "\n")
    return checkpoint


def digest(items: Iterable[object]) -> str:
    """The SHA-256 digest of items whose `repr` has all of them."""
    whole = hashlib.sha256()
    for item in items:
        whole.update(f"{item!r}\n".encode())
    return whole.hexdigest()


def write_log(trainer: Trainer) -> None:
    """Writes `training_log.jsonl` into the output folder: what was measured while training."""
    log = "".join(json.dumps(entry) + "\n" for entry in trainer.state.log_history)
    (Path(trainer.args.output_dir) / "training_log.jsonl").write_text(log)


def _differing(run: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The names of what differs, those of the config as `config.dropout`."""
    parts = [
        {f"config.{name}": value for name, value in one["config"].items()} | {**one, "config": None}
        for one in (run, other)
    ]
    return [name for name in dict.fromkeys([*parts[0], *parts[1]]) if parts[0].get(name) != parts[1].get(name)]
