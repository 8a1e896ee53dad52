"""Pretrained language models (PLMs) by name: the text side of arXiv 2310.19453.

Every PLM is loaded as a masked language model, so that the MLM head of a checkpoint comes along,
tied to the input embeddings, and the lack of one is noticed.
"""

import re
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from altlib.config import split_name
from altlib.data import fetch

if TYPE_CHECKING:  # it takes a second to load, and few runs need it
    from transformers import T5ForConditionalGeneration

FIRST_ALONE = {"bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"}
"""The families whose last layer can work on [CLS] only."""

HEADS = {
    "vocab_projector": ("vocab_transform", "activation", "vocab_layer_norm"),  # DistilBERT
    "generator_lm_head": ("generator_predictions",),  # ELECTRA
    "decoder": ("head",),  # ModernBERT
}
"""The last part of an MLM head that is kept in parts, and the parts before it."""


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
        longest: tokens of a sentence that it can read.
    """

    encoder: nn.Module
    head: nn.Module | None
    tokenizer: PreTrainedTokenizerFast
    hidden_size: int
    vocab_size: int
    layers: int
    longest: int


def load(name: str, dropout: float = 0.1, length: int = 0) -> Plm:
    """A PLM in float32 and evaluation mode.

    Args:
        name: a name that `fetch.weights` takes; ":k" behind it keeps the first k layers.
        dropout: the probability of every dropout inside the encoder.
        length: tokens of the longest sentence that it will have to read.

    Raises:
        ValueError: k or `length` is out of range, a file is damaged, or the PLM lacks what a masked
            language model needs.
    """
    base, depth = split_name(name)
    folder, config = _configured(name)
    if config.is_encoder_decoder:
        raise ValueError(
            f"'{name}' ({config.model_type}) has an encoder and a decoder; take a PLM that is an "
            "encoder alone, as those of the BERT family."
        )
    if depth is not None:
        if not depth.isdecimal() or not 1 <= int(depth) <= config.num_hidden_layers:
            raise ValueError(
                f"'{name}' asks for the first '{depth}' layers, but '{base}' has "
                f"{config.num_hidden_layers}: give a number from 1 to {config.num_hidden_layers}."
            )
        with _reading(f"The first {depth} layers of '{base}' in {folder}"):
            # The deeper layers of the checkpoint are then not even read.
            config.num_hidden_layers = int(depth)
    _set_dropout(config, dropout, name)
    model, report = _weights(AutoModelForMaskedLM, folder, config, name)
    tokenizer = _tokenizer(folder, name, config)
    prefix = f"{model.base_model_prefix}."
    missing = [key for key in report["missing_keys"] if key.startswith(prefix)]
    _whole(model, report, missing, folder, name)
    deeper = [key for key in report["unexpected_keys"] if re.search(r"\blayers?\.\d+\.", key)]
    if depth is None and deeper:
        raise ValueError(
            f"The checkpoint {folder} of '{name}' has more layers than its config.json says, as "
            f"{min(deeper)}; to take the first ones, write '{name}:{config.num_hidden_layers}'."
        )
    encoder = model.base_model
    _try(encoder, tokenizer, config, name)
    longest = _longest(encoder, config)
    if length > longest:
        raise ValueError(
            f"text.max_length is {length}, but '{name}' reads at most {longest} tokens; "
            f"lower text.max_length to {longest}."
        )
    return Plm(
        encoder=encoder,
        head=None if report["missing_keys"] else _head(model),
        tokenizer=tokenizer,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        layers=config.num_hidden_layers,
        longest=longest,
    )


def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a PLM, without its weights."""
    folder, config = _configured(name)
    return _tokenizer(folder, name, config)


def load_answering(name: str, dropout: float = 0.1) -> "T5ForConditionalGeneration":
    """A T5, which reads a sentence and answers in words, in float32 and evaluation mode.

    Args:
        name: a name that `fetch.weights` takes, without ":k".
        dropout: the probability of every dropout.

    Raises:
        ValueError: the PLM is not a whole T5, or ":k" stands behind its name.
    """
    if split_name(name)[1] is not None:
        raise ValueError(
            f"'{name}' asks for the first layers; a T5 is loaded whole: leave out ':k'."
        )
    folder, config = _configured(name)
    if config.model_type != "t5":
        raise ValueError(f"'{name}' is a {config.model_type}, and only a T5 answers in words.")
    config.dropout_rate = dropout
    from transformers import T5ForConditionalGeneration

    model, report = _weights(T5ForConditionalGeneration, folder, config, name)
    _whole(model, report, report["missing_keys"], folder, name)
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

    In the families of `FIRST_ALONE` the last layer works, behind its attention, on [CLS] only,
    which saves two thirds of a layer.
    """
    kind: Any = encoder.config
    if kind.model_type not in FIRST_ALONE:
        return encode(encoder, tokens, attention)[:, 0]
    body: Any = encoder.transformer if hasattr(encoder, "transformer") else encoder.encoder
    last = body.layer[-1]
    if last._compiled_call_impl is not None:  # a graph that all layers share knows no hook
        return encode(encoder, tokens, attention)[:, 0]
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
    with _reading(f"The file {folder / 'config.json'} of '{name}'"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return folder, config


def _set_dropout(config: PreTrainedConfig, dropout: float, name: str) -> None:
    chances = {key for key, value in config.to_dict().items() if type(value) in (int, float)}
    known = [key for key in chances if "dropout" in key]
    if not known:
        raise ValueError(
            f"The configuration of '{name}' ({config.model_type}) names no dropout; take a PLM of "
            "the BERT, RoBERTa, MPNet or DistilBERT family."
        )
    for key in known:
        setattr(config, key, dropout)


def _weights(
    kind: Any, folder: Path, config: PreTrainedConfig, name: str
) -> tuple[Any, dict[str, Any]]:
    """The model of a class of transformers with a checkpoint's weights, and what did not fit."""
    with _reading(f"The weights of '{name}' in {folder}"):
        return kind.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
        )


def _whole(
    model: nn.Module, report: dict[str, Any], missing: Iterable[str], folder: Path, name: str
) -> None:
    """Raises a ValueError if weights are missing, of another shape, or not finite."""
    checkpoint = f"The checkpoint {folder} of '{name}'"
    if missing := sorted(missing):
        raise ValueError(
            f"{checkpoint} lacks {len(missing)} weights, which would be random: "
            f"{', '.join(missing[:5])}{', …' if missing[5:] else ''}."
        )
    for weight, found, wanted in sorted(report["mismatched_keys"]):
        raise ValueError(
            f"{checkpoint} does not belong to its config.json, or is damaged: {weight} is "
            f"{list(found)}, and by config.json {list(wanted)}."
        )
    for weight, values in model.named_parameters():
        if not values.isfinite().all():
            raise ValueError(f"{checkpoint} is damaged: {weight} holds values that are not finite.")


@torch.no_grad()
def _try(
    encoder: nn.Module, tokenizer: PreTrainedTokenizerFast, config: PreTrainedConfig, name: str
) -> None:
    """Raises a ValueError if the encoder does not do what training will ask of it."""
    first, last, mask, pad = (
        getattr(tokenizer, f"{kind}_token_id") for kind in ("cls", "sep", "mask", "pad")
    )
    short = torch.tensor([[first, mask, last]])
    tokens = torch.tensor([[first, mask, last, pad, pad], [first, mask, mask, mask, last]])
    try:
        alone = encode(encoder, short, torch.ones_like(short).bool())
        states = encode(encoder, tokens, torch.tensor([[True] * 3 + [False] * 2, [True] * 5]))
        fault = ""
        if states.shape != (*tokens.shape, config.hidden_size):
            fault = "it does not give a state for each token"
        elif (alone[0] - states[0, :3]).abs().max() > 1e-3 * states.abs().max():
            fault = "its states depend on the padding behind a sentence"
        elif (states[0, 0] - states[1, 0]).abs().max() <= 1e-6 * states.abs().max():
            fault = "its first token does not read those behind it"
    except Exception as error:  # of a model that wants other inputs
        fault = f"it cannot read a sentence ({type(error).__name__}: {error})"
    if fault:
        raise ValueError(
            f"'{name}' ({config.model_type}) does not fit: {fault}. Take a PLM of the BERT, "
            "RoBERTa, MPNet or DistilBERT family."
        )


def _longest(encoder: nn.Module, config: PreTrainedConfig) -> int:
    table = getattr(getattr(encoder, "embeddings", encoder), "position_embeddings", None)
    if not isinstance(table, nn.Embedding):  # positions are relative
        return getattr(config, "max_position_embeddings", sys.maxsize)
    # RoBERTa and MPNet count positions from behind that of padding.
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


def _tokenizer(folder: Path, name: str, config: PreTrainedConfig) -> PreTrainedTokenizerFast:
    with _reading(f"The tokenizer of '{name}' in {folder}"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(f"The tokenizer of '{name}' in {folder} is not a fast tokenizer.")
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
    apart = (last for last in HEADS if isinstance(getattr(model, last, None), nn.Linear))
    if (last := next(apart, None)) is not None:
        parts = OrderedDict((part, getattr(model, part)) for part in HEADS[last])
        head: Any = nn.Sequential(parts | {"decoder": getattr(model, last)})
    else:
        before = getattr(model, "cls", None)
        places = ((before, "predictions"), (model, "lm_head"), (model, "predictions"))
        head = next((getattr(of, place) for of, place in places if hasattr(of, place)), None)
    decoder = getattr(head, "decoder", None)
    return head if isinstance(decoder, nn.Linear) and decoder.bias is not None else None


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Makes a ValueError of whatever the libraries raise about files, and silences what they report
    of their loading: what matters of it is checked here."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except Exception as error:
        # Sentences behind the first advise what only a programmer can do.
        reason = re.split(r"\.\s", f"{type(error).__name__}: {error}")[0]
        raise ValueError(
            f"{what} cannot be read: cut short or damaged, or not of a kind that transformers "
            f"knows ({' '.join(reason.split()).rstrip('.')})."
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
