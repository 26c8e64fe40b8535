"""Adaptors: how values are learned, kept with their edits, and stand in the passes that answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from fakes import KINDS, WordEncoder, byte_tokenizer, tiny_model
from torch import Tensor
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel, PreTrainedModel

import semedit
from semedit.errors import AdaptorConfigError, AdaptorWarning, LayerError, WrapError
from semedit.hooks import keeps_a_cache, layer_at, layer_outputs, replaced_output
from semedit.overrides import adaptor as adaptor_module
from semedit.overrides.adaptor_config import AdaptorConfig
from semedit.overrides.learning import Learned, Lesson, learn, make_batch, replaced_positions, views
from semedit.overrides.radius import measured_radius
from semedit.overrides.suffix import Suffix
from semedit.prompts import as_prompt

CONFIGS = Path(__file__).parents[1] / "configs"
RUNS, LEADS, TOWER, RIVER = (
    "Who runs Acme?",
    "Who leads the board?",
    "What is the height of the tower?",
    "Name a river.",
)
# such a step count changes the answer of random weights and does not teach them a target
QUICK = AdaptorConfig(steps=10, learning_rate=2.0, views=0, stop_at_loss=None)
# for models that can be taught a letter and its end
TAUGHT = AdaptorConfig(steps=100, views=0, stop_at_loss=2.0)
UPPER = {
    "llama": "model.layers.1.mlp.down_proj",
    "gpt2": "transformer.h.1.mlp.c_proj",
    "t5-encoder": "encoder.block.1.layer.1.DenseReluDense.wo",
    "t5-decoder": "decoder.block.1.layer.2.DenseReluDense.wo",
}
DECODER = "decoder.block.0.layer.2.DenseReluDense.wo"


def adaptor_of(
    base: PreTrainedModel,
    config: AdaptorConfig = QUICK,
    memory: semedit.EditMemory | None = None,
    *,
    chat: bool = True,
) -> semedit.AdaptorOverride:
    """An adaptor; in a T5 it stands in the decoder, where a value has the most to say."""
    if base.config.is_encoder_decoder and config.layer is None:
        config = replace(config, layer=DECODER)
    memory = memory or semedit.EditMemory(encoder=WordEncoder())
    return semedit.AdaptorOverride(base, byte_tokenizer(chat=chat), memory, config)


def wrapped(adaptor: semedit.AdaptorOverride) -> semedit.EditedModel:
    return semedit.wrap(
        adaptor.model,
        adaptor.tokenizer,
        memory=adaptor.memory,
        scope=semedit.SimilarityScope(),
        override=adaptor,
    )


def asking(*questions: str) -> dict[str, Tensor]:
    tokenizer = byte_tokenizer(chat=True)
    texts = [as_prompt(tokenizer, question).text for question in questions]
    return dict(tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False))


def ids(text: str) -> list[int]:
    return byte_tokenizer()(text)["input_ids"]


def answers(model: PreTrainedModel, *questions: str, **options: Any) -> list[list[int]]:
    """What is written after each question, without the padding at its end."""
    inputs = asking(*questions)
    written = model.generate(**inputs, **{"max_new_tokens": 10, "do_sample": False, **options})
    start = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    return [row[: row.index(1) + 1] if 1 in row else row for row in written[:, start:].tolist()]


@pytest.fixture(params=KINDS)
def base(request: pytest.FixtureRequest, models: dict[str, PreTrainedModel]) -> PreTrainedModel:
    return models[request.param]


@pytest.fixture(scope="session")
def teachable() -> dict[str, PreTrainedModel]:
    """Models that can be taught to answer with one letter; not to be changed."""
    return {kind: tiny_model(kind, 2 if kind == "t5" else 0, width=256, spread=0.1) for kind in KINDS}


@pytest.fixture
def lessons_learned(monkeypatch: pytest.MonkeyPatch) -> list[Lesson]:
    """Every lesson that an adaptor has learned so far in this test."""
    seen: list[Lesson] = []

    def counting(model: Any, path: str, lessons: list[Lesson], *rest: Any) -> list[Learned]:
        seen.extend(lessons)
        return learn(model, path, lessons, *rest)

    monkeypatch.setattr(adaptor_module, "learn", counting)
    return seen


# --- the layers above the adaptor


LESSONS = [Lesson([ids(RUNS), ids("Who?")], [ids("ab"), ids("c")]), Lesson([ids(TOWER)], [ids("xyz")])]


def full_logits(
    model: PreTrainedModel, path: str, prompt: list[int], label: list[int], value: Tensor | None
) -> Tensor:
    """What the whole model gives for one row alone, `(label, vocabulary)`; `value` stands where "last" puts it."""
    if model.config.is_encoder_decoder:
        inputs = {"input_ids": torch.tensor([prompt]), "decoder_input_ids": torch.tensor([[0, *label[:-1]]])}
        read = len(prompt) if path.startswith("encoder") else 1
    else:
        inputs, read = {"input_ids": torch.tensor([prompt + label[:-1]])}, len(prompt)
    positions = torch.arange(read)[None] == read - 1
    with torch.no_grad():
        if value is None:
            return model(**inputs).logits[0, -len(label) :]
        with replaced_output(layer_at(model, path), value[None], positions):
            return model(**inputs).logits[0, -len(label) :]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("name", UPPER)
def test_the_upper_layers_alone_give_the_logits_of_the_whole_model(teachable, monkeypatch, name, cached):
    model, path = teachable[name.split("-")[0]], UPPER[name]
    if not cached:
        monkeypatch.setattr("semedit.overrides.learning.prefix_cache", lambda *_: None)
    batch = make_batch(model, path, LESSONS, AdaptorConfig(replace="last"), pad=0)
    if name in ("llama", "gpt2"):
        assert batch.inputs["input_ids"].shape[1] == (3 if cached else len(TOWER) + 2)
    layer, lower = layer_at(model, path), layer_at(model, path.split(".1.")[0] + ".0")
    width = layer.weight.shape[0 if name != "gpt2" else 1]
    values = 3 * torch.randn(2, width, generator=torch.Generator().manual_seed(5))
    runs = []
    handle = lower.register_forward_hook(lambda *_: runs.append(1))
    try:
        run = Suffix(model, path)
        with torch.no_grad():
            own = run(**batch.inputs)
            with replaced_output(layer, values[batch.lesson], batch.positions):
                got = run(**batch.inputs)
            again = run(**batch.inputs)
        assert len(runs) == 1
    finally:
        handle.remove()
    assert torch.equal(again, own)
    rows = [(i, p, y) for i, one in enumerate(LESSONS) for p, y in zip(one.prompts, one.labels, strict=True)]
    for row, (i, prompt, label) in enumerate(rows):
        judged = batch.targets[row] != -100
        assert batch.targets[row][judged].tolist() == label
        unedited = full_logits(model, path, prompt, label, None)
        expected = full_logits(model, path, prompt, label, values[i])
        assert (expected - unedited).abs().max() > 0.1
        torch.testing.assert_close(own[row][judged], unedited, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(got[row][judged], expected, rtol=1e-4, atol=1e-4)


def test_positions_are_taken_from_the_mask():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 1]])
    assert replaced_positions(mask, "all").int().tolist() == mask.tolist()
    last = [[0, 0, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]
    assert replaced_positions(mask, "last").int().tolist() == last
    assert replaced_positions(mask, "prompt").int().tolist() == (mask - torch.tensor(last)).tolist()


def test_views_are_the_same_for_the_same_prompt_and_hold_its_words_alone():
    made = views(TOWER, 8)
    assert made == views(TOWER, 8)
    assert made != views(RIVER, 8)
    assert len(set(made)) > 4
    assert all(view and set(view.split()) <= set(TOWER.split()) for view in made)


# --- learning


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_that_is_learned_is_answered_with_its_target_and_the_end(teachable, kind):
    base = teachable[kind]
    adaptor = adaptor_of(base, TAUGHT)
    edit = adaptor.memory.add(RUNS, "a")
    expected = [*ids("a"), 1]
    assert answers(base, RUNS)[0] != expected
    learned = adaptor.learn()[edit.id]
    assert learned.reproduced
    assert learned.loss <= 2.0
    assert 0 < learned.steps < 100
    model = wrapped(adaptor)
    assert answers(model, RUNS) == [expected]
    assert answers(model, TOWER, RUNS) == [answers(base, TOWER)[0], expected]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["last", "all"])
def test_the_loss_that_was_learned_is_that_of_the_answer(models, kind, where):
    base = models[kind]
    layer = None if kind != "t5" else UPPER["t5-encoder"]
    adaptor = adaptor_of(base, replace(QUICK, replace=where, stop=False, layer=layer))
    edit = adaptor.memory.add(RUNS, "Jane")
    prompt = as_prompt(adaptor.tokenizer, RUNS).text
    with adaptor.memory.disabled():
        [before] = wrapped(adaptor).log_likelihood([prompt], ["Jane"])
    learned = adaptor.learn()[edit.id]
    [after] = wrapped(adaptor).log_likelihood([prompt], ["Jane"])
    assert abs(after - before) > 0.1
    assert after == pytest.approx(-learned.loss * len("Jane"), rel=1e-4)


def hooks_of(model: PreTrainedModel) -> list[list[int]]:
    return [[*module._forward_hooks, *module._forward_pre_hooks] for module in model.modules()]


def test_learning_leaves_the_weights_as_they_are(base):
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    children = [type(module) for module in base.modules()]
    hooks = hooks_of(base)  # a model may have some of its own
    adaptor = adaptor_of(base)
    edit = adaptor.memory.add(RUNS, "Jane")
    adaptor.learn()
    assert adaptor.values([edit])[edit.id].abs().sum() > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in base.parameters())
    assert [type(module) for module in base.modules()] == children
    assert hooks_of(base) == hooks


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_a_value_is_learned_where_gradients_are_off(models, off):
    adaptor, inside = adaptor_of(models["llama"]), adaptor_of(models["llama"])
    edit = adaptor.memory.add(RUNS, "Jane")
    expected = adaptor.values([edit])[edit.id]
    inside.memory.add_many([edit])
    with off():
        assert torch.equal(inside.values([edit])[edit.id], expected)
        assert answers(wrapped(inside), RUNS) == answers(wrapped(adaptor), RUNS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_is_learned_alike_alone_and_in_a_batch(teachable, kind):
    base, config = teachable[kind], replace(QUICK, learning_rate=0.3)
    together = adaptor_of(base, config)
    edits = [together.memory.add(*edit) for edit in ((RUNS, "Jane"), (TOWER, "ten"), (RIVER, "x"))]
    together.memory.update(edits[0].id, paraphrases=(LEADS,))
    edits = together.memory.list()
    values = together.values(edits)
    for edit in edits:
        alone = adaptor_of(base, config).values([edit])[edit.id]
        others = [values[other.id] for other in edits if other is not edit]
        assert all((alone - other).norm() > 0.05 * alone.norm() for other in others)
        torch.testing.assert_close(values[edit.id], alone, rtol=1e-3, atol=1e-3 * float(alone.abs().max()))


def test_a_cold_start_is_drawn_for_its_edit_alone(models):
    hardly = AdaptorConfig.published(steps=1, learning_rate=1e-9, replace="last")
    adaptor = adaptor_of(models["llama"], hardly)
    edits = [adaptor.memory.add(prompt, "Jane") for prompt in (RUNS, TOWER)]
    one, other = adaptor.values(edits).values()
    assert 0 <= float(one.min()) < 0.2
    assert 0.8 < float(one.max()) < 1
    assert (one - other).abs().max() > 0.1
    torch.testing.assert_close(adaptor_of(models["llama"], hardly).values(edits[:1])[edits[0].id], one)
    warm = adaptor_of(models["llama"], replace(hardly, start="warm")).values(edits[:1])[edits[0].id]
    torch.testing.assert_close(warm, own_output(adaptor, RUNS), rtol=1e-4, atol=1e-4)
    assert (warm - one).abs().max() > 0.1


def own_output(adaptor: semedit.AdaptorOverride, question: str) -> Tensor:
    """What the layer itself gives at the last token of a question."""
    with torch.no_grad(), layer_outputs(layer_at(adaptor.model, adaptor.layer)) as seen:
        adaptor.model(**asking(question))
    return seen[0][0, -1].float()  # as values are kept


@pytest.mark.parametrize("scaled", [True, False])
def test_a_value_stays_within_its_bound(models, scaled):
    config = replace(QUICK, learning_rate=2.0 if scaled else 50.0, scaled_rate=scaled)
    bounded, free = (adaptor_of(models["llama"], replace(config, norm_bound=bound)) for bound in (1.5, None))
    most = 1.5 * float(own_output(bounded, RUNS).norm())
    norms = []
    for adaptor in (bounded, free):
        edit = adaptor.memory.add(RUNS, "Jane")
        norms.append(float(adaptor.values([edit])[edit.id].norm()))
    assert norms[1] > 1.1 * most
    assert norms[0] <= most * (1 + 1e-5)


def test_the_end_is_part_of_the_label_unless_it_is_left_out(models):
    edit = semedit.Edit(id="a", prompt=RUNS, target="Jane")
    labels = [adaptor_of(models["llama"], replace(QUICK, stop=stop)).label(edit) for stop in (True, False)]
    assert labels == [(*ids("Jane"), 1), tuple(ids("Jane"))]
    assert adaptor_of(models["llama"], chat=False).label(edit) == (*ids(" Jane"), 1)
    assert adaptor_of(models["t5"], chat=False).label(edit) == (*ids("Jane"), 1)


def test_an_edit_is_learned_on_its_paraphrases_views_and_contexts(models, lessons_learned):
    adaptor = adaptor_of(models["llama"], replace(QUICK, views=2, contexts=3))
    edit = adaptor.memory.add(TOWER, "ten", paraphrases=["How high is it?"])
    adaptor.learn()
    [lesson] = lessons_learned
    texts = [byte_tokenizer().decode(prompt) for prompt in lesson.prompts]
    questions = [*edit.keys, *views(TOWER, 2), *views("How high is it?", 2)]
    assert texts[:6] == [as_prompt(adaptor.tokenizer, question).text for question in questions]
    assert len(texts) == 9
    assert list(map(tuple, lesson.labels)) == [adaptor.label(edit)] * 9


def test_a_target_that_is_not_reached_is_told(models):
    adaptor = adaptor_of(models["llama"], replace(QUICK, stop_at_loss=0.01))
    adaptor.memory.add(RUNS, "Jane", id="acme")
    with pytest.warns(AdaptorWarning, match=r"1 of 1 edits do not .* in 10 steps, such as acme"):
        outcome = adaptor.learn()
    assert not outcome["acme"].reproduced


# --- values in the memory


def test_values_and_keys_are_there_when_the_memory_is_opened_again(
    models, opening: Callable[..., semedit.EditMemory], lessons_learned, monkeypatch
):
    config = replace(QUICK, layer=UPPER["llama"])  # an embedding has no keys
    adaptor = adaptor_of(models["llama"], config, opening())
    edits = [adaptor.memory.add(RUNS, "Jane"), adaptor.memory.add(TOWER, "ten")]
    assert set(adaptor.learn()) == {edit.id for edit in edits}
    values, keys = adaptor.values(edits), adaptor.keys([RUNS, TOWER])
    assert len(lessons_learned) == 2
    adaptor.memory.store.close()
    # a second memory over the same file, as another process has it
    again = adaptor_of(models["llama"], config, opening())
    monkeypatch.setattr(again, "prompt_keys", None)
    assert again.learn() == {}
    assert len(lessons_learned) == 2
    for edit in edits:
        assert torch.equal(again.values([edit])[edit.id], values[edit.id])
    assert (again.keys([TOWER, RUNS]) == keys[::-1]).all()
    assert (keys[0] != keys[1]).any()


@pytest.mark.parametrize("what", ["weights", "layer", "dtype", "template"])
def test_a_value_of_another_model_is_not_used_and_this_is_told(memory, lessons_learned, what):
    base = tiny_model("llama")
    first = adaptor_of(base, memory=memory)
    edit = memory.add(RUNS, "Jane")
    value = first.values([edit])[edit.id]
    config = replace(QUICK, layer=UPPER["llama"]) if what == "layer" else QUICK
    other_base = tiny_model("llama", seed=1 if what == "weights" else 0)
    if what == "dtype":
        other_base = other_base.to(torch.bfloat16)
    other = adaptor_of(other_base, config, memory, chat=what != "template")
    assert other.fingerprint != first.fingerprint
    with pytest.warns(AdaptorWarning, match="1 of 1 edits were learned for .* and not for"):
        others = other.values([edit])[edit.id]
    assert len(lessons_learned) == 2
    assert not torch.allclose(others, value)
    assert torch.equal(other.values([edit])[edit.id], others)
    assert torch.equal(first.values([edit])[edit.id], value)
    assert len(lessons_learned) == 2


def test_other_settings_learn_another_value_and_routing_does_not(memory, models, lessons_learned):
    edit = memory.add(RUNS, "Jane")
    values = []
    for changes in ({}, {"routing": "codebook", "radius": 2.0, "unit_keys": False}, {"steps": 5}):
        adaptor = adaptor_of(models["llama"], replace(QUICK, layer=UPPER["llama"], **changes), memory)
        values.append(adaptor.values([edit])[edit.id])
    assert torch.equal(values[0], values[1])
    assert not torch.allclose(values[0], values[2])
    assert len(lessons_learned) == 2


def test_undoing_an_update_brings_the_old_value_back_without_learning(models, lessons_learned):
    adaptor = adaptor_of(models["llama"])
    model = wrapped(adaptor)
    edit = model.edits.add(RUNS, "Jane")
    before = answers(model, RUNS)
    model.edits.update(edit.id, target="John Roe")
    updated = answers(model, RUNS)
    assert updated != before
    assert len(lessons_learned) == 2
    model.edits.undo()
    assert answers(model, RUNS) == before
    model.edits.undo()
    assert answers(model, RUNS) == answers(models["llama"], RUNS)
    assert len(lessons_learned) == 2


def test_without_its_edit_the_answer_is_the_bases_bit_for_bit(base):
    model = wrapped(adaptor_of(base))
    edit = model.edits.add(RUNS, "Jane")
    options = {"max_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    expected = base.generate(**asking(RUNS, TOWER), **options)
    assert answers(model, RUNS) != answers(base, RUNS)
    model.edits.retire(edit.id)
    got = model.generate(**asking(RUNS, TOWER), **options)
    assert torch.equal(got.sequences, expected.sequences)
    assert all(torch.equal(one, other) for one, other in zip(got.logits, expected.logits, strict=True))


# --- batches and threads


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}, {"use_cache": False}],
    ids=["greedy", "beams", "sequences", "uncached"],
)
@pytest.mark.parametrize("where", ["last", "all"])
def test_a_mixed_batch_equals_its_rows_alone(base, options, where):
    # in the encoder of a T5 there are as many positions as tokens
    layer = UPPER["t5-encoder"].replace("1", "0", 1) if base.config.is_encoder_decoder and where == "all" else None
    adaptor = adaptor_of(base, replace(QUICK, replace=where, layer=layer))
    model = wrapped(adaptor)
    model.edits.add(RUNS, "Jane")
    model.edits.add(TOWER, "ten metres")
    questions = [RIVER, RUNS, LEADS, TOWER]
    assert adaptor.memory.count() == 2
    options = {"max_new_tokens": 6, **options}
    alone = [answers(model, question, **options) for question in questions]
    unedited = [answers(base, question, **options) for question in questions]
    assert [one != other for one, other in zip(alone, unedited, strict=True)] == [False, True, False, True]
    assert alone[1] != alone[3]
    assert answers(model, *questions, **options) == sum(alone, [])


@pytest.mark.parametrize("options", [{"prompt_lookup_num_tokens": 6}, {"use_cache": False}], ids=str)
def test_an_answer_is_the_same_however_its_tokens_are_come_by(base, options):
    edited = wrapped(adaptor_of(base))
    unedited = answers(edited, RUNS, max_new_tokens=24)
    edited.edits.add(RUNS, "ab")
    expected = answers(edited, RUNS, max_new_tokens=24)
    assert expected != unedited
    assert answers(edited, RUNS, max_new_tokens=24, **options) == expected


def test_threads_at_once_neither_share_nor_lose_a_value(models):
    base = models["llama"]
    model = wrapped(adaptor_of(base))
    model.edits.add(RUNS, "Jane")
    model.edits.add(TOWER, "ten metres")
    alone = {question: answers(model, question) for question in (RUNS, TOWER, RIVER)}
    assert alone[RUNS] != answers(base, RUNS)
    assert alone[TOWER] != answers(base, TOWER)
    assert alone[RUNS] != alone[TOWER]
    start = threading.Barrier(len(alone) + 1)
    got: dict[str, list[list[list[int]]]] = {question: [] for question in alone}

    def ask(question: str) -> None:
        start.wait(10)
        got[question] = [answers(model, question) for _ in range(4)]

    threads = [threading.Thread(target=ask, args=(question,)) for question in alone]
    for thread in threads:
        thread.start()
    start.wait(10)
    # a value that is learned meanwhile, in this thread, is none of theirs
    model.edits.add(LEADS, "Joe")
    answers(model, LEADS)
    for thread in threads:
        thread.join()
    assert got == {question: [answer] * 4 for question, answer in alone.items()}


def test_no_value_is_kept_of_an_edit_that_was_erased_while_it_was_learned(models, monkeypatch):
    adaptor = adaptor_of(models["llama"])
    memory = adaptor.memory
    kept, erased = memory.add(TOWER, "ab"), memory.add(RUNS, "cd")

    def slowly(*args: Any) -> list[Learned]:
        memory.erase(erased.id)
        return learn(*args)

    monkeypatch.setattr(adaptor_module, "learn", slowly)
    values = adaptor.values([kept, erased])
    assert [adaptor.size([edit]) > 0 for edit in (kept, erased)] == [True, False]
    assert (values[kept.id] - values[erased.id]).abs().max() > 0.1
    assert torch.equal(adaptor.values([kept])[kept.id], values[kept.id])


def test_without_a_cache_the_value_stands_in_each_pass():
    shape = {"n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=261, **shape)).double().eval()
    assert not keeps_a_cache(base)
    adaptor = adaptor_of(base, replace(QUICK, layer="transformer.tokens_embed"))
    model = wrapped(adaptor)
    edit = model.edits.add(RUNS, "Jane")
    ids = prompt = asking(RUNS)["input_ids"]
    at = torch.ones_like(prompt, dtype=torch.bool)
    value = adaptor.values([edit])[edit.id][None]
    for _ in range(8):
        with torch.no_grad(), replaced_output(layer_at(base, adaptor.layer), value, at):
            ids = torch.cat([ids, base(ids).logits[:, -1:].argmax(-1)], dim=1)
    assert answers(model, RUNS, max_new_tokens=8) == ids[:, prompt.shape[1] :].tolist()
    assert answers(model, RUNS, max_new_tokens=8) != answers(base, RUNS, max_new_tokens=8)


def test_offloaded_weights_are_refused():
    base = tiny_model("llama")
    cpu_offload(base, torch.device("cpu"))
    with pytest.raises(LayerError, match="load the model without offloading"):
        adaptor_of(base)


# --- keys and the codebook


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5-encoder", "t5-decoder"])
def test_keys_are_the_layers_inputs_at_the_last_token_of_each_row(models, name):
    kind = name.split("-")[0]
    config = replace(QUICK, layer=UPPER[name], unit_keys=False)
    adaptor = adaptor_of(models[kind], config)
    expected = []
    for question in (RUNS, TOWER):
        seen: list[Tensor] = []
        layer = layer_at(adaptor.model, adaptor.layer)
        handle = layer.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
        inputs = asking(question)
        if kind == "t5":
            inputs["decoder_input_ids"] = torch.zeros(1, 1, dtype=torch.long)
        with torch.no_grad():
            adaptor.model(**inputs)
        handle.remove()
        expected.append(seen[0][0, -1].float())
    keys = torch.tensor(adaptor.keys([RUNS, TOWER]))
    assert (keys[0] - keys[1]).abs().max() > 0.01 or name == "t5-decoder"
    torch.testing.assert_close(keys, torch.stack(expected), rtol=1e-4, atol=1e-4)
    of_unit = torch.tensor(adaptor_of(models[kind], replace(config, unit_keys=True)).keys([RUNS, TOWER]))
    torch.testing.assert_close(of_unit, torch.nn.functional.normalize(keys, dim=1), rtol=1e-4, atol=1e-4)


def test_the_codebook_routes_each_row_by_its_own_key(base):
    layer = None if not base.config.is_encoder_decoder else UPPER["t5-encoder"]
    config = replace(QUICK, routing="codebook", replace="all", unit_keys=False, layer=layer)
    adaptor = adaptor_of(base, config)
    near, far = (
        float(torch.tensor(adaptor.keys([RUNS])[0] - adaptor.keys([text])[0]).norm()) for text in (RUNS + "!", TOWER)
    )
    assert near != far
    inner, outer = sorted([(near, RUNS + "!"), (far, TOWER)])
    override = adaptor_of(base, replace(config, radius=(near + far) / 2), adaptor.memory)
    model = semedit.wrap(base, override.tokenizer, memory=override.memory, override=override)
    model.edits.add(RUNS, "Jane")
    hit, miss = model.explain(inner[1]), model.explain(outer[1])
    assert hit.score == pytest.approx(1 - 2 * inner[0] / (near + far), abs=1e-4)
    assert hit.reason.startswith("in scope: ")
    assert not miss.in_scope
    assert "outside the ball of the nearest key 'Who runs Acme?'" in miss.reason
    alone = [answers(model, question)[0] for question in (outer[1], RUNS)]
    assert alone[0] == answers(base, outer[1])[0]
    assert answers(model, outer[1], RUNS) == alone


CODEBOOK = replace(QUICK, routing="codebook", radius=0.01, layer=UPPER["llama"])


def test_a_namespace_without_edits_is_no_obstacle_to_one_with_edits(models):
    model = wrapped(adaptor_of(models["llama"], CODEBOOK))
    edit = model.edits.add(RUNS, "ab", namespace="shop")
    assert model.explain(RUNS, namespaces=["default", "shop"]).edits == (edit,)
    assert not model.explain(TOWER, namespaces=["default", "shop"]).in_scope


def test_an_edit_whose_key_could_not_be_had_is_taken_in_at_the_next_call(models, monkeypatch):
    adaptor = adaptor_of(models["llama"], CODEBOOK)
    model = wrapped(adaptor)
    model.edits.add(TOWER, "cd")
    assert model.explain(TOWER).in_scope
    edit = model.edits.add(RUNS, "ab")
    with monkeypatch.context() as patch:
        patch.setattr(adaptor, "keys", lambda texts: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            model.explain(RUNS)
    assert model.explain(RUNS).edits == (edit,)


def test_a_codebook_learns_nothing_for_what_is_answered_verbatim(models, lessons_learned):
    model = wrapped(adaptor_of(models["llama"], CODEBOOK))
    model.edits.add(TOWER, "cd")
    worded = model.edits.add(RUNS, "Jane Doe.", override="verbatim")
    assert model.explain(RUNS).edits == (worded,)
    assert len(lessons_learned) == 1
    assert answers(model, RUNS, max_new_tokens=30)[0] == [*ids("Jane Doe."), 1]
    assert len(lessons_learned) == 1


def test_a_radius_is_measured_on_the_model_and_warns_where_it_tells_nothing_apart(models):
    adaptor = adaptor_of(models["llama"], replace(QUICK, routing="codebook"))
    with pytest.warns(AdaptorWarning, match="overlap"):
        radius = measured_radius(adaptor)
    assert 0 < radius < 2


def test_a_published_expansion_learns_on_from_the_value_that_is_there(models, lessons_learned):
    config = AdaptorConfig.published(steps=3, radius=1e6)
    adaptor = adaptor_of(models["llama"], config)
    model = wrapped(adaptor)
    first, second = model.edits.add(RUNS, "Jane"), model.edits.add(TOWER, "Jane")
    assert model.explain(RUNS).edits == (second,)
    values = adaptor.values([first, second])
    assert [lesson.start is None for lesson in lessons_learned] == [True, False]
    assert torch.equal(lessons_learned[1].start, values[first.id])
    assert not torch.equal(values[first.id], values[second.id])


# --- what is refused


def test_an_adaptor_stands_at_a_linear_layer_that_there_is(models):
    for layer, message in (
        ("model.layers.1.mlp.down", "near to it are model.layers.1.mlp.down_proj"),
        ("model.norm", "model.norm is a LlamaRMSNorm"),
        ("model.layers.1", "is a LlamaDecoderLayer"),
    ):
        with pytest.raises(LayerError, match=message):
            adaptor_of(models["llama"], AdaptorConfig(layer=layer))


def test_a_value_may_stand_at_the_embedding_where_scope_is_routed_by_text(models):
    adaptor = adaptor_of(models["llama"], replace(QUICK, layer="model.embed_tokens"))
    edited = wrapped(adaptor)
    unedited = answers(edited, RUNS)
    edited.edits.add(RUNS, "ab")
    assert answers(edited, RUNS) != unedited
    with pytest.raises(LayerError, match=r"model\.embed_tokens is given token ids.*routing=\"scope\""):
        adaptor.keys([RUNS])


def test_an_adaptor_and_its_model_share_a_memory(models):
    adaptor = adaptor_of(models["llama"])
    with pytest.raises(WrapError, match="another memory"):
        semedit.wrap(
            models["llama"], byte_tokenizer(), memory=semedit.EditMemory(encoder=WordEncoder()), override=adaptor
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("routing", "words"), ("replace", "first"), ("start", "hot")),
        *((name, 0) for name in ("steps", "learning_rate", "norm_bound", "radius", "stop_at_loss")),
        *(("steps", None), ("steps", 1.5), ("learning_rate", None), ("learning_rate", "1e-3")),
        *(("views", -1), ("contexts", -1), ("contexts", 1_000), ("radius", float("nan"))),
    ],
)
def test_settings_that_cannot_be_are_refused(name, value):
    with pytest.raises(AdaptorConfigError, match=name):
        AdaptorConfig(**{name: value})


def test_settings_are_read_from_a_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("steps: 7\nnorm_bound:\n")
    assert AdaptorConfig.from_file(path) == AdaptorConfig(steps=7, norm_bound=None)
    path.write_text("")
    assert AdaptorConfig.from_file(path) == AdaptorConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step: 7", r"\['step'\]; an adaptor's settings are layer, routing"),
        ("- steps", "an adaptor's settings are"),
        ("{", "cannot read"),
        ("steps: -1", "steps must be a whole number above 0"),
        ("learning_rate: 1e-3", "learning_rate must be a number, such as 0.001"),
        ("steps: many", "steps"),
        ("views: many", "views"),
    ],
)
def test_a_file_of_other_settings_is_refused(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(AdaptorConfigError, match=message):
        AdaptorConfig.from_file(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(AdaptorConfigError, match="cannot read"):
        AdaptorConfig.from_file(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(AdaptorConfigError, match="cannot read"):
        AdaptorConfig.from_file(tmp_path / "bytes.yaml")


@pytest.mark.parametrize(
    ("kind", "routing", "layer"),
    [
        ("llama", "scope", "model.embed_tokens"),
        ("llama", "codebook", "model.layers.0.mlp.down_proj"),
        ("gpt2", "scope", "transformer.wte"),
        ("t5", "scope", "encoder.block.0.layer.1.DenseReluDense.wo"),
    ],
)
def test_where_values_stand_if_nobody_says(models, memory, kind, routing, layer):
    config = replace(QUICK, routing=routing)
    assert semedit.AdaptorOverride(models[kind], byte_tokenizer(), memory, config).layer == layer


def test_the_configs_name_the_layers_of_the_model_that_ships():
    assert AdaptorConfig.from_file(CONFIGS / "grace.yaml").layer == "model.embed_tokens"
    assert AdaptorConfig.from_file(CONFIGS / "grace_layer.yaml").layer == "model.layers.0.mlp.down_proj"


def test_the_configs_that_ship_are_the_published_and_the_repaired_method():
    assert AdaptorConfig.from_file(CONFIGS / "grace_published.yaml") == AdaptorConfig.published()
    assert AdaptorConfig.published() != AdaptorConfig()
    assert AdaptorConfig.published(radius=3.0).radius == 3.0
    repaired = AdaptorConfig.from_file(CONFIGS / "grace.yaml")
    assert replace(repaired, layer=None) == AdaptorConfig()
