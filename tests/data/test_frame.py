"""The frame: parts give what the whole gives."""

import numpy as np
import pandas as pd

from altlib.data.frame import Dataset, coded
from altlib.data.tabular import prepare


def test_parts_give_what_the_whole_gives(synthetic: Dataset) -> None:
    text = synthetic.frame.astype(dict.fromkeys(synthetic.schema.field_names, "str"))
    parts = [text.iloc[rows] for rows in np.array_split(np.arange(len(text)), 7)]
    frame = coded(parts, synthetic.schema.field_names, ["rating", "timestamp"])
    pd.testing.assert_frame_equal(
        frame.astype(dict.fromkeys(synthetic.schema.field_names, "str")), text, check_like=True
    )
    whole, pieced = (prepare(f, synthetic.schema) for f in (synthetic.frame, frame))
    assert np.array_equal(whole.labels, pieced.labels)
    words = [np.array(data.words)[data.rows] for data in (whole, pieced)]
    assert np.array_equal(*words)
