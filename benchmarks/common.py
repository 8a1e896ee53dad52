"""What the benchmarks share: fair timing and the rows of benchmarks.csv."""

import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from altlib.lab import provenance


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        benchmark: what was measured.
        value: the ratio or figure that the target speaks of.
        target: ">=7" or "<=15"; empty where a figure is only reported.
        unit: of `ours` and `peer`, and of `value` where it is no ratio.
        ours, peer: what stands behind a ratio; None where there is no peer.
    """

    benchmark: str
    value: float
    target: str
    unit: str
    ours: float
    peer: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the target is met; None without one."""
        if not self.target:
            return None
        limit = float(self.target[2:])
        return self.value >= limit if self.target.startswith(">=") else self.value <= limit

    def row(self) -> dict[str, object]:
        """The row of benchmarks.csv."""
        return {
            "benchmark": self.benchmark,
            "value": self.value,
            "target": self.target,
            "unit": self.unit,
            "ours": self.ours,
            "peer": self.peer,
            "reached": {True: "yes", False: "no", None: ""}[self.reached],
            "machine": provenance.machine(),
            "versions": ", ".join(
                f"{p} {provenance.versions()[p]}" for p in ("torch", "transformers")
            ),
        }


def interleaved(
    steps: Mapping[str, Callable[[], None]], rounds: int, synchronise: bool = False
) -> dict[str, list[float]]:
    """Seconds of each step, one after the other in every round, so that all share what a noisy
    machine does; the first round warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if synchronise:
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(peer: list[float], ours: list[float]) -> float:
    """Median over rounds of the peer's time over ours."""
    return statistics.median(p / o for p, o in zip(peer, ours, strict=True))


def compared(
    benchmark: str,
    target: str,
    rows: int,
    peer: Callable[[], None],
    ours: Callable[[], None],
    rounds: int,
) -> Figure:
    """Rows a second of two steps that both go over `rows` rows."""
    seconds = interleaved({"peer": peer, "ours": ours}, rounds)
    return Figure(
        benchmark,
        ratio(seconds["peer"], seconds["ours"]),
        target,
        "rows/s",
        rows / statistics.median(seconds["ours"]),
        rows / statistics.median(seconds["peer"]),
    )


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module returns in a fresh process, where memory can be measured."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:  # a Pool would wait for the dead
        return pool.submit(function, *arguments).result()


class Memory:
    """Watches the memory of this process from now on, what is swapped included (on Linux)."""

    def __init__(self) -> None:
        self.most, self.done = 0, threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()

    def status(self, name: str) -> int:
        lines = Path("/proc/self/status").read_text()
        return int(lines.partition(f"{name}:")[2].split()[0]) * 1024

    def watch(self) -> None:
        while not self.done.wait(0.02):
            self.most = max(self.most, self.status("VmRSS") + self.status("VmSwap"))

    def peak(self) -> float:
        """The peak in GB; a short one that was not swapped is in the kernel's own account.

        Unlike `ru_maxrss` that does not begin with what the parent had when it started us.
        """
        self.done.set()
        return max(self.most, self.status("VmHWM")) / 1e9


def matmul_step(device: torch.device, dtype: torch.dtype, size: int = 2048) -> Callable[[], None]:
    """A matrix product of `size`³, to measure what the machine can do at all."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def step() -> None:
        a @ b

    return step
