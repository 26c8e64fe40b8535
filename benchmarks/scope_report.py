"""The tables of benchmarks/scope.py."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from harness import report
from scope_data import Case, Category, Suite
from scope_measure import Rate, claims, counts, curve, wrong
from scope_traffic import TARGET, holds
from semedit.edits import Candidate, Route
from semedit.scope.base import ScopeClassifier
from semedit.scope.calibration import Calibration

if TYPE_CHECKING:
    from scope_plots import Curve

BAR_ROUTE, BAR_EIGHT = 1.5, 12.0


@dataclass(frozen=True)
class Results:
    """A suite, and by classifier the route of each of its queries."""

    suite: Suite
    routes: dict[str, dict[str, Route]]

    def panels(self, scopes: Mapping[str, ScopeClassifier]) -> Iterator[tuple[str, tuple[int, dict[str, Curve]]]]:
        """For each pair of categories to draw: a title, the number of queries out of scope, the curves."""
        from scope_plots import Curve

        for positive, negative in self.suite.drawn:
            curves = {}
            for name, scope in scopes.items():
                score = _cosine if name == "cosine alone" else _claim
                inside = claims(self.suite, self.routes[name], positive, score)
                outside = claims(self.suite, self.routes[name], negative, score)
                false, true = curve(inside, outside)
                chosen = (
                    float((outside.scores >= scope.threshold).mean()),
                    float((inside.scores[inside.right] >= scope.threshold).sum() / inside.in_scope),
                )
                curves[name] = Curve(false, true, chosen)
            yield f"{self.suite.name}: {positive} against {negative}", (len(outside.scores), curves)


def show_suite(results: Results) -> None:
    """The table of a suite."""
    rates = {name: counts(results.suite, routes) for name, routes in results.routes.items()}
    rows = []
    for name, category in results.suite.categories.items():
        cells = [_cell(category, by_category[name]) for by_category in rates.values()]
        rows.append((name, f"{next(iter(rates.values()))[name].total:,}", _bar(category), *cells))
    title = f"{results.suite.name}: {len(results.suite.edits):,} edits in memory"
    report(title, ("", "queries", "to reach", *rates), rows, results.suite.notes)


def as_json(results: Results) -> dict[str, Any]:
    """The figures of a suite."""
    rates = {name: counts(results.suite, routes) for name, routes in results.routes.items()}
    return {
        "suite": results.suite.name,
        "edits": len(results.suite.edits),
        "notes": results.suite.notes,
        "categories": [
            {
                "category": name.strip(),
                "counted": category.measure,
                "bar": category.bar,
                **{
                    who: {
                        "hits": by_category[name].hits,
                        "total": by_category[name].total,
                        "interval": by_category[name].interval,
                        "holds": meets(category, by_category[name]),
                    }
                    for who, by_category in rates.items()
                },
            }
            for name, category in results.suite.categories.items()
        ],
    }


def meets(category: Category, rate: Rate) -> bool | None:
    """Whether the rate is on the good side of the bar; None without a bar."""
    if category.bar is None:
        return None
    return rate.share >= category.bar if category.measure == "right" else rate.share <= category.bar


def show_errors(results: Results, who: str, count: int) -> None:
    """Some wrong cases of each category, always the same ones."""
    console = Console(highlight=False)
    routes = results.routes[who]
    prompts = {edit.id: edit.prompt for edit in results.suite.edits}
    for name, category in results.suite.categories.items():
        if not category.has_errors:
            continue
        cases = wrong(results.suite, routes, name)
        console.print(f"\n[bold]{results.suite.name}, {name.strip()}: {len(cases):,} wrong[/bold]")
        for case in random.Random(0).sample(cases, min(count, len(cases))):
            console.print(escape(_error(case, routes[case.query], prompts)), soft_wrap=True)


def _error(case: Case, route: Route, prompts: Mapping[str, str]) -> str:
    lines = [f"- {case.query}"]
    if route.candidates:
        answering = {edit.id for edit in route.edits[:1]}
        shown = next((c for c in route.candidates if c.edit.id in answering), route.candidates[0])
        verdict = "ambiguous" if route.ambiguous else "answers" if answering else "does not answer"
        lines.append(f"    {verdict}: {shown.key}  (score {_score(shown)}, cosine {shown.similarity:.2f})")
    if case.in_scope:
        own = next((candidate for candidate in route.candidates if candidate.edit.id in case.own), None)
        found = f"score {_score(own)}, cosine {own.similarity:.2f}" if own else "not among the candidates"
        lines.append(f"    its own: {own.key if own else prompts[min(case.own)]}  ({found})")
    return "\n".join(lines)


def show_calibration(made: Mapping[tuple[str, int], tuple[Calibration, Rate]]) -> list[dict[str, Any]]:
    """The table of calibrations by classifier and number of edits; gives its figures."""
    rows, figures = [], []
    for (name, edits), (calibration, checked) in made.items():
        low, high = calibration.overridden_bounds
        good = holds(calibration, checked)
        rows.append(
            (
                f"{name}, {edits:,} edits",
                f"{calibration.threshold:.4f}",
                f"{calibration.overridden} of {calibration.queries:,}",
                f"{low:.3%} to {high:.3%}",
                f"{checked.hits} of {checked.total:,}",
                f"{checked.share:.3%}",
                _verdict(good),
            )
        )
        figures.append(
            {
                "classifier": name,
                "edits": edits,
                "threshold": calibration.threshold,
                "overridden": calibration.overridden,
                "queries": calibration.queries,
                "bounds": [low, high],
                "checked": {"hits": checked.hits, "total": checked.total, "interval": checked.interval},
                "holds": good,
            }
        )
    columns = ("", "threshold", "overridden", "stated bounds", "on the other half", "rate", "bar")
    title = f"Calibration to {TARGET:.1%} on half of NQ-open"
    report(title, columns, rows, ["bar: the rate on the other half is within the upper bound"])
    return figures


def show_cost(costs: Mapping[str, Mapping[str, Any]]) -> None:
    """The table of costs by classifier."""
    rows = []
    for name, found in costs.items():
        ratio, eight = found["route_over_pass"], found["eight_over_pass"]
        rows += [
            (
                f"{name}: routing one query",
                f"{ratio['median']:.2f} ({ratio['quartile_1']:.2f} to {ratio['quartile_3']:.2f})",
                f"≤ {BAR_ROUTE}",
                _verdict(ratio["median"] <= BAR_ROUTE),
            ),
            (
                f"{name}: judging eight candidates",
                f"{eight['median']:.2f} ({eight['quartile_1']:.2f} to {eight['quartile_3']:.2f})",
                f"≤ {BAR_EIGHT:.0f}",
                _verdict(eight["median"] <= BAR_EIGHT),
            ),
        ]
    one = next(iter(costs.values()))
    notes = [
        f"medians over NQ-open, {one['edits']:,} edits in memory, the middle half in brackets; "
        f"one pass takes {1000 * one['pass_seconds']['median']:.1f} ms",
        *(
            f"{name}: {c['judged']:,} of {c['queries']:,} queries had a candidate to judge"
            for name, c in costs.items()
        ),
    ]
    report("Cost, in passes of the encoder over the same query", ("", "passes", "bar", ""), rows, notes)


def _cell(category: Category, rate: Rate) -> str:
    low, high = rate.interval
    text = f"{rate.share:.2%} ({100 * low:.2f} to {100 * high:.2f})"
    good = meets(category, rate)
    return text if good is None else f"{text} {_verdict(good)}"


def _bar(category: Category) -> str:
    if category.bar is None:
        return category.measure
    return f"{'≥' if category.measure == 'right' else '≤'} {100 * category.bar:g}% {category.measure}"


def _verdict(good: bool) -> str:
    return "[green]holds[/green] " if good else "[red]missed[/red]"


def _score(candidate: Candidate) -> str:
    return "none" if candidate.score is None else f"{candidate.score:.3f}"


def _claim(candidate: Candidate) -> float:
    return candidate.claim


def _cosine(candidate: Candidate) -> float:
    # SimilarityScope scores nothing below its threshold
    return max(candidate.similarity, 0.0)
