"""What is left to run, and about how long."""

import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from altlib import fetch, plan, runs

TINY = Path(__file__).with_name("tiny.yaml")


def report(*lines: dict[str, object]) -> None:
    """Puts a results.csv into reports/."""
    folder = runs.home() / "reports" / "some"
    folder.mkdir(parents=True)
    here = {"machine": runs.machine()}
    pd.DataFrame([here | line for line in lines]).to_csv(folder / "results.csv", index=False)


@pytest.fixture
def profile(tiny_plm: str, tmp_path: Path) -> str:
    text = TINY.read_text().replace("{name: tiny,", f"{{name: {tiny_plm},")
    path = tmp_path / "mine.yaml"
    path.write_text(text.partition("studies:")[0])
    return str(path)


def test_it_counts_what_is_left(profile: str) -> None:
    table = plan.plan(profile).set_index("notebook")
    assert list(table["finetunings to do"]) == [4, 2, 2]
    assert table["pretrainings to do"].sum() == 1  # one serves all
    runs.finetune(runs.load_profile(profile).run("alt_ctr", 0))
    table = plan.plan(profile).set_index("notebook")
    assert table.loc["04_finetune_ctr", "finetunings to do"] == 3
    assert table["pretrainings to do"].sum() == 0


def test_times_are_those_of_like_runs_by_row(profile: str, tiny_plm: str) -> None:
    assert plan.plan(profile)["without estimate"].sum() == 9
    raw = {"variant": "raw", "backbone": "dcnv2", "seconds": 60, "train_rows": 1000}
    other = raw | {"backbone": "afm", "seconds": 6000}
    report(raw, other)
    table = plan.plan(profile).set_index("notebook")
    rows = len(runs.prepare(runs.load_profile(profile).data).of("train"))
    line = table.loc["04_finetune_ctr"]
    assert line["minutes"] == pytest.approx(4 * rows / 1000)
    assert line["without estimate"] == 1  # the pretraining


@pytest.mark.parametrize(
    ("studies", "told"),
    [
        ("{07_baseline: {}}", "did you mean '07_baselines'"),
        (
            "{07_baselines: {new: {seeds: [0], variants: [raw], settings: {DCN: {ctr: {x: 1}}}}}}",
            "The setting 'DCN' of a study is wrong: .*x",
        ),
    ],
)
def test_a_fault_in_a_profile_is_found_before_anything_runs(
    studies: str, told: str, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["plan", profile, "--check"])
    plan.main()
    with Path(profile).open("a") as file:
        file.write(f"studies: {studies}\n")
    with pytest.raises(SystemExit, match=f"altlib: .*{told}"):
        plan.main()


def test_times_of_a_gpu_are_not_those_of_a_cpu(profile: str) -> None:
    raw = {"variant": "raw", "backbone": "dcnv2", "seconds": 60, "train_rows": 1000}
    other = "a CPU" if torch.cuda.is_available() else "a CPU, 16 cores, 126 GiB, 1 × a card"
    report(raw | {"machine": other})
    assert plan.plan(profile)["without estimate"].sum() == 9


def test_a_pretraining_has_the_times_of_its_own_machine() -> None:
    line = {"seconds": 60, "train_rows": 1000, "pretraining_seconds": 9, "pretraining_rows": 90}
    here = runs.machine()
    other = "a CPU" if torch.cuda.is_available() else "a CPU, 16 cores, 126 GiB, 1 × a card"
    report(line | {"pretraining_machine": here}, line | {"pretraining_machine": other})
    known = plan.known()
    assert known["finetuning"].tolist() == [0.06, 0.06]
    assert known["pretraining"].notna().tolist() == [True, False]


def test_data_that_are_not_to_be_had_are_asked_for_once(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def prepare(data: runs.DataConfig) -> None:
        asked.append(data)
        raise fetch.Unavailable("There are no clicks.")

    monkeypatch.setattr(runs, "prepare", prepare)
    assert plan.plan(profile)["unavailable"].tolist() == [4, 2, 2]
    assert len(asked) == 2  # for the raw models, and for those with a PLM


def test_ctrl_c_is_a_sentence_also_while_modules_are_loaded() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "altlib.plan", "quick"]
    # A background job of a shell ignores Ctrl-C, and so would what the tests start there.
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "numpy" in line:
                break
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert "altlib: stopped by Ctrl-C.\n" in said and "Traceback" not in said


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"\0" * 99, b"seconds,train_rows\nx,2\n"])
def test_a_damaged_report_is_left_out(content: bytes, recwarn: pytest.WarningsRecorder) -> None:
    report({"seconds": 1.0, "train_rows": 100})
    damaged = runs.home() / "reports" / "other" / "results.csv"
    damaged.parent.mkdir()
    damaged.write_bytes(content)
    assert plan.known()["finetuning"].dropna().tolist() == [0.01]
    told = [str(warning.message) for warning in recwarn]
    assert all(f"{damaged} is damaged" in sentence for sentence in told)
    assert told or len(content) > 2  # what can be read has no such times
