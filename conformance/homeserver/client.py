"""The client-server client: every call is an exchange in the journal.

Two tiers, so that the right requirement is blamed. :meth:`Client.call` returns whatever the homeserver answers; checks
use it for what they judge. The verbs of :mod:`conformance.homeserver.users` are set-up: they raise
:class:`~conformance.verdict.Inconclusive` when the homeserver does not do as asked.
"""

from __future__ import annotations

import json as jsonlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import requests
import urllib3

from conformance import dialects
from conformance.dialects import MODERN, Dialect
from conformance.verdict import Inconclusive
from conformance.wire.exchange import Direction, Exchange, Headers, NotJson, Phase
from conformance.wire.journal import Journal

#: How long one call may take before it counts as unanswered, in seconds (the catalogue's 30 s).
ANSWER_WITHIN = 30.0

#: How long rate limits are honoured for one call before its 429 is returned, in seconds.
PATIENCE_WITH_LIMITS = 60.0

#: Seconds after which pooled connections are not used again; homeservers keep idle ones for five or more.
IDLE_CONNECTIONS = 2.0

#: Bytes after which an answer is given up.
ANSWER_CAP = 64 * 1024 * 1024

#: The client-server API's present version.
CLIENT = dialects.CLIENT

_WHOAMI = f"{CLIENT}/account/whoami"


class NoAnswer(Exception):
    """The homeserver did not answer a call: time-out, refused or cut connection, or no HTTP."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(f"{exchange.method} {exchange.raw_path}: {exchange.failure}")
        self.exchange = exchange


@dataclass(frozen=True)
class Response:
    """The homeserver's answer to a call."""

    exchange: Exchange

    @property
    def status(self) -> int:
        """The HTTP status."""
        assert self.exchange.status is not None
        return self.exchange.status

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """Whether the status is 4xx."""
        return 400 <= self.status < 500

    @property
    def json(self) -> dict[str, Any]:
        """The body when it is a JSON object, else an empty one."""
        try:
            body = self.exchange.response_json
        except NotJson:
            return {}
        return body if isinstance(body, dict) else {}

    @property
    def value(self) -> Any:
        """The parsed body whatever it is; None when it is not JSON."""
        try:
            return self.exchange.response_json
        except NotJson:
            return None

    @property
    def errcode(self) -> str | None:
        """The Matrix error code, if there is one."""
        code = self.json.get("errcode")
        return code if isinstance(code, str) else None

    @property
    def date(self) -> str | None:
        """The Date header."""
        return next(iter(self.exchange.response_header("Date")), None)

    def __str__(self) -> str:
        """Status and error code, for messages."""
        return f"{self.status} {self.errcode}" if self.errcode else str(self.status)


@dataclass(frozen=True)
class CreatorOf(Response):
    """Whoami where there is none: a room was made, and its creator is who called."""

    user_id: str

    @property
    def json(self) -> dict[str, Any]:
        """What whoami would have answered."""
        return {"user_id": self.user_id}


#: The target of the call that a thread is making.
_calling = threading.local()


class _Verbatim:
    """Puts the target on the request line as a check wrote it: urllib3 writes %3a as %3A."""

    def putrequest(self, method: str, url: str, *args: Any, **options: Any) -> None:
        target = getattr(_calling, "target", "")
        printable = target.isascii() and target.isprintable() and " " not in target
        super().putrequest(method, target if target and printable else url, *args, **options)  # type: ignore[misc]


class _Connection(_Verbatim, urllib3.connection.HTTPConnection):
    pass


class _TlsConnection(_Verbatim, urllib3.connection.HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


class Client:
    """Calls to one homeserver over one pool of connections."""

    def __init__(self, base_url: str, journal: Journal, dialect: Dialect = MODERN) -> None:
        self.base_url = base_url.rstrip("/")
        self.journal = journal
        #: How the homeserver speaks. Paths are given as they are today, and sent as it has them.
        self.dialect = dialect
        #: The path under which the homeserver lives; part of every request target.
        self._prefix = urlsplit(self.base_url).path
        self._session = requests.Session()
        self._used = 0.0
        self._lock = threading.Lock()
        # Proxies, .netrc and the like of this machine are not part of a conformance run.
        self._session.trust_env = False
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(pool_maxsize=32))

    def close(self) -> None:
        """Drop the pooled connections; they die with the target."""
        self._session.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        party: str,
        token: str | None = None,
        query: Mapping[str, str] | str | None = None,
        json: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = ANSWER_WITHIN,
        obey_limits: bool = True,
    ) -> Response:
        """One call; a 429 is waited out and the call repeated, as it tells, unless `obey_limits` is false.

        :param path: already percent-encoded (see :func:`segment`).
        :param query: parameters to encode, or a query string to send as it is.
        :param timeout: seconds until the answer must be complete.
        :raises NoAnswer: there was no answer.
        :raises Inconclusive: there is a limit that cannot be waited out in 60 s.
        """
        if path == _WHOAMI and not self.dialect.has_whoami:
            return self._who_creates(party=party, token=token, query=query, headers=headers, timeout=timeout)
        patience = time.monotonic() + PATIENCE_WITH_LIMITS
        while True:
            response = self._once(method, path, party, token, query, json, data, headers, timeout)
            if response.status != 429 or not obey_limits:
                return response
            wait = _told_to_wait(response)
            if time.monotonic() + wait > patience:
                # Never the answer that is being judged, nor the refusal that is being looked for.
                reason = f"the homeserver limits the rate of {method} {path}, for {wait:.0f} s now: raise its limits"
                raise Inconclusive(reason, response.exchange)
            time.sleep(wait)

    def _who_creates(self, **options: Any) -> Response:
        """Who calls, on a homeserver without whoami; what creating a room is answered when that is refused."""
        created = self.call("POST", f"{CLIENT}/createRoom", json={}, **options)
        room = created.json.get("room_id")
        if not created.ok or not isinstance(room, str):
            return created
        told = self.call("GET", f"{CLIENT}/rooms/{segment(room)}/state", **options)
        events = [each for each in told.value if isinstance(each, dict)] if isinstance(told.value, list) else []
        creators = [self.dialect.seen(each).get("sender") for each in events if each.get("type") == "m.room.create"]
        return CreatorOf(created.exchange, creators[0]) if creators and isinstance(creators[0], str) else told

    def _once(
        self,
        method: str,
        path: str,
        party: str,
        token: str | None,
        query: Mapping[str, str] | str | None,
        json: Any,
        data: bytes | None,
        headers: Mapping[str, str] | None,
        timeout: float,
    ) -> Response:
        sent = dict(headers or {})
        if token is not None and not self.dialect.token_in_query:
            sent["Authorization"] = f"Bearer {token}"
        body = data
        if json is not None:
            body = jsonlib.dumps(json, ensure_ascii=False).encode()
            sent.setdefault("Content-Type", "application/json")
        search = query if isinstance(query, str) else urlencode(query or {})
        if token is not None and self.dialect.token_in_query:
            search = "&".join(filter(None, (urlencode({"access_token": token}), search)))
        path = self.dialect.placed(path)
        target = f"{path}?{search}" if search else path
        exchange = self.journal.open(
            Direction.TO_HOMESERVER, party, method, self._prefix + target, tuple(sent.items()), request_body=body or b""
        )
        try:
            status, received, content = self._exchange(method, target, sent, body, timeout)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            self.journal.update(
                exchange, phase=Phase.DONE, failure=_in_words(error, timeout), answer_until=time.monotonic()
            )
            raise NoAnswer(exchange) from error
        now = time.monotonic()
        self.journal.update(
            exchange,
            phase=Phase.DONE,
            received=exchange.started,
            status=status,
            response_headers=received,
            response_body=content,
            answer_from=now,
            answer_until=now,
        )
        return Response(exchange)

    def _exchange(
        self, method: str, target: str, headers: dict[str, str], body: bytes | None, timeout: float
    ) -> tuple[int, Headers, bytes]:
        self._drop_idle_connections()
        deadline = time.monotonic() + timeout
        prepared = self._session.prepare_request(requests.Request(method, self.base_url + "/", headers, data=body))
        # requests would otherwise normalise what a check wrote on purpose.
        prepared.url = self.base_url + target
        pause = (min(timeout, 10.0), timeout)
        _calling.target = self._prefix + target
        with self._session.send(prepared, timeout=pause, allow_redirects=False, stream=True) as answer:
            # The library's time-outs are between two bytes; a trickling answer needs a deadline of its own.
            content = bytearray()
            for piece in _pieces(answer):
                content += piece
                if time.monotonic() > deadline or len(content) > ANSWER_CAP:
                    raise requests.Timeout
            return answer.status_code, tuple(answer.headers.items()), bytes(content)

    def _drop_idle_connections(self) -> None:
        """Forget connections the homeserver may be closing at this moment: that would look like an unanswered call."""
        with self._lock:
            now = time.monotonic()
            if now - self._used > IDLE_CONNECTIONS:
                self._session.close()
            self._used = now


def _pieces(answer: requests.Response) -> Iterator[bytes]:
    """The body as it arrives, decoded; a plain read would wait until a whole block is there."""
    read = getattr(answer.raw, "read1", None)
    if read is None:  # an urllib3 before 2.2: a trickling answer is noticed when it ends
        yield from answer.iter_content(65536)
        return
    while piece := read(65536, decode_content=True):
        yield piece


def segment(text: str) -> str:
    """A text as one percent-encoded path segment."""
    return quote(text, safe="")


def _told_to_wait(response: Response) -> float:
    """Seconds that a 429 asks for (`retry_after_ms`, or Retry-After), at least 50 ms."""
    told = response.json.get("retry_after_ms")
    if isinstance(told, int | float) and told >= 0:  # not so: NaN, which Python's JSON knows
        return max(told / 1000, 0.05)
    header = next(iter(response.exchange.response_header("Retry-After")), "")
    return float(header) if header.isascii() and header.isdigit() else 0.5


def _in_words(error: Exception, timeout: float) -> str:
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return f"no answer within {timeout:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return "the TLS handshake failed"
    if isinstance(error, requests.ConnectionError):
        text = str(error)
        if "refused" in text:
            return "the connection was refused"
        if "Name or service" in text or "resolve" in text:
            return "the host name does not resolve"
        if "BadStatusLine" in text:
            return "no valid HTTP answer (its first line is no status line)"
        return "the connection was closed without an answer"
    return f"no valid HTTP answer ({type(error).__name__})"
