"""The sizes of a transformer, and how many weights it has. Pure arithmetic.

Legend: inputs and outputs are those of one matrix, as `torch.nn.Linear` counts them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Shape(NamedTuple):
    """The sizes of a transformer, decoder or encoder."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    key_heads: int
    head_dim: int
    vocabulary: int
    is_decoder: bool = True
    """RMS norms, three matrices in the MLP, rotary positions; otherwise as BERT."""
    positions: int = 0
    """Rows of an encoder's tables of positions and token types."""
    has_key_bias: bool = False
    """Of queries, keys and values alone (Qwen2)."""
    has_head_norm: bool = False
    """Queries and keys have norms of their own (Qwen3)."""
    is_tied: bool = True
    """The language head is the token table."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Shape":
        """Return the shape that a `config.json` describes.

        Raises:
            KeyError: If it describes no transformer of a known form.
        """
        kind, heads = config["model_type"], config["num_attention_heads"]
        is_decoder = kind in ("llama", "mistral", "qwen2", "qwen3")
        if not is_decoder and kind not in ("bert", "roberta", "xlm-roberta"):
            raise KeyError(kind)
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            ffn=config["intermediate_size"],
            heads=heads,
            key_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocabulary=config["vocab_size"],
            is_decoder=is_decoder,
            positions=0 if is_decoder else config["max_position_embeddings"] + config.get("type_vocab_size", 2),
            has_key_bias=kind == "qwen2",
            has_head_norm=kind == "qwen3",
            is_tied=config.get("tie_word_embeddings", False),
        )

    def cut(self, layers: int | None) -> "Shape":
        """Return the shape of the first `layers` layers; None: all."""
        return self._replace(layers=min(layers or self.layers, self.layers))

    @property
    def query_dims(self) -> int:
        """Dimensions of all query heads together."""
        return self.heads * self.head_dim

    @property
    def key_dims(self) -> int:
        """Dimensions of all key heads together, and of all value heads."""
        return self.key_heads * self.head_dim

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of each matrix of a layer."""
        hidden, queries, keys = self.hidden, self.query_dims, self.key_dims
        attention = ((hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden))
        return (*attention, *((hidden, self.ffn),) * (1 + self.is_decoder), (self.ffn, hidden))

    @property
    def matrices(self) -> int:
        """Weights of a layer that every token is multiplied with."""
        return sum(inputs * outputs for inputs, outputs in self.linears)

    @property
    def key_matrices(self) -> int:
        """Weights that make a layer's keys and values."""
        return sum(inputs * outputs for inputs, outputs in self.linears[1:3])

    @property
    def table(self) -> int:
        """Weights of the token table."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All weights, without a language head."""
        hidden = self.hidden
        if not self.is_decoder:
            layer = self.matrices + sum(outputs for _, outputs in self.linears) + 4 * hidden
            return self.table + self.positions * hidden + 2 * hidden + self.layers * layer + hidden * (hidden + 1)
        layer = self.matrices + 2 * hidden + 2 * self.head_dim * self.has_head_norm
        layer += sum(outputs for _, outputs in self.linears[:3]) * self.has_key_bias
        return self.table + self.layers * layer + hidden

    def adapters(self, rank: int) -> int:
        """Return the weights of LoRA adapters of `rank` on all matrices of all layers."""
        return self.layers * rank * sum(map(sum, self.linears))
