import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from altlib.data.fetch import Raw
from altlib.data.frame import Dataset
from altlib.data.sources import ml_1m
from altlib.data.spelling import UNKNOWN

USERS = "1::F::1::10::48067\n2::M::56::16::70072\n3::M::25::0::98107-2117\n"
MOVIES = (
    "10::Toy Story (1995)::Animation|Children's|Comedy\n"
    "20::Misérables,  Les (1995) ::Drama|Musical\n"
    "30::Alien (1979)::Sci-Fi\n"
)
RATINGS = "1::10::5::978300760\n1::20::3::978302109\n2::10::2::978301968\n3::20::4::0\n"


def folder(path: Path, **changed: str) -> Path:
    """Writes the three files as they are published; `changed` replaces some of them."""
    texts = {"users": USERS, "movies": MOVIES, "ratings": RATINGS} | changed
    path.mkdir(exist_ok=True)
    for name, text in texts.items():
        (path / f"{name}.dat").write_bytes(text.encode("latin-1"))
    return path


def packed(source: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in source.iterdir():
            archive.write(file, f"ml-1m/{file.name}")
    return target


def read(path: Path, exact: bool = True) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the counts of so small a set
        return ml_1m.read(Raw("ml-1m", path, "user folder", {"x": "0"}, exact, "terms"))


def test_rows_become_words(tmp_path: Path) -> None:
    data = read(folder(tmp_path / "raw"))
    frame = data.frame
    assert list(frame.columns) == [*data.schema.field_names, "rating", "timestamp"]
    assert frame.iloc[1, :8].tolist() == [
        "1", "female", "Under 18", "K-12 student", "48067", "20",
        "Misérables, Les (1995)", "Drama, Musical",
    ]  # fmt: skip
    assert frame.iloc[3, :5].tolist() == ["3", "male", "25-34", "other", "98107-2117"]
    assert frame["rating"].tolist() == [5, 3, 2, 4]
    assert frame["timestamp"].tolist() == [978300760, 978302109, 978301968, 0]
    assert (frame.dtypes.iloc[:8] == "category").all()
    assert frame["rating"].dtype == np.float64
    assert frame["timestamp"].dtype == np.int64
    assert list(frame["movie_id"].cat.categories) == ["10", "20"]  # nobody rated 30


def test_zip_and_folder_give_the_same(tmp_path: Path) -> None:
    path = folder(tmp_path / "raw")
    assert read(packed(path, tmp_path / "ml-1m.zip")).frame.equals(read(path).frame)


def test_missing_values_are_unknown(tmp_path: Path) -> None:
    users = "1::::::10::\n2::M::56::16::  \n3::M::25::0::98107\n"
    movies = MOVIES.replace("Toy Story (1995)", " ")
    frame = read(folder(tmp_path / "raw", users=users, movies=movies)).frame
    assert frame.loc[0, ["gender", "age", "zipcode", "title"]].tolist() == [UNKNOWN] * 4
    assert frame.loc[2, "zipcode"] == UNKNOWN


def test_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    path = folder(tmp_path / "raw")
    crlf = {f.stem: f.read_text("latin-1").replace("\n", "\r\n") for f in path.iterdir()}
    assert read(folder(tmp_path / "crlf", **crlf)).frame.equals(read(path).frame)


def test_a_file_saved_as_utf8_gives_the_same(tmp_path: Path) -> None:
    path = folder(tmp_path / "raw")
    expected = read(path).frame
    for start in ("", "\ufeff"):
        (path / "movies.dat").write_text(start + MOVIES, encoding="utf-8")
        assert read(path).frame.equals(expected)


def test_doubts_are_recorded_and_warned_of(tmp_path: Path) -> None:
    raw = Raw("ml-1m", folder(tmp_path / "raw"), "user folder", {"x": "0"}, False, "terms")
    with pytest.warns(UserWarning) as caught:
        provenance = ml_1m.read(raw).provenance
    assert provenance["warnings"] == [str(warning.message) for warning in caught]
    text = " ".join(provenance["warnings"])
    assert "4 ratings, but the published set has 1,000,209" in text
    assert "3 users, but the published set has 6,040" in text
    assert "3 movies, but the published set has 3,883" in text
    assert "another checksum" in text and "timestamps" in text
    assert provenance["counts"] == {"ratings": 4, "users": 3, "movies": 3}
    assert provenance["sha256"] == {"x": "0"} and not provenance["exact"]


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("ratings", "::5::", "::6::", "ratings.dat, line 1, column 'rating': found '6'"),
        ("ratings", "::5::", "::6::", "a whole number from 1 to 5"),
        ("ratings", "::2::", "::2.5::", "ratings.dat, line 3, column 'rating': found '2.5'"),
        ("ratings", "::2::", "::two::", "line 3, column 'rating': found 'two'"),
        ("ratings", "::2::", "::::", "line 3, column 'rating': found nothing"),
        ("ratings", "978302109", "-1", "line 2, column 'timestamp': found '-1'"),
        ("ratings", "978302109", "97_8", "line 2, column 'timestamp': found '97_8'"),
        ("ratings", "978302109", "9" * 30, "line 2, column 'timestamp'"),
        ("ratings", "1::20", "1::10", "line 2: user_id 1, movie_id 10 is already in line 1"),
        ("ratings", "3::20", "7::20", "line 4, column 'user_id': found '7', .*row of users.dat"),
        ("ratings", "3::20", "3::99", "line 4, column 'movie_id': found '99', .* movies.dat"),
        ("ratings", "::3::9783", ":3::9783", "ratings.dat, line 2: 3 columns instead of 4"),
        ("ratings", "::0", "::0::1", "ratings.dat, line 4: 5 columns instead of 4 .*user_id"),
        ("ratings", "\n2", "\n\n2", "ratings.dat, line 3, column 'user_id': found nothing"),
        ("users", "2::M", "1::M", "users.dat, line 2, column 'user_id': found '1'.*no earlier"),
        ("users", "2::M", "2::X", "users.dat, line 2, column 'gender': found 'X'.*one of M, F"),
        ("users", "::56::", "::57::", "users.dat, line 2, column 'age': found '57'.*25, 35"),
        ("users", "::16::", "::21::", "users.dat, line 2, column 'occupation': found '21'"),
        ("movies", "30", "x", "movies.dat, line 3, column 'movie_id': found 'x'"),
        ("ratings", RATINGS, "\n", "ratings.dat in .* is empty"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, file: str, old: str, new: str, told: str) -> None:
    text = {"users": USERS, "movies": MOVIES, "ratings": RATINGS}[file]
    assert old in text
    with pytest.raises(ValueError, match=told):
        read(folder(tmp_path / "raw", **{file: text.replace(old, new, 1)}))


def test_the_first_broken_line_is_named(tmp_path: Path) -> None:
    ratings = RATINGS.replace("3::20::4", "3::99::4").replace("1::20::3", "1::20::9")
    with pytest.raises(ValueError, match="line 2, column 'rating'"):
        read(folder(tmp_path / "raw", ratings=ratings))


def test_two_files_of_a_name_are_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "raw")
    (path / "users.dat.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds both users\.dat and users\.dat\.gz"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "raw")
    (path / "users.dat").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file 'users.dat'; it holds movies.dat"):
        read(path)
    with pytest.raises(FileNotFoundError, match=r"no file 'users.dat'; it holds ml-1m/"):
        read(packed(path, tmp_path / "ml-1m.zip"))


def test_a_truncated_zip_is_named(tmp_path: Path) -> None:
    whole = packed(folder(tmp_path / "raw"), tmp_path / "ml-1m.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.zip is not a whole zip file .* get it again"):
        read(tmp_path / "cut.zip")
    damaged = bytearray(whole)
    damaged[whole.index(b"ml-1m/") + 30] ^= 0xFF  # in the packed bytes of the first file
    (tmp_path / "damaged.zip").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"\.dat in damaged.zip is cut short or damaged"):
        read(tmp_path / "damaged.zip")
