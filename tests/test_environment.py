"""pyproject.toml, environment.yml and requirements.lock tell one story; the package's own start."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [
    Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
]


def pins(lines: list[str]) -> dict[str, str]:
    """Name -> version of `name==version` lines; anything else fails."""
    found = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line)
        assert match, f"not pinned as name==version (and nothing else): {line!r}"
        name = canonicalize_name(match[1])
        assert name not in found, f"named twice: {line!r}"
        found[name] = match[2]
    return found


@pytest.fixture(scope="module")
def lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return pins([line for line in lines if not line.startswith("#")])


def test_lock_satisfies_pyproject(lock):
    for requirement in DIRECT:
        version = lock[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} but the lock has {version}"
    assert str(next(r.specifier for r in DIRECT if r.name == "torch")) == f"=={lock['torch']}"


def test_conda_environment_pins_every_direct_requirement_as_the_lock(lock):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == "altlib"
    python, pip, listed = environment["dependencies"]
    assert (python, pip) == ("python=3.11", "pip")
    constraint, *lines = listed["pip"]
    assert constraint == "--constraint requirements.lock"
    expected = {canonicalize_name(requirement.name) for requirement in DIRECT}
    assert pins(lines) == {name: lock[name] for name in expected}


@pytest.mark.parametrize("line", ["torch", "torch>=2", "torch==2.13.0+cpu", "torch==2.*", "-f x"])
def test_a_loose_line_is_seen(line):
    with pytest.raises(AssertionError, match="not pinned"):
        pins([line])


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "PASSIVE 1000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None")],
)
def test_threads_wait_asleep_unless_told_otherwise(given, expected):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    program = f"import os, altlib; print(*map(os.environ.get, {names}))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment | given, capture_output=True, text=True
    )
    assert done.stdout.strip() == expected
