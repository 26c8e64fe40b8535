"""What GRACE does in free generation: as published, with each repair alone, and repaired.

    python benchmarks/grace.py --data DATA/dev                                    # the shipped base model
    python benchmarks/grace.py --data DATA/dev --model PATH --json out/grace.json
    python benchmarks/grace.py --data DATA/dev --edits 1 10 --rows published "repaired, scope routing"
    python benchmarks/grace.py --merge one.json other.json                        # one table of several runs

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
  seconds          to add and learn, per edit; longer where several processes run side by side
  bytes            of the learned value, and of the key where the codebook decides, per edit
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
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
from harness import environment, parser, report, timed, write_json
from scope_data import read_questions
from semedit import AdaptorConfig, AdaptorOverride, Edit, EditMemory, SentenceEncoder
from semedit.edits import Route
from semedit.errors import AdaptorWarning
from semedit.hooks import layer_at, replaced_output
from semedit.models import shipped_model_path
from semedit.overrides.base import answer_separator, continuation_ids, end_token_ids
from semedit.overrides.codebook_router import CodebookRouter
from semedit.overrides.learning import Lesson, make_batch
from semedit.overrides.suffix import Suffix
from semedit.prompts import as_prompt, read_prompts
from semedit.router import Router
from semedit.scope.base import ScopeClassifier

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from intervals import wilson
from measure_base_model import LONGEST_ANSWER, normalised

REPAIRED = Path(__file__).parents[1] / "configs" / "grace.yaml"
BATCH = 32
CHUNK = 25
RATES = ("success", "retention", "teacher_forced", "generality", "routed", "unrelated")


def main() -> None:
    """Runs the benchmark."""
    options = _options()
    if options.merge:
        run, results = merged(options.merge)
    else:
        run, results = _run(options)
    show(run, results)
    write_json(options.json, {"run": run, "results": results})


def methods(layer: str | None) -> dict[str, AdaptorConfig]:
    """The rows of the table; None takes the layer that an adaptor takes by itself."""
    repaired = replace(AdaptorConfig.from_file(REPAIRED), layer=layer)
    repairs: dict[str, dict[str, Any]] = {
        "published": {},
        "+ warm start": {"start": "warm"},
        "+ bounded value": {"norm_bound": 10.0},
        "+ stop token": {"stop": True},
        "+ stop and bound": {"stop": True, "norm_bound": 10.0},
        "+ early stop": {"stop_at_loss": repaired.stop_at_loss},
        "+ last token alone": {"replace": "last"},
        "+ scaled rate": {"scaled_rate": True, "learning_rate": repaired.learning_rate},
        "+ views": {"views": repaired.views},
        "+ measured radius": {"radius": None, "unit_keys": True},
        "+ repaired rules": {"published_rules": False},
        "+ routing by scope": {"routing": "scope"},
    }
    return {
        **{name: AdaptorConfig.published(layer=layer, **changes) for name, changes in repairs.items()},
        "repaired, codebook routing": replace(repaired, routing="codebook"),
        "repaired, scope routing": replace(repaired, routing="scope"),
    }


@dataclass(frozen=True)
class Questions:
    """What is edited and asked.

    Attributes:
        edits, rephrases: one rephrase for each edit.
        unrelated, unedited: questions, and the unedited model's answer to each as token ids.
    """

    edits: list[Edit]
    rephrases: list[str]
    unrelated: list[str]
    unedited: list[list[int]]


class Subject:
    """A base model with a memory of its own, edited by one method.

    Args:
        base, tokenizer: the model.
        config: the method.
        encoder, scope: shared by all methods.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: AdaptorConfig,
        encoder: SentenceEncoder,
        scope: ScopeClassifier,
    ) -> None:
        self.tokenizer = tokenizer
        self.memory = EditMemory(None, encoder)
        self.adaptor = AdaptorOverride(base, tokenizer, self.memory, config)
        self.model = semedit.wrap(base, tokenizer, memory=self.memory, scope=scope, override=self.adaptor)
        # decides as the wrapped model's own router does
        self.router: Router | CodebookRouter = Router(self.memory, scope)
        if config.routing == "codebook":
            self.router = CodebookRouter(self.memory, self.adaptor)

    def add(self, edits: Sequence[Edit]) -> None:
        """Adds and learns edits."""
        self.memory.add_many(edits)
        if isinstance(self.router, CodebookRouter):
            self.router.book("default")
        else:
            self.adaptor.learn(edits)

    def right(self, questions: Sequence[str], targets: Sequence[str]) -> list[bool]:
        """Whether each question is answered by its target."""
        answers = self.tokenizer.batch_decode(ask(self.model, self.tokenizer, questions), skip_special_tokens=True)
        return [normalised(a) == normalised(t) for a, t in zip(answers, targets, strict=True)]

    def routes(self, questions: Sequence[str]) -> list[Route]:
        """The decision for each question, as the model comes to it."""
        routes = []
        for start in range(0, len(questions), BATCH):
            inputs = inputs_of(self.tokenizer, questions[start : start + BATCH])
            read = read_prompts(self.tokenizer, inputs["input_ids"], inputs["attention_mask"])
            routes += self.router.route([self.router.reads(prompt) for prompt in read])
        return routes

    @torch.no_grad()
    def teacher_forced(self, edits: Sequence[Edit]) -> list[bool]:
        """Whether each token of an edit's target is the likeliest after its prompt and the target's tokens before it.

        The value is that of the edit that the router gives the prompt to; where it gives none, the base judges.
        """
        routes = self.routes([edit.prompt for edit in edits])
        exact: dict[str, bool] = {}
        for in_scope in (True, False):
            rows = [(e, r) for e, r in zip(edits, routes, strict=True) if r.in_scope == in_scope]
            for start in range(0, len(rows), BATCH):
                some = rows[start : start + BATCH]
                values = self._values([r.edits[0] for _, r in some]) if in_scope else None
                exact |= zip((e.id for e, _ in some), self._likeliest([e for e, _ in some], values), strict=True)
        return [exact[edit.id] for edit in edits]

    def keys(self) -> int | None:
        """How many entries the codebook has; None where there is none."""
        if not isinstance(self.router, CodebookRouter):
            return None
        codebook = self.router.book("default").codebook
        return 0 if codebook is None else len(codebook)

    def bytes(self, edits: Sequence[Edit]) -> int:
        """How much is kept of what was learned for edits."""
        values = self.memory.store.learned(self.adaptor.fingerprint, map(self.adaptor.content, edits))
        size = sum(map(len, values.values()))
        if isinstance(self.router, CodebookRouter):
            size += self.adaptor.keys([text for edit in edits for text in edit.keys]).nbytes
        return size

    def _values(self, edits: Sequence[Edit]) -> Tensor:
        values = self.adaptor.values(edits)
        return torch.stack([values[edit.id] for edit in edits])

    def _likeliest(self, edits: Sequence[Edit], values: Tensor | None) -> list[bool]:
        model, tokenizer, layer = self.adaptor.model, self.tokenizer, self.adaptor.layer
        prompts = [as_prompt(tokenizer, edit.prompt) for edit in edits]
        lessons = [
            Lesson(
                [tokenizer(prompt.text, add_special_tokens=False)["input_ids"]],
                [continuation_ids(tokenizer, prompt.text, answer_separator(model, prompt) + edit.target)],
            )
            for prompt, edit in zip(prompts, edits, strict=True)
        ]
        batch = make_batch(model, layer, lessons, self.adaptor.config, tokenizer.pad_token_id)
        run = Suffix(model, layer)
        if values is None:
            logits = run(**batch.inputs)
        else:
            with replaced_output(layer_at(model, layer), values, batch.positions):
                logits = run(**batch.inputs)
        wrong = (logits.argmax(-1) != batch.targets) & (batch.targets >= 0)
        return [not row for row in wrong.any(1).tolist()]


def measure(subject: Subject, asked: Questions, checkpoints: Sequence[int], bar: tqdm) -> Iterator[dict[str, Any]]:
    """The figures of one method at each number of edits."""
    seconds, answered = 0.0, []
    for start, end in chunks(checkpoints):
        chunk = asked.edits[start:end]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AdaptorWarning)  # what is not reached shows in the figures
            seconds += timed(subject.add, chunk)[0]
            answered += subject.right([edit.prompt for edit in chunk], [edit.target for edit in chunk])
        bar.update(len(chunk))
        if end not in checkpoints:
            continue
        edits, rephrases = asked.edits[:end], asked.rephrases[:end]
        targets = [edit.target for edit in edits]
        given = ask(subject.model, subject.tokenizer, asked.unrelated)
        judged = {
            "success": answered,
            "retention": subject.right([edit.prompt for edit in edits], targets),
            "teacher_forced": subject.teacher_forced(edits),
            "generality": subject.right(rephrases, targets),
            "routed": [
                any(one.id == edit.id or normalised(one.target) == normalised(edit.target) for one in route.edits[:1])
                for route, edit in zip(subject.routes(rephrases), edits, strict=True)
            ],
            "unrelated": [one == other for one, other in zip(given, asked.unedited, strict=True)],
        }
        keys = subject.keys()
        yield {
            "edits": end,
            **{name: rate(hits) for name, hits in judged.items()},
            "keys_per_edit": None if keys is None else keys / end,
            "seconds_per_edit": seconds / end,
            "bytes_per_edit": subject.bytes(edits) / end,
        }


def chunks(checkpoints: Sequence[int]) -> Iterator[tuple[int, int]]:
    """From where to where edits are added at once: at most CHUNK of them, and none beyond a checkpoint."""
    start = 0
    for checkpoint in checkpoints:
        while start < checkpoint:
            end = min(start + CHUNK, checkpoint)
            yield start, end
            start = end


def rate(hits: Sequence[bool]) -> dict[str, Any]:
    """How many of how many, with the 95 % Wilson interval."""
    low, high = wilson(sum(hits), len(hits))
    return {"right": sum(hits), "of": len(hits), "low": low, "high": high}


def inputs_of(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str]) -> dict[str, Tensor]:
    """The questions as the model is asked them: in a chat turn each where there is a template, or else bare."""
    texts = [as_prompt(tokenizer, question).text for question in questions]
    encoded = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


@torch.no_grad()
def ask(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str]) -> list[list[int]]:
    """The answer to each question as token ids, without its end."""
    ends = {*end_token_ids(model.generation_config), tokenizer.pad_token_id}
    answers: list[list[int]] = [[] for _ in questions]
    by_length = sorted(range(len(questions)), key=lambda i: len(questions[i]))
    for at in range(0, len(questions), BATCH):
        some = by_length[at : at + BATCH]
        inputs = inputs_of(tokenizer, [questions[i] for i in some])
        output = model.generate(**inputs, do_sample=False, max_new_tokens=LONGEST_ANSWER)
        read = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        for i, row in zip(some, output[:, read:].tolist(), strict=True):
            length = next((n for n, token in enumerate(row) if token in ends), len(row))
            answers[i] = row[:length]
    return answers


def load(path: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and its tokenizer."""
    kind = AutoModelForSeq2SeqLM if AutoConfig.from_pretrained(path).is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_pretrained(path, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="right" if kind is AutoModelForSeq2SeqLM else "left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def merged(paths: Sequence[Path]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The run and the results of several files of --json, which must be of one model and the same questions."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    run = files[0]["run"]
    for path, file in zip(paths, files, strict=True):
        for name in ("model", "layer", "unrelated", "chunk"):
            if file["run"][name] != run[name]:
                sys.exit(f"{path} has the {name} {file['run'][name]!r}, and {paths[0]} has {run[name]!r}")
    order = list(methods(None))
    results = [result for file in files for result in file["results"]]
    return run, sorted(results, key=lambda result: (order.index(result["method"]), result["edits"]))


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


def _run(options: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measures, writing the file of --json as the figures come."""
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
        ask(base, tokenizer, unrelated),
    )
    encoder, scope = SentenceEncoder(), semedit.CrossEncoderScope()
    encoder.encode([asked.edits[0].prompt])  # warms up
    every = methods(options.layer)
    run = {
        "benchmark": "grace",
        "model": Path(options.model).resolve().name,
        "layer": "",
        "unrelated": count,
        "chunk": CHUNK,
        **environment(),
    }
    results: list[dict[str, Any]] = []
    for name in options.rows:
        subject = Subject(base, tokenizer, every[name], encoder, scope)
        run["layer"] = subject.adaptor.layer
        with tqdm(total=checkpoints[-1], desc=name) as bar:
            for figures in measure(subject, asked, checkpoints, bar):
                results.append({"method": name, **figures})
                write_json(options.json, {"run": run, "results": results})
    return run, results


def _options() -> argparse.Namespace:
    names = list(methods(None))
    options = parser(__doc__)
    options.add_argument("--data", type=Path, metavar="FOLDER", help="folder of the dev files")
    options.add_argument(
        "--model", type=Path, metavar="PATH", help="a causal or encoder-decoder model (default: the shipped one)"
    )
    options.add_argument("--layer", metavar="PATH", help="of the model (default: the one an adaptor takes by itself)")
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
    options.add_argument(
        "--merge", type=Path, nargs="+", metavar="FILE", help="measure nothing; show the figures of these files"
    )
    given = options.parse_args()
    if not given.merge and given.data is None:
        options.error("--data says where the dev files are")
    given.model = given.model or shipped_model_path()
    return given


if __name__ == "__main__":
    main()
