"""What the MovieLens sets share: eight fields and an optional ninth, their words, rules of files.

Both are used with the label rule of section 4.1.1 of arXiv 2310.19453: ratings of 3 are left out,
higher ones are clicks.
"""

from altlib.config import LabelRule
from altlib.data.schema import Field, Schema

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
            Field("movie_id", "movie id", "item"),
            Field("title", "title", "item"),
            Field("genre", "genre", "item"),
            Field("year", "year of release", "item", optional=True),
        ),
        label=LabelRule(positive_from=4, dropped=(3,), scale=(1, 5)),
    )
