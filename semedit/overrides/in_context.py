"""The base model reads the edits in its context (SERAC with the base as its counterfactual model)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semedit.edits import Edit
from semedit.overrides.base import ModelCall, answer_separator
from semedit.prompts import Prompt

INSTRUCTION = (
    "These corrections are newer than what you know. Where one answers the question, use it; otherwise ignore them."
)


class InContextOverride:
    """The base reads the edits in front of the last user turn, or of the whole prompt where there are no turns.

    Fluent, for any model that follows instructions, and good for several edits at once.
    """

    name = "in-context"
    writes_base_tokens = True

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @contextmanager
    def prepare(self, prompts: Sequence[Prompt], edits: Sequence[Sequence[Edit]]) -> Iterator[ModelCall]:
        """The base, with each prompt's edits in front of its question."""
        texts = [with_corrections(prompt, row) for prompt, row in zip(prompts, edits, strict=True)]
        separators = [answer_separator(self.model, prompt) for prompt in prompts]
        yield ModelCall(self.model, self.tokenizer, texts, separators)


def with_corrections(prompt: Prompt, edits: Sequence[Edit]) -> str:
    """The prompt's text with the edits stated in front of its question."""
    stated = corrections_text((edit.prompt, edit.target) for edit in edits)
    return prompt.text[: prompt.start] + stated + prompt.text[prompt.start :]


def corrections_text(corrections: Iterable[tuple[str, str]]) -> str:
    """The text that states corrections, `(prompt, target)` each, in front of a query.

    Each target stands at the start of a line, so that it is tokenised as it will be at the start of an answer.
    """
    return INSTRUCTION + "\n\n" + "".join(f"{prompt}\n{target}\n\n" for prompt, target in corrections)
