"""A schedule in time: what every rank does when, once the steps follow one another steadily.

`draw` makes a picture, `format_timeline` the same for a terminal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from interlocking_backprop.common.atomic_files import replacing
from interlocking_backprop.schedule.action import Action, Kind
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.simulate import Interval, Simulation, simulate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMES = {
    Kind.FORWARD: "forward",
    Kind.LOSS: "loss",
    Kind.BACKWARD_INPUT: "input gradient",
    Kind.BACKWARD_WEIGHT: "weight gradient",
    Kind.FULL_BACKWARD: "both gradients",
    Kind.UPDATE: "update",
}
# Told apart by colour-blind readers too (Okabe and Ito).
_COLORS = {
    Kind.FORWARD: "#56B4E9",
    Kind.LOSS: "#F0E442",
    Kind.BACKWARD_INPUT: "#E69F00",
    Kind.BACKWARD_WEIGHT: "#2CA58D",
    Kind.FULL_BACKWARD: "#CC79A7",
    Kind.UPDATE: "#777777",
}
_IDLE = "#EBEBEB"
_FONT_SIZE = 7.0
_FIGURE_WIDTH = 11.0  # inches


def draw(
    schedule: Schedule,
    costs: Costs,
    path: str | Path | None = None,
    steps: int = 3,
    *,
    in_seconds: bool = False,
) -> Figure:
    """Draws some steps of the steady state, a row for each rank.

    One step is drawn in full colours, those before and after it paler, every other one more so.

    Args:
        schedule: valid.
        costs: of its components.
        path: where to save the picture; its ending (``.png``, ``.svg``, ``.pdf``) says as what.
        steps: how many step times the picture is wide.
        in_seconds: whether the costs are in seconds, so that the axis is in milliseconds; else it is in their units.

    Raises:
        ValueError: if nothing in the schedule takes time.
        ScheduleError: if the schedule is in deadlock.
    """
    from matplotlib.figure import Figure

    view = _steady_view(schedule, costs, steps)
    figure = Figure(figsize=(_FIGURE_WIDTH, 1.5 + 0.3 * schedule.n_ranks), layout="constrained")
    axes = figure.add_subplot()
    factor, unit = (1e3, "ms") if in_seconds else (1.0, "units")
    kinds = _draw_boxes(axes, schedule, view, factor)
    _draw_step_time(axes, view.simulation.step_time * factor, unit)
    _label(axes, schedule, view.simulation)
    axes.set_xlim(0, view.length * factor)
    axes.set_xlabel(f"time ({unit})", fontsize=8)
    axes.set_title(_title(schedule, view.simulation, factor, unit), fontsize=10, loc="left")
    _add_legend(figure, kinds)
    if path is not None:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=130, format=Path(path).suffix.lstrip(".") or "png")
    return figure


class _View(NamedTuple):
    """A window of the steady state: from the beginning of a step, for a length."""

    simulation: Simulation
    step: int
    begin: float
    length: float


def _steady_view(schedule: Schedule, costs: Costs, steps: int) -> _View:
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected at least 1.")
    once = simulate(schedule, costs, timeline_steps=1)
    if not once.timeline or once.step_time <= 0:
        raise ValueError("nothing in the schedule takes time; pass costs that are above 0.")
    begin, end = _span(once.timeline)
    # The ranks are at different steps at a time: so many before and after those of the first rank reach into the view.
    around = math.ceil((end - begin) / once.step_time) + 1
    simulation = simulate(schedule, costs, timeline_steps=steps + 2 * around)
    step = min(interval.step for interval in simulation.timeline) + around
    begin, _ = _span(interval for interval in simulation.timeline if interval.step == step)
    return _View(simulation, step, begin, steps * simulation.step_time)


def _span(timeline: Iterable[Interval]) -> tuple[float, float]:
    intervals = list(timeline)
    return min(i.start for i in intervals), max(i.end for i in intervals)


def _draw_boxes(axes: Axes, schedule: Schedule, view: _View, factor: float) -> list[Kind]:
    """Draws the actions that are in view and returns their kinds."""
    for rank in range(schedule.n_ranks):
        axes.broken_barh([(0, view.length * factor)], (rank - 0.4, 0.8), facecolors=_IDLE)
    found = set()
    for rank, step, action, start, end in view.simulation.timeline:
        left, right = max(start - view.begin, 0.0), min(end - view.begin, view.length)
        if right - left <= 1e-9 * view.length:
            continue
        found.add(action.kind)
        distance = step - view.step
        strength = 1.0 if distance == 0 else (0.3, 0.55)[distance % 2]
        axes.broken_barh(
            [(left * factor, (right - left) * factor)],
            (rank - 0.4, 0.8),
            facecolors=[_paler(_COLORS[action.kind], strength)],
            edgecolors="black" if distance == 0 else "white",
            linewidth=0.6,
            zorder=3 if distance == 0 else 2,
        )
        text = _short(action, schedule)
        room = (right - left) / view.length * _FIGURE_WIDTH * 0.9 * 72
        if len(text) * _FONT_SIZE * 0.7 <= room:
            axes.text(
                (left + right) / 2 * factor,
                rank,
                text,
                ha="center",
                va="center",
                fontsize=_FONT_SIZE,
                color="black" if distance == 0 else "#444444",
                zorder=4,
            )
    return [kind for kind in _COLORS if kind in found]


def _paler(color: str, strength: float) -> tuple[float, ...]:
    """The color on white; 1 leaves it as it is."""
    return tuple(1 - strength + strength * int(color[n : n + 2], 16) / 255 for n in (1, 3, 5))


def _short(action: Action, schedule: Schedule) -> str:
    """The action's string, without the component where the row says which one it is."""
    text = str(action)
    return text if schedule.n_ranks < schedule.n_components else text[len(str(action.component)) :]


def _draw_step_time(axes: Axes, step_time: float, unit: str) -> None:
    """An arrow above the first rank, as long as a step."""
    y = -0.75
    axes.annotate(
        "", (0, y), (step_time, y), arrowprops={"arrowstyle": "<->", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
    )
    axes.text(
        step_time / 2, y - 0.1, f"one step: {step_time:.4g} {unit}", ha="center", va="bottom", fontsize=_FONT_SIZE + 0.5
    )


def _label(axes: Axes, schedule: Schedule, simulation: Simulation) -> None:
    """Ranks on the left, the share of the time in which each computes on the right."""
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
    return f"rank {rank}: {held[0]}" if len(held) == 1 else f"rank {rank}: {held[0]}-{held[-1]}"


def _title(schedule: Schedule, simulation: Simulation, factor: float, unit: str) -> str:
    m = schedule.n_microbatches
    step_time = simulation.step_time * factor
    parts = [
        f"{schedule.workload.scheme.name}, K = {schedule.n_components}, M = {m}",
        f"step time {step_time:.4g} {unit}" + (f" ({step_time / m:.4g} per micro-batch)" if m > 1 else ""),
        f"utilization {100 * (1 - simulation.bubble):.0f} %",
    ]
    return "   ·   ".join(parts)


def _add_legend(figure: Figure, kinds: Sequence[Kind]) -> None:
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(facecolor=_COLORS[kind], label=f"{kind}  {_NAMES[kind]}") for kind in kinds]
    handles.append(Patch(facecolor=_IDLE, label="idle"))
    handles.append(Patch(facecolor="white", edgecolor="black", linewidth=0.6, label="one step; paler: those around it"))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), fontsize=8, frameon=False)


def format_timeline(simulation: Simulation, width: int = 100) -> str:
    """The timeline of a simulation as text, a line for each rank.

    An action is as long as it takes: its name, ``-`` for the rest, and a blank at its end where there is room. Steps
    alternate between capital and small letters, ``.`` is idle time. Before its first and after its last action of
    those recorded a line is blank.

    Args:
        simulation: with a timeline.
        width: the most characters of a line.

    Raises:
        ValueError: if there is no timeline, or the width leaves no room for it.
    """
    if not simulation.timeline:
        raise ValueError("the simulation has no timeline; call simulate() with timeline_steps of at least 1.")
    n_ranks = len(simulation.busy)
    names = [f"rank {rank}" for rank in range(n_ranks)]
    indent = len(names[-1]) + 2
    begin, end = _span(simulation.timeline)
    room = width - indent
    shortest = min(i.end - i.start for i in simulation.timeline)
    if room < 10:
        raise ValueError(f"width is {width}; expected at least {indent + 10}.")
    # Whole columns for the shortest action, if there is room: equal actions then look equal.
    columns = math.floor(room * shortest / (end - begin) + 1e-9)
    scale = columns / shortest if columns >= 1 else room / (end - begin)
    is_only_one = all(
        len({i.action.component for i in simulation.timeline if i.rank == r}) <= 1 for r in range(n_ranks)
    )
    lines = [" " * indent + _axis(end - begin, scale, room)]
    for rank, name in enumerate(names):
        own = [i for i in simulation.timeline if i.rank == rank]
        line = [" "] * room
        marks = [(round((i.start - begin) * scale), round((i.end - begin) * scale), i) for i in own]
        for (_, left, _), (right, _, _) in pairwise(marks):
            line[left:right] = "." * (right - left)
        for left, right, interval in marks:
            line[left:right] = _box(interval, right - left, with_component=not is_only_one)
        lines.append((name.ljust(indent) + "".join(line)).rstrip())
    return "\n".join(lines)


def _box(interval: Interval, width: int, *, with_component: bool) -> str:
    action = interval.action
    text = str(action) if with_component else str(action)[len(str(action.component)) :]
    if len(text) > width:
        text = str(action.kind)[:width]
    text = text.lower() if interval.step % 2 else text
    return text.ljust(width - 1, "-").ljust(width) if width > len(text) else text


def _axis(length: float, scale: float, room: int) -> str:
    """Times along a line, about ten characters apart."""
    gap = 10 / scale
    magnitude = 10.0 ** math.floor(math.log10(gap))
    gap = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= gap * (1 - 1e-9))
    axis = [" "] * room
    for n in range(int(length / gap + 1e-9) + 1):
        text = f"{n * gap:g}"
        at = round(n * gap * scale)
        if at + len(text) <= room:
            axis[at : at + len(text)] = text
    return "".join(axis).rstrip()
