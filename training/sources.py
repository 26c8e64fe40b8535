"""Reads what the scope classifier's pairs are drawn from, and splits it into training and held-out parts."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from facts import Fact, read_facts, read_records, read_wordings, without_subjects
from material import Material
from neighbours import Neighbours
from properties import Properties
from relations import read_relations
from scenes import read_scenes
from semedit.memory.encoder import Encoder
from traffic import read_traffic

T = TypeVar("T")
_QUESTIONS = 15_000


def is_held_out(text: str, share: float) -> bool:
    """Whether a text falls into the held-out share; the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") < share * 2**32


def read_sources(
    data: Path, encoder: Encoder, left_out: Sequence[str], share: float, own: Sequence[Fact], traffic: Sequence[str]
) -> tuple[Material, Material]:
    """What to train on, and what is held out of it: other facts, other relations, other queries.

    Args:
        data: folder of the training files.
        encoder: finds near misses.
        left_out: subjects that evaluation files ask about; nothing that names them is read.
        share: held-out share of facts and relations; of chat messages one half.
        own: a user's edits, in all their wordings.
        traffic: a user's queries that no edit is to answer.
    """
    facts = {**read_facts(data), **read_wordings(data), "counterfact": _counterfact(data)}
    sources = {
        name: without_subjects(facts[name], left_out)
        for name in ("zsre", "counterfact", "pokemqa", "wikifactdiff", "pararel", "qqp")
    }
    sources["zsre"] += without_subjects(_zsre_1k(data), left_out)
    queries = read_traffic(data)
    # evenly from all sources, which follow one another
    step = max(1, len(queries["questions"]) // _QUESTIONS)
    queries["questions"] = [*queries["questions"][::step], *traffic]
    relations, scenes, specificity = read_relations(), read_scenes(), _specificity(data)
    rivals, beside = _rivals(data), _beside(data)

    def part(keep: Callable[[str, float], bool]) -> Material:
        chosen = {
            name: [f for f in source if keep(f.subject or f.prompts[0], share)] for name, source in sources.items()
        }
        chosen["own"] = [fact for fact in own if keep(fact.prompts[0], share)]
        asked = {
            "questions": [query for query in queries["questions"] if keep(query, share)],
            "chat": [query for query in queries["chat"] if keep(query, 0.5)],
        }
        properties = Properties({fact.template for fact in chosen["zsre"] if fact.subject in fact.prompts[0]})
        return Material(
            facts=chosen,
            relations=[relation for relation in relations if keep(relation.name, share)],
            scenes=[scene for scene in scenes if keep(scene.prompts[0], share)],
            specificity=[group for group in specificity if keep(group[0], share)],
            rivals=[pair for pair in rivals if keep(pair[0], share)],
            beside=[pair for pair in beside if keep(pair[0].subject, share)],
            queries=asked,
            properties=properties,
            neighbours=Neighbours(chosen, [*asked["questions"], *asked["chat"]], properties.all, encoder),
        )

    return part(lambda text, share: not is_held_out(text, share)), part(is_held_out)


def _counterfact(data: Path) -> list[Fact]:
    return [
        Fact((record["prompt"], record["rephrase_prompt"]), record["ground_truth"], record["subject"])
        for name in ("counterfact-train.json", "counterfact-val.json")
        for record in read_records(data / name)
    ]


def _beside(data: Path) -> list[tuple[Fact, str]]:
    return [
        (Fact((record["prompt"], record["rephrase_prompt"]), record["target_new"], record["subject"]),
         record["locality_prompt"])
        for name in ("counterfact-train.json", "counterfact-val.json")
        for record in read_records(data / name)
        if record["subject"] not in record["locality_prompt"]
    ]  # fmt: skip


def _zsre_1k(data: Path) -> list[Fact]:
    return [
        Fact((record["src"], record["rephrase"]), record["answers"][0], record["subject"])
        for record in read_records(data / "zsre_mend_train-1k.json")
    ]


def _specificity(data: Path) -> list[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in ("train_cf.json", "recent_train.json"):
        for record in read_records(data / name):
            prompts = [probe["prompt"] for probe in record["locality"].get("Relation_Specificity", ())]
            groups[record["subject"]] += [record["prompt"], *prompts]
    return [(subject, list(dict.fromkeys(prompts))) for subject, prompts in groups.items()]


def _rivals(data: Path) -> list[tuple[str, str]]:
    return [
        (record["text_a"], record["text_b"])
        for record in read_records(data / "similiar_qqp_full.json")
        if int(record["label"]) == 0 and max(len(record["text_a"]), len(record["text_b"])) < 160
    ]
