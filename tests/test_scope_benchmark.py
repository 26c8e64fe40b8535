"""The benchmark of scope counts what it says, and runs from end to end on files of the published form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import TableScope, WordEncoder, save_tiny_cross_encoder
from test_scope_classifier_script import write_more_data
from test_training_scripts import write_data
from transformers import AutoTokenizer

from semedit.memory.encoder import packaged_minilm

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import scope_data
import scope_measure
import scope_reliability
import scope_report
import scope_traffic

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ARLO, TOWN, BRIN = "Where is Arlo?", "Which town holds Arlo?", "Who made Brin?"


def write_dev(folder: Path) -> None:
    """A few records of each dev file: edits of Arlo and Brin, others to fill a memory."""

    def put(name: str, records: list) -> None:
        lines = name.endswith(".jsonl")
        (folder / name).write_text("\n".join(map(json.dumps, records)) if lines else json.dumps(records))

    def zsre(subject: str, prompt: str, target: str, truth: str, rephrase: str, *probes: str) -> dict:
        locality = {"Relation_Specificity": [{"prompt": probe} for probe in probes]}
        fields = {"subject": subject, "prompt": prompt, "target_new": target, "ground_truth": [truth]}
        return {**fields, "rephrase_prompt": rephrase, "locality": locality}

    records = [
        zsre("Arlo", ARLO, "Rome", "Oslo", "Arlo is where?", "The colour of Arlo is", "Arlo where"),
        zsre("Arlo", ARLO, "Bonn", "Oslo", "In what place is Arlo?", "The colour of Arlo is", "Arlo colour"),
        zsre("Arlo", TOWN, "Kiel", "Oslo", "Arlo lies in what town?", "The town of Arlo is"),
        zsre("Brin", BRIN, "Ann", "Eve", "Brin was made by whom?", "The age of Brin is", "Brin owner"),
    ]
    machine = [["1. Find Arlo", ".", "2) Arlo, where?"], ["-"], [], ["Brin by whom?"]]
    put("ZsRE-test-all.json", records)
    put(
        "ZsRE-test-all-generate-10.jsonl",
        [{**record, "generate_prompt": texts} for record, texts in zip(records, machine, strict=True)],
    )
    put("NQ-open.dev.jsonl", [{"question": f"who made number {i}"} for i in range(48)])
    names = [f"Place {chr(65 + i)}" for i in range(6)]
    counterfact = [
        {
            "prompt": f"{n} lies in",
            "target_new": "Utopia",
            "subject": n,
            "rephrase_prompt": f"The land of {n} is",
            "locality_prompt": "Place A borders" if n == "Place B" else f"Hill {n[-1]} lies in",
        }
        for n in names
    ]
    put("counterfact-edit-first5000.json", counterfact)
    for name, relation in (("distracting_neighbor", "{} belongs to"), ("portability_gpt4", "{} rules over")):
        rewrites = [
            {
                "requested_rewrite": {"prompt": relation, "subject": n, "target_new": {"str": "Ruritania"}},
                "distracting_neighborhood_prompts": [
                    f"{n} belongs to Ruritania. Hill {n[-1]} belongs to",
                    f"{n} belongs to Ruritania. Place A belongs to",
                ],
            }
            for n in names
        ]
        put(f"counterfact_{name}.json", rewrites)
    probes = [
        {"prompt": "The flag of Place A is", "ground_truth": [["red", "scarlet"]]},
        {"prompt": "The fish of Place A is", "ground_truth": [[]]},
        {"prompt": "The king of Place A is", "ground_truth": []},
    ]
    known = {"prompt": "The age of Place A is", "target_new": "9", "locality": {"Relation_Specificity": probes}}
    put("test_cf.json", [known, {"prompt": "The age of Place B is", "target_new": "8", "locality": {}}])
    put("zsre_mend_edit.json", [{"src": f"Who owns {n}?", "alt": "nobody"} for n in names])
    put("wfd_test.json", [{"en": {"src": f"{n} is ruled by", "alt": "Jane"}} for n in names])


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dev")
    write_dev(folder)
    return folder


def counted(suite: scope_data.Suite, scope: TableScope) -> dict[str, tuple[int, int]]:
    rates = scope_measure.counts(suite, scope_measure.route_suite(suite, scope, WordEncoder(), "test"))
    return {name: (rate.hits, rate.total) for name, rate in rates.items()}


def test_zsre_is_judged_by_fact(dev: Path) -> None:
    suite = scope_data.read_zsre(dev)
    scope = TableScope(
        {
            ("Arlo is where?", ARLO): 0.9,
            ("In what place is Arlo?", TOWN): 0.5,  # an edit of the same fact, just at the threshold
            ("Arlo lies in what town?", BRIN): 0.9,  # the wrong one
            ("Brin was made by whom?", BRIN): 0.4,  # below the threshold
            ("Find Arlo", ARLO): 0.9,
            ("who made number 3", BRIN): 0.9,
            ("Arlo where", ARLO): 0.9,
            ("The colour of Arlo is", TOWN): 0.9,
            ("Brin owner", BRIN): 0.9,  # an owner may be the maker
        }
    )

    assert [(edit.prompt, edit.target) for edit in suite.edits] == [(ARLO, "Bonn"), (TOWN, "Kiel"), (BRIN, "Ann")]
    assert counted(suite, scope) == {
        "rephrases": (2, 4),
        "machine paraphrases": (1, 3),
        "NQ-open questions": (1, 48),
        "same subject, other relation": (2, 4),
        scope_data.TYPED: (2, 4),
        scope_data.APART: (1, 3),
        "same subject, as the file has it": (3, 6),
        scope_data.ASKED: (1, 2),  # "The town of Arlo is" is asked by the other edit of Arlo
    }
    assert [note.split()[0] for note in suite.notes] == ["2", "by", "2"]


def test_a_specificity_prompt_names_its_property() -> None:
    properties = scope_data.Properties(["What university did [X] attend?"])
    assert properties.asked_by("What university did [X] attend?").key == "educated at"
    named = [
        scope_data.property_of(probe, "Ann", properties)
        for probe in ("The educated at of Ann is", "Ann employer", "The name of the father of Ann is", "Ann whatever")
    ]
    assert named == ["educated at", "employer", "father", None]


def test_wrong_cases_are_those_not_counted_as_right(dev: Path) -> None:
    suite = scope_data.read_zsre(dev)
    scope = TableScope({("Arlo is where?", ARLO): 0.9, ("who made number 3", BRIN): 0.9})
    routes = scope_measure.route_suite(suite, scope, WordEncoder(), "test")

    rephrases = [case.query for case in scope_measure.wrong(suite, routes, "rephrases")]
    overridden = [case.query for case in scope_measure.wrong(suite, routes, "NQ-open questions")]

    assert rephrases == ["In what place is Arlo?", "Arlo lies in what town?", "Brin was made by whom?"]
    assert overridden == ["who made number 3"]


def test_prompts_that_name_another_edit_are_left_out(dev: Path) -> None:
    counterfact, distracting = scope_data.read_counterfact(dev), scope_data.read_distracting(dev)
    fires = {("Hill C lies in", "Place C lies in"): 0.9, ("The land of Place A is", "Place A lies in"): 0.9}
    distracted = "Place B belongs to Ruritania. Hill B belongs to"

    assert counted(counterfact, TableScope(fires)) == {"rephrases": (1, 6), "neighbourhood prompts": (1, 5)}
    # its own subject stands in the distraction, and of the second prompts only Place A's names no other
    assert counted(distracting, TableScope({(distracted, "Place B belongs to"): 0.9})) == {
        "distracting neighbours": (1, 7)
    }


def test_queries_of_counterfact_that_no_training_file_holds_are_counted_apart(dev: Path, tmp_path: Path) -> None:
    trained_on = [{"prompt": "the land of  Place A IS", "locality": [{"prompt": "Hill C lies in"}]}]
    (tmp_path / "counterfact-train.json").write_text(json.dumps(trained_on))
    (tmp_path / "counterfact-val.json").write_text(json.dumps([{"rephrase_prompt": "Hill D lies in"}]))
    suite = scope_data.read_counterfact(dev, tmp_path)
    fires = {("Hill C lies in", "Place C lies in"): 0.9, ("The land of Place A is", "Place A lies in"): 0.9}
    fires |= {("Hill E lies in", "Place E lies in"): 0.9, ("The land of Place B is", "Place B lies in"): 0.9}

    assert counted(suite, TableScope(fires)) == {
        "rephrases": (2, 6),
        scope_data.NEW_REPHRASES: (1, 5),
        "neighbourhood prompts": (2, 5),
        scope_data.NEW_NEIGHBOURS: (1, 3),
    }
    assert not suite.categories[scope_data.NEW_NEIGHBOURS].has_errors


def test_adversarial_rows_are_judged_by_their_own_edit(tmp_path: Path) -> None:
    rows = [
        ("a", "Who runs it?", True, "Tell me of Acme."),
        ("a", "Who founded it?", False, "Tell me of Acme."),
        ("b", "Who chairs Bolt?", False, None),
        ("b", "Who runs Bolt?", False, None),
        ("b", "Who heads Acme?", True, None),
    ]
    lines = [
        {"category": kind, "prompt": "Who runs Acme?", "target": "Ann", "query": query, "in_scope": inside}
        | ({"before": before} if before else {})
        for kind, query, inside, before in rows
    ]
    lines.append({"category": "b", "prompt": "Who chairs Bolt", "target": "Ben", "query": "Bolt?", "in_scope": False})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    scope = TableScope(
        {
            ("Tell me of Acme. Who runs it?", "Who runs Acme?"): 0.9,
            ("Who chairs Bolt?", "Who chairs Bolt"): 0.9,  # rightly, by another row's edit
            ("Who runs Bolt?", "Who runs Acme?"): 0.9,
        }
    )

    assert counted(scope_data.read_adversarial(tmp_path / "rows.jsonl"), scope) == {
        "overall": (4, 6),
        "a": (2, 2),
        "b": (2, 4),
        "in scope, all": (1, 2),
        "out of scope, all": (3, 4),
        scope_data.ELSEWHERE: (1, 4),
    }


def test_the_edits_of_all_files_are_taken_once(dev: Path) -> None:
    prompts = [edit.prompt for edit in scope_data.read_edits(dev)]

    # three of zsRE, six each of CounterFact, its two other files, the other zsRE and WikiFactDiff, three of KnowEdit
    assert len(prompts) == len(set(prompts)) == 3 + 5 * 6 + 3
    assert "The flag of Place A is" in prompts


def test_overrides_as_the_threshold_falls() -> None:
    inside = scope_measure.Claims(np.array([0.9, 0.8, 0.7, 0.2]), np.array([True, False, True, True]), 4)
    outside = scope_measure.Claims(np.array([0.75, 0.2, 0.0]), np.zeros(3, bool), 0)

    false, true = scope_measure.curve(inside, outside)

    # at 0.9, 0.8, 0.75, 0.7, 0.2 and 0
    assert (3 * false).round().tolist() == [0, 0, 1, 1, 2, 3]
    assert (4 * true).tolist() == [1, 1, 1, 2, 3, 3]


def test_calibration_error_is_the_mean_distance_of_the_bins() -> None:
    bins = scope_reliability.reliability(np.array([0.95, 0.97, 1.0, 0.01]), np.array([True, True, False, False]))

    assert [(round(score, 4), round(right, 4), count) for score, right, count in bins] == [
        (0.01, 0, 1),
        (0.9733, 0.6667, 3),
    ]
    assert scope_reliability.calibration_error(bins) == pytest.approx((0.01 + 3 * (0.97333333 - 0.66666667)) / 4)


def test_a_calibration_is_checked_on_the_odd_rows(dev: Path) -> None:
    edits = scope_data.read_zsre(dev).edits
    traffic = scope_data.read_questions(dev)
    scope = TableScope({(traffic[i], BRIN): score for i, score in ((0, 0.7), (1, 0.8), (3, 0.6), (5, 0.9))})

    calibration, checked = scope_traffic.calibrated(scope, edits, traffic, WordEncoder(), "test")

    assert (calibration.queries, calibration.overridden) == (24, 0)
    assert calibration.threshold == pytest.approx(0.7)
    assert (checked.hits, checked.total) == (2, 24)
    assert scope_traffic.holds(calibration, checked)  # 0 of 24 states little: at most 14 %
    assert not scope_traffic.holds(calibration, scope_measure.Rate(4, 24))


def test_a_bar_is_reached_or_not_exceeded() -> None:
    right, overridden = scope_data.Category("right", 0.5), scope_data.Category("overridden", 0.5)

    assert scope_report.meets(right, scope_measure.Rate(1, 2))
    assert not scope_report.meets(right, scope_measure.Rate(1, 3))
    assert scope_report.meets(overridden, scope_measure.Rate(1, 2))
    assert not scope_report.meets(overridden, scope_measure.Rate(2, 3))
    assert scope_report.meets(scope_data.Category("right"), scope_measure.Rate(0, 3)) is None


@pytest.mark.slow
def test_the_benchmark_runs_from_end_to_end(dev: Path, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    write_data(tmp_path / "train")
    write_more_data(tmp_path / "train")
    tokenizer = AutoTokenizer.from_pretrained(packaged_minilm())
    save_tiny_cross_encoder(tmp_path / "scope", vocabulary=len(tokenizer))
    tokenizer.save_pretrained(tmp_path / "scope")
    options = ["--data", dev, "--train", tmp_path / "train", "--scope", tmp_path / "scope", "--sizes", 5, 30]
    options += ["--errors", 1, "--json", tmp_path / "scope.json", "--plot", tmp_path / "figure"]

    done = subprocess.run(
        [sys.executable, *map(str, [BENCHMARKS / "scope.py", *options])], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "scope.json").read_text())["results"]
    assert [suite["suite"] for suite in results["suites"]] == [
        "zsRE",
        "CounterFact",
        "CounterFact, distracting neighbours",
        "adversarial suite",
        "traffic",
    ]
    for suite in results["suites"]:
        for category in suite["categories"]:
            for who in ("classifier", "cosine alone"):
                low, high = category[who]["interval"]
                assert low - 1e-9 <= category[who]["hits"] / category[who]["total"] <= high + 1e-9
                assert category[who]["holds"] in ((None,) if category["bar"] is None else (True, False))
    assert {(made["classifier"], made["edits"]) for made in results["calibration"]} == {
        (who, edits) for who in ("classifier", "cosine alone") for edits in (5, 30)
    }
    for cost in results["cost"].values():
        assert cost["queries"] == 28  # after twenty that warm up
        assert cost["route_over_pass"]["median"] > 0.5  # a query is encoded, whatever else it needs
    assert "its own: " in done.stdout
    assert "Cost, in passes of the encoder" in done.stdout
    assert 0 <= results["reliability"]["expected_calibration_error"] <= 1
    for name in ("figure-overrides", "figure-reliability"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()
