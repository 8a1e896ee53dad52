"""What `./run_all.sh PROFILE` would run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from altlib.lab import jobs
from altlib.profile import STUDY_NOTEBOOKS

ROOT = Path(__file__).resolve().parents[1]


def dry_run(*words: str, home: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    options = ["--dry-run", "--printshellcmds", "--forceall", "--nolock", "--cores", "1"]
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *options, *words],
        cwd=home, env=os.environ | environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("profile", sorted(path.stem for path in ROOT.glob("config/*.yaml")))
def test_a_profile_runs_its_jobs_and_the_notebooks_that_it_has_something_for(profile: str) -> None:
    done = dry_run(ALTLIB_PROFILE=profile)
    assert done.returncode == 0, done.stdout + done.stderr
    plan = jobs.plan(profile)
    made = re.findall(r"^    output: artifacts/jobs/(\S+).json", done.stdout, flags=re.MULTILINE)
    assert sorted(made) == sorted(plan.jobs)
    notebooks = re.findall(r"^    input: notebooks/(\w+).ipynb", done.stdout, flags=re.MULTILINE)
    every = {path.stem for path in ROOT.glob("notebooks/*.ipynb")}
    expected = (every - set(STUDY_NOTEBOOKS)) | set(plan.profile.studies) | {"04_finetune_ctr"}
    if "alt_both" not in plan.profile.seeds:
        expected -= {"12_alignment", "13_serving"}
    if not {"plain_lang", "alt_lang"} & set(plan.profile.seeds):
        expected -= {"05_finetune_lang"}
    if not any(run.pretraining for runs in plan.runs.values() for run in runs):
        expected -= {"03_pretraining"}
    assert set(notebooks) == expected
    assert notebooks[-1] == "14_report"


def test_tuning_runs_a_job_for_each_row() -> None:
    done = dry_run(ALTLIB_PROFILE="quick", ALTLIB_TUNE="yes")
    assert done.returncode == 0, done.stdout + done.stderr
    made = re.findall(r"^    output: artifacts/jobs/(\S+).json", done.stdout, flags=re.MULTILINE)
    assert sorted(made) == sorted(jobs.tuning("quick").jobs)
    assert "input: notebooks/" not in done.stdout


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
    words = shlex.split(re.findall(r"exec .*01_data.*", done.stdout)[0])
    assert words[words.index("profile") + 1] == name
    assert words[words.index("--out") + 1] == f"reports/{name}/notebooks/01_data.ipynb"
    words = shlex.split(re.findall(r"exec .*--job pretrain.*", done.stdout)[0])
    assert words[words.index("altlib.lab.run") + 1] == name


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


def test_a_fault_in_a_profile_is_a_sentence_before_anything_runs(copy: Path) -> None:
    text = "extends: quick\nstudies: {07_baseline: {}}\n"
    (copy / "config" / "wrong.yaml").write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "config" / "quick.yaml", copy / "config")
    done = dry_run(home=copy, ALTLIB_PROFILE="wrong")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "altlib: wrong.yaml: studies names the notebook '07_baseline'; did you" in done.stderr


def test_trained_runs_are_not_trained_again_when_code_or_dates_change(copy: Path) -> None:
    """Stamps of jobs that are there, whatever their age, are enough."""
    shutil.copytree(ROOT / "config", copy / "config", dirs_exist_ok=True)
    for job in jobs.plan("quick").jobs.values():
        stamp = copy / job.stamp
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text("{}")
        os.utime(stamp, (0, 0) if job.name.startswith("finetune") else None)
    words = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", "--nolock"]
    done = subprocess.run(
        [*words, "--rerun-triggers", "mtime"],
        cwd=copy, env=os.environ | {"ALTLIB_PROFILE": "quick"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "rule notebook:" in done.stdout
    assert not re.search(r"^rule (data|pretrain|finetune):", done.stdout, flags=re.MULTILINE)
