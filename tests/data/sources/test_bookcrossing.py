import warnings
from pathlib import Path

import pytest

from altlib.data.fetch import Raw
from altlib.data.frame import Dataset
from altlib.data.sources import bookcrossing
from altlib.data.spelling import UNKNOWN

HEADS = {
    "BX-Users.csv": '"User-ID";"Location";"Age"\n',
    "BX-Books.csv": '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";'
    '"Image-URL-S";"Image-URL-M";"Image-URL-L"\n',
    "BX-Book-Ratings.csv": '"User-ID";"ISBN";"Book-Rating"\n',
}
LINES = {
    "BX-Users.csv": '"7";"köln, , germany";NULL\n"8";", , ";"239"\n"9";"weston, ,";"14"\n',
    "BX-Books.csv": '"000222X";"Say \\"Yes\\"; or No";"A. Writer";"0";"Harper &amp; Row";"";"";""\n'
    '"2070426769";"Peau d\'âme\\";Michel Un\\"";"1999";"Folio";"";"";""\n'
    '"3";"Plain";"B";"2005";"";"";"";""\n',
    "BX-Book-Ratings.csv": '"7";"000222X";"0"\n"8";"2070426769";"10"\n'
    '"9";"3";"7"\n"9";"gone";"8"\n',
}


def folder(path: Path, file: str = "", old: str = "", new: str = "") -> Path:
    """Writes the three files as they are published; `file` has `old` replaced by `new`."""
    path.mkdir(exist_ok=True)
    for name, lines in LINES.items():
        assert name != file or old in lines
        text = HEADS[name] + (lines.replace(old, new, 1) if name == file else lines)
        (path / name).write_bytes(text.encode("latin-1"))
    return path


def read(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the counts of so small a set
        return bookcrossing.read(Raw("bookcrossing", path, "user folder", {}, True, "terms"))


def test_rows_become_words(tmp_path: Path) -> None:
    frame = read(folder(tmp_path / "raw")).frame
    assert list(frame.columns) == [*bookcrossing.SCHEMA.field_names, "rating", "timestamp"]
    assert frame.iloc[0, :9].tolist() == [
        "7", "köln, , germany", UNKNOWN, "000222X", 'Say "Yes"; or No', "A. Writer", UNKNOWN,
        "Harper & Row", 0,
    ]  # fmt: skip
    # The author stood inside the title's quotes.
    assert frame.iloc[1, 4:8].tolist() == ["Peau d'âme", "Michel Un", "1999", "Folio"]
    assert frame.iloc[1, 1:3].tolist() == [UNKNOWN, UNKNOWN]  # commas alone; 239 years
    assert frame.iloc[2, 2:].tolist() == ["14", "3", "Plain", "B", "2005", UNKNOWN, 7, 0]


def test_files_saved_as_utf8_give_the_same(tmp_path: Path) -> None:
    path = folder(tmp_path / "raw")
    expected = read(path).frame
    for name, lines in LINES.items():
        (path / name).write_text("\ufeff" + HEADS[name] + lines, encoding="utf-8")
    assert read(path).frame.equals(expected)


def test_ratings_of_undescribed_books_are_left_out_and_counted(tmp_path: Path) -> None:
    data = read(folder(tmp_path / "raw"))
    assert len(data.frame) == 3
    assert data.provenance["counts"] == {
        "ratings": 4, "users": 3, "books": 3, "ratings of undescribed books": 1,
    }  # fmt: skip
    assert "4 ratings, but the published set has 1,149,780" in data.provenance["warnings"][0]


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("BX-Book-Ratings.csv", '"10"', '"11"', "BX-Book-Ratings.csv, line 3, column 'rating'"),
        ("BX-Book-Ratings.csv", '"8"', '"5"', "line 3, column 'user_id': found '5'.*BX-Users"),
        ("BX-Book-Ratings.csv", '"8";"2070426769"', '"7";"000222X"', "already in line 2"),
        ("BX-Books.csv", '"2005"', '"MMV"', "BX-Books.csv, line 4, column 'year': found 'MMV'"),
        ("BX-Books.csv", '"3"', '"000222X"', "line 4, column 'isbn': found '000222X'"),
        ("BX-Books.csv", '"Plain"', '"Plain', "BX-Books.csv, line 4: 7 columns instead of 8"),
        ("BX-Users.csv", '"14"', '"14', "BX-Users.csv, line 4: its quotes do not pair"),
        ("BX-Book-Ratings.csv", '"gone"', "NULL", "line 5, column 'isbn': found nothing"),
        ("BX-Users.csv", '"9"', '"9";"9"', "BX-Users.csv, line 4: 4 columns instead of 3"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, file: str, old: str, new: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read(folder(tmp_path / "raw", file, old, new))


def test_columns_in_another_order_or_without_a_header_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "raw") / "BX-Books.csv"
    text = path.read_text(encoding="latin-1")
    swapped = text.replace('"Book-Title";"Book-Author"', '"Book-Author";"Book-Title"')
    for other in (swapped, text.partition("\n")[2]):
        path.write_text(other, encoding="latin-1")
        with pytest.raises(ValueError, match=r"BX-Books\.csv, line 1: .* must name ISBN, Book-Tit"):
            read(path.parent)
