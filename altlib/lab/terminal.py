"""How the processes of a batch run speak, and how they end."""

import math
import os
import re
import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn

import psutil

PARENT_SECONDS = 0.5
BAR_SECONDS = 5.0


class Lines:
    """Passes a stream on to the terminal line by line, with a name in front.

    A progress bar that redraws itself is shown at most every `BAR_SECONDS`.
    """

    def __init__(self, name: str) -> None:
        self.name, self.terminal = name, sys.stderr
        self.line = ""
        self.shown = ""  # what of the line stands in the terminal already
        self.is_bar = False
        self.bar_time = -math.inf

    def write(self, text: str) -> int:
        for part in re.split(r"(\r(?!\n)|\n)", text):
            if part == "\n":
                self._show()
                self.line, self.shown, self.is_bar = "", "", False
            elif part == "\r":
                self.line, self.is_bar = "", True
            else:
                self.line += part
        if self.is_bar and time.monotonic() - self.bar_time >= BAR_SECONDS:
            self._show()
        return len(text)

    def flush(self) -> None:
        """Every line is flushed when it is shown."""

    def _show(self) -> None:
        if self.line.strip() and self.line != self.shown:
            print(f"[{self.name}] {self.line.rstrip()}", file=self.terminal, flush=True)
            self.shown = self.line
            self.bar_time = time.monotonic()


def end_with(parent: int) -> None:
    """Ends this process and its children soon after `parent`, its parent, however that one ends.

    So `kill` reaches everything that a run has started, and nothing is left of a killed run to
    write beside the next one.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        leave(1, "the process that started this one has ended")

    threading.Thread(target=watch, daemon=True).start()


def leave(code: int, why: str) -> NoReturn:
    """Ends this process at once with its children, also where they have no time for signals."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    print(f"altlib: {why}.", file=sys.stderr, flush=True)
    os._exit(code)
