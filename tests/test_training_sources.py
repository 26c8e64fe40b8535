"""What the training scripts read: files as they are published, without what evaluation files ask."""

from __future__ import annotations

import argparse
import importlib
import json
import random
import sys
from pathlib import Path

import pytest
import yaml
from fakes import WordEncoder, byte_tokenizer, tiny_model
from test_scope_classifier_script import write_more_data
from test_training_scripts import write_data
from transformers import TrainingArguments

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from base_model import chat_trainer, split_facts
from facts import files_in, read_records, read_text
from left_out import LeftOut
from pairs import KINDS, build_pairs
from relations import read_relations
from scenes import read_scenes
from sources import CHAT_OF_BENCHMARK, is_held_out, read_sources
from traffic import read_traffic

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    write_more_data(folder)
    return folder


def put(path: Path, *records: dict) -> Path:
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def texts_of(material) -> list[str]:
    """Everything that a query or a prompt can be."""
    texts = [prompt for source in material.facts.values() for fact in source for prompt in fact.prompts]
    texts += [text for scene in material.scenes for text in (*scene.prompts, *scene.in_scope, *scene.out_of_scope)]
    texts += [prompt for _, prompts in material.specificity for prompt in prompts]
    texts += [text for pair in material.rivals for text in pair]
    texts += [text for fact, other in material.beside for text in (*fact.prompts, other)]
    return texts + [query for queries in material.queries.values() for query in queries]


def test_json_lines_end_at_line_feeds_alone(tmp_path):
    records = [{"text": "one\u2028two"}, {"text": "three\x85"}]
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in records) + "\r\n\n")
    assert read_records(tmp_path / "lines.jsonl") == records


def test_a_file_that_is_missing_is_named(tmp_path):
    for read, name in ((read_text, "facts.json"), (read_records, "facts.json"), (files_in, "opentriviaqa")):
        with pytest.raises(FileNotFoundError, match=rf"{name} is missing, plain and as .xz; training/README.md"):
            read(tmp_path / name)


def test_the_training_readme_names_the_files_that_are_read(data):
    text = (ROOT / "training" / "README.md").read_text()
    for path in data.rglob("*"):
        if path.is_file():
            name = path.relative_to(data)
            assert name.name in text or f"{name.parts[0]}/" in text, name


def test_what_is_left_out_is_found_in_whatever_field_and_case(tmp_path):
    asked = put(
        tmp_path / "asked.json", {"subject": "Bonn", "locality": {"probes": [{"prompt": "The mayor of  Rome is"}]}}
    )
    unseen = put(tmp_path / "unseen.json", {"subject": "Oslo", "prompts": ["Where is Oslo?"]})
    left_out = LeftOut([asked], [unseen])
    assert left_out.subjects == ["Bonn"]
    assert left_out.names("Who lives in Bonn?")
    assert not left_out.names("Who lives in Oslo, or in Bonnville?")
    assert left_out.has("Who?", "the mayor of Rome IS")
    assert left_out.has("where is  oslo?")
    assert not left_out.has("And where is Oslo?")
    assert left_out.allows("Who lives in Oslo?")
    assert not left_out.allows("Who?", "Who lives in Bonn?")
    assert not left_out.allows("Where is Oslo?")
    assert LeftOut().allows("Where is Oslo?")


def test_nothing_is_read_that_evaluation_files_ask(data, tmp_path):
    everything = [*read_sources(data, WordEncoder(), LeftOut(), 0.3, [], [])]
    scene, city = read_scenes()[0], read_relations()[0].subjects[0]
    unseen = [
        "Where is Place B?",
        "the country of Place C is",
        "Dale D lies in",
        "The age of Place D is",
        "Who went to Place E?",
        "who lives in place f",
        "Sort the list of Place G",
        scene.out_of_scope[0],
    ]
    subjects = ["Place A", city]
    for text in unseen:
        assert any(text.casefold() == held.strip().casefold() for part in everything for held in texts_of(part)), text
    files = [put(tmp_path / "named.json", *({"subject": subject} for subject in subjects))]
    left_out = LeftOut(files, [put(tmp_path / "unseen.json", {"any": unseen})])

    parts = read_sources(data, WordEncoder(), left_out, 0.3, [], [])

    for part, before in zip(parts, everything, strict=True):
        texts = texts_of(part)
        assert 0.5 < len(texts) / len(texts_of(before)) < 1
        assert not {text.strip().casefold() for text in texts} & {text.casefold() for text in unseen}
        assert not left_out.names(*texts)
        assert "Place A" not in [subject for subject, _ in part.specificity]
        assert city not in [name for relation in part.relations for name in relation.subjects]
        assert any("Place B" in text for text in texts) == any("Place B" in text for text in texts_of(before))
    drawn = build_pairs(parts[0], dict.fromkeys(KINDS.keys() - {"SERAC hard negative"}, 10), random.Random(0))
    assert len(drawn) > 150
    assert not left_out.has(*(text for pair in drawn for text in (pair.prompt, pair.query)))


def test_the_benchmarks_chat_messages_take_no_part(data):
    training, holding = read_sources(data, WordEncoder(), LeftOut(), 0.2, [], ["what is rain", "why"])
    messages = read_traffic(data)["chat"]
    asked = {text for text in messages if is_held_out(text, CHAT_OF_BENCHMARK)}
    parts = [asked, set(training.queries["chat"]), set(holding.queries["chat"])]
    assert all(parts)
    assert set.union(*parts) == set(messages)
    assert sum(map(len, parts)) == len(messages)
    assert len(parts[1]) > len(parts[2])
    questions = [*training.queries["questions"], *holding.queries["questions"]]
    assert {"what is rain", "why"} < set(questions)


def test_rows_are_enough_for_gradients_of_several_batches(data, tmp_path):
    config = yaml.safe_load((ROOT / "configs" / "base_model.yaml").read_text())
    config["model"].update(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
    config.update(vocabulary=400, held_out=4, facts=dict.fromkeys(config["facts"]))
    arguments = TrainingArguments(
        str(tmp_path), max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=4, use_cpu=True
    )
    options = argparse.Namespace(leave_out=[], data=data, start=None, seed=0)
    trainer = chat_trainer(config, options, arguments, None, *split_facts(config, data, [], 0))
    assert len(trainer.train_dataset) == 3 * 2 * 4


def test_a_base_model_is_measured_on_the_facts_that_its_own_seed_drew(data, tmp_path, monkeypatch):
    measure_base_model = importlib.import_module("measure_base_model")
    config = {"facts": {"zsre": None, "counterfact": 3, "natural_questions": 0, "web_questions": 0, "trivia": 0}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, "held_out": 4}))
    put(tmp_path / "edits.json", {"prompt": "a", "rephrase_prompt": "b", "target_new": "c", "ground_truth": "d"})
    tiny_model("llama").save_pretrained(tmp_path / "model")
    byte_tokenizer(chat=True).save_pretrained(tmp_path / "model")
    asked = []
    monkeypatch.setattr(measure_base_model, "measure", lambda _, known, *__: asked.append(known) or {})
    command = ["measure_base_model.py", str(tmp_path / "model"), "--config", str(tmp_path / "config.yaml")]
    command += ["--data", str(data), "--edits", str(tmp_path / "edits.json")]
    for seed in ((), ("--trained-with-seed", "7")):
        monkeypatch.setattr(sys, "argv", [*command, *seed])
        measure_base_model.main()
    drawn = [split_facts({**config, "held_out": 4}, data, [], seed)[0] for seed in (0, 7)]
    assert asked == drawn
    assert drawn[0] != drawn[1]
