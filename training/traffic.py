"""What people ask that no edit answers: questions of every kind, and messages to chat assistants."""

from __future__ import annotations

import re
from pathlib import Path

from facts import files_in, read_records, read_text


def read_traffic(data: Path) -> dict[str, list[str]]:
    """Queries by kind: `"questions"` and `"chat"`, without repeats."""
    kinds = {"questions": _questions(data), "chat": _chat(data)}
    return {kind: list(dict.fromkeys(text.strip() for text in texts if text.strip())) for kind, texts in kinds.items()}


def _questions(data: Path) -> list[str]:
    questions = []
    for name in ("NQ-open.efficientqa.dev.1.1.jsonl", "NQ-open.efficientqa.test.1.1.jsonl"):
        questions += [record["question"] for record in read_records(data / name)]
    for name in ("trainmodel.json", "val.json", "devtest.json"):
        questions += [record["qText"] for record in read_records(data / "webquestions" / name)]
    lines = read_text(data / "annotated_wd_data_train.txt").splitlines()
    questions += [line.split("\t")[3] for line in lines]
    for name in ("train.tsv", "dev.tsv"):
        questions += [line.split("\t")[0] for line in read_text(data / "query_wellformedness" / name).splitlines()]
    for path in files_in(data / "opentriviaqa"):
        questions += [line for line in re.findall(r"#Q ([^\n]+)\n\^", read_text(path)) if len(line) < 200]
    return questions


def _chat(data: Path) -> list[str]:
    messages = []
    for record in read_records(data / "mt_bench_question.jsonl"):
        messages += record["turns"]
    for name in ("alpaca_seed_tasks.jsonl", "user_oriented_instructions.jsonl"):
        for record in read_records(data / name):
            messages += [f"{record['instruction']}\n{case['input']}" for case in record["instances"]]
    for name in ("ultrafeedback_1k.json", "code_alpaca_2k.json"):
        messages += [f"{record['instruction']}\n{record['input']}" for record in read_records(data / name)]
    return messages
