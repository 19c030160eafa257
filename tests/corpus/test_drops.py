from anna.corpus.drops import DropLog, keep, remedy


def test_what_has_a_reason_goes_and_is_counted_by_its_example() -> None:
    log = DropLog()
    reasons = {3: "odd", 1: "odd", 2: "small"}
    assert keep([3, 1, 4, 2], reasons.get, lambda number: f"row {number}", log.of("T", "train")) == [4]
    assert log.by_reason("T", "train") == {"odd": 2, "small": 1}
    assert log.table()["example"].to_pylist() == ["row 3", "row 2"], "the first of each reason"


def test_what_helps_begins_with_the_reason_that_took_most() -> None:
    assert remedy({}) == "add rows to its source or correct its columns"
    lost = {"example": 2, "near_contaminated": 1, "contaminated": 5, "beyond_rows": 3, "duplicate_pair": 9}
    assert remedy(lost, "lower its train_rows") == (
        "keep it apart from what is held out by `where`, `unless` or `minus` in params.yaml, score on fewer rows, "
        "set a held-out task's hold_out_distractors to false where both search one collection, raise its "
        "rows, lower ingest.examples_per_task or name another source under its `examples`, raise "
        "ingest.near_duplicate (null keeps all documents that differ), lower its train_rows or correct its columns"
    )
