"""What each override reads, and how its text becomes tokens of the base."""

from __future__ import annotations

import re

import pytest
from fakes import SPECIAL_TOKENS, WordEncoder, byte_tokenizer, tiny_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, RepetitionPenaltyLogitsProcessor

import semedit
from semedit.edits import Edit
from semedit.overrides.base import continuation_ids
from semedit.overrides.in_context import INSTRUCTION
from semedit.overrides.text import closing_token_ids
from semedit.prompts import read_prompt

EDITS = [
    Edit(id="1", prompt="Who runs Acme?", target="Jane Doe"),
    Edit(id="2", prompt="Where is Acme?", target="Bonn"),
]
STATED = f"{INSTRUCTION}\n\nWho runs Acme?\nJane Doe\n\nWhere is Acme?\nBonn\n\n"


def chat_prompt(tokenizer, *turns):
    messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return read_prompt(tokenizer, text)


def reversed_tokenizer():
    """A byte tokenizer in which no token has the number that it has in `byte_tokenizer`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=True)
    vocabulary = {token: i for i, token in enumerate(SPECIAL_TOKENS + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")


def test_corrections_stand_before_the_last_user_turn():
    tokenizer = byte_tokenizer(chat=True)
    override = semedit.InContextOverride(tiny_model("llama"), tokenizer)
    prompt = chat_prompt(tokenizer, "Hi.", "Hello.", "Who runs Acme?")
    with override.prepare([prompt], [EDITS]) as call:
        assert call.texts == [
            f"<|user|>Hi.<|end|><|assistant|>Hello.<|end|><|user|>{STATED}Who runs Acme?<|end|><|assistant|>"
        ]


def test_corrections_stand_before_a_plain_prompt():
    override = semedit.InContextOverride(tiny_model("llama"), byte_tokenizer())
    with override.prepare([read_prompt(byte_tokenizer(), "Acme is run by")], [EDITS]) as call:
        assert call.texts == [f"{STATED}Acme is run by"]
        assert call.separators == [" "]


def test_what_opens_a_text_opens_it_with_corrections_too():
    tokenizer = byte_tokenizer(opens=True)
    override = semedit.InContextOverride(tiny_model("llama"), tokenizer)
    with override.prepare([read_prompt(tokenizer, "Acme is run by")], [EDITS]) as call:
        assert call.texts == [f"<|system|>{STATED}Acme is run by"]


def test_in_an_ensemble_the_small_model_alone_reads_corrections():
    tokenizer = byte_tokenizer(chat=True)
    base, small = tiny_model("llama"), tiny_model("gpt2")
    prompt = chat_prompt(tokenizer, "Hi.", "Hello.", "Who runs Acme?")
    before = "<|user|>Hi.<|end|><|assistant|>Hello.<|end|><|user|>"
    with semedit.EnsembleOverride(base, tokenizer, small).prepare([prompt], [EDITS]) as call:
        assert (call.model, call.texts) == (base, [prompt.text])
        assert call.small.model is small
        assert call.small.texts == [f"{before}{STATED}Who runs Acme?<|end|><|assistant|>", prompt.text]
        assert call.separators == [""]


@pytest.mark.parametrize(
    ("kind", "chat", "expected"),
    [
        ("llama", True, f"<|user|>{STATED}Who founded Acme? Who leads it?<|end|><|assistant|>"),
        ("llama", False, "Who runs Acme? Jane Doe Who founded Acme? Who leads it?"),
        ("t5", False, "Who runs Acme? Jane Doe Who founded Acme? Who leads it?<|end|>"),
    ],
)
def test_a_counterfactual_model_reads_edit_and_query(kind, chat, expected):
    base_tokenizer = byte_tokenizer(chat=True)
    small_tokenizer = byte_tokenizer(chat=chat)
    override = semedit.CounterfactualOverride(
        tiny_model("llama"), base_tokenizer, tiny_model(kind, seed=1), small_tokenizer
    )
    prompt = chat_prompt(base_tokenizer, "Hi.", "Hello.", "Who founded Acme?", "Bob", "Who leads it?")
    with override.prepare([prompt], [EDITS]) as call:
        assert call.inner.texts == [expected]


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_a_counterfactual_model_with_another_tokenizer_is_bridged_by_text(kind):
    base, tokenizer = tiny_model("llama"), byte_tokenizer()
    small, small_tokenizer = tiny_model(kind, seed=2), reversed_tokenizer()
    override = semedit.CounterfactualOverride(base, tokenizer, small, small_tokenizer)
    model = semedit.wrap(base, tokenizer, encoder=WordEncoder(), scope=semedit.SimilarityScope(), override=override)
    model.edits.add("Who runs Acme?", "Jane Doe")
    ends = small_tokenizer.eos_token if kind == "t5" else ""
    read = small_tokenizer(f"Who runs Acme? Jane Doe Who runs Acme?{ends}", return_tensors="pt")
    written = small.generate(
        input_ids=read["input_ids"], attention_mask=read["attention_mask"], max_new_tokens=9, do_sample=False
    )
    start = 1 if kind == "t5" else read["input_ids"].shape[1]
    answer = small_tokenizer.decode(written[0, start:], skip_special_tokens=True).strip()
    assert answer
    inputs = tokenizer(["Who runs Acme?"], return_tensors="pt")
    got = model.generate(**inputs, max_new_tokens=9, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()
    expected = tokenizer(" " + answer)["input_ids"][:9]
    assert got[: len(expected)] == expected
    assert small_tokenizer(answer)["input_ids"] != tokenizer(answer)["input_ids"]


def answered_by(small):
    """An edited model in whose place another answers, with the same tokenizer."""
    base, tokenizer = tiny_model("llama"), byte_tokenizer()
    override = semedit.CounterfactualOverride(base, tokenizer, small, tokenizer)
    model = semedit.wrap(base, tokenizer, encoder=WordEncoder(), scope=semedit.SimilarityScope(), override=override)
    model.edits.add("Who runs Acme?", "Jane Doe")
    return model


def test_penalties_count_what_a_counterfactual_model_writes_alone():
    small, tokenizer = tiny_model("gpt2", seed=3), byte_tokenizer()
    model = answered_by(small)
    inputs = tokenizer(["Who runs Acme?"], return_tensors="pt")
    read = tokenizer(["Who runs Acme? Jane Doe Who runs Acme?"], return_tensors="pt")
    options = {"max_new_tokens": 60, "do_sample": False}

    def written(ignored):
        penalty = RepetitionPenaltyLogitsProcessor(9.0, prompt_ignore_length=ignored)
        ids = small.generate(**read, logits_processor=[penalty], **options)[0, read["input_ids"].shape[1] :]
        return tokenizer(" " + tokenizer.decode(ids, skip_special_tokens=True).strip())["input_ids"][:60]

    expected = written(read["input_ids"].shape[1])
    assert expected != written(0)
    answer = model.generate(**inputs, **options, repetition_penalty=9.0)[0, inputs["input_ids"].shape[1] :].tolist()
    assert answer[: len(expected)] == expected


def test_what_the_call_leaves_open_is_not_filled_from_the_counterfactual_models_defaults():
    small, tokenizer = tiny_model("gpt2", seed=3), byte_tokenizer()
    model = answered_by(small)
    inputs = tokenizer(["Who runs Acme?"], return_tensors="pt")
    expected = model.generate(**inputs, max_new_tokens=9).tolist()
    own = small.generate(**inputs, max_new_tokens=9).tolist()
    small.generation_config.repetition_penalty = 9.0
    assert small.generate(**inputs, max_new_tokens=9).tolist() != own
    assert model.generate(**inputs, max_new_tokens=9).tolist() == expected


def test_a_counterfactual_model_ends_as_it_ends_itself():
    small, tokenizer = tiny_model("t5", seed=6), byte_tokenizer()
    model = answered_by(small)
    inputs = tokenizer(["Who runs Acme?"], return_tensors="pt")

    def answer():
        return model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()

    free = answer()
    read = tokenizer("Who runs Acme? Jane Doe Who runs Acme?<|end|>", return_tensors="pt")
    written = small.generate(**read, max_new_tokens=12, do_sample=False)[0, 1:].tolist()
    small.generation_config.eos_token_id = written[2]
    first_two = tokenizer.decode(written[:3]).strip()
    assert answer() == [*tokenizer(" " + first_two)["input_ids"], 1][:12]
    assert answer() != free


def test_an_answer_is_tokenised_as_it_follows_its_prompt():
    class Merging:
        """Words are tokens, and a space belongs to the word after it."""

        def __call__(self, text, add_special_tokens):

            return {"input_ids": re.findall(r" ?\w+| ", text)}

    assert continuation_ids(Merging(), "is", " Jane") == [" Jane"]
    assert continuation_ids(Merging(), "is ", "Jane") == ["Jane"]  # the space of the text would merge with the answer


def test_an_answer_closes_as_the_chat_template_closes_it():
    tokenizer = byte_tokenizer(chat=True)
    config = tiny_model("llama").generation_config
    config.eos_token_id = [0, 1]
    assert closing_token_ids(config, tokenizer) == [1]
    assert closing_token_ids(config, byte_tokenizer()) == [0]
    config.eos_token_id = None
    assert closing_token_ids(config, tokenizer) == []
