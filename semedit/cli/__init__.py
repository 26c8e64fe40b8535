"""The `semedit` command."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import TextIO

from semedit.cli.parser import make_parser
from semedit.errors import SemeditError, SemeditWarning


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        0 where it is done, 1 where it failed, with the reason on stderr, and 130 where it was interrupted.

    Raises:
        SystemExit: with 2 where the arguments make no command, with 0 after `--help`.
    """
    args = make_parser().parse_args(argv)
    try:
        with _warnings_shown(), contextlib.ExitStack() as args.opened:
            status = args.command(args)
        sys.stdout.flush()
    except SemeditError as error:
        print(f"semedit: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output, `head` for one, has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return int(status)


@contextlib.contextmanager
def _warnings_shown() -> Iterator[None]:
    """Shows our own warnings as the command line shows errors, each time."""
    with warnings.catch_warnings():
        show_others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, SemeditWarning):
                print(f"semedit: warning: {message}", file=sys.stderr)
            else:
                show_others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        warnings.simplefilter("always", SemeditWarning)
        yield
