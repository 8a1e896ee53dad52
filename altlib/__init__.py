"""Fine-grained alignment between ID-based models and pretrained language models."""

import os
import sys
from types import TracebackType

# OpenMP's threads sleep while they wait. Spinning threads make a training step several times as
# long beside one other busy process. OpenMP reads this when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


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
