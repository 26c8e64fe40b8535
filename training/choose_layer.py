r"""Helps to choose the layer of an adaptor: learns the same edits at each layer of a model and says how well each did.

    python training/choose_layer.py MODEL --data DATA/train --config configs/grace_layer.yaml --plot out/layers

learns edits of zsRE's training facts, each with another answer of the same question; with your own edits and their
paraphrases,

    python training/choose_layer.py MODEL --edits edits.jsonl

For each layer it prints

    reliability    the share of edits whose prompt is then answered by the target
    generality     the same for rephrases, which were not learned from
    distances      between the keys of a prompt and its rephrases, and between those of different edits, from 0 to 2
    within radius  the share of rephrases within the radius with which the balls of 1 in 100 unrelated questions touch
    steps          the median over edits of the step at which the value that is kept was reached

Answers are generated greedily to their natural stop and judged by exact match after normalisation (case, punctuation,
articles). Scope is not decided here: every edit's value is put in place by hand. So for routing="scope" choose by
generality alone; routing="codebook" finds a rephrase only within the radius, so there a layer needs both. Rates whose
intervals overlap widely are not told apart; take a greater --count. An embedding is given token ids, which have no
distances.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from facts import Fact, read_facts
from measure_base_model import BATCH, LONGEST_ANSWER
from own import own_facts, read_own_edits
from semedit import AdaptorConfig, AdaptorOverride, Edit, EditMemory
from semedit.cli.loading import load_model
from semedit.errors import AdaptorWarning, LayerError
from semedit.evaluation.metrics import exact_match, wilson
from semedit.hooks import embedding_path, layer_at, linear_layers
from semedit.overrides.base import Request
from semedit.overrides.radius import choose_radius
from semedit.prompts import as_prompt

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from scope_plots import COLOURS, STYLE


@dataclass(frozen=True)
class LayerFigures:
    """What was measured at one layer.

    Attributes:
        reliability, generality: how many prompts, or rephrases, were answered by the target, and of how many.
        paraphrases: distances between a rephrase's key and its prompt's, `(rephrases,)`.
        unrelated: distances between a rephrase's key and the prompts of other edits, `(rephrases * (edits - 1),)`.
        within: the share of paraphrases within the radius that the distances give; all three are None at an embedding.
        steps: median over edits of the step at which the value that is kept was reached.
        seconds: per edit, learned in batches.
    """

    reliability: tuple[int, int]
    generality: tuple[int, int]
    paraphrases: np.ndarray | None
    unrelated: np.ndarray | None
    within: float | None
    steps: float
    seconds: float


def counterfactual_facts(facts: Sequence[Fact], count: int, rng: random.Random) -> list[Fact]:
    """Some facts, no two with one prompt, each with an answer that another fact of its question template has."""
    answers: dict[str, set[str]] = defaultdict(set)
    for fact in facts:
        answers[fact.template].add(fact.answer)
    distinct = {fact.prompts[0]: fact for fact in facts if "[X]" in fact.template and len(answers[fact.template]) > 1}
    drawn = rng.sample(list(distinct.values()), min(count, len(distinct)))
    return [replace(fact, answer=rng.choice(sorted(answers[fact.template] - {fact.answer}))) for fact in drawn]


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    memory: EditMemory,
    config: AdaptorConfig,
    facts: Sequence[Fact],
) -> LayerFigures:
    """Learns the facts, by their first prompts, at the config's layer, and asks for them."""
    edits = [Edit(id=str(i), prompt=fact.prompts[0], target=fact.answer) for i, fact in enumerate(facts)]
    adaptor = AdaptorOverride(model, tokenizer, memory, config)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AdaptorWarning)  # reliability tells
        learned = adaptor.learn(edits)
    seconds = (time.perf_counter() - start) / len(edits)

    rephrases = [(rephrase, edit) for fact, edit in zip(facts, edits, strict=True) for rephrase in fact.prompts[1:]]
    asked = right_answers(adaptor, [(edit.prompt, edit) for edit in edits])
    rephrased = right_answers(adaptor, rephrases)

    at_embedding = adaptor.layer == embedding_path(model)
    return LayerFigures(
        (asked, len(edits)),
        (rephrased, len(rephrases)),
        *((None, None, None) if at_embedding else distances(adaptor, edits, rephrases)),
        steps=float(np.median([one.steps for one in learned.values()])),
        seconds=seconds,
    )


def distances(
    adaptor: AdaptorOverride, edits: Sequence[Edit], rephrases: Sequence[tuple[str, Edit]]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Of paraphrases, of unrelated questions, and the share of the former within the radius that these give."""
    own = np.array([int(edit.id) for _, edit in rephrases])
    prompt_keys = adaptor.keys([edit.prompt for edit in edits])
    rephrase_keys = adaptor.keys([rephrase for rephrase, _ in rephrases])
    between = np.linalg.norm(rephrase_keys[:, None] - prompt_keys[None], axis=2)  # (rephrases, edits)
    paraphrase = own[:, None] == np.arange(len(edits))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AdaptorWarning)  # the share within the radius tells
        radius = choose_radius(between[paraphrase], between[~paraphrase])
    return between[paraphrase], between[~paraphrase], float((between[paraphrase] <= radius).mean())


def right_answers(adaptor: AdaptorOverride, asked: Sequence[tuple[str, Edit]]) -> int:
    """How many questions are answered by the target of the edit beside them, its value in place."""
    right = 0
    greedy = copy.deepcopy(adaptor.model.generation_config)
    greedy.do_sample, greedy.num_beams = False, 1
    for start in range(0, len(asked), BATCH):
        batch = asked[start : start + BATCH]
        prompts = [as_prompt(adaptor.tokenizer, question) for question, _ in batch]
        no_ids = torch.empty(len(batch), 0, dtype=torch.long)  # nothing here looks at the caller's own prompt
        request = Request(no_ids, greedy, min_new_tokens=0, max_new_tokens=LONGEST_ANSWER)
        with adaptor.prepare(prompts, [[edit] for _, edit in batch]) as call:
            answers = adaptor.tokenizer.batch_decode(call.generate(request), skip_special_tokens=True)
        right += sum(exact_match(a, edit.target) for a, (_, edit) in zip(answers, batch, strict=True))
    return right


def short_names(layers: Sequence[str]) -> tuple[list[str], str]:
    """What tells layers apart, such as "0" and "1", and the path that they share, such as "layers.*.down_proj"."""
    paths = [layer.split(".") for layer in layers]
    shortest = min(map(len, paths)) - 1
    before = next((i for i in range(shortest) if len({path[i] for path in paths}) > 1), shortest)
    most = shortest - before
    after = next((i for i in range(most) if len({path[-1 - i] for path in paths}) > 1), most)
    names = [".".join(path[before : len(path) - after]) for path in paths]
    return names, ".".join([*paths[0][:before], "*", *paths[0][len(paths[0]) - after :]])


def print_table(console: Console, figures: dict[str, LayerFigures]) -> None:
    """One row for each layer."""
    names, shared = short_names(list(figures))
    columns = ("layer", "reliability", "generality", "paraphrases", "unrelated", "within radius", "steps", "s / edit")
    table = Table(title=Text(f"{shared}; distances: 10, 50 and 90 %, of unrelated 1, 10 and 50 %"))
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for name, one in zip(names, figures.values(), strict=True):
        table.add_row(
            name,
            _rate(*one.reliability),
            _rate(*one.generality),
            _quantiles(one.paraphrases, (0.1, 0.5, 0.9)),
            _quantiles(one.unrelated, (0.01, 0.1, 0.5)),
            "-" if one.within is None else f"{one.within:.2f}",
            f"{one.steps:.0f}",
            f"{one.seconds:.2f}",
        )
    console.print(table)


def _rate(right: int, total: int) -> str:
    low, high = wilson(right, total)
    return f"{right / total:.2f} ({low:.2f} to {high:.2f})"


def _quantiles(distances: np.ndarray | None, at: Sequence[float]) -> str:
    if distances is None:
        return "-"
    return " ".join(f"{quantile:.2f}" for quantile in np.quantile(distances, at))


def draw(figures: dict[str, LayerFigures], path: Path) -> None:
    """Rates and distances over layers; the figure is written beside `path` as PNG and as SVG."""
    names, shared = short_names(list(figures))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.8, 4.4), layout="constrained")
        rates, distances = figure.subplots(1, 2)
        _draw_rates(rates, list(figures.values()))
        _draw_distances(distances, list(figures.values()))
        for axes in (rates, distances):
            axes.set_xticks(range(len(names)), names, rotation=30 if max(map(len, names)) > 3 else 0)
            axes.set_xlabel(f"layer ({shared})")
            axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
        figure.savefig(path.with_name(path.name + ".png"), dpi=160)
        figure.savefig(path.with_name(path.name + ".svg"), metadata={"Date": None})


def _draw_rates(axes: Axes, figures: Sequence[LayerFigures]) -> None:
    drawn = (
        ("reliability", [one.reliability for one in figures]),
        ("generality", [one.generality for one in figures]),
    )
    for (name, counts), colour, aside in zip(drawn, COLOURS, (-0.06, 0.06), strict=True):
        rates = np.array([right / total for right, total in counts])
        low, high = np.array([wilson(*count) for count in counts]).T
        # a bound may miss a rate of 0 or 1 by rounding
        spread = np.maximum([rates - low, high - rates], 0)
        at = np.arange(len(rates)) + aside
        axes.errorbar(at, rates, spread, fmt="o-", color=colour, linewidth=2, markersize=7, capsize=3, label=name)
    axes.set_ylim(-0.02, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.set_ylabel("answered by the target")


def _draw_distances(axes: Axes, figures: Sequence[LayerFigures]) -> None:
    measured = [(at, one) for at, one in enumerate(figures) if one.paraphrases is not None]
    places = np.array([at for at, _ in measured], float)
    drawn = (
        ("paraphrases", [one.paraphrases for _, one in measured]),
        ("unrelated", [one.unrelated for _, one in measured]),
    )
    for (name, distances), colour, aside in zip(drawn, COLOURS, (-0.19, 0.19), strict=True):
        axes.boxplot(
            distances,
            positions=places + aside,
            widths=0.32,
            whis=(1, 99),
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": colour, "edgecolor": colour},
            whiskerprops={"color": colour},
            capprops={"color": colour},
            medianprops={"color": "white", "linewidth": 2},
            label=name,
        )
    axes.set_ylim(bottom=0)
    axes.set_ylabel("distance of keys (whiskers: 1 to 99 %)")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model", help="name or path of the model")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of the training files")
    source.add_argument("--edits", type=Path, help="your edits, JSON lines as `semedit edit export` writes them")
    parser.add_argument("--config", type=Path, help="YAML file of the adaptor, such as configs/grace_layer.yaml")
    parser.add_argument(
        "--layers", nargs="+", metavar="PATH", help="paths of linear layers (default: the last one of each block)"
    )
    parser.add_argument("--count", type=int, default=24, help="how many edits are drawn (default: 24)")
    parser.add_argument("--plot", type=Path, help="write the figure here, with .png and .svg after it")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    if options.data:
        facts = counterfactual_facts(read_facts(options.data)["zsre"], options.count, rng)
    else:
        own = own_facts(read_own_edits(options.edits))
        facts = rng.sample(own, min(options.count, len(own)))
    if len(facts) < 2 or all(len(fact.prompts) < 2 for fact in facts):
        parser.error("it takes two edits or more, one of them with a paraphrase")

    model, tokenizer = load_model(options.model)
    if model.device.type == "cpu":
        model = model.float()  # half precision is slow there
    config = AdaptorConfig.from_file(options.config) if options.config else AdaptorConfig()
    try:
        layers = list(dict.fromkeys(options.layers or linear_layers(model)))
        for layer in layers:
            layer_at(model, layer)
    except LayerError as error:
        parser.error(str(error))
    memory = EditMemory()
    figures = {
        # keys of length 1, so that distances compare over layers
        layer: measure(model, tokenizer, memory, replace(config, layer=layer, unit_keys=True), facts)
        for layer in tqdm(layers, desc="layers")
    }
    console = Console(width=None if sys.stdout.isatty() else 132, highlight=False)  # a file has no width of its own
    print_table(console, figures)
    if options.plot:
        draw(figures, options.plot)
    best = max(layers, key=lambda layer: (figures[layer].generality[0], figures[layer].reliability[0]))
    console.print(Text(f"The best generality has {best}."))


if __name__ == "__main__":
    main()
