"""Score passages by the likelihood of the query under a causal language model: a reranker without training.

score(q, p) = mean over the query's tokens of log P(token | HEAD + p + TAIL, tokens before)

Legend: R query tokens of a batch, D hidden dimensions.
Reference: Sachan et al. 2022, arXiv:2204.07496, equation 2. Differs: the wording of the prompt, which needs no
instruction tuning.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from anna.errors import InputError
from anna.modeling.attention import use_packing
from anna.modeling.packing import Packing, Text, pack

HEAD, TAIL = "Passage: ", "\nQuestion about the passage:"

LOGITS_AT_ONCE = 128
"""Query tokens whose logits over the whole vocabulary are held at once: few enough that a CPU's memory is reused."""

ANCHOR = "a"
"""A text continues another here, so it is tokenised after a letter: some tokenizers put a space before every text."""


class Shared(NamedTuple):
    """One passage and some of its queries, as tokens."""

    passage: list[int]
    """With head and tail."""
    queries: list[list[int]]
    pairs: list[int]
    """Which pair each query belongs to."""

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed for it."""
        return len(self.passage) + sum(len(query) for query in self.queries)


class Reads(NamedTuple):
    """Which tokens of a packed row are predicted, and from where."""

    before: Tensor
    """(R,), place of the token before it; the passage's last one for a query's first."""
    targets: Tensor
    """(R,), the query token."""
    pairs: Tensor
    """(R,), the pair that it belongs to."""


def score_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    pairs: Sequence[tuple[str, str]],
    *,
    doc_tokens: int,
    query_tokens: int,
) -> NDArray[np.float32]:
    """Return the mean log probability of each pair's query given its passage, in nats per token, < 0.

    All pairs are one packed row, in which a passage is computed once for all of its queries, which share it as their
    prefix; this equals one pair at a time, to rounding. Logits are computed for query tokens only.

    Args:
        model: Causal model in evaluation mode.
        tokenizer: Its tokenizer.
        pairs: (query, passage) texts, not empty.
        doc_tokens: Passages are cut to this many tokens.
        query_tokens: Queries are cut to this many tokens.

    Raises:
        InputError: If the model's logits are not a plain matrix product, or its tokenizer joins texts.
    """
    _refuse_scaled_logits(model)
    use_packing(model)
    packing, reads = pack_batch(_shared(tokenizer, pairs, doc_tokens, query_tokens))
    logs_R = _log_probabilities(model, packing, reads).cpu().numpy().astype(np.float64)
    return (np.bincount(reads.pairs, logs_R) / np.bincount(reads.pairs)).astype(np.float32)


def pack_batch(parts: Sequence[Shared]) -> tuple[Packing, Reads]:
    """Return the packed row of passages and their queries, and which of its tokens are predicted."""
    packing = pack(
        [Text(query, number) for number, part in enumerate(parts) for query in part.queries],
        [part.passage for part in parts],
    )
    starts = iter(packing.starts[len(parts) :])
    reads: list[tuple[int, int, int]] = []
    for number, part in enumerate(parts):
        end = packing.starts[number] + len(part.passage)
        for query, pair in zip(part.queries, part.pairs, strict=True):
            start = next(starts)
            before = [end - 1, *range(start, start + len(query) - 1)]
            reads += [(place, token, pair) for place, token in zip(before, query, strict=True)]
    return packing, Reads(*torch.tensor(reads).unbind(dim=1))


@torch.inference_mode()
def _log_probabilities(model: PreTrainedModel, packing: Packing, reads: Reads) -> Tensor:
    """Return log P of each query token, (R,), float32."""
    packing = packing.to(model.device)
    hidden_TD = model.base_model(
        input_ids=packing.ids, position_ids=packing.positions, packing=packing, use_cache=False
    ).last_hidden_state[0]
    hidden_RD, targets_R = hidden_TD[reads.before.to(model.device)], reads.targets.to(model.device)
    head, parts = model.get_output_embeddings(), []
    for start in range(0, len(targets_R), LOGITS_AT_ONCE):
        part = slice(start, start + LOGITS_AT_ONCE)
        parts.append(-functional.cross_entropy(head(hidden_RD[part]).float(), targets_R[part], reduction="none"))
    return torch.cat(parts)


def _shared(
    tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str]], doc_tokens: int, query_tokens: int
) -> list[Shared]:
    """Return each passage with its queries, the most tokens first."""
    passages: dict[str, list[int]] = {}
    for index, (_, passage) in enumerate(pairs):
        passages.setdefault(passage, []).append(index)
    head = _continuation(tokenizer, [HEAD.rstrip()])[0]
    tail = _continuation(tokenizer, [TAIL])[0]
    docs = _continuation(tokenizer, [f" {passage}" for passage in passages])
    asked = list(dict.fromkeys(query for query, _ in pairs))
    queries = dict(zip(asked, _continuation(tokenizer, [f" {query}" for query in asked]), strict=True))
    parts = [
        Shared(
            [*_opening(tokenizer), *head, *doc[:doc_tokens], *tail],
            [queries[pairs[index][0]][:query_tokens] for index in members],
            members,
        )
        for doc, members in zip(docs, passages.values(), strict=True)
    ]
    return sorted(parts, key=lambda part: -part.num_tokens)


def _continuation(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens that each text has when it follows another."""
    anchor: list[int] = tokenizer(ANCHOR, add_special_tokens=False)["input_ids"]
    rows: list[list[int]] = tokenizer([ANCHOR + text for text in texts], add_special_tokens=False)["input_ids"]
    for text, row in zip(texts, rows, strict=True):
        if row[: len(anchor)] != anchor:
            raise InputError(
                f"the reranker's tokenizer joins {ANCHOR!r} and {text[:20]!r}; choose another rerank.model"
            )
    return [row[len(anchor) :] for row in rows]


def _opening(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the token that the tokenizer begins every text with, if it does."""
    ids: list[int] = tokenizer("")["input_ids"]
    return ids[:1] if ids and ids[0] == tokenizer.bos_token_id else []


def _refuse_scaled_logits(model: PreTrainedModel) -> None:
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(model.config, name, None) not in (None, 1, 1.0):
            raise InputError(
                f"{model.config.model_type} has {name} {getattr(model.config, name)}, which query likelihood does not "
                "compute; choose another rerank.model"
            )
