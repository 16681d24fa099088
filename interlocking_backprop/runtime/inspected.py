"""What a model shows of itself: what it is, and its gradients, on their way to an update or without one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from torch import nn
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

from interlocking_backprop.engine.batch import Batch
from interlocking_backprop.engine.component import Component
from interlocking_backprop.engine.inspection import (
    Alignment,
    ComponentGradients,
    alignment_of,
    gradients_of,
    undisturbed_buffers,
    undisturbed_gradients,
)
from interlocking_backprop.engine.state import OnGradients
from interlocking_backprop.engine.tree import Tree
from interlocking_backprop.runtime.description import describe
from interlocking_backprop.runtime.runtime import Runtime
from interlocking_backprop.runtime.workloads import Workloads
from interlocking_backprop.scheme.coefficients import Scheme, check_scheme, e2e


class InspectedModel(nn.Module):
    """A model that can be looked at; what it is made of is said by the class that derives from it."""

    components: Sequence[Component]
    n_microbatches: int
    _runtime: Runtime
    _workloads: Workloads
    _scheme: Scheme

    def __init__(self) -> None:
        super().__init__()
        self._gradient_functions: OrderedDict[int, OnGradients] = OrderedDict()

    def __repr__(self) -> str:
        return str(describe(self))

    def _repr_html_(self) -> str:
        return describe(self).to_html()

    @property
    def scheme(self) -> Scheme:
        """The scheme that the next step follows."""
        return self._scheme

    @property
    def runtime(self) -> Runtime:
        """What carries out training steps and evaluations."""
        return self._runtime

    def on_gradients(self, function: OnGradients) -> RemovableHandle:
        """Has a function called in every training step, for each component, before its gradients are used.

        That is between the moment when all gradients of the component are there (summed over the micro-batches, and
        over all components that share a weight) and its clipping and update. The function may look at them, change
        them in place, or put others into ``.grad``; None there leaves a parameter out of the update. Several functions
        are called in the order in which they were registered, all under ``torch.no_grad()``.

        Random numbers that it draws from the generator of the component's device are keyed by the model's seed, the
        step and the component. On ranks each calls its own functions for its own components. Weights that components
        share come up in each of them and have to be treated alike there, or the copies drift apart.

        Args:
            function: called as ``function(component, parameters)``: the component's index, and those of its parameters
                that have a gradient, those of the main net before those of the head. It is not called for components
                without anything to update. What it raises ends the step: all gradients are dropped, and components that
                were updated before stay so.

        Returns:
            A handle whose ``remove()`` ends this.

        Raises:
            ValueError: if the function is none.
        """
        if not callable(function):
            raise ValueError(f"on_gradients got {function!r}; expected a function(component index, parameters).")
        handle = RemovableHandle(self._gradient_functions)
        self._gradient_functions[handle.id] = function
        return handle

    def gradients(
        self, inputs: Tree, targets: Tree, scheme: Scheme | None = None, *, by_loss: bool = False
    ) -> list[ComponentGradients | None]:
        """The gradients that the next training step would apply if it got this batch; nothing is trained.

        They are those before `on_gradients` and clipping, with the random numbers (dropout) of the next step, to the
        bit. Weights, ``.grad``, optimizers, buffers such as BatchNorm's running averages, random generators, the step
        count and ``exit_losses`` stay as they are. On several ranks all call this, those other than the first with
        None for the batch.

        Args:
            inputs: of the network, as for `training_step`.
            targets: of the losses.
            scheme: of as many components; by default the model's. Where it delays credit, these are the gradients that
                the batch contributes to this update and to later ones together.
            by_loss: whether the terms are wanted too that each loss contributes. Each loss takes a pass through the
                network of its own.

        Returns:
            For each component its gradients, on its device; None where another rank has it.

        Raises:
            ValueError: as `training_step` and `set_scheme` do.
        """
        scheme = self._scheme if scheme is None else scheme
        check_scheme(scheme, len(self.components))
        scheme = scheme.undelayed
        found = self._gradients(scheme, inputs, targets)
        if by_loss:
            for j in np.flatnonzero(scheme.matrix.any(axis=0)).tolist():
                column = np.zeros_like(scheme.matrix)
                column[:, j] = scheme.matrix[:, j]
                terms = self._gradients(Scheme(column, f"{scheme.name}, loss {j}"), inputs, targets)
                for whole, term in zip(found, terms, strict=True):
                    if whole is not None and term is not None and term.main:
                        whole.by_loss[j] = term.main
        return found

    def alignment(self, inputs: Tree, targets: Tree, scheme: Scheme | None = None) -> list[Alignment | None]:
        """How the gradients of the main nets lie to those of end-to-end backpropagation, on the same batch.

        Both are found as by `gradients`, with the same random numbers, and nothing is trained or disturbed. On several
        ranks all call this.

        Args:
            inputs: of the network, as for `training_step`.
            targets: of the losses.
            scheme: that is compared with end-to-end; by default the model's.

        Returns:
            For each component the cosine and the ratio of the norms; None where its main net has no parameters that
            want a gradient, or another rank has it.

        Raises:
            ValueError: as `training_step` and `set_scheme` do.
        """
        own = self.gradients(inputs, targets, scheme)
        end_to_end = self.gradients(inputs, targets, e2e(len(self.components)))
        return [
            alignment_of(component.main_net, a.main, b.main)
            if a is not None and b is not None and component.is_trainable
            else None
            for component, a, b in zip(self.components, own, end_to_end, strict=True)
        ]

    @property
    def _on_gradients(self) -> OnGradients | None:
        """What is called before the updates of a training step."""
        return self._call_gradient_functions if self._gradient_functions else None

    def _call_gradient_functions(self, component: int, parameters: list[Parameter]) -> None:
        for function in list(self._gradient_functions.values()):
            function(component, parameters)

    def _gradients(self, scheme: Scheme, inputs: Tree, targets: Tree) -> list[ComponentGradients | None]:
        workload = self._workloads.of(scheme)
        found: list[ComponentGradients | None] = [None] * len(self.components)
        own = {i: self.components[i] for i in self._runtime.local_components}

        def take(component: int, _: list[Parameter]) -> None:
            found[component] = gradients_of(own[component])

        for i in own:
            found[i] = ComponentGradients({}, {}, {})
        with undisturbed_gradients(own.values()), undisturbed_buffers(own.values()):
            self._runtime.run(workload, self._batch(inputs, targets), on_gradients=take, updates=False)
        return found

    def _batch(self, inputs: Tree, targets: Tree) -> Batch | None:
        """A batch of the next training step; None where another process reads the data."""
        raise NotImplementedError
