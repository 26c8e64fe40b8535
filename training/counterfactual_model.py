r"""Trains SERAC's counterfactual model: it reads an edit and a query in its scope and answers as the edit says.

    accelerate launch training/counterfactual_model.py configs/counterfactual_model.yaml --data DATA/train \
        --start NAME_OR_PATH --output out/counterfactual

starts from any causal or encoder-decoder model; `--scratch t5` or `--scratch llama` trains one from nothing, tokenizer
included, in the sizes of the config. It continues from the last checkpoint in --output where there is one. Your own
edits (`--edits edits.jsonl`) take part with all their wordings, and with other targets than their own, since the model
is to read and not to know them.

Beside the weights stands `training_log.jsonl`: what was measured while training, before its first step too.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
    set_seed,
)

from base_model import counterfactual, split_facts, train_tokenizer
from conversations import IGNORED, Conversations, Turn
from facts import read_wordings, subjects_of, without_subjects
from own import own_facts, read_own_edits
from relations import relations_without
from runs import begin, digest, write_log
from semedit import CounterfactualOverride, Edit
from semedit.evaluation.metrics import normalised
from semedit.overrides.base import ModelCall, Request, continuation_ids, pad_token_id
from semedit.overrides.text import closing_token_ids
from semedit.prompts import Prompt
from yes_no import Edited, judged, read_edits

LONGEST_ANSWER = 64
BATCH = 64


class EditQueries(Dataset[Turn]):
    """Queries in the scope of an edit, with the answers that it gives them.

    Turn `index` is drawn from the seed and the index alone, so that training resumes where it stopped.

    Args:
        conversations: draws the edits.
        queries: how often each kind is asked: `question`, `rephrase`, `yes_no`.
        count: how many turns there are.
        seed: of the draw.
    """

    def __init__(self, conversations: Conversations, queries: Mapping[str, float], count: int, seed: int) -> None:
        self.conversations = conversations
        self.queries = queries
        self.count = count
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Turn:
        rng = random.Random(self.seed * 1_000_003 + index)
        edited, rival = self.conversations.contrasted(self.conversations.edited(rng), (), rng)
        prompt = rng.choice(edited.prompts)
        question, rephrase = self.conversations.in_scope(edited, prompt, rng)
        yes_no = rng.choice(self.conversations.yes_or_no(edited, rival, rng))
        turns = {"question": question, "rephrase": rephrase, "yes_no": yes_no}
        [kind] = rng.choices(list(self.queries), list(self.queries.values()))
        return Turn(turns[kind].query, turns[kind].answer, ((prompt, edited.answer),))


def reading(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> ModelCall:
    """The model and what `semedit.CounterfactualOverride` has it read for each turn."""
    prompts = [Prompt(turn.query, 0, turn.query, turn.query, rendered=False) for turn in turns]
    edits = [[Edit(id="-", prompt=prompt, target=target) for prompt, target in turn.corrections] for turn in turns]
    with CounterfactualOverride(model, tokenizer, model, tokenizer).prepare(prompts, edits) as call:
        return call.inner


def collate(
    turns: Sequence[Turn], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, longest: int
) -> dict[str, Tensor]:
    """A batch for the model: `(turns, length)` each, padded on the right; turns of over `longest` tokens are left out.

    Labels are the answers and their ends; those of a causal model stand where it reads, `IGNORED` elsewhere.
    """
    call = reading(model, tokenizer, turns)
    closing = closing_token_ids(model.generation_config, tokenizer)
    rows = []
    for turn, text, separator in zip(turns, call.texts, call.separators, strict=True):
        read = tokenizer(text, add_special_tokens=False)["input_ids"]
        answer = continuation_ids(tokenizer, text, separator + turn.answer) + closing
        causal = (read + answer, [IGNORED] * len(read) + answer)
        row = (read, answer) if model.config.is_encoder_decoder else causal
        if max(map(len, row)) <= longest:
            rows.append(row)
    inputs, labels = ([torch.tensor(ids) for ids in column] for column in zip(*rows, strict=True))
    pad = pad_token_id(model.generation_config, tokenizer)
    return {
        "input_ids": pad_sequence(inputs, batch_first=True, padding_value=pad),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in inputs], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    }


class CounterfactualTrainer(Trainer):
    """A Trainer that evaluates by free generation.

    Args:
        questions: by name, turns whose answers are judged.
    """

    def __init__(self, *args: Any, questions: Mapping[str, Sequence[Turn]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.questions = questions

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The share of exact answers to each set of questions."""
        model = self.accelerator.unwrap_model(self.model).eval()
        metrics = {
            f"eval_{name}": exact_match(model, self.processing_class, turns, name)
            for name, turns in self.questions.items()
        }
        self.model.train()
        self.log(metrics)
        return metrics


def exact_match(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], name: str) -> float:
    """The share of turns answered exactly, after normalisation, when decoded greedily to a natural stop."""
    right = 0
    for start in tqdm(range(0, len(turns), BATCH), desc=name, leave=False):
        batch = turns[start : start + BATCH]
        # nothing here looks at the caller's own prompt
        no_ids = torch.empty(len(batch), 0, dtype=torch.long, device=model.device)
        request = Request(no_ids, model.generation_config, min_new_tokens=0, max_new_tokens=LONGEST_ANSWER)
        rows = reading(model, tokenizer, batch).generate(request)
        answers = tokenizer.batch_decode(rows, skip_special_tokens=True)
        right += sum(normalised(a) == normalised(turn.answer) for a, turn in zip(answers, batch, strict=True))
    return right / len(turns)


def questions_of(edits: Sequence[Edited], seed: int) -> dict[str, list[Turn]]:
    """What is asked of held-out edits: the question, the rephrase, and whether an answer is right."""
    corrections = [((edit.prompts[0], edit.answer),) for edit in edits]
    asked = {
        "question": [(edit.prompts[0], edit.answer) for edit in edits],
        "rephrase": [(edit.prompts[1], edit.answer) for edit in edits],
        "yes_no": judged(edits, random.Random(seed)),
    }
    return {
        name: [Turn(query, answer, c) for (query, answer), c in zip(queries, corrections, strict=True)]
        for name, queries in asked.items()
    }


def load(name: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model, causal or encoder-decoder, in float32, and its tokenizer."""
    kind = AutoModelForSeq2SeqLM if AutoConfig.from_pretrained(name).is_encoder_decoder else AutoModelForCausalLM
    return kind.from_pretrained(name, dtype=torch.float32), AutoTokenizer.from_pretrained(name)


def from_scratch(
    kind: str, sizes: Mapping[str, Any], vocabulary: int, texts: Sequence[str]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A new model and its tokenizer: a llama reads a chat turn, a t5 the edit and then the query, as in the paper."""
    tokenizer = train_tokenizer(texts, vocabulary)
    tokens = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(bos_token_id=None, **tokens, **sizes)), tokenizer
    tokenizer.chat_template = None
    return T5ForConditionalGeneration(
        T5Config(decoder_start_token_id=tokenizer.pad_token_id, **tokens, **sizes)
    ), tokenizer


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("config", type=Path, help="YAML file, such as configs/counterfactual_model.yaml")
    parser.add_argument("--data", type=Path, required=True, help="folder of the training files")
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints and, at the end, the model")
    beginning = parser.add_mutually_exclusive_group(required=True)
    beginning.add_argument("--start", help="name or path of the model to start from, causal or encoder-decoder")
    beginning.add_argument("--scratch", choices=["t5", "llama"], help="start from nothing")
    parser.add_argument("--edits", type=Path, help="your edits, a JSON-lines file as `semedit edit export` writes it")
    parser.add_argument(
        "--held-out",
        type=Path,
        help="edits to evaluate on: prompt, target_new, rephrase_prompt, ground_truth (default: zsRE facts held out)",
    )
    parser.add_argument(
        "--leave-out", type=Path, nargs="*", default=[], help="evaluation files whose subjects are never trained on"
    )
    parser.add_argument("--seed", type=int, default=0, help="of initialisation and data (default: 0)")
    options = parser.parse_args()
    config = yaml.safe_load(options.config.read_text())
    set_seed(options.seed)

    left_out = subjects_of(options.leave_out)
    known, held_out = split_facts(config, options.data, left_out, options.seed)
    wordings = {source: without_subjects(facts, left_out) for source, facts in read_wordings(options.data).items()}
    weights = dict(config["reading"])
    if options.edits:
        wordings["own"], weights["own"] = own_facts(read_own_edits(options.edits)), config["reading_own"]
    conversations = Conversations(known, wordings, weights, 1.0, relations_without(left_out))

    arguments = TrainingArguments(
        output_dir=str(options.output),
        seed=options.seed,
        use_cpu=not torch.accelerator.is_available(),
        remove_unused_columns=False,
        report_to="none",
        **config["training"],
    )
    everything = [*known, *(fact for facts in wordings.values() for fact in facts)]
    checkpoint = begin(
        arguments, config, seed=options.seed, start=options.start or options.scratch, facts=digest(everything)
    )
    if checkpoint or options.start:
        model, tokenizer = load(checkpoint or options.start)
    else:
        texts = [text for fact in everything for text in (*fact.prompts, fact.answer)]
        model, tokenizer = from_scratch(
            options.scratch, config["scratch"][options.scratch], config["vocabulary"], texts
        )
    turns = arguments.max_steps * arguments.train_batch_size * arguments.world_size
    queries = EditQueries(
        conversations, config["queries"], turns * arguments.gradient_accumulation_steps, options.seed
    )
    rng = random.Random(options.seed)
    edits = read_edits(options.held_out) if options.held_out else counterfactual(conversations, held_out, rng)
    trainer = CounterfactualTrainer(
        model=model,
        args=arguments,
        train_dataset=queries,
        eval_dataset=queries,
        data_collator=lambda batch: collate(batch, model, tokenizer, config["longest"]),
        processing_class=tokenizer,
        questions=questions_of(edits[: config["held_out"]], options.seed),
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        trained = trainer.accelerator.unwrap_model(trainer.model).to(torch.bfloat16)
        trained.config.use_cache = True  # the trainer turned it off
        trained.save_pretrained(options.output)
        tokenizer.save_pretrained(options.output)
        write_log(trainer)


if __name__ == "__main__":
    main()
