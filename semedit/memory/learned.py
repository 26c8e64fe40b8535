"""What names a value that was learned, so that it is found again, and forgotten with what it was learned from."""

from __future__ import annotations

import hashlib
import json

from semedit.edits import Edit


def learned_name(source: object, kind: str, settings: object) -> str:
    """The name of what was learned of a kind from a source (see `sources`), under settings; both are JSON."""
    return f"{digest(source)} {kind} {digest(settings)}"


def source_in(name: str) -> str:
    """The digest of the source in a name."""
    return name.partition(" ")[0]


def sources(edit: Edit) -> set[str]:
    """The digests of all that can be learned from: the edit's keys with its target, and each of its texts."""
    return {digest([edit.keys, edit.target]), *map(digest, edit.texts)}


def digest(value: object) -> str:
    """32 hexadecimal digits that name a JSON value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]
