import pytest

from altlib.data import sources


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no data set 'ml-1n'; did you mean 'ml-1m'\?"):
        sources.load("ml-1n")


def test_a_set_of_files_takes_no_options() -> None:
    with pytest.raises(ValueError, match=r"'ml-1m' takes no options but got \['rows'\]"):
        sources.load("ml-1m", {"rows": 5})
