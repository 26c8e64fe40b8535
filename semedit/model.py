"""`wrap`, and the model that it gives: a drop-in for the base whose answers edits override."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.utils import GenerateDecoderOnlyOutput, GenerateEncoderDecoderOutput

from semedit.arguments import GenerateArguments, raise_unsupported
from semedit.edits import Route
from semedit.errors import InvalidQueryError, UnsupportedArgumentError, WrapError
from semedit.memory.edit_memory import EditMemory
from semedit.memory.encoder import Encoder
from semedit.memory.store import EditStore
from semedit.overrides.adaptor import AdaptorOverride
from semedit.overrides.base import (
    Call,
    ModelCall,
    Override,
    Request,
    answer_separator,
    decoder_start_token_id,
    end_token_ids,
    pad_token_id,
)
from semedit.overrides.chosen import chosen_override
from semedit.overrides.codebook_router import CodebookRouter
from semedit.overrides.text import to_its_end
from semedit.overrides.verbatim import VerbatimOverride
from semedit.prompts import Prompt, as_prompt, read_prompt, read_prompts
from semedit.router import Ambiguous, Router
from semedit.scope.base import ScopeClassifier
from semedit.scope.calibration import Calibration
from semedit.scope.cross_encoder import CrossEncoderScope

# where the routes of this thread's or task's calls are kept, while somebody wants them
_taken: ContextVar[list[Route] | None] = ContextVar("semedit_routes_taken", default=None)


def wrap(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    memory: EditMemory | EditStore | str | Path | None = None,
    encoder: Encoder | None = None,
    scope: ScopeClassifier | None = None,
    override: Override | str = "in_context",
    ambiguous: Ambiguous = "base",
) -> EditedModel:
    """A model that answers by the edits in its memory, and as `model` wherever none is in scope.

    It shares the modules of `model`, is an instance of its class and of a class of the same name, and is used in its
    place; `model` itself goes on answering unedited.

    Args:
        model: a causal or encoder-decoder model; its weights stay as they are.
        tokenizer: the model's tokenizer.
        memory: the path of a memory file, made where there is none, a `postgresql://` URL, a store or a memory; None
            keeps the edits in this process alone.
        encoder: what finds edits; None takes all-MiniLM-L6-v2 as installed with semedit.
        scope: what decides; None takes `CrossEncoderScope()`, the classifier that semedit ships. By it the memory
            warns of new edits that contradict others, unless it has a scope of its own.
        override: how in-scope rows are answered: `"in_context"`, `"verbatim"`, `"adaptor"`, or an override object; a
            `CounterfactualOverride` or an `EnsembleOverride` brings a second model.
        ambiguous: who answers where edits of different facts, with different targets, claim a query about alike:
            `"base"`, the model as it is; `"best"`, the edit with the best score; `"all"`, these edits together.

    Raises:
        WrapError: the model is wrapped already or cannot generate, or an argument is not what it must be.
        StoreError: the memory cannot be opened.
        LoadError: the scope classifier cannot be loaded.
    """
    if isinstance(model, EditedModel):
        raise WrapError("this model is wrapped already; add edits to its `edits`, or wrap the model it was made from")
    if not isinstance(model, PreTrainedModel) or not model.can_generate():
        raise WrapError(f"expected a transformers model that can generate, found {type(model).__name__}")
    if ambiguous not in get_args(Ambiguous):
        raise WrapError(f"ambiguous must be 'base', 'best' or 'all', not {ambiguous!r}")
    if not isinstance(memory, EditMemory):
        memory = EditMemory(memory, encoder)
    elif encoder is not None:
        raise WrapError("a memory has its encoder already; give either an encoder or an EditMemory")
    override = chosen_override(override, model, tokenizer, memory)
    verbatim = override if isinstance(override, VerbatimOverride) else VerbatimOverride(model, tokenizer)
    if isinstance(override, AdaptorOverride) and override.config.routing == "codebook":
        router: Router | CodebookRouter = CodebookRouter(memory, override)
    else:
        scope = scope or CrossEncoderScope()
        router = Router(memory, scope, ambiguous)
        if memory.scope is None:
            memory.scope = scope
    view = type(type(model).__name__, (EditedModel, type(model)), {"__module__": type(model).__module__})
    edited: EditedModel = object.__new__(view)
    # the same modules, parameters and hooks under another class; nothing of the model is copied
    edited.__dict__.update(model.__dict__)
    edited.__dict__["edits"] = memory
    edited.__dict__["_editing"] = _Editing(model, tokenizer, router, override, verbatim)
    return edited


@dataclass(frozen=True)
class _Editing:
    """What an edited model has beside its base."""

    base: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    router: Router | CodebookRouter
    override: Override
    verbatim: Override

    def route(self, prompts: Sequence[Prompt], namespaces: Sequence[str] | None) -> list[Route]:
        """One route for each prompt."""
        routes = self.router.route([self.router.reads(prompt) for prompt in prompts], namespaces)
        # a codebook reads the whole prompt, and people are told of the query
        routes = [replace(route, query=prompt.query) for route, prompt in zip(routes, prompts, strict=True)]
        taken = _taken.get()
        if taken is not None:
            taken += routes
        return routes

    def override_of(self, route: Route) -> Override:
        """How the rows of a route are answered."""
        return self.verbatim if route.edits[0].override == "verbatim" else self.override


class EditedModel(PreTrainedModel):
    """What `wrap` gives; see there. Nothing that belongs to one call is kept on it.

    Attributes:
        edits: the edit memory.
    """

    edits: EditMemory
    _editing: _Editing

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that the model was wrapped with."""
        return self._editing.tokenizer

    def generate(
        self,
        *args: Any,
        queries: Sequence[str] | None = None,
        namespaces: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The base's `generate`, with the answers of edits in the rows that are in their scope.

        Which rows these are is decided once, on the prompts alone, before the first token. Where there are none, the
        base gets the very same call. Otherwise the base answers the whole batch, and the rows in scope are
        overwritten; where all rows are in scope, the base is not asked.

        Args:
            *args: as for the base.
            queries: what each row asks; None reads it from the prompts (the last user turn of a chat).
            namespaces: where to look for edits; None looks in `"default"` alone.
            **kwargs: as for the base.

        Returns:
            What the base returns. Where a row is edited and a `ModelOutput` is asked for, it holds `sequences` alone.

        Raises:
            UnsupportedArgumentError: a row is in scope, and an argument cannot be honoured for it.
            InvalidQueryError: `queries` are not one string for each row.
        """
        base_generate = super().generate  # type: ignore[misc]  # a mixin of the class that wrap makes gives it
        call = GenerateArguments.bind(base_generate, self.generation_config, args, kwargs)
        if call.input_ids is None and queries is None:
            if self.edits.holds_any(namespaces):
                raise UnsupportedArgumentError(
                    "without input_ids semedit cannot read what is asked; pass queries=[...], one for each row"
                )
            return base_generate(*args, **kwargs)
        prompts = self._prompts(call, queries)
        routes = self._editing.route(prompts, namespaces)
        rows = [i for i, route in enumerate(routes) if route.in_scope]
        least, most = call.new_tokens(self._counted(call), getattr(self.config, "max_position_embeddings", None))
        if not rows or most <= 0:  # no room for an answer: the base says so
            return base_generate(*args, **kwargs)

        call.refuse_unsupported()
        if call.input_ids is None:
            raise UnsupportedArgumentError("an edited row answers to input_ids, and the call has none; pass them")
        each = call.config.num_return_sequences or 1
        if call.get("streamer") is not None and len(prompts) * each > 1:
            raise_unsupported({"streamer"}, "stream one answer at a time")
        groups: dict[Override, list[int]] = {}
        for i in rows:
            groups.setdefault(self._editing.override_of(routes[i]), []).append(i)
        for override in groups:
            if not override.writes_base_tokens:
                call.refuse_base_tokens(override.name)

        unedited = base_generate(*args, **kwargs) if len(rows) < len(routes) else None
        answers: dict[int, Tensor] = {}
        for override, group in groups.items():
            request = self._request(call, group, least, most)
            with override.prepare([prompts[i] for i in group], [routes[i].edits for i in group]) as answering:
                written = answering.generate(request)
            answers.update(zip(group, written.split(each), strict=True))
        sequences = self._join(call, answers, each, unedited)
        if not call.config.return_dict_in_generate:
            return sequences
        output = GenerateEncoderDecoderOutput if self.config.is_encoder_decoder else GenerateDecoderOnlyOutput
        return output(sequences=cast("torch.LongTensor", sequences))

    @contextmanager
    def routes_taken(self) -> Iterator[list[Route]]:
        """Collects the decisions of the calls inside, of this thread or task: one for each row, in their order.

        For logs: what `generate` decided, and why, without asking `explain` again.
        """
        taken: list[Route] = []
        token = _taken.set(taken)
        try:
            yield taken
        finally:
            _taken.reset(token)

    def explain(self, query: str, *, namespaces: Sequence[str] | None = None) -> Route:
        """The decision for a query, and why."""
        [asked] = _checked([query])
        # the query as it is, also where it holds what a chat template writes
        prompt = replace(as_prompt(self._editing.tokenizer, asked), query=asked)
        return self._editing.route([prompt], namespaces)[0]

    def calibrate(
        self,
        traffic: Iterable[str],
        *,
        positives: Iterable[tuple[str, str]] = (),
        target: float = 0.001,
        namespaces: Sequence[str] | None = None,
    ) -> Calibration:
        """Chooses the threshold for a rate of false overrides on traffic, and keeps it with the memory.

        It is in force from the next call on, here and in every process that has the memory open with this classifier.
        Calibrating only ever tightens: the threshold is never below the classifier's own, which was chosen on near
        misses, and near misses are rare in traffic.

        Args:
            traffic: queries that no edit should answer; take out those that one should, of which the calibration's
                `closest` shows the likeliest.
            positives: the prompt or the id of an active edit, and a query that it should answer.
            target: false overrides per query.
            namespaces: where to look for edits; None looks in `"default"` alone.

        Returns:
            The threshold with what was measured at it, each rate with its 95 % bounds. Where even the upper bound of
            no override at all is above the target, `queries_needed` says how much traffic it takes.

        Raises:
            CalibrationError: there is no traffic or no edit, the target is not between 0 and 1, or a positive names no
                active edit.
            InvalidQueryError: a query is no text, or `traffic` or `namespaces` is no list.
        """
        return self._editing.router.calibrate(traffic, positives=positives, target=target, namespaces=namespaces)

    def log_likelihood(
        self,
        prompts: Sequence[str],
        targets: Sequence[str],
        *,
        queries: Sequence[str] | None = None,
        namespaces: Sequence[str] | None = None,
    ) -> list[float]:
        """Log p(target | prompt) in nats for each pair, teacher-forced; the route is decided on the prompt alone.

        A prompt that the chat template rendered is read as such, and any other with the special tokens that the
        tokenizer puts around a text, unless they are written out. Rows in scope are scored by their override.
        """
        calls = self._answering(prompts, targets, queries, namespaces)
        return [likelihood for call, target in calls for likelihood in call.log_likelihood([target])]

    def token_accuracy(
        self,
        prompts: Sequence[str],
        targets: Sequence[str],
        *,
        queries: Sequence[str] | None = None,
        namespaces: Sequence[str] | None = None,
    ) -> list[float]:
        """For each pair, the share of the target's tokens that are the likeliest after the prompt and those before.

        For evaluation alone, beside what is written freely: teacher forcing puts the target's own tokens in front.
        Prompts are read, routed and scored as for `log_likelihood`. No target may be empty.
        """
        if not all(targets):
            raise InvalidQueryError("a target is empty and has no tokens to be right about; leave its pair out")
        calls = self._answering(prompts, targets, queries, namespaces)
        return [accuracy for call, target in calls for accuracy in call.token_accuracy([target])]

    def _answering(
        self,
        prompts: Sequence[str],
        targets: Sequence[str],
        queries: Sequence[str] | None,
        namespaces: Sequence[str] | None,
    ) -> Iterator[tuple[Call, str]]:
        """What answers each prompt, the base where no edit is in scope, with the target to be scored by it."""
        if len(prompts) != len(targets):
            raise InvalidQueryError(f"there are {len(prompts)} prompts and {len(targets)} targets; give one for each")
        read = [read_prompt(self._editing.tokenizer, text) for text in _checked(prompts)]
        read = _asking(read, queries)
        for prompt, target, route in zip(read, targets, self._editing.route(read, namespaces), strict=True):
            if route.in_scope:
                with self._editing.override_of(route).prepare([prompt], [route.edits]) as answering:
                    yield answering, target
            else:
                base, tokenizer = self._editing.base, self._editing.tokenizer
                yield ModelCall(base, tokenizer, [prompt.text], [answer_separator(base, prompt)]), target

    def _prompts(self, call: GenerateArguments, queries: Sequence[str] | None) -> list[Prompt]:
        if call.input_ids is None:
            return [Prompt("", 0, query, query, rendered=False) for query in _checked(queries or ())]
        return _asking(read_prompts(self._editing.tokenizer, call.input_ids, call.attention_mask), queries)

    def _counted(self, call: GenerateArguments) -> int:
        """How many tokens lengths count before the first new one."""
        if self.config.is_encoder_decoder or call.input_ids is None:
            return 1
        return int(call.input_ids.shape[1])

    def _request(self, call: GenerateArguments, rows: Sequence[int], least: int, most: int) -> Request:
        assert call.input_ids is not None  # without them the call was refused
        extra = {name: call.get(name) for name in ("tokenizer", "synced_gpus") if call.get(name) is not None}
        return Request(
            prompt_ids=call.input_ids[list(rows)],
            attention_mask=None if call.attention_mask is None else call.attention_mask[list(rows)],
            config=call.config,
            min_new_tokens=least,
            max_new_tokens=most,
            logits_processor=call.get("logits_processor") or (),
            stopping_criteria=call.get("stopping_criteria") or (),
            prefix_allowed_tokens_fn=call.get("prefix_allowed_tokens_fn"),
            rows=rows,
            streamer=call.get("streamer"),
            extra=extra,
        )

    def _join(self, call: GenerateArguments, answers: Mapping[int, Tensor], each: int, unedited: Any) -> Tensor:
        """`(batch * num_return_sequences, longest)`: what each sequence begins with, its answer, and padding."""
        assert call.input_ids is not None
        pad = pad_token_id(call.config, self._editing.tokenizer)
        ends = end_token_ids(call.config)
        start = call.input_ids
        if self.config.is_encoder_decoder:
            start = start.new_full((len(start), 1), decoder_start_token_id(call.config))
        width = start.shape[1]
        if unedited is not None:
            unedited = unedited if isinstance(unedited, Tensor) else unedited.sequences
            written = {i: rows[:, width:] for i, rows in enumerate(unedited.split(each))}
        else:
            written = {}
        written.update(answers)
        lines = [
            torch.cat([start[i], to_its_end(row, ends).to(start.device)])
            for i in sorted(written)
            for row in written[i]
        ]
        return torch.nn.utils.rnn.pad_sequence(lines, batch_first=True, padding_value=pad)


def _asking(prompts: list[Prompt], queries: Sequence[str] | None) -> list[Prompt]:
    """The prompts, asking what the caller says that they ask."""
    if queries is None:
        return prompts
    checked = _checked(queries, len(prompts))
    return [replace(prompt, query=query) for prompt, query in zip(prompts, checked, strict=True)]


def _checked(queries: Sequence[str], rows: int | None = None) -> list[str]:
    if isinstance(queries, str) or any(not isinstance(query, str) for query in queries):
        raise InvalidQueryError(f"queries must be a list of strings, not {queries!r}")
    if rows is not None and len(queries) != rows:
        raise InvalidQueryError(f"there are {len(queries)} queries for {rows} rows; give one for each row")
    return list(queries)
