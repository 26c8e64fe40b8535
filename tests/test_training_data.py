"""What the base model is trained on: packed rows are the same to it as conversations one by one."""

from __future__ import annotations

import copy
import random
import sys
from pathlib import Path

import pytest
import torch
from fakes import byte_tokenizer, tiny_model

from semedit.overrides.in_context import corrections_text

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from base_model import MuonAdamW, answer_logits, exact_answers
from conversations import IGNORED, Conversations, PackedRows, Row, Turn, collate, encode, tensors
from facts import Fact, without_subjects

KNOWN = [Fact((f"Where is place {i}?", f"In which land is place {i}?"), f"land {i}", f"place {i}") for i in range(12)]
WORDINGS = {"other": [Fact((f"What is in box {i}?", f"What does box {i} hold?"), "") for i in range(6)]}


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
