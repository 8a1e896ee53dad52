"""Processes, devices and seeds of a run."""

import os
from importlib.util import find_spec

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.state import AcceleratorState

from altlib import store
from altlib.config import TrainingConfig


def seed_step(*numbers: int) -> None:
    """Seeds torch from a tuple of numbers, as (seed, epoch, step, process)."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
    # torch.manual_seed would also note a stack trace for each kind of GPU that is not in use.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def processes() -> PartialState:
    """This process among those of torchrun or `accelerate launch`; alone without them."""
    # Accelerate heeds these more than what it is told, and no key of an artefact holds them.
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]
    # Without being told, it takes several processes on CPUs for as many single ones.
    return PartialState(cpu=not torch.cuda.is_available())


def accelerator(config: TrainingConfig) -> Accelerator:
    """The processes and devices of this run, in the precision that `config` asks for.

    It takes the place of the one before: Accelerate keeps one precision a process, and would refuse
    to finetune in another than that of pretraining.

    Raises:
        ValueError: the tracker is not installed.
    """
    if config.tracker and find_spec(config.tracker) is None:
        raise ValueError(
            f"'tracker: {config.tracker}' needs the package {config.tracker}, which is not "
            f"installed: pip install {config.tracker}."
        )
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() else "no"
    processes()  # leaves Accelerate nothing to read from the environment
    AcceleratorState._reset_state()
    # Pretraining leaves the CTR logit unused, finetuning whatever only aligns.
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=precision,
        log_with=config.tracker,
        project_dir=store.home() / "artifacts" / "trackers" if config.tracker else None,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
