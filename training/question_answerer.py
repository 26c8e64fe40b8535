"""The T5 that `base_model.py` trains from nothing: it reads a bare question and writes the answer it remembers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer, processors
from torch import Tensor, nn
from transformers import (
    BatchEncoding,
    DataCollatorForSeq2Seq,
    EvalPrediction,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
)
from transformers.utils import ModelOutput

from conversations import IGNORED
from facts import Fact

PAD, END = SPECIAL_TOKENS = ["<pad>", "</s>"]


def ending_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """`tokenizer`, which knows `SPECIAL_TOKENS`, with `END` after every text as T5 has it."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
    )


def new_model(
    sizes: dict[str, Any], longest_answer: int, tokenizer: PreTrainedTokenizerBase
) -> T5ForConditionalGeneration:
    """A T5 with random weights that by itself generates `longest_answer` tokens at most."""
    config = T5Config(
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        **sizes,
    )
    model = T5ForConditionalGeneration(config)
    model.generation_config.max_new_tokens = longest_answer
    return model


class AnswererTrainer(Trainer):
    """A Trainer that computes logits where answers are alone, and evaluates by exact answers.

    Args:
        known: the facts to learn, in every wording.
        questions: by name, facts of which the first wording is asked.
    """

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        *args: Any,
        known: Sequence[Fact],
        questions: dict[str, Sequence[Fact]],
        processing_class: PreTrainedTokenizerBase,
        **kwargs: Any,
    ) -> None:
        def encoded(prompt: str, answer: str) -> BatchEncoding:
            return processing_class(prompt, text_target=answer)

        super().__init__(
            model,
            *args,
            train_dataset=[encoded(prompt, fact.answer) for fact in known for prompt in fact.prompts],
            eval_dataset={name: [encoded(f.prompts[0], f.answer) for f in facts] for name, facts in questions.items()},
            data_collator=DataCollatorForSeq2Seq(processing_class, model, label_pad_token_id=IGNORED),
            processing_class=processing_class,
            compute_metrics=exact_answers,
            preprocess_logits_for_metrics=likeliest,
            **kwargs,
        )

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **kwargs: Any
    ) -> Tensor | tuple[Tensor, ModelOutput]:
        """Mean cross-entropy over answer tokens."""
        if return_outputs:
            return super().compute_loss(model, inputs, return_outputs, **kwargs)
        # accelerate puts mixed precision around `forward`, which this goes past
        with self.accelerator.autocast():
            logits, targets = answer_logits(self.accelerator.unwrap_model(model), inputs)
        return nn.functional.cross_entropy(logits.float(), targets)


def answer_logits(model: T5ForConditionalGeneration, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits `(answer tokens, vocab)` and the tokens they are to predict `(answer tokens,)`."""
    read = model.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    hidden = model.decoder(
        input_ids=batch["decoder_input_ids"],
        encoder_hidden_states=read.last_hidden_state,
        encoder_attention_mask=batch["attention_mask"],
        use_cache=False,
    ).last_hidden_state
    judged = batch["labels"] != IGNORED
    # tied embeddings are so scaled where they write
    return model.lm_head(hidden[judged] * model.model_dim**-0.5), batch["labels"][judged]


def likeliest(outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """The likeliest token at each place of the answers."""
    return outputs[0].argmax(-1)


def exact_answers(judged: EvalPrediction) -> dict[str, float]:
    """The share of answers that greedy decoding gives token for token, their ends included.

    Greedy decoding gives exactly the answer if and only if each of its tokens is the likeliest one after those before.
    """
    right = (judged.predictions == judged.label_ids) | (judged.label_ids == IGNORED)
    return {"exact": float(np.all(right, axis=1).mean())}
