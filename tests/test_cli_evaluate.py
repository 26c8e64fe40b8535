"""`semedit evaluate`: from files to the table, the JSON, the plots and the page."""

from __future__ import annotations

import csv
import json

import pytest
from fakes import byte_tokenizer, tiny_model
from test_cli import WORDS, save_encoder

from semedit.cli import main
from semedit.evaluation.results import Evaluation

EXAMPLES = [
    {
        "prompt": f"who leads {company}",
        "target": target,
        "generality": [f"who leads {company} now", f"is it the boss {company}"],
        "locality": [f"who founded {company} the"],
        "portability": [{"prompt": f"what is {company}", "answers": [target]}],
    }
    for company, target in (("acme", "Jane Doe"), ("initech", "John Roe"))
]


@pytest.fixture
def options(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    tiny_model("llama").save_pretrained("model")
    byte_tokenizer(chat=True).save_pretrained("model")
    (tmp_path / "edits.jsonl").write_text("".join(json.dumps(example) + "\n" for example in EXAMPLES))
    (tmp_path / "unrelated.txt").write_text("what is it\nthe boss is what\n")
    found = ["evaluate", "--model", "model", "--dataset", "jsonl", "--data", "edits.jsonl", "--scope", "similarity"]
    return [*found, "--encoder", save_encoder(tmp_path / "encoder", WORDS), "--unrelated", "unrelated.txt"]


def test_an_evaluation_is_printed_and_written(options, tmp_path, capsys):
    argv = [*options, "--method", "verbatim", "retrieve_and_prompt", "--edits", "1,2", "--out", "out"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    evaluation = Evaluation.from_json((tmp_path / "out" / "evaluation.json").read_text())
    assert [row.method for row in evaluation.rows] == ["unedited", "verbatim", "retrieve_and_prompt"]
    last = evaluation.rows[1].checkpoints[-1]
    rates = {name: (rate.hits, rate.of) for name, rate in last.rates.items()}
    # by the cosine alone, "now" is too little and "is it the boss" too much to make it another question
    assert rates["reliability"] == (2, 2)
    assert rates["generality"] == (2, 4)
    assert rates["portability"] == (0, 2)
    assert rates["locality_unrelated"] == (4, 4)
    assert rates["edit_success"] == (2, 2)
    assert "100.00% 2/2" in printed
    assert "unedited" in printed
    with open(tmp_path / "out" / "evaluation.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    [line] = [one for one in lines if (one["method"], one["edits"], one["metric"]) == ("verbatim", "2", "generality")]
    assert (line["numerator"], line["denominator"]) == ("2", "4")
    assert {path.suffix for path in (tmp_path / "out").iterdir()} >= {".html", ".png", ".svg", ".json", ".csv"}
    assert "index.html" in printed

    # it is all there: another run has nothing to edit, and gives the same
    before = (tmp_path / "out" / "evaluation.json").read_text()
    assert main(argv) == 0
    assert (tmp_path / "out" / "evaluation.json").read_text() == before


@pytest.mark.parametrize(
    "method", ["none", "in_context", "all_in_context", "fine_tuned", "counterfactual", "ensemble"]
)
def test_every_method_runs(options, capsys, method):
    assert main([*options, "--method", method, "--edits", "2", "--sample", "1"]) == 0
    printed = capsys.readouterr().out
    assert "unedited" in printed
    assert (method in printed) == (method != "none")


def test_a_data_set_without_edits_is_refused(options, tmp_path, capsys):
    folder = tmp_path / "verbs"
    folder.mkdir()
    verb = {"prefix": "The officers", "suffix1": "beat", "suffix2": "beats"}
    for role, record in (
        *(("", verb), ("_eval", verb)),
        ("_hard_neg", {"prefix": "The castle is at", "suffix": "Zenda"}),
        ("_unconditional", {"text": "It rains again"}),
    ):
        (folder / f"verb_conjugation{role}.jsonl").write_text(json.dumps(record))
    assert main([*options, "--dataset", "canonical", "--data", "verbs"]) == 1
    assert "verbs has no edits to make, only behaviours to judge" in capsys.readouterr().err


def test_an_exported_edit_of_a_namespace_or_out_of_force_is_evaluated_as_one_in_force(options, tmp_path, capsys):
    past = "2001-01-01T00:00:00+00:00"
    edits = [example | {"namespace": "shop", "valid_until": past} for example in EXAMPLES]
    (tmp_path / "edits.jsonl").write_text("".join(json.dumps(edit) + "\n" for edit in edits))
    assert main([*options, "--method", "verbatim", "--edits", "2"]) == 0
    assert "100.00% 2/2" in capsys.readouterr().out


def test_an_adaptor_takes_its_settings_from_a_file(options, tmp_path, capsys):
    (tmp_path / "grace.yaml").write_text("steps: 2\nviews: 0\n")
    assert main([*options, "--method", "adaptor", "--adaptor-config", "grace.yaml", "--limit", "1"]) == 0
    out, err = capsys.readouterr()
    assert "adaptor" in out
    assert "1 of 1 edits do not bring about their target in 2 steps" in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--data", "none.jsonl"], "none.jsonl"),
        (["--unrelated", "none.txt"], "none.txt"),
        (["--dataset", "zsre"], "edits.jsonl, line 1"),
        (["--model", "/nowhere/model"], "cannot load the model"),
    ],
)
def test_what_cannot_be_read_is_said(options, capsys, changes, message):
    assert main([*options, *changes]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("semedit: error: ")
    assert message in err


@pytest.mark.parametrize("edits", ["", "0", "1,x", "1,-2"])
def test_checkpoints_are_numbers_above_0(options, capsys, edits):
    with pytest.raises(SystemExit, match="2"):
        main([*options, "--edits", edits])
    assert "--edits" in capsys.readouterr().err
