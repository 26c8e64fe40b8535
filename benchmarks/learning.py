"""How much faster a value is learned than by training it through the full model, as a ratio in one run.

    python benchmarks/learning.py                              # everything; minutes on one free core
    python benchmarks/learning.py --models small --rounds 3    # a first look
    python benchmarks/learning.py --json learning.json

Both ways learn the value of one edit at layers in the upper half of the model: from the same start, on the same
prompts, with the same optimiser, and for the same number of steps, none of them left out. `learn` runs the layers
above the adaptor over the tokens that the value can change; the other way runs the whole model over prompt and target
in each step. The model's weights are frozen, so that neither way has any gradient to compute but those that lead to
the value. It stands at all tokens of the prompt, or at the last alone. Each round learns another edit both ways, one
after the other; the ratio is the time through the full model over that of `learn`. A round in which the two ways come
to different values ends the benchmark with an error.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from harness import environment, made_up_edits, parser, report, summary, timed, write_json
from semedit import AdaptorConfig
from semedit.hooks import layer_at, layer_outputs, replaced_output
from semedit.models import shipped_model_path
from semedit.overrides.base import continuation_ids
from semedit.overrides.learning import Lesson, learn, replaced_positions, views
from semedit.overrides.text import closing_token_ids
from semedit.prompts import as_prompt

BAR = 3.0
# blocks in the upper half: of the 6 of the shipped model, and of the 12 of the large one
BLOCKS = {"small": (3, 4, 5), "large": (6, 8, 9, 10, 11)}
PROMPT, TARGET = 30, 6  # tokens, for the large model
VOCABULARY = 8192
IGNORED = -100
PAD = 0
# how far two values may lie apart, over their length: where a gradient is zero but for rounding, Adam's first step is
# as long as any other, so that single numbers come out otherwise
TOLERANCE = 0.01


def main() -> None:
    """Runs the benchmark."""
    options = _options()
    results = []
    for name in options.models:
        for replace in ("all", "last"):
            config = AdaptorConfig(replace=replace, steps=options.steps, stop_at_loss=None)
            model, lessons = _small(config, options.rounds) if name == "small" else _large(config, options.rounds)
            model.eval().requires_grad_(False)
            for block in BLOCKS[name]:
                results.append(measure(name, model, f"model.layers.{block}.mlp.down_proj", lessons, config))
    _show(results, options)
    run = {"benchmark": "learning", "steps": options.steps, "rounds": options.rounds, **environment()}
    write_json(options.json, {"run": run, "results": results})


def measure(
    name: str, model: PreTrainedModel, layer: str, lessons: Sequence[Lesson], config: AdaptorConfig
) -> dict[str, Any]:
    """The ratios of all rounds at one layer; the first lesson warms up."""
    ratios, quick, slow, apart = [], [], [], []
    for i, lesson in enumerate(tqdm(lessons, desc=f"{name} model, {layer}, value at {config.replace}")):
        one, [learned] = timed(learn, model, layer, [lesson], config, PAD)
        other, value = timed(learn_through_all, model, layer, lesson, config)
        difference = float((learned.value - value).norm() / value.norm())
        if learned.steps != config.steps or not difference <= TOLERANCE:
            sys.exit(f"{name} model, {layer}, round {i}: the two values lie {difference:.1e} of their length apart")
        if i:
            ratios.append(other / one)
            quick.append(one)
            slow.append(other)
            apart.append(difference)
    return {
        "model": name,
        "parameters": model.num_parameters(),
        "layer": layer,
        "replace": config.replace,
        "ratio": summary(ratios),
        "learn_seconds": summary(quick),
        "full_seconds": summary(slow),
        "greatest_difference": max(apart),
    }


def learn_through_all(model: PreTrainedModel, path: str, lesson: Lesson, config: AdaptorConfig) -> Tensor:
    """The value `(features,)` after all steps of Adam, each a pass of the whole model over prompts and labels."""
    width = max(map(len, lesson.prompts))
    longest = max(map(len, lesson.labels))
    ids, mask, targets = [], [], []
    for prompt, label in zip(lesson.prompts, lesson.labels, strict=True):
        before, after = width - len(prompt), longest - len(label)
        ids.append([PAD] * before + [*prompt, *label] + [PAD] * after)
        mask.append([0] * before + [1] * (len(prompt) + longest))
        targets.append([IGNORED] * width + [*label] + [IGNORED] * after)
    attention_mask = torch.tensor(mask)
    inputs = {
        "input_ids": torch.tensor(ids),
        "attention_mask": attention_mask,
        "position_ids": (attention_mask.cumsum(1) - 1).clamp(min=0),
        "use_cache": False,
    }
    expected = torch.tensor(targets)[:, 1:]
    layer = layer_at(model, path)
    positions = replaced_positions(attention_mask[:, :width], config.replace)
    with layer_outputs(layer) as seen, torch.no_grad():
        model(**inputs)
    own = seen[0][:, :width][positions].mean(0)
    value = own.clone().requires_grad_()
    bound = None if config.norm_bound is None else config.norm_bound * own.norm()
    scale = float(own.square().mean().sqrt()) if config.scaled_rate else 1.0
    optimizer = torch.optim.Adam([value], lr=config.learning_rate * scale)
    for _ in range(config.steps):
        with replaced_output(layer, value.expand(len(ids), -1), positions):
            logits = model(**inputs).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.transpose(1, 2), expected, ignore_index=IGNORED)
        [value.grad] = torch.autograd.grad(loss, [value])
        optimizer.step()
        if bound is not None:
            with torch.no_grad():
                value *= (bound / value.norm()).clamp(max=1)
    return value.detach()


def _small(config: AdaptorConfig, rounds: int) -> tuple[PreTrainedModel, list[Lesson]]:
    """The shipped model, and edits of companies that do not exist, as an adaptor learns them."""
    path = shipped_model_path()
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
    end = closing_token_ids(model.generation_config, tokenizer)
    lessons = []
    for edit in made_up_edits(rounds + 1):
        texts = [as_prompt(tokenizer, text).text for text in (edit.prompt, *views(edit.prompt, config.views))]
        prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        lessons.append(Lesson(prompts, [continuation_ids(tokenizer, text, edit.target) + end for text in texts]))
    return model, lessons


def _large(config: AdaptorConfig, rounds: int) -> tuple[PreTrainedModel, list[Lesson]]:
    """Random weights, and prompts of random tokens; what they cost does not depend on their values."""
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(shape)
    rng = random.Random(0)
    lessons = []
    for _ in range(rounds + 1):
        label = rng.choices(range(1, VOCABULARY), k=TARGET)
        prompts = [rng.choices(range(1, VOCABULARY), k=PROMPT) for _ in range(1 + config.views)]
        lessons.append(Lesson(prompts, [label] * len(prompts)))
    return model, lessons


def _show(results: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    rows = [
        (
            f"{result['model']}, {result['layer']}",
            result["replace"],
            f"{result['parameters'] / 1e6:,.0f} M",
            f"{result['ratio']['median']:.1f}",
            f"{result['ratio']['quartile_1']:.1f} to {result['ratio']['quartile_3']:.1f}",
            f"{1000 * result['learn_seconds']['median']:,.0f} ms",
            f"{1000 * result['full_seconds']['median']:,.0f} ms",
            f"{BAR:g} {'holds' if result['ratio']['median'] >= BAR else 'missed'}",
        )
        for result in results
    ]
    columns = ("model, layer", "value at", "parameters", "full / learn", "middle half", "learn", "full", "to reach")
    notes = [
        f"{options.rounds} edits, {options.steps} steps each, float32 on CPU, threads: {torch.get_num_threads()}",
        "the values of both ways lie at most "
        f"{max(result['greatest_difference'] for result in results):.1e} of their length apart",
    ]
    report("Learning one edit: through the full model, over `learn`", columns, rows, notes)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument(
        "--models",
        nargs="+",
        choices=tuple(BLOCKS),
        default=list(BLOCKS),
        help="small: the shipped model; large: a Llama of 12 layers with random weights (default: both)",
    )
    options.add_argument("--rounds", type=int, default=5, help="edits for each model (default: %(default)s)")
    options.add_argument(
        "--steps", type=int, default=AdaptorConfig().steps, help="steps of each edit (default: %(default)s)"
    )
    return options.parse_args()


if __name__ == "__main__":
    main()
