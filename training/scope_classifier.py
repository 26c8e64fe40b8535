r"""Trains the scope classifier: a cross-encoder that reads an edit and a query and says whether the query is in scope.

    accelerate launch training/scope_classifier.py configs/scope_classifier.yaml --data DATA/train --output out/broad
    accelerate launch training/scope_classifier.py configs/scope_classifier_hard.yaml --data DATA/train \
        --output out/scope --start out/broad

are two stages: all kinds of pairs, and then more of the hard ones. Each continues from the last checkpoint in --output
where there is one. The classifier that ships (`make classifier`) is the average of two that were trained so, with
`--seed 0` and `--seed 1`, by `--average out/scope-0 out/scope-1`. With your own edits and queries,

    accelerate launch training/scope_classifier.py configs/scope_classifier_hard.yaml --data DATA/train \
        --output out/own --start semedit/models/scope --edits edits.jsonl --traffic queries.txt

goes on from the one that ships: each edit's wordings beside each other, its prompt beside its negatives and beside
other edits near to it, and queries that no edit is to answer, one a line, beside the wordings nearest to them. On a
CPU, `accelerate launch --num_cpu_threads_per_process` says how many cores are used. `--leave-out` keeps the subjects
and the texts of evaluation files out of training; `--unseen` keeps out the texts alone, for a file that names so many
subjects that too little would be left. training/README.md names the files of --data.

Beside the weights stand `run.json`, what was trained; `training_log.jsonl`, what was measured while training; and
`held_out.json`: of how many pairs of each kind it was trained on, a user's own counted as often as they are seen, and
what the trained classifier does on pairs that it never saw.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
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
from torch import nn
from torch.utils.data import BatchSampler
from transformers import set_seed

from left_out import LeftOut
from material import ScopePair
from own import at_most, own_facts, own_pairs, read_own_edits, read_own_traffic, repeated
from pairs import build_pairs, count_kinds
from runs import begin, digest, write_log
from scope_reliability import calibration_error, reliability
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

    def __init__(self, pairs: Sequence[ScopePair]) -> None:
        super().__init__()
        self.pairs = pairs
        self.texts = [(pair.prompt, pair.query) for pair in pairs]
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
        return model.predict(self.texts, batch_size=64, activation_fn=nn.Identity(), show_progress_bar=False)


def temperature_of(logits: np.ndarray, in_scope: np.ndarray) -> float:
    """The temperature by which logits divided are the likeliest probabilities (Guo et al. 2017)."""

    def negative_log_likelihood(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, np.where(in_scope, -scaled, scaled))))

    return math.exp(minimize_scalar(negative_log_likelihood, bounds=(-2, 3), method="bounded").x)


def threshold_of(probabilities: np.ndarray, in_scope: np.ndarray, cost: float) -> float:
    """The threshold at which misses and false overrides cost least, where one of these counts `cost` of those.

    Both are shares of pairs: of a kind with few pairs, as a user's own may be, none decides alone.
    """

    def loss(threshold: float) -> float:
        overridden = probabilities >= threshold
        return float(1 - overridden[in_scope].mean() + cost * overridden[~in_scope].mean())

    return min((round(0.05 * step, 2) for step in range(1, 20)), key=loss)


def average(model: CrossEncoder, start: str, share: float) -> None:
    """Moves the weights back to between those of the start and the trained ones.

    What lies between keeps more of what the start could do (WiSE-FT, Wortsman et al. 2022, equation 1).
    """
    before = weights_of(start, model.device)
    with torch.no_grad():
        for name, weight in model.model.state_dict().items():
            weight.lerp_(before[name], 1 - share)


def soup(folders: Sequence[Path]) -> CrossEncoder:
    """A classifier whose weights are the mean of those of several, trained alike with other seeds.

    It may err less than any of them, and costs what one costs (uniform soup, Wortsman et al. 2022, "Model soups").
    """
    model = CrossEncoder(str(folders[0]), num_labels=1, device="cpu").float()
    with torch.no_grad():
        for count, folder in enumerate(folders[1:], 2):
            others = weights_of(str(folder), model.device)
            for name, weight in model.model.state_dict().items():
                weight.lerp_(others[name], 1 / count)
    return model


def weights_of(name: str, device: torch.device) -> dict[str, torch.Tensor]:
    """The weights of a classifier, in full precision."""
    return CrossEncoder(name, num_labels=1, device=str(device)).float().model.state_dict()


def head_of(model: CrossEncoder) -> nn.Linear:
    """The layer that gives the logit; where there is none the process ends with a message."""
    heads = [module for module in model.model.modules() if isinstance(module, nn.Linear) and module.out_features == 1]
    if not heads:
        sys.exit(
            f"{type(model.model).__name__} has no linear layer with one output, into which the temperature of the "
            "logits could be folded: start from another model"
        )
    return heads[-1]


def finish(model: CrossEncoder, head: nn.Linear, held_out: HeldOut, config: dict[str, Any]) -> dict[str, Any]:
    """Folds the temperature into the head, chooses the threshold, and says what holds on held-out pairs."""
    # one half of the pairs for choosing, the other for telling what was chosen
    logits = held_out.logits(model)
    choosing = np.arange(len(logits)) % 2 == 0
    temperature = temperature_of(logits[choosing], held_out.in_scope[choosing])
    with torch.no_grad():
        for parameter in head.parameters():
            parameter /= temperature
    probabilities = 1 / (1 + np.exp(-logits / temperature))
    threshold = threshold_of(probabilities[choosing], held_out.in_scope[choosing], config["false_override_cost"])
    model.model.config.semedit = {"threshold": threshold, "floor": config["floor"]}
    telling = ~choosing
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for pair, probability, tell in zip(held_out.pairs, probabilities, telling, strict=True):
        if tell:
            by_kind[pair.kind].append(bool(probability >= threshold) == pair.in_scope)
    return {
        "temperature": temperature,
        "threshold": threshold,
        "expected calibration error": calibration_error(
            reliability(probabilities[telling], held_out.in_scope[telling])
        ),
        "right": {kind: [sum(hits), len(hits)] for kind, hits in sorted(by_kind.items())},
    }


def keep(model: CrossEncoder, figures: dict[str, Any], output: Path) -> None:
    """Writes the classifier, in half precision, and `held_out.json` beside it."""
    model.model.to(torch.float16)
    model.save_pretrained(str(output), create_model_card=False)
    (output / "held_out.json").write_text(json.dumps(figures, indent=2) + "\n")


def as_dataset(pairs: Sequence[ScopePair]) -> Dataset:
    """Columns `edit`, `query`, `label`."""
    return Dataset.from_dict(
        {
            "edit": [pair.prompt for pair in pairs],
            "query": [pair.query for pair in pairs],
            "label": [float(pair.in_scope) for pair in pairs],
        }
    )


def read_pairs(options: argparse.Namespace, config: dict[str, Any]) -> tuple[list[ScopePair], HeldOut]:
    """The pairs to train on, a user's own among them as often as the config says, and the held-out ones."""
    edits = read_own_edits(options.edits) if options.edits else []
    traffic = read_own_traffic(options.traffic) if options.traffic else []
    left_out, share, encoder = LeftOut(options.leave_out, options.unseen), config["held_out"], SentenceEncoder()
    training, holding = read_sources(options.data, encoder, left_out, share, own_facts(edits), traffic)
    own, own_held_out = own_pairs(edits, traffic, encoder, share)
    rng = random.Random(options.seed)
    pairs = build_pairs(training, config["pairs"], rng)
    # they are few beside all the others, and they matter most
    pairs += repeated(config["repeat_own"], own, len(pairs), rng)
    rng, most = random.Random(options.seed + 1), config["held_out_pairs"]
    held_out = build_pairs(holding, {kind: min(count, most) for kind, count in config["pairs"].items() if count}, rng)
    return pairs, HeldOut([*held_out, *at_most(most, own_held_out, rng)])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("config", type=Path, help="YAML file, such as configs/scope_classifier.yaml")
    parser.add_argument("--data", type=Path, required=True, help="folder of the training files")
    parser.add_argument("--output", type=Path, required=True, help="where checkpoints and the classifier go")
    parser.add_argument(
        "--leave-out", type=Path, nargs="*", default=[], help="files whose subjects and texts are not trained on"
    )
    parser.add_argument(
        "--unseen", type=Path, nargs="*", default=[], help="files whose texts alone are not trained on"
    )
    parser.add_argument("--edits", type=Path, help="your edits, a JSON-lines file as `semedit edit export` writes it")
    parser.add_argument("--traffic", type=Path, help="queries that no edit is to answer, one a line")
    parser.add_argument("--start", help="name or path of the model to start from (default: all-MiniLM-L6-v2)")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs and of the training (default: 0)")
    parser.add_argument(
        "--average",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="train nothing: average the weights of classifiers that were trained with other seeds, scale their "
        "probabilities and choose their threshold",
    )
    options = parser.parse_args()
    config = yaml.safe_load(options.config.read_text())
    if config["trained_share"] < 1 and not (options.start or options.average):
        parser.error(
            f"with trained_share {config['trained_share']} the weights lie between those trained and those of a "
            f"classifier to start from: name one with --start, or make trained_share 1 in {options.config}"
        )

    pairs, held_out = read_pairs(options, config)
    if options.average:
        model = soup(options.average)
        keep(model, finish(model, head_of(model), held_out, config), options.output)
        return
    trained_on = count_kinds(pairs, config["pairs"])
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(options.output),
        seed=options.seed,
        use_cpu=not torch.accelerator.is_available(),
        batch_sampler=LengthBatches,
        report_to="none",
        **config["training"],
    )
    checkpoint = begin(arguments, config, seed=options.seed, start=options.start, pairs=digest(pairs))
    start = options.start or str(packaged_minilm())
    set_seed(options.seed)
    model = CrossEncoder(
        checkpoint or start,
        num_labels=1,
        max_length=config["max_length"],
        device=None if torch.accelerator.is_available() else "cpu",
        # on a CPU the fused attention's gradient takes longer than all else together
        model_kwargs={} if torch.accelerator.is_available() else {"attn_implementation": "eager"},
        config_kwargs={f"{part}_dropout_prob": config["dropout"] for part in ("hidden", "attention_probs")},
    ).float()  # a classifier to start from may be stored in half precision
    head = head_of(model)
    trainer = CrossEncoderTrainer(
        model=model,
        args=arguments,
        train_dataset=as_dataset(pairs),
        loss=BinaryCrossEntropyLoss(model),
        evaluator=held_out,
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        trained = trainer.accelerator.unwrap_model(trainer.model).eval()
        if config["trained_share"] < 1:
            average(trained, start, config["trained_share"])
        keep(trained, {"trained_on": trained_on} | finish(trained, head, held_out, config), options.output)
        write_log(trainer)


if __name__ == "__main__":
    main()
