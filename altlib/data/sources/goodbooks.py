"""goodbooks-10k as published: comma-separated files with a header (Zajac, 2017), plain or gzipped.

Ratings of the most popular books of Goodreads, for the data sets of section 4.1.1 of arXiv
2310.19453. A book's average rating and number of ratings are Goodreads' own, over millions of
ratings; they are not counted from the rows, which would leak the label.
"""

import numpy as np
import pandas as pd
import pandera.pandas as pa

from altlib.config import LabelRule
from altlib.data import validation as column
from altlib.data.fetch import Raw
from altlib.data.frame import Dataset, join, record
from altlib.data.schema import Field, Schema
from altlib.data.sources.words import WORDS
from altlib.data.validation import check, read_text, titled

SCHEMA = Schema(
    name="goodbooks",
    fields=(
        Field("user_id", "user id", "user"),
        Field("book_id", "book id", "item"),
        Field("title", "title", "item"),
        Field("author", "author", "item"),
        Field("year", "original year", "item"),
        Field("language", "language", "item"),
        Field("average_rating", "average rating", "item"),
        Field("ratings_count", "number of ratings", "item"),
        Field("work_id", "work id", "item"),
        Field("genres", "genres", "item"),
    ),
    label=LabelRule(positive_from=4, dropped=(3,), scale=(1, 5)),
)

KNOWN = {"ratings": 5_976_479, "users": 53_424, "books": 10_000}

STEPS = [0, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000]


def table(raw: Raw, file: str, key: list[str] | None = None, **rules: pa.Column) -> pd.DataFrame:
    """One file; the rules are of the columns that are used."""
    return check(file, titled(read_text(raw.path, file, "utf-8"), file), rules, key)


def ranges(count: pd.Series) -> pd.Series:
    """A number in the words of its range."""
    ends = [f"to {high:,}" for high in STEPS[1:]]
    words = [f"{low:,} {end}" for low, end in zip(STEPS, ends, strict=False)]
    return pd.cut(
        count, [*STEPS, np.inf], right=False, labels=[*words, f"over {STEPS[-1]:,}"]
    ).astype("str")


def years(values: pd.Series) -> pd.Series:
    """A year in words; what is missing stays so."""
    whole = values.round().astype("Int64")
    text = whole.abs().astype("str")
    return text.where(whole > 0, text + " BC").where(whole.notna())


def genres(tags: pd.DataFrame, shelves: pd.DataFrame, number: int = 3) -> pd.Series:
    """The genres on most readers' shelves, at most `number`: indexed by Goodreads' book id."""
    words = tags.set_index("tag_id")["tag_name"].map(WORDS["goodbooks"]["genres"])
    named = shelves.assign(genre=shelves["tag_id"].map(words)).dropna(subset="genre")
    counts = named.groupby(["goodreads_book_id", "genre"])["count"].sum().reset_index()
    counts = counts.sort_values(["count", "genre"], ascending=[False, True], kind="stable")
    most = counts.groupby("goodreads_book_id").head(number)
    return most.groupby("goodreads_book_id")["genre"].agg(", ".join)


def read(raw: Raw) -> Dataset:
    """Reads ratings.csv, books.csv, book_tags.csv and tags.csv from a folder or a zip."""
    books = table(
        raw,
        "books.csv",
        book_id=column.identifier(),
        goodreads_book_id=column.identifier(),
        work_id=column.identifier(),
        original_publication_year=column.decimal(nullable=True),
        title=column.text(),
        authors=column.text(),
        language_code=column.text(),
        average_rating=column.decimal(0, 5),
        ratings_count=column.number(0),
    )
    ratings = table(
        raw,
        "ratings.csv",
        key=["user_id", "book_id"],
        user_id=column.number(1),
        book_id=column.reference(books["book_id"], "books.csv"),
        rating=column.number(1, 5),
    )
    tags = table(raw, "tags.csv", tag_id=column.identifier(0), tag_name=column.text())
    shelves = table(
        raw,
        "book_tags.csv",
        tag_id=column.number(0),
        goodreads_book_id=column.number(1),
        count=column.decimal(),
    )
    languages = WORDS["goodbooks"]["languages"]
    books["author"] = books["authors"]
    books["year"] = years(books["original_publication_year"])
    books["language"] = books["language_code"].map(lambda code: languages.get(code, code))
    books["average_rating"] = books["average_rating"].map("{:.1f}".format)
    books["ratings_count"] = ranges(books["ratings_count"])
    books["genres"] = books["goodreads_book_id"].map(genres(tags, shelves))
    users = ratings[["user_id"]].drop_duplicates()
    counts = {"ratings": len(ratings), "users": len(users), "books": len(books)}
    frame = join(SCHEMA, ratings.assign(timestamp=0), users, books)
    return Dataset(SCHEMA, frame, record(raw, counts, KNOWN))
