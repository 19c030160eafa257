from anna.corpus.drops import DropLog, keep


def test_what_has_a_reason_goes_and_is_counted_by_its_example() -> None:
    log = DropLog()
    reasons = {3: "odd", 1: "odd", 2: "small"}
    assert keep([3, 1, 4, 2], reasons.get, lambda number: f"row {number}", log.of("T", "train")) == [4]
    assert log.by_reason("T", "train") == {"odd": 2, "small": 1}
    assert log.table()["example"].to_pylist() == ["row 3", "row 2"], "the first of each reason"
