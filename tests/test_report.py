"""The report of an evaluation: exact cells, the numbers behind the plots, and a page that no prompt can break."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from semedit.evaluation.metrics import Mean, Rate
from semedit.evaluation.page import worst, write_page
from semedit.evaluation.plots import COLOURS, DARK, draw
from semedit.evaluation.report import Cell, Section, describe, metric_sections, retention_sections, table, write_csv
from semedit.evaluation.results import Asked, Checkpoint, Evaluation, Row
from semedit.evaluation.series import BINS, Line, histogram, mean_lines, rate_lines, routings, trade_off

PLOTS = ["overrides", "retention", "scores", "time"]
HOSTILE = '<script>alert("1")</script> & <b> $other$_'


def asked(kind: str, score: float | None = None, *, threshold: float = 0.5, **fields: object) -> Asked:
    """A probe that a router with this threshold saw; its prompt says its score."""
    overridden = score is not None and score >= threshold
    start = Asked("1", kind, "", f"{kind} {score}", ("yes",), "no", False, False, overridden, (), score, "a reason")
    return replace(start, **fields)


def point(
    edits: int,
    rates: dict[str, Rate] | None = None,
    means: dict[str, Mean] | None = None,
    probes: tuple[Asked, ...] = (),
    threshold: float | None = None,
) -> Checkpoint:
    return Checkpoint(edits, rates or {}, means or {}, probes, threshold)


def evaluation(*rows: Row, **fields: object) -> Evaluation:
    return replace(Evaluation("zsRE", "a model", "sequential", 3, None, 0, rows), **fields)


# of the kind that no edit should answer, the scores cross those of the kind that one should
PROBES = (
    *(asked("generality", score) for score in (0.95, 0.9, 0.6, 0.45, None)),
    *(asked("unrelated", score) for score in (0.72, 0.5, 0.21, None, None, None, None, None)),
)


@pytest.fixture(scope="module")
def two_methods() -> Evaluation:
    """The unedited model and an override, at 1 and 10 edits."""
    unedited = Row(
        "unedited",
        "",
        (
            point(1, {"generality": Rate(0, 1)}, {"seconds_per_answer": Mean(0.2, 10)}),
            point(10, {"generality": Rate(0, 10)}, {"seconds_per_answer": Mean(0.3, 10)}),
        ),
    )
    in_context = Row(
        "in_context",
        "a note [bold]as it is[/bold]",
        (
            point(1, {"generality": Rate(1, 1), "edit_retention": Rate(1, 1)}, {"seconds_per_answer": Mean(0.5, 10)}),
            point(
                10,
                {"generality": Rate(9, 10), "locality_unrelated": Rate(10, 10), "edit_retention": Rate(9, 10)},
                {
                    "teacher_forced_reliability": Mean(7.5, 10),
                    "fluency": Mean(42.0, 10),
                    "seconds_per_edit": Mean(25.0, 10),
                    "seconds_per_answer": Mean(0.6, 10),
                    "overhead": Mean(2.0, 1),
                    "bytes_per_edit": Mean(46_000, 10),
                },
                PROBES,
                0.5,
            ),
        ),
    )
    return evaluation(unedited, in_context)


def test_cells_of_all_metrics(two_methods: Evaluation) -> None:
    none, nothing = Cell("0.00%", "0/10", "0.00 to 27.75"), Cell()
    nine = Cell("90.00%", "9/10", "59.58 to 98.21")

    assert metric_sections(two_methods) == [
        Section("Answers that should change", ("generality",), (("unedited", (none,)), ("in_context", (nine,)))),
        Section(
            "Answers that must not change",
            ("locality unrelated",),
            (("unedited", (nothing,)), ("in_context", (Cell("100.00%", "10/10", "72.25 to 100.00"),))),
        ),
        Section("As edits pile up", ("edit retention",), (("unedited", (nothing,)), ("in_context", (nine,)))),
        Section(
            "Teacher-forced (not generated)",
            ("teacher-forced reliability",),
            (("unedited", (nothing,)), ("in_context", (Cell("75.00%", "of 10"),))),
        ),
        Section(
            "Cost",
            ("fluency", "seconds per edit", "seconds per answer", "overhead", "bytes per edit"),
            (
                ("unedited", (nothing, nothing, Cell("30.0 ms", "of 10"), nothing, nothing)),
                (
                    "in_context",
                    (
                        Cell("4.20 bits", "of 10"),
                        Cell("2.50 s", "of 10"),
                        Cell("60.0 ms", "of 10"),
                        Cell("2.00 times"),
                        Cell("4.6 kB", "of 10"),
                    ),
                ),
            ),
        ),
    ]


def test_cells_of_retention_leave_out_what_was_not_measured(two_methods: Evaluation) -> None:
    one, none_of_one = Cell("100.00%", "1/1", "20.65 to 100.00"), Cell("0.00%", "0/1", "0.00 to 79.35")
    nine, none_of_ten = Cell("90.00%", "9/10", "59.58 to 98.21"), Cell("0.00%", "0/10", "0.00 to 27.75")
    late = Row("late", "", (point(10, {"generality": Rate(9, 10)}),))

    assert retention_sections(replace(two_methods, rows=(*two_methods.rows, late))) == [
        Section("Edit retention over the number of edits", ("1 edit", "10 edits"), (("in_context", (one, nine)),)),
        Section(
            "Generality over the number of edits",
            ("1 edit", "10 edits"),
            (("unedited", (none_of_one, none_of_ten)), ("in_context", (one, nine)), ("late", (Cell(), nine))),
        ),
    ]


def test_details_stand_beside_their_metric_and_unknown_metrics_are_not_lost() -> None:
    names = ("behaviour: b", "portability: one-hop", "reliability", "portability", "novelty", "behaviour: a")
    row = Row("in_context", "", (point(1, dict.fromkeys(names, Rate(1, 1)), {"score": Mean(0.5, 1)}),))

    assert [(section.title, section.columns) for section in metric_sections(evaluation(row))] == [
        ("Answers that should change", ("reliability", "portability: one-hop", "portability")),
        ("Behaviour (judged by likelihoods)", ("behaviour: b", "behaviour: a")),
        ("Others", ("novelty", "score")),
    ]


def test_a_method_that_stopped_early_says_so() -> None:
    rates = {"generality": Rate(1, 1)}
    early, late = Row("early", "", (point(1_000, rates),)), Row("late", "", (point(2_000, rates),))

    (section,) = metric_sections(evaluation(early, late))

    assert [method for method, _ in section.rows] == ["early (1,000 edits)", "late"]


def test_an_empty_denominator_is_no_zero() -> None:
    row = Row("in_context", "", (point(0, {"generality": Rate(0, 0)}, {"fluency": Mean(0.0, 0)}),))

    should_change, cost = metric_sections(evaluation(row))

    assert should_change.rows == (("in_context", (Cell("none", "0/0"),)),)
    assert cost.rows == (("in_context", (Cell("none", "of 0"),)),)
    assert rate_lines(evaluation(row), "reliability") == []
    assert mean_lines(evaluation(row), "fluency") == []


def test_the_terminal_gets_every_section_and_the_notes(two_methods: Evaluation) -> None:
    lines = table(two_methods).splitlines()

    start = lines.index("Answers that should change")
    assert [line.split() for line in lines[start + 2 :][:7]] == [
        ["method", "generality"],
        ["─" * len(lines[start + 3].strip())],
        ["unedited", "0.00%", "0/10"],
        ["0.00", "to", "27.75"],
        ["in_context", "90.00%", "9/10"],
        ["59.58", "to", "98.21"],
        [],
    ]
    assert "Teacher-forced (not generated)" in lines
    assert "Generality over the number of edits" in lines
    assert lines[-1] == "in_context: a note [bold]as it is[/bold]"
    assert max(map(len, lines)) <= 120


def test_many_metrics_stand_below_each_other() -> None:
    rates = {f"portability: {i}": Rate(1_000, 1_000) for i in range(7)}
    text = table(evaluation(Row("retrieve_and_prompt", "", (point(1_000, rates),))))

    assert text.count("Answers that should change\n") == 2
    assert [i for i in range(7) if text.count(f"portability: {i}\n") or text.count(f"portability: {i} ")] == [
        *range(7)
    ]
    assert max(map(len, text.splitlines())) <= 132


def test_what_and_how_in_two_sentences(two_methods: Evaluation) -> None:
    what, how = describe(two_methods)
    assert what == (
        "Edits of zsRE were made one after another to a model, and after 1 and 10 of them the questions about all "
        "edits so far were asked."
    )
    assert "token for token" in how
    assert "95 %" in how

    sampled, _ = describe(replace(two_methods, order="batch", sample=1_000, left_out=12))
    assert sampled == (
        "Edits of zsRE were made in one batch for each checkpoint to a model, and after 1 and 10 of them the "
        "questions about all edits so far were asked, at most 1,000 of each kind, drawn with seed 3; examples left "
        "out since they contradict earlier ones: 12."
    )


def test_csv_has_a_line_for_each_figure(two_methods: Evaluation, tmp_path: Path) -> None:
    unedited, in_context = two_methods.rows
    empty = Row("a, b", "", (point(5, {"generality": Rate(0, 0)}),))
    some = replace(two_methods, rows=(unedited, empty, replace(in_context, checkpoints=in_context.checkpoints[:1])))

    write_csv(some, tmp_path / "metrics.csv")

    with open(tmp_path / "metrics.csv", encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["method", "edits", "metric", "value", "numerator", "denominator", "low", "high"]
    assert [line[:6] for line in lines] == [
        ["unedited", "1", "generality", "0.0", "0", "1"],
        ["unedited", "1", "seconds_per_answer", "0.02", "0.2", "10"],
        ["unedited", "10", "generality", "0.0", "0", "10"],
        ["unedited", "10", "seconds_per_answer", "0.03", "0.3", "10"],
        ["a, b", "5", "generality", "", "0", "0"],
        ["in_context", "1", "generality", "1.0", "1", "1"],
        ["in_context", "1", "edit_retention", "1.0", "1", "1"],
        ["in_context", "1", "seconds_per_answer", "0.05", "0.5", "10"],
    ]
    # of nothing in n, Wilson's interval ends at z² / (n + z²)
    ends = [[end and round(float(end), 4) for end in line[6:]] for line in lines]
    assert ends == [[0, 0.7935], ["", ""], [0, 0.2775], ["", ""], ["", ""], [0.2065, 1], [0.2065, 1], ["", ""]]


def test_lines_over_the_number_of_edits(two_methods: Evaluation) -> None:
    (retention,) = rate_lines(two_methods, "edit_retention")
    assert (retention.method, retention.edits, retention.values) == ("in_context", (1, 10), (1.0, 0.9))
    assert retention.low == pytest.approx((0.2065, 0.5958), abs=1e-4)
    assert retention.high == pytest.approx((1.0, 0.9821), abs=1e-4)
    assert [line.method for line in rate_lines(two_methods, "generality")] == ["unedited", "in_context"]
    assert mean_lines(two_methods, "seconds_per_answer") == [
        Line("unedited", (1, 10), (0.02, 0.03)),
        Line("in_context", (1, 10), (0.05, 0.06)),
    ]
    assert mean_lines(two_methods, "seconds_per_edit") == [Line("in_context", (10,), (2.5,))]


def test_methods_that_route_alike_stand_together() -> None:
    def row(method: str, probes: tuple[Asked, ...], threshold: float | None) -> Row:
        # an earlier checkpoint does not count
        return Row(
            method,
            "",
            (point(1, probes=(asked("unrelated", 0.1),), threshold=0.3), point(2, None, None, probes, threshold)),
        )

    other = (replace(PROBES[0], score=0.94), *PROBES[1:])
    answers_differ = tuple(replace(one, got=one.got + "!", right=True) for one in PROBES)
    rows = (
        row("unedited", PROBES, None),
        row("in_context", PROBES, 0.5),
        row("adaptor", other, 0.5),
        row("verbatim", answers_differ, 0.5),
        row("strict", PROBES, 0.6),
        Row("unfinished", "", ()),
    )

    found = routings(evaluation(*rows))

    assert [(routing.methods, routing.threshold) for routing in found] == [
        (("in_context", "verbatim"), 0.5),
        (("adaptor",), 0.5),
        (("strict",), 0.6),
    ]
    assert found[0].asked == PROBES


def test_true_against_false_overrides(two_methods: Evaluation) -> None:
    (routing,) = routings(two_methods)

    curve = trade_off(routing, "unrelated")

    assert curve is not None
    assert (curve.inside, curve.count) == ("generality", 8)
    # falling: .95, .9 | false .72 | .6 | false .5 | .45 | false .21; nothing claims one in scope and five others
    assert curve.false.tolist() == [0, 1 / 8, 2 / 8, 3 / 8]
    assert curve.true.tolist() == pytest.approx([2 / 5, 3 / 5, 4 / 5, 4 / 5])
    # at 0.5, which itself is reached
    assert curve.chosen == (2 / 8, pytest.approx(3 / 5))
    assert trade_off(routing, "same_subject") is None


def test_the_curve_is_what_each_threshold_gives() -> None:
    generator = np.random.default_rng(0)
    probes = tuple(
        asked(kind, float(score))
        for kind, high in (("generality", 1.0), ("same_subject", 0.8))
        for score in generator.uniform(0, high, 60).round(2)  # ties within and across
    )
    (routing,) = routings(evaluation(Row("in_context", "", (point(1, None, None, probes, 0.5),))))
    curve = trade_off(routing, "same_subject")
    assert curve is not None

    good, bad = ([one.score or 0 for one in probes if one.kind == kind] for kind in ("generality", "same_subject"))
    best = {0.0: 0.0}
    for threshold in {*good, *bad}:
        false = sum(score >= threshold for score in bad) / 60
        best[false] = max(best.get(false, 0.0), sum(score >= threshold for score in good) / 60)
    assert len(best) > 20
    assert dict(zip(curve.false.round(9), curve.true.round(9), strict=True)) == {
        round(false, 9): round(best[false], 9) for false in sorted(best)
    }


def test_what_was_vetoed_is_no_override_at_any_threshold() -> None:
    plain = (asked("reliability", 0.9), asked("unrelated", 0.8), asked("unrelated", 0.1))
    vetoed = (plain[0], replace(plain[1], overridden=False), plain[2])

    chosen = []
    for probes in (plain, vetoed):
        (routing,) = routings(evaluation(Row("in_context", "", (point(1, None, None, probes, 0.5),))))
        curve = trade_off(routing, "unrelated")
        assert curve is not None
        assert curve.inside == "reliability"  # there are no rephrases
        chosen.append((curve.false.tolist(), curve.chosen))
    assert chosen == [([0, 0.5, 1], (0.5, 1)), ([0, 0.5], (0, 1))]


def test_histograms_by_kind(two_methods: Evaluation) -> None:
    (routing,) = routings(two_methods)
    assert routing.kinds() == ["generality", "unrelated"]

    unscored, counts = histogram(routing, "unrelated")
    assert unscored == 5
    # bins of 1/40
    assert {i: int(count) for i, count in enumerate(counts) if count} == {8: 1, 20: 1, 28: 1}

    beyond = replace(routing, asked=(asked("unrelated", -3.0), asked("unrelated", 1.0)))
    unscored, counts = histogram(beyond, "unrelated")
    assert (unscored, counts[0], counts[BINS - 1], counts.sum()) == (0, 1, 1, 2)


def test_every_plot_is_written_the_same_each_time(
    with_cases: Evaluation, plain: Path, hostile: Path, tmp_path: Path
) -> None:
    files = draw(with_cases, tmp_path)

    assert sorted(file.name for file in files) == [f"{name}.{kind}" for name in PLOTS for kind in ("png", "svg")]
    for file in files:
        content = file.read_bytes()
        assert len(content) > 2_000
        assert content == (plain.parent / file.name).read_bytes()
        assert content != (hostile.parent / file.name).read_bytes()
        if file.suffix == ".svg":
            assert b"metadata" not in content  # where a date would stand
            # a name, and no formula
            assert "$other$_</text>" in (hostile.parent / file.name).read_text(encoding="utf-8")
        else:
            assert content.startswith(b"\x89PNG")


def test_a_plot_stays_whole_while_it_is_drawn_anew(
    with_cases: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = draw(with_cases, tmp_path)
    before = [file.read_bytes() for file in files]

    def breaks_off(figure: Figure, path: Path, **look: object) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", breaks_off)
    with pytest.raises(OSError, match="no space"):
        draw(with_cases, tmp_path)
    assert [file.read_bytes() for file in files] == before


def test_only_what_there_is_is_drawn(two_methods: Evaluation, tmp_path: Path) -> None:
    unedited, _ = two_methods.rows
    # one checkpoint, no router; and a method of which nothing is finished
    one = Row("fine_tuned", "", (point(10, {"generality": Rate(9, 10)}, {"seconds_per_answer": Mean(0.4, 10)}),))
    some = replace(two_methods, rows=(unedited, one, Row("unfinished", "", ())))

    assert [file.name for file in draw(some, tmp_path / "some")] == [
        f"{name}.{kind}" for name in ("retention", "time") for kind in ("png", "svg")
    ]
    assert draw(evaluation(Row("unedited", "", ())), tmp_path / "none") == []


def test_an_evaluation_without_checkpoints_is_shown_as_that(tmp_path: Path) -> None:
    nothing = evaluation(Row("unedited", "", ()), Row("in_context", "", ()))

    page = Page(write_page(nothing, tmp_path))
    write_csv(nothing, tmp_path / "metrics.csv")

    assert metric_sections(nothing) == retention_sections(nothing) == []
    assert "after 0 of them" in " ".join(table(nothing).split())
    assert "after 0 of them" in page.text
    assert page.count("table") == page.count("figure") == page.count("details") == 0
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 1


def test_the_worst_come_first() -> None:
    right = asked("unrelated", 0.99, right=True)
    ranked = [
        asked("unrelated", 0.9),
        asked("unrelated", 0.6),
        asked("unrelated", 0.7, overridden=False),  # vetoed
        asked("unrelated", 0.4),
        asked("unrelated", 0.0),
        asked("unrelated", None),
        asked("unrelated", None, prompt="later"),
    ]
    assert worst([ranked[4], right, ranked[2], ranked[5], ranked[0], ranked[6], ranked[3], ranked[1]]) == ranked


class Page(HTMLParser):
    """A page as a browser would find it: its elements, ids and references, and its visible text."""

    EMPTY = ("meta", "wbr", "br")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(self.source)
        assert self._open == []

    def count(self, tag: str) -> int:
        return self.tags.count(tag)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def with_cases(two_methods: Evaluation) -> Evaluation:
    """The same with twelve wrong answers of one kind and none of another."""
    unedited, in_context = two_methods.rows
    first, last = in_context.checkpoints
    wrong = (asked("same_subject", i / 100, prompt=f"subject {i}") for i in range(51, 63))
    right = (asked("same_relation", 0.1, right=True) for _ in range(3))
    last = replace(last, asked=(*PROBES, *wrong, *right))
    return replace(two_methods, rows=(unedited, replace(in_context, checkpoints=(first, last))))


@pytest.fixture(scope="module")
def plain(with_cases: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(with_cases, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def hostile(with_cases: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whatever is a text is markup."""
    texts = {"prompt": HOSTILE, "got": HOSTILE, "expected": (HOSTILE,) * 5, "reason": HOSTILE, "detail": HOSTILE}
    unedited, in_context = with_cases.rows
    first, last = in_context.checkpoints
    rates = {**last.rates, f"portability: {HOSTILE}": Rate(1, 1)}
    last = replace(last, rates=rates, asked=(*last.asked, asked("portability", 0.9, **texts)))
    row = Row(HOSTILE, HOSTILE, (first, last))
    return write_page(evaluation(unedited, row, dataset=HOSTILE, model=HOSTILE), tmp_path_factory.mktemp("hostile"))


def test_the_page_holds_tables_plots_and_the_ten_worst_cases(plain: Path) -> None:
    page = Page(plain)
    assert plain.name == "index.html"
    assert page.count("svg") == page.count("figcaption") == 4
    assert page.count("details") == 3
    assert "same subject: 12 of 12 wrong" in page.text
    assert "same relation: 0 of 3 wrong" in page.text
    assert "subject 53" in page.text
    assert "subject 52" not in page.text  # the eleventh
    assert page.text.index("subject 62") < page.text.index("subject 53")
    assert "0.620" in page.text
    assert "59.58 to 98.21" in page.text
    assert "a note [bold]as it is[/bold]" in page.text


def test_no_text_becomes_markup(plain: Path, hostile: Path) -> None:
    page = Page(hostile)
    assert page.count("script") == page.count("b") - Page(plain).count("b") == 0
    assert set(page.tags) == set(Page(plain).tags)
    # title, heading, model, method in each table, note, column, case, legends: all as they are
    assert page.text.count(HOSTILE) >= 15
    assert "| and 2 more" in page.text


@pytest.mark.parametrize("page", ["plain", "hostile"])
def test_the_page_needs_nothing_beside_itself(page: str, request: pytest.FixtureRequest) -> None:
    found = Page(request.getfixturevalue(page))
    addresses = [value for name, value in found.attributes if name in ("href", "xlink:href", "src")]
    ids = [value for name, value in found.attributes if name == "id"]
    assert len(addresses) > 10
    assert all(address.startswith("#") and address[1:] in ids for address in addresses)
    assert len(ids) == len(set(ids))  # of four plots in one page
    assert found.source.count("url(") == found.source.count("url(#") > 0
    assert "@import" not in found.source


def test_the_plots_follow_the_theme(plain: Path) -> None:
    page = plain.read_text(encoding="utf-8")
    body = page[page.index("<body>") :]
    assert "prefers-color-scheme: dark" in page
    for light, dark in DARK.items():
        name = f"--{light[1:]}"
        assert f"{name}: {light};" in page
        assert f"{name}: {dark};" in page
        assert light not in body
    drawn = (plain.parent / "retention.svg").read_text(encoding="utf-8")
    assert COLOURS[0] in drawn
    assert body.count(f"var(--{COLOURS[0][1:]})") >= drawn.count(COLOURS[0])


def test_tables_need_no_matplotlib_and_plots_no_pyplot() -> None:
    script = """
import sys
import semedit.evaluation.report
print([name for name in ("matplotlib", "torch") if name in sys.modules])
import semedit.evaluation.page
print("matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[]", "True False"]
