"""Golden strings: a changed character here is another model."""

from anna.prompts import Example, query_prefix


def test_zero_shot() -> None:
    assert query_prefix("Given a question, retrieve passages that answer it") == (
        "Instruct: Given a question, retrieve passages that answer it\nQuery: "
    )


def test_with_examples() -> None:
    assert query_prefix("Answer", [Example("who", "he"), Example("where", "there")]) == (
        "Instruct: Answer\nQuery: who\nResponse: he\n\n"
        "Instruct: Answer\nQuery: where\nResponse: there\n\n"
        "Instruct: Answer\nQuery: "
    )
