"""From a frame of words to feature ids, labels and splits.

Every field has its own range of feature ids in one table: first the mask id, then the unknown id,
then the values that the training split holds at least `min_count` times. Rarer and unseen values
share the unknown id, which is therefore a trained one.
"""

import json
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from altlib.config import DataConfig, LabelRule
from altlib.data.schema import Schema
from altlib.data.spelling import UNKNOWN
from altlib.data.validation import refuse

SPLITS = ("train", "validation", "test")
ARRAYS = ("rows", "labels", "split", "feature_of_value", "counts")  # of `Prepared`, a file each
RESERVED = 2  # the mask id and the unknown id of a field
DETERMINED = 0.95
"""A field determines another if to guess it by the most frequent value takes away this share of the
mistakes (Goodman and Kruskal's lambda, 1954). Titles of MovieLens-100K, where a few films share
one, leave 0.4 % of the mistakes about the movie id; zip codes 8 % of those about the age."""
LOOKED_AT = 1_000_000
"""Training rows that `determining` looks at."""


@dataclass(frozen=True)
class Vocabulary:
    """The features of each field.

    Attributes:
        values: the known values of each field, in the order of their ids.
    """

    values: list[list[str]]

    @property
    def starts(self) -> np.ndarray:
        """First feature id of each field, and the number of features at the end [F + 1]."""
        return np.cumsum([0] + [RESERVED + len(values) for values in self.values])

    @property
    def mask_ids(self) -> np.ndarray:
        """The id that stands for a masked value of each field [F]."""
        return self.starts[:-1]

    @property
    def unknown_ids(self) -> np.ndarray:
        """The id of a rare or unseen value of each field [F]."""
        return self.starts[:-1] + 1

    def lookup(self, field: int, values: pd.Index) -> np.ndarray:
        """Feature ids of `values` of one field; those not known get the unknown id."""
        position = pd.Index(self.values[field]).get_indexer(values)
        known = self.starts[field] + RESERVED + position
        return np.where(position >= 0, known, self.unknown_ids[field])


@dataclass
class Prepared:
    """A data set ready to train on.

    A row is held as one value index a field: the sentence needs the value itself, the ID-based
    model its feature, and `feature_of_value` leads from one to the other.

    Attributes:
        schema: the fields.
        values: every distinct value of each field, known or not.
        rows: value index of each field [N, F], counted through all fields.
        labels: 0 or 1 [N].
        split: position in `SPLITS` [N].
        vocabulary: the features, from the training split only.
        feature_of_value: feature id of each value index.
        counts: how often the training split has each feature; 0 for mask and unknown ids.
        provenance: where the data come from, the rules applied, the resulting counts.
    """

    schema: Schema
    values: list[list[str]]
    rows: np.ndarray
    labels: np.ndarray
    split: np.ndarray
    vocabulary: Vocabulary
    feature_of_value: np.ndarray
    counts: np.ndarray
    provenance: dict[str, Any]

    @property
    def words(self) -> list[str]:
        """The word of each value index, of all fields one after the other."""
        return [value for values in self.values for value in values]

    @property
    def features(self) -> int:
        """Number of feature ids over all fields, reserved ones included."""
        return int(self.vocabulary.starts[-1])

    def of(self, split: str) -> np.ndarray:
        """Positions of a split's rows."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    def ids(self, rows: np.ndarray) -> np.ndarray:
        """Feature ids [B, F] of the rows at positions `rows`."""
        return self.feature_of_value[self.rows[rows]]

    def key_field(self, side: str) -> int:
        """The first field of `side`: the user's or the item's id."""
        return next(f for f, field in enumerate(self.schema.fields) if field.side == side)

    def cold(self, rows: np.ndarray, side: str) -> np.ndarray:
        """Whether the user or the item is unknown to the training split [B]."""
        field = self.key_field(side)
        return self.ids(rows)[:, field] == self.vocabulary.unknown_ids[field]

    def users(self, rows: np.ndarray) -> np.ndarray:
        """The user of each row [B], as a number; those who are unknown to training differ, too."""
        return self.rows[rows][:, self.key_field("user")]

    def save(self, folder: Path) -> None:
        """Writes the arrays as .npy files and the rest as prepared.json into `folder`."""
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        rest = {
            "schema": asdict(self.schema),
            "values": self.values,
            "vocabulary": asdict(self.vocabulary),
            "provenance": self.provenance,
        }
        (folder / "prepared.json").write_text(json.dumps(rest), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> "Prepared":
        """Reads what `save` wrote; the arrays stay on disk until they are used."""
        rest = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
        return Prepared(
            schema=TypeAdapter(Schema).validate_python(rest["schema"]),
            values=rest["values"],
            vocabulary=Vocabulary(**rest["vocabulary"]),
            provenance=rest["provenance"],
            **arrays,
        )


def label(rating: np.ndarray, rule: LabelRule) -> tuple[np.ndarray, np.ndarray]:
    """Applies a label rule: which rows stay [N] bool, and the labels [N] of all of them."""
    # Ratings and thresholds in one type: a float32 of 0.7 is less than a float64 of 0.7.
    rating = np.asarray(rating, np.result_type(rating, np.float32))
    keep = ~np.isin(rating, np.asarray(rule.dropped, rating.dtype))
    return keep, (rating >= rule.positive_from).astype(np.int8)


def split_rows(timestamps: np.ndarray, by: Literal["time", "random"], seed: int) -> np.ndarray:
    """Splits rows 8:1:1 into train, validation and test: position in `SPLITS` [N].

    By "time" the latest rows are the test split, and rows of equal time keep their order.
    """
    number = len(timestamps)
    if number < 10:
        raise ValueError(f"A split 8:1:1 needs at least 10 rows; {number} are left.")
    if by == "time":
        if timestamps.min() == timestamps.max():
            raise ValueError("These data have no timestamps: use the split 'random', not 'time'.")
        order = np.argsort(timestamps, kind="stable")
    else:
        order = np.random.default_rng(seed).permutation(number)
    split = np.empty(number, np.int8)
    for part, positions in enumerate(np.split(order, [number * 8 // 10, number * 9 // 10])):
        split[positions] = part
    return split


def determining(schema: Schema, rows: np.ndarray) -> Schema:
    """The schema with the fields of the same side from which each field follows, where it does not
    say so itself, by the value indices of training rows [N, F].
    """
    if len(rows) > LOOKED_AT:
        rows = rows[np.random.default_rng(0).permutation(len(rows))[:LOOKED_AT]]
    fields = []
    for f, field in enumerate(schema.fields):
        if field.determined_by is None:
            by = [
                other.name
                for g, other in enumerate(schema.fields)
                if other.side == field.side and g != f and determines(rows[:, g], rows[:, f])
            ]
            field = replace(field, determined_by=tuple(by))
        fields.append(field)
    return replace(schema, fields=tuple(fields))


def determines(values: np.ndarray, others: np.ndarray) -> bool:
    """Whether `others` [N] follow from `values` [N]; a value that stands once proves nothing."""
    places = np.unique(values, return_inverse=True)[1]
    again = np.bincount(places)[places] > 1
    table = pd.DataFrame({"value": values[again], "other": others[again]})
    pairs = table.value_counts().groupby("value").max()
    mistakes, usual = len(table) - pairs.sum(), len(table) - table["other"].value_counts().max()
    return len(table) > 0 and usual > 0 and bool(1 - mistakes / usual >= DETERMINED)


def check(frame: pd.DataFrame, schema: Schema) -> None:
    """Raises a ValueError that names the first fault of a frame: its column, row and rule."""
    for name in [*schema.field_names, "rating", "timestamp"]:
        if name not in frame:
            raise ValueError(f"The frame of '{schema.name}' has no column '{name}'.")
    for name in schema.field_names:
        kind = frame[name].dtype
        if not isinstance(kind, pd.CategoricalDtype) or kind.categories.inferred_type != "string":
            raise ValueError(
                f"The column '{name}' of '{schema.name}' is {kind}; it must be a categorical one "
                "of words."
            )
    low, high = schema.label.scale
    frame = frame.set_axis(pd.RangeIndex(1, len(frame) + 1, name="row"))
    faults = {name: (frame[name].isna(), "a word") for name in schema.field_names}
    faults["rating"] = (
        ~frame["rating"].between(low, high),
        f"a number from {low:g} to {high:g}, the scale of 'label'",
    )
    faults["timestamp"] = ~frame["timestamp"].abs().lt(np.inf), "a number"
    for name, (wrong, right) in faults.items():
        refuse(f"The frame of '{schema.name}'", frame[name], wrong, right)


def doubts_about(data: Prepared) -> list[str]:
    """What about the rows may spoil or flatter results, in sentences."""
    name, found = data.schema.name, []
    for field, known in zip(data.schema.field_names, data.vocabulary.values, strict=True):
        if not known:
            found.append(
                f"The field '{field}' of '{name}' says nothing: no value of it stands in enough "
                "training rows, so each counts as unknown."
            )
    missing = np.array([word == UNKNOWN for word in data.words])
    for f in map(data.key_field, ("user", "item")):
        if (lacking := missing[data.rows[:, f]].mean()) >= 0.01:
            key = data.schema.field_names[f]
            found.append(
                f"{lacking:.0%} of the rows of '{name}' have no '{key}'; all of them count as rows "
                "of the same one."
            )
    row = pd.util.hash_pandas_object(pd.DataFrame(data.rows), index=False).to_numpy()
    if (again := np.isin(row[data.of("test")], row[data.of("train")]).mean()) >= 0.01:
        found.append(
            f"{again:.0%} of the test rows of '{name}' have the values of a training row in every "
            "field: a model may know them by heart."
        )
    return found


def prepare(
    frame: pd.DataFrame,
    schema: Schema,
    config: DataConfig | None = None,
    provenance: dict[str, Any] | None = None,
) -> Prepared:
    """Turns a frame into ids, labels and splits.

    Args:
        frame: as in `frame.Dataset`, and checked here.
        schema: the fields and the label rule.
        config: how the rows are used; by its defaults if None.
        provenance: of the frame; what happens here is added to a copy of it.

    Raises:
        ValueError: the frame has faults, there are too few rows or no times to split them by, or
            the label rule leaves a split with one class only.
    """
    check(frame, schema)
    config = config or DataConfig(schema.name)
    keep, labels = label(frame["rating"].to_numpy(), schema.label)
    chosen = np.flatnonzero(keep)
    if config.rows is not None and config.rows < len(chosen):
        chosen = np.sort(
            np.random.default_rng(config.seed).choice(chosen, config.rows, replace=False)
        )
    part = split_rows(frame["timestamp"].to_numpy()[chosen], config.split, config.seed)
    if config.train_share < 1:
        train = np.random.default_rng(config.seed).permutation(np.flatnonzero(part == 0))
        left = np.delete(np.arange(len(part)), train[round(config.train_share * len(train)) :])
        chosen, part = chosen[left], part[left]
    labels = labels[chosen]
    for position, name in enumerate(SPLITS):
        if len(np.unique(labels[part == position])) < 2:
            raise ValueError(
                f"The {name} split of '{schema.name}' has only one class of labels; AUC needs "
                f"both. Use more rows or another split than '{config.split}'."
            )

    values: list[list[str]] = []
    known: list[list[str]] = []
    occurrences = []
    provenance = dict(provenance or {})
    doubts = provenance["warnings"] = list(provenance.get("warnings", []))
    indices = np.empty((len(chosen), len(schema.fields)), np.int32)
    for f, name in enumerate(schema.field_names):
        codes = frame[name].cat.codes.to_numpy()[chosen]
        categories = frame[name].cat.categories
        total = np.bincount(codes, minlength=len(categories))
        used = total > 0
        first = sum(map(len, values))
        indices[:, f] = (first + np.cumsum(used, dtype=np.int32) - 1)[codes]
        words = categories[used].tolist()
        count = np.bincount(codes[part == 0], minlength=len(categories))[used]
        occurrences.append(count)
        clicks = np.bincount(codes, labels, minlength=len(categories))
        if len(chosen) >= 10 * len(words) and ((clicks == 0) | (clicks == total)).all():
            doubts.append(
                f"The field '{name}' of '{schema.name}' gives the label away: none of its "
                f"{len(words)} values has rows of both classes."
            )
            warnings.warn(doubts[-1], stacklevel=2)
        values.append(words)
        known.append([w for w, c in zip(words, count, strict=True) if c >= config.min_count])
    vocabulary = Vocabulary(known)
    feature_of_value = np.concatenate(
        [vocabulary.lookup(f, pd.Index(words)) for f, words in enumerate(values)]
    )
    counts = np.bincount(
        feature_of_value, np.concatenate(occurrences), int(vocabulary.starts[-1])
    ).astype(np.int64)
    counts[vocabulary.unknown_ids] = 0

    prepared = Prepared(
        schema=determining(schema, indices[part == 0]),
        values=values,
        rows=indices,
        labels=labels,
        split=part,
        vocabulary=vocabulary,
        feature_of_value=feature_of_value,
        counts=counts,
        provenance=provenance,
    )
    found = doubts_about(prepared)
    doubts += found
    for doubt in found:
        warnings.warn(doubt, stacklevel=2)
    test = prepared.of("test")
    provenance |= {
        "label rule": asdict(schema.label),
        "split": config.split,
        "split seed": config.seed,
        "min count": config.min_count,
        "rows": len(chosen),
        "rows after the label rule": int(keep.sum()),
        "positive": float(labels.mean()),
        "split rows": {name: int((part == p).sum()) for p, name in enumerate(SPLITS)},
        "features": dict(zip(schema.field_names, map(len, known), strict=True)),
        "values": dict(zip(schema.field_names, map(len, values), strict=True)),
        "cold test rows": {s: float(prepared.cold(test, s).mean()) for s in ("user", "item")},
    }
    return prepared
