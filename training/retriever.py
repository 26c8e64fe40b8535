"""Trains a retriever: an encoder that finds, among all edits in memory, those that may answer a query.

    accelerate launch training/retriever.py configs/retriever.yaml --data DATA/train --output out/retriever

fine-tunes all-MiniLM-L6-v2 on pairs in scope, and continues from the last checkpoint in --output where there is one.

    accelerate launch training/retriever.py configs/retriever.yaml --data DATA/train --output out/static --static

first makes a static-embedding model of it, one vector for each token, and trains that: encoding is then looking up and
adding. Beside the weights stands `training_log.jsonl`, what was measured while training: how often the right edit is
among the first eight, on edits and queries that were held out. benchmarks/retriever.py compares what comes out.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tqdm import tqdm
from transformers import set_seed

from left_out import LeftOut
from material import ScopePair
from pairs import build_pairs, count_kinds
from runs import begin, digest, write_log
from semedit.memory.encoder import SentenceEncoder, packaged_minilm
from semedit.router import CANDIDATES
from sources import read_sources

# a token of this share of a text counts half in the sum (Arora et al. 2017)
HALF_WEIGHT_FREQUENCY = 1e-4


def static_model(teacher: SentenceTransformer, texts: Sequence[str], dimensions: int) -> SentenceTransformer:
    """A static-embedding model made from an encoder, without training.

    Each token is encoded alone, the vectors are projected on their principal components, and frequent tokens weigh
    less, as model2vec makes such models.

    Args:
        teacher: the encoder.
        texts: texts by which it is decided which tokens are frequent.
        dimensions: length of a vector.
    """
    vectors = token_vectors(teacher)
    centred = vectors - vectors.mean(0)
    _, components = torch.linalg.eigh(centred.T @ centred)
    ids = [i for text in texts for i in teacher.tokenizer(text, add_special_tokens=False)["input_ids"]]
    counts = torch.bincount(torch.tensor(ids), minlength=len(vectors))
    weights = HALF_WEIGHT_FREQUENCY / (HALF_WEIGHT_FREQUENCY + counts / counts.sum())
    reduced = centred @ components[:, -dimensions:] * weights[:, None]
    # a learning rate then means the same for every teacher
    reduced /= reduced.norm(dim=1).mean()
    return SentenceTransformer(modules=[StaticEmbedding(teacher.tokenizer, embedding_weights=reduced)], device="cpu")


def token_vectors(teacher: SentenceTransformer, batch_size: int = 512) -> torch.Tensor:
    """`(tokens, dim)`: the mean output of the encoder for every token of its vocabulary alone, on the CPU."""
    rows = []
    tokenizer = teacher.tokenizer
    for start in tqdm(range(0, len(tokenizer), batch_size), desc="tokens"):
        ids = range(start, min(start + batch_size, len(tokenizer)))
        alone = torch.tensor([[tokenizer.cls_token_id, i, tokenizer.sep_token_id] for i in ids], device=teacher.device)
        with torch.no_grad():
            output = teacher({"input_ids": alone, "attention_mask": torch.ones_like(alone)})
        rows.append(output["token_embeddings"].mean(1).float().cpu())
    return torch.cat(rows)


def finding(pairs: Sequence[ScopePair], others: Sequence[str]) -> InformationRetrievalEvaluator:
    """Evaluates how often a query finds its edit, among the edits of all pairs and `others`."""
    edits = {prompt: prompt for prompt in (*others, *(pair.prompt for pair in pairs))}
    queries = {str(i): pair.query for i, pair in enumerate(pairs)}
    return InformationRetrievalEvaluator(
        queries=queries,
        corpus=edits,
        relevant_docs={str(i): {pair.prompt} for i, pair in enumerate(pairs)},
        accuracy_at_k=[1, CANDIDATES],
        precision_recall_at_k=[CANDIDATES],
        mrr_at_k=[CANDIDATES],
        ndcg_at_k=[CANDIDATES],
        map_at_k=[CANDIDATES],
        batch_size=128,
        write_csv=False,
    )


def no_neighbours() -> SentenceEncoder:
    """An encoder for `read_sources` where no near misses will be drawn: random vectors, made at once."""
    tokenizer = SentenceTransformer(str(packaged_minilm()), device="cpu").tokenizer
    return SentenceEncoder(SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu"))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("config", type=Path, help="YAML file, such as configs/retriever.yaml")
    parser.add_argument("--data", type=Path, required=True, help="folder of the training files")
    parser.add_argument("--output", type=Path, required=True, help="where checkpoints and the retriever go")
    parser.add_argument("--static", action="store_true", help="make and train a static-embedding model")
    parser.add_argument(
        "--leave-out", type=Path, nargs="*", default=[], help="files whose subjects and texts are not trained on"
    )
    parser.add_argument(
        "--unseen", type=Path, nargs="*", default=[], help="files whose texts alone are not trained on"
    )
    parser.add_argument("--start", help="name or path of the encoder to start from (default: all-MiniLM-L6-v2)")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs and of the training (default: 0)")
    options = parser.parse_args()
    config = yaml.safe_load(options.config.read_text())

    left_out = LeftOut(options.leave_out, options.unseen)
    training, holding = read_sources(options.data, no_neighbours(), left_out, config["held_out"], [], [])
    pairs = build_pairs(training, config["pairs"], random.Random(options.seed))
    count_kinds(pairs, config["pairs"])
    counts = {kind: min(count, config["held_out_pairs"]) for kind, count in config["pairs"].items()}
    held_out = build_pairs(holding, counts, random.Random(options.seed + 1))

    part = config["static" if options.static else "fine_tuned"]
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(options.output),
        seed=options.seed,
        use_cpu=not torch.accelerator.is_available(),
        # the other edits of a batch are its negatives, so none may stand in it twice
        batch_sampler="no_duplicates",
        report_to="none",
        **part["training"],
    )
    settings = {name: config[name] for name in ("pairs", "held_out", "held_out_pairs")} | part
    checkpoint = begin(
        arguments, settings, static=options.static, seed=options.seed, start=options.start, pairs=digest(pairs)
    )
    set_seed(options.seed)
    device = None if torch.accelerator.is_available() else "cpu"
    model = SentenceTransformer(checkpoint or options.start or str(packaged_minilm()), device=device)
    if options.static and not checkpoint:
        texts = [text for pair in pairs for text in (pair.prompt, pair.query)]
        model = static_model(model, texts, part["dimensions"])
    if not options.static:
        model.max_seq_length = part["max_length"]
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(
            {"query": [pair.query for pair in pairs], "edit": [pair.prompt for pair in pairs]}
        ),
        loss=MultipleNegativesRankingLoss(model),
        evaluator=finding(held_out, holding.prompts),
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        trained = trainer.accelerator.unwrap_model(trainer.model)
        trained.half().save_pretrained(str(options.output), create_model_card=False)
        write_log(trainer)


if __name__ == "__main__":
    main()
