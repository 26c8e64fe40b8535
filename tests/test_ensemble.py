"""The ensemble: its formula by hand, its order among processors, beams, and models that do not go together.

What it has in common with other overrides is in test_generate.py.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from fakes import KINDS, WordEncoder, byte_tokenizer, tiny_model
from torch import Tensor
from transformers import ExponentialDecayLengthPenalty, LogitsProcessor, PreTrainedModel
from transformers import RepetitionPenaltyLogitsProcessor as RepetitionPenalty

import semedit
from semedit.edits import Edit
from semedit.errors import ContextOverflowError, WrapError
from semedit.overrides.in_context import corrections_text
from semedit.prompts import read_prompt

ASKED, TARGET = "Who runs Acme?", "Jane Doe"
OTHER, OTHER_TARGET = "Where is the headquarters of the maker of anvils?", "Bonn"


@pytest.fixture(params=KINDS)
def base(request: pytest.FixtureRequest, models: dict[str, PreTrainedModel]) -> PreTrainedModel:
    return models[request.param]


@pytest.fixture
def small(base: PreTrainedModel) -> PreTrainedModel:
    return tiny_model(base.config.model_type, seed=3)


def ensemble(base: PreTrainedModel, small: PreTrainedModel, weight: float = 1.0) -> semedit.EditedModel:
    override = semedit.EnsembleOverride(base, byte_tokenizer(), small, weight)
    return wrapped(base, override)


def wrapped(base: PreTrainedModel, override: Any) -> semedit.EditedModel:
    memory = semedit.EditMemory(encoder=WordEncoder())
    model = semedit.wrap(base, byte_tokenizer(), memory=memory, scope=semedit.SimilarityScope(), override=override)
    model.edits.add(ASKED, TARGET)
    model.edits.add(OTHER, OTHER_TARGET)
    return model


def batch(*prompts: str) -> dict[str, Tensor]:
    return dict(byte_tokenizer()(list(prompts), return_tensors="pt", padding=True))


def next_logits(model: PreTrainedModel, text: str, answer: list[int]) -> Tensor:
    """The logits of the token after an answer, `(vocabulary,)`, by a pass over all that was read and written.

    In single precision, which `generate` gives its processors.
    """
    ids = byte_tokenizer()(text)["input_ids"]
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            decoder_ids = torch.tensor([[0, *answer]])
            return model(input_ids=torch.tensor([ids]), decoder_input_ids=decoder_ids).logits[0, -1].float()
        return model(input_ids=torch.tensor([ids + answer])).logits[0, -1].float()


def moved_logits(
    base: PreTrainedModel, small: PreTrainedModel, answer: list[int], weight: float = 1.0, target: str = TARGET
) -> Tensor:
    """The formula of Hewitt et al., for the edit of `ASKED`."""
    edited = next_logits(small, corrections_text([(ASKED, target)]) + ASKED, answer).log_softmax(-1)
    original = next_logits(small, ASKED, answer).log_softmax(-1)
    return next_logits(base, ASKED, answer) + weight * (edited - original)


def answer_of(base: PreTrainedModel, row: Tensor, prompt: int) -> list[int]:
    return row[1 if base.config.is_encoder_decoder else prompt :].tolist()


class Recorder(LogitsProcessor):
    """Keeps the sequences and the scores that it is shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.seen.append((input_ids.clone(), scores.clone()))
        return scores


@pytest.mark.parametrize("weight", [0.3, 1.0, 4.0])
def test_greedy_decoding_follows_the_formula(base: PreTrainedModel, small: PreTrainedModel, weight: float) -> None:
    answer: list[int] = []
    unmoved: list[int] = []
    for _ in range(12):
        answer.append(int(moved_logits(base, small, answer, weight).argmax()))
        unmoved.append(int(next_logits(base, ASKED, unmoved).argmax()))
    assert answer != unmoved
    assert 1 not in answer
    output = ensemble(base, small, weight).generate(**batch(ASKED), max_new_tokens=12, do_sample=False)
    assert answer_of(base, output[0], len(ASKED)) == answer


@pytest.mark.parametrize("beams", [1, 4])
def test_processors_are_shown_the_moved_scores_of_each_sequence(
    base: PreTrainedModel, small: PreTrainedModel, beams: int
) -> None:
    recorder = Recorder()
    options = {"num_beams": beams, "do_sample": False, "max_new_tokens": 12}
    ensemble(base, small).generate(**batch(ASKED), logits_processor=[recorder], **options)
    answers = [[answer_of(base, row, len(ASKED)) for row in rows] for rows, _ in recorder.seen]
    places = [
        before.index(answer[:-1])
        for earlier, later in itertools.pairwise(answers)
        for before, answer in [(earlier, row) for row in later]
    ]
    # beams do go on from others' places
    assert (places == list(range(beams)) * (len(answers) - 1)) is (beams == 1)
    for rows, (_, scores) in zip(answers, recorder.seen, strict=True):
        for answer, got in zip(rows, scores, strict=True):
            own, expected = next_logits(base, ASKED, answer), moved_logits(base, small, answer)
            assert not torch.allclose(own.log_softmax(-1), expected.log_softmax(-1), atol=1.0)
            total = 0.0 if beams > 1 else own.logsumexp(-1)
            torch.testing.assert_close(got, expected.log_softmax(-1) + total, rtol=1e-3, atol=5e-2)


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": False},
        {"do_sample": True},
        {"do_sample": True, "num_return_sequences": 3},
        {"do_sample": False, "num_beams": 4, "num_return_sequences": 2},
        {"do_sample": True, "num_beams": 3},
        {"do_sample": False, "num_beams": 3, "repetition_penalty": 3.0},
        {"do_sample": False, "no_repeat_ngram_size": 1},
    ],
    ids=str,
)
def test_beside_itself_the_base_answers_as_in_context_and_at_no_weight_as_itself(
    base: PreTrainedModel, options: dict[str, Any]
) -> None:
    inputs = batch(ASKED, OTHER)

    def written(model: PreTrainedModel) -> list[list[int]]:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            rows: Tensor = model.generate(**inputs, **options, max_new_tokens=12)
        # beam search fills up as it likes
        return [[token for token in row if token > 1] for row in rows.tolist()]

    in_context = written(wrapped(base, "in_context"))
    assert in_context != written(base)
    assert written(ensemble(base, base)) == in_context
    assert written(ensemble(base, tiny_model(base.config.model_type, seed=3), weight=0.0)) == written(base)


@pytest.mark.parametrize("name", ["repetition_penalty", "exponential_decay_length_penalty"])
def test_penalties_come_after_the_shift(base: PreTrainedModel, small: PreTrainedModel, name: str) -> None:
    begins = 1 if base.config.is_encoder_decoder else len(ASKED)
    value: Any
    value, penalty = {
        "repetition_penalty": (5.0, RepetitionPenalty(5.0)),
        "exponential_decay_length_penalty": ((0, 2.0), ExponentialDecayLengthPenalty((0, 2.0), 1, begins)),
    }[name]
    recorder = Recorder()
    options = {"max_new_tokens": 2, "do_sample": False, name: value}
    ensemble(base, small).generate(**batch(ASKED), logits_processor=[recorder], **options)
    ids, scores = recorder.seen[1]
    answer = ids[0, begins:].tolist()
    # the base's scores and the moved ones, at the same total
    own, moved = next_logits(base, ASKED, answer), moved_logits(base, small, answer)
    moved = moved - moved.logsumexp(-1) + own.logsumexp(-1)
    expected = penalty(ids, moved[None])
    assert not torch.allclose(expected, penalty(ids, own[None]) + (moved - own), atol=1e-2)
    torch.testing.assert_close(scores, expected, rtol=5e-3, atol=5e-3)


def test_rows_that_read_alike_are_moved_by_their_own_edits(base: PreTrainedModel, small: PreTrainedModel) -> None:
    model = ensemble(base, small)
    prompts, queries = batch("Tell me.", "Tell me."), [ASKED, OTHER]
    options: dict[str, Any] = {"max_new_tokens": 8, "num_beams": 3, "do_sample": False}
    together = model.generate(**prompts, queries=queries, **options).tolist()
    alone = [model.generate(**batch("Tell me."), queries=[query], **options)[0].tolist() for query in queries]
    assert alone[0] != alone[1]
    assert together == alone


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_guessed_tokens_that_are_given_up_are_read_anew(models: dict[str, PreTrainedModel], kind: str) -> None:
    model = ensemble(models[kind], tiny_model(kind, seed=3), weight=0.5)
    # a prompt that the guesses are looked up in
    asked = batch(ASKED * 3)
    options: dict[str, Any] = {"queries": [ASKED], "max_new_tokens": 20, "do_sample": False}
    plain, shown = model.generate(**asked, **options), Recorder()
    guessed = model.generate(**asked, **options, prompt_lookup_num_tokens=4, logits_processor=[shown])
    lengths = [ids.shape[1] for ids, _ in shown.seen]
    assert lengths != sorted(lengths)
    assert guessed.tolist() == plain.tolist()


def test_whatever_the_answers_become_scores_are_moved_by_what_was_read(
    base: PreTrainedModel, small: PreTrainedModel
) -> None:
    edits = [[Edit(id=target, prompt=ASKED, target=target)] for target in (TARGET, OTHER_TARGET * 9)]
    override = semedit.EnsembleOverride(base, byte_tokenizer(), small)
    start = [0] if base.config.is_encoder_decoder else []
    steps: list[list[list[int]]] = [
        [[], [], [], []],
        [[50], [60], [70], [80]],
        [[60, 51], [50, 61], [70, 71], [70, 81]],  # two of one text change places, and one is given up
        [[60, 51, 52], [50, 61, 62], [70, 81, 72], [70, 71, 82]],
        [[60, 51, 53], [50, 61, 63], [70, 81, 73], [70, 71, 83]],  # another token in place of the last
        [[60, 51, 53, 54], [50, 61, 63, 64], [99, 98, 97, 74], [70, 71, 83, 84]],  # one goes on from none
        [[60], [50], [70], [70]],
    ]
    with override.prepare([read_prompt(byte_tokenizer(), ASKED)] * 2, edits) as call:
        [shift] = call.own_processors(len(start), 0)
        for answers in steps:
            ids = torch.tensor([start + answer for answer in answers], dtype=torch.long)
            with torch.no_grad():
                moved = shift(ids, torch.zeros(4, 261))
            for row, answer in enumerate(answers):
                target = edits[row // 2][0].target
                change = moved_logits(base, small, answer, target=target) - next_logits(base, ASKED, answer)
                expected = change - change.logsumexp(-1) + torch.zeros(261).logsumexp(-1)
                torch.testing.assert_close(moved[row], expected, rtol=1e-3, atol=5e-2)


def test_log_likelihood_follows_the_formula(base: PreTrainedModel, small: PreTrainedModel) -> None:
    answer = ("" if base.config.is_encoder_decoder else " ") + "Jane"
    ids = byte_tokenizer()(answer)["input_ids"]
    expected, unmoved = 0.0, 0.0
    for place, token in enumerate(ids):
        expected += float(moved_logits(base, small, ids[:place], weight=0.7).log_softmax(-1)[token])
        unmoved += float(next_logits(base, ASKED, ids[:place]).log_softmax(-1)[token])
    assert expected != pytest.approx(unmoved, abs=0.1)
    assert ensemble(base, small, 0.7).log_likelihood([ASKED], ["Jane"]) == [pytest.approx(expected, rel=1e-4)]


def test_a_small_model_of_another_vocabulary_or_kind_is_refused(models: dict[str, PreTrainedModel]) -> None:
    base, tokenizer = models["llama"], byte_tokenizer()
    small = tiny_model("gpt2", seed=3)
    small.resize_token_embeddings(300)
    with pytest.raises(WrapError, match="vocabulary has 300 tokens and the base's 261"):
        semedit.EnsembleOverride(base, tokenizer, small)
    small.resize_token_embeddings(261)
    edited = wrapped(base, semedit.EnsembleOverride(base, tokenizer, small))
    free = base.generate(**batch(ASKED), max_new_tokens=8, do_sample=False)
    assert edited.generate(**batch(ASKED), max_new_tokens=8, do_sample=False).tolist() != free.tolist()
    with pytest.raises(WrapError, match="small model is encoder-decoder and the base decoder-only"):
        semedit.EnsembleOverride(base, tokenizer, models["t5"])


def test_no_room_in_the_small_model_says_so(models: dict[str, PreTrainedModel]) -> None:
    model = ensemble(models["llama"], tiny_model("gpt2", seed=3))
    model.edits.add(ASKED, "x" * 2040)
    with pytest.raises(ContextOverflowError, match="the model reads 2048"):
        model.generate(**batch(ASKED), max_new_tokens=5)
