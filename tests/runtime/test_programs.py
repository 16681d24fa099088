"""Operations go by numbers: the same one for what looks the same, another one for anything else."""

from __future__ import annotations

import pytest
import torch

from interlocking_backprop.engine.message import Packet
from interlocking_backprop.runtime.programs import Programs


@pytest.fixture
def programs() -> Programs:
    return Programs([], [], [], (), 0, torch.device("cpu"), None, None, None)


def packet(activation, target=None) -> Packet:
    return Packet(activation, torch.zeros(2) if target is None else target, None)


def test_what_looks_the_same_has_the_same_number(programs):
    assert programs.number(1, [packet(torch.zeros(2, 3))]) == 0
    assert programs.number(1, [packet(torch.ones(2, 3))]) == 0


@pytest.mark.parametrize(
    "other",
    [
        (2, [packet(torch.zeros(2, 3))]),
        (1, [packet(torch.zeros(2, 3))] * 2),
        (1, [packet(torch.zeros(2, 4))]),
        (1, [packet(torch.zeros(2, 3, dtype=torch.int64))]),
        (1, [packet(torch.zeros(2, 3).requires_grad_())]),
        (1, [packet({"x": torch.zeros(2, 3)})]),
        (1, [packet([torch.zeros(2, 3), torch.zeros(2)], 7)]),
    ],
)
def test_anything_else_has_another_one(programs, other):
    programs.number(1, [packet(torch.zeros(2, 3))])
    assert programs.number(*other) == 1
    assert programs.number(*other) == 1
    assert programs.number(1, [packet(torch.zeros(2, 3))]) == 0
