"""What GRACE does in free generation: as published, with each repair alone, and repaired.

    python benchmarks/grace.py --data DATA/dev --out out/grace                    # the shipped base model
    python benchmarks/grace.py --data DATA/dev --out out/grace-t5 --model PATH --jobs 4
    python benchmarks/grace.py --data DATA/dev --out out/some --edits 1 10 --rows published "repaired, scope routing"

Rows that learn the same values are measured one after another, and the others beside them, --jobs at a time, each on
one thread. Each is kept in the folder of --out: a run that was interrupted goes on with the rows that are missing, and
one that is finished shows its table again.

The first facts of zsRE are edited one after another, in chunks that end at each number of --edits. All is judged in
answers that are generated greedily to their natural stop, each question asked as the model is asked it, by exact match
after normalisation (case, punctuation, articles). The target is never seen by the router. For each method and number
of edits it prints

  success          each edit, asked as soon as its chunk is learned
  retention        all edits so far, asked again (GRACE's ERR)
  teacher-forced   the share of these whose every target token is the likeliest after those before it, no end asked for
  generality       their rephrases
  routed           the share of the rephrases that the router gives to their edit, or to one with the same target
  unrelated        NQ-open questions whose answer is token for token that of the unedited model (GRACE's TRR)
  keys             entries of the codebook, per edit
  seconds          to add and learn, per edit, on one thread; of values that another row learned, as long as it took
  bytes            of the learned value, and of the key where the codebook decides, per edit
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import semedit
from answers import distinct_facts
from grace_measure import CHUNK, Questions, Subject, measure
from harness import environment, parser, report, write_json
from scope_data import read_questions
from semedit import AdaptorConfig, Edit, SentenceEncoder
from semedit.evaluation.asking import LONGEST_ANSWER, ask
from semedit.hooks import embedding_path, first_layer
from semedit.models import shipped_model_path

CONFIGS = Path(__file__).parents[1] / "configs"
RATES = ("success", "retention", "teacher_forced", "generality", "routed", "unrelated")


def main() -> None:
    """Runs the benchmark."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    options.classifier = semedit.CrossEncoderScope().fingerprint
    files = {row: options.out / f"{row.replace(',', '').replace(' ', '_')}.json" for row in options.rows}
    missing = [row for row, file in files.items() if not (file.exists() and _read(file, options, row))]
    groups = _learning_alike(missing)
    # those that take long first, so that none is left alone at the end
    groups.sort(key=lambda rows: (-methods()[rows[0]].views, -len(rows)))
    os.environ["OMP_NUM_THREADS"] = "1"  # processes that share cores get in each other's way with more
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, spawning, tqdm.set_lock, (spawning.RLock(),)) as processes:
        measuring = [
            processes.submit(_measure, options, {row: files[row] for row in rows}, line)
            for line, rows in enumerate(groups)
        ]
    for one in measuring:
        one.result()
    figures = [_read(file, options, row) for row, file in files.items()]
    run, results = figures[0]["run"], [result for one in figures for result in one["results"]]
    show(run, results)
    write_json(options.json, {"run": run, "results": results})


def methods(layer: str | None = None, embedding: str | None = None) -> dict[str, AdaptorConfig]:
    """The rows of the table.

    Args:
        layer: where values stand in all rows but the last.
        embedding: the path of the model's embedding, where the last row has them.
    """
    repaired = replace(AdaptorConfig.from_file(CONFIGS / "grace_layer.yaml"), layer=layer)
    repairs: dict[str, dict[str, Any]] = {
        "published": {},
        "+ warm start": {"start": "warm"},
        "+ bounded value": {"norm_bound": 10.0},
        "+ stop token": {"stop": True},
        "+ stop and bound": {"stop": True, "norm_bound": 10.0},
        "+ early stop": {"stop_at_loss": repaired.stop_at_loss},
        "+ value at all tokens": {"replace": "all"},
        "+ scaled rate": {"scaled_rate": True, "learning_rate": repaired.learning_rate},
        "+ views": {"views": repaired.views},
        "+ measured radius": {"radius": None, "unit_keys": True},
        "+ repaired rules": {"published_rules": False},
        "+ routing by scope": {"routing": "scope"},
    }
    return {
        **{name: AdaptorConfig.published(layer=layer, **changes) for name, changes in repairs.items()},
        "repaired, codebook routing": replace(repaired, routing="codebook"),
        "repaired, scope routing": repaired,
        "repaired, scope routing, value at the embedding": replace(
            AdaptorConfig.from_file(CONFIGS / "grace.yaml"), layer=embedding
        ),
    }


def load(path: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and its tokenizer."""
    kind = AutoModelForSeq2SeqLM if AutoConfig.from_pretrained(path).is_encoder_decoder else AutoModelForCausalLM
    # in the precision that it is kept in; on a CPU, gradients in half precision are slow through fused attention
    model = kind.from_pretrained(path, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="right" if kind is AutoModelForSeq2SeqLM else "left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def show(run: dict[str, Any], results: Sequence[dict[str, Any]]) -> None:
    """Prints one table for each number of edits."""
    columns = ("method", *(name.replace("_", "-") for name in RATES), "keys", "seconds", "bytes")
    for edits in sorted({result["edits"] for result in results}):
        rows = [
            (
                result["method"],
                *(f"{result[name]['right'] / result[name]['of']:.3f}" for name in RATES),
                "-" if result["keys_per_edit"] is None else f"{result['keys_per_edit']:.2f}",
                f"{result['seconds_per_edit']:.3f}",
                f"{result['bytes_per_edit']:,.0f}",
            )
            for result in results
            if result["edits"] == edits
        ]
        report(f"{run['model']}, {run['layer']}: zsRE edits so far: {edits:,}", columns, rows, [])
    print(f"edits were added and learned at most {run['chunk']} at once, and asked after each chunk")
    print(f"unrelated: {run['unrelated']:,} NQ-open questions; keys, seconds and bytes are for each edit")


def _learning_alike(rows: Sequence[str]) -> list[list[str]]:
    """The rows, those together that learn the same values and differ in where they use them."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(json.dumps(methods()[row].of_values()), []).append(row)
    return list(groups.values())


def _measure(options: argparse.Namespace, files: dict[str, Path], line: int) -> None:
    """Measures rows that learn alike and writes the file of each, with a bar on a line of its own."""
    checkpoints = sorted(set(options.edits))
    records = distinct_facts(options.data / "ZsRE-test-all.json")[: checkpoints[-1]]
    if len(records) < checkpoints[-1]:
        sys.exit(f"there are {len(records):,} facts to edit, and --edits asks for {checkpoints[-1]:,}")
    questions = read_questions(options.data)
    count = min(options.unrelated, len(questions))
    unrelated = [questions[i * len(questions) // count] for i in range(count)]
    base, tokenizer = load(options.model)
    asked = Questions(
        [Edit(id=str(i), prompt=r["prompt"], target=r["target_new"]) for i, r in enumerate(records)],
        [record["rephrase_prompt"] for record in records],
        unrelated,
        ask(base, tokenizer, unrelated, max_new_tokens=LONGEST_ANSWER),
    )
    encoder, scope = SentenceEncoder(), semedit.CrossEncoderScope()
    encoder.encode([asked.edits[0].prompt])  # warms up
    layer = options.layer or first_layer(base)
    run = {
        "benchmark": "grace",
        "model": Path(options.model).resolve().name,
        "layer": layer,
        "unrelated": count,
        "chunk": CHUNK,
        **environment(),
    }
    memory, learning = semedit.EditMemory(None, encoder), dict[int, float]()
    for name, file in files.items():
        subject = Subject(base, tokenizer, name, methods(layer, embedding_path(base))[name], memory, scope)
        with tqdm(total=checkpoints[-1], desc=name, position=line) as bar:
            results = [{"method": name, **figures} for figures in measure(subject, asked, checkpoints, bar, learning)]
        write_json(file, {"run": run, "options": _asked(options, name), "results": results})


def _read(file: Path, options: argparse.Namespace, row: str) -> dict[str, Any]:
    """The figures of a row, which must have been measured alike."""
    figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    asked = _asked(options, row)
    differing = [name for name, value in figures["options"].items() if value != asked[name]]
    if differing:
        sys.exit(f"{file} was measured with another {', '.join(differing)}; give another --out, or delete it")
    return figures


def _asked(options: argparse.Namespace, row: str) -> dict[str, Any]:
    """What a row's figures depend on."""
    return {
        "data": str(options.data.resolve()),
        "model": str(Path(options.model).resolve()),
        "layer": options.layer,
        "edits": sorted(set(options.edits)),
        "unrelated": options.unrelated,
        "method": asdict(methods()[row]),
        "classifier": options.classifier,
    }


def _options() -> argparse.Namespace:
    names = list(methods())
    options = parser(__doc__)
    options.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="folder of the dev files")
    options.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="keeps each row's figures",
    )
    options.add_argument(
        "--model", type=Path, metavar="PATH", help="a causal or encoder-decoder model (default: the shipped one)"
    )
    options.add_argument(
        "--layer", metavar="PATH", help="of the model (default: the last linear one of the first block)"
    )
    options.add_argument(
        "--edits",
        type=int,
        nargs="+",
        default=[1, 10, 100, 1000],
        metavar="N",
        help="numbers of edits to measure at (default: 1 10 100 1000)",
    )
    options.add_argument(
        "--rows", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(map(repr, names))
    )
    options.add_argument(
        "--unrelated", type=int, default=500, metavar="N", help="NQ-open questions (default: %(default)s)"
    )
    options.add_argument("--jobs", type=int, default=4, metavar="N", help="rows at a time (default: %(default)s)")
    given = options.parse_args()
    given.model = given.model or shipped_model_path()
    return given


if __name__ == "__main__":
    main()
