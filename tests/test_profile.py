"""Profiles that extend others, grids, and the keys of all runs of config/."""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from altlib import fetch, plm, profile, runs

KEYS = Path(__file__).parent / "keys.json"


def written(folder: Path, **files: object) -> Path:
    """Files of YAML in `folder`, and the path of the last."""
    for name, content in files.items():
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder / f"{[*files][-1]}.yaml"


def test_own_entries_take_the_place_of_those_extended_and_null_removes(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        first={
            "data": {"dataset": "ml-100k", "split": "time"},
            "alpha": "free",
            "seeds": {"raw": [0]},
        },
        second={"extends": "first.yaml", "data": {"split": None}, "seeds": {"raw": [1, 2]}},
        third={"extends": "second.yaml", "alpha": None, "data": {"rows": 9}},
    )
    assert [file.stem for file in profile.files(path)] == ["third", "second", "first"]
    assert profile.content(path) == {
        "name": "third",
        "data": {"dataset": "ml-100k", "rows": 9},
        "seeds": {"raw": [1, 2]},
    }
    assert profile.content(tmp_path / "first.yaml")["alpha"] == "free"  # as it was


def test_null_without_anything_to_remove_stays_for_the_profile_to_judge() -> None:
    assert profile.merged({"a": {"b": 1}}, {"a": {"b": None, "c": None}}) == {"a": {"c": None}}


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    grid = {"name": "text {}, {}", "alignment.text_ratio": [0.1, 0.3], "plm.name": ["a", "b"]}
    study = {"seeds": [0], "variants": ["raw"], "grid": grid}
    path = written(tmp_path, mine={"studies": {"10_mask_ratio": {"ratios": study}}})
    found = profile.content(path)["studies"]["10_mask_ratio"]["ratios"]
    assert list(found["settings"]) == ["text 0.1, a", "text 0.1, b", "text 0.3, a", "text 0.3, b"]
    assert found["settings"]["text 0.3, a"] == {
        "alignment": {"text_ratio": 0.3},
        "plm": {"name": "a"},
    }
    assert found["seeds"] == [0] and "grid" not in found


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"alignment.icl": [True]}, "a grid holds a name"),
        ({"name": "{} {}", "alignment.icl": [True]}, "a grid holds a name"),
        ({"name": "{}", "alignment.icl": True}, "a grid holds a name"),
        ({"name": "{}"}, "a grid holds a name"),
        ([1], "a grid holds a name"),
        ({"name": "{}", "alignment.icl": [True, True]}, "makes the setting 'True' twice"),
    ],
)
def test_a_wrong_grid_is_named(tmp_path: Path, grid: object, words: str) -> None:
    studies = {"10_mask_ratio": {"ratios": {"seeds": [0], "grid": grid}}}
    path = written(tmp_path, mine={"studies": studies})
    with pytest.raises(
        ValueError, match=rf"mine.yaml: the study 'ratios' has a wrong grid: .*{words}"
    ):
        profile.content(path)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"a": {"extends": "b.yaml"}, "b": {"extends": "a.yaml"}},
            "b.yaml extends itself: b → a → b",
        ),
        ({"a": {"extends": "a.yaml"}}, "a.yaml extends itself: a → a"),
        (
            {"a": {"extends": "quik"}},
            "a.yaml extends 'quik'. There is no profile 'quik'; did you mean",
        ),
        ({"a": {"extends": ["quick"]}}, "a.yaml: 'extends' is .*; it is the name of one profile"),
        (
            {"b": {"name": "c"}, "a": {"extends": "b.yaml"}},
            "b.yaml: 'name' is 'c'; .* has the name of its file",
        ),
    ],
)
def test_what_cannot_be_extended_is_named(
    tmp_path: Path, files: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        profile.content(written(tmp_path, **files))


def test_show_prints_a_profile_that_stands_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["altlib.profile", "cpu"])
    profile.main()
    alone = written(tmp_path, cpu=capsys.readouterr().out)
    assert "extends" not in alone.read_text(encoding="utf-8")
    assert runs.load_profile(str(alone)) == runs.load_profile("cpu")


def keys() -> dict[str, dict[str, str]]:
    """The key of every run of every profile of config/, by what the run is called."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted((profile.PROJECT / "config").glob("*.yaml")):
        whole, of = runs.load_profile(path.stem), found.setdefault(path.stem, {})
        of |= {f"{r.variant}, seed {r.training.seed}": runs.finetuning_key(r) for r in whole.runs()}
        for notebook in whole.studies:
            for study, settings in runs.study_runs(path.stem, notebook).items():
                for setting, several in settings.items():
                    for run in several:
                        name = f"{study}, {setting}: {run.variant}, seed {run.training.seed}"
                        of[name] = runs.finetuning_key(run)
    return found


def test_every_run_is_found_by_the_key_that_it_was_made_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def weights(name: str) -> str:
        entry = fetch.PLMS.get(plm.split_name(name)[0])
        return entry.pinned["model.safetensors"] if entry else f"hub {name}"

    # As if all files were the pinned ones, without fetching them.
    monkeypatch.setattr(runs, "raw_checksums", lambda name: dict(fetch.DATA[name].pinned))
    monkeypatch.setattr(runs, "weights_checksum", weights)
    assert keys() == json.loads(KEYS.read_text(encoding="utf-8"))


ODD: list[object] = [
    *(None, True, False, 0, -1, 1, 10**40, 0.5, -0.5, 1.5, 1e400, float("nan"), "", "x", "3"),
    *([], [0], [True], [0, 0], [-1], ["x"], {}, {"x": 1}, [[1]], "\N{NO-BREAK SPACE}", "../x"),
]


def places(entries: object, *place: str) -> Iterator[tuple[str, ...]]:
    """Where something stands in nested entries."""
    for name, value in entries.items() if isinstance(entries, dict) else ():
        yield (*place, name)
        yield from places(value, *place, name)


@pytest.mark.parametrize("seed", range(30))
def test_an_odd_entry_is_refused_by_name_or_taken_as_it_is(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    for _ in range(5):
        whole = profile.content(profile.find("quick"))
        for name in ("07_baselines", "08_backbones", "09_ablations", "11_plm_scaling"):
            del whole["studies"][name]
        whole["alignment"] |= {"icl": True, "temperature": 0.1, "negatives": 5, "contrast": "dot"}
        whole["text"] = {"max_length": 60, "leave_out": ["zipcode"]}
        whole["ctr"] |= {"embedding": 8, "hidden": [16], "dropout": 0.1}
        place = rng.choice(list(places(whole)))
        at: dict[str, Any] = whole
        for name in place[:-1]:
            at = at[name]
        at[place[-1]] = odd = rng.choice(ODD)
        path = written(tmp_path, quick=whole)
        try:
            found: Any = asdict(runs.load_profile(str(path)))
            for notebook in whole.get("studies") or ():
                runs.study_runs(str(path), notebook)
        except ValueError as error:
            told = str(error)
            assert "quick" in told or place[-1] in told or any(name in told for name in place), told
            assert "\n" not in told and told.endswith((".", "?")), told
            continue
        for name in place:
            found = found.get(name)
        plain = list(found) if isinstance(found, tuple) else found
        same = plain == (float(odd) if odd in ("3", 10**40) else odd)  # a number in quotes is one
        same &= isinstance(plain, bool) == isinstance(odd, bool)
        assert same or odd is None or odd == {} or place[0] == "studies", (place, odd, found)
