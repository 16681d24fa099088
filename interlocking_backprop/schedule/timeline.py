"""A simulated schedule in time, as text: what every rank does when."""

from __future__ import annotations

import math
from itertools import pairwise

from interlocking_backprop.schedule.simulate import Interval, Simulation


def format_timeline(simulation: Simulation, width: int = 100) -> str:
    """The timeline of a simulation as text, a line for each rank.

    An action is as wide as its time: its name, ``-`` for the rest, and a blank at its end where there is room. Steps
    alternate between capital and small letters, and ``.`` is idle time. A line is blank before the first action of the
    timeline on its rank, and after the last one.

    Args:
        simulation: a simulation with a timeline.
        width: the most characters of a line.

    Raises:
        ValueError: if there is no timeline, or the width leaves no room for it.
    """
    if not simulation.timeline:
        raise ValueError("the simulation has no timeline; call simulate() with timeline_steps of at least 1.")
    ranks = range(len(simulation.busy))
    indent = len(f"rank {ranks[-1]}") + 2
    room = width - indent
    if room < 10:
        raise ValueError(f"width is {width}; expected at least {indent + 10}.")
    begin, end = min(i.start for i in simulation.timeline), max(i.end for i in simulation.timeline)
    shortest = min(i.end - i.start for i in simulation.timeline)
    # Whole columns for the shortest action, if there is room: equal actions then look equal.
    columns = math.floor(room * shortest / (end - begin) + 1e-9)
    scale = columns / shortest if columns >= 1 else room / (end - begin)
    # Components are named only where a rank has several.
    is_short = len({(i.rank, i.action.component) for i in simulation.timeline}) == len(
        {i.rank for i in simulation.timeline}
    )
    lines = [" " * indent + _axis(end - begin, scale, room)]
    for rank in ranks:
        line = [" "] * room
        own = [i for i in simulation.timeline if i.rank == rank]
        marks = [(round((i.start - begin) * scale), round((i.end - begin) * scale), i) for i in own]
        for (_, left, _), (right, _, _) in pairwise(marks):
            line[left:right] = "." * (right - left)
        for left, right, interval in marks:
            line[left:right] = _box(interval, right - left, is_short=is_short)
        lines.append((f"rank {rank}".ljust(indent) + "".join(line)).rstrip())
    return "\n".join(lines)


def _box(interval: Interval, width: int, *, is_short: bool) -> str:
    action = interval.action
    text = action.short if is_short else str(action)
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
