"""Everything known about a query, and a clear word where something is not known yet."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anna import io, schemas
from anna.errors import InputError
from anna.reporting import why

QUERY = "T:q:01"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One query with a positive, a negative, a candidate above the positive, and one that no run lists; one without."""
    texts = {"T:d:1": "the positive", "T:d:2": "the negative", "T:d:3": "too good", "T:d:4": "judged only"}
    tables = {
        "corpus": (
            schemas.CORPUS,
            [{"doc_id": doc, "task": "T", "text": text, "label": None} for doc, text in texts.items()],
        ),
        "queries": (
            schemas.QUERIES,
            [
                {"query_id": query, "task": "T", "kind": "retrieval", "split": "train", "text": text, "label": None}
                for query, text in ((QUERY, "who asks"), ("T:q:02", "who else"))
            ],
        ),
        "qrels": (
            schemas.QRELS,
            [
                {"query_id": QUERY, "doc_id": "T:d:1", "relevance": 1},
                {"query_id": QUERY, "doc_id": "T:d:4", "relevance": 0},
            ],
        ),
        "bm25_run": (schemas.RUN, [run(1, "T:d:3", 9.5), run(2, "T:d:1", 7.25)]),
        "dense_run": (schemas.RUN, [run(1, "T:d:1", 0.9), run(2, "T:d:2", 0.5)]),
        "reranker_run": (schemas.RUN, [run(1, "T:d:1", -1.5)]),
        "labels": (
            schemas.LABELS,
            [
                {"query_id": QUERY, "rank": rank, "doc_id": doc, "fused_score": fused, "soft_label": soft}
                for rank, doc, fused, soft in ((1, "T:d:3", 1.5, 0.6), (2, "T:d:1", 1.0, 0.3), (3, "T:d:2", -2.0, 0.1))
            ],
        ),
        "groups": (
            schemas.GROUPS,
            [{"query_id": QUERY, "positive_ids": ["T:d:1"], "negative_ids": ["T:d:2"], "soft_labels": [0.75, 0.25]}],
        ),
        "drops": (
            schemas.DROPS,
            [
                {"query_id": QUERY, "doc_id": "T:d:1", "reason": "labelled_positive", "margin": 0.0, "score": 1.0},
                {"query_id": QUERY, "doc_id": "T:d:3", "reason": "above_positive", "margin": -0.5, "score": 1.5},
                {"query_id": "T:q:02", "doc_id": "", "reason": "weak_positive", "margin": None, "score": None},
            ],
        ),
    }
    for name, (schema, rows) in tables.items():
        io.write(tmp_path / f"{name}.parquet", pa.Table.from_pylist(rows, schema=schema), schema)
    return tmp_path


def run(rank: int, doc_id: str, score: float) -> dict[str, object]:
    return {"query_id": QUERY, "rank": rank, "doc_id": doc_id, "score": score}


def test_candidates_come_by_rank_with_all_their_scores(data: Path) -> None:
    story = why.explain(QUERY, data)
    assert [candidate.doc_id for candidate in story.candidates] == ["T:d:3", "T:d:1", "T:d:2", "T:d:4"]
    positive = story.candidates[1]
    assert positive.signals == {"bm25": (2, 7.25), "dense": (1, pytest.approx(0.9)), "reranker": (1, -1.5)}
    assert positive.label == (2, 1.0, pytest.approx(0.3))
    assert (positive.relevance, story.candidates[3].relevance, story.candidates[0].relevance) == (1, 0, None)
    assert story.missing == []


def test_every_candidate_has_its_verdict(data: Path) -> None:
    verdicts = [candidate.verdict for candidate in why.explain(QUERY, data).candidates]
    assert verdicts == [
        "dropped: above positive, 0.500 above the positive",
        "POSITIVE of the group, with 0.750 of its soft labels",
        "NEGATIVE 1 of the group, with 0.250 of its soft labels",
        "not judged yet",
    ]


def test_a_group_of_several_positives_without_soft_labels_is_told(data: Path) -> None:
    group = {"query_id": QUERY, "positive_ids": ["T:d:1", "T:d:3"], "negative_ids": ["T:d:2"], "soft_labels": []}
    io.write(data / "groups.parquet", pa.Table.from_pylist([group], schema=schemas.GROUPS), schemas.GROUPS)
    story = why.explain(QUERY, data)
    assert story.outcome == "Gives a training group: 2 positives, 1 hard negative."
    verdicts = [candidate.verdict for candidate in story.candidates[:3]]
    assert verdicts == ["POSITIVE of the group", "POSITIVE of the group", "NEGATIVE 1 of the group"]


def test_the_relabelled_are_said_to_be_so(data: Path) -> None:
    drops = io.read(data / "drops.parquet", schemas.DROPS).to_pylist()
    drops[1]["reason"] = "relabelled"
    io.write(data / "drops.parquet", pa.Table.from_pylist(drops, schema=schemas.DROPS), schemas.DROPS)
    verdict = why.explain(QUERY, data).candidates[0].verdict
    assert verdict == "relabelled: the reranker takes it for a positive, so no negative"


def test_text_says_it_all(data: Path) -> None:
    text = why.describe(why.explain(QUERY, data))
    assert text.startswith(
        "T:q:01  (T, retrieval, train)\n  who asks\n\nGives a training group: 1 positive, 1 hard negative.\n"
    )
    assert "  1. fused +1.500, soft label 0.600  dropped: above positive" in text
    assert "T:d:1, relevance 1; bm25 7.25 (rank 2), dense 0.9 (rank 1), reranker -1.5 (rank 1)" in text
    assert "T:d:4, relevance 0; no teacher lists it" in text


def test_a_query_without_group_says_why(data: Path) -> None:
    assert why.explain("T:q:02", data).outcome == "Gives no training group: weak positive."


def test_a_query_of_the_validation_split_trains_nothing(data: Path) -> None:
    queries = io.read(data / "queries.parquet", schemas.QUERIES).to_pylist()
    rows = [{**row, "split": "validation"} for row in queries]
    io.write(data / "queries.parquet", pa.Table.from_pylist(rows, schema=schemas.QUERIES), schemas.QUERIES)
    assert why.explain(QUERY, data).outcome == "Gives a validation group: 1 positive, 1 hard negative."


def test_stages_that_have_not_run_are_named(data: Path) -> None:
    for name in ("labels", "groups", "drops", "reranker_run"):
        (data / f"{name}.parquet").unlink()
    story = why.explain(QUERY, data)
    assert list(story.missing) == ["reranker_run", "labels", "groups", "drops"]
    text = why.describe(story)
    assert "The filter has not run, so there is no group yet." in text
    assert "Not run yet, so not shown: reranker_run, labels, groups, drops." in text
    assert "dense 0.9 (rank 1)" in text


def test_a_query_is_found_by_its_text(data: Path) -> None:
    assert why.explain("Who asks?", data) == why.explain(QUERY, data)
    queries = io.read(data / "queries.parquet", schemas.QUERIES).to_pylist()
    rows = [{**row, "text": "who asks"} for row in queries]
    io.write(data / "queries.parquet", pa.Table.from_pylist(rows, schema=schemas.QUERIES), schemas.QUERIES)
    with pytest.raises(
        InputError, match=r"'who asks' is the text of several queries; choose of \['T:q:01', 'T:q:02'\]"
    ):
        why.explain("who asks", data)


@pytest.mark.parametrize("unknown", ["who", "", "A:", "star wars: the clone wars", "T:q:1 or T:q:2"])
def test_what_is_neither_an_id_nor_a_text_is_refused(data: Path, unknown: str) -> None:
    with pytest.raises(
        InputError, match=r"queries.parquet: it is the id of a document; ask for a query that data/qrels"
    ):
        why.explain("T:d:01", data)
    with pytest.raises(InputError, match=r"queries.parquet, neither as an id, such as 'T:q:01', nor as a whole text"):
        why.explain(unknown, data)


@pytest.mark.parametrize("asked", ["T:q:01", "who asks"])
def test_a_table_without_queries_is_told(data: Path, asked: str) -> None:
    io.write(data / "queries.parquet", schemas.QUERIES.empty_table(), schemas.QUERIES)
    with pytest.raises(InputError, match=r"queries.parquet; it is empty, run: dvc repro ingest"):
        why.explain(asked, data)


def test_a_text_that_is_nearly_one_is_answered_with_it(data: Path) -> None:
    with pytest.raises(InputError, match=r"nor as a whole text; did you mean 'who asks' \(T:q:01\)\?$"):
        why.explain("whi asks", data)


@pytest.mark.parametrize("unknown", ["T:q:0", "T:q:03", "A:q:1", "Z:q:1"])
def test_an_unknown_query_is_refused_with_a_near_one(data: Path, unknown: str) -> None:
    with pytest.raises(InputError, match=rf"query '{unknown}' is not in .*queries.parquet; did you mean 'T:q:0[12]'\?"):
        why.explain(unknown, data)


def test_of_large_tables_only_row_groups_of_the_query_are_read(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = why.explain("T:q:02", data)
    monkeypatch.setattr(io, "ROW_GROUP_SIZE", 1)
    drops = io.read(data / "drops.parquet", schemas.DROPS)
    io.write(data / "drops.parquet", drops, schemas.DROPS)
    harm_first_row_group(data / "drops.parquet")
    assert why.explain("T:q:02", data) == expected
    with pytest.raises(InputError, match=r"drops.parquet is not a readable Parquet file \("):
        why.explain(QUERY, data)


def harm_first_row_group(path: Path) -> None:
    content = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(2)
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(content)


def test_a_missing_corpus_is_refused(data: Path) -> None:
    (data / "corpus.parquet").unlink()
    with pytest.raises(InputError, match=r"corpus.parquet does not exist; make it with: dvc repro"):
        why.explain(QUERY, data)
