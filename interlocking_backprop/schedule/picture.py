"""A schedule as a picture for notebooks: what every component does when, once the steps follow one another steadily.

The picture is a piece of HTML that needs nothing else. It takes the colour of text from the page, so it can be read on
light and dark ones. `draw` makes pictures for papers.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.draw import AGES, LOOKS, steady_state, title_of
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.simulate import Interval
from interlocking_backprop.schedule.validate import ScheduleError, validate

_WIDTH, _ROW, _LEFT = 760, 20, 134  # of the time axis, of a component, and of the labels, in pixels
_MOST_ROWS, _MOST_ACTIONS = 64, 1500  # that a picture has room for


def schedule_picture(schedule: Schedule) -> str:
    """A step of the steady state, in full colours, and what is around it, as HTML.

    Every component costs the same: 1 for ``F`` and ``I``, 2 for ``W`` and ``B``. An impossible schedule is shown as
    the error that says where it is at fault.
    """
    summary = f"{schedule.workload.scheme.name}, K = {schedule.n_components}, M = {schedule.n_microbatches}"
    n_actions = sum(map(len, schedule.actions))
    if schedule.n_components > _MOST_ROWS or n_actions > _MOST_ACTIONS:
        remedy = "<code>interlocking_backprop.draw(schedule, path)</code> draws it into a file"
        return f"<div>{escape(summary)}: {n_actions} actions, too many for a picture here; {remedy}.</div>"
    n_steps = 2 if schedule.n_ranks > 1 and n_actions <= _MOST_ACTIONS // 4 else 1
    try:
        validate(schedule)
        simulation, step = steady_state(schedule, Costs.uniform(schedule.n_components, split_weight=1.0), n_steps)
    except ScheduleError as error:
        return f"<pre>{escape(str(error))}</pre>"
    begin = min(interval.start for interval in simulation.timeline if interval.step == step)
    scale = _WIDTH / (n_steps * simulation.step_time)
    width, height = _LEFT + _WIDTH + 60, schedule.n_components * _ROW + 4
    body = "".join(
        [
            *_rows(schedule, simulation.utilization),
            *(box for interval in simulation.timeline for box in _box(interval, interval.step - step, begin, scale)),
        ]
    )
    kinds = [kind for kind in LOOKS if any(interval.action.kind is kind for interval in simulation.timeline)]
    legend = " ".join(f'<span style="color:{LOOKS[kind][1]}">&#9632;</span> {kind} {LOOKS[kind][0]}' for kind in kinds)
    around = f"; {AGES}" if schedule.dependencies.ages else ""
    around += "; paler are the steps before and after" if schedule.n_ranks > 1 else ""
    return (
        f'<div style="overflow-x:auto"><div>{escape(title_of(schedule, simulation))}</div>'
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="schedule {escape(summary)}" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="10" '
        f'fill="currentColor">{body}</svg><div style="font-size:smaller">{legend}{around}</div></div>'
    )


def _rows(schedule: Schedule, utilization: tuple[float, ...]) -> Iterator[str]:
    """Names the components on the left, and on the right says in which share of the time their rank computes."""
    for i, rank in enumerate(schedule.placement):
        y = i * _ROW + 2
        place = "" if schedule.n_ranks == 1 else f" (rank {rank})"
        is_first = schedule.n_ranks > 1 and i == schedule.components_of(rank)[0]
        share = f"{100 * utilization[rank]:.0f} %" if is_first else ""
        yield f'<text x="{_LEFT - 6}" y="{y + 13}" text-anchor="end">component {i}{place}</text>'
        yield f'<text x="{_LEFT + _WIDTH + 6}" y="{y + 13}">{share}</text>'
        yield f'<rect x="{_LEFT}" y="{y}" width="{_WIDTH}" height="{_ROW - 4}" fill-opacity="0.07"/>'


def _box(interval: Interval, distance: int, begin: float, scale: float) -> Iterator[str]:
    """An action, as far as it is in view; so many steps after the one that is in full colours."""
    left = max((interval.start - begin) * scale, 0.0)
    right = min((interval.end - begin) * scale, float(_WIDTH))
    if right - left <= 1e-6:
        return
    action, y = interval.action, interval.action.component * _ROW + 2
    opacity = (0.25, 0.5)[distance % 2] if distance else 1.0
    yield (
        f'<rect x="{_LEFT + left:.1f}" y="{y}" width="{right - left:.1f}" height="{_ROW - 4}" fill-opacity="{opacity}" '
        f'fill="{LOOKS[action.kind][1]}" stroke="currentColor" stroke-opacity="0.4"><title>{action}</title></rect>'
    )
    text = action.short if 7 * len(action.short) <= right - left or not action.age else f"~{action.age}"
    if 7 * len(text) <= right - left:
        color = "currentColor" if distance else "#000"
        middle = f"{_LEFT + (left + right) / 2:.1f}"
        yield f'<text x="{middle}" y="{y + 12}" text-anchor="middle" fill="{color}">{text}</text>'
