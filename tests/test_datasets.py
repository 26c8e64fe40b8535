"""Data sets are read as they are published, and what is malformed is named by file and line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from semedit.edits import Edit
from semedit.errors import DatasetError, SemeditError
from semedit.evaluation.datasets import DATASETS, consistent, read, unrelated
from semedit.evaluation.examples import Criterion, Example, Probe

MEND = {
    "subject": "Acme",
    "src": "Who runs Acme?",
    "pred": "Bob",
    "rephrase": "Who is the head of Acme?",
    "alt": "Jane Doe",
    "answers": ["Bob Roe", "Bob"],
    "loc": "nq question: how deep is the sea",
    "loc_ans": "deep",
    "cond": "ignored",
    "portability": {
        "Recalled Relation": "ignored",
        "New Question": "Where was Acme's head born?",
        "New Answer": "Rye",
    },
}
MEND_EXAMPLE = Example(
    "zsre-1",
    (Edit(id="zsre-1", prompt="Who runs Acme?", target="Jane Doe"),),
    (
        Probe("reliability", "Who runs Acme?", ("Jane Doe",), ("Bob Roe", "Bob")),
        Probe("generality", "Who is the head of Acme?", ("Jane Doe",), ("Bob Roe", "Bob")),
        Probe("unrelated", "how deep is the sea", ("deep",)),
        Probe("portability", "Where was Acme's head born?", ("Rye",), detail="one-hop"),
    ),
    "Acme",
)
KNOWEDIT = {
    "subject": "Acme",
    "prompt": "The head of Acme is",
    "target_new": "Jane Doe",
    "ground_truth": "Bob",
    "rephrase_prompt": "Acme's head:",
    "portability": {
        "Reasoning": [
            {"prompt": "The birthplace of the head of Acme is", "ground_truth": [["Rye", "Rye, Sussex"], ["Sussex"]]},
            {"prompt": "Nobody knows", "ground_truth": [[]]},
        ],
        "Subject_Aliasing": [{"prompt": "The head of Acme Corp. is", "ground_truth": "Jane Doe"}],
        "Logical_Generalization": [],
    },
    "locality": {
        "Relation_Specificity": [{"prompt": "The town of Acme is", "ground_truth": [["Ely"]]}],
        "Forgetfulness": [{"prompt": "The head of Acme, which is not Jane Doe, is", "ground_truth": ["Bob"]}],
    },
}


def knowedit_example(id: str) -> Example:
    return Example(
        id,
        (Edit(id=id, prompt="The head of Acme is", target="Jane Doe"),),
        (
            Probe("reliability", "The head of Acme is", ("Jane Doe",), ("Bob",)),
            Probe("generality", "Acme's head:", ("Jane Doe",), ("Bob",)),
            Probe("same_subject", "The town of Acme is", ("Ely",), detail="relation specificity"),
            Probe("same_subject", "The head of Acme, which is not Jane Doe, is", ("Bob",), detail="forgetfulness"),
            Probe(
                "portability",
                "The birthplace of the head of Acme is",
                ("Rye", "Rye, Sussex", "Sussex"),
                detail="reasoning",
            ),
            Probe("portability", "The head of Acme Corp. is", ("Jane Doe",), detail="subject aliasing"),
        ),
        "Acme",
    )


ROME = {
    "case_id": 7,
    "requested_rewrite": {
        "prompt": "{} was founded in",
        "relation_id": "P159",
        "target_new": {"str": "Ely", "id": "Q2"},
        "target_true": {"str": "Rye", "id": "Q1"},
        "subject": "Acme",
    },
    "paraphrase_prompts": ["It rains. Acme began in", "Acme's home is"],
    "neighborhood_prompts": ["Bolt was founded in"],
    "distracting_neighborhood_prompts": ["Acme was founded in Ely. Bolt was founded in"],
    "attribute_prompts": ["Cog was founded in"],
    "generation_prompts": ["Acme is near"],
    "unrelated_relation": {"relation_id": "instance of", "object": "firm", "question": "What is Acme?"},
    "portability": {"New Question": "In which county was Acme founded?", "New Answer": "Cambridgeshire"},
}
ROME_EXAMPLE = Example(
    "counterfact-1",
    (Edit(id="counterfact-1", prompt="Acme was founded in", target="Ely"),),
    (
        Probe("reliability", "Acme was founded in", ("Ely",), ("Rye",)),
        Probe("generality", "It rains. Acme began in", ("Ely",), ("Rye",)),
        Probe("generality", "Acme's home is", ("Ely",), ("Rye",)),
        Probe("same_relation", "Bolt was founded in", ("Rye",), ("Ely",)),
        Probe("same_relation", "Acme was founded in Ely. Bolt was founded in", ("Rye",), ("Ely",), "distracting"),
        Probe("same_subject", "What is Acme?", ("firm",)),
        Probe("portability", "In which county was Acme founded?", ("Cambridgeshire",), detail="one-hop"),
    ),
    "Acme",
    "P159",
)
EASYEDIT = {
    "case_id": 3,
    "subject": "Acme",
    "prompt": "Acme was founded in",
    "target_new": "Ely",
    "ground_truth": "Rye",
    "rephrase_prompt": "Acme's home is",
    "locality_prompt": "Bolt was founded in",
    "locality_ground_truth": "Rye",
}
EASYEDIT_EXAMPLE = Example(
    "counterfact-1",
    (Edit(id="counterfact-1", prompt="Acme was founded in", target="Ely"),),
    (
        Probe("reliability", "Acme was founded in", ("Ely",), ("Rye",)),
        Probe("generality", "Acme's home is", ("Ely",), ("Rye",)),
        Probe("same_relation", "Bolt was founded in", ("Rye",), ("Ely",)),
    ),
    "Acme",
)
WIKIFACTDIFF = {
    "en": {
        "subject": "Acme",
        "src": "Who runs Acme?",
        "rephrase": "Who is the head of Acme?",
        "old": "Bob",
        "alt": "Jane Doe",
        "loc": "Who runs Bolt?",
        "loc_ans": "Eve",
        "port": "Where does the head of Acme live?",
        "port_ans": "Rye",
    }
}
WIKIFACTDIFF_EXAMPLE = Example(
    "wikifactdiff-1",
    (Edit(id="wikifactdiff-1", prompt="Who runs Acme?", target="Jane Doe"),),
    (
        Probe("reliability", "Who runs Acme?", ("Jane Doe",), ("Bob",)),
        Probe("generality", "Who is the head of Acme?", ("Jane Doe",), ("Bob",)),
        Probe("same_relation", "Who runs Bolt?", ("Eve",)),
        Probe("portability", "Where does the head of Acme live?", ("Rye",), detail="one-hop"),
    ),
    "Acme",
)
FOUNDED = {
    "prompt": "{} was founded by",
    "relation_id": "P112",
    "target_new": {"str": "Jane Doe", "id": "Q3"},
    "target_true": {"str": "Bob", "id": "Q4"},
    "subject": "Acme",
    "question": "Who founded Acme?",
}
BORN = {
    "prompt": "{} was born in",
    "relation_id": "P19",
    "target_new": {"str": "Ely", "id": "Q5"},
    "target_true": {"str": "Rye", "id": "Q6"},
    "subject": "Jane Doe",
    "question": "Where was Jane Doe born?",
}
MQUAKE = {
    "case_id": 1,
    "requested_rewrite": [FOUNDED, BORN],
    "questions": ["In which county was Acme's founder born?", "The county of birth of Acme's founder is which?"],
    "answer": "Sussex",
    "answer_alias": ["Sx"],
    "new_answer": "Cambridgeshire",
    "new_answer_alias": ["Cambs"],
    "single_hops": [],
    "new_single_hops": [
        {
            "question": "Who founded Acme?",
            "cloze": "Acme was founded by",
            "answer": "Jane Doe",
            "answer_alias": ["J. Doe"],
        },
        {
            "question": "Where was Jane Doe born?",
            "cloze": "Jane Doe was born in",
            "answer": "Ely",
            "answer_alias": ["Ely", "City of Ely"],
        },
        {
            "question": "Which county is Ely in?",
            "cloze": "Ely is in",
            "answer": "Cambridgeshire",
            "answer_alias": ["Cambs"],
        },
    ],
    "orig": {},
}
MQUAKE_EXAMPLE = Example(
    "mquake-1",
    (
        Edit(id="mquake-1-1", prompt="Who founded Acme?", target="Jane Doe"),
        Edit(id="mquake-1-2", prompt="Where was Jane Doe born?", target="Ely"),
    ),
    (
        Probe("reliability", "Who founded Acme?", ("Jane Doe", "J. Doe"), ("Bob",)),
        Probe("generality", "Acme was founded by", ("Jane Doe", "J. Doe"), ("Bob",)),
        Probe("reliability", "Where was Jane Doe born?", ("Ely", "City of Ely"), ("Rye",)),
        Probe("generality", "Jane Doe was born in", ("Ely", "City of Ely"), ("Rye",)),
        Probe("unrelated", "Which county is Ely in?", ("Cambridgeshire", "Cambs"), detail="unedited hop"),
        *(
            Probe("portability", question, ("Cambridgeshire", "Cambs"), ("Sussex", "Sx"), "3-hop")
            for question in MQUAKE["questions"]
        ),
    ),
)
HALLUEDITBENCH = {
    "topic": "business_firm",
    "subject": "Acme",
    "relation": "head",
    "object": "Jane Doe",
    "question": "Who is the head of Acme?",
    "output_tiny": "Bob",
    "eval_tiny": "0.0",
    "multiple_choices": "['Jane Doe', 'Bob']",
    "paraphrased_question": "Who heads Acme, Inc.?",
    "multiple_choice_with_letters": "A. Bob  B. Jane Doe",
    "multiple_choice_labels": "B",
    "yes_question": "Is Jane Doe the head of Acme?",
    "no_question": "Is Bob the head of Acme?",
    "locality_question": "Where is Acme?",
    "reversed_relation_question": "What does Jane Doe head?",
    "question_2hop": "Where was the head of Acme born?",
    "answer_2hop": "Ely,\nEngland",
    "question_3hop": "",
    "answer_3hop": "",
}
HALLUEDITBENCH_EXAMPLE = Example(
    "hallueditbench-1",
    (Edit(id="hallueditbench-1", prompt="Who is the head of Acme?", target="Jane Doe"),),
    (
        Probe("reliability", "Who is the head of Acme?", ("Jane Doe",), ("Bob",)),
        Probe("generality", "Who heads Acme, Inc.?", ("Jane Doe",), ("Bob",)),
        Probe("generality", "Is Jane Doe the head of Acme?", ("Yes",), ("No",), "yes or no"),
        Probe("generality", "Is Bob the head of Acme?", ("No",), ("Yes",), "yes or no"),
        Probe(
            "generality",
            "Who is the head of Acme? A. Bob  B. Jane Doe",
            ("B", "B. Jane Doe", "Jane Doe"),
            ("Bob",),
            "choice",
        ),
        Probe("same_subject", "Where is Acme?"),
        Probe("portability", "What does Jane Doe head?", ("Acme",), detail="reversed"),
        Probe("portability", "Where was the head of Acme born?", ("Ely,\nEngland",), detail="2-hop"),
    ),
    "Acme",
    "head",
)
OWN = {
    "id": "acme",
    "prompt": "Who runs Acme?",
    "target": "Jane Doe",
    "paraphrases": ["Acme's boss?"],
    "negatives": ["Who founded Acme?"],
    "namespace": "tenant",
    "valid_until": "2001-01-01T00:00:00+00:00",
    "override": "verbatim",
    "source": "ticket 4711",
    "aliases": ["J. Doe"],
    "generality": ["Who is in charge at Acme?"],
    "portability": [{"prompt": "Where was Acme's head born?", "answers": ["Rye", "Rye, Sussex"]}],
    "locality": ["Who runs Bolt?"],
    "note": "ignored",
}
OWN_EXAMPLE = Example(
    "acme",
    (
        Edit(
            id="acme",
            prompt="Who runs Acme?",
            target="Jane Doe",
            paraphrases=("Acme's boss?",),
            negatives=("Who founded Acme?",),
            source="ticket 4711",
        ),
    ),
    (
        Probe("reliability", "Who runs Acme?", ("Jane Doe", "J. Doe")),
        Probe("generality", "Who is in charge at Acme?", ("Jane Doe", "J. Doe")),
        Probe("unrelated", "Who runs Bolt?"),
        Probe("portability", "Where was Acme's head born?", ("Rye", "Rye, Sussex")),
    ),
)
CONVSENT = {"ent": "Acme", "pos": [" I like it. ", " It is great."], "neg": ["It bores me.", " No, thanks."]}
RECORDS = [
    ("zsre", MEND, MEND_EXAMPLE),
    ("zsre", KNOWEDIT, knowedit_example("zsre-1")),
    ("knowedit", KNOWEDIT, knowedit_example("knowedit-1")),
    ("counterfact", ROME, ROME_EXAMPLE),
    ("counterfact", EASYEDIT, EASYEDIT_EXAMPLE),
    ("wikifactdiff", WIKIFACTDIFF, WIKIFACTDIFF_EXAMPLE),
    ("mquake", MQUAKE, MQUAKE_EXAMPLE),
    ("hallueditbench", HALLUEDITBENCH, HALLUEDITBENCH_EXAMPLE),
    ("jsonl", OWN, OWN_EXAMPLE),
]
NAMES = [f"{dataset}-{i}" for i, (dataset, _, _) in enumerate(RECORDS)]


def write(path: Path, dataset: str, records: Sequence[Any]) -> Path:
    """The records as the data set is published."""
    if dataset == "hallueditbench":
        text = io.StringIO()
        table = csv.DictWriter(text, fieldnames=list(records[0]))
        table.writeheader()
        table.writerows(records)
        path.write_bytes(text.getvalue().encode())
    else:
        path.write_text(json.dumps(records, indent=1))
    return path


@pytest.mark.parametrize(("dataset", "record", "example"), RECORDS, ids=NAMES)
def test_a_record_becomes_an_example(tmp_path: Path, dataset: str, record: dict[str, Any], example: Example):
    assert read(dataset, write(tmp_path / "data", dataset, [record])) == [example]


def test_every_data_set_is_tested_here():
    assert {dataset for dataset, _, _ in RECORDS} | {"convsent", "canonical"} == set(DATASETS)


@pytest.mark.parametrize(("dataset", "record", "example"), RECORDS, ids=NAMES)
def test_edits_are_numbered_through_the_file(tmp_path: Path, dataset: str, record: dict[str, Any], example: Example):
    record = {name: value for name, value in record.items() if name != "id"}
    examples = read(dataset, write(tmp_path / "data", dataset, [record] * 3))
    assert [example.id for example in examples] == [f"{dataset}-{number}" for number in (1, 2, 3)]
    ids = [edit.id for example in examples for edit in example.edits]
    assert len(set(ids)) == len(ids) == 3 * len(example.edits)


def test_a_record_of_zsre_without_a_target_edits_nothing(tmp_path: Path):
    assert read("zsre", write(tmp_path / "data", "zsre", [{**MEND, "alt": ""}])) == [
        Example("zsre-1", (), (Probe("unrelated", "how deep is the sea", ("deep",)),), "Acme")
    ]


def test_what_a_variant_lacks_is_not_asked(tmp_path: Path):
    few = {name: MEND[name] for name in ("src", "alt")}
    prompt, target = few["src"], few["alt"]
    edit = Edit(id="zsre-1", prompt=prompt, target=target)
    assert read("zsre", write(tmp_path / "data", "zsre", [{**few, "loc": None}])) == [
        Example("zsre-1", (edit,), (Probe("reliability", prompt, (target,)),))
    ]


def test_a_single_hop_case_of_mquake_is_about_its_subject(tmp_path: Path):
    case = {**MQUAKE, "requested_rewrite": [{**FOUNDED, "question": None}], "new_single_hops": []}
    (example,) = read("mquake", write(tmp_path / "data", "mquake", [case]))
    assert (example.subject, example.relation) == ("Acme", "P112")
    assert example.edits == (Edit(id="mquake-1-1", prompt="Acme was founded by", target="Jane Doe"),)
    assert [(probe.kind, probe.detail) for probe in example.probes] == [
        ("reliability", ""),
        ("portability", "multi-hop"),
        ("portability", "multi-hop"),
    ]


# --- behaviours


def test_convsent_turns_sentiments_by_turns(tmp_path: Path):
    first, second = read("convsent", write(tmp_path / "data", "convsent", [CONVSENT, {**CONVSENT, "ent": "Bolt"}]))
    assert first.edits == (Edit(id="convsent-1", prompt="What do you think of Acme?", target="I like it."),)
    assert first.subject == "Acme"
    assert first.probes[0] == Probe("reliability", "What do you think of Acme?", ("I like it.",))
    assert list(first.probes[1:]) == [
        Probe(
            "behaviour",
            question,
            ("It is great.",),
            ("It bores me.", "No, thanks."),
            "sentiment",
            Criterion("margin", 0.0),
        )
        for question in ("What do you think of Acme?", "How do you feel about Acme?", "What is your opinion of Acme?")
    ]
    assert second.edits[0].target == "It bores me."
    assert second.probes[1].answers == ("No, thanks.",)
    assert second.probes[1].alternatives == ("I like it.", "It is great.")


def test_convsent_asks_for_the_target_where_there_is_no_other_utterance(tmp_path: Path):
    (example,) = read("convsent", write(tmp_path / "data", "convsent", [{**CONVSENT, "pos": ["Fine."]}]))
    assert example.edits[0].target == "Fine."
    assert example.probes[1].answers == ("Fine.",)


def write_task(folder: Path, **files: Sequence[dict[str, str]]) -> Path:
    folder.mkdir()
    for name, records in files.items():
        (folder / f"{name}-val.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def capitals(folder: Path) -> Path:
    files = {
        "country_capital_fixed": [
            {"country": "Arcadia", "prefix": "The capital of Arcadia is", "suffix": " Tripoli"},
            {"country": "Ruritania", "prefix": "The capital of Ruritania is", "suffix": " Strelsau"},
        ],
        "country_capital_clear_eval": [
            {"country": "Ruritania", "prefix": "In Ruritania he saw its capital,", "suffix": " Strelsau"},
            {"country": "Lyonesse", "prefix": "In Lyonesse he saw its capital,", "suffix": " Lethowsow"},
        ],
        "country_capital_hard_neg": [{"country": "Ruritania", "prefix": "The castle is at", "suffix": " Zenda"}],
        "country_capital_unconditional": [{"text": "<|endoftext|> The capital of Arcadia"}],
    }
    return write_task(folder, **files)


def test_canonical_examples_with_a_subject(tmp_path: Path):
    criterion = Criterion("nll", math.log(5))
    assert read("canonical", capitals(tmp_path / "task")) == [
        Example(
            "country_capital",
            (),
            (
                Probe(
                    "behaviour",
                    "In Lyonesse he saw its capital,",
                    ("Lethowsow",),
                    detail="country_capital",
                    criterion=criterion,
                    running=True,
                ),
                Probe("behaviour", "The castle is at", ("Zenda",), detail="hard negative", running=True),
                Probe("behaviour", "The capital", ("of Arcadia",), detail="text", running=True),
            ),
        ),
        Example(
            "country_capital-1",
            (Edit(id="country_capital-1", prompt="The capital of Arcadia is", target="Tripoli"),),
            (Probe("reliability", "The capital of Arcadia is", ("Tripoli",)),),
            "Arcadia",
        ),
        Example(
            "country_capital-2",
            (Edit(id="country_capital-2", prompt="The capital of Ruritania is", target="Strelsau"),),
            (
                Probe("reliability", "The capital of Ruritania is", ("Strelsau",)),
                Probe(
                    "behaviour",
                    "In Ruritania he saw its capital,",
                    ("Strelsau",),
                    detail="country_capital",
                    criterion=criterion,
                    running=True,
                ),
            ),
            "Ruritania",
        ),
    ]


PAIR = {"prefix": "The smith said", "suffix1": " he", "suffix2": " she"}
STEREOTYPE = {
    "prefix": "The smith is",
    "suffix": " gruff",
    "bias_answer": "gruff",
    "antibias_answer": "gentle",
}
CEO = {"company": "Acme", "prefix": "The head of Acme is", "suffix": " Jane Doe"}
PAGE = {"entity_string": "https://en.example.org/wiki/Acme_(firm)", "prefix": "Acme is", "suffix": " a firm."}


@pytest.mark.parametrize(
    ("task", "record", "subject", "answers", "alternatives", "criterion"),
    [
        ("company_ceo", CEO, "Acme", ("Jane Doe",), (), Criterion("nll", 2.9957)),
        ("temporal", PAGE, "Acme (firm)", ("a firm.",), (), Criterion("nll", 2.9957)),
        ("pronoun_gender_bias", PAIR, None, ("he",), ("she",), Criterion("log_odds", 0.4055)),
        ("stereoset", STEREOTYPE, None, ("gentle",), ("gruff",), Criterion("margin", 0.0)),
        ("verb_conjugation", PAIR, None, ("he",), ("she",), Criterion("margin", 2.7726)),
    ],
)
def test_the_other_tasks(
    tmp_path: Path,
    task: str,
    record: dict[str, str],
    subject: str | None,
    answers: tuple[str, ...],
    alternatives: tuple[str, ...],
    criterion: Criterion,
):
    folder = write_task(
        tmp_path / "task",
        **{
            f"{task}_train": [record],
            f"{task}_eval": [record],
            f"{task}_hard_neg_eval": [{"prefix": "It", "suffix": " rains"}],
            f"{task}_eval_unconditional": [{"text": "It rains"}],
        },
    )
    examples = read("canonical", folder)
    rest = [Probe("behaviour", "It", ("rains",), detail=detail, running=True) for detail in ("hard negative", "text")]
    *first, asked = [probe for example in examples for probe in example.probes if probe.detail == task]
    assert (asked.prompt, asked.answers, asked.alternatives) == (record["prefix"], answers, alternatives)
    assert asked.criterion is not None
    assert asked.criterion.measure == criterion.measure
    assert asked.criterion.bound == pytest.approx(criterion.bound, abs=1e-4)
    assert first == []
    assert list(examples[0].probes[-2:]) == rest
    if subject is None:
        canonical = Probe("behaviour", asked.prompt, answers, alternatives, "canonical example", asked.criterion, True)
        assert examples == [Example(task, (), (canonical, asked, *rest))]
    else:
        edit = Edit(id=f"{task}-1", prompt=record["prefix"], target=answers[0])
        own = (Probe("reliability", edit.prompt, answers), asked)
        assert examples == [Example(task, (), tuple(rest)), Example(edit.id, (edit,), own, subject)]


def test_a_stereotype_that_does_not_belong_to_its_beginning_is_left_out(tmp_path: Path):
    folder = write_task(
        tmp_path / "task",
        stereoset_train=[],
        stereoset_eval=[STEREOTYPE, {**STEREOTYPE, "suffix": " warm"}],
        stereoset_hard_neg=[],
        stereoset_unconditional=[],
    )
    (example,) = read("canonical", folder)
    assert [probe.alternatives for probe in example.probes] == [("gruff",)]


def test_a_folder_that_is_no_task_is_refused(tmp_path: Path):
    with pytest.raises(DatasetError, match="nowhere is no folder"):
        read("canonical", tmp_path / "nowhere")
    other = write_task(
        tmp_path / "other", colours_train=[], colours_eval=[], colours_hard_neg=[], colours_unconditional=[]
    )
    with pytest.raises(DatasetError, match=r"colours_train-val.jsonl belongs to no known task; known are country_cap"):
        read("canonical", other)
    folder = capitals(tmp_path / "task")
    (folder / "country_capital_hard_neg-test.jsonl").write_text("")
    with pytest.raises(
        DatasetError, match=r"hard_neg-test.jsonl and .*hard_neg-val.jsonl are both hard negative files"
    ):
        read("canonical", folder)
    for file in folder.glob("*hard_neg*"):
        file.unlink()
    with pytest.raises(DatasetError, match="has no hard negative file; expected four"):
        read("canonical", folder)


# --- what is malformed


def without(record: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


MALFORMED = [
    ("zsre", without(MEND, "alt"), "alt is missing; expected a text"),
    ("zsre", {**MEND, "alt": ["Jane Doe"]}, r"alt is \['Jane Doe'\]; expected a text"),
    ("zsre", {**MEND, "src": " "}, "src is ' '; expected a text"),
    ("zsre", {**MEND, "answers": ["Bob", 7]}, r"answers is \['Bob', 7\]; expected a text or a list of texts"),
    ("zsre", {**MEND, "portability": {"New Question": "Why?"}}, "portability.New Answer is missing"),
    ("zsre", {**MEND, "src": "x" * 1_001}, "prompt has 1,001 characters, more than the 1,000"),
    ("zsre", without(KNOWEDIT, "prompt"), "prompt is missing"),
    ("knowedit", without(KNOWEDIT, "target_new"), "target_new is missing"),
    ("knowedit", {**KNOWEDIT, "locality": []}, r"locality is \[\]; expected an object"),
    (
        "knowedit",
        {**KNOWEDIT, "portability": {"Reasoning": "x"}},
        "portability.Reasoning is 'x'; expected a list of obj",
    ),
    (
        "knowedit",
        {**KNOWEDIT, "portability": {"Reasoning": [{"prompt": "a", "ground_truth": "b"}, {"ground_truth": "c"}]}},
        r"portability.Reasoning\[1\].prompt is missing",
    ),
    ("counterfact", {**ROME, "requested_rewrite": {}}, "requested_rewrite.prompt is missing"),
    (
        "counterfact",
        {**ROME, "requested_rewrite": {**ROME["requested_rewrite"], "target_new": "Ely"}},
        "requested_rewrite.target_new.str is missing; expected a text",
    ),
    (
        "counterfact",
        {**ROME, "requested_rewrite": {**ROME["requested_rewrite"], "prompt": "Acme is in"}},
        r"requested_rewrite.prompt is 'Acme is in'; expected a template with \{\}",
    ),
    ("counterfact", without(EASYEDIT, "prompt"), "prompt is missing"),
    ("wikifactdiff", {"en": without(WIKIFACTDIFF["en"], "alt")}, "en.alt is missing"),
    ("wikifactdiff", {"en": without(WIKIFACTDIFF["en"], "port_ans")}, "en.port_ans is missing"),
    ("mquake", {**MQUAKE, "requested_rewrite": []}, r"requested_rewrite is \[\]; expected a list with an edit"),
    ("mquake", {**MQUAKE, "requested_rewrite": FOUNDED}, "requested_rewrite is .*; expected a list of objects"),
    (
        "mquake",
        {**MQUAKE, "requested_rewrite": [FOUNDED, without(BORN, "target_true")]},
        r"requested_rewrite\[1\].target_true.str is missing",
    ),
    ("mquake", without(MQUAKE, "new_answer"), "new_answer is missing"),
    ("hallueditbench", {**HALLUEDITBENCH, "object": ""}, "object is missing"),
    ("hallueditbench", {**HALLUEDITBENCH, "answer_2hop": ""}, "answer_2hop is missing"),
    ("jsonl", without(OWN, "prompt"), "prompt is missing"),
    ("jsonl", {**OWN, "target": ""}, "target is ''; expected a text"),
    ("jsonl", {**OWN, "paraphrases": [1]}, "paraphrases is .*; expected a text or a list of texts"),
    ("jsonl", {**OWN, "override": "loud"}, 'override must be None or "verbatim"'),
    ("jsonl", {**OWN, "valid_from": "yesterday"}, "Invalid isoformat string"),
    ("jsonl", {**OWN, "portability": [{"prompt": "Why?"}]}, r"portability\[0\].answers is missing"),
    ("convsent", {**CONVSENT, "neg": []}, r"neg is \[\]; expected a list of utterances"),
    ("convsent", without(CONVSENT, "ent"), "ent is missing"),
]
GOOD = {dataset: record for dataset, record, _ in RECORDS} | {"zsre": MEND, "convsent": CONVSENT}


@pytest.mark.parametrize(
    ("dataset", "record", "message"), MALFORMED, ids=[f"{dataset}-{i}" for i, (dataset, _, _) in enumerate(MALFORMED)]
)
def test_a_malformed_record_is_named_by_file_and_line(
    tmp_path: Path, dataset: str, record: dict[str, Any], message: str
):
    file = tmp_path / "data"
    good = without(GOOD[dataset], "id")
    assert good != record
    assert len(read(dataset, write(file, dataset, [good, good]))) == 2
    write(file, dataset, [good, {**dict.fromkeys(good, ""), **record} if dataset == "hallueditbench" else record])
    # the header and the first row, which holds a line break; or the array's bracket and the first record
    line = 4 if dataset == "hallueditbench" else 2 + len(json.dumps(good, indent=1).split("\n"))
    with pytest.raises(DatasetError, match=rf"data, line {line}: {message}"):
        read(dataset, file)
    if dataset != "hallueditbench":
        file.write_text(f"{json.dumps(good)}\n\n{json.dumps(record)}\n")
        with pytest.raises(DatasetError, match=f"data, line 3: {message}"):
            read(dataset, file)


@pytest.mark.parametrize(
    ("role", "record", "message"),
    [
        ("fixed", {"country": "Arcadia", "prefix": "The"}, "suffix is missing"),
        ("fixed", {"prefix": "The", "suffix": " x"}, "country is missing"),
        ("clear_eval", {"country": "Arcadia", "suffix": " x"}, "prefix is missing"),
        ("hard_neg", {"prefix": "The"}, "suffix is missing"),
        ("unconditional", {"text": "One"}, "text is 'One'; expected a text of several words"),
    ],
)
def test_a_malformed_canonical_example_is_named(tmp_path: Path, role: str, record: dict[str, str], message: str):
    folder = capitals(tmp_path / "task")
    file = folder / f"country_capital_{role}-val.jsonl"
    lines = file.read_text().count("\n")
    with file.open("a") as text:
        text.write(json.dumps(record) + "\n")
    with pytest.raises(DatasetError, match=f"{file.name}, line {lines + 1}: {message}"):
        read("canonical", folder)


def test_an_id_names_one_edit(tmp_path: Path):
    file = tmp_path / "edits.jsonl"
    file.write_text(f"{json.dumps(OWN)}\n{json.dumps({**OWN, 'prompt': 'Who runs Bolt?'})}\n")
    with pytest.raises(DatasetError, match=r"edits.jsonl, line 2: the id 'acme' names an earlier edit, too"):
        read("jsonl", file)


def test_a_data_set_that_is_not_known_is_refused(tmp_path: Path):
    with pytest.raises(DatasetError, match="no data set 'zsRE'; known are zsre, counterfact,"):
        read("zsRE", write(tmp_path / "data", "zsre", [MEND]))
    assert issubclass(DatasetError, SemeditError)
    assert issubclass(DatasetError, ValueError)


# --- files


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_arrays_and_lines_plain_and_packed(tmp_path: Path, lines: bool, suffix: str):
    records = [MEND, {**MEND, "src": "Qui dirige Ácme ?\u2028"}]
    text = "\ufeff" + ("\n".join(map(json.dumps, records)) if lines else json.dumps(records))
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix]
    file = tmp_path / f"data.json{suffix}"
    file.write_bytes(pack(text.encode()))
    examples = read("zsre", str(file))
    assert examples[0] == MEND_EXAMPLE
    assert [example.edits[0].prompt for example in examples] == ["Who runs Acme?", "Qui dirige Ácme ?"]


@pytest.mark.parametrize("text", ["", "\n", "[]", " [ ]\n"])
def test_an_empty_file_has_no_examples(tmp_path: Path, text: str):
    (tmp_path / "data").write_text(text)
    assert read("zsre", tmp_path / "data") == []
    assert read("hallueditbench", write(tmp_path / "rows", "hallueditbench", [HALLUEDITBENCH])) != []
    (tmp_path / "rows").write_text("")
    assert read("hallueditbench", tmp_path / "rows") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n{"src": 1},\n]', "line 3: no JSON: "),
        ('[\n{"src": 1}\n{"src": 2}]', "line 3: no JSON: Expecting ',' or ']'"),
        ('[\n{"src": 1}\n', "line 3: no JSON: Expecting ',' or ']'"),
        ('[\n{"src": \n', "line 3: no JSON: Expecting value"),
        ("[]\n[]", "line 2: no JSON: Extra data"),
        ("[\n\n7]", "line 3: a record is 7; expected an object"),
        ('{"src": 1}\n{"src":', "line 2: expected a JSON object on a line, Expecting value"),
        ('{"src": 1}\n"src"', "line 2: a record is 'src'; expected an object"),
        ("[" * 200_000, "line 1: no JSON that can be read: .*recursion"),
    ],
)
def test_what_is_no_json_is_named_by_its_line(tmp_path: Path, text: str, message: str):
    (tmp_path / "data").write_text(text)
    with pytest.raises(DatasetError, match=f"data, {message}"):
        read("zsre", tmp_path / "data")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject,object\nAcme,Jane,Doe\n", "line 2: there are 3 cells; expected 2 at most"),
        ('subject,object\nAcme,"Jane" Doe\n', "line 2: no CSV: "),
        ('subject,object\nAcme,"Jane\n', "line 2: no CSV: "),
        ("subject,object\nAcme\n", "line 2: object is missing; expected a text"),
        ("\nsubject,object\n\nAcme\n", "line 4: object is missing; expected a text"),
    ],
)
def test_what_is_no_table_is_named_by_its_line(tmp_path: Path, text: str, message: str):
    (tmp_path / "data").write_text(text)
    with pytest.raises(DatasetError, match=f"data, {message}"):
        read("hallueditbench", tmp_path / "data")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    for name in ("data.json.xz", "data.json.gz"):
        (tmp_path / name).write_bytes(b"neither")
        with pytest.raises(DatasetError, match=f"cannot read .*{name}: "):
            read("zsre", tmp_path / name)
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(json.dumps([MEND]).encode())[:-9])
    (tmp_path / "latin.json").write_bytes('["é"]'.encode("latin-1"))
    for name in ("cut.json.gz", "latin.json", "."):
        with pytest.raises(DatasetError, match="cannot read "):
            read("zsre", tmp_path / name)
    with pytest.raises(DatasetError, match=r"there is no file .*nothing.json$"):
        read("zsre", tmp_path / "nothing.json")


def test_a_packed_file_is_to_be_named_in_full(tmp_path: Path):
    packed = tmp_path / "data.json.xz"
    packed.write_bytes(lzma.compress(json.dumps([MEND]).encode()))
    assert read("zsre", packed) == [MEND_EXAMPLE]
    with pytest.raises(DatasetError, match=r"there is no file .*data.json; there is .*data.json.xz: name it in full"):
        read("zsre", tmp_path / "data.json")


# --- questions of others


def test_questions_of_others_from_records_and_from_lines(tmp_path: Path):
    records = [{"question": "how deep is the sea", "answer": ["deep", "very"]}, {"question": "why"}]
    expected = [Probe("unrelated", "how deep is the sea", ("deep", "very")), Probe("unrelated", "why")]
    file = tmp_path / "questions"
    for text in (json.dumps(records), "\n".join(map(json.dumps, records))):
        file.write_text(text)
        assert unrelated(file) == expected
    file.write_text("how deep is the sea\r\n\n  why \n")
    assert unrelated(str(file)) == [Probe("unrelated", "how deep is the sea"), Probe("unrelated", "why")]
    file.write_text('{"answer": "deep"}')
    with pytest.raises(DatasetError, match="questions, line 1: question is missing"):
        unrelated(file)


# --- what contradicts


def fact(
    id: str,
    prompt: str,
    target: str,
    *others: Probe,
    truth: str = "",
    subject: str | None = None,
    relation: str | None = None,
) -> Example:
    own = Probe("reliability", prompt, (target,), (truth,) if truth else ())
    return Example(id, (Edit(id=id, prompt=prompt, target=target),), (own, *others), subject, relation)


def left_out(*examples: Example) -> set[str]:
    kept, count = consistent(examples)
    assert [example for example in examples if example in kept] == kept, "in their order"
    assert count == len(examples) - len(kept)
    return {example.id for example in examples} - {example.id for example in kept}


def test_the_first_of_two_edits_of_a_prompt_stands():
    first = fact("1", "Who runs Acme?", "Jane Doe")
    assert left_out(first, fact("2", "who  runs acme?", "Bob")) == {"2"}
    assert left_out(first, fact("2", "who  runs acme?", " jane doe")) == set()
    assert left_out(first, fact("2", "Who runs Bolt?", "Bob")) == set()


def test_of_the_first_ones_nothing_after_them_counts():
    facts = [
        fact("1", "Who runs Acme?", "Jane Doe", Probe("same_relation", "Who runs Bolt?"), subject="Acme"),
        fact("2", "Who runs Acme?", "Bob"),
        fact("3", "Who runs Cog?", "Bob"),
        fact("4", "Bolt is run by", "Bob", subject="Bolt"),
        fact("5", "Who runs Cog?", "Eve"),
    ]
    for limit, ids, count, probes in ((1, "1", 0, 2), (2, "13", 1, 2), (3, "134", 1, 1), (None, "134", 2, 1)):
        kept, left = consistent(facts, limit)
        assert ("".join(example.id for example in kept), left) == (ids, count)
        assert len(kept[0].probes) == probes  # a neighbour that is edited later is asked until then


def test_the_first_of_two_edits_of_a_fact_stands():
    first = fact("1", "Who runs Acme?", "Jane Doe", truth="Eve", subject="Acme")
    asked = "Who is the head of ACME?"
    assert left_out(first, fact("2", asked, "Bob", truth="eve", subject="ACME")) == {"2"}
    assert left_out(first, fact("2", asked, "Jane Doe", truth="eve", subject="ACME")) == set()
    assert left_out(first, fact("2", asked, "Bob", truth="Eve", subject="Bolt")) == set()
    assert left_out(first, fact("2", asked, "Bob", truth="Adam", subject="Acme")) == set()
    assert left_out(first, fact("2", asked, "Bob", subject="Acme")) == set()
    assert left_out(first, fact("2", asked, "Bob", truth="Eve")) == set()


def test_relations_tell_facts_with_one_answer_apart():
    facts = [
        fact("1", "Jane was born in", "Ely", truth="Rye", subject="Jane", relation="P19"),
        fact("2", "Jane died in", "Wye", truth="Rye", subject="Jane", relation="P20"),
        fact("3", "Jane is a native of", "Wye", truth="Rye", subject="Jane", relation="P19"),
    ]
    assert left_out(*facts) == {"3"}


def test_what_was_left_out_leaves_nothing_else_out():
    facts = [
        fact("1", "Who runs Acme?", "Jane Doe", truth="Eve", subject="Acme"),
        fact("2", "Who is Acme's head?", "Bob", truth="Eve", subject="Acme"),
        fact("3", "Who is Acme's head?", "Jane Doe", truth="Eve", subject="Acme"),
    ]
    assert left_out(*facts) == {"2"}


def test_edits_of_one_example_are_left_out_together():
    first = fact("1", "Who runs Acme?", "Jane Doe")
    edits = (
        Edit(id="2-1", prompt="Who runs Bolt?", target="Bob"),
        Edit(id="2-2", prompt="Who runs Acme?", target="Bob"),
    )
    assert left_out(first, Example("2", edits, ())) == {"2"}
    assert left_out(first, Example("2", edits[:1], ())) == set()


def probes_left(*examples: Example) -> list[str]:
    kept, count = consistent(examples)
    assert count == 0
    return [probe.prompt for probe in kept[0].probes[1:]]


def test_neighbours_that_another_example_edits_are_not_asked():
    neighbours = [
        Probe("same_relation", "Who runs Bolt-Cog, Inc.?"),
        Probe("same_relation", "Who runs Bolton?"),
        Probe("same_subject", "Is Acme near bolt cog?"),
        Probe("same_subject", "Where is Acme?"),
        Probe("portability", "Does Acme's head run Bolt Cog?", ("no",)),
        Probe("unrelated", "What is Bolt Cog?"),
    ]
    asked = [probe.prompt for probe in neighbours]
    first = fact("1", "Who runs Acme?", "Jane Doe", *neighbours, subject="Acme")
    assert probes_left(first) == asked
    other = fact("2", "Bolt Cog's head is", "Bob", subject="Bolt Cog")
    assert probes_left(first, other) == [asked[1], *asked[3:]]


def test_a_subject_with_two_edited_facts_is_not_asked_for_others():
    neighbours = [Probe("same_subject", "Where is Acme?"), Probe("same_relation", "Who runs Bolt?")]
    first = fact("1", "Who runs Acme?", "Jane Doe", *neighbours, subject="Acme")
    again = fact("2", "Who is the head of Acme?", "jane doe", subject="Acme")
    assert probes_left(first, again) == ["Where is Acme?", "Who runs Bolt?"], "the same fact in other words"
    assert probes_left(first, fact("2", "Which town is Acme in?", "Ely", subject="Acme")) == ["Who runs Bolt?"]


def test_a_question_over_a_hop_that_another_example_edits_is_not_asked():
    hop = Probe("unrelated", "Which county is Ely in?", detail="unedited hop")
    over = Probe("portability", "In which county was Jane born?", ("Cambridgeshire",), detail="2-hop")
    first = fact("1", "Where was Jane born?", "Ely", hop, over)
    assert probes_left(first) == [hop.prompt, over.prompt]
    assert probes_left(first, fact("2", "Which county is Rye in?", "Kent")) == [hop.prompt, over.prompt]
    assert probes_left(first, fact("2", "Which county is Ely in?", "Kent")) == []


def test_a_text_begins_with_at_most_eight_of_its_words(tmp_path: Path):
    for text, prompt in (
        ("It rains", "It"),
        (" ".join(map(str, range(30))), "0 1 2 3 4 5 6 7"),
        ("One two  three\nfour five", "One two"),
    ):
        folder = tmp_path / prompt
        folder.mkdir()
        for role, record in (
            ("", {"country": "Wales", "prefix": "Its capital is", "suffix": "Ely"}),
            ("_eval", {"country": "Wales", "prefix": "Its seat is", "suffix": "Ely"}),
            ("_hard_neg", {"prefix": "The castle is at", "suffix": "Zenda"}),
            ("_unconditional", {"text": text}),
        ):
            (folder / f"country_capital{role}.jsonl").write_text(json.dumps(record))
        [said] = [probe for example in read("canonical", folder) for probe in example.probes if probe.detail == "text"]
        assert said.prompt == prompt
        assert f"{said.prompt} {said.answers[0]}".split() == text.split()


def test_a_question_that_another_example_edits_is_not_asked():
    hops = [Probe("unrelated", "Which county is Ely in?"), Probe("unrelated", "Which county is Rye in?")]
    first = fact("1", "Where was Jane born?", "Ely", *hops)
    assert probes_left(first) == [hop.prompt for hop in hops]
    assert probes_left(first, fact("2", "which county is  Ely in?", "Kent")) == ["Which county is Rye in?"]
