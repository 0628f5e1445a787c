"""One connection from a homeserver to a fake appservice: requests in, answers and faults out, all of it journalled.

An exchange is DONE with `answer_from` and `answer_until` around the writing of its answer. One that ends without an
answer has no `answer_from`; its `answer_until` is the moment it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable

import h11

from conformance.appservice import messages
from conformance.appservice.arrival import ArrivalSocket
from conformance.appservice.script import Answer, Ending, Fault, Hold, Reply
from conformance.wire.exchange import Direction, Exchange, Headers, Phase
from conformance.wire.journal import Journal

#: Called in the loop's thread with a complete request; must not block.
Responder = Callable[[Exchange], Reply]

GONE = "the homeserver closed the connection before the answer"
INCOMPLETE = "the homeserver closed the connection before its request was complete"
STOPPED = "the suite stopped before the answer"

MAX_HEAD = 64 * 1024
_READ = 64 * 1024
# How much may wait unread while an answer is held. Beyond it the socket is not read, and a disconnect not noticed.
_READ_AHEAD = 1024 * 1024
# Seconds to read on after our FIN: closing with something unread would send RST, which can destroy what we wrote.
_LINGER_S = 2.0


class _Gone(Exception):
    """The peer has closed or reset the connection."""


class _Protocol(asyncio.StreamReaderProtocol):
    """Tells that the peer is gone even when there is unread data; what has been received stays readable."""

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self.gone: asyncio.Future[None] = loop.create_future()

    def eof_received(self) -> bool | None:
        self._leave()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(None)  # with `exc`, the reader would hide what it still has

    def _leave(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


class Connection:
    """Serves one accepted socket; everything here runs in the loop's thread.

    :param closing: asked at every answer whether it is to be the connection's last.
    :param refusing: asked after every answer whether idle connections are unwanted, whatever the answer said.
    :param max_body: bytes of a request's body; a longer one is answered 413.
    """

    def __init__(
        self,
        sock: ArrivalSocket,
        party: str,
        responder: Responder,
        journal: Journal,
        closing: Callable[[], bool],
        refusing: Callable[[], bool],
        max_body: int,
    ) -> None:
        self.sock = sock
        self.party = party
        self.responder = responder
        self.journal = journal
        self.closing = closing
        self.refusing = refusing
        self.max_body = max_body
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._gone: asyncio.Future[None]
        self._taken = 0  # bytes taken from the reader
        self._rest = b""  # those of them that belong to the next request
        self._first = 0  # position of the first byte of the current or next request
        self._end = 0  # position behind the current request
        self._exchange: Exchange | None = None
        self._keep_alive = False
        self._answer_from: float | None = None

    @property
    def idle(self) -> bool:
        """Whether no byte of a request is here that has not been answered."""
        return self.sock.seen == self._first and not self.sock.has_unread()

    def close_if_idle(self) -> None:
        """Close (FIN, at once) unless a request is being received or answered."""
        if self.idle:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)  # run() reads the end of the stream and tidies up

    async def run(self) -> None:
        """Serve requests until one side closes."""
        try:
            await self._open()
            try:
                while await self._serve():
                    pass
            except _Gone:
                self._fail(GONE)
                while await self._receive() is not None:  # pipelined requests are recorded all the same
                    self._fail(GONE)
            await self._linger()
        except asyncio.CancelledError:
            self._fail(STOPPED)
            raise
        except BaseException as error:  # none may be lost, and pytest's outcomes are no Exceptions
            self.journal.fail(error)
            self._fail(f"the suite failed: {error!r}")
        finally:
            self._abort()

    async def turn_away(self) -> None:
        """Close (FIN) without looking at what the peer sends."""
        try:
            await self._open()
            await self._linger()
        finally:
            self._abort()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=_READ_AHEAD, loop=loop)
        protocol = _Protocol(self._reader, loop)
        self._gone = protocol.gone
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, self.sock)
        transport.set_write_buffer_limits(0)  # so that drain() waits until the kernel has everything
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, loop)

    @property
    def _stream(self) -> asyncio.StreamWriter:
        assert self._writer is not None
        return self._writer

    def _abort(self) -> None:
        if self._writer is None:
            self.sock.close()
        else:
            self._writer.transport.abort()

    # ------------------------------------------------------------------ requests

    async def _serve(self) -> bool:
        """Receive and answer one request. Returns whether another may follow."""
        exchange = await self._receive()
        if exchange is None:
            return False
        try:
            reply = self.responder(exchange)
            if isinstance(reply, Fault):
                return await self._misbehave(exchange, reply)
            if not isinstance(reply, Answer):
                raise TypeError(f"a script must return an Answer or a Fault, not {reply!r}")
            return await self._answer(exchange, reply)
        except (_Gone, asyncio.CancelledError):
            raise
        except BaseException as error:
            if self._answer_from is not None:
                raise
            self.journal.fail(error)
            self.journal.update(exchange, notes=(*exchange.notes, f"the suite failed: {error!r}"))
            return await self._answer(exchange, messages.error_answer(500, "the fake appservice failed"))

    async def _receive(self) -> Exchange | None:
        """The next request, complete. None when the peer closes instead, or sends something else (which is recorded
        and answered here).
        """
        self._exchange = self._answer_from = None
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)  # one each: we write by ourselves
        raw = bytearray()  # the head, and what came with it
        body = bytearray()
        data = b"?"
        invited = False
        try:
            while True:
                event = parser.next_event()
                if event is h11.NEED_DATA:
                    if parser.they_are_waiting_for_100_continue and not invited:
                        invited = True
                        await self._write(messages.CONTINUE)
                    data = await self._more(at_start=not raw)
                    if not data and not raw:
                        return None
                    if self._exchange is None:
                        raw += data
                    parser.receive_data(data)
                elif isinstance(event, h11.Request):
                    del raw[len(raw) - len(parser.trailing_data[0]) :]
                    self._begin(event, bytes(raw))
                    if len(raw) > MAX_HEAD:
                        await self._reject(431, f"request head larger than {MAX_HEAD} bytes")
                        return None
                    if messages.content_length(event) > self.max_body:
                        await self._reject(413, f"request body larger than {self.max_body} bytes")
                        return None
                elif isinstance(event, h11.Data):
                    body += event.data
                    if len(body) > self.max_body:
                        await self._reject(413, f"request body larger than {self.max_body} bytes")
                        return None
                elif isinstance(event, h11.EndOfMessage):
                    return self._complete(bytes(body), parser.trailing_data[0])
                else:
                    raise RuntimeError(f"unexpected {event!r} from the parser")
        except (h11.RemoteProtocolError, _Gone) as error:
            if self._exchange is None:
                self._open_exchange(*messages.guess(bytes(raw)), bytes(raw))
            elif body:
                self.journal.update(self._exchange, request_body=bytes(body))
            if isinstance(error, h11.RemoteProtocolError) and data:
                await self._reject(error.error_status_hint, f"malformed request: {error}")
            else:
                self._fail(INCOMPLETE)
            return None

    async def _more(self, at_start: bool) -> bytes:
        """More bytes from the peer; none at the end of the stream."""
        while True:
            if self._rest:
                data, self._rest = self._rest, b""
            else:
                data = await self._reader.read(_READ)
                self._taken += len(data)
            if not at_start or not data:
                return data
            # Empty lines before a request are to be ignored (RFC 9112, 2.2); the parser would object.
            request = data.lstrip(b"\r\n")
            self._first += len(data) - len(request)
            if request:
                return request

    def _begin(self, request: h11.Request, raw: bytes) -> None:
        method, target = request.method.decode("ascii"), request.target.decode("ascii")
        self._open_exchange(method, target, messages.headers_of(request), raw)
        self._keep_alive = messages.keeps_alive(request)

    def _open_exchange(self, method: str, target: str, headers: Headers, raw: bytes) -> None:
        arrival = self.sock.arrival(self._first)
        self._exchange = self.journal.open(
            Direction.TO_APPSERVICE,
            self.party,
            method,
            target,
            headers,
            started=arrival.seconds,
            kernel_stamp=arrival.kernel,
            raw_head=raw,
        )

    def _complete(self, body: bytes, rest: bytes) -> Exchange:
        assert self._exchange is not None
        self._rest = rest
        self._end = self._taken - len(rest)
        received = self.sock.arrival(self._end - 1).seconds
        self.journal.update(self._exchange, request_body=body, received=received, phase=Phase.PENDING)
        return self._exchange

    async def _reject(self, status: int, failure: str) -> None:
        assert self._exchange is not None
        self.journal.update(self._exchange, failure=failure)
        self._keep_alive = False
        with contextlib.suppress(_Gone):
            await self._answer(self._exchange, messages.error_answer(status, failure))
            return
        self._fail(failure)

    # ------------------------------------------------------------------ answers

    async def _answer(self, exchange: Exchange, reply: Answer) -> bool:
        if reply.delay > 0:
            await self._pause(reply.delay)
        if reply.hold is not None:
            await self._hold(reply.hold)
        close = reply.close or not self._keep_alive or self.closing()
        headers, body, data = messages.response(reply, exchange.method, close)
        self._answer_from = time.monotonic()
        await self._write(data)
        self._first = self._end
        self.journal.update(
            exchange,
            status=reply.status,
            response_headers=headers,
            response_body=body,
            answer_from=self._answer_from,
            answer_until=time.monotonic(),
            phase=Phase.DONE,
        )
        return not (close or self.refusing())

    async def _misbehave(self, exchange: Exchange, fault: Fault) -> bool:
        self.journal.update(exchange, notes=(*exchange.notes, f"fault: {fault.name}"))
        sent = bytearray()
        seen = messages.Understood()
        try:
            for step in fault.steps:
                if isinstance(step, bytes):
                    self._answer_from = self._answer_from or time.monotonic()
                    await self._write(step)
                    sent += step
                else:
                    await self._pause(step)
        finally:  # however it went on: this much was said
            seen = messages.understand(bytes(sent), exchange.method, closed=fault.ending is Ending.FIN)
            self.journal.update(exchange, status=seen.status, response_headers=seen.headers, response_body=seen.body)
        if fault.ending is Ending.SILENCE:
            if seen.complete:
                self._done(failure=None)
            await self._pause(None)
        self._answer_from = self._answer_from or time.monotonic()
        await self._end_by(fault.ending)
        ending = "reset" if fault.ending is Ending.RST else "closed"
        lack = "before the answer was complete" if sent else "without an answer"
        self._done(failure=None if seen.complete else f"connection {ending} {lack}")
        return False

    async def _end_by(self, ending: Ending) -> None:
        with contextlib.suppress(OSError):  # the peer may have been faster
            if ending is Ending.FIN:
                self._stream.write_eof()
                return
            # Without this, abort() sends FIN or RST, depending on whether there is unread data.
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._stream.transport.abort()
        await self._stream.wait_closed()

    async def _linger(self) -> None:
        """Close with FIN: say so, then let the peer close."""
        if self._stream.is_closing():
            return
        await self._end_by(Ending.FIN)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while await self._reader.read(_READ):
                    pass

    async def _write(self, data: bytes) -> None:
        """Hand bytes to the kernel, in one call if it takes them all.

        :raises _Gone: the peer has closed the connection.
        """
        self._stream.write(data)
        try:
            await self._stream.drain()
        except ConnectionError as error:
            raise _Gone from error
        if self._stream.is_closing():
            raise _Gone

    async def _pause(self, seconds: float | None, until: asyncio.Future[None] | None = None) -> None:
        """Wait for a time (None: for ever) or for a future.

        :raises _Gone: the peer has closed the connection meanwhile.
        """
        waited_for = {self._gone} if until is None else {self._gone, until}
        await asyncio.wait(waited_for, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._gone.done():
            raise _Gone

    async def _hold(self, hold: Hold) -> None:
        loop = asyncio.get_running_loop()
        released: asyncio.Future[None] = loop.create_future()

        def let_go() -> None:
            if not released.done():
                released.set_result(None)

        def on_release() -> None:
            with contextlib.suppress(RuntimeError):  # released when the loop has been closed
                loop.call_soon_threadsafe(let_go)

        hold.on_release(on_release)
        await self._pause(hold.limit, released)

    def _fail(self, failure: str) -> None:
        """End the current exchange, if it has not ended yet."""
        if self._exchange is not None and self._exchange.phase is not Phase.DONE:
            self._done(failure)

    def _done(self, failure: str | None) -> None:
        assert self._exchange is not None
        self.journal.update(
            self._exchange,
            failure=failure,
            answer_from=self._answer_from,
            answer_until=time.monotonic(),
            phase=Phase.DONE,
        )
