"""What actions cost: durations for each component and kind of action, and what a message costs between ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from interlocking_backprop.schedule.action import Action, Kind


@dataclass(frozen=True)
class ComponentCosts:
    """What one component costs for one micro-batch. Durations are in seconds, or in any other unit throughout.

    Attributes:
        forward: ``F``.
        loss: ``L``, the head and its backward pass included.
        backward_input: ``I``.
        backward_weight: ``W`` from a gradient of its own; it includes the gradients inside the component.
        full_backward: ``B``.
        update: ``U``, once a step.
        split_weight: ``W`` after an ``I`` of the same stream, whose interior gradients it takes over; None if it is
            computed afresh and so costs ``backward_weight``.
        output_bytes: of the activation handed to the next component; a stream for it is as large.
        saved_bytes: what the graph keeps alive from the forward pass to the last backward pass.
        gradient_bytes: of the weight gradients.
        shared_bytes: of those among them that are for weights shared with another component.
        copied_bytes: of the weights that the head of another component copies.
    """

    forward: float = 1.0
    loss: float = 0.0
    backward_input: float = 1.0
    backward_weight: float = 2.0
    full_backward: float = 2.0
    update: float = 0.0
    split_weight: float | None = None
    output_bytes: float = 0.0
    saved_bytes: float = 0.0
    gradient_bytes: float = 0.0
    shared_bytes: float = 0.0
    copied_bytes: float = 0.0


@dataclass(frozen=True)
class Costs:
    """What a step costs.

    Attributes:
        components: the costs of each component.
        latency: the time that a message of any size takes at least.
        bandwidth: of a link, in bytes per unit of time; infinite by default.
    """

    components: Sequence[ComponentCosts]
    latency: float = 0.0
    bandwidth: float = field(default=float("inf"))

    @classmethod
    def uniform(cls, n_components: int, **costs: float) -> Costs:
        """Equal components, in units of a forward pass: 1 for ``F`` and ``I``, 2 for ``W`` and ``B``."""
        return cls([ComponentCosts(**costs)] * n_components)

    def duration(self, action: Action, *, follows_split: bool = False) -> float:
        """How long an action keeps its rank busy. Messages do not: their time is that of the link.

        Args:
            action: the action.
            follows_split: whether its component's joint backward pass is carried out as ``I`` and ``W``.
        """
        component = self.components[action.component]
        if action.kind is Kind.BACKWARD_WEIGHT and follows_split and component.split_weight is not None:
            return component.split_weight
        return float(getattr(component, action.kind.name.lower(), 0.0))  # the fields bear the names of the kinds

    def message_bytes(self, action: Action) -> float:
        """The bytes of a message: an activation, a stream (as large as its activation), gradients of shared weights, or
        weights that a head copies.

        The network's output is an activation too, that of the last component.

        Args:
            action: what sends it.
        """
        i = action.component
        if action.kind is Kind.REDUCE_GRAD:
            return self.components[i].shared_bytes
        if action.kind is Kind.GIVE:
            return self.components[i].copied_bytes
        return self.components[i - 1 if action.kind is Kind.SEND_B else i].output_bytes

    def occupancy(self, action: Action) -> float:
        """How long a message occupies its link; it arrives after that and the latency.

        Args:
            action: what sends it.
        """
        return self.message_bytes(action) / self.bandwidth
