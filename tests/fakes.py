"""Simple stand-ins whose results can be worked out by hand, and real tiny models that are built offline."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from semedit.memory.edit_memory import EditMemory
from semedit.scope.base import Pair

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL_TOKENS = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
KINDS = ("llama", "gpt2", "t5")


class WordEncoder:
    """A text is the set of its words: the cosine of two texts is their shared words over the root of n times m.

    Exact unless two words of a test fall on the same of 4,096 places.
    """

    dim = 4096

    def __init__(self, name: str = "words") -> None:
        self.fingerprint = f"{name}@1"
        self.encoded: list[list[str]] = []  # what each call was given

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        self.encoded.append(list(texts))
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                row[zlib.crc32(word.encode()) % self.dim] = 1.0
            row /= max(float(np.linalg.norm(row)), 1e-9)
        return vectors


class TableScope:
    """Scores pairs of (query, text) from a table; 0 where it says nothing."""

    def __init__(self, table: dict[tuple[str, str], float], threshold: float = 0.5, floor: float = 0.0) -> None:
        self.table = table
        self.threshold = threshold
        self.floor = floor
        self.fingerprint = "table@1"
        self.calls: list[list[Pair]] = []

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        self.calls.append(list(pairs))
        return [self.table.get((pair.query, pair.text), 0.0) for pair in pairs]


def log(memory: EditMemory) -> list[tuple[int, str, bool]]:
    """Every revision of a memory: its number, what it did, whether its edit is then active."""
    return [(edit.revision, edit.action, edit.active) for edit in memory.store.changes_since(0)]


def byte_tokenizer(*, chat: bool = False, pad: bool = True, opens: bool = False) -> PreTrainedTokenizerFast:
    """Each byte is a token, so that any text comes back as it was; some tokenizers open each text with a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(SPECIAL_TOKENS + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>" if pad else None,
        additional_special_tokens=SPECIAL_TOKENS[2:],
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )
    if opens:
        fast.bos_token = "<|system|>"
        opening = ("<|system|>", vocabulary["<|system|>"])
        tokenizer.post_processor = TemplateProcessing("<|system|> $A", special_tokens=[opening])
        fast.backend_tokenizer.post_processor = tokenizer.post_processor
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_model(kind: str, seed: int = 0, *, width: int = 32, spread: float = 0.5) -> PreTrainedModel:
    """A model with random weights, large enough that different prompts get different answers.

    One of width 256 and spread 0.1 is wide enough that a value can be learned that brings about a short target.
    """
    tokens = {"vocab_size": len(SPECIAL_TOKENS) + 256, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "llama":
            config = LlamaConfig(
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=2048,
                initializer_range=spread,
                **tokens,
            )
            model = LlamaForCausalLM(config)
        elif kind == "gpt2":
            config = GPT2Config(
                n_embd=width, n_layer=2, n_head=2, n_positions=2048, initializer_range=spread, **tokens
            )
            model = GPT2LMHeadModel(config)
        else:
            config = T5Config(
                d_model=width,
                d_kv=width // 2,
                d_ff=2 * width,
                num_layers=2,
                num_heads=2,
                decoder_start_token_id=0,
                initializer_factor=10 * spread,
                tie_word_embeddings=False,
                **tokens,
            )
            model = T5ForConditionalGeneration(config)
    # in single precision the rounding of another processor, or of a batch, decides between tokens that are nearly tied
    return model.double().eval()


def save_tiny_cross_encoder(folder: Path, vocabulary: int) -> None:
    """Saves a one-layer BERT with random weights and one label; its tokenizer is the caller's to save."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            num_labels=1,
            initializer_range=1.0,
        )
        BertForSequenceClassification(config).save_pretrained(folder)
