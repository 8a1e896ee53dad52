"""What `./run_all.sh PROFILE` would run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from altlib import runs

ROOT = Path(__file__).resolve().parents[1]


def dry_run(*words: str, home: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    options = ["--dry-run", "--printshellcmds", "--forceall", "--nolock", "--cores", "1"]
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *options, *words],
        cwd=home, env=os.environ | environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("profile", sorted(path.stem for path in ROOT.glob("config/*.yaml")))
def test_a_profile_runs_the_notebooks_that_it_has_something_for(profile: str) -> None:
    done = dry_run(ALTLIB_PROFILE=profile)
    assert done.returncode == 0, done.stdout + done.stderr
    planned = re.findall(r"^rule (\w+):", done.stdout, flags=re.MULTILINE)
    config = runs.load_profile(profile)
    every = {path.stem for path in ROOT.glob("notebooks/*.ipynb")}
    expected = (every - set(runs.STUDY_NOTEBOOKS)) | set(config.studies)
    if "alt_both" not in config.seeds:
        expected -= {"12_alignment", "13_serving"}
    assert set(planned) - {"all"} == expected
    assert planned.index("14_report") == len(planned) - 2  # before "all" alone
    # Notebook 6 shows the main table, with what 4 and 5 finetuned, and comes before the studies.
    assert set(planned[:6]) == {name for name in every if name < "07"}
    assert planned[5] == "06_finetune_both"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project without its profiles."""
    home = tmp_path_factory.mktemp("copy")
    for name in ("altlib", "notebooks"):
        shutil.copytree(ROOT / name, home / name)
    shutil.copy(ROOT / "Snakefile", home)
    (home / "config").mkdir()
    return home


@pytest.mark.parametrize(
    "name", ["2024_06", "1.10", "007", "true", "my 'p\"rofile $(x) *", "größe"]
)
def test_a_profile_may_have_any_name(name: str, copy: Path) -> None:
    shutil.copy(ROOT / "config" / "quick.yaml", copy / "config" / f"{name}.yaml")
    done = dry_run(home=copy, ALTLIB_PROFILE=name)
    assert done.returncode == 0, done.stdout + done.stderr
    words = shlex.split(re.findall(r"exec .* 01_data.*|exec .*01_data.*", done.stdout)[0])
    assert words[words.index("profile") + 1] == name
    assert words[words.index("--out") + 1] == f"reports/{name}/notebooks/01_data.ipynb"


@pytest.mark.parametrize("name", ["{notebook}", "a/b", "-x"])
def test_names_that_snakemake_would_misread_are_refused(name: str) -> None:
    done = dry_run(ALTLIB_PROFILE=name)
    assert done.returncode == 1 and "rename its file" in done.stdout


def test_the_profile_is_not_taken_from_where_snakemake_changes_it() -> None:
    done = dry_run("--config", "profile=2024_06")
    assert done.returncode == 1 and "ALTLIB_PROFILE=quick" in done.stdout


def test_snakemake_ends_with_the_process_that_started_it() -> None:
    done = dry_run(ALTLIB_PARENT="1")  # which is not the parent
    assert done.returncode == 1
    assert done.stderr.endswith("altlib: the process that started this one has ended.\n")
