"""Layers by name, and hooks that act in one call and one thread alone."""

from __future__ import annotations

import threading

import pytest
import torch
from fakes import KINDS, byte_tokenizer, tiny_model
from torch import nn

from semedit.errors import LayerError, UnsupportedArgumentError
from semedit.hooks import embedding_path, first_layer, layer_at, layer_inputs, layer_outputs, replaced_output

DEFAULT = {
    "llama": "model.layers.0.mlp.down_proj",
    "gpt2": "transformer.h.0.mlp.c_proj",
    "t5": "encoder.block.0.layer.1.DenseReluDense.wo",
}


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def ones(positions: int, rows: int = 1) -> torch.Tensor:
    """What `nn.Identity()` is given below."""
    return torch.ones(rows, positions, 2)


# --- names


def test_a_layer_is_found_by_its_path(models):
    model = models["llama"]
    assert layer_at(model, "model.layers.1.mlp.down_proj") is model.model.layers[1].mlp.down_proj


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("model.layers.1.mlp.down", "model.layers.1.mlp.down_proj"),
        ("layers.1.mlp.down_proj", "model.layers.1.mlp.down_proj"),
        ("model.layers.9.mlp.down_proj", "model.layers.1.mlp.down_proj"),
        ("model.no", "model.norm"),
        ("model.zzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "model.embed_tokens, model.layers"),
        ("zzz", "model, lm_head"),
        ("", "model, lm_head"),
    ],
)
def test_a_wrong_path_names_the_modules_near_to_it(models, path, near):
    with pytest.raises(LayerError, match="LlamaForCausalLM has no module") as error:
        layer_at(models["llama"], path)
    message = str(error.value)
    assert repr(path) in message
    assert near in message


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_layer_is_the_last_linear_one_of_the_first_block(models, kind):
    assert first_layer(models[kind]) == DEFAULT[kind]


def test_a_model_without_blocks_needs_a_named_layer():
    model = tiny_model("llama")
    model.model.layers = nn.ModuleList()
    with pytest.raises(LayerError, match="cannot tell which layer of LlamaForCausalLM to adapt"):
        first_layer(model)


# --- what a layer is given


@pytest.mark.parametrize("kind", KINDS)
def test_layer_inputs_are_what_an_ordinary_hook_sees(models, kind):
    model = models[kind]
    inputs = dict(byte_tokenizer()(["Who runs Acme?", "Name a river."], return_tensors="pt", padding=True))
    if kind == "t5":
        inputs["decoder_input_ids"] = torch.zeros(2, 1, dtype=torch.long)
    layer = layer_at(model, DEFAULT[kind])
    expected = []
    handle = layer.register_forward_pre_hook(lambda module, args: expected.append(args[0]))
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    before = hooks(model)
    got = layer_inputs(model, layer, **inputs)
    assert torch.equal(got, expected[0])
    assert got.shape == (2, 14, layer.weight.shape[1 if kind != "gpt2" else 0])
    assert not got.requires_grad
    assert hooks(model) == before  # transformers may have left some of its own


def test_the_pass_for_layer_inputs_ends_at_the_layer(models):
    model = models["llama"]
    ran = []
    handle = model.model.layers[1].register_forward_hook(lambda *_: ran.append(1))
    try:
        layer_inputs(model, model.model.layers[0].mlp.down_proj, input_ids=torch.tensor([[9, 8]]))
        assert ran == []
        layer_inputs(model, model.lm_head, input_ids=torch.tensor([[9, 8]]))
        assert ran == [1]
    finally:
        handle.remove()


def test_a_layer_that_the_pass_does_not_come_to_is_an_error(models):
    with pytest.raises(LayerError, match="never came to this layer"):
        layer_inputs(models["llama"], nn.Linear(2, 2), input_ids=torch.tensor([[9]]))
    # a T5 embeds through its encoder's and its decoder's own modules, though all three have one weight
    with pytest.raises(LayerError, match="never came to this layer"), layer_outputs(models["t5"].shared):
        models["t5"](input_ids=torch.tensor([[9]]), decoder_input_ids=torch.tensor([[9]]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_embedding_is_the_one_that_reads_the_prompt(models, kind):
    model, prompt = models[kind], torch.tensor([[9, 8, 7]])
    embedding = layer_at(model, embedding_path(model))
    given = {"decoder_input_ids": torch.tensor([[3]])} if kind == "t5" else {}
    with layer_outputs(embedding) as seen:
        model(input_ids=prompt, **given)
    assert [output.tolist() for output in seen] == [embedding.weight[prompt].tolist()]


def test_no_hook_stays_where_the_pass_fails(models):
    model = models["llama"]
    before = hooks(model)
    with pytest.raises(IndexError):
        layer_inputs(model, model.lm_head, input_ids=torch.tensor([[100_000]]))
    assert hooks(model) == before


def test_layer_outputs_of_this_thread_are_collected():
    layer = nn.Identity()
    with layer_outputs(layer) as seen:
        layer(ones(3))
        thread = threading.Thread(target=lambda: layer(ones(5)))
        thread.start()
        thread.join()
        layer(ones(4))
    layer(ones(6))
    assert [output.shape[1] for output in seen] == [3, 4]


# --- what a layer gives


def test_values_stand_at_their_positions_and_nowhere_else():
    layer = nn.Identity()
    values = torch.tensor([[5.0, 6.0], [7.0, 8.0]])
    positions = torch.tensor([[False, True, False], [True, False, True]])
    with replaced_output(layer, values, positions):
        got = layer(ones(4, rows=2))
    assert got.tolist() == [
        [[1, 1], [5, 6], [1, 1], [1, 1]],
        [[7, 8], [1, 1], [7, 8], [1, 1]],
    ]
    assert torch.equal(layer(ones(4, rows=2)), ones(4, rows=2))


def test_every_sequence_of_a_row_gets_the_rows_value():
    layer = nn.Identity()
    values = torch.tensor([[5.0, 6.0], [7.0, 8.0]])
    with replaced_output(layer, values, torch.tensor([[False, True], [True, False]])):
        got = layer(ones(2, rows=6))
    assert got.tolist() == [[[1, 1], [5, 6]]] * 3 + [[[7, 8], [1, 1]]] * 3


def test_passes_that_go_on_from_a_cache_are_left_alone():
    layer = nn.Identity()
    with replaced_output(layer, torch.tensor([[5.0, 6.0]]), torch.tensor([[False, True]])):
        first, *later = layer(ones(2)), layer(ones(1)), layer(ones(2)), layer(ones(4))
    assert first.tolist() == [[[1, 1], [5, 6]]]
    # however many tokens they read: a pass may look up several at once
    assert all(torch.equal(output, ones(output.shape[1])) for output in later)


def test_where_nothing_is_cached_the_value_stands_in_every_pass():
    layer = nn.Identity()
    with replaced_output(layer, torch.tensor([[5.0, 6.0]]), torch.tensor([[False, True]]), every_pass=True):
        first, second = layer(ones(2)), layer(ones(4))
    assert first.tolist() == [[[1, 1], [5, 6]]]
    assert second.tolist() == [[[1, 1], [5, 6], [1, 1], [1, 1]]]


def test_a_pass_that_does_not_begin_with_the_prompt_is_left_alone():
    layer = nn.Identity()
    with replaced_output(layer, torch.tensor([[5.0, 6.0]]), torch.tensor([[False, True]]), every_pass=True):
        first, second = layer(ones(2)), layer(ones(1))
    assert first.tolist() == [[[1, 1], [5, 6]]]
    assert second.tolist() == [[[1, 1]]]


def test_a_prompt_in_pieces_is_refused():
    layer = nn.Identity()
    with (
        replaced_output(layer, ones(1)[:, 0], torch.tensor([[False, False, True]])),
        pytest.raises(UnsupportedArgumentError, match=r"read 2 of 3 tokens.*prefill_chunk_size"),
    ):
        layer(ones(2))


def test_a_value_takes_the_dtype_of_the_layer():
    layer = nn.Identity()
    with replaced_output(layer, torch.tensor([[5.0, 6.0]]), torch.tensor([[True]])):
        got = layer(ones(1).to(torch.bfloat16))
    assert got.dtype == torch.bfloat16
    assert got.tolist() == [[[5, 6]]]


def test_threads_at_once_have_their_own_values():
    layer = nn.Identity()
    both_in = threading.Barrier(3)
    got: dict[float, torch.Tensor] = {}

    def run(value: float) -> None:
        with replaced_output(layer, torch.full((1, 2), value), torch.tensor([[True]])):
            both_in.wait(10)
            got[value] = layer(ones(1))
            both_in.wait(10)

    threads = [threading.Thread(target=run, args=(value,)) for value in (5.0, 6.0)]
    for thread in threads:
        thread.start()
    both_in.wait(10)
    assert len(layer._forward_hooks) == 2
    assert torch.equal(layer(ones(1)), ones(1))
    both_in.wait(10)
    for thread in threads:
        thread.join()
    assert {value: output.tolist() for value, output in got.items()} == {5.0: [[[5, 5]]], 6.0: [[[6, 6]]]}
    assert len(layer._forward_hooks) == 0


def test_hooks_are_gone_after_an_exception():
    layer = nn.Identity()

    def fail() -> None:
        with (
            layer_outputs(layer),
            replaced_output(layer, torch.full((1, 2), 5.0), torch.tensor([[True]])),
        ):
            assert len(layer._forward_hooks) == 2
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail()
    assert len(layer._forward_hooks) == 0
    assert torch.equal(layer(ones(1)), ones(1))
