"""The command line, driven as a shell drives it: arguments in, text and exit status out."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from fakes import byte_tokenizer, tiny_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers

from semedit.cli import demo, main
from semedit.memory.edit_memory import EditMemory
from semedit.memory.sqlite import SQLiteStore
from semedit.router import Router
from semedit.scope.cross_encoder import CrossEncoderScope

WORDS = ["[UNK]", "who", "what", "leads", "runs", "founded", "acme", "initech", "is", "it", "the", "boss", "now", "?"]
QUESTION = "who leads acme"
VERBATIM = ("--override", "verbatim")


def save_encoder(folder: Path, words: list[str]) -> str:
    """Each word is a dimension of its own, so that cosines are shared words over the root of n times m."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    weights = np.eye(len(words), dtype=np.float32)
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)]).save(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def encoder_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_encoder(tmp_path_factory.mktemp("encoder"), WORDS)


@pytest.fixture(scope="module")
def model_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    paths = {}
    for kind in ("llama", "t5"):
        paths[kind] = str(tmp_path_factory.mktemp(kind))
        tiny_model(kind).save_pretrained(paths[kind])
        byte_tokenizer(chat=kind == "llama").save_pretrained(paths[kind])
    paths["wide"] = str(tmp_path_factory.mktemp("wide"))
    tiny_model("llama", width=256, spread=0.1).save_pretrained(paths["wide"])
    byte_tokenizer(chat=True).save_pretrained(paths["wide"])
    return paths


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, encoder_path):
    """Runs a command in a folder of its own; gives back status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    takes_scope = {"chat", "generate", "explain", "calibrate", "edit add"}
    takes_encoder = {*takes_scope, "edit update", "edit undo", "edit import"}

    def run(*argv: str, stdin: str | io.StringIO = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin) if isinstance(stdin, str) else stdin)
        named = {argv[0], " ".join(argv[:2])}
        extra = ["--encoder", encoder_path] if named & takes_encoder and "--encoder" not in argv else []
        extra += ["--scope", "similarity"] if named & takes_scope and "--scope" not in argv else []
        status = main([*argv, *extra])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def added(run):
    """A memory with one edit; gives its id."""
    _, out, _ = run("edit", "add", QUESTION, "Jane Doe", "--json")
    return json.loads(out)["id"]


def data(run, *argv: str, **kwargs: str):
    status, out, err = run(*argv, "--json", **kwargs)
    assert (status, err) == (0, "")
    return json.loads(out)


# --- edits


def test_add_takes_every_field_and_says_what_happened(run):
    options = ["--paraphrase", "who runs acme", "--paraphrase", "acme boss", "--negative", "who founded acme"]
    options += ["--source", "ticket 4711", "--author", "ann", "--verbatim", "--namespace", "legal"]
    options += ["--valid-from", "2026-01-31T09:00+01:00", "--valid-until", "2126-01-31T09:00Z"]
    edit = data(run, "edit", "add", QUESTION, "Jane Doe", *options)
    assert edit["paraphrases"] == ["who runs acme", "acme boss"]
    assert edit["negatives"] == ["who founded acme"]
    fields = ("prompt", "target", "source", "author", "override", "namespace", "outcome", "revision", "active")
    assert [edit[name] for name in fields] == [
        QUESTION, "Jane Doe", "ticket 4711", "ann", "verbatim", "legal", "added", 1, True,
    ]  # fmt: skip
    assert edit["valid_from"] == "2026-01-31T09:00:00+01:00"
    assert edit["valid_until"] == "2126-01-31T09:00:00+00:00"
    assert datetime.fromisoformat(edit["time"]).tzinfo is not None
    again = data(run, "edit", "add", QUESTION, "John Roe", "--namespace", "legal")
    assert (again["outcome"], again["revision"]) == ("superseded", 3)


def test_a_time_without_a_zone_is_local(run):
    edit = data(run, "edit", "add", QUESTION, "Jane Doe", "--valid-from", "2026-01-31")
    assert datetime.fromisoformat(edit["valid_from"]) == datetime(2026, 1, 31).astimezone()


def test_ls_lists_active_edits_and_all_with_a_flag(run, added):
    data(run, "edit", "add", QUESTION, "John Roe")
    assert [edit["target"] for edit in data(run, "edit", "ls")] == ["John Roe"]
    assert [edit["target"] for edit in data(run, "edit", "ls", "--all")] == ["Jane Doe", "John Roe"]
    assert data(run, "edit", "ls", "--namespace", "legal") == []
    _, out, _ = run("edit", "ls", "--all")
    assert "superseded" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_table_keeps_brackets_and_ids_whole(run):
    edit = data(run, "edit", "add", "what is [bold]it[/bold] of the " + "long " * 30, "[red]X[/red]")
    _, out, _ = run("edit", "ls")
    assert "[bold]it[/bold]" in out
    assert "[red]X[/red]" in out
    assert edit["id"] in out


def test_update_changes_what_is_given_and_adds_to_lists(run):
    id = data(run, "edit", "add", QUESTION, "Jane Doe", "--paraphrase", "acme boss", "--verbatim")["id"]
    edit = data(run, "edit", "update", id, "--target", "John Roe", "--paraphrase", "who runs acme", "--author", "bo")
    assert edit["target"] == "John Roe"
    assert edit["prompt"] == QUESTION
    assert edit["paraphrases"] == ["acme boss", "who runs acme"]
    assert (edit["override"], edit["author"]) == ("verbatim", "bo")
    assert data(run, "edit", "update", id, "--no-verbatim")["override"] is None
    assert "unchanged" in run("edit", "update", id)[1]


def test_a_command_closes_the_memory(run, tmp_path):
    data(run, "edit", "add", QUESTION, "Jane Doe")
    data(run, "edit", "ls")
    assert run("edit", "show", "nobody")[0] == 1
    # SQLite takes the log into the file when the last connection is closed
    assert not list(tmp_path.glob("*-wal"))


def test_history_rm_and_undo(run, added):
    data(run, "edit", "update", added, "--target", "John Roe")
    assert data(run, "edit", "rm", added)["active"] is False
    assert data(run, "edit", "ls") == []
    assert [edit["active"] for edit in data(run, "edit", "undo")] == [True]
    revisions = data(run, "edit", "history", added)
    assert [edit["action"] for edit in revisions] == ["add", "update", "retire", "undo"]
    assert [edit["target"] for edit in revisions] == ["Jane Doe", "John Roe", "John Roe", "John Roe"]
    _, out, _ = run("edit", "history", added)
    assert all(action in out for action in ("add", "update", "retire", "undo"))
    assert data(run, "edit", "show", added)["target"] == "John Roe"
    assert "John Roe" in run("edit", "show", added)[1]


def test_export_and_import(run, added, tmp_path):
    assert data(run, "edit", "export", "out.jsonl") == {"exported": 1, "file": "out.jsonl"}
    assert data(run, "edit", "import", "out.jsonl") == {"added": 0, "superseded": 0, "unchanged": 1}
    assert data(run, "edit", "import", "out.jsonl", "--memory", "new.db") == {
        "added": 1,
        "superseded": 0,
        "unchanged": 0,
    }
    assert data(run, "edit", "ls", "--memory", "new.db")[0]["id"] == added
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "target": "b"}\n{"prompt": "c"}\n')
    status, out, err = run("edit", "import", "bad.jsonl")
    assert (status, out) == (1, "")
    assert "bad.jsonl, line 2: target is missing" in err
    assert len(data(run, "edit", "ls")) == 1


def test_what_finds_nothing_loads_no_encoder(run, added):
    # an encoder that is not there shows whether it was asked for
    nowhere = ["--encoder", "/nowhere/encoder"]
    assert run("edit", "undo", *nowhere)[0] == 0
    status, _, err = run("edit", "add", "who runs initech", "Bo", *nowhere)
    assert status == 1
    assert "cannot load the encoder /nowhere/encoder" in err


def test_what_judges_nothing_loads_no_scope_classifier(run, tmp_path):
    # a classifier that is not there shows whether it was asked for
    nowhere = ["--scope", str(tmp_path / "nowhere")]
    assert run("edit", "add", QUESTION, "Jane Doe", *nowhere)[::2] == (0, "")
    assert run("edit", "add", QUESTION, "Jane Doe", "--namespace", "legal", *nowhere)[::2] == (0, "")
    status, _, err = run("edit", "add", "who runs acme", "Bo", *nowhere)
    assert status == 1
    assert "cannot load the scope classifier" in err
    script = """
import sys
from semedit.cli import main
main(["edit", "ls"])
print([name for name in ("torch", "transformers", "sentence_transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert QUESTION in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_add_warns_of_an_edit_that_says_otherwise_and_adds_it(run, added):
    status, out, err = run("edit", "add", "who leads acme now", "John Roe")
    assert (status, out.split()[0]) == (0, "added")
    assert err.startswith("semedit: warning: the prompt of edit ")
    assert f"is in the scope of edit {added} ('who leads acme' => 'Jane Doe', score 0.87)" in err
    assert err.count("\n") == 1
    status, out, err = run("edit", "add", "who leads acme ?", "John Roe", "--json")
    assert json.loads(out)["outcome"] == "added"
    assert "semedit: warning: " in err
    assert len(data(run, "edit", "ls")) == 3


def test_another_encoder_is_refused_until_the_vectors_are_made_anew(run, added, tmp_path, encoder_path):
    other = save_encoder(tmp_path / "other", [*WORDS, "new"])
    status, _, err = run("edit", "add", "who runs initech", "Bo", "--encoder", other)
    assert status == 1
    assert f"{Path(encoder_path).name}@" in err
    assert "other@" in err
    assert "semedit edit reembed" in err
    made = data(run, "edit", "reembed", "--encoder", other)
    assert made["texts"] == 1
    assert made["encoder"].startswith("other@")
    assert data(run, "edit", "add", "who runs initech", "Bo", "--encoder", other)["outcome"] == "added"


# --- errors


@pytest.mark.parametrize(
    "argv", [["edit", "ls"], ["edit", "show", "x"], ["edit", "undo"], ["edit", "reembed"], ["explain", "who"]]
)
def test_no_memory_is_an_error_that_makes_no_file(run, tmp_path, argv):
    status, out, err = run(*argv)
    assert (status, out) == (1, "")
    assert err.startswith("semedit: error: there is no edit memory at edits.db")
    assert list(tmp_path.iterdir()) == []


def test_errors_are_one_message_without_a_traceback(run, added, tmp_path):
    assert run("edit", "show", "nope")[::2] == (
        1,
        "semedit: error: no edit has the id 'nope'; `list()` or `semedit edit ls` shows those there are\n",
    )
    (tmp_path / "text.db").write_text("no database, and long enough to be told from one" * 10)
    status, out, err = run("edit", "ls", "--memory", "text.db")
    assert (status, out) == (1, "")
    assert "text.db" in err
    assert "Traceback" not in err
    status, _, err = run("generate", "hello", "--model", str(tmp_path / "no-model"))
    assert status == 1
    assert "cannot load the model" in err


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ([], "COMMAND"),
        (["edit"], "ACTION"),
        (["edit", "add", "only a prompt"], "TARGET"),
        (["edit", "add", "a", "b", "--valid-from", "tomorrow"], "'tomorrow' is no ISO time"),
        (["explain", "a", "--threshold", "7"], "'7' is no number from 0 to 1"),
        (["generate", "a", "--max-new-tokens", "0"], "'0' is no whole number above 0"),
        (["chat", "--override", "magic"], "magic"),
        (["calibrate"], "--traffic"),
        (["calibrate", "--traffic", "a", "--target", "2"], "'2' is no number from 0 to 1"),
    ],
)
def test_wrong_usage_exits_with_2(argv, named, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err


COMMANDS = ["demo", "chat", "generate", "explain", "calibrate"]
ACTIONS = ["add", "ls", "show", "update", "rm", "undo", "history", "import", "export", "reembed", "learn"]


@pytest.mark.parametrize("command", [*COMMANDS, *(f"edit {action}" for action in ACTIONS)])
def test_help_has_an_example_and_the_exit_codes(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert f"example:\n  semedit {command}" in out
    assert "2    wrong usage" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_installed_command_helps():
    program = "import sys; from semedit.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "semedit edit add" in done.stdout
    assert "exit status:" in done.stdout


# --- asking


def test_explain_says_why(run, added):
    route = data(run, "explain", "who leads acme now")
    assert route["in_scope"] is True
    assert [edit["id"] for edit in route["edits"]] == [added]
    assert route["score"] == pytest.approx(3 / 12**0.5)
    assert route["threshold"] == 0.8
    assert route["ambiguous"] is False
    assert data(run, "explain", "who leads acme now", "--threshold", "0.9")["in_scope"] is False
    assert data(run, "explain", "who leads acme now", "--namespace", "legal")["candidates"] == []
    status, out, _ = run("explain", "who leads acme now")
    assert status == 0
    assert "in scope: 0.87 reaches the threshold 0.80 on 'who leads acme'" in out
    assert "answers" in out
    assert added in out


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_generate_answers_by_the_edit_in_scope_and_as_the_model_elsewhere(run, added, model_paths, kind):
    options = ["--model", model_paths[kind], "--override", "verbatim", "--max-new-tokens", "12"]
    status, out, err = run("generate", QUESTION, "what is the capital city", *options, "--json")
    assert (status, err) == (0, "")
    edited, unedited = map(json.loads, out.splitlines())
    assert edited["answer"] == "Jane Doe"
    assert [edit["id"] for edit in edited["route"]["edits"]] == [added]
    assert unedited["route"]["in_scope"] is False
    run("edit", "rm", added)
    status, out, _ = run("generate", *options, "--json", stdin=f"{QUESTION}\n\nwhat is the capital city\n")
    before, same = map(json.loads, out.splitlines())
    assert before["answer"] != "Jane Doe"
    assert same["answer"] == unedited["answer"]


def test_generate_prints_the_answer_alone(run, added, model_paths):
    done = run("generate", QUESTION, "--model", model_paths["llama"], "--override", "verbatim")
    assert done == (0, "Jane Doe\n", "")


# --- adaptors


def test_learned_ahead_a_value_answers_without_being_learned_again(run, model_paths, tmp_path):
    (tmp_path / "grace.yaml").write_text("replace: all\nviews: 0\nstop_at_loss: 0.5\n")
    run("edit", "add", QUESTION, "Jo")
    config = ["--adaptor-config", "grace.yaml"]
    model = ["--model", model_paths["wide"], *config]
    learned = data(run, "edit", "learn", *model)
    assert [learned[name] for name in ("learned", "reached", "learned_before")] == [1, 1, 0]
    assert 0 < learned["median_steps"] <= 100
    assert learned["base"].endswith("/model.embed_tokens")
    again = data(run, "edit", "learn", *model)
    assert [again[name] for name in ("learned", "reached", "median_steps", "learned_before")] == [0, 0, None, 1]
    assert "nothing to learn" in run("edit", "learn", *model)[1]

    adaptor = ["--override", "adaptor", *config]
    assert run("generate", QUESTION, "--model", model_paths["wide"], *adaptor) == (0, "Jo\n", "")
    assert chat(run, model_paths, QUESTION, kind="wide", override=adaptor).startswith("Jo\n")


def test_what_does_not_reach_its_target_is_warned_of_and_fails(run, added, model_paths, tmp_path):
    (tmp_path / "grace.yaml").write_text("steps: 1\nlearning_rate: 0.001\n")
    status, out, err = run("edit", "learn", "--model", model_paths["llama"], "--adaptor-config", "grace.yaml")
    assert status == 1
    assert out.splitlines()[1] == "0 of 1 reach their target, after a median of 1 steps"
    assert err.startswith("semedit: warning: 1 of 1 edits do not bring about their target in 1 steps")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["generate", QUESTION], "--adaptor-config grace.yaml has no effect on --override in_context"),
        (["chat", "--override", "verbatim"], "has no effect on --override verbatim"),
        (["demo"], "give --override adaptor as well"),
        (["generate", QUESTION, "--override", "adaptor"], "grace.yaml has ['colour']"),
        (["edit", "learn"], "an adaptor's settings are layer, "),
    ],
)
def test_settings_that_no_adaptor_takes_are_an_error(run, tmp_path, argv, message):
    (tmp_path / "grace.yaml").write_text("colour: red\n")
    # a model that is not there shows that nothing was loaded
    status, out, err = run(*argv, "--adaptor-config", "grace.yaml", "--model", "/nowhere/model")
    assert (status, out) == (1, "")
    assert err.startswith("semedit: error: ")
    assert message in err


# --- calibrating


def table_of(out: str) -> dict[str, str]:
    return {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if not line.startswith("The ")}


def test_calibrate_sets_the_threshold_for_the_commands_after_it(run, added, tmp_path):
    # cosines with the edit: 2 of 3 and 3 words, 3 of 3 and 4, none
    (tmp_path / "traffic.txt").write_text("who leads initech\n\nwho leads acme now\n" + "it is what it is\n" * 18)
    pairs = [{"prompt": QUESTION, "query": QUESTION}, {"prompt": added, "query": "who leads acme ?"}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    options = ["--traffic", "traffic.txt", "--positives", "pairs.jsonl"]
    status, out, err = run("calibrate", *options, "--target", "0.01")
    assert (status, err) == (0, "")
    table = table_of(out)
    assert table["threshold"] == "0.8660 (before: 0.8000)"
    assert table["overridden"] == "0 of 20 = 0.00% (95 %: 0.00% to 16.84%)"
    assert table["kept"] == "1 of 2 = 50.00% (95 %: 1.26% to 98.74%)"
    assert table["edits"] == "1; with up to 2, at most twice as many overrides"
    assert table["classifier"] == "similarity"
    # 368 is the first n with 1 - 0.025 ** (1 / n) <= 0.01
    assert "at least 368 queries" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    assert data(run, "explain", "who leads acme now")["in_scope"] is False
    assert data(run, "explain", QUESTION)["threshold"] == pytest.approx(3 / 12**0.5)
    assert run("calibrate", *options, "--target", "0.5")[1].startswith("threshold   0.8000 (before: 0.8660)")
    made = data(run, "calibrate", *options, "--target", "0.01")
    assert (made["overridden"], made["queries"], made["namespaces"]) == (0, 20, ["default"])
    assert made["overridden_bounds"] == [0.0, pytest.approx(0.1684, abs=1e-4)]


def test_what_outgrew_its_calibration_says_so_after_it_answered(run, added, tmp_path):
    (tmp_path / "traffic.txt").write_text("it is what it is\n")
    assert run("calibrate", "--traffic", "traffic.txt")[0] == 0
    for i in range(2):
        run("edit", "add", f"firm{i} " * 3 + f"boss{i}", "Bo", "--scope", "similarity")
    status, out, err = run("explain", QUESTION)
    assert status == 0
    assert "in scope" in out
    assert err.startswith(
        "semedit: warning: the threshold was calibrated with 1 edits; with up to 2 at most twice as many false "
        "overrides are to be expected; there are 3 now; calibrate anew: semedit calibrate --memory"
    )


@pytest.mark.parametrize(
    ("traffic", "pairs", "message"),
    [
        (None, None, "cannot read traffic.txt"),
        (" \n\n", None, "there is no traffic"),
        ("what is it\n", "not JSON", 'pairs.jsonl, line 1: expected {"prompt": TEXT, "query": TEXT}, found'),
        ("what is it\n", '\n{"prompt": "who leads acme"}', "pairs.jsonl, line 2: expected"),
        ("what is it\n", '{"prompt": [], "query": "a"}', "pairs.jsonl, line 1: expected"),
        (
            "what is it\n",
            '{"prompt": "who is it", "query": "a"}',
            "no active edit has the prompt or the id 'who is it'",
        ),
    ],
)
def test_what_cannot_be_calibrated_is_an_error(run, added, tmp_path, traffic, pairs, message):
    if traffic is not None:
        (tmp_path / "traffic.txt").write_text(traffic)
    options = ["--traffic", "traffic.txt"]
    if pairs is not None:
        (tmp_path / "pairs.jsonl").write_text(pairs)
        options += ["--positives", "pairs.jsonl"]
    status, out, err = run("calibrate", *options)
    assert (status, out) == (1, "")
    assert err.startswith("semedit: error: ")
    assert message in err


# --- chat


def chat(run, model_paths, *lines: str, kind: str = "llama", override: Sequence[str] = VERBATIM) -> str:
    options = ["--model", model_paths[kind], *override, "--max-new-tokens", "24"]
    status, out, err = run("chat", *options, stdin="".join(f"{line}\n" for line in lines))
    assert (status, err) == (0, "")
    return out


def test_chat_edits_explains_and_undoes(run, model_paths):
    said = chat(run, model_paths, "/edit who leads acme => Zoë 漢字 🙂", QUESTION, "/why", "/edits", "/undo", "/edits")
    edits = {edit["id"]: edit for edit in data(run, "edit", "ls", "--all")}
    [id] = edits
    assert f"added {id}: who leads acme => Zoë 漢字 🙂" in said
    # bytes are this model's tokens, and each character came whole
    assert f"\nZoë 漢字 🙂\n(edit {id}; /why says more)\n" in said
    assert "in scope: 1.00 reaches the threshold 0.80" in said
    assert f"undone: {id} is no longer in force" in said
    assert said.endswith("there are no edits\n")
    assert edits[id]["active"] is False


def test_chat_fixes_the_last_answer_follow_ups_too(run, model_paths):
    said = chat(
        run, model_paths, "/fix early", "/why", QUESTION, "/fix Jane Doe", "what is it now ?", "/fix It is", "/edits"
    )
    assert "there is no question yet" in said
    assert "nothing was asked yet" in said
    edits = data(run, "edit", "ls")
    assert [(edit["prompt"], edit["target"]) for edit in edits] == [
        (QUESTION, "Jane Doe"),
        (f"{QUESTION} what is it now ?", "It is"),
    ]


def test_chat_keeps_the_conversation(run, model_paths):
    # the second answer depends on the first turn, and is not what the second question gets alone
    alone = chat(run, model_paths, "what is the capital city")
    both = chat(run, model_paths, "initech", "what is the capital city")
    first = chat(run, model_paths, "initech")
    assert both.startswith(first)
    assert both[len(first) :] != alone


def test_chat_drops_what_the_model_cannot_read(run, model_paths):
    assert "its beginning is left away" not in chat(run, model_paths, "a" * 900, "b" * 900)
    assert "its beginning is left away" in chat(run, model_paths, "a" * 900, "b" * 900, "c" * 900)


def test_chat_goes_on_after_a_mistake_and_leaves_at_quit(run, model_paths):
    said = chat(run, model_paths, "/edit no arrow", "/edit => empty", "/nothing", "/undo", "/help", "/quit", QUESTION)
    assert "write it as /edit QUESTION => ANSWER" in said
    assert "prompt is empty" in said
    assert "there is no command /nothing" in said
    assert "no change left to undo" in said
    assert said.endswith("leave; Ctrl-D does too\n")


def test_chat_leaves_politely_at_an_interrupt(run, model_paths):
    class Interrupted(io.StringIO):
        def readline(self, *args: object) -> str:
            raise KeyboardInterrupt

    assert run("chat", "--model", model_paths["llama"], stdin=Interrupted()) == (0, "", "")


def test_chat_serves_an_encoder_decoder(run, added, model_paths):
    assert chat(run, model_paths, QUESTION, kind="t5") == f"Jane Doe\n(edit {added}; /why says more)\n"


# --- demo


def test_demo_exits_with_1_where_a_claim_does_not_hold(run, model_paths):
    status, out, _ = run("demo", "--model", model_paths["llama"])
    assert status == 1
    assert "FAILED  the question" in out
    assert "2 of the claims above did not hold" in out


def test_demo_shows_the_life_of_an_edit(run, model_paths, tmp_path):
    status, out, err = run("demo", "--model", model_paths["llama"], "--override", "verbatim")
    assert (status, err) == (0, "")
    assert out.count(f"-> {demo.CORRECTION}\n") == 2
    assert out.count("token ids are the base's own") == 3
    assert "in scope: " in out
    assert "FAILED" not in out
    assert list(tmp_path.iterdir()) == []


def test_demo_questions_are_routed_as_it_says():
    memory = EditMemory(SQLiteStore())
    memory.add(demo.QUESTION, demo.CORRECTION)
    routes = Router(memory, CrossEncoderScope()).route([demo.PARAPHRASE, demo.OTHER_SUBJECT, demo.OTHER_PROPERTY])
    assert [route.in_scope for route in routes] == [True, False, False]
