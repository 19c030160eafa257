"""The page: loads nothing, is well-formed, escapes what it is given, and holds the numbers of the metrics."""

import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from anna.reporting import page, plots
from anna.reporting.curves import Curve
from anna.reporting.gather import Facts
from anna.reporting.plots import Plot
from anna.schemas import CURVE
from tests.reporting.conftest import HOSTILE

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Outline(HTMLParser):
    """Checks that every element is closed where it should be, and collects text and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def rendered(facts: Facts, drawn: list[Plot]) -> str:
    return page.render(facts, drawn)


@pytest.fixture(scope="module")
def outline(rendered: str) -> Outline:
    result = Outline()
    result.feed(rendered)
    return result


def test_page_is_well_formed(outline: Outline, rendered: str) -> None:
    assert rendered.startswith("<!DOCTYPE html>")
    assert outline.faults == []
    assert outline.open == []
    ids = [value for name, value in outline.attributes if name == "id"]
    assert len(set(ids)) == len(ids)


def test_page_loads_nothing(outline: Outline, rendered: str) -> None:
    targets = [value for name, value in outline.attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
    assert all(target.startswith("#") or target == "data:," for target in targets)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", rendered))
    assert "script" not in outline.tags
    assert "@import" not in rendered
    assert "http" not in rendered


def test_contents_lead_to_sections(outline: Outline) -> None:
    ids = {value for name, value in outline.attributes if name == "id"}
    links = {value.removeprefix("#") for name, value in outline.attributes if name == "href" and value != "data:,"}
    assert links == {"results", "training", "labels", "dropped", "costs", "numbers"}
    assert links <= ids


def test_texts_of_the_data_are_escaped(outline: Outline, rendered: str) -> None:
    assert "b" not in outline.tags
    assert HOSTILE not in rendered
    assert html.escape(HOSTILE) in rendered
    assert html.escape("<script>alert(1)</script>") in rendered


def test_every_figure_stands_in_the_page(outline: Outline, drawn: list[Plot]) -> None:
    assert outline.tags.count("svg") == len(drawn) == outline.tags.count("figure")
    labels = [value for name, value in outline.attributes if name == "aria-label"]
    assert {plot.title for plot in drawn} <= set(labels)


def test_scores_are_those_of_the_metrics(facts: Facts, rendered: str) -> None:
    for task in facts.tasks["student"]:
        row = re.search(rf'<th scope="row">{re.escape(html.escape(task))}</th><td class="text">.*?</tr>', rendered)
        assert row
        cells = re.findall(r"<td>(?:<strong>)?([^<]*)", row[0])
        columns = ("student", "student_with_examples", "untrained", "teacher", "bm25")
        expected = [facts.tasks[name].get(task, {}).get("score") for name in columns]
        assert cells == ["–" if value is None else f"{value:.3f}" for value in expected]  # noqa: RUF001
    for name in ("student", "untrained", "teacher"):
        assert f'<span class="value">{facts.summary[name]["mean"]:.3f}</span>' in rendered


def test_scores_stand_with_rows_and_documents_and_few_rows_are_named(rendered: str) -> None:
    assert '<th scope="col">Scored</th><th scope="col">Docs</th><th scope="col">Student</th>' in rendered
    assert '<td class="text part">ndcg at 10</td><td class="quiet">300</td><td class="quiet">5,050</td>' in rendered
    assert '<th scope="row">Classification</th><td class="quiet">104</td><td class="quiet">–</td>' in rendered  # noqa: RUF001
    assert f"scored of PrivacyQA (49) and {html.escape(HOSTILE)} (4): such a score" in rendered


def test_contamination_and_the_leaderboard_stand_below_the_scores(facts: Facts, rendered: str) -> None:
    assert "Zero-shot share, by mteb's rule: 87 %. 1 of 8 tasks are" in rendered
    assert f"versions of them: {html.escape(HOSTILE)}." in rendered
    assert "Rows of the same source were trained on under another name: HPOSynonyms." in rendered
    assert "<p>Leaderboard: not ranked: held_out is not MTEB(eng, v2)" in rendered
    assert "Borda rank" not in rendered


def test_standings_are_neighbours_and_then_our_other_models(facts: Facts, drawn: list[Plot]) -> None:
    row = {"rank": 6, "model": "student", "mean_by_task": 0.7412, "mean_by_type": 0.684, "is_ours": True}
    top = {"rank": 1, "model": HOSTILE, "mean_by_task": 0.76, "mean_by_type": 0.7, "is_ours": False}
    standings = {"student": {**row, "of": 184}, "teacher": {**row, "of": 184, "rank": 90}}
    ranked = {"benchmark": "MTEB(eng, v2)", "notes": ["on all"], "standings": standings, "around": [top, row]}
    assert page.standings(ranked).rows == [
        (HOSTILE, ["1", "76.00", "70.00"]),
        ("student (ours)", ["6", "74.12", "68.40"]),
        ("teacher (ours)", ["90", "74.12", "68.40"]),
    ]
    text = page.render(replace(facts, leaderboard=ranked), drawn)
    outline = Outline()
    outline.feed(text)
    assert outline.faults == []
    assert '<th scope="row">student (ours)</th><td>6</td><td>74.12</td><td>68.40</td>' in text
    assert HOSTILE not in text


def test_how_far_seeds_move_scores_is_told_or_that_it_was_not_measured(
    facts: Facts, drawn: list[Plot], rendered: str
) -> None:
    assert "see below for other seeds" in rendered
    assert "<td>0.610 ± 0.014</td>" in rendered
    assert "Without one part of the recipe, in numbers" in rendered
    bare = replace(facts, runs={})
    alone = page.render(bare, [plot for plot in drawn if plot.name != "ablation"])
    assert '<code>python -m benchmarks.ablation --only "the default"</code> does' in alone
    assert "Over training seeds" not in alone
    assert "Without one part" not in alone


def test_counts_are_those_of_the_metrics(facts: Facts, rendered: str) -> None:
    assert f"<td>{facts.stages['filter']['drops']['beyond_quota']:,}</td>" in rendered
    assert "<td>13 min 09 s</td>" in rendered, "sum of all stages"
    assert "<td>3,100</td>" in rendered, "largest memory"
    assert "<td>9,127</td>" in rendered, "ingest drops"


def test_same_facts_give_the_same_page(facts: Facts, drawn: list[Plot], rendered: str) -> None:
    assert page.render(facts, drawn) == rendered


def test_an_empty_run_gives_a_page_that_says_so(facts: Facts) -> None:
    bare = replace(
        facts,
        summary={},
        means={},
        tasks={},
        curve=Curve({name: facts.curve.values[name][:0] for name in CURVE[:-1]}, []),
        ingest_drops=[],
        stages={},
        costs={},
        tables=[],
    )
    text = page.render(bare, plots.render(bare))
    outline = Outline()
    outline.feed(text)
    assert outline.faults == []
    assert "The student has not been scored." in text
    for missing in ("student against the baselines: not run", "Training curve: not run", "by task: not run"):
        assert missing in text
    assert "Ingest dropped nothing." in text


def test_metrics_of_any_shape_become_tables() -> None:
    metrics = {
        "rows": 1200,
        "drops": {"empty_text": 3},
        "nothing": {},
        "tasks": {"A": {"rows": 2, "drops": {"x": 1}}, "B": {"rows": 5}},
    }
    assert page.grids("ingest", metrics) == [
        page.Grid("ingest", ["value"], [("rows", ["1,200"]), ("drops: empty text", ["3"])]),
        page.Grid("ingest: tasks", ["rows", "drops: x"], [("A", ["2", "1"]), ("B", ["5", "–"])]),  # noqa: RUF001
    ]
