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
    assert [edit.id for edit in route.edits] == [best.id]
    assert not route.ambiguous
    assert route.runner_up is not None
    assert route.runner_up.edit.id == second.id
    assert route.runner_up.score == 0.7
    assert [candidate.edit.id for candidate in route.candidates] == [best.id, second.id, third.id]
    assert "0.90" in route.reason
    assert repr(best.prompt) in route.reason


def test_a_judged_candidate_without_a_score_to_speak_of_ranks_by_its_score(memory):
    near = memory.add("who runs acme", "Jane")
    other = memory.add("who leads acme today", "John")
    [route] = Router(memory, TableScope({(QUERY, other.prompt): 0.2})).route([QUERY])
    assert [(c.edit.id, c.score) for c in route.candidates] == [(other.id, 0.2), (near.id, 0.0)]


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


@pytest.mark.parametrize("claiming", ["who is the chief executive of acme", "who runs acme"])
def test_an_edit_claims_a_query_by_the_best_of_its_keys(memory, claiming):
    keys = ("who is the chief executive of acme", "who runs acme")
    edit = memory.add(keys[0], "Jane", paraphrases=keys[1:])
    nearest = memory.search(QUERY)[0]
    assert (nearest.key, [text for text, _ in nearest.others]) == (keys[1], [keys[0]])
    table = {(QUERY, key): 0.9 if key == claiming else 0.2 for key in keys}
    [route] = Router(memory, TableScope(table)).route([QUERY])
    assert route.edits == (replace(edit, outcome=None),)
    [candidate] = route.candidates
    assert (candidate.key, candidate.score) == (claiming, 0.9)
    [cosine] = memory.similarities([(QUERY, claiming)])
    assert candidate.similarity == pytest.approx(cosine)


def test_a_key_below_the_floor_is_not_judged(memory):
    far, near = "the chief executive of acme is", "who runs acme"
    memory.add(far, "Jane", paraphrases=[near])
    floor = float(memory.similarities([(QUERY, near), (QUERY, far)]).mean())
    scope = TableScope({(QUERY, far): 0.9}, floor=floor)
    [route] = Router(memory, scope).route([QUERY])
    assert [[pair.text for pair in call] for call in scope.calls] == [[near]]
    assert not route.in_scope


def test_similarity_scope_is_the_cosine_with_its_threshold_as_floor(memory):
    memory.add("who runs acme", "Jane")
    cosine = 3 / 12**0.5
    for threshold, expected in ((cosine - 0.01, True), (cosine + 0.01, False)):
        [route] = Router(memory, SimilarityScope(threshold)).route([QUERY])
        assert route.in_scope is expected
    [route] = Router(memory, SimilarityScope(0.5)).route([QUERY])
    assert route.score == pytest.approx(cosine)


# --- edits with different targets


@pytest.fixture
def rivals(memory):
    """An older and a newer edit with different targets, and what scores them for the query."""
    edits = memory.add("who runs acme", "Jane"), memory.add("who leads acme", "John")

    def scope(old: float, new: float, of_each_other: float = 0.0) -> TableScope:
        old_prompt, new_prompt = edits[0].prompt, edits[1].prompt
        table = {(QUERY, old_prompt): old, (QUERY, new_prompt): new}
        table |= {(old_prompt, new_prompt): of_each_other, (new_prompt, old_prompt): of_each_other}
        return TableScope(table, threshold=0.5)

    return *edits, scope


def test_of_the_same_fact_the_newer_answers_whatever_the_scores(memory, rivals):
    old, new, scope = rivals
    for scores in ((0.99, 0.5), (0.8, 0.8), (0.5, 0.99)):
        [route] = Router(memory, scope(*scores, of_each_other=0.5)).route([QUERY])
        assert [edit.id for edit in route.edits] == [new.id]
        assert route.score == scores[1]
        assert not route.ambiguous
        assert (f"newer than edit {old.id}" in route.reason) is (scores[0] > scores[1])
    memory.update(old.id, target="Jill")
    [route] = Router(memory, scope(0.5, 0.99, of_each_other=0.5)).route([QUERY])
    assert [edit.target for edit in route.edits] == ["Jill"]


def test_the_newest_of_a_fact_answers_though_it_says_again_what_an_older_one_said(memory):
    old, middle, new = (
        memory.add(f"who {verb} acme", target)
        for verb, target in zip(("runs", "leads", "heads"), ("Jane", "John", "Jane"), strict=True)
    )
    prompts = [edit.prompt for edit in (old, middle, new)]
    same_fact = {(one, other): 0.9 for one in prompts for other in prompts}
    for scores in ((0.99, 0.7, 0.8), (0.7, 0.99, 0.8), (0.7, 0.8, 0.99)):
        table = same_fact | {(QUERY, prompt): score for prompt, score in zip(prompts, scores, strict=True)}
        [route] = Router(memory, TableScope(table)).route([QUERY])
        assert [edit.id for edit in route.edits] == [new.id]
    # one that has the best one's target by chance, and states another fact, says nothing of it
    table = {pair: score for pair, score in same_fact.items() if new.prompt not in pair}
    table |= {(QUERY, old.prompt): 0.99, (QUERY, middle.prompt): 0.7, (QUERY, new.prompt): 0.8}
    [route] = Router(memory, TableScope(table)).route([QUERY])
    assert [edit.id for edit in route.edits] == [middle.id]


def test_whether_two_prompts_state_one_fact_is_judged_both_ways_round(memory, rivals):
    old, new, scope = rivals
    both = scope(0.9, 0.8)
    # log-odds of 0.8 and 0.2 are as far from those of the threshold, 0.5
    for one, other, expected in ((0.8, 0.21, True), (0.21, 0.8, True), (0.8, 0.19, False), (0.19, 0.8, False)):
        both.table[old.prompt, new.prompt], both.table[new.prompt, old.prompt] = one, other
        [route] = Router(memory, both).route([QUERY])
        assert [edit.id for edit in route.edits] == ([new.id] if expected else [])
        assert route.ambiguous is not expected


def test_of_different_facts_with_close_scores_the_query_is_ambiguous(memory, rivals):
    old, new, scope = rivals
    # log-odds of 0.9 are 2.197, of 0.8 1.386, of 0.76 1.153, of 0.77 1.208: a margin of 1 lies between the last two
    for second, expected in ((0.8, True), (0.77, True), (0.76, False)):
        [route] = Router(memory, scope(0.9, second)).route([QUERY])
        assert route.ambiguous is expected
        assert [edit.id for edit in route.edits] == ([] if expected else [old.id])
        assert route.in_scope is not expected
    [route] = Router(memory, scope(0.9, 0.8)).route([QUERY])
    for part in (
        "ambiguous",
        old.id,
        new.id,
        repr(old.prompt),
        repr(new.prompt),
        "add_negative",
        "base model answers",
    ):
        assert part in route.reason
    assert 'ambiguous="best"' in route.reason
    assert route.score == 0.9
    assert route.runner_up is not None
    assert route.runner_up.edit.id == old.id


def test_scores_of_nearly_one_are_close(memory, rivals):
    *_, scope = rivals
    assert Router(memory, scope(1.0, 0.9999995)).route([QUERY])[0].ambiguous
    assert not Router(memory, scope(1.0, 0.99999)).route([QUERY])[0].ambiguous


def test_an_ambiguous_query_is_answered_as_was_asked_for(memory, rivals):
    old, new, scope = rivals
    for ambiguous, scores, expected in (
        ("best", (0.9, 0.8), [old]),
        ("best", (0.8, 0.9), [new]),
        ("best", (0.8, 0.8), [new]),
        ("all", (0.9, 0.8), [old, new]),
        ("all", (0.8, 0.8), [new, old]),
        ("all", (0.9, 0.76), [old]),
        ("base", (0.8, 0.8), []),
    ):
        [route] = Router(memory, scope(*scores), ambiguous).route([QUERY])
        assert [edit.id for edit in route.edits] == [edit.id for edit in expected]
        assert route.ambiguous is (scores != (0.9, 0.76))
    assert "the best score answers" in Router(memory, scope(0.9, 0.8), "best").route([QUERY])[0].reason


def test_edits_with_the_same_target_are_no_rivals(memory):
    first = memory.add("who runs acme", "Jane Doe")
    memory.add("who leads acme", " jane DOE")
    table = {(QUERY, "who runs acme"): 0.9, (QUERY, "who leads acme"): 0.89}
    for ambiguous in ("base", "best", "all"):
        scope = TableScope(table)
        [route] = Router(memory, scope, ambiguous).route([QUERY])
        assert [edit.id for edit in route.edits] == [first.id]
        assert not route.ambiguous
        assert len(scope.calls) == 1


def test_what_is_vetoed_or_below_the_threshold_is_no_rival(memory):
    best = memory.add("who runs acme", "Jane")
    memory.add("who leads acme", "John", negatives=["who runs acme now then"])
    memory.add("who heads acme", "Jill")
    table = {(QUERY, "who runs acme"): 0.9, (QUERY, "who leads acme"): 0.89, (QUERY, "who heads acme"): 0.849}
    table[QUERY, "who runs acme now then"] = 0.89
    scope = TableScope(table, threshold=0.85)
    [route] = Router(memory, scope).route([QUERY])
    assert [edit.id for edit in route.edits] == [best.id]
    assert len(scope.calls) == 1, "edits were compared though there are no rivals"


def test_the_rivals_of_all_queries_are_judged_in_one_more_call(memory):
    prompts = ["who runs acme", "who leads acme", "where is bolt", "where lies bolt"]
    edits = [memory.add(prompt, f"target {i}") for i, prompt in enumerate(prompts)]
    table = {
        ("acme", prompts[0]): 0.9,
        ("acme", prompts[1]): 0.9,
        ("bolt", prompts[2]): 0.9,
        ("bolt", prompts[3]): 0.9,
    }
    table |= {(prompts[2], prompts[3]): 0.7, (prompts[3], prompts[2]): 0.7}
    scope = TableScope(table)
    routes = Router(memory, scope).route(["acme", "nothing", "bolt"])
    assert [[edit.id for edit in route.edits] for route in routes] == [[], [], [edits[3].id]]
    assert [route.ambiguous for route in routes] == [True, False, False]
    assert len(scope.calls) == 2
    assert len(scope.calls[1]) == 4
    # two of three words are shared by the prompts
    assert [pair.similarity for pair in scope.calls[1]] == pytest.approx([2 / 3] * 4)


def test_the_same_fact_is_left_out_of_what_is_ambiguous(memory):
    edits = [memory.add(prompt, prompt[-4:]) for prompt in ("who runs acme1", "who leads acme2", "where is acme3")]
    table = {(QUERY, edit.prompt): 0.9 for edit in edits}
    for one, other in ((0, 1), (1, 0)):
        table[edits[one].prompt, edits[other].prompt] = 0.6
    table[QUERY, edits[0].prompt] = 0.95
    [route] = Router(memory, TableScope(table), "all").route([QUERY])
    assert [edit.id for edit in route.edits] == [edits[1].id, edits[2].id]


def test_of_edits_that_answer_together_the_best_says_how(memory):
    spoken = memory.add("who runs acme", "Jane")
    approved = memory.add("who runs acme inc", "Jane Doe", override="verbatim")
    table = {(QUERY, spoken.prompt): 0.85, (QUERY, approved.prompt): 0.9}
    [route] = Router(memory, TableScope(table), "all").route([QUERY])
    assert [edit.id for edit in route.edits] == [approved.id]
    table[QUERY, spoken.prompt] = 0.95
    [route] = Router(memory, TableScope(table), "all").route([QUERY])
    assert [edit.id for edit in route.edits] == [spoken.id]


def test_at_most_so_many_edits_answer_one_row(memory):
    edits = [memory.add(f"who runs acme number{i}", str(i)) for i in range(CANDIDATES)]
    table = {(QUERY, edit.prompt): 0.6 + i / 100 for i, edit in enumerate(edits)}
    [route] = Router(memory, TableScope(table), "all").route([QUERY])
    assert [edit.id for edit in route.edits] == [edit.id for edit in edits[::-1][:MOST_EDITS]]


def test_an_edit_out_of_force_or_out_of_namespace_is_no_candidate(memory):
    memory.add("who runs acme", "Jane", namespace="tenant")
    scope = TableScope({(QUERY, "who runs acme"): 0.9})
    assert not Router(memory, scope).route([QUERY])[0].candidates
    assert Router(memory, scope).route([QUERY], ["tenant"])[0].in_scope
