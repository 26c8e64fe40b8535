"""Which encoder should find the candidates: how often the right edit is among the first eight, and what a query costs.

    python benchmarks/retriever.py --data DATA/dev --models out/retriever out/static   # minutes on four free cores
    python benchmarks/retriever.py --data DATA/dev --edits 1000 10000 --json retriever.json

all-MiniLM-L6-v2 as installed with semedit is always compared. The queries are other wordings of edits of zsRE and of
CounterFact, as many edits of each as the smallest of --edits; larger memories hold the same edits, then those of the
other files, then questions of the files with other subjects put in (subjects that no query is about). An edit that
states the same fact, subject and true answer, is found as well as the query's own.

The scope classifier judges only candidates whose cosine is above a floor. A floor loses the true paraphrases below it
and spares the questions that have nothing above it, so the second table shows, for what a floor may lose, the floor
and the share of real users' questions (NQ-open) that still have a candidate above it. Every encoder is timed on the
same questions in turn, one question at a time.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from facts import read_records
from harness import environment, parser, report, summary, timed, write_json
from semedit import SentenceEncoder
from semedit.evaluation.metrics import wilson
from semedit.memory.encoder import Encoder, Vectors, packaged_minilm
from semedit.router import CANDIDATES

LOSSES = (0.001, 0.005, 0.01, 0.05)
FLOORS = tuple(round(0.3 + 0.05 * i, 2) for i in range(9))
TRAFFIC_EDITS = 10_000  # in memory for the questions of others, and for the time of a search


@dataclass(frozen=True)
class Known:
    """An edit's prompt, the fact that it states (subject and true answer), and other wordings of it by kind."""

    prompt: str
    subject: str
    truth: str
    wordings: tuple[tuple[str, str], ...] = ()

    @property
    def fact(self) -> tuple[str, str]:
        """What edits of one fact share."""
        return self.subject.casefold(), self.truth.casefold()


@dataclass(frozen=True)
class Suite:
    """Queries of some kinds about the first edits of a memory."""

    edits: list[Known]
    queries: list[tuple[str, str, int]]
    """Kind, query, and the place of its edit."""


def main() -> None:
    """Runs the benchmark."""
    options = _options()
    sizes = sorted(set(options.edits))
    zsre, counterfact = list(read_zsre(options.data)), list(read_counterfact(options.data))
    others = [*zsre, *counterfact, *read_others(options.data)]
    fillers = made_fillers(others, {edit.subject for edit in (*zsre[: sizes[0]], *counterfact[: sizes[0]])}, sizes[-1])
    suites = [
        Suite(memory(own, others, fillers, sizes), queries_about(own[: sizes[0]])) for own in (zsre, counterfact)
    ]
    traffic = [record["question"] for record in read_records(options.data / "NQ-open.dev.jsonl")]

    models = {"all-MiniLM-L6-v2": packaged_minilm(), **{str(path): path for path in options.models}}
    # weights are stored in half precision and run in single precision
    encoders = {
        name: SentenceEncoder(SentenceTransformer(str(path), device="cpu").float()) for name, path in models.items()
    }
    results = {name: measure(encoder, suites, sizes, traffic) for name, encoder in encoders.items()}
    seconds = times(encoders, traffic[: options.timed])
    for name, path in models.items():
        results[name] |= seconds[name] | {"bytes": size_on_disk(path), "dim": encoders[name].dim}
    show(results, sizes)
    run = {"benchmark": "retriever", "traffic": len(traffic), "timed": options.timed, **environment()}
    write_json(options.json, {"run": run, "results": results})


def read_zsre(data: Path) -> Iterator[Known]:
    """The edits of zsRE with their rephrases, and one in five of the paraphrases that a machine wrote."""
    records = {r["prompt"]: r for r in read_records(data / "ZsRE-test-all-generate-10.jsonl")}
    for i, (prompt, record) in enumerate(records.items()):
        machine = [re.sub(r"^\d+\. ", "", text) for text in record["generate_prompt"]]
        # separators stand among them
        machine = [text for text in machine if re.search(r"\w", text)]
        wordings = [("zsRE rephrase", record["rephrase_prompt"])]
        wordings += [("zsRE by machine", text) for text in machine[i % 5 :: 5]]
        yield Known(prompt, record["subject"], record["ground_truth"][0], tuple(wordings))


def read_counterfact(data: Path) -> Iterator[Known]:
    """The edits of CounterFact with their rephrases."""
    records = {r["prompt"]: r for r in read_records(data / "counterfact-edit-first5000.json")}
    for prompt, record in records.items():
        wordings = (("CounterFact rephrase", record["rephrase_prompt"]),)
        yield Known(prompt, record["subject"], record["ground_truth"], wordings)


def read_others(data: Path) -> Iterator[Known]:
    """The edits of the other files."""
    for record in read_records(data / "zsre_mend_edit.json"):
        yield Known(record["src"], record["subject"], record["answers"][0])
    for outer in read_records(data / "wfd_test.json"):
        yield Known(outer["en"]["src"], outer["en"]["subject"], outer["en"]["old"])
    for record in read_records(data / "test_cf.json"):
        yield Known(record["prompt"], record["subject"], record["ground_truth"])
    for name in ("counterfact_distracting_neighbor.json", "counterfact_portability_gpt4.json"):
        for record in read_records(data / name):
            edit = record["requested_rewrite"]
            yield Known(edit["prompt"].format(edit["subject"]), edit["subject"], edit["target_true"]["str"])


def made_fillers(edits: Sequence[Known], without: set[str], count: int) -> list[Known]:
    """Prompts of edits with other subjects put in, the subjects `without` left out; no prompt twice."""
    rng = random.Random(0)
    templates = sorted({e.prompt.replace(e.subject, "{}") for e in edits if e.subject in e.prompt})
    subjects = sorted({edit.subject for edit in edits} - without)
    made: dict[str, Known] = {}
    while subjects and len(made) < min(count, len(templates) * len(subjects) // 2):
        subject = rng.choice(subjects)
        prompt = rng.choice(templates).replace("{}", subject)
        made.setdefault(prompt, Known(prompt, subject, ""))
    return list(made.values())


def memory(
    own: Sequence[Known], others: Sequence[Known], fillers: Sequence[Known], sizes: Sequence[int]
) -> list[Known]:
    """As many edits as the largest size, `own` first, no prompt twice."""
    first: dict[str, Known] = {}
    for edit in (*own, *others, *fillers):
        first.setdefault(edit.prompt, edit)
    edits = list(first.values())
    if len(edits) < sizes[-1] or len(own) < sizes[0]:
        sys.exit(f"the files make {len(edits):,} edits and {len(own):,} to ask about: ask for fewer with --edits")
    return edits[: sizes[-1]]


def queries_about(edits: Sequence[Known]) -> list[tuple[str, str, int]]:
    """Every other wording of the edits, with its kind and the place of its edit."""
    return [(kind, query, place) for place, edit in enumerate(edits) for kind, query in edit.wordings]


def measure(encoder: Encoder, suites: Sequence[Suite], sizes: Sequence[int], traffic: Sequence[str]) -> dict[str, Any]:
    """Queries found by kind and number of edits, and cosines of true paraphrases and of the traffic."""
    # most fillers are the same in all suites, and encoding is what takes long
    prompts = list(dict.fromkeys(edit.prompt for suite in suites for edit in suite.edits))
    vector_of = dict(zip(prompts, encoder.encode(prompts, progress=True), strict=True))
    found: dict[str, dict[int, list[int]]] = {}
    true: list[Vectors] = []
    for suite in suites:
        vectors = np.stack([vector_of[edit.prompt] for edit in suite.edits])
        queries = encoder.encode([query for _, query, _ in suite.queries], progress=True)
        places = np.array([place for _, _, place in suite.queries])
        true.append((queries * vectors[places]).sum(1))
        facts = [edit.fact for edit in suite.edits]
        for size in sizes:
            _, nearest = _index(encoder, vectors[:size]).search(queries, CANDIDATES)
            for (kind, _, place), near in zip(suite.queries, nearest.tolist(), strict=True):
                counts = found.setdefault(kind, {}).setdefault(size, [0, 0])
                counts[0] += any(facts[i] == facts[place] for i in near if i >= 0)
                counts[1] += 1
    edits = np.stack([vector_of[edit.prompt] for edit in suites[0].edits[:TRAFFIC_EDITS]])
    nearest_cosines, _ = _index(encoder, edits).search(encoder.encode(traffic, progress=True), 1)
    return {"found": found, "floors": _floors(np.concatenate(true), nearest_cosines[:, 0])}


def times(encoders: dict[str, SentenceEncoder], questions: Sequence[str]) -> dict[str, Any]:
    """Seconds to encode one question and to search for it among 10,000 vectors, all encoders in turn."""
    # an exact search takes as long among random vectors
    rng = np.random.default_rng(0)
    indexes = {
        name: _index(encoder, rng.standard_normal((TRAFFIC_EDITS, encoder.dim), np.float32))
        for name, encoder in encoders.items()
    }
    encoding: dict[str, list[float]] = {name: [] for name in encoders}
    passes: dict[str, list[float]] = {name: [] for name in encoders}
    for question in tqdm(questions, desc="timing"):
        for name, encoder in encoders.items():
            took, vector = timed(encoder.encode, [question])
            search, _ = timed(indexes[name].search, vector, CANDIDATES)
            encoding[name].append(took)
            passes[name].append((took + search) / took)
    first = np.array(next(iter(encoding.values())))
    return {
        name: {
            "encode_seconds": summary(encoding[name]),
            "over_minilm": summary(np.array(encoding[name]) / first),
            "passes": summary(passes[name]),
        }
        for name in encoders
    }


def size_on_disk(folder: Path) -> int:
    """Bytes of the weights and the tokenizer in a model's folder, checkpoints of its training left out."""
    files = (*folder.glob("*.safetensors"), *folder.glob("tokenizer.json"))
    return sum(path.stat().st_size for path in files)


def show(results: dict[str, Any], sizes: Sequence[int]) -> None:
    """Prints the tables."""
    names = list(results)
    first = results[names[0]]
    rows = [
        (f"{kind} ({counts[size][1]:,}), {size:,} edits", *(_share(results[n]["found"][kind][size]) for n in names))
        for kind, counts in first["found"].items()
        for size in sizes
    ]
    rows += [
        ("time of a pass over all-MiniLM-L6-v2's", *(f"{results[n]['over_minilm']['median']:.4f}" for n in names)),
        ("one pass", *(f"{1e3 * results[n]['encode_seconds']['median']:.3f} ms" for n in names)),
        ("pass and search, in passes", *(f"{results[n]['passes']['median']:.2f}" for n in names)),
        ("weights and tokenizer", *(f"{results[n]['bytes'] / 1e6:.1f} MB" for n in names)),
    ]
    report(
        f"The right edit among the first {CANDIDATES}",
        ("", *names),
        rows,
        ["shares with 95 % Wilson intervals, times are medians; searches are exact"],
    )
    rows = [
        (f"{100 * loss:g} %", *(_floor_and_share(results[n]["floors"]["losing"][i]) for n in names))
        for i, loss in enumerate(LOSSES)
    ]
    title = "For what a floor may lose: the floor, and the questions of others that have a candidate above it"
    report(title, ("paraphrases lost", *names), rows, [f"up to {TRAFFIC_EDITS:,} edits in memory"])
    rows = [
        (f"{floor:.2f}", *(_lost_and_share(results[n]["floors"]["at"][i]) for n in names))
        for i, floor in enumerate(FLOORS)
    ]
    title = "Paraphrases lost by a floor, and the questions of others that have a candidate above it"
    report(title, ("floor", *names), rows, [])


def _index(encoder: Encoder, vectors: Vectors) -> Any:
    """Exact search; where there are fewer than asked for, the number of those missing is -1."""
    index = faiss.IndexFlatIP(encoder.dim)
    index.add(vectors)
    return index


def _floors(true: Vectors, traffic: Vectors) -> dict[str, list[dict[str, float]]]:
    losing = [{"lost": loss, "floor": float(np.quantile(true, loss))} for loss in LOSSES]
    at = [{"lost": float((true < floor).mean()), "floor": floor} for floor in FLOORS]
    return {
        name: [row | {"judged": float((traffic >= row["floor"]).mean())} for row in rows]
        for name, rows in (("losing", losing), ("at", at))
    }


def _share(counts: Sequence[int]) -> str:
    found, of = counts
    low, high = wilson(found, of)
    return f"{found / of:.3f} ({low:.3f} to {high:.3f})"


def _floor_and_share(row: dict[str, float]) -> str:
    return f"{row['floor']:.2f}: {100 * row['judged']:.1f} %"


def _lost_and_share(row: dict[str, float]) -> str:
    return f"{100 * row['lost']:.2f} %, {100 * row['judged']:.1f} %"


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, required=True, help="folder of the evaluation files")
    options.add_argument("--models", type=Path, nargs="*", default=[], metavar="PATH", help="encoders to compare")
    options.add_argument(
        "--edits",
        nargs="+",
        type=int,
        default=[1_000, 10_000, 100_000],
        metavar="N",
        help="how many edits to have in memory (default: 1000 10000 100000)",
    )
    options.add_argument(
        "--timed", type=int, default=300, metavar="N", help="questions to time (default: %(default)s)"
    )
    return options.parse_args()


if __name__ == "__main__":
    main()
