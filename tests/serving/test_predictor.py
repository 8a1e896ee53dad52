"""The predictor: raw values in, clear errors, and nothing heavy to import."""

import gc
import json
import subprocess
import sys
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest

from altlib.lab import keys, steps
from altlib.profile import load_profile
from altlib.serving import export
from altlib.serving.predictor import Predictor

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.fixture(scope="module")
def out(tiny_plm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a joint model, which reads IDs and sentences."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALTLIB_HOME", str(home))
        profile = load_profile(str(TINY), {"plm": {"name": tiny_plm}})
        steps.finetune(profile.run("plain_both", 0))
        return export.export(keys.folder(profile.run("plain_both", 0)), home / "out")


@pytest.fixture
def row(out: Path) -> dict[str, Any]:
    export = json.loads((out / "export.json").read_text())
    return {
        name: values[0] for name, values in zip(export["fields"], export["values"], strict=True)
    }


def test_rows_come_as_mappings_or_a_frame(out: Path, row: dict[str, Any]) -> None:
    predictor = Predictor(out)
    field = predictor.fields[0]
    rows = [row, {**row, field: "never seen", "more": 1.5}]
    found = predictor.predict(rows)
    assert found.shape == (2,) and found.dtype == np.float32 and (found > 0).all()
    assert np.array_equal(predictor.predict(pd.DataFrame(rows)), found)
    assert predictor.ids(predictor.words(rows))[:, 0].tolist() == [2, 1]


def test_a_field_of_which_no_value_is_known_is_told_of(out: Path, row: dict[str, Any]) -> None:
    predictor = Predictor(out)
    field = predictor.fields[0]
    odd = [{**row, field: f"spelt otherwise {number}"} for number in range(20)]
    with pytest.warns(UserWarning, match=rf"No value of \['{field}'\] in 20 rows was seen"):
        predictor.predict(odd)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor.predict([*odd, row])
        predictor.predict(odd[:19])
        predictor.predict([odd[0]] * 100)  # candidates of one new user


def test_what_is_not_known_has_its_word(out: Path, row: dict[str, Any]) -> None:
    predictor = Predictor(out)
    field = predictor.fields[0]
    raw = (None, float("nan"), "", "unknown", 7, " 7 ")
    rows = [{**row, field: value} for value in raw]
    words = [values[0] for values in predictor.words(rows)]
    assert words == ["unknown"] * 4 + ["7", "7"]
    assert np.ptp(predictor.predict(rows[:4])) < 1e-6
    for gap in (pd.array([7, None], "Int64"), [7, None], ["7", None]):
        frame = pd.DataFrame({**row, field: gap})
        assert [values[0] for values in predictor.words(frame)] == ["7", "unknown"]


@pytest.fixture
def reader() -> Predictor:
    """What makes words of the fields "user" and "price", of which the latter is one of numbers."""
    predictor = Predictor.__new__(Predictor)
    predictor.fields, predictor._typed = ["user", "price"], ["price"]
    predictor._spellings = {"user": {"4": "4.0"}}
    return predictor


def test_frames_of_other_kinds_give_the_same_words(reader: Predictor) -> None:
    columns = {
        "user": pyarrow.array([2**60 + 1, None]),
        "price": pyarrow.array([0.1, 2], pyarrow.float32()),
        "more": pyarrow.array(["x", "y"]),
    }
    expected = [(str(2**60 + 1), "0.1"), ("unknown", "2")]
    table = pyarrow.table(columns)
    frame = pd.DataFrame(
        {"user": pd.array([2**60 + 1, None], "Int64"), "price": np.array([0.1, 2], np.float32)}
    )
    for rows in (table, table.to_batches()[0], frame):
        assert reader.words(rows) == expected
        assert reader.words(rows[:1]) == expected[:1]  # whatever else the batch holds
    with pytest.raises(ValueError, match=r"The frame has no column \['price'\]"):
        reader.words(table.select(["user"]))
    times = pyarrow.array([2**60], pyarrow.timestamp("s"))
    with pytest.raises(ValueError, match=r"The column 'user' \(timestamp\[s\]\) holds a value"):
        reader.words(pyarrow.table({"user": times, "price": [1]}))

    class Other:
        columns = ("user", "price")

        def __getitem__(self, name: str) -> "Other":
            return self

    with pytest.raises(ValueError, match="a pandas, polars or Arrow frame, not of the type Other"):
        reader.words(Other())


def test_the_garbage_collector_has_nothing_to_go_through(out: Path, row: dict[str, Any]) -> None:
    values = Predictor(out).words([row] * 1000)
    gc.collect()
    assert not any(gc.is_tracked(of) for of in values)


def test_a_number_has_the_spelling_of_training(reader: Predictor) -> None:
    prices = ["2.50", 2.5, np.float32(2.5), "2.5", Decimal("2.500")]
    found = reader.words([{"user": 4, "price": price} for price in prices])
    assert found == [("4.0", "2.5")] * 5  # the vocabulary of this field has text
    assert reader.words([{"user": "4", "price": True}]) == [("4", "True")]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda row: [], "There is no row to predict"),
        (lambda row: row, "a single row is a list of one"),
        (lambda row: None, "a single row is a list of one"),
        (lambda row: ["x"], "Row 1 is a str, not a mapping"),
        (lambda row: [row, dict(list(row.items())[1:])], r"Row 2 has no field \['"),
        (
            lambda row: [row, row | {name: [1] for name in row}],
            r"Row 2, field '.*': found \[1\] \(list\)",
        ),
        (
            lambda row: [row | dict.fromkeys(row, "a\ud800")],
            "Row 1, .*, which contains half of a char",
        ),
        (lambda row: [row | dict.fromkeys(row, 2.0**60)], "which does not hold its number"),
        (lambda row: pd.DataFrame([row]).iloc[:, [0, *range(len(row))]], "more than one column"),
        (lambda row: pd.Series(row).to_frame().columns, "Row 1 is a int, not a mapping"),
        (lambda row: pd.DataFrame([row]).iloc[:, 1:], r"The frame has no column \['"),
        (lambda row: pd.DataFrame([row]).iloc[:0], "There is no row to predict"),
    ],
)
def test_bad_rows_are_named(out: Path, row: dict[str, Any], change: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Predictor(out).predict(change(row))


def test_bad_arrays_are_named(out: Path, row: dict[str, Any]) -> None:
    predictor = Predictor(out)
    values = predictor.words([row])
    ids = predictor.ids(values)
    assert predictor.sentences is not None
    text = predictor.sentences.assemble(values)
    for wrong, told in (
        (ids.astype("float32"), "ids are float32"),
        (ids[:, 1:], r"int64 \[B, "),
        (ids[:0], "at least one row"),
        (ids + 10**6, "numbers from 0 to"),
        (None, "reads ids, and none were given"),
    ):
        with pytest.raises(ValueError, match=told):
            predictor.score(wrong, text)
    with pytest.raises(ValueError, match="reads sentences, and none were given"):
        predictor.score(ids)
    tokens, attention = text
    for cut in ((tokens[:, 1:], attention), (tokens[:0], attention[:0]), (tokens[0], attention[0])):
        with pytest.raises(ValueError, match=r"tokens are .* beside 1 rows; both must be"):
            predictor.score(ids, cut)
    for wrong in ((tokens - 10**6, attention), (tokens, attention > 0)):
        with pytest.raises(ValueError, match="tokens and attention must be int64, and none below"):
            predictor.score(ids, wrong)


def test_large_batches_are_scored_in_parts(
    out: Path, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(out)
    values = [{**row, predictor.fields[0]: str(number)} for number in range(7)]
    expected = predictor.predict(values)
    calls = []
    run = predictor._session.run

    class Counting:
        def run(self, names: list[str], given: dict[str, np.ndarray]) -> Any:
            calls.append(len(given["ids"]))
            return run(names, given)

    length = predictor.sentences.assemble(predictor.words(values))[0].shape[1]
    monkeypatch.setattr("altlib.serving.predictor.POSITIONS", 3 * length + 1)
    monkeypatch.setattr(predictor, "_session", Counting())
    np.testing.assert_allclose(predictor.predict(values), expected, atol=1e-6, rtol=0)
    assert calls == [3, 3, 1]
    monkeypatch.setattr("altlib.serving.predictor.POSITIONS", 1)
    assert len(predictor.predict(values)) == 7


def test_a_folder_that_is_no_whole_export_is_refused(out: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is not an export: it has no export\.json"):
        Predictor(tmp_path)
    copy = tmp_path / "copy"

    def copied(altered: str, content: bytes | None) -> Path:
        copy.mkdir(exist_ok=True)
        for file in out.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        if content is None:
            (copy / altered).unlink()
        else:
            (copy / altered).write_bytes(content)
        return copy

    for name in ("model.onnx", "tokenizer.json"):
        with pytest.raises(ValueError, match=rf"copy is damaged \({name} is missing\)"):
            Predictor(copied(name, None))
        with pytest.raises(
            ValueError, match=rf"copy is damaged \({name} has .* export the run again"
        ):
            Predictor(copied(name, (out / name).read_bytes() + b" "))
    text = (out / "export.json").read_text()
    with pytest.raises(ValueError, match=r"export\.json is not what was written"):
        Predictor(copied("export.json", text.replace('"pad": 0', '"pad": 1').encode()))
    with pytest.raises(ValueError, match=r"done\.json is damaged"):
        Predictor(copied("done.json", b"{}"))
    with pytest.raises(FileNotFoundError, match=r"holds no 'model-int8\.onnx'; it has model\.onnx"):
        Predictor(out, model="model-int8.onnx")
    with pytest.raises(FileNotFoundError, match=r"holds no 'tokenizer\.json'; it has model\.onnx"):
        Predictor(out, model="tokenizer.json")


def test_it_needs_no_torch(out: Path) -> None:
    program = (
        "import sys; from altlib.serving.predictor import Predictor; "
        f"Predictor({str(out)!r}); "
        "print(sorted({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
