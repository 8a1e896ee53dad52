"""The studies of a notebook in one call: train or find, compare, draw, write."""

import pandas as pd
from IPython.display import Markdown, display

from altlib.lab import figures, results, show, stamps, steps, tables
from altlib.profile import load_profile, study_runs

COLUMNS = ("setting", "variant", "seeds", "AUC", "best", "difference", "low", "high")
"""What is shown of a study's table at once."""


def run(profile: str, notebook: str) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Finds or makes the runs of a notebook's studies, and shows a picture and a table of each.

    Returns:
        By study its table (`tables.study_table`), which tables/<study>.csv holds, and the runs that
        it is made from (`results.read`); both empty where the profile has no such studies.
    """
    config = load_profile(profile)
    studies = config.studies.get(notebook, {})
    planned = study_runs(profile, notebook) if studies else {}
    steps.finetune_all(planned)
    report, tested, found = stamps.report_folder(config), {}, {}
    for name, settings in planned.items():
        found[name] = results.read({name: settings})[0]
        tested[name] = tables.study_table(found[name], studies[name])
        show.write(tested[name], report, name)
        alt = f"Mean test AUC by setting of the study {name}."
        picture = figures.save(figures.study(tested[name]), report, name, alt)
        title = f"### {name.replace('_', ' ')}"
        display(Markdown(title), picture, show.table(tested[name], *COLUMNS))
    return tested, found
