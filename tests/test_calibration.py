"""Calibration: a threshold for a chosen rate of false overrides, its bounds, and who sees it when."""

from __future__ import annotations

import random
import warnings
from dataclasses import replace
from datetime import datetime, timezone
from math import nextafter

import pytest
from fakes import TableScope, WordEncoder, byte_tokenizer

import semedit
from semedit import Calibration, EditMemory, SimilarityScope
from semedit.errors import CalibrationError, CalibrationWarning, InvalidQueryError
from semedit.memory.state import State
from semedit.router import Router
from semedit.scope.calibration import choose_threshold, clopper_pearson

PROMPT = "who runs acme"
CALIBRATION = Calibration(
    threshold=0.75,
    target=0.01,
    edits=10,
    classifier="table@1",
    namespaces=("default",),
    queries=1_000,
    overridden=10,
    positives=50,
    kept=48,
    time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
)


@pytest.fixture
def memory():
    memory = EditMemory(encoder=WordEncoder())
    memory.add(PROMPT, "Jane", id="acme")
    return memory


def traffic_of(*scores: float, prompt: str = PROMPT) -> dict[tuple[str, str], float]:
    """A table in which each score is that of a query of its own."""
    return {(f"query{i}", prompt): score for i, score in enumerate(scores)}


def queries_of(table: dict[tuple[str, str], float]) -> list[str]:
    return [query for query, _ in table]


# --- choosing a threshold


def test_the_threshold_is_just_above_the_first_claim_that_may_not_fire():
    claims = [0.6, 0.9, 0.1, 0.8, 0.7, 0.2, 0.3, 0.4, 0.5, 0.0]
    for target, above in ((0.05, 0.9), (0.1, 0.8), (0.19, 0.8), (0.2, 0.7), (0.3, 0.6)):
        threshold = choose_threshold(claims, target, 0.5)
        assert threshold == nextafter(above, 1)
        assert sum(claim >= threshold for claim in claims) == int(10 * target + 1e-9)
    assert choose_threshold(claims, 0.9, 0.5) == 0.5, "it never loosens"
    assert choose_threshold([0.9] * 10, 0.3, 0.5) == nextafter(0.9, 1), "of equal claims all fire, or none"
    # as floats 0.29 * 100 is 28.999999999999996
    assert choose_threshold([i / 100 for i in range(100)], 0.29, 0.5) == nextafter(0.7, 1)


def test_bounds_are_clopper_and_pearsons():
    # 0 of n: 1 - 0.025 ** (1 / n); 1 of 2: by hand from 1 - (1 - p)^2 = 0.025 and p^2 = 0.025 turned round
    assert clopper_pearson(0, 100) == (0.0, pytest.approx(1 - 0.025**0.01))
    assert clopper_pearson(100, 100) == (pytest.approx(0.025**0.01), 1.0)
    assert clopper_pearson(1, 2) == (pytest.approx(1 - 0.975**0.5), pytest.approx(0.975**0.5))
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert CALIBRATION.overridden_bounds == clopper_pearson(10, 1_000)
    assert CALIBRATION.kept_bounds == clopper_pearson(48, 50)


def test_queries_needed_is_the_fewest_whose_upper_bound_meets_the_target():
    for target in (0.5, 0.1, 0.01, 0.001):
        needed = replace(CALIBRATION, target=target).queries_needed
        assert clopper_pearson(0, needed)[1] <= target < clopper_pearson(0, needed - 1)[1]
    assert replace(CALIBRATION, target=0.001).queries_needed == 3_688


def test_it_holds_up_to_twice_the_edits():
    assert [CALIBRATION.holds(edits) for edits in (1, 10, 20, 21)] == [True, True, True, False]


def test_it_comes_back_from_json_as_it_was_but_for_the_traffic():
    seen = replace(CALIBRATION, closest=(("a query of somebody", PROMPT, 0.8),))
    assert "somebody" not in seen.to_json()
    assert Calibration.from_json(seen.to_json()) == seen == CALIBRATION
    assert Calibration.from_json(seen.to_json()).closest == ()


def test_the_bound_holds_on_traffic_that_was_not_seen():
    draw = random.Random(5)
    held = 0
    for _ in range(200):
        seen = [draw.random() for _ in range(400)]
        threshold = choose_threshold(seen, 0.02, 0.0)
        low, high = clopper_pearson(sum(claim >= threshold for claim in seen), 400)
        held += low <= 1 - threshold <= high  # the true rate, for claims are uniform
    assert held >= 180


# --- calibrating a router


def test_a_router_calibrates_and_every_router_of_that_classifier_follows(memory):
    table = traffic_of(*[0.9, 0.8, 0.7, 0.6, *[0.2] * 16])
    table["who leads acme", PROMPT] = 0.85
    router, other = Router(memory, TableScope(table)), Router(memory, TableScope(table))
    assert other.route(["query1"])[0].in_scope
    before = datetime.now(timezone.utc)
    made = router.calibrate(queries_of(traffic_of(*[0.0] * 20)), target=0.1)
    assert (made.queries, made.overridden, made.edits, made.target) == (20, 2, 1, 0.1)
    assert made.threshold == nextafter(0.7, 1)
    assert (made.classifier, made.positives, made.kept) == ("table@1", 0, 0)
    assert before <= made.time <= datetime.now(timezone.utc)
    for each in (router, other, Router(memory, TableScope(table))):
        assert each.calibration() == made
        routes = each.route(["query0", "query1", "query2", "query3", "who leads acme"])
        assert [route.in_scope for route in routes] == [True, True, False, False, True]
        assert {route.threshold for route in routes} == {made.threshold}
    assert "threshold 0.70" in router.route(["query3"])[0].reason


def test_a_calibration_is_of_one_classifier(memory):
    Router(memory, TableScope(traffic_of(0.9))).calibrate(["query0"])
    scope = TableScope(traffic_of(0.9))
    scope.fingerprint = "table@2"
    assert Router(memory, scope).calibration() is None
    assert Router(memory, scope).threshold() == 0.5
    assert Router(memory, SimilarityScope(0.3)).threshold() == 0.3


def test_calibrating_never_loosens(memory):
    made = Router(memory, TableScope(traffic_of(0.2, 0.1))).calibrate(["query0", "query1"])
    assert (made.threshold, made.overridden) == (0.5, 0)
    stricter = Router(memory, TableScope({}, threshold=0.6))
    assert stricter.calibration() == made
    assert stricter.threshold() == 0.6


def test_calibrating_again_begins_from_the_classifiers_threshold(memory):
    router = Router(memory, TableScope(traffic_of(0.9, 0.8)))
    assert router.calibrate(["query0"]).threshold == nextafter(0.9, 1)
    assert router.calibrate(["query1"]).threshold == router.threshold() == nextafter(0.8, 1)


def test_vetoed_and_unjudged_candidates_claim_nothing():
    memory = EditMemory(encoder=WordEncoder())
    memory.add(PROMPT, "Jane", negatives=["who founded acme"])
    table = {("query acme", PROMPT): 0.9, ("query acme", "who founded acme"): 0.95, ("far", PROMPT): 0.99}
    made = Router(memory, TableScope(table, floor=0.1)).calibrate(["query acme", "far"])
    assert (made.threshold, made.overridden) == (0.5, 0)


def test_a_query_that_is_ambiguous_counts_as_overridden(memory):
    memory.add("who leads acme", "John")
    scope = TableScope({("query", PROMPT): 0.8, ("query", "who leads acme"): 0.8})
    assert Router(memory, scope).route(["query"])[0].ambiguous
    assert Router(memory, scope).calibrate(["query"]).threshold == nextafter(0.8, 1)


def test_traffic_is_read_once_and_routed_in_batches(memory):
    memory.encoder.encoded.clear()
    made = Router(memory, TableScope({})).calibrate(f"query{i}" for i in range(600))
    assert made.queries == 600
    assert [len(texts) for texts in memory.encoder.encoded] == [256, 256, 88]


def test_the_traffic_that_edits_claim_most_is_shown_and_not_kept(memory, monkeypatch):
    memory.add("where is acme", "Bonn")
    table = traffic_of(0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.4)
    table["query2", "where is acme"] = 0.99
    kept = []
    monkeypatch.setattr(memory, "set_settings", lambda settings: kept.extend(settings.values()))
    made = Router(memory, TableScope(table)).calibrate([*queries_of(traffic_of(*[0.0] * 7)), "query5"])
    assert made.closest == (
        ("query2", "where is acme", 0.99),
        ("query5", PROMPT, 0.95),
        ("query4", PROMPT, 0.9),
        ("query3", PROMPT, 0.8),
        ("query1", PROMPT, 0.6),
    )
    assert made.queries == 8
    assert not any("query" in text for text in kept)
    few = Router(memory, TableScope(traffic_of(0.5, 0.49))).calibrate(["query0", "query1"])
    assert few.closest == (("query0", PROMPT, 0.5),), "from the classifier's own threshold on"


def test_positives_are_kept_where_they_are_routed_to_their_edit(memory):
    memory.add("where is acme", "Bonn", id="place")
    table = traffic_of(0.7) | {
        ("right", PROMPT): 0.8,
        ("by id", PROMPT): 0.8,
        ("too weak now", PROMPT): 0.6,
        ("wrong edit", "where is acme"): 0.9,
        ("ambiguous", PROMPT): 0.8,
        ("ambiguous", "where is acme"): 0.8,
    }
    positives = [(PROMPT, "right"), ("acme", "by id")]
    positives += [(PROMPT, query) for query in ("too weak now", "wrong edit", "ambiguous")]
    made = Router(memory, TableScope(table)).calibrate(["query0"], positives=iter(positives))
    assert (made.kept, made.positives) == (2, 5)


def test_it_is_of_the_namespaces_that_are_asked(memory):
    memory.add(PROMPT, "John", namespace="tenant")
    memory.add("where is acme", "Bonn", namespace="tenant")
    router = Router(memory, TableScope(traffic_of(0.9)))
    assert router.calibrate(["query0"]).edits == 1
    assert router.calibrate(["query0"], namespaces=["tenant"]).edits == 2
    assert router.calibrate(["query0"], namespaces=["tenant", "default"]).edits == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"traffic": []}, "there is no traffic"),
        ({"target": 0}, "above 0 and below 1"),
        ({"target": 1}, "above 0 and below 1"),
        ({"target": float("nan")}, "above 0 and below 1"),
        ({"namespaces": ["empty"]}, "no active edit in empty"),
        ({"positives": [("who is it", "query")]}, "no active edit has the prompt or the id 'who is it'"),
        ({"positives": [("gone", "query")]}, "no active edit has the prompt or the id 'gone'"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(memory, options, message):
    memory.retire(memory.add("who leads bolt", "Bo", id="gone").id)
    router = Router(memory, TableScope({}))
    with pytest.raises(CalibrationError, match=message):
        router.calibrate(**{"traffic": ["query"], **options})
    assert router.calibration() is None


def test_what_is_no_list_of_texts_is_refused(memory):
    router = Router(memory, TableScope({}))
    for options in ({"traffic": "query"}, {"traffic": [1]}, {"traffic": ["query"], "namespaces": "default"}):
        with pytest.raises(InvalidQueryError):
            router.calibrate(**options)


# --- when it no longer holds


def test_a_memory_that_outgrew_its_calibration_says_so_once(memory):
    scope = TableScope(traffic_of(0.1))
    Router(memory, scope).calibrate(["query0"], target=0.01)
    router = Router(memory, scope)
    memory.add("where is acme", "Bonn")
    router.route(["query0"])  # twice the edits are still good
    memory.add("where is bolt", "Rome")
    with pytest.warns(
        CalibrationWarning, match=r"calibrated with 1 edits; with up to 2 at most twice .*; there are 3 now"
    ) as seen:
        router.route(["query0"])
    assert "semedit calibrate --memory :memory: --traffic FILE --target 0.01" in str(seen[0].message)
    router.route(["query0"])
    memory.undo()
    Router(memory, scope).route(["query0"])


def test_a_calibration_is_of_the_namespaces_it_was_made_in(memory):
    memory.add(PROMPT, "Bob", id="tenant's", namespace="tenant")
    scope = TableScope(traffic_of(0.9, 0.8))
    router = Router(memory, scope)
    strict = router.calibrate(["query0", "query1"])
    loose = router.calibrate(["query1"], namespaces=["tenant"])
    assert strict.threshold == nextafter(0.9, 1) > loose.threshold == nextafter(0.8, 1)
    assert (strict.namespaces, loose.namespaces) == (("default",), ("tenant",))
    assert router.calibration() == strict
    assert router.calibration(["tenant"]) == loose
    assert router.calibration(["tenant", "default"]) == strict  # the stricter
    assert router.calibration(["other"]) is None
    assert [router.route(["query0"], names)[0].in_scope for names in (None, ["tenant"])] == [False, True]
    for i in range(5):
        memory.add(f"prompt{i}", "t", namespace="tenant")
    router.route(["query0"])
    with pytest.warns(CalibrationWarning, match="there are 6 now.*--namespace tenant"):
        router.route(["query0"], ["tenant"])


def test_calibrations_made_apart_do_not_add_up(memory):
    memory.add(PROMPT, "Bob", namespace="tenant's")
    router = Router(memory, TableScope(traffic_of(0.9, 0.8)))
    strict = router.calibrate(["query0"], target=0.01)
    router.route(["query0"])
    router.route(["query0"], ["default", "nobody's"])  # where there are no edits nothing is added
    both = ["default", "tenant's"]
    # with none at all, and with one of a part
    router.route(["query0"], ["tenant's"])
    for _ in range(2):
        with pytest.warns(CalibrationWarning, match="no calibration is of default, tenant's together") as seen:
            [route] = router.route(["query0"], both)
        assert route.threshold == strict.threshold
        command = "--memory :memory: --traffic FILE --target 0.01 --namespace default --namespace 'tenant'\"'\"'s'"
        assert str(seen[0].message).endswith(f"calibrate them together: semedit calibrate {command}")
        router.route(["query0"], both)
        router.route(["query0"], both[::-1])  # one set of namespaces
        router = Router(memory, TableScope(traffic_of(0.9, 0.8)))
        router.calibrate(["query1"], namespaces=["tenant's"], target=0.02)
    covering = router.calibrate(["query1"], namespaces=both)
    assert router.calibration(both) == covering
    for namespaces in (both, ["default"], ["tenant's"]):
        Router(memory, TableScope({})).route(["query0"], namespaces)
    # and of those that it covers, all edits are counted
    for i in range(3):
        memory.add(f"prompt{i}", "t", namespace="tenant's")
    with pytest.warns(CalibrationWarning, match="calibrated with 2 edits; .* there are 5 now.*--namespace default "):
        router.route(["query0"], ["default"])
    with pytest.warns(CalibrationWarning, match="there are 5 now"):
        router.route(["query0"], both)


def test_a_calibration_is_of_one_encoder(memory):
    made = Router(memory, TableScope(traffic_of(0.9))).calibrate(["query0"])
    memory.encoder.fingerprint = "others@1"
    assert Router(memory, TableScope({})).calibration() is None
    memory.encoder.fingerprint = "words@1"
    assert Router(memory, TableScope({})).calibration() == made


# --- across processes and through the model


def test_another_memory_on_the_same_file_sees_it_at_its_next_call_without_reading_edits(opening, monkeypatch):
    one, two = opening(), opening()
    one.add(PROMPT, "Jane")
    scope = TableScope(traffic_of(0.9))
    router = Router(two, scope)
    assert router.route(["query0"])[0].in_scope
    made = Router(one, scope).calibrate(["query0"])
    applied = []
    monkeypatch.setattr(State, "changed", lambda state, changes, *_: applied.extend(changes) or state)
    assert router.route(["query0"])[0].threshold == made.threshold
    assert applied == []
    assert two._view.state.head.settings == 1
    asked = []
    monkeypatch.setattr(two.store, "setting", asked.append)
    router.route(["query0"])
    assert asked == [], "the setting was read though nothing changed"


def test_a_wrapped_model_calibrates(models):
    model = semedit.wrap(models["llama"], byte_tokenizer(), encoder=WordEncoder(), scope=SimilarityScope(0.5))
    edit = model.edits.add("who runs acme", "Jane")
    # 2 of 3 and 4 words are shared, 0.577; then 3 of 3 and 4, 0.866
    traffic, paraphrase = "who runs bolt now", "who runs acme now"
    assert model.explain(traffic).in_scope
    made = model.calibrate([traffic], positives=[(edit.prompt, paraphrase)], target=0.001)
    assert made.threshold == pytest.approx(2 / 12**0.5)
    assert (made.queries, made.overridden, made.positives, made.kept) == (1, 0, 1, 1)
    assert not model.explain(traffic).in_scope
    assert model.explain(paraphrase).threshold == made.threshold
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for i in range(3):
            model.edits.add(f"firm{i}", "t")
        model.explain(traffic)
    assert [warning.category for warning in seen] == [CalibrationWarning]
