"""Whether a share of the training rows ranks settings as all of them do.

    python -m benchmarks.share cpu raw

takes the trials of a row that `./run_all.sh cpu --tune` has done with the share that the profile
tunes with, does those that came to their end again with all rows, and compares their AUC on the
validation split.
"""

import argparse
from dataclasses import replace

import pandas as pd
from optuna.trial import TrialState
from scipy.stats import spearmanr

from altlib.lab import keys, show, steps, tune
from altlib.lab.search import searches
from altlib.store import home


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.share", description=__doc__)
    parser.add_argument("profile", help="a name from config/ or a YAML file")
    parser.add_argument("row", help="the name of a row, as ./run_all.sh PROFILE --tune --dry-run")
    words = parser.parse_args()
    search = next(one for one in searches(words.profile) if one.name == words.row)
    lines = []
    for trial in tune.ended(tune.study_of(search)):
        if trial.state != TrialState.COMPLETE:
            continue
        values = tune.rounded(trial.params)
        run = search.run(values)
        data = replace(run.data, train_share=1.0)
        start = run.pretraining and replace(run.pretraining, data=data)
        whole = steps.trial(replace(run, data=data, pretraining=start), lambda aucs: False)
        auc = max(epoch["auc"] for epoch in whole["epochs"])
        lines.append({"trial": trial.number, **values, "share": trial.value, "all rows": auc})
        print(keys.finetuning_key(run), lines[-1], flush=True)
    table = pd.DataFrame(lines)
    show.write(table, home() / "reports" / "benchmarks", f"share_{words.profile}_{words.row}")
    found = spearmanr(table["share"], table["all rows"])
    kept = table.loc[table["share"].idxmax(), "all rows"]
    print(
        f"{len(table)} settings of {words.row}: rank correlation {found.statistic:.2f} (p = "
        f"{found.pvalue:.3f}); the best by the share has {kept:.4f} with all rows, the best of "
        f"all {table['all rows'].max():.4f}, the median {table['all rows'].median():.4f}"
    )


if __name__ == "__main__":
    main()
