"""What the MovieLens sets share: the eight fields, their words, and the rules of their files.

Both are used with the label rule of section 4.1.1 of arXiv 2310.19453: ratings of 3 are left out,
higher ones are clicks.
"""

from collections.abc import Iterable

import pandera.pandas as pa

from altlib.schema import Field, LabelRule, Schema

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


def schema(name: str) -> Schema:
    """The fields of a MovieLens set in template order."""
    return Schema(
        name=name,
        fields=(
            Field("user_id", "user id", "user"),
            Field("gender", "gender", "user"),
            Field("age", "age", "user"),
            Field("occupation", "occupation", "user"),
            Field("zipcode", "zipcode", "user"),
            Field("movie_id", "movie id", "item", twin="movie"),
            Field("title", "title", "item", twin="movie"),
            Field("genre", "genre", "item"),
        ),
        label=LabelRule(positive_from=4, dropped=(3,), scale=(1, 5)),
    )


def number(low: int, high: int | None = None, nullable: bool = False) -> pa.Column:
    """The rule for a whole number from `low` (to `high`)."""
    return pa.Column(
        "Int64" if nullable else "int64",
        pa.Check.ge(low) if high is None else pa.Check.in_range(low, high),
        coerce=True,
        nullable=nullable,
        description=f"a whole number from {low}" + ("" if high is None else f" to {high}"),
    )


def identifier() -> pa.Column:
    """The rule for the key of a table."""
    return pa.Column(
        "int64",
        pa.Check.ge(1),
        unique=True,
        report_duplicates="exclude_first",
        coerce=True,
        description="a whole number from 1 that no earlier line has",
    )


def reference(keys: Iterable[int], file: str) -> pa.Column:
    """The rule for a column that points at a row of another file."""
    return pa.Column(
        "int64",
        pa.Check.isin(list(keys)),
        coerce=True,
        description=f"the number of a row of {file}",
    )


def code(codes: Iterable[str]) -> pa.Column:
    """The rule for a column of codes; it may be empty."""
    allowed = list(codes)
    return pa.Column(
        "str",
        pa.Check.isin(allowed),
        nullable=True,
        description=f"one of {', '.join(allowed)}, or empty",
    )
