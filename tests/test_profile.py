"""Profiles that extend others, grids, and the keys of all runs of config/."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from altlib import profile
from altlib.lab.keys import finetuning_key
from altlib.profile import PUBLISHED, REPORT_NAMES, load_profile, study_runs
from altlib.store import PROJECT

KEYS = Path(__file__).parent / "keys.json"
TINY = str(Path(__file__).parent / "tiny.yaml")


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
    assert load_profile(str(alone)) == load_profile("cpu")


def studies(**changes: Any) -> dict[str, Any]:
    """A profile's study with an entry in place."""
    study = {"settings": {"one": {}}, "seeds": [0], "variants": ["raw"]} | changes
    return {"studies": {"09_ablations": {"new": study}}}


def test_every_profile_of_the_project_is_valid() -> None:
    names = [path.stem for path in (PROJECT / "config").glob("*.yaml")]
    assert {"quick", "cpu", "paper"} <= set(names)
    for name in names:
        profile = load_profile(name)
        assert profile.runs() and profile.name == name
        for notebook in profile.studies:
            assert study_runs(name, notebook)


def test_a_study_pretrains_for_each_seed_or_once_for_all(tmp_path: Path) -> None:
    def pretrained(**changes: Any) -> list[int]:
        entries = studies(seeds=[3, 5], variants=["alt_ctr"], **changes)["studies"]
        path = tmp_path / "mine.yaml"
        start = Path(TINY).read_text().partition("studies:")[0]
        path.write_text(f"{start}studies: {json.dumps(entries)}")
        (several,) = study_runs(str(path), "09_ablations")["new"].values()
        assert [run.training.seed for run in several] == [3, 5]
        return [run.pretraining.training.seed for run in several if run.pretraining]

    assert pretrained() == [3, 5]
    assert pretrained(pretraining_seed=7) == [7, 7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretraning": {}}, r"no entry 'pretraning'; did you mean 'pretraining'\?"),
        ({"alignment": {"negative": 3}}, r"'alignment.negative'; did you mean 'negatives'\?"),
        ({"finetuning": {"ctr": {"epoch": 3}}}, r"'finetuning.ctr.epoch'; did you mean 'epochs'"),
        ({"pretraining": {"epochs": "many"}}, r"'pretraining.epochs' is 'many': .*integer"),
        ({"alignment": {"contrast": "cos"}}, r"'alignment.contrast' is 'cos': .*'cosine' or 'dot'"),
        ({"alignment": {"text_ratio": 2}}, r"text_ratio is 2.0; it must lie in"),
        ({"seeds": {"alt_crt": [0]}}, r"variant 'alt_crt'; did you mean 'alt_ctr'\?"),
        (
            {"seeds": {"raw": [0, 0]}},
            r"tiny.yaml: seeds.raw is \[0, 0\]: duplicate seed",
        ),
        ({"finetuning": {"ctr": {"patience": 0}}}, r"'finetuning.ctr.patience' is 0: .*greater"),
        ({"pretraining": {"patience": 2}}, r"pretraining.patience has no meaning"),
        ({"alignment": {"temperature": 0}}, r"'alignment.temperature' is 0: .*greater than 0"),
        ({"data": {"dataset": "synthetic", "min_count": 0}}, r"'data.min_count' is 0: .*greater"),
        ({"text": {"template": "{field}"}}, r"tiny.yaml: text.template is '{field}'; it must hold"),
        ({"plm": None}, r"the entry 'plm' is missing"),
        (studies(variants=["alt_crt"]), r"The setting 'one' of a study finetunes 'alt_crt'"),
        (studies(seeds=[]), r"A study's seeds are empty"),
        (studies(seeds=[1, 1]), r"duplicate seed"),
        ({"studies": {"09_ablation": {}}}, r"notebook '09_ablation'; did you mean"),
        (
            {
                "studies": {
                    "08_backbones": {
                        "main": {"settings": {"a": {}}, "seeds": [0], "variants": ["raw"]}
                    }
                }
            },
            r"The study 'main' has a name that is taken",
        ),
        ({"finetuning": {"lang": {"select_on": "test"}}}, r"mixes early stopping on test and val"),
        ({"pretraining": {"batch": 1}}, r"pretraining.batch is 1, and ICL compares the rows"),
        (studies(base={"threads": 2}), r"'threads', which is the same for all runs"),
        (
            {"studies": {"09_ablations": {"x": {"settings": {"a": {"seeds": {"raw": [9]}}}}}}},
            r"The setting 'a' of a study has 'seeds', which is the same for all runs",
        ),
        ({"finetuning": {"both": {"seed": 7}}}, r"finetuning has a seed; those under seeds"),
        ({"seeds": {"p5": [0]}}, r"seeds names the variant 'p5'"),
        ({"seeds": {"raw": [-1]}}, r"'seeds.raw.0' is -1: .*greater than or equal to 0"),
        ({"seeds": {"raw": [10**300]}}, r"'seeds.raw.0' is 10+: .*less than"),
        ({"seeds": {"raw": []}}, r"seeds.raw is empty"),
        ({"seeds": {"raw": [True]}}, r"'seeds.raw.0' is true or false; it must be a number"),
        ({"finetuning": {"ctr": {"epochs": True}}}, r"'finetuning.ctr.epochs' is true or false"),
        ({"ctr": {"hidden": [16, True]}}, r"'ctr.hidden.1' is true or false"),
        ({"text": {"max_length": -5}}, r"'text.max_length' is -5: .*greater"),
        ({"plm": {"dropout": 1.5}}, r"'plm.dropout' is 1.5: .*less than 1"),
        ({"plm": {"name": ""}}, r"'plm.name' is '': .*at least 1 character"),
        ({"pretraining": {"embedding_l2": 1e300}}, r"'pretraining.embedding_l2' is .*less than"),
        ({"pretraining": {"rate": float("inf")}}, r"'pretraining.rate' is inf: .*finite"),
        ({"finetuning": {"ctr": {"weight_decay": float("nan")}}}, r"weight_decay' is nan: "),
        ({"ctr": {"embedding": 10**12}}, r"'ctr.embedding' is 1000000000000: .*less"),
        ({"alignment": {"negatives": 10**9}}, r"'alignment.negatives' is 1000000000: .*less"),
        ({"finetuning": {"ctr": {"accumulation": 10**30}}}, r"accumulation' is 10+: .*less"),
        ({"ctr": {"backbone": "dcn2"}}, r"no backbone 'dcn2'; did you mean 'dcnv2'\?"),
        ({"ctr": {"backbone": "autoint", "attention_heads": 3}}, r"AutoInt splits .*_heads = 3"),
        (studies(seeds=[-1]), r"'studies.09_ablations.new.seeds.0' is -1"),
        (studies(settings={"a b": {}, "A&b": {}}), r"setting 'A&b' of 'new' .* files as 'a b'"),
        (studies(settings={"long" * 60: {}}), r"has too long a name"),
        (studies(settings={"x": {"data": {}}}), r"setting 'x' of a study changes the data"),
        (
            studies(settings={"x": {"pretraining": {"seed": 1}}}),
            r"setting 'x' of a study has a seed",
        ),
    ],
)
def test_a_fault_in_a_profile_is_one_clear_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_profile(TINY, changes)
    assert "\n" not in str(error.value)


def test_settings_that_are_the_same_runs_are_refused(tmp_path: Path) -> None:
    settings = "{one: {}, two: {plm: {dropout: 0.3}}, three: {ctr: {dropout: 0.3}}}"
    study = f"studies: {{09_ablations: {{x: {{settings: {settings}, variants: [raw]}}}}}}\n"
    (tmp_path / "mine.yaml").write_text(f"extends: {TINY}\n{study}")
    with pytest.raises(
        ValueError, match=r"The settings 'one' and 'two' of the study 'x' of .* same"
    ):
        study_runs(str(tmp_path / "mine.yaml"), "09_ablations")


def test_a_preset_is_not_taken_back_without_a_word(tmp_path: Path) -> None:
    text = Path(TINY).read_text() + "preset: published\nalpha: null\n"
    (tmp_path / "theirs.yaml").write_text(text)
    theirs = load_profile(str(tmp_path / "theirs.yaml"))
    assert (theirs.alpha, theirs.alignment.contrast) == ("sigmoid", "dot")  # null goes before it
    (tmp_path / "mine.yaml").write_text("extends: theirs.yaml\npreset: corrected\n")
    with pytest.raises(ValueError, match="'published' of a profile cannot be taken back"):
        load_profile(str(tmp_path / "mine.yaml"))


def test_a_null_that_is_said_twice_stays_a_null(tmp_path: Path) -> None:
    base = "      base: {finetuning: {ctr: {patience: null}}}\n"
    study = "studies:\n  09_ablations:\n    mine:\n" + base
    own = (
        Path(TINY).read_text()[: Path(TINY).read_text().index("studies:")]
        + study
        + "      settings: {a: {}}\n"
    )
    (tmp_path / "theirs.yaml").write_text(own)
    (tmp_path / "mine.yaml").write_text("extends: theirs.yaml\n" + study)
    for name in ("theirs", "mine"):
        (run,) = study_runs(str(tmp_path / f"{name}.yaml"), "09_ablations")["mine"]["a"]
        assert run.training.patience is None
    assert load_profile(str(tmp_path / "mine.yaml")).finetuning.ctr.patience is not None


@pytest.mark.parametrize("name", [*REPORT_NAMES, "Main", "a/b", "../data", ".", "", "a b"])
def test_a_study_has_a_name_of_its_own(name: str) -> None:
    study = {"settings": {"one": {}}, "seeds": [0], "variants": ["raw"]}
    with pytest.raises(ValueError, match=f"The study '{name}' has a name that"):
        load_profile(TINY, {"studies": {"09_ablations": {name: study}}})


def test_a_study_is_not_called_as_a_part_of_another() -> None:
    study = {"settings": {"one": {}}, "seeds": [0], "variants": ["raw"]}
    for names in (("sizes", "sizes_cost"), ("sizes_cost", "sizes"), ("sizes", "Sizes")):
        with pytest.raises(ValueError, match="has a name that is taken"):
            load_profile(TINY, {"studies": {"09_ablations": dict.fromkeys(names, study)}})


def test_every_table_and_figure_of_the_notebooks_is_a_name_that_studies_may_not_have() -> None:
    written = set()
    for path in (PROJECT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            code = "".join(cell["source"])
            if "show.write(" in code or "figures.save(" in code:
                written |= set(re.findall(r'\b(?:report|folder),\s*"(\w+)"', code))
            if "figures.save(figure, report, name, alt)" in code:
                written |= set(re.findall(r'"(\w+)": \(', code))
    assert {"main", "data", "serving", "cold", "auc"} <= written <= set(REPORT_NAMES)


@pytest.mark.parametrize("name", ["../../victim", "/tmp/victim", "other", "7"])
def test_a_profile_is_called_as_its_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"name: {name}\n{Path(TINY).read_text()}")
    with pytest.raises(
        ValueError, match=r"'name' is .*; a profile has the name of its file, 'mine'"
    ):
        load_profile(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("file", ["...yaml", "benchmarks.yaml"])
def test_the_reports_of_a_profile_have_a_folder_of_their_own(file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(Path(TINY).read_text())
    with pytest.raises(ValueError, match="its folder under reports/"):
        load_profile(str(tmp_path / file))


def test_a_study_has_one_rule_of_early_stopping(tmp_path: Path) -> None:
    settings = {"corrected": {}, "published": {"preset": "published"}}
    entries = studies(settings=settings, variants=["alt_ctr"])["studies"]
    start = Path(TINY).read_text().partition("studies:")[0]
    (tmp_path / "mine.yaml").write_text(f"{start}studies: {json.dumps(entries)}")
    with pytest.raises(ValueError, match="mixes early stopping on"):
        study_runs(str(tmp_path / "mine.yaml"), "09_ablations")


def test_a_fault_in_a_setting_names_it(tmp_path: Path) -> None:
    entries = studies(settings={"wide": {"ctr": {"hiden": [4]}}}, variants=["raw"])["studies"]
    start = Path(TINY).read_text().partition("studies:")[0]
    (tmp_path / "mine.yaml").write_text(f"{start}studies: {json.dumps(entries)}")
    with pytest.raises(ValueError, match=r"setting 'wide' of a study is wrong: .*'hidden'"):
        study_runs(str(tmp_path / "mine.yaml"), "09_ablations")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("data: {dataset: [", "mine.yaml is not a YAML file: .*line 1"),
        ("", "mine.yaml holds no entries"),
        ("- data", "mine.yaml holds no entries"),
        ("data: {dataset: synthetic}", "mine.yaml: the entry 'plm' is missing"),
    ],
)
def test_a_faulty_profile_file_is_one_clear_sentence(
    content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        load_profile(str(tmp_path / "mine.yaml"))
    assert "\n" not in str(error.value)


def test_an_unknown_profile_suggests_a_known_one() -> None:
    with pytest.raises(ValueError, match=r"no profile 'quik'; did you mean 'quick'\?"):
        load_profile("quik")


def test_a_profile_s_path_is_looked_for_here_and_in_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_profile("config/quick.yaml") == load_profile("quick")
    (tmp_path / "mine.yaml").write_text(Path(TINY).read_text())
    assert load_profile("mine.yaml").name == "mine"
    with pytest.raises(ValueError, match=rf"no profile their.yaml in {tmp_path} or in {PROJECT}"):
        load_profile("their.yaml")


def test_the_published_preset_sets_every_switch_and_a_profile_s_own_lines_go_first() -> None:
    published = load_profile(TINY, {"preset": "published", "alignment": {"negatives": 5}})
    default = load_profile(TINY)
    assert published.alignment.negatives == 5
    assert published.alpha == "free"
    assert published.finetuning.ctr.select_on == "test"
    assert published.finetuning.ctr.embedding_l2 == 1e-3
    assert published.text.pad == "maximum"
    for name, value in PUBLISHED["alignment"].items():
        assert getattr(published.alignment, name) == value != getattr(default.alignment, name)


def keys() -> dict[str, dict[str, str]]:
    """The key of every run of every profile of config/, by what the run is called."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted((PROJECT / "config").glob("*.yaml")):
        whole, of = load_profile(path.stem), found.setdefault(path.stem, {})
        of |= {f"{r.variant}, seed {r.training.seed}": finetuning_key(r) for r in whole.runs()}
        for notebook in whole.studies:
            for study, settings in study_runs(path.stem, notebook).items():
                for setting, several in settings.items():
                    for run in several:
                        name = f"{study}, {setting}: {run.variant}, seed {run.training.seed}"
                        of[name] = finetuning_key(run)
    return found


def test_every_run_is_found_by_the_key_that_it_was_made_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ALTLIB_DATA", "ALTLIB_PLM"):
        monkeypatch.delenv(name, raising=False)
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
        for name in [name for name in whole["studies"] if name != "10_mask_ratio"]:
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
            found: Any = asdict(load_profile(str(path)))
            for notebook in whole.get("studies") or ():
                study_runs(str(path), notebook)
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
        assert same or odd is None or odd == {} or place[0] in ("studies", "tuned", "tuning"), (
            place,
            odd,
            found,
        )
