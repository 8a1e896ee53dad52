"""Fine-grained alignment between ID-based models and pretrained language models."""

import os
import sys
from types import TracebackType

# OpenMP's threads wait for some microseconds and then sleep. Spinning threads make a training step
# several times as long beside one other busy process; sleeping at once costs a third of a small
# model's speed. OpenMP reads this when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _stop(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Shows an error that nobody caught; Ctrl-C is none."""
    if issubclass(kind, KeyboardInterrupt):
        print("altlib: stopped by Ctrl-C.", file=sys.stderr)
        raise SystemExit(130)
    sys.__excepthook__(kind, error, trace)


# Command lines only: Python names them "-m" until it has found their module. Set before torch is
# loaded, which takes seconds.
if sys.argv[0] == "-m":
    sys.excepthook = _stop
