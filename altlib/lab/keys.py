"""Keys of what is made: a hash of its configuration and of the files that it reads.

A key is known without a download and without PyTorch: the pins stand for a name whose files are
pinned, and one's own files are read. A PLM of the Hugging Face hub is known by its name alone;
whether its weights are still those of before, `provenance` says.
"""

import hashlib
from functools import cache
from pathlib import Path

from altlib import store
from altlib.config import DataConfig, Finetuning, PlmConfig, Pretraining, TextConfig, key
from altlib.data import fetch

PACKAGE = Path(__file__).parents[1]


def raw_checksums(dataset: str) -> dict[str, str]:
    """SHA-256 of a data set's raw files; none if it is generated, or its files are not there yet.

    Raises:
        ValueError: there is no such data set, or a file cannot be read.
    """
    if dataset == "synthetic":
        return {}
    if fetch.is_own(dataset):
        from altlib.data.sources import own  # pandas takes longer to load than a plan to make

        return own.raw(dataset).sha256
    entry = fetch.data_entry(dataset)
    if fetch.in_user_folder("ALTLIB_DATA", entry.user):
        return fetch.raw(dataset).sha256
    return entry.pinned


def weights_checksum(name: str) -> str | None:
    """What stands for the files of a PLM, by its name without ":k".

    Where they are the pinned ones it is the SHA-256 of the weights; of a folder of the user's, a
    hash over the SHA-256 of every file that transformers may read; None for a name of the hub.
    """
    pinned = fetch.PLMS[name].pinned if name in fetch.PLMS else {}
    folder = fetch.own_weights(name)
    if folder is None:
        return pinned.get("model.safetensors")
    files = files_of(folder)
    return pinned["model.safetensors"] if pinned and files == pinned else key(files)


def files_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a PLM that transformers may read, by name."""
    kinds = (".safetensors", ".bin", ".json", ".txt", ".model")
    files = [file for file in folder.iterdir() if file.suffix in kinds]
    return {file.name: fetch.sha256(file) for file in files}


@cache
def code_checksum(*names: str) -> str:
    """SHA-256 of modules and folders of altlib, short."""
    files = [file for name in names for file in (PACKAGE / name, *(PACKAGE / name).rglob("*"))]
    kinds = (".py", ".yaml")
    content = b"".join(file.read_bytes() for file in sorted(files) if file.suffix in kinds)
    return hashlib.sha256(content).hexdigest()[:12]


def data_key(config: DataConfig) -> str:
    """Of prepared data: they are made in seconds, so a change of the code makes them anew."""
    return key(config, raw_checksums(config.dataset), code_checksum("data"))


def text_key(data: DataConfig, text: TextConfig, plm: PlmConfig) -> str:
    """Of a token table; PLMs of one tokenizer but another depth share it."""
    weights = weights_checksum(plm.base)
    return key(data_key(data), text.template, text.leave_out, plm.base, weights)


def pretraining_key(config: Pretraining) -> str:
    return key(config, raw_checksums(config.data.dataset), weights_checksum(config.plm.base))


def finetuning_key(config: Finetuning) -> str:
    weights = weights_checksum(config.plm.base) if config.plm else None
    start = pretraining_key(config.pretraining) if config.pretraining else None
    return key(config, raw_checksums(config.data.dataset), weights, start)


def folder(config: Pretraining | Finetuning) -> Path:
    """Where what a configuration makes lies, if it is there."""
    if isinstance(config, Pretraining):
        return store.home() / "artifacts" / "pretraining" / pretraining_key(config)
    return store.home() / "artifacts" / "finetuning" / finetuning_key(config)
