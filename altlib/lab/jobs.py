"""The jobs of a profile: what the batch run starts as processes, here or on a cluster.

A job is a pretraining, or finetunings that start from the same weights; a data job fetches and
prepares what these need. A finetuning that reads sentences is a job of its own. Those of ID-based
models take seconds, no longer than a process takes to start, and share one; so does a pretraining
with the only job that starts from it. Tuning has a job for each row of the tables.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from altlib import store
from altlib.config import MAIN, VARIANTS, DataConfig, Finetuning, PlmConfig, Pretraining, TextConfig
from altlib.config import key as hashed
from altlib.lab.keys import data_key, finetuning_key, pretraining_key, weights_checksum
from altlib.lab.search import Search, searches
from altlib.profile import Profile, content, find, load_profile, made_of, study_runs

SHARED = 8
"""Finetunings of ID-based models that share a process at most."""


@dataclass(frozen=True)
class Inputs:
    """What runs read: rows, and what makes sentences of them, if anything does."""

    data: DataConfig
    text: TextConfig | None
    plm: PlmConfig | None


@dataclass(frozen=True)
class Job:
    """What one process makes.

    Attributes:
        name: rule and key, as "finetune/0a1b2c3d4e5f".
        makes: what is made, in order.
        needs: names of the jobs before it.
    """

    name: str
    makes: tuple[Inputs | Pretraining | Finetuning | Search, ...]
    needs: tuple[str, ...] = ()

    @property
    def stamp(self) -> str:
        """The file that says how it ended, from the folder that holds artifacts/."""
        return str(Path("artifacts", "jobs", f"{self.name}.json"))


@dataclass(frozen=True)
class Plan:
    """What a profile runs.

    Attributes:
        runs: the finetunings of each notebook.
        jobs: by name, each behind those that it needs.
        shown: the jobs whose results a notebook shows, by the notebook's name.
    """

    profile: Profile
    runs: dict[str, list[Finetuning]]
    jobs: dict[str, Job]
    shown: dict[str, list[str]]


def plan(name: str) -> Plan:
    """The jobs of a profile, and which notebook shows what they make.

    Raises:
        ValueError: the profile, or a setting of a study, is wrong.
    """
    profile = load_profile(name)
    runs: dict[str, list[Finetuning]] = {notebook: [] for notebook in MAIN.values()}
    for run in profile.runs():
        runs[VARIANTS[run.variant].notebook].append(run)
    for notebook in profile.studies:
        studies = study_runs(name, notebook).values()
        several = [run for settings in studies for of in settings.values() for run in of]
        runs[notebook] = runs.get(notebook, []) + several
    every = [run for of in runs.values() for run in of]
    aligned = [profile.aligned()] if any(run.pretraining for run in every) else []
    apart = profile.processes * profile.nodes > 1
    jobs = jobs_of(every, aligned, apart)
    by = {id_of(made): job.name for job in jobs.values() for made in job.makes}

    def showing(*made: Pretraining | Finetuning) -> list[str]:
        return list(dict.fromkeys(by[id_of(one)] for one in made))

    main = showing(*profile.runs())
    data = [name for name in jobs if name.startswith("data/")]
    shown = {"01_data": data, "02_templating": data}
    shown |= {"03_pretraining": showing(*aligned)} if aligned else {}
    shown |= {notebook: showing(*of) for notebook, of in runs.items() if of}
    shown |= {"06_finetune_both": main}
    if {"raw", "alt_ctr", "alt_lang", "alt_both"} <= set(profile.seeds):
        compared = runs.get("09_ablations", [])  # their pretrainings, in notebook 12
        shown |= {"12_alignment": showing(*profile.runs(), *compared), "13_serving": main}
    return Plan(profile, runs, jobs, shown | {"14_report": list(jobs)})


def tuning(name: str) -> Plan:
    """The jobs that tune a profile.

    Raises:
        ValueError: the profile is wrong, or says nothing of tuning.
    """
    found, path = searches(name), find(name)
    first = {one.name: one.run(one.first) for one in found}
    data = fetching(inputs(part) for run in first.values() for part in parts(run))
    jobs = {job.name: job for job in data.values()}
    named: dict[str, str] = {}
    for one in found:
        leader = (named[one.leader.name],) if one.leader else ()
        needs = (data[first[one.name].data.dataset].name, *leader)
        named[one.name] = f"tune/{hashed(one.key(), one.trials, leader)}"
        jobs[named[one.name]] = Job(named[one.name], (one,), needs)
    return Plan(made_of(content(path, tuned=False), path), {}, jobs, {})


def id_of(made: Inputs | Pretraining | Finetuning | Search) -> str:
    """What tells apart what jobs make."""
    if isinstance(made, Search):
        return made.key()
    if isinstance(made, Finetuning):
        return finetuning_key(made)
    if isinstance(made, Pretraining):
        return pretraining_key(made)
    weights = weights_checksum(made.plm.base) if made.plm else None
    return hashed(data_key(made.data), made.text, made.plm and made.plm.base, weights)


def jobs_of(
    runs: Iterable[Finetuning], aligned: Iterable[Pretraining], apart: bool
) -> dict[str, Job]:
    """The jobs that make runs.

    Args:
        runs: a run may stand among them more than once.
        aligned: pretrainings that are made in any case.
        apart: no pretraining shares a job with finetunings.
    """
    distinct = {id_of(run): run for run in runs}
    pretrainings = {id_of(one): one for one in aligned}
    groups: dict[str, list[Finetuning]] = {}
    for name, run in distinct.items():
        start = run.pretraining and id_of(run.pretraining)
        if run.pretraining and start:
            pretrainings[start] = run.pretraining
        light = not VARIANTS[run.variant].reads_text
        groups.setdefault(f"{start or id_of(inputs(run))} {'' if light else name}", []).append(run)
    bundles = [
        tuple(several[first : first + SHARED])
        for several in groups.values()
        for first in range(0, len(several), SHARED)
    ]
    starts = [bundle[0].pretraining and id_of(bundle[0].pretraining) for bundle in bundles]
    alone = {start for start in starts if start and starts.count(start) == 1 and not apart}
    everything: list[Pretraining | Finetuning] = [*pretrainings.values(), *distinct.values()]
    data = fetching(inputs(made) for made in everything)
    fetched = {dataset: job.name for dataset, job in data.items()}
    jobs = list(data.values())
    for name, one in pretrainings.items():
        if name not in alone:
            jobs.append(Job(f"pretrain/{name}", (one,), (fetched[one.data.dataset],)))
    for start, bundle in zip(starts, bundles, strict=True):
        needs: tuple[str, ...] = (fetched[bundle[0].data.dataset],)
        makes: tuple[Pretraining | Finetuning, ...] = bundle
        if start in alone:
            makes = (pretrainings[start], *bundle)
        elif start:
            needs += (f"pretrain/{start}",)
        jobs.append(Job(f"finetune/{hashed([id_of(made) for made in makes])}", makes, needs))
    return {job.name: job for job in jobs}


def fetching(read: Iterable[Inputs]) -> dict[str, Job]:
    """The data job of each data set, which fetches and prepares what runs read."""
    data: dict[str, dict[str, Inputs]] = {}
    for made in read:
        data.setdefault(made.data.dataset, {})[id_of(made)] = made
    return {name: Job(f"data/{hashed([*of])}", tuple(of.values())) for name, of in data.items()}


def parts(run: Finetuning) -> tuple[Pretraining | Finetuning, ...]:
    """A run, and the pretraining that it starts from if it has one."""
    return (run.pretraining, run) if run.pretraining else (run,)


def inputs(made: Pretraining | Finetuning) -> Inputs:
    """What a pretraining or finetuning reads."""
    return Inputs(made.data, made.text, made.plm)


def gpus() -> int:
    """How many NVIDIA GPUs this machine has."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def clear(plan: Plan) -> None:
    """Removes the stamps of what failed, or what a power cut has damaged: it is tried again.

    So is, where the user has brought some, what lacked data or weights.
    """
    home, again = store.home(), ['"failed"']
    if os.environ.get("ALTLIB_PLM") or os.environ.get("ALTLIB_DATA"):
        again.append('"absent"')
    shown = list((home / "artifacts" / "stamps" / plan.profile.name).glob("*.json"))
    for stamp in [*shown, *(home / job.stamp for job in plan.jobs.values())]:
        if stamp.exists():
            text = stamp.read_text(encoding="utf-8", errors="replace")
            if not text.endswith("}") or any(word in text for word in again):
                stamp.unlink()
    report = home / "reports" / plan.profile.name
    if any(file.is_file() and file.stat().st_size == 0 for file in report.rglob("*")):
        for stamp in shown:
            stamp.unlink(missing_ok=True)


def starter(profile: Profile, python: str) -> str:
    """What starts the processes of a pretraining, in the shell's words: Python alone, or torchrun
    where several share it, by SLURM's srun on each of several machines."""
    if profile.processes * profile.nodes == 1:
        return python
    start = f"{python} -m torch.distributed.run --nproc-per-node {profile.processes}"
    if profile.nodes == 1:
        return f"{start} --standalone"
    first = "$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)"
    there = f"--rdzv-backend c10d --rdzv-endpoint {first}:29400 --rdzv-id $SLURM_JOB_ID"
    return f"srun {start} --nnodes {profile.nodes} {there}"


def listed(plan: Plan) -> str:
    """The rows that a plan tunes, and how many trials each has, a line each."""
    rows = [made for job in plan.jobs.values() for made in job.makes if isinstance(made, Search)]
    return "\n".join(f"{row.name}: {row.trials} trials over {', '.join(row.space)}" for row in rows)
