"""What the scope classifier is trained on, and how its probabilities and its threshold are chosen."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from fakes import WordEncoder, save_tiny_cross_encoder
from sentence_transformers import CrossEncoder
from transformers import BertTokenizerFast, RobertaConfig, RobertaForSequenceClassification

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
import scope_classifier
import wordings
from facts import Fact
from left_out import LeftOut
from material import Material, ScopePair
from neighbours import Neighbours
from pairs import KINDS, build_pairs, count_kinds
from pairs_in_scope import IN_SCOPE
from properties import Properties
from relations import NEAR_MISSES, read_relations
from scenes import Scene, read_scenes
from scope_classifier import HeldOut, LengthBatches, average, finish, head_of, soup, temperature_of, threshold_of
from scope_reliability import calibration_error, reliability
from sources import is_held_out

CITIES = ["Arles", "Bremen", "Cork", "Dover", "Essen", "Fano", "Genoa", "Hamm", "Imola", "Jena", "Kiel", "Lodi"]


@pytest.fixture(scope="module")
def material():
    def facts(question, other, answer):
        return [Fact((question.format(c), other.format(c)), answer.format(c), c) for c in CITIES]

    by_source = {
        "zsre": facts("Which river does {} cross?", "What river is crossed by {}?", "the {} river")
        + facts("What was {} named after?", "From what has {} its name?", "saint {}")
        + facts("In what year was {} founded?", "When was {} founded?", "1{}"),
        "counterfact": facts("{} lies in", "{} is part of", "land of {}"),
        "pokemqa": facts("The twin of {} is", "Which town is {}'s twin?", "twin of {}"),
        "wikifactdiff": facts("{} has the postcode", "The post code of {} is", "{} 1"),
        "pararel": facts("{} is near", "{} is next to", "by {}"),
        "qqp": [Fact(("How do I sleep?", "What makes me sleep?"), "")],
        "own": [Fact(("Where do I park?", "Is there a car park?"), "Behind the house")],
    }
    properties = Properties({fact.template for fact in by_source["zsre"]})
    return Material(
        facts=by_source,
        relations=read_relations(),
        scenes=[
            Scene((f"How old is {c} 21?", f"The age of {c} 21 is"), "9", (f"{c} 21 age",), (f"Who is {c}?",))
            for c in CITIES
        ],
        specificity=[(c, [f"The age of {c} is", f"The name of the founder of {c} is"]) for c in CITIES],
        rivals=[("How do I sleep?", "How do I wake up?")],
        beside=[(by_source["counterfact"][i], f"{CITIES[i - 1]} lies in") for i in range(len(CITIES))],
        queries={"questions": ["what is rain", "who won"], "chat": ["Write a poem."]},
        left_out=LeftOut(),
        properties=properties,
        neighbours=Neighbours(by_source, ["what is rain", "who won", "Write a poem."], properties.all, WordEncoder()),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_with_its_label(material, kind):
    pairs = build_pairs(material, {kind: 25}, random.Random(1))
    assert len(pairs) >= (1 if kind in ("look-alike", "chat", "same question") else 15), "nothing to judge"
    assert {pair.kind for pair in pairs} == {kind}
    assert {pair.in_scope for pair in pairs} == {kind in IN_SCOPE}
    for pair in pairs:
        assert pair.prompt
        assert pair.query
        assert "{}" not in pair.prompt + pair.query
        assert "[A]" not in pair.query
        assert "[X]" not in pair.query
        assert pair.in_scope or pair.prompt.lower() != pair.query.lower()


def test_pairs_are_drawn_from_the_seed_alone_and_never_twice(material):
    counts = {"paraphrase": 40, "same relation, other subject": 40, "chat": 2}
    pairs = build_pairs(material, counts, random.Random(3))
    assert pairs == build_pairs(material, counts, random.Random(3))
    assert pairs != build_pairs(material, counts, random.Random(4))
    assert len({(pair.prompt, pair.query) for pair in pairs}) == len(pairs)
    drawn = Counter(pair.kind for pair in pairs)
    assert drawn["paraphrase"] == drawn["same relation, other subject"] == 40


def test_another_subject_is_another_subject(material):
    for pair in build_pairs(material, {"nearest neighbour": 20}, random.Random(5)):
        [subject] = [city for city in CITIES if city in pair.prompt]
        assert subject not in pair.query


def test_no_pair_holds_a_text_that_is_left_out(material, tmp_path, monkeypatch):
    counts = {"paraphrase": 60, "same relation, other subject": 60}
    held = build_pairs(material, counts, random.Random(1))
    # texts that were made with another subject than their fact's
    unseen = [pair.query for pair in held[:5]] + [pair.prompt for pair in held[5:10]]
    (tmp_path / "unseen.json").write_text(json.dumps([{"deep": [{"text": text.upper()}]} for text in unseen]))
    monkeypatch.setattr(material, "left_out", LeftOut([], [tmp_path / "unseen.json"]))
    pairs = build_pairs(material, counts, random.Random(1))
    assert len(pairs) > 90
    assert not {text for pair in pairs for text in (pair.prompt, pair.query)} & set(unseen)


def test_of_what_there_are_too_few_is_said(material, capsys):
    pairs = build_pairs(material, {"chat": 50, "paraphrase": 20}, random.Random(1))
    counts = count_kinds(pairs, {"chat": 50, "paraphrase": 20})
    assert counts == {"chat": len(pairs) - 20, "paraphrase": 20}
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"chat: only {counts['chat']} of 50 pairs could be drawn without repeats"


def test_seracs_pairs_are_of_its_own_data_set_alone(material):
    of_fact = {prompt: fact for fact in material.facts["zsre"] for prompt in fact.prompts}
    for kind in ("SERAC paraphrase", "SERAC hard negative", "SERAC uniform negative"):
        pairs = build_pairs(material, {kind: 30}, random.Random(2))
        assert len(pairs) == 30
        for pair in pairs:
            assert (of_fact[pair.prompt] is of_fact[pair.query]) == pair.in_scope == (kind == "SERAC paraphrase")
    either_way = build_pairs(material, {"SERAC paraphrase": 60}, random.Random(2))
    assert {pair.prompt == of_fact[pair.prompt].prompts[0] for pair in either_way} == {True, False}


def test_the_relation_files_say_what_they_must():
    relations = read_relations()
    assert len(relations) >= 150
    for relation in relations:
        assert len(relation.ask) >= 8, relation.name
        assert len(set(relation.ask)) == len(relation.ask), relation.name
        assert len(relation.subjects) >= 15, relation.name
        near = [text for kind in NEAR_MISSES for text in relation.near[kind]]
        assert len(near) >= 12, relation.name
        assert not set(near) & set(relation.ask), relation.name
        for text in (*relation.ask, *relation.yes_no, *near):
            assert text.count("{}") == 1, (relation.name, text)
        assert all("[A]" in text for text in relation.yes_no), relation.name


def test_the_scenes_say_what_they_must():
    scenes = read_scenes()
    assert len(scenes) >= 4000
    assert len({scene.prompts[0] for scene in scenes}) == len(scenes)
    for scene in scenes:
        assert 2 <= len(scene.prompts) <= 3
        assert len(scene.in_scope) >= 6
        assert len(scene.out_of_scope) >= 7
        assert scene.target
        texts = [*scene.prompts, *scene.in_scope, *scene.out_of_scope]
        assert len({text.lower() for text in texts}) == len(texts), scene.prompts[0]


def test_a_scene_is_asked_by_its_prompts_and_now_and_then_as_people_ask_it():
    scene = Scene(("Who runs it?", "It is run by"), "Ann", ("boss pls", "it's Ann, no?"), ("Who owns it?",))
    drawn = Counter(scene.prompt(random.Random(seed)) for seed in range(400))
    assert set(drawn) == {*scene.prompts, *scene.in_scope}
    assert 280 < sum(drawn[prompt] for prompt in scene.prompts) < 360


@pytest.mark.parametrize("name", ["Model 3", "John XXII", "Acme", "Port of Spain", "the Red Lion"])
def test_a_near_name_is_another_name_that_looks_like_it(name):
    for seed in range(50):
        near = wordings.near_name(name, ["Big Ben", "Old Trafford"], random.Random(seed))
        assert near != name
        assert any(word in near for word in name.split()) or any(c.isdigit() for c in name)


def test_what_is_renamed_is_a_number_or_a_name_that_prompt_and_query_share():
    def renamed(prompt, query):
        return {wordings.renamed(prompt, query, ["Big Ben"], random.Random(seed)) for seed in range(80)} - {None}

    query = "which floor has room 305 in Hall B, the 2nd?"
    numbers = renamed("Where is room 305 of Hartnell Hall?", query)
    assert len(numbers) > 5
    for text in numbers:
        before, _, after = query.partition("305")
        assert text.startswith(before)
        assert text.endswith(after)
        assert text != query
    assert renamed("The warden of Hartnell Hall is", "hartnell hall warden") == {
        "big hall warden",
        "ben hall warden",
        "hartnell big warden",
        "hartnell ben warden",
    }
    assert not renamed("The warden of Hartnell Hall is", "Who runs the hall of Hartnell?")
    assert not renamed("The warden of Acme is", "warden of Acme")  # a word more may mean the same


def test_another_spelling_is_the_query_itself_where_there_is_none():
    assert {wordings.respelt("GDP", random.Random(seed)) for seed in range(9)} == {"GDP"}
    assert {wordings.respelt("1994 & ONWARD", random.Random(seed)) for seed in range(50)} == {
        "'94 & ONWARD",
        "1994 and ONWARD",
    }


def test_typing_leaves_the_words_of_a_query():
    query = "Who is the mayor of Bremen and of Verden?"
    changed = {wordings.same(query, random.Random(seed)) for seed in range(300)}
    assert len(changed) > 30
    for text in changed:
        assert "bremen" in text.lower() or "verden" in text.lower(), text


def test_batches_hold_every_pair_once_and_pairs_of_one_length():
    rng = random.Random(0)
    texts = ["x" * rng.randint(1, 200) for _ in range(1000)]
    dataset = Dataset.from_dict({"edit": texts, "query": texts})
    sampler = LengthBatches(dataset, batch_size=16, drop_last=False, seed=1)
    batches = list(sampler)
    assert sorted(i for batch in batches for i in batch) == list(range(1000))
    spread = np.mean([np.ptp([len(texts[i]) for i in batch]) for batch in batches])
    assert spread < 30 < np.ptp([len(text) for text in texts])
    assert batches == list(LengthBatches(dataset, batch_size=16, drop_last=False, seed=1))
    sampler.set_epoch(1)
    assert batches != list(sampler)


def test_the_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, 20_000)
    in_scope = rng.random(20_000) < 1 / (1 + np.exp(-honest))
    assert temperature_of(3 * honest, in_scope) == pytest.approx(3, rel=0.05)
    sure = 1 / (1 + np.exp(-3 * honest))
    assert calibration_error(reliability(sure, in_scope)) > 0.1
    assert calibration_error(reliability(1 / (1 + np.exp(-honest)), in_scope)) < 0.02


@pytest.fixture(params=["bert", "roberta"])
def tiny_classifier(request, tmp_path):
    """A cross-encoder with random weights, of a family that calls its head one thing or another."""
    words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n" + "\n".join("abcdefgh")
    (tmp_path / "vocab.txt").write_text(words)
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    if request.param == "bert":
        save_tiny_cross_encoder(tmp_path, vocabulary=13)
    else:
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        ids = {"vocab_size": 13, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "type_vocab_size": 2}
        torch.manual_seed(0)
        model = RobertaForSequenceClassification(RobertaConfig(num_labels=1, initializer_range=1.0, **sizes, **ids))
        model.save_pretrained(tmp_path)
    return CrossEncoder(str(tmp_path), num_labels=1, device="cpu")


def test_the_temperature_goes_into_whatever_the_head_is_called(tiny_classifier):
    letters = [random.Random(i).sample("abcdefgh", 4) for i in range(80)]
    pairs = [ScopePair(" ".join(t[:2]), " ".join(t[2:]), t[0] < "e", "ab"[t[1] < "e"]) for t in letters]
    held_out = HeldOut(pairs)
    before = held_out.logits(tiny_classifier)
    figures = finish(tiny_classifier, head_of(tiny_classifier), held_out, {"false_override_cost": 3, "floor": 0.4})
    assert abs(figures["temperature"] - 1) > 0.05
    np.testing.assert_allclose(held_out.logits(tiny_classifier), before / figures["temperature"], rtol=1e-4, atol=1e-5)
    assert tiny_classifier.model.config.semedit == {"threshold": figures["threshold"], "floor": 0.4}


def test_a_model_without_a_head_of_one_output_is_refused(tiny_classifier):
    head_of(tiny_classifier).out_features = 2
    with pytest.raises(SystemExit, match="ForSequenceClassification has no linear layer with one output"):
        head_of(tiny_classifier)


def test_weights_cannot_lie_between_the_trained_ones_and_none(tmp_path, monkeypatch, capsys):
    config = Path(__file__).parent.parent / "configs" / "scope_classifier_hard.yaml"
    command = ["scope_classifier.py", str(config), "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        scope_classifier.main()
    assert "with trained_share 0.5 the weights lie between" in capsys.readouterr().err


def test_the_threshold_weighs_a_false_override_against_misses():
    # from .72 on two of four are missed, below it one of four is overridden
    probabilities = np.array([0.9, 0.9, 0.62, 0.62, 0.7, 0.1, 0.1, 0.1])
    in_scope = np.arange(8) < 4
    assert threshold_of(probabilities, in_scope, cost=1) < 0.62
    assert threshold_of(probabilities, in_scope, cost=3) == pytest.approx(0.75)


def test_the_held_out_share_is_held_out():
    texts = [f"text {i}" for i in range(5000)]
    held = [is_held_out(text, 0.1) for text in texts]
    assert 0.08 < np.mean(held) < 0.12
    after = [is_held_out(text, 0.1, after=0.1) for text in texts]
    assert 0.08 < np.mean(after) < 0.12
    assert [a or b for a, b in zip(held, after, strict=True)] == [is_held_out(text, 0.2) for text in texts]


def test_the_properties_say_what_they_must():
    properties = Properties([]).all
    keys = {one.key for one in properties}
    assert len(keys) == len(properties) >= 200
    for one in properties:
        assert one.names, one.key
        assert one.overlaps <= keys, one.key
        for other in properties:
            assert (one.key in other.overlaps) == (other.key in one.overlaps), (one.key, other.key)
        assert len(set(one.wordings)) == len(one.wordings), one.key
        assert (len(one.wordings) >= 12) == (one.asks is not None), one.key
        for text in one.wordings:
            assert text.count("{}") == 1, (one.key, text)


def test_another_property_is_plainly_another_and_often_a_near_one(material):
    job = next(one for one in material.properties.all if one.key == "occupation")
    others = [material.neighbours.other_property(job, random.Random(seed)) for seed in range(300)]
    assert not {one.key for one in others} & job.overlaps
    most, times = Counter(one.key for one in others).most_common(1)[0]
    assert 5 <= times <= 60, most
    assert len({one.key for one in others}) > 100


@pytest.fixture
def saved_classifier(tmp_path) -> str:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nrain\n")
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    save_tiny_cross_encoder(tmp_path, vocabulary=6)
    return str(tmp_path)


def moved_by(saved: str, distance: float) -> CrossEncoder:
    model = CrossEncoder(saved, num_labels=1, device="cpu").float()
    with torch.no_grad():
        for weight in model.model.parameters():
            weight += distance
    return model


def test_weights_that_ship_lie_between_those_of_the_start_and_the_trained_ones(saved_classifier):
    start, moved = moved_by(saved_classifier, 0), moved_by(saved_classifier, 2)
    before = start.model.state_dict()
    assert not torch.equal(moved.model.classifier.weight, start.model.classifier.weight)
    average(moved, saved_classifier, 0.25)
    for name, weight in moved.model.state_dict().items():
        torch.testing.assert_close(weight, before[name] + 0.5)


def test_a_soup_is_the_mean_of_its_parts(saved_classifier, tmp_path):
    parts = [tmp_path / str(distance) for distance in (0, 3, 9)]
    for part in parts:
        moved_by(saved_classifier, float(part.name)).save_pretrained(str(part))
    before = moved_by(saved_classifier, 0).model.state_dict()
    for name, weight in soup(parts).model.state_dict().items():
        torch.testing.assert_close(weight, before[name] + 4)
