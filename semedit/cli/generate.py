"""`semedit generate` and `semedit explain`."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from semedit.cli.adaptor import adaptor_config, override_of
from semedit.cli.assistant import Assistant
from semedit.cli.loading import load_model
from semedit.cli.opening import open_memory, scope_of
from semedit.cli.tables import print_json, print_route, route_fields
from semedit.model import wrap
from semedit.router import Router


def generate(args: argparse.Namespace) -> int:
    """Answers prompts, each as soon as it is read."""
    assistant = open_assistant(args)
    prompts = args.prompts or (line.rstrip("\n") for line in sys.stdin if line.strip())
    for prompt in prompts:
        messages = [{"role": "user", "content": prompt}]
        answer, route = assistant.answer(messages)
        if args.json:
            print_json({"prompt": prompt, "answer": answer, "route": route_fields(route)})
        else:
            print(answer, flush=True)
    return 0


def explain(args: argparse.Namespace) -> int:
    """Shows the route that a query takes."""
    [route] = Router(open_memory(args), scope_of(args)).route([args.query], args.namespaces)
    if args.json:
        print_json(route_fields(route))
    else:
        print_route(Console(), route)
    return 0


def open_assistant(args: argparse.Namespace) -> Assistant:
    """The model, wrapped with the memory, as the command line asks for them."""
    config = adaptor_config(args)
    memory = open_memory(args, make=True)
    base, tokenizer = load_model(args.model)
    override = override_of(args, config, base, tokenizer, memory)
    model = wrap(base, tokenizer, memory=memory, scope=scope_of(args), override=override)
    return Assistant(model, tokenizer, args.namespaces, args.max_new_tokens)
