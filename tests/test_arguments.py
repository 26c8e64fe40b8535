"""Each argument of `generate` has been decided on: honoured for an edited row, or refused by name."""

from __future__ import annotations

import inspect

import pytest
from fakes import byte_tokenizer, tiny_model
from transformers import GenerationConfig, GenerationMixin

from semedit.arguments import CONFIG_HONOURED, CONFIG_REFUSED, HONOURED, REFUSED, GenerateArguments
from semedit.errors import UnsupportedArgumentError


def test_every_parameter_of_generate_is_decided_on():
    parameters = set(inspect.signature(GenerationMixin.generate).parameters) - {"self", "kwargs"}
    assert len(parameters) > 5
    assert parameters <= HONOURED | REFUSED
    assert not HONOURED & REFUSED


def test_every_field_of_a_generation_config_is_decided_on():
    bookkeeping = {"_from_model_config", "transformers_version"}
    fields = set(vars(GenerationConfig())) - bookkeeping
    assert len(fields) > 40
    assert fields <= CONFIG_HONOURED | CONFIG_REFUSED
    assert not CONFIG_HONOURED & CONFIG_REFUSED


def bind(*args, **kwargs):
    model = tiny_model("llama")
    return GenerateArguments.bind(model.generate, model.generation_config, args, kwargs)


def test_binding_reads_positions_names_and_configs_alike():
    ids = byte_tokenizer()(["ab"], return_tensors="pt")["input_ids"]
    config = GenerationConfig(max_new_tokens=3)
    for args, kwargs in [
        ((ids,), {"max_new_tokens": 3}),
        ((), {"input_ids": ids, "max_new_tokens": 3}),
        ((ids, config), {}),
        ((), {"inputs": ids, "generation_config": config}),
    ]:
        call = bind(*args, **kwargs)
        assert call.input_ids is ids
        assert call.config.max_new_tokens == 3
        assert call.new_tokens(2, None) == (0, 3)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_length": 9}, (0, 7)),
        ({"max_length": 9, "min_length": 5}, (3, 7)),
        ({"max_new_tokens": 4, "min_new_tokens": 2}, (2, 4)),
        ({}, (0, 20)),
    ],
)
def test_lengths_count_the_prompt(given, expected):
    call = bind(**given)
    assert call.new_tokens(2, None) == expected


def test_the_default_length_stays_within_the_models_positions():
    assert bind().new_tokens(40, 50) == (0, 10)


@pytest.mark.parametrize("name", ["pixel_values", "assistant_model", "past_key_values"])
def test_what_nobody_decided_on_is_refused_too(name):
    call = bind(**{name: object()})
    with pytest.raises(UnsupportedArgumentError, match=name):
        call.refuse_unsupported()
    bind(**{name: None}).refuse_unsupported()
