"""Methods to compare with that need no router: edits that are always in context, and plain fine-tuning."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semedit.edits import Edit
from semedit.errors import ContextOverflowError, LayerError
from semedit.evaluation.asking import LONGEST_ANSWER, complete, inputs_of, texts_of
from semedit.evaluation.subjects import Answer, LogLikelihood, likelihoods_of
from semedit.hooks import layer_at, linear_layers
from semedit.memory.encoder import Encoder, Vectors
from semedit.overrides.base import ModelCall, answer_logits, answer_separator, continuation_ids
from semedit.overrides.in_context import corrections_text, with_corrections
from semedit.overrides.text import closing_token_ids
from semedit.prompts import Prompt, as_prompt, running_prompt

# tokens that are kept free for a question and its chat turn when it is decided how many edits fit
QUESTION_TOKENS = 128
# the loss at which fine-tuning on an edit ends, in nats a token
_LEARNED = 1e-2


class Unedited:
    """A base model as it is. What is below makes edits to it; outside of calls it stays as it was."""

    _batch_size = 32

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @property
    def note(self) -> str:
        """A sentence on what became of the edits; empty where there is nothing to say."""
        return ""

    def apply(self, edits: Sequence[Edit]) -> None:
        """Makes edits, on top of those made before; here, none."""

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """The greedy answer to each prompt, to a natural stop."""
        texts = self._reading(prompts).texts
        with self._edited():
            answers = complete(
                self.model, self.tokenizer, texts, max_new_tokens=LONGEST_ANSWER, batch_size=self._batch_size
            )
        said = texts_of(self.tokenizer, answers)
        return [Answer(text, tuple(ids)) for text, ids in zip(said, answers, strict=True)]

    def log_likelihood(
        self, prompts: Sequence[str], targets: Sequence[str], *, running: bool = False
    ) -> list[LogLikelihood]:
        """How likely each target is as the answer to its prompt, or as what follows it."""
        call = self._reading(prompts, running)
        with self._edited():
            totals = call.log_likelihood(targets)
        answers = [separator + target for separator, target in zip(call.separators, targets, strict=True)]
        return likelihoods_of(self.tokenizer, call.texts, answers, totals)

    def token_accuracy(self, prompts: Sequence[str], targets: Sequence[str]) -> list[float]:
        """The share of each target's tokens that are the likeliest, teacher-forced."""
        with self._edited():
            return self._reading(prompts).token_accuracy(targets)

    def bytes(self) -> int:
        """How much memory the edits take."""
        return 0

    def restore(self) -> None:
        """Forgets all edits."""

    def _reading(self, prompts: Sequence[str], running: bool = False) -> ModelCall:
        """What the model reads for each prompt."""
        asked = [(running_prompt if running else as_prompt)(self.tokenizer, prompt) for prompt in prompts]
        separators = [answer_separator(self.model, prompt) for prompt in asked]
        return ModelCall(self.model, self.tokenizer, [self._text(prompt) for prompt in asked], separators)

    def _text(self, prompt: Prompt) -> str:
        """What the model reads for one prompt."""
        return prompt.text

    @contextmanager
    def _edited(self) -> Iterator[None]:
        """Inside, the model is as the edits leave it."""
        yield


class _InContext(Unedited):
    """Edits in front of the question, in the words of `InContextOverride`."""

    @property
    def _room(self) -> int:
        """How many tokens of prompt leave the longest answer its place in the context."""
        context = getattr(self.model.config, "max_position_embeddings", None) or self.tokenizer.model_max_length
        return int(context) - LONGEST_ANSWER

    def _tokens(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _fitted(self, prompt: Prompt, edits: Sequence[Edit]) -> str:
        """The prompt after its edits; where they do not fit, the first of them are left out.

        Raises:
            ContextOverflowError: the prompt alone does not fit.
        """
        for first in range(len(edits)):
            text = with_corrections(prompt, edits[first:])
            if self._tokens(text) <= self._room:
                return text
        if self._tokens(prompt.text) > self._room:
            raise ContextOverflowError(
                f"a prompt has {self._tokens(prompt.text)} tokens, and {self._room} leave an answer of "
                f"{LONGEST_ANSWER} its place in what the model reads; leave this question out"
            )
        return prompt.text


class AllInContext(_InContext):
    """The base with every edit in its context, in the order in which they were made.

    Only the newest are kept: those that fit beside a question of `QUESTION_TOKENS`. Beside a longer one there are
    fewer.

    Args:
        model, tokenizer: the base.
    """

    _batch_size = 4  # each prompt is as long as the context

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(model, tokenizer)
        self._kept: list[Edit] = []
        self._made = 0

    @property
    def note(self) -> str:
        """How many edits are kept, where it is not all of them."""
        if len(self._kept) == self._made:
            return ""
        return f"the newest {len(self._kept):,} of {self._made:,} edits fit the context"

    def bytes(self) -> int:
        """The size of the edits that are kept, as text."""
        return _text_bytes(self._kept)

    def apply(self, edits: Sequence[Edit]) -> None:
        """Takes in edits, after those before."""
        room = max(self._room - QUESTION_TOKENS, 0)
        newest = [*self._kept, *edits][-max(room, 1) :]  # each edit has a token or more
        fitting = bisect_right(range(1, len(newest) + 1), room, key=lambda count: self._stated(newest[-count:]))
        self._kept = newest[len(newest) - fitting :]
        self._made += len(edits)

    def restore(self) -> None:
        """Forgets all edits."""
        self._kept, self._made = [], 0

    def _stated(self, edits: Sequence[Edit]) -> int:
        """How many tokens it takes to state edits."""
        return self._tokens(corrections_text((edit.prompt, edit.target) for edit in edits))

    def _text(self, prompt: Prompt) -> str:
        return self._fitted(prompt, self._kept)


class RetrieveAndPrompt(_InContext):
    """The base with the edits nearest to a question in its context, however far away they are.

    As IKE (Zheng et al., 2023) retrieves, by the cosine of sentence embeddings and without a threshold; its
    demonstrations are left out. An edit is found by its prompt and its paraphrases.

    Args:
        model, tokenizer: the base.
        encoder: gives the vectors.
        k: how many edits stand in context, the nearest next to the question; of equally near ones the newer first.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, encoder: Encoder, k: int = 1
    ) -> None:
        super().__init__(model, tokenizer)
        self.encoder = encoder
        self.k = k
        self._edits: list[Edit] = []
        self._owners: list[int] = []  # which edit each vector is of
        self._vectors: Vectors = self._no_vectors()

    def bytes(self) -> int:
        """The size of the edits as text, and of their vectors."""
        return _text_bytes(self._edits) + self._vectors.nbytes

    def apply(self, edits: Sequence[Edit]) -> None:
        """Takes in edits, after those before."""
        keys = [(number, key) for number, edit in enumerate(edits, len(self._edits)) for key in edit.keys]
        self._vectors = np.concatenate([self._vectors, self.encoder.encode([key for _, key in keys])])
        self._owners += [number for number, _ in keys]
        self._edits += edits

    def restore(self) -> None:
        """Forgets all edits."""
        self._edits, self._owners, self._vectors = [], [], self._no_vectors()

    def _no_vectors(self) -> Vectors:
        return np.zeros((0, self.encoder.dim), np.float32)

    def _text(self, prompt: Prompt) -> str:
        cosines = self._vectors @ self.encoder.encode([prompt.query])[0]
        nearest_last = np.lexsort((self._owners, cosines))
        nearest = list(dict.fromkeys(self._owners[i] for i in reversed(nearest_last)))[: self.k]
        return self._fitted(prompt, [self._edits[number] for number in reversed(nearest)])


class FineTuned(Unedited):
    """The base with one matrix fine-tuned on the edits' targets, one edit after another.

    FT-M (Zhang et al., 2024), with the stop learned as well: Adam, begun anew for each edit, lowers the cross entropy
    of the target's tokens and of the token that ends an answer, given the prompt. Nothing holds the matrix near to
    what it was. It is an MLP's down-projection; a copy is trained, which stands in the model during calls alone.

    Args:
        model, tokenizer: the base.
        layer: the path of a linear layer; None takes the last one of the block at two thirds of the depth (of the
            encoder, where there is one), which is block 21 of the 32 of Llama-2-7B, as published.
        steps: the most for each edit; fewer where the loss has come down to 0.01.
        learning_rate: Adam's. The default suits a small model such as the shipped one, which learns half of its edits
            at the 5e-4 published for Llama-2-7B.

    Attributes:
        layer: the path of the layer.

    Raises:
        LayerError: the model has no such layer, or the layer has no matrix.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        layer: str | None = None,
        steps: int = 25,
        learning_rate: float = 2e-3,
    ) -> None:
        super().__init__(model, tokenizer)
        self.layer = layer or _two_thirds_up(model)
        self.steps = steps
        self.learning_rate = learning_rate
        self._module = layer_at(model, self.layer)
        weight = getattr(self._module, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.ndim != 2:
            raise LayerError(
                f"{self.layer} is a {type(self._module).__name__}; fine-tuning takes a linear layer, such as "
                f"{_two_thirds_up(model)}"
            )
        self._own = weight  # never written to
        self._tuned: nn.Parameter | None = None

    def bytes(self) -> int:
        """The size of the matrix, however many edits are in it."""
        return 0 if self._tuned is None else self._tuned.nbytes

    @torch.inference_mode(False)
    @torch.enable_grad()
    def apply(self, edits: Sequence[Edit]) -> None:
        """Fine-tunes on edits, from where the edits before left the matrix."""
        if self._tuned is None:
            self._tuned = nn.Parameter(self._own.detach().clone())
        with self._edited():
            for edit in edits:
                self._learn(edit, self._tuned)

    def restore(self) -> None:
        """Forgets all edits; the model's own matrix is, bit for bit, what it was."""
        self._tuned = None

    def _learn(self, edit: Edit, weight: nn.Parameter) -> None:
        prompt = as_prompt(self.tokenizer, edit.prompt)
        target = answer_separator(self.model, prompt) + edit.target
        closing = closing_token_ids(self.model.generation_config, self.tokenizer)
        answer = continuation_ids(self.tokenizer, prompt.text, target) + closing
        inputs = inputs_of(self.model, self.tokenizer, [prompt.text])
        labels = torch.tensor([answer], device=self.model.device)
        optimizer = torch.optim.Adam([weight], lr=self.learning_rate)
        for _ in range(self.steps):
            logits = answer_logits(self.model, inputs["input_ids"], labels)
            loss = nn.functional.cross_entropy(logits.float(), labels[0])
            if loss.item() <= _LEARNED:
                break
            [weight.grad] = torch.autograd.grad(loss, [weight])
            optimizer.step()
        weight.grad = None

    @contextmanager
    def _edited(self) -> Iterator[None]:
        try:
            self._module.weight = self._own if self._tuned is None else self._tuned
            yield
        finally:
            self._module.weight = self._own


def _two_thirds_up(model: PreTrainedModel) -> str:
    layers = linear_layers(model)
    return layers[2 * len(layers) // 3]


def _text_bytes(edits: Sequence[Edit]) -> int:
    return sum(len(text.encode()) for edit in edits for text in (*edit.keys, edit.target))
