import pytest

from anna import scores
from anna.scores import Score


def of(model: str, mode: str, **values: float) -> list[Score]:
    """Return scores of tasks named `<type>_<number>`."""
    return [Score(model, mode, name, name.split("_")[0], "metric", value) for name, value in values.items()]


STUDENT = of("student", "zero_shot", Retrieval_1=0.2, Retrieval_2=0.4, STS_1=0.9)
EXAMPLES = of("student", "with_examples", Retrieval_1=0.4, Retrieval_2=0.4, STS_1=0.8)
TEACHER = of("teacher", "zero_shot", Retrieval_1=0.6, Retrieval_2=0.8, STS_1=0.5)
BM25 = of("bm25", "zero_shot", Retrieval_1=0.5, Retrieval_2=0.7)


def test_each_category_counts_once_however_many_tasks_it_has():
    assert scores.category_means(STUDENT) == pytest.approx({"Retrieval": 0.3, "STS": 0.9})
    assert scores.mean_over_categories(STUDENT) == pytest.approx(0.6)  # and not 0.5, the mean over tasks


def test_categories_come_in_the_fixed_order_and_unknown_types_last():
    shuffled = of("m", "zero_shot", STS_1=1, BitextMining_1=1, Clustering_1=1, Classification_1=1)
    assert list(scores.category_means(shuffled)) == ["Classification", "Clustering", "STS", "BitextMining"]


def test_no_score_has_no_mean():
    with pytest.raises(ValueError, match="no score to average"):
        scores.mean_over_categories([])


def test_summary_is_golden():
    assert scores.summary([*STUDENT, *EXAMPLES, *TEACHER, *BM25]) == {
        "student": {"mean": 0.6, "Retrieval": 0.3, "STS": 0.9},
        "student_with_examples": {"mean": 0.6},
        "teacher": {"mean": 0.6, "Retrieval": 0.7},
        "bm25": {"Retrieval": 0.6},
    }


def test_detail_names_type_metric_and_score():
    detail = scores.by_task(TEACHER)
    assert detail["teacher"]["zero_shot"]["STS_1"] == {"type": "STS", "metric": "metric", "score": 0.5}


def test_plot_rows_are_one_per_model_and_category():
    assert scores.rows([*EXAMPLES, *BM25]) == [
        ("student_with_examples", "Retrieval", 0.4),
        ("student_with_examples", "STS", 0.8),
        ("bm25", "Retrieval", 0.6),
    ]


def test_table_shows_a_dash_where_a_model_was_not_scored():
    assert scores.table([*STUDENT, *BM25]).splitlines() == [
        "           student    bm25",
        "Retrieval   0.3000  0.6000",
        "STS         0.9000       -",
        "mean        0.6000       -",
    ]
