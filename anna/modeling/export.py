"""A merged model that plain `SentenceTransformer(path)` loads, and proof that it is the encoder that was trained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from peft import PeftModel
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from anna import io
from anna.errors import InputError
from anna.modeling.encoder import Encoder
from anna.modeling.encoder_config import ADAPTER_FOLDER, CONFIG_FILE, OF_DOCUMENTS, WITH_EXAMPLES, EncoderConfig
from anna.modeling.hardware import tell_deepspeed
from anna.modeling.student import StudentParams, load_student
from anna.origins import fetch_model


def load_trained(folder: Path, student: StudentParams) -> Encoder:
    """Return the encoder that training left in `folder`, its adapter, if any, still apart from the weights.

    Args:
        folder: What `train` wrote.
        student: Where the weights below an adapter come from.
    """
    if not (folder / ADAPTER_FOLDER).is_dir():
        return Encoder.load(folder)
    config = EncoderConfig.load(folder)
    # What training saw, in numbers that an adapter can be added to.
    backbone, tokenizer = load_student(
        fetch_model(student.model), student.layers, quantize=config.quantize, is_packed=False
    )
    backbone = PeftModel.from_pretrained(backbone, folder / ADAPTER_FOLDER)
    return Encoder(backbone, tokenizer, config, torch.float32).eval()


def named_prompts(config: EncoderConfig) -> dict[str, str]:
    """Return the prompts for sentence-transformers.

    `<task>` of every task, `<task>+examples` where it has examples, and an empty `<task>-document` where its documents
    are bare: else mteb, which looks for that name first, would give them the prompt of the queries.
    """
    prompts = {task: config.prefix(task) for task in config.tasks}
    for task, prompt in config.tasks.items():
        if not prompt.symmetric:
            prompts[task + OF_DOCUMENTS] = ""
        if prompt.examples:
            prompts[task + WITH_EXAMPLES] = config.prefix(task, len(prompt.examples))
    return prompts


def export(encoder: Encoder, folder: Path) -> None:
    """Merge the adapter, if any, into the weights and write a sentence-transformers model, atomically."""
    backbone = encoder.backbone
    if isinstance(backbone, PeftModel):
        backbone = backbone.merge_and_unload()
    with io.atomic(folder) as temporary:
        tell_deepspeed()
        backbone.save_pretrained(temporary)
        config = temporary / "config.json"
        io.write_json(config, readable_by_all(io.read_json(config)))
        _save_tokenizer(encoder.tokenizer, encoder.config.max_tokens, temporary)
        _save_modules(encoder.config, backbone.config.hidden_size, temporary)
        encoder.config.save(temporary)


def readable_by_all(config: dict[str, Any]) -> dict[str, Any]:
    """Return a `config.json` of transformers 5 with its values also under the names that others read.

    transformers 4 and text-embeddings-inference look for the rotation of positions at the top level. Where they do not
    find it, transformers 4 takes 10,000 for its base without a word, and gives other vectors.
    """
    config = dict(config)
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")  # transformers 5 reads both
    rope = config.get("rope_parameters")
    if not rope:
        return config
    # Models with two kinds of layers have one rotation for each; the old names are those of Gemma 3.
    if "sliding_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    rope = dict(rope.get("full_attention", rope))
    kind = rope.pop("rope_type", "default")
    config.update({key: rope.pop(key) for key in ("rope_theta", "partial_rotary_factor") if key in rope})
    if kind != "default":
        # transformers 4 counts the keys that these have, so what stands at the top level is not repeated.
        name = "type" if config["model_type"] in {"olmo2", "phi3"} else "rope_type"
        config["rope_scaling"] = {name: kind, **{key: value for key, value in rope.items() if key not in config}}
    return config


def _save_tokenizer(tokenizer: PreTrainedTokenizerFast, max_tokens: int, folder: Path) -> None:
    """Write the tokenizer without what its use left in it: whoever calls it says where it cuts and pads."""
    bare = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    bare.no_truncation()
    bare.no_padding()
    bare.save(str(folder / "tokenizer.json"))
    settings = {
        # In transformers 4 the classes of the families make their own rules, and forget the one that appends EOS.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_tokens,
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
    }
    tokens = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    io.write_json(folder / "tokenizer_config.json", {**settings, **tokens})


def _save_modules(config: EncoderConfig, dimensions: int, folder: Path) -> None:
    """Write what sentence-transformers makes of the decoder, as its versions from 3 on, and servers, read it.

    Version 6 itself would write names of modules and pooling modes that those before it do not know.
    """
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{name}"}
        for index, (name, path) in enumerate(modules)
    ]
    io.write_text(folder / "modules.json", json.dumps(listed, indent=2) + "\n")
    io.write_json(folder / "sentence_bert_config.json", {"max_seq_length": config.max_tokens, "do_lower_case": False})
    pooling = {
        "word_embedding_dimension": dimensions,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": config.pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_weightedmean_tokens": False,
        "pooling_mode_lasttoken": config.pooling == "last_token",
        "include_prompt": True,
    }
    (folder / "1_Pooling").mkdir()
    io.write_json(folder / "1_Pooling" / "config.json", pooling)
    prompts = {"prompts": named_prompts(config), "default_prompt_name": None, "similarity_fn_name": "cosine"}
    io.write_json(folder / "config_sentence_transformers.json", prompts)


def samples(queries: pa.Table, corpus: pa.Table, count: int, config: EncoderConfig) -> dict[str, list[str]]:
    """Return texts to compare, by prompt name ("" for bare): half documents, half queries of all tasks and prompts.

    Tasks without a prompt, which then have no group to train on, are left out.
    """
    half = count // 2
    chosen = {"": corpus["text"].to_pylist()[:: max(1, corpus.num_rows // (count - half))][: count - half]}
    names = sorted(named_prompts(config))
    prompted = queries.filter(pc.is_in(queries["task"], pa.array(sorted(config.tasks), pa.string())))
    rows = prompted.select(["task", "text"]).to_pylist()[:: max(1, prompted.num_rows // max(half, 1))][:half]
    for number, row in enumerate(rows):
        fitting = [name for name in names if name.removesuffix(WITH_EXAMPLES) == row["task"]]
        chosen.setdefault(fitting[number % len(fitting)], []).append(row["text"])
    return chosen


def embed(encoder: Encoder, texts: dict[str, list[str]]) -> dict[str, NDArray[np.float32]]:
    """Return the training encoder's vectors of `texts`, by prompt name."""
    prompts = {"": "", **named_prompts(encoder.config)}
    return {
        name: encoder.encode(
            part, prefix=prompts[name], max_tokens=_room(encoder, prompts[name]), tokens_per_batch=2048
        )
        for name, part in texts.items()
    }


def compare(expected: dict[str, NDArray[np.float32]], texts: dict[str, list[str]], folder: Path, least: float) -> float:
    """Return the smallest cosine between expected vectors and those of plain sentence-transformers on `folder`.

    Raises:
        InputError: If it is not above `least`: the exported model is not the one that was trained.
    """
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    smallest = 1.0
    for name, part in texts.items():
        got_ND = model.encode(part, prompt_name=name or None, batch_size=16, show_progress_bar=False)
        cosines = (expected[name] * got_ND).sum(axis=1)
        worst = int(cosines.argmin())
        if not cosines[worst] > least:
            raise InputError(
                f"{folder}: text {part[worst][:60]!r} (prompt {name!r}) has cosine {cosines[worst]:.6f} with the "
                f"training encoder, expected > {least}; do not use this export. Check {CONFIG_FILE} and the tokenizer"
            )
        smallest = min(smallest, float(cosines[worst]))
    return smallest


def _room(encoder: Encoder, prompt: str) -> int:
    """Return how many tokens of text fit after `prompt`, as sentence-transformers cuts them."""
    return encoder.config.max_tokens - encoder.count(prompt)
