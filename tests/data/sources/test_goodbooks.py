import gzip
import warnings
from pathlib import Path

import pytest

from altlib.data.fetch import Raw
from altlib.data.frame import Dataset
from altlib.data.sources import goodbooks
from altlib.data.spelling import UNKNOWN

FILES = {
    "ratings.csv": "user_id,book_id,rating\n7,1,5\n7,2,3\n9,1,1\n",
    "books.csv": "book_id,goodreads_book_id,work_id,authors,original_publication_year,title,"
    "language_code,average_rating,ratings_count\n"
    '1,101,11,"A. One, B. Two",2008.0,"Say ""Yes"", Now",eng,4.34,4780653\n'
    "2,102,12,Homer,-720.0,The Odyssey,,3.7,19999\n",
    "tags.csv": "tag_id,tag_name\n1,to-read\n2,sci-fi\n3,science-fiction\n4,war\n5,ya\n6,art\n",
    "book_tags.csv": "goodreads_book_id,tag_id,count\n101,1,900\n101,2,40\n101,4,60\n101,3,50\n"
    "101,5,30\n101,6,20\n102,1,5\n",
}


def folder(path: Path, file: str = "", old: str = "", new: str = "", packed: bool = False) -> Path:
    """Writes the four files as they are published; `file` has `old` replaced by `new`."""
    path.mkdir(exist_ok=True)
    for name, text in FILES.items():
        assert name != file or old in text
        data = (text.replace(old, new, 1) if name == file else text).encode()
        (path / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
    return path


def read(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the counts of so small a set
        return goodbooks.read(Raw("goodbooks", path, "user folder", {}, True, "terms"))


def test_rows_become_words(tmp_path: Path) -> None:
    frame = read(folder(tmp_path / "raw")).frame
    assert list(frame.columns) == [*goodbooks.SCHEMA.field_names, "rating", "timestamp"]
    assert frame.iloc[0].tolist() == [
        "7", "1", 'Say "Yes", Now', "A. One, B. Two", "2008", "English", "4.3", "over 2,000,000",
        "11", "science fiction, war, young adult", 5, 0,
    ]  # fmt: skip
    # No language, and no shelf that names a genre.
    assert frame.iloc[1, 2:10].tolist() == [
        "The Odyssey", "Homer", "720 BC", UNKNOWN, "3.7", "10,000 to 20,000", "12", UNKNOWN,
    ]  # fmt: skip


def test_gzipped_files_and_columns_in_another_order_give_the_same(tmp_path: Path) -> None:
    plain = read(folder(tmp_path / "raw")).frame
    assert read(folder(tmp_path / "packed", packed=True)).frame.equals(plain)
    turned = "book_id,user_id,rating\n1,7,5\n2,7,3\n1,9,1\n"
    assert read(folder(tmp_path / "x", "ratings.csv", FILES["ratings.csv"], turned)).frame.equals(
        plain
    )


def test_an_unknown_copy_is_told_of_without_times(tmp_path: Path) -> None:
    raw = Raw("goodbooks", folder(tmp_path / "raw"), "user folder", {}, False, "terms")
    with pytest.warns(UserWarning, match="nothing vouches for its ratings") as caught:
        goodbooks.read(raw)
    assert not any("time" in str(warning.message).lower() for warning in caught)


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "raw", packed=True)
    file = path / "ratings.csv.gz"
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(ValueError, match=r"ratings\.csv in raw is cut short or damaged"):
        read(path)


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("ratings.csv", "7,2,3", "7,2,6", "ratings.csv, line 3, column 'rating': found '6'"),
        ("ratings.csv", "7,2,3", "7,5,3", "line 3, column 'book_id': found '5'.*books.csv"),
        ("ratings.csv", "7,2,3", "7,1,3", "user_id 7, book_id 1 is already in line 2"),
        ("books.csv", "3.7", "7.3", "books.csv, line 3, column 'average_rating'.*from 0 to 5"),
        ("books.csv", "2,102", "1,102", "books.csv, line 3, column 'book_id'"),
        ("tags.csv", "4,war", "four,war", "tags.csv, line 5, column 'tag_id'"),
        ("tags.csv", "4,war", "2,war", "tags.csv, line 5, column 'tag_id': found '2'.*no earlier"),
        ("books.csv", "-720.0", "inf", "books.csv, line 3, column 'original_publication_year'"),
        ("ratings.csv", "rating\n", "rating,rating\n", "line 1: the column 'rating' is repeated"),
        ("ratings.csv", "7,2,3", "7,2,3,", "ratings.csv, line 3: 4 columns instead of 3"),
        ("ratings.csv", "rating\n", "stars\n", "ratings.csv: there is no column 'rating'"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, file: str, old: str, new: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read(folder(tmp_path / "raw", file, old, new))
