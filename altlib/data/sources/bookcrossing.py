"""BookCrossing as published: `;`-separated, quoted CSV files in latin-1 (Ziegler et al., 2005).

The set of section 4.1.1 of arXiv 2310.19453. By default only explicit ratings count, and from 8 on
they are clicks; `label` of a profile's `data` takes another rule, as published work does.
"""

import html
import re

import pandas as pd
import pandera.pandas as pa

from altlib.config import LabelRule
from altlib.data.fetch import Raw
from altlib.data.frame import Dataset, join, record
from altlib.data.schema import Field, Schema
from altlib.data.spelling import UNKNOWN
from altlib.data.validation import check, content, decode, name, number, reference, split_lines

SCHEMA = Schema(
    name="bookcrossing",
    fields=(
        Field("user_id", "user id", "user"),
        Field("location", "location", "user"),
        Field("age", "age", "user"),
        Field("isbn", "ISBN", "item"),
        Field("title", "title", "item"),
        Field("author", "author", "item"),
        Field("year", "publication year", "item"),
        Field("publisher", "publisher", "item"),
    ),
    label=LabelRule(positive_from=8, dropped=(0,), scale=(0, 10)),  # 0 is implicit
)

HEADERS = {
    "BX-Users.csv": ["User-ID", "Location", "Age"],
    "BX-Books.csv": [
        *("ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher"),
        *("Image-URL-S", "Image-URL-M", "Image-URL-L"),
    ],
    "BX-Book-Ratings.csv": ["User-ID", "ISBN", "Book-Rating"],
}

KNOWN = {"ratings": 1_149_780, "users": 278_858, "books": 271_379}


def table(raw: Raw, file: str, columns: list[str]) -> pd.DataFrame:
    """The text of one CSV file; `NULL` is missing, entities such as `&amp;` become letters."""
    text = decode(content(raw.path, file), file, "latin-1")
    # In a few lines the author got into the title's quotes: "Title\";Author\"";"1999".
    text = re.sub(r'\\";([^";\n]*)\\"";', r'";"\1";', text)
    header, _, rest = text.partition("\n")
    if header.replace('"', "").split(";") != HEADERS[file]:
        raise ValueError(
            f"{file}, line 1: the header is {header[:80]!r}, but it must name "
            f"{', '.join(HEADERS[file])}."
        )
    frame = split_lines(rest, file, columns, first=2, delimiter=";", quote='"', escape="\\")
    return frame.replace("NULL", pd.NA).map(html.unescape, na_action="ignore")


def within(values: pd.Series, low: int, high: int) -> pd.Series:
    """Whole numbers as text; what lies outside is `UNKNOWN`."""
    return values.astype("str").where(values.between(low, high), UNKNOWN)


def read(raw: Raw) -> Dataset:
    """Reads BX-Book-Ratings.csv, BX-Users.csv and BX-Books.csv from a folder or a zip.

    Ratings of books that BX-Books.csv does not describe are left out, and counted.

    Raises:
        ValueError: a file breaks a rule; names file, line, column and rule.
        FileNotFoundError: a file is missing.
    """
    users = check(
        "BX-Users.csv",
        table(raw, "BX-Users.csv", ["user_id", "location", "age"]),
        {"user_id": name(), "age": number(0, nullable=True)},
    )
    images = ["image_s", "image_m", "image_l"]
    books = check(
        "BX-Books.csv",
        table(raw, "BX-Books.csv", ["isbn", "title", "author", "year", "publisher", *images]),
        {"isbn": name(), "year": number(0, nullable=True)},
    )
    ratings = check(
        "BX-Book-Ratings.csv",
        table(raw, "BX-Book-Ratings.csv", ["user_id", "isbn", "rating"]),
        {
            "user_id": reference(users["user_id"], "BX-Users.csv"),
            "isbn": pa.Column(description="an ISBN"),
            "rating": number(0, 10),
        },
        key=["user_id", "isbn"],
    )
    counts = {"ratings": len(ratings), "users": len(users), "books": len(books)}
    described = ratings["isbn"].isin(books["isbn"])
    counts["ratings of undescribed books"] = int((~described).sum())
    # Some locations are commas alone.
    users["location"] = users["location"].where(users["location"].str.contains(r"\w"))
    users["age"] = within(users["age"], 5, 100)
    books["year"] = within(books["year"], 1800, 2010)
    frame = join(SCHEMA, ratings[described].assign(timestamp=0), users, books)
    return Dataset(SCHEMA, frame, record(raw, counts, KNOWN))
