"""What a prediction costs: latency, throughput, start-up and memory."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from altlib.data.tabular import Prepared
from altlib.lab import metrics, steps
from altlib.serving.export import configuration, eager, inputs, raw_values, restore
from altlib.serving.predictor import Predictor
from altlib.store import home, read_json

Call = Callable[[], np.ndarray]
START = """
import json, resource, sys, time
begun = time.perf_counter()
from altlib.serving.predictor import Predictor
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
    batches: tuple[int, ...] = (1, 16, 100, 1024, 4096),
    threads: tuple[int, ...] = (1, 2),
    seconds: float = 1.0,
) -> pd.DataFrame:
    """Latency and throughput of each variant, engine, number of threads and batch.

    Engines are "PyTorch", operation by operation; "ONNX", from IDs and tokens; "ONNX int8"; and
    "ONNX, raw values", which looks up IDs and puts sentences together, of pieces that it has cut
    before. A batch holds candidates of one user.

    Args:
        exports: folders by variant; a model-int8.onnx is measured where there is one.
        batches: rows of a call, rising. Those behind one whose median call takes longer than a
            second, with any engine, are not measured: nobody waits so long for candidates.
        threads: of an engine.
        seconds: of each measurement.
    """
    lines, before = [], torch.get_num_threads()
    for variant, folder in exports.items():
        run = read_json(folder / "export.json")["run"]
        model, config = restore(home() / "artifacts" / "finetuning" / run)
        data = steps.prepare(config.data)
        for number in threads:
            torch.set_num_threads(number)
            onnx = Predictor(folder, number)
            small = folder / "model-int8.onnx"
            int8 = Predictor(folder, number, small.name) if small.exists() else None
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
                slowest = 0.0
                for engine, call in calls.items():
                    times = timings(call, seconds)
                    slowest = max(slowest, float(np.median(times)))
                    waited = {f"p{part}_ms": np.percentile(times, part) for part in (50, 95, 99)}
                    lines.append(
                        {"variant": variant, "engine": engine, "threads": number, "batch": batch}
                        | waited
                        | {"rows_per_s": 1000 * batch / waited["p50_ms"], "calls": len(times)}
                    )
                if slowest > 1000:
                    break
    torch.set_num_threads(before)
    return pd.DataFrame(lines)


def test_auc(folder: Path, model: str) -> float:
    """AUC of an exported model on the test split of its run, by raw values."""
    predictor = Predictor(folder, threads=torch.get_num_threads(), model=model)
    config = configuration(home() / "artifacts" / "finetuning" / predictor.export["run"])
    data = steps.prepare(config.data)
    test = data.of("test")
    parts = np.array_split(data.rows[test], 1 + len(test) // 1024)
    found = [predictor.predict(raw_values(data, part)) for part in parts]
    return metrics.auc(data.labels[test], np.concatenate(found))


def costs(exports: Mapping[str, Path], rounds: int = 3) -> pd.DataFrame:
    """For each model file its size, its test AUC, and a new process: the seconds from its first
    import to its first answer, and its highest memory up to there.

    These two are medians of rounds in which the files take turns, after one that only fills the
    machine's file cache.
    """
    files, commands = [], []
    for variant, folder in exports.items():
        export = read_json(folder / "export.json")
        row = json.dumps([dict.fromkeys(export["fields"], "")])
        for model in sorted((file.name for file in folder.glob("*.onnx")), key=len):
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
