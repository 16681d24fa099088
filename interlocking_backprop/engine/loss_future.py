"""The loss of a training step as a future that shows it."""

from __future__ import annotations

from concurrent.futures import Future

from torch import Tensor


class LossFuture(Future[Tensor]):
    """A future of a training step's loss; its text, which notebooks show, is the loss itself.

    Args:
        loss: without dimensions; None where another rank has it.
    """

    def __init__(self, loss: Tensor | None) -> None:
        super().__init__()
        self.set_result(loss)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        loss = self.result()
        return "<Future: the loss is on the last rank>" if loss is None else f"<Future: loss {loss.item():.6g}>"
