"""Every table of the pipeline: columns, meaning, key and order, in one place.

A schema's metadata names the table, its unique key and its sort order; `anna.io` enforces all three on writing and on
reading. Columns are not nullable unless null has a meaning, and then the meaning is written here. Of the CSV files that
training writes the columns' names are here.
"""

import pyarrow as pa


def _field(name: str, kind: pa.DataType, meaning: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning})


def _list(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("item", kind, nullable=False))


def _table(name: str, key: tuple[str, ...], *fields: pa.Field) -> pa.Schema:
    """Return a schema whose rows are unique in `key` and sorted by it."""
    return pa.schema(fields, metadata={"name": name, "key": ",".join(key)})


STR, I32, F32 = pa.string(), pa.int32(), pa.float32()

_TASK = _field("task", STR, "name of the task: selects the collection searched and the instruction")
_QUERY_ID = _field("query_id", STR, "query, `<task>:q:<hash of its text>`")
_DOC_ID = _field("doc_id", STR, "document, `<task>:d:<hash of its text>`")
_LABEL = "class name; null where the task has no classes"

CORPUS = _table(
    "corpus",
    ("doc_id",),
    _DOC_ID,
    _TASK,
    _field("text", STR, "what is embedded; never empty"),
    _field("label", STR, _LABEL, nullable=True),
)
QUERIES = _table(
    "queries",
    ("query_id",),
    _QUERY_ID,
    _TASK,
    _field("kind", STR, "retrieval | sts | classification: how positives were made"),
    _field("split", STR, "train | validation"),
    _field("text", STR, "bare query text; the prompt is added by the encoder"),
    _field("label", STR, _LABEL, nullable=True),
)
QRELS = _table(
    "qrels",
    ("query_id", "doc_id"),
    _QUERY_ID,
    _DOC_ID,
    _field("relevance", pa.int8(), "> 0 relevant, 0 judged not relevant"),
)
INGEST_DROPS = _table(
    "ingest_drops",
    ("task", "part", "reason"),
    _TASK,
    _field("part", STR, "train | held_out: which use the rows were meant for"),
    _field("reason", STR, "why the rows were not kept"),
    _field("rows", I32, "how many"),
    _field("example", STR, "place and beginning of the first such row"),
)
RUN = _table(
    "run",
    ("query_id", "rank"),
    _QUERY_ID,
    _field("rank", I32, "1 is best; ties in score are broken by doc_id"),
    _DOC_ID,
    _field("score", F32, "the retriever's or reranker's raw score; unit in the sidecar"),
)
VECTORS = _table(
    "vectors",
    ("id",),
    _field("id", STR, "doc_id or query_id"),
    _field("vector", _list(F32), "unit vector of the text under the dense teacher, its prompt included"),
)
LABELS = _table(
    "labels",
    ("query_id", "rank"),
    _QUERY_ID,
    _field("rank", I32, "1 is best by fused_score; ties are broken by doc_id"),
    _DOC_ID,
    _field("fused_score", F32, "weighted sum of the signals' z-scores over the query's candidates"),
    _field("soft_label", F32, "softmax of fused_score / teacher_temperature; sums to 1 per query"),
)
GROUPS = _table(
    "groups",
    ("query_id",),
    _QUERY_ID,
    _field("positive_ids", _list(STR), "positives, labelled ones before relabelled, best first; an epoch shows one"),
    _field("negative_ids", _list(STR), "hard negatives, hardest first"),
    _field(
        "soft_labels",
        _list(F32),
        "teacher probabilities over positives, then negatives; sums to 1; empty where the query has a class",
    ),
)
DROPS = _table(
    "drops",
    ("query_id", "doc_id"),
    _QUERY_ID,
    _field("doc_id", STR, "candidate not kept; empty where the whole query gives no group"),
    _field(
        "reason",
        STR,
        "labelled_positive | duplicate_of_positive | relabelled | above_positive | inside_margin | beyond_quota; "
        "for a query, and its candidates that would pass: weak_positive | too_few_negatives",
    ),
    _field(
        "margin",
        F32,
        "the reference positive's fused score minus the candidate's; null for a query",
        nullable=True,
    ),
    _field("score", F32, "the candidate's fused score; null for a query", nullable=True),
)
EXAMPLES = _table(
    "examples",
    ("task", "position"),
    _TASK,
    _field("position", I32, "0 is shown first"),
    _field("query", STR, "query of the in-context example, bare"),
    _field("response", STR, "its positive document, bare"),
)

EVAL_CORPUS = _table("eval_corpus", ("task", "doc_id"), _TASK, _DOC_ID, _field("text", STR, "document"))
EVAL_QUERIES = _table("eval_queries", ("task", "query_id"), _TASK, _QUERY_ID, _field("text", STR, "bare query"))
EVAL_QRELS = _table(
    "eval_qrels",
    ("task", "query_id", "doc_id"),
    _TASK,
    _QUERY_ID,
    _DOC_ID,
    _field("relevance", pa.int8(), "> 0 relevant; of a reranking task, 0 is a candidate to rank below"),
)
EVAL_PAIRS = _table(
    "eval_pairs",
    ("task", "pair_id"),
    _TASK,
    _field("pair_id", STR, "`<task>:p:<hash of both texts>`"),
    _field("text1", STR, "first text"),
    _field("text2", STR, "second text"),
    _field("score", F32, "STS: similarity, 0 to 5; pair classification: 1 same, 0 different"),
)
EVAL_LABELLED = _table(
    "eval_labelled",
    ("task", "text_id"),
    _TASK,
    _field("text_id", STR, "`<task>:t:<hash of the text>`"),
    _field("split", STR, "train (classification only) | test"),
    _field("text", STR, "text"),
    _field("label", STR, "class name"),
)
EVAL_SUMMARIES = _table(
    "eval_summaries",
    ("task", "text_id"),
    _TASK,
    _field("text_id", STR, "`<task>:t:<hash of the source>`"),
    _field("source", STR, "text that was summarised; stands in for the human summary"),
    _field("summaries", _list(STR), "machine summaries"),
    _field("relevance", _list(F32), "human judgement of each, 1 faithful to 0 not"),
)
EVAL_TABLES = {
    "corpus": EVAL_CORPUS,
    "queries": EVAL_QUERIES,
    "qrels": EVAL_QRELS,
    "pairs": EVAL_PAIRS,
    "labelled": EVAL_LABELLED,
    "summaries": EVAL_SUMMARIES,
}
"""The held-out tables, one row per text or pair of every task, by name of the file in data/eval."""

CURVE = (
    "step",
    "queries",
    "loss",
    "info_nce",
    "soft_label_ce",
    "batch_soft_label_ce",
    "soft_label_entropy",
    "similarity_gap",
    "tokens",
    "tokens_saved",
    "learning_rate",
    "gradient_norm",
    "task",
)
"""Of the training curve: what is the same when the run is repeated, so neither speed nor memory."""

VALIDATION = ("step", "queries", "ndcg_at_10")
"""Of the validations."""
