"""Files and folders that are whole or absent, whatever ends a process or stops the machine.

What is being made lies beside its place under a name with a dot; once it is complete and on the
disk it is renamed. The last file of a folder is its `done.json`, with the size and SHA-256 of each
of the others, so that damage is noticed whenever the folder is used.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar

PROJECT = Path(__file__).resolve().parents[1]
"""The folder of the project."""

DONE = "done.json"
# A full disk in the words of the system, which safetensors passes on, and of numpy.
FULL = re.compile(r"No space left|[Qq]uota exceeded|File too large|\d+ requested and \d+ written")

Found = TypeVar("Found")


def home() -> Path:
    """The folder that holds artifacts/ and reports/: `ALTLIB_HOME`, or the project itself."""
    return Path(os.environ.get("ALTLIB_HOME") or PROJECT)


def remembered(function: Callable[[Path], Found]) -> Callable[[Path], Found]:
    """Keeps what a function finds out about a file until the file's size or times change."""

    @cache
    def of(file: Path, *state: int) -> Found:
        return function(file)

    @wraps(function)
    def now(file: Path) -> Found:
        state = file.stat()
        return of(file.absolute(), state.st_size, state.st_mtime_ns, state.st_ctime_ns)

    now.cache_clear = of.cache_clear  # type: ignore[attr-defined]
    return now


@remembered
def sha256(file: Path) -> str:
    """SHA-256 of a file; a file that did not change is read once a process."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fault(folder: Path, *names: str) -> str:
    """What is wrong with a finished folder, in words; empty where all is well.

    Args:
        folder: from `made`. One without `done.json`, from before there was one, passes if it holds
            files and none is empty.
        names: the files to look at; all, if none are given.
    """
    try:
        files = {file.name: file for file in folder.iterdir()}
        if DONE not in files:
            empty = [name for name, file in files.items() if file.stat().st_size == 0]
            return f"{empty[0]} is empty" if empty else "" if files else "it is empty"
        for name, (size, digest) in json.loads(files[DONE].read_bytes())["files"].items():
            if names and name not in names:
                continue
            if (found := (folder / name).stat().st_size) != size:
                return f"{name} has {found} bytes in place of {size}"
            if sha256(folder / name) != digest:
                return f"{name} is not what was written (its SHA-256 is another)"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except NotADirectoryError:
        return "it is no folder"
    except (ValueError, TypeError, LookupError, AttributeError):
        return f"{DONE} is damaged"
    return ""


def ended(folder: Path) -> dict[str, Any]:
    """How the making of a folder ended: its `done.json`, empty where there is none to read.

    Its "status" is "done"; "failed"; or "absent", where no source has what it needs.
    """
    try:
        found = json.loads((folder / DONE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def note_failure(folder: Path, content: dict[str, Any]) -> None:
    """Leaves a folder with nothing but a `done.json` that says why it could not be made."""
    with suppress(OSError):  # as on a full disk; who asked for the folder is told all the same
        temporary = folder.with_name(f".{folder.name}.failed")
        shutil.rmtree(temporary, ignore_errors=True)
        write_json(temporary / DONE, content)
        put(temporary, folder)


def checked(file: Path) -> Path:
    """A file of a finished folder; a ValueError says that it is not as it was written."""
    if why := fault(file.parent, file.name):
        raise ValueError(f"{file.parent} is damaged ({why}); run what made it again.")
    return file


def read_json(file: Path) -> dict[str, Any]:
    """The content of a JSON file of a finished folder; a ValueError says that it is damaged."""
    try:
        return json.loads(checked(file).read_bytes())
    except json.JSONDecodeError:
        raise ValueError(f"{file} is damaged (no JSON); run what made it again.") from None


def set_aside(folder: Path, why: str) -> None:
    """Renames a damaged folder, with a warning, so that it is not in the way.

    Raises:
        OSError: it cannot be renamed.
    """
    aside = folder.with_name(f".{folder.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        folder.rename(aside)
    except FileNotFoundError:  # another process was first
        return
    except OSError as error:
        raise OSError(f"{folder} is damaged ({why}) and cannot be set aside: {error}") from error
    warnings.warn(f"{folder} is damaged ({why}): set aside as {aside.name}.", stacklevel=3)


@contextmanager
def made(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `folder` at the end.

    After an error nothing of it is left, and `folder` is as it was.

    Raises:
        OSError: the disk is full.
    """
    temporary = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        files = {f.name: (f.stat().st_size, sha256(f)) for f in sorted(temporary.iterdir())}
        content = {"status": "done", "files": files}
        (temporary / DONE).write_text(json.dumps(content, indent=1), encoding="utf-8")
        put(temporary, folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if FULL.search(str(error)):
            raise OSError(
                f"The disk is full: {folder} could not be written ({error}). Free some space and "
                "run the same again."
            ) from error
        raise


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file, which is whole or as it was, and the folders above it."""
    write_text(file, json.dumps(content, indent=1))


def write_text(file: Path, content: str) -> None:
    """Writes a file of text, which is whole or as it was, and the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.unfinished")
    temporary.write_text(content, encoding="utf-8")
    put(temporary, file)


def put(temporary: Path, final: Path) -> None:
    """Renames a file or folder, in place of what is there, once all of it is on the disk."""
    flush(temporary)
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.is_dir():
        final.rename(old)
    temporary.replace(final)
    _flush(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def flush(path: Path) -> None:
    """Has a file, or a folder with all that it holds, written to the disk."""
    for part in (*path.rglob("*"), path):
        _flush(part)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems flush files only.
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes from making `path` meanwhile; says so where it has to wait."""
    from filelock import FileLock, Timeout  # a server does without

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"altlib: waiting for another process that makes {path}", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
