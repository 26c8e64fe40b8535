"""Asking a model: what comes back does not depend on what else is asked, and ends where the model ends it."""

from __future__ import annotations

import pytest
from fakes import KINDS, WordEncoder, byte_tokenizer, tiny_model

import semedit
from semedit.evaluation.asking import ask, ask_with_routes, texts_of

QUESTIONS = ["Who leads Acme now, and who led it before?", "Hi", "Where is it?", "How high is the tower?", "Why"]


@pytest.fixture(params=KINDS)
def model(request, models):
    return models[request.param]


@pytest.mark.parametrize("chat", [True, False])
def test_each_question_is_answered_as_it_is_alone(model, chat):
    tokenizer = byte_tokenizer(chat=chat)
    alone = []
    for question in QUESTIONS:
        text = f"<|user|>{question}<|end|><|assistant|>" if chat else question
        ids = tokenizer(text, return_tensors="pt")
        read = 1 if model.config.is_encoder_decoder else ids["input_ids"].shape[1]
        row = model.generate(**ids, do_sample=False, max_new_tokens=9)[0, read:].tolist()
        alone.append(row[: row.index(1)] if 1 in row else row)
    assert len(set(map(tuple, alone))) > 2
    for side in ("left", "right"):  # whatever the tokenizer would do
        tokenizer.padding_side = side
        assert ask(model, tokenizer, QUESTIONS, max_new_tokens=9, batch_size=2) == alone
    assert ask(model, tokenizer, [], max_new_tokens=9) == []


def test_an_answer_is_as_long_as_the_model_makes_it():
    model, tokenizer = tiny_model("llama"), byte_tokenizer(chat=True)
    model.generation_config.eos_token_id = None
    [free, other] = ask(model, tokenizer, QUESTIONS[:2], max_new_tokens=30)
    assert len(free) == len(other) == 30
    end = next(i for i in range(3, 30) if free[i] not in free[:i])
    model.generation_config.eos_token_id = free[end]
    stopped, another = ask(model, tokenizer, QUESTIONS[:2], max_new_tokens=30)
    assert stopped == free[:end]
    assert another == (other[: other.index(free[end])] if free[end] in other else other)


def test_sampling_and_beams_that_the_model_asks_for_are_left_out():
    model, tokenizer = tiny_model("llama"), byte_tokenizer(chat=True)
    greedy = ask(model, tokenizer, QUESTIONS, max_new_tokens=9)
    model.generation_config.update(do_sample=True, num_beams=3)
    assert ask(model, tokenizer, QUESTIONS, max_new_tokens=9) == greedy


@pytest.mark.parametrize("kind", KINDS)
def test_answers_come_with_their_routes(models, kind):
    tokenizer = byte_tokenizer(chat=kind == "llama")
    model = semedit.wrap(
        models[kind], tokenizer, encoder=WordEncoder(), scope=semedit.SimilarityScope(), override="verbatim"
    )
    model.edits.add(QUESTIONS[3], "Tall")
    model.edits.add(QUESTIONS[1], "Hello", namespace="other")
    answered = ask_with_routes(model, QUESTIONS, max_new_tokens=9, batch_size=2)
    assert [route.query for _, route in answered] == QUESTIONS
    assert [route.in_scope for _, route in answered] == [False, False, False, True, False]
    assert [ids for ids, _ in answered] == ask(model, tokenizer, QUESTIONS, max_new_tokens=9)
    texts = texts_of(tokenizer, [ids for ids, _ in answered])
    assert texts[3] == "Tall"
    assert texts[1] != "Hello"
    elsewhere = ask_with_routes(model, QUESTIONS, max_new_tokens=9, namespaces=["other"])
    assert texts_of(tokenizer, [elsewhere[1][0]]) == ["Hello"]
    assert [route.in_scope for _, route in elsewhere] == [False, True, False, False, False]


def test_a_bar_shows_where_it_is_asked_for(models, capsys):
    for desc, shown in ((None, False), ("asking", True)):
        ask(models["llama"], byte_tokenizer(), QUESTIONS[:2], max_new_tokens=2, desc=desc)
        assert ("asking: 100%" in capsys.readouterr().err) is shown
