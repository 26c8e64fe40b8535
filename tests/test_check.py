"""Every edit is a test case: what holds, what fails, and what an operator is told of it."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta, timezone

import pytest
from fakes import KINDS, TableScope, WordEncoder, byte_tokenizer, tiny_model
from rich.cells import cell_len
from test_cli import save_encoder

import semedit
from semedit.cli import main
from semedit.edits import Edit
from semedit.errors import InvalidQueryError
from semedit.evaluation.check import check

RUNS, LEADS, FOUNDED = "who runs acme", "who leads acme", "who founded acme"
NOW = datetime.now(timezone.utc)


def edited(base, override="verbatim", scope=None, **options):
    return semedit.wrap(
        base,
        byte_tokenizer(chat=not base.config.is_encoder_decoder),
        encoder=WordEncoder(),
        scope=scope or semedit.SimilarityScope(),
        override=override,
        **options,
    )


def seen(checked):
    return [(one.edit.id, one.kind, one.asked, one.holds) for one in checked]


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_edit_promises_is_asked_and_holds(models, kind):
    model = edited(models[kind])
    model.edits.add(RUNS, "Jane Doe", id="1", paraphrases=["acme boss", "boss of acme"], negatives=[FOUNDED])
    model.edits.add("where is initech", "The Hague!", id="2")
    checked = check(model)
    assert seen(checked) == [
        ("1", "prompt", RUNS, True),
        ("1", "paraphrase", "acme boss", True),
        ("1", "paraphrase", "boss of acme", True),
        ("1", "negative", FOUNDED, True),
        ("2", "prompt", "where is initech", True),
    ]
    assert [one.got for one in checked[:3]] == ["Jane Doe"] * 3
    assert checked[3].got != "Jane Doe"
    assert not checked[3].route.in_scope
    assert checked[4].got == "The Hague!"
    assert checked[0].why == "in scope: 1.00 reaches the threshold 0.80 on 'who runs acme'"


def test_nothing_to_check(models):
    assert check(edited(models["llama"])) == []


def test_a_base_that_cannot_read_an_edit_fails(models):
    model = edited(models["llama"], "in_context")
    model.edits.add(RUNS, "Jane Doe", id="1", negatives=["how high is a tower"])
    asked, negative = check(model, max_new_tokens=12)
    assert asked.routed
    assert asked.got != "Jane Doe"
    assert not asked.holds
    assert asked.why.startswith("in scope: 1.00 reaches the threshold")
    assert negative.holds


def test_the_target_from_the_base_alone_is_not_the_edits_answer(models):
    """An edit that is never reached fails, even where the base happens to say the same."""
    base = models["llama"]
    model = edited(base, scope=TableScope({}))
    model.edits.add(RUNS, "to be seen", id="1")
    [missed] = check(model, max_new_tokens=3)
    model.edits.update("1", target=missed.got)
    [missed] = check(model, max_new_tokens=3)
    assert missed.got == missed.edit.target != ""
    assert not missed.holds
    assert missed.why.startswith("out of scope: 0.00 is below the threshold 0.50: the base model answers")


def test_an_edit_that_another_one_hides_fails(models):
    model = edited(models["llama"])
    same_words = "acme runs who"
    model.edits.add_many([Edit(id="old", prompt=RUNS, target="Jane"), Edit(id="new", prompt=same_words, target="Bo")])
    hidden, hiding = check(model)
    assert seen([hidden, hiding]) == [("old", "prompt", RUNS, False), ("new", "prompt", same_words, True)]
    assert hidden.got == "Bo"
    assert hidden.why.startswith("answered by edit new; in scope: 1.00 reaches the threshold")
    model.edits.retire("new")
    assert [one.holds for one in check(model)] == [True]


def test_an_edit_that_another_one_answers_for_fails_though_the_target_is_the_same(models):
    model = edited(models["llama"])
    model.edits.add_many(
        [Edit(id="1", prompt=RUNS, target="Jane"), Edit(id="2", prompt="acme runs who", target="jane")]
    )
    first, second = check(model)
    assert second.holds
    assert (first.got, first.holds) == ("jane", False)
    assert first.why.startswith("answered by edit 2; ")


def test_what_two_edits_claim_alike_holds_where_both_answer(models):
    table = {(RUNS, RUNS): 0.9, (LEADS, LEADS): 0.9, ("acme boss", "acme boss"): 0.9, ("acme boss", LEADS): 0.8}
    answered = {}
    for ambiguous in ("base", "all"):
        model = edited(models["llama"], scope=TableScope(table), ambiguous=ambiguous)
        model.edits.add_many(
            [
                Edit(id="1", prompt=RUNS, target="Jane", paraphrases=("acme boss",)),
                Edit(id="2", prompt=LEADS, target="Bo"),
            ]
        )
        own, answered[ambiguous], other = check(model)
        assert own.holds
        assert other.holds
    assert not answered["base"].holds
    assert answered["base"].why.startswith("ambiguous: edits 1 ")
    assert answered["all"].holds
    assert answered["all"].got == "Jane"
    assert answered["all"].why.startswith("together with edit 2; ambiguous: edits 1 ")


def test_a_negative_that_fires_fails(models):
    # to this classifier the negative is nearer to the edit than to itself
    scope = TableScope({(RUNS, RUNS): 0.9, (FOUNDED, RUNS): 0.8, (FOUNDED, FOUNDED): 0.7})
    model = edited(models["llama"], scope=scope)
    model.edits.add(RUNS, "Jane Doe", id="1", negatives=[FOUNDED])
    asked, negative = check(model)
    assert asked.holds
    assert (negative.kind, negative.got, negative.holds) == ("negative", "Jane Doe", False)
    assert negative.why == "in scope: 0.80 reaches the threshold 0.50 on 'who runs acme'"
    # another edit may answer it
    model.edits.add_many([Edit(id="2", prompt=FOUNDED, target="Bo")])
    scope.table[FOUNDED, FOUNDED] = 0.95
    assert [(one.edit.id, one.got, one.holds) for one in check(model)] == [
        ("1", "Jane Doe", True),
        ("1", "Bo", True),
        ("2", "Bo", True),
    ]


def test_a_paraphrase_out_of_scope_fails_alone(models):
    model = edited(models["llama"], scope=TableScope({(RUNS, RUNS): 0.9, (LEADS, LEADS): 0.4}))
    model.edits.add(RUNS, "Jane Doe", id="1", paraphrases=[LEADS])
    assert seen(check(model)) == [("1", "prompt", RUNS, True), ("1", "paraphrase", LEADS, False)]


def test_only_what_is_in_force_is_checked_in_its_namespaces(models):
    model = edited(models["llama"])
    hour = timedelta(hours=1)
    model.edits.add_many(
        [
            Edit(id="now", prompt="a b c", target="1", valid_from=NOW - hour, valid_until=NOW + hour),
            Edit(id="over", prompt="d e f", target="1", valid_until=NOW - hour),
            Edit(id="to come", prompt="g h i", target="1", valid_from=NOW + hour),
            Edit(id="retired", prompt="j k l", target="1"),
            Edit(id="legal", prompt="a b c", target="2", namespace="legal"),
        ]
    )
    model.edits.retire("retired")
    assert [one.edit.id for one in check(model)] == ["now"]
    assert seen(check(model, namespaces=["legal"])) == [("legal", "prompt", "a b c", True)]
    # together they contradict each other, and the newer one answers
    both = check(model, namespaces=["default", "legal"])
    assert [(one.edit.id, one.got, one.holds) for one in both] == [("now", "2", False), ("legal", "2", True)]
    assert check(model, namespaces=["unknown"]) == []
    with pytest.raises(InvalidQueryError, match=r"write \['legal'\]"):
        check(model, namespaces="legal")


def test_an_answer_that_is_cut_off_says_so(models):
    model = edited(models["llama"])
    model.edits.add(RUNS, "x" * 70, id="1")
    [cut] = check(model)
    assert (cut.got, cut.cut, cut.holds) == ("x" * 64, True, False)
    assert cut.why.endswith("; the answer was cut off at the most tokens it may have")
    [whole] = check(model, max_new_tokens=71)
    assert (whole.cut, whole.holds) == (False, True)


# --- the command


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    words = [
        "[UNK]",
        "who",
        "runs",
        "leads",
        "founded",
        "acme",
        "boss",
        "of",
        "the",
        "how",
        "high",
        "is",
        "a",
        "tower",
    ]
    encoder = save_encoder(tmp_path_factory.mktemp("encoder"), words)
    model = tmp_path_factory.mktemp("model")
    tiny_model("llama").save_pretrained(model)
    byte_tokenizer(chat=True).save_pretrained(model)
    return {"encoder": encoder, "model": str(model)}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, paths):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stdin", None)

    def run(*argv):
        named = ["--encoder", paths["encoder"]]
        named += ["--scope", "similarity"] if argv[1] in ("add", "check") else []
        named += ["--model", paths["model"]] if argv[1] == "check" and "--model" not in argv else []
        status = main([*argv, *named])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_the_command_exits_with_0_where_all_holds(run):
    run("edit", "add", RUNS, "Jane Doe", "--paraphrase", "acme boss", "--negative", FOUNDED)
    run("edit", "add", LEADS, "Bo", "--namespace", "legal")
    verbatim = ("edit", "check", "--override", "verbatim")
    assert run(*verbatim) == (
        0,
        "not checked: 1 edit in force in other namespaces; name them with --namespace\n"
        "1 edit, 3 checks, 0 failed: 0 of 1 prompts, 0 of 1 paraphrases, 0 of 1 negatives\n",
        "",
    )
    status, out, _ = run(*verbatim, "--json")
    assert (status, json.loads(out)) == (0, {"edits": 1, "not_checked": 1, "checked": 3, "failed": 0, "failures": []})
    assert run(*verbatim, "--namespace", "legal", "--namespace", "default")[1].startswith(
        "2 edits, 4 checks, 0 failed"
    )


def test_the_command_exits_with_1_where_one_fails_and_says_what(run):
    status, out, _ = run("edit", "add", RUNS, "Jane Doe", "--negative", "how high is a tower", "--json")
    id = json.loads(out)["id"]
    status, out, err = run("edit", "check", "--max-new-tokens", "6")
    assert (status, err) == (1, "")
    assert out.splitlines()[0].split() == ["edit", "asked", "expected", "got", "why"]
    assert id in out
    assert out.splitlines()[-1] == "1 edit, 2 checks, 1 failed: 1 of 1 prompts, 0 of 1 negatives"
    assert max(map(cell_len, out.splitlines())) <= 100
    status, out, err = run("edit", "check", "--max-new-tokens", "6", "--json")
    assert (status, err) == (1, "")
    [failure] = json.loads(out).pop("failures")
    assert failure.pop("got") != "Jane Doe"
    assert failure == {
        "id": id,
        "kind": "prompt",
        "asked": RUNS,
        "expected": "Jane Doe",
        "why": "in scope: 1.00 reaches the threshold 0.80 on 'who runs acme'; "
        "the answer was cut off at the most tokens it may have",
    }


def test_without_edits_in_force_no_model_is_needed(run):
    id = json.loads(run("edit", "add", RUNS, "Jane Doe", "--json")[1])["id"]
    nowhere = ("edit", "check", "--model", "/nowhere/model")
    assert run(*nowhere)[0] == 1
    main(["edit", "rm", id])
    assert run(*nowhere)[::2] == (0, "")
    assert run(*nowhere)[1] == "there are no edits in force to check\n"
    assert json.loads(run(*nowhere, "--json")[1])["checked"] == 0


def test_the_command_fails_as_its_neighbours_do(run, capsys, tmp_path):
    status, out, err = run("edit", "check")
    assert (status, out) == (1, "")
    assert err.startswith("semedit: error: there is no edit memory at edits.db")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit) as stopped:
        main(["edit", "check", "--max-new-tokens", "none"])
    assert stopped.value.code == 2
    assert "'none' is no whole number above 0" in capsys.readouterr().err


def test_its_help_has_an_example_and_the_exit_codes(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["edit", "check", "--help"])
    out = capsys.readouterr().out
    assert "example:\n  semedit edit check" in out
    assert "2    wrong usage" in out
    assert max(map(len, out.splitlines())) <= 80
