"""The token table gives what the tokenizer gives on the whole sentence, with exact spans."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, processors, trainers
from transformers import PreTrainedTokenizerFast

from altlib.config import LabelRule, TextConfig
from altlib.data import sources
from altlib.data.frame import Dataset
from altlib.data.schema import Field, Schema
from altlib.data.tabular import Prepared, prepare
from altlib.data.text import TextBatch, TokenTable, pieces, sentence_fields
from altlib.models import plm


@dataclass
class SentenceTokens:
    """Tokenises whole sentences row by row, as the published code does: slow, but independent of
    `TokenTable`, whose interface it has."""

    config: TextConfig
    values: list[str]
    schema: Schema
    tokenizer: PreTrainedTokenizerFast

    def sentence(self, row: np.ndarray) -> tuple[str, list[tuple[int, int, int]]]:
        """The sentence of a row [F], and where in it each told field's value begins and ends."""
        text, spans = "", []
        for field in sentence_fields(self.schema, self.config):
            piece = pieces(self.schema, self.config, field, [self.values[row[field]]])[0]
            value = " ".join(self.values[row[field]].split())
            head, _ = self.config.around(self.schema.fields[field].words)
            text += " " if text else ""
            begin = len(text) + len(head)
            spans.append((field, begin, begin + len(value)))
            text += piece
        return text, spans

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of each row's sentence, special ones included [B]."""
        return self.assemble(rows).attention.sum(1).numpy()

    def assemble(self, rows: np.ndarray) -> TextBatch:
        """As `TokenTable.assemble`."""
        told = [self.sentence(row) for row in rows]
        encoded = self.tokenizer(
            [text for text, _ in told],
            truncation=True,
            max_length=self.config.max_length,
            padding="max_length" if self.config.pad == "maximum" else True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_tensors="np",
            split_special_tokens=True,
        )
        field = np.full(encoded["input_ids"].shape, -1)
        value = np.zeros(field.shape, bool)
        begins, ends = encoded["offset_mapping"][..., 0], encoded["offset_mapping"][..., 1]
        real = encoded["special_tokens_mask"] == 0
        for row, (text, spans) in enumerate(told):
            last = [*(begin for _, begin, _ in spans[1:]), len(text) + 1]
            for (f, begin, end), following in zip(spans, last, strict=True):
                head, _ = self.config.around(self.schema.fields[f].words)
                start = begin - len(head) - 1  # the space before a piece belongs to it
                own = real[row] & (ends[row] > start) & (begins[row] < following)
                field[row, own] = f
                value[row, own & (begins[row] < end) & (ends[row] > begin)] = True
        return TextBatch(
            torch.from_numpy(encoded["input_ids"]).long(),
            torch.from_numpy(encoded["attention_mask"] == 1),
            torch.from_numpy(field),
            torch.from_numpy(value),
        )


def both(
    data: Prepared, tokenizer: PreTrainedTokenizerFast, config: TextConfig
) -> tuple[TokenTable, SentenceTokens]:
    """The token table, and the row-by-row tokeniser that it must agree with."""
    values = data.words
    table = TokenTable.build(data.values, data.schema, tokenizer, config)
    return table, SentenceTokens(config, values, data.schema, tokenizer)


def assert_equal(found: TextBatch, expected: TextBatch) -> None:
    for name in ("tokens", "attention", "field", "value"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


@pytest.mark.parametrize("kind", ["wordpiece", "byte_level", "metaspace"])
@pytest.mark.parametrize(
    "config",
    [
        TextConfig(),
        TextConfig(max_length=17),
        TextConfig(pad="maximum"),
        TextConfig(leave_out=("user_id", "item_id")),
        TextConfig(template="the {field}: {value}!"),
        TextConfig(template="{value} is the {field}."),
    ],
    ids=["default", "cut", "maximum", "left out", "other template", "value first"],
)
def test_assembled_equals_tokenised(
    kind: str, config: TextConfig, synthetic: Dataset, request: pytest.FixtureRequest
) -> None:
    data = prepare(synthetic.frame, synthetic.schema)
    table, sentences = both(data, request.getfixturevalue(kind), config)
    rows = data.rows[:100]
    assert_equal(table.assemble(rows), sentences.assemble(rows))
    assert np.array_equal(table.lengths(rows), sentences.lengths(rows))


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the tokenizers are shared
)
@given(words=st.lists(st.text(max_size=12), min_size=3, max_size=3))
@pytest.mark.parametrize("kind", ["wordpiece", "byte_level", "metaspace"])
def test_any_characters(kind: str, words: list[str], request: pytest.FixtureRequest) -> None:
    schema = Schema(
        "any",
        (Field("a", "first", "user"), Field("b", "second", "item"), Field("c", "third", "item")),
        LabelRule(4),
    )
    tokenizer = request.getfixturevalue(kind)
    config = TextConfig()
    table = TokenTable.build([[w] for w in words], schema, tokenizer, config)
    sentences = SentenceTokens(config, words, schema, tokenizer)
    rows = np.array([[0, 1, 2]])
    assert torch.equal(table.assemble(rows).tokens, sentences.assemble(rows).tokens)


TWO = Schema("two", (Field("a", "first", "user"), Field("b", "second", "item")), LabelRule(4))


@pytest.mark.parametrize("kind", ["wordpiece", "byte_level"])
@pytest.mark.parametrize("form", ["table", "sentence"])
def test_special_tokens_in_a_value_are_words_as_any_other(
    kind: str, form: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(kind)
    words = [" ".join(tokenizer.all_special_tokens), "x"]
    config = TextConfig()
    made = (
        TokenTable.build([[w] for w in words], TWO, tokenizer, config)
        if form == "table"
        else SentenceTokens(config, words, TWO, tokenizer)
    )
    batch = made.assemble(np.array([[0, 1]]))
    unknown = batch.tokens == (-1 if tokenizer.unk_token_id is None else tokenizer.unk_token_id)
    special = torch.isin(batch.tokens, torch.tensor(tokenizer.all_special_ids)) & ~unknown
    assert int(special.sum()) == tokenizer.num_special_tokens_to_add()
    assert made.lengths(np.array([[0, 1]])).tolist() == [batch.tokens.shape[1]]


def test_what_no_tokenizer_can_read_is_refused(wordpiece: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match=r"field 'b' has the text 'x\\ud800', which is not valid"):
        TokenTable.build([["y"], ["x\ud800"]], TWO, wordpiece, TextConfig())


def test_special_tokens_leave_room_for_words(
    wordpiece: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> TokenTable:
        return TokenTable.build([["y"], ["x"]], TWO, wordpiece, TextConfig(max_length=3))

    assert made().assemble(np.array([[0, 1]])).tokens.shape == (1, 3)
    around = processors.TemplateProcessing(
        single="[CLS] $A [SEP] [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    monkeypatch.setattr(wordpiece.backend_tokenizer, "post_processor", around)
    with pytest.raises(ValueError, match=r"max_length is 3, but the PLM puts 3 .* at least 4\."):
        made()


def test_a_tokenizer_that_merges_across_spaces_is_refused() -> None:
    raw = Tokenizer(models.BPE(unk_token="[UNK]"))  # without a cut at white space
    raw.train_from_iterator(
        ["first is x. second is x."] * 9,
        trainers.BpeTrainer(vocab_size=60, special_tokens=["[UNK]", "[PAD]"]),
    )
    merging = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", pad_token="[PAD]")
    with pytest.raises(ValueError, match=r"take another PLM"):
        TokenTable.build([["x"], ["x"]], TWO, merging, TextConfig())


def test_spans_cover_the_value_and_nothing_else(
    synthetic: Dataset, wordpiece: PreTrainedTokenizerFast
) -> None:
    data = prepare(synthetic.frame, synthetic.schema)
    table, _ = both(data, wordpiece, TextConfig())
    batch = table.assemble(data.rows[:50])
    values = data.words
    for row in range(50):
        for f in range(len(data.schema.fields)):
            inside = batch.tokens[row][(batch.field[row] == f) & batch.value[row]]
            told = wordpiece(values[data.rows[row, f]], add_special_tokens=False)["input_ids"]
            assert inside.tolist() == told


@pytest.mark.parametrize(
    "template",
    ["{field}", "{value} or {value}", "{value} {other}", "{value", "\0", "{value:>9}",
     "{field.x} {value}", "{{value}} {value}"],
)  # fmt: skip
def test_a_template_holds_the_value_once(template: str) -> None:
    with pytest.raises(ValueError, match=r"it must hold \{value\} once"):
        TextConfig(template=template)


def test_saved_and_loaded(
    synthetic: Dataset, wordpiece: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    data = prepare(synthetic.frame, synthetic.schema)
    table, _ = both(data, wordpiece, TextConfig())
    table.save(tmp_path)
    again = TokenTable.load(tmp_path, table.config)
    assert_equal(again.assemble(data.rows[:9]), table.assemble(data.rows[:9]))


def test_unknown_field_left_out_is_an_error(
    synthetic: Dataset, wordpiece: PreTrainedTokenizerFast
) -> None:
    data = prepare(synthetic.frame, synthetic.schema)
    with pytest.raises(ValueError, match=r"'userid'.*not a field of 'synthetic'"):
        both(data, wordpiece, TextConfig(leave_out=("userid",)))


def check_all(data: Prepared, tokenizer: PreTrainedTokenizerFast, rows: np.ndarray) -> None:
    table, sentences = both(data, tokenizer, TextConfig())
    for part in np.array_split(rows, max(1, len(rows) // 2000)):
        batch = table.assemble(data.rows[part])
        whole = [sentences.sentence(row)[0] for row in data.rows[part]]
        expected = tokenizer(whole, truncation=True, max_length=100, padding=True)["input_ids"]
        assert torch.equal(batch.tokens, torch.tensor(expected))


@pytest.mark.network
@pytest.mark.parametrize("kind", ["bert-tiny", "byte_level"])
def test_every_value_of_movielens_100k(kind: str, request: pytest.FixtureRequest) -> None:
    """The first row of each value of a field, and a sample of the rest."""
    found = sources.load("ml-100k")
    data = prepare(found.frame, found.schema)
    tokenizer = plm.load(kind).tokenizer if kind == "bert-tiny" else request.getfixturevalue(kind)
    firsts = [np.unique(column, return_index=True)[1] for column in data.rows.T]
    sample = np.random.default_rng(0).choice(len(data.rows), 5_000, replace=False)
    check_all(data, tokenizer, np.unique(np.concatenate([*firsts, sample])))


@pytest.mark.parametrize("kind", ["wordpiece", "byte_level", "metaspace"])
def test_a_sample_of_movielens_1m(kind: str, request: pytest.FixtureRequest) -> None:
    folder = Path(os.environ.get("ALTLIB_DATA", "/nowhere"))
    if not ((folder / "ml-1m.zip").exists() or (folder / "ml-1m").exists()):
        pytest.skip("needs MovieLens-1M in the folder ALTLIB_DATA")
    found = sources.load("ml-1m")
    data = prepare(found.frame, found.schema)
    rows = np.random.default_rng(0).choice(len(data.rows), 50_000, replace=False)
    check_all(data, request.getfixturevalue(kind), rows)
