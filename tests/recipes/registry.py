"""What each recipe has to achieve: functions by the heading of its section."""

from __future__ import annotations

from collections.abc import Callable

CHECKS: dict[str, Callable[..., None]] = {}


def checks(name: str):
    def register(function):
        CHECKS[name] = function
        return function

    return register
