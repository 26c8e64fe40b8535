"""The adaptor of the commands that answer, and `semedit edit learn`."""

from __future__ import annotations

import argparse
import statistics
import sys

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semedit.cli.loading import load_model
from semedit.cli.opening import open_memory
from semedit.cli.tables import print_json
from semedit.errors import AdaptorConfigError
from semedit.memory.edit_memory import EditMemory
from semedit.overrides.adaptor import AdaptorOverride
from semedit.overrides.adaptor_config import AdaptorConfig
from semedit.overrides.base import Override


def adaptor_config(args: argparse.Namespace) -> AdaptorConfig:
    """The settings of `--adaptor-config`, or the defaults.

    Raises:
        AdaptorConfigError: the file cannot be read, or `--override` asks for no adaptor.
    """
    if args.adaptor_config is None:
        return AdaptorConfig()
    if args.override != "adaptor":
        raise AdaptorConfigError(
            f"--adaptor-config {args.adaptor_config} has no effect on --override {args.override}; "
            "give --override adaptor as well, or leave it away"
        )
    return AdaptorConfig.from_file(args.adaptor_config)


def override_of(
    args: argparse.Namespace,
    config: AdaptorConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    memory: EditMemory,
) -> Override | str:
    """What `--override` asks for, as `wrap` takes it."""
    if args.override == "adaptor":
        return AdaptorOverride(model, tokenizer, memory, config)
    return str(args.override)


def learn(args: argparse.Namespace) -> int:
    """Learns the values of all active edits; 1 where some do not bring about their target."""
    config = adaptor_config(args)
    memory = open_memory(args)
    model, tokenizer = load_model(args.model)
    adaptor = AdaptorOverride(model, tokenizer, memory, config)
    outcome = adaptor.learn(progress=sys.stderr.isatty())
    reached = sum(learned.reproduced for learned in outcome.values())
    steps = statistics.median(learned.steps for learned in outcome.values()) if outcome else None
    # what is answered verbatim has nothing to learn
    before = sum(edit.override is None for edit in memory.list()) - len(outcome)
    if args.json:
        print_json(
            {
                "learned": len(outcome),
                "reached": reached,
                "median_steps": steps,
                "learned_before": before,
                "base": adaptor.fingerprint,
            }
        )
    elif outcome:
        print(f"learned: {len(outcome)}, and {before} before, for {adaptor.fingerprint}")
        print(f"{reached} of {len(outcome)} reach their target, after a median of {steps:g} steps")
    else:
        print(f"nothing to learn: {before} of {before} edits are learned for {adaptor.fingerprint}")
    return 0 if reached == len(outcome) else 1
