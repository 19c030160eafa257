"""The headline says what the numbers say, whichever baselines there are."""

from dataclasses import replace

import numpy as np
import pytest

from anna.reporting import results, style
from anna.reporting.gather import Facts


def with_summary(facts: Facts, **summary: dict[str, float]) -> Facts:
    return replace(facts, summary=summary)


def test_headline_with_all_baselines(facts: Facts) -> None:
    summary = {
        "student": {"mean": 0.60, "Retrieval": 0.70},
        "untrained": {"mean": 0.30, "Retrieval": 0.02},
        "teacher": {"mean": 0.80, "Retrieval": 0.86},
        "bm25": {"Retrieval": 0.65},
    }
    assert results.headline(with_summary(facts, **summary)) == (
        "Training lifts the mean over the categories from 0.300 to 0.600 (+0.300). That is 60 % of the way from the "
        "untrained model to its dense teacher (0.800). On retrieval it has 0.700: above the untrained model (0.020), "
        "above BM25 (0.650), below the dense teacher (0.860)."
    )


def test_a_change_is_that_of_the_numbers_shown(facts: Facts) -> None:
    told = results.headline(with_summary(facts, student={"mean": 0.5986}, untrained={"mean": 0.3624}))
    assert "from 0.362 to 0.599 (+0.237)" in told
    assert style.change(0.4674, 1.3156) == "−0.849"  # noqa: RUF001
    assert style.change(0.1, 0.1004) == style.change(0.1004, 0.1) == style.score(-0.0004) == "0.000"


def test_a_tie_as_it_is_shown_is_no_defeat(facts: Facts) -> None:
    summary = {"student": {"Retrieval": 0.8942, "mean": 0.6}, "bm25": {"Retrieval": 0.8944}}
    told = results.headline(with_summary(facts, **summary))
    assert told.endswith("On retrieval it has 0.894: level with BM25 (0.894).")


def test_headline_of_a_student_that_got_worse(facts: Facts) -> None:
    summary = {"student": {"mean": 0.2}, "untrained": {"mean": 0.3}, "teacher": {"mean": 0.8}}
    assert results.headline(with_summary(facts, **summary)) == (
        "Training does not lift the mean over the categories from 0.300 to 0.200 (−0.100). "  # noqa: RUF001
        "Its dense teacher has 0.800."
    )


def test_headline_of_a_student_that_beats_its_teacher(facts: Facts) -> None:
    summary = {"student": {"mean": 0.85}, "untrained": {"mean": 0.3}, "teacher": {"mean": 0.8}}
    assert "level with or above its dense teacher (0.800)" in results.headline(with_summary(facts, **summary))


def test_headline_without_baselines(facts: Facts) -> None:
    alone = with_summary(facts, student={"mean": 0.6, "Retrieval": 0.7})
    assert (
        results.headline(alone) == "The student reaches a mean of 0.600 over the categories. On retrieval it has 0.700."
    )
    assert results.headline(with_summary(facts)) == "The student has not been scored."


def test_cards_say_what_was_not_run(facts: Facts) -> None:
    cards = results.cards(with_summary(facts, student={"mean": 0.6}, bm25={"Retrieval": 0.65}))
    assert [(card.name, card.value, card.note) for card in cards] == [
        ("Student", "0.600", "mean"),
        ("Student + examples", "–", "not run"),  # noqa: RUF001
        ("Untrained", "–", "not run"),  # noqa: RUF001
        ("Dense teacher", "–", "not run"),  # noqa: RUF001
        ("BM25", "–", "no mean, retrieval 0.650"),  # noqa: RUF001
    ]


def test_best_of_a_row_is_marked_and_ties_are_shared(facts: Facts) -> None:
    row = results._row("t", [0.5, 0.70004, 0.7, None])
    assert [cell.is_best for cell in row.cells] == [False, True, True, False]
    assert not results._row("t", [0.5, None]).cells[0].is_best, "alone is not best"


def test_a_model_we_do_not_know_is_shown_last(facts: Facts) -> None:
    more = replace(
        facts, tasks={"a_new_model": {"BoolQ": {"type": "Retrieval", "metric": "m", "score": 0.1}}, **facts.tasks}
    )
    assert results.columns(more)[-1] == "a_new_model"
    assert results.task_rows(more)[0].cells[-1].text == "0.100"


def test_text_table_has_every_category_and_the_mean(facts: Facts) -> None:
    unsized = replace(facts, stages={})
    lines = results.text_table(unsized).splitlines()
    assert len({len(line) for line in lines}) == 1, "columns are aligned"
    assert [line.split()[0] for line in lines[1:]] == [*facts.means["student"], "Mean"]
    assert lines[-1].split()[1] == f"{facts.summary['student']['mean']:.3f}"
    assert results.text_table(replace(facts, means={}, tasks={})) == "no scores"


def test_text_table_tells_rows_and_documents_and_names_tasks_of_few(facts: Facts) -> None:
    lines = results.text_table(facts).splitlines()
    assert lines[0].split()[:2] == ["Scored", "Docs"]
    cells = {line.split()[0]: line.split()[1:3] for line in lines[1:]}
    assert cells["Retrieval"] == ["300", "5,050"]
    assert cells["Classification"] == ["104", style.MISSING], "of both its tasks"
    assert max(map(len, lines)) <= 100
    assert "of PrivacyQA (49) and <b>x & $y$ (4): " in " ".join(lines)


def test_sizes_of_held_out_samples_are_not_those_of_mtebs_own_tasks(facts: Facts) -> None:
    ranked = replace(facts, leaderboard={**facts.leaderboard, "benchmark": "MTEB(eng, v2)"})
    assert "Scored" not in results.text_table(ranked)
    assert results.warning(ranked) == ""
    assert all(row.counts == [] for row in (*results.task_rows(ranked), *results.category_rows(ranked)))


def test_curve_by_task_compares_first_and_last_fifth(facts: Facts) -> None:
    for row in results.by_task(facts.curve):
        values = facts.curve.values["info_nce"][np.array(facts.curve.tasks) == row.task]
        assert (row.steps, row.first) == (len(values), pytest.approx(values[: len(values) // 5].mean()))
        assert row.last < row.first
