"""Tensors as messages: what arrives is what was sent, and small ones travel together."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._pytree import tree_leaves

from interlocking_backprop.engine.message import Packet
from interlocking_backprop.transport.packing import Format, TensorFormat

CPU = torch.device("cpu")
DTYPES = [
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


def format_of(values: list[torch.Tensor]) -> Format:
    return Format([TensorFormat.of(v) for v in values])


def sent_and_received(values: list[torch.Tensor]) -> list[torch.Tensor]:
    form = format_of(values)
    messages = form.pack(values)
    received, buffers = form.receive(CPU)
    for buffer, message in zip(buffers, messages, strict=True):
        buffer.copy_(message)
    return received


def made(dtype: torch.dtype, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 50).to(dtype)


@pytest.mark.filterwarnings("ignore:Casting complex")
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 9), max_size=3)), min_size=1, max_size=6),
    st.booleans(),
)
def test_what_arrives_is_what_was_sent(some, is_transposed):
    values = [made(dtype, tuple(shape), n) for n, (dtype, shape) in enumerate(some)]
    values = [v.t() if is_transposed and v.dim() == 2 else v for v in values]
    for value, got in zip(values, sent_and_received(values), strict=True):
        assert (got.dtype, got.shape) == (value.dtype, value.shape)
        assert torch.equal(got, value)


def test_a_format_is_all_that_a_receiver_needs():
    tree = {"x": torch.zeros(2, 3).requires_grad_(), "mask": (torch.ones(4, dtype=torch.bool), None)}
    packet = Packet(tree, torch.zeros(2), None)
    activation = {
        "x": TensorFormat((2, 3), torch.float32, True),
        "mask": (TensorFormat((4,), torch.bool, False), None),
    }
    assert Format.of(packet).tree == Packet(activation, TensorFormat((2,), torch.float32, False), None)
    assert activation["x"].n_bytes == 24
    assert TensorFormat((), torch.float64, False).n_bytes == 8


@pytest.mark.parametrize(
    "value",
    [
        Packet(torch.arange(6.0).view(2, 3).requires_grad_(), torch.tensor([1, 2]), None),
        Packet({"x": torch.ones(2), "more": [torch.arange(3), 7]}, None, (torch.ones(1), "word")),
        [torch.arange(4.0)],
        [torch.arange(4.0), torch.ones(2, 2)],
    ],
)
def test_packets_and_gradients_are_put_together_again(value):
    sent = Format.of(value)
    received, buffers = Format(sent.tree).receive(CPU)
    for buffer, message in zip(buffers, sent.pack(value), strict=True):
        buffer.copy_(message)
    got = sent.filled(received)
    assert type(got) is type(value)
    assert Format.of(got).tree == sent.tree
    for a, b in zip(tree_leaves(got), tree_leaves(value), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    assert sent.is_of(got)
    assert sent.is_of(sent.zeros(CPU))
    assert not Format.of([torch.zeros(9)]).is_of([torch.zeros(8)])


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(2, 3, dtype=torch.int64),
        torch.zeros(3, 2),
        torch.zeros(2, 3).requires_grad_(),
        torch.zeros(2, 3, 1),
        None,
        "a word",
    ],
)
def test_what_does_not_look_like_that(value):
    assert not TensorFormat((2, 3), torch.float32, False).is_of(value)
    assert TensorFormat((2, 3), torch.float32, False).is_of(torch.ones(2, 3))


@pytest.mark.parametrize("n", [1, 2])
def test_a_column_of_a_row_has_no_unit_stride(n):
    values = [torch.arange(4.0).reshape(1, 4).t()] * n
    assert values[0].is_contiguous()
    assert all(torch.equal(got, values[0]) for got in sent_and_received(values))


def test_small_tensors_travel_together_each_at_an_aligned_place():
    values = [torch.ones(3, dtype=torch.bool), torch.arange(3.0), torch.arange(2)]
    (message,) = format_of(values).pack(values)
    assert message.dtype == torch.uint8
    assert message.shape == (16 + 16 + 16,)
    assert message[:3].tolist() == [1, 1, 1]
    assert torch.equal(message[16:28].view(torch.float32), values[1])
    assert torch.equal(message[32:].view(torch.int64), values[2])


@pytest.mark.parametrize(
    ("sizes", "messages"),
    [
        ([1 << 16], [1 << 16]),
        ([1 << 17, 64], [1 << 17, 64]),
        ([40_000, 40_000], [40_000, 40_000]),
        ([30_000, 30_000, 10_000], [60_000, 10_000]),
        ([100, 1 << 17, 100], [100, 1 << 17, 100]),
        ([0, 0], []),
        ([16, 0, 16], [32]),
    ],
)
def test_large_tensors_travel_alone_and_empty_ones_not_at_all(sizes, messages):
    values = [torch.zeros(size, dtype=torch.uint8) for size in sizes]
    form = format_of(values)
    assert [m.nbytes for m in form.pack(values)] == messages
    received, buffers = form.receive(CPU)
    assert [b.nbytes for b in buffers] == messages
    assert [r.nbytes for r in received] == sizes


def test_a_tensor_alone_is_sent_without_a_copy():
    value = torch.arange(4.0)
    (message,) = format_of([value]).pack([value])
    assert message.data_ptr() == value.data_ptr()


def test_to_autograd_they_are_tensors_like_any_others():
    values = [torch.arange(3.0), torch.arange(4.0)]
    first, second = sent_and_received(values)
    first.requires_grad_()
    second.add_(1)  # neither of them sees what is done to the other
    assert first._version == 0
    (first * second[:3]).sum().backward()
    assert first.grad.tolist() == [1, 2, 3]
    assert second.grad is None
