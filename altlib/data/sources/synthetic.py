"""A synthetic set with planted structure, on which the method can be seen to work.

It stands in for the data of section 4.1 of arXiv 2310.19453 where the truth has to be known. Items
are many with few rows each, so their ids say little; their titles are made of words that recur
("frozen detective 3"), the first from the item's hidden topic, the second from its genre. What a
user thinks of an item is a sum of four parts, whose shares of the variance are parameters:

- in the ids: how friendly the user is, which no word tells;
- in the words: how well liked the topic is, which only the title tells;
- in both: the taste of this user (its id) for this topic (the title's words);
- the rest is noise.

Age and occupation say nothing. The genre has no part in the rating: it is there to be recovered
from the title's second word by masked modelling.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field as Limits
from pydantic.dataclasses import dataclass as checked

from altlib.config import STRICT, Count, LabelRule, Seed
from altlib.data.fetch import Raw
from altlib.data.frame import Dataset, join, record
from altlib.data.schema import Field, Schema
from altlib.data.sources import words

WORDS = words.WORDS["synthetic"]

SCHEMA = Schema(
    name="synthetic",
    fields=(
        Field("user_id", "user id", "user"),
        Field("age", "age", "user"),
        Field("occupation", "occupation", "user"),
        Field("item_id", "item id", "item"),
        Field("title", "title", "item"),
        Field("genre", "genre", "item"),
    ),
    label=LabelRule(positive_from=4, scale=(1, 5)),
)

RATING_QUANTILES = (0.15, 0.3, 0.5, 0.8)  # between ratings 1 to 5: half of the rows are positive


Share = Annotated[float, Limits(ge=0, le=1)]


@checked(frozen=True, config=STRICT)
class Synthetic:
    """Parameters of a synthetic set.

    Attributes:
        rows: ratings, each of another pair of user and item.
        users: number of users.
        items: number of items.
        topics: hidden topics of the items, at most 8.
        in_ids: share of the variance that only the ids tell.
        in_words: share that only the words of the title tell.
        in_both: share that takes the user's id and the title's words together.
        genre_noise: share of items whose genre is drawn at random, whatever the title says.
        shuffle_texts: deal the titles out to the items anew. A title stays as rare a value as
            before, but its words say nothing of topic and genre; all else is the same.
        seed: of everything that is drawn.
    """

    rows: Count = 20_000
    users: int = Limits(default=100, ge=2, strict=True)
    items: int = Limits(default=4_000, ge=2, strict=True)
    topics: int = Limits(default=8, ge=2, le=len(WORDS["topics"]), strict=True)
    in_ids: Share = 0.2
    in_words: Share = 0.3
    in_both: Share = 0.3
    genre_noise: Share = 0.1
    shuffle_texts: bool = Limits(default=False, strict=True)
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.rows > (pairs := self.users * self.items):
            raise ValueError(
                f"Synthetic data with rows = {self.rows}: there are {pairs} pairs of user and item."
            )
        if (share := round(self.in_ids + self.in_words + self.in_both, 9)) > 1:
            raise ValueError(
                f"Synthetic data with in_ids + in_words + in_both = {share:g}: at most 1 is "
                "possible."
            )


def make(parameters: Synthetic) -> Dataset:
    """Draws a synthetic set; the same parameters give the same set."""
    p = parameters
    rng = np.random.default_rng(p.seed)
    topic = rng.integers(p.topics, size=p.items)
    friendly = rng.normal(size=p.users)
    appeal = rng.normal(size=p.topics)
    taste = rng.normal(size=(p.users, p.topics))
    # What is left of the taste is in neither user nor topic alone.
    taste -= taste.mean(axis=0)
    taste -= taste.mean(axis=1, keepdims=True)

    pair = rng.choice(p.users * p.items, size=p.rows, replace=False)
    user, item = np.divmod(pair, p.items)
    rest = max(0.0, 1 - p.in_ids - p.in_words - p.in_both)
    score = (
        np.sqrt(p.in_ids) * standard(friendly[user])
        + np.sqrt(p.in_words) * standard(appeal[topic[item]])
        + np.sqrt(p.in_both) * standard(taste[user, topic[item]])
        + np.sqrt(rest) * rng.normal(size=p.rows)
    )
    rating = 1 + np.searchsorted(np.quantile(score, RATING_QUANTILES), score)

    items = draw_items(p, topic, rng)
    users = pd.DataFrame(
        {
            "user_id": np.arange(1, p.users + 1),
            "age": rng.choice(WORDS["ages"], p.users),
            "occupation": rng.choice(WORDS["occupations"], p.users),
        }
    )
    if p.shuffle_texts:  # drawn last, so that all else stays the same
        items["title"] = rng.permutation(items["title"])
    ratings = pd.DataFrame(
        {
            "user_id": user + 1,
            "item_id": item + 1,
            "rating": rating,
            "timestamp": 1_000_000_000 + 60 * np.arange(p.rows),
        }
    )
    frame = join(SCHEMA, ratings, users, items)
    raw = Raw("synthetic", Path(), "made from parameters", {}, exact=True, note="")
    counts = {"ratings": p.rows, "users": p.users, "items": p.items}
    return Dataset(SCHEMA, frame, {**record(raw, counts, {}), "parameters": asdict(p)})


def standard(values: np.ndarray) -> np.ndarray:
    """Values with mean 0 and variance 1 over the rows."""
    return (values - values.mean()) / (values.std() or 1.0)


def draw_items(p: Synthetic, topic: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """The items of the given topics: a title of two words and a number, and a genre."""
    genres, nouns = (np.array(list(of)) for of in (WORDS["genres"], WORDS["genres"].values()))
    adjectives = np.array(WORDS["topics"])
    genre = rng.integers(len(genres), size=p.items)
    first = adjectives[topic, rng.integers(adjectives.shape[1], size=p.items)]
    second = nouns[genre, rng.integers(nouns.shape[1], size=p.items)]
    both = pd.Series(first) + " " + pd.Series(second)
    # Numbered within equal words, a title is one item's alone but its number says little.
    number = both.groupby(both).cumcount() + 1
    chance = rng.integers(len(genres), size=p.items)
    shown = np.where(rng.random(p.items) < p.genre_noise, chance, genre)
    return pd.DataFrame(
        {
            "item_id": np.arange(1, p.items + 1),
            "title": both + " " + number.astype(str),
            "genre": genres[shown],
        }
    )
