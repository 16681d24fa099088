"""Operations go by numbers: the same one for what looks the same, another one for anything else."""

from __future__ import annotations

import pytest
import torch

from interlocking_backprop.engine.executor import Packet
from interlocking_backprop.runtime.programs import Programs
from interlocking_backprop.transport.announcement import Operation

STEP = Operation.TRAINING_STEP


@pytest.fixture
def programs() -> Programs:
    return Programs([], [], [], (), 0, torch.device("cpu"), None, None, None)


def packet(activation, target=None) -> Packet:
    return Packet(activation, torch.zeros(2) if target is None else target, None)


def test_what_looks_the_same_has_the_same_number(programs):
    assert programs.number(STEP, [packet(torch.zeros(2, 3))], digest=1) == (0, True)
    assert programs.number(STEP, [packet(torch.ones(2, 3))], digest=1) == (0, False)


@pytest.mark.parametrize(
    "other",
    [
        (Operation.FORWARD, [packet(torch.zeros(2, 3))], 1),
        (STEP, [packet(torch.zeros(2, 3))], 2),
        (STEP, [packet(torch.zeros(2, 3))] * 2, 1),
        (STEP, [packet(torch.zeros(2, 4))], 1),
        (STEP, [packet(torch.zeros(2, 3, dtype=torch.int64))], 1),
        (STEP, [packet(torch.zeros(2, 3).requires_grad_())], 1),
        (STEP, [packet({"x": torch.zeros(2, 3)})], 1),
        (STEP, [packet([torch.zeros(2, 3), torch.zeros(2)], 7)], 1),
    ],
)
def test_anything_else_has_another_one(programs, other):
    programs.number(STEP, [packet(torch.zeros(2, 3))], digest=1)
    assert programs.number(*other) == (1, True)
    assert programs.number(*other) == (1, False)
    assert programs.number(STEP, [packet(torch.zeros(2, 3))], digest=1) == (0, False)
