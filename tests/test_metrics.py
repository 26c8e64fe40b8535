"""Metrics: each by values worked out by hand, with its denominator, its empty case and its edges."""

from __future__ import annotations

import json
import random
import re
import string
from dataclasses import replace
from math import exp, inf, log, log2

import pytest

# by module: pytest would collect a `test_retention` of its own name
from semedit.evaluation import metrics
from semedit.evaluation.examples import Criterion
from semedit.evaluation.metrics import Mean, Rate, contains_match, exact_match, n_gram_entropy, normalised, wilson
from semedit.evaluation.results import (
    Asked,
    Checkpoint,
    Evaluation,
    Row,
)

FULL = Asked(
    example="e1",
    kind="reliability",
    detail="",
    prompt="Who runs Acme?",
    expected=("Jane Doe", "J. Doe"),
    got="Jane Doe",
    right=True,
    contains=True,
    overridden=True,
    edits=("e1",),
    score=0.75,
    reason="in scope",
)


def asked(
    kind: str, right: bool, *, detail: str = "", contains: bool = False, overridden: bool | None = None
) -> Asked:
    return replace(FULL, kind=kind, right=right, detail=detail, contains=contains, overridden=overridden)


# six kinds, no two of one share, so that no metric can pass for another
RECORDS = [
    *[asked("reliability", right, contains=True) for right in (True, False)],
    *[asked("generality", right, contains=right) for right in (True, False, False)],
    *[asked("portability", right, detail="one-hop") for right in (True, True, False)],
    asked("portability", True, detail="alias"),
    asked("portability", True),
    asked("unrelated", True, overridden=False),
    asked("unrelated", True, overridden=True),
    *[asked("unrelated", right, overridden=None) for right in (True, True, True, False)],
    *[asked("same_subject", right, overridden=not right) for right in (True, True, True, False)],
    *[asked("same_relation", False, overridden=True) for _ in range(2)],
    *[asked("behaviour", right, detail="success") for right in (True, False, False, False)],
    asked("behaviour", True, detail="hard negative"),
    asked("behaviour", False),
]


# --- rates and means


def test_a_rate_has_its_value_and_its_wilson_interval():
    half = Rate(1, 2)
    assert half.value == 0.5
    # 1 of 2: centre 1/2, half width z / (2 sqrt(2 + z²)), z = 1.959964
    width = 1.959964 / (2 * (2 + 1.959964**2) ** 0.5)
    assert (half.low, half.high) == pytest.approx((0.5 - width, 0.5 + width))
    # the ends have closed forms: z² / (n + z²) and n / (n + z²)
    z2 = 1.959964**2
    assert (Rate(0, 10).low, Rate(0, 10).high) == pytest.approx((0, z2 / (10 + z2)))
    assert (Rate(10, 10).low, Rate(10, 10).high) == pytest.approx((10 / (10 + z2), 1))
    assert wilson(1, 2) == (half.low, half.high)


def test_an_interval_stays_within_0_and_1_and_holds_the_rate():
    for of in range(1, 200):
        for hits in {0, 1, of // 2, of}:
            low, high = wilson(hits, of)
            assert 0 <= low < high <= 1
            assert low <= hits / of + 1e-12
            assert hits / of - 1e-12 <= high


def test_nothing_of_nothing_has_no_value():
    assert [Rate(0, 0).value, Rate(0, 0).low, Rate(0, 0).high] == [None] * 3
    assert wilson(0, 0) == (0, 1)
    assert Mean(0.0, 0).value is None
    assert Mean(3.0, 4).value == 0.75


# --- matching


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Eiffel\tTower!", "eiffel tower"),
        ("a cat, an owl and the dog", "cat owl and dog"),
        ("Theatre Anna", "theatre anna"),
        ("O'Neill\u2013Smith", "oneillsmith"),
        ("O\u2019Neill-Smith", "oneillsmith"),
        ("«Straße»", "strasse"),
        ("Ame\u0301lie", "am\u00e9lie"),
        ("Paris\u00a0\u2026", "paris"),
        ("1.5", "15"),
        ("-$5", "5"),
        ("5 €", "5 €"),
        ("10²", "10²"),
        ("北京。", "北京"),
        ("the", ""),
        ("?!", ""),
        ("", ""),
    ],
)
def test_normalisation(text, expected):
    assert normalised(text) == expected
    assert normalised(expected) == expected


def test_normalisation_of_ascii_is_squads():
    rng = random.Random(0)
    pieces = [*string.ascii_letters, *string.digits, *string.punctuation, *" \t\n", " a ", "The ", " an", "the-"]
    changed = 0
    for _ in range(2000):
        text = "".join(rng.choices(pieces, k=rng.randrange(30)))
        bare = "".join(character for character in text.lower() if character not in string.punctuation)
        squad = " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())
        assert normalised(text) == squad, text
        changed += squad != text
    assert changed > 1000


def test_an_exact_match_is_of_the_whole_answer_and_of_any_alias():
    assert exact_match("the Eiffel tower.", "Eiffel Tower")
    assert not exact_match("Eiffel Tower, Paris", "Eiffel Tower")
    assert not exact_match("Eiffel", "Eiffel Tower")
    assert exact_match("NYC", "New York", "NYC")
    assert not exact_match("NYC", "New York", "N.Y.")
    assert exact_match("STRASSE", "Straße")
    assert not exact_match("anything"), "of no expected answer none is right"


@pytest.mark.parametrize("match", [exact_match, contains_match])
def test_an_answer_of_which_nothing_is_left_matches_itself_alone(match):
    assert normalised("?") == normalised("!") == normalised("The") == normalised("")
    assert not match("?", "!")
    assert not match("", "The")
    assert not match("", "?")
    assert not match("Paris", "?")
    assert match("?", "?")
    assert match("", "?", "")
    assert not match("", "Paris")
    assert not match("?", "Paris")


def test_what_an_answer_contains_are_whole_words_in_a_row():
    assert contains_match("It is in Paris, France.", "paris")
    assert not contains_match("The Parisians", "Paris")
    assert contains_match("He was born in the New York of old", "New York")
    assert not contains_match("a new town in York", "New York")
    assert not contains_match("Paris", "Paris, France"), "not the other way round"
    assert contains_match("it is NYC", "New York", "NYC")
    assert not contains_match("it is Boston", "New York", "NYC")
    assert contains_match("not Paris", "Paris"), "the trap that the docstring names"
    assert not contains_match("anything")


def test_an_exact_match_is_contained():
    texts = ["Paris", "the Paris!", "New York", "?", "!", "", "The", "Straße", "strasse", "北京"]
    matches = [(a, b) for a in texts for b in texts if exact_match(a, b)]
    assert len(matches) > len(texts)
    assert all(contains_match(a, b) for a, b in matches)


# --- over records


def test_rates_by_hand_in_the_order_of_display():
    assert list(metrics.rates(RECORDS).items()) == [
        ("reliability", Rate(1, 2)),
        ("generality", Rate(1, 3)),
        ("portability", Rate(4, 5)),
        ("portability: alias", Rate(1, 1)),
        ("portability: one-hop", Rate(2, 3)),
        ("locality_unrelated", Rate(5, 6)),
        ("locality_same_subject", Rate(3, 4)),
        ("locality_same_relation", Rate(0, 2)),
        ("false_override", Rate(4, 8)),
        ("false_override_unrelated", Rate(1, 2)),
        ("false_override_same_subject", Rate(1, 4)),
        ("false_override_same_relation", Rate(2, 2)),
        ("edit_retention", Rate(1, 2)),
        ("test_retention", Rate(5, 6)),
        ("in_scope_success", Rate(2, 5)),
        ("drawdown", Rate(4, 12)),
        ("contains_reliability", Rate(2, 2)),
        ("contains_generality", Rate(1, 3)),
        ("behaviour", Rate(0, 1)),
        ("behaviour: hard negative", Rate(1, 1)),
        ("behaviour: success", Rate(1, 4)),
    ]
    shuffled = random.Random(0).sample(RECORDS, len(RECORDS))
    assert shuffled != RECORDS
    assert list(metrics.rates(shuffled).items()) == list(metrics.rates(RECORDS).items())


def test_each_rate_by_itself():
    by_name = metrics.rates(RECORDS)
    assert metrics.reliability(RECORDS) == by_name["reliability"]
    assert metrics.generality(RECORDS) == by_name["generality"]
    assert metrics.portability(RECORDS) == by_name["portability"]
    assert metrics.portability_by_detail(RECORDS) == {"": Rate(1, 1), "alias": Rate(1, 1), "one-hop": Rate(2, 3)}
    assert metrics.locality(RECORDS, "same_subject") == by_name["locality_same_subject"]
    assert metrics.false_override(RECORDS) == by_name["false_override"]
    assert metrics.false_override(RECORDS, "same_subject", "same_relation") == Rate(3, 6)
    assert metrics.edit_retention(RECORDS) == Rate(1, 2)
    assert metrics.test_retention(RECORDS) == Rate(5, 6)
    assert metrics.in_scope_success(RECORDS) == Rate(2, 5)
    assert metrics.drawdown(RECORDS) == Rate(4, 12)
    assert metrics.contains(RECORDS, "generality") == Rate(1, 3)
    assert metrics.behaviour(RECORDS) == {"": Rate(0, 1), "hard negative": Rate(1, 1), "success": Rate(1, 4)}


def test_of_nothing_asked_every_rate_is_of_none():
    single = (
        metrics.reliability,
        metrics.generality,
        metrics.portability,
        metrics.false_override,
        metrics.edit_retention,
        metrics.test_retention,
        metrics.in_scope_success,
        metrics.drawdown,
    )
    assert {metric([]) for metric in single} == {Rate(0, 0)}
    assert {metrics.locality([], kind) for kind in metrics.UNCHANGING} == {Rate(0, 0)}
    assert metrics.contains([], "reliability") == Rate(0, 0)
    assert metrics.portability_by_detail([]) == metrics.behaviour([]) == metrics.rates([]) == {}


def test_a_kind_that_was_not_asked_is_absent():
    assert set(metrics.rates([asked("generality", False)])) == {
        "generality",
        "in_scope_success",
        "contains_generality",
    }
    assert metrics.rates([asked("same_subject", True)]) == {
        "locality_same_subject": Rate(1, 1),
        "drawdown": Rate(0, 1),
    }, "without a router there is no false override"


def test_a_false_override_is_none_that_an_edit_ought_to_answer():
    assert metrics.false_override([asked("reliability", True, overridden=True)]) == Rate(0, 0)
    assert metrics.false_override([asked("portability", True, overridden=True)]) == Rate(0, 0)
    said_the_same = asked("unrelated", True, overridden=True)
    assert (
        metrics.false_override([said_the_same]) == metrics.false_override([said_the_same], "unrelated") == Rate(1, 1)
    )
    assert metrics.false_override([said_the_same], "same_subject") == Rate(0, 0)
    assert metrics.locality([said_the_same], "unrelated") == Rate(1, 1)


# --- over likelihoods


def test_romes_comparisons_count_no_tie():
    new, true = [-1.0, -2.0, -3.0, -0.5], [-2.0, -2.0, -1.0, -0.6]
    assert metrics.efficacy(new, true) == Rate(2, 4)
    assert metrics.paraphrase(new, true) == Rate(2, 4)
    assert metrics.neighbourhood(new, true) == Rate(1, 4)
    for metric in (metrics.efficacy, metrics.paraphrase, metrics.neighbourhood):
        assert metric([], []) == Rate(0, 0)
        assert metric([-inf], [-inf]) == Rate(0, 1)
        with pytest.raises(ValueError, match="argument 2"):
            metric([-1.0], [-1.0, -2.0])


def test_romes_score_is_the_harmonic_mean_of_three():
    # 3 / (1/1 + 1/0.5 + 1/0.25) = 3/7
    assert metrics.rome_score(Rate(2, 2), Rate(1, 2), Rate(1, 4)) == pytest.approx(3 / 7)
    assert metrics.rome_score(Rate(4, 4), Rate(8, 8), Rate(1, 1)) == 1
    assert metrics.rome_score(Rate(2, 2), Rate(0, 2), Rate(1, 4)) == 0
    assert metrics.rome_score(Rate(2, 2), Rate(1, 2), Rate(0, 0)) is None
    assert metrics.rome_score(Rate(0, 2), Rate(0, 0), Rate(1, 2)) is None


def test_conversational_success_weighs_sentiment_by_topic():
    # σ(0) · 1, and σ(ln 3) · exp(-ln 2) = 3/4 · 1/2
    assert metrics.conversational_success([-1.0], [-1.0], [-1.0]) == Mean(0.5, 1)
    both = metrics.conversational_success([-1.0, -1.0], [-1.0, -1.0 - log(3)], [-1.0, -1.0 + log(2)])
    assert both.of == 2
    assert both.total == pytest.approx(0.5 + 0.375)
    likelier_than_before = metrics.conversational_success([-1.0], [-1.0], [-5.0])
    assert likelier_than_before == Mean(0.5, 1), "the topic is kept, and no more than kept"
    assert metrics.conversational_success([], [], []) == Mean(0.0, 0)


def test_conversational_success_bears_any_likelihood():
    assert metrics.conversational_success([-1.0], [-2000.0], [-1.0]).value == 1
    assert metrics.conversational_success([-2000.0], [-1.0], [-1.0]).value == 0
    assert metrics.conversational_success([-inf, -inf], [-inf, -1.0], [-1.0, -1.0]) == Mean(0.0, 2)
    assert metrics.conversational_success([-1.0], [-inf], [-1.0]) == Mean(1.0, 1)
    # right is e^-5 as likely as before: σ(1) · e^-5
    assert metrics.conversational_success([-6.0], [-7.0], [-1.0]).value == pytest.approx(exp(-5) / (1 + exp(-1)))


@pytest.mark.parametrize(
    ("measure", "bound", "answer", "alternative", "met"),
    [
        ("nll", 1.5, -1.5, None, True),
        ("nll", 1.5, -1.51, None, False),
        ("nll", 1.5, 0.0, None, True),
        ("log_odds", 0.5, -1.0, -1.5, True),
        ("log_odds", 0.5, -1.5, -1.0, True),
        ("log_odds", 0.5, -1.0, -1.51, False),
        ("log_odds", 0.5, -1.51, -1.0, False),
        ("margin", 0.5, -1.0, -1.5, False),
        ("margin", 0.5, -1.0, -1.51, True),
        ("margin", 0.5, -1.51, -1.0, False),
        ("margin", 0.0, -1.0, -1.0, False),
    ],
)
def test_a_criterion_at_its_bound_and_beyond(measure, bound, answer, alternative, met):
    assert metrics.succeeds(Criterion(measure, bound), answer, alternative) is met


def test_success_is_void_where_it_costs_too_much():
    # with delta 1/2 a loss of 2 may become 3
    assert metrics.bounded_success(Rate(3, 4), 3.0, 2.0, 0.5) == Rate(3, 4)
    assert metrics.bounded_success(Rate(3, 4), 3.001, 2.0, 0.5) is None
    assert metrics.bounded_success(Rate(3, 4), 1.0, 2.0, 0.5) == Rate(3, 4)
    assert metrics.bounded_success(Rate(3, 4), 2.0, 2.0, 0.0) == Rate(3, 4)
    assert metrics.bounded_success(Rate(0, 0), 2.0, 2.0, 0.0) == Rate(0, 0)


# --- over texts


@pytest.mark.parametrize(
    ("text", "pairs", "triples"),
    [
        ("", 0, 0),
        ("Paris", 0, 0),
        ("in Paris", 0, 0),
        ("now in Paris", 1, 0),
        ("no no no no no", 0, 0),
        # pairs ab, ba twice each; triples aba twice, bab once
        ("a b a b a", 1, log2(3) - 2 / 3),
        # four pairs, three triples, all different
        ("it is in Paris.", 2, log2(3)),
        ("A a A", 1, 0),
        ("é ü é ü", log2(3) - 2 / 3, 1),
    ],
)
def test_n_gram_entropy_by_hand(text, pairs, triples):
    assert n_gram_entropy(text) == pytest.approx((2 / 3 * pairs + 4 / 3 * triples) / 2)


def test_fluency_is_the_mean_entropy_of_the_texts():
    assert metrics.fluency(["now in Paris", "Paris"]) == Mean(pytest.approx(1 / 3), 2)
    assert metrics.fluency(["Paris"]).value == 0
    assert metrics.fluency([]) == Mean(0.0, 0)


# --- results


def without_times(checkpoint):
    return replace(checkpoint, means={n: mean for n, mean in checkpoint.means.items() if n != "seconds_per_edit"})


def test_an_evaluation_comes_back_from_its_json():
    bare = replace(
        FULL, kind="unrelated", expected=(), got='Zoë says "no" \u2028 \U0001f600', right=False, contains=False,
        overridden=None, edits=(), score=None, reason="",
    )  # fmt: skip
    first = Checkpoint(
        edits=1,
        rates={"reliability": Rate(1, 1), "generality": Rate(0, 2), "behaviour": Rate(1, 3)},
        means={"seconds_per_edit": Mean(0.1, 1), "fluency": Mean(1 / 3, 2)},
        asked=(FULL, bare),
        threshold=0.5,
    )
    evaluation = Evaluation(
        dataset="zsre",
        model="base",
        order="sequential",
        seed=7,
        sample=None,
        left_out=3,
        rows=(
            Row("unedited", "", (replace(first, threshold=None, asked=()),)),
            Row("in_context", "the newest 41 of 1,000 edits fit the context", (first, replace(first, edits=10))),
            Row("verbatim", "", ()),
        ),
    )
    text = evaluation.to_json()
    back = Evaluation.from_json(text)
    assert back.to_json() == text
    # all but the times, which no two runs share
    kept = [(row.method, row.note, [without_times(c) for c in row.checkpoints]) for row in evaluation.rows]
    assert [(row.method, row.note, list(row.checkpoints)) for row in back.rows] == kept
    assert without_times(first) != first
    assert list(back.rows[1].checkpoints[0].rates) == list(first.rates), "the order of display is kept"
    assert back != replace(evaluation, seed=8)
    assert replace(evaluation, seed=8).to_json() != text
    assert json.loads(text)["rows"][1]["checkpoints"][0]["rates"]["generality"] == {"hits": 0, "of": 2}
