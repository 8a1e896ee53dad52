"""GoodReads as the UCSD Book Graph publishes it: gzipped JSON lines (Wan and McAuley, 2018).

The largest set of section 4.1.1 of arXiv 2310.19453. In full it is tens of gigabytes, so files are
read in a stream: ratings become numbers part by part, and of books only what is used is kept.
"""

from collections.abc import Iterator, Sequence

import pandas as pd
import pyarrow
from pyarrow import json

from altlib.config import LabelRule
from altlib.data.fetch import Raw
from altlib.data.frame import Dataset, coded, join, record
from altlib.data.schema import Field, Schema
from altlib.data.validation import DAMAGED, refuse, stream

SCHEMA = Schema(
    name="goodreads",
    fields=(
        Field("user_id", "user id", "user"),
        Field("book_id", "book id", "item"),
        Field("title", "title", "item"),
        Field("genres", "genres", "item"),
        Field("average_rating", "average rating", "item"),
        Field("reviews", "number of reviews", "item"),
        Field("author_id", "author id", "item"),
        Field("author", "author name", "item"),
        Field("pages", "number of pages", "item"),
        Field("ebook", "ebook", "item"),
        Field("format", "format", "item"),
        Field("publisher", "publisher", "item"),
        Field("year", "publication year", "item"),
        Field("work_id", "work id", "item"),
        Field("media", "media type", "item"),
    ),
    label=LabelRule(positive_from=4, dropped=(0, 3), scale=(0, 5)),  # 0 is a shelf, not a rating
)

INTERACTIONS = "goodreads_interactions_dedup.json"
BOOKS = "goodreads_books.json"
TEXT = pyarrow.string()
AUTHORS = pyarrow.list_(pyarrow.struct({"author_id": TEXT}))


def parts(raw: Raw, file: str, **types: pyarrow.DataType | None) -> Iterator[pd.DataFrame]:
    """The fields of a file of JSON lines that have types, part by part, indexed by line number.

    None takes the type that the file has.
    """
    schema = pyarrow.schema([(name, kind) for name, kind in types.items() if kind is not None])
    others = "infer" if None in types.values() else "ignore"
    line = 1
    with stream(raw.path, file) as opened:
        try:
            for batch in json.open_json(
                opened,
                json.ReadOptions(block_size=1 << 24),
                json.ParseOptions(schema, unexpected_field_behavior=others),
            ):
                part = batch.select(list(types)).to_pandas()
                part.index = pd.RangeIndex(line, line + len(part), name="line")
                line += len(part)
                yield part
        except (KeyError, *DAMAGED) as error:
            raise ValueError(f"{file}, at or after line {line}: {error}.") from error


def ratings(raw: Raw) -> pd.DataFrame:
    """All interactions that have a rating: categorical `user_id` and `book_id`, and `rating`."""

    def rated() -> Iterator[pd.DataFrame]:
        for part in parts(raw, INTERACTIONS, user_id=TEXT, book_id=TEXT, rating=None):
            for name in ("user_id", "book_id"):
                absent = part[name].isna() | (part[name].str.strip() == "")
                refuse(INTERACTIONS, part[name], absent, "an id")
            stars = pd.to_numeric(part["rating"], errors="coerce")
            wrong = ~stars.isin(range(6)) | (stars.dtype == bool)
            refuse(INTERACTIONS, part["rating"], wrong, "a whole number from 0 to 5")
            yield part.assign(rating=stars)[stars > 0]

    frame = coded(rated(), ["user_id", "book_id"], ["rating"])
    if (again := frame.duplicated(["user_id", "book_id"])).any():
        user, book, _ = frame[again].iloc[0]
        raise ValueError(
            f"{INTERACTIONS}: user_id {user} rates book_id {book} twice; a pair may occur once."
        )
    return frame


def books(raw: Raw, wanted: pd.Index) -> pd.DataFrame:
    """Those of the wanted books that are described: a column for each field of an item."""
    texts = (
        "book_id", "title", "average_rating", "text_reviews_count", "num_pages", "is_ebook",
        "format", "publisher", "publication_year", "work_id",
    )  # fmt: skip
    several = parts(raw, BOOKS, **dict.fromkeys(texts, TEXT), authors=AUTHORS)
    found = pd.concat([part[part["book_id"].isin(wanted)] for part in several])
    if (again := found["book_id"].duplicated()).any():
        line = found.index[again][0]
        raise ValueError(
            f"{BOOKS}, line {line}: book_id {found['book_id'][line]} is already in an earlier line."
        )
    names = looked_up(raw, "goodreads_book_authors.json", "author_id", "name")
    media = looked_up(raw, "goodreads_book_works.json", "work_id", "media_type", optional=True)
    found["genres"] = found["book_id"].map(genres(raw, wanted))
    found["average_rating"] = rounded(found["average_rating"], 1)
    found["reviews"] = rounded(found["text_reviews_count"], -1)
    found["author_id"] = found["authors"].map(first_author)
    found["author"] = found["author_id"].map(names)
    found["pages"] = rounded(found["num_pages"], -1)
    found["ebook"] = found["is_ebook"].map({"true": "yes", "false": "no"})
    found["year"] = found["publication_year"]
    found["media"] = found["work_id"].map(media)
    return found


def first_author(authors: Sequence[dict[str, str] | None] | None) -> str | None:
    """The id of a book's first author, if the book has one."""
    first = authors[0] if authors is not None and len(authors) else None
    return first["author_id"] if first else None


def looked_up(raw: Raw, file: str, key: str, value: str, optional: bool = False) -> pd.Series:
    """A field of another file by its key; nothing where an optional one is not there."""
    try:
        found = pd.concat(list(parts(raw, file, **{key: TEXT, value: TEXT})))
    except FileNotFoundError:
        if not optional:
            raise
        return pd.Series(dtype="str")
    found = found.dropna(subset=key).drop_duplicates()
    refuse(file, found[key], found[key].duplicated(), "in one line only, or the same in each")
    return found.set_index(key)[value]


def genres(raw: Raw, wanted: pd.Index) -> pd.Series:
    """The genres that readers name most for each wanted book, at most three."""

    def named(votes: dict[str, float | None] | None) -> str:
        voted = {genre: number for genre, number in (votes or {}).items() if number}
        return ", ".join(sorted(voted, key=lambda genre: -voted[genre])[:3])

    file = "goodreads_book_genres_initial.json"
    several = parts(raw, file, book_id=TEXT, genres=None)
    found = pd.concat([part[part["book_id"].isin(wanted)] for part in several])
    refuse(file, found["book_id"], found["book_id"].duplicated(), "in one line only")
    numbers = (int, float, type(None))
    wrong = ~found["genres"].map(
        lambda votes: (
            votes is None
            or (isinstance(votes, dict) and all(isinstance(n, numbers) for n in votes.values()))
        )
    ).astype("bool")
    refuse(file, found["genres"], wrong, "genres with their numbers of votes")
    return found.set_index("book_id")["genres"].map(named)


def rounded(values: pd.Series, digits: int) -> pd.Series:
    """Numbers in text, rounded to `digits` behind the point (before it, where negative)."""
    number = pd.to_numeric(values, errors="coerce").round(digits)
    text = number.map(f"{{:.{max(digits, 0)}f}}".format)
    return text.where(number.notna())


def read(raw: Raw) -> Dataset:
    """Reads the interactions, books, authors, genres and, if they are there, works.

    Interactions with books that are not described are left out, and counted.
    """
    rated = ratings(raw)
    described = books(raw, rated["book_id"].cat.categories)
    counts = {
        "ratings": len(rated),
        "users": len(rated["user_id"].cat.categories),
        "books": len(described),
    }
    known = rated["book_id"].isin(described["book_id"])
    counts["ratings of undescribed books"] = int((~known).sum())
    users = pd.DataFrame({"user_id": rated["user_id"].cat.categories})
    frame = join(SCHEMA, rated[known].assign(timestamp=0), users, described)
    return Dataset(SCHEMA, frame, record(raw, counts, {}))
