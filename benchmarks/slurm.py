"""A tiny profile by SLURM, with a job killed in the middle, against the same profile run here.

    python -m benchmarks.slurm

It starts a controller and a node of its own on this machine, which have to be installed (on Debian:
`apt-get install slurm-wlm munge`, then `pip install snakemake-executor-plugin-slurm`), and stops
them at the end; a SLURM that is there already is left alone. Both runs end with equal results, or
this says where they differ.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from altlib.store import PROJECT

COMMANDS = ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
NEEDED = ("munged", "slurmctld", "slurmd", *COMMANDS)
CONFIGURATION = """
ClusterName=tiny
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={port}
SlurmdPort={other}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=tiny Nodes={host} Default=YES MaxTime=60 State=UP
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(*words: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon in the foreground, which ends with this block."""
    with log.open("wb") as file:
        daemon = subprocess.Popen(words, stdout=file, stderr=file)
    try:
        time.sleep(1)
        if daemon.poll() is not None:
            sys.exit(f"{words[0]} did not start: {log.read_text()[-500:]}")
        yield daemon
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """A SLURM of one node in `folder`, which every command below this block talks to."""
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    settings = {"host": socket.gethostname(), "folder": folder, "cores": os.cpu_count()}
    ports = {"port": free_port(), "other": free_port()}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**settings, **ports))
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    # Snakemake's plugin drops such variables, which the commands of this SLURM need.
    (folder / "bin").mkdir()
    for name in COMMANDS:
        wrapper = folder / "bin" / name
        found = shutil.which(name)
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {found} "$@"\n')
        wrapper.chmod(0o755)
    os.environ["PATH"] = f"{folder / 'bin'}:{os.environ['PATH']}"
    munge = ["munged", "--foreground", "--force", f"--key-file={key}"]
    munge += [f"--socket={folder}/munge.socket", f"--pid-file={folder}/munge.pid"]
    munge += [f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"]
    with ExitStack() as stack:
        stack.enter_context(running(*munge, log=folder / "munged.out"))
        for name in ("slurmctld", "slurmd"):
            stack.enter_context(running(name, "-D", log=folder / f"{name}.out"))
        for _ in range(60):
            told = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True)
            if told.stdout.strip() == "idle":
                break
            time.sleep(1)
        else:
            sys.exit(f"The node did not come up: {told.stdout}{told.stderr}")
        yield


def copy(folder: Path) -> Path:
    """The project with a profile of seconds, on generated data."""
    folder.mkdir()
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    for name in tracked:
        if name and not name.startswith(("reports/", "tests/")) and (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, folder / name)
    text = (PROJECT / "tests" / "tiny.yaml").read_text(encoding="utf-8")
    text = text.replace("{name: tiny,", "{name: bert-tiny,").replace("rows: 1500", "rows: 6000")
    (folder / "config" / "tiny.yaml").write_text(text, encoding="utf-8")
    return folder


def command(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Snakemake on the trainings of the profile, as run_all.sh calls it."""
    environment = os.environ | {"ALTLIB_PROFILE": "tiny", "ALTLIB_HOME": str(folder)}
    environment |= {"PYTHONPATH": str(folder), "ALTLIB_CALL": str(time.time())}
    options = ["--cores", str(os.cpu_count()), "--nolock", "--rerun-incomplete"]
    options += ["--rerun-triggers", "mtime", "--quiet", "host", "reason", "rules"]
    # Notebook 6 stands for all that its runs need; times of serving are no matter here.
    target = "artifacts/stamps/tiny/09_ablations.json"
    main = "artifacts/stamps/tiny/06_finetune_both.json"
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", main, target, *words, *options],
        cwd=folder, env=environment,
    )  # fmt: skip


def results(folder: Path) -> dict[str, tuple[float, float]]:
    """AUC and Logloss of every run, by its key."""
    found = {}
    for path in folder.glob("artifacts/finetuning/*/results.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        found[path.parent.name] = (result["auc"], result["logloss"])
    return found


def kill_a_job() -> str:
    """Kills the first training that is under way on the node, as a broken node would."""
    while True:
        told = subprocess.run(
            ["pgrep", "-f", "altlib.lab.run tiny .*--job (pre|fine)t"],
            capture_output=True,
            text=True,
        )
        for process in told.stdout.split():
            called = Path("/proc", process, "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if "snakemake" not in called and "python" in called.split()[0]:
                time.sleep(6)  # it is training by now
                os.kill(int(process), signal.SIGKILL)
                return called[called.index("--job") :].strip()
        time.sleep(0.2)


def main() -> None:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if find_spec("snakemake_executor_plugin_slurm") is None:
        missing.append("snakemake-executor-plugin-slurm")
    if missing:
        sys.exit(f"There is no {', '.join(missing)}: install SLURM, MUNGE and the plugin first.")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        here, there = copy(root / "here"), copy(root / "there")
        if command(here).wait():
            sys.exit("The run without SLURM failed.")
        (root / "slurm").mkdir()
        with cluster(root / "slurm"):
            words = ["--executor", "slurm", "--jobs", "4"]
            words += ["--slurm-init-seconds-before-status-checks", "5"]
            words += ["--slurm-status-command", "squeue"]  # there is no accounting
            first = command(there, *words)
            print(f"killed: {kill_a_job()}", flush=True)
            print(f"the call with a killed job ended with {first.wait()}", flush=True)
            if command(there, *words).wait():
                sys.exit("The same command again did not finish.")
        wanted, found = results(here), results(there)
        if found != wanted:
            sys.exit(f"The results differ: {found} by SLURM, {wanted} without it.")
        print(f"{len(found)} runs by SLURM and without it: AUC and Logloss are equal.")


if __name__ == "__main__":
    main()
