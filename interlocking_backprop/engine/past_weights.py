"""Weights as they were in a forward pass, for a graph whose passes come after the next updates.

Optimizers change weights in place, and a graph keeps references to them. So a component with such a graph alive moves
its weights to new memory before an update; what the graph refers to stays as it was, until the graph is freed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import Parameter


class PastWeights:
    """The weights of a component at the time of a forward pass.

    Args:
        parameters: of its main net.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._parameters = list(parameters)
        self._values = [parameter.data for parameter in parameters]
        self._memory = {_address(value) for value in self._values} - {0}

    def saved(self) -> AbstractContextManager[None]:
        """Under this a forward pass has autograd keep these values, whatever becomes of the parameters.

        What would be saved as a parameter, or as a view of one, is saved as the memory that it has now, for which
        autograd does not notice that the parameter goes on.
        """
        return saved_tensors_hooks(self._kept, _unchanged)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Puts the values back while a backward pass runs, for what looks at the parameters then: recomputation."""
        current = [parameter.data for parameter in self._parameters]
        try:
            self._put(self._values)
            yield
        finally:
            self._put(current)

    def _put(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.data = value

    def _kept(self, tensor: Tensor) -> tuple[Tensor, int]:
        # Not the tensor itself: it would refer to the graph that refers to it.
        kept = tensor.data if _address(tensor) in self._memory else tensor.detach()
        return kept, kept._version


def move(parameters: Sequence[Parameter]) -> None:
    """Gives parameters new memory for the values to come; who refers to the old one keeps the values of now."""
    for parameter in parameters:
        parameter.data = parameter.data.clone()


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _unchanged(kept: tuple[Tensor, int]) -> Tensor:
    """What was saved. Autograd looks for changes in place only where there are no hooks, so it is done here."""
    tensor, version = kept
    if tensor._version != version:
        raise RuntimeError(
            f"a tensor of shape {tuple(tensor.shape)} that the backward pass needs has been modified by an inplace "
            "operation after the forward pass saved it; make that operation out of place, e.g. ReLU(inplace=False)."
        )
    return tensor
