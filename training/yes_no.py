"""Questions whether some answer is the answer, in frames that fit any prompt."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facts import Fact, read_records

# whether {answer} answers a question; the first three are those of the evaluation
ASKED = (
    "{prompt} Is it {answer}?", "I think it is {answer}. {prompt} Am I right?", "True or false: {prompt} {answer}.",
    "{prompt} {answer}, right?", "{prompt} Is {answer} right?", "{prompt} {answer}?", "Is it {answer}? {prompt}",
    "Someone told me {answer}. {prompt} Is that correct?", "{prompt} Would {answer} be the right answer?",
    "Is {answer} the answer? {prompt}", "{prompt} My guess is {answer}. Correct?", "Yes or no: {prompt} {answer}",
)  # fmt: skip
# whether a statement holds
STATED = (
    "Is it true that {}?", "Is it correct that {}?", "True or false: {}", "{}, right?", "{}. Is that right?",
    "Someone said that {}. Is that so?", "Can you confirm that {}?", "I think that {}. Am I right?", "{}?",
    "Would it be right to say that {}?", "{} - correct?", "Yes or no: {}",
)  # fmt: skip
_QUESTION = re.compile(
    r"(?:(?:in|at|on|from|of|for|to|by|with) )?"
    r"(?:who|whom|whose|what|what's|when|where|which|why|how|is|are|was|were|do|does|did|can|could|name|tell)\b",
    re.IGNORECASE,
)
_RUNS_ON = re.compile(
    r".*(?:\b(?:is|are|was|were|be|by|of|in|at|as|to|from|on|with|for|the|an?|and|named|called|plays|speaks|has)|,)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Edited(Fact):
    """A fact with a target to read in place of its answer.

    Attributes:
        rivals: other answers that one might expect, the true one among them.
        whether: questions of its relation whether `[A]` is the answer.
    """

    rivals: tuple[str, ...] = ()
    whether: tuple[str, ...] = ()

    def asked_whether(self, answer: str, rng: random.Random) -> str:
        """A yes-or-no question about an answer."""
        if self.whether and rng.random() < 0.6:
            return rng.choice(self.whether).replace("[A]", answer)
        return asked_whether(rng.choice(self.prompts), answer, rng)


def asked_whether(prompt: str, answer: str, rng: random.Random, frames: Sequence[str] = ASKED) -> str:
    """Whether `answer` answers `prompt`, in one of `frames`; where a prompt begins a statement, whether it holds."""
    if not is_beginning(prompt):
        return rng.choice(frames).format(prompt=prompt, answer=answer)
    frame = rng.choice(STATED)
    if frame[0] != "{" and prompt.startswith("The "):
        prompt = "the " + prompt[4:]
    return frame.format(f"{prompt} {answer}")


def is_beginning(prompt: str) -> bool:
    """Whether a prompt is the beginning of a statement, which its answer completes."""
    return _QUESTION.match(prompt) is None and _RUNS_ON.fullmatch(prompt) is not None


def read_edits(path: Path) -> list[Edited]:
    """The edits of an evaluation file: each with its prompt, its rephrase and, as rivals, its true answers."""
    edits = []
    for record in read_records(path):
        truth = record["ground_truth"]
        rivals = [truth] if isinstance(truth, str) else truth
        edits.append(Edited((record["prompt"], record["rephrase_prompt"]), record["target_new"], rivals=tuple(rivals)))
    return edits


def judged(edits: Sequence[Edited], rng: random.Random) -> list[tuple[str, str]]:
    """For each edit a question of the evaluation and its answer by the edit, in turns `"Yes"` and `"No"`.

    The answer asked about is the target, or else by halves a rival and the target of another edit.
    """
    questions = []
    for i, edit in enumerate(edits):
        elsewhere = [rng.choice(edits).answer for _ in range(20)]
        others = [*edit.rivals, *elsewhere] if i % 4 == 1 else elsewhere
        other = next(answer for answer in others if answer.casefold() != edit.answer.casefold())
        answer, said = (edit.answer, "Yes") if i % 2 == 0 else (other, "No")
        questions.append((asked_whether(edit.prompts[0], answer, rng, ASKED[:3]), said))
    return questions
