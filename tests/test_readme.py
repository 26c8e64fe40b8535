"""The README's Python runs as written, and prints what the README says it prints."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def test_its_examples_run_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(python|text)\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert [kind for kind, _ in blocks] == ["python", "text", "python", "python", "python", "python"]
    namespace: dict[str, object] = {}
    printed = ""
    for kind, block in blocks:
        if kind == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(block, "README.md", "exec"), namespace)
            printed = output.getvalue()
        else:
            assert printed == block
    assert (tmp_path / "edits.db").exists()
    assert (tmp_path / "edits.jsonl").read_text(encoding="utf-8").count("\n") == 2


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"(?:training|configs|benchmarks|tests|semedit)/[\w/.]+\w", README.read_text())))
)
def test_it_names_files_that_exist(path):
    assert (README.parent / path).exists()
