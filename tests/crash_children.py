"""Writers that are killed while they write."""

from __future__ import annotations

import json
import random
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from test_state import RandomEncoder

from semedit.edits import Edit
from semedit.errors import EditNotFoundError, EditRetiredError, NothingToUndoError, StoreUnreachableError
from semedit.memory import merging, snapshot, view
from semedit.memory.edit_memory import EditMemory

KINDS = {"add": 4, "bulk": 2, "import": 1, "update": 3, "retire": 2, "undo": 2}


def small_sizes() -> None:
    """A state has several parts and is saved, and read in portions, though it is small."""
    merging.SMALL, snapshot.FAR, view._PORTION = 16, 40, 64


def write(location: str, folder: Path, seed: int, answer: Connection) -> None:
    """Changes a memory at random without end; says of each change what it was, once it is acknowledged.

    Answers with the revisions of each change, or with what went wrong. That others were faster, or that the server is
    away, is none of it. What it imports lies in the folder, which outlives it.
    """
    small_sizes()
    chance = random.Random(seed)
    memory = None
    for number in range(10**9):
        try:
            memory = memory or EditMemory(location, RandomEncoder())
            answer.send(change(memory, chance, f"{seed} {number}", folder / f"{seed}.jsonl"))
        except StoreUnreachableError:
            time.sleep(0.005)
        except (EditNotFoundError, EditRetiredError, NothingToUndoError):
            pass
        except BaseException:
            answer.send(traceback.format_exc())
            return


def change(memory: EditMemory, chance: random.Random, name: str, lines: Path) -> Sequence[Edit]:
    """Makes a change. Its author is what was done, and of how many edits where that is for the writer to say."""
    [kind] = chance.choices(list(KINDS), list(KINDS.values()))
    if kind in ("add", "bulk", "import"):
        count = 1 if kind == "add" else chance.randrange(2, 60)
        author = f"{kind} {count}"
        edits = [new_edit(chance, f"{name} {i}", author) for i in range(count)]
        if kind == "import":
            lines.write_text("".join(json.dumps(line(one)) + "\n" for one in edits))
            return memory.import_(lines, author=author)
        return memory.add_many(edits)
    if kind == "undo":
        return memory.undo(author=kind)
    near = memory.search(f"near {name}", k=1, namespaces=["a", "b"])
    if not near:
        return []
    if kind == "update":
        edit = memory.update(near[0].edit.id, author=kind, target=f"target {name}", paraphrases=[f"key of {name}"])
        return [edit]
    return [memory.retire(near[0].edit.id, author=kind)]


def new_edit(chance: random.Random, name: str, author: str) -> Edit:
    keys = chance.randrange(3)
    return Edit(
        id=name.replace(" ", "-"),
        prompt=f"prompt of {name}",
        target="t",
        paraphrases=tuple(f"paraphrase {i} of {name}" for i in range(keys)),
        negatives=(f"negative of {name}",) if chance.random() < 0.3 else (),
        namespace=chance.choice("ab"),
        author=author,
    )


def line(edit: Edit) -> dict[str, object]:
    """An edit as a line of an import has it."""
    fields = ("id", "prompt", "target", "paraphrases", "negatives", "namespace")
    return {name: getattr(edit, name) for name in fields}
