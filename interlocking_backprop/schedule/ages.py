"""How many steps after its batch each backward pass is carried out, where a scheme leaves time for that.

A weight gradient that goes into the update of d steps later may be computed at any time until then, and so may the
streams that it starts from. To carry out all passes at once would need no weights of the past, but the ranks would wait
for one another as they do without delay. So a pass is put off until the credit that it starts from has had the time to
arrive: from the last component's loss down, at the pace of a network that never waits.

End to end, K = 4 equal components, two micro-batches, delays 1, 1, 1, 0, as `format_timeline` shows it: passes of the
batch before bear ``~1``. The credit of a batch is at component i 2 (K - 1 - i) units after its forward pass there: at
component 2 in time for the stream of the same step, at 1 in the next. No rank is ever idle:

            0           2           4           6           8           10          12          14
    rank 0  F0--- F1--- W0~1------- W1~1------- f0--- f1--- w0~1------- w1~1-------
    rank 1  I0~1- F0--- I1~1- F1--- W0~1- W1~1- i0~1- f0--- i1~1- f1--- w0~1- w1~1-
    rank 2              F0--- W0~1- F1--- I0--- W1~1- I1--- f0--- w0~1- f1--- i0--- w1~1- i1---
    rank 3                    F0--- I0--- F1--- I1--- W0--- W1--- f0--- i0--- f1--- i1--- w0--- w1---
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import ceil
from typing import NamedTuple

from interlocking_backprop.schedule.action import PASSES, Action, Kind
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.scheme.streams import Pass, Workload


class PassAges(NamedTuple):
    """How many steps after its batch a component carries out each of its passes.

    Attributes:
        inputs: for each stream the age of the pass that yields it.
        weights: for each weight gradient the age of its pass.
    """

    inputs: tuple[int, ...]
    weights: tuple[int, ...]


def ages_of(workload: Workload, actions: Iterable[Action]) -> tuple[PassAges, ...]:
    """The ages that the actions of a schedule bear; none if no pass has any."""
    ages = {(a.component, a.kind is Kind.BACKWARD_WEIGHT, a.stream): a.age for a in actions if a.kind in PASSES}
    if not any(ages.values()):
        return ()

    def of_weights(i: int, p: Pass) -> int:
        return ages.get((i, True, p.weights or None), ages.get((i, False, p.stream), 0))

    return tuple(
        PassAges(
            tuple(ages.get((i, False, s), 0) for s in range(len(work.streams))),
            tuple(of_weights(i, p) for p in work.weight_passes),
        )
        for i, work in enumerate(workload.components)
    )


class Slack(NamedTuple):
    """By when in a step the credit that it uses has to be there, as parts of the step's length.

    Attributes:
        inputs: for passes that yield streams.
        weights: for passes that yield weight gradients alone; the rank has other work until then.

    With infinity no pass is late; with minus infinity all are put off until they are due.
    """

    inputs: float
    weights: float


def pass_ages(
    workload: Workload,
    n_microbatches: int,
    placement: Sequence[int],
    costs: Costs,
    split: frozenset[int],
    slack: Slack,
) -> tuple[PassAges, ...]:
    """The ages of the passes: late enough for their credit to be there, and not later than it is due.

    Args:
        workload: the scheme and the network.
        n_microbatches: M.
        placement: for each component its rank.
        costs: what the components cost.
        split: the components whose joint passes are carried out in two, so that the second may be later.
        slack: by when in a step credit has to be there.

    Returns:
        For each component; none if no pass is later than its batch.
    """
    if not workload.max_delay:
        return ()
    latest = _latest(workload)
    step = _step_time(workload, n_microbatches, placement, costs)
    begins, ends = _forward_times(placement, costs)
    ages: list[PassAges] = []
    streams: list[float] = []  # when the streams of the component above are there, for the first micro-batch
    for i in reversed(range(workload.n_components)):
        work, component = workload.components[i], costs.components[i]

        def ready(p: Pass, i: int = i, streams: Sequence[float] = streams) -> float:
            """When a pass has all that it starts from."""
            own = ends[i] + (costs.components[i].loss if p.source.loss else 0.0)
            return max([own, *(streams[s] for s, _ in p.source.streams)])

        def age(
            p: Pass, part: float, due: int, least: int = 0, i: int = i, ready: Callable[[Pass], float] = ready
        ) -> int:
            above = [ages[0].inputs[s] for s, _ in p.source.streams]
            wanted = ceil(min(max((ready(p) - begins[i]) / step - part - 1e-9, 0), due))
            return min(max([wanted, least, *above]), due)

        inputs = tuple(age(work.input_pass(s), slack.inputs, due) for s, due in enumerate(latest[i].inputs))
        weights = tuple(
            age(p, slack.weights, due, 0 if p.stream is None else inputs[p.stream])
            if p.stream is None or i in split
            else inputs[p.stream]
            for p, due in zip(work.weight_passes, latest[i].weights, strict=True)
        )
        way = _way(placement, costs, i - 1)
        streams = [ready(work.input_pass(s)) + component.backward_input + way for s in range(len(work.streams))]
        ages.insert(0, PassAges(inputs, weights))
    return tuple(ages) if any(any(inputs) or any(weights) for inputs, weights in ages) else ()


def _step_time(workload: Workload, n_microbatches: int, placement: Sequence[int], costs: Costs) -> float:
    """The busy time of the fullest rank."""
    busy = [0.0] * (max(placement) + 1)
    for i, work in enumerate(workload.components):
        component = costs.components[i]
        passes = {"I": component.backward_input, "W": component.backward_weight, "B": component.full_backward}
        each = component.forward + component.loss * work.computes_loss + sum(passes[p.kind] for p in work.passes)
        busy[placement[i]] += n_microbatches * each + component.update * work.updates
    return max(busy) or 1.0


def _forward_times(placement: Sequence[int], costs: Costs) -> tuple[list[float], list[float]]:
    """For each component when its rank begins a step, and when the component's first forward pass has ended."""
    begins: list[float] = []
    ends: list[float] = []
    for i, component in enumerate(costs.components):
        begin = ends[-1] + _way(placement, costs, i - 1) if ends else 0.0
        is_first = i == 0 or placement[i] != placement[i - 1]
        begins.append(begin if is_first else begins[-1])
        ends.append(begin + component.forward)
    return begins, ends


def _way(placement: Sequence[int], costs: Costs, i: int) -> float:
    """How long a message between components i and i + 1 is on its way."""
    if i < 0 or placement[i] == placement[i + 1]:
        return 0.0
    return costs.latency + costs.components[i].output_bytes / costs.bandwidth


def _latest(workload: Workload) -> list[PassAges]:
    """By which age each pass has to be carried out: when the first of those who need it is due."""
    found: list[PassAges] = []
    below: list[tuple[Pass, int]] = []  # the passes of the component below, and when they are due
    for work in workload.components:
        due_of_streams = [
            min((due for p, due in below if any(s == stream for stream, _ in p.source.streams)), default=0)
            for s in range(len(work.streams))
        ]
        weights = []
        for p in work.weight_passes:
            due = min(age for age, _ in p.uses)
            if p.stream is not None:
                due = due_of_streams[p.stream] = min(due, due_of_streams[p.stream])
            weights.append(due)
        found.append(PassAges(tuple(due_of_streams), tuple(weights)))
        below = [(work.input_pass(s), due) for s, due in enumerate(due_of_streams)]
        below += [(p, weights[n]) for n, p in enumerate(work.weight_passes) if p.stream is None]
    return found
