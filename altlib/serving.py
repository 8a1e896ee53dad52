"""`python -m altlib.serving`: finetuned models as ONNX, and what a prediction costs.

    python -m altlib.serving export RUN OUT        # RUN: PROFILE/VARIANT/SEED, or a run's folder
    python -m altlib.serving predict OUT rows.csv

The paper (arXiv 2310.19453) leaves open how `ALT_ctr` does under strict latency: it is the graph of
the raw ID-based model, and is measured as such.
"""

import argparse
import json
import logging
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from pydantic import TypeAdapter
from safetensors.torch import load_model
from torch import Tensor, nn

from altlib import fetch, metrics, plm, runs, store
from altlib.datasets import own
from altlib.finetune import prediction
from altlib.predictor import Predictor, checked, content_checksum
from altlib.runs import VARIANTS, Finetuning
from altlib.tabular import Prepared
from altlib.text import TextBatch, specials, told_fields

KINDS = ("ctr", "lang", "both")
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
    config = runs.load_profile(profile).run(rest[0], int(rest[1]))
    folder = folder_of(config)
    if not (folder / "results.json").is_file():
        raise FileNotFoundError(
            f"The run '{run}' is not there yet; make it by "
            f"python -m altlib.runs {profile} {rest[0]} --seed {rest[1]}."
        )
    return folder


def folder_of(config: Finetuning) -> Path:
    """Where a finetuned run lies, if it is there."""
    return runs.home() / "artifacts" / "finetuning" / runs.finetuning_key(config)


def configuration(folder: Path) -> Finetuning:
    """That of the finetuned run in a folder."""
    results = store.read_json(folder / "results.json")
    return TypeAdapter(Finetuning).validate_python(results["config"])


def restore(folder: Path) -> tuple[nn.Module, Finetuning]:
    """A finetuned model in evaluation mode, and its configuration."""
    config = configuration(folder)
    # The aligned weights it began from are not needed for those it ended with.
    model = runs.build_finetuning(replace(config, pretraining=None))
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
        ValueError: the run's variant cannot be exported, or the probabilities of a model differ by
            more than `TOLERANCES` allows.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out} is there already; choose another folder or remove it.")
    folder = find(str(run))
    model, config = restore(folder)
    kind = VARIANTS[config.variant][0]
    if kind not in KINDS:
        raise ValueError(
            f"'{config.variant}' cannot be exported; raw, ALT_ctr, ALT_lang, ALT_both and their "
            "controls can."
        )
    data = runs.prepare(config.data)
    temporary = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write(temporary, model, config, data, folder, int8)
        compare(temporary, model, config, data)
    except BaseException:
        shutil.rmtree(temporary)
        raise
    store.put(temporary, out)
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
    files = ["model.onnx"]
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
        files.append("model-int8.onnx")
    text = None
    if config.text is not None and config.plm is not None:
        tokenizer = plm.tokenizer(config.plm.name)
        tokenizer.backend_tokenizer.save(str(out / "tokenizer.json"))
        files.append("tokenizer.json")
        before, after = specials(tokenizer)
        told = told_fields(data.schema, config.text)
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
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    content = {
        "variant": config.variant,
        "run": folder.name,
        "dataset": config.data.dataset,
        "backbone": results["backbone"],
        "plm": results["plm"] if config.plm else None,
        "test auc": results["auc"],
        "fields": data.vocabulary.fields,
        "typed": [field.name for field in data.schema.fields if field.typed],
        "values": data.vocabulary.values,
        "text": text,
        "sha256": {name: fetch.sha256(out / name) for name in files},
        "provenance": runs.provenance(config.plm),
    }
    content["content sha256"] = content_checksum(content)
    runs.write_json(out / "export.json", content)


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


def inputs(config: Finetuning, data: Prepared, rows: np.ndarray) -> dict[str, Tensor]:
    """What the graph of a variant reads: ids [B, F], tokens and attention [B, L], all int64.

    Args:
        config: of the run.
        data: its prepared data.
        rows: value indices [B, F].
    """
    given = {}
    if config.ctr is not None:
        given["ids"] = torch.from_numpy(data.feature_of_value[rows]).long()
    if config.text is not None and config.plm is not None:
        text = runs.sentences(config.data, config.text, config.plm).assemble(rows)
        given |= {"tokens": text.tokens, "attention": text.attention.long()}
    return given


def raw_values(data: Prepared, rows: np.ndarray) -> list[dict[str, str]]:
    """Rows as a server gets them, words by field, from value indices [B, F]."""
    words = [value for values in data.values for value in values]
    return [
        dict(zip(data.vocabulary.fields, (words[index] for index in row), strict=True))
        for row in rows
    ]


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


# --- what a prediction costs -------------------------------------------------------------------

Call = Callable[[], np.ndarray]
START = """
import json, resource, sys, time
begun = time.perf_counter()
from altlib.predictor import Predictor
predictor = Predictor(sys.argv[1], model=sys.argv[2])
predictor.predict(json.loads(sys.argv[3]))
seconds = time.perf_counter() - begun
try:  # on Linux ru_maxrss begins with the memory of the process that started this one
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**10
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps([seconds, peak]))
"""


def eager(model: nn.Module, given: Mapping[str, Tensor]) -> Call:
    """A call that scores `given` by PyTorch, operation by operation."""
    graph = Graph(model)

    def call() -> np.ndarray:
        with torch.inference_mode():
            return graph(**given).numpy()

    return call


def exported(predictor: Predictor, given: Mapping[str, Tensor]) -> Call:
    """A call that scores `given` by ONNX Runtime."""
    arrays = {name: tensor.numpy() for name, tensor in given.items()}
    text = (arrays["tokens"], arrays["attention"]) if "tokens" in arrays else None
    return lambda: predictor.score(arrays.get("ids"), text)


def candidates(data: Prepared, number: int) -> np.ndarray:
    """Value indices [number, F] of one user of the test split beside the items of other rows."""
    rows = data.rows[np.random.default_rng(0).choice(data.of("test"), number)]
    of_user = np.array([field.side == "user" for field in data.schema.fields])
    return np.where(of_user, rows[0], rows)


def timings(call: Callable[[], Any], seconds: float) -> np.ndarray:
    """Milliseconds of each of the calls that fit into the time, after a first one to warm up.

    A first call that takes longer than the time stands alone.
    """
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begun = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - begun))
    return np.array(times[1:] or times)


def measure(
    exports: Mapping[str, Path],
    batches: tuple[int, ...] = (1, 16, 100, 256, 1024, 4096),
    threads: tuple[int, ...] = (1, 2),
    seconds: float = 1.0,
) -> pd.DataFrame:
    """Latency and throughput of each variant, engine, number of threads and batch.

    Engines are "PyTorch", operation by operation; "ONNX", from IDs and tokens; "ONNX int8"; and
    "ONNX, raw values", which looks up IDs and puts sentences together, of pieces that it has cut
    before. A batch holds candidates of one user.

    Args:
        exports: folders by variant; a model-int8.onnx is measured where there is one.
        batches: rows of a call.
        threads: of an engine.
        seconds: of each measurement.
    """
    lines, before = [], torch.get_num_threads()
    for variant, folder in exports.items():
        run = checked(folder / "export.json")["run"]
        model, config = restore(runs.home() / "artifacts" / "finetuning" / run)
        data = runs.prepare(config.data)
        for number in threads:
            torch.set_num_threads(number)
            onnx = Predictor(folder, number)
            int8 = None
            if "model-int8.onnx" in onnx.export["sha256"]:
                int8 = Predictor(folder, number, "model-int8.onnx")
            for batch in batches:
                rows = candidates(data, batch)
                given, values = inputs(config, data, rows), raw_values(data, rows)
                calls: dict[str, Callable[[], Any]] = {
                    "PyTorch": eager(model, given),
                    "ONNX": exported(onnx, given),
                    "ONNX, raw values": partial(onnx.predict, values),
                }
                if int8 is not None:
                    calls["ONNX int8"] = exported(int8, given)
                for engine, call in calls.items():
                    times = timings(call, seconds)
                    middle, high, highest = np.percentile(times, [50, 95, 99])
                    lines.append(
                        {
                            "variant": variant,
                            "engine": engine,
                            "threads": number,
                            "batch": batch,
                            "p50_ms": middle,
                            "p95_ms": high,
                            "p99_ms": highest,
                            "rows_per_s": 1000 * batch / middle,
                            "calls": len(times),
                        }
                    )
    torch.set_num_threads(before)
    return pd.DataFrame(lines)


def test_auc(folder: Path, model: str) -> float:
    """AUC of an exported model on the test split of its run, by raw values."""
    predictor = Predictor(folder, threads=torch.get_num_threads(), model=model)
    config = configuration(runs.home() / "artifacts" / "finetuning" / predictor.export["run"])
    data = runs.prepare(config.data)
    test = data.of("test")
    parts = np.array_split(data.rows[test], 1 + len(test) // 1024)
    found = [predictor.predict(raw_values(data, part)) for part in parts]
    return metrics.auc(data.labels[test], np.concatenate(found))


def costs(exports: Mapping[str, Path], rounds: int = 5) -> pd.DataFrame:
    """For each model file its size, its test AUC, and a new process: the seconds from its first
    import to its first answer, and its highest memory up to there.

    These two are medians of rounds in which the files take turns, after one that only fills the
    machine's file cache.
    """
    files, commands = [], []
    for variant, folder in exports.items():
        export = checked(folder / "export.json")
        row = json.dumps([dict.fromkeys(export["fields"], "")])
        for model in (name for name in export["sha256"] if name.endswith(".onnx")):
            files.append((variant, folder, model))
            commands.append([sys.executable, "-c", START, str(folder), model, row])
    measured = []
    for command in commands * (1 + rounds):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        measured.append(json.loads(done.stdout))
    middle = np.median(np.reshape(measured, (1 + rounds, len(files), 2))[1:], axis=0)
    return pd.DataFrame(
        [
            {
                "variant": variant,
                "model": model,
                "file MB": (folder / model).stat().st_size / 1e6,
                "start-up seconds": seconds,
                "peak memory MiB": memory,
                "test AUC": test_auc(folder, model),
            }
            for (variant, folder, model), (seconds, memory) in zip(files, middle, strict=True)
        ]
    )


def same_cost(first: Call, second: Call, rounds: int = 40, seconds: float = 0.05) -> float:
    """The time of a call of `second` over one of `first`: the median of interleaved rounds."""
    ratios = []
    for number in range(rounds):
        calls = [first, second][:: -1 if number % 2 else 1]
        times = [float(np.median(timings(call, seconds))) for call in calls]
        ratios.append(times[0] / times[1] if number % 2 else times[1] / times[0])
    return float(np.median(ratios))


def waits(call: Callable[[], Any], rate: float, requests: int) -> np.ndarray:
    """Milliseconds from arrival to answer of requests that arrive at a fixed rate.

    One worker answers them in order, so that one that is late makes those behind it wait.

    Args:
        call: answers a request.
        rate: requests a second.
        requests: how many arrive. One that would wait longer than a second ends this, as if all
            had waited forever.
    """
    waited: list[float] = []
    begun = time.perf_counter()
    for arrival in np.arange(requests) / rate:
        while (now := time.perf_counter() - begun) < arrival:
            time.sleep(min(arrival - now, 1e-3) / 2)
        if now - arrival > 1:
            return np.array([np.inf])
        call()
        waited.append(1000 * (time.perf_counter() - begun - arrival))
    return np.array(waited)


def load(
    calls: Mapping[str, Callable[[], Any]],
    rates: tuple[int, ...] = (50, 100, 150, 200, 300, 400),
    limit: float = 10.0,
    requests: int = 300,
    rounds: int = 5,
) -> pd.DataFrame:
    """What requests wait at fixed rates, and the highest of these rates that holds.

    Variants take turns, and of each variant and rate the median of the rounds' p99 counts: a single
    pause of a shared machine makes all requests behind it late, and must not decide.

    Args:
        calls: by variant; each answers a request.
        rates: requests a second, rising. One at which even the median call would be too slow to
            keep up is not tried.
        limit: milliseconds; a rate holds if p99 stays within it.
        requests: of a trial.
        rounds: trials of each variant and rate.

    Returns:
        For each variant p99 in milliseconds at each rate, infinite where requests pile up, and the
        highest rate that holds, 0 if none.
    """
    p99: dict[str, list[list[float]]] = {variant: [] for variant in calls}
    for _ in range(rounds):
        for variant, call in calls.items():
            usual = np.median(timings(call, 0.2))
            trials = [
                waits(call, rate, requests) if rate * usual < 1000 else np.array([np.inf])
                for rate in rates
            ]
            p99[variant].append(
                [float(np.percentile(trial, 99, method="higher")) for trial in trials]
            )
    lines = []
    for variant, found in p99.items():
        usually = dict(zip(rates, np.median(found, axis=0), strict=True))
        held = max((rate for rate, wait in usually.items() if wait <= limit), default=0)
        waited = {f"p99_ms at {rate}/s": wait for rate, wait in usually.items()}
        lines.append({"variant": variant, **waited, "highest rate": held})
    return pd.DataFrame(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m altlib.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export", help="write a finetuned run as a folder with ONNX")
    exporting.add_argument("run", help="PROFILE/VARIANT/SEED, as quick/alt_ctr/0, or a folder")
    exporting.add_argument("out", help="the folder to make")
    exporting.add_argument("--int8", action="store_true", help="add a model of 8-bit numbers")
    predicting = commands.add_parser("predict", help="print rows with their probabilities, as CSV")
    predicting.add_argument("out", help="a folder that export made")
    predicting.add_argument("rows", help="a CSV or Parquet file with a column for each field")
    words = parser.parse_args()
    try:
        if words.command == "export":
            print(export(words.run, words.out, words.int8))
        else:
            rows = own.table(Path(words.rows))
            if "probability" in rows:
                raise ValueError(f"{words.rows} has a column 'probability' already; rename it.")
            rows["probability"] = Predictor(words.out, threads=2).predict(rows)
            rows.to_csv(sys.stdout, index=False)
    except (ValueError, OSError) as error:
        sys.exit(f"altlib: {error}")


if __name__ == "__main__":
    main()
