"""The explorer: attention as the model has it, words as the sentence has them, what is shown."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest
import torch

from altlib.data.tabular import Prepared
from altlib.data.text import TextBatch
from altlib.explorer import reading, widget
from altlib.explorer.reading import Reader, Words
from altlib.explorer.widget import Explorer
from altlib.models.alignment import Alignment
from altlib.profile import load_profile

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.fixture(scope="module")
def reader(tiny_plm: str, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALTLIB_HOME", str(tmp_path_factory.mktemp("home")))
        profile = load_profile(str(TINY), {"plm": {"name": tiny_plm}})
        single = replace(profile.alignment, plm_passes=1)
        return reading.reader(
            profile.aligned(),
            {"single pass": replace(profile.aligned(), alignment=single)},
            both=profile.run("alt_both", 0),
            ctr=profile.run("alt_ctr", 0),
        )


@pytest.fixture(scope="module")
def model(reader: Reader) -> Alignment:
    return reader.checkpoints["after pretraining"]


@pytest.fixture(scope="module")
def rows(reader: Reader) -> np.ndarray:
    return reader.data.of("test")[:20]


def case(reader: Reader, rows: np.ndarray) -> tuple[torch.Tensor, TextBatch]:
    return torch.from_numpy(reader.data.ids(rows)), reader.sentences.assemble(
        reader.data.rows[rows]
    )


def test_a_row_of_the_map_is_a_pass_with_that_field_masked(
    reader: Reader, model: Alignment, rows: np.ndarray
) -> None:
    ids, batch = case(reader, rows)
    weights, queries = reading.attention(model, ids, batch)
    with torch.no_grad():
        states = model.encode_text(batch.tokens, batch.attention)
        for f in range(ids.shape[1]):
            masked = ids.clone()
            masked[:, f] = model.mask_ids[f]
            query, expected = model.attend(model.encode_ids(masked), batch, states)
            torch.testing.assert_close(weights[:, f], expected)
            torch.testing.assert_close(queries[:, f], query[:, f])
    torch.testing.assert_close(weights.sum(2), torch.ones(weights.shape[:2]))


def test_fields_are_masked_together_as_in_training(
    reader: Reader, model: Alignment, rows: np.ndarray
) -> None:
    ids, batch = case(reader, rows)
    plain, _ = reading.attention(model, ids, batch)
    apart, pairs = model.together, torch.eye(ids.shape[1], dtype=torch.bool)
    pairs[0, 1] = pairs[1, 0] = True
    model.together = pairs
    try:
        together, _ = reading.attention(model, ids, batch)
        masked = torch.where(pairs[0], model.mask_ids, ids)
        with torch.no_grad():
            states = model.encode_text(batch.tokens, batch.attention)
            _, expected = model.attend(model.encode_ids(masked), batch, states)
    finally:
        model.together = apart
    torch.testing.assert_close(together[:, 0], expected)
    torch.testing.assert_close(together[:, 2:], plain[:, 2:])


def test_mass_of_a_field_is_that_of_its_tokens(
    reader: Reader, model: Alignment, rows: np.ndarray
) -> None:
    ids, batch = case(reader, rows)
    weights, _ = reading.attention(model, ids, batch)
    mass = reading.by_field(weights, batch)
    for b in (0, 7):
        for f in range(ids.shape[1]):
            for g in range(ids.shape[1]):
                own = weights[b, f][batch.field[b] == g].sum()
                torch.testing.assert_close(mass[b, f, g], own)
    assert ((1 - mass.sum(2)) > 0).all()  # special tokens have some, too


def test_own_words_compares_with_other_sentences_and_with_an_even_spread(
    reader: Reader, model: Alignment
) -> None:
    rows = reader.data.of("test")
    table, mean = reading.own_words(
        reader.checkpoints, reader.data, reader.sentences, rows, "after pretraining"
    )
    assert table["checkpoint"].tolist() == [*reader.checkpoints, "after pretraining"]
    assert (table["low"] <= table["own words"]).all() and (
        table["own words"] <= table["high"]
    ).all()
    line = table.iloc[1]
    assert line["own words"] == pytest.approx(np.diag(mean).mean(), abs=1e-6)
    most = sum(mean.iloc[f].argmax() == f for f in range(len(mean)))
    assert (line["read most by"], line["fields"]) == (most, len(mean))
    # An even spread over a sentence: the mean share of tokens that a field has.
    _, batch = case(reader, rows)
    shares = [(batch.field == f).sum(1) / batch.attention.sum(1) for f in range(len(mean))]
    assert table["uniform"][0] == pytest.approx(float(torch.stack(shares).mean()), abs=1e-6)
    other = np.random.default_rng(0).permutation(rows)
    ids, _ = case(reader, rows)
    _, batch = case(reader, other)
    weights, _ = reading.attention(model, ids, batch)
    expected = reading.by_field(weights, batch).diagonal(dim1=1, dim2=2).mean()
    assert table.iloc[-1]["own words"] == pytest.approx(float(expected), abs=1e-5)


def test_words_are_those_of_the_sentence(reader: Reader, rows: np.ndarray) -> None:
    _, batch = case(reader, rows[:1])
    words = Words.of(batch, reader.tokenizer)
    data = reader.data
    told = zip(data.schema.fields, data.rows[rows[0]], strict=True)
    sentence = " ".join(f"{field.words} is {data.words[value]}." for field, value in told)
    assert "".join(words.texts) == sentence.lower().replace(" ", "")
    assert words.fields == sorted(words.fields)
    assert (words.of_token >= 0).tolist() == (batch.field[0] >= 0).tolist()
    pieces = Words.of(batch, reader.tokenizer, pieces=True)
    assert len(pieces.texts) == int((batch.field >= 0).sum()) > len(words.texts)
    weights = np.arange(2 * len(words.of_token), dtype=float).reshape(2, -1)
    assert words.total(weights).sum() == pytest.approx(weights[:, words.of_token >= 0].sum())


def test_words_of_byte_level_tokens(byte_level: object) -> None:
    ids = byte_level("gender is male. city is Bonn.")["input_ids"]  # type: ignore[operator]
    field = torch.tensor([[-1, *[0] * (len(ids) - 2), -1]])
    batch = TextBatch(torch.tensor([ids]), torch.ones(1, len(ids)).bool(), field, field >= 0)
    words = Words.of(batch, byte_level)  # type: ignore[arg-type]
    assert words.texts == ["gender", "is", "male.", "city", "is", "Bonn."]


def test_what_a_field_needs_is_what_hiding_words_costs(
    reader: Reader, model: Alignment, rows: np.ndarray
) -> None:
    data = reader.data
    ids, batch = case(reader, rows)
    found = reading.dependence(model, data, ids, batch)
    f, g = 1, 5  # a masked field, and one whose words are hidden
    first, last = int(data.vocabulary.starts[f]) + 2, int(data.vocabulary.starts[f + 1])

    def loss(tokens: torch.Tensor) -> torch.Tensor:
        masked = ids.clone()
        masked[:, f] = model.mask_ids[f]
        states = model.encode_text(tokens, batch.attention)
        query, _ = model.attend(model.encode_ids(masked), batch, states)
        scores = query[:, f] @ model.features.weight.T + model.feature_bias
        chances = scores[:, first:last].log_softmax(1)
        return -chances.gather(1, (ids[:, f] - first).clamp(min=0)[:, None]).squeeze(1)

    with torch.no_grad():
        hidden = (batch.field == g) & batch.value
        expected = loss(batch.tokens.masked_fill(hidden, model.mask_token)) - loss(batch.tokens)
    known = ids[:, f] >= first
    torch.testing.assert_close(found[known, f, g], expected[known], atol=1e-5, rtol=1e-4)
    assert found[:, f].isnan().all(1).equal(~known)
    torch.testing.assert_close(
        torch.from_numpy(reading.needs(model, data, reader.sentences, rows)), found,
        equal_nan=True, atol=1e-5, rtol=1e-4,
    )  # fmt: skip


def test_needed_words_are_told_of_each_field(reader: Reader, model: Alignment) -> None:
    rows = reader.data.of("test")
    table, mean = reading.needed_words([model], reader.data, reader.sentences, rows)
    assert list(table["masked field"]) == reader.names == list(mean.columns)
    assert (table["low"] <= table["own words (nats)"]).all() and (
        table["own words (nats)"] <= table["high"]
    ).all()
    for f, line in table.iterrows():
        assert line["needs most"] == mean.loc[line["masked field"]].idxmax()
        assert line["own words (nats)"] == pytest.approx(mean.iloc[f, f], abs=1e-6)  # type: ignore[index]
    genre = table.set_index("masked field").loc["genre"]
    assert genre["of its own"] == (genre["needs most"] in ("item id", "title", "genre"))


def test_words_are_needed_if_each_pretraining_needs_them(reader: Reader, model: Alignment) -> None:
    rows = reader.data.of("test")
    other = reader.checkpoints["before pretraining"]
    each = [reading.needed_words([m], reader.data, reader.sentences, rows) for m in (model, other)]
    both, mean = reading.needed_words([model, other], reader.data, reader.sentences, rows)
    (one, of_one), (two, of_two) = each
    pd.testing.assert_frame_equal(mean, (of_one + of_two) / 2, check_dtype=False)
    assert (both["low"] == np.minimum(one["low"], two["low"])).all()
    assert (both["high"] == np.maximum(one["high"], two["high"])).all()
    assert (both["of its own"] == one["of its own"] & two["of its own"]).all()
    assert set(both["pretrainings"]) == {2}


def test_a_field_without_known_values_has_no_loss(reader: Reader, model: Alignment) -> None:
    empty = reader.data.vocabulary.starts.copy()
    empty[2:] += empty[1] + 2 - empty[2]  # field 1 has a mask and an unknown id only
    vocabulary = SimpleNamespace(starts=empty)
    data = cast(Prepared, SimpleNamespace(vocabulary=vocabulary))
    query = torch.zeros(3, model.features.embedding_dim)
    assert reading.loss(model, data, query, torch.full((3,), int(empty[1]) + 1), 1).isnan().all()


def test_a_checkpoint_that_is_not_there_is_named(reader: Reader, rows: np.ndarray) -> None:
    with pytest.raises(
        ValueError, match=r"no checkpoint 'after'; there are|did you mean 'after pre"
    ):
        reader.row(int(rows[0]), 0, "after")


def test_runs_of_other_pretrainings_or_data_are_refused(tiny_plm: str) -> None:
    profile = load_profile(str(TINY), {"plm": {"name": tiny_plm}, "pretrainings": 2})
    with pytest.raises(ValueError, match="'alt_both' did not begin from this pretraining"):
        reading.reader(profile.aligned(), both=profile.run("alt_both", 1))
    other = load_profile(str(TINY), {"data": {"seed": 1}}).run("raw", 0)
    with pytest.raises(ValueError, match="'raw' has other data than the pretraining"):
        reading.reader(profile.aligned(), ctr=other)


def test_recovered_values_are_the_field_s_own(reader: Reader, model: Alignment) -> None:
    data = reader.data
    query = model.features.weight[int(data.vocabulary.starts[1]) + 3].detach() * 100
    found = reading.recovered_values(model, data, query, 1, number=100)
    assert {value for value, _ in found} <= set(data.vocabulary.values[1])
    assert sum(chance for _, chance in found) == pytest.approx(1, abs=1e-4)
    assert found[0][0] == data.vocabulary.values[1][1]  # behind mask and unknown id


def test_recovered_words_see_none_of_the_value(
    reader: Reader, model: Alignment, rows: np.ndarray
) -> None:
    ids, batch = case(reader, rows[:1])
    found = reading.recovered_words(model, ids, batch, 2, reader.tokenizer)
    masked = (batch.field == 2) & batch.value
    truths = reader.tokenizer.convert_ids_to_tokens(batch.tokens[masked].tolist())
    assert [truth for truth, _ in found] == truths
    changed = batch.tokens.masked_fill(masked, int(batch.tokens[0, 1]))
    other = TextBatch(changed, batch.attention, batch.field, batch.value)
    again = reading.recovered_words(model, ids, other, 2, reader.tokenizer)
    assert [best for _, best in again] == [best for _, best in found]


def test_a_view_is_plain_and_compares_on_the_same_words(reader: Reader, rows: np.ndarray) -> None:
    view = reader.row(int(rows[0]), 1, "before pretraining", "after pretraining")
    first, second, less, *needed = view["panels"]
    assert [panel["title"] for panel in needed] == [
        "before pretraining: words needed", "after pretraining: words needed",
    ]  # fmt: skip
    assert less["kind"] == "difference" and first["columns"] == second["columns"]
    expected = np.array(first["values"]) - np.array(second["values"])
    np.testing.assert_allclose(less["values"], expected, atol=1e-4)
    for panel in (first, second):
        total = np.array(panel["values"]).sum(1) + panel["special"]
        np.testing.assert_allclose(total, 1, atol=1e-3)
    values = reader.data.words
    assert view["truth"] == values[reader.data.rows[rows[0]][1]]
    assert view["known"] == (view["truth"] in reader.data.vocabulary.values[1])
    assert view["label"] == reader.data.labels[rows[0]]
    assert view["probability"] == reader.probabilities[int(rows[0])]
    assert len(json.dumps(view)) > 1000
    whole = reader.corpus(rows, "after pretraining")["panels"][0]
    assert np.shape(whole["values"]) == (len(reader.names), len(reader.names))


def test_checkpoints_are_the_models_they_are_named_after(reader: Reader) -> None:
    before, after, single, tuned = reader.checkpoints.values()
    weights = [model.ctr.embedding.weight for model in (before, after, single, tuned)]
    assert not any(
        torch.equal(one, two) for i, one in enumerate(weights) for two in weights[i + 1 :]
    )
    assert torch.equal(after.to_fields.weight, tuned.to_fields.weight)
    assert not any(model.training for model in reader.checkpoints.values())


def test_controls_choose_what_is_shown(reader: Reader) -> None:
    shown = Explorer(reader, reader.data.of("test"))
    assert shown.checkpoint.value == "after finetuning ALT_both"
    assert [panel["kind"] for panel in shown.map.view["panels"]] == ["attention", "need"]
    shown.map.pinned = {"panel": 0}
    shown.other.value = "before pretraining"
    assert len(shown.map.view["panels"]) == 5 and shown.map.pinned is None
    shown.field.value = 2
    assert shown.map.view["field"] == 2
    chances = []
    for order in ("most certain first", "least certain first"):
        shown.order.value = order
        chances.append(abs(shown.map.view["probability"] - 0.5))
    every = [abs(chance - 0.5) for chance in reader.probabilities.values()]
    assert chances == [max(every), min(every)]
    words = len(shown.map.view["panels"][0]["columns"])
    shown.pieces.value = True
    assert len(shown.map.view["panels"][0]["columns"]) > words
    shown.shown.value = "all rows"
    assert shown.map.view["field"] is None and shown.index.disabled
    assert len(shown.corpora) == 1


def test_a_page_holds_everything_and_asks_for_nothing(reader: Reader, rows: np.ndarray) -> None:
    view = reader.row(int(rows[0]), 0, "after pretraining")
    truth = "</script><b> {{ script }} {{ title }} {% if %} <!-- ${x} \u2028"
    page = widget.page({**view, "truth": truth}, "A & B {{ values }}")
    assert "<h1>A &amp; B {{ values }}</h1>" in page
    assert page.count("</script>") == 1 and "<!--" not in page
    values = next(line for line in page.splitlines() if line.startswith("const values = "))
    content = json.loads(values.removeprefix("const values = ").removesuffix(";"))
    assert content == json.loads(json.dumps({"view": {**view, "truth": truth}, "pinned": None}))
    assert not any(word in page for word in ("http:", "https:", "import ", "src=", "fetch("))


def test_what_has_no_cross_attention_is_refused(tiny_plm: str) -> None:
    profile = load_profile(str(TINY), {"plm": {"name": tiny_plm}})
    bare = replace(profile.aligned(), alignment=replace(profile.alignment, mtm=False))
    with pytest.raises(ValueError, match="'before pretraining' has no cross-attention to show"):
        reading.reader(bare)
    other = replace(profile.aligned(), data=replace(profile.data, min_count=3))
    with pytest.raises(ValueError, match="'more' has other data or sentences"):
        reading.reader(profile.aligned(), {"more": other})
