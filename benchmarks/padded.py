"""The padded form of our encoder, as transformers runs it: what packed rows are compared with."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from anna.modeling.batching import token_batches
from anna.modeling.encoder import Encoder, Part
from anna.modeling.encoder_config import EncoderConfig
from anna.modeling.pooling import normalise


class PaddedEncoder(Encoder):
    """Every text with its whole prompt, padded on the right, through sdpa attention and a whole last layer."""

    def __init__(
        self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, config: EncoderConfig, dtype: torch.dtype
    ) -> None:
        """Store the parts and leave the backbone as it is."""
        nn.Module.__init__(self)
        self.backbone, self.tokenizer, self.config, self.dtype = backbone, tokenizer, config, dtype

    def num_shared(self, token_ids: Sequence[Sequence[int]]) -> int:
        """Return 0: nothing is computed once for several texts."""
        return 0

    def forward(self, parts: Sequence[Part]) -> tuple[Tensor, ...]:
        """Return the unit vectors of each part's texts, (B, D), one part after the other."""
        return tuple(self._vectors(part.rows) for part in parts)

    def encode(
        self,
        texts: Sequence[str],
        *,
        prefix: str = "",
        max_tokens: int,
        tokens_per_batch: int,
        desc: str = "encoding",
    ) -> NDArray[np.float32]:
        """Return the unit vectors of `texts`, (N, D); arguments as `Encoder.encode`, padding counted in batches."""
        ids = self.tokenize(texts, prefix=prefix, max_tokens=max_tokens)
        vectors = np.empty((len(texts), self.backbone.config.hidden_size), dtype=np.float32)
        with torch.inference_mode():
            for batch in token_batches([len(row) for row in ids], tokens_per_batch):
                vectors[batch] = self._vectors([ids[index] for index in batch]).cpu().numpy()
        return vectors

    def _vectors(self, token_ids: Sequence[Sequence[int]]) -> Tensor:
        lengths = torch.tensor([len(row) for row in token_ids])
        longest, pad = int(lengths.max()), self.tokenizer.pad_token_id
        ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in token_ids]).to(self.device)
        mask = (torch.arange(longest) < lengths[:, None]).long().to(self.device)
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            hidden_BLD = self.backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return normalise(hidden_BLD[torch.arange(len(ids)), lengths - 1])
