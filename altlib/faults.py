"""Faults of names and configuration files, as sentences."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import TypeAdapter, ValidationError

Checked = TypeVar("Checked")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: what was probably meant, or what there is."""
    names = {one.casefold(): one for one in known}
    close = difflib.get_close_matches(name.casefold(), names, n=1)
    return (
        f"did you mean '{names[close[0]]}'?" if close else f"there are {', '.join(names.values())}."
    )


class Loader(yaml.SafeLoader):
    """YAML whose names are text and stand once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
                continue
            if key.tag != "tag:yaml.org,2002:str":
                raise ValueError(f"line {line}: the name {key.value} {QUOTES}.")
            if key.value in lines:
                raise ValueError(
                    f"line {line}: the entry '{key.value}' is already in line {lines[key.value]}; "
                    "each entry may be given only once."
                )
            lines[key.value] = line
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        text = super().construct_scalar(node)
        text.encode()  # "\ud800" is half of a character, which no file can hold
        return text


QUOTES = (
    "is not text in YAML, which takes no, yes, on, off, null, numbers and dates for something "
    "else; put it in quotes"
)


def entries(path: Path) -> dict[str, Any]:
    """The entries of a YAML file; a ValueError says why there are none."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except yaml.YAMLError as error:
        raise ValueError(
            f"{path.name} is not a YAML file: {' '.join(str(error).split())}"
        ) from None
    except RecursionError:
        raise ValueError(f"{path.name} is not a YAML file: it is nested too deeply.") from None
    except (ValueError, AttributeError) as error:  # of a value that its tag does not fit
        raise ValueError(f"{path.name}: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no entries of the form 'name: value'.")
    return content


adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
"""What makes a dataclass of entries; it takes longer to build than to use."""


def checked(content: dict[str, Any], file: str, root: type[Checked]) -> Checked:
    """The dataclass `root` made of a file's entries; a ValueError names the first fault."""
    try:
        made: Any = adapter(root).validate_python(content)
    except ValidationError as error:
        raise ValueError(explain(error, file, root)) from None
    for place in flags_as_numbers(content, asdict(made)):
        raise ValueError(f"{file}: '{place}' is true or false; it must be a number.")
    return made


def flags_as_numbers(given: Any, made: Any, place: str = "") -> Iterator[str]:
    """Places of `given` where true or false stands of which pydantic has made a number."""
    if isinstance(given, bool):
        if not isinstance(made, bool):
            yield place
    elif isinstance(given, dict | list | tuple):
        pairs = given.items() if isinstance(given, dict) else enumerate(given)
        for part, value in pairs:
            yield from flags_as_numbers(value, made[part], f"{place}.{part}".lstrip("."))


def explain(error: ValidationError, file: str, root: Any) -> str:
    """The first fault of a file's entries, which should fit the dataclass `root`."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "unexpected_keyword_argument":
        known = root
        for part in first["loc"][:-1]:
            fields = getattr(known, "__dataclass_fields__", {})
            known = fields[part].type if part in fields else None
            known = next((of for of in get_args(known) if is_dataclass(of)), known)
        fields = getattr(known, "__dataclass_fields__", None)
        hint = f"; {nearest(str(first['loc'][-1]), fields)}" if fields else "."
        return f"{file}: there is no entry '{place}'{hint}"
    if first["type"] == "missing":
        return f"{file}: the entry '{place}' is missing."
    if first["type"] == "value_error":
        return f"{file}: {first['ctx']['error']}"
    found = repr(first["input"])[:80]
    if first["type"] == "string_type" and not isinstance(first["input"], (dict, list)):
        return f"{file}: '{place}' is {found}, which {QUOTES}."
    return f"{file}: '{place}' is {found}: {first['msg']}."
