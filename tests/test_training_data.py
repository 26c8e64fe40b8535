"""What the base model and the counterfactual model are trained on, and that packing changes nothing to the former."""

from __future__ import annotations

import copy
import random
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from fakes import byte_tokenizer, tiny_model

from semedit import CounterfactualOverride, Edit
from semedit.overrides.in_context import corrections_text
from semedit.prompts import Prompt

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from base_model import MuonAdamW, answer_logits, exact_answers
from conversations import IGNORED, Conversations, PackedRows, Row, Turn, collate, encode, tensors
from counterfactual_model import EditQueries, questions_of
from counterfactual_model import collate as collate_turns
from facts import Fact, without_subjects
from relations import Relation
from yes_no import ASKED, STATED, Edited, is_beginning, judged

KNOWN = [Fact((f"Where is place {i}?", f"In which land is place {i}?"), f"land {i}", f"place {i}") for i in range(12)]
WORDINGS = {"other": [Fact((f"What is in box {i}?", f"What does box {i} hold?"), "") for i in range(6)]}

MAYORS = Relation(
    name="mayor",
    of="city",
    ask=("Who is the mayor of {}?", "The mayor of {} is"),
    yes_no=("Is [A] the mayor of {}?",),
    answers=("Ida", "Ove"),
    follow_up=(),
    subjects=("Oslo", "Bonn"),
    near={"other": ("Who founded {}?",)},
)


@pytest.fixture
def conversations():
    return Conversations(KNOWN, WORDINGS, {"known": 0.6, "other": 0.4}, share_reading=0.5)


def test_a_packed_row_gives_each_branch_the_logits_that_it_has_alone():
    tokenizer, model = byte_tokenizer(chat=True), tiny_model("llama")
    correction = (("Where is A?", "Bonn"),)
    units = [
        [[Turn("Where is A?", "Bonn", correction)], [Turn("Where is B?", "Rome", correction)]],
        [[Turn("Name a river.", "Rhine"), Turn("And one more?", "Elbe")]],
    ]
    row = Row([], [], [], [], [])
    for unit in units:
        assert row.add(encode(unit, tokenizer), 1200)
    alone = sum(len(tokens) for unit in units for tokens, _ in encode(unit, tokenizer))
    assert len(row.tokens) < alone - len(corrections_text(correction))  # the shared beginning stands once
    with torch.no_grad():
        packed, targets = answer_logits(model, collate([tensors(row, 1200, tokenizer.pad_token_id)]))
        separate, expected = [], []
        for branch in (branch for unit in units for branch in unit):
            [(tokens, labels)] = encode([branch], tokenizer)
            logits = model(torch.tensor([tokens])).logits[0, :-1]
            judged = torch.tensor(labels[1:]) != IGNORED
            separate.append(logits[judged])
            expected += [label for label in labels[1:] if label != IGNORED]
    assert targets.tolist() == expected
    assert tokenizer.decode(expected).split("<|end|>")[:-1] == ["Bonn", "Rome", "Rhine", "Elbe"]
    torch.testing.assert_close(packed, torch.cat(separate), rtol=1e-4, atol=1e-4)


def test_rows_are_drawn_from_seed_and_index_alone(conversations):
    tokenizer = byte_tokenizer(chat=True)
    rows = PackedRows(conversations, tokenizer, rows=3, length=900, seed=4)
    again = PackedRows(conversations, tokenizer, rows=3, length=900, seed=4)
    assert [again[i]["input_ids"].tolist() for i in (2, 0)] == [rows[i]["input_ids"].tolist() for i in (2, 0)]
    assert rows[0]["input_ids"].tolist() != rows[1]["input_ids"].tolist()
    other = PackedRows(conversations, tokenizer, rows=3, length=900, seed=5)
    assert other[0]["input_ids"].tolist() != rows[0]["input_ids"].tolist()
    assert all(len(row["input_ids"]) == 900 for row in (rows[0], rows[1]))


def test_reading_asks_for_targets_and_for_what_the_corrections_do_not_change(conversations):
    rng = random.Random(0)
    truth = {prompt: fact.answer for fact in KNOWN for prompt in fact.prompts}
    in_scope = out_of_scope = 0
    for _ in range(60):
        for branch in conversations.reading(rng):
            turn = branch[-1]
            assert turn.corrections
            if turn.answer in [target for _, target in turn.corrections]:
                in_scope += 1
            else:
                asked = next(
                    prompt for prompt in truth if prompt.lower().rstrip("?") == turn.query.lower().rstrip("?")
                )
                assert truth[asked] == turn.answer
                assert asked not in [prompt for prompt, _ in turn.corrections]
                out_of_scope += 1
    assert in_scope > 60
    assert out_of_scope > 60


def test_units_that_ask_whether_an_answer_is_right_ask_it_of_a_right_and_of_a_wrong_one():
    wordings = {"other": [Fact((f"What is in box {i}?", f"Box {i} holds what?"), "") for i in range(6)]}
    conversations = Conversations(KNOWN, wordings, {"other": 1.0}, 1.0, share_yes_no=1.0)
    rng, box = random.Random(0), re.compile(r"box (\d)", re.IGNORECASE)
    for _ in range(60):
        turns = [branch[-1] for branch in conversations.reading(rng)]
        assert [turn.answer for turn in turns if turn.answer in ("Yes", "No")] == ["Yes", "No"]
        targets = defaultdict(list)
        for prompt, target in turns[0].corrections:
            targets[box.search(prompt)[1]].append(target.lower())
        for turn in turns:
            if turn.answer in ("Yes", "No"):
                decided_by = targets[box.search(turn.query)[1]]
                assert decided_by
                assert turn.answer == "No" or any(target in turn.query.lower() for target in decided_by)


def test_wrong_answers_are_expected_ones_those_of_other_edits_or_nearly_right(conversations):
    prompt = "Where is Bonn?"
    edited = Edited((prompt,), "Upper Rome", rivals=("Bern",), whether=("Does Bonn lie in [A]?",))
    rng = random.Random(0)
    frames = [*ASKED, "Does Bonn lie in {answer}?"]
    right = {frame.format(prompt=prompt, answer="Upper Rome").lower().rstrip("?") for frame in frames}
    wrong = []
    for _ in range(300):
        yes, no = conversations.yes_or_no(edited, conversations.invention.rival(edited, ["Oslo"], rng), rng)
        assert (yes.answer, no.answer) == ("Yes", "No")
        assert yes.query.lower().rstrip("?") in right
        assert no.query.lower().rstrip("?") not in right
        wrong.append(no.query)
    for name in ("Bern", "Oslo", " Rome", "Upper ", "Does Bonn lie in "):
        assert sum(name in query for query in wrong) > 15, name


def test_of_two_answers_either_may_be_the_target(conversations):
    edited = Edited(("Where is Bonn?",), "Rome", rivals=("Bern",))
    rng = random.Random(0)
    targets = []
    for _ in range(300):
        contrasted, rival = conversations.contrasted(edited, (), rng)
        assert (contrasted.answer == "Rome") != (rival == "Rome")
        assert contrasted.prompts == edited.prompts
        targets.append(contrasted.answer)
    assert 100 < targets.count("Rome") < 200
    assert targets.count("Bern") > 20


def test_a_prompt_that_begins_a_statement_is_asked_about_as_one():
    rng = random.Random(0)
    begun = Edited(("The capital of Oz is",), "Rome")
    assert {begun.asked_whether("Rome", rng) for _ in range(400)} == {
        frame.format(("The" if frame[0] == "{" else "the") + " capital of Oz is Rome") for frame in STATED
    }
    for prompt in ("Oz was founded in", "Oz, developed by", "The heritage of Oz is", "Ann plays the"):
        assert is_beginning(prompt), prompt
    for prompt in ("Where is Oz in", "who plays the", "In which land is", "Oz mayor", "Tell me who Oz is led by"):
        assert not is_beginning(prompt), prompt


def test_wordings_of_a_relation_are_read_and_its_near_misses_are_not():
    rng = random.Random(0)
    conversations = Conversations(KNOWN, {}, {"relations": 1.0}, 1.0, [MAYORS], share_yes_no=0.5)
    queries, targets, subjects = set(), set(), set()
    for _ in range(200):
        for turn in (branch[-1] for branch in conversations.reading(rng)):
            for prompt, target in turn.corrections:
                match = re.fullmatch(r"Who is the mayor of (.*)\?|The mayor of (.*) is", prompt)
                subjects.add(match[1] or match[2])
                targets.add(target)
            queries.add(turn.query)
    assert subjects > {"Oslo", "Bonn"}
    assert targets > {"Ida", "Ove"}
    assert any(re.fullmatch("Is .* the mayor of Oslo\\?", query) for query in queries)
    assert not any("founded" in query for query in queries)


def test_the_evaluation_asks_half_of_the_edits_with_the_target_and_half_with_another_answer():
    edits = [Edited((f"Where is {i}?",), f"land {i}", rivals=("Bern",)) for i in range(40)]
    questions = judged(edits, random.Random(0))
    for i, (query, said) in enumerate(questions):
        assert f"Where is {i}?" in query
        assert said == ("Yes" if i % 2 == 0 else "No")
        assert bool(re.search(rf"land {i}(?!\d)", query)) == (said == "Yes")
        assert ("Bern" in query) == (i % 4 == 1)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_the_counterfactual_model_is_trained_on_what_its_override_has_it_read(kind):
    model, tokenizer = tiny_model(kind), byte_tokenizer(chat=kind == "llama")
    turn = Turn("Who leads Oz?", "Ida", (("Oz is led by", "Ida"),))
    long = Turn("Who? " * 80, "Ida", (("Oz is led by", "Ida"),))
    batch = collate_turns([turn, long, turn], model, tokenizer, 300)
    prompt = Prompt(turn.query, 0, turn.query, turn.query, rendered=False)
    override = CounterfactualOverride(model, tokenizer, model, tokenizer)
    with override.prepare([prompt], [[Edit(id="-", prompt="Oz is led by", target="Ida")]]) as call:
        [text] = call.inner.texts
        expected = call.log_likelihood(["Ida<|end|>"])[0]
    assert batch["input_ids"].shape[0] == 2  # the long one is left out
    read, labels = batch["input_ids"][0], batch["labels"][0]
    answer = tokenizer.decode(labels[labels != IGNORED])
    assert answer == (" Ida<|end|>" if kind == "gpt2" else "Ida<|end|>")
    if kind == "t5":
        assert tokenizer.decode(read) == text == "Oz is led by Ida Who leads Oz?<|end|>"
    else:
        assert tokenizer.decode(read[labels == IGNORED]) == text
    with torch.no_grad():
        loss = model(**batch).loss
    assert float(loss) * len(labels[labels != IGNORED]) == pytest.approx(-expected, rel=1e-3)


def test_the_counterfactual_model_is_asked_what_edits_answer_drawn_from_seed_and_index(conversations):
    def kinds(queries):
        turns = [EditQueries(conversations, queries, 80, seed=2)[i] for i in range(80)]
        assert turns == [EditQueries(conversations, queries, 80, seed=2)[i] for i in range(80)]
        assert turns != [EditQueries(conversations, queries, 80, seed=3)[i] for i in range(80)]
        assert all(turn.answer in (turn.corrections[0][1], "Yes", "No") for turn in turns)
        return turns

    assert all(t.query.lower().rstrip("?") == t.corrections[0][0].lower().rstrip("?") for t in kinds({"question": 1}))
    assert all(t.query.lower().rstrip("?") != t.corrections[0][0].lower().rstrip("?") for t in kinds({"rephrase": 1}))
    assert {turn.answer for turn in kinds({"yes_no": 1})} == {"Yes", "No"}


def test_held_out_edits_are_asked_with_their_correction_in_front():
    edits = [Edited((f"Where is {i}?", f"{i} lies where?"), f"land {i}", rivals=("Bern",)) for i in range(8)]
    questions = questions_of(edits, seed=0)
    assert questions["question"][3] == Turn("Where is 3?", "land 3", (("Where is 3?", "land 3"),))
    assert questions["rephrase"][3] == Turn("3 lies where?", "land 3", (("Where is 3?", "land 3"),))
    assert [turn.answer for turn in questions["yes_no"]] == ["Yes", "No"] * 4


def test_facts_that_name_a_subject_left_out_are_left_out():
    facts = [Fact(("Where is Bonn?",), "x"), Fact(("Where is Bonnville?",), "x"), Fact(("Who?", "In Bonn, who?"), "x")]
    assert without_subjects(facts, ["Bonn"]) == [facts[1]]
    assert without_subjects(facts, []) == facts


def test_exact_answers_counts_whole_answers_with_their_end():
    tokenizer, model = byte_tokenizer(chat=True), tiny_model("llama")
    learned = [[Turn("hi", "yo")]]
    units = [learned, [[Turn("hi", "yoo")]], [[Turn("hi", "y")]], [[Turn("hi", "no")]]]
    assert exact_answers(model, units, tokenizer) == 0.0
    row = Row([], [], [], [], [])
    assert row.add(encode(learned, tokenizer), 60)
    batch = collate([tensors(row, 60, tokenizer.pad_token_id)])
    optimiser = MuonAdamW(model, lr=0.01, weight_decay=0.0)
    for _ in range(60):
        logits, targets = answer_logits(model, batch)
        torch.nn.functional.cross_entropy(logits, targets).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert exact_answers(model, units, tokenizer) == 0.25


def test_the_optimiser_moves_every_parameter_and_resumes_where_it_was():
    model, twin = tiny_model("llama"), tiny_model("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = MuonAdamW(model, lr=0.01, weight_decay=0.0)

    def step(model, optimiser):
        ids = torch.arange(40)[None]
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    step(model, optimiser)
    assert all(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    twin.load_state_dict(model.state_dict())
    resumed = MuonAdamW(twin, lr=0.5, weight_decay=0.0)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    step(model, optimiser)
    step(twin, resumed)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name])
