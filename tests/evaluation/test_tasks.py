import math

import mteb
import numpy as np
import pytest
from mteb.abstasks.abstask import AbsTask
from mteb.results import TaskResult

from anna import schemas
from anna.errors import InputError
from anna.evaluation.mteb_model import Embed, PromptedModel
from anna.evaluation.tasks import EvalTables, held_out_tasks, select_tasks
from tests.evaluation.conftest import TYPES, hash_embed, table


def score(task: AbsTask, embed: Embed = hash_embed) -> TaskResult:
    model = PromptedModel("toy", "zero_shot", embed, lambda task, side: "")
    return mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False).task_results[0]


def replace(tables: EvalTables, field: str, rows: list) -> EvalTables:
    return {**tables, field: table(schemas.EVAL_TABLES[field], rows)}


def test_each_table_becomes_the_type_that_its_rows_say(tables):
    made = {task.metadata.name: task.metadata.type for task in held_out_tasks(tables)}
    assert made == TYPES
    assert list(made) == sorted(TYPES)


def test_ndcg_of_a_toy_retrieval_equals_the_hand_computed_one():
    corpus = [("T", "T:d:a", "a"), ("T", "T:d:b", "b"), ("T", "T:d:c", "c")]
    queries = [("T", "T:q:1", "one"), ("T", "T:q:2", "two")]
    qrels = [("T", "T:q:1", "T:d:a", 1), ("T", "T:q:2", "T:d:a", 1), ("T", "T:q:2", "T:d:c", 2)]
    rows = {"corpus": corpus, "queries": queries, "qrels": qrels}
    tables = {name: table(schema, rows.get(name, [])) for name, schema in schemas.EVAL_TABLES.items()}
    # Query one ranks b, a, c; query two ranks a, b, c.
    angles = {"one": 0.0, "two": 1.2, "b": 0.1, "a": 0.9, "c": -1.0}

    def embed(texts, prefix):
        return np.array([[math.cos(angles[t]), math.sin(angles[t])] for t in texts], dtype=np.float32)

    (task,) = held_out_tasks(tables)
    one = 1 / math.log2(3)  # its only relevant document stands second
    gains = 1 / math.log2(2) + 2 / math.log2(4)  # relevance 1 first, 2 third
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert task.metadata.main_score == "ndcg_at_10"
    assert score(task, embed).get_score() == pytest.approx((one + gains / ideal) / 2, abs=1e-4)


def test_reranking_ranks_the_judged_candidates_alone(tables):
    task = next(t for t in held_out_tasks(tables) if t.metadata.type == "Reranking")
    split = task.dataset["default"]["test"]
    assert split["top_ranked"]["Shelf:q:saw"] == [f"Shelf:d:{w}" for w in ["saw", "axe", "nail", "drill", "file"]]
    assert score(task).get_score() == 1.0


def test_hash_vectors_solve_the_toy_tasks(tables):
    scores = {t.metadata.name: score(t).get_score() for t in held_out_tasks(tables)}
    assert scores == pytest.approx({**scores, "Farm": 1, "Shelf": 1, "Same": 1, "Kinds": 1, "Digest": 1})


@pytest.mark.parametrize(
    ("field", "row", "message"),
    [
        (
            "qrels",
            ("Farm", "Farm:q:fox", "Farm:d:fox", 1),
            r"'Farm': qrels name query 'Farm:q:fox', which is in no table",
        ),
        ("qrels", ("Farm", "Farm:q:cat", "Farm:d:gnu", 1), r"'Farm': qrels name documents \['Farm:d:gnu'\]"),
        ("queries", ("Farm", "Farm:q:emu", "an emu"), r"'Farm': queries \['Farm:q:emu'\] have no qrels"),
        ("pairs", ("Farm", "Farm:p:1", "a", "b", 1.0), r"'Farm' has rows of two types"),
        ("pairs", ("Lone", "Lone:p:1", "a", "b", 1.0), r"'Lone': all 1 pairs have score 1.0"),
        (
            "labelled",
            ("Kinds", "Kinds:t:gold", "test", "gold", "metal"),
            r"'Kinds': no train row of classes \['metal'\]",
        ),
        ("labelled", ("One", "One:t:1", "test", "gold", "metal"), r"'One': the test rows have fewer than two classes"),
        (
            "summaries",
            ("Flat", "Flat:t:1", "text", ["a", "b"], [1.0, 1.0]),
            r"'Flat': no text has summaries of different",
        ),
    ],
)
def test_rows_that_make_no_task_are_refused(tables, field, row, message):
    rows = [tuple(r.values()) for r in tables[field].to_pylist()]
    with pytest.raises(InputError, match=message):
        held_out_tasks(replace(tables, field, [*rows, row]))


def test_a_query_without_relevant_document_is_refused(tables):
    rows = [tuple(r.values()) for r in tables["qrels"].to_pylist()]
    none_relevant = [(*row[:3], 0) if row[1] == "Shelf:q:saw" else row for row in rows]
    with pytest.raises(InputError, match=r"query 'Shelf:q:saw' has no relevant document"):
        held_out_tasks(replace(tables, "qrels", none_relevant))


def test_the_revision_changes_with_the_rows_of_the_task_alone(tables):
    rows = [tuple(r.values()) for r in tables["pairs"].to_pylist()]
    changed = replace(tables, "pairs", [*rows[:-1], (*rows[-1][:3], "other", rows[-1][4])])
    before, after = (
        {t.metadata.name: t.metadata.dataset["revision"] for t in held_out_tasks(x)} for x in (tables, changed)
    )
    assert {name for name in before if before[name] != after[name]} == {"Same"}


@pytest.mark.parametrize("field", ["corpus", "queries"])
def test_the_revision_of_a_search_changes_with_each_of_its_tables(tables, field):
    rows = [tuple(r.values()) for r in tables[field].to_pylist()]
    place = next(number for number, row in enumerate(rows) if row[0] == "Farm")
    rows[place] = (*rows[place][:2], "another text")
    before, after = (
        {t.metadata.name: t.metadata.dataset["revision"] for t in held_out_tasks(x)}
        for x in (tables, replace(tables, field, rows))
    )
    assert {name for name in before if before[name] != after[name]} == {"Farm"}


def test_tasks_can_be_restricted_and_unknown_names_are_named(tables):
    assert [t.metadata.name for t in select_tasks("held_out", ["Same", "Farm"], lambda: tables)] == ["Farm", "Same"]
    with pytest.raises(InputError, match=r"evaluate.tasks: 'Frm' is no task of 'held_out' \(did you mean 'Farm'"):
        select_tasks("held_out", ["Frm"], lambda: tables)
    with pytest.raises(InputError, match=r"evaluate.benchmark: 'MTEB\(eng, v3\)' is neither .* 'MTEB\(eng, v2\)'"):
        select_tasks("MTEB(eng, v3)", None, lambda: tables)


def test_empty_tables_are_refused(tables):
    empty = {name: content.slice(0, 0) for name, content in tables.items()}
    with pytest.raises(InputError, match="held-out tables are empty"):
        held_out_tasks(empty)


def test_what_a_text_encoder_cannot_be_scored_on_is_named_unless_it_is_left_out():
    with pytest.raises(InputError, match=r"of 'MTEB\(eng, v1\)' these cannot be scored: CQADupstackRetrieval \(not of"):
        select_tasks("MTEB(eng, v1)", None, lambda: pytest.fail("not needed"))
    with pytest.raises(InputError, match=r"of 'MIEB\(lite\)' these cannot be scored: .*; name the others in evaluate"):
        select_tasks("MIEB(lite)", None, lambda: pytest.fail("not needed"))
    (one,) = select_tasks("MTEB(eng, v1)", ["STS12"], lambda: pytest.fail("not needed"))
    assert one.metadata.name == "STS12"


def test_mteb_english_v2_has_its_41_tasks_in_seven_categories():
    tasks = select_tasks("MTEB(eng, v2)", None, lambda: pytest.fail("the held-out tables are not needed"))
    assert len(tasks) == 41
    assert {t.metadata.type for t in tasks} == set(TYPES.values())
    (one,) = select_tasks("MTEB(eng, v2)", ["STS12"], lambda: pytest.fail("not needed"))
    assert one.metadata.name == "STS12"
