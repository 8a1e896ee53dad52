"""MovieLens-1M as published: `::`-separated .dat files in latin-1 (Harper and Konstan, 2015).

The set of section 4.1.1 of arXiv 2310.19453. Codes of age and occupation become the words of the
set's README.
"""

import pandas as pd
import pandera.pandas as pa

from altlib.data.fetch import Raw
from altlib.data.frame import Dataset, join, record
from altlib.data.sources import movielens
from altlib.data.sources.words import WORDS
from altlib.data.validation import (
    check,
    code,
    identifier,
    number,
    read_text,
    reference,
    split_lines,
    text,
)

SCHEMA = movielens.schema("ml-1m")

KNOWN = {"ratings": 1_000_209, "users": 6_040, "movies": 3_883}


def table(raw: Raw, file: str, key: list[str] | None = None, **rules: pa.Column) -> pd.DataFrame:
    """One .dat file; the rules are of its columns, in their order."""
    # A tab is mere white space in these files, so it can give way to the one-letter separator.
    lines = read_text(raw.path, file, "latin-1").replace("\t", " ").replace("::", "\t")
    return check(file, split_lines(lines, file, list(rules), first=1), rules, key)


def read(raw: Raw) -> Dataset:
    """Reads ratings.dat, users.dat and movies.dat from a folder or a zip."""
    ages = {str(code): word for code, word in movielens.AGES.items()}
    occupations = {str(code): word for code, word in enumerate(WORDS["ml-1m"]["occupations"])}
    users = table(
        raw,
        "users.dat",
        user_id=identifier(),
        gender=code(movielens.GENDERS),
        age=code(ages),
        occupation=code(occupations),
        zipcode=text(),
    )
    movies = table(raw, "movies.dat", movie_id=identifier(), title=text(), genre=text())
    ratings = table(
        raw,
        "ratings.dat",
        key=["user_id", "movie_id"],
        user_id=reference(users["user_id"], "users.dat"),
        movie_id=reference(movies["movie_id"], "movies.dat"),
        rating=number(1, 5),
        timestamp=number(0),
    )
    users["gender"] = users["gender"].map(movielens.GENDERS)
    users["age"] = users["age"].map(ages)
    users["occupation"] = users["occupation"].map(occupations)
    movies["genre"] = movies["genre"].str.replace("|", ", ")
    movies["year"] = movies["title"].str.extract(r"\((\d{4})\)\s*$", expand=False)
    counts = {"ratings": len(ratings), "users": len(users), "movies": len(movies)}
    frame = join(SCHEMA, ratings, users, movies)
    return Dataset(SCHEMA, frame, record(raw, counts, KNOWN, timed=True))
