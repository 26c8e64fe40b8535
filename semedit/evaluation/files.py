"""The files that data sets are published as: JSON arrays, JSON lines and CSV, plain or compressed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import re
import reprlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semedit.errors import DatasetError

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Record:
    """One record of a file.

    A field is named by its path, "requested_rewrite.target_new.str"; a field that is null is missing.

    Attributes:
        path: the file.
        line: where the record begins in it, from 1.
        fields: what it holds.
        within: which part of the record this is, as a prefix of its fields' names; empty for the whole.
    """

    path: Path
    line: int
    fields: Mapping[str, Any]
    within: str = ""

    def text(self, name: str) -> str:
        """The text of a field, without white space around it.

        Raises:
            DatasetError: it is missing, empty or no text.
        """
        value = self._find(name)
        if not isinstance(value, str) or not value.strip():
            raise self.error(name, "a text")
        return value.strip()

    def texts(self, name: str) -> tuple[str, ...]:
        """The texts of a field that is a text or a list of texts, nested or not; none where it is missing.

        Empty ones and repetitions are left out.

        Raises:
            DatasetError: it holds something else.
        """
        try:
            return tuple(dict.fromkeys(text.strip() for text in _flat(self._find(name)) if text.strip()))
        except TypeError:
            raise self.error(name, "a text or a list of texts") from None

    def parts(self, name: str) -> list[Record]:
        """The objects that a field lists; none where it is missing.

        Raises:
            DatasetError: it is no list of objects.
        """
        value = self._find(name)
        value = [] if value is None else value
        if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
            raise self.error(name, "a list of objects")
        return [
            Record(self.path, self.line, part, f"{self.within}{name}[{number}].") for number, part in enumerate(value)
        ]

    def names(self, name: str) -> list[str]:
        """The names of the fields of an object; none where it is missing.

        Raises:
            DatasetError: it is no object.
        """
        value = self._find(name)
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            raise self.error(name, "an object")
        return list(value)

    def error(self, name: str, expected: str) -> DatasetError:
        """Says what the field is and what was expected of it."""
        value = self._find(name)
        found = "is missing" if value is None else f"is {reprlib.repr(value)}"
        return DatasetError(f"{self.path}, line {self.line}: {self.within}{name} {found}; expected {expected}")

    def _find(self, name: str) -> Any:
        value: Any = self.fields
        for step in name.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        return value


def read_text(path: Path) -> str:
    """The text of a UTF-8 file; one named .gz or .xz is unpacked.

    Raises:
        DatasetError: it is not there, or cannot be read.
    """
    try:
        with _OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8-sig") as file:
            return str(file.read())
    except FileNotFoundError:
        packed = [name for name in (path.with_name(path.name + suffix) for suffix in _OPENERS) if name.exists()]
        hint = f"; there is {packed[0]}: name it in full" if packed else ""
        raise DatasetError(f"there is no file {path}{hint}") from None
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zlib.error) as error:
        raise DatasetError(f"cannot read {path}: {error}") from error


def read_json(path: Path) -> list[Record]:
    """The records of a JSON array of objects, or of JSON lines.

    Raises:
        DatasetError: the file cannot be read, or is neither; the message names the line.
    """
    text = read_text(path)
    values = _array(text, path) if text.lstrip().startswith("[") else _lines(text, path)
    records = []
    for line, value in values:
        if not isinstance(value, Mapping):
            raise DatasetError(f"{path}, line {line}: a record is {reprlib.repr(value)}; expected an object")
        records.append(Record(path, line, value))
    return records


def read_csv(path: Path) -> list[Record]:
    """The rows of a CSV file as records of texts, named by its first row; empty cells are missing.

    Raises:
        DatasetError: the file cannot be read, or a row has more cells than the first; the message names the line.
    """
    rows = csv.reader(io.StringIO(read_text(path)), strict=True)
    header: list[str] = []
    records = []
    line = 1
    try:
        for cells in rows:
            if not header:
                header = cells
            elif len(cells) > len(header):
                raise DatasetError(
                    f"{path}, line {line}: there are {len(cells)} cells; expected {len(header)} at most"
                )
            elif cells:
                named = zip(header, cells, strict=False)  # the last cells of a row may be missing
                records.append(Record(path, line, {name: cell for name, cell in named if cell}))
            line = rows.line_num + 1
    except csv.Error as error:
        raise DatasetError(f"{path}, line {line}: no CSV: {error}") from error
    return records


def _lines(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"{path}, line {number}: expected a JSON object on a line, {error}") from error


def _array(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """The values of a JSON array and the line that each begins on, which `json.loads` does not tell."""
    decoder = json.JSONDecoder()
    line, counted = 1, 0

    def past_space(position: int) -> int:
        match = _SPACE.match(text, position)
        assert match is not None  # it matches the empty text too
        return match.end()

    try:
        position = past_space(text.index("[") + 1)
        more = text[position : position + 1] != "]"
        while more:
            line, counted = line + text.count("\n", counted, position), position
            value, position = decoder.raw_decode(text, position)
            yield line, value
            position = past_space(position)
            more = text[position : position + 1] == ","
            position = past_space(position + 1) if more else position
        if text[position : position + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' or ']'", text, position)
        if past_space(position + 1) != len(text):
            raise json.JSONDecodeError("Extra data", text, past_space(position + 1))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}, line {error.lineno}: no JSON: {error.msg}") from error
    except RecursionError as error:
        raise DatasetError(f"{path}, line {line}: no JSON that can be read: {error}") from error


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _flat(item)
    elif value is not None:
        raise TypeError
