"""Each trap of running notebooks in batch, in a notebook of a cell or two."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from altlib.lab.execute import execute, main, read_parameters
from altlib.lab.terminal import Lines

PARAMETERS = 'name: str = "a=b"\nsteps: int = 3  # how many\nrate: float = 0.5\nfast: bool = False'


@pytest.fixture
def notebook(tmp_path: Path) -> Callable[..., Path]:
    def write(*sources: str) -> Path:
        cells = [new_code_cell(source) for source in (PARAMETERS, *sources)]
        cells[0].metadata["tags"] = ["parameters"]
        path = tmp_path / "story.ipynb"
        nbformat.write(new_notebook(cells=cells), path)
        return path

    return write


def test_success_writes_a_copy_without_traces_of_the_machine(notebook, tmp_path, capfd):
    out = tmp_path / "reports" / "story.ipynb"
    source = notebook(
        "import sys\nprint(name, steps, rate, fast, sys.executable)",
        "from tqdm.auto import tqdm\nprint(sum(tqdm(range(steps))))\n'os' in dir()",
        "import altlib.lab.execute\nprint(altlib.lab.execute.__file__)",
        "import numpy\nprint(numpy.__file__)\n(lambda: print(__import__('sys')._getframe()"
        ".f_code.co_filename))()",
    )
    arguments = ["-p", "steps", "4", "-p", "rate", "1", "-p", "fast", "true", "-p", "name", "x y"]
    assert main([str(source), "--out", str(out), *arguments]) == 0
    cells = nbformat.read(out, as_version=4).cells
    assert cells[2].outputs[0].text == f"x y 4 1.0 True {sys.executable}\n"
    assert [output.output_type for output in cells[3].outputs].count("stream") == 2
    assert "\r" not in "".join(output.get("text", "") for output in cells[3].outputs)
    assert cells[3].outputs[-1].data["text/plain"] == "False"  # the runner leaves no names behind
    assert cells[4].outputs[0].text == "altlib/lab/execute.py\n"  # as a warning names its file
    assert cells[5].outputs[0].text == "numpy/__init__.py\n<cell>\n"
    assert str(tmp_path) not in out.read_text()
    assert [path.name for path in out.parent.iterdir()] == ["story.ipynb"]
    assert f"[story] x y 4 1.0 True {sys.executable}\n" in capfd.readouterr().err


def test_parameters_are_read_with_their_types(notebook):
    assert read_parameters(notebook()) == {"name": "a=b", "steps": 3, "rate": 0.5, "fast": False}


def test_unknown_parameter_names_the_nearest(notebook, tmp_path, capsys):
    assert main([str(notebook()), "--out", str(tmp_path / "out.ipynb"), "-p", "setps", "4"]) == 1
    assert "has no parameter setps; did you mean steps?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"), [("steps", "many"), ("steps", "1.5"), ("rate", "x"), ("fast", "1")]
)
def test_wrong_type_is_refused(notebook, tmp_path, capsys, name, value):
    assert main([str(notebook()), "--out", str(tmp_path / "out.ipynb"), "-p", name, value]) == 1
    assert f"parameter {name} must be of type" in capsys.readouterr().err


def test_parameters_must_be_literals(tmp_path):
    cell = new_code_cell("steps: int = 3\nrate = steps / 2", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "bad.ipynb")
    with pytest.raises(ValueError, match="`rate = steps / 2`; every line must be an annotated"):
        read_parameters(tmp_path / "bad.ipynb")


def test_a_magic_is_no_parameter(notebook, tmp_path, capsys):
    path = notebook()
    path.write_text(path.read_text().replace("steps: int = 3", "%matplotlib inline"))
    assert main([str(path), "--out", str(tmp_path / "out.ipynb")]) == 1
    said = capsys.readouterr().err
    assert "line 2 of the parameters cell, `%matplotlib inline  # how many`, is not Python" in said


@pytest.mark.parametrize("content", ["", "[1]", '{"nbformat": 4, "cells": [{}]}', "\udcff"])
def test_what_is_no_notebook_is_named(content, tmp_path, capsys):
    path = tmp_path / "story.ipynb"
    path.write_text(content, errors="surrogateescape")
    assert main([str(path), "--out", str(tmp_path / "out.ipynb")]) == 1
    assert f"{path} is not a notebook (" in capsys.readouterr().err


def test_files_that_cannot_be_written_are_a_sentence(notebook, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([str(notebook()), "--out", str(tmp_path / "file" / "out.ipynb")]) == 1
    assert f"File exists: '{tmp_path / 'file'}'" in capsys.readouterr().err
    arguments = ["--stamp", str(tmp_path / "file" / "story.json"), "-p", "steps", "x"]
    assert main([str(notebook()), "--out", str(tmp_path / "out.ipynb"), *arguments]) == 1
    assert "The stamp could not be written: " in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_full_disk_is_a_sentence(notebook, tmp_path):
    source, out = notebook("print('x' * 20_000)"), tmp_path / "out.ipynb"
    program = (
        "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (16384, 16384)); "
        "from altlib.lab.execute import main; "
        f"raise SystemExit(main([{str(source)!r}, '--out', {str(out)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1 and "File too large" in done.stderr
    assert "Traceback" not in done.stderr and not out.exists()


@pytest.fixture
def running(notebook, tmp_path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A shell that waits for the runner of an endless notebook; its runner and kernel."""
    source = notebook("import os, pathlib\npathlib.Path('kernel').touch()\nwhile True: pass")
    words = f"'{sys.executable}' -m altlib.lab.execute {source.name} --out out.ipynb --parent $$"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        ["/bin/sh", "-c", f"{words} & wait $!"],
        cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
    ) as shell:  # fmt: skip
        while not (tmp_path / "kernel").exists():
            assert shell.poll() is None
            time.sleep(0.1)
        children = psutil.Process(shell.pid).children(recursive=True)
        yield shell, children
        for process in (shell, *children):
            with suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_runner_and_kernel_end_with_their_parent(running, number):
    shell, children = running
    assert len(children) == 2
    shell.send_signal(number)
    assert psutil.wait_procs(children, timeout=60)[1] == []
    assert shell.stderr.read().endswith("altlib: the process that started this one has ended.\n")


def test_a_signal_ends_the_runner_and_its_kernel_in_a_sentence(running):
    shell, children = running
    children[0].terminate()
    assert shell.wait(60) == 143 and psutil.wait_procs(children, timeout=60)[1] == []
    assert shell.stderr.read().endswith("altlib: stopped by a signal.\n")


def test_missing_notebook(tmp_path, capsys):
    assert main([str(tmp_path / "no.ipynb"), "--out", str(tmp_path / "out.ipynb")]) == 1
    assert "There is no notebook" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "timeout", "sentence"),
    [
        ("steps\nraise KeyError('no such field')", 60, "cell [2] `steps` failed with KeyError"),
        ("import sys\nsys.exit(0)", 60, "cell [2] `import sys`: it left the notebook early"),
        ("import os\nos.kill(os.getpid(), 9)", 60, "the kernel died in cell [2] `import os`"),
        (
            "import time\ntime.sleep(900)",
            2,
            "was still running when the 2 seconds for the notebook",
        ),
    ],
    ids=["error", "exit", "killed", "timeout"],
)
def test_failure_keeps_the_last_good_copy(notebook, tmp_path, source, timeout, sentence):
    out = tmp_path / "out.ipynb"
    out.write_text("good")
    with pytest.raises(RuntimeError) as caught:
        execute(notebook(source, "'after'"), out, {}, timeout)
    message = str(caught.value)
    assert sentence in message and "\n" not in message
    assert f"What ran is in {tmp_path / 'out.failed.ipynb'}." in message
    assert out.read_text() == "good"
    assert sorted(p.name for p in tmp_path.glob("out*")) == ["out.failed.ipynb", "out.ipynb"]
    failed = json.loads((tmp_path / "out.failed.ipynb").read_text())
    assert failed["cells"][-1]["execution_count"] is None


def test_a_stamp_says_why_and_lets_the_others_go_on(notebook, tmp_path, capsys):
    source, stamp = notebook("1 / 0"), tmp_path / "stamps" / "story.json"
    arguments = [str(source), "--out", str(tmp_path / "out.ipynb"), "--stamp", str(stamp)]
    assert main(arguments) == 0
    content = json.loads(stamp.read_text())
    assert content["notebook"] == "story"
    assert "cell [2] `1 / 0` failed with ZeroDivisionError" in content["failed"]
    assert content["failed"] in capsys.readouterr().err


def test_kernel_that_does_not_start_is_tried_once_more(notebook, tmp_path, monkeypatch):
    import altlib.lab.execute

    real, calls = altlib.lab.execute.papermill.execute_notebook, []

    def flaky(*arguments, **options):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("Kernel died before replying to kernel_info")
        return real(*arguments, **options)

    monkeypatch.setattr(altlib.lab.execute.papermill, "execute_notebook", flaky)
    execute(notebook(), tmp_path / "out.ipynb", {}, 60)
    assert len(calls) == 2 and (tmp_path / "out.ipynb").exists()


def test_redrawn_bars_do_not_flood_the_terminal(capsys):
    lines = Lines("story")
    for i in range(100):
        lines.write(f"\r{i} %")
    lines.write("\nepoch")
    lines.write(" 1 done\n")
    shown = capsys.readouterr().err.splitlines()
    assert shown == ["[story] 0 %", "[story] 99 %", "[story] epoch 1 done"]
