"""What a profile has to run: `./run_all.sh PROFILE` calls this.

Every training is a job (`altlib/lab/jobs.py` says how they are cut), and a notebook follows the jobs
whose results it shows. What a job made lies under artifacts/ by its key; the job's stamp says how it
ended, and a stamp that is there is not asked how old it is: only changed configuration or data train
anew, by another key. Each notebook's executed copy is its log, so that a failed one stays to be read;
one that fails does not stop the others, except where nothing can go on.

The environment names the profile, ALTLIB_PROFILE, since Snakemake reads `--config profile=007` as a
number.
"""

import os
import re
import shlex
import sys
from pathlib import Path

from altlib import profile
from altlib.lab import jobs
from altlib.lab.outlook import order, outlook
from altlib.lab.terminal import end_with

if config:
    raise WorkflowError(
        f"--config {' '.join(config)}: there is nothing to configure so; name the profile in the "
        "environment: ALTLIB_PROFILE=quick."
    )
PROFILE = os.environ.get("ALTLIB_PROFILE", "quick")
if re.search(r"^-|[{}/\n]", PROFILE):  # Snakemake takes braces for wildcards
    raise WorkflowError(
        f"The name of the profile {PROFILE!r} begins with - or holds one of {{ }} / or a line's "
        "end; rename its file."
    )
TUNING = "ALTLIB_TUNE" in os.environ
try:
    PLAN = jobs.tuning(PROFILE) if TUNING else jobs.plan(PROFILE)
except (ValueError, OSError) as error:
    sys.exit(f"altlib: {error}")
# Only the first process has these: what a cluster starts reads this file, too.
if parent := os.environ.pop("ALTLIB_PARENT", None):
    end_with(int(parent))
    if os.environ.pop("ALTLIB_DRY", None):
        print(jobs.listed(PLAN) if TUNING else outlook(PLAN))
    else:
        jobs.clear(PLAN)

# As many jobs at once as there are GPUs, or else as the cores have threads for.
GPUS = jobs.gpus()
THREADS = max(PLAN.profile.threads, workflow.cores // GPUS if GPUS and workflow.cores else 0)
JOBS = order(PLAN)
NOTEBOOKS = list(PLAN.shown)
STAMP = f"artifacts/stamps/{PROFILE}/{{notebook}}.json"
NEEDED = ("01_data", "02_templating", "14_report")  # where these fail, nothing can go on

# Profiles and paths may hold spaces. The shell's parent is Snakemake, and by `exec` it becomes that
# of what runs, which ends with it.
PYTHON = shlex.quote(sys.executable)
RUN = f"-m altlib.lab.run {shlex.quote(PROFILE)} --parent $PPID --threads {PLAN.profile.threads}"
RUN += " --tuning" if TUNING else ""


def stamps(names):
    return [PLAN.jobs[name].stamp for name in names]


def code(notebook):
    """The rooms whose change can change what a notebook shows."""
    rooms = {"01_data": ["data"], "02_templating": ["data", "models"], "03_pretraining": ["models"]}
    rooms |= {"12_alignment": ["explorer", "models"], "13_serving": ["serving", "models"]}
    return [
        str(file)
        for room in ["lab", *rooms.get(notebook, [])]
        for file in sorted(Path("altlib", room).rglob("*.*"))
        if file.suffix in (".py", ".yaml", ".js", ".html")
    ]


def executing(notebook):
    """The words that execute a notebook."""
    words = ["-m", "altlib.lab.execute", f"notebooks/{notebook}.ipynb", "-p", "profile", PROFILE]
    words += ["--out", f"reports/{PROFILE}/notebooks/{notebook}.ipynb"]
    if notebook not in NEEDED:
        words += ["--stamp", STAMP.format(notebook=notebook)]
    if '"live: bool' in Path(f"notebooks/{notebook}.ipynb").read_text(encoding="utf-8"):
        words += ["-p", "live", "False"]  # widgets, which an executed copy cannot show
    return shlex.join(words)


localrules:
    all,
    data,


rule all:
    input:
        stamps(name for name in JOBS if name.startswith("tune/")) if TUNING else expand(STAMP, notebook=NOTEBOOKS),


rule data:
    output:
        "artifacts/jobs/data/{job}.json",
    priority: 1000
    shell:
        "exec {PYTHON} {RUN} --job data/{wildcards.job}"


rule pretrain:
    input:
        lambda wildcards: ancient(stamps(PLAN.jobs[f"pretrain/{wildcards.job}"].needs)),
    output:
        "artifacts/jobs/pretrain/{job}.json",
    params:
        start=jobs.starter(PLAN.profile, PYTHON),
    threads: THREADS * PLAN.profile.processes
    retries: 1  # a process that was killed goes on from its checkpoint
    priority: 999
    resources:
        **({"nodes": PLAN.profile.nodes, "tasks": PLAN.profile.nodes, "tasks_per_gpu": 0}
           if PLAN.profile.nodes > 1 else {}),
    shell:
        "exec {params.start} {RUN} --job pretrain/{wildcards.job}"


rule finetune:
    input:
        lambda wildcards: ancient(stamps(PLAN.jobs[f"finetune/{wildcards.job}"].needs)),
    output:
        "artifacts/jobs/finetune/{job}.json",
    threads: THREADS
    retries: 1
    priority: lambda wildcards: 900 - JOBS.index(f"finetune/{wildcards.job}")
    shell:
        "exec {PYTHON} {RUN} --job finetune/{wildcards.job}"


rule tune:
    input:
        lambda wildcards: ancient(stamps(PLAN.jobs[f"tune/{wildcards.job}"].needs)),
    output:
        "artifacts/jobs/tune/{job}.json",
    threads: THREADS
    retries: 1
    priority: lambda wildcards: 900 - JOBS.index(f"tune/{wildcards.job}")
    shell:
        "exec {PYTHON} {RUN} --job tune/{wildcards.job}"


rule notebook:
    input:
        notebook="notebooks/{notebook}.ipynb",
        profile=[str(file) for file in profile.files(Path(f"config/{PROFILE}.yaml"))],
        shown=lambda wildcards: stamps(PLAN.shown[wildcards.notebook]),
        before=lambda wildcards: (
            expand(STAMP, notebook=NOTEBOOKS[:-1]) if wildcards.notebook == NOTEBOOKS[-1] else []
        ),
        code=lambda wildcards: code(wildcards.notebook),
    output:
        STAMP,
    log:
        f"reports/{PROFILE}/notebooks/{{notebook}}.ipynb",
    params:
        words=lambda wildcards: executing(wildcards.notebook),
    # Notebook 13 measures times, which other work would spoil.
    threads: lambda wildcards: workflow.cores if wildcards.notebook == "13_serving" else 1
    priority: 2000
    shell:
        "exec {PYTHON} {params.words} --parent $PPID"
