"""Any scheme, placement and costs get a valid order of exactly what is owed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

import interlocking_backprop as ib
from interlocking_backprop.schedule.action import Action, Kind
from interlocking_backprop.schedule.bounds import least_step_time
from interlocking_backprop.schedule.dependencies import Dependencies
from interlocking_backprop.schedule.list_scheduling import list_schedule
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.schedule.rules import RULES
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.simulate import simulate
from interlocking_backprop.scheme.streams import Workload


@st.composite
def problems(draw, most_age=0):
    """A scheme, losses that ask for the output, M, a placement, and costs with messages that take time."""
    k = draw(st.integers(1, 5))
    coefficient = st.sampled_from([0, 0, 1, 1, -2, 0.5])

    def matrix():
        return [[draw(coefficient) if j >= i else 0 for j in range(k)] for i in range(k)]

    ages = draw(st.lists(st.integers(1, most_age), max_size=2, unique=True)) if most_age else []
    scheme = ib.Scheme(matrix(), delayed={age: matrix() for age in ages})
    cuts = draw(st.lists(st.booleans(), min_size=k - 1, max_size=k - 1))
    placement = tuple(sum(cuts[:i]) for i in range(k))
    time = st.sampled_from([0.0, 0.5, 1.0, 3.0])
    components = [
        ib.ComponentCosts(1.0, *(draw(time) for _ in range(5)), split_weight=draw(time), output_bytes=draw(time))
        for _ in range(k)
    ]
    costs = ib.Costs(components, latency=draw(time), bandwidth=draw(st.sampled_from([1.0, float("inf")])))
    ties = draw(st.sampled_from([(), (), ((0, k - 1),)])) if k > 1 else ()
    workload = Workload.of(scheme, ties=ties)
    if k > 2:
        workload = replace(
            workload,
            heads=(True,) * k,
            head_ties=draw(st.sampled_from([(), (), ((0, k - 2),)])),
            copies=draw(st.sampled_from([(), (), ((k - 1, 0),), ((1, 0), (k - 1, 1))])),
        )
    asking = tuple(i for i, has_head in enumerate(workload.heads[:-1]) if has_head and draw(st.booleans()))
    return replace(workload, asking=asking), draw(st.integers(1, 3)), placement, costs


def owed(schedule: Schedule) -> Counter[Action]:
    """What the scheme demands, spelled out independently of the code that schedules."""
    workload, placement = schedule.workload, schedule.placement
    found: Counter[Action] = Counter()
    for i, work in enumerate(workload.components):
        up = i + 1 < workload.n_components and placement[i] != placement[i + 1]
        down = i > 0 and placement[i] != placement[i - 1]
        for m in range(schedule.n_microbatches):
            found[Action(i, Kind.FORWARD, m)] += 1
            found[Action(i, Kind.LOSS, m)] += work.computes_loss
            for p in work.passes:
                is_whole = p.kind == "B" and i not in schedule.dependencies.split
                if p.stream is not None:
                    found[Action(i, Kind.FULL_BACKWARD if is_whole else Kind.BACKWARD_INPUT, m, p.stream)] += 1
                if p.kind != "I" and not is_whole:
                    found[Action(i, Kind.BACKWARD_WEIGHT, m, p.weights or None)] += 1
            found[Action(i, Kind.SEND_F, m)] += up
            found[Action(i, Kind.RECV_F, m)] += down
            for s in range(len(work.streams)):
                found[Action(i, Kind.SEND_B, m, s)] += down
            for s in range(len(workload.components[i + 1].streams) if up else 0):
                found[Action(i, Kind.RECV_B, m, s)] += 1
        ranks_below = {placement[i] for i in workload.asking} - {placement[-1]}
        for first in [next(i for i in workload.asking if placement[i] == rank) for rank in sorted(ranks_below)]:
            for m in range(schedule.n_microbatches):
                found[Action(i, Kind.SEND_Y, m, first)] += i == workload.n_components - 1
                found[Action(i, Kind.RECV_Y, m, workload.n_components - 1)] += i == first
        is_trained = any(workload.scheme.coefficients(age)[i].any() for age in (0, *workload.scheme.delayed))
        shares = any(i in tie for tie in workload.ties) and is_trained
        found[Action(i, Kind.REDUCE_GRAD)] += shares or any(i in tie for tie in workload.head_ties)
        found[Action(i, Kind.GIVE)] += any(i == source for source, _ in workload.copies)
        found[Action(i, Kind.COPY)] += any(i == target for _, target in workload.copies)
        found[Action(i, Kind.UPDATE)] += work.updates
    return +found


@settings(max_examples=40, deadline=None)
@given(problems())
def test_any_problem_gets_a_valid_order_of_exactly_what_is_owed(problem):
    workload, m, placement, costs = problem
    ib.validate(depth_first(workload, m))
    schedule = list_schedule(workload, m, placement, costs)
    ib.validate(schedule)
    assert Counter(action for _, action in schedule) == owed(schedule)
    assert simulate(schedule, costs).step_time >= simulate(schedule, costs).limit * (1 - 1e-9)
    assert list_schedule(workload, m, placement, costs) == schedule


@settings(max_examples=25, deadline=None)
@given(problems())
def test_no_rule_alone_leads_to_a_faster_order(problem):
    """The search stops early and leaves rules out; nothing is lost by that, and no order is below the bound."""
    workload, m, placement, costs = problem
    # Outputs that several ranks ask for arrive one after another by the simulator, all with the last in the search.
    assume(len(Dependencies(workload, m, placement).output_receivers) < 2 or costs.bandwidth == float("inf"))
    steps = [
        simulate(list_schedule(workload, m, placement, costs, rules=[rule]), costs, timeline_steps=0).step_time
        for rule in RULES
    ]
    found = simulate(list_schedule(workload, m, placement, costs), costs, timeline_steps=0).step_time
    assert found <= min(steps) * 1.0021 + 1e-9  # two orders as short as one another, to 0.1 % each
    for split in (frozenset[int](), workload.joint):
        dependencies = Dependencies(workload, m, placement, split)
        of_split = [
            s for rule, s in zip(RULES, steps, strict=True) if (workload.joint if rule.split else set()) == split
        ]
        assert least_step_time(dependencies, costs) <= min(of_split) * (1 + 1e-9)


def test_every_rule_leads_to_a_valid_order():
    workload = Workload.of(ib.nwise(5, 3, "sum"))
    for rule in RULES:
        ib.validate(list_schedule(workload, 4, (0, 0, 1, 2, 3), rules=[rule]))
