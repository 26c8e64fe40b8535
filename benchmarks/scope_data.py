"""What benchmarks/scope.py asks: edits, and queries of which it is known whether an edit answers them, and which."""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from semedit import Edit
from semedit.prompts import query_of

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from facts import read_records
from left_out import normalised, texts_of
from properties import Properties
from sources import CHAT_OF_BENCHMARK, is_held_out
from traffic import read_traffic

ADVERSARIAL = Path(__file__).parents[1] / "tests" / "data" / "adversarial.jsonl"
ASKED = "  asks the edited property, by rule"
TYPED = "  without those of the same property by type"
APART = "  nor of one that overlaps it"
ELSEWHERE = "  out of scope, another edit answers"
NEW_REPHRASES = "  of these rephrases, in no training file"
NEW_NEIGHBOURS = "  of these prompts, in no training file"
Measure = Literal["right", "overridden", "elsewhere"]
# what a specificity prompt is made of beside its subject and its property
_FUNCTION_WORDS = frozenset(re.findall(r"\w+", "a an the of in on to by for from is are was were it its s name names"))


@dataclass(frozen=True)
class Case:
    """One query.

    Attributes:
        query: what the router judges.
        categories: the categories that it is counted in.
        in_scope: whether an edit of `own` is to answer it.
        own: ids of the edits that it is about; empty where it is about none.
    """

    query: str
    categories: tuple[str, ...]
    in_scope: bool = False
    own: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Category:
    """What is counted of a category of queries.

    Attributes:
        measure: `"right"`: routed to an edit of its own where it is in scope, and not to one where it is not;
            `"overridden"`: any edit answers; `"elsewhere"`: an edit that it is not about answers.
        bar: the share to reach (`"right"`) or not to exceed; None where none was set.
        has_errors: whether a query that is not right, or that an edit answers, is an error.
    """

    measure: Measure
    bar: float | None = None
    has_errors: bool = True


@dataclass(frozen=True)
class Suite:
    """Edits that are in memory together, and the queries asked of them.

    Attributes:
        categories: by name, in the order of the table.
        notes: what a reader of the figures must know.
        judged: the categories whose scores tell how far scores can be believed.
        drawn: pairs of categories, in scope and out of scope, whose overrides are drawn against each other.
    """

    name: str
    edits: list[Edit]
    cases: list[Case]
    categories: dict[str, Category]
    notes: list[str] = field(default_factory=list)
    judged: frozenset[str] = frozenset()
    drawn: tuple[tuple[str, str], ...] = ()


def read_zsre(data: Path) -> Suite:
    """The edits of ZsRE-test-all; where two share a prompt, the later one."""
    records = read_records(data / "ZsRE-test-all.json")
    by_prompt = {record["prompt"]: record for record in records}
    edits = [
        Edit(id=f"zsre-{i}", prompt=prompt, target=record["target_new"])
        for i, (prompt, record) in enumerate(by_prompt.items())
    ]
    # edits of one subject with one true answer state one fact, in whatever words
    same_fact: dict[tuple[str, tuple[str, ...]], set[str]] = defaultdict(set)
    about: dict[str, list[str]] = defaultdict(list)
    ids = {edit.prompt: edit.id for edit in edits}
    for prompt, record in by_prompt.items():
        same_fact[_fact(record)].add(ids[prompt])
        about[record["subject"]].append(prompt)

    properties = Properties({record["prompt"].replace(record["subject"], "[X]") for record in records})
    cases: list[Case] = []
    dropped = 0
    # the two files have the same records in the same order, two of them with another spelling of the subject
    for record, machine in zip(records, read_records(data / "ZsRE-test-all-generate-10.jsonl"), strict=True):
        own = frozenset({ids[record["prompt"]], *same_fact[_fact(record)]})
        templates = [prompt.replace(record["subject"], "[X]") for prompt in about[record["subject"]]]
        edited = [one for template in templates if (one := properties.asked_by(template))]
        cases.append(Case(record["rephrase_prompt"], ("rephrases",), True, own))
        paraphrases = list(_cleaned(machine["generate_prompt"]))
        dropped += len(machine["generate_prompt"]) - len(paraphrases)
        cases += [Case(text, ("machine paraphrases",), True, own) for text in paraphrases]
        for probe in record["locality"]["Relation_Specificity"]:
            asked = asks_the_property(probe["prompt"], record["subject"], about[record["subject"]])
            kinds = [ASKED if asked else "same subject, other relation"]
            named = property_of(probe["prompt"], record["subject"], properties)
            if not asked and all(named != one.key for one in edited):
                kinds.append(TYPED)
                if all(named not in one.overlaps for one in edited):
                    kinds.append(APART)
            cases.append(Case(probe["prompt"], (*kinds, "same subject, as the file has it")))
    cases += [Case(question, ("NQ-open questions",)) for question in read_questions(data)]
    cases = list(dict.fromkeys(cases))
    listed = sum(ASKED in case.categories for case in cases)
    return Suite(
        "zsRE",
        edits,
        cases,
        {
            "rephrases": Category("right", 0.96),
            "machine paraphrases": Category("right", 0.93),
            "NQ-open questions": Category("overridden", 0.001),
            "same subject, other relation": Category("overridden", 0.03),
            TYPED: Category("overridden", has_errors=False),
            APART: Category("overridden", has_errors=False),
            "same subject, as the file has it": Category("overridden", has_errors=False),
            ASKED: Category("overridden", has_errors=False),
        },
        [
            f"{listed:,} specificity prompts ask what an edit of the subject asks: their words beside subject and "
            "function words all stand in its prompt",
            "by type: training/properties.yaml names the property of prompt and edit alike, or says that one question "
            "may ask for both",
            f"{dropped:,} of the machine's paraphrases are no text, only a mark between two others",
        ],
        frozenset({"rephrases", "machine paraphrases", "NQ-open questions", "same subject, other relation"}),
        (("rephrases", "NQ-open questions"), ("rephrases", "same subject, other relation")),
    )


def read_counterfact(data: Path, train: Path | None = None, count: int = 2000) -> Suite:
    """The first edits of CounterFact, with rephrases and neighbourhood prompts.

    Args:
        data: folder of the dev files.
        train: folder of the training files; with it, queries that do not stand there are counted apart.
        count: how many edits.
    """
    seen = texts_of(train / name for name in ("counterfact-train.json", "counterfact-val.json")) if train else None

    def kinds(query: str, kind: str, new: str) -> tuple[str, ...]:
        return (kind,) if seen is None or normalised(query) in seen else (kind, new)

    by_prompt = {r["prompt"]: r for r in read_records(data / "counterfact-edit-first5000.json")[:count]}
    naming = Naming(record["subject"] for record in by_prompt.values())
    edits, cases, left_out = [], [], 0
    for i, (prompt, record) in enumerate(by_prompt.items()):
        edits.append(Edit(id=f"counterfact-{i}", prompt=prompt, target=record["target_new"]))
        rephrase, neighbour = record["rephrase_prompt"], record["locality_prompt"]
        cases.append(Case(rephrase, kinds(rephrase, "rephrases", NEW_REPHRASES), True, frozenset({edits[-1].id})))
        if naming.subjects(neighbour):
            left_out += 1
        else:
            cases.append(Case(neighbour, kinds(neighbour, "neighbourhood prompts", NEW_NEIGHBOURS)))
    categories = {
        "rephrases": Category("right", 0.96),
        NEW_REPHRASES: Category("right", has_errors=False),
        "neighbourhood prompts": Category("overridden", 0.003),
        NEW_NEIGHBOURS: Category("overridden", has_errors=False),
    }
    notes = [f"{left_out:,} neighbourhood prompts name the subject of an edit in memory and are left out"]
    if train:
        notes.append("in no training file: not in CounterFact's own, whatever the case and the white space")
    else:
        del categories[NEW_REPHRASES], categories[NEW_NEIGHBOURS]
    return Suite(
        "CounterFact",
        edits,
        list(dict.fromkeys(cases)),
        categories,
        notes,
        frozenset({"rephrases", "neighbourhood prompts"}),
        (("rephrases", "neighbourhood prompts"),),
    )


def read_distracting(data: Path) -> Suite:
    """CounterFact's neighbours with an edit stated before them; those edits are in memory."""
    records = read_records(data / "counterfact_distracting_neighbor.json")
    naming = Naming(record["requested_rewrite"]["subject"] for record in records)
    edits, cases, left_out = [], [], 0
    for i, record in enumerate(records):
        edits.append(_rewrite(record, f"distracting-{i}"))
        for prompt in record["distracting_neighborhood_prompts"]:
            # its own subject stands in the distraction
            if naming.subjects(prompt) - {record["requested_rewrite"]["subject"]}:
                left_out += 1
            else:
                cases.append(Case(prompt, ("distracting neighbours",)))
    return Suite(
        "CounterFact, distracting neighbours",
        edits,
        list(dict.fromkeys(cases)),
        {"distracting neighbours": Category("overridden", 0.01)},
        [f"{left_out:,} prompts name the subject of another edit in memory and are left out"],
    )


def read_adversarial(path: Path = ADVERSARIAL) -> Suite:
    """The adversarial suite, all its edits in memory at once."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    targets = {row["prompt"]: row["target"] for row in rows}
    ids = {prompt: f"adversarial-{i}" for i, prompt in enumerate(targets)}
    cases = []
    for row in rows:
        side = ("in scope, all",) if row["in_scope"] else ("out of scope, all", ELSEWHERE)
        kinds = ("overall", row["category"], *side)
        query = query_of(row["query"], row.get("before"))
        cases.append(Case(query, kinds, row["in_scope"], frozenset({ids[row["prompt"]]})))
    categories = {"overall": Category("right", 0.90, has_errors=False)}
    categories |= {row["category"]: Category("right", 0.80) for row in rows}
    categories |= {"in scope, all": Category("right", has_errors=False)}
    categories |= {"out of scope, all": Category("right", has_errors=False)}
    categories[ELSEWHERE] = Category("elsewhere")
    edits = [Edit(id=ids[prompt], prompt=prompt, target=target) for prompt, target in targets.items()]
    notes = ["right: in scope, routed to the row's own edit; out of scope, its own edit does not answer"]
    drawn = (("in scope, all", "out of scope, all"),)
    return Suite("adversarial suite", edits, cases, categories, notes, drawn=drawn)


def read_chat(data: Path, train: Path, edits: list[Edit]) -> Suite:
    """Chat messages that take no part in the classifier's training, and real users' questions."""
    messages = [text for text in read_traffic(train)["chat"] if is_held_out(text, CHAT_OF_BENCHMARK)]
    cases = [Case(text, ("chat messages",)) for text in messages]
    cases += [Case(question, ("NQ-open questions",)) for question in read_questions(data)]
    return Suite(
        "traffic",
        edits,
        cases,
        {"chat messages": Category("overridden", 0.001), "NQ-open questions": Category("overridden")},
    )


def read_questions(data: Path) -> list[str]:
    """The questions of NQ-open's dev file."""
    return [record["question"] for record in read_records(data / "NQ-open.dev.jsonl")]


def read_edits(data: Path) -> list[Edit]:
    """The edits of all files, no prompt twice; last the specificity prompts of test_cf with their true answers."""
    pairs: list[tuple[str, str]] = []
    for name in ("ZsRE-test-all.json", "counterfact-edit-first5000.json", "test_cf.json"):
        pairs += [(record["prompt"], record["target_new"]) for record in read_records(data / name)]
    pairs += [(record["src"], record["alt"]) for record in read_records(data / "zsre_mend_edit.json")]
    pairs += [(outer["en"]["src"], outer["en"]["alt"]) for outer in read_records(data / "wfd_test.json")]
    for name in ("counterfact_distracting_neighbor.json", "counterfact_portability_gpt4.json"):
        rewrites = [_rewrite(record, "") for record in read_records(data / name)]
        pairs += [(edit.prompt, edit.target) for edit in rewrites]
    for record in read_records(data / "test_cf.json"):
        probes = record["locality"].get("Relation_Specificity", ())
        # an answer is a list of its names; some are empty
        pairs += [(probe["prompt"], names[0]) for probe in probes for names in probe["ground_truth"][:1] if any(names)]
    first: dict[str, tuple[str, str]] = {}
    for prompt, target in pairs:
        first.setdefault(" ".join(prompt.split()).casefold(), (prompt, target))
    return [Edit(id=f"dev-{i}", prompt=prompt, target=target) for i, (prompt, target) in enumerate(first.values())]


class Naming:
    """Finds which of some subjects a text names, as whole words."""

    def __init__(self, subjects: Iterable[str]) -> None:
        longest_first = sorted(set(subjects), key=len, reverse=True)
        self._pattern = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)")

    def subjects(self, text: str) -> set[str]:
        """Those named; of two that overlap, the longer one."""
        return set(self._pattern.findall(text))


def asks_the_property(probe: str, subject: str, prompts: Sequence[str]) -> bool:
    """Whether the words of `probe`, beside the subject and function words, all stand in one of the prompts."""
    words = _words(probe.replace(subject, " ")) - _FUNCTION_WORDS
    return bool(words) and any(words <= _words(prompt) for prompt in prompts)


def property_of(probe: str, subject: str, properties: Properties) -> str | None:
    """The property that a specificity prompt names ("The employer of X is", "X employer"), where it is a known one."""
    words = probe.replace(subject, " ").split()
    words = words[words[:1] == ["The"] :]
    while words and words[-1] in ("of", "is", "are", "was", "were"):
        words.pop()
    named = properties.named(" ".join(words))
    return named.key if named else None


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _fact(record: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    return record["subject"].casefold(), tuple(answer.casefold() for answer in record["ground_truth"])


def _cleaned(texts: Sequence[str]) -> Iterator[str]:
    """The paraphrases without their numbers; what holds no word is none."""
    for text in texts:
        text = re.sub(r"^\d+[.)]\s*", "", text).strip()
        if re.search(r"[^\W\d]{2}", text):
            yield text


def _rewrite(record: Mapping[str, Any], id: str) -> Edit:
    rewrite = record["requested_rewrite"]
    prompt = rewrite["prompt"].format(rewrite["subject"])
    return Edit(id=id, prompt=prompt, target=rewrite["target_new"]["str"])
