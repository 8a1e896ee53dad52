"""The words of data sets, from words.yaml."""

from pathlib import Path

from altlib.faults import entries

WORDS = entries(Path(__file__).with_name("words.yaml"))
