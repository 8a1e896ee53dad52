"""MovieLens-1M as published: `::`-separated .dat files in latin-1 (Harper and Konstan, 2015).

The set of section 4.1.1 of arXiv 2310.19453, with its label rule: ratings of 3 are left out, higher
ones are clicks. Codes of age and occupation become the words of the set's README.
"""

import pandas as pd
import pandera.pandas as pa

from altlib.config import LabelRule
from altlib.data import validation as column
from altlib.data.fetch import Raw
from altlib.data.frame import Dataset, join, record
from altlib.data.schema import Field, Schema
from altlib.data.sources.words import WORDS
from altlib.data.validation import check, read_text, split_lines

SCHEMA = Schema(
    name="ml-1m",
    fields=(
        Field("user_id", "user id", "user"),
        Field("gender", "gender", "user"),
        Field("age", "age", "user"),
        Field("occupation", "occupation", "user"),
        Field("zipcode", "zipcode", "user"),
        Field("movie_id", "movie id", "item"),
        Field("title", "title", "item"),
        Field("genre", "genre", "item"),
        Field("year", "year of release", "item", optional=True),
    ),
    label=LabelRule(positive_from=4, dropped=(3,), scale=(1, 5)),
)

GENDERS = {"M": "male", "F": "female"}

AGES = {
    1: "Under 18",
    18: "18-24",
    25: "25-34",
    35: "35-44",
    45: "45-49",
    50: "50-55",
    56: "56+",
}
"""Youngest age of each group, and its words."""

KNOWN = {"ratings": 1_000_209, "users": 6_040, "movies": 3_883}


def table(raw: Raw, file: str, key: list[str] | None = None, **rules: pa.Column) -> pd.DataFrame:
    """One .dat file; the rules are of its columns, in their order."""
    # A tab is mere white space in these files, so it can give way to the one-letter separator.
    lines = read_text(raw.path, file, "latin-1").replace("\t", " ").replace("::", "\t")
    return check(file, split_lines(lines, file, list(rules), first=1), rules, key)


def read(raw: Raw) -> Dataset:
    """Reads ratings.dat, users.dat and movies.dat from a folder or a zip."""
    ages = {str(code): word for code, word in AGES.items()}
    occupations = {str(code): word for code, word in enumerate(WORDS["ml-1m"]["occupations"])}
    users = table(
        raw,
        "users.dat",
        user_id=column.identifier(),
        gender=column.code(GENDERS),
        age=column.code(ages),
        occupation=column.code(occupations),
        zipcode=column.text(),
    )
    movies = table(
        raw, "movies.dat", movie_id=column.identifier(), title=column.text(), genre=column.text()
    )
    ratings = table(
        raw,
        "ratings.dat",
        key=["user_id", "movie_id"],
        user_id=column.reference(users["user_id"], "users.dat"),
        movie_id=column.reference(movies["movie_id"], "movies.dat"),
        rating=column.number(1, 5),
        timestamp=column.number(0),
    )
    users["gender"] = users["gender"].map(GENDERS)
    users["age"] = users["age"].map(ages)
    users["occupation"] = users["occupation"].map(occupations)
    movies["genre"] = movies["genre"].str.replace("|", ", ")
    movies["year"] = movies["title"].str.extract(r"\((\d{4})\)\s*$", expand=False)
    counts = {"ratings": len(ratings), "users": len(users), "movies": len(movies)}
    frame = join(SCHEMA, ratings, users, movies)
    return Dataset(SCHEMA, frame, record(raw, counts, KNOWN, timed=True))
