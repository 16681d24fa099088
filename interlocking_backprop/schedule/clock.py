"""Time, for ranks that carry out their actions in an order that stays the same, step after step without a flush."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

TOLERANCE = 1e-9
"""Of differences between times, in relation to them, that would be none without rounding."""


class Entry(NamedTuple):
    """An action in the program of a clock.

    Attributes:
        number: of the action; those of a program are 0, 1, … in any order.
        rank: the rank that carries it out.
        duration: how long it keeps the rank busy.
        awaited: what it waits for on other ranks: a place in the times of the clock, see `place`, and how much later
            that is there.
        link: the link on which it sends a message, if it does: a whole number from 0 on.
        transfer: how long the message keeps the link.
    """

    number: int
    rank: int
    duration: float
    awaited: Sequence[tuple[int, float]]
    link: int | None = None
    transfer: float = 0.0


def place(number: int, n_entries: int, *, steps_back: int = 0, message: bool = False) -> int:
    """Where in the times of a clock that of an action stands.

    Args:
        number: of the action.
        n_entries: how many the program has.
        steps_back: of which step, 0 for the same.
        message: whether it is the time at which its message has left, not that at which the action has ended.
    """
    return number + n_entries * (2 * steps_back + message)


class Clock:
    """Carries out step after step.

    Args:
        program: the actions of all ranks, in an order in which they can be carried out one by one.
        n_ranks: the number of ranks.
        start: when each rank begins; at 0 by default.

    Attributes:
        now: the time that each rank has come to.
        begins: when each action of the last step began, by its number.
        most_steps_back: how many steps back the earliest is that an action waits for.
    """

    def __init__(self, program: Sequence[Entry], n_ranks: int, start: Sequence[float] | None = None) -> None:
        self.now = [0.0] * n_ranks if start is None else list(start)
        self.begins = [0.0] * len(program)
        self._program = program
        self._links = [0.0] * (1 + max((entry.link for entry in program if entry.link is not None), default=-1))
        # Of the step that is carried out and, behind it, of those before, as far back as anything waits.
        size = 2 * len(program)
        across = {p for entry in program for p, _ in entry.awaited if p >= size}
        self._across = sorted({q for p in across for q in range(p - size, -1, -size)})
        self.most_steps_back = max(across, default=0) // size if size else 0
        self._times = [0.0] * (size * (1 + self.most_steps_back))

    def step(self) -> None:
        """Carries out one step."""
        now, begins, links = self.now, self.begins, self._links
        n_entries = len(self._program)
        times = [0.0] * (2 * n_entries) + self._times
        del times[len(self._times) :]
        for n, rank, duration, awaited, link, transfer in self._program:
            time = now[rank]
            for where, delay in awaited:
                arrival = times[where] + delay
                if arrival > time:
                    time = arrival
            begins[n] = time
            now[rank] = times[n] = end = time + duration
            if link is not None:
                links[link] = times[n_entries + n] = max(end, links[link]) + transfer
        self._times = times

    @property
    def state(self) -> list[float]:
        """The times that the following steps depend on."""
        return [*self.now, *self._links, *self.waited_for]

    @property
    def periods(self) -> range:
        """After how many steps, at most, the times may repeat; more where waits reach back over several."""
        return range(1, 5 + self.most_steps_back)

    @property
    def waited_for(self) -> list[float]:
        """The times of past steps that actions of later ones wait for."""
        return [self._times[p] for p in self._across]


def steady_step_time(clock: Clock, limit: float, max_steps: int = 200) -> float:
    """The time from one step to the next, once the steps follow one another steadily.

    A step is a linear map of the state in the algebra of maximum and sum. If no part of the state advances by more than
    x in some step, then the steps take at most x on average, whatever the state (Collatz and Wielandt). So one step is
    enough where the limit is reached, and a state that has moved on as a whole repeats for ever.

    Args:
        clock: that has carried out no step.
        limit: a time that no step can do with less than.
        max_steps: the most steps, if nothing repeats before; their second half counts then.
    """
    states = [clock.state]
    while len(states) <= max_steps:
        clock.step()
        states.append(clock.state)
        for period in clock.periods:
            if len(states) > period:
                least, most = advances(states[-1 - period], states[-1])
                if most <= max(least, limit * period) + TOLERANCE * abs(most):
                    return most / period
    span = max((len(states) - 1) // 2, 1)
    return advances(states[-1 - span], states[-1])[1] / span


def advances(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """The least and the most by which times have moved on."""
    differences = [b - a for a, b in zip(before, after, strict=True)]
    return min(differences), max(differences)
