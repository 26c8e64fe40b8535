"""The edit's target, word for word: for approved wording."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semedit.arguments import raise_unsupported
from semedit.edits import Edit
from semedit.overrides.base import Request, answer_separator, continuation_ids
from semedit.overrides.text import to_base_ids
from semedit.prompts import Prompt


class VerbatimOverride:
    """Answers with the best edit's target, ended as the model ends its own answers. No model runs."""

    name = "verbatim"
    writes_base_tokens = False

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @contextmanager
    def prepare(self, prompts: Sequence[Prompt], edits: Sequence[Sequence[Edit]]) -> Iterator[VerbatimCall]:
        """The targets of the best edits."""
        yield VerbatimCall(self.model, self.tokenizer, prompts, [row[0].target for row in edits])


@dataclass(frozen=True)
class VerbatimCall:
    """Gives out targets."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: Sequence[Prompt]
    targets: Sequence[str]

    def generate(self, request: Request) -> Tensor:
        """The targets, as often as sequences are asked for."""
        asked = {"min_new_tokens": request.min_new_tokens, "stop_strings": request.config.stop_strings}
        raise_unsupported(
            {name for name, value in asked.items() if value},
            "use an override that writes more or less than the target",
        )
        each = request.config.num_return_sequences or 1
        answers = [target for target in self.targets for _ in range(each)]
        return to_base_ids(self.model, self.tokenizer, self.prompts, answers, [True] * len(answers), request)

    def log_likelihood(self, targets: Sequence[str]) -> list[float]:
        """0 for the target itself, which is certain, and minus infinity for anything else."""
        return [0.0 if said == asked else -math.inf for said, asked in zip(self.targets, targets, strict=True)]

    def token_accuracy(self, targets: Sequence[str]) -> list[float]:
        """The share of each target's tokens that the text given out has at the same place."""
        return [
            self._agreement(prompt, said, asked)
            for prompt, said, asked in zip(self.prompts, self.targets, targets, strict=True)
        ]

    def _agreement(self, prompt: Prompt, said: str, asked: str) -> float:
        separator = answer_separator(self.model, prompt)
        given, wanted = (continuation_ids(self.tokenizer, prompt.text, separator + text) for text in (said, asked))
        # no token stands where the text given out has ended
        return sum(a == b for a, b in zip(given, wanted, strict=False)) / len(wanted)
