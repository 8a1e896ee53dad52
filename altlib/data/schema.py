"""What a data set is made of: fields, their words in the template, and the label rule.

A CTR sample is a row of categorical fields (METHOD: section 3.1 of arXiv 2310.19453). A `Schema`
names the fields in template order; everything above this floor speaks of fields only through it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from altlib.config import LabelRule
from altlib.faults import nearest

RESERVED = ("rating", "timestamp")
"""Columns of the frame beside the fields."""


@dataclass(frozen=True)
class Field:
    """One categorical field.

    Attributes:
        name: column of the frame.
        words: the field's words in the template, "{words} is {value}.".
        side: whether the field describes the user or the item.
        typed: whether all values are numbers, all truth values, or all dates, so that text is one
            of them, too: "2.50" is 2.5, and "true" is True.
        determined_by: names of the fields from which this one follows, as the genre from the movie
            id: a masked field can be read off them in the same modality. None until they are found
            from the data.
        optional: left out unless a profile's `data.fields` names it.
    """

    name: str
    words: str
    side: Literal["user", "item"]
    typed: bool = False
    determined_by: tuple[str, ...] | None = None
    optional: bool = False


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
        for field in self.fields:
            for name in field.determined_by or ():
                if name not in names:
                    raise ValueError(
                        f"The field '{field.name}' of '{self.name}' is determined by '{name}', "
                        f"which is no field; {nearest(name, names)}"
                    )

    @property
    def field_names(self) -> list[str]:
        return [field.name for field in self.fields]

    def using(self, names: Sequence[str] | None) -> "Schema":
        """The schema with these fields only; with all that are not optional for None.

        Raises:
            ValueError: there is no such field, or the first one of a side is left out.
        """
        for name in names or ():
            if name not in self.field_names:
                raise ValueError(
                    f"data.fields names '{name}', which '{self.name}' has not; "
                    f"{nearest(name, self.field_names)}"
                )
        kept = [field.name for field in self.fields if not field.optional]
        kept = kept if names is None else list(names)
        fields = []
        for field in self.fields:
            if field.name in kept:
                by = field.determined_by and tuple(n for n in field.determined_by if n in kept)
                fields.append(replace(field, determined_by=by))
        for side in ("user", "item"):
            first = next(field.name for field in self.fields if field.side == side)
            if first not in kept:
                raise ValueError(
                    f"data.fields leaves out '{first}' of '{self.name}', by which one {side} is "
                    "told from another. To keep it out of the sentence, use text.leave_out."
                )
        return replace(self, fields=tuple(fields))

    def together(self, rule: Literal["nothing", "twins", "determining"]) -> list[list[int]]:
        """For each field the positions of the fields that are masked with it, itself included.

        Args:
            rule: "determining" fields; "twins", of which each determines the other; or "nothing".
        """
        place = {name: position for position, name in enumerate(self.field_names)}
        by = [{place[name] for name in field.determined_by or ()} for field in self.fields]
        if rule != "determining":
            twins = rule == "twins"
            by = [{g for g in of if twins and f in by[g]} for f, of in enumerate(by)]
        return [sorted({position, *of}) for position, of in enumerate(by)]
