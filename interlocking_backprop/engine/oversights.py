"""What the user of a model may have overlooked, said where it costs nothing.

All is looked over before the first step, and again after `train` and `eval`, or when a step finds other nets in a
component, or something unfrozen.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from operator import is_
from typing import TypeVar

from torch import nn
from torch.nn import Parameter

from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.head_copy import copy_in

_Self = TypeVar("_Self", bound="Watchful")


class Watchful(nn.Module):
    """A model that looks over its components before a training step, if it has not done so since they were changed.

    Attributes:
        components: of the model.
    """

    components: Sequence[Component]
    _heads: tuple[bool, ...]
    _is_looked_over = False
    _nets: Sequence[nn.Module | None] = ()  # of the components when they were looked over
    _without_optimizer: Sequence[Parameter] = ()  # then frozen

    def train(self: _Self, mode: bool = True) -> _Self:
        """Sets training or evaluation mode, as `torch.nn.Module.train` does.

        The next training step looks over the components: what has been changed inside nets since the model was built,
        and nets that are sharded, are refused with an error. Nets that stand in the place of others, and parameters
        that no optimizer holds and that have been unfrozen, are noticed in every step.
        """
        self._is_looked_over = False
        return super().train(mode)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters. `torch.nn.utils.clip_grad_norm_` finds no gradient there after a step, and says so."""
        parameters = list(super().parameters(recurse))
        # This is a generator, so who called it is known no sooner than who goes through it.
        if sys._getframe(1).f_code.co_name == "clip_grad_norm_" and all(p.grad is None for p in parameters):
            warnings.warn(
                "clip_grad_norm_() finds no gradients and clips nothing: training_step() has updated the weights and "
                "freed the gradients when it returns. Give build_model(max_grad_norm=…), which clips each component's "
                "gradient before its update.",
                stacklevel=3,
            )
        yield from parameters

    def look_over(self) -> None:
        """Before a training step: is everything as it should be?

        Raises:
            ValueError: if a component has parameters that would not be trained, or its head is gone or new.
        """
        if not self.training:
            warnings.warn(
                "training_step() in evaluation mode: dropout is off, and BatchNorm keeps its averages. Call "
                "model.train() before; to keep single modules as they are, call eval() on these alone.",
                stacklevel=3,
            )
        # In every step, so from the dictionary: attributes of modules take ten times as long.
        nets = [net for component in self.components for net in component._modules.values()]
        is_changed = any(p.requires_grad for p in self._without_optimizer) or not _are_same(nets, self._nets)
        if is_changed or not self._is_looked_over:
            for i, component in enumerate(self.components):
                _check_head(i, component, self._heads[i] and i + 1 < len(self.components))
                _check_trained(i, component)
                component.check_unfrozen()
            asleep = [i for i, c in enumerate(self.components) if c.is_trainable and not c.main_net.training]
            if asleep and self.training:
                warnings.warn(
                    f"the main nets of components {asleep} are trained in evaluation mode, in which they were handed "
                    "over (as transformers' from_pretrained does); call model.train() before the first step.",
                    stacklevel=3,
                )
            self._nets = nets
            self._without_optimizer = [p for component in self.components for p in component.without_optimizer()]
            self._is_looked_over = True


def _are_same(nets: Sequence[nn.Module | None], others: Sequence[nn.Module | None]) -> bool:
    return len(nets) == len(others) and all(map(is_, nets, others))


def _check_head(i: int, component: Component, had_head: bool) -> None:
    if had_head != (component.aux_net is not None):
        before, now = ("a", "none") if had_head else ("no", "one")
        raise ValueError(
            f"component {i} had {before} head when the model was built, and now it has {now}, which the schedule does "
            "not know of; call build_model with the heads that there are to be."
        )


def _check_trained(i: int, component: Component) -> None:
    fsdp = sys.modules.get("torch.distributed.fsdp")  # nothing is sharded unless somebody has imported it
    sharded = (fsdp.FSDPModule, fsdp.FullyShardedDataParallel) if fsdp is not None else ()
    for name, module in component.named_modules():
        if isinstance(module, sharded):
            raise ValueError(
                f"component {i} is sharded ({name} is a {type(module).__name__}), and gets no gradient: each backward "
                "pass is taken on the component's own weights. Hand over nets that are not wrapped in fully_shard, and "
                "use more components or ranks to save memory."
            )
    head_copy = copy_in(component.aux_net)
    if head_copy is not None and any(p.requires_grad for p in head_copy.parameters()):
        raise ValueError(
            f"head {i} is a copy of {head_copy.source_name} of component {head_copy.source_component} and follows no "
            "loss, but its parameters want a gradient; freeze it (requires_grad_(False)), or build the model with "
            "another head."
        )
    known = {*component.main_parameters(), *component.aux_parameters()}
    names = [name for name, p in component.named_parameters() if p.requires_grad and p not in known]
    if names:
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise ValueError(
            f"component {i} has parameters that were not there when the model was built ({listed}), and would never "
            "be trained; replace heads and append layers first, then call build_model. Freeze them "
            "(requires_grad_(False)) if that is what you want."
        )
