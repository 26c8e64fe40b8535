"""Properties that are asked of subjects: what they are called, which question templates ask them, and which overlap.

They are written down in `properties.yaml` beside this file. `names` are what knowledge bases and noun phrases call a
property, `asks` is a regular expression for the templates of zsRE that ask it, and `overlaps` are properties of which
it can be argued that one question asks for both.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

PATH = Path(__file__).with_name("properties.yaml")


@dataclass(frozen=True)
class Property:
    """One property; `overlaps` holds its own key and those of the properties that it overlaps."""

    key: str
    names: tuple[str, ...]
    asks: re.Pattern[str] | None
    overlaps: frozenset[str]


class Properties:
    """The properties, and the templates that ask each.

    Args:
        templates: question templates with their subject masked.
    """

    def __init__(self, templates: Iterable[str], path: Path = PATH) -> None:
        self.all = [
            Property(
                key=record["property"],
                names=tuple(record["names"]),
                asks=re.compile(record["asks"], re.IGNORECASE) if record["asks"] else None,
                overlaps=frozenset({record["property"], *record["overlaps"]}),
            )
            for record in yaml.safe_load(path.read_text(encoding="utf-8"))
        ]
        self._named = {name: one for one in self.all for name in one.names}
        self._asked: dict[str, Property] = {}
        for template in templates:
            asked = [one for one in self.all if one.asks and one.asks.search(template)]
            if len(asked) == 1:
                self._asked[template] = asked[0]

    def asked_by(self, template: str) -> Property | None:
        """What a template asks, where that is known."""
        return self._asked.get(template)

    def named(self, name: str) -> Property | None:
        """What goes by a name, with or without the words "name of the" before it."""
        return self._named.get(name) or self._named.get(re.sub(r"^names? of (?:the )?", "", name))

    def other_than(self, one: Property, rng: random.Random) -> Property:
        """A property that plainly asks something else."""
        return rng.choice([other for other in self.all if other.key not in one.overlaps])

    def template_other_than(self, one: Property, rng: random.Random) -> str:
        """A template that plainly asks something else."""
        return rng.choice([t for t, asked in self._asked.items() if asked.key not in one.overlaps])
