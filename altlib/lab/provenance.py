"""Where, when, with what code and on what machine a result was made."""

import importlib.metadata
import json
import os
import platform
import subprocess
import warnings
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

from altlib.config import PlmConfig, key
from altlib.data import fetch
from altlib.lab.keys import code_checksum, files_of, weights_checksum
from altlib.store import PROJECT, home
from altlib.training.processes import processes

PACKAGES = ("torch", "transformers", "accelerate", "pandas", "scikit-learn", "numpy")
CODE = ("config.py", "data", "models", "training", "lab/steps.py")
"""What a result depends on."""


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result may depend on."""
    found = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **found}


@cache
def machine() -> str:
    """Processor, cores, memory and GPU in words."""
    model = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        lines = cpu_info.read_text().splitlines()
        model = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    words = f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB"
    if torch.cuda.is_available():
        words += f", {torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    return words


def git(*words: str) -> str:
    """Output of a git command on the project; empty where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *words], cwd=PROJECT, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def provenance(plm: PlmConfig | None = None) -> dict[str, Any]:
    """Where, when, with what code and from which weights a result is made."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "processes": processes().num_processes,
        "versions": versions(),
        "commit": git("rev-parse", "HEAD"),
        "changed since": bool(git("status", "--porcelain", "--", "altlib", "config")),
        "code": code_checksum(*CODE),
        "plm": weights(plm.base) if plm else {},
    }


def weights(name: str) -> dict[str, str]:
    """What says which files a PLM's name stood for."""
    folder = fetch.weights(name)
    known = weights_checksum(name)
    return {"sha256": known or key(files_of(folder)), "revision": fetch.revision(folder)}


def warn_of_change(file: Path, plm: PlmConfig | None) -> None:
    """Warns if an artefact was made by other code than today's, or with other weights than a name
    of the Hugging Face hub stands for today; it is used all the same.

    The words are those of all such artefacts, so that Python shows them once. The artefact's
    `file` holds its provenance; `plm` is what it was made with.
    """
    made = json.loads(file.read_text(encoding="utf-8"))["provenance"]
    place = file.parent.parent.relative_to(home())
    if made["code"] != (now := code_checksum(*CODE)):
        warnings.warn(
            f"Some of {place} was made by other code ({made['code']}) than altlib holds now "
            f"({now}), as {file.name} of each says. Remove what is to be made anew.",
            stacklevel=3,
        )
    if plm is None or weights_checksum(plm.base) is not None:  # the key holds what they are
        return
    with suppress(fetch.Unavailable):
        if made["plm"] != (found := weights(plm.base)):
            warnings.warn(
                f"Some of {place} was made with other weights of '{plm.base}' (revision "
                f"{made['plm']['revision']}) than the hub gives now ({found['revision']}). Name "
                f"the revision, as '{plm.base}@{found['revision']}', or remove what was made.",
                stacklevel=3,
            )
