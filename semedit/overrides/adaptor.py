"""GRACE (Hartvigsen et al. 2023): each edit has one learned value that replaces a layer's output in its scope."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semedit.edits import Edit
from semedit.errors import AdaptorWarning, LayerError
from semedit.fingerprint import sampled_fingerprint
from semedit.hooks import embedding_path, first_layer, keeps_a_cache, layer_at, layer_inputs, replaced_output
from semedit.memory.edit_memory import EditMemory
from semedit.memory.learned import digest, learned_name
from semedit.overrides.adaptor_config import AdaptorConfig
from semedit.overrides.base import ModelCall, answer_separator, continuation_ids, decoder_start_token_id
from semedit.overrides.codebook import Floats, Label
from semedit.overrides.learning import Learned, Lesson, is_in_encoder, learn, replaced_positions, views
from semedit.overrides.probes import PROBES
from semedit.overrides.suffix import position_ids
from semedit.overrides.text import closing_token_ids
from semedit.prompts import Prompt, as_prompt

# how many prompts are learned from, or read, in one batch
_ROWS = 64


class AdaptorOverride:
    """The base answers with a value in place of one layer's output, learned for the edit when it is first needed.

    Keys and values are kept in the memory, for this base model, revision, layer and dtype: what was learned for
    another model is never used.

    Args:
        model, tokenizer: the base; its weights stay as they are.
        memory: holds the edits, and what was learned for them.
        config: None takes the defaults, see `AdaptorConfig`.

    Attributes:
        layer: the path of the layer.
        fingerprint: names the base and the layer that keys and values belong to.

    Raises:
        LayerError: the model has no such layer, or none that gives `(rows, positions, features)`.
    """

    name = "adaptor"
    writes_base_tokens = True

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        memory: EditMemory,
        config: AdaptorConfig | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.memory = memory
        self.config = config or AdaptorConfig()
        self.layer = self.config.layer or default_layer(model, self.config)
        self._module = layer_at(model, self.layer)
        if not hasattr(self._module, "weight") or self._module.weight.ndim != 2:
            raise LayerError(
                f"{self.layer} is a {type(self._module).__name__}; an adaptor stands at a linear layer, whose output "
                "is one vector for each token"
            )
        self.fingerprint = sampled_fingerprint(model, f"{self.layer} {self._template()}") + f"/{self.layer}"
        self._in_encoder = is_in_encoder(model, self.layer)

    # --- answering

    @contextmanager
    def prepare(self, prompts: Sequence[Prompt], edits: Sequence[Sequence[Edit]]) -> Iterator[AdaptorCall]:
        """The base, with the value of each prompt's best edit."""
        best = [row[0] for row in edits]
        values = self.values(list({edit.id: edit for edit in best}.values()))
        yield AdaptorCall(
            self.model,
            self.tokenizer,
            [prompt.text for prompt in prompts],
            [answer_separator(self.model, prompt) for prompt in prompts],
            adaptor=self,
            values=torch.stack([values[edit.id] for edit in best]),
        )

    def standing(self, values: Tensor, attention_mask: Tensor, *, cached: bool) -> AbstractContextManager[None]:
        """What is inside runs with the values of its rows in place.

        Args:
            values: `(rows, features)`.
            attention_mask: `(rows, prompt)`, of what the model reads.
            cached: whether the first pass alone reads the prompt.
        """
        if self.model.config.is_encoder_decoder and not self._in_encoder:
            attention_mask = attention_mask.new_ones(len(attention_mask), 1)  # the decoder's first token
        positions = replaced_positions(attention_mask, self.config.replace)
        cached = cached and keeps_a_cache(self.model)
        return replaced_output(self._module, values, positions, every_pass=not cached)

    # --- learning

    def learn(
        self, edits: Sequence[Edit] | None = None, *, starts: Mapping[str, Edit] | None = None, progress: bool = False
    ) -> dict[str, Learned]:
        """Learns the values of edits that have none yet; says, by id, how it went.

        `generate` does the same for an edit when it first answers; this is for doing it ahead, in batches.

        Args:
            edits: None takes all active edits of the memory but those that are answered verbatim.
            starts: for the ids of some edits, another edit from whose value theirs is learned on.
            progress: whether to show a bar.

        Warns:
            AdaptorWarning: an edit's target was not reached, or the edit had been learned for another model.
        """
        if edits is None:
            edits = [edit for edit in self.memory.list() if edit.override is None]
        kept = self.memory.store.learned(self.fingerprint, map(self.content, edits))
        missing = [edit for edit in edits if self.content(edit) not in kept]
        return self._learn(missing, starts or {}, progress=progress)

    def values(self, edits: Sequence[Edit]) -> dict[str, Tensor]:
        """The value `(features,)` of each edit, by id; what is missing is learned first."""
        contents = {edit.id: self.content(edit) for edit in edits}
        kept = self._load(contents.values())
        # what is erased meanwhile is learned and not kept
        learned = self._learn([edit for edit in edits if contents[edit.id] not in kept], {})
        return {id: learned[id].value.cpu() if id in learned else kept[content] for id, content in contents.items()}

    def content(self, edit: Edit) -> str:
        """What names an edit's value: digests of all that decides it beside the base and the layer."""
        return learned_name([edit.keys, edit.target], "value", self.config.of_values())

    def size(self, edits: Sequence[Edit]) -> int:
        """How many bytes are kept of the values of edits."""
        return sum(map(len, self.memory.store.learned(self.fingerprint, map(self.content, edits)).values()))

    def label(self, edit: Edit) -> Label:
        """The token ids that the edit's value is to bring about after its prompt."""
        return tuple(self._labels(edit.keys[:1], edit.target)[0])

    # --- keys

    def keys(self, texts: Sequence[str], *, progress: bool = False) -> Floats:
        """The key of each question, `(questions, features)`: the layer's input at the prompt's last token.

        Questions are read as the model reads a prompt that asks them. Keys are kept in the memory.

        Raises:
            LayerError: the layer is given token ids, as an embedding is.
        """
        names = {text: learned_name(text, "key", self.config.unit_keys) for text in texts}
        found = self.memory.store.learned(self.fingerprint, names.values())
        missing = [text for text, name in names.items() if name not in found]
        if missing:
            made = self.prompt_keys([as_prompt(self.tokenizer, text).text for text in missing], progress=progress)
            bodies = {names[text]: key.tobytes() for text, key in zip(missing, made, strict=True)}
            with self.memory.store.transaction() as writer:
                writer.put_learned(self.fingerprint, bodies)
            found |= bodies
        return np.stack([np.frombuffer(found[names[text]], np.float32) for text in texts])

    def prompt_keys(self, prompts: Sequence[str], *, progress: bool = False) -> Floats:
        """The key of each prompt as the model reads it, `(prompts, features)`."""
        keys = []
        for at in tqdm(range(0, len(prompts), _ROWS), desc="keys", disable=not progress):
            call = ModelCall(self.model, self.tokenizer, prompts[at : at + _ROWS], ())
            ids, mask = call.encode(self._pad)
            inputs = {"input_ids": ids, "attention_mask": mask}
            if self.model.config.is_encoder_decoder:
                start = decoder_start_token_id(self.model.generation_config)
                inputs["decoder_input_ids"] = ids.new_full((len(ids), 1), start)
                last = mask.sum(1) - 1 if self._in_encoder else torch.zeros_like(mask[:, 0])
            else:
                inputs |= position_ids(self.model, mask)
                last = torch.full_like(mask[:, 0], mask.shape[1] - 1)
            seen = layer_inputs(self.model, self._module, **inputs)
            if seen.ndim != 3:
                raise LayerError(
                    f"{self.layer} is given token ids, which have no distances; for the codebook name a layer above, "
                    'or choose routing="scope"'
                )
            keys.append(seen[torch.arange(len(ids), device=seen.device), last].float().cpu())
        made = torch.cat(keys)
        if self.config.unit_keys:
            made = torch.nn.functional.normalize(made, dim=1)
        return made.numpy()

    # --- what they share

    def _learn(
        self, edits: Sequence[Edit], starts: Mapping[str, Edit], *, progress: bool = False
    ) -> dict[str, Learned]:
        self._tell_of_other_models(edits)
        outcome: dict[str, Learned] = {}
        with tqdm(total=len(edits), desc="learning", disable=not progress) as bar:
            for batch in self._batches(edits, starts):
                lessons = [self._lesson(edit, starts.get(edit.id)) for edit in batch]
                learned = learn(self.model, self.layer, lessons, self.config, self._pad)
                outcome.update(zip((edit.id for edit in batch), learned, strict=True))
                with self.memory.store.transaction() as writer:
                    # what was erased meanwhile stays erased
                    newest = self.memory.store.newest(edit.id for edit in batch)
                    there = [e for e in batch if e.id not in newest or newest[e.id].action != "erase"]
                    bodies = {self.content(e): save({"value": outcome[e.id].value.cpu()}) for e in there}
                    writer.put_learned(self.fingerprint, bodies)
                bar.update(len(batch))
        self._tell_of_failures(edits, outcome)
        return outcome

    @property
    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else int(pad)

    def _template(self) -> str:
        return str(self.tokenizer.chat_template)

    def _batches(self, edits: Sequence[Edit], starts: Mapping[str, Edit]) -> Iterator[list[Edit]]:
        """Edits to learn together: as many as fit, and none beside the one that it goes on from."""
        batch: list[Edit] = []
        rows = 0
        for edit in edits:
            more = len(edit.keys) * (1 + self.config.views) + self.config.contexts
            if batch and (rows + more > _ROWS or starts.get(edit.id) in batch):
                yield batch
                batch, rows = [], 0
            batch.append(edit)
            rows += more
        if batch:
            yield batch

    def _lesson(self, edit: Edit, start: Edit | None) -> Lesson:
        asked = [*edit.keys, *(view for key in edit.keys for view in views(key, self.config.views))]
        asked += [question for question, _ in PROBES[: self.config.contexts]]
        texts = [as_prompt(self.tokenizer, question).text for question in asked]
        prompts = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        value = self.values([start])[start.id] if start else None
        return Lesson(prompts, self._labels(asked, edit.target), value, seed=int(digest(edit.prompt)[:8], 16))

    def _labels(self, questions: Sequence[str], target: str) -> list[list[int]]:
        labels = []
        for question in questions:
            prompt = as_prompt(self.tokenizer, question)
            said = answer_separator(self.model, prompt) + target
            labels.append(continuation_ids(self.tokenizer, prompt.text, said))
            if self.config.stop:
                labels[-1] = labels[-1] + closing_token_ids(self.model.generation_config, self.tokenizer)
        return labels

    def _load(self, names: Iterable[str]) -> dict[str, Tensor]:
        return {name: load(body)["value"] for name, body in self.memory.store.learned(self.fingerprint, names).items()}

    def _tell_of_other_models(self, edits: Sequence[Edit]) -> None:
        other = self.memory.store.learned_elsewhere(self.fingerprint, [self.content(edit) for edit in edits])
        if other:
            warnings.warn(
                f"{len(other)} of {len(edits)} edits were learned for {sorted(set(other.values()))[0]} and not for "
                f"{self.fingerprint}; they are learned anew, since a value of one model means nothing in another",
                AdaptorWarning,
                stacklevel=4,
            )

    def _tell_of_failures(self, edits: Sequence[Edit], outcome: dict[str, Learned]) -> None:
        failed = [edit for edit in edits if not outcome[edit.id].reproduced]
        if failed and self.config.stop_at_loss is not None:
            warnings.warn(
                f"{len(failed)} of {len(edits)} edits do not bring about their target in {self.config.steps} steps, "
                f"such as {failed[0].id} ({failed[0].prompt!r} => {failed[0].target!r}); take more steps, a greater "
                'norm_bound or a lower layer, or answer them with override="verbatim"',
                AdaptorWarning,
                stacklevel=4,
            )


@dataclass(frozen=True)
class AdaptorCall(ModelCall):
    """The base, which reads the prompts alone, with a value for each of them."""

    adaptor: AdaptorOverride
    values: Tensor

    def running(self, rows: slice, attention_mask: Tensor, *, cached: bool) -> AbstractContextManager[None]:
        """The values of these rows stand while the base reads and writes."""
        return self.adaptor.standing(self.values[rows], attention_mask, cached=cached)


def default_layer(model: PreTrainedModel, config: AdaptorConfig) -> str:
    """Where values stand if nobody says: at the embedding, or in the first block.

    At the embedding of an encoder fewer targets are reached (docs/grace.md), and a codebook needs distances, which
    tokens have not.
    """
    if config.routing == "codebook" or model.config.is_encoder_decoder:
        return first_layer(model)
    return embedding_path(model)
