"""Files and folders are whole or absent, and damage is seen."""

import errno
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock
from safetensors import SafetensorError

from altlib import store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with store.made(tmp_path / "folder") as temporary:
        (temporary / "a.json").write_text('{"auc": 0.75}')
        (temporary / "b.npy").write_bytes(b"12345678")
    return tmp_path / "folder"


def flip(file: Path) -> None:
    """Another byte in the middle of a file, at the same size and with the same time."""
    content, times = bytearray(file.read_bytes()), file.stat()
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_finished_folder_is_whole_and_says_so(folder: Path) -> None:
    assert store.fault(folder) == ""
    assert store.read_json(folder / "a.json") == {"auc": 0.75}
    assert [p.name for p in folder.parent.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: flip(f / "b.npy"), "b.npy is not what was written"),
        (lambda f: (f / "b.npy").write_bytes(b""), "b.npy has 0 bytes in place of 8"),
        (lambda f: (f / "b.npy").unlink(), "b.npy is missing"),
        (lambda f: (f / "done.json").write_bytes(b""), "done.json is damaged"),
        (lambda f: (f / "done.json").write_text("[]"), "done.json is damaged"),
        (lambda f: flip(f / "done.json"), ""),
        (lambda f: [p.unlink() for p in f.iterdir()], "it is empty"),
        (shutil.rmtree, "folder is missing"),
    ],
)
def test_damage_is_named(folder: Path, damage: object, told: str) -> None:
    assert store.fault(folder) == ""
    damage(folder)  # type: ignore[operator]
    assert store.fault(folder) and told in store.fault(folder)


def test_only_the_files_that_are_asked_for_are_looked_at(folder: Path) -> None:
    flip(folder / "a.json")
    assert store.checked(folder / "b.npy")
    with pytest.raises(ValueError, match=r"folder is damaged \(a.json is not what was written"):
        store.read_json(folder / "a.json")


def test_a_folder_of_before_there_were_checksums_passes_unless_a_file_is_empty(
    folder: Path,
) -> None:
    (folder / "done.json").unlink()
    assert store.fault(folder) == ""
    (folder / "b.npy").write_bytes(b"")
    assert store.fault(folder) == "b.npy is empty"


def test_what_is_made_takes_the_place_of_what_was_there(folder: Path) -> None:
    with store.made(folder) as temporary:
        (temporary / "c").write_text("new")
        assert (folder / "a.json").exists()
    assert {p.name for p in folder.iterdir()} == {"c", "done.json"}
    assert [p.name for p in folder.parent.iterdir()] == ["folder"]


def test_everything_is_on_the_disk_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def see_fsync(descriptor: int) -> None:
        steps.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def see_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("the names of open files are not to be seen here")
    monkeypatch.setattr(os, "fsync", see_fsync)
    monkeypatch.setattr(Path, "replace", see_replace)
    with store.made(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("a")
    assert set(steps[:3]) == {"a", "done.json", ".folder.unfinished"}
    assert steps[3:] == ["rename", tmp_path.name]
    steps.clear()
    store.write_json(tmp_path / "stamp.json", {})
    assert steps == [".stamp.json.unfinished", "rename", tmp_path.name]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError("1200 requested and 0 written"),
        SafetensorError("Error while serializing: I/O error: No space left on device"),
    ],
)
def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(OSError, match=r"The disk is full: .*folder could not be written"),
        store.made(tmp_path / "folder") as temporary,
    ):
        (temporary / "half").write_text("half")
        raise error
    assert not list(tmp_path.iterdir())


def test_a_process_that_waits_for_another_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = FileLock(tmp_path / ".thing.lock")
    done: list[str] = []

    def wait() -> None:
        with store.locked(tmp_path / "thing"):
            done.append("mine")

    with other:
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.5)
        assert not done
    waiting.join(10)
    assert done == ["mine"]
    assert f"waiting for another process that makes {tmp_path / 'thing'}" in capsys.readouterr().err


def test_what_is_known_of_a_file_follows_the_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    before = store.sha256(file)
    assert store.sha256(file) == before
    flip(file)
    assert store.sha256(file) != before
