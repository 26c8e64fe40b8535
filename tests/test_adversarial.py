"""The adversarial suite is well formed, large enough, and not made of what the classifier is trained on."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from semedit import SentenceEncoder

ROOT = Path(__file__).parents[1]
BOTH = {
    "statement and question",
    "near-identical names, numbers, dates",
    "negation",
    "time and place qualifiers",
    "follow-up",
}
WORDINGS = ("ask", "other", "qualified", "negation", "reversal", "comparison", "hypothetical", "mention")
INSIDE = {"paraphrase", "yes or no"}
OUTSIDE = {
    "reversal",
    "same relation, other subject",
    "same subject, other relation",
    "comparison",
    "hypothetical",
    "mention only",
    "one step further",
    "chat, code, instructions",
}


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    text = (ROOT / "tests" / "data" / "adversarial.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_each_row_says_what_is_needed(rows: list[dict]) -> None:
    needed = {"id": str, "category": str, "prompt": str, "target": str, "query": str, "in_scope": bool}
    for row in rows:
        kinds = needed | ({"before": str} if row["category"] == "follow-up" else {})
        assert {key: type(value) for key, value in row.items()} == kinds, row
        assert all(value == value.strip() and value for value in row.values() if isinstance(value, str)), row


def test_there_are_enough_of_each_category(rows: list[dict]) -> None:
    counted = Counter(row["category"] for row in rows)

    assert len(rows) >= 400
    assert set(counted) == BOTH | INSIDE | OUTSIDE
    assert min(counted.values()) >= 20


def test_categories_hold_the_labels_that_they_are_about(rows: list[dict]) -> None:
    labels = Counter((row["category"], row["in_scope"]) for row in rows)

    for category in BOTH:
        assert labels[category, True] == labels[category, False], category
    assert {category for category, inside in labels if inside} == BOTH | INSIDE
    assert {category for category, inside in labels if not inside} == BOTH | OUTSIDE


def test_no_row_stands_twice(rows: list[dict]) -> None:
    assert len({row["id"] for row in rows}) == len(rows)
    asked = Counter((row.get("before", "").casefold(), row["query"].casefold()) for row in rows)
    assert max(asked.values()) == 1


def test_one_prompt_has_one_target(rows: list[dict]) -> None:
    """All edits are in memory at once, where a prompt has one target."""
    targets = {row["prompt"].casefold(): row["target"] for row in rows}
    assert [row["id"] for row in rows if targets[row["prompt"].casefold()] != row["target"]] == []


def test_no_query_is_a_wording_that_the_classifier_is_trained_on(rows: list[dict]) -> None:
    """A wording of training with any subject of up to eight words filled in."""
    files = [path for path in sorted((ROOT / "training" / "relations").glob("*.yaml")) if path.name != "subjects.yaml"]
    wordings = {
        tuple(_plain(part) for part in wording.split("{}"))
        for path in files
        for relation in yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        for kind in WORDINGS
        for wording in relation.get(kind, ())
        # "{} price" of any subject is not a wording of its own
        if len(re.findall(r"\w+", wording)) > 2
    }

    assert len(wordings) > 1000
    found = [
        (row["id"], wording) for row in rows for wording in wordings if _is_filled(_plain(row["query"]), *wording)
    ]
    assert found == []


def _is_filled(query: str, before: str, after: str) -> bool:
    if not (query.startswith(before) and query.endswith(after)):
        return False
    return 1 <= len(query[len(before) : len(query) - len(after)].split()) <= 8


def _plain(text: str) -> str:
    return text.casefold().rstrip("?.! ")


def test_no_fact_of_it_is_among_the_scenes_of_training(rows: list[dict]) -> None:
    """By MiniLM: the nearest prompts of both are about different things."""
    records = [
        json.loads(line)
        for path in sorted((ROOT / "training" / "scenes").glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    encoder = SentenceEncoder()
    scenes = encoder.encode([prompt for record in records for prompt in record["prompts"]])
    prompts = sorted({row["prompt"] for row in rows})
    nearest = (encoder.encode(prompts) @ scenes.T).max(axis=1)
    assert len(scenes) > 1000
    assert [prompt for prompt, cosine in zip(prompts, nearest, strict=True) if cosine >= 0.8] == []
