import json
import warnings
import zipfile
from pathlib import Path

import pytest

from altlib.data import sources
from altlib.data.fetch import Raw
from altlib.data.frame import Dataset
from altlib.data.sources import ml_100k
from altlib.data.spelling import UNKNOWN

FILES = {
    "ml-100k.user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    "1\t24\tM\ttechnician\t85711\n2\t7\tF\tother\t94043\n3\t\tF\tnone\tV3N4P\n4\t56\tM\twriter\t1\n",
    "ml-100k.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "1\tToy Story\t1995\tAnimation Children's Comedy\n"
    "267\tunkonwn\tunkonwn\tunknown\n"
    "1412\tLand Before Time III (1995)\tV\tAnimation\n",
    "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "1\t1\t3\t881250949\n2\t267\t5\t891717742\n3\t1412\t1\t878887116\n4\t1\t4\t880606923\n",
}


def folder(path: Path, file: str = "", data: bytes = b"") -> Path:
    """Writes the atomic files; `file` gets other bytes."""
    path.mkdir(exist_ok=True)
    for name, text in FILES.items():
        (path / name).write_bytes(data if name == file else text.encode())
    return path


def read(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the counts of so small a set
        return ml_100k.read(Raw("ml-100k", path, "user folder", {}, True, ""))


def test_rows_become_words(tmp_path: Path) -> None:
    data = read(folder(tmp_path / "raw"))
    assert data.frame.iloc[0, :8].tolist() == [
        "1", "male", "18-24", "technician", "85711", "1",
        "Toy Story (1995)", "Animation, Children's, Comedy",
    ]  # fmt: skip
    assert data.frame["age"].tolist() == ["18-24", "Under 18", UNKNOWN, "56+"]
    assert data.frame["title"].tolist()[1:3] == [UNKNOWN, "Land Before Time III (1995)"]
    assert data.frame["genre"].tolist()[1] == UNKNOWN
    assert data.frame["rating"].tolist() == [3, 5, 1, 4]
    assert "4 ratings, but the published set has 100,000" in data.provenance["warnings"][0]


def test_zip_and_folder_give_the_same(tmp_path: Path) -> None:
    path = folder(tmp_path / "raw")
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        for file in path.iterdir():
            archive.write(file, file.name)
    assert read(tmp_path / "raw.zip").frame.equals(read(path).frame)


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("ml-100k.user", "age:token", "years:token", "ml-100k.user: there is no column 'age'"),
        ("ml-100k.user", "\t24\t", "\tabc\t", "ml-100k.user, line 2, column 'age': found 'abc'"),
        ("ml-100k.user", "\t24\t", "\t240\t", "column 'age': found '240'.*from 1 to 120"),
        ("ml-100k.item", "1995\t", "1995 ", "ml-100k.item, line 2: 3 columns instead of 4"),
        ("ml-100k.inter", "\t5\t", "\t0\t", "ml-100k.inter, line 3, column 'rating': found '0'"),
        ("ml-100k.inter", "\t267\t", "\t5\t", "line 3, column 'item_id': found '5'.*ml-100k.item"),
        ("ml-100k.inter", "4\t1\t", "1\t1\t", "line 5: user_id 1, item_id 1 is already in line 2"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, file: str, old: str, new: str, told: str) -> None:
    assert old in FILES[file]
    with pytest.raises(ValueError, match=told):
        read(folder(tmp_path / "raw", file, FILES[file].replace(old, new, 1).encode()))


def test_bytes_that_do_not_decode_are_named(tmp_path: Path) -> None:
    data = FILES["ml-100k.item"].replace("unkonwn", "Misérables").encode("latin-1")
    with pytest.raises(ValueError, match=r"ml-100k.item, line 3: the byte 0xe9 does not decode"):
        read(folder(tmp_path / "raw", "ml-100k.item", data))


@pytest.mark.parametrize(("data", "told"), [(b"", "is empty"), (b"rows", "has a header but")])
def test_an_empty_file_is_named(tmp_path: Path, data: bytes, told: str) -> None:
    header = FILES["ml-100k.inter"].splitlines()[0].encode() + b"\n"
    with pytest.raises(ValueError, match=f"ml-100k.inter.* {told}"):
        read(folder(tmp_path / "raw", "ml-100k.inter", header if data else b""))


@pytest.mark.network
def test_the_published_set() -> None:
    data = sources.load("ml-100k")
    kept = data.frame[data.frame["rating"] != 3]
    assert data.provenance["counts"] == ml_100k.KNOWN
    assert data.provenance["warnings"] == []
    assert (len(kept), int((kept["rating"] > 3).sum())) == (72_855, 55_375)
    assert (data.frame["title"] == UNKNOWN).sum() == 9
    assert json.dumps(data.provenance)
