"""Configurations, keys, and steps that are found or made."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from altlib import store
from altlib.config import VARIANTS, DataConfig, LabelRule, TextConfig
from altlib.data import fetch
from altlib.lab import keys, results, stamps, steps
from altlib.lab.results import predictions
from altlib.models import plm
from altlib.profile import Profile, load_profile, merged
from altlib.store import home

TINY = str(Path(__file__).parents[1] / "tiny.yaml")


@pytest.fixture
def profile(tiny_plm: str) -> Profile:
    return load_profile(TINY, {"plm": {"name": tiny_plm}})


def test_keys_follow_what_a_step_depends_on_and_nothing_else(tiny_plm: str) -> None:
    def found(changes: dict[str, Any]) -> dict[str, str]:
        made = load_profile(TINY, merged({"plm": {"name": tiny_plm}}, changes))
        of = {v: keys.finetuning_key(made.run(v, 0)) for v in VARIANTS}
        return {**of, "pretraining": keys.pretraining_key(made.aligned())}

    base = found({})

    def changed(changes: dict[str, Any]) -> set[str]:
        return {name for name, key in found(changes).items() if key != base[name]}

    aligned = {"alt_ctr", "alt_lang", "alt_both", "pretraining"}
    assert changed({"alignment": {"negatives": 7}}) == aligned
    read_alone = {"plain_lang", "ctr_bert", "p5"}
    assert changed({"finetuning": {"lang": {"rate": 0.5}}}) == read_alone | {"alt_lang"}
    assert changed({"text": {"max_length": 30}}) == aligned | read_alone | {"plain_both"}
    assert changed({"data": {"min_count": 5}}) == {*VARIANTS, "pretraining"}
    assert changed({"name": "other", "seeds": {"raw": [3]}}) == set()


def test_a_key_holds_every_file_of_a_plm(tiny_plm: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(tiny_plm, folder)
    run = load_profile(TINY, {"plm": {"name": str(folder)}}).run("plain_lang", 0)
    text = TextConfig()

    def named() -> tuple[str, str]:
        assert run.plm
        return keys.finetuning_key(run), keys.text_key(run.data, text, run.plm)

    seen = [named()]
    for name in ("tokenizer.json", "config.json", "tokenizer_config.json", "added_tokens.json"):
        with (folder / name).open("a") as file:
            file.write(" ")
        seen.append(named())
    (folder / "README.md").write_text("It changes nothing.")
    assert len(set(seen)) == 5 and named() == seen[-1]


def test_a_folder_without_weights_has_a_key_and_no_pin(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert keys.weights_checksum(str(tmp_path / "empty"))


def test_fields_that_a_sentence_has_no_room_for_are_told_of(tiny_plm: str) -> None:
    profile = load_profile(TINY, {"plm": {"name": tiny_plm}, "text": {"max_length": 20}})
    with pytest.warns(UserWarning, match=r"The words of the field '\w+' are cut off from \d+% of"):
        steps.sentences(profile.data, profile.text, profile.plm)


def test_the_pin_of_the_weights_stands_for_all_files_of_a_pinned_plm(
    tiny_plm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pinned"
    shutil.copytree(tiny_plm, folder)
    pinned = {file.name: fetch.sha256(file) for file in folder.iterdir()}
    entry = fetch.Entry(size="", note="", user=["pinned"], pinned=pinned)
    monkeypatch.setitem(fetch.PLMS, "pinned", entry)
    monkeypatch.setenv("ALTLIB_PLM", str(tmp_path))
    weights = fetch.sha256(folder / "model.safetensors")
    assert keys.weights_checksum("pinned") == weights
    (folder / "added_tokens.json").write_text("{}")
    assert keys.weights_checksum("pinned") != weights


def test_steps_are_made_once_and_found_again(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = steps.finetune(profile.run("alt_ctr", 0))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(steps, "fit", never)
    assert steps.finetune(profile.run("alt_ctr", 0)) == first
    leftovers = [p for p in (home() / "artifacts").rglob("*") if "unfinished" in p.name]
    assert not leftovers and not list((home() / "artifacts/checkpoints").iterdir())


@pytest.mark.parametrize("selection", ["validation", "test"])
def test_training_sees_training_rows_and_the_test_split_is_read_once(
    profile: Profile, selection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = {kind: {"select_on": selection} for kind in ("ctr", "lang", "both")}
    changes = {"plm": {"name": profile.plm.name}, "finetuning": rules}
    profile = load_profile(TINY, changes)
    data = steps.prepare(profile.data)
    trained, predicted, watched = [], [], []
    fit, predict, evaluate = steps.fit, steps.predict, steps.evaluate_alignment

    def see_fit(model: Any, losses: Any, batches: Any, *rest: Any) -> Any:
        trained.append(batches.rows)
        return fit(model, losses, batches, *rest)

    def see_predict(model: Any, batches: Any, run: Any) -> Any:
        predicted.append(batches.rows)
        return predict(model, batches, run)

    def see_evaluate(model: Any, batches: Any, run: Any, seed: int) -> Any:
        watched.append(batches.rows)
        return evaluate(model, batches, run, seed)

    monkeypatch.setattr(steps, "fit", see_fit)
    monkeypatch.setattr(steps, "predict", see_predict)
    monkeypatch.setattr(steps, "evaluate_alignment", see_evaluate)
    result = steps.finetune(profile.run("alt_ctr", 0))
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
    tried = []

    def broken(*_: Any) -> None:
        tried.append(True)
        raise OSError("no room is left")

    with monkeypatch.context() as patch:
        patch.setattr(plm, "load", broken)
        steps.finetune_all(planned)
        steps.finetune_all(planned)
        assert len(tried) == 2
        patch.setenv("ALTLIB_CALL", "one")
        steps.finetune_all(planned)
        steps.finetune_all(planned)  # not again in one call of ./run_all.sh
        assert len(tried) == 3
    found, missing = results.read(planned)
    assert found["variant"].tolist() == ["raw"]
    assert missing == ["models, two: plain_lang, seed 0 (OSError: no room is left)"]
    ended = store.ended(keys.folder(profile.run("plain_lang", 0)))
    assert ended["status"] == "failed" and "in broken" in ended["traceback"]
    monkeypatch.setenv("ALTLIB_CALL", "another")
    steps.finetune(profile.run("plain_lang", 0))
    assert len(results.read(planned)[0]) == 2


def test_a_t5_is_finetuned_where_its_weights_are_and_absent_elsewhere(
    tiny_t5: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = load_profile(TINY, {"plm": {"name": tiny_t5}}).run("p5", 0)
    result = steps.finetune(here)
    assert result["plm"] == tiny_t5 and 0 < result["auc"] < 1

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(fetch.huggingface_hub, "snapshot_download", offline)
    elsewhere = load_profile(TINY, {"plm": {"name": "some/t5"}}).run("p5", 0)
    steps.finetune_all({"models": {"P5": [elsewhere]}})
    assert store.ended(keys.folder(elsewhere))["status"] == "absent"
    (missing,) = results.read({"": {"": [elsewhere]}})[1]
    assert "no PLM 'some/t5'" in missing


def test_the_cost_of_a_step_grows_with_the_plm(profile: Profile) -> None:
    cost = steps.step_cost(profile.aligned())
    one = load_profile(TINY, {"plm": {"name": f"{profile.plm.name}:1"}})
    assert cost["parameters"] > 0
    assert 0 < steps.step_cost(one.aligned())["GFLOP a row"] < cost["GFLOP a row"]


def test_without_early_stopping_the_last_epoch_is_what_was_watched(profile: Profile) -> None:
    changes = {"plm": {"name": profile.plm.name}, "finetuning": {"ctr": {"patience": None}}}
    result = steps.finetune(load_profile(TINY, changes).run("raw", 0))
    last = result["history"]["epochs"][-1]["evaluation"]
    assert result["watched"] == {"split": "validation", **last}


def test_prepared_data_follow_the_code_that_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_profile(TINY).data
    before = keys.data_key(config)
    monkeypatch.setattr("altlib.lab.keys.code_checksum", lambda *names: str(names))
    assert keys.data_key(config) != before


def test_the_checksum_of_code_holds_its_words_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "PACKAGE", tmp_path)
    (tmp_path / "data" / "sources").mkdir(parents=True)
    found = set()
    for name in ("a.py", "sources/b.py", "sources/words.yaml", "notes.txt"):
        (tmp_path / "data" / name).write_text("content of " + name)
        found.add(keys.code_checksum.__wrapped__("data"))
    assert len(found) == 3  # notes change nothing


def test_a_step_that_fails_leaves_nothing_behind(profile: Profile, tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        steps.found_or_made(tmp_path / "artefact", broken)
    assert [path.name for path in (tmp_path / "artefact").iterdir()] == ["done.json"]
    assert store.ended(tmp_path / "artefact")["reason"] == "RuntimeError: in the middle"
    steps.found_or_made(tmp_path / "artefact", lambda folder: (folder / "whole").touch())
    assert {p.name for p in (tmp_path / "artefact").iterdir()} == {"whole", "done.json"}
    assert not list(tmp_path.glob("*unfinished*"))


def test_a_damaged_artefact_is_named_set_aside_and_made_anew() -> None:
    config = load_profile(TINY).data
    before = steps.prepare(config)
    folder = home() / "artifacts" / "data" / keys.data_key(config)
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
            after = steps.prepare(config)
        assert np.array_equal(before.labels, after.labels) and before.values == after.values
        assert (folder.with_name(f".{folder.name}.damaged") / file).read_bytes() == content
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.warns(UserWarning, match=r"is damaged \(it is empty\)"):
        steps.prepare(config)


def test_another_digit_in_a_result_is_seen(profile: Profile) -> None:
    run = profile.run("raw", 0)
    result = steps.finetune(run)
    file = home() / "artifacts" / "finetuning" / keys.finetuning_key(run) / "results.json"
    text = file.read_text()
    file.write_text(text.replace(f'"auc": {result["auc"]}', '"auc": 0.9', 1))
    found, missing = results.read({"": {"": [run]}})
    assert not len(found) and "is damaged (results.json" in missing[0]
    with pytest.warns(UserWarning, match="is damaged"):
        assert steps.finetune(run)["auc"] == result["auc"]


def test_what_is_finished_is_found_where_nothing_can_be_written(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = steps.finetune(profile.run("raw", 0))

    def never(*_: Any, **__: Any) -> None:
        raise PermissionError("read-only")

    for name in ("mkdir", "unlink", "rename", "replace", "write_text"):
        monkeypatch.setattr(Path, name, never)
    monkeypatch.setattr("altlib.store.locked", never)
    assert steps.finetune(profile.run("raw", 0)) == result


def test_data_that_change_while_python_runs_are_read_anew(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "file: clicks.csv\nfields: {user: {side: user}, item: {side: item}}\nrating: click\n"
    )
    for rows in (300, 100):
        lines = [f"u{i % 20},i{i % 15},{i * i // 3 % 2}\n" for i in range(rows)]
        (tmp_path / "clicks.csv").write_text("".join(["user,item,click\n", *lines]))
        data = steps.prepare(DataConfig(str(tmp_path / "mine.yaml"), split="random"))
        assert data.provenance["rows"] == rows


def test_results_hold_what_a_table_needs(profile: Profile) -> None:
    result = steps.finetune(profile.run("raw", 1))
    assert result["variant"] == "raw" and result["seed"] == 1 and result["plm"] is None
    assert len(predictions(profile.run("raw", 1))) == 150
    assert result["train_rows"] == 1200
    assert {"machine", "versions", "commit", "code", "date"} <= set(result["provenance"])
    assert result["data"]["split"] == "time" and result["data"]["label rule"]
    assert str(Path.home()) not in json.dumps(result["provenance"])


def test_aligned_weights_are_what_finetuning_starts_from(profile: Profile) -> None:
    aligned = steps.load_alignment(profile.aligned())
    model = steps.build_finetuning(profile.run("alt_both", 0))
    control = steps.build_finetuning(profile.run("plain_both", 0))
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
    steps.finetune(run)
    together = predictions(run)
    folder = home() / "artifacts" / "finetuning" / keys.finetuning_key(run)
    folder.rename(folder.with_name("before"))
    steps.finetune(run)  # pretraining is found
    assert np.array_equal(together, predictions(run))


def test_saved_models_predict_the_same(profile: Profile) -> None:
    run = profile.run("alt_both", 0)
    steps.finetune(run)
    folder = keys.folder(run)
    model = steps.build_finetuning(run)
    steps.load_model(model, str(folder / "model.safetensors"))
    data, text = steps.prepare(run.data), steps.sentences(run.data, run.text, run.plm)
    test = steps.Batches(data, data.of("test"), 64, text)
    found = steps.predict(model, test, steps.accelerator(run.training))
    assert np.allclose(found, predictions(run), atol=1e-6)


def test_other_code_is_warned_of(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    steps.finetune(profile.run("raw", 0))
    monkeypatch.setattr("altlib.lab.provenance.code_checksum", lambda *names: "other")
    with pytest.warns(UserWarning, match=r"Some of artifacts/finetuning was made by other code"):
        steps.finetune(profile.run("raw", 0))


def test_weights_that_the_hub_has_changed_are_warned_of(
    tiny_plm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a name of the hub the key does not hold what the files are."""
    newest = tmp_path / "models--some--bert" / "snapshots"
    for revision in ("aaa", "bbb"):
        shutil.copytree(tiny_plm, newest / revision)
    (newest / "bbb" / "vocab.txt").touch()
    monkeypatch.setattr(fetch, "_from_hub", lambda name: newest / "aaa")
    run = load_profile(TINY, {"plm": {"name": "some/bert"}}).run("plain_lang", 0)
    steps.finetune(run)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps.finetune(run)
    monkeypatch.setattr(fetch, "_from_hub", lambda name: newest / "bbb")
    told = r"other weights of 'some/bert' \(revision aaa\) than the hub gives now \(bbb\)"
    with pytest.warns(UserWarning, match=told):
        steps.finetune(run)


def test_a_stamp_does_not_change_with_the_day(profile: Profile) -> None:
    path = home() / "artifacts" / "stamps" / profile.name / "01_data.json"
    shown = stamps.stamp("01_data", profile)
    before = path.read_text()
    assert "commit" in str(shown.data) and "commit" not in before
    stamps.stamp("01_data", profile)
    assert path.read_text() == before


def planted(tiny_plm: str, options: dict[str, Any], **changes: Any) -> Profile:
    """A profile on a synthetic set whose structure the method has to find."""
    base = {
        "plm": {"name": tiny_plm},
        "data": {"options": options},
        "ctr": {"embedding": 16, "hidden": [32]},
    }
    return load_profile(TINY, merged(base, changes))


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
        history = json.loads((steps.pretrain(profile.aligned()) / "history.json").read_text())
        return history["epochs"][-1]["evaluation"]["recovery"]["mtm"]["genre"][1]

    assert recovered() > 0.6
    assert recovered("title") < 0.4


def test_words_that_carry_what_sparse_ids_cannot_help_alt_ctr(tiny_plm: str) -> None:
    """Items have few and noisy labels, but share their topics' words with many other items."""

    def gain(shuffle_texts: bool) -> float:
        structure = {"topics": 2, "in_ids": 0, "in_words": 0.3, "in_both": 0}
        profile = planted(
            tiny_plm,
            {"rows": 8000, "users": 200, "shuffle_texts": shuffle_texts, **structure},
            text={"leave_out": ["user_id", "age", "occupation", "item_id"]},
            # By MLM the ID vector, hence the item's embedding, has to hold the words.
            alignment={"mtm": False, "icl": False, "text_ratio": 0.34},
            pretraining={"epochs": 10, "batch": 256, "rate": 2e-2, "plm_rate": 5e-3},
            finetuning={"ctr": {"epochs": 15, "patience": 3, "rate": 2e-3}},
        )
        auc = {
            variant: np.mean([steps.finetune(profile.run(variant, s))["auc"] for s in (0, 1)])
            for variant in ("raw", "alt_ctr")
        }
        return float(auc["alt_ctr"] - auc["raw"])

    assert gain(shuffle_texts=False) > 0.02
    assert gain(shuffle_texts=True) < 0.005


def test_a_label_rule_takes_the_place_of_the_data_set_s_own() -> None:
    options = {"rows": 600, "seed": 1}
    own = steps.prepare(DataConfig("synthetic", options))
    rule = LabelRule(positive_from=2, dropped=(4,), scale=(1, 5))
    other = steps.prepare(DataConfig("synthetic", options, label=rule))
    assert other.schema.label == rule and own.schema.label != rule
    assert (len(own.labels), len(other.labels)) == (600, 420)
