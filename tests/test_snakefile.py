"""What `./run_all.sh PROFILE` would run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from altlib import runs

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("profile", sorted(path.stem for path in ROOT.glob("config/*.yaml")))
def test_a_profile_runs_the_notebooks_that_it_has_something_for(profile: str) -> None:
    words = f"--dry-run --forceall --nolock --cores 1 --config profile={profile}".split()
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    planned = re.findall(r"^rule (\w+):", done.stdout, flags=re.MULTILINE)
    config = runs.load_profile(profile)
    every = {path.stem for path in ROOT.glob("notebooks/*.ipynb")}
    expected = (every - set(runs.STUDY_NOTEBOOKS)) | set(config.studies)
    if "alt_both" not in config.seeds:
        expected -= {"12_alignment", "13_serving"}
    assert set(planned) - {"all"} == expected
    assert planned.index("14_report") == len(planned) - 2  # before "all" alone
    # Notebook 6 shows the main table, with what 4 and 5 finetuned, and comes before the studies.
    assert set(planned[:6]) == {name for name in every if name < "07"}
    assert planned[5] == "06_finetune_both"
