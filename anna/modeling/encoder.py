"""The embedding model: a decoder read at EOS or over all tokens, with the prompts it was trained with.

Legend: B texts, T tokens of a packed row, D hidden dimensions, N texts of a whole call.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from anna import log
from anna.errors import InputError
from anna.modeling.attention import check_direction, read_early, use_packing
from anna.modeling.batching import packed_batches, shared_prefix
from anna.modeling.checkpoint import load_saved
from anna.modeling.encoder_config import EncoderConfig, cut_text
from anna.modeling.packing import KeysValues, Packing, Text, pack
from anna.modeling.pooling import exact, mean, normalise
from anna.modeling.student import StudentParams, load_student
from anna.origins import fetch_model
from anna.prompts import Example


class Part(NamedTuple):
    """Tokenised texts, and what they have in common."""

    rows: Sequence[Sequence[int]]
    """Tokens of each text, prompt included, EOS last."""
    num_shared: int = 0
    """Leading tokens that all rows have in common, and that are computed once where attention is causal."""

    @property
    def prefix(self) -> tuple[int, ...]:
        """The leading tokens."""
        return tuple(self.rows[0][: self.num_shared])


def num_tokens(parts: Sequence[Part]) -> int:
    """Return the tokens that one pass computes for all parts: what several of them begin with counts once."""
    own = sum(len(row) - part.num_shared for part in parts for row in part.rows)
    return own + sum(map(len, {part.prefix for part in parts}))


class Beginning(NamedTuple):
    """What many texts begin with, computed once."""

    num_tokens: int
    keys_values: dict[int, KeysValues]
    """By layer."""
    hidden_sum: Tensor
    """Over its tokens, (D,); of use for mean pooling alone."""


class Encoder(nn.Module):
    """Decoder, tokenizer and prompts. Calling it embeds parts of tokenised texts, with gradients."""

    def __init__(
        self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, config: EncoderConfig, dtype: torch.dtype
    ) -> None:
        """Store the parts. `dtype` is what matrix products are computed in; weights keep theirs.

        Raises:
            InputError: As `check_direction` and `use_packing`.
        """
        super().__init__()
        check_direction(backbone, config.attention)
        self.backbone, self.tokenizer, self.config, self.dtype = backbone, tokenizer, config, dtype
        use_packing(backbone)
        backbone.config.is_causal = config.attention == "causal"
        self.reads_early = config.pooling == "last_token" and read_early(backbone)

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.float32) -> Self:
        """Return the encoder saved in `folder`, a merged or fully fine-tuned model."""
        backbone, tokenizer = load_saved(folder)
        return cls(backbone, tokenizer, EncoderConfig.load(folder), dtype).eval()

    @classmethod
    def untrained(cls, student: StudentParams, config: EncoderConfig, dtype: torch.dtype = torch.float32) -> Self:
        """Return an encoder with the student's initial weights."""
        backbone, tokenizer = load_student(fetch_model(student.model), student.layers)
        return cls(backbone, tokenizer, config, dtype).eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.backbone.parameters()).device
        return device

    def tokenize(self, texts: Sequence[str], *, prefix: str = "", max_tokens: int) -> list[list[int]]:
        """Return the tokens of prefix + text, EOS last.

        Args:
            texts: Bare texts.
            prefix: Prompt put before each text.
            max_tokens: Longest text, EOS included; the prefix comes on top. Longer texts lose their end, never EOS. One
                token more is left where the text's first word takes in the prefix's last space.

        Raises:
            InputError: If prefix and text together may be longer than the encoder takes, or a text ends in no EOS.
        """
        limit = self.count(prefix) + max_tokens
        if limit > self.config.max_tokens:
            raise InputError(
                f"prompt {prefix[:60]!r}... and {max_tokens} tokens of text make {limit} tokens, more than "
                f"prompts.max_tokens ({self.config.max_tokens}); raise it, or show fewer or shorter examples"
            )
        ids: list[list[int]] = self.tokenizer(
            [prefix + text for text in texts], truncation=True, max_length=limit, padding=False
        )["input_ids"]
        for text, row in zip(texts, ids, strict=True):
            if row[-1] != self.tokenizer.eos_token_id:
                raise InputError(f"text {text[:60]!r}: last token is {row[-1]}, not EOS; the tokenizer must append EOS")
        return ids

    def forward(self, parts: Sequence[Part]) -> tuple[Tensor, ...]:
        """Return the unit vectors of each part's texts, (B, D), float32, with gradients.

        All texts are one packed row: no padding is computed, and what all texts of a part begin with is computed once,
        for several parts that begin alike, too.
        """
        prefixes: dict[tuple[int, ...], int] = {}
        texts: list[Text] = []
        for part in parts:
            num_shared = part.num_shared if self.config.attention == "causal" else 0
            place = prefixes.setdefault(part.prefix, len(prefixes)) if num_shared else None
            texts += [Text(row[num_shared:], place) for row in part.rows]
        return torch.split(self._embed(pack(texts, list(prefixes))), [len(part.rows) for part in parts])

    def encode(
        self,
        texts: Sequence[str],
        *,
        prefix: str = "",
        max_tokens: int,
        tokens_per_batch: int,
    ) -> NDArray[np.float32]:
        """Return the unit vectors of `texts`, (N, D).

        Equal texts are computed once, and so is what all texts begin with, the prompt.

        Args:
            texts: Bare texts.
            prefix: Prompt put before each text.
            max_tokens: Longest text, EOS included; the prefix comes on top.
            tokens_per_batch: Largest number of tokens computed at once; a longer text stands alone.
        """
        unique = list(dict.fromkeys(texts))
        vectors = np.empty((len(unique), self.backbone.config.hidden_size), dtype=np.float32)
        if not unique:
            return vectors
        batches = self.plan(unique, prefix=prefix, max_tokens=max_tokens, tokens_per_batch=tokens_per_batch)
        begin = cache(self.begin)
        for batch in log.progress(batches, unit="batch", desc="encoding"):
            some = [unique[index] for index in batch]
            vectors[batch] = self.embed(some, prefix=prefix, max_tokens=max_tokens, begin=begin)
        place = {text: index for index, text in enumerate(unique)}
        return vectors[[place[text] for text in texts]]

    def plan(self, texts: Sequence[str], *, prefix: str, max_tokens: int, tokens_per_batch: int) -> list[list[int]]:
        """Return batches of places in `texts`, of like length, longest first; arguments as for `encode`."""
        ids = self.tokenize(texts, prefix=prefix, max_tokens=max_tokens)
        num_shared = self.num_shared([self.tokenizer(prefix)["input_ids"], *ids])
        return packed_batches([len(row) - num_shared for row in ids], tokens_per_batch)

    @torch.inference_mode()
    def embed(
        self, texts: Sequence[str], *, prefix: str, max_tokens: int, begin: Callable[[tuple[int, ...]], Beginning]
    ) -> NDArray[np.float32]:
        """Return the unit vectors of `texts`, (N, D), computed in one packed row.

        Args:
            texts: Bare texts.
            prefix: As for `encode`.
            max_tokens: As for `encode`.
            begin: Our `begin`, or what remembers its results while the weights stay as they are.
        """
        ids = self.tokenize(texts, prefix=prefix, max_tokens=max_tokens)
        num_shared = self.num_shared([self.tokenizer(prefix)["input_ids"], *ids])
        beginning = begin(tuple(ids[0][:num_shared])) if num_shared else None
        packing = pack([Text(row[num_shared:]) for row in ids], num_cached=num_shared)
        vectors: NDArray[np.float32] = self._embed(packing, beginning).cpu().numpy()
        return vectors

    def num_shared(self, token_ids: Sequence[Sequence[int]]) -> int:
        """Return how many leading tokens of all texts can be computed once; none where they see what follows them."""
        return shared_prefix(token_ids) if len(token_ids) > 1 and self.config.attention == "causal" else 0

    def cut_example(self, query: str, response: str) -> Example:
        """Return an in-context example, both texts cut to the `example_tokens` that the encoder was trained with."""
        limit = self.config.example_tokens
        return Example(cut_text(query, self.tokenizer, limit), cut_text(response, self.tokenizer, limit))

    def count(self, prefix: str) -> int:
        """Return the tokens of a prompt's prefix, with BOS where the tokenizer adds one, without EOS."""
        return len(self.tokenizer(prefix)["input_ids"]) - 1 if prefix else 0

    def _embed(self, packing: Packing, beginning: Beginning | None = None) -> Tensor:
        """Return the unit vectors of a packed row's texts, in the order that they were given in."""
        packing = replace(packing.to(self.device), cached=beginning and beginning.keys_values)
        hidden_TD = self.hidden(packing)
        if self.config.pooling == "mean":
            before = beginning and (beginning.hidden_sum, beginning.num_tokens)
            return normalise(mean(hidden_TD, packing.piece, *packing.parts(), before))
        last_SD = hidden_TD if self.reads_early else hidden_TD[packing.last()]
        return normalise(last_SD[packing.texts])

    def hidden(self, packing: Packing) -> Tensor:
        """Return the last hidden states of a packed row, (T, D), or where it reads early of its texts' last tokens."""
        with self._autocast():
            hidden_TD: Tensor = self.backbone(
                input_ids=packing.ids, position_ids=packing.positions, packing=packing, use_cache=False
            ).last_hidden_state[0]
        return hidden_TD

    def finish(self, packing: Packing, given_TD: Tensor) -> Tensor:
        """Return the unit vectors of a packed row's texts from what the last layer is given, (texts, D).

        Gradients are those of the last layer, the final norm and `given_TD`.

        Args:
            packing: The row.
            given_TD: What the layers below make of the row's tokens; of all but texts' last ones the length is of no
                matter. For encoders that read early.
        """
        packing, given = packing.to(self.device), given_TD.to(self.device)[None]
        with self._autocast():
            turned = self.backbone.rotary_emb(given, packing.positions)
            hidden = self.backbone.layers[-1](
                given,
                position_embeddings=turned,
                packing=packing,
                use_cache=False,
                is_causal=self.config.attention == "causal",
            )
            last_SD: Tensor = self.backbone.norm(hidden)[0]
        return normalise(last_SD[packing.texts])

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    @torch.inference_mode()
    def begin(self, tokens: tuple[int, ...]) -> Beginning:
        """Return what the layers keep of tokens that several texts begin with."""
        kept: dict[int, KeysValues] = {}
        packing = replace(pack([Text(tokens)]).to(self.device), keep=kept)
        return Beginning(len(tokens), kept, exact(self.hidden(packing)).sum(0))
