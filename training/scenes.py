"""Facts written for this project, each with the queries that ask it and with near misses that do not.

The files are in the folder `scenes` beside this one, a JSON object a line: two or three wordings of an edit's
`prompts`, its `target`, queries `in` scope and `out` of it, and `in_turns` and `out_turns`, a follow-up after the turn
before it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from facts import read_records

FOLDER = Path(__file__).parent / "scenes"


@dataclass(frozen=True)
class Scene:
    """One fact: `prompts` ask it, `in_scope` queries ask it otherwise, `out_of_scope` queries ask something near."""

    prompts: tuple[str, ...]
    target: str
    in_scope: tuple[str, ...]
    out_of_scope: tuple[str, ...]

    def prompt(self, rng: random.Random) -> str:
        """What an edit's prompt may be: mostly a prompt, now and then as people ask it."""
        return rng.choice(self.prompts if rng.random() < 0.8 else self.in_scope)


def read_scenes(folder: Path = FOLDER) -> list[Scene]:
    """All scenes."""
    return [
        Scene(
            prompts=tuple(record["prompts"]),
            target=record["target"],
            in_scope=(*record["in"], *(" ".join(turns) for turns in record["in_turns"])),
            out_of_scope=(*record["out"], *(" ".join(turns) for turns in record["out_turns"])),
        )
        for path in sorted(folder.glob("*.jsonl"))
        for record in read_records(path)
    ]
