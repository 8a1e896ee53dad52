"""`python -m altlib.lab.run PROFILE [VARIANT]`: pretrains, or finetunes one variant.

    python -m altlib.lab.run quick                                     # the pretraining
    python -m altlib.lab.run quick alt_ctr --seed 1
    python -m altlib.lab.run quick alt_ctr --study losses --setting "without MLM"

Under torchrun or `accelerate launch` the training is shared by their processes. The batch run calls
it with `--job`.
"""

import argparse
import os
import sys
from contextlib import nullcontext, suppress
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from altlib import store
from altlib.config import VARIANTS, Finetuning, Pretraining
from altlib.data import fetch
from altlib.faults import nearest
from altlib.lab import jobs
from altlib.lab.search import Search
from altlib.lab.steps import checkpoint_seconds, failure, finetune, prepare, pretrain, sentences
from altlib.lab.terminal import Lines, end_with
from altlib.profile import load_profile, study_runs
from altlib.training.processes import processes


def chosen(words: argparse.Namespace) -> Pretraining | Finetuning:
    """The run that a command line names; a ValueError says that there is no such one."""
    profile = load_profile(words.profile)
    if words.study is None:
        if words.variant is None:
            return profile.aligned(seed=words.seed)
        return profile.run(words.variant, words.seed)
    studies = {
        name: study
        for notebook in profile.studies
        for name, study in study_runs(words.profile, notebook).items()
    }
    if words.study not in studies:
        raise ValueError(f"There is no study '{words.study}'; {nearest(words.study, studies)}")
    settings = studies[words.study]
    if words.setting not in settings:
        given = f"has no setting '{words.setting}'" if words.setting else "needs a --setting"
        raise ValueError(f"'{words.study}' {given}; {nearest(words.setting or '', settings)}")
    runs = {(run.variant, run.training.seed): run for run in settings[words.setting]}
    if (words.variant, words.seed) not in runs:
        having = ", ".join(f"{variant} with seed {seed}" for variant, seed in runs)
        raise ValueError(f"'{words.setting}' of '{words.study}' finetunes {having}.")
    return runs[words.variant, words.seed]


def make(made: jobs.Inputs | Pretraining | Finetuning | Search) -> Any:
    """Finds or makes a part of a job, and returns what there is to say of it."""
    if isinstance(made, Search):
        from altlib.lab.tune import tune  # Optuna takes a second to load

        return tune(made)
    if isinstance(made, Pretraining):
        return pretrain(made)
    if isinstance(made, Finetuning):
        result = finetune(made)
        return {name: result[name] for name in ("auc", "logloss", "seconds")}
    if made.plm is not None:
        fetch.weights(made.plm.base)
    if made.text is not None and made.plm is not None:
        return sentences(made.data, made.text, made.plm)
    return prepare(made.data)


def do(job: jobs.Job) -> None:
    """Makes all that a job makes; what fails does not stop the rest, and its stamp says so."""
    ended: dict[str, str] = {}
    for made in job.makes:
        try:
            make(made)
        except Exception as error:
            why = failure(error)
            print(f"{why['status']}: {why['reason']}", file=sys.stderr)
            ended[jobs.id_of(made)] = why["status"]
        else:
            ended[jobs.id_of(made)] = "done"
    if processes().is_main_process:
        store.write_json(store.home() / job.stamp, {"status": ended})


def take_gpu() -> FileLock | None:
    """Chooses a GPU that no other job of this machine has, where there are several.

    A cluster gives a job its own, and torchrun's processes share out what there is.
    """
    number = torch.cuda.device_count()
    if number < 2 or {"CUDA_VISIBLE_DEVICES", "RANK"} & os.environ.keys():
        return None
    for gpu in range(number):
        lock = FileLock(store.home() / "artifacts" / f".gpu-{gpu}.lock")
        with suppress(Timeout):
            lock.acquire(blocking=False)
            os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
            return lock
    return None


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m altlib.lab.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("profile", help="a name from config/ or a YAML file")
    parser.add_argument("variant", nargs="?", help=f"one of {', '.join(VARIANTS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--study", help="take the run from a study of the profile")
    parser.add_argument("--setting", help="of the study")
    parser.add_argument(
        "--threads", type=int, help="processor threads; as the profile says if not given"
    )
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--tuning", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if not 0 <= words.seed < 1 << 63:
        parser.error(f"--seed is {words.seed}; it must lie from 0 to {(1 << 63) - 1}.")
    if words.threads is not None and words.threads < 1:
        parser.error(f"--threads is {words.threads}; a training needs one at least.")
    if words.setting is not None and words.study is None:
        parser.error(f"--setting '{words.setting}' is one of a study; name it with --study.")
    if words.parent is not None:  # torchrun stands between it and its processes
        end_with(os.getppid() if "RANK" in os.environ else words.parent)
    try:
        torch.set_num_threads(words.threads or load_profile(words.profile).threads)
        checkpoint_seconds()
        if words.job is not None:
            os.environ.setdefault("TQDM_MININTERVAL", "5")
            plan = jobs.tuning if words.tuning else jobs.plan
            job = plan(words.profile).jobs.get(words.job)
            if job is None:
                raise ValueError(
                    f"'{words.profile}' has no job '{words.job}' any more: its file or its data "
                    "have changed since the plan was made."
                )
            sys.stderr = Lines(words.job)
            with take_gpu() or nullcontext():
                do(job)
            return
        outcome = make(chosen(words))
        if processes().is_main_process:
            print(outcome)
    except (ValueError, OSError, SafetensorError) as error:
        sys.exit(f"altlib: {error}")
    except KeyboardInterrupt:
        note = "altlib: interrupted; run the same command to resume from the last checkpoint."
        print(note, file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
