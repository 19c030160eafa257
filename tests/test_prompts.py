"""Golden strings: a changed character here is another model."""

from anna.prompts import Example, format_query, query_prefix

INSTRUCTION = "Given a question, retrieve passages that answer it"


def test_zero_shot() -> None:
    assert format_query(INSTRUCTION, "is it so") == (
        "Instruct: Given a question, retrieve passages that answer it\nQuery: is it so"
    )


def test_with_examples() -> None:
    examples = [Example("who", "he"), Example("where", "there")]
    assert format_query("Answer", "when", examples) == (
        "Instruct: Answer\nQuery: who\nResponse: he\n\n"
        "Instruct: Answer\nQuery: where\nResponse: there\n\n"
        "Instruct: Answer\nQuery: when"
    )


def test_prefix_is_what_comes_before_the_query() -> None:
    examples = [Example("who", "he")]
    assert query_prefix("Answer", examples) + "when" == format_query("Answer", "when", examples)
