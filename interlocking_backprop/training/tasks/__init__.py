"""What can be trained from the command line."""

from __future__ import annotations

from collections.abc import Sequence

from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.tasks.task import Metrics, Part, Task

__all__ = ["Metrics", "Part", "Task", "build_task"]


def build_task(config: TrainConfig, schemes: Sequence[Scheme]) -> Task:
    """Loads the data and builds the nets that a configuration asks for.

    Args:
        config: what is asked for.
        schemes: all that the run will follow; they decide which heads are needed.

    Raises:
        ValueError: if data or nets cannot be had as asked for.
    """
    # Imported here: each kind of task brings libraries that the other does not need.
    if config.network.model == "transformer":
        from interlocking_backprop.training.tasks.text_task import text_task

        task = text_task(config, schemes)
    else:
        from interlocking_backprop.training.tasks.image_task import image_task

        task = image_task(config, schemes)
    return task
