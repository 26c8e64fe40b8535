"""Evaluation from the plan to the rows: what knows nothing scores nothing, an oracle scores 1, and nothing leaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import TableScope, WordEncoder, byte_tokenizer, tiny_model

import semedit
from semedit.edits import Edit
from semedit.errors import EvaluationError
from semedit.evaluation import evaluate
from semedit.evaluation.baselines import FineTuned, Unedited
from semedit.evaluation.examples import Criterion, Example, Probe
from semedit.evaluation.metrics import Mean
from semedit.evaluation.plan import make_plan
from semedit.evaluation.results import Evaluation
from semedit.evaluation.subjects import Answer, Answering, Edited

PLACES = {"Malta": "Lagos", "Peru": "Turin", "Chad": "Oslo", "Fiji": "Quito"}
UNRELATED = [Probe("unrelated", "What is the boiling point of water?"), Probe("unrelated", "Who wrote it?")]


def example(place: str, target: str) -> Example:
    asked = f"What is the capital of {place}?"
    return Example(
        id=place,
        edits=(Edit(id=place, prompt=asked, target=target),),
        probes=(
            Probe("reliability", asked, (target,)),
            Probe("generality", f"{place}, which city is its capital?", (target, f"City of {target}")),
            Probe("same_subject", f"Who founded {place}?", ("Nobody",)),
            Probe("portability", f"Which river runs through the capital of {place}?", (f"{target} river",), (), "hop"),
        ),
        subject=place,
    )


EXAMPLES = [example(*pair) for pair in PLACES.items()]


def unedited(prompts: Sequence[str]) -> list[str]:
    return [f"it is said of {prompt.split()[-1]}" for prompt in prompts]


class Oracle:
    """Knows what should be said once an edit is made."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}

    def apply(self, edits: Sequence[Edit]) -> None:
        for edit in edits:
            probes = next(e for e in EXAMPLES if e.id == edit.id).probes
            self.said |= {p.prompt: p.answers[-1] for p in probes if p.kind != "same_subject"}

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        return [self.said.get(prompt) or unedited([prompt])[0] for prompt in prompts]


class Always:
    """Says the last edit's target to whatever is asked."""

    last = ""

    def apply(self, edits: Sequence[Edit]) -> None:
        self.last = edits[-1].target

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        return [self.last for _ in prompts]


def run(answer: Callable, apply: Callable | None = None, **changes: object) -> Evaluation:
    settings = {"unedited": unedited, "edits": (1, 4), "unrelated": UNRELATED, **changes}
    return evaluate(Answering(answer, apply), EXAMPLES, **settings)


def figures(evaluation: Evaluation, checkpoint: int = -1, row: int = 1) -> dict[str, tuple[int, int]]:
    rates = evaluation.rows[row].checkpoints[checkpoint].rates
    return {name: (rate.hits, rate.of) for name, rate in rates.items()}


def test_an_oracle_scores_1_everywhere_and_the_unedited_model_on_what_must_not_change():
    oracle = Oracle()
    evaluation = run(oracle, oracle.apply)
    assert [c.edits for c in evaluation.rows[1].checkpoints] == [1, 4]
    assert figures(evaluation) == {
        "reliability": (4, 4),
        "generality": (4, 4),
        "portability": (4, 4),
        "portability: hop": (4, 4),
        "locality_unrelated": (2, 2),
        "locality_same_subject": (4, 4),
        "edit_success": (4, 4),
        "edit_retention": (4, 4),
        "test_retention": (2, 2),
        "in_scope_success": (8, 8),
        "drawdown": (0, 6),
        "contains_reliability": (4, 4),
        "contains_generality": (4, 4),
    }
    assert figures(evaluation, 0)["reliability"] == (1, 1)
    assert evaluation.rows[0].method == "unedited"
    assert figures(evaluation, row=0)["reliability"] == (0, 4)
    assert figures(evaluation, row=0)["locality_same_subject"] == (4, 4)


@pytest.mark.parametrize(
    "answer", [lambda prompts: list(prompts), lambda prompts: ["" for _ in prompts]], ids=["echo", "empty"]
)
def test_what_knows_nothing_scores_nothing(answer):
    scored = figures(run(answer))
    for name in ("reliability", "generality", "portability", "edit_success", "contains_reliability"):
        assert scored[name] == (0, 4), name
    assert scored["locality_unrelated"] == (0, 2)
    assert scored["locality_same_subject"] == (0, 4)
    assert scored["drawdown"] == (6, 6)


@pytest.mark.parametrize(("order", "success"), [("sequential", 4), ("batch", 2)])
def test_what_always_overrides_keeps_the_last_edit_alone_and_nothing_else(order, success):
    always = Always()
    scored = figures(run(always, always.apply, order=order))
    # in a batch, only the last edit of each checkpoint is ever right
    assert scored["edit_success"] == (success, 4)
    assert scored["reliability"] == scored["edit_retention"] == (1, 4)
    assert scored["generality"] == (1, 4)
    assert scored["locality_unrelated"] == (0, 2)
    assert scored["drawdown"] == (6, 6)


def test_a_function_needs_what_answers_without_the_edits():
    with pytest.raises(EvaluationError, match="pass `unedited`"):
        evaluate(unedited, EXAMPLES)


def test_answers_that_are_not_one_string_each_are_refused():
    with pytest.raises(EvaluationError, match="expected 1 answers"):
        run(lambda prompts: ["one", "more"])


# --- the plan


def test_checkpoints_hold_what_was_edited_by_then_and_end_with_the_examples():
    steps = make_plan(EXAMPLES, [3, 1, 10], [], None, 0)
    assert [(step.edits, [e.id for e in step.examples]) for step in steps] == [
        (1, ["Malta"]),
        (3, ["Peru", "Chad"]),
        (4, ["Fiji"]),
    ]
    assert {id for id, _ in steps[1].questions} == {"Malta", "Peru", "Chad"}


def test_edits_made_together_count_as_many_as_they_are():
    pair = replace(EXAMPLES[0], edits=(*EXAMPLES[0].edits, *EXAMPLES[1].edits))
    steps = make_plan([pair, *EXAMPLES[2:]], [1, 3], [], None, 0)
    assert [step.edits for step in steps] == [2, 3]


def test_a_sample_takes_so_many_of_each_kind_and_follows_the_seed():
    drawn = {seed: make_plan(EXAMPLES, [4], UNRELATED, 2, seed)[0].questions for seed in range(8)}
    kinds = [probe.kind for _, probe in drawn[0]]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ("reliability", "generality", "same_subject", "portability", "unrelated"), 2
    )
    assert len(set(drawn.values())) > 1
    assert drawn[3] == make_plan(EXAMPLES, [4], UNRELATED, 2, 3)[0].questions


@pytest.mark.parametrize(
    ("examples", "counts", "message"),
    [([], [1], "no examples"), (EXAMPLES, [], "above 0"), (EXAMPLES, [0, 1], "above 0")],
)
def test_a_plan_of_nothing_is_refused(examples, counts, message):
    with pytest.raises(EvaluationError, match=message):
        make_plan(examples, counts, [], None, 0)


# --- models


def edited_model(models, kind: str = "llama", override: str = "verbatim") -> semedit.model.EditedModel:
    rephrased = {(e.probes[1].prompt, e.probes[0].prompt): 0.9 for e in EXAMPLES[:3]}
    same = {(e.probes[0].prompt, e.probes[0].prompt): 1.0 for e in EXAMPLES}
    wrongly = {(EXAMPLES[0].probes[2].prompt, EXAMPLES[0].probes[0].prompt): 0.8}
    memory = semedit.EditMemory(encoder=WordEncoder())
    scope = TableScope(same | rephrased | wrongly)
    return semedit.wrap(models[kind], byte_tokenizer(chat=True), memory=memory, scope=scope, override=override)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_wrapped_model_is_edited_and_asked_and_its_routes_are_kept(models, kind):
    model = edited_model(models, kind)
    evaluation = evaluate(model, EXAMPLES, edits=(4,), unrelated=UNRELATED)
    scored = figures(evaluation)
    assert scored["reliability"] == (4, 4)
    assert scored["generality"] == (3, 4)
    assert scored["locality_same_subject"] == (3, 4)
    assert scored["locality_unrelated"] == (2, 2)
    assert scored["false_override"] == (1, 6)
    assert figures(evaluation, row=0)["reliability"] == (0, 4)
    checkpoint = evaluation.rows[1].checkpoints[0]
    [wrong] = [asked for asked in checkpoint.asked if asked.kind == "same_subject" and asked.overridden]
    assert (wrong.edits, wrong.score, wrong.got) == (("Malta",), 0.8, "Lagos")
    assert wrong.expected != ("Nobody",)  # the unedited model's own answer
    assert checkpoint.threshold == 0.5
    # the target stands word for word, so every one of its tokens is the likeliest where the query is routed
    assert checkpoint.means["teacher_forced_reliability"].value == 1.0
    assert evaluation.rows[0].checkpoints[0].means["teacher_forced_reliability"].value < 0.5
    assert checkpoint.means["bytes_per_edit"].value > 4 * WordEncoder.dim


def test_shuffling_the_targets_changes_no_routing_decision(models):
    targets = list(PLACES.values())
    shuffled = [example(place, target) for place, target in zip(PLACES, targets[1:] + targets[:1], strict=True)]
    assert [e.edits[0].target for e in shuffled] != [e.edits[0].target for e in EXAMPLES]
    decisions, answers = [], []
    for examples in (EXAMPLES, shuffled):
        checkpoint = evaluate(edited_model(models), examples, edits=(4,), unrelated=UNRELATED).rows[1].checkpoints[0]
        decisions.append([(a.prompt, a.overridden, a.edits, a.score, a.reason) for a in checkpoint.asked])
        answers.append([a.got for a in checkpoint.asked])
    assert answers[0] != answers[1]
    assert any(overridden for _, overridden, *_ in decisions[0])
    assert decisions[0] == decisions[1]


def test_an_answer_is_as_long_as_the_model_makes_it_whatever_the_target(models):
    answers = []
    for target in ("x", "x " * 40):
        # the edit is there, and has nothing to say to the question
        examples = [replace(EXAMPLES[0], probes=(Probe("reliability", "Tell me a story.", (target,)),))]
        rows = evaluate(edited_model(models, override="in_context"), examples, edits=(1,)).rows
        [[asked], [of_base]] = [row.checkpoints[0].asked for row in reversed(rows)]
        assert asked.expected == (target,)
        assert asked.got == of_base.got
        answers.append(asked.got)
    assert answers[0] == answers[1] != ""
    assert len(answers[0]) > len("x")


def test_an_edited_answer_is_as_long_as_the_model_makes_it_whatever_is_expected(models):
    answers = []
    for expected in ("x", "x " * 40):
        probes = (Probe("reliability", EXAMPLES[0].probes[0].prompt, (expected,)),)
        examples = [replace(EXAMPLES[0], probes=probes)]
        rows = evaluate(edited_model(models, override="in_context"), examples, edits=(1,)).rows
        [asked] = rows[1].checkpoints[0].asked
        assert asked.overridden
        assert asked.got != rows[0].checkpoints[0].asked[0].got
        answers.append(asked.got)
    assert answers[0] == answers[1]
    assert len(answers[0]) > len("x")


def test_behaviours_are_judged_by_likelihood_and_not_generated(models):
    text = "The officers"
    likelier = [
        Probe("behaviour", text, (a,), (b,), "verb", Criterion("margin", 0.0), running=True)
        for a, b in (("beat", "beats"), ("beats", "beat"))
    ]
    surely = Probe("behaviour", "", ("The text",), (), "sure", Criterion("nll", 1e6), running=True)
    never = Probe("behaviour", text, ("go",), (), "never", Criterion("nll", 1e-6), running=True)
    general = Probe("behaviour", "The", ("end of it",), (), "text", running=True)
    opinions = [
        Probe("behaviour", "What of Malta?", yes, no, "sentiment", Criterion("margin", 0.0))
        for yes, no in ((("I like it", "Fine"), ("Dull", "I do not")), (("Dull", "I do not"), ("I like it", "Fine")))
    ]
    examples = [Example("verbs", (), (*likelier, surely, never, general, *opinions))]
    evaluation = evaluate(edited_model(models), examples, edits=(1,))
    for row in (0, 1):
        scored = figures(evaluation, row=row)
        assert scored["behaviour: verb"] == scored["behaviour: sentiment"] == (1, 2)
        assert scored["behaviour: sure"] == scored["behaviour: text"] == (1, 1)
        assert scored["behaviour: never"] == (0, 1)
        assert scored["behaviour: verb, text's loss up by at most 0.1%"] == (1, 2)
    means = evaluation.rows[1].checkpoints[0].means
    assert means["behaviour: loss of text"].of == len(" end of it")
    # nothing was edited: the two sentiments' odds are each other's reverse
    assert means["behaviour: ConvSent's edit success"].value == pytest.approx(0.5)
    # what knows no likelihoods has none
    assert "behaviour: verb" not in figures(evaluate(unedited, examples, unedited=unedited, edits=(1,)))


def test_success_is_void_where_the_general_text_suffers(models):
    text = Probe("behaviour", EXAMPLES[0].probes[0].prompt, ("was asked",), (), "text", running=True)
    verb = Probe("behaviour", "The officers", ("beat",), (), "verb", Criterion("nll", 1e6), running=True)
    examples = [replace(EXAMPLES[0], probes=(text, verb))]
    bounded = "behaviour: verb, text's loss up by at most 0.1%"
    evaluation = evaluate(edited_model(models), examples, edits=(1,))
    assert figures(evaluation, row=0)[bounded] == (1, 1)
    # the text begins with the edit's own prompt, and word for word nothing but the target can follow
    assert figures(evaluation)["behaviour: text"] == (0, 1)
    assert figures(evaluation)["behaviour: verb"] == (1, 1)
    assert bounded not in figures(evaluation)


def test_romes_scores_compare_two_answers(models):
    asked = EXAMPLES[0].probes[0].prompt
    probes = (
        Probe("reliability", asked, ("Lagos",), ("Valletta",)),
        Probe("same_relation", "What is the capital of Italy?", ("Rome",), ("Lagos",)),
    )
    examples = [replace(EXAMPLES[0], probes=probes)]
    evaluation = evaluate(edited_model(models), examples, edits=(1,))
    assert figures(evaluation)["efficacy"] == (1, 1)  # word for word: no other answer is possible
    before, after = figures(evaluation, row=0), figures(evaluation)
    assert before["neighbourhood"] == after["neighbourhood"]
    assert "rome_score" not in evaluation.rows[1].checkpoints[0].means  # nothing was asked in other words
    swapped = (probes[0], Probe("same_relation", probes[1].prompt, ("Lagos",), ("Rome",)))
    other = figures(evaluate(edited_model(models), [replace(examples[0], probes=swapped)], edits=(1,)))
    assert other["neighbourhood"][0] == 1 - after["neighbourhood"][0]


def test_romes_score_stands_beside_all_three(models):
    probes = (
        Probe("reliability", EXAMPLES[0].probes[0].prompt, ("Lagos",), ("Valletta",)),
        Probe("generality", EXAMPLES[0].probes[1].prompt, ("Lagos",), ("Valletta",)),
        Probe("same_relation", "What is the capital of Italy?", ("a",), ("a b c",)),
    )
    checkpoint = (
        evaluate(edited_model(models), [replace(EXAMPLES[0], probes=probes)], edits=(1,)).rows[1].checkpoints[0]
    )
    three = [checkpoint.rates[name].value for name in ("efficacy", "paraphrase", "neighbourhood")]
    assert three[:2] == [1.0, 1.0]
    assert checkpoint.means["rome_score"].value == pytest.approx(3 / (2 + 1 / three[2]) if three[2] else 0.0)


def test_an_answer_ends_where_the_data_set_says():
    def running_on(prompts: Sequence[str]) -> list[str]:
        return ["Lagos\nWhat is the capital of Peru? Lima" for _ in prompts]

    whole, ended = (
        evaluate(running_on, EXAMPLES[:1], unedited=unedited, edits=(1,), stop=stop).rows[1].checkpoints[0]
        for stop in (None, "\n")
    )
    assert whole.asked[0].got.endswith("Lima")
    assert ended.asked[0].got == "Lagos"
    for name in ("reliability", "generality", "edit_success"):
        assert (whole.rates[name].hits, ended.rates[name].hits) == (0, 1), name


class Timed:
    """Takes a known time for everything, has known bytes and teacher-forced accuracies, and says nothing."""

    note = ""

    def __init__(self, clock: list[float], per_edit: float, per_answer: float) -> None:
        self.clock = clock
        self.per_edit, self.per_answer = per_edit, per_answer
        self.made = 0

    def apply(self, edits: Sequence[Edit]) -> None:
        self.clock[0] += self.per_edit * len(edits)
        self.made += len(edits)

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        self.clock[0] += self.per_answer * len(prompts)
        return [Answer("") for _ in prompts]

    def log_likelihood(self, prompts: Sequence[str], targets: Sequence[str], *, running: bool = False) -> None:
        return None

    def token_accuracy(self, prompts: Sequence[str], targets: Sequence[str]) -> list[float]:
        return [(1 + place) / 8 for place, _ in enumerate(prompts)]

    def bytes(self) -> int:
        return 10 + 100 * self.made

    def restore(self) -> None:
        pass


def test_costs_and_teacher_forced_accuracy_by_hand(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    evaluation = evaluate(
        Timed(clock, per_edit=3.0, per_answer=0.5), EXAMPLES, unedited=Timed(clock, 0.0, 0.2), edits=(1, 4)
    )
    before, after = ([c.means for c in row.checkpoints] for row in evaluation.rows)
    for means, made, edits in ((after[0], 1, 1), (after[1], 3, 4)):
        # of the edits since the checkpoint before; asking is no part of editing
        assert (means["seconds_per_edit"].total, means["seconds_per_edit"].of) == (pytest.approx(3.0 * made), made)
        answers = 4 * edits  # of each example, four are asked
        assert means["seconds_per_answer"].of == answers
        assert means["seconds_per_answer"].value == pytest.approx(0.5)
        assert (means["overhead"].value, means["overhead"].of) == (pytest.approx(2.5), 1)
        # of all edits so far
        assert means["bytes_per_edit"] == Mean(10 + 100 * edits, edits)
        for kind in ("reliability", "generality"):
            expected = sum(range(1, edits + 1)) / 8
            assert means[f"teacher_forced_{kind}"] == Mean(expected, edits)
    assert before[1]["seconds_per_answer"].value == pytest.approx(0.2)
    for absent in ("seconds_per_edit", "overhead", "bytes_per_edit"):
        assert absent not in before[1]


def test_what_is_not_asked_has_no_cost_and_no_accuracy():
    nothing = [replace(EXAMPLES[0], probes=(Probe("portability", "Why?", ("so",)),))]
    means = evaluate(Timed([0.0], 0, 0), nothing, unedited=unedited, edits=(1,)).rows[1].checkpoints[0].means
    assert not {name for name in means if name.startswith("teacher_forced")}
    assert "fluency" not in means


def test_an_evaluation_in_which_the_other_answers_cannot_be_said_is_json(models):
    asked = EXAMPLES[0].probes[0].prompt
    probes = (
        Probe("behaviour", asked, ("Fine",), ("Dull",), "sentiment", Criterion("margin", 0.0)),
        Probe("behaviour", asked, ("Malta",), (), "hard negative", running=True),
    )
    evaluation = evaluate(edited_model(models), [replace(EXAMPLES[0], probes=probes)], edits=(1,))
    assert figures(evaluation)["behaviour: hard negative"] == (0, 1)
    means = evaluation.rows[1].checkpoints[0].means
    assert means["behaviour: ConvSent's edit success"] == Mean(0.0, 1)
    assert "behaviour: loss of hard negative" in evaluation.rows[0].checkpoints[0].means
    assert "behaviour: loss of hard negative" not in means
    assert Evaluation.from_json(evaluation.to_json()).to_json() == evaluation.to_json()


def test_romes_scores_leave_out_what_is_of_another_sort(models):
    neighbour = Probe("same_relation", "What is the capital of Italy?", ("Rome",), ("Lagos",))
    probes = (
        Probe("generality", EXAMPLES[0].probes[1].prompt, ("Lagos",), ("Valletta",)),
        Probe("generality", "Is it Lagos?", ("Yes",), ("No",), "yes or no"),
        neighbour,
        replace(neighbour, prompt="Malta is Lagos. " + neighbour.prompt, detail="distracting"),
    )
    scored = figures(evaluate(edited_model(models), [replace(EXAMPLES[0], probes=probes)], edits=(1,)))
    assert (scored["paraphrase"][1], scored["neighbourhood"][1]) == (1, 1)
    assert (scored["generality"][1], scored["locality_same_relation"][1]) == (2, 2)


# --- running it again


def test_one_seed_gives_one_json_and_another_seed_another(models):
    def text(seed: int) -> str:
        return evaluate(edited_model(models), EXAMPLES, edits=(1, 4), sample=2, seed=seed).to_json()

    assert text(0) == text(0)
    assert text(0) != text(1)


class Interrupted(KeyboardInterrupt):
    pass


def methods(models) -> dict[str, Callable[[], object]]:
    """What is edited, each made anew; beside word for word those that learn, or change weights."""
    quick = semedit.AdaptorConfig(layer="model.layers.0.mlp.down_proj", steps=3, views=0, stop_at_loss=None)

    def adaptor() -> Edited:
        memory = semedit.EditMemory(encoder=WordEncoder())
        override = semedit.AdaptorOverride(models["llama"], byte_tokenizer(chat=True), memory, quick)
        model = semedit.wrap(
            models["llama"],
            byte_tokenizer(chat=True),
            memory=memory,
            scope=semedit.SimilarityScope(),
            override=override,
        )
        return Edited(model, learn=override.learn, size=override.size)

    return {
        "verbatim": lambda: edited_model(models),
        "adaptor": adaptor,
        "fine_tuned": lambda: FineTuned(tiny_model("llama"), byte_tokenizer(chat=True), steps=2),
    }


@pytest.mark.parametrize("name", ["adaptor", "fine_tuned"])
def test_two_runs_of_what_learns_give_one_json_and_so_does_one_that_was_interrupted(models, tmp_path, name):
    made = methods(models)[name]
    base = models["llama"] if name == "adaptor" else tiny_model("llama")

    def run(subject: object, out: Path | None = None) -> Evaluation:
        untouched = Unedited(base, byte_tokenizer(chat=True))
        return evaluate(subject, EXAMPLES, unedited=untouched, edits=(1, 2, 4), unrelated=UNRELATED, out=out)

    whole = run(made())
    last = [asked.got for asked in whole.rows[1].checkpoints[-1].asked]
    assert last != [asked.got for asked in whole.rows[0].checkpoints[-1].asked], "the edits change something"
    assert run(made()).to_json() == whole.to_json()
    interrupted = made()
    asking, left = interrupted.answer, [4]  # an edit and a checkpoint, twice

    def answer(prompts: Sequence[str]) -> list[Answer]:
        if not left[0]:
            raise Interrupted
        left[0] -= 1
        return asking(prompts)

    interrupted.answer = answer
    with pytest.raises(Interrupted):
        run(interrupted, tmp_path)
    assert len(list((tmp_path / "checkpoints").glob("edited-*.json"))) == 2
    assert run(made(), tmp_path).to_json() == whole.to_json()


@pytest.mark.parametrize("calls", [1, 2, 4, 7])
def test_an_interrupted_run_goes_on_to_the_same_json(models, tmp_path, calls, monkeypatch):
    settings = {"edits": (1, 2, 4), "unrelated": UNRELATED, "out": tmp_path}
    whole = evaluate(edited_model(models), EXAMPLES, **{**settings, "out": None})
    assert "seconds" not in whole.to_json()

    left = calls
    asking = semedit.evaluation.subjects.Edited.answer

    def answer(self, prompts):
        nonlocal left
        left -= 1
        if left < 0:
            raise Interrupted
        return asking(self, prompts)

    with monkeypatch.context() as patched:
        patched.setattr(semedit.evaluation.subjects.Edited, "answer", answer)
        with pytest.raises(Interrupted):
            evaluate(edited_model(models), EXAMPLES, **settings)
    finished = len(list((tmp_path / "checkpoints").glob("edited-*.json")))
    assert finished < 3
    again = evaluate(edited_model(models), EXAMPLES, **settings)
    assert again.to_json() == whole.to_json()
    assert len(list((tmp_path / "checkpoints").glob("edited-*.json"))) == 3


def test_a_folder_of_another_evaluation_is_refused(models, tmp_path):
    evaluate(edited_model(models), EXAMPLES, edits=(1,), out=tmp_path)
    with pytest.raises(EvaluationError, match="other settings"):
        evaluate(edited_model(models), EXAMPLES, edits=(2,), out=tmp_path)
    reworded = [replace(EXAMPLES[0], probes=EXAMPLES[0].probes[:2]), *EXAMPLES[1:]]
    for examples, changes in (
        (reworded, {}),
        (EXAMPLES, {"unrelated": UNRELATED}),
        (EXAMPLES, {"setup": {"scope": "another"}}),
    ):
        with pytest.raises(EvaluationError, match="other settings"):
            evaluate(edited_model(models), examples, edits=(1,), out=tmp_path, **changes)
    evaluate(edited_model(models), EXAMPLES, edits=(1,), out=tmp_path)


def test_the_unedited_row_is_kept_with_the_times_that_methods_were_compared_with(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    for per_answer in (0.2, 7.0):
        evaluation = evaluate(
            Timed(clock, 1.0, 0.5), EXAMPLES, unedited=Timed(clock, 0, per_answer), edits=(4,), out=tmp_path
        )
        assert evaluation.rows[0].checkpoints[0].means["seconds_per_answer"].value == pytest.approx(0.2)
        assert evaluation.rows[1].checkpoints[0].means["overhead"].value == pytest.approx(2.5)


def test_the_unedited_model_is_asked_in_the_same_batches():
    asked: dict[str, list[list[str]]] = {"unedited": [], "edited": []}

    def recording(name: str) -> Callable[[Sequence[str]], list[str]]:
        def answer(prompts: Sequence[str]) -> list[str]:
            asked[name].append(list(prompts))
            return unedited(prompts)

        return answer

    evaluate(recording("edited"), EXAMPLES, unedited=recording("unedited"), edits=(1, 4), unrelated=UNRELATED)
    assert [len(prompts) for prompts in asked["unedited"]] == [6, 18]
    # besides, each edit is asked by itself straight after it is made
    assert [prompts for prompts in asked["edited"] if len(prompts) > 1] == asked["unedited"]
