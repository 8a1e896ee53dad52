"""Our pretraining step against the published one, on sentences of MovieLens-1M.

`python -m benchmarks.pretraining` on two cores; `--device cuda` measures speed, model FLOPs
utilisation and memory in bf16 instead, and writes the table `gpu` of reports/benchmarks.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    MPNetConfig,
    PreTrainedConfig,
    RobertaConfig,
)

from altlib.config import (
    AlignmentConfig,
    CtrConfig,
    DataConfig,
    PlmConfig,
    Pretraining,
    TextConfig,
    TrainingConfig,
)
from altlib.lab import provenance, show, steps
from altlib.models import plm
from altlib.models.alignment import Alignment
from altlib.store import home
from altlib.training.batches import Batch, Batches
from altlib.training.loop import compile_layers, fit, optimiser
from altlib.training.processes import accelerator
from benchmarks.common import Figure, Memory, alone, interleaved, matmul_step, ratio
from benchmarks.published import PublishedPretraining

DATA = DataConfig("ml-1m")
TRAINING = TrainingConfig(epochs=1, batch=128, rate=1e-3)
CPU = torch.device("cpu")


def profile(name: str, dropout: float, passes: int, batch: int = 128) -> Pretraining:
    """A pretraining of DCNv2 with a PLM, everything else by default."""
    return Pretraining(
        DATA,
        TextConfig(),
        PlmConfig(name, dropout),
        CtrConfig(),
        AlignmentConfig(plm_passes=passes),  # type: ignore[arg-type]
        replace(TRAINING, batch=batch),
    )


class OurStep:
    """Calls are steps on successive batches, data path included."""

    def __init__(self, config: Pretraining, device: torch.device = CPU) -> None:
        self.data = steps.prepare(config.data)
        self.text = steps.sentences(config.data, config.text, config.plm)
        self.model: Alignment = steps.build_alignment(config).to(device).train()
        self.optimiser = optimiser(self.model, config.training)
        rows = self.data.of("train")
        self.batches = Batches(
            self.data, rows, config.training.batch, self.text, self.model.draw_masks
        )
        self.device = device
        self.plan: Iterator[np.ndarray] = itertools.cycle(self.batches.shuffled(0, 0))

    def __call__(self) -> None:
        ids, text, _, masks = self.batches.load(next(self.plan), self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            total = torch.stack(list(self.model(ids, text, masks).values())).sum()
        total.backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)


class PublishedStep:
    """Calls are steps of the re-enacted published code on random batches."""

    def __init__(self, name: str, dropout: float, batch: int = 128) -> None:
        self.data = steps.prepare(DATA)
        torch.manual_seed(0)
        self.model = PublishedPretraining(self.data, plm.load(name, dropout)).train()
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=1e-3)
        self.order = np.random.default_rng(0).permutation(self.data.of("train"))
        self.batch, self.position = batch, 0

    def __call__(self) -> None:
        rows = self.order[self.position : self.position + self.batch]
        self.position += self.batch
        ids = torch.from_numpy(self.data.ids(rows)).long()
        self.model(self.data.rows[rows].tolist(), ids).backward()
        self.optimiser.step()
        self.optimiser.zero_grad()


def repeat(step: Callable[[], None], times: int) -> Callable[[], None]:
    """A step that is `times` steps, to even out batches of short and long sentences."""

    def many() -> None:
        for _ in range(times):
            step()

    return many


def against_published(dropout: float, rounds: int) -> list[Figure]:
    """Two passes and a single pass against the published step."""
    name, batch, times = "minilm-l6:4", 128, 4
    steps = {
        "published": PublishedStep(name, dropout, batch),
        "two passes": repeat(OurStep(profile(name, dropout, 2, batch)), times),
        "single pass": repeat(OurStep(profile(name, dropout, 1, batch)), times),
    }
    seconds = interleaved(steps, rounds)
    targets = {
        ("two passes", 0.0): ">=7",
        ("two passes", 0.1): ">=6",
        ("single pass", 0.0): ">=12",
    }
    rows = {name: batch * (1 if name == "published" else times) for name in steps}
    speeds = {name: rows[name] / statistics.median(seconds[name]) for name in steps}
    return [
        Figure(
            f"pretraining step, {kind}, dropout {dropout}",
            times * ratio(seconds["published"], seconds[kind]),
            targets.get((kind, dropout), ""),
            "rows/s",
            speeds[kind],
            speeds["published"],
        )
        for kind in ("two passes", "single pass")
    ]


def arithmetic(name: str, rounds: int) -> Figure:
    """Share of the machine's peak in fp32 matrix products that a step's own arithmetic reaches."""
    step = OurStep(profile(name, 0.0, 2))
    times, size, products = 8, 2048, 8
    plan = list(itertools.islice(step.plan, times))
    with FlopCounterMode(display=False) as counter:
        step.plan = itertools.cycle(plan)
        repeat(step, times)()
    seconds = interleaved(
        {
            "step": repeat(step, times),
            "peak": repeat(matmul_step(CPU, torch.float32, size), products),
        },
        rounds,
    )
    flops = counter.get_total_flops()
    ours = [flops / s / 1e9 for s in seconds["step"]]
    peak = [2 * size**3 * products / s / 1e9 for s in seconds["peak"]]
    share = statistics.median(o / p for o, p in zip(ours, peak, strict=True))
    return Figure(
        f"share of the fp32 matrix-product peak, {name}",
        100 * share,
        ">=70",
        "%: GFLOP/s",
        statistics.median(ours),
        statistics.median(peak),
    )


def outside(name: str = "minilm-l6:2", batches: int = 30) -> Figure:
    """Share of `fit`'s time outside forward, backward and optimiser: assembly, masking, logging."""
    step = OurStep(profile(name, 0.0, 2))
    inside = 0.0

    def timed(function: Callable[..., Any], sign: int = 1) -> Callable[..., Any]:
        def timing(*arguments: Any, **words: Any) -> Any:
            nonlocal inside
            started = time.perf_counter()
            result = function(*arguments, **words)
            inside += sign * (time.perf_counter() - started)
            return result

        return timing

    run = accelerator(TRAINING)
    run.backward = timed(run.backward)  # type: ignore[method-assign]
    step.model.draw_masks = timed(step.model.draw_masks, -1)  # type: ignore[method-assign]
    torch.optim.AdamW.step = timed(torch.optim.AdamW.step)  # type: ignore[method-assign]
    rows = step.data.of("train")[: batches * TRAINING.batch]
    with tempfile.TemporaryDirectory() as folder:
        history = fit(
            step.model,
            timed(lambda model, batch: model(batch.ids, batch.text, batch.masks)),
            Batches(step.data, rows, TRAINING.batch, step.text, step.model.draw_masks),
            lambda model: {},
            TRAINING,
            run,
            Path(folder),
            "",
        )
    whole = history["epochs"][0]["seconds"]
    share = 100 * (whole - inside) / whole
    return Figure(f"time outside forward, backward and optimiser, {name}", share, "<=3", "%", share)


def steps_of(kind: str, name: str, batch: int) -> float:
    """Takes three steps and returns the peak memory of this process in GB."""
    memory = Memory()
    if kind == "published":
        repeat(PublishedStep(name, 0.1, batch), 3)()
    else:
        step = OurStep(profile(name, 0.1, 2, batch))
        longest = max(
            step.batches.shuffled(0, 0),
            key=lambda rows: int(step.text.lengths(step.data.rows[rows]).max()),
        )
        step.plan = itertools.repeat(longest)
        repeat(step, 3)()
    return memory.peak()


def memory() -> Figure:
    """Peak memory of a step at batch 256."""
    ours, peer = (alone(steps_of, kind, "minilm-l6:6", 256) for kind in ("ours", "published"))
    return Figure(
        "peak memory of a step, batch 256, minilm-l6:6, of the published step's",
        ours / peer,
        "<=0.5",
        "GB",
        ours,
        peer,
    )


@dataclass(frozen=True)
class Shape:
    """A PLM with random weights whose speed on a GPU is measured, and the batch it is measured at.

    Attributes:
        config: its layers and widths.
        batch: rows of a step.
        target: share of the card's measured peak in matrix products, in percent.
    """

    config: PreTrainedConfig
    batch: int
    target: str


SHAPES: dict[str, Shape] = {
    "MiniLM-L6": Shape(
        BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
        ),
        1024,
        ">=25",
    ),
    "roberta-base": Shape(
        RobertaConfig(vocab_size=50_265, max_position_embeddings=514), 512, ">=45"
    ),
    "roberta-large": Shape(
        RobertaConfig(
            vocab_size=50_265,
            max_position_embeddings=514,
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
        ),
        128,
        ">=55",
    ),
    "mpnet": Shape(MPNetConfig(), 256, ""),
}


def random_plm(shape: PreTrainedConfig, folder: Path) -> str:
    """A folder with random weights in a shape, and a tokenizer that fits it."""
    AutoModelForMaskedLM.from_config(shape).save_pretrained(folder)
    plm.tokenizer("bert-tiny").save_pretrained(folder)
    return str(folder)


def model_flops(step: OurStep, plan: list[np.ndarray]) -> int:
    """Floating-point operations of steps on the batches of `plan`, forward and backward, with
    sentences padded to the longest of their batch and no further."""
    with FlopCounterMode(display=False) as counter:
        for rows in plan:
            ids = torch.from_numpy(step.data.ids(rows))
            text = step.text.assemble(step.data.rows[rows])
            batch = Batch(ids, text, ids[:, 0], step.model.draw_masks(ids, text)).to(step.device)
            with torch.autocast(step.device.type, torch.bfloat16):
                losses = step.model(batch.ids, batch.text, batch.masks)
            torch.stack(list(losses.values())).sum().backward()
    return counter.get_total_flops()


def on_gpu(name: str, rounds: int, dropout: float = 0.1) -> Iterator[dict[str, object]]:
    """The lines of the table of one shape: steps in bf16, eager and compiled."""
    device, size, times, shape = torch.device("cuda"), 8192, 16, SHAPES[name]
    with tempfile.TemporaryDirectory() as folder:
        config = profile(random_plm(shape.config, Path(folder)), dropout, 2, shape.batch)
        step = OurStep(config, device)
    plan = list(itertools.islice(step.plan, times))
    flops = model_flops(step, plan)
    step.plan = itertools.cycle(plan)
    products = {"peak": repeat(matmul_step(device, torch.bfloat16, size), times)}
    for mode in ("eager", "compiled"):
        if mode == "compiled":
            compile_layers(step.model)
        repeat(step, times)()  # compiles, and warms up
        torch.cuda.reset_peak_memory_stats()
        measured = interleaved({"step": repeat(step, times), **products}, rounds, True)
        seconds = {what: statistics.median(of) for what, of in measured.items()}
        ours = flops / seconds["step"]
        peak = 2 * size**3 * times / seconds["peak"]
        yield {
            "PLM's shape": name,
            "step": mode,
            "rows a second": round(times * shape.batch / seconds["step"]),
            "TFLOP/s": ours / 1e12,
            "% of the peak of matrix products": 100 * ours / peak,
            "target": shape.target,
            "peak memory (GiB)": torch.cuda.max_memory_allocated() / 2**30,
            "batch": shape.batch,
            "dropout": dropout,
            "machine": provenance.machine(),
            "torch": provenance.versions()["torch"],
        }


def measure(rounds: int = 5) -> Iterator[Figure]:
    """All figures of the pretraining step on this CPU."""
    yield memory()  # before this process needs any
    yield from against_published(0.0, rounds)
    yield from against_published(0.1, rounds)
    yield arithmetic("minilm-l6:4", rounds)
    yield arithmetic("minilm-l6:6", rounds)
    yield outside()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretraining", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    words = parser.parse_args()
    if words.device == "cpu":
        for figure in measure(words.rounds):
            print(figure)
        return
    lines = []
    for name in SHAPES:
        for line in on_gpu(name, words.rounds):
            print(line, flush=True)
            lines.append(line)
    show.write(pd.DataFrame(lines), home() / "reports" / "benchmarks", "gpu")


if __name__ == "__main__":
    main()
