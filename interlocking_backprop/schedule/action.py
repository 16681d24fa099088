"""One action of a schedule, in the words and strings of ``torch.distributed.pipelining``.

``2F0`` is the forward pass of component 2 for micro-batch 0. Interlocking adds to PyTorch's kinds the loss with its
gradients (``2L0``), the optimizer update (``2U``), the evaluation of what comes out at an exit (``2E0``), and that
weights are given (``2GIVE``) to a head that is a copy of them and takes them over (``0COPY``). Several
gradients can cross a boundary, so the index of the stream stands behind a dot where it is not 0 (``2I0.1``,
``2SEND_B0.1``; ``2I0`` is stream 0). Losses that ask for the network's output get it from the last component by
``SEND_Y`` and ``RECV_Y``, with the component at the other end behind the dot: ``3SEND_Y0.1`` meets ``1RECV_Y0.3``.
What a step does for the batch of d steps ago bears that age (``2W0~3``).
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
    SEND_Y = "SEND_Y"
    RECV_Y = "RECV_Y"
    REDUCE_GRAD = "REDUCE_GRAD"
    GIVE = "GIVE"
    COPY = "COPY"

    def __str__(self) -> str:
        return self.value

    __hash__ = str.__hash__  # that of Enum is written in Python, and actions are looked up by the million

    @property
    def is_communication(self) -> bool:
        """Whether the action exchanges a message with another rank of the pipeline."""
        return self in SENDS or self in RECEIVES

    @property
    def has_stream(self) -> bool:
        """Whether the action is about one stream, or names the component at the other end."""
        return self in (Kind.BACKWARD_INPUT, Kind.FULL_BACKWARD, Kind.SEND_B, Kind.RECV_B, *_BETWEEN_ANY)

    @property
    def has_microbatch(self) -> bool:
        """Whether the action is about one micro-batch."""
        return self not in (Kind.UPDATE, Kind.REDUCE_GRAD, Kind.GIVE, Kind.COPY)


PASSES = (Kind.BACKWARD_INPUT, Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD)
"""The backward passes through a component."""

SENDS = (Kind.SEND_F, Kind.SEND_B, Kind.SEND_Y)
RECEIVES = (Kind.RECV_F, Kind.RECV_B, Kind.RECV_Y)
"""Both ends of the messages between ranks."""

_BETWEEN_ANY = (Kind.SEND_Y, Kind.RECV_Y)
_OTHER_END = {
    Kind.SEND_F: (Kind.RECV_F, 1),
    Kind.RECV_F: (Kind.SEND_F, -1),
    Kind.SEND_B: (Kind.RECV_B, -1),
    Kind.RECV_B: (Kind.SEND_B, 1),
    Kind.SEND_Y: (Kind.RECV_Y, 0),
    Kind.RECV_Y: (Kind.SEND_Y, 0),
}
_KINDS = "|".join(sorted((kind.value for kind in Kind), key=len, reverse=True))
_ACTION = re.compile(
    rf"(?P<component>\d+)(?P<kind>{_KINDS})(?P<microbatch>\d+)?(?:\.(?P<stream>\d+))?(?:~(?P<age>\d+))?", re.ASCII
)


class Action(NamedTuple):
    """An action of one component.

    Attributes:
        component: index of the component that acts (or for which its rank sends or receives).
        kind: what it does.
        microbatch: index of the micro-batch; None for ``U``, ``REDUCE_GRAD``, ``GIVE`` and ``COPY``.
        stream: for ``I`` and ``B`` the stream, at the input of the component, that is computed; for ``SEND_B`` the
            one that is sent; for ``RECV_B`` the one, at the input of the next component, that arrives; for ``SEND_Y``
            and ``RECV_Y`` the component at the other end. Else None.
            ``B`` of component 0 does not exist: without input gradient it is ``W``. For a ``W`` it is the index of the
            weight gradient where there are several of different ages, and None for the first.
        age: how many steps ago the batch was that the action is for.
    """

    component: int
    kind: Kind
    microbatch: int | None = None
    stream: int | None = None
    age: int = 0

    def __str__(self) -> str:
        return f"{self.component}{self.short}"

    @property
    def short(self) -> str:
        """The string without the component, for where that is clear."""
        microbatch = "" if self.microbatch is None else self.microbatch
        stream = f".{self.stream}" if self.stream else ""
        return f"{self.kind}{microbatch}{stream}" + (f"~{self.age}" if self.age else "")

    @property
    def other_end(self) -> Action:
        """The receive that belongs to a send, or the send that belongs to a receive; for the batch of the step."""
        kind, distance = _OTHER_END[self.kind]
        if self.kind in _BETWEEN_ANY:
            assert self.stream is not None
            return Action(self.stream, kind, self.microbatch, self.component)
        return Action(self.component + distance, kind, self.microbatch, self.stream)

    @classmethod
    def from_str(cls, text: str) -> Action:
        """The reverse of ``str(action)``.

        Raises:
            ValueError: if the text is not of the form ``[component][kind][micro-batch][.stream][~age]``, e.g. ``2F0``.
        """
        match = _ACTION.fullmatch(text.strip())
        if match:
            kind = Kind(match["kind"])
            stream = int(match["stream"] or 0) if kind.has_stream else None
            if kind is Kind.BACKWARD_WEIGHT and int(match["stream"] or 0):
                stream = int(match["stream"])
            microbatch = int(match["microbatch"]) if match["microbatch"] else None
            has_stream = kind.has_stream or stream is not None
            well_formed = (microbatch is not None) == kind.has_microbatch and (has_stream or not match["stream"])
            if well_formed and (kind.has_microbatch or not match["age"]):
                return cls(int(match["component"]), kind, microbatch, stream, int(match["age"] or 0))
        raise ValueError(
            f"{text!r} is not an action; expected [component][kind][micro-batch], e.g. 2F0, with the stream "
            "behind a dot where there are several, e.g. 2I0.1, and the age of its batch, e.g. 2W0~3; kinds: "
            + " ".join(kind.value for kind in Kind)
            + "."
        )
