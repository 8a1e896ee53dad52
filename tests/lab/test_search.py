"""Which rows are tuned, over what, and that a trial is the run that the tables would have."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from altlib import profile
from altlib.lab import jobs, search
from altlib.lab.search import Search, searches
from altlib.profile import Range, load_profile

TINY = Path(__file__).parents[1] / "tiny.yaml"
TUNING: dict[str, Any] = {
    "trials": 3,
    "studies": ["id_models", "backbones"],
    "space": {
        "ctr.dropout": [0.0, 0.2],
        "finetuning.ctr.rate": {"low": 3e-4, "high": 1e-2, "log": True},
        "finetuning.lang.rate": {"low": 3e-4, "high": 1e-2},
        "finetuning.both.rate": {"low": 3e-4, "high": 1e-2},
        "pretraining.rate": {"low": 3e-4, "high": 1e-2},
        "alignment.noise": ["field", "all"],
    },
}


def write(folder: Path, plm: str = "tiny", **changes: Any) -> str:
    """A profile beside tiny.yaml that says how it is tuned."""
    (folder / "tiny.yaml").write_text(TINY.read_text(encoding="utf-8"), encoding="utf-8")
    content = {"extends": "tiny.yaml", "plm": {"name": plm}, "tuning": TUNING}
    path = folder / "mine.yaml"
    path.write_text(
        yaml.safe_dump(profile.merged(content, changes), sort_keys=False), encoding="utf-8"
    )
    return str(path)


def named(name: str) -> dict[str, Search]:
    return {one.name: one for one in searches(name)}


def test_every_row_is_tuned_once_over_what_it_reads(tmp_path: Path) -> None:
    rows = named(write(tmp_path))
    assert {name: list(row.space) for name, row in rows.items()} == {
        "raw": ["ctr.dropout", "finetuning.ctr.rate"],
        "alt_ctr": ["ctr.dropout", "finetuning.ctr.rate", "pretraining.rate", "alignment.noise"],
        "plain_lang": ["finetuning.lang.rate"],
        "plain_both": ["ctr.dropout", "finetuning.both.rate"],
        "id_models, AFM: raw": ["ctr.dropout", "finetuning.ctr.rate"],
        "id_models, DCN: raw": ["ctr.dropout", "finetuning.ctr.rate"],
        "alt_lang": ["finetuning.lang.rate"],
        "alt_both": ["finetuning.both.rate"],
    }
    assert rows["alt_ctr"].places[1] == ("08_backbones", "backbones", "DCNv2")  # the same run
    assert {name for name, row in rows.items() if row.leader} == {"alt_lang", "alt_both"}
    assert {row.trials for row in rows.values()} == {3}
    assert rows["raw"].first == {"ctr.dropout": 0.0, "finetuning.ctr.rate": 1e-3}


def test_trials_have_their_own_share_of_the_rows(tmp_path: Path) -> None:
    """Whatever share the study itself has, so that a row of several tables is tuned once."""
    fifth, tenth = ({"base": {"data": {"train_share": share}}} for share in (0.2, 0.1))
    studies = {"08_backbones": {"backbones": fifth}}
    rows = named(write(tmp_path, tuning=tenth, studies=studies))
    assert {row.run(row.first).data.train_share for row in rows.values()} == {0.1}
    assert rows["alt_ctr"].places[1] == ("08_backbones", "backbones", "DCNv2")


def test_another_id_model_starts_from_the_pretraining_that_was_chosen(tmp_path: Path) -> None:
    settings = {
        "DeepFM": {"ctr": {"backbone": "deepfm"}},
        "all noise": {"alignment": {"noise": "all"}},
    }
    rows = named(write(tmp_path, studies={"08_backbones": {"backbones": {"settings": settings}}}))
    deepfm = rows["backbones, DeepFM: alt_ctr"]
    assert deepfm.leader and list(deepfm.space) == ["finetuning.ctr.rate"]
    aligned = {"ctr.dropout": 0.2, "pretraining.rate": 0.002, "finetuning.ctr.rate": 0.003}
    run = deepfm.run({"finetuning.ctr.rate": 0.004}, aligned)
    assert run.pretraining is not None and run.pretraining.ctr.backbone == "deepfm"
    assert (run.training.rate, run.pretraining.training.rate) == (0.004, 0.002)
    other = rows["backbones, all noise: alt_ctr"]
    assert not other.leader and "pretraining.rate" in other.space
    assert "alignment.noise" not in other.space
    base = {"base": {"alignment": {"noise": "all"}}}  # of a study says as much as a setting's own
    rows = named(write(tmp_path, studies={"08_backbones": {"backbones": base}}))
    other = rows["backbones, DCNv2: alt_ctr"]
    assert not other.leader and "pretraining.rate" in other.space


def test_choices_have_the_type_of_their_entry(tmp_path: Path) -> None:
    space = {"finetuning.ctr.rate": ["1e-3", "1e-2"]}  # as YAML has 1e-3
    row = named(write(tmp_path, tuning={"space": {**dict.fromkeys(TUNING["space"]), **space}}))
    assert row["raw"].space == {"finetuning.ctr.rate": [0.001, 0.01]}


def test_a_setting_is_not_searched_for_what_it_says(tmp_path: Path) -> None:
    dropout = {
        "studies": {"07_baselines": {"id_models": {"settings": {"AFM": {"ctr": {"dropout": 0.2}}}}}}
    }
    row = named(write(tmp_path, **dropout))["id_models, AFM: raw"]
    assert list(row.space) == ["finetuning.ctr.rate"]
    assert row.run({"finetuning.ctr.rate": 0.002}).ctr.dropout == 0.2  # type: ignore[union-attr]


def test_what_is_chosen_becomes_the_runs_of_the_tables(tmp_path: Path) -> None:
    name = write(tmp_path)
    rows = named(name)
    values = {
        "raw": {"ctr.dropout": 0.2, "finetuning.ctr.rate": 0.002},
        "alt_ctr": {
            "ctr.dropout": 0.2,
            "finetuning.ctr.rate": 0.003,
            "pretraining.rate": 0.004,
            "alignment.noise": "all",
        },
        "alt_both": {"finetuning.both.rate": 0.005},
        "id_models, AFM: raw": {"ctr.dropout": 0.0, "finetuning.ctr.rate": 0.006},
    }
    file = profile.chosen(Path(name))
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(search.chosen([(rows[r], v) for r, v in values.items()])))
    tuned = load_profile(name)
    for row, of in values.items():
        start = values["alt_ctr"] if rows[row].leader else None
        made = rows[row].run(of, start)
        if ":" not in row:
            assert tuned.run(row, 0) == made
    start, both = tuned.run("alt_ctr", 0).pretraining, tuned.run("alt_both", 0)
    assert both.pretraining == start and both.ctr == start.ctr  # or weights would not fit
    assert tuned.aligned().training.rate == 0.004
    planned = profile.study_runs(name, "07_baselines")["id_models"]
    assert planned["AFM"] == [rows["id_models, AFM: raw"].run(values["id_models, AFM: raw"])]
    backbones = profile.study_runs(name, "08_backbones")["backbones"]["DCNv2"]
    assert [run.training.rate for run in backbones] == [0.002, 0.003]
    assert str(file) in map(str, profile.files(Path(name)))
    assert searches(name) == list(rows.values()), "tuning starts from what the profile itself says"


def test_what_is_said_later_goes_before_what_was_chosen(tmp_path: Path) -> None:
    name = write(tmp_path)
    tuned = {"alt_ctr": {"alignment": {"noise": "all"}, "finetuning": {"ctr": {"rate": 0.003}}}}
    file = profile.chosen(Path(name))
    file.parent.mkdir()
    file.write_text(yaml.safe_dump({"tuned": tuned}))
    assert load_profile(name).run("alt_ctr", 0).training.rate == 0.003
    changed = load_profile(name, {"finetuning": {"ctr": {"rate": 0.007}}}).run("alt_ctr", 0)
    assert changed.training.rate == 0.007
    assert changed.pretraining.alignment.noise == "all"  # type: ignore[union-attr]
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text("extends: mine.yaml\nalignment: {noise: field}\n")
    run = load_profile(str(theirs)).run("alt_ctr", 0)
    assert run.pretraining.alignment.noise == "field"  # type: ignore[union-attr]
    assert run.training.rate == 0.003


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"space": {"ctr.dropuot": [0.0, 0.1]}}, "names 'ctr.dropuot', which cannot be searched"),
        ({"space": {"pretraining.rat": [1e-3, 1e-2]}}, "'pretraining.rat'.* did you mean 'rate'"),
        ({"space": {"pretraining.seed": [0, 1]}}, "'pretraining.seed', which cannot be searched"),
        ({"space": {"finetuning.ctr": [0.0, 1.0]}}, "'finetuning.ctr', which cannot be"),
        ({"space": {"ctr.dropout": {"low": 0.3, "high": 0.1}}}, "from 0.3 to 0.1 must rise"),
        ({"space": {"ctr.dropout": {"low": 0.0, "high": 1.0, "log": True}}}, "cannot begin at 0"),
        ({"space": {"ctr.dropout": [0.1, 0.2]}}, "'ctr.dropout|ctr.dropout does not hold 0.0"),
        ({"space": {"ctr.dropout": [0.0]}}, "give a range or two choices"),
        ({"space": {"nodes": [1, 2]}}, "names 'nodes', which cannot be searched"),
        ({"space": {"data.min_count": [1, 2]}}, "'data.min_count', which cannot be searched"),
        ({"space": {"ctr.embedding": [8, 16]}}, "'ctr.embedding', which cannot be searched"),
        ({"space": {"alignment.noise": ["field", "al"]}}, "In tuning.space of .*'alignment.noise'"),
        (
            {"space": {"finetuning.ctr.batch": {"low": 64, "high": 512}}},
            "'finetuning.ctr.batch' is 235.1.*: .*integer",
        ),
        ({"studies": ["id_model"]}, "tuning.studies names 'id_model'; did you mean 'id_models'"),
        ({"trials": 0}, "greater than or equal to 1"),
        ({"tirals": 3}, "there is no entry 'tuning.tirals'; did you mean 'trials'"),
    ],
)
def test_a_wrong_search_is_a_sentence(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        searches(write(tmp_path, tuning=changes))


def test_a_profile_that_says_nothing_of_tuning_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tiny.yaml has no entry 'tuning'"):
        searches(str(TINY))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("tuned: {alt_crt: {}}", "tuned names the variant 'alt_crt'; did you mean 'alt_ctr'"),
        ("tuned: {raw: {ctr: {dropuot: 1}}}", "tuned.raw: there is no entry 'ctr.dropuot'"),
        ("studies: {07_baselines: {id_models: {settings: {FM: {}}}}}", "names 'FM', which mine"),
    ],
)
def test_a_wrong_choice_is_a_sentence(tmp_path: Path, content: str, told: str) -> None:
    name = write(tmp_path)
    file = profile.chosen(Path(name))
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(ValueError, match=told):
        load_profile(name)


def test_a_row_is_a_job_and_those_that_follow_wait(tmp_path: Path) -> None:
    plan = jobs.tuning(write(tmp_path))
    rows = {
        job.makes[0].name: job for job in plan.jobs.values() if isinstance(job.makes[0], Search)
    }
    assert set(rows) == set(named(str(tmp_path / "mine.yaml")))
    assert rows["alt_ctr"].name in rows["alt_both"].needs
    assert rows["alt_ctr"].name not in rows["raw"].needs
    assert all(need in plan.jobs for job in rows.values() for need in job.needs)
    assert "alt_ctr: 3 trials over ctr.dropout" in jobs.listed(plan)


def test_a_range_holds_its_ends() -> None:
    assert Range(0.1, 0.3).holds(0.3) and Range(0.1, 0.3).holds(0.1)
    assert not Range(0.1, 0.3).holds(0.31) and not Range(0.1, 0.3).holds("0.2")


def test_a_trial_is_the_run_that_the_tables_will_have(tmp_path: Path) -> None:
    """Whatever a study's base or a setting says, and whether a row starts anew or follows."""
    studies = {
        "07_baselines": {
            "id_models": {"base": {"finetuning": {"ctr": {"weight_decay": 0.01}}}},
        },
        "08_backbones": {
            "backbones": {
                "variants": ["raw", "alt_ctr", "alt_both"],
                "settings": {
                    "DeepFM": {"ctr": {"backbone": "deepfm", "dropout": 0.1}},
                    "slow": {"finetuning": {"ctr": {"rate": 1e-4}}},
                    "no MTM": {"alignment": {"mtm": False}},
                    "published": {
                        "preset": "published",
                        "finetuning": {
                            kind: {"select_on": "validation"} for kind in ("ctr", "lang", "both")
                        },
                    },
                },
            }
        },
    }
    name = write(tmp_path, studies=studies)
    rows = searches(name)
    draw = iter(range(1, 10_000))
    values = {
        row.name: {
            entry: of[next(draw) % 2]
            if isinstance(of, list)
            else round(of.low + 1e-5 * next(draw), 6)
            for entry, of in row.space.items()
        }
        for row in rows
    }
    file = profile.chosen(Path(name))
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(search.chosen([(row, values[row.name]) for row in rows])))
    tuned = load_profile(name)
    assert len(rows) > 15 and {bool(row.leader) for row in rows} == {True, False}
    for row in rows:
        made = row.run(values[row.name], values["alt_ctr"] if row.leader else None)
        for notebook, study, setting in row.places:
            if not study:
                assert tuned.run(row.variant, 0) == made, row.name
                continue
            runs = profile.study_runs(name, notebook)[study][setting]
            assert made in runs, (row.name, setting)


def test_what_is_said_later_goes_before_what_was_chosen_for_a_setting(tmp_path: Path) -> None:
    name = write(tmp_path)
    file = profile.chosen(Path(name))
    file.parent.mkdir()
    of = {"raw": {"ctr": {"dropout": 0.2}, "finetuning": {"ctr": {"rate": 0.003}}}}
    settings = {"AFM": {"tuned": of}, "DCN": {"tuned": of}}
    chosen = {"studies": {"07_baselines": {"id_models": {"settings": settings}}}}
    file.write_text(yaml.safe_dump(chosen))

    def afm(profile_name: str) -> tuple[float, float]:
        run = profile.study_runs(profile_name, "07_baselines")["id_models"]["AFM"][0]
        assert run.ctr is not None
        return run.ctr.dropout, run.training.rate

    assert afm(name) == (0.2, 0.003)
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text("extends: mine.yaml\nfinetuning: {ctr: {rate: 0.007}}\n")
    assert afm(str(theirs)) == (0.2, 0.007)
    study = "{07_baselines: {id_models: {settings: {AFM: {ctr: {dropout: 0.3}}}}}}"
    theirs.write_text(f"extends: mine.yaml\nstudies: {study}\n")
    assert afm(str(theirs)) == (0.3, 0.003)
    theirs.write_text(
        "extends: mine.yaml\nstudies: {07_baselines: {id_models: {base: {ctr: {dropout: 0.4}}}}}\n"
    )
    assert afm(str(theirs)) == (0.4, 0.003)
