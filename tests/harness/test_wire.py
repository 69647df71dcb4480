"""Messages come through whole or not at all; the end, silence and junk are told apart."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from sparsebench.harness import wire

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("message", [{}, {"a": [1, 2.5, None, "x", {"b": True}]}, {"text": "ü\n\0" * 1000}])
def test_what_is_sent_is_received(pair: Pair, message: object) -> None:
    wire.send(pair[0], message)
    wire.send(pair[0], {"next": 1})
    assert wire.receive(pair[1]) == message
    assert wire.receive(pair[1]) == {"next": 1}


def test_a_message_larger_than_the_buffer(pair: Pair) -> None:
    message = {"text": "x" * 3_000_000}
    sender = threading.Thread(target=wire.send, args=(pair[0], message))
    sender.start()
    assert wire.receive(pair[1], time.monotonic() + 20) == message
    sender.join()


def test_a_message_that_comes_byte_by_byte(pair: Pair) -> None:
    wire.send(pair[0], {"a": 1})
    data = pair[1].recv(100)

    def trickle() -> None:
        for i in range(len(data)):
            pair[0].send(data[i : i + 1])
            time.sleep(0.001)

    sender = threading.Thread(target=trickle)
    sender.start()
    assert wire.receive(pair[1], time.monotonic() + 20) == {"a": 1}
    sender.join()


def test_a_descriptor_comes_with_its_message(pair: Pair) -> None:
    read, write = os.pipe()
    wire.send(pair[0], {"do": "fork"}, (write,))
    wire.send(pair[0], {"do": "reap"})
    message, descriptor = wire.receive_with_descriptor(pair[1])
    assert message == {"do": "fork"}
    assert descriptor is not None
    os.write(descriptor, b"hello")
    assert os.read(read, 10) == b"hello"
    assert wire.receive_with_descriptor(pair[1]) == ({"do": "reap"}, None)
    for each in (read, write, descriptor):
        os.close(each)


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\x09{"])
def test_the_end_is_told_wherever_it_comes(pair: Pair, sent: bytes) -> None:
    pair[0].sendall(sent)
    pair[0].close()
    with pytest.raises(wire.Closed):
        wire.receive(pair[1])


def test_the_end_is_told_to_the_fork_server_too(pair: Pair) -> None:
    pair[0].close()
    with pytest.raises(wire.Closed):
        wire.receive_with_descriptor(pair[1])


def test_sending_to_nobody_is_told(pair: Pair) -> None:
    pair[1].close()
    with pytest.raises(wire.Closed):
        wire.send(pair[0], {"a": 1})


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\x09{"])
def test_silence_ends_at_the_deadline(pair: Pair, sent: bytes) -> None:
    pair[0].sendall(sent)
    begun = time.monotonic()
    with pytest.raises(wire.Late):
        wire.receive(pair[1], begun + 0.05)
    assert 0.04 < time.monotonic() - begun < 2


@pytest.mark.parametrize("sent", [b"junk that is no message", b"\0\0\0\x02[]", b"\0\0\0\x01{", b"\0\0\0\x02\xff\xfe"])
def test_what_somebody_else_wrote_is_no_message(pair: Pair, sent: bytes) -> None:
    pair[0].sendall(sent)
    with pytest.raises(wire.Garbled):
        wire.receive(pair[1], time.monotonic() + 5)


def test_readable_means_a_message_or_the_end(pair: Pair) -> None:
    assert not wire.wait_readable(pair[1], 0.01)
    wire.send(pair[0], {})
    assert wire.wait_readable(pair[1], 0.01)
    wire.receive(pair[1])
    pair[0].close()
    assert wire.wait_readable(pair[1], 0.01)


def test_a_process_with_many_open_files_can_wait(pair: Pair) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2048), hard))
    high = os.dup2(pair[1].fileno(), 1050, inheritable=False)
    with socket.socket(fileno=high) as sock:
        assert not wire.wait_readable(sock, 0.01)
        wire.send(pair[0], {"a": 1})
        assert wire.receive(sock, time.monotonic() + 5) == {"a": 1}
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
