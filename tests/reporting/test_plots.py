"""Figures: all there, the same bytes, none where there is nothing, and fit to stand in a page."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from anna.reporting import figures, marks, plots, style
from anna.reporting.curves import Curve
from anna.reporting.distributions import Distributions, Entropies, Spread
from anna.reporting.gather import Facts, IngestDrop
from anna.reporting.plots import Plot
from anna.schemas import CURVE

NAMES = ["scores", "ablation", "training", "fused_scores", "entropy", "ingest_drops", "filter_drops", "cost"]

NOTHING = np.zeros(0)
EDGES, NONE = np.array([0.0, 1.0]), np.zeros(1, dtype=np.int64)


def svg_of(draw: Callable[[Facts], Figure | None], facts: Facts) -> str:
    """Return one figure alone, as it stands in a page."""
    with plots.drawing():
        figure = draw(facts)
    assert figure
    return plots.inline(Plot("one", "", plots._svg("one", figure), None))


def test_every_figure_is_drawn_and_saved(drawn: list[Plot], tmp_path: Path) -> None:
    plots.save(tmp_path / "plots", drawn)
    assert [plot.name for plot in drawn] == NAMES
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == sorted(
        f"{name}.{kind}" for name in NAMES for kind in ("svg", "png")
    )


def test_saving_again_leaves_no_old_figure(drawn: list[Plot], tmp_path: Path) -> None:
    plots.save(tmp_path / "plots", drawn)
    plots.save(tmp_path / "plots", drawn[:1])
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["scores.png", "scores.svg"]


def test_files_hold_no_date_and_no_version(drawn: list[Plot]) -> None:
    for plot in drawn:
        assert plot.svg
        assert plot.png
        assert b"<dc:date" not in plot.svg
        assert b"Matplotlib" not in plot.svg + plot.png


def test_nothing_to_draw_gives_no_figure(facts: Facts) -> None:
    bare = replace(
        facts,
        means={},
        runs={"the default": {17: {"mean": 0.5}}},
        curve=Curve({name: NOTHING for name in CURVE[:-1]}, []),
        distributions=Distributions(Spread(EDGES, NONE, NONE, NONE, NONE), Entropies(NONE, NONE)),
        ingest_drops=[],
        stages={"filter": {"drops": {"inside_margin": 0}}},
        costs={},
    )
    assert [plot[2:] for plot in plots.render(bare)] == [(None, None)] * len(NAMES)
    with pytest.raises(ValueError, match="'scores' was not drawn"):
        plots.inline(plots.render(bare)[0])


def test_one_model_one_step_and_one_drop_are_enough(facts: Facts) -> None:
    least = replace(
        facts,
        means={"student": {"STS": -0.2}},
        summary={},
        curve=Curve({name: np.array([1.0]) for name in CURVE[:-1]}, ["t"]),
        distributions=Distributions(Spread(EDGES, np.array([1]), NONE, NONE, NONE), Entropies(NONE, NONE)),
        ingest_drops=[IngestDrop("t", "train", "empty_text", 1, "")],
        costs={"train": {"seconds": 0.0}},
    )
    for draw in (figures.draw_scores, figures.draw_training, figures.draw_spread, figures.draw_ingest_drops):
        assert svg_of(draw, least)


def test_a_model_has_its_colour_and_texts_stay_text(drawn: list[Plot]) -> None:
    scores = drawn[0].svg or b""
    for role in ("student", "student-examples", "untrained", "teacher", "bm25"):
        assert style.light(role).encode() in scores
    assert b">Dense teacher<" in scores


def test_missing_baselines_leave_gaps(facts: Facts) -> None:
    alone = svg_of(figures.draw_scores, replace(facts, means={"student": facts.means["student"]}))
    assert "var(--student)" in alone
    assert "var(--teacher)" not in alone


@pytest.mark.parametrize("others", [{}, {"Retrieval": 0.9}])
def test_a_negative_correlation_is_drawn_inside_the_axes(facts: Facts, others: dict[str, float]) -> None:
    negative = replace(facts, means={"student": {"STS": -0.4, **others}}, summary={})
    with plots.drawing():
        figure = figures.draw_scores(negative)
    assert figure
    low, high = figure.axes[0].get_ylim()
    assert low < -0.4
    assert high >= max([0, *others.values()])
    assert "correlations −1 to 1" in figure.axes[0].get_ylabel()  # noqa: RUF001


def test_inline_figures_take_the_colours_of_the_page_and_clash_with_nothing(drawn: list[Plot]) -> None:
    ids: list[str] = []
    for plot in drawn:
        svg = plots.inline(plot)
        root = ElementTree.fromstring(svg.replace("xlink:", ""))
        own = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
        assert used <= set(own), "a reference to an id that is not there"
        ids += own
        assert "<style" not in svg
        assert "font-family" not in svg
        assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= {"#000000"}, "a colour that the dark scheme cannot change"
    assert len(set(ids)) == len(ids)


def test_reasons_far_apart_in_number_are_both_shown(facts: Facts) -> None:
    drops = [IngestDrop("t", "train", "beyond_rows", 62923, ""), IngestDrop("t", "held_out", "beyond_rows", 4, "")]
    svg = svg_of(figures.draw_ingest_drops, replace(facts, ingest_drops=drops))
    assert ">62,923<" in svg
    assert ">4<" in svg


def test_a_dot_is_drawn_for_each_seed_of_a_variant_and_a_panel_for_each_score_that_any_has(facts: Facts) -> None:
    with plots.drawing():
        figure = figures.draw_ablation(facts)
    assert figure
    mean, sts = figure.axes
    assert (mean.get_title(loc="left"), sts.get_title(loc="left")) == ("mean", "STS")
    assert mean.lines[1].get_xdata() == pytest.approx([-0.01, 0.01])
    assert sts.lines[1].get_xdata() == pytest.approx([-0.05])
    assert [tick.get_text() for tick in mean.get_yticklabels()] == ["without soft labels"]


@pytest.mark.parametrize("size", [1, 2, 7, 96])
def test_smoothing_keeps_length_and_constants(size: int) -> None:
    assert marks.smooth(np.full(size, 2.5)) == pytest.approx(np.full(size, 2.5))


def test_smoothing_is_a_centred_mean_that_shortens_at_the_ends() -> None:
    values = np.arange(10.0) ** 2
    expected = [values[max(0, at - 1) : at + 2].mean() for at in range(10)]
    assert marks.smooth(values, share=0.3) == pytest.approx(expected)
