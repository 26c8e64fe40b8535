"""The query is found in the prompt as people write it and as chat templates render it."""

from __future__ import annotations

import pytest
import torch
from fakes import CHAT_TEMPLATE, byte_tokenizer

from semedit.prompts import (
    ChatFormat,
    Prompt,
    as_prompt,
    is_follow_up,
    read_prompt,
    read_prompts,
    running_prompt,
)

TEMPLATES = {
    "plain": CHAT_TEMPLATE,
    # the shape of ChatML with a default system message
    "chatml": (
        "{% if messages[0]['role'] != 'system' %}<|system|>\nYou help.<|end|>\n{% endif %}"
        "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    # instruction brackets of ordinary characters, and answers that no token opens
    "brackets": (
        "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% else %} {{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    ),
    # what a template adds for generation alone, such as an empty thought
    # marks of which two end alike, so that what stands before a user's words looks longer than it is
    "like_marks": (
        "<begin of text>{% for m in messages %}{% if m['role'] == 'user' %}<user>{{ m['content'] }}<assistant>"
        "{% elif m['role'] == 'system' %}{{ m['content'] }}{% else %}{{ m['content'] }}<end of text>{% endif %}"
        "{% endfor %}"
    ),
    # a system message inside the first user turn, with a mark after it
    "system_in_turn": (
        "{% for m in messages %}{% if m['role'] == 'system' %}[INST] <<SYS>>{{ m['content'] }}<</SYS>>\n\n"
        "{% elif m['role'] == 'user' %}{% if not (loop.previtem and loop.previtem['role'] == 'system') %}[INST] "
        "{% endif %}{{ m['content'] }} [/INST]{% else %} {{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    ),
    "no_system": (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
        "<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "thinking": CHAT_TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|><think></think>{% endif %}"),
}


def tokenizer_with(template: str):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATES[template]
    return tokenizer


def read(tokenizer, *conversations):
    texts = [
        tokenizer.apply_chat_template(
            [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)],
            tokenize=False,
            add_generation_prompt=True,
        )
        for turns in conversations
    ]
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    return texts, read_prompts(tokenizer, batch["input_ids"], batch["attention_mask"])


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_question_is_the_last_user_turn(template):
    tokenizer = tokenizer_with(template)
    texts, prompts = read(
        tokenizer, ["Who runs Acme?"], ["Name a river.", "Rhine", "Who is the mayor of the town of Bonn?"]
    )
    assert [prompt.question for prompt in prompts] == ["Who runs Acme?", "Who is the mayor of the town of Bonn?"]
    assert [prompt.query for prompt in prompts] == [prompt.question for prompt in prompts]
    for text, prompt in zip(texts, prompts, strict=True):
        assert prompt.rendered
        assert prompt.text == text
        assert prompt.text[prompt.start :].startswith(prompt.question)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_short_follow_up_is_judged_with_the_turn_before_it(template):
    _, [prompt] = read(tokenizer_with(template), ["Who runs Acme?", "Jane Doe", "And who ran it before?"])
    assert prompt.question == "And who ran it before?"
    assert prompt.query == "Who runs Acme? And who ran it before?"


def test_a_follow_up_passes_over_a_remark_between():
    tokenizer = tokenizer_with("plain")
    said = ["Who runs Acme?", "Jane Doe", "Ok, thanks!", "You are welcome.", "And who ran it before?"]
    assert read(tokenizer, said)[1][0].query == "Who runs Acme? And who ran it before?"
    said[2] = "ok, and the mayor of Bonn?"
    assert read(tokenizer, said)[1][0].query == "ok, and the mayor of Bonn? And who ran it before?"
    said[2] = "mayor of Bonn"
    assert read(tokenizer, said)[1][0].query == "mayor of Bonn And who ran it before?"
    assert read(tokenizer, ["Thanks!", "You are welcome.", "And who ran it before?"])[1][0].query == said[-1]


@pytest.mark.parametrize("template", TEMPLATES.keys() - {"no_system"})
@pytest.mark.parametrize("earlier", [[], ["Name a river.", "Rhine"]])
def test_a_system_message_is_no_part_of_the_question(template, earlier):
    tokenizer = tokenizer_with(template)
    turns = [*earlier, "Who runs Acme?"]
    messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    messages.insert(0, {"role": "system", "content": "You are brief. Where is it?"})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert "You are brief." in text
    prompt = read_prompt(tokenizer, text)
    assert (prompt.rendered, prompt.question, prompt.query) == (True, "Who runs Acme?", "Who runs Acme?")
    assert prompt.text[prompt.start :].lstrip().startswith("Who runs Acme?")


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("and who ran it before?", True),
        ("What about her brother?", True),
        ("why", True),
        ("and its capital", True),
        ("their chief executive", True),
        ("ok, tell me where it is", True),
        ("Is that so?", True),
        ("Thanks, that helps!", False),
        ("Ok, that is good to know.", False),
        ("But I do not like it", False),
        ("I already knew that.", False),
        ("why?", True),
        ("Why is the sky blue?", False),
        ("Who runs Acme?", False),
        ("Explain how the treaty was signed and what it meant for the people of the valley", False),
    ],
)
def test_what_counts_as_a_follow_up(question, expected):
    assert is_follow_up(question) is expected


def test_a_prompt_that_no_template_rendered_is_the_query():
    tokenizer = tokenizer_with("plain")
    batch = tokenizer(["  Who runs Acme?\n"], return_tensors="pt")
    [prompt] = read_prompts(tokenizer, batch["input_ids"], None)
    assert (prompt.query, prompt.start, prompt.rendered) == ("Who runs Acme?", 0, False)
    assert prompt.text == "  Who runs Acme?\n"


def test_what_opens_a_text_is_no_part_of_it_and_is_written_once():
    tokenizer = byte_tokenizer(opens=True)
    batch = tokenizer(["Who runs Acme?"], return_tensors="pt")
    [of_ids] = read_prompts(tokenizer, batch["input_ids"], None)
    for prompt in (
        of_ids,
        as_prompt(tokenizer, "Who runs Acme?"),
        read_prompt(tokenizer, "Who runs Acme?"),
        read_prompt(tokenizer, "<|system|>Who runs Acme?"),
        running_prompt(tokenizer, "Who runs Acme?"),
    ):
        assert prompt == Prompt(
            "<|system|>Who runs Acme?", len("<|system|>"), "Who runs Acme?", "Who runs Acme?", rendered=False
        )
    assert running_prompt(tokenizer, "").text == "<|system|>"
    assert running_prompt(byte_tokenizer(), "").text == "<|end|>"


def test_behind_a_cache_the_mask_is_longer_than_the_row():
    ids = torch.tensor([byte_tokenizer()("Acme?")["input_ids"]])
    [prompt] = read_prompts(byte_tokenizer(), ids, torch.ones(1, 12, dtype=torch.long))
    assert prompt.text == "Acme?"


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("text", ["naïve café 東京 🦀", "a\tb\n\nc", " "])
def test_text_survives_and_padding_is_left_away(text, mask):
    tokenizer = byte_tokenizer()
    batch = tokenizer([text, "x" * 60], return_tensors="pt", padding=True)
    assert batch["attention_mask"][0].sum() < 60
    prompts = read_prompts(tokenizer, batch["input_ids"], batch["attention_mask"] if mask else None)
    assert [prompt.text for prompt in prompts] == [text, "x" * 60]


def test_padding_that_may_be_an_end_is_kept_without_a_mask():
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    ids = torch.tensor([[1, 1, *tokenizer("hi")["input_ids"]]])
    assert read_prompts(tokenizer, ids, None)[0].text == "<|end|><|end|>hi"


def test_a_template_that_marks_no_turns_is_no_chat():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert ChatFormat.of(tokenizer) is None
    # one that expects each turn as a list of parts, as models of images have it
    tokenizer.chat_template = (
        "{% for m in messages %}<|user|>{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}"
    )
    assert ChatFormat.of(tokenizer) is None
    assert ChatFormat.of(byte_tokenizer()) is None
    assert ChatFormat.of(byte_tokenizer(chat=True)) == ChatFormat(
        "<|user|>", "<|end|><|assistant|>", "<|end|><|user|>"
    )
