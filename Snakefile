"""Which notebooks have to run: `./run_all.sh PROFILE` calls this.

Each rule executes one notebook and leaves a small JSON, its stamp, as output; the executed notebook
is the log, so that a failed one stays to be read. One that fails does not stop the others, except
where nothing can go on: its stamp says why, and the report names it. A rule lists the modules whose
change can change what its notebook shows. Training is found again under artifacts/ whatever reruns
here: only a change of configuration or data trains anew.

The environment names the profile, ALTLIB_PROFILE, since Snakemake reads `--config profile=007` as a
number.
"""

import os
import re
import shlex
import sys
from pathlib import Path

from altlib import profile
from altlib.execute import end_with

if config:
    raise WorkflowError(
        f"--config {' '.join(config)}: there is nothing to configure so; name the profile in the "
        "environment: ALTLIB_PROFILE=quick."
    )
if parent := os.environ.pop("ALTLIB_PARENT", None):
    end_with(int(parent))

PROFILE = os.environ.get("ALTLIB_PROFILE", "quick")
if re.search(r"^-|[{}/\n]", PROFILE):  # Snakemake takes braces for wildcards
    raise WorkflowError(
        f"The name of the profile {PROFILE!r} begins with - or holds one of {{ }} / or a line's "
        "end; rename its file."
    )
if not Path(f"config/{PROFILE}.yaml").is_file():
    raise WorkflowError(f"There is no profile config/{PROFILE}.yaml.")
STAMP = f"artifacts/stamps/{PROFILE}/{{notebook}}.json"

SHOW = ["altlib/tables.py", "altlib/figures.py", "altlib/runs.py"]
DATA = ["altlib/schema.py", "altlib/fetch.py", "altlib/tabular.py"]
DATA += sorted(str(path) for path in Path("altlib/datasets").glob("*.py"))
TEXT = ["altlib/plm.py", "altlib/text.py", "altlib/masking.py"]
CLAIMS = "altlib/claims.py"
MODELS = sorted(str(path) for path in Path("altlib/ctr").glob("*.py"))
ALIGN = [*TEXT, *MODELS, "altlib/losses.py", "altlib/alignment.py", "altlib/training.py"]
TUNE = [*TEXT, *MODELS, "altlib/finetune.py", "altlib/metrics.py", "altlib/training.py"]

# Notebooks 07 to 11 run where the profile has studies for them, 12 and 13 where it aligns.
FILES = profile.files(Path(f"config/{PROFILE}.yaml"))
CONTENT = profile.content(FILES[0])
STUDIES = list(CONTENT.get("studies") or {})
SHOWN = {
    "12_alignment": (
        ["06_finetune_both"],
        [*ALIGN, *SHOW, CLAIMS, *(f"altlib/explorer.{kind}" for kind in ("py", "js", "html"))],
    ),
    "13_serving": (
        ["06_finetune_both"],
        [*TUNE, *SHOW, CLAIMS, "altlib/serving.py", "altlib/predictor.py"],
    ),
}
if not {"raw", "alt_ctr", "alt_lang", "alt_both"} <= set(CONTENT["seeds"]):
    SHOWN = {}

# notebook: (notebooks before it, modules)
NOTEBOOKS = {
    "01_data": ([], [*DATA, *SHOW]),
    "02_templating": (["01_data"], [*TEXT, *SHOW]),
    "03_pretraining": (["02_templating"], [*ALIGN, *SHOW]),
    "04_finetune_ctr": (["03_pretraining"], [*TUNE, *SHOW]),
    "05_finetune_lang": (["03_pretraining"], [*TUNE, *SHOW]),
    "06_finetune_both": (["04_finetune_ctr", "05_finetune_lang"], [*TUNE, *SHOW]),
    **{name: (["06_finetune_both"], [*ALIGN, *TUNE, *SHOW, CLAIMS]) for name in STUDIES},
    **SHOWN,
    "14_report": (
        ["04_finetune_ctr", "05_finetune_lang", "06_finetune_both", *STUDIES, *SHOWN],
        ["altlib/metrics.py", CLAIMS, "altlib/report.py", "altlib/report.html", *SHOW],
    ),
}

# Where these fail, nothing can go on.
NEEDED = ("01_data", "02_templating", "14_report")


rule all:
    input:
        expand(STAMP, notebook=NOTEBOOKS),


for position, (name, (before, modules)) in enumerate(NOTEBOOKS.items()):
    stamp, executed = STAMP.format(notebook=name), f"reports/{PROFILE}/notebooks/{name}.ipynb"
    words = [f"notebooks/{name}.ipynb", "--out", executed, "-p", "profile", PROFILE]
    if name not in NEEDED:
        words += ["--stamp", stamp]
    if name == "12_alignment":
        words += ["-p", "live", "False"]

    rule:
        name:
            name
        input:
            notebook=f"notebooks/{name}.ipynb",
            profile=[str(file) for file in FILES],
            before=expand(STAMP, notebook=before),
            modules=modules,
        params:
            words=shlex.join([sys.executable, "-m", "altlib.execute", *words]),
        output:
            stamp,
        log:
            executed,
        # A notebook uses all cores: two trainings at once would only slow each other.
        threads: workflow.cores
        priority: len(NOTEBOOKS) - position
        # The shell's parent is Snakemake, and by `exec` it becomes that of the notebook's runner.
        shell:
            "exec {params.words} --parent $PPID"
