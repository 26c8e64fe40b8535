"""The properties of a drop-in `generate`, over every override, kind of model and way to decode."""

from __future__ import annotations

import string
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fakes import KINDS, WordEncoder, byte_tokenizer, tiny_model
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    PreTrainedModel,
    StoppingCriteria,
    pipeline,
)
from transformers.generation.streamers import BaseStreamer

import semedit
from semedit.errors import (
    ContextOverflowError,
    CutAnswerWarning,
    InvalidQueryError,
    UnsupportedArgumentError,
    WrapError,
)
from semedit.hooks import cache_name
from semedit.overrides.in_context import corrections_text

# most of these tests write fewer tokens than a target has
pytestmark = pytest.mark.filterwarnings("ignore:an answer of:semedit.errors.CutAnswerWarning")
EDITED = "Who runs Acme?"
OTHER = "What is the height of the tower?"
THIRD = "Name a river."
TARGET = "Jane Doe"
MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True},
    "sequences": {"do_sample": True, "num_return_sequences": 3},
    "beams": {"num_beams": 3, "do_sample": False},
    "beam_sequences": {"num_beams": 4, "num_return_sequences": 2, "do_sample": False},
}
OVERRIDES = ("in_context", "counterfactual", "verbatim", "adaptor", "ensemble")
DECODER = "decoder.block.0.layer.2.DenseReluDense.wo"
OF_THE_BASE = ("in_context", "adaptor", "ensemble")  # in these the base itself writes the answer


@pytest.fixture(params=KINDS)
def base(request: pytest.FixtureRequest, models: dict[str, PreTrainedModel]) -> PreTrainedModel:
    return models[request.param]


def edited_model(base: PreTrainedModel, override: str, **options: Any) -> semedit.EditedModel:
    tokenizer = options.pop("tokenizer", None) or byte_tokenizer()
    memory = semedit.EditMemory(encoder=WordEncoder())
    way: Any = override
    if override == "counterfactual":
        small = tiny_model("gpt2" if base.config.is_encoder_decoder else "t5", seed=3)
        way = semedit.CounterfactualOverride(base, tokenizer, small, byte_tokenizer())
    elif override == "ensemble":
        way = semedit.EnsembleOverride(base, tokenizer, tiny_model(base.config.model_type, seed=3))
    elif override == "adaptor":
        # random weights cannot be taught such a target; a few steps make an answer that is not the base's, and in
        # this T5 only the decoder is free to give one; at the embedding they write one token over and over
        layers = {"llama": "model.layers.0.mlp.down_proj", "gpt2": "transformer.h.0.mlp.c_proj", "t5": DECODER}
        layer = layers[base.config.model_type]
        quick = semedit.AdaptorConfig(layer=layer, steps=10, learning_rate=2.0, views=0, stop_at_loss=None)
        way = semedit.AdaptorOverride(base, tokenizer, memory, quick)
    return semedit.wrap(base, tokenizer, memory=memory, scope=semedit.SimilarityScope(), override=way, **options)


@pytest.fixture(params=OVERRIDES)
def model(request: pytest.FixtureRequest, base: PreTrainedModel) -> semedit.EditedModel:
    edited = edited_model(base, request.param)
    edited.edits.add(EDITED, TARGET)
    return edited


def batch(*prompts: str) -> dict[str, Tensor]:
    return dict(byte_tokenizer()(list(prompts), return_tensors="pt", padding=True))


def seeded(generate: Callable[..., Any], inputs: dict[str, Tensor], **options: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return generate(**inputs, **{"max_new_tokens": 12, **options})


def assert_same_row(row: Tensor, expected: Tensor, pad: int = 0) -> None:
    """Equal up to the padding that a longer or shorter neighbour makes."""
    length = min(len(row), len(expected))
    assert torch.equal(row[:length], expected[:length])
    assert (row[length:] == pad).all()
    assert (expected[length:] == pad).all()


@pytest.mark.parametrize("mode", MODES)
def test_without_edits_it_is_the_base_random_state_included(base: PreTrainedModel, mode: str) -> None:
    model = edited_model(base, "in_context")
    inputs = batch(EDITED, OTHER)

    def then_draw(generate: Callable[..., Any]) -> tuple[Tensor, float]:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            return generate(**inputs, max_new_tokens=12, **MODES[mode]), torch.rand(1).item()

    expected, expected_draw = then_draw(base.generate)
    got, draw = then_draw(model.generate)
    assert torch.equal(got, expected)
    assert draw == expected_draw


@pytest.mark.parametrize("mode", MODES)
def test_rows_out_of_scope_equal_the_unedited_call(
    model: semedit.EditedModel, base: PreTrainedModel, mode: str
) -> None:
    inputs = batch(OTHER, EDITED, THIRD)
    expected = seeded(base.generate, inputs, **MODES[mode])
    got = seeded(model.generate, inputs, **MODES[mode])
    each = MODES[mode].get("num_return_sequences", 1)
    assert len(got) == 3 * each
    assert expected[each : 2 * each].tolist() != got[each : 2 * each, : expected.shape[1]].tolist()
    for i in [*range(each), *range(2 * each, 3 * each)]:
        assert_same_row(got[i], expected[i])


@pytest.mark.parametrize("mode", ["greedy", "beams"])
def test_a_row_is_answered_alike_alone_and_in_a_batch(model: semedit.EditedModel, mode: str) -> None:
    alone = seeded(model.generate, batch(EDITED), **MODES[mode])[0]
    together_inputs = batch(OTHER, EDITED)
    together = seeded(model.generate, together_inputs, **MODES[mode])[1]
    if not model.config.is_encoder_decoder:
        padding = together_inputs["input_ids"].shape[1] - len(EDITED)
        assert padding > 0
        together = together[padding:]
    assert_same_row(together, alone)


def test_edited_rows_of_different_lengths_are_answered_as_alone(model: semedit.EditedModel) -> None:
    longer = "Where is the headquarters of Acme, the maker of anvils?"
    model.edits.add(longer, "Bonn")
    rows = seeded(model.generate, batch(EDITED, longer), do_sample=False)
    answers = [rows[0], rows[1]]
    if not model.config.is_encoder_decoder:
        answers[0] = rows[0, len(longer) - len(EDITED) :]
    for prompt, answer in zip((EDITED, longer), answers, strict=True):
        assert_same_row(answer, seeded(model.generate, batch(prompt), do_sample=False)[0])


def test_a_batch_is_as_wide_as_its_longest_row(models: dict[str, PreTrainedModel]) -> None:
    base = models["llama"]
    inputs = batch(OTHER, EDITED)
    prompt = inputs["input_ids"].shape[1]
    free = base.generate(**inputs, max_new_tokens=12, do_sample=False)[:, prompt:]
    end = free[0, 1].item()  # ends the unedited row after two tokens, and the edited one's base answer not at all
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": end}
    assert end not in free[1].tolist()
    assert base.generate(**inputs, **options).shape[1] == prompt + 12
    model = edited_model(base, "verbatim")
    model.edits.add(EDITED, "ab")
    space, a, b = byte_tokenizer()(" ab")["input_ids"]
    written = model.generate(**inputs, **options)[:, prompt:]
    assert written.tolist() == [[*free[0, :2].tolist(), 0, 0], [space, a, b, end]]


def test_prompt_ids_come_first(model: semedit.EditedModel) -> None:
    inputs = batch(EDITED, OTHER)
    output = seeded(model.generate, inputs)
    if model.config.is_encoder_decoder:
        assert output[:, 0].tolist() == [0, 0]
    else:
        assert torch.equal(output[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])


def test_retired_edit_leaves_no_trace(model: semedit.EditedModel, base: PreTrainedModel) -> None:
    inputs = batch(EDITED)
    expected = seeded(base.generate, inputs)
    assert expected.tolist() != seeded(model.generate, inputs).tolist()
    model.edits.retire(model.edits.list()[0].id)
    assert torch.equal(seeded(model.generate, inputs), expected)
    model.edits.undo()
    assert expected.tolist() != seeded(model.generate, inputs).tolist()


def test_disabled_edits_are_the_base_in_this_thread_alone(model: semedit.EditedModel, base: PreTrainedModel) -> None:
    inputs = batch(EDITED)
    expected = seeded(base.generate, inputs)
    edited = seeded(model.generate, inputs)
    elsewhere: list[Tensor] = []
    with model.edits.disabled():
        assert torch.equal(seeded(model.generate, inputs), expected)
        thread = threading.Thread(target=lambda: elsewhere.append(model.generate(**inputs, max_new_tokens=12)))
        thread.start()
        thread.join()
    assert expected.tolist() != edited.tolist()
    assert torch.equal(elsewhere[0], edited)


def test_two_threads_at_once_do_not_mix(model: semedit.EditedModel) -> None:
    prompts = [EDITED, OTHER] * 3
    expected = {prompt: seeded(model.generate, batch(prompt)).tolist() for prompt in prompts}
    got: list[tuple[str, list[list[int]]]] = []

    def ask(prompt: str) -> None:
        got.append((prompt, model.generate(**batch(prompt), max_new_tokens=12).tolist()))

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == len(prompts)
    assert all(answer == expected[prompt] for prompt, answer in got)


@pytest.mark.parametrize("override", OF_THE_BASE)
def test_the_base_is_left_as_it_was(base: PreTrainedModel, override: str) -> None:
    before = {name: value for name, value in base.__dict__.items()}
    inputs = batch(EDITED)
    expected = seeded(base.generate, inputs)
    model = edited_model(base, override)
    model.edits.add(EDITED, TARGET)
    assert expected.tolist() != seeded(model.generate, inputs).tolist()
    assert torch.equal(seeded(base.generate, inputs), expected)
    assert base.__dict__ == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.modules())


def test_nothing_stays_behind_an_exception(model: semedit.EditedModel) -> None:
    class Stop(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            raise RuntimeError("stop")

    inputs = batch(OTHER, EDITED)
    expected = seeded(model.generate, inputs)
    state = dict(model.__dict__)
    with pytest.raises(RuntimeError, match="stop"):
        model.generate(**batch(OTHER), stopping_criteria=[Stop()], max_new_tokens=5)
    assert model.__dict__ == state
    assert torch.equal(seeded(model.generate, inputs), expected)


# --- verbatim


def test_verbatim_gives_the_target_and_ends_as_the_model_ends(base: PreTrainedModel) -> None:
    model = edited_model(base, "verbatim")
    model.edits.add(EDITED, TARGET)
    inputs = batch(EDITED)
    output = model.generate(**inputs, max_new_tokens=30)
    begins = [0] if base.config.is_encoder_decoder else inputs["input_ids"][0].tolist()
    separator = "" if base.config.is_encoder_decoder else " "
    answer = byte_tokenizer()(separator + TARGET)["input_ids"]
    assert output.tolist() == [begins + answer + [1]]
    cut = model.generate(**inputs, max_new_tokens=4)
    assert cut.tolist() == [begins + answer[:4]]


def test_an_edit_can_ask_for_its_own_wording(base: PreTrainedModel) -> None:
    model = edited_model(base, "in_context")
    model.edits.add(EDITED, TARGET)
    model.edits.add("Where is the office?", "1 Main Street", override="verbatim")
    output = model.generate(**batch(EDITED, "Where is the office?", OTHER), max_new_tokens=30)
    texts = byte_tokenizer().batch_decode(output, skip_special_tokens=True)
    assert texts[1].endswith("1 Main Street")
    assert not texts[0].endswith(TARGET)
    assert_same_row(output[2], base.generate(**batch(EDITED, "Where is the office?", OTHER), max_new_tokens=30)[2])


# --- lengths


@pytest.mark.parametrize("override", OVERRIDES)
def test_max_length_counts_the_callers_prompt(models: dict[str, PreTrainedModel], override: str) -> None:
    model = edited_model(models["llama"], override)
    model.edits.add(EDITED, "x" * 60)
    prompt = len(EDITED)
    assert model.generate(**batch(EDITED), max_length=prompt + 5, do_sample=False).shape[1] == prompt + 5
    config = GenerationConfig(max_length=prompt + 6, do_sample=False)
    assert model.generate(**batch(EDITED), generation_config=config).shape[1] == prompt + 6
    with pytest.warns(UserWarning, match="default `max_length`"):
        default = models["llama"].generate(**batch(EDITED))
    assert model.generate(**batch(EDITED)).shape == default.shape
    with pytest.raises(ValueError, match="max_length"):
        model.generate(**batch(EDITED), max_length=3)


@pytest.mark.parametrize("override", OF_THE_BASE)
def test_min_lengths_hold_for_edited_rows(models: dict[str, PreTrainedModel], override: str) -> None:
    base = models["llama"]
    model = edited_model(base, override)
    model.edits.add(EDITED, TARGET)
    free = model.generate(**batch(EDITED), max_new_tokens=20, do_sample=False)[0, len(EDITED) :].tolist()
    # end after the second token that is written freely
    ends = {"eos_token_id": free[1], "max_new_tokens": 20, "do_sample": False}
    assert model.generate(**batch(EDITED), **ends).shape[1] == len(EDITED) + 2
    assert model.generate(**batch(EDITED), min_new_tokens=9, **ends).shape[1] >= len(EDITED) + 9
    config = {k: v for k, v in ends.items() if k != "max_new_tokens"}
    lengths = {"min_length": len(EDITED) + 9, "max_length": len(EDITED) + 20}
    assert model.generate(**batch(EDITED), **lengths, **config).shape[1] >= len(EDITED) + 9


def test_verbatim_refuses_to_be_longer_than_it_is(models: dict[str, PreTrainedModel]) -> None:
    model = edited_model(models["llama"], "verbatim")
    model.edits.add(EDITED, TARGET)
    with pytest.raises(UnsupportedArgumentError, match="min_new_tokens"):
        model.generate(**batch(EDITED), min_new_tokens=30, max_new_tokens=40)


def test_no_room_for_the_edits_says_so(models: dict[str, PreTrainedModel]) -> None:
    model = edited_model(models["gpt2"], "in_context")
    model.edits.add(EDITED, "x" * 2040)
    with pytest.raises(ContextOverflowError, match="the model reads 2048"):
        model.generate(**batch(EDITED), max_new_tokens=5)


@pytest.mark.parametrize("override", ["in_context", "ensemble"])
def test_an_answer_ends_where_the_room_beside_its_edits_ends(
    models: dict[str, PreTrainedModel], override: str
) -> None:
    model = edited_model(models["gpt2"], override)
    room = 2048 - len(corrections_text([(EDITED, "")]) + EDITED)
    model.edits.add(EDITED, "x" * (room - 4))
    expected = model.generate(**batch(EDITED), max_new_tokens=4, do_sample=False)
    assert expected.shape[1] == len(EDITED) + 4
    with pytest.warns(CutAnswerWarning, match="cut after 4 tokens"):
        cut = model.generate(**batch(EDITED), max_new_tokens=9, do_sample=False)
    assert torch.equal(cut, expected)


def test_wording_that_does_not_fit_is_cut_with_a_warning(models: dict[str, PreTrainedModel]) -> None:
    model = edited_model(models["llama"], "verbatim")
    model.edits.add(EDITED, TARGET)
    whole = model.generate(**batch(EDITED), max_new_tokens=9)  # a space and the target
    with pytest.warns(CutAnswerWarning, match=r"of 9 tokens is cut after 8; give generate more max_new_tokens"):
        cut = model.generate(**batch(EDITED), max_new_tokens=8)
    assert torch.equal(cut, whole[:, :-1])


def test_stop_strings_stop_an_edited_answer(models: dict[str, PreTrainedModel]) -> None:
    tokenizer = byte_tokenizer()
    for override in ("in_context", "counterfactual", "adaptor", "ensemble"):
        model = edited_model(models["llama"], override)
        model.edits.add(EDITED, TARGET)
        answer = model.generate(**batch(EDITED), max_new_tokens=60, do_sample=False)[0, len(EDITED) :]
        # the separator comes first where text is bridged, and bytes above ASCII are no text alone
        readable = [i for i, token in enumerate(answer.tolist()) if i and ord(tokenizer.decode([token])[0]) < 0x80]
        assert readable
        stop = tokenizer.decode([answer[readable[0]].item()])
        stopped = model.generate(
            **batch(EDITED), max_new_tokens=60, do_sample=False, stop_strings=[stop], tokenizer=tokenizer
        )
        assert stopped[0, len(EDITED) :].tolist() == answer[: readable[0] + 1].tolist()
    verbatim = edited_model(models["llama"], "verbatim")
    verbatim.edits.add(EDITED, TARGET)
    with pytest.raises(UnsupportedArgumentError, match="stop_strings"):
        verbatim.generate(**batch(EDITED), max_new_tokens=12, stop_strings=["D"], tokenizer=tokenizer)


# --- what the caller's code is shown


class Recorder(LogitsProcessor):
    """Keeps what it is shown and changes nothing."""

    def __init__(self) -> None:
        self.seen: list[list[list[int]]] = []
        self.scores: list[Tensor] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.seen.append(input_ids.tolist())
        self.scores.append(scores.clone())
        return scores


class StopAfter(StoppingCriteria):
    """Ends every row at a total length."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.length)


@pytest.mark.parametrize("override", OF_THE_BASE)
@pytest.mark.parametrize("mode", ["greedy", "beams"])
def test_processors_and_criteria_see_the_callers_prompt(base: PreTrainedModel, mode: str, override: str) -> None:
    model = edited_model(base, override)
    model.edits.add(EDITED, TARGET)
    model.edits.add("Where is it?", "Bonn")
    inputs = batch(EDITED, "Where is it?")
    begins = [[0], [0]] if base.config.is_encoder_decoder else inputs["input_ids"].tolist()
    assert begins[0] != begins[1] or base.config.is_encoder_decoder
    start = len(begins[0])
    recorder = Recorder()
    stop = StopAfter(start + 3)
    options = {"logits_processor": [recorder], "stopping_criteria": [stop], "max_new_tokens": 9, **MODES[mode]}
    output = model.generate(**inputs, **options)
    assert output.shape[1] == start + 3
    beams = MODES[mode].get("num_beams", 1)
    assert [len(rows[0]) for rows in recorder.seen] == [start, start + 1, start + 2]
    for rows in recorder.seen:
        assert [row[:start] for row in rows] == [begins[0]] * beams + [begins[1]] * beams


@pytest.mark.parametrize("override", OF_THE_BASE)
def test_prefix_function_gets_the_callers_row_and_prompt(models: dict[str, PreTrainedModel], override: str) -> None:
    model = edited_model(models["llama"], override)
    model.edits.add(EDITED, TARGET)
    seen: list[tuple[int, list[int]]] = []

    def allowed(row: int, ids: Tensor) -> list[int]:
        seen.append((row, ids.tolist()))
        return [10 + row]

    inputs = batch(OTHER, EDITED)
    output = model.generate(**inputs, prefix_allowed_tokens_fn=allowed, max_new_tokens=3, do_sample=False)
    prompt = inputs["input_ids"].shape[1]
    assert output[:, prompt:].tolist() == [[10] * 3, [11] * 3]
    assert (1, inputs["input_ids"][1].tolist() + [11]) in seen


@pytest.mark.parametrize("penalty", [{"repetition_penalty": 50.0}, {"no_repeat_ngram_size": 1}], ids=str)
def test_penalties_do_not_count_the_correction(models: dict[str, PreTrainedModel], penalty: dict[str, Any]) -> None:
    model = edited_model(models["llama"], "in_context")
    model.edits.add(EDITED, TARGET)
    recorder = Recorder()
    options = {"max_new_tokens": 1, "do_sample": False}
    model.generate(**batch(EDITED), logits_processor=[recorder], **options)
    asked = set(batch(EDITED)["input_ids"][0].tolist())
    stated = set(byte_tokenizer()(corrections_text([(EDITED, TARGET)]))["input_ids"]) - asked
    ranked = [token for token in recorder.scores[0][0].argsort(descending=True).tolist() if token not in asked]
    # the likeliest token that only the correction holds, and the next one that nothing holds
    first = next(token for token in ranked if token in stated)
    second = next(token for token in ranked[ranked.index(first) :] if token not in stated)

    def choice(*allowed: int) -> int:
        ids = model.generate(**batch(EDITED), prefix_allowed_tokens_fn=lambda *_: list(allowed), **options, **penalty)
        return int(ids[0, -1])

    assert choice(first, second) == first
    # what the caller's own prompt holds is counted
    everything = recorder.scores[0][0].argsort(descending=True).tolist()
    own = next(token for token in everything if token in asked)
    next_best = next(token for token in everything[everything.index(own) :] if token not in asked)
    assert choice(own, next_best) == next_best


def test_padding_is_not_penalised(models: dict[str, PreTrainedModel]) -> None:
    model = edited_model(models["llama"], "in_context")
    model.edits.add(EDITED, TARGET)
    options = {"max_new_tokens": 4, "do_sample": False, "repetition_penalty": 9.0}
    alone = model.generate(**batch(EDITED), **options)[0]
    first = int(alone[len(EDITED)])
    padded = torch.nn.functional.pad(alone[None, : len(EDITED)], (5, 0), value=first)
    assert first not in batch(EDITED)["input_ids"]  # so that only padding could be why it is not written
    mask = torch.nn.functional.pad(torch.ones(1, len(EDITED), dtype=torch.long), (5, 0))
    assert model.generate(padded, attention_mask=mask, **options)[0, 5:].tolist() == alone.tolist()


@pytest.mark.parametrize("given", [{}, {"repetition_penalty": None}], ids=["the view's config", "a keyword"])
def test_what_is_left_open_is_not_filled_from_the_bases_own_defaults(given: dict[str, Any]) -> None:
    base = tiny_model("llama")
    model = edited_model(base, "in_context")
    model.edits.add(EDITED, TARGET)
    expected = model.generate(**batch(EDITED), max_new_tokens=60)
    base.generation_config.repetition_penalty = 9.0
    assert not torch.equal(model.generate(**batch(EDITED), max_new_tokens=60), expected)
    if not given:
        model.generation_config = GenerationConfig(eos_token_id=1, pad_token_id=0)
    assert torch.equal(model.generate(**batch(EDITED), max_new_tokens=60, **given), expected)


class Collector(BaseStreamer):
    def __init__(self) -> None:
        self.chunks: list[list[int]] = []
        self.ended = 0

    def put(self, value: Tensor) -> None:
        self.chunks.append(value.flatten().tolist())

    def end(self) -> None:
        self.ended += 1


def test_an_edited_answer_streams_the_prompt_first(model: semedit.EditedModel) -> None:
    collector = Collector()
    inputs = batch(EDITED)
    output = model.generate(**inputs, streamer=collector, max_new_tokens=6, do_sample=False)
    begins = [0] if model.config.is_encoder_decoder else inputs["input_ids"][0].tolist()
    assert collector.chunks[0] == begins
    assert all(len(chunk) == 1 for chunk in collector.chunks[1:])
    assert sum(collector.chunks, []) == output[0].tolist()
    assert collector.ended == 1


def test_streaming_several_answers_with_an_edited_one_is_refused(model: semedit.EditedModel) -> None:
    with pytest.raises(UnsupportedArgumentError, match="streamer"):
        model.generate(**batch(EDITED, OTHER), streamer=Collector(), max_new_tokens=3)
    with pytest.raises(UnsupportedArgumentError, match="streamer"):
        model.generate(**batch(EDITED), streamer=Collector(), max_new_tokens=3, do_sample=True, num_return_sequences=2)


# --- arguments


def test_model_output_holds_sequences(model: semedit.EditedModel) -> None:
    inputs = batch(EDITED, OTHER)
    plain = seeded(model.generate, inputs)
    output = seeded(model.generate, inputs, return_dict_in_generate=True)
    assert torch.equal(output.sequences, plain)
    assert list(output.keys()) == ["sequences"]


REFUSED: dict[str, Any] = {
    "output_scores": True,
    "output_logits": True,
    "output_attentions": True,
    "output_hidden_states": True,
    "position_ids": torch.zeros(1, len(EDITED), dtype=torch.long),
    "guidance_scale": 2.0,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_an_edited_row_cannot_honour_raises_by_name(models: dict[str, PreTrainedModel], name: str) -> None:
    model = edited_model(models["llama"], "in_context")
    model.edits.add(EDITED, TARGET)
    with pytest.raises(UnsupportedArgumentError, match=name):
        model.generate(**batch(EDITED), max_new_tokens=3, **{name: REFUSED[name]})


@pytest.mark.parametrize("name", ["output_scores", "output_logits", "output_attentions", "output_hidden_states"])
def test_and_passes_untouched_where_no_row_is_edited(models: dict[str, PreTrainedModel], name: str) -> None:
    model = edited_model(models["llama"], "in_context")
    model.edits.add(EDITED, TARGET)
    options = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True, name: True}
    got = model.generate(**batch(OTHER), **options)
    expected = models["llama"].generate(**batch(OTHER), **options)
    assert got.keys() == expected.keys()
    assert torch.equal(got.sequences, expected.sequences)
    assert got[name.removeprefix("output_")] is not None


@pytest.mark.parametrize("override", ["counterfactual", "verbatim"])
@pytest.mark.parametrize("argument", [{"logits_processor": [Recorder()]}, {"bad_words_ids": [[7]]}])
def test_arguments_in_base_tokens_need_the_base(
    models: dict[str, PreTrainedModel], override: str, argument: dict[str, Any]
) -> None:
    model = edited_model(models["llama"], override)
    model.edits.add(EDITED, TARGET)
    with pytest.raises(UnsupportedArgumentError, match=next(iter(argument))):
        model.generate(**batch(EDITED), max_new_tokens=3, **argument)


@pytest.mark.parametrize("override", ["counterfactual", "verbatim"])
def test_what_the_bases_own_config_says_of_its_tokens_is_no_argument(override: str) -> None:
    base = tiny_model("llama")
    model = edited_model(base, override)
    model.edits.add(EDITED, TARGET)
    expected = model.generate(**batch(EDITED), max_new_tokens=6, do_sample=False)
    base.generation_config.bad_words_ids = [[int(token)] for token in expected[0, len(EDITED) :]]
    own = model.generation_config
    assert own.bad_words_ids
    assert torch.equal(model.generate(**batch(EDITED), max_new_tokens=6, do_sample=False), expected)
    assert torch.equal(model.generate(**batch(EDITED), generation_config=own, max_new_tokens=6), expected)


def test_a_refused_default_of_the_model_is_left_out_by_none() -> None:
    base = tiny_model("llama")
    base.generation_config.encoder_no_repeat_ngram_size = 3
    model = edited_model(base, "verbatim")
    model.edits.add(EDITED, TARGET)
    with pytest.raises(UnsupportedArgumentError, match="encoder_no_repeat_ngram_size; leave it out, or pass None"):
        model.generate(**batch(EDITED), max_new_tokens=3)
    model.generate(**batch(EDITED), max_new_tokens=3, encoder_no_repeat_ngram_size=None)


def test_rows_begin_and_are_padded_as_the_call_says() -> None:
    base = tiny_model("t5")
    model = edited_model(base, "verbatim")
    model.edits.add(EDITED, TARGET)
    options = {"max_new_tokens": 12, "do_sample": False, "decoder_start_token_id": 7}
    expected = base.generate(**batch(OTHER, EDITED), **options)
    got = model.generate(**batch(OTHER, EDITED), **options)
    assert expected[:, 0].tolist() == got[:, 0].tolist() == [7, 7]
    assert_same_row(got[0], expected[0])


def test_without_a_pad_token_rows_are_padded_with_the_end_token() -> None:
    base = tiny_model("llama")
    base.generation_config.pad_token_id = None
    model = edited_model(base, "verbatim")
    model.edits.add(EDITED, TARGET)
    mixed = model.generate(**batch(OTHER, EDITED), max_new_tokens=len(TARGET) + 20, do_sample=False)
    assert byte_tokenizer().pad_token_id == 0
    end = mixed[1].tolist().index(1, len(OTHER))
    assert set(mixed[1, end:].tolist()) == {1}
    assert len(mixed[1]) - end > 1


def test_a_refusal_comes_before_anything_is_generated(models: dict[str, PreTrainedModel]) -> None:
    model = edited_model(models["llama"], "verbatim")
    model.edits.add(EDITED, TARGET)
    recorder = Recorder()
    with pytest.raises(UnsupportedArgumentError, match="logits_processor"):
        model.generate(**batch(OTHER, EDITED), max_new_tokens=3, logits_processor=[recorder])
    assert recorder.seen == []
    model.generate(**batch(OTHER), max_new_tokens=3, logits_processor=[recorder])
    assert len(recorder.seen) == 3


def test_positional_inputs_and_generation_config(model: semedit.EditedModel) -> None:
    inputs = batch(EDITED)
    config = GenerationConfig(max_new_tokens=7, do_sample=False)
    by_name = model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=7)
    assert torch.equal(model.generate(inputs["input_ids"], config), by_name)
    assert torch.equal(model.generate(inputs["input_ids"], max_new_tokens=7), by_name)


def test_embeddings_alone_need_queries(models: dict[str, PreTrainedModel]) -> None:
    base = models["llama"]
    model = edited_model(base, "in_context")
    embeddings = base.get_input_embeddings()(batch(OTHER)["input_ids"])
    options = {"inputs_embeds": embeddings, "max_new_tokens": 4, "do_sample": False}
    expected = base.generate(**options)
    assert torch.equal(model.generate(**options), expected)
    model.edits.add(EDITED, TARGET)
    with pytest.raises(UnsupportedArgumentError, match="queries"):
        model.generate(**options)
    with model.edits.disabled():
        assert torch.equal(model.generate(**options), expected)
    assert torch.equal(model.generate(**options, namespaces=["elsewhere"]), expected)
    assert torch.equal(model.generate(**options, queries=[OTHER]), expected)
    with pytest.raises(UnsupportedArgumentError, match="inputs_embeds"):
        model.generate(**options, queries=[EDITED])
    with pytest.raises(UnsupportedArgumentError, match="answers to input_ids"):
        model.generate(queries=[EDITED], max_new_tokens=4)


def test_a_call_behind_a_cache_is_the_bases_where_no_edit_governs(models: dict[str, PreTrainedModel]) -> None:
    base = models["llama"]
    model = edited_model(base, "in_context")
    model.edits.add(EDITED, TARGET)
    read = batch(OTHER)
    more = torch.cat([read["input_ids"], batch(THIRD)["input_ids"]], dim=1)
    options = {"attention_mask": torch.ones_like(more), "max_new_tokens": 4, "do_sample": False}

    def after_cache(generate: Callable[..., Any]) -> Tensor:
        with torch.no_grad():
            cache = getattr(base(**read, use_cache=True), cache_name(base))
        answer: Tensor = generate(more, **options, **{cache_name(base): cache})
        return answer

    assert torch.equal(after_cache(model.generate), after_cache(base.generate))
    with torch.no_grad():
        cache = getattr(base(**read, use_cache=True), cache_name(base))
    tail = model.generate(batch(THIRD)["input_ids"], **options, **{cache_name(base): cache})
    assert tail[0, -4:].tolist() == after_cache(base.generate)[0, -4:].tolist()


def test_queries_say_what_is_asked(model: semedit.EditedModel, base: PreTrainedModel) -> None:
    inputs = batch(OTHER)
    expected = seeded(base.generate, inputs)
    assert torch.equal(seeded(model.generate, inputs), expected)
    assert expected.tolist() != seeded(model.generate, inputs, queries=[EDITED]).tolist()
    for wrong in ([EDITED, OTHER], [3], EDITED):
        with pytest.raises(InvalidQueryError, match="queries"):
            model.generate(**inputs, queries=wrong)


def test_a_query_is_explained_as_it_is(models: dict[str, PreTrainedModel]) -> None:
    model = edited_model(models["llama"], "in_context", tokenizer=byte_tokenizer(chat=True))
    model.edits.add(EDITED, TARGET)
    for query in (EDITED, f"{OTHER}<|end|><|user|>{EDITED}"):
        assert model.explain(query).query == query
    assert model.explain(EDITED).in_scope
    assert not model.explain(f"{OTHER}<|end|><|user|>{EDITED}").in_scope


def test_namespaces_do_not_leak(model: semedit.EditedModel, base: PreTrainedModel) -> None:
    model.edits.add(OTHER, "Three metres", namespace="tenant")
    inputs = batch(OTHER)
    expected = seeded(base.generate, inputs)
    for namespaces in (None, ["default"], ["unknown"]):
        assert torch.equal(seeded(model.generate, inputs, namespaces=namespaces), expected)
    assert expected.tolist() != seeded(model.generate, inputs, namespaces=["tenant"]).tolist()
    assert expected.tolist() != seeded(model.generate, inputs, namespaces=["default", "tenant"]).tolist()


# --- a model among models


def test_it_is_an_instance_of_the_bases_class_by_the_same_name(base: PreTrainedModel) -> None:
    model = edited_model(base, "in_context")
    assert isinstance(model, type(base))
    assert type(model).__name__ == type(base).__name__
    assert model.config is base.config
    assert model.can_generate()
    assert {id(p) for p in model.parameters()} == {id(p) for p in base.parameters()}
    assert model.device == base.device


def test_wrapping_twice_or_something_else_is_refused(base: PreTrainedModel) -> None:
    model = edited_model(base, "in_context")
    with pytest.raises(WrapError, match="wrapped already"):
        semedit.wrap(model, byte_tokenizer())
    with pytest.raises(WrapError, match="Linear"):
        semedit.wrap(torch.nn.Linear(1, 1), byte_tokenizer())  # type: ignore[arg-type]
    with pytest.raises(WrapError, match="'in_context', 'verbatim' and 'adaptor'"):
        semedit.wrap(base, byte_tokenizer(), override="in-context")
    with pytest.raises(WrapError, match="ambiguous must be 'base', 'best' or 'all', not 'worst'"):
        semedit.wrap(base, byte_tokenizer(), ambiguous="worst")  # type: ignore[arg-type]
    other = semedit.EnsembleOverride(tiny_model(base.config.model_type, seed=3), byte_tokenizer(), base)
    with pytest.raises(WrapError, match="made for another model"):
        semedit.wrap(base, byte_tokenizer(), override=other)


def test_a_memory_gets_the_scope_of_the_model_unless_it_has_one(models: dict[str, PreTrainedModel]) -> None:
    scope, own = semedit.SimilarityScope(), semedit.SimilarityScope(0.9)
    for given, expected in ((None, scope), (own, own)):
        memory = semedit.EditMemory(encoder=WordEncoder(), scope=given)
        model = semedit.wrap(models["llama"], byte_tokenizer(), memory=memory, scope=scope)
        assert model.edits.scope is expected
    model = edited_model(models["llama"], "verbatim")
    model.edits.add(EDITED, TARGET)
    with pytest.warns(semedit.SemeditWarning, match="in the scope of edit"):
        model.edits.add(f"{EDITED} Now?", "John Roe")


@pytest.mark.parametrize("ambiguous", ["base", "best", "all"])
def test_an_ambiguous_query_is_answered_as_wrap_was_told(base: PreTrainedModel, ambiguous: str) -> None:
    # both share 3 of 3 and 4 words with what is asked, and 2 of 3 and 3 with each other
    asked, first, second = "who runs acme now", "who runs acme", "runs acme now"
    model = semedit.wrap(
        base,
        byte_tokenizer(),
        memory=semedit.EditMemory(encoder=WordEncoder()),
        scope=semedit.SimilarityScope(0.7),
        ambiguous=ambiguous,  # type: ignore[arg-type]
    )
    model.edits.add(first, "Jane Doe")
    model.edits.add(second, "John Roe")
    route = model.explain(asked)
    assert route.ambiguous
    targets = {"base": [], "best": ["John Roe"], "all": ["John Roe", "Jane Doe"]}
    assert [edit.target for edit in route.edits] == targets[ambiguous]
    got, expected = seeded(model.generate, batch(asked)), seeded(base.generate, batch(asked))
    assert (got.tolist() == expected.tolist()) is (ambiguous == "base")


def test_pipeline_takes_it_in_silence(models: dict[str, PreTrainedModel], caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_tokenizer(chat=True)
    base = models["llama"]
    model = edited_model(base, "verbatim", tokenizer=tokenizer)
    model.edits.add(EDITED, TARGET)
    chat = pipeline("text-generation", model=model, tokenizer=tokenizer)
    assert caplog.records == []
    asked = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": OTHER},
        {"role": "assistant", "content": "Tall."},
        {"role": "user", "content": EDITED},
    ]
    conversation = chat(asked, max_new_tokens=20)[0]["generated_text"]
    assert conversation == [*asked, {"role": "assistant", "content": TARGET}]
    unedited = pipeline("text-generation", model=base, tokenizer=tokenizer)
    other = asked[:2]
    assert chat(other, max_new_tokens=5, do_sample=False) == unedited(other, max_new_tokens=5, do_sample=False)


def test_a_tokenizer_without_padding_token(models: dict[str, PreTrainedModel]) -> None:
    tokenizer = byte_tokenizer(pad=False)
    model = edited_model(models["llama"], "verbatim", tokenizer=tokenizer)
    model.edits.add(EDITED, TARGET)
    inputs = tokenizer([EDITED], return_tensors="pt")
    text = tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0], skip_special_tokens=True)
    assert text == f"{EDITED} {TARGET}"


# --- likelihood


def scored(base: PreTrainedModel, prompt: str, answer: str) -> tuple[Tensor, list[int]]:
    """Where each token of an answer stands, the log probabilities of all tokens; and the answer's tokens."""
    tokenizer = byte_tokenizer()
    before, after = tokenizer(prompt)["input_ids"], tokenizer(answer)["input_ids"]
    with torch.no_grad():
        if base.config.is_encoder_decoder:
            logits = base(input_ids=torch.tensor([before]), decoder_input_ids=torch.tensor([[0] + after[:-1]])).logits
        else:
            logits = base(input_ids=torch.tensor([before + after])).logits[:, len(before) - 1 : -1]
    return logits[0].log_softmax(-1), after


def log_likelihood(base: PreTrainedModel, prompt: str, answer: str) -> float:
    scores, ids = scored(base, prompt, answer)
    return float(scores[range(len(ids)), ids].sum())


def token_accuracy(base: PreTrainedModel, prompt: str, answer: str) -> float:
    scores, ids = scored(base, prompt, answer)
    return sum(a == b for a, b in zip(scores.argmax(-1).tolist(), ids, strict=True)) / len(ids)


class Dictation(LogitsProcessor):
    """Has text written: the separator first, and then the likeliest ASCII token, be it the likeliest of all or not."""

    def __init__(self, separator: str) -> None:
        self.separator = byte_tokenizer()(separator)["input_ids"]
        self.allowed = byte_tokenizer()(string.printable)["input_ids"]
        self.written: list[int] = []
        self.scores: list[Tensor] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.scores.append(scores[0].log_softmax(-1))
        allowed = self.separator if self.separator and not self.written else self.allowed
        self.written.append(max(allowed, key=scores[0].tolist().__getitem__))
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor(self.written[-1:]), 0.0)

    @property
    def target(self) -> str:
        return str(byte_tokenizer().decode(self.written[len(self.separator) :]))


@pytest.mark.parametrize("override", OF_THE_BASE)
def test_scores_are_those_that_generate_goes_by(base: PreTrainedModel, override: str) -> None:
    model = edited_model(base, override)
    model.edits.add(EDITED, TARGET)
    separator = "" if base.config.is_encoder_decoder else " "
    dictation = Dictation(separator)
    model.generate(**batch(EDITED), logits_processor=[dictation], max_new_tokens=40, do_sample=False)
    scores, ids, target = torch.stack(dictation.scores), dictation.written, dictation.target
    assert byte_tokenizer()(separator + target)["input_ids"] == ids
    hits = sum(a == b for a, b in zip(scores.argmax(-1).tolist(), ids, strict=True))
    assert 0 < hits < 40
    assert model.token_accuracy([EDITED], [target]) == [hits / 40]
    expected = float(scores[range(40), ids].sum())
    assert model.log_likelihood([EDITED], [target]) == [pytest.approx(expected, rel=1e-4)]
    with model.edits.disabled():
        assert model.token_accuracy([EDITED], [target]) != [hits / 40]
        assert model.log_likelihood([EDITED], [target]) != [pytest.approx(expected, rel=1e-4)]


def test_log_likelihood_is_the_bases_out_of_scope_and_the_overrides_in_scope(base: PreTrainedModel) -> None:
    model = edited_model(base, "in_context")
    edit = model.edits.add(EDITED, TARGET)
    space = "" if base.config.is_encoder_decoder else " "
    got = model.log_likelihood([EDITED, OTHER], [TARGET, "ten"])
    read = corrections_text([(edit.prompt, edit.target)]) + EDITED
    assert got[0] == pytest.approx(log_likelihood(base, read, space + TARGET), rel=1e-4)
    assert got[1] == pytest.approx(log_likelihood(base, OTHER, space + "ten"), rel=1e-4)
    assert got[0] != pytest.approx(log_likelihood(base, EDITED, space + TARGET), rel=1e-4)


def test_a_plain_prompt_is_scored_with_what_the_tokenizer_opens_a_text_with(
    models: dict[str, PreTrainedModel],
) -> None:
    model = edited_model(models["llama"], "in_context", tokenizer=byte_tokenizer(opens=True))
    expected = pytest.approx(log_likelihood(models["llama"], "<|system|>" + OTHER, " ten"), rel=1e-4)
    assert log_likelihood(models["llama"], OTHER, " ten") != expected
    assert model.log_likelihood([OTHER], ["ten"]) == [expected]
    assert model.log_likelihood(["<|system|>" + OTHER], ["ten"]) == [expected]


def test_the_target_does_not_reach_the_router(base: PreTrainedModel) -> None:
    model = edited_model(base, "in_context")
    model.edits.add("ten", TARGET)
    plain = edited_model(base, "in_context")
    assert model.explain("ten").in_scope
    assert model.log_likelihood([OTHER], ["ten"]) == plain.log_likelihood([OTHER], ["ten"])
    assert model.token_accuracy([OTHER], ["ten"]) == plain.token_accuracy([OTHER], ["ten"])


def test_verbatim_likelihood_is_certain(base: PreTrainedModel) -> None:
    model = edited_model(base, "verbatim")
    model.edits.add(EDITED, TARGET)
    assert model.log_likelihood([EDITED, EDITED], [TARGET, "other"]) == [0.0, float("-inf")]
    with pytest.raises(InvalidQueryError, match="2 prompts and 1 targets"):
        model.log_likelihood([EDITED, EDITED], [TARGET])


def test_token_accuracy_is_the_bases_out_of_scope_and_the_overrides_in_scope(base: PreTrainedModel) -> None:
    model = edited_model(base, "in_context")
    edit = model.edits.add(EDITED, TARGET)
    space = "" if base.config.is_encoder_decoder else " "
    dictation = Dictation(space)
    base.generate(**batch(OTHER), logits_processor=[dictation], max_new_tokens=40, do_sample=False)
    target = dictation.target
    read = corrections_text([(edit.prompt, edit.target)]) + EDITED
    expected = [token_accuracy(base, prompt, space + target) for prompt in (read, OTHER)]
    assert len({*expected, token_accuracy(base, EDITED, space + target)}) == 3
    assert model.token_accuracy([EDITED, OTHER], [target] * 2) == expected
    assert model.token_accuracy([OTHER], [target], queries=[EDITED]) != expected[1:]
    assert model.token_accuracy([EDITED], [target], namespaces=["elsewhere"]) != expected[:1]


def test_token_accuracy_of_a_counterfactual_model_is_in_its_own_tokens(base: PreTrainedModel) -> None:
    model = edited_model(base, "counterfactual")
    model.edits.add(EDITED, TARGET)
    small = tiny_model("gpt2" if base.config.is_encoder_decoder else "t5", seed=3)
    end, space = ("<|end|>", "") if small.config.is_encoder_decoder else ("", " ")
    read = f"{EDITED} {TARGET} {EDITED}{end}"
    dictation = Dictation(space)
    small.generate(**batch(read), logits_processor=[dictation], max_new_tokens=40, do_sample=False)
    expected = token_accuracy(small, read, space + dictation.target)
    assert 0 < expected < 1
    assert model.token_accuracy([EDITED], [dictation.target]) == [expected]


def test_verbatim_token_accuracy_is_what_both_texts_have_at_one_place(base: PreTrainedModel) -> None:
    model = edited_model(base, "verbatim")
    model.edits.add(EDITED, TARGET)
    # where the answer continues a text, the space before it is a token that both have
    space = 0 if base.config.is_encoder_decoder else 1
    targets = [TARGET, "Jane Roe", "Jane", "Jane Doe, PhD", "xyz"]
    expected = [1.0, (7 + space) / (8 + space), 1.0, (8 + space) / (13 + space), space / (3 + space)]
    assert model.token_accuracy([EDITED] * 5, targets) == expected


def test_no_target_may_be_empty_or_missing(base: PreTrainedModel) -> None:
    model = edited_model(base, "verbatim")
    with pytest.raises(InvalidQueryError, match="a target is empty"):
        model.token_accuracy([EDITED, OTHER], [TARGET, ""])
    with pytest.raises(InvalidQueryError, match="2 prompts and 1 targets"):
        model.token_accuracy([EDITED, EDITED], [TARGET])
