"""GRACE's codebook on hand-made keys in the plane, the choice of radii, and routing by a codebook."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest
from fakes import WordEncoder

import semedit
from semedit.edits import Edit, Route
from semedit.errors import AdaptorWarning, CalibrationError
from semedit.overrides.codebook import Codebook
from semedit.overrides.codebook_router import CodebookRouter
from semedit.overrides.radius import choose_radius

GAP = 1e-5
X, Y, Z = (7, 8), (9,), (8, 7)


def at(x: float, y: float = 0.0) -> np.ndarray:
    return np.array([x, y], np.float32)


def balls(book: Codebook) -> list[tuple[str, tuple[float, ...], float]]:
    return [
        (entry.owner, tuple(key.tolist()), entry.radius) for key, entry in zip(book.keys, book.entries, strict=True)
    ]


def made(*given: tuple[str, float, float], published: bool = False) -> Codebook:
    """A codebook of owners, each with a key on the axis and a radius."""
    book = Codebook(2, 0.0, published=published)
    for owner, place, _ in given:
        assert book.add(at(place), (len(book),), owner) == "add"
    for entry, (_, _, radius) in zip(book.entries, given, strict=True):
        entry.radius = radius
    return book


def owner(book: Codebook, place: float, owners: frozenset[str] | None = None) -> str | None:
    hit = book.look_up(at(place), owners)
    return hit.entry.owner if hit else None


both = pytest.mark.parametrize("published", [False, True], ids=["repaired", "published"])


# --- the rules


@both
def test_keys_that_touch_nothing_are_added(published):
    book = Codebook(2, 1.0, published=published)
    assert book.look_up(at(0)) is None
    assert book.nearest(at(0)) is None
    assert book.add(at(0), X, "a") == "add"
    assert book.add(at(2.25), X, "b") == "add"  # 2.25 > 1 + 1
    assert book.add(at(0, -2.25), Y, "c") == "add"
    assert balls(book) == [("a", (0, 0), 1), ("b", (2.25, 0), 1), ("c", (0, -2.25), 1)]


def test_as_published_the_same_label_expands_the_ball_to_the_new_key_whose_edit_takes_it_over():
    book = Codebook(2, 1.0, published=True)
    book.add(at(0), X, "a")
    assert book.add(at(2), X, "b") == "expand"  # 2 = 1 + 1: the balls just touch
    assert balls(book) == [("b", (0, 0), 2)]
    assert book.add(at(0, 1.5), X, "c") == "expand"  # within it already: it stays as large
    assert balls(book) == [("c", (0, 0), 2)]


def test_repaired_a_key_with_the_same_label_has_a_ball_of_its_own():
    book = Codebook(2, 1.0)
    book.add(at(0), X, "a")
    assert book.add(at(1.5), X, "b") == "add"
    assert book.add(at(0.25), X, "c") == "add"
    assert balls(book) == [("a", (0, 0), 1), ("b", (1.5, 0), 1), ("c", (0.25, 0), 1)]
    assert [owner(book, x) for x in (0.1, 0.25, 1.5, 2.5)] == ["a", "c", "b", "b"]
    assert owner(book, -1.1) is None


def test_repaired_a_key_is_split_from_the_nearest_with_another_label():
    book = Codebook(2, 1.0)
    book.add(at(0), X, "a")
    book.add(at(1.25), Y, "b")  # both end at 0.625
    assert book.add(at(0.25), X, "c") == "split"  # a is nearer, and says the same
    assert balls(book) == [
        ("a", (0, 0), 0.625 - GAP),
        ("b", (1.25, 0), 0.5 - GAP),
        ("c", (0.25, 0), 0.5),
    ]


@both
def test_another_label_splits_half_way(published):
    book = Codebook(2, 1.0, published=published)
    book.add(at(0), X, "a")
    assert book.add(at(0.5), Y, "b") == "split"
    assert balls(book) == [("a", (0, 0), 0.25 - GAP), ("b", (0.5, 0), 0.25)]
    assert [owner(book, x) for x in (0.1, 0.25, 0.4, 0.76)] == ["a", "b", "b", None]


@both
def test_it_is_split_from_the_nearest_key_alone(published):
    book = made(("a", 0, 1), ("b", 3, 1), published=published)
    book.radius = 1.0
    assert book.add(at(2.5), X, "c") == "split"
    assert balls(book)[0] == ("a", (0, 0), 1)
    assert [ball[2] for ball in balls(book)[1:]] == [0.25 - GAP, 0.25]


@pytest.mark.parametrize(("published", "radius"), [(True, 0.5 - GAP), (False, 0.1)])
def test_a_split_enlarges_a_ball_as_published_and_never_repaired(published, radius):
    book = made(("a", 0, 0.1), published=published)
    book.radius = 1.0
    assert book.add(at(1), X, "b") == "split"  # 1 <= 1 + 0.1
    assert balls(book) == [("a", (0, 0), radius), ("b", (1, 0), 0.5)]
    assert owner(book, 0.25) == ("a" if published else None)


@pytest.mark.parametrize(("published", "radius"), [(True, 0.75), (False, 0.5)])
def test_the_new_ball_of_a_split_is_larger_than_a_new_one_only_as_published(published, radius):
    book = made(("a", 0, 2), published=published)
    book.radius = 0.5
    assert book.add(at(1.5), X, "b") == "split"  # half way is 0.75
    assert balls(book) == [("a", (0, 0), 0.75 - GAP), ("b", (1.5, 0), radius)]


@both
def test_two_labels_at_one_key_leave_it_to_the_newer_one(published):
    book = Codebook(2, 1.0, published=published)
    book.add(at(1), X, "a")
    assert book.add(at(1), Y, "b") == "split"
    assert balls(book) == [("a", (1, 0), 0), ("b", (1, 0), 0)]
    assert owner(book, 1) == "b"
    assert book.look_up(at(1)).claim == 1
    assert owner(book, 1.001) is None


@pytest.mark.parametrize(
    ("one", "other", "rule"),
    [((7, 8), (7, 8), "expand"), ((7, 8), (8, 7), "split"), ((1, 3), (2, 2), "split"), ((2,), (2, 2), "split")],
)
def test_labels_are_equal_where_every_token_is(one, other, rule):
    # all have the same mean, by which the published code compares them
    assert np.mean(one) == np.mean(other)
    book = Codebook(2, 1.0, published=True)
    book.add(at(0), one, "a")
    assert book.add(at(0.5), other, "b") == rule
    repaired = Codebook(2, 1.0)
    repaired.add(at(0), one, "a")
    assert repaired.add(at(0.5), other, "b") == ("split" if rule == "split" else "add")


# --- look-up


def test_a_large_ball_is_missed_behind_a_nearer_key_as_published_and_found_repaired():
    large_and_small = ("a", 0, 3), ("b", 2, 0.5)
    for published, found in ((True, None), (False, "a")):
        book = made(*large_and_small, published=published)
        assert book.nearest(at(1.25)).entry.owner == "b"
        assert owner(book, 1.25) == found  # 1.25 from a and 0.75 from b
        assert owner(book, 1.75) == "b"  # in both, and nearer to b
        assert owner(book, 0.75) == "a"
        assert owner(book, 4) is None


@both
def test_of_two_equally_near_keys_the_newer_one_answers(published):
    book = made(("a", 0, 1), ("b", 2, 1), published=published)
    assert owner(book, 1) == "b"
    assert [near.entry.owner for near in book.nearby(at(1), 2)] == ["b", "a"]


@both
def test_the_edge_belongs_to_the_ball(published):
    book = made(("a", 0, 1), published=published)
    assert book.look_up(at(1)).claim == 0
    assert owner(book, 1.001) is None


def test_a_claim_is_what_is_left_of_the_radius():
    book = made(("a", 0, 2))
    assert [book.nearest(at(x)).claim for x in (0, 0.5, 2, 3)] == [1, 0.75, 0, -1]
    assert book.nearest(at(0.5)).distance == 0.5


@both
def test_only_the_owners_that_are_asked_for_count(published):
    book = made(("a", 0, 3), ("b", 2, 1), published=published)
    assert owner(book, 1.75) == "b"
    assert owner(book, 1.75, frozenset("ab")) == "b"
    assert owner(book, 1.75, frozenset("a")) == "a"
    assert owner(book, 1.75, frozenset()) is None


@both
def test_search_equals_brute_force(published):
    rng = np.random.default_rng(0)
    keys, queries = (rng.normal(size=(n, 6)).astype(np.float32) for n in (300, 100))
    radii = rng.uniform(0, 3, 300)
    book = Codebook(6, 0.0, published=published)
    for i, key in enumerate(keys):
        assert book.add(key, (i,), str(i)) == "add"
    for entry, radius in zip(book.entries, radii, strict=True):
        entry.radius = radius
    assert np.array_equal(book.keys, keys)
    found, missed_behind_nearer = 0, 0
    for query in queries:
        distances = np.sqrt(((keys.astype(float) - query) ** 2).sum(1))
        order = distances.argsort()
        assert [near.number for near in book.nearby(query, 5)] == order[:5].tolist()
        assert [near.distance for near in book.nearby(query, 5)] == pytest.approx(distances[order[:5]], rel=1e-5)
        inside = [i for i in order if distances[i] <= radii[i]]
        expected = next(iter(inside), None)
        if published and expected != order[0]:
            missed_behind_nearer += expected is not None
            expected = None
        hit = book.look_up(query)
        assert (hit.number if hit else None) == expected
        found += expected is not None
    assert 10 < found < 100
    assert (missed_behind_nearer > 10) is published


# --- radii


def test_with_a_radius_the_balls_of_one_pair_of_unrelated_questions_in_a_hundred_touch():
    unrelated = np.arange(101) / 4  # the second of 101 has 1 in 100 before it
    paraphrases = np.array([0.1] * 9 + [0.25])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_radius(paraphrases, unrelated) == 0.125
        assert choose_radius(paraphrases, unrelated[::-1]) == 0.125
        assert choose_radius(np.array([0.05]), np.array([0.0, 12.5])) == 0.0625  # a hundredth of the way, and half


def test_a_radius_warns_where_paraphrases_lie_as_far_as_unrelated_questions():
    with pytest.warns(AdaptorWarning, match=r"overlap: the radius 0\.125, .* holds 80% of the paraphrases"):
        assert choose_radius(np.array([0.1] * 8 + [0.25] * 2), np.arange(101) / 4) == 0.125


# --- routing by a codebook


class PlacedAdaptor:
    """An adaptor whose keys stand in a table, and whose labels are the letters of the targets."""

    def __init__(self, places: Mapping[str, np.ndarray], *, published: bool = False) -> None:
        self.places = places
        self.config = semedit.AdaptorConfig(radius=1.0, published_rules=published)
        self.learned: list[tuple[list[str], dict[str, str]]] = []  # prompts, and from which prompt each went on

    def keys(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self.places[text] for text in texts])

    prompt_keys = keys

    def label(self, edit: Edit) -> tuple[int, ...]:
        return tuple(edit.target.encode())

    def learn(self, edits: Sequence[Edit], *, starts: Mapping[str, Edit]) -> None:
        prompts = {edit.id: edit.prompt for edit in edits}
        self.learned.append((list(prompts.values()), {prompts[id]: start.prompt for id, start in starts.items()}))


PLACES = {str(x): at(x) for x in (0, 0.125, 0.25, 0.375, 0.5, 0.75, 1, 1.5, 2, 3, 9)}


def routed(*, published: bool = False) -> tuple[semedit.EditMemory, CodebookRouter]:
    memory = semedit.EditMemory(encoder=WordEncoder())
    adaptor = PlacedAdaptor(PLACES, published=published)
    return memory, CodebookRouter(memory, adaptor)  # type: ignore[arg-type]


def prompts(route: Route) -> list[str]:
    return [edit.prompt for edit in route.edits]


def test_a_prompt_in_a_ball_is_answered_by_its_edit():
    memory, router = routed()
    memory.add("0", "x")
    memory.add("3", "y")
    inside, edge, outside = router.route(["0.25", "1", "1.5"])
    assert prompts(inside) == prompts(edge) == ["0"]
    assert (inside.score, edge.score) == (0.75, 0)
    assert inside.reason == "in scope: 0.25 from the key '0', within its radius 1"
    assert inside.runner_up.edit.prompt == "3"
    assert not outside.in_scope
    assert outside.runner_up.key in "03"
    assert "outside the ball of the nearest key" in outside.reason


def test_without_edits_nothing_is_computed():
    memory, router = routed()
    [route] = router.route(["no place"])
    assert route.reason == "no edit to consider: the base model answers"
    memory.add("0", "x", namespace="firms")
    assert not router.route(["no place"])[0].in_scope
    with memory.disabled():
        assert not router.route(["no place"], ["firms"])[0].in_scope
    with pytest.raises(KeyError, match="no place"):
        router.route(["no place"], ["firms"])


@both
def test_paraphrases_are_keys_and_as_published_those_within_reach_expand_the_first(published):
    memory, router = routed(published=published)
    edit = memory.add("0", "x", paraphrases=["1.5", "9"])
    near_balls = [((0, 0), 1.5)] if published else [((0, 0), 1), ((1.5, 0), 1)]
    assert balls(router.book("default").codebook) == [(edit.id, *ball) for ball in [*near_balls, ((9, 0), 1)]]
    far, near = router.route(["9", "1"])
    assert prompts(far) == prompts(near) == ["0"]
    assert far.reason == "in scope: 0 from the key '9', within its radius 1"
    reach = "1 from the key '0', within its radius 1.5" if published else "0.5 from the key '1.5', within its radius 1"
    assert near.reason == f"in scope: {reach}"


def test_a_negative_vetoes_what_is_at_least_as_near_to_it():
    memory, router = routed()
    edit = memory.add("0", "x")
    assert prompts(router.route(["0.25"])[0]) == ["0"]
    memory.add_negative(edit.id, "0.5")
    before_half_way, half_way, beyond = router.route(["0.125", "0.25", "0.375"])
    assert prompts(before_half_way) == ["0"]
    for route in (half_way, beyond):
        assert not route.in_scope
        assert route.reason == "vetoed: at least as near to the negative '0.5': the base model answers"


def test_an_edit_out_of_force_leaves_its_place_to_others():
    memory, router = routed()
    memory.add("0", "x")
    edit = memory.add("0.75", "y")  # halves: 0.375
    assert prompts(router.route(["0.5"])[0]) == ["0.75"]
    memory.update(edit.id, valid_until=datetime(2020, 1, 1, tzinfo=timezone.utc))
    assert prompts(router.route(["0.5"])[0]) == []
    assert prompts(router.route(["0.25"])[0]) == ["0"]
    memory.update(edit.id, valid_until=datetime(2999, 1, 1, tzinfo=timezone.utc))
    assert prompts(router.route(["0.5"])[0]) == ["0.75"]


def test_each_namespace_has_its_codebook():
    memory, router = routed()
    memory.add("0", "x")
    memory.add("0.75", "y", namespace="firms")
    assert prompts(router.route(["0.5"])[0]) == ["0"]
    assert prompts(router.route(["0.5"], ["firms"])[0]) == ["0.75"]
    assert prompts(router.route(["0.5"], ["default", "firms"])[0]) == ["0.75"]
    assert prompts(router.route(["0.25"], ["default", "firms"])[0]) == ["0"]
    assert prompts(router.route(["0.25"], ["elsewhere"])[0]) == []
    assert [ball[2] for ball in balls(router.book("default").codebook)] == [1]


@both
@pytest.mark.parametrize("target", ["x", "y"], ids=["expand", "split"])
def test_without_a_retired_edit_the_codebook_is_as_if_it_had_never_been_added(published, target):
    memory, router = routed(published=published)
    memory.add("0", "x", id="first")
    never = balls(router.book("default").codebook)
    edit = memory.add("1.5", target, id="second")
    added = balls(router.book("default").codebook)
    alike = [1.5] if published else [1, 1]
    assert [ball[2] for ball in added] == (alike if target == "x" else [0.75 - GAP, 0.75])
    memory.retire(edit.id)
    assert balls(router.book("default").codebook) == never == [("first", (0, 0), 1)]
    memory.undo()
    assert balls(router.book("default").codebook) == added
    memory.retire("first")
    assert balls(router.book("default").codebook) == [("second", (1.5, 0), 1)]


def test_a_changed_target_makes_the_codebook_anew():
    memory, router = routed()
    memory.add("0", "x", id="first")
    memory.add("0.5", "x", id="second")
    assert balls(router.book("default").codebook) == [("first", (0, 0), 1), ("second", (0.5, 0), 1)]
    memory.update("second", target="y")
    assert balls(router.book("default").codebook) == [("first", (0, 0), 0.25 - GAP), ("second", (0.5, 0), 0.25)]


def test_edits_added_one_by_one_make_the_codebook_of_all_at_once():
    memory, router = routed()
    for prompt, target in (("0", "x"), ("0.75", "y"), ("2", "y"), ("0.125", "x"), ("3", "z")):
        memory.add(prompt, target)
        router.route(["9"])
    at_once = CodebookRouter(memory, router.override)
    assert balls(router.book("default").codebook) == balls(at_once.book("default").codebook)
    assert [ball[1:] for ball in balls(router.book("default").codebook)] == [
        ((0, 0), 0.375 - GAP),  # split by 0.75
        ((0.75, 0), 0.3125 - GAP),  # split by 0, and by 0.125
        ((2, 0), 0.5 - GAP),  # split by 3
        ((0.125, 0), 0.3125),
        ((3, 0), 0.5),
    ]
    learned = [prompts for prompts, _ in router.override.learned]  # type: ignore[attr-defined]
    assert learned == [["0"], ["0.75"], ["2"], ["0.125"], ["3"], ["0", "0.75", "2", "0.125", "3"]]


@pytest.mark.parametrize(("published", "starts"), [(True, {"0.5": "0"}), (False, {})])
def test_only_as_published_an_expansion_trains_the_value_that_is_there_further(published, starts):
    memory, router = routed(published=published)
    memory.add("0", "x")
    memory.add("0.5", "x")
    assert prompts(router.route(["0"])[0]) == (["0.5"] if published else ["0"])
    assert prompts(router.route(["0.5"])[0]) == ["0.5"]
    assert router.override.learned == [(["0", "0.5"], starts)]  # type: ignore[attr-defined]


def test_there_is_no_threshold_to_calibrate():
    memory, router = routed()
    memory.add("0", "x")
    with pytest.raises(CalibrationError, match=r"radius=.*routing="):
        router.calibrate(["1"], target=0.1)


def test_an_unmeasured_radius_is_measured(monkeypatch):
    memory, router = routed()
    router.override.config = replace(router.override.config, radius=None)
    monkeypatch.setattr("semedit.overrides.codebook_router.measured_radius", lambda override: 0.125)
    memory.add("0", "x")
    near, far = router.route(["0.125", "0.25"])
    assert (near.in_scope, far.in_scope) == (True, False)
