"""Requests to appservices: where they go, what they carry, and what counts as an answer (AS: Homeserver -> AS API)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

from conformance.appservice.registration import Registration
from conformance.reference.policy import Policy
from conformance.reference.store import JsonObject

#: Seconds, before scaling, that a connection may take to be made.
_CONNECT_WITHIN = 10.0


class To(StrEnum):
    """What a request is about."""

    TRANSACTION = "transaction"
    USER = "user"
    ALIAS = "alias"
    PROTOCOL = "protocol"
    THIRD_PARTY_USER = "thirdparty/user"
    THIRD_PARTY_LOCATION = "thirdparty/location"
    PING = "ping"


class NoResponse(Exception):
    """An appservice did not answer: nothing listens, the connection was cut, or (`timed_out`) nothing came in time."""

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


@dataclass(frozen=True)
class Reply:
    """What an appservice answered."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it is a success."""
        return 200 <= self.status < 300

    @property
    def json(self) -> Any:
        """The body's JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Outgoing(Policy):
    """How an appservice is called."""

    #: Seconds, before scaling, that an appservice may take to answer.
    patience: dict[To, float] = {
        To.TRANSACTION: 60.0,
        To.USER: 20.0,
        To.ALIAS: 20.0,
        To.PING: 30.0,
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._pool = urllib3.PoolManager(num_pools=64, maxsize=8, retries=False)

    def ask(
        self,
        appservice: Registration,
        about: To,
        method: str,
        path: str,
        *,
        legacy: str | None = None,
        query: dict[str, str] | None = None,
        body: JsonObject | None = None,
    ) -> Reply:
        """Call an appservice; where the present route is no success, call the legacy one (AS: Legacy routes).

        :param path: below ``/_matrix/app/v1``, percent-encoded.
        :param legacy: the whole legacy path; None where there is none.
        :raises NoResponse: no answer; that says nothing about routes, so that no other one is tried.
        """
        first = self.once(appservice, about, method, f"/_matrix/app/v1{path}", query, body)
        if legacy is None or not self.falls_back(about, first):
            return first
        return self.once(appservice, about, method, legacy, query, body)

    def falls_back(self, about: To, reply: Reply) -> bool:
        """Whether an answer on the present route makes the legacy route be tried."""
        return not reply.ok

    def once(
        self,
        appservice: Registration,
        about: To,
        method: str,
        path: str,
        query: dict[str, str] | None,
        body: JsonObject | None,
    ) -> Reply:
        """One request.

        :raises NoResponse: no answer.
        """
        parameters = urlencode({**(query or {}), **self.query(appservice, about)}, quote_via=quote)
        url = self.url(appservice, path) + (f"?{parameters}" if parameters else "")
        headers = self.headers(appservice, about)
        data = None if body is None else self.encoded(body)
        if data is not None:
            headers["Content-Type"] = self.content_type()
        wait = self.hs.clock.scaled(self.patience.get(about, 30.0))
        timeout = urllib3.Timeout(connect=min(wait, self.hs.clock.scaled(_CONNECT_WITHIN)), read=wait)
        return self.transported(method, url, headers, data, timeout)

    def transported(
        self, method: str, url: str, headers: dict[str, str], data: bytes | None, timeout: urllib3.Timeout
    ) -> Reply:
        """Over the wire; redirects are answers like any other and not followed."""
        try:
            reply = self._pool.request(
                method,
                url,
                headers=headers,
                body=data,
                timeout=timeout,
                redirect=False,
                retries=False,
                preload_content=False,
            )
            content = self.rest(reply)
        except urllib3.exceptions.NewConnectionError as error:  # to urllib3 that is a kind of time-out
            raise NoResponse("the connection was refused") from error
        except (urllib3.exceptions.ReadTimeoutError, urllib3.exceptions.ConnectTimeoutError) as error:
            raise NoResponse("no answer in time", timed_out=True) from error
        except urllib3.exceptions.HTTPError as error:
            raise NoResponse(f"no answer: {type(error).__name__}") from error
        return Reply(reply.status, content)

    def rest(self, reply: urllib3.BaseHTTPResponse) -> bytes:
        """The body of an answer whose head is here; the appservice has no more time for it than for the head."""
        content = reply.read()
        reply.release_conn()
        return content

    def url(self, appservice: Registration, path: str) -> str:
        """Below the registered url, whose own path is kept (AS: Registration)."""
        return (appservice.url or "").rstrip("/") + path

    def headers(self, appservice: Registration, about: To) -> dict[str, str]:
        """The appservice's `hs_token` in the header (AS: Authorization, since v1.4)."""
        return {"Authorization": f"Bearer {self.token(appservice)}"}

    def token(self, appservice: Registration) -> str:
        """What the homeserver shows to an appservice."""
        return appservice.hs_token

    def query(self, appservice: Registration, about: To) -> dict[str, str]:
        """Nothing: the `access_token` parameter ended with v1.4."""
        return {}

    def encoded(self, body: JsonObject) -> bytes:
        """A body as JSON in UTF-8."""
        return json.dumps(body, ensure_ascii=False).encode()

    def content_type(self) -> str:
        """What a body is declared as."""
        return "application/json"

    def segment(self, text: str) -> str:
        """A text as one path segment, slashes encoded like everything else."""
        return quote(text, safe="")
