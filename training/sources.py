"""Reads what the scope classifier's pairs are drawn from, and splits it into training and held-out parts."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from facts import Fact, read_facts, read_records, read_wordings
from left_out import LeftOut
from material import Material
from neighbours import Neighbours
from properties import Properties
from relations import relations_without
from scenes import read_scenes
from semedit.memory.encoder import Encoder
from traffic import read_traffic

CHAT_OF_BENCHMARK = 0.5  # of the chat messages; benchmarks/scope.py asks them
_QUESTIONS = 15_000


def is_held_out(text: str, share: float, after: float = 0.0) -> bool:
    """Whether a text falls into a share of all texts, one that begins after another; the same on every machine."""
    return after <= int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32 < after + share


def read_sources(
    data: Path, encoder: Encoder, left_out: LeftOut, share: float, own: Sequence[Fact], traffic: Sequence[str]
) -> tuple[Material, Material]:
    """What to train on, and what is held out of it: other facts, other relations, other queries.

    Args:
        data: folder of the training files.
        encoder: finds near misses.
        left_out: what evaluation files ask; nothing that names their subjects or holds their texts is read.
        share: held-out share.
        own: a user's edits, in all their wordings.
        traffic: a user's queries that no edit is to answer.
    """
    facts = {**read_facts(data), **read_wordings(data), "counterfact": _counterfact(data)}
    facts["zsre"] += _zsre_1k(data)
    sources = {
        name: [fact for fact in facts[name] if left_out.allows(*fact.prompts)]
        for name in ("zsre", "counterfact", "pokemqa", "wikifactdiff", "pararel", "qqp")
    }
    queries = read_traffic(data)
    # evenly from all sources, which follow one another
    step = max(1, len(queries["questions"]) // _QUESTIONS)
    questions = [*filter(left_out.allows, queries["questions"][::step]), *traffic]
    # what the benchmark asks takes part in nothing, for a threshold is chosen on what is held out
    chat = [text for text in queries["chat"] if left_out.allows(text) and not is_held_out(text, CHAT_OF_BENCHMARK)]
    relations = relations_without(left_out.subjects)
    scenes = [s for s in read_scenes() if left_out.allows(*s.prompts, *s.in_scope, *s.out_of_scope)]
    specificity = [
        (subject, allowed)
        for subject, prompts in _specificity(data)
        if not left_out.names(subject) and (allowed := [prompt for prompt in prompts if left_out.allows(prompt)])
    ]
    rivals = [pair for pair in _rivals(data) if left_out.allows(*pair)]
    beside = [(fact, other) for fact, other in _beside(data) if left_out.allows(*fact.prompts, other)]

    def part(held_out: bool) -> Material:
        def keep(text: str) -> bool:
            return is_held_out(text, share) == held_out

        chosen = {name: [f for f in source if keep(f.subject or f.prompts[0])] for name, source in sources.items()}
        chosen["own"] = [fact for fact in own if keep(fact.prompts[0])]
        asked = {
            "questions": [query for query in questions if keep(query)],
            "chat": [text for text in chat if is_held_out(text, share, CHAT_OF_BENCHMARK) == held_out],
        }
        properties = Properties({fact.template for fact in chosen["zsre"] if fact.subject in fact.prompts[0]})
        return Material(
            facts=chosen,
            relations=[relation for relation in relations if keep(relation.name)],
            scenes=[scene for scene in scenes if keep(scene.prompts[0])],
            specificity=[group for group in specificity if keep(group[0])],
            rivals=[pair for pair in rivals if keep(pair[0])],
            beside=[pair for pair in beside if keep(pair[0].subject)],
            queries=asked,
            left_out=left_out,
            properties=properties,
            neighbours=Neighbours(chosen, [*asked["questions"], *asked["chat"]], properties.all, encoder),
        )

    return part(held_out=False), part(held_out=True)


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
