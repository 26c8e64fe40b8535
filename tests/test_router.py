"""Routing: candidates, scores, thresholds, vetoes and ties, with values worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import TableScope, WordEncoder

from semedit import EditMemory, SimilarityScope
from semedit.router import CANDIDATES, MOST_EDITS, Router

QUERY = "who runs acme now"


@pytest.fixture
def memory():
    return EditMemory(encoder=WordEncoder())


def test_an_empty_memory_asks_neither_encoder_nor_classifier(memory):
    scope = TableScope({})
    [route] = Router(memory, scope).route([QUERY])
    assert not route.in_scope
    assert route.score is None
    assert route.runner_up is None
    assert "base model answers" in route.reason
    assert scope.calls == []
    assert memory.encoder.encoded == []


def test_all_rows_are_judged_in_one_call(memory):
    memory.add("who runs acme", "Jane")
    memory.add("who runs bolt", "John")
    scope = TableScope({("a acme", "who runs acme"): 0.9})
    before = len(memory.encoder.encoded)
    routes = Router(memory, scope).route(["a acme", "b bolt", "c"])
    assert len(scope.calls) == 1
    assert len(memory.encoder.encoded) == before + 1
    assert [[e.target for e in route.edits] for route in routes] == [["Jane"], [], []]


def test_the_threshold_itself_is_in_scope(memory):
    edit = memory.add("who runs acme", "Jane")
    for score, expected in ((0.5, True), (0.4999, False)):
        [route] = Router(memory, TableScope({(QUERY, edit.prompt): score})).route([QUERY])
        assert route.in_scope is expected
        assert route.score == score
        assert route.threshold == 0.5


def test_a_route_tells_edits_runner_up_and_reason(memory):
    best = memory.add("who runs acme", "Jane")
    second = memory.add("who runs acme today", "John")
    third = memory.add("where is acme", "Bonn")
    scope = TableScope({(QUERY, best.prompt): 0.9, (QUERY, second.prompt): 0.7, (QUERY, third.prompt): 0.2})
    [route] = Router(memory, scope).route([QUERY])
    assert [edit.id for edit in route.edits] == [best.id, second.id]
    assert route.runner_up is not None
    assert route.runner_up.edit.id == third.id
    assert route.runner_up.score == 0.2
    assert [candidate.edit.id for candidate in route.candidates] == [best.id, second.id, third.id]
    assert "0.90" in route.reason
    assert repr(best.prompt) in route.reason


def test_of_equal_scores_the_newer_edit_comes_first(memory):
    old = memory.add("who runs acme", "Jane")
    new = memory.add("who runs acme inc", "John")
    table = {(QUERY, old.prompt): 0.8, (QUERY, new.prompt): 0.8}
    [route] = Router(memory, TableScope(table)).route([QUERY])
    assert [edit.id for edit in route.edits] == [new.id, old.id]
    memory.update(old.id, target="Jill")
    [route] = Router(memory, TableScope(table)).route([QUERY])
    assert [edit.id for edit in route.edits] == [old.id, new.id]


def test_candidates_below_the_floor_are_not_judged(memory):
    near = memory.add("who runs acme", "Jane")  # 3 of 4 and 3 words: 3 / sqrt(12) = 0.866
    far = memory.add("acme colours of the flag", "red")  # 1 / sqrt(20) = 0.224
    scope = TableScope({(QUERY, near.prompt): 0.1, (QUERY, far.prompt): 0.9}, floor=0.5)
    [route] = Router(memory, scope).route([QUERY])
    assert [pair.text for pair in scope.calls[0]] == [near.prompt]
    assert scope.calls[0][0].similarity == pytest.approx(3 / 12**0.5)
    assert not route.in_scope
    by_id = {candidate.edit.id: candidate for candidate in route.candidates}
    assert by_id[far.id].score is None
    assert by_id[far.id].similarity == pytest.approx(1 / 20**0.5)


def test_nothing_above_the_floor_says_so(memory):
    memory.add("acme colours of the flag", "red")
    [route] = Router(memory, TableScope({}, floor=0.5)).route([QUERY])
    assert not route.in_scope
    assert route.score is None
    assert "too far" in route.reason


def test_a_negative_vetoes_what_is_as_near_to_it(memory):
    edit = memory.add("who runs acme", "Jane", negatives=["who founded acme"])
    negative = edit.negatives[0]
    for of_negative, expected in ((0.7, True), (0.8, False), (0.9, False)):
        table = {(QUERY, edit.prompt): 0.8, (QUERY, negative): of_negative}
        [route] = Router(memory, TableScope(table)).route([QUERY])
        assert route.in_scope is expected
        assert ("vetoed" in route.reason) is not expected
    assert route.runner_up is not None
    assert route.runner_up.vetoed_by == negative


def test_a_vetoed_edit_leaves_the_row_to_the_next(memory):
    vetoed = memory.add("who runs acme", "Jane", negatives=["who founded acme"])
    other = memory.add("who leads acme", "John")
    table = {(QUERY, vetoed.prompt): 0.9, (QUERY, "who founded acme"): 0.95, (QUERY, other.prompt): 0.6}
    [route] = Router(memory, TableScope(table)).route([QUERY])
    assert [edit.id for edit in route.edits] == [other.id]
    assert route.score == 0.6


def test_the_best_edit_says_how_the_row_is_answered(memory):
    spoken = memory.add("who runs acme", "Jane")
    approved = memory.add("who runs acme inc", "Jane Doe", override="verbatim")
    table = {(QUERY, spoken.prompt): 0.7, (QUERY, approved.prompt): 0.9}
    [route] = Router(memory, TableScope(table)).route([QUERY])
    assert [edit.id for edit in route.edits] == [approved.id]
    table[QUERY, spoken.prompt] = 0.95
    [route] = Router(memory, TableScope(table)).route([QUERY])
    assert [edit.id for edit in route.edits] == [spoken.id]


def test_at_most_so_many_edits_answer_one_row(memory):
    edits = [memory.add(f"who runs acme number{i}", str(i)) for i in range(CANDIDATES)]
    table = {(QUERY, edit.prompt): 0.6 + i / 100 for i, edit in enumerate(edits)}
    [route] = Router(memory, TableScope(table)).route([QUERY])
    assert [edit.id for edit in route.edits] == [edit.id for edit in edits[::-1][:MOST_EDITS]]


def test_the_nearest_key_of_an_edit_is_judged(memory):
    edit = memory.add("who is the chief executive of acme", "Jane", paraphrases=["who runs acme"])
    scope = TableScope({(QUERY, "who runs acme"): 0.9})
    [route] = Router(memory, scope).route([QUERY])
    assert [candidate.key for candidate in route.candidates] == ["who runs acme"]
    assert route.edits == (replace(edit, outcome=None),)


def test_similarity_scope_is_the_cosine_with_its_threshold_as_floor(memory):
    memory.add("who runs acme", "Jane")
    cosine = 3 / 12**0.5
    for threshold, expected in ((cosine - 0.01, True), (cosine + 0.01, False)):
        [route] = Router(memory, SimilarityScope(threshold)).route([QUERY])
        assert route.in_scope is expected
    [route] = Router(memory, SimilarityScope(0.5)).route([QUERY])
    assert route.score == pytest.approx(cosine)


def test_an_edit_out_of_force_or_out_of_namespace_is_no_candidate(memory):
    memory.add("who runs acme", "Jane", namespace="tenant")
    scope = TableScope({(QUERY, "who runs acme"): 0.9})
    assert not Router(memory, scope).route([QUERY])[0].candidates
    assert Router(memory, scope).route([QUERY], ["tenant"])[0].in_scope
