"""The requests a homeserver makes to an appservice (AS: Pushing events, Querying, Pinging, Third-party networks)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote

from conformance.wire.exchange import Exchange


class Kind(StrEnum):
    """What is asked of the appservice."""

    TRANSACTION = "transaction"
    USER = "user query"
    ALIAS = "alias query"
    PING = "ping"
    PROTOCOL = "protocol metadata"
    THIRDPARTY_USERS = "third-party users"
    THIRDPARTY_LOCATIONS = "third-party locations"
    REVERSE_USER = "reverse user look-up"
    REVERSE_LOCATION = "reverse location look-up"
    UNKNOWN = "unknown route"


@dataclass(frozen=True)
class Route:
    """A request target taken apart."""

    kind: Kind
    #: Whether it is of the routes before r0.1.0 (AS: Legacy routes).
    legacy: bool = False
    #: The last path segment, decoded: transaction ID, user ID, alias or protocol. Empty for a ping or reverse look-up.
    subject: str = ""
    #: Whether the method is the route's own.
    right_method: bool = True
    #: Whether the target begins with the base path of the appservice's url.
    under_base: bool = True


_V1 = "/_matrix/app/v1"
_UNSTABLE = "/_matrix/app/unstable"

#: method, prefix, kind, legacy. A prefix that ends in a slash is followed by one subject. The longest come first.
Table = tuple[tuple[str, str, Kind, bool], ...]

#: The routes of the present specification, those before r0.1.0 among them.
MODERN_TABLE: Table = (
    ("PUT", f"{_V1}/transactions/", Kind.TRANSACTION, False),
    ("GET", f"{_V1}/users/", Kind.USER, False),
    ("GET", f"{_V1}/rooms/", Kind.ALIAS, False),
    ("POST", f"{_V1}/ping", Kind.PING, False),
    *(
        ("GET", f"{prefix}/thirdparty/{path}", kind, legacy)
        for prefix, legacy in ((_V1, False), (_UNSTABLE, True))
        for path, kind in (
            ("protocol/", Kind.PROTOCOL),
            ("user/", Kind.THIRDPARTY_USERS),
            ("location/", Kind.THIRDPARTY_LOCATIONS),
            ("user", Kind.REVERSE_USER),
            ("location", Kind.REVERSE_LOCATION),
        )
    ),
    ("PUT", "/transactions/", Kind.TRANSACTION, True),
    ("GET", "/users/", Kind.USER, True),
    ("GET", "/rooms/", Kind.ALIAS, True),
)


def route(method: str, raw_path: str, base_path: str, table: Table = MODERN_TABLE) -> Route:
    """The route of a request to an appservice whose url has `base_path`; Kind.UNKNOWN when there is none.

    Generous on purpose: a wrong method, a lost base path or a doubled slash are each the subject of one requirement.
    The fleet goes on answering, so that no other requirement suffers.
    """
    under_base = raw_path.startswith(base_path)
    path = raw_path[len(base_path) :] if under_base else raw_path
    path = re.sub(r"^/+", "/", path)
    for verb, prefix, kind, legacy in table:
        if prefix.endswith("/"):
            # An unencoded slash in the subject belongs to another requirement: it is still that route.
            if not path.startswith(prefix) or len(path) == len(prefix):
                continue
            subject = unquote(path[len(prefix) :])
        elif path == prefix:
            subject = ""
        else:
            continue
        return Route(kind, legacy, subject, right_method=method == verb, under_base=under_base)
    return Route(Kind.UNKNOWN, under_base=under_base)


def route_of(exchange: Exchange, base_path: str, table: Table = MODERN_TABLE) -> Route:
    """The route of an exchange; see :func:`route`."""
    return route(exchange.method, exchange.raw_path, base_path, table)
