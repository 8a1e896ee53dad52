"""Which notebooks have to run: `./run_all.sh PROFILE` calls this.

Each rule executes one notebook and leaves a small JSON, its stamp, as output; the executed notebook
is the log, so that a failed one stays to be read. One that fails does not stop the others, except
where nothing can go on: its stamp says why, and the report names it. A rule lists the modules whose
change can change what its notebook shows. Training is found again under artifacts/ whatever reruns
here: only a change of configuration or data trains anew.
"""

import sys
from pathlib import Path

import yaml

PROFILE = config.get("profile", "quick")
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
CONTENT = yaml.safe_load(Path(f"config/{PROFILE}.yaml").read_text())
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
    more = "" if name in NEEDED else f"--stamp {STAMP.format(notebook=name)}"
    if name == "12_alignment":
        more += " -p live False"

    rule:
        name:
            name
        input:
            notebook=f"notebooks/{name}.ipynb",
            profile=f"config/{PROFILE}.yaml",
            before=expand(STAMP, notebook=before),
            modules=modules,
        params:
            more=more,  # the command itself is put together when the loop is over
        output:
            STAMP.format(notebook=name),
        log:
            f"reports/{PROFILE}/notebooks/{name}.ipynb",
        # A notebook uses all cores: two trainings at once would only slow each other.
        threads: workflow.cores
        priority: len(NOTEBOOKS) - position
        shell:
            f'"{sys.executable}" -m altlib.execute {{input.notebook}} --out {{log}} -p profile {PROFILE} {{params.more}}'
