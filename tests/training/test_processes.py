"""Processes and devices of a run."""

import pytest

from altlib.config import TrainingConfig
from altlib.training import processes
from altlib.training.processes import accelerator


def test_accelerate_takes_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "GRADIENT_ACCUMULATION_STEPS": "16",
        "DYNAMO_BACKEND": "INDUCTOR",
        "MIXED_PRECISION": "bf16",
        "USE_FSDP": "true",
        "USE_DEEPSPEED": "true",
    }.items():
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    run = accelerator(TrainingConfig(epochs=1, batch=8, rate=0.1, precision="no"))
    assert run.gradient_accumulation_steps == 1 and run.mixed_precision == "no"
    assert run.state.dynamo_plugin.backend == "NO"
    assert run.distributed_type == "NO"


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package tensorboard.*pip install tensorboard"):
        accelerator(TrainingConfig(epochs=1, batch=8, rate=0.1, tracker="tensorboard"))
