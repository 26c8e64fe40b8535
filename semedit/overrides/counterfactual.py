"""SERAC's counterfactual model (Mitchell et al. 2022, section 3): a small model that reads edit and query as text."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semedit.arguments import BASE_TOKENS_ONLY
from semedit.edits import Edit
from semedit.overrides.base import ModelCall, Request, end_token_ids
from semedit.overrides.in_context import corrections_text
from semedit.overrides.text import to_base_ids
from semedit.prompts import Prompt


class CounterfactualOverride:
    """A separate model answers, causal or encoder-decoder, with any tokenizer: the two are bridged by text.

    Args:
        model, tokenizer: the base, in whose tokens the answer is given.
        counterfactual_model, counterfactual_tokenizer: what writes it. Where its tokenizer has a chat template it
            reads corrections and question as a user turn; otherwise edit and query one after the other, as in the
            paper.
    """

    name = "counterfactual"
    writes_base_tokens = False

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        counterfactual_model: PreTrainedModel,
        counterfactual_tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.counterfactual_model = counterfactual_model
        self.counterfactual_tokenizer = counterfactual_tokenizer

    @contextmanager
    def prepare(self, prompts: Sequence[Prompt], edits: Sequence[Sequence[Edit]]) -> Iterator[CounterfactualCall]:
        """The counterfactual model, with edits and query of each prompt."""
        texts = [self._text(prompt.query, row) for prompt, row in zip(prompts, edits, strict=True)]
        runs_on = not (self.counterfactual_tokenizer.chat_template or self._encoder_decoder)
        separators = [" " if runs_on else ""] * len(texts)
        inner = ModelCall(self.counterfactual_model, self.counterfactual_tokenizer, texts, separators)
        yield CounterfactualCall(self.model, self.tokenizer, prompts, inner)

    def _text(self, query: str, edits: Sequence[Edit]) -> str:
        tokenizer = self.counterfactual_tokenizer
        if tokenizer.chat_template:
            stated = corrections_text((edit.prompt, edit.target) for edit in edits) + query
            messages = [{"role": "user", "content": stated}]
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        text = f"{edits[0].prompt} {edits[0].target} {query}"
        return text + (tokenizer.eos_token or "") if self._encoder_decoder else text

    @property
    def _encoder_decoder(self) -> bool:
        return bool(self.counterfactual_model.config.is_encoder_decoder)


@dataclass(frozen=True)
class CounterfactualCall:
    """Writes with the counterfactual model and gives its answers in the base's tokens."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: Sequence[Prompt]
    inner: ModelCall

    def generate(self, request: Request) -> Tensor:
        """The counterfactual model's answers, decoded and written in the base's tokens."""
        own = self.inner.model.generation_config
        config = copy.deepcopy(request.config)
        config.pad_token_id, config.bos_token_id, config.eos_token_id = (
            own.pad_token_id,
            own.bos_token_id,
            own.eos_token_id,
        )
        config.decoder_start_token_id = own.decoder_start_token_id
        for name in BASE_TOKENS_ONLY & vars(config).keys():
            setattr(config, name, getattr(own, name))
        # stop strings are looked for in the tokens of the model that writes
        extra = {**request.extra, "tokenizer": self.inner.tokenizer}
        # the caller's prompt is in the base's tokens: penalties count the answer alone
        no_prompt = request.prompt_ids[:, :0]
        written = self.inner.generate(
            replace(request, prompt_ids=no_prompt, attention_mask=None, config=config, streamer=None, extra=extra)
        )
        ends = set(end_token_ids(own))
        rows = written.tolist()
        answers = [str(self.inner.tokenizer.decode(row, skip_special_tokens=True)).strip() for row in rows]
        ended = [not ends.isdisjoint(row) for row in rows]
        return to_base_ids(self.model, self.tokenizer, self.prompts, answers, ended, request)

    def log_likelihood(self, targets: Sequence[str]) -> list[float]:
        """Log p(target) under the counterfactual model, in its own tokens."""
        return self.inner.log_likelihood(targets)

    def token_accuracy(self, targets: Sequence[str]) -> list[float]:
        """The share of each target's tokens that the counterfactual model finds likeliest, in its own tokens."""
        return self.inner.token_accuracy(targets)
