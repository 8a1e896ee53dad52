"""Configurations, keys, and steps that are found or made."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from altlib import fetch, runs, tables
from altlib.runs import Profile, load_profile
from altlib.schema import LabelRule

TINY = str(Path(__file__).with_name("tiny.yaml"))


@pytest.fixture
def profile(tiny_plm: str) -> Profile:
    return load_profile(TINY, {"plm": {"name": tiny_plm}})


def studies(**changes: Any) -> dict[str, Any]:
    """A profile's study with an entry in place."""
    study = {"settings": {"one": {}}, "seeds": [0], "variants": ["raw"]} | changes
    return {"studies": {"09_ablations": {"new": study}}}


def test_every_profile_of_the_project_is_valid() -> None:
    names = [path.stem for path in (runs.PROJECT / "config").glob("*.yaml")]
    assert {"quick", "cpu", "paper"} <= set(names)
    for name in names:
        profile = load_profile(name)
        assert profile.runs() and profile.name == name
        for notebook in profile.studies:
            assert runs.study_runs(name, notebook)


def test_a_study_pretrains_for_each_seed_or_once_for_all(tmp_path: Path) -> None:
    def pretrained(**changes: Any) -> list[int]:
        entries = studies(seeds=[3, 5], variants=["alt_ctr"], **changes)["studies"]
        path = tmp_path / "mine.yaml"
        start = Path(TINY).read_text().partition("studies:")[0]
        path.write_text(f"{start}studies: {json.dumps(entries)}")
        (several,) = runs.study_runs(str(path), "09_ablations")["new"].values()
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


@pytest.mark.parametrize("name", [*runs.REPORT_NAMES, "Main", "a/b", "../data", ".", "", "a b"])
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
    for path in (runs.PROJECT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            code = "".join(cell["source"])
            if "tables.write(" in code or "figures.save(" in code:
                written |= set(re.findall(r'\b(?:report|folder),\s*"(\w+)"', code))
            if "tables.write(table, folder, name)" in code:
                written |= set(re.findall(r'"(\w+)": \w+', code))
    assert {"main", "data", "serving", "cold", "auc"} <= written <= set(runs.REPORT_NAMES)


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
        runs.study_runs(str(tmp_path / "mine.yaml"), "09_ablations")


def test_a_fault_in_a_setting_names_it(tmp_path: Path) -> None:
    entries = studies(settings={"wide": {"ctr": {"hiden": [4]}}}, variants=["raw"])["studies"]
    start = Path(TINY).read_text().partition("studies:")[0]
    (tmp_path / "mine.yaml").write_text(f"{start}studies: {json.dumps(entries)}")
    with pytest.raises(ValueError, match=r"setting 'wide' of a study is wrong: .*'hidden'"):
        runs.study_runs(str(tmp_path / "mine.yaml"), "09_ablations")


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
    with pytest.raises(
        ValueError, match=rf"no profile their.yaml in {tmp_path} or in {runs.PROJECT}"
    ):
        load_profile("their.yaml")


def test_the_published_preset_sets_every_switch_and_a_profile_s_own_lines_go_first() -> None:
    published = load_profile(TINY, {"preset": "published", "alignment": {"negatives": 5}})
    default = load_profile(TINY)
    assert published.alignment.negatives == 5
    assert published.alpha == "free"
    assert published.finetuning.ctr.select_on == "test"
    assert published.finetuning.ctr.embedding_l2 == 1e-3
    assert published.text.pad == "maximum" and published.text.tokens == "sentence"
    for name, value in runs.PUBLISHED["alignment"].items():
        assert getattr(published.alignment, name) == value != getattr(default.alignment, name)


def test_keys_follow_what_a_step_depends_on_and_nothing_else(tiny_plm: str) -> None:
    def keys(changes: dict[str, Any]) -> dict[str, str]:
        made = load_profile(TINY, runs.merged({"plm": {"name": tiny_plm}}, changes))
        found = {v: runs.finetuning_key(made.run(v, 0)) for v in runs.VARIANTS}
        return {**found, "pretraining": runs.pretraining_key(made.aligned())}

    base = keys({})

    def changed(changes: dict[str, Any]) -> set[str]:
        return {name for name, key in keys(changes).items() if key != base[name]}

    aligned = {"alt_ctr", "alt_lang", "alt_both", "pretraining"}
    assert changed({"alignment": {"negatives": 7}}) == aligned
    read_alone = {"plain_lang", "ctr_bert", "p5"}
    assert changed({"finetuning": {"lang": {"rate": 0.5}}}) == read_alone | {"alt_lang"}
    assert changed({"text": {"max_length": 30}}) == aligned | read_alone | {"plain_both"}
    assert changed({"data": {"min_count": 5}}) == {*runs.VARIANTS, "pretraining"}
    assert changed({"name": "other", "seeds": {"raw": [3]}}) == set()


def test_a_key_holds_every_file_of_a_plm(tiny_plm: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(tiny_plm, folder)
    run = load_profile(TINY, {"plm": {"name": str(folder)}}).run("plain_lang", 0)
    text = runs.TextConfig()

    def keys() -> tuple[str, str]:
        assert run.plm
        return runs.finetuning_key(run), runs.text_key(run.data, text, run.plm)

    seen = [keys()]
    for name in ("tokenizer.json", "config.json", "tokenizer_config.json", "added_tokens.json"):
        with (folder / name).open("a") as file:
            file.write(" ")
        seen.append(keys())
    (folder / "README.md").write_text("It changes nothing.")
    assert len(set(seen)) == 5 and keys() == seen[-1]


def test_the_pin_of_the_weights_stands_for_all_files_of_a_pinned_plm(
    tiny_plm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pinned"
    shutil.copytree(tiny_plm, folder)
    files = "\n".join(f"{fetch.sha256(file)}  {file.name}" for file in folder.iterdir())
    entry = fetch.Entry(files=files, size="", note="", user=("pinned",))
    monkeypatch.setitem(fetch.PLMS, "pinned", entry)
    monkeypatch.setenv("ALTLIB_PLM", str(tmp_path))
    weights = fetch.sha256(folder / "model.safetensors")
    assert runs.weights_checksum("pinned") == runs.weights_checksum("pinned:1") == weights
    (folder / "added_tokens.json").write_text("{}")
    assert runs.weights_checksum("pinned") != weights


def test_steps_are_made_once_and_found_again(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = runs.finetune(profile.run("alt_ctr", 0))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(runs, "fit", never)
    assert runs.finetune(profile.run("alt_ctr", 0)) == first
    leftovers = [p for p in (runs.home() / "artifacts").rglob("*") if "unfinished" in p.name]
    assert not leftovers and not list((runs.home() / "artifacts/checkpoints").iterdir())


@pytest.mark.parametrize("selection", ["validation", "test"])
def test_training_sees_training_rows_and_the_test_split_is_read_once(
    profile: Profile, selection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = {kind: {"select_on": selection} for kind in ("ctr", "lang", "both")}
    changes = {"plm": {"name": profile.plm.name}, "finetuning": rules}
    profile = load_profile(TINY, changes)
    data = runs.prepare(profile.data)
    trained, predicted, watched = [], [], []
    fit, predict, evaluate = runs.fit, runs.predict, runs.evaluate_alignment

    def see_fit(model: Any, losses: Any, batches: Any, *rest: Any) -> Any:
        trained.append(batches.rows)
        return fit(model, losses, batches, *rest)

    def see_predict(model: Any, batches: Any, run: Any) -> Any:
        predicted.append(batches.rows)
        return predict(model, batches, run)

    def see_evaluate(model: Any, batches: Any, run: Any, seed: int) -> Any:
        watched.append(batches.rows)
        return evaluate(model, batches, run, seed)

    monkeypatch.setattr(runs, "fit", see_fit)
    monkeypatch.setattr(runs, "predict", see_predict)
    monkeypatch.setattr(runs, "evaluate_alignment", see_evaluate)
    result = runs.finetune(profile.run("alt_ctr", 0))
    assert len(trained) == 2 and all(np.array_equal(r, data.of("train")) for r in trained)
    assert all(np.array_equal(rows, data.of("validation")) for rows in watched)
    *during, last = predicted
    assert during and all(np.array_equal(rows, data.of(selection)) for rows in during)
    assert np.array_equal(last, data.of("test"))
    assert result["watched"]["split"] == selection


def test_a_run_that_fails_is_named_and_does_not_stop_the_others(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = {"models": {"two": [profile.run("plain_lang", 0), profile.run("raw", 0)]}}
    finetune = runs.finetune

    def broken(config: runs.Finetuning) -> dict[str, Any]:
        if config.plm:
            raise OSError("no room is left")
        return finetune(config)

    monkeypatch.setattr(runs, "finetune", broken)
    keys = runs.finetune_all(planned)
    assert list(keys.values()) == ["failed", runs.finetuning_key(profile.run("raw", 0))]
    found, missing = tables.stored(planned["models"]["two"])
    assert [run["variant"] for run in found] == ["raw"]
    assert missing == ["plain_lang, seed 0 (OSError: no room is left)"]
    monkeypatch.setattr(runs, "finetune", finetune)
    runs.finetune(profile.run("plain_lang", 0))  # by other means than `finetune_all`
    assert len(tables.stored(planned["models"]["two"])[0]) == 2


def test_a_t5_is_finetuned_where_its_weights_are_and_absent_elsewhere(
    tiny_t5: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = load_profile(TINY, {"plm": {"name": tiny_t5}}).run("p5", 0)
    result = runs.finetune(here)
    assert result["plm"] == tiny_t5 and 0 < result["auc"] < 1

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(fetch.huggingface_hub, "snapshot_download", offline)
    elsewhere = load_profile(TINY, {"plm": {"name": "some/t5"}}).run("p5", 0)
    assert set(runs.finetune_all({"models": {"P5": [elsewhere]}}).values()) == {"absent"}
    (missing,) = tables.stored([elsewhere])[1]
    assert "no PLM 'some/t5'" in missing


def test_the_cost_of_a_step_grows_with_the_plm(profile: Profile) -> None:
    cost = runs.step_cost(profile.aligned())
    one = load_profile(TINY, {"plm": {"name": f"{profile.plm.name}:1"}})
    assert cost["parameters"] > 0
    assert 0 < runs.step_cost(one.aligned())["GFLOP a row"] < cost["GFLOP a row"]


def test_without_early_stopping_the_last_epoch_is_what_was_watched(profile: Profile) -> None:
    changes = {"plm": {"name": profile.plm.name}, "finetuning": {"ctr": {"patience": None}}}
    result = runs.finetune(load_profile(TINY, changes).run("raw", 0))
    last = result["history"]["epochs"][-1]["evaluation"]
    assert result["watched"] == {"split": "validation", **last}


def test_prepared_data_follow_the_code_that_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_profile(TINY).data
    before = runs.data_key(config)
    monkeypatch.setattr(runs, "checksum", lambda *names: str(names))
    assert runs.data_key(config) != before


def test_a_step_that_fails_leaves_nothing_behind(profile: Profile, tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        runs.found_or_made(tmp_path / "artefact", broken)
    assert not (tmp_path / "artefact").exists()
    runs.found_or_made(tmp_path / "artefact", lambda folder: (folder / "whole").touch())
    assert {p.name for p in (tmp_path / "artefact").iterdir()} == {"whole", "done.json"}
    assert not list(tmp_path.glob("*unfinished*"))


def test_a_damaged_artefact_is_named_set_aside_and_made_anew() -> None:
    config = load_profile(TINY).data
    before = runs.prepare(config)
    folder = runs.home() / "artifacts" / "data" / runs.data_key(config)
    labels = bytearray((folder / "labels.npy").read_bytes())
    labels[-1] ^= 1
    for file, content in (
        ("labels.npy", bytes(labels)),
        ("split.npy", b""),
        ("prepared.json", b""),
        ("done.json", b""),
    ):
        (folder / file).unlink()  # what is mapped stays as it was
        (folder / file).write_bytes(content)
        with pytest.warns(UserWarning, match=rf"{folder.name} is damaged \({file} .*set aside as"):
            after = runs.prepare(config)
        assert np.array_equal(before.labels, after.labels) and before.values == after.values
        assert (folder.with_name(f".{folder.name}.damaged") / file).read_bytes() == content
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.warns(UserWarning, match=r"is damaged \(it is empty\)"):
        runs.prepare(config)


def test_another_digit_in_a_result_is_seen(profile: Profile) -> None:
    run = profile.run("raw", 0)
    result = runs.finetune(run)
    file = runs.home() / "artifacts" / "finetuning" / runs.finetuning_key(run) / "results.json"
    text = file.read_text()
    file.write_text(text.replace(f'"auc": {result["auc"]}', '"auc": 0.9', 1))
    assert tables.stored([run])[0] == []
    assert "is damaged (results.json" in tables.stored([run])[1][0]
    with pytest.warns(UserWarning, match="is damaged"):
        assert runs.finetune(run)["auc"] == result["auc"]


def test_what_is_finished_is_found_where_nothing_can_be_written(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = runs.finetune(profile.run("raw", 0))

    def never(*_: Any, **__: Any) -> None:
        raise PermissionError("read-only")

    for name in ("mkdir", "unlink", "rename", "replace", "write_text"):
        monkeypatch.setattr(Path, name, never)
    monkeypatch.setattr(runs.store, "locked", never)
    assert runs.finetune(profile.run("raw", 0)) == result


def test_data_that_change_while_python_runs_are_read_anew(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "file: clicks.csv\nfields: {user: {side: user}, item: {side: item}}\nrating: click\n"
    )
    for rows in (300, 100):
        lines = [f"u{i % 20},i{i % 15},{i * i // 3 % 2}\n" for i in range(rows)]
        (tmp_path / "clicks.csv").write_text("".join(["user,item,click\n", *lines]))
        data = runs.prepare(runs.DataConfig(str(tmp_path / "mine.yaml"), split="random"))
        assert data.provenance["rows"] == rows


def test_results_hold_what_a_table_needs(profile: Profile) -> None:
    result = runs.finetune(profile.run("raw", 1))
    assert result["variant"] == "raw" and result["seed"] == 1 and result["plm"] is None
    assert len(result["test"]["labels"]) == len(result["test"]["probabilities"]) == 150
    assert result["train_rows"] == 1200
    assert {"machine", "versions", "commit", "code", "date"} <= set(result["provenance"])
    assert result["data"]["split"] == "time" and result["data"]["label rule"]
    assert str(Path.home()) not in json.dumps(result["provenance"])


def test_aligned_weights_are_what_finetuning_starts_from(profile: Profile) -> None:
    aligned = runs.load_alignment(profile.aligned())
    model = runs.build_finetuning(profile.run("alt_both", 0))
    control = runs.build_finetuning(profile.run("plain_both", 0))
    for mine, theirs in (
        (model.ctr.ctr, aligned.ctr),
        (model.lang.encoder, aligned.encoder),
    ):
        for name, value in theirs.state_dict().items():
            assert torch.equal(mine.state_dict()[name], value), name
    # The heads that alignment does not know are drawn alike for the variant and its control.
    assert torch.equal(model.lang.classifier.weight, control.lang.classifier.weight)
    assert not torch.equal(model.ctr.ctr.embedding.weight, control.ctr.ctr.embedding.weight)


def test_finetuning_may_have_another_precision_than_pretraining(tiny_plm: str) -> None:
    changes = {"plm": {"name": tiny_plm}, "pretraining": {"precision": "bf16"}}
    run = load_profile(TINY, changes).run("alt_ctr", 0)
    together = runs.finetune(run)["test"]["probabilities"]
    folder = runs.home() / "artifacts" / "finetuning" / runs.finetuning_key(run)
    folder.rename(folder.with_name("before"))
    alone = runs.finetune(run)["test"]["probabilities"]  # pretraining is found
    assert np.array_equal(together, alone)


def test_saved_models_predict_the_same(profile: Profile) -> None:
    run = profile.run("alt_both", 0)
    result = runs.finetune(run)
    folder = runs.home() / "artifacts" / "finetuning" / runs.finetuning_key(run)
    model = runs.build_finetuning(run)
    runs.load_model(model, str(folder / "model.safetensors"))
    data, text = runs.prepare(run.data), runs.sentences(run.data, run.text, run.plm)
    test = runs.Batches(data, data.of("test"), 64, text)
    found = runs.predict(model, test, runs.accelerator(run.training))
    assert np.allclose(found, result["test"]["probabilities"], atol=1e-6)


def test_other_code_is_warned_of(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.finetune(profile.run("raw", 0))
    monkeypatch.setattr(runs, "code_checksum", lambda: "other")
    with pytest.warns(UserWarning, match=r"Some of artifacts/finetuning was made by other code"):
        runs.finetune(profile.run("raw", 0))


def test_a_stamp_does_not_change_with_the_day(profile: Profile) -> None:
    path = runs.home() / "artifacts" / "stamps" / profile.name / "01_data.json"
    shown = runs.stamp("01_data", profile, {"data": "abc"})
    before = path.read_text()
    assert "commit" in shown and "commit" not in before
    runs.stamp("01_data", profile, {"data": "abc"})
    assert path.read_text() == before


def command(*words: str, home: Path, processes: int = 1) -> subprocess.CompletedProcess[str]:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*start, "-m", "altlib.runs", *words],
        env={**os.environ, "ALTLIB_HOME": str(home), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_two_processes_pretrain_and_finetune_together(tmp_path: Path, tiny_plm: str) -> None:
    path = tmp_path / "tiny.yaml"
    text = Path(TINY).read_text().replace("name: tiny,", f"name: {tiny_plm},")
    # 1,153 training rows: the last batch of 128 holds one row, too few for two processes.
    path.write_text(text.replace("rows: 1500", "rows: 1442"))
    losses, aucs = [], []
    for processes in (1, 2):
        home = tmp_path / str(processes)
        done = command(str(path), "alt_ctr", home=home, processes=processes)
        assert done.returncode == 0, done.stderr
        (history,) = home.glob("artifacts/pretraining/*/history.json")
        losses.append(json.loads(history.read_text())["epochs"][0])
        (result,) = home.glob("artifacts/finetuning/*/results.json")
        aucs.append(json.loads(result.read_text())["auc"])
    # The same rows in the same batches, with other masks: equal but for chance.
    assert (losses[0]["rows"], losses[1]["rows"]) == (1153, 1152)
    for name, loss in losses[0]["train"].items():
        assert losses[1]["train"][name] == pytest.approx(loss, rel=0.1), name
    for name, loss in losses[0]["evaluation"]["loss"].items():
        assert losses[1]["evaluation"]["loss"][name] == pytest.approx(loss, rel=0.1), name
    assert aucs[0] == pytest.approx(aucs[1], abs=0.1)


def test_two_processes_share_the_rows_of_a_batch(tmp_path: Path) -> None:
    found = []
    for processes in (1, 2):
        home = tmp_path / str(processes)
        done = command(TINY, "raw", home=home, processes=processes)
        assert done.returncode == 0, done.stderr
        (result,) = home.glob("artifacts/finetuning/*/results.json")
        found.append(json.loads(result.read_text())["test"]["probabilities"])
    # Without masks and dropout the gradient of a batch is the mean of those of its halves.
    assert np.allclose(*found, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quik"], "no profile 'quik'; did you mean 'quick'?"),
        ([TINY, "alt_crt"], "no variant 'alt_crt'; did you mean 'alt_ctr'?"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    words: list[str], message: str, tmp_path: Path
) -> None:
    done = command(*words, home=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("seconds", ["abc", "-1", "nan"])
def test_the_time_between_checkpoints_is_a_number(
    seconds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALTLIB_CHECKPOINT_SECONDS", seconds)
    monkeypatch.setattr(sys, "argv", ["runs", TINY])
    with pytest.raises(SystemExit, match=f"ALTLIB_CHECKPOINT_SECONDS is '{seconds}'; it must be"):
        runs.main()


def test_a_seed_below_0_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["runs", TINY, "raw", "--seed", "-1"])
    with pytest.raises(SystemExit):
        runs.main()
    assert "--seed is -1; it must lie from 0 to" in capsys.readouterr().err


def test_ctrl_c_ends_the_command_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "load_profile", interrupted)
    monkeypatch.setattr(sys, "argv", ["runs", TINY])
    with pytest.raises(SystemExit) as ended:
        runs.main()
    assert ended.value.code == 130
    assert "the same command goes on from the last checkpoint" in capsys.readouterr().err


def planted(tiny_plm: str, options: dict[str, Any], **changes: Any) -> Profile:
    """A profile on a synthetic set whose structure the method has to find."""
    base = {
        "plm": {"name": tiny_plm},
        "data": {"options": options},
        "ctr": {"embedding": 16, "hidden": [32]},
    }
    return load_profile(TINY, runs.merged(base, changes))


def test_mtm_recovers_a_field_from_its_words(tiny_plm: str) -> None:
    """The genre is one of six; only the title's second word tells it: each item has one row."""

    def recovered(*unseen: str) -> float:
        profile = planted(
            tiny_plm,
            {"rows": 4000, "items": 4000},
            text={"leave_out": ["user_id", "item_id", "genre", *unseen]},
            alignment={"mlm": False, "icl": False, "tabular_ratio": 0.34},
            pretraining={"epochs": 16, "rate": 1e-2, "plm_rate": 3e-3},
        )
        history = json.loads((runs.pretrain(profile.aligned()) / "history.json").read_text())
        return history["epochs"][-1]["evaluation"]["recovery"]["mtm"]["genre"][1]

    assert recovered() > 0.6
    assert recovered("title") < 0.4


def test_words_that_carry_what_sparse_ids_cannot_help_alt_ctr(tiny_plm: str) -> None:
    """Items have few and noisy labels, but share their topics' words with many other items."""

    def gain(shuffle_texts: bool) -> float:
        structure = {"topics": 2, "in_ids": 0, "in_words": 0.3, "in_both": 0}
        profile = planted(
            tiny_plm,
            {"rows": 16000, "users": 200, "shuffle_texts": shuffle_texts, **structure},
            text={"leave_out": ["user_id", "age", "occupation", "item_id"]},
            # By MLM the ID vector, hence the item's embedding, has to hold the words.
            alignment={"mtm": False, "icl": False, "text_ratio": 0.34},
            pretraining={"epochs": 10, "batch": 256, "rate": 2e-2, "plm_rate": 5e-3},
            finetuning={"ctr": {"epochs": 15, "patience": 3, "rate": 2e-3}},
        )
        auc = {
            variant: np.mean([runs.finetune(profile.run(variant, s))["auc"] for s in (0, 1)])
            for variant in ("raw", "alt_ctr")
        }
        return float(auc["alt_ctr"] - auc["raw"])

    assert gain(shuffle_texts=False) > 0.02
    assert gain(shuffle_texts=True) < 0.01


def test_a_label_rule_takes_the_place_of_the_data_set_s_own() -> None:
    options = {"rows": 600, "seed": 1}
    own = runs.prepare(runs.DataConfig("synthetic", options))
    rule = LabelRule(positive_from=2, dropped=(4,), scale=(1, 5))
    other = runs.prepare(runs.DataConfig("synthetic", options, label=rule))
    assert other.schema.label == rule and own.schema.label != rule
    assert (len(own.labels), len(other.labels)) == (600, 420)
