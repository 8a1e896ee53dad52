"""MovieLens-100K in RecBole's atomic files: tab-separated, with a header of `name:type`.

The small set of the same family as that of section 4.1.1 of arXiv 2310.19453 (Harper and Konstan,
2015). An age in years becomes the group that MovieLens-1M would put it in.
"""

from dataclasses import replace
from typing import Any

import pandas as pd
import pandera.pandas as pa

from altlib.data import validation as column
from altlib.data.fetch import Raw
from altlib.data.frame import Dataset, join, record
from altlib.data.sources import ml_1m
from altlib.data.spelling import UNKNOWN
from altlib.data.validation import check, once, read_text, titled

SCHEMA = replace(ml_1m.SCHEMA, name="ml-100k")
KNOWN = {"ratings": 100_000, "users": 943, "movies": 1_682}


def table(raw: Raw, file: str, key: list[str] | None = None, **rules: pa.Column) -> pd.DataFrame:
    """The columns of one atomic file that have rules."""
    frame = titled(read_text(raw.path, file, "utf-8"), file, "\t", None)
    names = [str(name).partition(":")[0].strip() for name in frame]
    once(names, f"{file}, line 1")
    return check(file, frame.set_axis(names, axis=1), rules, key)


def with_year(title: pd.Series, year: pd.Series) -> pd.Series:
    """Titles as MovieLens-1M has them, "Toy Story (1995)"; RecBole cut the year off."""
    known = is_year(year) & title.notna()
    titles = title.where(~known, title + " (" + year + ")")
    return titles.where(titles != "unkonwn", UNKNOWN)  # the file's own spelling


def is_year(values: pd.Series) -> pd.Series:
    """Whether each value is a year of four digits."""
    return values.str.fullmatch(r"\d{4}").fillna(False).astype(bool)


def age_group(years: pd.Series) -> pd.Series:
    """The words of MovieLens-1M for an age in years."""
    starts = [0, *list(ml_1m.AGES)[1:], 1000]
    words = list(ml_1m.AGES.values())
    return pd.cut(years.astype("float"), starts, right=False, labels=words)


def read(raw: Raw) -> Dataset:
    """Reads ml-100k.inter, ml-100k.user and ml-100k.item from a folder or a zip."""
    users = table(
        raw,
        "ml-100k.user",
        user_id=column.identifier(),
        gender=column.code(ml_1m.GENDERS),
        age=column.number(1, 120, nullable=True),
        occupation=column.text(),
        zip_code=column.text(),
    )
    words: dict[str, Any] = {
        name: column.text() for name in ("movie_title", "release_year", "class")
    }
    movies = table(raw, "ml-100k.item", item_id=column.identifier(), **words)
    ratings = table(
        raw,
        "ml-100k.inter",
        key=["user_id", "item_id"],
        user_id=column.reference(users["user_id"], "ml-100k.user"),
        item_id=column.reference(movies["item_id"], "ml-100k.item"),
        rating=column.number(1, 5),
        timestamp=column.number(0),
    )
    users["gender"] = users["gender"].map(ml_1m.GENDERS)
    users["age"] = age_group(users["age"])
    movies["title"] = with_year(movies["movie_title"], movies["release_year"])
    movies["genre"] = movies["class"].str.split().str.join(", ")
    movies["year"] = movies["release_year"].where(is_year(movies["release_year"]))
    names = {"item_id": "movie_id", "zip_code": "zipcode"}
    ratings, users, movies = (of.rename(columns=names) for of in (ratings, users, movies))
    counts = {"ratings": len(ratings), "users": len(users), "movies": len(movies)}
    frame = join(SCHEMA, ratings, users, movies)
    return Dataset(SCHEMA, frame, record(raw, counts, KNOWN, timed=True))
