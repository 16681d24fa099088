"""Exceptions of the user's own code keep their type and say where in the model they were raised.

From Python 3.11 on what is said is a note (`add_note`), which tracebacks show below the message; before that it becomes
part of the message, where there is one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor

from interlocking_backprop.engine.tree import Tree, map_tensors, tensors, versions
from interlocking_backprop.schedule.action import Action, Kind

_DOES = {
    Kind.FORWARD: "forward pass",
    Kind.LOSS: "head and loss",
    Kind.EXIT: "exit",
    Kind.UPDATE: "update",
    Kind.BACKWARD_INPUT: "backward pass",
    Kind.BACKWARD_WEIGHT: "backward pass",
    Kind.FULL_BACKWARD: "backward pass",
}


def add_place(error: Exception, action: Action, n_microbatches: int) -> None:
    """Says which action raised an exception; messages to other ranks report their failures themselves."""
    if action.kind in _DOES:
        m = "" if action.microbatch is None else f", micro-batch {action.microbatch} of {n_microbatches}"
        _note(error, f"in component {action.component}, {_DOES[action.kind]}{m} (action {action})")


def add_shapes(error: Exception, what: str, values: Tree) -> None:
    """Says of which shapes the values were that an exception is about."""
    shapes = ", ".join(f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in tensors(values))
    _note(error, f"{what} {shapes or 'no tensor'}")


def notes(error: BaseException) -> str:
    """What has been noted of an exception, for those who report it in a line."""
    return "".join(f"; {note}" for note in getattr(error, "__notes__", ()))


def changes_in_place(error: Exception, net: Callable[[Tree], Tree], inputs: Tree) -> bool:
    """Whether autograd has refused what a net does to its input; the net is called once more to find out."""
    if "a leaf Variable that requires grad" not in str(error):
        return False
    with torch.no_grad():
        copies = map_tensors(Tensor.clone, inputs)
        before = versions(copies)
        with contextlib.suppress(Exception):
            net(copies)
        return before != versions(copies)


def _note(error: Exception, text: str) -> None:
    if hasattr(error, "add_note"):
        error.add_note(text)
    elif len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (f"{error.args[0]}\n{text}",)


def changed_in_place(i: int) -> ValueError:
    """The error of a component that changes its input."""
    return ValueError(
        f"component {i} changes its input in place, which is the output of component {i - 1} and still in use; make "
        "its first operation out of place, e.g. ReLU(inplace=False)."
    )
