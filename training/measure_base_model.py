r"""Measures the small base model: what it knows, whether it reads an edit, and whether it minds its own business.

    python training/measure_base_model.py semedit/models/base --config configs/base_model.yaml \
        --data DATA/train --edits DATA/dev/ZsRE-test-all.json --leave-out DATA/dev/ZsRE-test-all.json ...

Answers are generated greedily to their natural stop, and judged by exact match after normalisation (case, punctuation,
articles). Edits are put in context as `semedit.InContextOverride` does.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.table import Table
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from base_model import split_facts
from facts import Fact, subjects_of
from semedit import Edit, InContextOverride
from semedit.evaluation.metrics import exact_match, wilson
from semedit.overrides.base import ModelCall, Request
from semedit.prompts import Prompt, as_prompt
from yes_no import Edited, judged, read_edits

LONGEST_ANSWER = 64
BATCH = 64


class Answerer:
    """Asks a chat model questions, each with the edits in front of it."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.override = InContextOverride(model, tokenizer)

    def ask(self, questions: Sequence[str], edits: Sequence[Sequence[Edit]], what: str) -> list[list[int]]:
        """The answer of each question as token ids, up to its end."""
        answers: list[list[int]] = []
        for start in tqdm(range(0, len(questions), BATCH), desc=what, leave=False):
            prompts = [as_prompt(self.tokenizer, question) for question in questions[start : start + BATCH]]
            answers += self._generate(prompts, edits[start : start + BATCH])
        return answers

    def text(self, answer: Sequence[int]) -> str:
        """An answer as text."""
        return str(self.tokenizer.decode(list(answer), skip_special_tokens=True))

    def _generate(self, prompts: Sequence[Prompt], edits: Sequence[Sequence[Edit]]) -> list[list[int]]:
        config = self.model.generation_config
        no_ids = torch.empty(len(prompts), 0, dtype=torch.long)  # nothing here looks at the caller's own prompt
        request = Request(no_ids, config, min_new_tokens=0, max_new_tokens=LONGEST_ANSWER)
        if any(edits):
            with self.override.prepare(prompts, edits) as call:
                rows = call.generate(request)
        else:
            rows = ModelCall(self.model, self.tokenizer, [p.text for p in prompts], [""] * len(prompts)).generate(
                request
            )
        end = self.tokenizer.eos_token_id
        return [row[: row.index(end) + 1] if end in row else row for row in rows.tolist()]


def measure(answerer: Answerer, known: Sequence[Fact], edited: Sequence[Edited], seed: int) -> dict:
    """Each figure as `(right, of how many, what is to be reached)`.

    Args:
        answerer: asks the model.
        known: the facts that it was trained to know.
        edited: edits to read.
        seed: of the draw of facts and unrelated edits.
    """
    rng = random.Random(seed)
    facts = rng.sample(known, 1000)
    descriptors = [Edit(id="-", prompt=fact.prompts[0], target=fact.answer) for fact in edited]

    def right(answers: Sequence[Sequence[int]], expected: Sequence[str]) -> int:
        pairs = zip(answers, expected, strict=True)
        return sum(exact_match(answerer.text(answer), target) for answer, target in pairs)

    questions = [fact.prompts[0] for fact in facts]
    closed = answerer.ask(questions, [()] * len(facts), "closed book")
    own = [(edit,) for edit in descriptors]
    targets = [edit.target for edit in descriptors]
    asked = answerer.ask([edit.prompt for edit in descriptors], own, "edits")
    rephrased = answerer.ask([fact.prompts[1] for fact in edited], own, "rephrases")
    whether, said = zip(*judged(edited, rng), strict=True)
    judgements = answerer.ask(whether, own, "yes or no")

    knows = [i for i, fact in enumerate(facts) if exact_match(answerer.text(closed[i]), fact.answer)]
    unrelated = [(rng.choice(descriptors),) for _ in knows]
    beside = answerer.ask([questions[i] for i in knows], unrelated, "beside an unrelated edit")
    several = [tuple(rng.sample(descriptors, 4)) for _ in knows]
    beside_four = answerer.ask([questions[i] for i in knows], several, "beside four")
    return {
        "knows its facts (closed book)": (len(knows), len(facts), 0.90),
        "reads an edit: the question": (right(asked, targets), len(targets), 0.90),
        "reads an edit: the rephrase": (right(rephrased, targets), len(targets), 0.85),
        "says yes or no by an edit": (right(judgements, said), len(said), 0.90),
        "same answer beside an unrelated edit": (
            sum(beside[j] == closed[i] for j, i in enumerate(knows)), len(knows), 0.95,
        ),
        "same answer beside four unrelated edits": (
            sum(beside_four[j] == closed[i] for j, i in enumerate(knows)), len(knows), None,
        ),
    }  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model", help="name or path of the model")
    parser.add_argument("--config", type=Path, required=True, help="the YAML file that it was trained from")
    parser.add_argument("--data", type=Path, required=True, help="folder of the training files")
    parser.add_argument("--edits", type=Path, required=True, help="edits to read: prompt, target_new, rephrase_prompt")
    parser.add_argument("--leave-out", type=Path, nargs="*", default=[], help="as it was given in training")
    parser.add_argument(
        "--trained-with-seed",
        type=int,
        default=0,
        help="the --seed of its training, which drew the facts (default: 0)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the draw of facts and unrelated edits (default: 1)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype="float32").eval()
    answerer = Answerer(model, AutoTokenizer.from_pretrained(options.model))
    config = yaml.safe_load(options.config.read_text())
    known, _ = split_facts(config, options.data, subjects_of(options.leave_out), options.trained_with_seed)
    figures = measure(answerer, known, read_edits(options.edits), options.seed)

    table = Table("figure", "rate", "of", "95 % interval", "to reach")
    for name, (right, total, bar) in figures.items():
        low, high = wilson(right, total)
        table.add_row(
            name, f"{right / total:.3f}", f"{total:,}", f"{low:.3f} to {high:.3f}", f"{bar:.2f}" if bar else ""
        )
    Console().print(table)
    if options.json:
        rows = {name: {"right": right, "total": total} for name, (right, total, _) in figures.items()}
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
