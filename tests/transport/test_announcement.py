"""Headers say exactly what rank 0 said."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interlocking_backprop.bench.processes import on_ranks
from interlocking_backprop.transport.announcement import Announcement, Operation, digest
from interlocking_backprop.transport.channels import Channels
from interlocking_backprop.transport.headers import Headers
from interlocking_backprop.transport.process_groups import join

MOST = 5
WHOLE = st.integers(0, 2**53)


@st.composite
def announcements(draw):
    m = draw(st.integers(0, MOST))
    share = st.floats(0, 1)
    n_rows = draw(st.integers(0, 2)) if m else 0
    shares = tuple(tuple(draw(st.lists(share, min_size=m, max_size=m))) for _ in range(n_rows))
    return Announcement(
        draw(st.sampled_from(Operation)),
        draw(WHOLE),
        draw(WHOLE),
        m,
        draw(st.integers(-(2**63), 2**64 - 1)),
        draw(WHOLE),
        draw(st.integers(-(2**53), 2**53)),
        shares,
    )


@settings(max_examples=100, deadline=None)
@given(announcements())
def test_a_header_keeps_everything_exactly(announcement):
    size = Announcement.size(2 * MOST)
    header = announcement.to_tensor(size)
    assert header.dtype == torch.float64
    assert header.shape == (size,)
    assert Announcement.from_tensor(header) == announcement


def test_a_header_has_one_size_whatever_it_says():
    short = Announcement(Operation.SHUTDOWN)
    long = Announcement(Operation.TRAINING_STEP, n_microbatches=5, shares=((0.2,) * 5, (0.2,) * 5))
    size = Announcement.size(2 * MOST)
    assert short.to_tensor(size).shape == long.to_tensor(size).shape == (19,)


@pytest.mark.parametrize(
    ("operation", "call"),
    [
        (Operation.TRAINING_STEP, "model.training_step()"),
        (Operation.FORWARD, "model(inputs)"),
        (Operation.MAP_EXITS, "model.map_exits()"),
        (Operation.SHUTDOWN, "model.shutdown()"),
    ],
)
def test_an_operation_is_named_as_its_caller_knows_it(operation, call):
    assert operation.call == call


def test_a_digest_tells_schedules_apart_and_fits_into_a_header():
    assert digest(["0F0 0L0"]) == digest(["0F0 0L0"]) == 8944990965894858
    assert digest(["0F0 0L0"]) != digest(["0L0 0F0"])
    assert digest(["a", "b"]) != digest(["a b"])
    assert all(0 <= digest([str(n)]) < 2**53 for n in range(100))


SAID = [
    Announcement(Operation.TRAINING_STEP, 1, 12345, 2, 2**64 - 1, 7, 3, ((0.25, 0.75), (1 / 3, 2 / 3))),
    Announcement(Operation.FORWARD, 2),
    Announcement(Operation.SHUTDOWN),
]


def heard_on_rank(rank: int, size: int) -> list[Announcement]:
    world = join(torch.device("cpu"), timedelta(seconds=60))
    headers = Headers(world, Channels(world.groups, world.device), 2 * MOST)
    # Other ranks have an idea of what comes; it is for them to compare.
    heard = [headers.next(said if rank == 0 else Announcement(Operation.MAP_EXITS)) for said in SAID]
    headers.close()
    return heard


def test_every_rank_hears_what_rank_0_says_in_its_order():
    assert on_ranks(3, heard_on_rank) == [SAID] * 3
