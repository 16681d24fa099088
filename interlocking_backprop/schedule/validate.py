"""Proof that a schedule can run, before anything runs: complete, in a possible order, messages matched, no deadlock."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Sequence

from interlocking_backprop.schedule.action import Action, Kind
from interlocking_backprop.schedule.dependencies import Dependencies
from interlocking_backprop.schedule.schedule import Schedule, format_grid

# The end that a message has on the other rank, as (kind, which component it is written for, seen from this one).
_SENDS = {Kind.SEND_F: (Kind.RECV_F, 1), Kind.SEND_B: (Kind.RECV_B, -1)}


class ScheduleError(ValueError):
    """A schedule that cannot run; the message holds the grid with the place marked."""


def validate(schedule: Schedule) -> None:
    """Checks a schedule against its workload.

    Every action owed stands exactly once, on the rank of its component; what it needs precedes it; gradients
    accumulate in the order of the micro-batches; no pass comes after the update of its weights; and messages arrive
    in the order in which they are sent, so that the ranks, each waiting where its order says so, all reach the end.

    Raises:
        ScheduleError: with the step x rank grid, the offending cell marked.
    """
    _check_placement(schedule)
    dependencies = Dependencies(
        schedule.workload, schedule.n_microbatches, schedule.placement, split_components(schedule)
    )
    _check_complete(schedule, dependencies)
    _check_accumulation_order(schedule)
    _check_message_order(schedule)
    execution_order(schedule, dependencies)


def split_components(schedule: Schedule) -> frozenset[int]:
    """The components whose joint backward pass the schedule carries out as ``I`` and ``W``."""
    joint = {
        i for i, work in enumerate(schedule.workload.components) if work.weight_pass and work.weight_pass.kind == "B"
    }
    return frozenset(a.component for _, a in schedule if a.kind is Kind.BACKWARD_WEIGHT and a.component in joint)


def _check_placement(schedule: Schedule) -> None:
    placement, n_ranks = schedule.placement, schedule.n_ranks
    if len(placement) != schedule.n_components:
        raise ScheduleError(f"the placement names {len(placement)} components, the scheme has {schedule.n_components}.")
    if list(placement) != sorted(placement) or sorted(set(placement)) != list(range(n_ranks)):
        raise ScheduleError(
            f"the placement is {list(placement)} on {n_ranks} ranks; expected every rank to hold neighbouring "
            "components, in ascending order, and none to be empty."
        )


def _check_complete(schedule: Schedule, dependencies: Dependencies) -> None:
    owed = Counter(dependencies.owed())
    for rank, actions in enumerate(schedule.actions):
        for n, action in enumerate(actions):
            if owed[action] == 0:
                raise _error(schedule, rank, n, f"{action} is not owed, or stands twice")
            if dependencies.placement[action.component] != rank:
                raise _error(schedule, rank, n, f"component {action.component} is not on rank {rank}")
            owed[action] -= 1
    for action in +owed:
        rank = schedule.placement[action.component]
        raise _error(schedule, rank, len(schedule.actions[rank]), f"rank {rank} lacks {action}")


def _check_accumulation_order(schedule: Schedule) -> None:
    """Sums of gradients must not depend on the order of execution: ascending micro-batches for each accumulator."""
    following: dict[tuple[int, bool], int] = defaultdict(int)
    for rank, actions in enumerate(schedule.actions):
        for n, action in enumerate(actions):
            if action.kind in (Kind.LOSS, Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD):
                accumulator = (action.component, action.kind is Kind.LOSS)
                if action.microbatch != following[accumulator]:
                    expected = action._replace(microbatch=following[accumulator])
                    raise _error(schedule, rank, n, f"{action} accumulates before {expected}")
                following[accumulator] += 1


def _check_message_order(schedule: Schedule) -> None:
    """Between two ranks, in one direction, the messages are received in the order in which they are sent."""
    sent: dict[tuple[int, int, bool], list[Action]] = defaultdict(list)
    for rank, action in schedule:
        if action.kind in _SENDS:
            kind, offset = _SENDS[action.kind]
            other = Action(action.component + offset, kind, action.microbatch, action.stream)
            sent[rank, schedule.placement[other.component], kind is Kind.RECV_F].append(other)
    taken: Counter[tuple[int, int, bool]] = Counter()
    for rank, actions in enumerate(schedule.actions):
        for n, action in enumerate(actions):
            if action.kind in (Kind.RECV_F, Kind.RECV_B):
                forward = action.kind is Kind.RECV_F
                source = schedule.placement[action.component + (-1 if forward else 1)]
                channel = (source, rank, forward)
                expected = sent[channel][taken[channel]]
                if action != expected:
                    raise _error(schedule, rank, n, f"{action} is received where rank {source} sends {expected}")
                taken[channel] += 1


def execution_order(schedule: Schedule, dependencies: Dependencies) -> list[Action]:
    """All actions in an order in which they can be carried out one by one.

    Nothing is computed: each rank goes on as long as its next action has what it needs.

    Raises:
        ScheduleError: if the ranks get stuck.
    """
    done: dict[Action, None] = {}
    position = [0] * schedule.n_ranks
    progress = True
    while progress:
        progress = False
        for rank, actions in enumerate(schedule.actions):
            while position[rank] < len(actions):
                action = actions[position[rank]]
                if any(a not in done for a in dependencies.prerequisites(action)):
                    break
                done[action] = None
                position[rank] += 1
                progress = True
    stuck = [(rank, position[rank]) for rank, actions in enumerate(schedule.actions) if position[rank] < len(actions)]
    if stuck:
        # The one whose own order is at fault, if there is one: the others wait for it.
        faults = [(rank, n) for rank, n in stuck if _needs_a_later_one(schedule.actions[rank][n:], dependencies, done)]
        rank, n = (faults or stuck)[0]
        action = schedule.actions[rank][n]
        missing = [str(a) for a in dependencies.prerequisites(action) if a not in done]
        raise _error(schedule, rank, n, f"{action} waits for ever for {', '.join(missing)}")
    return list(done)


def _needs_a_later_one(actions: Sequence[Action], dependencies: Dependencies, done: Container[Action]) -> bool:
    """Whether the first action needs one that comes behind it."""
    return any(a in actions for a in dependencies.prerequisites(actions[0]) if a not in done)


def _error(schedule: Schedule, rank: int, position: int, reason: str) -> ScheduleError:
    grid = format_grid(schedule, marked=(rank, position))
    return ScheduleError(f"the schedule cannot run: {reason} (rank {rank}, step {position}).\n{grid}")
