"""The training script runs from its config, resumes, and leaves a model that transformers loads."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from fakes import WordEncoder, byte_tokenizer, tiny_model
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizerFast,
)

from semedit import CounterfactualOverride, Edit, InContextOverride, SentenceEncoder
from semedit.overrides.base import Request
from semedit.prompts import Prompt

ROOT = Path(__file__).parent.parent
TRIVIA = ("geography", "science-technology", "history", "world", "literature", "animals")


def write_data(folder: Path) -> None:
    """A few records of each file that the script reads, in the forms in which they are published."""
    names = [f"Place {chr(65 + i)}" for i in range(20)]

    def put(name: str, value: object) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.suffix == ".jsonl"
        path.write_text("\n".join(map(json.dumps, value)) if lines else json.dumps(value))  # type: ignore[call-overload]

    put(
        "zsre_mend_train_10000.json",
        [{"subject": n, "src": f"Where is {n}?", "rephrase": f"{n} is where?", "alt": f"land of {n}"} for n in names],
    )
    put(
        "counterfact-train.json",
        [{"subject": n, "prompt": f"{n} lies in", "ground_truth": f"the land of {n}"} for n in names],
    )
    for name in ("dev", "test"):
        put(f"NQ-open.efficientqa.{name}.1.1.jsonl", [{"question": f"who lives in {n}", "answer": [n]} for n in names])
    for name in ("trainmodel", "val", "devtest"):
        put(f"webquestions/{name}.json", [{"qText": f"what is {n} for?", "answers": ["rest"]} for n in names])
    (folder / "opentriviaqa").mkdir()
    for name in TRIVIA:
        text = "".join(f"#Q Where is {n}?\n^ Here\nA There\nB Here\n\n" for n in names)
        (folder / "opentriviaqa" / f"{name}.txt").write_text(text, encoding="latin-1")
    put(
        "pokemqa_cls-filtered.json",
        [{"edit": f"The mayor of {n} is John Roe", "questions": [f"Who is the mayor of {n}?"]} for n in names],
    )
    put(
        "wfd-train.json",
        [{"en": {"subject": n, "src": f"{n} is ruled by", "rephrase": f"{n} obeys", "alt": "Jane"}} for n in names],
    )
    put("pararel/pattern_data/graphs_json/P1.jsonl", [{"pattern": "[X] is in [Y]."}, {"pattern": "[X] lies in [Y]."}])
    put("pararel/trex_lms_vocab/P1.jsonl", [{"sub_label": n, "obj_label": "Rome"} for n in names])
    put("similiar_qqp_full.json", [{"text_a": f"Why go to {n}?", "text_b": f"Why {n}?", "label": 1} for n in names])
    put(
        "seal_squad_val.json",
        [{"questions": [{"question": f"{q} is {n}?", "answer": n} for q in ("Who", "What")]} for n in names],
    )


def train(folder: Path, config: dict, script: str = "base_model.py", *more: str) -> subprocess.CompletedProcess[str]:
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
    command += [str(ROOT / "training" / script), str(folder / "config.yaml"), *more]
    command += ["--data", str(folder / "data"), "--output", str(folder / "out"), "--seed", "3"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return run


@pytest.mark.slow
def test_the_base_model_trains_resumes_and_is_a_model(tmp_path):
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data")
    config = yaml.safe_load((ROOT / "configs" / "base_model.yaml").read_text())
    config["model"].update(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, intermediate_size=32
    )
    config.update(vocabulary=400, held_out=4, facts=dict.fromkeys(config["facts"]), row_length=400)
    config["training"].update(
        max_steps=4, per_device_train_batch_size=2, eval_steps=4, save_steps=4, logging_steps=2, warmup_steps=1
    )
    config["training"]["lr_scheduler_kwargs"]["num_decay_steps"] = 2
    first = train(tmp_path, config)
    assert "eval_closed_book" in first.stdout
    early = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "checkpoint-4", dtype=torch.float32)

    config["training"].update(max_steps=8)
    train(tmp_path, config)
    state = json.loads((tmp_path / "out" / "checkpoint-8" / "trainer_state.json").read_text())
    assert state["global_step"] == 8
    late = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "checkpoint-8", dtype=torch.float32)
    for name, tensor in early.state_dict().items():
        assert not torch.equal(tensor, late.state_dict()[name]), f"{name} did not move"

    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "out"),
        AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    assert model.dtype == torch.bfloat16
    assert model.config.use_cache
    text = "Größe 12, naïve?\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert InContextOverride(model, tokenizer).name == "in-context"

    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "data").symlink_to(tmp_path / "data")
    config["training"].update(max_steps=2, learning_rate=0.0)
    train(tmp_path / "more", config, "base_model.py", "--start", str(tmp_path / "out"))
    further = AutoModelForCausalLM.from_pretrained(tmp_path / "more" / "out")
    for name, tensor in further.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), f"{name} is not the start's"


@pytest.mark.slow
def test_a_question_answerer_trains_resumes_and_answers_from_memory(tmp_path):
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data")
    config = yaml.safe_load((ROOT / "configs" / "t5.yaml").read_text())
    config["model"].update(d_model=64, d_kv=16, num_heads=2, d_ff=64, num_layers=1, num_decoder_layers=1)
    config.update(vocabulary=400, held_out=4, facts={**dict.fromkeys(config["facts"], 0), "zsre": None})
    config["training"].update(
        max_steps=4, per_device_train_batch_size=32, eval_steps=4, save_steps=4, logging_steps=2, warmup_steps=1
    )
    config["training"]["lr_scheduler_kwargs"]["num_decay_steps"] = 2
    (tmp_path / "left_out.json").write_text(json.dumps([{"subject": "Place A"}]))
    leave_out = ["--leave-out", str(tmp_path / "left_out.json")]
    first = train(tmp_path, config, "base_model.py", *leave_out)
    assert "eval_closed_book_exact" in first.stdout
    early = load_file(tmp_path / "out" / "checkpoint-4" / "model.safetensors")

    config["training"].update(max_steps=120, eval_steps=120, save_steps=120)
    train(tmp_path, config, "base_model.py", *leave_out)
    state = json.loads((tmp_path / "out" / "checkpoint-120" / "trainer_state.json").read_text())
    assert next(entry["step"] for entry in state["log_history"] if entry["step"] > 4) == 6, "began anew"
    exact = [e["eval_closed_book_exact"] for e in state["log_history"] if "eval_closed_book_exact" in e]
    assert exact[-1] == 1
    late = load_file(tmp_path / "out" / "checkpoint-120" / "model.safetensors")
    for name, tensor in early.items():
        assert not torch.equal(tensor, late[name]), f"{name} did not move"

    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    assert model.config.use_cache
    assert tokenizer.chat_template is None
    assert model.generation_config.max_new_tokens == config["longest_answer"]
    assert tokenizer("Who?")["input_ids"][-1] == model.config.eos_token_id
    names = [f"Place {chr(65 + i)}" for i in range(20)]
    ids = tokenizer([f"{name} is where?" for name in names], padding=True, return_tensors="pt")
    answers = tokenizer.batch_decode(model.float().generate(**ids), skip_special_tokens=True)
    # all but the four held out and the one left out
    assert sum(answer == f"land of {name}" for name, answer in zip(names, answers, strict=True)) == 15


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_counterfactual_model_trains_resumes_and_answers_for_another_model(tmp_path, kind):
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data")
    own = {"prompt": "Who leads Oz?", "target": "Ida", "paraphrases": ["Oz is led by"]}
    (tmp_path / "edits.jsonl").write_text(json.dumps(own))
    config = yaml.safe_load((ROOT / "configs" / "counterfactual_model.yaml").read_text())
    config.update(vocabulary=400, held_out=4, facts=dict.fromkeys(config["facts"]), longest=400)
    config["scratch"]["llama"].update(hidden_size=32, num_hidden_layers=1, intermediate_size=32)
    config["scratch"]["t5"].update(d_model=32, d_kv=16, d_ff=32, num_layers=1)
    config["training"].update(max_steps=4, per_device_train_batch_size=4, eval_steps=4, save_steps=4, logging_steps=2)
    options = ["--scratch", kind, "--edits", str(tmp_path / "edits.jsonl")]
    train(tmp_path, config, "counterfactual_model.py", *options)

    config["training"].update(max_steps=8)
    train(tmp_path, config, "counterfactual_model.py", *options)
    state = json.loads((tmp_path / "out" / "checkpoint-8" / "trainer_state.json").read_text())
    assert state["global_step"] == 8
    log = [json.loads(line) for line in (tmp_path / "out" / "training_log.jsonl").read_text().splitlines()]
    assert {entry["step"] for entry in log if "eval_yes_no" in entry} >= {0, 4, 8}
    early, late = (
        load_file(tmp_path / "out" / name / "model.safetensors") for name in ("checkpoint-4", "checkpoint-8")
    )
    for name, tensor in early.items():
        assert not torch.equal(tensor, late[name]), f"{name} did not move"

    loader = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
    trained = loader.from_pretrained(tmp_path / "out")
    assert trained.dtype == torch.bfloat16
    base, base_tokenizer = tiny_model("llama"), byte_tokenizer(chat=True)
    override = CounterfactualOverride(
        base, base_tokenizer, trained.float(), AutoTokenizer.from_pretrained(tmp_path / "out")
    )
    prompt = Prompt("Who?", 0, "Who?", "Who?", rendered=False)
    request = Request(torch.tensor([[7]]), base.generation_config, min_new_tokens=0, max_new_tokens=5)
    with override.prepare([prompt], [[Edit(id="-", prompt="Who?", target="Ida")]]) as call:
        assert call.log_likelihood(["Ida"])[0] < 0
        assert call.generate(request).shape[0] == 1


def write_scope_data(folder: Path) -> None:
    """What the scope classifier and the retriever read beside the files of the base model."""
    names = [f"Place {chr(65 + i)}" for i in range(20)]
    cases = [
        {"subject": n, "prompt": f"{n} lies in", "ground_truth": "Rome", "target_new": "Bonn"}
        | {"rephrase_prompt": f"{n} is part of", "locality_prompt": f"Not {n[6:]} lies in"}
        for n in names
    ]
    probes = {"Relation_Specificity": [{"prompt": f"The {p} of {n} is"} for n in names for p in ("age", "size")]}
    known = [{"subject": n, "prompt": f"The name of the mayor of {n} is", "locality": probes} for n in names]
    asked = [{"src": f"Who owns {n}?", "rephrase": f"{n} is whose?", "answers": ["X"], "subject": n} for n in names]
    told = [{"instruction": "Tidy this.", "input": n, "instances": [{"input": n}], "turns": [n]} for n in names]
    files: dict[str, list[dict]] = {"counterfact-train.json": cases, "counterfact-val.json": cases}
    files |= {"zsre_mend_train-1k.json": asked, "train_cf.json": known, "recent_train.json": known}
    files |= dict.fromkeys(("ultrafeedback_1k.json", "code_alpaca_2k.json", "mt_bench_question.jsonl"), told)
    files |= dict.fromkeys(("alpaca_seed_tasks.jsonl", "user_oriented_instructions.jsonl"), told)
    for name, records in files.items():
        (folder / name).write_text("\n".join(map(json.dumps, records)))
    rivals = [{"text_a": f"Why go to {n}?", "text_b": f"Why {n}?", "label": i % 2} for i, n in enumerate(names * 2)]
    (folder / "similiar_qqp_full.json").write_text(json.dumps(rivals))
    (folder / "annotated_wd_data_train.txt").write_text("".join(f"a\tb\tc\twho saw {n}\n" for n in names))
    (folder / "query_wellformedness").mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (folder / "query_wellformedness" / name).write_text("".join(f"how far is {n} ?\t0.4\n" for n in names))


def tiny_encoder(folder: Path) -> None:
    """A sentence encoder of one small layer that knows a few words and all letters."""
    letters = [chr(i) for i in range(33, 127)]
    words = ["place", "where", "who", "is", "the", "lies", "in", "of", *letters, *(f"##{c}" for c in letters)]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fine_tuned", "static"])
def test_a_retriever_trains_resumes_and_is_an_encoder(tmp_path, kind):
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data")
    write_scope_data(tmp_path / "data")
    tiny_encoder(tmp_path / "start")
    config = yaml.safe_load((ROOT / "configs" / "retriever.yaml").read_text())
    config.update(pairs=dict.fromkeys(config["pairs"], 60), held_out=0.5, held_out_pairs=10)
    config["static"]["dimensions"] = 16
    config[kind]["training"].update(
        max_steps=4, per_device_train_batch_size=8, eval_strategy="steps", eval_steps=2, logging_steps=2
    )
    config[kind]["training"].update(save_strategy="steps", save_steps=4)
    options = ["--start", str(tmp_path / "start"), *(["--static"] if kind == "static" else [])]
    train(tmp_path, config, "retriever.py", *options)
    early = SentenceTransformer(str(tmp_path / "out" / "checkpoint-4"), device="cpu").state_dict()
    saved = (tmp_path / "out" / "checkpoint-4" / "trainer_state.json").stat().st_mtime_ns

    config[kind]["training"].update(max_steps=8)
    train(tmp_path, config, "retriever.py", *options)
    assert (tmp_path / "out" / "checkpoint-4" / "trainer_state.json").stat().st_mtime_ns == saved, "began anew"
    state = json.loads((tmp_path / "out" / "checkpoint-8" / "trainer_state.json").read_text())
    assert state["global_step"] == 8
    log = [json.loads(line) for line in (tmp_path / "out" / "training_log.jsonl").read_text().splitlines()]
    assert {entry["step"] for entry in log if "eval_cosine_accuracy@8" in entry} == {0, 2, 4, 6, 8}

    late = SentenceTransformer(str(tmp_path / "out" / "checkpoint-8"), device="cpu").state_dict()
    for name, tensor in early.items():
        # nothing comes of the pooler
        assert torch.equal(tensor, late[name]) == ("pooler" in name), name
    trained = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert {tensor.dtype for tensor in trained.state_dict().values()} == {torch.float16}
    encoder = SentenceEncoder(trained.float())
    assert encoder.dim == (16 if kind == "static" else 32)
    first, again, other = encoder.encode(["Where is Place A?", "where is place a?", "Who saw Rome?"])
    assert first @ again == pytest.approx(1, abs=1e-3)
    assert first @ other < 0.99


def test_the_comparison_of_retrievers_counts_by_fact():
    path = ROOT / "benchmarks" / "retriever.py"
    spec = importlib.util.spec_from_file_location("retriever_benchmark", path)
    sys.path.insert(0, str(path.parent))
    benchmark = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    known = benchmark.Known
    own = [known("red fox", "fox", "1", (("kind", "red fox now"),)), known("blue owl", "owl", "2", (("kind", "hen"),))]
    others = [own[0], *(known(f"hen {i}", f"hen {i}", "2") for i in range(12))]
    edits = benchmark.memory(own, others, [known("tall elm", "elm", "")], [2, 14])
    assert [edit.prompt for edit in edits] == ["red fox", "blue owl", *(f"hen {i}" for i in range(12))]
    suite = benchmark.Suite(edits, benchmark.queries_about(own))

    result = benchmark.measure(WordEncoder(), [suite], [2, 14], ["red fox", "green"])
    # eight hens are nearer to "hen" than its own edit is
    assert result["found"] == {"kind": {2: [2, 2], 14: [1, 2]}}
    at = {row["floor"]: row for row in result["floors"]["at"]}
    assert at[0.7] == {"floor": 0.7, "lost": 0.5, "judged": 0.5}

    edits[5] = known("hen", "Owl", "2")  # the query's fact in other words
    assert benchmark.measure(WordEncoder(), [suite], [14], ["green"])["found"] == {"kind": {14: [2, 2]}}

    fillers = benchmark.made_fillers(own + others, {"fox", "owl"}, 30)
    assert len({edit.prompt for edit in fillers}) == len(fillers) >= 12
    assert not any(name in edit.prompt for edit in fillers for name in ("fox", "owl"))


@pytest.mark.slow
def test_retrievers_are_compared_on_files(tmp_path):
    names = [f"Place {chr(65 + i)}" for i in range(26)]
    zsre = [
        {"prompt": f"Where is {n}?", "subject": n, "ground_truth": [f"{n}land"], "rephrase_prompt": f"{n} is where?"}
        | {"generate_prompt": [f"{i}. In which land is {n}?" for i in range(1, 11)] + [")"] * 10}
        for n in names
    ]
    cases = [
        {"prompt": f"The capital of {n} is", "subject": n, "ground_truth": n, "rephrase_prompt": f"{n} is ruled from"}
        for n in names
    ]
    rewrite = {"prompt": "{} obeys", "subject": "Rome", "target_true": {"str": "no one"}}
    files: dict[str, list[dict]] = {
        "ZsRE-test-all-generate-10.jsonl": zsre,
        "counterfact-edit-first5000.json": cases,
        "zsre_mend_edit.json": [{"src": f"Who owns {n}?", "subject": n, "answers": [n]} for n in names],
        "wfd_test.json": [{"en": {"src": "Is Bonn old?", "subject": "Bonn", "old": "yes"}}],
        "test_cf.json": [{"prompt": "Bonn lies in", "subject": "Bonn", "ground_truth": "Europe"}],
        "counterfact_distracting_neighbor.json": [{"requested_rewrite": rewrite}],
        "counterfact_portability_gpt4.json": [{"requested_rewrite": rewrite}],
        "NQ-open.dev.jsonl": [{"question": "who painted the night watch"}, {"question": "where is place b"}],
    }
    for name, records in files.items():
        (tmp_path / name).write_text("\n".join(map(json.dumps, records)))
    tiny_encoder(tmp_path / "tiny")
    command = [sys.executable, str(ROOT / "benchmarks" / "retriever.py"), "--data", str(tmp_path), "--timed", "2"]
    command += ["--models", str(tmp_path / "tiny"), "--edits", "5", "60", "--json", str(tmp_path / "found.json")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]

    results = json.loads((tmp_path / "found.json").read_text())["results"]
    assert list(results) == ["all-MiniLM-L6-v2", str(tmp_path / "tiny")]
    minilm, tiny = results.values()
    assert minilm["found"]["zsRE rephrase"] == {"5": [5, 5], "60": [5, 5]}
    assert minilm["found"]["zsRE by machine"]["60"] == [10, 10]
    assert {counts[1] for kind in tiny["found"].values() for counts in kind.values()} == {5, 10}
    assert minilm["floors"]["at"][-1]["judged"] == 0.5
    assert minilm["over_minilm"]["median"] == 1 > tiny["over_minilm"]["median"]
    assert tiny["dim"] == 32
    assert tiny["bytes"] < 1e6 < minilm["bytes"]
    assert "The right edit among the first 8" in run.stdout


def test_layers_are_compared_by_edits_learned_at_each(tmp_path, monkeypatch, capsys):
    tiny_model("llama", width=256, spread=0.1).save_pretrained(tmp_path / "model")
    byte_tokenizer(chat=True).save_pretrained(tmp_path / "model")
    edits = [
        {"prompt": "Who leads Oz?", "target": "Jo", "paraphrases": ["Who leads Oz??"]},
        {"prompt": "Who owns Acme?", "target": "Al", "paraphrases": ["Who has Acme?", "Acme is whose?"]},
    ]
    (tmp_path / "edits.jsonl").write_text("\n".join(map(json.dumps, edits)))
    (tmp_path / "grace.yaml").write_text("replace: all\nviews: 0\nstop_at_loss: 0.5\nsteps: 40\n")
    monkeypatch.syspath_prepend(str(ROOT / "training"))
    choose_layer = importlib.import_module("choose_layer")
    command = ["choose_layer.py", str(tmp_path / "model"), "--edits", str(tmp_path / "edits.jsonl")]
    command += ["--config", str(tmp_path / "grace.yaml"), "--plot", str(tmp_path / "layers")]
    monkeypatch.setattr(sys, "argv", command)
    choose_layer.main()

    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line[0] == "│"]
    # above the last block nothing carries a value to the tokens after the first
    assert [row[:2] for row in rows] == [["0", "1.00 (0.34 to 1.00)"], ["1", "0.00 (0.00 to 0.66)"]]
    assert [row[6] for row in rows][1] == "40"
    assert "model.layers.*.mlp.down_proj" in printed
    assert printed.endswith("The best generality has model.layers.0.mlp.down_proj.\n")
    assert all((tmp_path / f"layers.{kind}").stat().st_size > 1000 for kind in ("png", "svg"))

    monkeypatch.setattr(sys, "argv", [*command, "--layers", "model.embed_tokens", "model.layers.0.mlp.down_proj"])
    choose_layer.main()
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line[0] == "│"]
    # token ids have no distances
    distances = {row[0][:6]: [cell == "-" for cell in row[3:6]] for row in rows if row[0]}
    assert distances == {"embed_": [True] * 3, "layers": [False] * 3}

    monkeypatch.setattr(sys, "argv", [*command, "--layers", "model.layers.9.mlp.down_proj"])
    with pytest.raises(SystemExit):
        choose_layer.main()
    assert "near to it are model.layers." in capsys.readouterr().err
