"""Which backward pass is the last to start from a gradient, so that the gradient can be freed behind it."""

from __future__ import annotations

from collections.abc import Sequence

from interlocking_backprop.schedule.action import PASSES, Action, Kind
from interlocking_backprop.scheme.streams import ComponentWork, Pass

# In the place of a stream: the gradient of the component's own loss.
OWN_LOSS = -1


def last_uses_of(actions: Sequence[Action], work: Sequence[ComponentWork]) -> dict[Action, list[int]]:
    """For each backward pass the streams, and the gradient of the loss, that no later one starts from."""
    last: dict[Action, list[int]] = {}
    used: set[tuple[int, int | None, int]] = set()
    # The passes of a batch, as they follow one another over the steps.
    for action in sorted(actions, key=lambda action: action.age)[::-1]:
        if action.kind in PASSES:
            i, m = action.component, action.microbatch
            source = pass_of(action, work[i]).source
            needed = [stream for stream, _ in source.streams] + ([OWN_LOSS] if source.loss else [])
            last[action] = [stream for stream in needed if (i, m, stream) not in used]
            used.update((i, m, stream) for stream in needed)
    return last


def pass_of(action: Action, work: ComponentWork) -> Pass:
    if action.kind is Kind.BACKWARD_WEIGHT:
        return work.weight_passes[action.stream or 0]
    assert action.stream is not None
    return work.input_pass(action.stream)
