"""The `semedit` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from semedit.cli.parser import make_parser
from semedit.errors import SemeditError


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
