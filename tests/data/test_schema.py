"""Words of values: one for each value, however and beside what it is written."""

import re
from typing import Any

import pytest

from altlib.config import LabelRule
from altlib.data.schema import Field, Schema


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"positive_from": float("nan")}, "positive_from = nan"),
        ({"positive_from": 4, "scale": (5, 1)}, "the scale must rise"),
        ({"positive_from": 6}, "positive_from lie above its lowest rating"),
        ({"positive_from": 4, "dropped": (7,)}, re.escape("drops [7]")),
    ],
)
def test_a_label_rule_that_cannot_be_is_refused(rule: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        LabelRule(**rule)


@pytest.mark.parametrize("name", ["rating", "timestamp"])
def test_the_frames_own_names_are_reserved(name: str) -> None:
    fields = (Field(name, "words", "user"), Field("item", "item", "item"))
    with pytest.raises(ValueError, match=f"'{name}', which the frame of a data set keeps"):
        Schema("mine", fields, LabelRule(4))


def test_a_field_is_masked_with_its_twins_or_with_all_that_determine_it() -> None:
    by = {"user": (), "age": ("user",), "item": ("title",), "title": ("item",),
          "genre": ("item", "title")}  # fmt: skip
    fields = [Field(name, name, "user", determined_by=others) for name, others in by.items()]
    schema = Schema("mine", tuple(fields), LabelRule(4))
    assert schema.together("nothing") == [[0], [1], [2], [3], [4]]
    assert schema.together("twins") == [[0], [1], [2, 3], [2, 3], [4]]
    assert schema.together("determining") == [[0], [0, 1], [2, 3], [2, 3], [2, 3, 4]]


def test_what_determines_a_field_is_a_field() -> None:
    fields = (Field("item", "item", "item"), Field("genre", "genre", "item", False, ("itm",)))
    with pytest.raises(ValueError, match=r"determined by 'itm', which is no field; .* 'item'"):
        Schema("mine", fields, LabelRule(4))


def test_a_profile_may_name_the_fields_to_use() -> None:
    fields = (
        Field("user", "user", "user"),
        Field("item", "item", "item", determined_by=("title",)),
        Field("title", "title", "item", determined_by=("item",)),
        Field("year", "year", "item", optional=True),
    )
    schema = Schema("mine", fields, LabelRule(4))
    assert schema.using(None).field_names == ["user", "item", "title"]
    fewer = schema.using(["year", "item", "user"])
    assert fewer.field_names == ["user", "item", "year"]  # in the order of the template
    assert fewer.fields[1].determined_by == () and fewer.fields[2].determined_by is None
    with pytest.raises(ValueError, match=r"names 'yaer', which 'mine' has not; .* 'year'"):
        schema.using(["user", "yaer"])
    with pytest.raises(ValueError, match="leaves out 'item' of 'mine', by which one item is"):
        schema.using(["user"])
