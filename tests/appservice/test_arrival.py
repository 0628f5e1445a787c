"""Arrival times of received bytes."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from conformance.appservice.arrival import ArrivalSocket, KernelClock, kernel_clock


@pytest.fixture
def clock() -> Iterator[KernelClock]:
    clock, note = kernel_clock()
    if clock is None:
        pytest.skip(note)
    yield clock
    clock.close()


def pair(clock: KernelClock | None) -> tuple[socket.socket, ArrivalSocket]:
    """A client's socket and the accepted one."""
    with ArrivalSocket(socket.AF_INET, socket.SOCK_STREAM, clock=clock) as listener:
        listener.stamp()
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client = socket.create_connection(listener.getsockname(), timeout=5)
        served, _ = listener.accept()
    served.settimeout(5)
    return client, served


def test_the_stamp_says_when_data_arrived_and_not_when_it_was_read(clock: KernelClock) -> None:
    client, served = pair(clock)
    with client, served:
        before = time.monotonic()
        client.sendall(b"GET")
        after = time.monotonic()
        time.sleep(0.05)
        assert served.recv(10) == b"GET"
        stamp = served.arrival(0)
        assert stamp.kernel
        assert before - 0.001 <= stamp.seconds <= after + 0.001


def test_data_that_came_before_the_accept_is_stamped_too(clock: KernelClock) -> None:
    with ArrivalSocket(socket.AF_INET, socket.SOCK_STREAM, clock=clock) as listener:
        listener.stamp()
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with socket.create_connection(listener.getsockname(), timeout=5) as client:
            client.sendall(b"x")
            sent = time.monotonic()
            time.sleep(0.05)
            served, _ = listener.accept()
            with served:
                served.settimeout(5)
                served.recv(1)
                assert served.arrival(0).kernel
                assert served.arrival(0).seconds <= sent + 0.001


def test_reading_into_a_buffer_is_stamped_too(clock: KernelClock) -> None:
    client, served = pair(clock)
    with client, served:
        client.sendall(b"abcdef")
        buffer = bytearray(10)
        assert served.recv_into(buffer, 4) == 4
        assert served.recv_into(buffer) == 2
        assert served.seen == 6
        assert served.arrival(5).kernel


def test_each_byte_has_the_time_of_the_call_that_read_it() -> None:
    client, served = pair(None)
    with client, served:
        for data in (b"abc", b"defg"):
            client.sendall(data)
            served.recv(10)
            time.sleep(0.002)
        first, third, fourth = (served.arrival(position) for position in (0, 2, 3))
        assert first == third
        assert third.seconds < fourth.seconds == served.arrival(6).seconds


def test_without_a_clock_the_times_are_this_processs_own() -> None:
    client, served = pair(None)
    with client, served:
        client.sendall(b"x")
        before = time.monotonic()
        served.recv(1)
        stamp = served.arrival(0)
        assert not stamp.kernel
        assert before <= stamp.seconds <= time.monotonic()


def test_unread_bytes_are_noticed_and_left_there() -> None:
    client, served = pair(None)
    with client, served:
        served.setblocking(False)
        assert not served.has_unread()
        client.sendall(b"x")
        deadline = time.monotonic() + 5
        while not served.has_unread():
            assert time.monotonic() < deadline
        assert served.recv(1) == b"x"
        assert not served.has_unread()


def test_a_stamp_is_not_trusted_when_the_wall_clock_was_set(
    clock: KernelClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time_ns
    assert clock.seconds(real()) == pytest.approx(time.monotonic(), abs=1)
    for step in (-3600, 3600):
        monkeypatch.setattr("time.time_ns", lambda step=step: real() + step * 10**9)
        assert clock.seconds(real()) is None
        assert clock.seconds(time.time_ns()) is None, "what is still unread may be of the old time"


def test_where_no_stamps_come_the_results_get_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ArrivalSocket, "stamp", lambda self: None)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    clock, note = kernel_clock()
    assert clock is None
    assert "may be some milliseconds late" in note
    monkeypatch.setattr("sys.platform", "darwin")
    assert kernel_clock()[0] is None
