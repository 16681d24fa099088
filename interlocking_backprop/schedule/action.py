"""One action of a schedule, in the words and strings of ``torch.distributed.pipelining``.

``2F0`` is the forward pass of component 2 for micro-batch 0. Interlocking adds to PyTorch's kinds the loss with its
gradients (``2L0``), the optimizer update (``2U``), the evaluation of what comes out at an exit (``2E0``), and that
weights are given (``2GIVE``) to a head that is a copy of them and takes them over (``0COPY``). Several
gradients can cross a boundary, so the index of the stream stands behind a dot where it is not 0 (``2I0.1``,
``2SEND_B0.1``; ``2I0`` is stream 0).
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple


class Kind(str, Enum):
    """What an action does; see `Action` for the strings."""

    FORWARD = "F"
    LOSS = "L"
    BACKWARD_INPUT = "I"
    BACKWARD_WEIGHT = "W"
    FULL_BACKWARD = "B"
    UPDATE = "U"
    EXIT = "E"
    SEND_F = "SEND_F"
    RECV_F = "RECV_F"
    SEND_B = "SEND_B"
    RECV_B = "RECV_B"
    REDUCE_GRAD = "REDUCE_GRAD"
    GIVE = "GIVE"
    COPY = "COPY"

    def __str__(self) -> str:
        return self.value

    @property
    def is_communication(self) -> bool:
        """Whether the action exchanges a message with another rank of the pipeline."""
        return self in (Kind.SEND_F, Kind.RECV_F, Kind.SEND_B, Kind.RECV_B)

    @property
    def has_stream(self) -> bool:
        """Whether the action is about one stream."""
        return self in (Kind.BACKWARD_INPUT, Kind.FULL_BACKWARD, Kind.SEND_B, Kind.RECV_B)

    @property
    def has_microbatch(self) -> bool:
        """Whether the action is about one micro-batch."""
        return self not in (Kind.UPDATE, Kind.REDUCE_GRAD, Kind.GIVE, Kind.COPY)


PASSES = (Kind.BACKWARD_INPUT, Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD)
"""The backward passes through a component."""

_OTHER_END = {
    Kind.SEND_F: (Kind.RECV_F, 1),
    Kind.RECV_F: (Kind.SEND_F, -1),
    Kind.SEND_B: (Kind.RECV_B, -1),
    Kind.RECV_B: (Kind.SEND_B, 1),
}
_KINDS = "|".join(sorted((kind.value for kind in Kind), key=len, reverse=True))
_ACTION = re.compile(rf"(?P<component>\d+)(?P<kind>{_KINDS})(?P<microbatch>\d+)?(?:\.(?P<stream>\d+))?")


class Action(NamedTuple):
    """An action of one component.

    Attributes:
        component: index of the component that acts (or for which its rank sends or receives).
        kind: what it does.
        microbatch: index of the micro-batch; None for ``U``, ``REDUCE_GRAD``, ``GIVE`` and ``COPY``.
        stream: for ``I`` and ``B`` the stream, at the input of the component, that is computed; for ``SEND_B`` the
            one that is sent; for ``RECV_B`` the one, at the input of the next component, that arrives. Else None.
            ``B`` of component 0 does not exist: without input gradient it is ``W``.
    """

    component: int
    kind: Kind
    microbatch: int | None = None
    stream: int | None = None

    def __str__(self) -> str:
        return f"{self.component}{self.short}"

    @property
    def short(self) -> str:
        """The string without the component, for where that is clear."""
        microbatch = "" if self.microbatch is None else self.microbatch
        return f"{self.kind}{microbatch}" + (f".{self.stream}" if self.stream else "")

    @property
    def other_end(self) -> Action:
        """The receive that belongs to a send, or the send that belongs to a receive."""
        kind, distance = _OTHER_END[self.kind]
        return Action(self.component + distance, kind, self.microbatch, self.stream)

    @classmethod
    def from_str(cls, text: str) -> Action:
        """The reverse of ``str(action)``.

        Raises:
            ValueError: if the text is not of the form ``[component][kind][micro-batch][.stream]``, e.g. ``2F0``.
        """
        match = _ACTION.fullmatch(text.strip())
        if match:
            kind = Kind(match["kind"])
            stream = int(match["stream"] or 0) if kind.has_stream else None
            microbatch = int(match["microbatch"]) if match["microbatch"] else None
            well_formed = (microbatch is not None) == kind.has_microbatch and (kind.has_stream or not match["stream"])
            if well_formed:
                return cls(int(match["component"]), kind, microbatch, stream)
        raise ValueError(
            f"{text!r} is not an action; expected [component][kind][micro-batch], e.g. 2F0, with the stream "
            f"behind a dot where there are several, e.g. 2I0.1; kinds: {' '.join(kind.value for kind in Kind)}."
        )
