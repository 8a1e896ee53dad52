"""Profiles as YAML files: one may extend another, null removes an entry, a grid makes settings.

`./run_all.sh PROFILE --show` prints the whole of what a profile comes to.
"""

import argparse
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from altlib import store
from altlib.faults import entries, nearest

PROJECT = Path(__file__).resolve().parent.parent
read = store.remembered(entries)


def find(name: str, near: Path | None = None) -> Path:
    """The file of a profile.

    Args:
        name: of a file in config/, without its ending, or the path of a YAML file, looked for here
            and in the project's folder: a notebook in JupyterLab runs elsewhere than the batch.
        near: a folder in which a path is looked for first.

    Raises:
        ValueError: there is no such profile.
    """
    if name.endswith((".yaml", ".yml")):
        places = [folder / name for folder in (near, Path(), PROJECT) if folder is not None]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise ValueError(f"There is no profile {name} in {Path.cwd()} or in {PROJECT}.")
        return path
    path = PROJECT / "config" / f"{name}.yaml"
    if not path.is_file():
        known = [p.stem for p in (PROJECT / "config").glob("*.yaml")]
        raise ValueError(f"There is no profile '{name}'; {nearest(name, known)}")
    return path


def files(path: Path) -> list[Path]:
    """The file of a profile, and those of the profiles that it extends, one after the other.

    Raises:
        ValueError: one is no profile, or extends itself.
    """
    chain = [path]
    while (base := read(chain[-1]).get("extends")) is not None:
        if not isinstance(base, str):
            raise ValueError(
                f"{chain[-1].name}: 'extends' is {base!r}; it is the name of one profile."
            )
        try:
            chain.append(find(base, chain[-1].parent))
        except ValueError as error:
            raise ValueError(f"{chain[-1].name} extends '{base}'. {error}") from None
        if chain[-1].resolve() in [file.resolve() for file in chain[:-1]]:
            raise ValueError(f"{path.name} extends itself: {' → '.join(f.stem for f in chain)}.")
    return chain


def content(path: Path) -> dict[str, Any]:
    """The entries of a profile: its own in place of those that it extends, grids as settings.

    Raises:
        ValueError: it is no profile, extends itself, or holds a grid that makes no settings.
    """
    whole: dict[str, Any] = {}
    for file in reversed(files(path)):
        own = {"name": file.stem, **read(file)}
        if own["name"] != file.stem:
            raise ValueError(
                f"{file.name}: 'name' is {own['name']!r}; a profile has the name of its file, "
                f"'{file.stem}'. Leave the entry out."
            )
        own.pop("extends", None)
        whole = merged(whole, own)
    studies = whole.get("studies")
    for notebook in studies.values() if isinstance(studies, dict) else ():
        for name, study in notebook.items() if isinstance(notebook, dict) else ():
            if isinstance(study, dict) and "grid" in study:
                notebook[name] = with_settings(study, f"{path.name}: the study '{name}'")
    return whole


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the entries of `over` put in place, level by level; null removes one."""
    result = {k: merged(v, {}) if isinstance(v, Mapping) else v for k, v in base.items()}
    for key, value in over.items():
        if value is None and key in result:
            del result[key]
        elif isinstance(value, Mapping):
            below = result.get(key)
            result[key] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def with_settings(study: dict[str, Any], what: str) -> dict[str, Any]:
    """A study with the settings of its grid: every combination of the values of its entries.

    A grid {"name": "text {}, IDs {}", "alignment.text_ratio": [0.15, 0.3], …} holds, beside the
    pattern of the settings' names, lists of values by entry, level by level with dots between.
    """
    rest = {name: value for name, value in study.items() if name != "grid"}
    axes = dict(study["grid"]) if isinstance(study["grid"], dict) else {}
    pattern = axes.pop("name", None)
    lists = all(isinstance(values, list) and values for values in axes.values())
    named = isinstance(pattern, str) and pattern.count("{}") == len(axes)
    if rest.get("settings") or not (axes and lists and named):
        raise ValueError(
            f"{what} has a wrong grid: a grid holds a name as 'text {{}}, IDs {{}}', with {{}} for "
            "each entry, and a list of values for each, and takes the place of settings."
        )
    settings: dict[str, Any] = {}
    for values in itertools.product(*axes.values()):
        name = pattern
        for value in values:
            name = name.replace("{}", str(value), 1)
        if name in settings:
            raise ValueError(f"{what} has a wrong grid: it makes the setting '{name}' twice.")
        settings[name] = {}
        for entry, value in zip(axes, values, strict=True):
            for key in reversed(entry.split(".")):
                value = {key: value}
            settings[name] = merged(settings[name], value)
    return {**rest, "settings": settings}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m altlib.profile", description=__doc__)
    parser.add_argument("profile", help="a name from config/ or a YAML file")
    try:
        whole = content(find(parser.parse_args().profile))
    except (ValueError, OSError) as error:
        sys.exit(f"altlib: {error}")
    print(yaml.safe_dump(whole, sort_keys=False, width=100, default_flow_style=None), end="")


if __name__ == "__main__":
    main()
