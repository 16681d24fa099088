"""What is at hand while a batch is carried out; it begins with its step, and ends with it unless credit is delayed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import Parameter

from interlocking_backprop.engine.batch import Batch
from interlocking_backprop.engine.credit import Gradients
from interlocking_backprop.engine.graph import Graph
from interlocking_backprop.engine.loss_comparison import Comparison
from interlocking_backprop.engine.losses import Loss
from interlocking_backprop.engine.message import Gradient, Message, Packet
from interlocking_backprop.engine.past_weights import PastWeights
from interlocking_backprop.engine.tree import Tree
from interlocking_backprop.schedule.network_output import Use

Place = tuple[int, int]
"""A component and a micro-batch."""

Visit = Callable[[Tree, Tree], Any]
"""What an evaluation makes of the output at an exit and the targets."""

OnGradients = Callable[[int, list[Parameter]], None]
"""Called before an update with the component's index and those of its parameters that have a gradient."""


class State:
    """What is at hand while a batch is carried out, by component and micro-batch.

    Attributes:
        batch: that is carried out.
        visit: called at the exits of an evaluation.
        on_gradients: called before each update.
        updates: whether there are updates; if not, or after an overflow, gradients are dropped in their place.
        packets: the inputs of forward passes to come.
        graphs: those alive.
        at_exit: targets, and outputs in an evaluation, for losses and exits to come.
        streams: for each place those at its input, by index.
        weight_gradients: of main nets, by component and index, where they are not complete yet and credit is delayed.
        past_weights: by component those that its graphs were made with, where these outlive an update.
        outputs: the network's, for losses to come that ask for it, by the component that holds it for them.
        shared: gradients of shared weights, and weights for heads that copy them, on their way between components at
            hand.
        losses: by component, summed up so far.
        exits: by component, what was made of the output at its exit.
        comparisons: of the batch with its parts, for losses that nobody knows.
    """

    def __init__(self, batch: Batch, visit: Visit | None, on_gradients: OnGradients | None, updates: bool) -> None:
        self.batch, self.visit = batch, visit
        self.on_gradients, self.updates = on_gradients, updates
        self.packets = {(0, m): packet for m, packet in enumerate(batch.packets)}
        self.graphs: dict[Place, Graph] = {}
        self.at_exit: dict[Place, Packet] = {}
        self.streams: defaultdict[Place, dict[int, Gradient]] = defaultdict(dict)
        self.weight_gradients: dict[tuple[int, int], Gradients] = {}
        self.past_weights: dict[int, PastWeights] = {}
        self.outputs: dict[Place, Tree] = {}
        self.shared: dict[Message, Gradient] = {}
        self.losses: dict[int, Tensor] = {}
        self.exits: dict[int, Any] = {}
        self.comparisons: dict[Loss, Comparison] = {}

    def network_output(self, use: Use, m: int) -> Tree:
        """The network's output for micro-batch m, which is let go after its last use."""
        place = (use.holder, m)
        return self.outputs.pop(place) if use.is_last else self.outputs[place]
