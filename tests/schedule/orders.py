"""Orders as text, possible or not."""

from __future__ import annotations

from dataclasses import replace

from interlocking_backprop.schedule.action import Action
from interlocking_backprop.schedule.schedule import Schedule


def unchecked(schedule: Schedule, *orders: str) -> Schedule:
    """The same schedule in other orders, not validated: one for each rank, spaces or commas between the actions."""
    actions = tuple(tuple(map(Action.from_str, order.replace(",", " ").split())) for order in orders)
    return replace(schedule, actions=actions)
