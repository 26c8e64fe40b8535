"""`semedit chat`: a conversation in which the model can be corrected."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from rich.console import Console
from rich.text import Text
from transformers import PreTrainedTokenizerBase, TextStreamer

from semedit.cli.assistant import Assistant
from semedit.cli.generate import open_assistant
from semedit.cli.tables import edit_table, print_route
from semedit.edits import Edit, Route
from semedit.errors import SemeditError
from semedit.evaluation.check import edits_in_force

_HELP = """\
/edit QUESTION => ANSWER   from now on, QUESTION and what asks the same is answered by ANSWER
/fix ANSWER                the last question should have been answered so
/why                       which edits were considered for the last question, and what decided
/undo                      take back the last change of the memory
/edits                     the edits in force
/help                      this
/quit                      leave; Ctrl-D does too"""


def chat(args: argparse.Namespace) -> int:
    """Talks until the input ends."""
    conversation = Conversation(open_assistant(args), (args.namespaces or ["default"])[0])
    prompt = ""
    if sys.stdin.isatty():
        _line_editing()
        conversation.say("/help lists what can be done; /quit or Ctrl-D leaves")
        prompt = "> "
    try:
        while conversation.take(input(prompt)):
            pass
    except (EOFError, KeyboardInterrupt):
        if sys.stdin.isatty():
            print()
    return 0


class Conversation:
    """What was said so far, and the commands.

    Args:
        assistant: what answers.
        namespace: where new edits go.
    """

    def __init__(self, assistant: Assistant, namespace: str) -> None:
        self.assistant = assistant
        self.namespace = namespace
        self.messages: list[dict[str, str]] = []
        self.route: Route | None = None
        self.console = Console()

    def take(self, line: str) -> bool:
        """Answers a line, or does what it commands; False where it ends the conversation."""
        name, _, rest = line.strip().partition(" ")
        commands = {
            "/edit": self._edit,
            "/fix": self._fix,
            "/why": self._why,
            "/undo": self._undo,
            "/edits": self._edits,
            "/help": self._help,
        }
        if name == "/quit":
            return False
        try:
            if name in commands:
                commands[name](rest.strip())
            elif name.startswith("/"):
                self.say(f"there is no command {name}; /help lists those there are")
            elif name:
                self._answer(line.strip())
        except SemeditError as error:
            self.say(str(error))
        return True

    def say(self, text: str) -> None:
        """Prints a remark that is no answer."""
        self.console.print(Text(text, style="dim"))

    def _answer(self, question: str) -> None:
        messages = [*self.messages, {"role": "user", "content": question}]
        while len(messages) > 1 and not self.assistant.fits(messages):
            messages = messages[2:]  # the oldest question and its answer
        if len(messages) <= len(self.messages):
            self.say("(the conversation outgrew what the model can read; its beginning is left away)")
        answer, self.route = self.assistant.answer(messages, _TerminalStreamer(self.assistant.tokenizer))
        self.messages = [*messages, {"role": "assistant", "content": answer}]
        if self.route.in_scope:
            self.say(f"(edit {', '.join(edit.id for edit in self.route.edits)}; /why says more)")

    def _edit(self, text: str) -> None:
        question, arrow, answer = text.partition("=>")
        if not arrow:
            self.say("write it as /edit QUESTION => ANSWER")
            return
        self._add(question.strip(), answer.strip())

    def _fix(self, answer: str) -> None:
        if self.route is None:
            self.say("there is no question yet whose answer could be fixed")
            return
        # what was judged for a short follow-up has the question before it, and is found again in its place
        self._add(self.route.query, answer)

    def _add(self, question: str, answer: str) -> None:
        edit = self.assistant.model.edits.add(question, answer, namespace=self.namespace, source="chat")
        self.say(f"{edit.outcome} {edit.id}: {_brief(edit)}")

    def _why(self, _: str) -> None:
        if self.route is None:
            self.say("nothing was asked yet")
        else:
            print_route(self.console, self.route)

    def _undo(self, _: str) -> None:
        for edit in self.assistant.model.edits.undo():
            state = "in force again" if edit.active else "no longer in force"
            self.say(f"undone: {edit.id} is {state}: {_brief(edit)}")

    def _edits(self, _: str) -> None:
        edits = edits_in_force(self.assistant.model.edits, self.assistant.namespaces)
        self.console.print(edit_table(edits)) if edits else self.say("there are no edits")

    def _help(self, _: str) -> None:
        self.console.print(Text(_HELP))


class _TerminalStreamer(TextStreamer):
    """Writes an answer as it comes, whole characters at a time."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        decoding: dict[str, Any] = {"skip_special_tokens": True}
        super().__init__(tokenizer, skip_prompt=True, **decoding)


def _brief(edit: Edit) -> str:
    return f"{edit.prompt} => {edit.target}"


def _line_editing() -> None:
    """Lets the arrow keys edit the line and bring back earlier ones, where the platform can."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # importing it is what does it
