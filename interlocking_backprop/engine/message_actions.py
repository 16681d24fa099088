"""The actions that send and receive: what leaves the state of a batch for another rank, and what enters it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from interlocking_backprop.engine.message import Gradient, Message, Packet, Transport
from interlocking_backprop.engine.state import Place, State
from interlocking_backprop.schedule.action import Action, Kind
from interlocking_backprop.schedule.network_output import Use


def message_action(action: Action, transport: Transport, of_output: Use | None) -> Callable[[State], None]:
    """What is called to send or receive.

    Args:
        action: a ``SEND`` or ``RECV`` of any kind.
        transport: by which messages go.
        of_output: where the network's output is found, for ``SEND_Y``.
    """
    i, kind, m, stream, _ = action
    assert m is not None
    if kind is Kind.SEND_F:
        return partial(_send_forward, transport.sender(Message(i, i + 1, m)), (i + 1, m))
    if kind is Kind.RECV_F:
        return partial(_receive_forward, transport.receiver(Message(i - 1, i, m)), (i, m))
    assert stream is not None
    if kind is Kind.SEND_Y:
        assert of_output is not None
        return partial(_send_output, transport.sender(Message(i, stream, m)), m, of_output)
    if kind is Kind.RECV_Y:
        return partial(_receive_output, transport.receiver(Message(stream, i, m)), (i, m))
    if kind is Kind.SEND_B:
        return partial(_send_backward, transport.sender(Message(i, i - 1, m, stream)), (i, m), stream)
    return partial(_receive_backward, transport.receiver(Message(i + 1, i, m, stream)), (i + 1, m), stream)


def _send_forward(send: Callable[[Packet], None], above: Place, state: State) -> None:
    send(state.packets.pop(above))


def _receive_forward(receive: Callable[[], Packet], place: Place, state: State) -> None:
    state.packets[place] = receive()


def _send_backward(send: Callable[[Gradient], None], place: Place, stream: int, state: State) -> None:
    send(state.streams[place].pop(stream))


def _receive_backward(receive: Callable[[], Gradient], above: Place, stream: int, state: State) -> None:
    state.streams[above][stream] = receive()


def _send_output(send: Callable[[Packet], None], m: int, use: Use, state: State) -> None:
    send(Packet(state.network_output(use, m), None, None))


def _receive_output(receive: Callable[[], Packet], place: Place, state: State) -> None:
    state.outputs[place] = receive().activation
