"""Pretrained language models (PLMs) by name: the text side of arXiv 2310.19453.

Every PLM is loaded as a masked language model, so that the MLM head of a checkpoint comes along,
tied to the input embeddings, and the lack of one is noticed.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    T5ForConditionalGeneration,
)
from transformers.utils import logging

from altlib import fetch

# The names that BERT and its relatives, and DistilBERT, give to the dropouts inside the encoder.
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")


@dataclass
class Plm:
    """A pretrained language model in parts.

    Attributes:
        encoder: tokens to states, by `encode`.
        head: the PLM's own MLM head, states [..., H] to logits [..., V], its `decoder` tied to the
            input embeddings of `encoder`; None where the checkpoint has no whole head.
        tokenizer: knows a [CLS], a [SEP], a [MASK] and a padding token, under whatever spelling.
        hidden_size: H.
        vocab_size: V.
        layers: of the encoder.
        name: as it was asked for.
    """

    encoder: nn.Module
    head: nn.Module | None
    tokenizer: PreTrainedTokenizerFast
    hidden_size: int
    vocab_size: int
    layers: int
    name: str


def split_name(name: str) -> tuple[str, str | None]:
    """A PLM's name without ":k", and k, the number of layers that it asks for."""
    match = re.fullmatch(r"(.+):(-?\w+)", name)
    return (match[1], match[2]) if match else (name, None)


def load(name: str, dropout: float = 0.1) -> Plm:
    """A PLM in float32 and evaluation mode.

    Args:
        name: a name that `fetch.weights` takes; ":k" behind it keeps the first k layers.
        dropout: the probability of every dropout inside the encoder.

    Raises:
        ValueError: k is out of range, or the checkpoint lacks what a masked language model needs.
    """
    base, depth = split_name(name)
    folder, config = _configured(name)
    if depth is not None:
        if not depth.isdecimal() or not 1 <= int(depth) <= config.num_hidden_layers:
            raise ValueError(
                f"'{name}' asks for the first '{depth}' layers, but '{base}' has "
                f"{config.num_hidden_layers}: give a number from 1 to {config.num_hidden_layers}."
            )
        # The deeper layers of the checkpoint are then not even read.
        config.num_hidden_layers = int(depth)
    _set_dropout(config, dropout, name)
    with _quiet():
        try:
            model, report = AutoModelForMaskedLM.from_pretrained(
                folder, config=config, dtype=torch.float32, output_loading_info=True
            )
        except SafetensorError as error:
            raise ValueError(
                f"The weights in {folder} are cut short or damaged: {error}."
            ) from error
        tokenizer = _tokenizer(folder, name, config)
    prefix = f"{model.base_model_prefix}."
    missing = sorted(key for key in report["missing_keys"] if key.startswith(prefix))
    if missing:
        raise ValueError(
            f"The checkpoint {folder} of '{name}' lacks {len(missing)} weights of the encoder, "
            f"which would be random: {', '.join(missing[:5])}{', …' if missing[5:] else ''}."
        )
    return Plm(
        encoder=model.base_model,
        head=None if report["missing_keys"] else _head(model),
        tokenizer=tokenizer,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        layers=config.num_hidden_layers,
        name=name,
    )


def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a PLM, without its weights."""
    folder, config = _configured(name)
    with _quiet():
        return _tokenizer(folder, name, config)


def load_answering(name: str, dropout: float = 0.1) -> T5ForConditionalGeneration:
    """A T5, which reads a sentence and answers in words, in float32 and evaluation mode.

    Args:
        name: a name that `fetch.weights` takes, without ":k".
        dropout: the probability of every dropout.

    Raises:
        ValueError: the PLM is not a whole T5, or ":k" stands behind its name.
    """
    if split_name(name)[1] is not None:
        raise ValueError(f"'{name}' asks for some layers; a T5 is taken whole.")
    folder, config = _configured(name)
    if config.model_type != "t5":
        raise ValueError(f"'{name}' is a {config.model_type}, and only a T5 answers in words.")
    config.dropout_rate = dropout
    with _quiet():
        loaded: Any = T5ForConditionalGeneration.from_pretrained(
            folder, config=config, dtype=torch.float32, output_loading_info=True
        )
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"The checkpoint {folder} of '{name}' lacks {len(missing)} weights of a T5, which "
            f"would be random: {', '.join(missing[:5])}{', …' if missing[5:] else ''}."
        )
    return model


def encode(encoder: nn.Module, tokens: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """States [B, L, H] of tokens [B, L]; attention [B, L] is True at tokens, False at padding."""
    mask = attention.long()
    if tokens.is_cuda and getattr(encoder.config, "_attn_implementation", "") == "sdpa":
        # transformers would ask whether anything is padded at all, and wait for the GPU's answer.
        mask = attention[:, None, None]
    # No token_type_ids: one segment, and MPNet and DistilBERT do not take them.
    output = encoder(input_ids=tokens, attention_mask=mask)
    return output.last_hidden_state


def encode_first(encoder: nn.Module, tokens: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """The state of [CLS] alone [B, H], equal to `encode(...)[:, 0]`.

    Behind its attention the last layer works on [CLS] only, which saves two thirds of a layer.
    """
    body: Any = encoder.transformer if hasattr(encoder, "transformer") else encoder.encoder
    last = body.layer[-1]
    # DistilBERT's attention does not yet hold the residual that others add inside.
    attended = getattr(last, "sa_layer_norm", last.attention)
    with attended.register_forward_hook(_first_token):
        return encode(encoder, tokens, attention)[:, 0]


def _first_token(module: nn.Module, inputs: Any, output: Any) -> Any:
    if isinstance(output, tuple):  # states and what else the attention gives
        return (output[0][:, :1], *output[1:])
    return output[:, :1]


def _configured(name: str) -> tuple[Path, PreTrainedConfig]:
    """The folder of a PLM, and its configuration."""
    folder = fetch.weights(split_name(name)[0])
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"The folder {folder} of '{name}' holds no config.json.")
    return folder, AutoConfig.from_pretrained(folder)


def _set_dropout(config: PreTrainedConfig, dropout: float, name: str) -> None:
    known = [key for key in DROPOUTS if hasattr(config, key)]
    if not known:
        raise ValueError(
            f"The configuration of '{name}' ({config.model_type}) has none of the dropouts "
            f"{', '.join(DROPOUTS)}; take a PLM of the BERT, RoBERTa, MPNet or DistilBERT family."
        )
    for key in known:
        setattr(config, key, dropout)


def _tokenizer(folder: Path, name: str, config: PreTrainedConfig) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(f"The tokenizer of '{name}' in {folder} is not a fast one.")
    kinds = ["pad_token"]
    if not config.is_encoder_decoder:  # a T5 has neither a [CLS] nor a [MASK]
        kinds += ["cls_token", "sep_token", "mask_token"]
    lacking = [kind for kind in kinds if getattr(tokenizer, f"{kind}_id") is None]
    if lacking:
        raise ValueError(f"The tokenizer of '{name}' in {folder} has no {', '.join(lacking)}.")
    # Without its files transformers makes a tokenizer of the special tokens alone.
    if not len(tokenizer.all_special_ids) < len(tokenizer) <= config.vocab_size:
        raise ValueError(
            f"The tokenizer of '{name}' in {folder} has {len(tokenizer)} tokens and the PLM "
            f"{config.vocab_size}: they do not belong together, or a tokenizer file is missing."
        )
    return tokenizer


def _head(model: Any) -> nn.Module | None:
    if hasattr(model, "vocab_projector"):  # DistilBERT keeps the parts of its head apart
        names = ("vocab_transform", "activation", "vocab_layer_norm")
        parts = OrderedDict((part, getattr(model, part)) for part in names)
        return nn.Sequential(parts | {"decoder": model.vocab_projector})
    head = model.cls.predictions if hasattr(model, "cls") else getattr(model, "lm_head", None)
    return head if hasattr(head, "decoder") else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the load report of transformers: what matters of it is checked here."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
