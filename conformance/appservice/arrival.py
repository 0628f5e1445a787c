"""When bytes arrived: the kernel's time stamps of received data, as seconds of the monotonic clock.

A time taken in this process is wrong by CPython's switch interval (5 ms) as soon as a test computes beside the fleet;
the kernel's is right within some ten microseconds, whatever this process does. Linux only; elsewhere, and where the
self-test fails, arrival times are this process's own.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: `SO_TIMESTAMPNS` and the type of its control messages; the socket module of Python 3.11 has no name for it.
SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_CONTROL_BYTES = 64
_REFRESH_NS = 5_000_000_000
_STEP_NS = 1_000_000  # the two clocks drift together, so a larger change means that somebody set the wall clock
_DISTRUST_NS = 1_000_000_000
_TOLERANCE_S = 0.001


@dataclass(frozen=True, slots=True)
class Arrival:
    """When some bytes arrived, in seconds of the monotonic clock, and whether the kernel says so or this process."""

    seconds: float
    kernel: bool


class KernelClock:
    """Turns the kernel's time stamps, which are wall-clock time, into seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._offset = 0
        self._measured = 0
        self._distrusted_until = 0
        self._measure()
        # The kernel stamps while at least one socket asks for it, and takes a moment to begin: have one all the time.
        self._keeper = socket.socket()
        self._keeper.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def close(self) -> None:
        """Give up the socket that keeps the kernel stamping."""
        self._keeper.close()

    def _measure(self) -> None:
        best = None
        for _ in range(20):  # the pair of readings that was interrupted least
            before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
            if best is None or after - before < best:
                best = after - before
                self._offset = wall - (before + after) // 2
        self._measured = time.monotonic_ns()

    def seconds(self, stamp: int) -> float | None:
        """The moment of a stamp (nanoseconds of CLOCK_REALTIME) in seconds of the monotonic clock.

        None when the stamp cannot be trusted: the wall clock has just been set.
        """
        now = time.monotonic_ns()
        if now - self._measured > _REFRESH_NS or abs(time.time_ns() - now - self._offset) > _STEP_NS:
            former = self._offset
            self._measure()
            if abs(self._offset - former) > _STEP_NS:
                # What is still to be read may have been stamped by the old time.
                self._distrusted_until = now + _DISTRUST_NS
        moment = stamp - self._offset
        if now < self._distrusted_until or moment > now + _STEP_NS:
            return None
        return moment / 1e9


class ArrivalSocket(socket.socket):
    """A socket that remembers when each received byte arrived; what it accepts is of the same kind.

    Data read by one call has one time: that of the last segment read. The kernel also merges segments that nobody has
    read yet, a FIN included: when a peer sends and closes before we read, the time is that of its closing.
    """

    def __init__(
        self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None, *, clock: KernelClock | None
    ) -> None:
        super().__init__(family, type, proto, fileno)
        self._clock = clock
        #: Bytes received so far.
        self.seen = 0
        self._marks: deque[tuple[int, Arrival]] = deque()  # up to which byte, when

    def stamp(self) -> None:
        """Ask the kernel for time stamps, here and on every connection accepted here (if there is a clock for them)."""
        if self._clock is not None:
            self.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def accept(self) -> tuple[ArrivalSocket, Any]:
        """As :meth:`socket.socket.accept`."""
        plain, address = super().accept()
        return ArrivalSocket(self.family, self.type, self.proto, plain.detach(), clock=self._clock), address

    # asyncio's streams call recv(), its buffered protocols recv_into().
    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """As :meth:`socket.socket.recv`."""
        data, control, _, _ = self.recvmsg(bufsize, _CONTROL_BYTES, flags)
        self._mark(len(data), control)
        return data

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0, /) -> int:
        """As :meth:`socket.socket.recv_into`."""
        view = memoryview(buffer).cast("B")
        received, control, _, _ = self.recvmsg_into([view[:nbytes] if nbytes else view], _CONTROL_BYTES, flags)
        self._mark(received, control)
        return received

    def _mark(self, received: int, control: Iterable[tuple[int, int, bytes]]) -> None:
        if not received:
            return
        moment = None
        if self._clock is not None:
            for level, kind, data in control:
                if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
                    seconds, nanoseconds = _TIMESPEC.unpack_from(data)
                    moment = self._clock.seconds(seconds * 1_000_000_000 + nanoseconds)
        arrival = Arrival(time.monotonic(), False) if moment is None else Arrival(moment, True)
        self.seen += received
        self._marks.append((self.seen, arrival))

    def arrival(self, position: int) -> Arrival:
        """When the byte at a position arrived (0 is the connection's first). Ask in ascending order only."""
        while self._marks and self._marks[0][0] <= position:
            self._marks.popleft()
        return self._marks[0][1] if self._marks else Arrival(time.monotonic(), False)

    def has_unread(self) -> bool:
        """Whether the kernel has bytes that nobody has read. For sockets that do not block."""
        try:
            return bool(super().recv(1, socket.MSG_PEEK))
        except OSError:  # nothing there, or no connection any more
            return False


def kernel_clock() -> tuple[KernelClock | None, str]:
    """A clock for the kernel's time stamps when a self-test on the loopback interface shows that they come and are
    right, else None and one sentence about it for the results.
    """
    if sys.platform != "linux":
        return None, _note("only Linux stamps what it receives")
    try:
        clock = KernelClock()
    except OSError as error:
        return None, _note(str(error))
    try:
        works = _works(clock)
        problem = "no right stamp came with data sent over 127.0.0.1"
    except OSError as error:
        works, problem = False, str(error)
    if works:
        return clock, ""
    clock.close()
    return None, _note(problem)


def _note(problem: str) -> str:
    return (
        "Arrival times were taken by the test process and may be some milliseconds late: "
        f"the kernel's time stamps cannot be had ({problem})."
    )


def _works(clock: KernelClock) -> bool:
    with ArrivalSocket(socket.AF_INET, socket.SOCK_STREAM, clock=clock) as listener:
        listener.stamp()
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with socket.create_connection(listener.getsockname(), timeout=1.0) as client:
            served, _ = listener.accept()
            with served:
                served.settimeout(1.0)
                for position in range(20):  # the first stamps may be missing, see KernelClock
                    before = time.monotonic()
                    client.sendall(b"?")
                    served.recv(1)
                    arrival = served.arrival(position)
                    if arrival.kernel:
                        return before - _TOLERANCE_S <= arrival.seconds <= time.monotonic() + _TOLERANCE_S
                    time.sleep(0.01)
    return False
