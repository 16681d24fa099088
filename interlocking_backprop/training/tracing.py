"""A trace of training steps by ``torch.profiler``; Perfetto (ui.perfetto.dev) and chrome://tracing open it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.profiler import profile, schedule

# The first steps build what later ones find: programs, buffers, kernels.
_WARM_UP = 3


@contextmanager
def traced(path: Path, n_traced: int, n_steps: int) -> Iterator[Callable[[], None]]:
    """Traces training steps, after a few that warm up where the run is long enough.

    Args:
        path: the file that is written, with the ending .json.gz.
        n_traced: how many steps are traced; 0 for none.
        n_steps: how many steps the run still takes.

    Yields:
        A function that is to be called after every step.
    """
    n_traced = min(n_traced, n_steps)
    if not n_traced:
        yield lambda: None
        return
    steps = schedule(wait=0, warmup=min(_WARM_UP, n_steps - n_traced), active=n_traced, repeat=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with profile(schedule=steps, on_trace_ready=lambda p: p.export_chrome_trace(str(path))) as profiler:
        yield profiler.step
