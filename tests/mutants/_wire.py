"""Where several mutants interfere: Synapse's requests to appservices, and the events in them."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment"

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Request:
    """A request to an appservice before it is sent; `headers` are Twisted's."""

    method: str
    uri: str
    data: bytes | None
    headers: Any


def requests(change: Callable[[Request], None]) -> None:
    """Change every request to an appservice."""
    from synapse.appservice.api import ApplicationServiceApi
    from twisted.web.http_headers import Headers

    plain = ApplicationServiceApi.request

    async def request(self, method, uri, data=None, headers=None):
        changed = Request(method, uri, data, headers or Headers())
        change(changed)
        return await plain(self, changed.method, changed.uri, changed.data, changed.headers)

    ApplicationServiceApi.request = request


def events(change: Callable[[Any, dict[str, Any]], None]) -> None:
    """Change every event that is pushed: Synapse's own, and what it makes of it for appservices."""
    from synapse.appservice.api import ApplicationServiceApi

    plain = ApplicationServiceApi._serialize

    async def serialize(self, service, pushed):
        pushed = list(pushed)
        serialized = [dict(each) for each in await plain(self, service, pushed)]
        for event, each in zip(pushed, serialized, strict=True):
            change(event, each)
        return serialized

    ApplicationServiceApi._serialize = serialize
