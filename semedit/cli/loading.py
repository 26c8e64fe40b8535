"""Loads language models."""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from semedit.errors import LoadError
from semedit.models import shipped_model_path


def load_model(name: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model of that name or path, on the best device there is, and its tokenizer; None gives the shipped one."""
    quieten()
    source = name or str(shipped_model_path())
    try:
        encoder_decoder = AutoConfig.from_pretrained(source).is_encoder_decoder
        kind = AutoModelForSeq2SeqLM if encoder_decoder else AutoModelForCausalLM
        return kind.from_pretrained(source, device_map="auto"), AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise LoadError(f"cannot load the model {source}: {error}") from error


def quieten() -> None:
    """Keeps notes and progress bars of loading off the terminal."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
