"""The benchmarks run as written, at tiny sizes, and their JSON holds the ratios."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import byte_tokenizer, tiny_model

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.slow


def run(script: str, file: Path, *options: object) -> tuple[dict, str]:
    """What the benchmark writes to the file of --json, and what it prints."""
    command = [sys.executable, BENCHMARKS / script, "--json", file, *options]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text()), done.stdout


def test_overhead_gives_a_ratio_for_each_size(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "model")
    byte_tokenizer(chat=True).save_pretrained(tmp_path / "model")

    figures, printed = run(
        "overhead.py",
        tmp_path / "overhead.json",
        *("--models", "small", "--model", tmp_path / "model"),
        *("--edits", 0, 20, "--rounds", 3, "--new-tokens", 4),
    )

    results = figures["results"]
    assert [(result["model"], result["edits"]) for result in results] == [("small", 0), ("small", 20)]
    for result in results:
        ratio = result["ratio"]
        # a wrapped call that did not ask the base would take next to nothing
        assert 0.5 < ratio["quartile_1"] <= ratio["median"] <= ratio["quartile_3"]
    empty, filled = results
    # with edits there is the encoder to pay, with none there is not, and a tiny model is fast enough to show it
    assert filled["routing_seconds"]["median"] > 2 * empty["routing_seconds"]["median"]
    assert filled["ratio"]["median"] > empty["ratio"]["median"]
    assert figures["run"]["rounds"] == 3
    assert figures["run"]["new_tokens"] == 4
    assert "Routing overhead" in printed


def test_memory_gives_passes_and_bytes(tmp_path: Path) -> None:
    figures, printed = run(
        "memory.py",
        tmp_path / "memory.json",
        *("--singles", 5, "--bulk", 300, "--folder", tmp_path),
    )

    results = figures["results"]
    for name in ("add_into_empty", "add_beside_bulk"):
        assert results[name]["passes"]["median"] > 0.5  # an edit is encoded, whatever else it needs
        assert results[name]["seconds"]["median"] > 0
    assert results["add_many"]["edits"] == 300
    assert 0 < results["add_many"]["passes_per_edit"] < results["add_into_empty"]["passes"]["median"]
    # five single edits and one to warm up, before and after the bulk
    assert results["size"]["edits"] == 312
    assert results["size"]["disk_bytes_per_edit"] > 4 * 384  # the vector, at least
    assert "What an edit costs" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["memory.json"]


def test_a_question_that_an_edit_answers_ends_the_benchmark(tmp_path: Path) -> None:
    """What is measured is the cost where no edit fires; the script checks that, and does not take it on trust."""
    tiny_model("llama").save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    script = (
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import harness, overhead; "
        "overhead.QUESTIONS = (harness.made_up_edits(1)[0].prompt,); overhead.main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, "--models", "small", "--model", str(tmp_path / "model"), "--edits", "20"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "Who is the chief executive of" in done.stderr.splitlines()[-1]


def test_made_up_edits_are_all_different(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    made_up_edits = importlib.import_module("harness").made_up_edits

    edits = made_up_edits(120_000)

    assert len({edit.prompt.casefold() for edit in edits}) == 120_000
    assert made_up_edits(3, start=110_000) == edits[110_000:110_003]
