"""What is left to run, and about how long."""

import csv
import re
from pathlib import Path

import pytest
import torch

from altlib.config import Finetuning
from altlib.lab import jobs, outlook, steps
from altlib.lab.provenance import machine
from altlib.profile import load_profile
from altlib.store import home

TINY = Path(__file__).parents[1] / "tiny.yaml"
OTHER = "a CPU" if torch.cuda.is_available() else "a CPU, 16 cores, 126 GiB, 1 × a card"


def report(*lines: dict[str, object]) -> None:
    """Puts a results.csv into reports/."""
    folder = home() / "reports" / "some"
    folder.mkdir(parents=True)
    usual = {
        "dataset": "synthetic", "variant": "raw", "backbone": "dcnv2", "plm": "", "seconds": 60,
        "train_rows": 1000, "pretraining_seconds": 0, "pretraining_rows": 0, "machine": machine(),
        "pretraining_machine": "",
    }  # fmt: skip
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(usual))
        table.writeheader()
        table.writerows(usual | line for line in lines)


@pytest.fixture
def profile(tiny_plm: str, tmp_path: Path) -> str:
    text = TINY.read_text(encoding="utf-8").replace("{name: tiny,", f"{{name: {tiny_plm},")
    path = tmp_path / "mine.yaml"
    path.write_text(text.partition("studies:")[0], encoding="utf-8")
    return str(path)


def table(profile: str) -> dict[str, list[int]]:
    """The numbers of each line: runs, pretrainings and finetunings to do, minutes."""
    text = outlook.outlook(jobs.plan(profile))
    lines = re.findall(r"^\| (\d\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    return {name: [int(number) for number in numbers] for name, *numbers in lines}


def test_it_counts_what_is_left(profile: str) -> None:
    assert [line[:3] for line in table(profile).values()] == [[4, 1, 4], [2, 0, 2], [2, 0, 2]]
    steps.finetune(load_profile(profile).run("alt_ctr", 0))
    assert table(profile)["04_finetune_ctr"][:3] == [4, 0, 3]


def test_times_are_those_of_like_runs_by_row(profile: str, tiny_plm: str) -> None:
    assert "9 runs without a comparable past run" in outlook.outlook(jobs.plan(profile))
    other = {"backbone": "afm", "seconds": 6000, "train_rows": 1000}
    plm = {"variant": "plain_lang", "plm": tiny_plm, "seconds": 600, "train_rows": 500}
    report({"seconds": 600}, {"seconds": 1200}, {"seconds": 1800}, other, plm)
    # A finetuning of an ID-based model takes 20 minutes for the 1,000 rows of the data, and one of
    # the PLM as long; the pretraining and the two models together have no like.
    assert [line[3] for line in table(profile).values()] == [80, 40, 0]
    assert "3 runs without" in outlook.outlook(jobs.plan(profile))
    share = load_profile(profile, {"data": {"train_share": 0.5}}).run("raw", 0)
    assert outlook.seconds(share, outlook.known()) == pytest.approx(600)


def test_times_of_a_gpu_are_not_those_of_a_cpu(profile: str) -> None:
    report({"machine": OTHER})
    assert "9 runs without a comparable past run" in outlook.outlook(jobs.plan(profile))


def test_a_pretraining_has_the_times_of_its_own_machine(profile: str, tiny_plm: str) -> None:
    line = {"variant": "alt_ctr", "plm": tiny_plm, "seconds": 0, "pretraining_rows": 100}
    here, there = machine(), OTHER
    report(
        line | {"pretraining_seconds": 6, "pretraining_machine": here, "machine": there},
        line | {"pretraining_seconds": 600, "pretraining_machine": there, "machine": here},
    )
    aligned = load_profile(profile).aligned()
    assert outlook.seconds(aligned, outlook.known()) == pytest.approx(1000 * 6 / 100)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("content", "warned"),
    [(b"", 0), (b"\0" * 9, 0), (b"\xff\xfe", 1), (b"seconds,train_rows\nx,y\n", 1)],
    ids=["empty", "zeros", "no text", "no numbers"],
)
def test_a_damaged_report_is_left_out(
    content: bytes, warned: int, recwarn: pytest.WarningsRecorder
) -> None:
    report({})
    damaged = home() / "reports" / "other" / "results.csv"
    damaged.parent.mkdir()
    damaged.write_bytes(content)
    assert len(outlook.known()) == 1
    told = [str(warning.message) for warning in recwarn]
    assert len(told) == warned and all(f"{damaged} is damaged" in sentence for sentence in told)


def test_the_longest_jobs_are_started_first_but_for_the_main_table(profile: str) -> None:
    shares = ", ".join(f"'{n} %': {{data: {{train_share: 0.0{n}}}}}" for n in (2, 8, 5))
    study = f"{{settings: {{{shares}}}, variants: [plain_lang], against: control}}"
    with Path(profile).open("a", encoding="utf-8") as file:
        file.write(f"studies: {{08_backbones: {{few_rows: {study}}}}}\n")
    plan = jobs.plan(profile)
    plm = plan.profile.plm.name
    report({"variant": "plain_lang", "backbone": "", "plm": plm, "train_rows": 100_000})
    found = outlook.order(plan)
    assert sorted(found) == sorted(plan.jobs)
    main = plan.shown["06_finetune_both"]
    assert found[: len(main)] == main
    runs = [run for name in found[len(main) :] for run in plan.jobs[name].makes]
    made = [run.data.train_share for run in runs if isinstance(run, Finetuning)]
    assert made == [0.08, 0.05, 0.02]
