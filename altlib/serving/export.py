"""Finetuned models as ONNX, held against PyTorch.

The paper (arXiv 2310.19453) leaves open how `ALT_ctr` does under strict latency: it is the graph of
the raw ID-based model, and is measured as such.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from pydantic import TypeAdapter
from safetensors.torch import load_model
from torch import Tensor, nn

from altlib import store
from altlib.config import VARIANTS, Finetuning
from altlib.data.tabular import Prepared
from altlib.data.text import TextBatch, sentence_fields, specials
from altlib.lab import keys, provenance, steps
from altlib.models import plm
from altlib.models.finetune import prediction
from altlib.profile import load_profile
from altlib.serving.predictor import Predictor
from altlib.store import write_json

TOLERANCES = {"model.onnx": 1e-5, "model-int8.onnx": 0.05}
"""Largest difference between an exported model and PyTorch in a probability."""


def find(run: str) -> Path:
    """The folder of a finetuned run.

    Args:
        run: "PROFILE/VARIANT/SEED" as "quick/alt_ctr/0", or the folder itself.

    Raises:
        FileNotFoundError: there is no such run yet.
        ValueError: no such profile or variant.
    """
    if (Path(run) / "results.json").is_file():
        return Path(run)
    profile, *rest = run.rsplit("/", 2)
    if len(rest) < 2 or not rest[1].isdecimal():
        raise FileNotFoundError(
            f"'{run}' is neither the folder of a run nor of the form PROFILE/VARIANT/SEED, as "
            "quick/alt_ctr/0."
        )
    config = load_profile(profile).run(rest[0], int(rest[1]))
    folder = keys.folder(config)
    if not (folder / "results.json").is_file():
        raise FileNotFoundError(
            f"The run '{run}' does not exist yet; make it with "
            f"python -m altlib.lab.run {profile} {rest[0]} --seed {rest[1]}."
        )
    return folder


def configuration(folder: Path) -> Finetuning:
    """That of the finetuned run in a folder."""
    results = store.read_json(folder / "results.json")
    return TypeAdapter(Finetuning).validate_python(results["config"])


def restore(folder: Path) -> tuple[nn.Module, Finetuning]:
    """A finetuned model in evaluation mode, and its configuration; a ValueError says that its raw
    data have changed, and its IDs stand for other values."""
    config = configuration(folder)
    made_of = store.read_json(folder / "results.json")["data"]["sha256"]
    if made_of != steps.prepare(config.data).provenance["sha256"]:
        raise ValueError(
            f"The data '{config.data.dataset}' have changed since the run {folder.name} was made: "
            "its IDs stand for other values. Train it anew."
        )
    # The aligned weights it began from are not needed for those it ended with.
    model = steps.build_finetuning(replace(config, pretraining=None))
    load_model(model, str(store.checked(folder / "model.safetensors")))
    return model.eval(), config


class Graph(nn.Module):
    """A finetuned model as a function of arrays: some of ids, tokens, attention -> [B]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        ids: Tensor | None = None,
        tokens: Tensor | None = None,
        attention: Tensor | None = None,
    ) -> Tensor:
        """Click probabilities [B] of ids [B, F], tokens and attention [B, L], all int64."""
        text = None
        if tokens is not None and attention is not None:
            seen = attention.bool()
            text = TextBatch(tokens, seen, tokens, seen)  # fields of tokens are not read
        return prediction(self.model(ids, text))


def export(run: str | Path, out: str | Path, int8: bool = False) -> Path:
    """Writes a run as a folder that `predictor.Predictor` reads, and holds it against PyTorch.

    Args:
        run: as `find` takes it.
        out: the folder to make; it must not be there.
        int8: write model-int8.onnx beside it, with embeddings and the weights of matrix products
            as 8-bit numbers; its probabilities differ.

    Raises:
        FileExistsError: `out` is there.
        ValueError: the run's variant cannot be exported, its data have changed since, or the
            probabilities of a model differ by more than `TOLERANCES` allows.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out} already exists; choose another folder or remove it.")
    folder = find(str(run))
    model, config = restore(folder)
    if VARIANTS[config.variant].kind not in ("ctr", "lang", "both"):
        raise ValueError(
            f"'{config.variant}' cannot be exported; raw, ALT_ctr, ALT_lang, ALT_both and their "
            "controls can."
        )
    data = steps.prepare(config.data)
    with store.made(out) as temporary:
        write(temporary, model, config, data, folder, int8)
        compare(temporary, model, config, data)
    return out


def write(
    out: Path, model: nn.Module, config: Finetuning, data: Prepared, folder: Path, int8: bool
) -> None:
    """Fills the folder of an export."""
    given = inputs(config, data, data.rows[data.of("test")[:2]])
    batch = torch.export.Dim("batch")
    shapes: dict[str, Any] = {name: {0: batch} for name in given}
    if config.text is not None:
        length = torch.export.Dim("length", max=config.text.max_length)
        shapes |= {name: {0: batch, 1: length} for name in ("tokens", "attention")}
    try:
        with quiet():
            torch.onnx.export(
                Graph(model).eval(),
                kwargs=given,
                f=out / "model.onnx",
                input_names=list(given),
                output_names=["probability"],
                dynamic_shapes=shapes,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        of = f" of the PLM '{config.plm.name}'" if config.plm else ""
        raise ValueError(
            f"'{config.variant}'{of} cannot be exported: PyTorch cannot write its operations as "
            f"ONNX ({type(error).__name__})."
        ) from error
    if int8:
        with quiet():
            # Processors without VNNI add the products of two weights and two activations in 16
            # bits: 2 * 255 * 64 fits, 2 * 255 * 127 saturates. A scale a column makes up for it.
            quantize_dynamic(
                out / "model.onnx",
                out / "model-int8.onnx",
                weight_type=QuantType.QInt8,
                reduce_range=True,
                per_channel=True,
            )
    text = None
    if config.text is not None and config.plm is not None:
        tokenizer = plm.tokenizer(config.plm.name)
        tokenizer.backend_tokenizer.save(str(out / "tokenizer.json"))
        before, after = specials(tokenizer)
        told = sentence_fields(data.schema, config.text)
        text = {
            "around": [
                config.text.around(field.words) if f in told else None
                for f, field in enumerate(data.schema.fields)
            ],
            "before": before,
            "after": after,
            "pad": int(tokenizer.pad_token_id),
            "max_length": config.text.max_length,
        }
    results = store.read_json(folder / "results.json")
    content = {
        "variant": config.variant,
        "run": folder.name,
        "dataset": config.data.dataset,
        "backbone": results["backbone"],
        "plm": results["plm"] if config.plm else None,
        "test auc": results["auc"],
        "fields": data.schema.field_names,
        "typed": [field.name for field in data.schema.fields if field.typed],
        "values": data.vocabulary.values,
        "text": text,
        "provenance": provenance.provenance(config.plm),
    }
    write_json(out / "export.json", content)


def compare(out: Path, model: nn.Module, config: Finetuning, data: Prepared) -> None:
    """Raises a ValueError if a model gives other probabilities than PyTorch, by raw values."""
    rows = data.rows[np.random.default_rng(0).choice(data.of("test"), 64)]
    expected = eager(model, inputs(config, data, rows))()
    values = raw_values(data, rows)
    for name, allowed in TOLERANCES.items():
        if not (out / name).exists():
            continue
        worst = float(np.abs(Predictor(out, model=name).predict(values) - expected).max())
        if not worst <= allowed:
            raise ValueError(
                f"{name} of '{config.variant}' differs from PyTorch by {worst:.1e} in a "
                f"probability; {allowed:g} is allowed."
            )


def eager(model: nn.Module, given: Mapping[str, Tensor]) -> Callable[[], np.ndarray]:
    """A call that scores `given` by PyTorch, operation by operation."""
    graph = Graph(model)

    def call() -> np.ndarray:
        with torch.inference_mode():
            return graph(**given).numpy()

    return call


def inputs(config: Finetuning, data: Prepared, rows: np.ndarray) -> dict[str, Tensor]:
    """What the graph of a run reads: ids [B, F], tokens and attention [B, L], all int64, from value
    indices [B, F] of its data."""
    given = {}
    if config.ctr is not None:
        given["ids"] = torch.from_numpy(data.feature_of_value[rows]).long()
    if config.text is not None and config.plm is not None:
        text = steps.sentences(config.data, config.text, config.plm).assemble(rows)
        given |= {"tokens": text.tokens, "attention": text.attention.long()}
    return given


def raw_values(data: Prepared, rows: np.ndarray) -> list[dict[str, str]]:
    """Rows as a server gets them, words by field, from value indices [B, F]."""
    words = np.array(data.words, dtype=object)[rows]
    return [dict(zip(data.schema.field_names, row, strict=True)) for row in words]


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the exporter's remarks; what matters is checked by `compare`."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
