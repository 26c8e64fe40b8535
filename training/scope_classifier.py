r"""Trains the scope classifier: a cross-encoder that reads an edit and a query and says whether the query is in scope.

    accelerate launch training/scope_classifier.py configs/scope_classifier.yaml --data DATA/train --output out/broad
    accelerate launch training/scope_classifier.py configs/scope_classifier_hard.yaml --data DATA/train \
        --output out/scope --start out/broad

are the two stages of the one that ships (`make classifier`): all kinds of pairs, and then more of the hard ones. Each
continues from the last checkpoint in --output where there is one. With your own edits and queries,

    accelerate launch training/scope_classifier.py configs/scope_classifier_hard.yaml --data DATA/train \
        --output out/own --start semedit/models/scope --edits edits.jsonl --traffic queries.txt

goes on from the one that ships: their paraphrases and negatives, and queries that no edit is to answer, one a line,
take part. On a CPU, `accelerate launch --num_cpu_threads_per_process` says how many cores are used. Beside the weights
stand `training_log.jsonl`, what was measured while training, and `held_out.json`, what the trained classifier does on
pairs that it never saw.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from datasets import Dataset
from scipy.optimize import minimize_scalar
from sentence_transformers import CrossEncoder
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from torch.utils.data import BatchSampler
from transformers import set_seed
from transformers.trainer_utils import get_last_checkpoint

from facts import own_facts, read_records
from material import ScopePair
from pairs import build_pairs, own_pairs
from semedit.memory.encoder import SentenceEncoder, packaged_minilm
from sources import read_sources


class LengthBatches(BatchSampler):
    """Batches of pairs of about the same length, in random order: half the padding, and so half the time.

    The order follows from the seed and the epoch alone, so that training resumes where it stopped.
    """

    def __init__(self, dataset: Dataset, batch_size: int, drop_last: bool, seed: int = 0, **_: Any) -> None:
        super().__init__(range(len(dataset)), batch_size, drop_last)
        self.lengths = np.array([len(a) + len(b) for a, b in zip(dataset["edit"], dataset["query"], strict=True)])
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Another order for each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        chunks = []
        for start in range(0, len(order), 50 * self.batch_size):
            chunk = order[start : start + 50 * self.batch_size]
            chunk = chunk[np.argsort(self.lengths[chunk], kind="stable")]
            chunks += [chunk[i : i + self.batch_size].tolist() for i in range(0, len(chunk), self.batch_size)]
        yield from (chunks[i] for i in rng.permutation(len(chunks)))


class HeldOut(BaseEvaluator):
    """Evaluates on held-out pairs: the share judged rightly at 0.5 for each kind, and the mean over kinds."""

    def __init__(self, pairs: Sequence[ScopePair], descriptor: str) -> None:
        super().__init__()
        self.pairs = pairs
        self.texts = [(described(pair, descriptor), pair.query) for pair in pairs]
        self.in_scope = np.array([pair.in_scope for pair in pairs])
        self.primary_metric = "mean"

    def __call__(self, model: CrossEncoder, *_: Any, **__: Any) -> dict[str, float]:
        """The shares."""
        right = (self.logits(model) > 0) == self.in_scope
        by_kind: dict[str, list[bool]] = defaultdict(list)
        for pair, hit in zip(self.pairs, right, strict=True):
            by_kind[pair.kind].append(bool(hit))
        shares = {kind: float(np.mean(hits)) for kind, hits in sorted(by_kind.items())}
        return {**shares, "mean": float(np.mean(list(shares.values())))}

    def logits(self, model: CrossEncoder) -> np.ndarray:
        """The classifier's logit of each pair."""
        return model.predict(self.texts, batch_size=64, activation_fn=torch.nn.Identity(), show_progress_bar=False)


def described(pair: ScopePair, descriptor: str) -> str:
    """The edit as the classifier reads it: its prompt, or its prompt and target."""
    return pair.prompt if descriptor == "prompt" else f"{pair.prompt} {pair.target[:100]}".rstrip()


def temperature_of(logits: np.ndarray, in_scope: np.ndarray) -> float:
    """The temperature by which logits divided are the likeliest probabilities (Guo et al. 2017)."""

    def negative_log_likelihood(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, np.where(in_scope, -scaled, scaled))))

    return math.exp(minimize_scalar(negative_log_likelihood, bounds=(-2, 3), method="bounded").x)


def threshold_of(probabilities: np.ndarray, pairs: Sequence[ScopePair], cost: float) -> float:
    """The threshold at which misses and false overrides cost least, where one of these counts `cost` of those.

    Both are shares, averaged over the kinds of pairs.
    """
    by_kind: dict[tuple[bool, str], list[int]] = defaultdict(list)
    for i, pair in enumerate(pairs):
        by_kind[pair.in_scope, pair.kind].append(i)

    def loss(threshold: float) -> float:
        overridden = probabilities >= threshold
        missed = [1 - overridden[rows].mean() for (in_scope, _), rows in by_kind.items() if in_scope]
        false = [overridden[rows].mean() for (in_scope, _), rows in by_kind.items() if not in_scope]
        return float(np.mean(missed) + cost * np.mean(false))

    return min((round(0.05 * step, 2) for step in range(1, 20)), key=loss)


def average(model: CrossEncoder, start: str, share: float) -> None:
    """Moves the weights back to between those of the start and the trained ones.

    What lies between keeps more of what the start could do (WiSE-FT, Wortsman et al. 2022, equation 1).
    """
    before = CrossEncoder(start, num_labels=1, device=str(model.device)).float().model.state_dict()
    with torch.no_grad():
        for name, weight in model.model.state_dict().items():
            weight.lerp_(before[name], 1 - share)


def finish(model: CrossEncoder, held_out: HeldOut, config: dict[str, Any]) -> dict[str, Any]:
    """Folds the temperature into the head, chooses the threshold, and says what holds on held-out pairs."""
    # one half of the pairs for choosing, the other for telling what was chosen
    logits = held_out.logits(model)
    choosing = np.arange(len(logits)) % 2 == 0
    temperature = temperature_of(logits[choosing], held_out.in_scope[choosing])
    head = model.model.classifier
    with torch.no_grad():
        head.weight /= temperature
        head.bias /= temperature
    probabilities = 1 / (1 + np.exp(-logits / temperature))
    chosen = [pair for pair, first in zip(held_out.pairs, choosing, strict=True) if first]
    threshold = threshold_of(probabilities[choosing], chosen, config["false_override_cost"])
    model.model.config.semedit = {"threshold": threshold, "floor": config["floor"]}
    telling = ~choosing
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for pair, probability, tell in zip(held_out.pairs, probabilities, telling, strict=True):
        if tell:
            by_kind[pair.kind].append(bool(probability >= threshold) == pair.in_scope)
    return {
        "temperature": temperature,
        "threshold": threshold,
        "expected calibration error": calibration_error(probabilities[telling], held_out.in_scope[telling]),
        "right": {kind: [sum(hits), len(hits)] for kind, hits in sorted(by_kind.items())},
    }


def calibration_error(probabilities: np.ndarray, in_scope: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017, equation 3)."""
    bin_of = np.minimum((probabilities * bins).astype(int), bins - 1)
    return float(
        sum(
            abs(probabilities[bin_of == b].mean() - in_scope[bin_of == b].mean()) * np.mean(bin_of == b)
            for b in range(bins)
            if (bin_of == b).any()
        )
    )


def own_negatives(edits: Path) -> list[ScopePair]:
    """A user's edits beside the queries on which each must not fire."""
    return [
        ScopePair(record["prompt"], negative, False, "own negative", record["target"])
        for record in read_records(edits)
        for negative in record.get("negatives", ())
    ]


def as_dataset(pairs: Sequence[ScopePair], descriptor: str) -> Dataset:
    """Columns `edit`, `query`, `label`."""
    return Dataset.from_dict(
        {
            "edit": [described(pair, descriptor) for pair in pairs],
            "query": [pair.query for pair in pairs],
            "label": [float(pair.in_scope) for pair in pairs],
        }
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("config", type=Path, help="YAML file, such as configs/scope_classifier.yaml")
    parser.add_argument("--data", type=Path, required=True, help="folder of the training files")
    parser.add_argument("--output", type=Path, required=True, help="where checkpoints and the classifier go")
    parser.add_argument(
        "--leave-out", type=Path, nargs="*", default=[], help="files whose subjects are not trained on"
    )
    parser.add_argument("--edits", type=Path, help="your edits, a JSON-lines file as `semedit edit export` writes it")
    parser.add_argument("--traffic", type=Path, help="queries that no edit is to answer, one a line")
    parser.add_argument("--start", help="name or path of the model to start from (default: all-MiniLM-L6-v2)")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs and of the training (default: 0)")
    options = parser.parse_args()
    config = yaml.safe_load(options.config.read_text())

    left_out = [record["subject"] for path in options.leave_out for record in read_records(path)]
    own = own_facts(options.edits) if options.edits else []
    queries = options.traffic.read_text().splitlines() if options.traffic else []
    training, holding = read_sources(options.data, SentenceEncoder(), left_out, config["held_out"], own, queries)
    pairs = build_pairs(training, config["pairs"], random.Random(options.seed))
    negatives = own_negatives(options.edits) if options.edits else []
    # a user's own edits are few beside all the others, and they matter most
    pairs += [pair for pair in negatives for _ in range(config["repeat_own"])]
    pairs += [pair for pair in own_pairs(training) for _ in range(config["repeat_own"])]
    counts = {kind: min(count, config["held_out_pairs"]) for kind, count in config["pairs"].items() if count}
    held_out = HeldOut(build_pairs(holding, counts, random.Random(options.seed + 1)), config["descriptor"])

    set_seed(options.seed)
    checkpoint = get_last_checkpoint(options.output) if options.output.is_dir() else None
    start = options.start or str(packaged_minilm())
    model = CrossEncoder(
        checkpoint or start,
        num_labels=1,
        max_length=config["max_length"],
        device=None if torch.accelerator.is_available() else "cpu",
        # on a CPU the fused attention's gradient takes longer than all else together
        model_kwargs={} if torch.accelerator.is_available() else {"attn_implementation": "eager"},
        config_kwargs={f"{part}_dropout_prob": config["dropout"] for part in ("hidden", "attention_probs")},
    ).float()  # a classifier to start from may be stored in half precision
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(options.output),
        seed=options.seed,
        use_cpu=not torch.accelerator.is_available(),
        batch_sampler=LengthBatches,
        report_to="none",
        **config["training"],
    )
    dataset = as_dataset(pairs, config["descriptor"])
    trainer = CrossEncoderTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        loss=BinaryCrossEntropyLoss(model),
        evaluator=held_out,
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        trained = trainer.accelerator.unwrap_model(trainer.model).eval()
        if config["trained_share"] < 1:
            average(trained, start, config["trained_share"])
        figures = finish(trained, held_out, config)
        trained.model.to(torch.float16)
        trained.save_pretrained(str(options.output), create_model_card=False)
        (options.output / "held_out.json").write_text(json.dumps(figures, indent=2) + "\n")
        log = "".join(json.dumps(entry) + "\n" for entry in trainer.state.log_history)
        (options.output / "training_log.jsonl").write_text(log)


if __name__ == "__main__":
    main()
