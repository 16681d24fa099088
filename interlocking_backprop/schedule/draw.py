"""A schedule in time, as a picture: what every rank does when, once the steps follow one another steadily."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interlocking_backprop.common.atomic_files import replacing
from interlocking_backprop.common.checks import check_whole
from interlocking_backprop.schedule.action import Kind
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.simulate import Simulation, simulate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What each kind is called, and its colour (Okabe and Ito), which colour-blind readers tell apart too.
LOOKS = {
    Kind.FORWARD: ("forward", "#56B4E9"),
    Kind.LOSS: ("loss", "#F0E442"),
    Kind.BACKWARD_INPUT: ("input gradient", "#E69F00"),
    Kind.BACKWARD_WEIGHT: ("weight gradient", "#2CA58D"),
    Kind.FULL_BACKWARD: ("both gradients", "#CC79A7"),
    Kind.UPDATE: ("update", "#777777"),
}
AGES = "~2  for the batch two steps before"
"""What a legend says where passes are late."""

_IDLE = "#EBEBEB"
_FONT_SIZE = 7.0
_FIGURE_WIDTH = 11.0  # inches


def draw(
    schedule: Schedule,
    path: str | Path | None = None,
    costs: Costs | None = None,
    steps: int = 3,
    *,
    in_seconds: bool = False,
) -> Figure:
    """Draws some steps of the steady state, a row for each rank.

    One step is drawn in full colours, those before and after it paler, every other one more so. What a step does for a
    batch of earlier steps bears its age: ``W0~2`` is for the batch of two steps ago.

    Args:
        schedule: a valid schedule.
        path: where to save the picture; its ending (``.png``, ``.svg``, ``.pdf``) says as what.
        costs: what the components cost; by default all the same, 1 for ``F`` and ``I``, 2 for ``W`` and ``B``.
        steps: the width of the picture, in step times.
        in_seconds: whether the costs are in seconds, so that the axis is in milliseconds; else it is in their units.

    Raises:
        ValueError: if nothing in the schedule takes time, or the ending of the path names no kind of picture.
        ScheduleError: if the schedule is in deadlock.
    """
    from matplotlib.figure import Figure

    check_whole("steps", steps)
    costs = costs or Costs.uniform(schedule.n_components, split_weight=1.0)
    factor, unit = (1e3, "ms") if in_seconds else (1.0, "units")
    simulation, step = steady_state(schedule, costs, steps)
    figure = Figure(figsize=(_FIGURE_WIDTH, 1.5 + 0.3 * schedule.n_ranks), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlim(0, steps * simulation.step_time * factor)
    axes.set_xlabel(f"time ({unit})", fontsize=8)
    axes.set_title(title_of(schedule, simulation, factor, unit), fontsize=10, loc="left")
    kinds = _draw_boxes(axes, schedule, simulation, step, factor)
    _draw_step_time(axes, simulation.step_time * factor, unit)
    _label_ranks(axes, schedule, simulation)
    _add_legend(figure, kinds, has_ages=bool(schedule.dependencies.ages))
    if path is not None:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=130, format=Path(path).suffix.lstrip(".") or "png")
    return figure


def steady_state(schedule: Schedule, costs: Costs, steps: int) -> tuple[Simulation, int]:
    """A simulation long enough to be drawn, and the number of the step in it with which the picture begins."""
    once = simulate(schedule, costs, timeline_steps=1)
    if not once.timeline or once.step_time <= 0:
        raise ValueError("nothing in the schedule takes time; pass costs that are above 0.")
    duration = max(i.end for i in once.timeline) - min(i.start for i in once.timeline)
    # The ranks are at different steps at a time: so many before and after those of the first rank reach into the view.
    around = math.ceil(duration / once.step_time) + 1
    simulation = simulate(schedule, costs, timeline_steps=steps + 2 * around)
    return simulation, simulation.timeline[0].step + around


def _draw_boxes(axes: Axes, schedule: Schedule, simulation: Simulation, step: int, factor: float) -> list[Kind]:
    """Draws the actions that are in view, from the beginning of a step on, and returns their kinds."""
    begin = min(interval.start for interval in simulation.timeline if interval.step == step)
    _, end = axes.get_xlim()
    for rank in range(schedule.n_ranks):
        axes.broken_barh([(0, end)], (rank - 0.4, 0.8), facecolors=_IDLE)
    found = set()
    for interval in simulation.timeline:
        left = max((interval.start - begin) * factor, 0.0)
        right = min((interval.end - begin) * factor, end)
        if right - left <= 1e-9 * end:
            continue
        rank, action, distance = interval.rank, interval.action, interval.step - step
        found.add(action.kind)
        axes.broken_barh(
            [(left, right - left)],
            (rank - 0.4, 0.8),
            facecolors=[_paler(LOOKS[action.kind][1], (0.3, 0.55)[distance % 2] if distance else 1.0)],
            edgecolors="white" if distance else "black",
            linewidth=0.6,
            zorder=2 if distance else 3,
        )
        # The rows say which component it is, if there is a row for each.
        text = action.short if schedule.n_ranks == schedule.n_components else str(action)
        if text := _fitting(text, (right - left) / end * _FIGURE_WIDTH * 0.9 * 72):
            color, size = "#444444" if distance else "black", _FONT_SIZE - 1.5 * text.count("\n")
            at = (left + right) / 2, rank
            axes.text(*at, text, ha="center", va="center", fontsize=size, linespacing=0.9, color=color, zorder=4)
    return [kind for kind in LOOKS if kind in found]


def _fitting(text: str, width: float) -> str:
    """The text of a box so many points wide: in a line or, with the age of its batch below, in two; or nothing."""
    lines = text.replace("~", "\n~")
    fits = [t for t in (text, lines) if max(map(len, t.splitlines())) * _FONT_SIZE * 0.7 <= width]
    return fits[0] if fits else ""


def _paler(color: str, strength: float) -> tuple[float, ...]:
    """The color on white; 1 leaves it as it is."""
    return tuple(1 - strength + strength * int(color[n : n + 2], 16) / 255 for n in (1, 3, 5))


def _draw_step_time(axes: Axes, step_time: float, unit: str) -> None:
    """An arrow above the first rank, as long as a step."""
    y = -0.75
    axes.annotate(
        "", (0, y), (step_time, y), arrowprops={"arrowstyle": "<->", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
    )
    text = f"one step: {step_time:.4g} {unit}"
    axes.text(step_time / 2, y - 0.1, text, ha="center", va="bottom", fontsize=_FONT_SIZE + 0.5)


def _label_ranks(axes: Axes, schedule: Schedule, simulation: Simulation) -> None:
    """Names the ranks on the left, and on the right says in which share of the time each computes."""
    ranks = range(schedule.n_ranks)
    axes.set_yticks(list(ranks), [_rank_name(schedule, rank) for rank in ranks], fontsize=8)
    axes.set_ylim(schedule.n_ranks - 0.45, -1.35)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    right = axes.secondary_yaxis("right")
    right.set_yticks(list(ranks), [f"{100 * share:.0f} %" for share in simulation.utilization], fontsize=8)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)


def _rank_name(schedule: Schedule, rank: int) -> str:
    held = schedule.components_of(rank)
    if schedule.n_ranks == schedule.n_components:
        return f"rank {rank}"
    return f"rank {rank}: {held[0]}" + (f"-{held[-1]}" if len(held) > 1 else "")


def title_of(schedule: Schedule, simulation: Simulation, factor: float = 1.0, unit: str = "units") -> str:
    """What a schedule is, and what it takes, in a line."""
    m, step_time = schedule.n_microbatches, simulation.step_time * factor
    parts = [
        f"{schedule.workload.scheme.name}, K = {schedule.n_components}, M = {m}",
        f"step time {step_time:.4g} {unit}" + (f" ({step_time / m:.4g} per micro-batch)" if m > 1 else ""),
        f"utilization {100 * (1 - simulation.bubble):.0f} %",
    ]
    return "   ·   ".join(parts)


def _add_legend(figure: Figure, kinds: Sequence[Kind], *, has_ages: bool) -> None:
    from matplotlib.patches import Patch

    looks = {kind: LOOKS[kind] for kind in kinds}
    handles: list[Any] = [Patch(facecolor=color, label=f"{kind}  {name}") for kind, (name, color) in looks.items()]
    handles.append(Patch(facecolor=_IDLE, label="idle"))
    handles.append(Patch(facecolor="white", edgecolor="black", linewidth=0.6, label="one step; paler: those around it"))
    if has_ages:
        handles.append(Patch(facecolor="none", edgecolor="none", label=AGES))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), fontsize=8, frameon=False)
