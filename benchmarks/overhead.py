"""What routing costs where no edit answers: `generate` of the wrapped model over `generate` of the bare one.

    python benchmarks/overhead.py                                # everything; minutes on four free cores
    python benchmarks/overhead.py --models small --edits 0 1000  # a first look
    python benchmarks/overhead.py --json overhead.json

Each round asks one question, out of scope of every edit, of the model wrapped with each memory, and of the bare model
before and after each of these calls. A ratio is the time of a wrapped call over the mean of the two bare calls around
it, so that a slow spell of the machine cancels; the table shows the median of the rounds, and beneath it how far two
bare calls differ by noise alone. 1.00 means that wrapping costs nothing. The edits are about companies that do not
exist, and each is embedded by the real encoder. A round in which an edit fires, or in which the two models answer
differently, ends the benchmark with an error.

Beside the ratio stands the time of routing alone (encoder, search, decision), taken in the same rounds: where
`generate` takes seconds it says more than the ratio, whose last digits are the noise of the machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import semedit
from harness import environment, made_up_edits, parser, report, summary, timed, write_json
from semedit import EditMemory, SentenceEncoder
from semedit.models import shipped_model_path

QUESTIONS = (
    "At what temperature does water boil at sea level?",
    "Which planet is the largest of the solar system?",
    "Who painted the ceiling of the Sistine Chapel?",
    "How many strings does a violin have?",
    "In which language was Don Quixote written?",
    "What do bees make out of nectar?",
    "Which ocean lies between Africa and Australia?",
    "What is the chemical symbol of gold?",
)
BAR = 1.05  # for the half-billion model with BAR_EDITS in memory
BAR_EDITS = 100_000


def main() -> None:
    """Runs the benchmark."""
    options = _options()
    memories = _memories(sorted(set(options.edits)))
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    results = []
    for name in options.models:
        model = AutoModelForCausalLM.from_pretrained(options.model) if name == "small" else _half_billion()
        results += _measure(name, model.float().eval(), tokenizer, memories, options)
    _show(results, options)
    run = {
        "benchmark": "overhead",
        "model": str(options.model),
        "rounds": options.rounds,
        "new_tokens": options.new_tokens,
        "dtype": "float32",
        "device": "cpu",
        "encoder": next(iter(memories.values())).encoder.fingerprint,
        **environment(),
    }
    write_json(options.json, {"run": run, "results": results})


def _measure(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    memories: Mapping[int, EditMemory],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """One result for each memory: the ratios of all rounds, and the times of routing alone."""
    wrapped = {count: semedit.wrap(model, tokenizer, memory=memory) for count, memory in memories.items()}
    ratios: dict[int, list[float]] = {count: [] for count in memories}
    routing: dict[int, list[float]] = {count: [] for count in memories}
    bare, noise = [], []
    lengths = {"max_new_tokens": options.new_tokens, "min_new_tokens": options.new_tokens, "do_sample": False}
    for round_number in tqdm(range(-1, options.rounds), desc=f"{name} model, round"):
        question = QUESTIONS[round_number % len(QUESTIONS)]
        inputs = _inputs(tokenizer, question)
        before, answer = timed(model.generate, **inputs, **lengths)
        for count, edited in wrapped.items():
            seconds, same = timed(edited.generate, **inputs, **lengths)
            after, _ = timed(model.generate, **inputs, **lengths)
            took, route = timed(edited.explain, question)
            if route.in_scope:
                sys.exit(f"{question!r} was to be out of scope, and edit {route.edits[0].prompt!r} answers it")
            if not torch.equal(same, answer):
                sys.exit(f"with {count:,} edits the answer to {question!r} is not that of the bare model")
            if round_number >= 0:  # the round before the first one warms up
                ratios[count].append(2 * seconds / (before + after))
                routing[count].append(took)
                bare.append(after)
                noise.append(after / before)
            before = after
    return [
        {
            "model": name,
            "parameters": model.num_parameters(),
            "edits": count,
            "ratio": summary(ratios[count]),
            "routing_seconds": summary(routing[count]),
            "bare_seconds": summary(bare),
            "bare_over_bare": summary(noise),
        }
        for count in memories
    ]


def _memories(sizes: Sequence[int]) -> dict[int, EditMemory]:
    """A memory for each size, in this process alone, filled with edits through the real encoder."""
    encoder = SentenceEncoder()
    memories = {}
    for size in sizes:
        memories[size] = EditMemory(None, encoder)
        if size:
            print(f"embedding {size:,} edits")
            edits = memories[size].add_many(made_up_edits(size), progress=True)
            [found] = memories[size].search(edits[-1].prompt, k=1)
            if found.edit.id != edits[-1].id:
                sys.exit(f"the memory does not find {edits[-1].prompt!r}")
    return memories


def _inputs(tokenizer: PreTrainedTokenizerBase, question: str) -> dict[str, torch.Tensor]:
    """The question as the model is asked it: through the chat template where there is one."""
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": question}]
        question = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    encoded = tokenizer(question, return_tensors="pt", add_special_tokens=not tokenizer.chat_template)
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def _half_billion() -> PreTrainedModel:
    """Random weights in the shape of Qwen2-0.5B; what they cost does not depend on their values."""
    config = Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=151_936,
        tie_word_embeddings=True,
        eos_token_id=1,
        pad_token_id=0,
    )
    return Qwen2ForCausalLM(config)


def _show(results: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> None:
    rows = [
        (
            result["model"],
            f"{result['edits']:,}",
            f"{result['ratio']['median']:.3f}",
            f"{result['ratio']['quartile_1']:.3f} to {result['ratio']['quartile_3']:.3f}",
            f"{1000 * result['routing_seconds']['median']:.1f} ms",
        )
        for result in results
    ]
    threads = torch.get_num_threads()
    notes = [
        f"{options.rounds} rounds, {options.new_tokens} new tokens, float32 on CPU, threads: {threads}",
        "no edit fired, and every answer equals that of the bare model",
        f"small model, and tokenizer of both: {options.model}",
    ]
    for name, result in {result["model"]: result for result in results}.items():
        noise, seconds = result["bare_over_bare"], result["bare_seconds"]["median"]
        notes.append(
            f"{name}: bare generate takes {1000 * seconds:,.0f} ms; one bare call over the one before it: "
            f"{noise['quartile_1']:.3f} to {noise['quartile_3']:.3f} (middle half)"
        )
    for result in results:
        if result["model"] == "half-billion" and result["edits"] == BAR_EDITS:
            verdict = "holds" if result["ratio"]["median"] <= BAR else "is missed"
            notes.append(f"bar: at most {BAR} with {BAR_EDITS:,} edits on the half-billion model; it {verdict}")
    columns = ("model", "edits", "wrapped / bare", "middle half", "routing alone")
    report("Routing overhead, no row in scope", columns, rows, notes)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument(
        "--models",
        nargs="+",
        choices=("small", "half-billion"),
        default=["small", "half-billion"],
        help="small: the shipped model; half-billion: random weights in the shape of Qwen2-0.5B (default: both)",
    )
    options.add_argument(
        "--model",
        type=Path,
        metavar="PATH",
        help="a causal model in place of the shipped one; its tokenizer serves the half-billion model too",
    )
    options.add_argument(
        "--edits",
        nargs="+",
        type=int,
        default=[0, 1_000, BAR_EDITS],
        metavar="N",
        help="how many edits to have in memory (default: 0 1000 100000)",
    )
    options.add_argument("--rounds", type=int, default=15, help="rounds for each model (default: %(default)s)")
    options.add_argument(
        "--new-tokens", type=int, default=32, metavar="N", help="tokens of each answer (default: %(default)s)"
    )
    parsed = options.parse_args()
    parsed.model = parsed.model or shipped_model_path()
    return parsed


if __name__ == "__main__":
    main()
