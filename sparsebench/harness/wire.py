"""Messages between parent, fork server and workers: JSON with its length before it, on sockets of their own."""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import Any

import msgspec

PROTOCOL = 1  # of what parent and workers say to each other; revisions of this project are compared only within one
_HEAD = struct.Struct("!I")

_LONGEST = 1 << 28  # bytes of one message; the largest real ones list the cells of a suite


class Closed(Exception):
    """The other side is gone."""


class Late(Exception):
    """The other side did not answer in time."""


class Garbled(Exception):
    """What came is no message: something else has written to the socket."""


def send(sock: socket.socket, message: Any, descriptors: tuple[int, ...] = ()) -> None:
    """Send one message, with file descriptors if given; raises `Closed`."""
    body = msgspec.json.encode(message)
    data = _HEAD.pack(len(body)) + body
    try:
        if descriptors:
            sent = socket.send_fds(sock, [data], list(descriptors))
            data = data[sent:]
        sock.sendall(data)
    except OSError as error:
        raise Closed from error


def receive(sock: socket.socket, deadline: float | None = None) -> Any:
    """The next message; raises `Closed` at end of file, `Late` after `deadline` (monotonic seconds), or `Garbled`."""
    (length,) = _HEAD.unpack(_exactly(sock, _HEAD.size, deadline))
    if length > _LONGEST:
        raise Garbled
    try:
        return msgspec.json.decode(_exactly(sock, length, deadline), type=dict[str, Any])
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested without end
        raise Garbled from error


def receive_with_descriptor(sock: socket.socket) -> tuple[Any, int | None]:
    """The next message and the file descriptor that came with it."""
    try:
        data, descriptors, _, _ = socket.recv_fds(sock, _HEAD.size, 1)
    except OSError as error:
        raise Closed from error
    if not data:
        raise Closed
    if len(data) < _HEAD.size:
        data += _exactly(sock, _HEAD.size - len(data), None)
    (length,) = _HEAD.unpack(data)
    body = msgspec.json.decode(_exactly(sock, length, None))
    return body, descriptors[0] if descriptors else None


def wait_readable(sock: socket.socket, seconds: float) -> bool:
    """Whether a message (or the end) is there within `seconds`."""
    poll = select.poll()  # select() cannot take descriptors above 1023
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def _exactly(sock: socket.socket, count: int, deadline: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        if deadline is not None and not wait_readable(sock, deadline - time.monotonic()):
            raise Late
        try:
            part = sock.recv(count - len(parts))
        except OSError as error:
            raise Closed from error
        if not part:
            raise Closed
        parts += part
    return bytes(parts)
