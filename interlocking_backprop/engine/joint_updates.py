"""What concerns the gradients of all components together, between the last of them and the first update.

Clipping by the norm of the whole network's gradient, and loss scaling, where one overflow anywhere skips the update
everywhere. All updates then wait for the last gradient, and the schedule says so (`Workload.updates`). In one process.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch.nn import Parameter
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.ties import Tie


class JointUpdates:
    """Unscales and clips the gradients of all components.

    Args:
        components: all of the model, by index.
        ties: the weights that they share; each counts once in the norm.
    """

    def __init__(self, components: Mapping[int, Component], ties: Sequence[Tie]) -> None:
        self._components, self._ties = components, ties

    def unscale(self, updated: Collection[int]) -> bool:
        """Divides the gradients by the loss scale, if there is one, and adapts it.

        Args:
            updated: the components that have gradients in this step.

        Returns:
            Whether all gradients are finite, so that the updates may be made.

        Raises:
            ValueError: if the loss scale has fallen to 0, for then no scale helps.
        """
        scaler = next((self._components[i].grad_scaler for i in updated), None)
        if scaler is None:
            return True
        for i in updated:
            for optimizer in self._components[i].optimizers:
                scaler.unscale_(optimizer)
        before = scaler.get_scale()
        scaler.update()
        after = scaler.get_scale()
        if after == 0:
            raise ValueError(
                "the loss scale has fallen to 0: the gradients are infinite or nan whatever the scale, so the loss "
                "or the network is at fault, and not the range of float16; see torch.autograd.detect_anomaly."
            )
        return after >= before

    def clip(self, updated: Collection[int]) -> None:
        """Clips the gradients of all main nets together, if that is asked for.

        Args:
            updated: the components that have gradients in this step.
        """
        norm = next((self._components[i].max_grad_norm for i in updated if self._components[i].clips_globally), None)
        if norm is None:
            return
        # In one order, whatever that of the updates is: sums are rounded.
        held = [p for i in sorted(updated) for p in self._components[i].main_parameters() if p.grad is not None]
        copies = {id(p) for p in self._copies()}
        gradients = [p.grad for p in held if p.grad is not None and id(p) not in copies]
        clip_grads_with_norm_(held, norm, get_total_norm(gradients))

    def _copies(self) -> list[Parameter]:
        """The shared weights, but for the first component that holds each."""
        return [self._components[i].get_parameter(tie.name_in(i)) for tie in self._ties for i in tie.components[1:]]


def refuse_on_ranks(components: Sequence[Component]) -> None:
    """Makes sure that nothing is asked for that needs all gradients in one process.

    Raises:
        ValueError: if something is.
    """
    if any(component.grad_scaler is not None for component in components):
        raise ValueError(
            "a grad_scaler is not supported on several ranks yet, for an overflow on one would have to skip the update "
            "on all; train in bfloat16, which needs none, or in one process with devices=[...]."
        )
    if any(component.clips_globally for component in components):
        raise ValueError(
            'clip_by="global" is not supported on several ranks yet, for every update would wait for the gradients of '
            'all ranks; use clip_by="component", or one process with devices=[...].'
        )
