"""Properties that are asked of subjects: what they are called, which question templates ask them, and which overlap.

They are written down in `properties.yaml` beside this file. `names` are what knowledge bases and noun phrases call a
property, `asks` is a regular expression for the templates of zsRE that ask it, `wordings` ask it of a subject `{}` in
other ways, and `overlaps` are properties of which it can be argued that one question asks for both.
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
    wordings: tuple[str, ...]
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
                wordings=tuple(record.get("wordings", ())),
                overlaps=frozenset({record["property"], *record["overlaps"]}),
            )
            for record in yaml.safe_load(path.read_text(encoding="utf-8"))
        ]
        self._named = {name: one for one in self.all for name in one.names}
        self._asked: dict[str, Property] = {}
        for template in sorted(templates):
            asked = [one for one in self.all if one.asks and one.asks.search(template)]
            if len(asked) == 1:
                self._asked[template] = asked[0]
        self._templates = list(self._asked)

    def asked_by(self, template: str) -> Property | None:
        """What a template asks, where that is known."""
        return self._asked.get(template)

    def named(self, name: str) -> Property | None:
        """What goes by a name, with or without the words "name of the" before it."""
        return self._named.get(name) or self._named.get(re.sub(r"^names? of (?:the )?", "", name))

    def template_other_than(self, one: Property, rng: random.Random) -> str | None:
        """A template that plainly asks something else; None where the draw gave one that does not."""
        template = rng.choice(self._templates)
        return None if self._asked[template].key in one.overlaps else template
