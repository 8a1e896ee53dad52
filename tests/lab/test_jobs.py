"""The jobs of a profile, and their stamps."""

import json
from collections import Counter
from pathlib import Path

import pytest

from altlib import store
from altlib.config import VARIANTS, Finetuning, Pretraining
from altlib.lab import jobs
from altlib.lab.jobs import SHARED, id_of
from altlib.profile import load_profile

TINY = str(Path(__file__).parents[1] / "tiny.yaml")
PROFILES = sorted(path.stem for path in (store.PROJECT / "config").glob("*.yaml"))


@pytest.mark.parametrize("name", PROFILES)
def test_every_run_is_made_by_one_job_behind_what_it_needs(name: str) -> None:
    plan = jobs.plan(name)
    runs = {id_of(run): run for of in plan.runs.values() for run in of}
    made = Counter(id_of(one) for job in plan.jobs.values() for one in job.makes)
    assert set(made.values()) == {1} and runs.keys() <= made.keys()
    done: list[str] = []
    for job in plan.jobs.values():
        assert set(job.needs) <= set(done)
        before = {id_of(one) for need in job.needs for one in plan.jobs[need].makes}
        for one in job.makes:
            if isinstance(one, Pretraining | Finetuning):
                assert id_of(jobs.inputs(one)) in before
            if isinstance(one, Finetuning) and one.pretraining:
                assert id_of(one.pretraining) in before
            before.add(id_of(one))
        done.append(job.name)


def test_what_takes_seconds_shares_a_process_and_what_takes_long_does_not() -> None:
    plan = jobs.plan("quick")
    for job in plan.jobs.values():
        runs = [one for one in job.makes if isinstance(one, Finetuning)]
        starts = {run.pretraining for run in runs}
        assert len(starts) <= 1 and len(runs) <= SHARED
        assert len(runs) == 1 or not any(VARIANTS[run.variant].reads_text for run in runs)
    kinds = Counter(name.partition("/")[0] for name in plan.jobs)
    assert kinds["data"] == 1 and kinds["pretrain"] == 1  # the only one with several jobs behind it
    assert kinds["finetune"] < len(plan.runs["07_baselines"]) + len(plan.runs["08_backbones"])


def test_a_notebook_follows_the_jobs_whose_results_it_shows() -> None:
    plan = jobs.plan("quick")
    for notebook, runs in plan.runs.items():
        shown = [id_of(one) for name in plan.shown[notebook] for one in plan.jobs[name].makes]
        assert {id_of(run) for run in runs} <= set(shown)
    (start,) = plan.shown["03_pretraining"]
    assert plan.jobs[start].makes == (plan.profile.aligned(),)
    by = {id_of(one): job.name for job in plan.jobs.values() for one in job.makes}
    assert set(plan.shown["06_finetune_both"]) == {by[id_of(r)] for r in plan.profile.runs()}
    assert set(plan.shown["04_finetune_ctr"]) > {by[id_of(plan.profile.run("alt_ctr", 0))]}
    assert set(plan.shown["14_report"]) == set(plan.jobs)
    assert "12_alignment" not in jobs.plan("gpu").shown
    # Notebook 12 compares pretrainings of notebook 9, and must not run before they are there.
    assert set(plan.shown["12_alignment"]) >= set(plan.shown["09_ablations"])


def test_other_rows_or_another_seed_are_other_jobs(tmp_path: Path) -> None:
    def names(**changes: str) -> set[str]:
        text = Path(TINY).read_text(encoding="utf-8")
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
        return set(jobs.plan(str(tmp_path / "mine.yaml")).jobs)

    before = names()
    assert names() == before == names(**{"studies:": "threads: 2\nstudies:"})
    assert not names(**{"rows: 1500": "rows: 1501"}) & before
    assert names(**{"plain_lang: [0]": "plain_lang: [0, 1]"}) > before


@pytest.mark.parametrize(
    ("processes", "nodes", "words"),
    [
        (1, 1, "python"),
        (4, 1, "python -m torch.distributed.run --nproc-per-node 4 --standalone"),
        (2, 3, "srun python -m torch.distributed.run --nproc-per-node 2 --nnodes 3"),
    ],
)
def test_a_pretraining_may_be_shared(processes: int, nodes: int, words: str) -> None:
    changes = {"processes": processes, "nodes": nodes}
    assert jobs.starter(load_profile("quick", changes), "python").startswith(words)


def test_one_that_is_shared_is_a_job_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "shared.yaml"
    path.write_text(f"extends: {TINY}\nprocesses: 2\n", encoding="utf-8")
    for job in jobs.plan(str(path)).jobs.values():
        parts = {type(made) for made in job.makes}
        assert len(parts) == 1
        assert job.name.startswith("pretrain/") == (parts == {Pretraining})


def test_what_failed_or_was_cut_short_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = jobs.plan(TINY)
    names = [name for name in plan.jobs if name.startswith("finetune/")][:4]
    stamps = [store.home() / plan.jobs[name].stamp for name in names]
    for stamp, status in zip(stamps, ("done", "failed", "absent", "done"), strict=True):
        store.write_json(stamp, {"status": {"a": "done", "b": status}})
    stamps[3].write_bytes(stamps[3].read_bytes()[:-5] + b"\0\0")
    shown = store.home() / "artifacts" / "stamps" / "tiny" / "04_finetune_ctr.json"
    store.write_json(shown, {"notebook": "04_finetune_ctr", "profile": "0"})
    for name in ("ALTLIB_PLM", "ALTLIB_DATA"):
        monkeypatch.delenv(name, raising=False)
    jobs.clear(plan)
    assert [stamp.exists() for stamp in stamps] == [True, False, True, False] and shown.exists()
    monkeypatch.setenv("ALTLIB_PLM", "somewhere")
    jobs.clear(plan)
    assert [stamp.exists() for stamp in stamps] == [True, False, False, False]
    table = store.home() / "reports" / "tiny" / "tables" / "main.csv"
    table.parent.mkdir(parents=True)
    table.touch()
    jobs.clear(plan)
    assert stamps[0].exists() and not shown.exists()
    assert json.loads(stamps[0].read_text())["status"]["b"] == "done"
