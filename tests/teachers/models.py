"""Tiny random models of the kinds that teachers load, built here so that no test needs a network."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

WORDS = (
    "the river seine flows through paris mountains are high is capital of france berlin germany who wrote this".split()
)

INDEX = {"min_docs": 256, "nlist": 4, "m": 4, "nprobe": 2, "rescore": 20, "min_recall": 0.5, "sample": 10}
"""Section `retrieve_dense.index` of params."""

FLOAT32 = {"dtype": "float32", "check_queries": 2, "min_spearman": 0.9}
"""The keys of `retrieve_dense` and `rerank` that say what is computed in."""

DENSE = {
    "query_prompt": "",
    "doc_prompt": "",
    "max_tokens": 16,
    "tokens_per_batch": 64,
    "depth": 3,
    "index": INDEX,
    **FLOAT32,
}
"""Section `retrieve_dense`, but for the model."""


def save_bert(folder: Path) -> None:
    """Write a random one-layer BERT with a word tokenizer."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(config(len(vocabulary))).save_pretrained(folder)


def config(vocabulary: int, **more: int) -> BertConfig:
    """Return the size of the model."""
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,
        **more,
    )


def save_bi_encoder(folder: Path) -> Path:
    """Write a sentence-transformers model of mean pooling and return its folder."""
    save_bert(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(16)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
    return folder / "model"


def save_cross_encoder(folder: Path, num_labels: int = 1) -> Path:
    """Write a cross-encoder and return its folder."""
    save_bert(folder)
    torch.manual_seed(0)
    BertForSequenceClassification(config(len(WORDS) + 4, num_labels=num_labels)).save_pretrained(folder)
    return folder
