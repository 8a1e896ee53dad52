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
from altlib.data.validation import check, name, number, read_text, reference, split_lines, text

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


def table(raw: Raw, file: str, key: list[str] | None = None, **rules: pa.Column) -> pd.DataFrame:
    """One CSV file; the rules are of its columns, in their order.

    `NULL` is missing; entities such as `&amp;` become letters.
    """
    # In a few lines the author got into the title's quotes: "Title\";Author\"";"1999".
    lines = re.sub(r'\\";([^";\n]*)\\"";', r'";"\1";', read_text(raw.path, file, "latin-1"))
    header, _, rest = lines.partition("\n")
    if header.replace('"', "").split(";") != HEADERS[file]:
        raise ValueError(
            f"{file}, line 1: the header is {header[:80]!r}, but it must name "
            f"{', '.join(HEADERS[file])}."
        )
    frame = split_lines(rest, file, list(rules), first=2, delimiter=";", quote='"', escape="\\")
    frame = frame.replace("NULL", pd.NA).map(html.unescape, na_action="ignore")
    return check(file, frame, rules, key)


def within(values: pd.Series, low: int, high: int) -> pd.Series:
    """Whole numbers as text; what lies outside is `UNKNOWN`."""
    return values.astype("str").where(values.between(low, high), UNKNOWN)


def read(raw: Raw) -> Dataset:
    """Reads BX-Book-Ratings.csv, BX-Users.csv and BX-Books.csv from a folder or a zip.

    Ratings of books that BX-Books.csv does not describe are left out, and counted.
    """
    age = number(0, nullable=True)
    users = table(raw, "BX-Users.csv", user_id=name(), location=text(), age=age)
    books = table(
        raw,
        "BX-Books.csv",
        isbn=name(),
        title=text(),
        author=text(),
        year=number(0, nullable=True),
        publisher=text(),
        image_s=text(),
        image_m=text(),
        image_l=text(),
    )
    ratings = table(
        raw,
        "BX-Book-Ratings.csv",
        key=["user_id", "isbn"],
        user_id=reference(users["user_id"], "BX-Users.csv"),
        isbn=pa.Column(description="an ISBN"),
        rating=number(0, 10),
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
