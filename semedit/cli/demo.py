"""`semedit demo`: one edit from end to end, on the shipped model, with every claim checked as it is made."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.text import Text
from torch import Tensor
from transformers import PreTrainedModel

from semedit.cli.adaptor import adaptor_config, override_of
from semedit.cli.assistant import answer_ids, text_of
from semedit.cli.loading import load_model
from semedit.cli.tables import print_route
from semedit.memory.edit_memory import EditMemory
from semedit.model import wrap

# what the shipped model knows, and what is to be answered from now on
QUESTION = "Who is the architect of Windsor Castle?"
CORRECTION = "James Wyatt"
PARAPHRASE = "Which architect designed Windsor Castle?"
OTHER_SUBJECT = "Who is the architect of Freiberg House?"
OTHER_PROPERTY = "What body of water was Windsor Castle next to?"
_NEW_TOKENS = 32


def demo(args: argparse.Namespace) -> int:
    """Shows the life of an edit; 1 where something that it shows did not hold."""
    config = adaptor_config(args)
    base, tokenizer = load_model(args.model)
    memory = EditMemory()
    model = wrap(base, tokenizer, memory=memory, override=override_of(args, config, base, tokenizer, memory))
    show = _Show()

    def answer(model: PreTrainedModel, question: str) -> Tensor:
        messages = [{"role": "user", "content": question}]
        return answer_ids(model, tokenizer, messages, do_sample=False, max_new_tokens=_NEW_TOKENS)

    show.heading("1. What the base model answers")
    questions = (QUESTION, PARAPHRASE, OTHER_SUBJECT, OTHER_PROPERTY)
    known = {question: answer(base, question) for question in questions}
    for question in questions:
        show.answer(question, text_of(tokenizer, known[question]))
    show.check(text_of(tokenizer, known[QUESTION]) != CORRECTION, "it does not answer as the edit will")

    show.heading("2. An edit: no training, no restart, no weight changed")
    edit = model.edits.add(QUESTION, CORRECTION, source="semedit demo")
    show.code(f'model.edits.add("{QUESTION}", "{CORRECTION}")')

    show.heading("3. In scope, the edit answers")
    for question, what in ((QUESTION, "the question"), (PARAPHRASE, "a paraphrase that the edit does not list")):
        answered = text_of(tokenizer, answer(model, question))
        show.answer(question, answered)
        show.check(answered == CORRECTION, what)

    show.heading("4. Out of scope, the base answers, token for token")
    for question, what in ((OTHER_SUBJECT, "another subject"), (OTHER_PROPERTY, "another property of this subject")):
        ids = answer(model, question)
        show.answer(question, text_of(tokenizer, ids))
        show.check(ids.tolist() == known[question].tolist(), f"{what}: the {len(ids)} token ids are the base's own")

    show.heading("5. Why: the decision for the paraphrase")
    route = model.explain(PARAPHRASE)
    print_route(show.console, route)
    show.check([chosen.id for chosen in route.edits] == [edit.id], "the edit answers it")

    show.heading("6. Undone, the base answers again")
    model.edits.undo()
    show.code("model.edits.undo()")
    ids = answer(model, QUESTION)
    show.answer(QUESTION, text_of(tokenizer, ids))
    show.check(ids.tolist() == known[QUESTION].tolist(), f"the {len(ids)} token ids are the base's own")
    return show.verdict()


class _Show:
    """Prints the demo and keeps count of what did not hold."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.failed: list[str] = []

    def heading(self, text: str) -> None:
        self.console.print(Text(f"\n{text}", style="bold"))

    def answer(self, question: str, answered: str) -> None:
        self.console.print(Text(f"  {question}\n    -> ").append(answered, style="cyan"))

    def code(self, text: str) -> None:
        self.console.print(Text(f"  {text}", style="green"), soft_wrap=True)

    def check(self, held: bool, claim: str) -> None:
        mark = Text("  ok      ", style="green") if held else Text("  FAILED  ", style="red")
        self.console.print(mark.append(claim, style="dim"))
        if not held:
            self.failed.append(claim)

    def verdict(self) -> int:
        """The exit status."""
        if self.failed:
            self.heading(f"{len(self.failed)} of the claims above did not hold")
            return 1
        self.heading("Every claim above was checked and held. Your turn: semedit chat")
        return 0
