import gzip
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest

from altlib.data.fetch import Raw
from altlib.data.frame import Dataset
from altlib.data.sources import goodreads
from altlib.data.spelling import UNKNOWN

Lines = dict[str, list[dict[str, Any]]]


def book(number: str, **changed: Any) -> dict[str, Any]:
    """A line of goodreads_books.json with the fields that it has."""
    return {
        "isbn": "", "text_reviews_count": "37", "series": [], "country_code": "US",
        "popular_shelves": [{"count": "3", "name": "to-read"}], "is_ebook": "false",
        "average_rating": "3.96", "similar_books": [], "description": "A long text.",
        "format": "Paperback", "authors": [{"author_id": "604031", "role": ""}],
        "publisher": "St. Martin's Press", "num_pages": "256", "publication_year": "1984",
        "book_id": number, "ratings_count": "3", "work_id": f"54{number}",
        "title": f"Book {number}",
    } | changed  # fmt: skip


def interaction(user: str, number: str, rating: Any) -> dict[str, Any]:
    return {
        "user_id": user, "book_id": number, "review_id": "5cd4", "is_read": True,
        "rating": rating, "review_text_incomplete": "",
        "date_added": "Fri Aug 25 13:55:02 -0700 2017",
    }  # fmt: skip


def files() -> Lines:
    return {
        "goodreads_interactions_dedup": [
            interaction("8842", "10", 5),
            interaction("8842", "20", 0),
            interaction("77aa", "20", 3),
            interaction("77aa", "99", 4),
        ],
        "goodreads_books": [
            book("10", is_ebook="true", authors=[]),
            book("20", num_pages="", publisher=""),
            book("30"),
        ],
        "goodreads_book_authors": [{"author_id": "604031", "name": "Ronald J. Fields"}],
        "goodreads_book_genres_initial": [
            {"book_id": "10", "genres": {"history, biography": 5, "fiction": 9, "poetry": 1}},
            {"book_id": "20", "genres": {}},
        ],
        "goodreads_book_works": [{"work_id": "5410", "media_type": "book", "books_count": "1"}],
    }


def folder(path: Path, lines: Lines) -> Path:
    path.mkdir(exist_ok=True)
    for name, rows in lines.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (path / f"{name}.json.gz").write_bytes(gzip.compress(text.encode()))
    return path


def read(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return goodreads.read(Raw("goodreads", path, "user folder", {}, True, "terms"))


def test_rows_become_words(tmp_path: Path) -> None:
    data = read(folder(tmp_path / "raw", files()))
    assert list(data.frame.columns) == [*goodreads.SCHEMA.field_names, "rating", "timestamp"]
    assert data.frame.iloc[0].tolist() == [
        "8842", "10", "Book 10", "fiction, history, biography, poetry", "4.0", "40", UNKNOWN,
        UNKNOWN, "260", "yes", "Paperback", "St. Martin's Press", "1984", "5410", "book", 5, 0,
    ]  # fmt: skip
    assert data.frame.iloc[1, 3:15].tolist() == [
        UNKNOWN, "4.0", "40", "604031", "Ronald J. Fields", UNKNOWN, "no", "Paperback", UNKNOWN,
        "1984", "5420", UNKNOWN,
    ]  # fmt: skip
    # A shelf without a rating is none; a book that is not described has no words.
    assert data.provenance["counts"] == {
        "ratings": 3, "users": 2, "books": 2, "ratings of undescribed books": 1,
    }  # fmt: skip


def test_ratings_as_text_and_a_zip_give_the_same(tmp_path: Path) -> None:
    plain = read(folder(tmp_path / "raw", files())).frame
    lines = files()
    for row in lines["goodreads_interactions_dedup"]:
        row["rating"] = str(row["rating"])
    assert read(folder(tmp_path / "text", lines)).frame.equals(plain)
    with zipfile.ZipFile(tmp_path / "goodreads.zip", "w") as archive:
        for file in (tmp_path / "raw").iterdir():
            archive.write(file, f"goodreads/{file.name}")
    assert read(tmp_path / "goodreads.zip").frame.equals(plain)


def test_files_of_many_blocks_give_the_same_and_lines_are_counted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = files()
    lines["goodreads_interactions_dedup"] += [
        interaction(f"user {n}", "20", 1 + n % 5) for n in range(200)
    ]
    path = folder(tmp_path / "raw", lines)
    whole = read(path).frame
    small = goodreads.json.ReadOptions(block_size=2000)
    monkeypatch.setattr(goodreads.json, "ReadOptions", lambda **_: small)
    raw = Raw("goodreads", path, "user folder", {}, True, "terms")
    assert len(list(goodreads.parts(raw, goodreads.INTERACTIONS, user_id=goodreads.TEXT))) > 5
    assert read(path).frame.equals(whole)
    lines["goodreads_interactions_dedup"].append(interaction("last", "10", 6))
    with pytest.raises(ValueError, match="line 205, column 'rating': found '6'"):
        read(folder(path, lines))


def test_works_may_be_missing_and_books_not(tmp_path: Path) -> None:
    lines = files()
    del lines["goodreads_book_works"]
    assert set(read(folder(tmp_path / "raw", lines)).frame["media"]) == {UNKNOWN}
    authors = lines.pop("goodreads_book_authors")
    with pytest.raises(FileNotFoundError, match=r"no file 'goodreads_book_authors\.json'"):
        read(folder(tmp_path / "nameless", lines))
    lines["goodreads_book_authors"] = authors
    del lines["goodreads_books"]
    with pytest.raises(FileNotFoundError, match=r"no file 'goodreads_books\.json'"):
        read(folder(tmp_path / "bare", lines))


@pytest.mark.parametrize(
    ("file", "row", "told"),
    [
        ("interactions_dedup", interaction("1", "10", 6), "line 5, column 'rating': found '6'"),
        ("interactions_dedup", interaction("77aa", "99", 2), "77aa rates book_id 99 twice"),
        ("interactions_dedup", interaction("1", "10", "five"), "goodreads_interactions.* line 1"),
        (
            "interactions_dedup",
            interaction(None, "10", 4),
            "line 5, column 'user_id': found nothing",
        ),
        (
            "interactions_dedup",
            interaction("1", None, 4),
            "line 5, column 'book_id': found nothing",
        ),
        ("interactions_dedup", interaction("1", " ", 4), "line 5, column 'book_id': found ' '"),
        ("interactions_dedup", {"rating": 4}, "line 5, column 'user_id': found nothing"),
        (
            "interactions_dedup",
            interaction("1", "10", None),
            "line 5, column 'rating': found nothing",
        ),
        ("interactions_dedup", interaction("a\ud800", "10", 4), "interactions.* line 1"),
        ("book_authors", {"author_id": "604031", "name": "X"}, "line 2, column 'author_id'"),
        ("book_works", {"work_id": "5410", "media_type": "x"}, "line 2, column 'work_id'"),
        ("book_genres_initial", {"book_id": "10", "genres": {}}, "line 3, column 'book_id'"),
        ("book_genres_initial", {"book_id": "10", "genres": ["x"]}, "genres_initial.*at or after"),
        ("books", book("10"), "goodreads_books.json, line 4: book_id 10 is already in an earlier"),
        ("books", book("40", authors="me"), "goodreads_books.json, at or after line 1: JSON parse"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, file: str, row: dict[str, Any], told: str) -> None:
    lines = files()
    lines[f"goodreads_{file}"].append(row)
    with pytest.raises(ValueError, match=told):
        read(folder(tmp_path / "raw", lines))


@pytest.mark.parametrize("gap", [{"authors": None}, {"authors": []}, {"authors": [None]}, None])
def test_what_is_null_or_absent_is_unknown(tmp_path: Path, gap: dict[str, Any] | None) -> None:
    lines = files()
    lines["goodreads_books"][1] = book("20", **(gap or {}))
    if gap is None:
        del lines["goodreads_books"][1]["authors"]
    lines["goodreads_book_genres_initial"][0]["genres"] = None
    lines["goodreads_book_authors"] += [{"author_id": None, "name": "Nobody"}] * 2
    lines["goodreads_book_works"].append({"work_id": None, "media_type": "nothing"})
    lines["goodreads_books"][0]["work_id"] = None
    frame = read(folder(tmp_path / "raw", lines)).frame
    assert frame["author"].tolist() == [UNKNOWN] * 2
    assert frame["genres"].tolist() == [UNKNOWN] * 2
    assert frame["media"].tolist() == [UNKNOWN] * 2
    assert frame["user_id"].tolist() == ["8842", "77aa"]


def test_ratings_that_are_truth_values_are_refused(tmp_path: Path) -> None:
    lines = files()
    for row in lines["goodreads_interactions_dedup"]:
        row["rating"] = True
    with pytest.raises(ValueError, match="line 1, column 'rating': found 'True'"):
        read(folder(tmp_path / "raw", lines))


def test_a_damaged_zip_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "raw", files())
    with zipfile.ZipFile(tmp_path / "goodreads.zip", "w") as archive:
        for file in path.iterdir():
            archive.write(file, file.name)
    whole = bytearray((tmp_path / "goodreads.zip").read_bytes())
    whole[whole.index(b"goodreads_books.json.gz") + 60] ^= 1
    (tmp_path / "goodreads.zip").write_bytes(whole)
    with pytest.raises(ValueError, match=r"goodreads_books\.json, at or after line 1"):
        read(tmp_path / "goodreads.zip")


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "raw", files())
    file = path / "goodreads_interactions_dedup.json.gz"
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(ValueError, match=r"goodreads_interactions_dedup\.json, at or after line 1"):
        read(path)
