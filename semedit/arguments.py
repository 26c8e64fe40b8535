"""What a call of `generate` asks for, and what of it an edited row can honour.

Every parameter of `generate` and every field of `GenerationConfig` stands in one of the sets below; a test walks them.
What stands in none, such as an input of a multimodal model, is refused as well.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from semedit.errors import UnsupportedArgumentError


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# parameters of `generate` that reach an edited row
HONOURED = _names("""
    inputs input_ids attention_mask generation_config logits_processor stopping_criteria prefix_allowed_tokens_fn
    synced_gpus streamer tokenizer
""")
# parameters and inputs that belong to the caller's own prompt and tokens, or ask for another way to decode
REFUSED = _names("""
    assistant_model negative_prompt_ids negative_prompt_attention_mask custom_generate inputs_embeds past_key_values
    cache decoder_input_ids decoder_inputs_embeds decoder_attention_mask encoder_outputs position_ids token_type_ids
    assistant_tokenizer trust_remote_code
""")
# fields of a generation config that reach an edited row
CONFIG_HONOURED = _names("""
    max_length max_new_tokens min_length min_new_tokens early_stopping max_time stop_strings do_sample num_beams
    use_mtp use_cache cache_implementation cache_config max_cache_len temperature top_k top_p min_p top_h typical_p
    epsilon_cutoff eta_cutoff repetition_penalty length_penalty no_repeat_ngram_size bad_words_ids renormalize_logits
    forced_bos_token_id forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens
    begin_suppress_tokens sequence_bias watermarking_config num_return_sequences return_dict_in_generate pad_token_id
    bos_token_id eos_token_id decoder_start_token_id compile_config disable_compile low_memory prefill_chunk_size
    is_assistant num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold
    max_matching_ngram_size assistant_early_exit assistant_lookbehind target_lookbehind assistant_ensemble_weight
    speculation_type continuous_batching_config num_beam_groups diversity_penalty prompt_lookup_num_tokens
""")
# fields that ask for what the model computed on the caller's own prompt, or for another way to decode
CONFIG_REFUSED = _names("""
    output_attentions output_hidden_states output_scores output_logits encoder_repetition_penalty
    encoder_no_repeat_ngram_size token_healing guidance_scale penalty_alpha dola_layers constraints force_words_ids
""")
# what speaks of the base's token ids, and so means nothing where another model, or none, writes the answer
BASE_TOKENS_ONLY = _names("""
    logits_processor stopping_criteria prefix_allowed_tokens_fn bad_words_ids forced_bos_token_id forced_eos_token_id
    suppress_tokens begin_suppress_tokens sequence_bias watermarking_config
""")
# values by which a refused field of a generation config asks for nothing
_OFF: tuple[Any, ...] = (None, False, 1, 1.0, 0)
# what `generate` writes where nothing says how much
DEFAULT_NEW_TOKENS = 20


@dataclass(frozen=True)
class GenerateArguments:
    """One call of `generate`, bound to the base's signature.

    Attributes:
        given: the arguments by name, extra keyword arguments among them.
        config: the generation config in force: the given one and the keywords over the model's own.
        own: the model's own.
        input_ids: `(batch, prompt)` token ids, or None where the call has none.
        attention_mask: `(batch, prompt)`, or None.
    """

    given: Mapping[str, Any]
    config: GenerationConfig
    own: GenerationConfig
    input_ids: Tensor | None
    attention_mask: Tensor | None

    @classmethod
    def bind(
        cls, generate: Callable[..., Any], defaults: GenerationConfig, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> GenerateArguments:
        """Reads a call as the base's `generate`, a bound method, would; `defaults` is its generation config."""
        given = dict(inspect.signature(generate).bind(*args, **kwargs).arguments)
        given.update(given.pop("kwargs", {}))
        config = copy.deepcopy(defaults)
        explicit = given.get("generation_config")
        if explicit is not None:
            config.update(**{name: value for name, value in explicit.to_dict().items() if value is not None})
        config.update(**{name: value for name, value in given.items() if hasattr(config, name)})
        ids = given.get("inputs") if given.get("inputs") is not None else given.get("input_ids")
        return cls(given, config, defaults, ids, given.get("attention_mask"))

    def get(self, name: str) -> Any:
        """The argument of that name, or None."""
        return self.given.get(name)

    def refuse_unsupported(self) -> None:
        """Raises UnsupportedArgumentError, naming each argument that an edited row cannot honour."""
        fields = vars(self.config)
        named = {
            name for name, value in self.given.items() if value is not None and name not in HONOURED | set(fields)
        }
        named |= {name for name in CONFIG_REFUSED if fields.get(name) not in _OFF or fields[name] is True}
        advice = "pass None where the model's own generation config asks for it, or disable edits for this call"
        raise_unsupported(named, advice)

    def refuse_base_tokens(self, override: str) -> None:
        """Raises UnsupportedArgumentError for arguments that speak of token ids the answer will not be made of.

        What the model's own generation config says of its tokens is no argument, and left to them.
        """
        asked = {name: self.given.get(name, getattr(self.config, name, None)) for name in BASE_TOKENS_ONLY}
        own = {name: getattr(self.own, name, None) for name in asked}
        named = {name for name, value in asked.items() if value not in (None, [], {}) and value != own[name]}
        raise_unsupported(
            named, f'the {override} override does not write with the base model; override="in_context" does'
        )

    def new_tokens(self, counted: int, room: int | None) -> tuple[int, int]:
        """The least and the most tokens to write.

        Args:
            counted: how many tokens `max_length` and `min_length` count before the first new one.
            room: how many positions the model has; it bounds the default length, as in `generate`.
        """
        config = self.config
        least = config.min_new_tokens if config.min_new_tokens is not None else (config.min_length or 0) - counted
        if config.max_new_tokens is not None:
            most = config.max_new_tokens
        elif config.max_length is not None:
            most = config.max_length - counted
        else:
            most = min(DEFAULT_NEW_TOKENS, room - counted) if room else DEFAULT_NEW_TOKENS
        return max(least, 0), most


def raise_unsupported(names: set[str], advice: str) -> None:
    """Raises UnsupportedArgumentError where names is not empty."""
    if names:
        listed = ", ".join(sorted(names))
        raise UnsupportedArgumentError(f"an edited row cannot honour {listed}; leave it out, or {advice}")
