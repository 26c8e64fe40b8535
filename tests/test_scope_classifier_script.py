"""The scope classifier's script trains from its config, resumes, and leaves a classifier that semedit takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from sentence_transformers import CrossEncoder
from test_training_scripts import write_data

from semedit import CrossEncoderScope
from semedit.scope.base import Pair

ROOT = Path(__file__).parent.parent
NAMES = [f"Place {chr(65 + i)}" for i in range(20)]


def write_more_data(folder: Path) -> None:
    """The files that the scope classifier reads beside those of the base model."""

    def put(name: str, records: list) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("\n".join(map(json.dumps, records)))

    for name in ("counterfact-train.json", "counterfact-val.json"):
        counterfact = [
            {
                "subject": n,
                "prompt": f"{n} lies in",
                "rephrase_prompt": f"The country of {n} is",
                "ground_truth": f"land {n}",
                "target_new": "Utopia",
                "locality_prompt": f"Dale {n[-1]} lies in",
            }
            for n in NAMES
        ]
        put(name, counterfact)
    put(
        "zsre_mend_train-1k.json",
        [{"subject": n, "src": f"Who owns {n}?", "rephrase": f"{n} is whose?", "answers": ["me"]} for n in NAMES],
    )
    for name in ("train_cf.json", "recent_train.json"):
        specificity = {"Relation_Specificity": [{"prompt": "The colour of it is"}]}
        put(name, [{"subject": n, "prompt": f"The age of {n} is", "locality": specificity} for n in NAMES])
    rivals = [{"text_a": f"Why go to {n}?", "text_b": f"Who went to {n}?", "label": 0} for n in NAMES]
    same = [{"text_a": f"Why go to {n}?", "text_b": f"Why {n}?", "label": 1} for n in NAMES]
    put("similiar_qqp_full.json", rivals + same)
    (folder / "annotated_wd_data_train.txt").write_text("".join(f"Q1\tP1\tQ2\twhat is at {n}\n" for n in NAMES))
    (folder / "query_wellformedness").mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (folder / "query_wellformedness" / name).write_text("".join(f"How far is {n} ?\t1.0\n" for n in NAMES))
    put("mt_bench_question.jsonl", [{"turns": [f"Write a poem about {n}.", "Shorter."]} for n in NAMES])
    for name in ("alpaca_seed_tasks.jsonl", "user_oriented_instructions.jsonl"):
        put(name, [{"instruction": "Translate.", "instances": [{"input": n}]} for n in NAMES])
    for name in ("ultrafeedback_1k.json", "code_alpaca_2k.json"):
        put(name, [{"instruction": f"Sort the list of {n}", "input": ""} for n in NAMES])


def train(folder: Path, config: dict, *more: str) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
    command += [str(ROOT / "training" / "scope_classifier.py"), str(folder / "config.yaml")]
    command += ["--data", str(folder / "data"), "--output", str(folder / "out"), "--seed", "3", *more]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.mark.slow
def test_the_scope_classifier_trains_resumes_and_is_taken(tmp_path):
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data")
    write_more_data(tmp_path / "data")
    held_out = {"prompt": "Where do I park?", "target": "Behind the house", "paraphrases": ["Is there a car park?"]}
    own = {
        "prompt": "Who has the key?",
        "target": "Ida",
        "paraphrases": ["The key, please"],
        "negatives": ["Which key?"],
    }
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, (own, held_out))))
    (tmp_path / "traffic.txt").write_text("what is rain\nwhere do birds sleep\n")
    config = yaml.safe_load((ROOT / "configs" / "scope_classifier.yaml").read_text())
    kinds = ("paraphrase", "yes or no", "same subject, other relation", "questions of others", "chat")
    config.update(pairs=dict.fromkeys(kinds, 8), held_out=0.3, held_out_pairs=6, repeat_own=2)
    config["training"].update(per_device_train_batch_size=8, eval_steps=4, save_steps=4, logging_steps=1)
    own_files = ("--edits", str(tmp_path / "own.jsonl"), "--traffic", str(tmp_path / "traffic.txt"))
    train(tmp_path, config, *own_files)
    out = tmp_path / "out"
    first = CrossEncoder(str(out))
    log = [json.loads(line) for line in (out / "training_log.jsonl").read_text().splitlines()]
    assert any("loss" in entry for entry in log)
    assert any("eval_mean" in entry for entry in log)
    figures = json.loads((out / "held_out.json").read_text())
    assert set(figures["right"]) == {*kinds, "own paraphrase", "own traffic"}
    # each twice: two ways of two wordings, one negative, and one query beside each wording
    seen = {"own negative": 2, "own paraphrase": 4, "own traffic": 4}
    assert figures["trained_on"] == dict.fromkeys(kinds, 8) | seen
    assert first.model.config.semedit == {"threshold": figures["threshold"], "floor": config["floor"]}
    steps = max(entry["step"] for entry in log)

    config["training"]["num_train_epochs"] = 2
    train(tmp_path, config, *own_files)
    log = [json.loads(line) for line in (out / "training_log.jsonl").read_text().splitlines()]
    assert max(entry["step"] for entry in log) == 2 * steps
    second = CrossEncoder(str(out))
    assert not torch.equal(first.model.classifier.weight, second.model.classifier.weight)
    assert second.model.dtype == torch.float16

    train(tmp_path, config, *own_files, "--average", str(out), str(out), "--output", str(tmp_path / "soup"))
    assert json.loads((tmp_path / "soup" / "held_out.json").read_text())["right"].keys() == figures["right"].keys()
    of_one, of_two = (CrossEncoder(str(folder)).model.state_dict() for folder in (out, tmp_path / "soup"))
    assert all(torch.equal(of_two[name], weight) for name, weight in of_one.items() if "embeddings" in name)

    scope = CrossEncoderScope(str(out))
    assert scope.floor == config["floor"]
    [near, far] = scope.score([Pair("Where is Place A?", "Where is Place A?", 1.0), Pair("No.", "Where is B?", 0.5)])
    assert 0 < near < 1
    assert near != far
