"""The embedding model: a causal decoder read at EOS, with the prompts it was trained with.

Legend: B texts, L tokens, D hidden dimensions, N texts of a whole call.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerFast

from anna import log
from anna.errors import InputError
from anna.modeling.batching import shared_prefix, token_batches
from anna.modeling.checkpoint import load_saved
from anna.modeling.encoder_config import EncoderConfig, cut_text
from anna.modeling.pooling import last_token, normalise
from anna.modeling.student import StudentParams, load_student
from anna.origins import fetch_model
from anna.prompts import Example


class Encoder(nn.Module):
    """Decoder, tokenizer and prompts. Calling it embeds tokenised texts, with gradients."""

    def __init__(
        self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, config: EncoderConfig, dtype: torch.dtype
    ) -> None:
        """Store the parts. `dtype` is what matrix products are computed in; weights keep theirs."""
        super().__init__()
        self.backbone, self.tokenizer, self.config, self.dtype = backbone, tokenizer, config, dtype

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
            max_tokens: Longest text, EOS included; the prefix comes on top. Longer texts lose their end, never EOS.
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

    def forward(self, token_ids: Sequence[Sequence[int]], num_shared: int = 0) -> Tensor:
        """Return the unit vectors of tokenised texts, (B, D), float32, with gradients.

        Texts are padded on the right. Attention is causal, so no real token sees padding and no mask is needed, and
        what all texts begin with has the same keys and values in each of them: it is computed once.

        Args:
            token_ids: Tokens of each text, prompt included, EOS last.
            num_shared: Leading tokens that all texts have in common; fewer than the shortest text has.
        """
        if self.training and self.backbone.is_gradient_checkpointing:
            num_shared = 0  # layers that are recomputed keep no keys and values
        shared = self._keys_values(token_ids[0][:num_shared])
        ids_BL, mask_BL = self._pad([row[num_shared:] for row in token_ids])
        return self._embed(ids_BL, mask_BL, _expand(shared, len(token_ids)))

    def encode(
        self,
        texts: Sequence[str],
        *,
        prefix: str = "",
        max_tokens: int,
        tokens_per_batch: int,
        desc: str = "encoding",
    ) -> NDArray[np.float32]:
        """Return the unit vectors of `texts`, (N, D).

        Equal texts are computed once; batches are length-sorted; the tokens that all texts begin with, the prompt, are
        computed once and their keys and values are shared.

        Args:
            texts: Bare texts.
            prefix: Prompt put before each text.
            max_tokens: Longest text, EOS included; the prefix comes on top.
            tokens_per_batch: Largest number of tokens computed at once, padding included.
            desc: What the progress line says.
        """
        unique = list(dict.fromkeys(texts))
        if not unique:
            return np.zeros((0, self.backbone.config.hidden_size), dtype=np.float32)
        ids = self.tokenize(unique, prefix=prefix, max_tokens=max_tokens)
        common = shared_prefix(ids) if len(ids) > 1 else 0
        rest = [row[common:] for row in ids]
        batches = token_batches([len(row) for row in rest], tokens_per_batch)
        vectors = np.empty((len(unique), self.backbone.config.hidden_size), dtype=np.float32)
        with torch.inference_mode():
            shared = self._keys_values(ids[0][:common])
            for batch in log.progress(batches, unit="batch", desc=desc):
                ids_BL, mask_BL = self._pad([rest[index] for index in batch])
                vectors[batch] = self._embed(ids_BL, mask_BL, _expand(shared, len(batch))).cpu().numpy()
        place = {text: index for index, text in enumerate(unique)}
        return vectors[[place[text] for text in texts]]

    def cut_example(self, query: str, response: str) -> Example:
        """Return an in-context example, both texts cut to the `example_tokens` that the encoder was trained with."""
        limit = self.config.example_tokens
        return Example(cut_text(query, self.tokenizer, limit), cut_text(response, self.tokenizer, limit))

    def count(self, prefix: str) -> int:
        """Return the tokens of a prompt's prefix, with BOS where the tokenizer adds one, without EOS."""
        return len(self.tokenizer(prefix)["input_ids"]) - 1 if prefix else 0

    def _embed(self, ids_BL: Tensor, mask_BL: Tensor, cache: DynamicCache | None) -> Tensor:
        is_mixed = self.dtype != torch.float32
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=is_mixed):
            output = self.backbone(input_ids=ids_BL, past_key_values=cache, use_cache=cache is not None)
        return normalise(last_token(output.last_hidden_state, mask_BL))

    def _keys_values(self, ids: Sequence[int]) -> DynamicCache | None:
        if not ids:
            return None
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            # Made here, because the one that the model makes forgets what lies outside a sliding window.
            cache = DynamicCache()
            ids_1L = torch.tensor([list(ids)], device=self.device)
            self.backbone(input_ids=ids_1L, past_key_values=cache, use_cache=True)
        return cache

    def _pad(self, token_ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return ids and mask, (B, L), padded on the right."""
        rows = [torch.tensor(row, dtype=torch.long) for row in token_ids]
        ids_BL = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.tokenizer.pad_token_id)
        lengths_B = torch.tensor([len(row) for row in rows])
        mask_BL = (torch.arange(ids_BL.shape[1]) < lengths_B[:, None]).long()
        return ids_BL.to(self.device), mask_BL.to(self.device)


def _expand(cache: DynamicCache | None, num_texts: int) -> DynamicCache | None:
    """Return a fresh cache that holds the one-row `cache` for `num_texts` rows."""
    if cache is None:
        return None
    rows = [
        (layer.keys.expand(num_texts, -1, -1, -1), layer.values.expand(num_texts, -1, -1, -1)) for layer in cache.layers
    ]
    return DynamicCache(rows)
