"""An output folder holds one run: a command of another one ends, and does not train on from there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from transformers import TrainingArguments

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from material import ScopePair
from runs import begin, digest

CONFIG = {"dropout": 0.1, "pairs": {"chat": 3}, "training": {"max_steps": 4}}
OTHERS = {"seed": 0, "start": None, "pairs": digest([1])}


@pytest.fixture
def arguments(tmp_path):
    return TrainingArguments(str(tmp_path / "out"), use_cpu=True)


def test_a_run_goes_on_where_it_stopped(arguments):
    assert begin(arguments, CONFIG, **OTHERS) is None
    folder = Path(arguments.output_dir)
    assert json.loads((folder / "run.json").read_text()) == {
        "config": {"dropout": 0.1, "pairs": {"chat": 3}},
        **OTHERS,
    }
    (folder / "checkpoint-4").mkdir()
    (folder / "checkpoint-12").mkdir()
    more = {**CONFIG, "training": {"max_steps": 8}}
    assert begin(arguments, more, **OTHERS) == str(folder / "checkpoint-12")


def test_a_command_of_another_run_ends_and_says_what_differs(arguments):
    begin(arguments, CONFIG, **OTHERS)
    before = (Path(arguments.output_dir) / "run.json").read_text()
    for config, others, names in (
        ({**CONFIG, "dropout": 0}, OTHERS, "config.dropout"),
        ({**CONFIG, "pairs": {"chat": 4}, "floor": 1}, OTHERS, "config.pairs, config.floor"),
        (CONFIG, {**OTHERS, "seed": 1, "start": "out/broad"}, "seed, start"),
        (CONFIG, {**OTHERS, "pairs": digest([2])}, "pairs"),
    ):
        with pytest.raises(SystemExit, match=f"holds a run of other {names}: give another --output or delete it"):
            begin(arguments, config, **others)
    assert (Path(arguments.output_dir) / "run.json").read_text() == before


def test_checkpoints_of_an_unknown_run_are_not_trained_on(arguments):
    (Path(arguments.output_dir) / "checkpoint-4").mkdir(parents=True)
    with pytest.raises(SystemExit, match="holds a run without"):
        begin(arguments, CONFIG, **OTHERS)


def test_a_digest_is_of_every_field_in_order():
    pairs = [ScopePair("a", "b", True, "x"), ScopePair("b", "a", True, "x")]
    assert digest(pairs) == digest([ScopePair("a", "b", True, "x"), ScopePair("b", "a", True, "x")])
    others = (pairs[::-1], pairs[:1], [ScopePair("a", "b", True, "y"), pairs[1]])
    assert len({digest(pairs), *map(digest, others)}) == 4
