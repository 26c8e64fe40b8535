"""`semedit evaluate`: how well edits work in free generation."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from semedit.cli.loading import load_model
from semedit.cli.opening import load_encoder, scope_of
from semedit.errors import EvaluationError
from semedit.evaluation.datasets import consistent, read, unrelated
from semedit.evaluation.evaluator import Evaluated, evaluate
from semedit.evaluation.methods import make_subject
from semedit.evaluation.names import ONE_LINE
from semedit.evaluation.report import table, write_csv
from semedit.evaluation.results import Evaluation
from semedit.fingerprint import sampled_fingerprint
from semedit.overrides.adaptor_config import AdaptorConfig


def run(args: argparse.Namespace) -> int:
    """Evaluates each method on the data set, prints the table, and writes what `--out` asks for."""
    if args.out is not None and find_spec("matplotlib") is None:
        raise EvaluationError("--out draws with matplotlib, which is not installed: pip install 'semedit[plots]'")
    examples, left_out = consistent(read(args.dataset, args.data), args.limit)
    if not any(example.edits for example in examples):
        raise EvaluationError(
            f"{args.data} has no edits to make, only behaviours to judge: every method would be the unedited model. "
            "What was edited by other means is judged by semedit.evaluation.evaluate"
        )
    pool = [] if args.unrelated is None else unrelated(args.unrelated)
    adaptor = AdaptorConfig() if args.adaptor_config is None else AdaptorConfig.from_file(args.adaptor_config)
    model, tokenizer = load_model(args.model)
    small = None if args.small_model is None else load_model(args.small_model)
    encoder, scope = load_encoder(args.encoder), scope_of(args)
    subjects: dict[str, Evaluated] = {
        name: make_subject(name, model, tokenizer, encoder=encoder, scope=scope, adaptor=adaptor, small=small)
        for name in ("none", *dict.fromkeys(args.methods))
    }
    evaluation = evaluate(
        {name: subject for name, subject in subjects.items() if name != "none"},
        examples,
        unedited=subjects["none"],
        edits=args.edits,
        order=args.order,
        unrelated=pool,
        sample=args.sample,
        seed=args.seed,
        stop="\n" if args.dataset in ONE_LINE else None,
        dataset=args.dataset,
        model=args.model or "the shipped model",
        left_out=left_out,
        setup={
            "model": sampled_fingerprint(model, ""),
            "small_model": args.small_model,
            "encoder": encoder.fingerprint,
            "scope": scope.fingerprint,
            "threshold": scope.threshold,
            "adaptor": asdict(adaptor),
        },
        out=args.out,
        progress=sys.stderr.isatty(),
    )
    print(table(evaluation), end="")
    if args.out is not None:
        print(f"\nthe page with plots and the worst cases: {_write(evaluation, Path(args.out))}")
    return 0


def _write(evaluation: Evaluation, folder: Path) -> Path:
    from semedit.evaluation.page import write_page  # brings matplotlib, which is an extra

    (folder / "evaluation.json").write_text(evaluation.to_json(), encoding="utf-8")
    write_csv(evaluation, folder / "evaluation.csv")
    return write_page(evaluation, folder)
