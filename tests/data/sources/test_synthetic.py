import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from altlib.data import sources
from altlib.data.sources.synthetic import SCHEMA, Synthetic, make


def auc(texts: pd.Series, labels: pd.Series) -> float:
    """Test AUC of a logistic regression on the words of `texts`, latest fifth as test rows."""
    cut = len(texts) * 4 // 5
    counter = CountVectorizer(token_pattern=r"\S+", min_df=2)
    train = counter.fit_transform(texts[:cut])
    model = LogisticRegression(max_iter=300).fit(train, labels[:cut])
    scores = model.predict_proba(counter.transform(texts[cut:]))[:, 1]
    return float(roc_auc_score(labels[cut:], scores))


def parts(parameters: Synthetic) -> tuple[float, float, float]:
    """Test AUC of the item's id, of the title's words, and of the user's id."""
    frame = make(parameters).frame
    labels = frame["rating"] >= SCHEMA.label.positive_from
    columns = ("item_id", "title", "user_id")
    item, title, user = (auc(frame[name].astype(str), labels) for name in columns)
    return item, title, user


def test_words_tell_what_sparse_ids_cannot() -> None:
    item, title, user = parts(Synthetic())
    assert title > item + 0.05
    assert title > 0.65
    assert user > 0.6


def test_shuffled_texts_tell_nothing() -> None:
    item, title, _ = parts(Synthetic(shuffle_texts=True))
    assert title < item + 0.02
    plain, shuffled = make(Synthetic()).frame, make(Synthetic(shuffle_texts=True)).frame
    assert plain.drop(columns="title").equals(shuffled.drop(columns="title"))
    assert not plain["title"].equals(shuffled["title"])


def test_shares_put_the_signal_where_they_say() -> None:
    _, title, user = parts(Synthetic(in_ids=0, in_words=0.6, in_both=0))
    assert title > 0.75 and abs(user - 0.5) < 0.05
    _, title, user = parts(Synthetic(in_ids=0.6, in_words=0, in_both=0))
    assert user > 0.75 and abs(title - 0.5) < 0.05


def test_both_takes_user_and_words_together() -> None:
    frame = make(Synthetic(in_ids=0, in_words=0, in_both=0.6)).frame
    labels = frame["rating"] >= 4
    user, word = frame["user_id"].astype(str), frame["title"].astype(str)
    assert auc(user, labels) < 0.55 and auc(word, labels) < 0.55
    first = word.str.split().str[0]
    assert auc(user + "-" + first, labels) > 0.6


@pytest.mark.parametrize(("shuffled", "low", "high"), [(False, 0.8, 1.0), (True, 0.0, 0.3)])
def test_genre_is_read_off_the_title(shuffled: bool, low: float, high: float) -> None:
    frame = make(Synthetic(shuffle_texts=shuffled)).frame.drop_duplicates("item_id")
    noun = frame["title"].astype(str).str.split().str[1]
    table = pd.crosstab(noun, frame["genre"].astype(str))
    assert low < table.max(axis=1).sum() / len(frame) < high


def test_the_seed_decides() -> None:
    assert make(Synthetic(rows=500)).frame.equals(make(Synthetic(rows=500)).frame)
    assert not make(Synthetic(rows=500)).frame.equals(make(Synthetic(rows=500, seed=1)).frame)


@pytest.mark.parametrize("rows", [1, 2_000, 20_000])
def test_frame_keeps_the_contract(rows: int) -> None:
    data = sources.load("synthetic", {"rows": rows})
    frame = data.frame
    assert len(frame) == rows
    assert list(frame.columns) == [*data.schema.field_names, "rating", "timestamp"]
    assert (frame.dtypes.iloc[:6] == "category").all() and not frame.isna().any().any()
    assert not frame.duplicated(["user_id", "item_id"]).any()
    assert (np.diff(frame["timestamp"]) > 0).all()
    assert frame["title"].nunique() == frame["item_id"].nunique()
    assert data.provenance["parameters"]["rows"] == rows
    if rows > 1:
        assert set(frame["rating"]) == {1, 2, 3, 4, 5}
        assert abs((frame["rating"] >= 4).mean() - 0.5) < 0.01


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"row": 5}, "no entry 'row'; did you mean 'rows'?"),
        ({"rows": "many"}, "'rows' is 'many': Input should be a valid integer"),
        ({"rows": True}, "'rows' is true or false; it must be a number"),
        ({"shuffle_texts": 1}, "'shuffle_texts' is 1: Input should be a valid boolean"),
        (
            {"users": 10, "items": 10, "rows": 101},
            "rows = 101: there are 100 pairs of user and item",
        ),
        ({"topics": 9}, "'topics' is 9: Input should be less than or equal to 8"),
        ({"in_ids": -0.1}, "'in_ids' is -0.1: .* greater than or equal to 0"),
        ({"in_ids": 0.5, "in_words": 0.5, "in_both": 0.5}, "= 1.5: at most 1 is possible"),
    ],
)
def test_wrong_options_are_named(options: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        sources.load("synthetic", options)
