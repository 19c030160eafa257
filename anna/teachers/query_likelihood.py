"""Score passages by the likelihood of the query under a causal language model: a reranker without training.

score(q, p) = mean over the query's tokens of log P(token | HEAD + p + TAIL, tokens before)

Legend: B rows, L tokens, D hidden dimensions, T query tokens of a batch.
Reference: Sachan et al. 2022, arXiv:2204.07496, equation 2. Differs: the wording of the prompt, which needs no
instruction tuning.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from anna import log
from anna.errors import InputError
from anna.modeling.batching import token_batches

HEAD, TAIL = "Passage: ", "\nQuestion about the passage:"

MAX_ROW_TOKENS = 512
"""A passage's queries are spread over rows of at most this many tokens: attention costs the square of the length."""

LOGITS_AT_ONCE = 512
"""Query tokens whose logits over the whole vocabulary are held at once."""

ANCHOR = "a"
"""A text continues another here, so it is tokenised after a letter: some tokenizers put a space before every text."""


class Row(NamedTuple):
    """One passage and some of its queries, as tokens."""

    prefix: list[int]
    queries: list[list[int]]
    pairs: list[int]
    """Which pair each query belongs to."""

    @property
    def num_tokens(self) -> int:
        """Length of the row."""
        return len(self.prefix) + sum(len(query) for query in self.queries)


class Batch(NamedTuple):
    """Rows side by side, padded on the right, and where the query tokens are read and predicted."""

    ids: Tensor
    """(B, L)"""
    positions: Tensor
    """(B, L); each query's start right after the prefix."""
    visible: Tensor
    """(B, L, L); true where a token may look: back at the prefix and at its own query."""
    rows: Tensor
    """(T,), row of each query token."""
    before: Tensor
    """(T,), where in its row the token before it is; the prefix's last one for a query's first."""
    targets: Tensor
    """(T,), the query token."""
    pairs: Tensor
    """(T,), the pair it belongs to."""


def score_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    pairs: Sequence[tuple[str, str]],
    *,
    doc_tokens: int,
    query_tokens: int,
    tokens_per_batch: int,
) -> NDArray[np.float32]:
    """Return the mean log probability of each pair's query given its passage, in nats per token, < 0.

    A passage is computed once for all of its queries: they share its row, each seeing the passage and itself, with
    positions that restart after it. Causal attention makes this equal to one pair at a time, to rounding. Logits are
    computed for query tokens only.

    Args:
        model: Causal model in evaluation mode.
        tokenizer: Its tokenizer.
        pairs: (query, passage) texts, not empty.
        doc_tokens: Passages are cut to this many tokens.
        query_tokens: Queries are cut to this many tokens.
        tokens_per_batch: Largest number of tokens computed at once, padding included.

    Raises:
        InputError: If the model's logits are not a plain matrix product, or its tokenizer joins texts.
    """
    _refuse_scaled_logits(model)
    rows = list(_rows(tokenizer, pairs, doc_tokens, query_tokens))
    totals, counts = np.zeros(len(pairs)), np.zeros(len(pairs))
    batches = token_batches([row.num_tokens for row in rows], tokens_per_batch)
    for batch in log.progress(batches, unit="batch", desc="query likelihood"):
        packed = pack([rows[index] for index in batch])
        logs_T = _log_probabilities(model, packed)
        np.add.at(totals, packed.pairs.numpy(), logs_T.cpu().numpy().astype(np.float64))
        np.add.at(counts, packed.pairs.numpy(), 1)
    return (totals / counts).astype(np.float32)


def pack(rows: Sequence[Row]) -> Batch:
    """Return rows as one padded batch. Padding comes last, so that no real token sees it."""
    length = max(row.num_tokens for row in rows)
    ids_BL = torch.zeros(len(rows), length, dtype=torch.long)
    positions_BL, owner_BL = torch.zeros_like(ids_BL), torch.full_like(ids_BL, -1)
    reads: list[tuple[int, int, int, int]] = []
    for b, row in enumerate(rows):
        end = len(row.prefix)
        ids_BL[b, :end] = torch.tensor(row.prefix)
        positions_BL[b, :end], owner_BL[b, :end] = torch.arange(end), 0
        for number, (query, pair) in enumerate(zip(row.queries, row.pairs, strict=True), start=1):
            part = slice(end, end + len(query))
            ids_BL[b, part], owner_BL[b, part] = torch.tensor(query), number
            positions_BL[b, part] = torch.arange(len(query)) + len(row.prefix)
            before = [len(row.prefix) - 1, *range(end, end + len(query) - 1)]
            reads += [(b, place, token, pair) for place, token in zip(before, query, strict=True)]
            end += len(query)
    is_causal_LL = torch.ones(length, length, dtype=torch.bool).tril()
    is_shared_BLL = (owner_BL[:, None, :] == 0) | (owner_BL[:, None, :] == owner_BL[:, :, None])
    return Batch(ids_BL, positions_BL, is_causal_LL & is_shared_BLL, *torch.tensor(reads).unbind(dim=1))


@torch.inference_mode()
def _log_probabilities(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return log P of each query token, (T,), float32."""
    device, dtype = model.device, model.dtype
    hidden_BLD = model.base_model(
        input_ids=batch.ids.to(device),
        position_ids=batch.positions.to(device),
        attention_mask=_additive(batch.visible[:, None], dtype).to(device),
        use_cache=False,
    ).last_hidden_state
    hidden_TD = hidden_BLD[batch.rows.to(device), batch.before.to(device)]
    targets_T, head, parts = batch.targets.to(device), model.get_output_embeddings(), []
    for start in range(0, len(targets_T), LOGITS_AT_ONCE):
        part = slice(start, start + LOGITS_AT_ONCE)
        logits = head(hidden_TD[part]).float()
        parts.append(logits.gather(1, targets_T[part, None])[:, 0] - logits.logsumexp(dim=1))
    return torch.cat(parts)


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the mask in the form that every attention implementation adds: 0 or the lowest number."""
    return torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)


def _rows(
    tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str]], doc_tokens: int, query_tokens: int
) -> Iterator[Row]:
    """Yield each passage with its queries, in more than one row where they are many."""
    passages: dict[str, list[int]] = {}
    for index, (_, passage) in enumerate(pairs):
        passages.setdefault(passage, []).append(index)
    head = _continuation(tokenizer, [HEAD.rstrip()])[0]
    tail = _continuation(tokenizer, [TAIL])[0]
    docs = _continuation(tokenizer, [f" {passage}" for passage in passages])
    asked = list(dict.fromkeys(query for query, _ in pairs))
    queries = dict(zip(asked, _continuation(tokenizer, [f" {query}" for query in asked]), strict=True))
    for doc, members in zip(docs, passages.values(), strict=True):
        row = Row([*_opening(tokenizer), *head, *doc[:doc_tokens], *tail], [], [])
        for index in members:
            query = queries[pairs[index][0]][:query_tokens]
            if row.queries and row.num_tokens + len(query) > MAX_ROW_TOKENS:
                yield row
                row = Row(row.prefix, [], [])
            row.queries.append(query)
            row.pairs.append(index)
        yield row


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
