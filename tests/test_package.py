"""The shape of the package: public names, which way imports run, and that importing it does nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import semedit
from semedit import evaluation

ROOT = Path(semedit.__file__).parent
# lower floors know nothing of higher ones
FLOORS = [
    ["errors", "edits", "models", "fingerprint"],
    ["prompts", "arguments", "hooks"],
    ["scope.base", "scope.similarity", "scope.cross_encoder", "scope.judge", "scope.calibration", "overrides.base"],
    ["memory"],
    ["overrides", "router"],
    ["overrides.codebook_router", "overrides.radius"],
    ["model"],
    ["evaluation"],
    ["cli"],
]


def floor_of(module: str) -> int:
    matches = [
        (len(name), level)
        for level, names in enumerate(FLOORS)
        for name in names
        if module == f"semedit.{name}" or module.startswith(f"semedit.{name}.")
    ]
    return max(matches)[1]


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


@pytest.mark.parametrize("package", [semedit, evaluation], ids=lambda package: package.__name__)
def test_public_names_are_what_all_says(package):
    assert sorted(package.__all__) == package.__all__
    assert set(package._HOMES) == set(package.__all__)
    for name in package.__all__:
        found = getattr(package, name)
        assert getattr(found, "__module__", None) == f"{package.__name__}.{package._HOMES[name]}"
    with pytest.raises(AttributeError, match="wrapp"):
        package.wrapp  # noqa: B018


def test_what_needs_no_model_does_not_wait_for_one():
    script = """
import sys
import semedit
from semedit import evaluation
from semedit.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
print([name for name in ("torch", "transformers", "sentence_transformers", "faiss") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_imports_run_downward_only():
    checked = 0
    for module, path in modules():
        if module == "semedit" or path.name == "__init__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module} imports by position"
                if node.module and node.module.startswith("semedit."):
                    checked += 1
                    assert floor_of(node.module) <= floor_of(module), f"{module} imports {node.module}"
    assert checked > 20


def test_files_stay_small():
    lengths = {module: len(path.read_text().splitlines()) for module, path in modules()}
    assert len(lengths) > 15
    assert {module: length for module, length in lengths.items() if length > 400} == {}


def test_importing_prints_nothing_and_leaves_the_random_state_and_logging_alone():
    script = """
import json, logging, random, sys
import numpy, sentence_transformers, torch, transformers
before = (torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist())
handlers = list(logging.getLogger().handlers)
import semedit.model
after = (torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist())
optional = [name for name in ("psycopg", "starlette", "yaml.cyaml", "matplotlib") if name in sys.modules]
print(json.dumps([before == after, handlers == logging.getLogger().handlers, optional]))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    unchanged, same_handlers, optional = json.loads(run.stdout)
    assert unchanged
    assert same_handlers
    assert set(optional) <= {"yaml.cyaml"}
