"""How a value is learned: by gradient descent on it alone, through the layers above the adaptor."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from semedit.hooks import cache_name, layer_outputs, replaced_output, takes
from semedit.overrides.adaptor_config import AdaptorConfig
from semedit.overrides.base import decoder_start_token_id
from semedit.overrides.suffix import Suffix, position_ids, prefix_cache

_IGNORED = -100
_LEFT_OUT = 0.3  # share of a view's words


@dataclass(frozen=True)
class Lesson:
    """What one value is to bring about.

    Attributes:
        prompts: the token ids of each prompt, as the model reads it.
        labels: for each prompt, the token ids that are to follow it.
        start: where the value starts, `(features,)`; None starts as the config says.
        seed: of a cold start.
    """

    prompts: Sequence[Sequence[int]]
    labels: Sequence[Sequence[int]]
    start: Tensor | None = None
    seed: int = 0


@dataclass(frozen=True)
class Learned:
    """A value, and how well it was learned.

    Attributes:
        value: `(features,)`, float32.
        loss: mean negative log-likelihood of the labels' tokens, in nats, at this value.
        steps: after how many steps it was reached.
        reproduced: whether greedy decoding gives the labels, token for token, after every prompt.
    """

    value: Tensor
    loss: float
    steps: int
    reproduced: bool


@dataclass(frozen=True)
class Batch:
    """The prompts of several lessons in one batch.

    Attributes:
        inputs: what the model's pass takes.
        positions: `(rows, read)`, where the value stands; `read` counts the tokens of these inputs.
        targets: `(rows, positions)`, the token that each position with logits is to predict, or -100.
        lesson: `(rows,)`, the lesson that each row belongs to.
    """

    inputs: dict[str, Any]
    positions: Tensor
    targets: Tensor
    lesson: Tensor


@torch.inference_mode(False)
@torch.enable_grad()
def learn(
    model: PreTrainedModel, path: str, lessons: Sequence[Lesson], config: AdaptorConfig, pad: int
) -> list[Learned]:
    """Learns one value for each lesson, all in one batch; no value depends on what else is in the batch.

    The model's weights are constants and are left without gradients.
    """
    layer = model.get_submodule(path)
    batch = make_batch(model, path, lessons, config, pad)
    run = Suffix(model, path)
    with layer_outputs(layer) as seen, torch.no_grad():
        run(**batch.inputs)
    own = _own_outputs(seen[0].float(), batch, len(lessons))  # (lessons, features)
    # Adam's steps are of one size: a unit of each lesson's own makes them as large as its layer's output asks
    unit = own.square().mean(1, keepdim=True).sqrt() if config.scaled_rate else torch.ones_like(own[:, :1])
    unit = unit.clamp(min=1e-6)
    scaled = (_starts(own, lessons, config) / unit).requires_grad_()
    bound = None if config.norm_bound is None else config.norm_bound * own.norm(dim=1, keepdim=True) / unit
    optimizer = torch.optim.Adam([scaled], lr=config.learning_rate)
    best: dict[int, Learned] = {}
    learning = list(range(len(lessons)))  # those in the batch
    for step in range(config.steps + 1):
        values = scaled * unit
        with replaced_output(layer, values[learning][batch.lesson.to(values.device)], batch.positions):
            logits = run(**batch.inputs)
        losses, reproduced = _judge(logits, batch, len(learning))
        for i, loss, right in zip(learning, losses.tolist(), reproduced, strict=True):
            if i not in best or (not _finished(best[i], config) and _is_better(right, loss, best[i], config)):
                best[i] = Learned(values[i].detach().clone(), loss, step, right)
        unfinished = [i for i in learning if not _finished(best[i], config)]
        if step == config.steps or not unfinished:
            break
        [scaled.grad] = torch.autograd.grad(losses.sum(), [scaled])
        optimizer.step()
        if bound is not None:
            with torch.no_grad():
                scaled *= (bound / scaled.norm(dim=1, keepdim=True)).clamp(max=1)
        if 2 * len(unfinished) <= len(learning):
            # half of the batch is only carried along: go on without it
            learning = unfinished
            batch = make_batch(model, path, [lessons[i] for i in learning], config, pad)
            run = Suffix(model, path)
    return [best[i] for i in range(len(lessons))]


def make_batch(model: PreTrainedModel, path: str, lessons: Sequence[Lesson], config: AdaptorConfig, pad: int) -> Batch:
    """The batch of some lessons; where the value stands at the last token alone, what lies before is read once."""
    rows = [
        (i, list(p), list(y)) for i, one in enumerate(lessons) for p, y in zip(one.prompts, one.labels, strict=True)
    ]
    device = model.device
    lesson = torch.tensor([i for i, _, _ in rows], device=device)
    prompts = [prompt for _, prompt, _ in rows]
    labels = [label for _, _, label in rows]
    targets = _padded(labels, _IGNORED, device)
    if model.config.is_encoder_decoder:
        mask = _padded([[1] * len(prompt) for prompt in prompts], 0, device)
        inputs: dict[str, Any] = {"input_ids": _padded(prompts, pad, device), "attention_mask": mask}
        start = decoder_start_token_id(model.generation_config)
        inputs["decoder_input_ids"] = _padded([[start, *label[:-1]] for label in labels], pad, device)
        if is_in_encoder(model, path):
            return Batch(inputs, replaced_positions(mask, config.replace), targets, lesson)
        with torch.no_grad():
            inputs["encoder_outputs"] = model.get_encoder()(input_ids=inputs.pop("input_ids"), attention_mask=mask)
        return Batch(inputs, torch.ones(len(rows), 1, dtype=torch.bool, device=device), targets, lesson)
    ids = _padded(prompts, pad, device, left=True)
    mask = _padded([[1] * len(prompt) for prompt in prompts], 0, device, left=True)
    tail = _padded([label[:-1] for label in labels], pad, device)
    whole = torch.cat([mask, torch.ones_like(tail)], dim=1)
    cache = prefix_cache(model, ids[:, :-1], mask[:, :-1]) if config.replace == "last" else None
    read = 1 if cache is not None else ids.shape[1]  # how many tokens of the prompt each pass reads
    inputs = {"input_ids": torch.cat([ids[:, -read:], tail], dim=1), "attention_mask": whole}
    inputs |= {name: value[:, ids.shape[1] - read :] for name, value in position_ids(model, whole).items()}
    if cache is not None:
        inputs[cache_name(model)] = cache
    positions = replaced_positions(mask, config.replace)[:, -read:]
    if takes(model, "logits_to_keep"):
        inputs["logits_to_keep"] = targets.shape[1]
    else:
        targets = torch.cat([targets.new_full((len(rows), read - 1), _IGNORED), targets], dim=1)
    return Batch(inputs, positions, targets, lesson)


def views(prompt: str, count: int) -> list[str]:
    """The prompt with some words left out, every other time in another order; the same for the same prompt."""
    rng = random.Random(prompt)
    made = []
    for number in range(count):
        words = [word for word in prompt.split() if rng.random() > _LEFT_OUT] or prompt.split()
        if number % 2:
            rng.shuffle(words)
        made.append(" ".join(words))
    return made


def replaced_positions(mask: Tensor, replace: str) -> Tensor:
    """Where of `(rows, prompt)` tokens the value stands: at each row's last, at all before it, or at both."""
    mask = mask.bool()
    after = mask.flip(1).cumsum(1).flip(1)  # how many of a row's tokens come from here on
    last = mask & (after == 1)
    return {"last": last, "prompt": mask & ~last, "all": mask}[replace]


def is_in_encoder(model: PreTrainedModel, path: str) -> bool:
    """Whether a layer belongs to the encoder of an encoder-decoder model."""
    layer = model.get_submodule(path)
    return model.config.is_encoder_decoder and any(module is layer for module in model.get_encoder().modules())


def _own_outputs(output: Tensor, batch: Batch, count: int) -> Tensor:
    """What the layer itself gives where the values will stand, the mean of each lesson, `(lessons, features)`."""
    read = output[:, : batch.positions.shape[1]]
    weight, lesson = batch.positions[:, :, None].to(read), batch.lesson.to(read.device)
    sums = read.new_zeros(count, read.shape[2]).index_add_(0, lesson, (read * weight).sum(1))
    counts = read.new_zeros(count, 1).index_add_(0, lesson, weight.sum(1))
    return sums / counts.clamp(min=1)


def _starts(own: Tensor, lessons: Sequence[Lesson], config: AdaptorConfig) -> Tensor:
    starts = []
    for output, lesson in zip(own, lessons, strict=True):
        if lesson.start is not None:
            starts.append(lesson.start.to(output))
        elif config.start == "warm":
            starts.append(output)
        else:
            drawn = torch.rand(output.shape, generator=torch.Generator().manual_seed(lesson.seed))
            starts.append(drawn.to(output))
    return torch.stack(starts)


def _judge(logits: Tensor, batch: Batch, count: int) -> tuple[Tensor, list[bool]]:
    """Each lesson's mean loss, and whether all its tokens are the likeliest ones.

    A label whose every token is the likeliest after those before it is what greedy decoding gives.
    """
    judged = batch.targets != _IGNORED
    picked, targets = logits[judged].float(), batch.targets[judged]  # (tokens, vocabulary), (tokens,)
    lesson = batch.lesson[:, None].expand_as(judged)[judged]
    each = nn.functional.cross_entropy(picked, targets, reduction="none")
    losses, tokens, missed = (
        each.new_zeros(count).index_add_(0, lesson, of.to(each))
        for of in (each, torch.ones_like(each), picked.argmax(-1) != targets)
    )
    return losses / tokens, (missed == 0).tolist()


def _is_better(reproduced: bool, loss: float, kept: Learned, config: AdaptorConfig) -> bool:
    """Whether a step is to be kept: the last one where all are taken, or else the best."""
    return config.stop_at_loss is None or (reproduced, -loss) > (kept.reproduced, -kept.loss)


def _finished(learned: Learned, config: AdaptorConfig) -> bool:
    return config.stop_at_loss is not None and learned.reproduced and learned.loss <= config.stop_at_loss


def _padded(rows: Sequence[Sequence[int]], value: int, device: torch.device, *, left: bool = False) -> Tensor:
    width = max(map(len, rows))
    padding = [[value] * (width - len(row)) for row in rows]
    lines = [[*more, *row] if left else [*row, *more] for row, more in zip(rows, padding, strict=True)]
    return torch.tensor(lines, dtype=torch.long, device=device)
