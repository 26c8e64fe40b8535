"""What an override is: a way to answer in-scope rows, given as the `generate` call to make."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import (
    ExponentialDecayLengthPenalty,
    GenerationConfig,
    LogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
)
from transformers.generation.streamers import BaseStreamer

from semedit.edits import Edit
from semedit.errors import ContextOverflowError, CutAnswerWarning
from semedit.hooks import takes
from semedit.prompts import Prompt


@dataclass(frozen=True)
class Request:
    """What the caller asks of the edited rows, seen from the caller's own prompt.

    Attributes:
        prompt_ids: `(rows, prompt)`, the caller's token ids of these rows.
        config: the generation config in force.
        min_new_tokens, max_new_tokens: the least and the most tokens to write.
        logits_processor, stopping_criteria: the caller's; they are shown the caller's prompt and the answer so far.
        prefix_allowed_tokens_fn: the caller's, and `rows` says what it calls each row.
        streamer: the caller's, or None.
        extra: what goes to `generate` as it is.
        attention_mask: `(rows, prompt)`, the caller's, or None.
    """

    prompt_ids: Tensor
    config: GenerationConfig
    min_new_tokens: int
    max_new_tokens: int
    logits_processor: Sequence[LogitsProcessor] = ()
    stopping_criteria: Sequence[StoppingCriteria] = ()
    prefix_allowed_tokens_fn: Any = None
    rows: Sequence[int] = ()
    streamer: BaseStreamer | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    attention_mask: Tensor | None = None


class Call(Protocol):
    """The answers to come, one for each prompt that was prepared."""

    def generate(self, request: Request) -> Tensor:
        """`(rows * num_return_sequences, new)` answer ids of the base's vocabulary, padded on the right."""

    def log_likelihood(self, targets: Sequence[str]) -> list[float]:
        """For each prompt, log p(target | prompt) in nats, summed over the target's tokens."""

    def token_accuracy(self, targets: Sequence[str]) -> list[float]:
        """For each prompt, the share of its target's tokens that are the likeliest after the prompt and those before.

        For evaluation alone: with the target's own tokens in front, it says more than what is written freely.
        """


class Override(Protocol):
    """A way to answer rows that edits govern.

    Attributes:
        name: as it is called in messages.
        writes_base_tokens: whether the base model itself writes the answer, so that arguments that speak of its tokens
            can be honoured.
    """

    name: str
    writes_base_tokens: bool

    def prepare(self, prompts: Sequence[Prompt], edits: Sequence[Sequence[Edit]]) -> AbstractContextManager[Call]:
        """The call that answers each prompt by its edits, best first; what it sets up is gone when it is left."""


@dataclass(frozen=True)
class ModelCall:
    """A model that reads prompts other than the caller's and writes as the caller asked.

    Attributes:
        texts: what it reads, special tokens written out.
        separators: what stands between each text and its answer.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    texts: Sequence[str]
    separators: Sequence[str]

    def generate(self, request: Request) -> Tensor:
        """`(rows * num_return_sequences, new)` answer ids, in this model's vocabulary."""
        pad = pad_token_id(request.config, self.tokenizer)
        input_ids, attention_mask = self.encode(pad)
        decoder_only = not self.model.config.is_encoder_decoder
        read = input_ids.shape[1] if decoder_only else 1
        most = min(request.max_new_tokens, self.room_after(read))
        config = _with_lengths(request, most)
        config.pad_token_id = pad
        view = _CallerView(request.prompt_ids, read)
        penalty = _repetition_penalty(config)
        processors = _penalties(config, request.prompt_ids.shape[1] if decoder_only else 1)
        processors += request.logits_processor
        if decoder_only:
            processors = [_ViewedProcessor(processor, view) for processor in processors]
            unpadded = _CallerView(_without_padding(request), read)
            penalty = [_ViewedProcessor(processor, unpadded) for processor in penalty]
        options: dict[str, Any] = dict(request.extra)
        options["logits_processor"] = [*self.own_processors(read, pad), *penalty, *processors]
        if request.stopping_criteria:
            criteria = list(request.stopping_criteria)
            options["stopping_criteria"] = [_ViewedCriterion(c, view) for c in criteria] if decoder_only else criteria
        if request.prefix_allowed_tokens_fn:
            allowed = request.prefix_allowed_tokens_fn
            options["prefix_allowed_tokens_fn"] = lambda row, ids: allowed(
                request.rows[row], view.of_row(row, ids) if decoder_only else ids
            )
        if request.streamer is not None:
            options["streamer"] = (
                _CallerStreamer(request.streamer, request.prompt_ids) if decoder_only else request.streamer
            )
        # what the caller left open must not be filled from the defaults of the model that writes
        model = copy.copy(self.model)
        model.generation_config = config
        generate: Any = model.generate
        with self.running(slice(None), attention_mask, cached=config.use_cache is not False):
            output = generate(input_ids=input_ids, attention_mask=attention_mask, **options)
        sequences: Tensor = output if isinstance(output, Tensor) else output.sequences
        answers = sequences[:, read:]
        if most < request.max_new_tokens:
            _warn_where_cut(answers, config)
        return answers

    def log_likelihood(self, targets: Sequence[str]) -> list[float]:
        """Log p(target | text) in nats, one pass for each."""
        return [float(scores.gather(1, ids[:, None]).sum()) for scores, ids in self._teacher_forced(targets)]

    def token_accuracy(self, targets: Sequence[str]) -> list[float]:
        """The share of each target's tokens that are the likeliest where they stand, one pass for each."""
        return [float((scores.argmax(-1) == ids).double().mean()) for scores, ids in self._teacher_forced(targets)]

    def own_processors(self, read: int, pad: int) -> list[LogitsProcessor]:
        """What changes the scores before anything that the caller asks for; made for one generation.

        Args:
            read: how many tokens stand before the answer in what it is shown.
            pad: what the texts are padded with.
        """
        return []

    def room_after(self, read: int) -> int:
        """How many tokens the model has room to write after it has read some.

        Raises:
            ContextOverflowError: it has room for none.
        """
        room = getattr(self.model.config, "max_position_embeddings", None)
        if room is None:
            return sys.maxsize
        if read >= room:
            raise ContextOverflowError(
                f"a prompt with its edits has {read} tokens and the model reads {room}; shorten the conversation or "
                'the edits, or answer these edits with override="verbatim"'
            )
        return int(room) - read

    def running(self, rows: slice, attention_mask: Tensor, *, cached: bool) -> AbstractContextManager[None]:
        """What holds while the model answers some of the rows, whose texts it reads with this mask.

        Args:
            rows: which.
            attention_mask: `(rows, longest)`.
            cached: whether its first pass alone reads the texts.
        """
        return nullcontext()

    def encode(self, pad: int) -> tuple[Tensor, Tensor]:
        """The texts as ids and mask, `(rows, longest)` each; answers follow the last token of a decoder alone."""
        rows = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in self.texts]
        width = max(map(len, rows))
        padding = [width - len(row) for row in rows]
        left = not self.model.config.is_encoder_decoder
        ids = [[pad] * more + row if left else row + [pad] * more for row, more in zip(rows, padding, strict=True)]
        mask = [
            [0] * more + [1] * len(row) if left else [1] * len(row) + [0] * more
            for row, more in zip(rows, padding, strict=True)
        ]
        return torch.tensor(ids, device=self.model.device), torch.tensor(mask, device=self.model.device)

    @torch.no_grad()
    def log_probabilities(self, row: int, answer: Sequence[int]) -> Tensor:
        """Log p(token | text, the answer's tokens before), `(answer, vocabulary)`, for an answer's token ids."""
        prompt = self.tokenizer(self.texts[row], add_special_tokens=False)["input_ids"]
        device = self.model.device
        read = torch.tensor([prompt], device=device)
        with self.running(slice(row, row + 1), torch.ones_like(read), cached=False):
            logits = answer_logits(self.model, read, torch.tensor([answer], device=device))
        return logits.float().log_softmax(-1)

    def _teacher_forced(self, targets: Sequence[str]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each text, the log probabilities where its target's tokens stand, and these tokens, `(answer,)`."""
        for row, (separator, target) in enumerate(zip(self.separators, targets, strict=True)):
            answer = continuation_ids(self.tokenizer, self.texts[row], separator + target)
            scores = self.log_probabilities(row, answer)
            yield scores, torch.tensor(answer, device=scores.device)


def answer_logits(model: PreTrainedModel, prompt: Tensor, answer: Tensor) -> Tensor:
    """The logits where each token of an answer stands, given the prompt and the tokens before it.

    Args:
        model: what reads them.
        prompt: ids, `(1, prompt)`.
        answer: ids, `(1, answer)`.

    Returns:
        `(answer, vocabulary)`.
    """
    count = answer.shape[1]
    if model.config.is_encoder_decoder:
        logits: Tensor = model(input_ids=prompt, labels=answer).logits[0]
        return logits
    # over a long prompt, logits that nobody reads cost as much as blocks do
    kept = {"logits_to_keep": count} if takes(model, "logits_to_keep") else {}
    logits = model(input_ids=torch.cat([prompt, answer[:, :-1]], dim=1), **kept).logits[0, -count:]
    return logits


def answer_separator(model: PreTrainedModel, prompt: Prompt) -> str:
    """What stands between a prompt and its answer: a space where the answer continues a running text."""
    runs_on = not model.config.is_encoder_decoder and not prompt.rendered and not prompt.text[-1:].isspace()
    return " " if runs_on else ""


def continuation_ids(tokenizer: PreTrainedTokenizerBase, text: str, answer: str) -> list[int]:
    """The token ids of an answer as they follow `text`."""
    before: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer(text + answer, add_special_tokens=False)["input_ids"]
    if whole[: len(before)] == before:
        return whole[len(before) :]
    # the answer's beginning merges with the text's end
    alone: list[int] = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return alone


def end_token_ids(config: GenerationConfig) -> list[int]:
    """The tokens that end an answer."""
    ends = config.eos_token_id
    return [] if ends is None else [int(ends)] if isinstance(ends, int) else [int(end) for end in ends]


def pad_token_id(config: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """What `generate` pads with; any token where nothing says so, since padding is masked."""
    pads = [config.pad_token_id, *end_token_ids(config), tokenizer.pad_token_id]
    return next((int(pad) for pad in pads if pad is not None), 0)


def decoder_start_token_id(config: GenerationConfig) -> int:
    """What an encoder-decoder model's output begins with."""
    start = config.decoder_start_token_id
    return int(start if start is not None else config.bos_token_id)


def _with_lengths(request: Request, most: int) -> GenerationConfig:
    """The caller's config, its lengths counted from the first new token; at most `most` are written."""
    config = copy.deepcopy(request.config)
    config.return_dict_in_generate = False
    config.max_new_tokens, config.max_length = most, None
    config.min_new_tokens, config.min_length = min(request.min_new_tokens, most) or None, None
    return config


def _warn_where_cut(answers: Tensor, config: GenerationConfig) -> None:
    """Warns of answers, `(rows, new)`, that fill all the room that there was."""
    ends = torch.tensor(end_token_ids(config), dtype=answers.dtype, device=answers.device)
    if answers.shape[1] == config.max_new_tokens and not torch.isin(answers, ends).any(1).all():
        warnings.warn(
            f"an answer was cut after {config.max_new_tokens} tokens, where the model's room ends: the prompt and its "
            "edits fill the rest; shorten the conversation or the edits",
            CutAnswerWarning,
            stacklevel=4,
        )


def _repetition_penalty(config: GenerationConfig) -> list[LogitsProcessor]:
    """Takes a config's repetition penalty out of it, and gives it as a processor."""
    penalty = config.repetition_penalty
    config.repetition_penalty = 1.0
    return [] if penalty in (None, 1.0) else [RepetitionPenaltyLogitsProcessor(penalty)]


def _penalties(config: GenerationConfig, begins: int) -> list[LogitsProcessor]:
    """Takes out of a config what counts the prompt's tokens, or looks at the scores, and gives it as processors.

    So they count the caller's prompt, without corrections, and come after what an override does to the scores.

    Args:
        config: it is changed.
        begins: how many of the tokens that they are shown stand before the answer.
    """
    penalties: list[LogitsProcessor] = []
    if config.no_repeat_ngram_size:
        penalties.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
        config.no_repeat_ngram_size = 0
    if config.exponential_decay_length_penalty is not None:
        start, factor = config.exponential_decay_length_penalty
        penalties.append(ExponentialDecayLengthPenalty((int(start), factor), end_token_ids(config), begins))
        config.exponential_decay_length_penalty = None
    return penalties


def _without_padding(request: Request) -> Tensor:
    """The caller's prompts, each row's first token in place of its padding, so that no penalty falls on a pad."""
    ids, mask = request.prompt_ids, request.attention_mask
    if mask is None or not ids.shape[1]:
        return ids
    mask = mask[:, -ids.shape[1] :].bool().to(ids.device)
    first = ids.gather(1, mask.int().argmax(1, keepdim=True))
    return torch.where(mask, ids, first)


class _CallerView:
    """Shows the caller's prompt where the model read another."""

    def __init__(self, prompt_ids: Tensor, read: int) -> None:
        self.prompt_ids = prompt_ids
        self.read = read

    def __call__(self, input_ids: Tensor) -> Tensor:
        """`(rows * beams, read + new)` ids as `(rows * beams, prompt + new)`."""
        prompt = self.prompt_ids.repeat_interleave(input_ids.shape[0] // self.prompt_ids.shape[0], dim=0)
        return torch.cat([prompt.to(input_ids.device), input_ids[:, self.read :]], dim=1)

    def of_row(self, row: int, ids: Tensor) -> Tensor:
        """`(read + new,)` ids of one row as `(prompt + new,)`."""
        return torch.cat([self.prompt_ids[row].to(ids.device), ids[self.read :]])


class _ViewedProcessor(LogitsProcessor):
    """A logits processor that is shown the caller's prompt."""

    def __init__(self, inner: LogitsProcessor, view: _CallerView) -> None:
        self.inner = inner
        self.view = view

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        return self.inner(self.view(input_ids), scores)


class _ViewedCriterion(StoppingCriteria):
    """A stopping criterion that is shown the caller's prompt."""

    def __init__(self, inner: StoppingCriteria, view: _CallerView) -> None:
        self.inner = inner
        self.view = view

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return self.inner(self.view(input_ids), scores, **kwargs)


class _CallerStreamer(BaseStreamer):
    """Gives a streamer the caller's prompt first, whatever the model read, and then the answer as it comes."""

    def __init__(self, streamer: BaseStreamer, prompt_ids: Tensor) -> None:
        self.streamer = streamer
        self.prompt_ids: Tensor | None = prompt_ids

    def put(self, value: Tensor) -> None:
        """Passes on what was generated."""
        if self.prompt_ids is not None:
            value, self.prompt_ids = self.prompt_ids.cpu(), None
        self.streamer.put(value)

    def end(self) -> None:
        """Passes on the end."""
        self.streamer.end()
