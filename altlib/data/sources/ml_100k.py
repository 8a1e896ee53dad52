"""MovieLens-100K in RecBole's atomic files: tab-separated, with a header of `name:type`.

The small set of the same family as that of section 4.1.1 of arXiv 2310.19453 (Harper and Konstan,
2015). An age in years becomes the group that MovieLens-1M would put it in.
"""

import pandas as pd

from altlib.data.fetch import Raw
from altlib.data.frame import Dataset, join, record
from altlib.data.sources import movielens
from altlib.data.spelling import UNKNOWN
from altlib.data.validation import (
    check,
    code,
    content,
    decode,
    identifier,
    number,
    once,
    reference,
    titled,
)

SCHEMA = movielens.schema("ml-100k")
KNOWN = {"ratings": 100_000, "users": 943, "movies": 1_682}


def table(raw: Raw, file: str, columns: list[str]) -> pd.DataFrame:
    """The text of some columns of one atomic file."""
    frame = titled(decode(content(raw.path, file), file, "utf-8"), file, "\t", None)
    names = [str(name).partition(":")[0].strip() for name in frame]
    once(names, f"{file}, line 1")
    missing = [name for name in columns if name not in names]
    if missing:
        raise ValueError(
            f"{file}, line 1: no column {missing}; the header must name {', '.join(columns)} as "
            f"'{columns[0]}:token', but names {', '.join(names)}."
        )
    return frame.set_axis(names, axis=1)[columns]


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
    starts = [0, *list(movielens.AGES)[1:], 1000]
    words = list(movielens.AGES.values())
    return pd.cut(years.astype("float"), starts, right=False, labels=words)


def read(raw: Raw) -> Dataset:
    """Reads ml-100k.inter, ml-100k.user and ml-100k.item from a folder or a zip.

    Raises:
        ValueError: a file breaks a rule; names file, line, column and rule.
        FileNotFoundError: a file is missing.
    """
    users = check(
        "ml-100k.user",
        table(raw, "ml-100k.user", ["user_id", "gender", "age", "occupation", "zip_code"]),
        {
            "user_id": identifier(),
            "gender": code(movielens.GENDERS),
            "age": number(1, 120, nullable=True),
        },
    )
    movies = check(
        "ml-100k.item",
        table(raw, "ml-100k.item", ["item_id", "movie_title", "release_year", "class"]),
        {"item_id": identifier()},
    )
    ratings = check(
        "ml-100k.inter",
        table(raw, "ml-100k.inter", ["user_id", "item_id", "rating", "timestamp"]),
        {
            "user_id": reference(users["user_id"], "ml-100k.user"),
            "item_id": reference(movies["item_id"], "ml-100k.item"),
            "rating": number(1, 5),
            "timestamp": number(0),
        },
        key=["user_id", "item_id"],
    )
    frame = join(
        SCHEMA,
        ratings.rename(columns={"item_id": "movie_id"}),
        pd.DataFrame(
            {
                "user_id": users["user_id"],
                "gender": users["gender"].map(movielens.GENDERS),
                "age": age_group(users["age"]),
                "occupation": users["occupation"],
                "zipcode": users["zip_code"],
            }
        ),
        pd.DataFrame(
            {
                "movie_id": movies["item_id"],
                "title": with_year(movies["movie_title"], movies["release_year"]),
                "genre": movies["class"].str.split().str.join(", "),
                "year": movies["release_year"].where(is_year(movies["release_year"])),
            }
        ),
    )
    counts = {"ratings": len(ratings), "users": len(users), "movies": len(movies)}
    return Dataset(SCHEMA, frame, record(raw, counts, KNOWN, timed=True))
