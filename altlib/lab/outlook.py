"""What a profile would still run, in which order, and about how long.

`./run_all.sh PROFILE --dry-run` shows it. Times are those of runs in reports/*/results.csv that are
most like it, by row of training: of this machine, or of the ones that made the committed reports;
with a GPU those made on one, and without it the others.
"""

import csv
from pathlib import Path
from statistics import median
from typing import Any
from warnings import warn

from altlib import store
from altlib.config import VARIANTS, Finetuning, Pretraining
from altlib.lab import jobs
from altlib.lab.keys import folder

Line = dict[str, Any]
WORDS = ("dataset", "variant", "backbone", "plm", "machine", "pretraining_machine")
NUMBERS = ("train_rows", "seconds", "pretraining_rows", "pretraining_seconds")


def known() -> list[Line]:
    """Every run in reports/."""
    lines: list[Line] = []
    for path in sorted(store.home().glob("reports/*/results.csv")):
        try:
            with path.open(newline="", encoding="utf-8") as file:
                for line in csv.DictReader(file):
                    numbers = {name: float(line[name] or 0) for name in NUMBERS}
                    words = {name: line[name] or "" for name in WORDS}
                    if words["variant"] in VARIANTS:
                        lines.append(words | numbers)
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            told = f"{path} is damaged ({error}) and was ignored; notebook 14_report rewrites it."
            warn(told, stacklevel=2)
    return lines


def rows(config: Pretraining | Finetuning, lines: list[Line]) -> float:
    """Training rows of a run, as far as the reports know its data; NaN if they do not."""
    of = [line["train_rows"] for line in lines if line["dataset"] == config.data.dataset]
    whole = config.data.rows * 0.8 if config.data.rows else max(of, default=float("nan"))
    return whole * config.data.train_share


def rate(lines: list[Line], part: str, alike: dict[str, str]) -> float:
    """Median seconds a row over the runs most like one; NaN if there are none.

    Args:
        lines: from `known`; those of machines without a GPU count only where there is none here,
            and the other way round.
        part: "pretraining_", or "" for finetuning.
        alike: what runs have in common with it, by column; the last counts least.
    """
    seconds, number = f"{part}seconds", f"{part}rows" if part else "train_rows"
    here = jobs.gpus() > 0
    # In the words of `provenance.machine`, one with a GPU holds a " × ".
    lines = [line for line in lines if (" × " in line[f"{part}machine"]) == here]
    lines = [line for line in lines if line[number] > 0]
    for shared in (alike.items(), list(alike.items())[:-1]):
        of = [line for line in lines if all(line[name] == value for name, value in shared)]
        if of:
            return median(line[seconds] / line[number] for line in of)
    return float("nan")


def seconds(config: Pretraining | Finetuning, lines: list[Line]) -> float:
    """About how long a run takes; a finetuning with as many epochs as others took."""
    alike = {"plm": config.plm.name} if config.plm else {}
    alike["backbone"] = config.ctr.backbone if config.ctr else ""
    if isinstance(config, Pretraining):
        each = rate(lines, "pretraining_", alike)
        return each * rows(config, lines) * config.training.epochs
    kind = VARIANTS[config.variant].kind
    of = [line for line in lines if VARIANTS[line["variant"]].kind == kind]
    return rate(of, "", alike) * rows(config, lines)


def order(plan: jobs.Plan) -> list[str]:
    """The names of a plan's jobs as they are best started: those of the main table, and then the
    longest, so that none is left alone at the end. One of unknown length counts as long."""
    lines = known()

    def shortness(name: str) -> float:
        runs = [one for one in plan.jobs[name].makes if isinstance(one, Pretraining | Finetuning)]
        length = sum(seconds(run, lines) for run in runs)
        return -length if length == length else float("-inf")

    main = plan.shown.get("06_finetune_both", [])
    return [*main, *sorted((name for name in plan.jobs if name not in main), key=shortness)]


def outlook(plan: jobs.Plan) -> str:
    """A table of what each notebook of a profile still trains, in Markdown, and the time in all.

    A run that several notebooks show is counted at the first.
    """
    lines, seen = known(), set[Path]()

    def new(config: Pretraining | Finetuning) -> bool:
        """Whether it is still to be made, and not yet counted."""
        place = folder(config)
        made = place.exists() and store.ended(place).get("status", "done") == "done"
        todo = not made and place not in seen
        seen.add(place)
        return todo

    text = ["| notebook | runs | pretrainings to do | finetunings to do | minutes |"]
    text.append("| --- | --: | --: | --: | --: |")
    total, unknown = 0.0, 0
    for notebook, runs in plan.runs.items():
        todo = [run for run in runs if new(run)]
        starts = [run.pretraining for run in todo if run.pretraining and new(run.pretraining)]
        times = [seconds(start, lines) / 60 for start in starts]
        times += [seconds(run, lines) / 60 for run in todo]
        minutes = sum(time for time in times if time == time)
        total, unknown = total + minutes, unknown + sum(time != time for time in times)
        text.append(f"| {notebook} | {len(runs)} | {len(starts)} | {len(todo)} | {minutes:.0f} |")
    text.append(f"\nAbout {total:,.0f} minutes of training in total, one run after another")
    text[-1] += f", and {unknown} runs without a comparable past run." if unknown else "."
    return "\n".join(text)
