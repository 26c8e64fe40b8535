"""The training script runs from its config, resumes, and leaves a model that transformers loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from semedit import InContextOverride

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


def train(folder: Path, config: dict) -> subprocess.CompletedProcess[str]:
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
    command += [str(ROOT / "training" / "base_model.py"), str(folder / "config.yaml")]
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
