"""Strict batch runner for the notebooks: an executed copy is written only if every cell ran.

papermill does the work; this adds what it lets pass: unknown parameters, wrong types, `sys.exit(0)`
in a cell, killed kernels, and no limit on time. Run it from the project's root:

    python -m altlib.lab.execute notebooks/03_pretraining.ipynb --out executed.ipynb -p profile cpu
"""

import argparse
import ast
import difflib
import logging
import math
import os
import re
import signal
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from altlib import store
from altlib.lab.terminal import Lines, end_with, leave

# Runs in the kernel before the first cell: `tqdm.auto` draws text bars, and seldom, instead of live
# widgets, which an executed notebook cannot show. Leaves no name behind in the notebook.
KERNEL_START = (
    "__import__('os').environ.setdefault('TQDM_MININTERVAL', '5'); "
    "__import__('sys').modules['tqdm.autonotebook'] = __import__('tqdm.std').std"
)
PACKAGE = Path(__file__).resolve().parents[1]
START_SECONDS = 120
IOPUB_SECONDS = 30  # how late a busy machine may deliver a cell's outputs


class _ThisPython(AsyncKernelManager):
    """Starts the kernel with this very interpreter, whatever kernels the user has registered."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(
            **get_kernel_dict(
                extra_arguments=[
                    f"--IPKernelApp.exec_lines={KERNEL_START}",
                    # It warns of plain TCP at each start, and calls its own end an error.
                    "--IPKernelApp.log_level=CRITICAL",
                ]
            )
        )


def execute(
    notebook: Path, out: Path, parameters: Mapping[str, object], timeout: float = 86_400.0
) -> None:
    """Runs a notebook from top to bottom and writes the executed copy.

    The kernel works in the caller's working directory, so that relative paths mean the same here
    and there. On failure `out` stays as it was; what ran stands in `<out's stem>.failed.ipynb`.

    Args:
        notebook: its parameters are the annotated literals of the cell tagged `parameters`.
        out: the executed copy, replaced only by a complete one.
        parameters: values of the same types as the defaults in the notebook.
        timeout: seconds for all cells together.

    Raises:
        OSError: there is no such notebook, or the folder of `out` cannot be written to.
        ValueError: the notebook's parameters are not plain literals, or a given one is unknown
            or of another type.
        RuntimeError: the notebook did not run to its end; the sentence names cell and error.
    """
    defaults = read_parameters(notebook)
    for name, value in parameters.items():
        _check_parameter(notebook, name, value, defaults)
    partial = out.with_suffix(".partial.ipynb")
    failed = out.with_suffix(".failed.ipynb")
    out.parent.mkdir(parents=True, exist_ok=True)
    failed.unlink(missing_ok=True)
    try:
        try:
            _run(notebook, partial, parameters, timeout)
        except Exception as error:
            # Kernels that start together can race for a port; no cell has run then, so try again.
            if isinstance(error, OSError) or _last_started(partial) is not None:
                raise
            _run(notebook, partial, parameters, timeout)
        _clean(partial)
        _check_complete(partial)
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, CellTimeoutError):
            raise  # of the files that the runner writes itself
        kept = ""
        if partial.exists():
            _clean(partial)
            kept = f" What ran is in {failed}."
        raise RuntimeError(f"{notebook}: {_explain(error, partial, timeout)}.{kept}") from error
    else:
        store.put(partial, out)
    finally:
        if partial.exists():
            partial.replace(failed)


def read_parameters(notebook: Path) -> dict[str, Any]:
    """The parameters of a notebook and their defaults.

    Raises:
        FileNotFoundError: there is no such notebook.
        ValueError: it is no notebook, or the cell tagged `parameters` holds anything but annotated
            literals.
    """
    if not notebook.is_file():
        raise FileNotFoundError(f"There is no notebook {notebook}.")
    try:
        cells = nbformat.read(notebook, as_version=4).cells
        tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    except OSError:
        raise
    except Exception as error:  # of many kinds
        what = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
        raise ValueError(f"{notebook} is not a notebook ({what}).") from None
    if not tagged:
        return {}
    defaults = {}
    rule = 'every line must be an annotated literal such as `profile: str = "quick"`'
    try:
        statements = ast.parse(tagged[0].source).body
    except SyntaxError as error:  # a magic, or a slip
        line = (error.text or "").strip()
        raise ValueError(
            f"{notebook}: line {error.lineno} of the parameters cell, `{line}`, is not Python; "
            f"{rule}."
        ) from None
    for statement in statements:
        try:
            match statement:
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    defaults[name] = ast.literal_eval(value)
                case _:
                    raise ValueError
        except ValueError:
            raise ValueError(
                f"{notebook}: the parameters cell holds `{ast.unparse(statement)}`; {rule}."
            ) from None
    return defaults


def _check_parameter(
    notebook: Path, name: str, value: object, defaults: Mapping[str, object]
) -> None:
    if name not in defaults:
        near = difflib.get_close_matches(name, defaults, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(defaults) or 'none'}."
        raise ValueError(f"{notebook} has no parameter {name}; {hint}")
    expected = type(defaults[name])
    if type(value) is not expected:
        raise ValueError(
            f"{notebook}: parameter {name} must be of type {expected.__name__} like its default "
            f"{defaults[name]!r}, and {value!r} is of type {type(value).__name__}."
        )


def _run(notebook: Path, partial: Path, parameters: Mapping[str, object], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    partial.unlink(missing_ok=True)
    papermill.execute_notebook(
        notebook,
        partial,
        dict(parameters),
        kernel_name="python3",
        language="python",
        kernel_manager_class=_ThisPython,
        start_timeout=START_SECONDS,
        iopub_timeout=IOPUB_SECONDS,
        # For what is no cell; each cell has what is left of it.
        execution_timeout=math.ceil(timeout),
        timeout_func=lambda cell: max(1, math.ceil(deadline - time.monotonic())),
        progress_bar={"desc": "cells", "file": Lines(notebook.stem), "ncols": 80},
        stdout_file=Lines(notebook.stem),
        stderr_file=Lines(notebook.stem),
        coalesce_streams=True,
        record_timing=False,
    )


def _code_cells(partial: Path) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(partial, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]


def _last_started(partial: Path) -> int | None:
    """Index among the code cells of the last one that began to run, None when none did."""
    if not partial.exists():
        return None
    states = [cell.metadata.get("papermill", {}) for cell in _code_cells(partial)]
    # papermill calls cells "completed" that never ran; only a duration shows that one began.
    return max(
        (i for i, state in enumerate(states) if state.get("duration") is not None), default=None
    )


def _check_complete(partial: Path) -> None:
    cells = _code_cells(partial)
    for cell in cells:
        if any(output.output_type == "error" for output in cell.outputs):
            raise RuntimeError("it left the notebook early (sys.exit)")
    if any(cell.execution_count is None for cell in cells):
        raise RuntimeError("the cells after it did not run")


def _explain(error: Exception, partial: Path, timeout: float) -> str:
    """What happened and where, without the full stop."""
    last = _last_started(partial)
    if last is None:
        what = " ".join(str(error).split()) or type(error).__name__
        return f"the kernel did not start: {type(error).__name__}: {what}"
    first_line = _code_cells(partial)[last].source.strip().splitlines()[0]
    where = f"cell [{last + 1}] `{first_line[:80]}`"
    match error:
        case PapermillExecutionError():
            message = textwrap.shorten(error.evalue, 1000)
            return f"{where} failed with {error.ename}: {message}".rstrip(" .:")
        case CellTimeoutError():
            return (
                f"{where} was still running when the {timeout:g} seconds for the notebook were over"
            )
        case DeadKernelError():
            return f"the kernel died in {where}: it was killed, ran out of memory or crashed"
        case _:
            return f"{where}: {' '.join(str(error).split())}"


def _clean(partial: Path) -> None:
    """Takes out of the executed copy what names this machine or differs between equal runs."""
    nb = nbformat.read(partial, as_version=4)
    kept = ("duration", "parameters", "version")
    run = nb.metadata.get("papermill", {})
    nb.metadata["papermill"] = {key: run[key] for key in kept if key in run}
    for cell in nb.cells:
        run = cell.metadata.get("papermill", {})
        cell.metadata["papermill"] = {key: run[key] for key in ("duration", "status") if key in run}
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = "injected-parameters"
        for output in cell.get("outputs", []):
            if output.output_type == "stream":  # a warning names the file that it comes from
                text = output.text.replace(f"{PACKAGE}/", "altlib/")
                text = re.sub(r"\S*/ipykernel_\d+/\d+\.py", "<cell>", text)
                output.text = re.sub(r"\S*/site-packages/", "", text)
    nbformat.write(nb, partial)


def _parse(text: str, default: object) -> object:
    """A value from the command line, in the type of the default where it can be one."""
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        return text
    return float(value) if isinstance(default, float) and type(value) is int else value


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m altlib.lab.execute", description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the executed copy")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--timeout", type=float, default=86_400.0, help="seconds for all cells")
    parser.add_argument("--stamp", type=Path, help="JSON to say why it failed, instead of exit 1")
    parser.add_argument("--parent", type=int, help="process to end with; it must be the parent")
    options = parser.parse_args(arguments)
    if options.parent is not None:
        end_with(options.parent)
    # papermill reports every failure to its log besides raising it.
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    try:
        defaults = read_parameters(options.notebook)
        parameters = {name: _parse(text, defaults.get(name)) for name, text in options.p}
        execute(options.notebook, options.out, parameters, options.timeout)
    except (OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        if options.stamp is None:
            return 1
        content = {"notebook": options.notebook.stem, "failed": str(error)}
        try:
            store.write_json(options.stamp, content)
        except OSError as fault:
            print(f"The stamp could not be written: {fault}.", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in the background
        signal.signal(signal.SIGINT, lambda *_: leave(130, "stopped by Ctrl-C"))
    signal.signal(signal.SIGTERM, lambda *_: leave(143, "stopped by a signal"))
    # A kernel that was killed leaves threads behind that would delay a plain exit.
    code = main()
    sys.stderr.flush()
    os._exit(code)
