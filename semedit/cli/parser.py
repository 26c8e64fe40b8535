"""What the command line takes, and what its help says."""

from __future__ import annotations

import argparse

from semedit.cli.edit_parser import add_edit
from semedit.cli.options import (
    EXIT_CODES,
    Subparsers,
    adaptor_option,
    command,
    count,
    counts,
    encoder_option,
    json_option,
    length_option,
    memory_options,
    model_option,
    model_options,
    namespaces_option,
    routing_options,
    scope_option,
    share,
)
from semedit.evaluation.names import DATASETS, METHODS


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `args.command(args)` runs what was asked for and gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="semedit",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Correct a language model while it runs: edits in a memory file answer wherever\n"
        "they are in scope, and the model answers as before everywhere else.",
        epilog=f"""first steps:
  semedit demo
  semedit edit add "Who is the chief executive of Acme?" "Jane Doe"
  semedit generate "Who is Acme's chief executive?"
  semedit explain "Who is Acme's chief executive?"
  semedit chat

{EXIT_CODES}""",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_chat(commands)
    _add_generate(commands)
    _add_explain(commands)
    _add_calibrate(commands)
    _add_evaluate(commands)
    add_edit(commands)
    return parser


def _add_demo(commands: Subparsers) -> None:
    parser = command(
        commands,
        "demo",
        "demo:demo",
        "edit a model, see the edit answer, undo it",
        "Wraps the shipped model, edits one fact, and shows what changes and what does not. The memory is gone "
        "afterwards. Exits with 1 where anything that it shows did not hold.",
        "semedit demo",
    )
    model_options(parser)


def _add_chat(commands: Subparsers) -> None:
    parser = command(
        commands,
        "chat",
        "chat:chat",
        "talk to a model and correct it as you go",
        "A conversation in the terminal. /edit, /fix, /why, /undo and /edits correct the model and show why it "
        "answers as it does; /help lists them. Without a terminal it reads a line a turn from its input. A model "
        "without a chat template is asked each question on its own.",
        "semedit chat --model path/to/model --memory edits.db",
    )
    model_options(parser)
    memory_options(parser)
    routing_options(parser)
    length_option(parser)


def _add_generate(commands: Subparsers) -> None:
    parser = command(
        commands,
        "generate",
        "generate:generate",
        "answer prompts",
        "Answers each prompt by the edits in scope, or else as the model does. A model with a chat template reads "
        "the prompt as a user's turn. Answers are printed one after the other; with --json a JSON line each, with "
        "the route that was taken.",
        'semedit generate "Who is the chief executive of Acme?" --memory edits.db',
    )
    parser.add_argument(
        "prompts", nargs="*", metavar="PROMPT", help="a prompt; without any, one is read from each line of the input"
    )
    model_options(parser)
    memory_options(parser)
    routing_options(parser)
    length_option(parser)
    json_option(parser, "a JSON line for each prompt: prompt, answer, route")


def _add_explain(commands: Subparsers) -> None:
    parser = command(
        commands,
        "explain",
        "generate:explain",
        "say which edits would answer a query, and why",
        "Shows the decision for a query without answering it: the edits, their scores, the threshold, the runner-up "
        "and the reason. No language model is loaded.",
        'semedit explain "Who runs Acme?" --memory edits.db --threshold 0.8',
    )
    parser.add_argument("query", metavar="QUERY", help="what is asked")
    memory_options(parser)
    routing_options(parser)
    json_option(
        parser, "a JSON object: query, in_scope, ambiguous, reason, score, threshold, edits, runner_up, candidates"
    )


def _add_calibrate(commands: Subparsers) -> None:
    parser = command(
        commands,
        "calibrate",
        "calibrate:calibrate",
        "choose the threshold for a rate of false overrides",
        "Routes queries that no edit should answer, and sets the threshold so that edits claim at most the target "
        "share of them; `closest` shows those that an edit perhaps should answer, to be taken out. The threshold is "
        "kept with the memory, and every process uses it from its next call on. It is "
        "never below the classifier's own, which was chosen on near misses: these are rare in traffic. The bounds are "
        "95 % intervals. With 0.001 as the target it takes about 3,700 queries, none of them overridden, until the "
        "upper bound is within the target. With --positives it also says how many queries that an edit should answer "
        "still are routed to it. More edits claim more queries: with up to twice as many edits at most twice as many "
        "false overrides are to be expected, and beyond that semedit warns. No language model is loaded.",
        "semedit calibrate --memory edits.db --traffic queries.txt --target 0.001",
    )
    parser.add_argument(
        "--traffic", required=True, metavar="FILE", help="queries that no edit should answer, one a line"
    )
    parser.add_argument(
        "--positives",
        metavar="FILE",
        help='JSON lines {"prompt": ..., "query": ...}: the prompt of an edit, and a query that it should answer',
    )
    parser.add_argument(
        "--target",
        type=share,
        default=0.001,
        metavar="RATE",
        help="false overrides per query, above 0 and below 1 (default: %(default)s)",
    )
    memory_options(parser)
    scope_option(parser)
    namespaces_option(parser)
    json_option(parser, "the calibration as JSON")


def _add_evaluate(commands: Subparsers) -> None:
    parser = command(
        commands,
        "evaluate",
        "evaluate:run",
        "measure how well edits work, how far they reach and what they break",
        "Makes the edits of a data set and asks about them, in free generation to a natural stop: reliability (the "
        "edits' own prompts), generality (the same in other words), portability (what follows from them), and "
        "locality (what they must not change, against the unedited model's own answers). It does so at each number "
        "of --edits, over all edits made by then, and prints every rate with its numerator, denominator and 95 % "
        "interval, the unedited model first. What is expected is never shown to the model or its router. Besides "
        "semedit's overrides it knows simple methods to beat: all_in_context (every edit in the prompt), "
        "retrieve_and_prompt (the nearest edit in the prompt, without a threshold) and fine_tuned (one matrix, on the "
        "targets).",
        "semedit evaluate --dataset zsre --data zsre.json --method in_context verbatim \\\n"
        "    --unrelated questions.jsonl --edits 1,10,100,1000 --sample 200 --out out/zsre",
    )
    model_option(parser)
    parser.add_argument(
        "--method",
        dest="methods",
        nargs="+",
        choices=("none", *METHODS),
        default=["in_context"],
        metavar="METHOD",
        help=f"how it is edited, one or several of: none, {', '.join(METHODS)} (default: in_context)",
    )
    parser.add_argument("--dataset", required=True, choices=DATASETS, help="how the records of --data look")
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help="the data set as it was published, plain, .gz or .xz; for canonical, the folder of a task",
    )
    parser.add_argument(
        "--unrelated", metavar="FILE", help="questions that no edit must change: NQ-open's JSON lines, or one a line"
    )
    parser.add_argument(
        "--edits",
        type=counts,
        default=counts("1,10,100,1000"),
        metavar="N,N,...",
        help="after how many edits everything is asked (default: 1,10,100,1000)",
    )
    parser.add_argument(
        "--order",
        choices=("sequential", "batch"),
        default="sequential",
        help="each edit by itself, or all up to a checkpoint at once (default: %(default)s)",
    )
    parser.add_argument("--limit", type=count, metavar="N", help="use the first N examples")
    parser.add_argument(
        "--sample",
        type=count,
        metavar="N",
        help="ask at most N questions of each kind, and of each sort within a kind, at a checkpoint (default: all)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the sample (default: %(default)s)")
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="writes evaluation.json, evaluation.csv, plots and the page index.html there, and goes on there where it "
        "was interrupted",
    )
    parser.add_argument(
        "--small-model",
        metavar="NAME_OR_PATH",
        help="the other model of counterfactual and ensemble (default: --model)",
    )
    adaptor_option(parser, "for adaptor: ")
    encoder_option(parser)
    scope_option(parser)
