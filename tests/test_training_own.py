"""A user's own edits and traffic are trained on as what they are, in numbers that grow as theirs."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from pathlib import Path

import pytest
from fakes import WordEncoder

from semedit import Edit

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from facts import Fact
from material import ScopePair
from own import at_most, own_facts, own_pairs, read_own_edits, read_own_traffic, repeated
from sources import is_held_out

PARK = Edit(
    id="park",
    prompt="where do I park",
    target="Behind the house",
    paraphrases=("is there a car park", "parking please", "car where"),
    negatives=("where do I park my bicycle",),
)


def pairs_of(*edits: Edit, traffic: tuple[str, ...] = ()) -> dict[str, list[tuple[str, str]]]:
    """The pairs to train on by kind, where nothing is held out."""
    training, held_out = own_pairs(edits, traffic, WordEncoder(), 0.0)
    assert held_out == []
    assert len(set(training)) == len(training)
    by_kind: dict[str, list[tuple[str, str]]] = {}
    for pair in training:
        assert pair.in_scope == (pair.kind == "own paraphrase")
        by_kind.setdefault(pair.kind, []).append((pair.prompt, pair.query))
    return by_kind


def other(subject: str, target: str, *paraphrases: str) -> Edit:
    return Edit(id=subject, prompt=f"where do I {subject}", target=target, paraphrases=paraphrases)


def test_edits_and_traffic_are_read_as_the_commands_write_and_read_them(tmp_path):
    lines = [{"prompt": "a", "target": "x", "paraphrases": ["b\u2028c"], "negatives": ["d"], "namespace": "shop"}]
    lines += [{"prompt": "e", "target": "y"}]
    (tmp_path / "edits.jsonl").write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    edits = read_own_edits(tmp_path / "edits.jsonl")
    assert [(edit.keys, edit.target, edit.negatives) for edit in edits] == [
        (("a", "b\u2028c"), "x", ("d",)),
        (("e",), "y", ()),
    ]
    assert own_facts(edits) == [Fact(("a", "b\u2028c"), "x"), Fact(("e",), "y")]
    (tmp_path / "traffic.txt").write_text("\ufeffwhat is rain \n\n  \nwhat is\u2028snow\r\nwhat is rain\n")
    assert read_own_traffic(tmp_path / "traffic.txt") == ["what is rain", "what is\u2028snow"]


def test_wordings_stand_beside_the_prompt_and_the_next_one():
    first, *others = PARK.keys
    expected = {(first, wording) for wording in others} | {(wording, first) for wording in others}
    expected |= {("is there a car park", "parking please"), ("parking please", "car where")}
    found = pairs_of(PARK)
    assert set(found["own paraphrase"]) == expected
    assert found["own negative"] == [(first, "where do I park my bicycle")]
    assert set(found) == {"own paraphrase", "own negative"}
    many = Edit(id="many", prompt="a", target="x", paraphrases=tuple(f"way {i}" for i in range(100)))
    assert len(pairs_of(many)["own paraphrase"]) == 299


def test_an_edit_stands_beside_the_nearest_others_that_answer_otherwise():
    others = [other(f"park {' '.join('abcdef'[:i])}", str(i)) for i in range(1, 6)]  # the nearest are the first
    alike = other("park a car", " behind THE house")
    twice = other("park", "Elsewhere")  # the same prompt in another namespace
    shared = other("park it", "In front", "Parking please")
    found = pairs_of(PARK, alike, shared, *others, other("go", "x"), other("eat a cake", "y"))
    beside = [query for prompt, query in found["own, another edit"] if prompt == PARK.prompt]
    assert beside == [*(edit.prompt for edit in others[:3]), "where do I go"]
    assert not [query for prompt, query in found["own, another edit"] if prompt == query]
    assert "own, another edit" not in pairs_of(PARK, twice)


def test_traffic_stands_beside_the_wordings_nearest_to_it():
    found = pairs_of(PARK, other("eat", "Upstairs"), traffic=("where do I park my bus", "WHERE do I park", "is it"))
    assert [pair for pair in found["own traffic"] if pair[1] == "where do I park my bus"] == [
        ("where do I park", "where do I park my bus"),
        ("where do I eat", "where do I park my bus"),
    ]
    # an edit is to answer that one
    assert [prompt for prompt, query in found["own traffic"] if query == "WHERE do I park"] == ["where do I eat"]
    assert len([pair for pair in found["own traffic"] if pair[1] == "is it"]) == 2


def test_edits_and_traffic_are_held_out_by_the_same_rule_as_all_else():
    edits = [
        Edit(id=str(i), prompt=f"how is {i}", target=f"t{i}", paraphrases=(f"{i} how",), negatives=(f"not {i}",))
        for i in range(40)
    ]
    traffic = [f"query {i}" for i in range(60)]
    parts = own_pairs(edits, traffic, WordEncoder(), 0.3)
    for held_out, pairs in zip((False, True), parts, strict=True):
        own = [edit for edit in edits if is_held_out(edit.prompt, 0.3) == held_out]
        asked = [query for query in traffic if is_held_out(query, 0.3) == held_out]
        assert own
        assert asked
        counts = Counter(pair.kind for pair in pairs)
        assert counts["own paraphrase"] == 2 * len(own)
        assert counts["own negative"] == len(own)
        assert counts["own, another edit"] == 4 * len(own)
        assert counts["own traffic"] == 2 * len(asked)
        allowed = {text for edit in own for text in edit.texts} | set(asked)
        assert {text for pair in pairs for text in (pair.prompt, pair.query)} <= allowed
    assert own_pairs([], traffic, WordEncoder(), 0.3) == ([], [])
    assert {pair.kind for pair in own_pairs(edits, [], WordEncoder(), 0.0)[0]} == counts.keys() - {"own traffic"}


@pytest.mark.parametrize(("most", "seen"), [(1000, 20), (59, 5), (12, 1)])
def test_own_pairs_are_repeated_and_never_outnumber_the_others(most, seen):
    pairs = [ScopePair("a", str(i), True, "own paraphrase") for i in range(11)]
    rng = random.Random(0)
    assert Counter(repeated(20, pairs, most, rng)) == dict.fromkeys(pairs, seen)
    assert len(set(repeated(20, pairs, 7, rng))) == len(repeated(20, pairs, 7, rng)) == 7
    assert repeated(20, [], most, rng) == []


def test_so_many_of_each_kind_at_most():
    pairs = [ScopePair("a", str(i), False, kind) for i in range(9) for kind in ("x", "y")][:-7]
    assert Counter(pair.kind for pair in at_most(5, pairs, random.Random(0))) == {"x": 5, "y": 5}
    assert Counter(at_most(50, pairs, random.Random(0))) == Counter(pairs)
