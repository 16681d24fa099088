"""Proof that a schedule can run, before anything runs: complete, in a possible order, messages matched, no deadlock."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator

from interlocking_backprop.schedule.action import RECEIVES, SENDS, Action, Kind
from interlocking_backprop.schedule.schedule import Schedule, format_grid

_ACCUMULATE = (Kind.LOSS, Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD)


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
    _check_complete(schedule)
    _check_ages(schedule)
    _check_accumulation_order(schedule)
    _check_message_order(schedule)
    execution_order(schedule)


def _check_placement(schedule: Schedule) -> None:
    try:
        n_ranks = schedule.dependencies.placement[-1] + 1
    except ValueError as error:
        raise ScheduleError(str(error)) from None
    if schedule.n_ranks != n_ranks:
        raise ScheduleError(
            f"the schedule has {schedule.n_ranks} lists of actions; expected one for each of {n_ranks} ranks."
        )


def _check_complete(schedule: Schedule) -> None:
    owed = set(schedule.dependencies.owed())
    actions = [action for of_rank in schedule.actions for action in of_rank]
    if len(actions) == len(owed) and owed == set(actions) and _are_in_place(schedule):
        return
    for rank, n, action in _cells(schedule):
        if action not in owed:
            raise _error(schedule, rank, n, f"{action} is not owed, or stands twice")
        if schedule.placement[action.component] != rank:
            raise _error(schedule, rank, n, f"component {action.component} is not on rank {rank}")
        owed.remove(action)
    for action in (a for a in schedule.dependencies.owed() if a in owed):
        rank = schedule.placement[action.component]
        raise _error(schedule, rank, len(schedule.actions[rank]), f"rank {rank} lacks {action}")


def _are_in_place(schedule: Schedule) -> bool:
    """Whether each rank has actions of its own components only."""
    return all(
        {action.component for action in actions}.issubset(schedule.components_of(rank))
        for rank, actions in enumerate(schedule.actions)
    )


def _check_ages(schedule: Schedule) -> None:
    """A pass comes neither before what it starts from nor after the first update that its weight gradient goes into."""
    dependencies = schedule.dependencies
    if not dependencies.ages:
        return
    for rank, n, action in _cells(schedule):
        for needed in dependencies.prerequisites(action):
            if dependencies.steps_before(action, needed) < 0:
                raise _error(schedule, rank, n, f"{action} needs {needed}, which is of a later step")
        if action.kind in (Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD):
            due = min((age for age, _ in dependencies.backward_pass(action).uses), default=action.age)
            if action.age > due:
                raise _error(schedule, rank, n, f"{action} comes after the update of age {due} that it is for")


def _check_accumulation_order(schedule: Schedule) -> None:
    """Sums of gradients must not depend on the order of execution: ascending micro-batches for each accumulator."""
    following: Counter[tuple[int, int | None]] = Counter()
    for rank, n, action in _cells(schedule):
        if action.kind in _ACCUMULATE:
            weights = None if action.kind is Kind.LOSS else schedule.dependencies.backward_pass(action).weights
            accumulator = (action.component, weights)
            if action.microbatch != following[accumulator]:
                expected = action._replace(microbatch=following[accumulator])
                raise _error(schedule, rank, n, f"{action} accumulates before {expected}")
            following[accumulator] += 1


def _check_message_order(schedule: Schedule) -> None:
    """Between two ranks, in one direction, the messages are received in the order in which they are sent.

    Where there is credit of earlier batches they are received in any order, and posted in that one.
    """
    if schedule.n_ranks == 1 or schedule.dependencies.ages:
        return
    channel = schedule.dependencies.channel
    sent: dict[tuple[int, int, Kind], deque[Action]] = defaultdict(deque)
    for _, action in schedule:
        if action.kind in SENDS:
            receive = schedule.dependencies.other_end(action)
            sent[channel(receive)].append(receive)
    for rank, n, action in _cells(schedule):
        if action.kind in RECEIVES:
            expected = sent[channel(action)].popleft()
            if action != expected:
                source = schedule.placement[action.other_end.component]
                raise _error(schedule, rank, n, f"{action} comes before {expected}, which rank {source} sends first")


def execution_order(schedule: Schedule) -> list[Action]:
    """All actions in an order in which they can be carried out one by one.

    Nothing is computed: each rank goes on as long as its next action has what it needs.

    Raises:
        ScheduleError: if the ranks get stuck.
    """
    order: list[Action] = []
    done: set[Action] = set()
    position = [0] * schedule.n_ranks
    prerequisites, steps_before = schedule.dependencies.prerequisites, schedule.dependencies.steps_before

    def missing(rank: int) -> list[Action]:
        """What the next action of a rank needs and does not have."""
        action = schedule.actions[rank][position[rank]]
        return [
            needed
            for needed in prerequisites(action)
            if needed not in done and not (action.age and steps_before(action, needed))
        ]

    unfinished = [rank for rank, actions in enumerate(schedule.actions) if actions]
    progress = True
    while progress:
        progress = False
        for rank in unfinished:
            actions = schedule.actions[rank]
            while position[rank] < len(actions):
                action = actions[position[rank]]
                if not done.issuperset(prerequisites(action)) and missing(rank):
                    break
                done.add(action)
                order.append(action)
                position[rank] += 1
                progress = True
        unfinished = [rank for rank in unfinished if position[rank] < len(schedule.actions[rank])]
    if unfinished:
        # The one whose own order is at fault, if there is one: the others wait for it.
        rank = min(unfinished, key=lambda rank: set(missing(rank)).isdisjoint(schedule.actions[rank]))
        waits_for = ", ".join(map(str, missing(rank)))
        action = schedule.actions[rank][position[rank]]
        raise _error(schedule, rank, position[rank], f"{action} waits for ever for {waits_for}")
    return order


def _cells(schedule: Schedule) -> Iterator[tuple[int, int, Action]]:
    """All (rank, position, action) triples, rank by rank."""
    return ((rank, n, action) for rank, actions in enumerate(schedule.actions) for n, action in enumerate(actions))


def _error(schedule: Schedule, rank: int, position: int, reason: str) -> ScheduleError:
    grid = format_grid(schedule, marked=(rank, position))
    return ScheduleError(f"the schedule cannot run: {reason} (rank {rank}, step {position}).\n{grid}")
