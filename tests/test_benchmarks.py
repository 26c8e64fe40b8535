"""The benchmarks run as written, at tiny sizes, and their JSON holds the ratios."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_grace_gives_figures_for_each_method_and_number_of_edits(tmp_path: Path, kind: str) -> None:
    tiny_model(kind).save_pretrained(tmp_path / "model")
    byte_tokenizer(chat=kind == "llama").save_pretrained(tmp_path / "model")
    towns = ["Ulm", "Oslo", "Rome"]
    facts = [
        {
            "subject": f"Company {town}",
            "ground_truth": [town],
            "prompt": f"Where is Company {town} based?",
            "rephrase_prompt": f"In which town does one find Company {town}?",
            "target_new": f"New {town}",
        }
        for town in towns
    ]
    (tmp_path / "ZsRE-test-all.json").write_text(json.dumps(facts))
    questions = [{"question": f"how old is the oak number {i}"} for i in range(9)]
    (tmp_path / "NQ-open.dev.jsonl").write_text("\n".join(map(json.dumps, questions)))

    options = ("--data", tmp_path, "--model", tmp_path / "model", "--out", tmp_path / "kept")
    options += ("--edits", 1, 3, "--unrelated", 4, "--jobs", 2, "--rows")
    rows = ("published", "+ routing by scope", "repaired, scope routing")
    all_of_them, printed = run("grace.py", tmp_path / "all.json", *options, *rows)
    published, routed, repaired = (all_of_them["results"][place : place + 2] for place in (0, 2, 4))

    for results, method in zip((published, routed, repaired), rows, strict=True):
        assert [(result["method"], result["edits"]) for result in results] == [(method, 1), (method, 3)]
        for result in results:
            for name in ("success", "retention", "teacher_forced", "generality", "routed"):
                assert result[name]["of"] == result["edits"]
            assert result["unrelated"]["of"] == 4
            assert result["seconds_per_edit"] > 0
    # all are in the scope of their own edit, whatever the values are worth, and nothing else is
    final = repaired[-1]
    assert final["routed"]["right"] == 3
    assert final["unrelated"]["right"] == 4
    assert final["keys_per_edit"] is None
    assert published[0]["keys_per_edit"] == 1
    # a key beside the value
    assert published[-1]["bytes_per_edit"] > final["bytes_per_edit"] > 4 * 32
    assert "zsRE edits so far: 3" in printed

    # the second learns the same values as the first, and is said to have taken as long
    for first, second in zip(published, routed, strict=True):
        assert second["seconds_per_edit"] >= first["seconds_per_edit"]
    assert routed[-1]["routed"]["right"] == 3

    # what is kept is shown again as it was measured, and never with other options
    again, _ = run("grace.py", tmp_path / "again.json", *options, *reversed(rows))
    assert again["results"] == repaired + routed + published
    with pytest.raises(AssertionError, match="give another --out"):
        run("grace.py", tmp_path / "other.json", *options, rows[0], "--layer", "elsewhere")


def test_scale_gives_recall_ratios_and_percentiles(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((1_300, 32)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    figures, printed = run(
        "scale.py",
        tmp_path / "scale.json",
        *("--vectors", tmp_path / "vectors.npy", "--edits", 1_000, 2_000, "--bulk", 500, "--rounds", 2),
        *("--folder", tmp_path),
    )

    results = figures["results"]
    assert [(row["edits"], row["made"]) for row in results["searching"]] == [(1_000, 700), (2_000, 1_700)]
    assert [row["edits"] for row in results["namespaces"]] == [200, 20, 2]
    for row in results["searching"] + results["namespaces"]:
        assert row["recall"] > 0.999  # so few are searched exactly; two may be equally near
        assert row["one"]["times_faster"]["median"] > 0
    for row in results["opening"]:
        assert row["rebuilt"]["seconds"] <= row["rebuilt"]["settled_seconds"]
        assert row["rebuilt"]["peak_bytes_per_edit"] >= row["rebuilt"]["anonymous_bytes_per_edit"] > 4 * 32
        assert "opened" not in row  # of so few no snapshot is made
    assert "SQLite" in results["stores"]
    for row in results["stores"].values():
        assert 0 < row["writing"]["single_per_second"] < row["writing"]["bulk_per_second"]
        assert 0 <= row["visibility"]["p50"] <= row["visibility"]["max"] < 1
        for times in row["serving"].values():
            assert 0 < times["p50"] <= times["p95"] <= times["p99"] <= times["max"]
    assert "Searching through all edits" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scale.json", "vectors.npy"]


def test_learning_gives_a_ratio_and_values_that_agree(tmp_path: Path) -> None:
    figures, printed = run("learning.py", tmp_path / "learning.json", "--models", "small", "--rounds", 2, "--steps", 4)

    measured = [(result["layer"], result["replace"]) for result in figures["results"]]
    layers = [f"model.layers.{block}.mlp.down_proj" for block in (3, 4, 5)]
    assert measured == [(layer, replace) for replace in ("all", "last") for layer in layers]
    for result in figures["results"]:
        ratio = result["ratio"]
        assert 0 < ratio["quartile_1"] <= ratio["median"] <= ratio["quartile_3"]
        assert result["greatest_difference"] < 0.01
    assert "through the full model" in printed


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
