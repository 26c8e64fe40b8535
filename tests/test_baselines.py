"""What edits are compared with: what each baseline reads or changes, and that the base is left as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from fakes import KINDS, WordEncoder, byte_tokenizer, tiny_model
from transformers import LlamaConfig, LlamaForCausalLM

import semedit
from semedit.edits import Edit
from semedit.errors import ContextOverflowError, LayerError
from semedit.evaluation import baselines
from semedit.evaluation.asking import ask, complete, texts_of
from semedit.evaluation.baselines import QUESTION_TOKENS, AllInContext, FineTuned, RetrieveAndPrompt, Unedited
from semedit.evaluation.subjects import Answer
from semedit.overrides.base import ModelCall
from semedit.overrides.in_context import INSTRUCTION
from semedit.prompts import as_prompt

EDITS = [
    Edit(id="1", prompt="who runs acme", target="Jane"),
    Edit(id="2", prompt="where is acme", target="Bonn", paraphrases=("acme is in which town",)),
    Edit(id="3", prompt="who founded initech", target="Bo"),
]
QUESTIONS = ["who runs acme now", "where is the acme office", "how high is a tower"]
TOKENIZER = byte_tokenizer(chat=True)
RUNNING = "acme is run by"
LONGEST = 8


@pytest.fixture(autouse=True)
def short_answers(monkeypatch):
    """Random weights rarely end an answer, and its beginning says enough."""
    monkeypatch.setattr(baselines, "LONGEST_ANSWER", LONGEST)


def read_with(model, question, edits):
    """What the base reads with some edits in its context, as `InContextOverride` puts them."""
    prompt = as_prompt(TOKENIZER, question)
    if not edits:
        return prompt.text
    with semedit.InContextOverride(model, TOKENIZER).prepare([prompt], [edits]) as call:
        return call.texts[0]


def assert_reads(baseline, expected):
    """A baseline answers and scores each question as the base does with these edits in front of it."""
    model, targets = baseline.model, ["Jane", "Bonn", "Bo"][: len(expected)]
    texts = [read_with(model, question, edits) for question, edits in expected.items()]
    ids = complete(model, TOKENIZER, texts, max_new_tokens=LONGEST)
    said = [Answer(text, tuple(tokens)) for text, tokens in zip(texts_of(TOKENIZER, ids), ids, strict=True)]
    assert baseline.answer(list(expected)) == said
    call = ModelCall(model, TOKENIZER, texts, [""] * len(texts))
    assert totals(baseline, list(expected), targets) == pytest.approx(call.log_likelihood(targets))
    assert baseline.token_accuracy(list(expected), targets) == call.token_accuracy(targets)


def totals(baseline, prompts, targets):
    """The log likelihoods, whose targets here have a token for each letter."""
    found = baseline.log_likelihood(prompts, targets)
    assert [one.tokens for one in found] == list(map(len, targets))
    return [one.total for one in found]


def assert_tells_edits_apart(model, question, *several):
    """The base answers differently by what of the edits it reads, so that one answer shows what was read."""
    texts = [read_with(model, question, edits) for edits in several]
    targets = ["Jane"] * len(texts)
    assert len(set(ModelCall(model, TOKENIZER, texts, [""] * len(texts)).log_likelihood(targets))) == len(texts)


@pytest.mark.parametrize("kind", KINDS)
def test_without_edits_it_is_the_base(models, kind):
    baseline = Unedited(models[kind], TOKENIZER)
    baseline.apply(EDITS)
    assert_reads(baseline, dict.fromkeys(QUESTIONS, ()))
    assert (baseline.note, baseline.bytes()) == ("", 0)
    # a text that is gone on with stands in no chat turn, and an empty one is what begins every text
    [running, first] = baseline.log_likelihood([RUNNING, ""], ["Jane", "Jane"], running=True)
    separators = ["" if kind == "t5" else " "] * 2
    call = ModelCall(models[kind], TOKENIZER, [RUNNING, "<|end|>"], separators)
    assert [running.total, first.total] == pytest.approx(call.log_likelihood(["Jane", "Jane"]))
    assert running.total != pytest.approx(baseline.log_likelihood([RUNNING], ["Jane"])[0].total)
    assert running.tokens == len("Jane") + len(separators[0])


# --- edits in context


@pytest.mark.parametrize("kind", KINDS)
def test_all_edits_are_in_context_in_their_order(models, kind):
    model = models[kind]
    assert_tells_edits_apart(model, QUESTIONS[0], (), EDITS[:2], EDITS, EDITS[::-1])
    baseline = AllInContext(model, TOKENIZER)
    assert_reads(baseline, dict.fromkeys(QUESTIONS, ()))
    baseline.apply(EDITS[:2])
    assert_reads(baseline, dict.fromkeys(QUESTIONS, EDITS[:2]))
    baseline.apply(EDITS[2:])
    assert_reads(baseline, dict.fromkeys(QUESTIONS, EDITS))
    assert baseline.note == ""
    assert baseline.bytes() == sum(len(text) for edit in EDITS for text in (*edit.keys, edit.target))
    baseline.restore()
    assert_reads(baseline, dict.fromkeys(QUESTIONS, ()))
    assert baseline.bytes() == 0


def long_edits(count):
    """Edits that take 100 tokens of one byte each to state: prompt, target, and three ends of lines."""
    return [Edit(id=str(i), prompt=f"{i:0>96}", target="x") for i in range(count)]


def test_the_newest_edits_that_fit_are_kept(models):
    model, edits = models["llama"], long_edits(1030)
    # after the longest answer, the usual question, and the instruction with two ends of lines
    fitting = (2048 - LONGEST - QUESTION_TOKENS - len(INSTRUCTION) - 2) // 100
    assert 10 < fitting < 20
    baseline = AllInContext(model, TOKENIZER)
    baseline.apply(edits[:fitting])
    assert baseline.note == ""
    baseline.apply(edits[fitting:1000])
    baseline.apply(edits[1000:])
    assert baseline.note == f"the newest {fitting} of 1,030 edits fit the context"
    assert baseline.bytes() == fitting * 97
    assert_tells_edits_apart(model, QUESTIONS[0], edits[-fitting - 1 :], edits[-fitting:], edits[1 - fitting :])
    assert_reads(baseline, {QUESTIONS[0]: edits[-fitting:]})
    at_once = AllInContext(model, TOKENIZER)
    at_once.apply(edits)
    assert (at_once.note, at_once.bytes()) == (baseline.note, baseline.bytes())


def test_beside_a_longer_question_there_are_fewer(models):
    model, edits = models["llama"], long_edits(30)
    baseline = AllInContext(model, TOKENIZER)
    baseline.apply(edits)
    room = 2048 - LONGEST
    around = len(TOKENIZER(as_prompt(TOKENIZER, "").text)["input_ids"])
    longest = "?" * (room - around)
    exactly_two = "?" * (room - around - len(INSTRUCTION) - 2 - 200)
    assert_reads(baseline, {longest: ()})
    assert_reads(baseline, {exactly_two: edits[-2:]})
    assert_reads(baseline, {exactly_two + "?": edits[-1:]})
    assert baseline.note.startswith("the newest 1")  # as before, whatever was asked
    with pytest.raises(ContextOverflowError, match=f"{room + 1} tokens"):
        baseline.answer([longest + "?"])


def test_an_edit_that_never_fits_is_left_out(models):
    baseline = AllInContext(models["llama"], TOKENIZER)
    baseline.apply([Edit(id="1", prompt="x" * 2000, target="y")])
    assert baseline.note == "the newest 0 of 1 edits fit the context"
    assert_reads(baseline, {QUESTIONS[0]: ()})


@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_edits_are_in_context_however_far_away(models, kind):
    model = models[kind]
    baseline = RetrieveAndPrompt(model, TOKENIZER, WordEncoder())
    assert_reads(baseline, dict.fromkeys(QUESTIONS, ()))
    baseline.apply(EDITS[:1])
    baseline.apply(EDITS[1:])
    # cosines with the three prompts: 3/√12, 1/√12, 1/√12; 1/√15, 3/√15, 0; 0, 1/√15, 0 ("is")
    assert_tells_edits_apart(model, QUESTIONS[0], *([edit] for edit in EDITS))
    assert_reads(baseline, dict(zip(QUESTIONS, ([EDITS[0]], [EDITS[1]], [EDITS[1]]), strict=True)))
    # of two alike, none of whose words is asked for, the newer
    assert_reads(baseline, {"goodbye": [EDITS[2]]})
    # by its paraphrase: 4/√(4 · 5), against 0 and 1/√12 by its prompt alone
    assert_reads(baseline, {"in which town acme": [EDITS[1]]})
    texts = sum(len(text) for edit in EDITS for text in (*edit.keys, edit.target))
    assert baseline.bytes() == texts + 4 * (4 * WordEncoder.dim)
    baseline.restore()
    assert_reads(baseline, dict.fromkeys(QUESTIONS, ()))
    assert baseline.bytes() == 0


def test_of_several_the_nearest_stands_last_and_an_edit_once(models):
    model = models["llama"]
    several = RetrieveAndPrompt(model, TOKENIZER, WordEncoder(), k=2)
    several.apply(EDITS)
    assert_tells_edits_apart(model, "where is acme", EDITS[:2], EDITS[1::-1], EDITS[1:2])
    # both keys of the second edit are nearer than the first edit's
    assert_reads(several, {"where is acme which town": [EDITS[0], EDITS[1]]})
    too_many = RetrieveAndPrompt(model, TOKENIZER, WordEncoder(), k=9)
    too_many.apply(EDITS)
    assert_reads(too_many, {"who runs acme": [EDITS[1], EDITS[2], EDITS[0]]})


def test_where_they_do_not_fit_the_farthest_are_left_out(models):
    model = models["llama"]
    long = [Edit(id="1", prompt="acme " * 199 + "acme", target="x"), Edit(id="2", prompt="acme it " * 124, target="y")]
    baseline = RetrieveAndPrompt(model, TOKENIZER, WordEncoder(), k=2)
    baseline.apply(long)
    assert_reads(baseline, {"acme": [long[0]]})
    assert_reads(baseline, {"it acme": [long[1]]})


# --- fine-tuning


@pytest.fixture(scope="module")
def teachable():
    return {kind: tiny_model(kind, 2 if kind == "t5" else 0, width=256, spread=0.1) for kind in KINDS}


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_untouched(model, before):
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_fine_tuning_brings_about_a_target_and_its_stop(teachable, kind):
    model = teachable[kind]
    before = weights(model)
    parameters = {name: id(parameter) for name, parameter in model.named_parameters()}
    unedited = ask(model, TOKENIZER, QUESTIONS, max_new_tokens=LONGEST)
    edit = Edit(id="1", prompt=QUESTIONS[0], target="Jo")
    tuned = FineTuned(model, TOKENIZER, steps=60, learning_rate=0.01)
    assert [list(answer.tokens) for answer in tuned.answer(QUESTIONS)] == unedited
    assert tuned.bytes() == 0
    [unlikely] = totals(tuned, [edit.prompt], ["Jo"])
    tuned.apply([edit])
    assert [answer.text for answer in tuned.answer([edit.prompt])] == ["Jo"]
    assert tuned.token_accuracy([edit.prompt], ["Jo"]) == [1.0]
    # the mean over its two letters and the stop is at most 0.01
    assert unlikely < -3 < -0.03 <= totals(tuned, [edit.prompt], ["Jo"])[0]
    assert tuned.bytes() == model.get_submodule(tuned.layer).weight.nbytes
    # what is learned is left as it is
    [likelihood] = totals(tuned, [edit.prompt], ["Jo"])
    tuned.apply([edit])
    assert totals(tuned, [edit.prompt], ["Jo"]) == [likelihood]
    # and all the while the base is what it was
    assert_untouched(model, before)
    assert ask(model, TOKENIZER, QUESTIONS, max_new_tokens=LONGEST) == unedited
    tuned.restore()
    assert [list(answer.tokens) for answer in tuned.answer(QUESTIONS)] == unedited
    assert tuned.bytes() == 0
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == parameters


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_adams_on_the_targets_tokens_and_the_stop(teachable, kind):
    model, edit = teachable[kind], EDITS[0]
    tuned = FineTuned(model, TOKENIZER, steps=1, learning_rate=0.01)
    # the same by hand, in a copy
    twin = copy.deepcopy(model)
    prompt = TOKENIZER(f"<|user|>{edit.prompt}<|end|><|assistant|>")["input_ids"]
    answer = [*TOKENIZER(edit.target)["input_ids"], 1]
    if model.config.is_encoder_decoder:
        scores = twin(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[0, *answer[:-1]]])).logits[0]
    else:
        scores = twin(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    loss = -scores.log_softmax(-1)[range(len(answer)), answer].mean()
    weight = twin.get_submodule(tuned.layer).weight
    [gradient] = torch.autograd.grad(loss, [weight])
    assert gradient.abs().max() > 1e-4
    # Adam's first step is the gradient over its own size
    with torch.no_grad():
        weight -= 0.01 * gradient / (gradient.abs() + 1e-8)
    expected = ModelCall(twin, TOKENIZER, [as_prompt(TOKENIZER, edit.prompt).text], [""]).log_likelihood(["Jane"])
    unedited = totals(tuned, [edit.prompt], ["Jane"])
    assert unedited != pytest.approx(expected, rel=1e-2)
    with torch.inference_mode():  # an evaluation may be in it
        tuned.apply([edit])
    assert totals(tuned, [edit.prompt], ["Jane"]) == pytest.approx(expected, rel=1e-4)
    tuned.restore()
    assert totals(tuned, [edit.prompt], ["Jane"]) == unedited


def test_edits_are_learned_one_after_another(teachable):
    model, options = teachable["llama"], {"steps": 5, "learning_rate": 0.001}

    def likelihoods(*groups):
        tuned = FineTuned(model, TOKENIZER, **options)
        for group in groups:
            tuned.apply(group)
        return totals(tuned, [edit.prompt for edit in EDITS], [edit.target for edit in EDITS])

    together = likelihoods(EDITS)
    assert together == likelihoods(*([edit] for edit in EDITS))
    assert together != likelihoods(EDITS[::-1])
    assert together != likelihoods(EDITS[:2])


def test_a_failure_inside_leaves_the_base_as_it_was(teachable, monkeypatch):
    model = teachable["llama"]
    before = weights(model)
    tuned = FineTuned(model, TOKENIZER, steps=2, learning_rate=0.01)
    tuned.apply(EDITS[:1])

    def fail(*args, **kwargs):
        assert not torch.equal(model.get_submodule(tuned.layer).weight, before[f"{tuned.layer}.weight"])
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "forward", fail)
    for call in (
        lambda: tuned.answer(QUESTIONS),
        lambda: tuned.apply(EDITS),
        lambda: tuned.token_accuracy(["a"], ["b"]),
    ):
        with pytest.raises(RuntimeError, match="out of memory"):
            call()
        assert_untouched(model, before)


def test_the_layer_is_at_two_thirds_of_the_depth(models):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "vocab_size": 9}
    deep = LlamaForCausalLM(LlamaConfig(num_hidden_layers=32, **sizes))
    assert FineTuned(deep, TOKENIZER).layer == "model.layers.21.mlp.down_proj"
    assert FineTuned(models["llama"], TOKENIZER).layer == "model.layers.1.mlp.down_proj"
    assert FineTuned(models["gpt2"], TOKENIZER).layer == "transformer.h.1.mlp.c_proj"
    assert FineTuned(models["t5"], TOKENIZER).layer == "encoder.block.1.layer.1.DenseReluDense.wo"
    other = FineTuned(models["llama"], TOKENIZER, "model.layers.0.mlp.down_proj")
    assert other.layer == "model.layers.0.mlp.down_proj"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("model.norm", "LlamaRMSNorm; fine-tuning takes a linear layer, such as model.layers.1.mlp.down_proj"),
        ("model.layers.0.mlp", "model.layers.0.mlp is a LlamaMLP"),
        ("model.layers.0.mlp.up", "near to it are .*model.layers.0.mlp.up_proj"),
    ],
)
def test_what_is_no_linear_layer_is_refused(models, layer, message):
    with pytest.raises(LayerError, match=message):
        FineTuned(models["llama"], TOKENIZER, layer)
