"""Labels, splits, vocabularies: from the training split only, reserved ids apart."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from altlib.config import DataConfig, LabelRule
from altlib.data.frame import Dataset
from altlib.data.schema import Field, Schema
from altlib.data.spelling import UNKNOWN
from altlib.data.tabular import Prepared, determines, label, prepare, split_rows

SCHEMA = Schema(
    "small",
    (Field("user", "user", "user"), Field("item", "item", "item")),
    LabelRule(positive_from=4, dropped=(3,)),
)


def frame(number: int = 40) -> pd.DataFrame:
    """Ratings in time order; user "rare" rates once in training, user "late" in test only."""
    users = [f"u{i % 4}" for i in range(number)]
    users[0], users[-1], users[-2] = "rare", "late", "late"
    return pd.DataFrame(
        {
            "user": pd.Categorical(users),
            "item": pd.Categorical([f"i{i % 3}" for i in range(number)]),
            "rating": np.resize([5.0, 1.0, 4.0, 2.0], number).astype(np.float32),
            "timestamp": np.arange(number, dtype=np.int64),
        }
    )


def with_gap(column: str, row: int) -> pd.DataFrame:
    made = frame()
    made.loc[row, column] = np.nan
    return made


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (frame().drop(columns="item"), "no column 'item'"),
        (frame().assign(user="u1"), r"'user' .* must be a categorical one"),
        (frame().assign(user=pd.Categorical([1] * 40)), r"'user' .* must be a categorical one"),
        (with_gap("item", 7), "row 8, column 'item': found nothing, but it must be a word"),
        (with_gap("rating", 9), "row 10, column 'rating': found nothing, .* a number from 1 to 5"),
        (with_gap("timestamp", 4), "row 5, column 'timestamp': found nothing, .* be a number"),
        (frame().assign(timestamp=[0.0, np.inf] * 20), "row 2, column 'timestamp': found 'inf'"),
        (frame().assign(rating=[6.0] * 40), "row 1, column 'rating': found '6.0'"),
    ],
)
def test_a_faulty_frame_is_refused_by_column_and_row(faulty: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(faulty, SCHEMA)


def test_label_rule() -> None:
    keep, labels = label(np.array([1, 2, 3, 4, 5], np.float32), SCHEMA.label)
    assert keep.tolist() == [True, True, False, True, True]
    assert labels[keep].tolist() == [0, 0, 1, 1]


def test_split_by_time_puts_the_latest_rows_into_test() -> None:
    times = np.random.default_rng(0).permutation(100)
    split = split_rows(times, "time", 0)
    assert [(split == s).sum() for s in range(3)] == [80, 10, 10]
    assert times[split == 0].max() < times[split == 1].min() <= times[split == 1].max()
    assert times[split == 1].max() < times[split == 2].min()


def test_fractions_of_times_count() -> None:
    times = np.random.default_rng(0).permutation(100) / 100
    split = split_rows(times, "time", 0)
    assert times[split == 2].min() == pytest.approx(0.9)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_thresholds_are_of_the_type_of_the_ratings(kind: type) -> None:
    rule = LabelRule(0.7, dropped=(0.3,), scale=(0.1, 0.7))
    keep, labels = label(np.array([0.1, 0.3, 0.7], kind), rule)
    assert (keep.tolist(), labels.tolist()) == ([True, False, True], [0, 0, 1])
    keep, labels = label(np.array([3, 4]), LabelRule(3.5))
    assert labels.tolist() == [0, 1]


def test_a_field_that_gives_the_label_away_is_warned_of() -> None:
    leaky = frame(60).assign(item=lambda made: pd.Categorical((made["rating"] > 3).astype("str")))
    with pytest.warns(UserWarning, match="'item' of 'small' gives the label away: none of its 2"):
        data = prepare(leaky, SCHEMA)
    assert "gives the label away" in data.provenance["warnings"][0]
    assert not any("label" in doubt for doubt in warned(frame(60)))


def test_random_split_follows_its_seed() -> None:
    times = np.zeros(100)
    assert np.array_equal(split_rows(times, "random", 1), split_rows(times, "random", 1))
    assert not np.array_equal(split_rows(times, "random", 1), split_rows(times, "random", 2))
    with pytest.raises(ValueError, match="no timestamps"):
        split_rows(times, "time", 0)


def test_every_field_has_its_own_mask_and_unknown_id() -> None:
    data = prepare(frame(), SCHEMA)
    vocabulary = data.vocabulary
    reserved = {*vocabulary.mask_ids.tolist(), *vocabulary.unknown_ids.tolist()}
    assert len(reserved) == 4
    real = set(data.feature_of_value.tolist()) - set(vocabulary.unknown_ids.tolist())
    assert not real & reserved
    assert set(vocabulary.mask_ids) & set(data.ids(np.arange(40)).ravel()) == set()
    for f in range(2):
        column = data.ids(np.arange(40))[:, f]
        assert (column >= vocabulary.starts[f]).all() and (column < vocabulary.starts[f + 1]).all()


def test_vocabulary_comes_from_the_training_split_and_rare_values_are_unknown() -> None:
    data = prepare(frame(), SCHEMA)
    assert data.vocabulary.values[0] == ["u0", "u1", "u2", "u3"]
    ids = data.ids(np.arange(40))[:, 0]
    unknown = data.vocabulary.unknown_ids[0]
    assert ids[0] == ids[-1] == unknown  # rare in training; only in test
    assert data.cold(data.of("test"), "user").tolist() == [False, False, True, True]
    assert len(set(data.users(np.arange(40)))) == len(set(frame()["user"]))
    # The sentence keeps the real value.
    assert data.words[data.rows[-1, 0]] == "late"


def test_counts_are_those_of_the_training_split() -> None:
    data = prepare(frame(), SCHEMA)
    ids = data.ids(data.of("train"))
    expected = np.bincount(ids.ravel(), minlength=data.features)
    expected[data.vocabulary.unknown_ids] = 0
    assert np.array_equal(data.counts, expected)


def test_unseen_values_are_unknown() -> None:
    vocabulary = prepare(frame(), SCHEMA).vocabulary
    unknown = vocabulary.unknown_ids[1]
    found = vocabulary.lookup(1, pd.Index(["i1", "i9", None, "i2"]))
    assert (found == unknown).tolist() == [False, True, True, False]
    assert found[0] - vocabulary.starts[1] == 2 + vocabulary.values[1].index("i1")


def test_saved_and_loaded(synthetic: Dataset, tmp_path: Path) -> None:
    data = prepare(synthetic.frame, synthetic.schema, provenance={"source": "made"})
    data.save(tmp_path)
    again = Prepared.load(tmp_path)
    assert again.schema == data.schema
    assert again.values == data.values and again.vocabulary == data.vocabulary
    assert again.provenance == data.provenance or again.provenance["source"] == "made"
    for name in ("rows", "labels", "split", "feature_of_value", "counts"):
        assert np.array_equal(getattr(again, name), getattr(data, name))


def words(data: Prepared, row: int) -> list[str]:
    """The values of a row."""
    values = data.words
    return [values[v] for v in data.rows[row]]


def test_a_share_of_the_training_split_leaves_the_others(synthetic: Dataset) -> None:
    whole, few = (
        prepare(synthetic.frame, synthetic.schema, DataConfig("synthetic", train_share=share))
        for share in (1.0, 0.1)
    )
    assert (len(few.of("train")), len(whole.of("train"))) == (48, 480)
    for name in ("validation", "test"):
        one, two = ([words(data, row) for row in data.of(name)] for data in (whole, few))
        assert one == two
    trained = {tuple(words(whole, row)) for row in whole.of("train")}
    assert all(tuple(words(few, row)) in trained for row in few.of("train"))
    assert few.features < whole.features


def test_a_sample_of_rows_is_drawn_after_the_label_rule(synthetic: Dataset) -> None:
    data = prepare(synthetic.frame, synthetic.schema, DataConfig("synthetic", rows=200))
    assert len(data.rows) == 200
    assert data.provenance["rows"] == 200


def test_one_class_in_a_split_is_an_error() -> None:
    one = frame()
    one.loc[36:, "rating"] = 5.0
    with pytest.raises(ValueError, match="test split of 'small' has only one class"):
        prepare(one, SCHEMA)


def test_too_few_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 10 rows; 4 are left"):
        prepare(frame(4), SCHEMA)


def test_what_determines_a_field_is_found_from_the_training_rows() -> None:
    rng = np.random.default_rng(0)
    number = 2000
    item = rng.integers(20, size=number)
    user = rng.integers(30, size=number)
    columns = {
        "user": user,
        "age": user % 5,
        "item": item,
        "title": np.where(item == 1, 0, item),  # two items share a title
        "genre": item % 4,
        "place": np.where(rng.random(number) < 0.8, item % 6, 5),  # mostly, which is not enough
        "kind": np.zeros(number, int),  # of a single value: nothing is to be told
    }
    made = pd.DataFrame(
        {name: pd.Categorical([f"v{v}" for v in of]) for name, of in columns.items()}
    )
    made = made.assign(rating=rng.choice([1.0, 5.0], number), timestamp=np.arange(number))
    sides = dict.fromkeys(columns, "item") | {"user": "user", "age": "user"}
    fields = [Field(name, name, side) for name, side in sides.items()]  # type: ignore[arg-type]
    fields[4] = Field("genre", "genre", "item", determined_by=("title",))
    data = prepare(made, Schema("small", tuple(fields), SCHEMA.label))
    assert {field.name: field.determined_by for field in data.schema.fields} == {
        "user": (),
        "age": ("user",),
        "item": ("title",),
        "title": ("item",),
        "genre": ("title",),  # as declared
        "place": (),
        "kind": (),
    }


def test_a_value_that_stands_once_determines_nothing() -> None:
    assert not determines(np.arange(50), np.arange(50) % 7)
    assert determines(np.arange(50) // 2, np.arange(50) // 2 % 7)


def warned(made: pd.DataFrame, schema: Schema = SCHEMA) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prepare(made, schema).provenance["warnings"]


def test_test_rows_that_training_has_seen_are_told_of() -> None:
    apart = frame(60).assign(user=pd.Categorical([f"u{row % 20}" for row in range(60)]))
    once = apart.assign(item=pd.Categorical([f"i{row // 20}" for row in range(60)]))
    assert warned(once) == []
    again = pd.concat([once, once], ignore_index=True).assign(timestamp=range(120))
    assert "100% of the test rows of 'small' have the values of a training row" in warned(again)[0]


def test_a_field_of_which_nothing_is_known_is_told_of() -> None:
    own = pd.Categorical([f"only {number}" for number in range(60)])
    assert any(
        "The field 'item' of 'small' says nothing" in w for w in warned(frame(60).assign(item=own))
    )


def test_rows_without_a_key_are_told_of() -> None:
    made = frame(60)
    users = made["user"].astype("str").where(made.index % 3 > 0, UNKNOWN)
    found = warned(made.assign(user=pd.Categorical(users)))
    assert "33% of the rows of 'small' have no 'user'" in " ".join(found)
