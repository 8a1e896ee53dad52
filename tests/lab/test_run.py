"""Runs and jobs from the command line, alone and on several processes."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from altlib import store
from altlib.config import Finetuning
from altlib.lab import jobs, keys, run
from altlib.lab.jobs import id_of
from altlib.profile import load_profile, study_runs

TINY = str(Path(__file__).parents[1] / "tiny.yaml")


@pytest.fixture
def profile(tiny_plm: str, tmp_path: Path) -> str:
    """The file of a profile with weights on disk."""
    text = Path(TINY).read_text(encoding="utf-8").replace("name: tiny,", f"name: {tiny_plm},")
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    return str(tmp_path / "mine.yaml")


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Runs the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["run", *words])
    run.main()


def command(
    *words: str, home: Path, start: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *start, "-m", "altlib.lab.run", *words],
        env={**os.environ, "ALTLIB_HOME": str(home), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def by_one_and_two(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> list[Path]:
    """Homes of a run in this process, and of the same run shared by two."""
    homes = [folder / "one", folder / "two"]
    with monkeypatch.context() as patch:
        patch.setenv("ALTLIB_HOME", str(homes[0]))
        called(patch, *words)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = command(*words, home=homes[1], start=torchrun)
    assert done.returncode == 0, done.stderr
    return homes


def test_two_processes_pretrain_and_finetune_together(
    tmp_path: Path, tiny_plm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.yaml"
    text = Path(TINY).read_text().replace("name: tiny,", f"name: {tiny_plm},")
    # 1,153 training rows: the last batch of 128 holds one row, too few for two processes.
    path.write_text(text.replace("rows: 1500", "rows: 1442"))
    losses, aucs = [], []
    for home in by_one_and_two(monkeypatch, tmp_path, str(path), "alt_ctr"):
        (history,) = home.glob("artifacts/pretraining/*/history.json")
        losses.append(json.loads(history.read_text())["epochs"][0])
        (result,) = home.glob("artifacts/finetuning/*/results.json")
        aucs.append(json.loads(result.read_text())["auc"])
    # The same rows in the same batches, with other masks: equal but for chance.
    assert (losses[0]["rows"], losses[1]["rows"]) == (1153, 1152)
    for name, loss in losses[0]["train"].items():
        assert losses[1]["train"][name] == pytest.approx(loss, rel=0.1), name
    for name, loss in losses[0]["evaluation"]["loss"].items():
        assert losses[1]["evaluation"]["loss"][name] == pytest.approx(loss, rel=0.1), name
    assert aucs[0] == pytest.approx(aucs[1], abs=0.1)


def test_two_processes_share_the_rows_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for home in by_one_and_two(monkeypatch, tmp_path, TINY, "raw"):
        (result,) = home.glob("artifacts/finetuning/*/predictions.npy")
        found.append(np.load(result))
    # Without masks and dropout the gradient of a batch is the mean of those of its halves.
    assert np.allclose(*found, atol=1e-5)


def test_the_command_line_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command("quik", home=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "no profile 'quik'; did you mean 'quick'?" in done.stderr
    with pytest.raises(SystemExit, match="no variant 'alt_crt'; did you mean 'alt_ctr'"):
        called(monkeypatch, TINY, "alt_crt")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("alt_ctr", "--setting", "without MLM"), "is one of a study; name it with --study"),
        (("raw", "--threads", "0"), "--threads is 0; a training needs one at least"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    words: tuple[str, ...],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        called(monkeypatch, TINY, *words)
    assert told in capsys.readouterr().err


def test_the_pretraining_of_another_seed_is_made_by_hand() -> None:
    words = argparse.Namespace(profile=TINY, variant=None, study=None, setting=None, seed=1)
    several = load_profile(TINY, {"pretrainings": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "load_profile", lambda name: several)
        made = run.chosen(words)
    assert made == several.aligned(seed=1) != several.aligned()


@pytest.mark.parametrize("seconds", ["abc", "-1", "nan"])
def test_the_time_between_checkpoints_is_a_number(
    seconds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALTLIB_CHECKPOINT_SECONDS", seconds)
    with pytest.raises(SystemExit, match=f"ALTLIB_CHECKPOINT_SECONDS is '{seconds}'; it must be"):
        called(monkeypatch, TINY)


def test_a_seed_below_0_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        called(monkeypatch, TINY, "raw", "--seed", "-1")
    assert "--seed is -1; it must lie from 0 to" in capsys.readouterr().err


def test_ctrl_c_ends_the_command_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "load_profile", interrupted)
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, TINY)
    assert ended.value.code == 130
    assert "run the same command to resume from the last checkpoint" in capsys.readouterr().err


def test_a_run_of_a_study_is_started_by_hand(
    profile: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called(monkeypatch, profile, "raw", "--study", "id_models", "--setting", "AFM")
    assert "'auc': 0." in capsys.readouterr().out
    (made,) = study_runs(profile, "07_baselines")["id_models"]["AFM"]
    assert store.ended(keys.folder(made))["status"] == "done"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--study", "id_model"], "There is no study 'id_model'; did you mean 'id_models'"),
        (["--study", "id_models", "--setting", "AFN"], "no setting 'AFN'; did you mean 'AFM'"),
        (["--study", "id_models"], "'id_models' needs a --setting; there are AFM, DCN"),
        (["alt_ctr", "--study", "id_models", "--setting", "AFM"], "finetunes raw with seed 0"),
    ],
)
def test_a_run_that_a_study_does_not_have_is_named(
    words: list[str], message: str, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=f"altlib: .*{message}"):
        called(monkeypatch, profile, *words)


def test_a_job_goes_on_after_a_failure_and_its_stamp_says_so(
    profile: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = jobs.plan(profile)
    job = next(
        job
        for job in plan.jobs.values()
        if sum(isinstance(made, Finetuning) for made in job.makes) > 2
    )
    broken = next(made for made in job.makes if isinstance(made, Finetuning))
    finetune = run.finetune

    def sometimes(config: Finetuning) -> dict[str, Any]:
        if config == broken:
            raise OSError("no room is left")
        return finetune(config)

    with monkeypatch.context() as patch:
        patch.setattr(run, "finetune", sometimes)
        called(patch, profile, "--job", job.name)
    stamp = store.home() / job.stamp
    found = json.loads(stamp.read_text(encoding="utf-8"))["status"]
    assert found == {id_of(made): "failed" if made == broken else "done" for made in job.makes}
    assert f"[{job.name}] failed: OSError: no room is left" in capfd.readouterr().err
    jobs.clear(plan)
    assert not stamp.exists()
    called(monkeypatch, profile, "--job", job.name)
    assert set(json.loads(stamp.read_text(encoding="utf-8"))["status"].values()) == {"done"}


def test_a_job_of_a_profile_that_has_changed_is_named(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"altlib: .* has no job 'finetune/0' any more"):
        called(monkeypatch, profile, "--job", "finetune/0")


def test_the_jobs_of_a_profile_leave_nothing_to_train(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = jobs.plan(profile)
    wanted = {*plan.shown["04_finetune_ctr"], *plan.shown["03_pretraining"]}
    needed = {need for name in wanted for need in plan.jobs[name].needs}
    for name in plan.jobs:
        if name in wanted | needed:
            called(monkeypatch, profile, "--job", name)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("altlib.lab.steps.fit", never)
    for made in plan.runs["04_finetune_ctr"]:
        assert 0 < run.finetune(made)["auc"] < 1


def test_a_shared_pretraining_is_a_job_as_the_snakefile_starts_it(
    profile: str, tmp_path: Path
) -> None:
    Path(profile).write_text(
        Path(profile).read_text(encoding="utf-8").partition("studies:")[0] + "processes: 2\n"
    )
    plan = jobs.plan(profile)
    (name,) = (name for name in plan.jobs if name.startswith("pretrain/"))
    start = jobs.starter(plan.profile, sys.executable)
    words = f"{start} -m altlib.lab.run {profile} --job {name} --parent $PPID --threads 1"
    home = {"ALTLIB_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", f"exec {words}"], env=os.environ | home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads((tmp_path / plan.jobs[name].stamp).read_text())["status"].values()) == {
        "done"
    }
    made = json.loads((keys.folder(plan.profile.aligned()) / "history.json").read_text())
    assert made["provenance"]["processes"] == 2


def test_jobs_that_run_at_once_take_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    (store.home() / "artifacts").mkdir()
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert run.take_gpu() is None
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    held = []
    for gpu in ("0", "1"):
        held.append(run.take_gpu())
        assert os.environ["CUDA_VISIBLE_DEVICES"] == gpu
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert run.take_gpu() is None  # there is none left
    held[0].release()
    assert run.take_gpu() is not None and os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
