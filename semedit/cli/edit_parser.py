"""What `semedit edit` takes, and what its help says."""

from __future__ import annotations

import argparse
from datetime import datetime

from semedit.cli.options import (
    EXIT_CODES,
    Subparsers,
    adaptor_option,
    command,
    json_option,
    length_option,
    memory_options,
    model_option,
    model_options,
    routing_options,
    scope_option,
)


def add_edit(commands: Subparsers) -> None:
    """Declares `edit` and its actions."""
    edit = commands.add_parser(
        "edit",
        help="add, list, change and undo edits",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Works on the edits of a memory file. Each change is a revision more, and can be\n"
        "undone; only `erase` forgets. Processes that have the file open see a change on\n"
        "their next call.",
        epilog=EXIT_CODES,
    )
    actions = edit.add_subparsers(required=True, metavar="ACTION")
    _add_add(actions)
    _add_reading(actions)
    _add_update(actions)
    _add_undoing(actions)
    _add_files(actions)
    _add_learn(actions)
    _add_check(actions)
    _add_keeping(actions)
    _add_forgetting(actions)


def _add_add(actions: Subparsers) -> None:
    parser = command(
        actions,
        "add",
        "edits:add",
        "add an edit",
        "Adds an edit, durable and in force at once, and says what happened: added, superseded (an edit with this "
        "prompt gave way to it) or unchanged (an edit says just this already). Warns where the prompt is in the "
        "scope of an edit with another answer; the edit is added nevertheless.",
        'semedit edit add "Who is the chief executive of Acme?" "Jane Doe" \\\n'
        '    --paraphrase "Who runs Acme?" --negative "Who founded Acme?"',
    )
    parser.add_argument("prompt", metavar="PROMPT", help="the question, or the beginning, that the edit is about")
    parser.add_argument("target", metavar="TARGET", help="what is to be answered")
    _edit_fields(parser, "another way to ask it; may be given again", "a query it must not answer; may be given again")
    parser.add_argument("--verbatim", action="store_true", help="answer with the target, word for word")
    parser.add_argument(
        "--namespace", default="default", metavar="NAME", help="where the edit is kept (default: %(default)s)"
    )
    memory_options(parser)
    scope_option(parser)
    json_option(parser, "the edit as a JSON object; `outcome` says what happened")


def _add_reading(actions: Subparsers) -> None:
    parser = command(
        actions,
        "ls",
        "edits:ls",
        "list edits",
        "Lists the active edits, oldest first.",
        "semedit edit ls --memory edits.db --json",
    )
    parser.add_argument("--all", action="store_true", help="retired and superseded edits too")
    parser.add_argument("--namespace", metavar="NAME", help="of this namespace alone")
    memory_options(parser, encoder=False)
    json_option(parser, "a JSON array of edits")
    for name, summary, what, data in (
        ("show", "show an edit", "Shows all there is to an edit as it is now.", "the edit as a JSON object"),
        (
            "history",
            "show every revision of an edit",
            "Shows every revision of an edit, oldest first: when, by whom, and what it said.",
            "a JSON array of revisions",
        ),
    ):
        parser = command(actions, name, f"edits:{name}", summary, what, f"semedit edit {name} 3f2a91c07b1e")
        _id_argument(parser)
        memory_options(parser, encoder=False)
        json_option(parser, data)


def _add_update(actions: Subparsers) -> None:
    parser = command(
        actions,
        "update",
        "edits:update",
        "change an edit",
        "Changes what is given and leaves the rest. Paraphrases and negatives are added to those there are.",
        'semedit edit update 3f2a91c07b1e --negative "Who founded Acme?"',
    )
    _id_argument(parser)
    parser.add_argument("--prompt", metavar="TEXT", help="the new prompt")
    parser.add_argument("--target", metavar="TEXT", help="the new answer")
    _edit_fields(
        parser, "one more way to ask it; may be given again", "one more query it must not answer; may be given again"
    )
    parser.add_argument(
        "--verbatim", action=argparse.BooleanOptionalAction, help="answer with the target, word for word, or no longer"
    )
    parser.add_argument("--namespace", metavar="NAME", help="the namespace to move it to")
    memory_options(parser)
    json_option(parser, "the edit as a JSON object")


def _add_undoing(actions: Subparsers) -> None:
    parser = command(
        actions,
        "rm",
        "edits:rm",
        "retire an edit",
        "Takes an edit out of force. Its history stays, and `semedit edit undo` brings it back.",
        "semedit edit rm 3f2a91c07b1e",
    )
    _id_argument(parser)
    parser.add_argument("--author", metavar="NAME", help="who retires it")
    memory_options(parser, encoder=False)
    json_option(parser, "the retired edit as a JSON object")
    parser = command(
        actions,
        "undo",
        "edits:undo",
        "take back the last change",
        "Takes back the last change of the memory that is not taken back yet, whoever made it; an import is one "
        "change. Run it again to take back the one before.",
        "semedit edit undo --memory edits.db",
    )
    parser.add_argument("--author", metavar="NAME", help="who takes it back")
    memory_options(parser)
    json_option(parser, "a JSON array of the edits as they are now")


def _add_files(actions: Subparsers) -> None:
    parser = command(
        actions,
        "import",
        "edits:import_",
        "add the edits of a file",
        "Adds the edits of a JSON-lines file as one change: all of them, or none where a line is no edit. A line is "
        'an object with "prompt" and "target", and whatever else `semedit edit export` writes.',
        "semedit edit import corrections.jsonl --author jane",
    )
    parser.add_argument("file", metavar="FILE", help="JSON lines")
    parser.add_argument("--author", metavar="NAME", help="who adds them")
    memory_options(parser)
    json_option(parser, "a JSON object: how many were added, superseded, unchanged")
    parser = command(
        actions,
        "export",
        "edits:export",
        "write the active edits to a file",
        "Writes the active edits to a JSON-lines file, which is replaced where there is one.",
        "semedit edit export corrections.jsonl",
    )
    parser.add_argument("file", metavar="FILE", help="where to")
    memory_options(parser, encoder=False)
    json_option(parser, "a JSON object: how many were exported, and the file")
    parser = command(
        actions,
        "reembed",
        "edits:reembed",
        "make the vectors anew with another encoder",
        "Makes the vectors of all edits anew. Processes that have the memory open with another encoder are refused "
        "from then on.",
        "semedit edit reembed --encoder path/to/encoder --memory edits.db",
    )
    memory_options(parser)
    json_option(parser, "a JSON object: how many texts, and the encoder's fingerprint")


def _add_learn(actions: Subparsers) -> None:
    parser = command(
        actions,
        "learn",
        "adaptor:learn",
        "learn the values of edits ahead, for --override adaptor",
        "With --override adaptor an edit answers by a value that is learned for it, which takes a moment when it "
        "first answers. This learns the values of all active edits ahead, in batches, and keeps them in the memory. "
        "A value belongs to one model, layer and dtype, and to the settings that it was learned with: name here the "
        "model and the file that will answer. What is learned already is left as it is. Exits with 1 where some "
        "edits do not bring about their target; a warning names one of them and what to try.",
        "semedit edit learn --memory edits.db --model path/to/model \\\n    --adaptor-config configs/grace.yaml",
    )
    model_option(parser)
    adaptor_option(parser)
    parser.set_defaults(override="adaptor")
    memory_options(parser, encoder=False)
    json_option(parser, "a JSON object: learned, reached, median_steps, learned_before, base")


def _add_check(actions: Subparsers) -> None:
    parser = command(
        actions,
        "check",
        "check:check",
        "ask the model what its edits promise",
        "Asks the model the prompt and the paraphrases of each edit in force, which the edit must answer with its "
        "target, and its negatives, which it must not answer. Shows what was asked, expected and got wherever that "
        "fails, and why: for instance that another edit answered. Answers are generated greedily to their natural end "
        "and compared without case, punctuation and articles. Exits with 1 where anything fails, so that it can stand "
        "before a deployment; name here the model and whatever else will answer then.",
        "semedit edit check --memory edits.db --model path/to/model",
    )
    model_options(parser)
    memory_options(parser)
    routing_options(parser)
    length_option(parser)
    json_option(parser, "a JSON object: edits, not_checked (those of other namespaces), checked, failed, failures")


def _add_keeping(actions: Subparsers) -> None:
    parser = command(
        actions,
        "backup",
        "upkeep:backup",
        "copy the memory while it is in use",
        "Writes all of the memory as it is at one moment to a new memory file, which is whole once it is there. Other "
        "processes go on reading and writing. A memory in PostgreSQL becomes a file, too. A backup is a memory: name "
        "it with --memory to go back to it.",
        "semedit edit backup edits-2026-01-31.db --memory edits.db",
    )
    parser.add_argument("file", metavar="FILE", help="where to; a file that is there is not replaced")
    memory_options(parser, encoder=False)
    json_option(parser, "a JSON object: the file")
    parser = command(
        actions,
        "verify",
        "upkeep:verify",
        "see that nothing is missing or damaged",
        "Reads all of the memory: whether each revision is there and as it was written, each change whole, each "
        "active edit to be found, each vector and learned value sound, and the files of the database and of the saved "
        "index undamaged. Prints each problem on a line of its own, and exits with 1 where there is one: go back to a "
        "backup then, or delete the index if it alone is damaged.",
        "semedit edit verify --memory edits-2026-01-31.db",
    )
    memory_options(parser, encoder=False)
    json_option(parser, "a JSON object: revisions, edits, vectors, learned, problems")


def _add_forgetting(actions: Subparsers) -> None:
    parser = command(
        actions,
        "erase",
        "upkeep:erase",
        "forget what an edit said, for good",
        "Deletes the texts, vectors and learned values of an edit, in all of its revisions, from the memory, its "
        "write-ahead log and its saved index, and cannot be undone. Its history goes on saying when it was changed "
        "and by whom, and that it was erased. Backups and exports made before are yours to delete. The memory is "
        "written anew, which takes space for a second copy.",
        "semedit edit erase 3f2a91c07b1e --author jane",
    )
    _id_argument(parser)
    parser.add_argument("--author", metavar="NAME", help="who erases it")
    memory_options(parser, encoder=False)
    json_option(parser, "what is left of the edit as a JSON object")
    parser = command(
        actions,
        "compact",
        "upkeep:compact",
        "drop vectors and learned values that no active edit needs",
        "Drops the vectors and learned values of texts that no active edit has any more, and says how many. Edits "
        "and their history stay; what `semedit edit undo` brings back is encoded, and learned, anew. The memory is "
        "written anew, which takes space for a second copy.",
        "semedit edit compact --memory edits.db",
    )
    memory_options(parser, encoder=False)
    json_option(parser, "a JSON object: vectors, learned, bytes")


def _id_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the id of an edit, as `semedit edit ls` shows it")


def _edit_fields(parser: argparse.ArgumentParser, paraphrase: str, negative: str) -> None:
    parser.add_argument(
        "--paraphrase", action="append", default=[], dest="paraphrases", metavar="TEXT", help=paraphrase
    )
    parser.add_argument("--negative", action="append", default=[], dest="negatives", metavar="TEXT", help=negative)
    parser.add_argument("--source", metavar="TEXT", help="where the edit comes from")
    parser.add_argument("--author", metavar="NAME", help="who makes this change")
    parser.add_argument(
        "--valid-from",
        type=_time,
        metavar="TIME",
        help="when it comes into force, as 2026-01-31 or 2026-01-31T09:00+01:00; local time without a zone",
    )
    parser.add_argument("--valid-until", type=_time, metavar="TIME", help="when it is no longer in force")


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no ISO time such as 2026-01-31T09:00") from None
    return time if time.tzinfo else time.astimezone()
