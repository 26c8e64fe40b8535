"""How well scope is decided: each category of query with its rate, for the scope classifier and for cosine alone.

    python benchmarks/scope.py --data DATA/dev --train DATA/train                # everything
    python benchmarks/scope.py --data DATA/dev --only zsre adversarial --errors 10
    python benchmarks/scope.py --data DATA/dev --json scope.json --plot scope    # scope-overrides.png, .svg, ...

All edits of a file are in memory, and both classifiers decide at their default thresholds. Rates stand with their
95 % Wilson intervals. A query in scope is right where it is routed to its own edit, or to another edit of the same
fact (subject and true answer); a query out of scope is overridden where any edit answers it.

`--only` chooses among: zsre; counterfact; adversarial (tests/data/adversarial.jsonl); chat (messages to assistants
that take no part in the classifier's training, and NQ-open, with the most edits of --sizes in memory); calibration (to
0.1 % on the even rows of NQ-open, checked on the odd ones, at each of --sizes); cost (in passes of the encoder,
measured in turns in one run). The expected calibration error is that of the scores of the best candidates of zsRE and
CounterFact.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import environment, parser, write_json
from scope_data import (
    ADVERSARIAL,
    Suite,
    read_adversarial,
    read_chat,
    read_counterfact,
    read_distracting,
    read_edits,
    read_questions,
    read_zsre,
)
from scope_measure import RememberingEncoder, judged_scores, route_suite
from scope_reliability import calibration_error, reliability
from scope_report import Results, as_json, show_calibration, show_cost, show_errors, show_suite
from scope_traffic import calibrated, cost, sample
from semedit import CrossEncoderScope, SentenceEncoder, SimilarityScope
from semedit.scope.base import ScopeClassifier

PARTS = ("zsre", "counterfact", "adversarial", "chat", "calibration", "cost")


def main() -> None:
    """Runs the benchmark."""
    options = _options()
    encoder = SentenceEncoder()
    kept = RememberingEncoder(encoder)
    scopes = {
        "classifier": CrossEncoderScope(str(options.scope) if options.scope else None),
        "cosine alone": SimilarityScope(),
    }
    figures: dict[str, Any] = {}

    results: list[Results] = []
    for suite in _suites(options):
        routes = {name: route_suite(suite, scope, kept, f"{suite.name}, {name}") for name, scope in scopes.items()}
        results.append(Results(suite, routes))
        show_suite(results[-1])
        if options.errors:
            show_errors(results[-1], "classifier", options.errors)
    figures["suites"] = [as_json(result) for result in results]

    scores, right = judged_scores([(r.suite, r.routes["classifier"]) for r in results])
    if len(scores):
        bins = reliability(scores, right)
        figures["reliability"] = {
            "queries": len(scores),
            "expected_calibration_error": calibration_error(bins),
            "bins": bins,
        }
        print(
            f"expected calibration error of the classifier: {calibration_error(bins):.4f} over {len(scores):,} queries"
        )
    if options.plot:
        _draw(results, scopes, figures, options.plot)
    figures |= _traffic(options, scopes, encoder, kept)
    run = {
        "benchmark": "scope",
        "encoder": encoder.fingerprint,
        "classifiers": {
            name: {"fingerprint": scope.fingerprint, "threshold": scope.threshold, "floor": scope.floor}
            for name, scope in scopes.items()
        },
        **environment(),
    }
    write_json(options.json, {"run": run, "results": figures})


def _suites(options: argparse.Namespace) -> Iterator[Suite]:
    if "zsre" in options.only:
        yield read_zsre(options.data)
    if "counterfact" in options.only:
        yield read_counterfact(options.data, options.train)
        yield read_distracting(options.data)
    if "adversarial" in options.only:
        yield read_adversarial(options.adversarial)
    if "chat" in options.only and options.train:
        yield read_chat(options.data, options.train, sample(read_edits(options.data), max(options.sizes)))


def _traffic(
    options: argparse.Namespace,
    scopes: dict[str, ScopeClassifier],
    encoder: SentenceEncoder,
    kept: RememberingEncoder,
) -> dict[str, Any]:
    """The figures of calibration and cost, as far as they are wanted."""
    figures: dict[str, Any] = {}
    if "calibration" in options.only:
        edits, questions = read_edits(options.data), read_questions(options.data)
        made = {
            (name, size): calibrated(scope, sample(edits, size), questions, kept, f"{name}, {size:,} edits")
            for name, scope in scopes.items()
            for size in sorted(options.sizes)
        }
        figures["calibration"] = show_calibration(made)
    if "cost" in options.only:
        edits = sample(read_edits(options.data), max(options.sizes))
        questions = read_questions(options.data)
        figures["cost"] = {
            name: cost(scope, edits, questions, encoder, kept, f"cost, {name}") for name, scope in scopes.items()
        }
        show_cost(figures["cost"])
    return figures


def _draw(results: list[Results], scopes: dict[str, ScopeClassifier], figures: dict[str, Any], path: Path) -> None:
    from scope_plots import draw_overrides, draw_reliability  # without a figure matplotlib is not needed

    panels = {title: panel for result in results for title, panel in result.panels(scopes)}
    if panels:
        draw_overrides(panels, path.with_name(path.name + "-overrides"))
    if "reliability" in figures:
        found = figures["reliability"]
        draw_reliability(
            found["bins"], found["expected_calibration_error"], path.with_name(path.name + "-reliability")
        )


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="folder of the dev files")
    options.add_argument(
        "--train",
        type=Path,
        metavar="FOLDER",
        help="folder of the training files, for chat messages and to tell which queries of CounterFact they hold",
    )
    options.add_argument("--scope", type=Path, metavar="FOLDER", help="a cross-encoder (default: the one that ships)")
    options.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    options.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[100, 1000, 10_000],
        metavar="N",
        help="edits in memory for calibration; the most of them for chat and cost (default: 100 1000 10000)",
    )
    options.add_argument(
        "--adversarial", type=Path, default=ADVERSARIAL, metavar="FILE", help="the suite (default: %(default)s)"
    )
    options.add_argument("--errors", type=int, default=0, metavar="N", help="show N wrong cases of each category")
    options.add_argument(
        "--plot", type=Path, metavar="STEM", help="draw STEM-overrides and STEM-reliability, PNG and SVG"
    )
    given = options.parse_args()
    if "chat" in given.only and not given.train:
        print("chat messages are left out: --train says where the training files are", file=sys.stderr)
    return given


if __name__ == "__main__":
    main()
