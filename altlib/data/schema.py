"""What a data set is made of: fields, their words in the template, and the label rule.

A CTR sample is a row of categorical fields (METHOD: section 3.1 of arXiv 2310.19453). A `Schema`
names the fields in template order; everything above this floor speaks of fields only through it.
"""

from dataclasses import dataclass
from typing import Literal

from altlib.config import LabelRule

RESERVED = ("rating", "timestamp")
"""Columns of the frame beside the fields."""


@dataclass(frozen=True)
class Field:
    """One categorical field.

    Attributes:
        name: column of the frame.
        words: the field's words in the template, "{words} is {value}.".
        side: whether the field describes the user or the item.
        twin: fields of one twin group determine each other (title and movie id), so a masked
            one could be read off another in the same modality; None if there is no such field.
        typed: whether all values are numbers, all truth values, or all dates, so that text is one
            of them, too: "2.50" is 2.5, and "true" is True.
    """

    name: str
    words: str
    side: Literal["user", "item"]
    twin: str | None = None
    typed: bool = False


@dataclass(frozen=True)
class Schema:
    """The fields of a data set in template order, and its label rule."""

    name: str
    fields: tuple[Field, ...]
    label: LabelRule

    def __post_init__(self) -> None:
        names = self.field_names
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"Schema '{self.name}' names the field {repeated} more than once.")
        for name in RESERVED:
            if name in names:
                raise ValueError(
                    f"Schema '{self.name}' has a field of the name '{name}', which the frame of a "
                    "data set keeps for itself; call the column something else."
                )

    @property
    def field_names(self) -> list[str]:
        return [field.name for field in self.fields]

    def twins(self) -> list[list[int]]:
        """For each field, the positions of the fields of its twin group, itself included."""
        return [
            [
                other
                for other, candidate in enumerate(self.fields)
                if other == position or (field.twin is not None and candidate.twin == field.twin)
            ]
            for position, field in enumerate(self.fields)
        ]
