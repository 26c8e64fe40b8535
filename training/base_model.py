"""Trains the small chat model that semedit ships: it knows facts, and it reads corrections placed before a question.

    accelerate launch training/base_model.py configs/base_model.yaml --data DATA/train --output out/base

trains from nothing, tokenizer included, and continues from the last checkpoint in --output where there is one. With
--start PATH it goes on training a finished model, with a fresh optimiser and the schedule of the config.

Where the config says `architecture: t5`, as configs/t5.yaml does, it trains a small T5 instead that answers bare
questions from memory.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
    set_seed,
)

from conversations import IGNORED, Conversations, PackedRows, Row, Turn, collate, encode, tensors
from facts import Fact, read_facts, read_wordings, subjects_of, without_subjects
from question_answerer import SPECIAL_TOKENS as ANSWERER_TOKENS
from question_answerer import AnswererTrainer, ending_tokenizer, new_model
from relations import relations_without
from runs import begin, digest
from semedit.overrides.in_context import INSTRUCTION
from yes_no import Edited, judged

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL_TOKENS = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def byte_pairs(texts: Sequence[str], vocabulary: int, special_tokens: list[str]) -> Tokenizer:
    """A lossless byte-level BPE tokenizer in which each digit is a token of its own, so that numbers can be copied."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer of `byte_pairs` for chat."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=byte_pairs(texts, vocabulary, SPECIAL_TOKENS),
        pad_token="<|pad|>",
        eos_token="<|end|>",
        padding_side="left",
        model_max_length=1024,
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.add_special_tokens({"additional_special_tokens": SPECIAL_TOKENS[2:]})
    fast.chat_template = CHAT_TEMPLATE
    return fast


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the hidden matrices (Jordan et al. 2024, update scale of Liu et al. 2025), AdamW for the rest."""

    def __init__(self, model: nn.Module, lr: float, weight_decay: float) -> None:
        embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
        hidden = [p for p in model.parameters() if p.ndim == 2 and p not in embeddings]
        other = [p for p in model.parameters() if p.ndim != 2 or p in embeddings]
        self.parts = [
            torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(other, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        super().__init__([{"params": hidden}, {"params": other}], {"lr": lr})
        self._share_groups()

    def _share_groups(self) -> None:
        # the very dictionaries of the parts, so that a scheduler's learning rate reaches them
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One step of both optimisers."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"state": {i: part.state_dict() for i, part in enumerate(self.parts)}, "param_groups": []}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the states of both."""
        for i, part in enumerate(self.parts):
            part.load_state_dict(state_dict["state"][i])
        self._share_groups()


class BaseModelTrainer(Trainer):
    """A Trainer that computes logits where answers are alone, and evaluates by exact answers.

    Args:
        questions: by name, units (see `conversations`) whose last answers are judged.
    """

    def __init__(self, *args: Any, questions: dict[str, list[list[list[Turn]]]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.questions = questions

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Muon with AdamW."""
        self.optimizer = MuonAdamW(self.model, self.args.learning_rate, self.args.weight_decay)
        return self.optimizer

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Mean cross-entropy over answer tokens."""
        # accelerate puts mixed precision around `forward`, which this goes past
        with self.accelerator.autocast():
            logits, targets = answer_logits(self.accelerator.unwrap_model(model), inputs)
        return nn.functional.cross_entropy(logits.float(), targets)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The share of exact answers for each set of questions."""
        self.model.eval()
        metrics = {
            f"eval_{name}": exact_answers(self.model, units, self.processing_class)
            for name, units in self.questions.items()
        }
        self.model.train()
        self.log(metrics)
        return metrics


def answer_logits(model: LlamaForCausalLM, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits `(answer tokens, vocab)` and the tokens they are to predict `(answer tokens,)`."""
    labels = batch["labels"][:, 1:]
    hidden = model.model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        use_cache=False,
    ).last_hidden_state[:, :-1]
    judged = labels != IGNORED
    return model.lm_head(hidden[judged]), labels[judged]


@torch.no_grad()
def exact_answers(
    model: LlamaForCausalLM, units: Sequence[Sequence[Sequence[Turn]]], tokenizer: PreTrainedTokenizerBase
) -> float:
    """The share of branches whose answer greedy decoding gives token for token, its end included.

    Greedy decoding gives exactly the answer if and only if each of its tokens is the likeliest one after those before.
    """
    right = 0
    branches = [branch for unit in units for branch in unit]
    encoded = [encode([branch], tokenizer)[0] for branch in branches]
    length = max(len(tokens) for tokens, _ in encoded)
    for start in range(0, len(encoded), 64):
        rows = []
        for branch in encoded[start : start + 64]:
            row = Row([], [], [], [], [])
            row.add([branch], length)
            rows.append(tensors(row, length, tokenizer.pad_token_id))
        batch = {name: tensor.to(model.device) for name, tensor in collate(rows).items()}
        logits, targets = answer_logits(model, batch)
        hit = logits.argmax(-1) == targets
        sizes = (batch["labels"][:, 1:] != IGNORED).sum(1).tolist()
        right += sum(bool(part.all()) for part in hit.split(sizes))
    return right / len(branches)


def split_facts(
    config: dict[str, Any], data: Path, left_out: Sequence[str], seed: int
) -> tuple[list[Fact], list[Fact]]:
    """The facts that the model is to know, and the zsRE facts held out; none names a subject left out."""
    rng = random.Random(seed)
    known = {}
    for source, facts in read_facts(data).items():
        kept = without_subjects(facts, left_out)
        count = config["facts"][source]
        known[source] = rng.sample(kept, len(kept) if count is None else count)
    held_out, known["zsre"] = known["zsre"][: config["held_out"]], known["zsre"][config["held_out"] :]
    return [fact for facts in known.values() for fact in facts], held_out


def questions_of(
    conversations: Conversations, held_out: Sequence[Fact], seed: int
) -> dict[str, list[list[list[Turn]]]]:
    """What is asked during training: known facts, alone and beside a correction, and corrections never trained on."""
    rng = random.Random(seed)
    known = rng.sample(conversations.known, len(held_out))
    edits = counterfactual(conversations, held_out, rng)
    correction = [((edit.prompts[0], edit.answer),) for edit in edits]
    return {
        "closed_book": [[[Turn(f.prompts[0], f.answer)]] for f in known],
        "beside_edit": [[[Turn(f.prompts[0], f.answer, c)]] for f, c in zip(known, correction, strict=True)],
        "edit": [[[Turn(e.prompts[0], e.answer, c)]] for e, c in zip(edits, correction, strict=True)],
        "rephrase": [[[Turn(e.prompts[1], e.answer, c)]] for e, c in zip(edits, correction, strict=True)],
        "yes_no": [[[Turn(*asked, c)]] for asked, c in zip(judged(edits, rng), correction, strict=True)],
    }


def counterfactual(conversations: Conversations, facts: Sequence[Fact], rng: random.Random) -> list[Edited]:
    """The facts with targets that are not true."""
    return [Edited(f.prompts, conversations.invention.answer(f, rng), "", (f.answer,)) for f in facts]


def texts_of(facts: Sequence[Fact]) -> list[str]:
    """All wordings and answers."""
    return [text for fact in facts for text in (*fact.prompts, fact.answer)]


def chat_trainer(
    config: dict[str, Any],
    options: argparse.Namespace,
    arguments: TrainingArguments,
    checkpoint: str | None,
    known: Sequence[Fact],
    held_out: Sequence[Fact],
) -> Trainer:
    """The trainer of a Llama that knows facts and reads corrections."""
    left_out = subjects_of(options.leave_out)
    wordings = {source: without_subjects(facts, left_out) for source, facts in read_wordings(options.data).items()}
    if checkpoint or options.start:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint or options.start)
    else:
        everything = [*known, *(fact for facts in wordings.values() for fact in facts)]
        tokenizer = train_tokenizer([INSTRUCTION, *texts_of(everything)], config["vocabulary"])
    if options.start:
        model = LlamaForCausalLM.from_pretrained(options.start, dtype=torch.float32)
    else:
        shape = LlamaConfig(
            vocab_size=len(tokenizer),
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **config["model"],
        )
        model = LlamaForCausalLM(shape)
    conversations = Conversations(
        known,
        wordings,
        config["reading"],
        config["share_reading"],
        relations_without(left_out),
        config["share_yes_no"],
    )
    batches = arguments.max_steps * arguments.gradient_accumulation_steps * arguments.world_size
    rows = PackedRows(
        conversations,
        tokenizer,
        rows=batches * arguments.train_batch_size,
        length=config["row_length"],
        seed=options.seed,
    )
    return BaseModelTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=collate,
        processing_class=tokenizer,
        questions=questions_of(conversations, held_out, options.seed),
    )


def question_answerer_trainer(
    config: dict[str, Any],
    options: argparse.Namespace,
    arguments: TrainingArguments,
    checkpoint: str | None,
    known: Sequence[Fact],
    held_out: Sequence[Fact],
) -> Trainer:
    """The trainer of a T5 that answers bare questions."""
    if checkpoint or options.start:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint or options.start)
    else:
        tokenizer = ending_tokenizer(byte_pairs(texts_of(known), config["vocabulary"], ANSWERER_TOKENS))
    if options.start:
        model = T5ForConditionalGeneration.from_pretrained(options.start, dtype=torch.float32)
    else:
        model = new_model(config["model"], config["longest_answer"], tokenizer)
    questions = {"closed_book": random.Random(options.seed).sample(known, len(held_out)), "held_out": held_out}
    return AnswererTrainer(
        model,
        arguments,
        processing_class=tokenizer,
        known=known,
        questions=questions,
        optimizers=(MuonAdamW(model, arguments.learning_rate, arguments.weight_decay), None),
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("config", type=Path, help="YAML file, such as configs/base_model.yaml")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of the training files (see training/README.md)"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints and, at the end, the model")
    parser.add_argument("--start", type=Path, help="folder of a finished model of this script to go on from")
    parser.add_argument(
        "--leave-out", type=Path, nargs="*", default=[], help="evaluation files whose subjects are never trained on"
    )
    parser.add_argument("--seed", type=int, default=0, help="of initialisation and data (default: 0)")
    options = parser.parse_args()
    config = yaml.safe_load(options.config.read_text())
    set_seed(options.seed)

    facts = split_facts(config, options.data, subjects_of(options.leave_out), options.seed)
    arguments = TrainingArguments(
        output_dir=str(options.output),
        seed=options.seed,
        use_cpu=not torch.accelerator.is_available(),
        remove_unused_columns=False,
        report_to="none",
        **config["training"],
    )
    new_trainer = question_answerer_trainer if config.get("architecture") == "t5" else chat_trainer
    start = str(options.start) if options.start else None
    checkpoint = begin(arguments, config, seed=options.seed, start=start, facts=digest(facts))
    trainer = new_trainer(config, options, arguments, checkpoint, *facts)
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        trained = trainer.accelerator.unwrap_model(trainer.model).to(torch.bfloat16)
        trained.config.use_cache = True  # the trainer turned it off
        trained.save_pretrained(options.output)
        trainer.processing_class.save_pretrained(options.output)


if __name__ == "__main__":
    main()
