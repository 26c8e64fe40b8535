"""Facts and wordings read from public data sets, for training the base model.

`read_facts` gives what the model is to know; `read_wordings` gives only ways of asking one thing, for learning to read
an edit. Files are JSON, JSON lines or text, plain or xz-compressed, as their publishers wrote them.
"""

from __future__ import annotations

import json
import lzma
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Fact:
    """One thing that can be asked in every one of `prompts`; `subject`, if not empty, stands in each of them."""

    prompts: tuple[str, ...]
    answer: str
    subject: str = ""

    @property
    def template(self) -> str:
        """The first prompt with its subject masked: facts of one relation share it."""
        return self.prompts[0].replace(self.subject, "[X]") if self.subject else ""


def read_facts(data: Path) -> dict[str, list[Fact]]:
    """Facts to know, by source."""
    return {
        "zsre": list(_zsre(data)),
        "counterfact": list(_counterfact(data)),
        "natural_questions": list(_natural_questions(data)),
        "web_questions": list(_web_questions(data)),
        "trivia": list(_trivia(data)),
    }


def read_wordings(data: Path) -> dict[str, list[Fact]]:
    """Things to read and not to know, by source: their answers are made up, dated or only stand for an answer."""
    return {
        "pokemqa": list(_pokemqa(data)),
        "wikifactdiff": list(_wikifactdiff(data)),
        "pararel": list(_pararel(data)),
        "qqp": list(_qqp(data)),
        "squad": list(_squad(data)),
    }


def subjects_of(paths: Iterable[Path]) -> list[str]:
    """The subjects that evaluation files ask about."""
    return [record["subject"] for path in paths for record in read_records(path)]


def without_subjects(facts: Iterable[Fact], subjects: Iterable[str]) -> list[Fact]:
    """The facts whose prompts name none of `subjects`."""
    named = naming(subjects)
    return [fact for fact in facts if not any(named.search(prompt) for prompt in fact.prompts)]


def naming(subjects: Iterable[str]) -> re.Pattern[str]:
    """What finds any of `subjects` in a text, as whole words."""
    longest_first = "|".join(map(re.escape, sorted(set(subjects), key=len, reverse=True)))
    return re.compile(rf"(?<!\w)(?:{longest_first or '(?!)'})(?!\w)")  # of no subjects none is found


def read_text(path: Path) -> str:
    """The text of a file, or of the same file with `.xz` at its end; bytes that are not UTF-8 are read as Latin-1.

    Raises:
        FileNotFoundError: there is neither.
    """
    packed = path.with_name(path.name + ".xz")
    if path.exists():
        raw = path.read_bytes()
    elif packed.exists():
        raw = lzma.decompress(packed.read_bytes())
    else:
        raise _missing(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def read_records(path: Path) -> list[Any]:
    """The records of a JSON or JSON-lines file."""
    text = read_text(path)
    try:
        records = json.loads(text)
    except json.JSONDecodeError:
        # some publishers call their JSON lines .json; str.splitlines would cut at U+2028 too, which JSON may hold
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    return records if isinstance(records, list) else [records]


def files_in(folder: Path) -> list[Path]:
    """The files of a folder by name, each as `read_text` takes it.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.exists():
        raise _missing(folder)
    return [path.with_name(path.name.removesuffix(".xz")) for path in sorted(folder.iterdir())]


def _missing(path: Path) -> FileNotFoundError:
    return FileNotFoundError(f"{path} is missing, plain and as .xz; training/README.md names the files")


def _zsre(data: Path) -> Iterator[Fact]:
    for record in read_records(data / "zsre_mend_train_10000.json"):
        yield Fact((record["src"], record["rephrase"]), record["alt"], record["subject"])


def _counterfact(data: Path) -> Iterator[Fact]:
    # its rephrases often ask for something else, so only the prompt is a wording of the fact
    for record in read_records(data / "counterfact-train.json"):
        yield Fact((record["prompt"],), record["ground_truth"], record["subject"])


def _natural_questions(data: Path) -> Iterator[Fact]:
    for name in ("NQ-open.efficientqa.dev.1.1.jsonl", "NQ-open.efficientqa.test.1.1.jsonl"):
        for record in read_records(data / name):
            yield Fact((record["question"],), min(record["answer"], key=len))


def _web_questions(data: Path) -> Iterator[Fact]:
    for name in ("trainmodel.json", "val.json", "devtest.json"):
        for record in read_records(data / "webquestions" / name):
            yield Fact((record["qText"],), record["answers"][0])


def _trivia(data: Path) -> Iterator[Fact]:
    block = re.compile(r"#Q (?P<question>[^\n]+)\n\^ (?P<answer>[^\n]+)\n")
    for name in ("geography", "science-technology", "history", "world", "literature", "animals"):
        for match in block.finditer(read_text(data / "opentriviaqa" / f"{name}.txt")):
            question, answer = match["question"].strip(), match["answer"].strip().rstrip(".")
            # keep what can be answered without the choices
            if re.match(r"(what|who|where|when|in what|in which) ", question.lower()) and len(answer) <= 30:
                yield Fact((question,), answer)


def _pokemqa(data: Path) -> Iterator[Fact]:
    for record in read_records(data / "pokemqa_cls-filtered.json"):
        # a statement ends in its answer: cut where the last capitalised words begin
        match = re.match(
            r"(.* (?:is|by|of|in|as)) ((?:[A-Z0-9]\S*)(?: (?:of|the|and|de|[A-Z0-9(&]\S*))*)$", record["edit"]
        )
        if match:
            yield Fact((match[1], *dict.fromkeys(record["questions"])), match[2])


def _wikifactdiff(data: Path) -> Iterator[Fact]:
    for outer in read_records(data / "wfd-train.json"):
        record = outer["en"]
        prompts = (record["src"], record["rephrase"])
        if all(record["subject"] in prompt for prompt in prompts):
            yield Fact(prompts, record["alt"], record["subject"])


def _pararel(data: Path, per_relation: int = 150) -> Iterator[Fact]:
    for path in files_in(data / "pararel" / "pattern_data" / "graphs_json"):
        patterns = [record["pattern"].rstrip(" .") for record in read_records(path)]
        cloze = [pattern.removesuffix(" [Y]") for pattern in patterns if pattern.endswith(" [Y]")]
        pairs = read_records(data / "pararel" / "trex_lms_vocab" / path.name)
        for pair in pairs[:per_relation] if len(cloze) > 1 else []:
            subject = pair["sub_label"]
            yield Fact(tuple(pattern.replace("[X]", subject) for pattern in cloze), pair["obj_label"], subject)


def _qqp(data: Path) -> Iterator[Fact]:
    for record in read_records(data / "similiar_qqp_full.json"):
        if int(record["label"]) == 1 and max(len(record["text_a"]), len(record["text_b"])) < 120:
            yield Fact((record["text_a"], record["text_b"]), "")


def _squad(data: Path) -> Iterator[Fact]:
    for passage in read_records(data / "seal_squad_val.json"):
        same_answer: dict[str, list[str]] = defaultdict(list)
        for item in passage["questions"]:
            same_answer[item["answer"]].append(item["question"])
        for answer, questions in same_answer.items():
            if len(questions) > 1 and len(answer) <= 40 and max(map(len, questions)) < 140:
                yield Fact(tuple(questions), answer)
