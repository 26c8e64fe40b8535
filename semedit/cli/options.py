"""What the commands of the command line share: how they are declared, and their options.

A command imports its module when it is run, so that the help does not wait for it.
"""

from __future__ import annotations

import argparse
import importlib
import textwrap
from collections.abc import Callable
from typing import Any

DEFAULT_MEMORY = "edits.db"
DEFAULT_NEW_TOKENS = 64
EXIT_CODES = """exit status:
  0    done
  1    an error; stderr says what was found and what to do
  2    wrong usage
  130  interrupted"""

Subparsers = Any  # argparse keeps the type private


def command(
    commands: Subparsers, name: str, run: str, summary: str, description: str, example: str
) -> argparse.ArgumentParser:
    """Declares a command, its help with an example, and `run`, the `module:function` of this package that does it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, 78),
        epilog=f"example:\n  {example}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=_later(run))
    return parser


def _later(command: str) -> Callable[[argparse.Namespace], int]:
    """A function that imports `module:function` and calls it."""
    module, function = command.split(":")

    def run(args: argparse.Namespace) -> int:
        status: int = getattr(importlib.import_module(f"semedit.cli.{module}"), function)(args)
        return status

    return run


def model_option(parser: argparse.ArgumentParser) -> None:
    """Declares which model is loaded."""
    parser.add_argument(
        "--model",
        metavar="NAME_OR_PATH",
        help="a causal or encoder-decoder Hugging Face model (default: the shipped one)",
    )


def model_options(parser: argparse.ArgumentParser) -> None:
    """Declares which model answers, and how by an edit."""
    model_option(parser)
    parser.add_argument(
        "--override",
        choices=("in_context", "verbatim", "adaptor"),
        default="in_context",
        help="how an edit answers: the model reads it (in_context), its target stands word for word (verbatim), or "
        "one layer's output gives way to a value learned for it (adaptor), which takes a moment the first time; "
        "`semedit edit learn` does it ahead (default: %(default)s)",
    )
    adaptor_option(parser, "with --override adaptor: ")


def adaptor_option(parser: argparse.ArgumentParser, when: str = "") -> None:
    """Declares how an adaptor is placed and learned; `when` begins its help."""
    parser.add_argument(
        "--adaptor-config",
        metavar="FILE",
        help=f"{when}a YAML file of settings such as layer, steps and routing, for instance configs/grace.yaml "
        "(default: those of semedit.AdaptorConfig)",
    )


def memory_options(parser: argparse.ArgumentParser, *, encoder: bool = True) -> None:
    """Declares which memory; what looks nothing up by meaning needs no encoder."""
    parser.add_argument(
        "--memory",
        default=DEFAULT_MEMORY,
        metavar="FILE_OR_URL",
        help="the memory file, or postgresql://USER@HOST/DATABASE (default: %(default)s in the current folder)",
    )
    if encoder:
        encoder_option(parser)
    else:
        parser.set_defaults(encoder=None)


def encoder_option(parser: argparse.ArgumentParser) -> None:
    """Declares what finds edits."""
    parser.add_argument(
        "--encoder",
        metavar="NAME_OR_PATH",
        help="the sentence-transformers encoder that finds edits (default: all-MiniLM-L6-v2, as semedit has it)",
    )


def routing_options(parser: argparse.ArgumentParser) -> None:
    """Declares what decides whether an edit is in scope, and where edits are looked for."""
    scope_option(parser)
    parser.add_argument(
        "--threshold",
        type=share,
        metavar="SCORE",
        help="the score from which on an edit is in scope, 0 to 1; never below what this memory was calibrated to "
        "(default: the classifier's own)",
    )
    namespaces_option(parser)


def scope_option(parser: argparse.ArgumentParser) -> None:
    """Declares which classifier decides; where `--threshold` is not declared too, it decides at its own threshold."""
    parser.add_argument(
        "--scope",
        metavar="NAME_OR_PATH",
        help="the cross-encoder that decides whether an edit is in scope, or `similarity` for the cosine alone "
        "(default: the shipped one)",
    )
    parser.set_defaults(threshold=None)


def namespaces_option(parser: argparse.ArgumentParser) -> None:
    """Declares where edits are looked for."""
    parser.add_argument(
        "--namespace",
        action="append",
        dest="namespaces",
        metavar="NAME",
        help="where to look for edits; may be given again (default: default)",
    )


def length_option(parser: argparse.ArgumentParser) -> None:
    """Declares how long an answer may be."""
    parser.add_argument(
        "--max-new-tokens",
        type=count,
        default=DEFAULT_NEW_TOKENS,
        metavar="N",
        help="the most tokens of an answer (default: %(default)s)",
    )


def json_option(parser: argparse.ArgumentParser, what: str) -> None:
    """Declares output for programs."""
    parser.add_argument("--json", action="store_true", help=f"print {what}")


def share(text: str) -> float:
    """A number from 0 to 1, as argparse reads it."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return value


def counts(text: str) -> list[int]:
    """Whole numbers above 0 with commas between them, as argparse reads them."""
    return [count(part.strip()) for part in text.split(",")]


def count(text: str) -> int:
    """A whole number above 0, as argparse reads it."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)
