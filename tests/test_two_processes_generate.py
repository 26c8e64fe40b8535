"""A process that generates answers with an edit of another process on its next call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from fakes import WordEncoder, byte_tokenizer, tiny_model

import semedit

ADD = """
import sys
sys.path.insert(0, sys.argv[1])
from fakes import WordEncoder
from semedit.memory.edit_memory import EditMemory
EditMemory(sys.argv[2], WordEncoder()).add("Who runs Acme?", "Jane Doe")
"""


def test_while_one_generates_another_adds_an_edit(tmp_path: Path):
    path, tokenizer, base = tmp_path / "edits.db", byte_tokenizer(), tiny_model("llama")
    model = semedit.wrap(
        base, tokenizer, memory=path, encoder=WordEncoder(), scope=semedit.SimilarityScope(), override="verbatim"
    )
    inputs = tokenizer(["Who runs Acme?"], return_tensors="pt")
    unedited = base.generate(**inputs, max_new_tokens=12, do_sample=False)
    other = subprocess.Popen([sys.executable, "-c", ADD, str(Path(__file__).parent), str(path)])
    calls = 0
    while other.poll() is None:
        answer = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        text = tokenizer.decode(answer[0], skip_special_tokens=True)
        assert torch.equal(answer, unedited) or text == "Who runs Acme? Jane Doe"
        calls += 1
    assert other.returncode == 0
    assert calls > 10
    answer = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert tokenizer.decode(answer[0], skip_special_tokens=True) == "Who runs Acme? Jane Doe"
    assert not torch.equal(answer, unedited)
