"""Whether edits are answered, from the query to the text: routing and override together, in free generation.

    python benchmarks/answers.py --data DATA/dev

The shipped base model is wrapped with the default scope classifier and the first --edits facts of zsRE, all in memory
at once. Each edit is asked by its question and by its rephrase, in a chat turn of its own; answers are generated
greedily to their natural stop and judged by exact match after normalisation (case, punctuation, articles). The target
is never seen by the router.
"""

from __future__ import annotations

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

import semedit
from harness import environment, parser, report, write_json
from semedit.evaluation.asking import LONGEST_ANSWER, ask, texts_of
from semedit.evaluation.metrics import exact_match, wilson
from semedit.models import shipped_model_path
from semedit.overrides.base import Override

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from facts import read_records

BARS = {
    ("in_context", "question"): 0.90,
    ("in_context", "rephrase"): 0.85,
    ("counterfactual", "question"): 0.90,
    ("counterfactual", "rephrase"): 0.85,
    ("verbatim", "question"): 0.90,
    ("verbatim", "rephrase"): 0.95,
}


def main() -> None:
    """Runs the benchmark."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, required=True, help="folder of the evaluation files")
    options.add_argument("--edits", type=int, default=1000, help="how many facts (default: 1000)")
    chosen = options.parse_args()
    records = distinct_facts(chosen.data / "ZsRE-test-all.json")[: chosen.edits]
    name = shipped_model_path()
    tokenizer = AutoTokenizer.from_pretrained(name)
    base = AutoModelForCausalLM.from_pretrained(name, dtype="float32").eval()
    memory = semedit.EditMemory()
    memory.add_many(
        [semedit.Edit(id=str(i), prompt=r["prompt"], target=r["target_new"]) for i, r in enumerate(records)]
    )
    overrides: dict[str, Override | str] = {
        "in_context": "in_context",
        "counterfactual": semedit.CounterfactualOverride(base, tokenizer, base, tokenizer),
        "verbatim": "verbatim",
    }
    scope = semedit.CrossEncoderScope()
    targets = [record["target_new"] for record in records]
    figures = {}
    for kind, override in overrides.items():
        model = semedit.wrap(base, tokenizer, memory=memory, scope=scope, override=override)
        for asked, field in (("question", "prompt"), ("rephrase", "rephrase_prompt")):
            questions = [record[field] for record in records]
            answers = ask(model, tokenizer, questions, max_new_tokens=LONGEST_ANSWER, desc=f"{kind}, {asked}")
            right = sum(exact_match(a, t) for a, t in zip(texts_of(tokenizer, answers), targets, strict=True))
            figures[kind, asked] = (right, len(records))

    rows = []
    for (kind, asked), (right, total) in figures.items():
        low, high = wilson(right, total)
        bar = BARS[kind, asked]
        met = "holds" if right / total >= bar else "missed"
        rows.append((f"{kind}, {asked}", f"{right / total:.3f}", f"{low:.3f} to {high:.3f}", f"{bar:.2f} {met}"))
    title = f"exact match of the target, {len(records):,} zsRE edits in memory"
    report(title, ("override, what is asked", "rate", "95 % interval", "to reach"), rows, [])
    results = [{"override": k, "asked": a, "right": r, "of": n} for (k, a), (r, n) in figures.items()]
    write_json(chosen.json, {"run": {"benchmark": "answers", **environment()}, "results": results})


def distinct_facts(path: Path) -> list[dict]:
    """The records of a zsRE file, the first one of each fact: two of one fact would contradict each other."""
    facts = {(record["subject"], tuple(record["ground_truth"])): record for record in reversed(read_records(path))}
    return list(reversed(facts.values()))


if __name__ == "__main__":
    main()
