"""The HTTP side of the fleet: every listener in one asyncio loop in one daemon thread.

The loop must be asyncio's own selector loop: the arrival times hang on the socket class it reads from.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from conformance.appservice.arrival import ArrivalSocket, KernelClock, kernel_clock
from conformance.appservice.connection import Connection, Responder
from conformance.appservice.script import Ending
from conformance.wire.journal import HarnessFailure, Journal

__all__ = ["Endpoint", "Listener", "Responder"]

T = TypeVar("T")

_BACKLOG = 1024  # with less, simultaneous connects are delayed by a second
_PATIENCE_S = 5.0
# Below the ports that kernels give to clients, where nobody takes a port while it is refused.
_PORTS = range(20000, 32768)


class Listener:
    """One appservice's port. The switches take effect at the next answer or connection, from any thread."""

    def __init__(self, endpoint: Endpoint, party: str, host: str, sock: ArrivalSocket, responder: Responder) -> None:
        #: Whose exchanges these are: the `party` in the journal.
        self.party = party
        self.host = host
        self.port: int = sock.getsockname()[1]
        #: Every answer says `Connection: close`, and the connection is closed after it.
        self.close_each = False
        #: What happens to a new connection before anything is read from it: FIN closes, RST resets, None serves it.
        self.on_connect: Ending | None = None
        #: When connections were ended by `on_connect` (monotonic seconds): the journal has exchanges only.
        self.turned_away: list[float] = []
        self._endpoint = endpoint
        self._responder = responder
        self._sock = sock
        self._refusing = False
        self._connections: dict[Connection, asyncio.Task[None]] = {}  # the loop itself does not keep tasks alive

    def refuse(self) -> None:
        """Have connects refused; the port stays ours. When this returns they are, and idle connections are closed.

        Requests that have begun to arrive are answered, then their connections are closed too.
        """
        self._endpoint._call(self._refuse)

    def accept(self) -> None:
        """Undo :meth:`refuse`.

        :raises OSError: another process has taken the port.
        """
        self._endpoint._call(self._accept)

    def close_idle(self) -> None:
        """Close the connections on which no request is being received or answered."""
        self._endpoint._call(self._close_idle)

    # ------------------------------------------------------------------ in the loop's thread

    def _refuse(self) -> None:
        if self._refusing:
            return
        self._refusing = True
        self._serve_waiting()  # who has connected before is not refused
        # A reader that is left there makes the loop spin on the hang-up.
        self._endpoint._loop.remove_reader(self._sock)
        if sys.platform == "linux":
            self._sock.shutdown(socket.SHUT_RDWR)
        else:
            self._sock.close()
        self._close_idle()

    def _accept(self) -> None:
        if not self._refusing:
            return
        if sys.platform == "linux":
            self._sock.listen(_BACKLOG)
        else:
            self._sock = _listening(self.host, self.port, self._endpoint._clock)
        self._refusing = False
        self._watch()

    def _watch(self) -> None:
        if not self._refusing and not self._endpoint._stopping:
            self._endpoint._loop.add_reader(self._sock, self._serve_waiting)

    def _close_idle(self) -> None:
        for connection in list(self._connections):
            connection.close_if_idle()

    def _close(self) -> list[tuple[Connection, asyncio.Task[None]]]:
        if self._sock.fileno() >= 0:
            self._endpoint._loop.remove_reader(self._sock)
            self._sock.close()
        return list(self._connections.items())

    def _serve_waiting(self) -> None:
        """Take the connections that the kernel has ready."""
        for _ in range(_BACKLOG):
            try:
                sock, _address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no file descriptors left: it would be tried again at once, and again
                self._endpoint._journal.fail(error)
                self._endpoint._loop.remove_reader(self._sock)
                self._endpoint._loop.call_later(1.0, self._watch)
                return
            sock.setblocking(False)
            self._welcome(sock)

    def _welcome(self, sock: ArrivalSocket) -> None:
        ending = self.on_connect
        if ending is not None:
            self.turned_away.append(time.monotonic())
        if ending is Ending.RST:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
            return
        endpoint = self._endpoint
        connection = Connection(
            sock=sock,
            party=self.party,
            responder=self._responder,
            journal=endpoint._journal,
            closing=lambda: self.close_each or self._refusing,
            refusing=lambda: self._refusing,
            max_body=endpoint.max_body,
        )
        served = connection.turn_away() if ending is Ending.FIN else connection.run()
        task = endpoint._loop.create_task(served)
        self._connections[connection] = task
        task.add_done_callback(lambda task: self._left(connection, task))

    def _left(self, connection: Connection, task: asyncio.Task[None]) -> None:
        del self._connections[connection]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._endpoint._journal.fail(error)


class Endpoint:
    """All listeners of a fleet. Everything that is said goes to the journal, as do the exceptions of responders
    (:meth:`Journal.fail`). Used once: start, listen, stop.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._loop: asyncio.SelectorEventLoop
        self._thread = threading.Thread(target=self._run, name="appservice fleet", daemon=True)
        self._listeners: list[Listener] = []
        self._stopping = False
        self._clock: KernelClock | None = None
        #: Whether arrival times are the kernel's. When they are not, `stamp_note` says so in one sentence.
        self.kernel_stamps = False
        self.stamp_note = ""
        #: Bytes of a request's body that are accepted; a longer one is answered 413.
        self.max_body = 64 * 1024 * 1024

    def __enter__(self) -> Endpoint:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Find out about the kernel's time stamps and start the thread."""
        self._clock, self.stamp_note = kernel_clock()
        self.kernel_stamps = self._clock is not None
        self._loop = asyncio.SelectorEventLoop()
        self._loop.set_exception_handler(self._unhandled)
        self._thread.start()

    def listen(self, party: str, host: str, port: int, responder: Responder) -> Listener:
        """Serve an address; port 0 chooses a free one.

        :param responder: called in the loop's thread with each complete request; must not block.
        :raises OSError: the address cannot be had.
        """
        sock = _listening(host, port, self._clock) if port else _listening_somewhere(host, self._clock)
        listener = Listener(self, party, host, sock, responder)

        def add() -> None:
            self._listeners.append(listener)
            listener._watch()

        try:
            self._call(add)
        except BaseException:
            sock.close()
            raise
        return listener

    def stop(self) -> None:
        """Close everything and end the thread, within seconds. Held answers are not sent: their exchanges end with a
        failure that says so.
        """
        if self._stopping:
            return
        self._stopping = True
        if self._thread.ident is None:  # never started
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_S)
        if self._thread.is_alive():
            self._journal.fail(HarnessFailure("the fleet's thread cannot be stopped: does a script block?"))
        if self._clock is not None:
            self._clock.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._close())
        except BaseException as error:
            self._journal.fail(error)
        finally:
            self._loop.close()

    async def _close(self) -> None:
        open_connections = [pair for listener in self._listeners for pair in listener._close()]
        for _, task in open_connections:
            task.cancel()
        await asyncio.gather(*(task for _, task in open_connections), return_exceptions=True)
        await asyncio.sleep(0)  # transports close their sockets one turn later
        for connection, _ in open_connections:
            connection.sock.close()  # a task that never began has not

    def _call(self, function: Callable[[], T]) -> T:
        """Run a function in the loop's thread and wait for it.

        :raises HarnessFailure: the thread does not respond.
        :raises RuntimeError: before the start or after the stop.
        """
        if threading.get_ident() == self._thread.ident:  # a responder, say
            return function()
        if self._stopping or not self._thread.is_alive():
            raise RuntimeError("the endpoint is not running")
        done: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        try:
            return done.result(_PATIENCE_S)
        except concurrent.futures.TimeoutError:
            raise HarnessFailure("the fleet's thread does not respond: does a script block?") from None

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._journal.fail(context.get("exception") or RuntimeError(context["message"]))


def _listening(host: str, port: int, clock: KernelClock | None) -> ArrivalSocket:
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    sock = ArrivalSocket(family, kind, proto, clock=clock)
    try:
        sock.stamp()
        # Connections of a former run may still be in TIME_WAIT, and those of now outlive a refusal.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)  # by number: only then does the port stay bound while it is refused
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _listening_somewhere(host: str, clock: KernelClock | None) -> ArrivalSocket:
    family, kind, proto, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    candidates = [*random.SystemRandom().sample(_PORTS, 50), 0]  # pytest plugins may seed the common generator
    for candidate in candidates:
        try:
            # Without SO_REUSEADDR this also fails when somebody's port is bound and just refused.
            with socket.socket(family, kind, proto) as probe:
                probe.bind((address[0], candidate))
                free: int = probe.getsockname()[1]
            return _listening(host, free, clock)
        except OSError:
            if candidate == 0:
                raise
    raise AssertionError("not reached")
