"""The appservices that play in a run, and what each is registered for.

Every regex begins with the sigil and ends in ``.*`` (V1's: in the server name), so that it means the same whether a
homeserver matches from the start, anywhere, or the whole ID. Names are lower case and, but for one row, do not begin
with an underscore.
"""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from conformance.appservice.registration import Namespace, Registration
from conformance.dialects import Dialect


@dataclass(frozen=True)
class Role:
    """One appservice of the fleet before it has tokens and a port. Namespaces that are None get no key."""

    code: str
    id: str
    purpose: str
    #: The path of its url; None when its url is null.
    base_path: str | None = ""
    users: tuple[Namespace, ...] | None = ()
    aliases: tuple[Namespace, ...] | None = ()
    rooms: tuple[Namespace, ...] | None = ()
    extra: dict[str, Any] = field(default_factory=dict)
    #: False: its port is bound but nobody ever listens there.
    listens: bool = True
    #: What stands for the host in its url, and where it listens; empty: the fleet's.
    host: str = ""

    @property
    def sender_localpart(self) -> str:
        """The localpart of its sender, which no regex of the fleet matches."""
        return f"hqbot-{self.code.lower()}"


def _own(regex: str) -> Namespace:
    return Namespace(regex, exclusive=True)


def _open(regex: str) -> Namespace:
    return Namespace(regex, exclusive=False)


#: Stands for the server name, escaped, in a regex.
SERVER_NAME = "{server_name}"

ROSTER: tuple[Role, ...] = (
    Role(
        "A",
        "hq main",
        "the healthy appservice that most rows use; its id has a blank",
        users=(_own("@hqa-.*"), _own("@hqa2-.*"), _own(r"@hqa\.dot-.*"), _own("@_hqa_.*"), _open("@hqopen-.*")),
        aliases=(_own("#hqa-.*"), _open("#hqopen-.*")),
        rooms=(),
        extra={
            "receive_ephemeral": True,
            "rate_limited": False,
            "protocols": ["hqp-meta", "hqp-multi", "hqp-gone", "hqp-look", "hqp-bad", "hqp-down", "hqp a/b#é?%2f"],
        },
    ),
    Role(
        "B",
        "hq-second",
        "a second healthy appservice whose namespaces overlap A's; its url has a path, its list of rooms no key",
        base_path="/as/second",
        users=(_open("@hqa-shared-.*"), _own("@hqb-.*"), _open("@hqopen-.*"), _open("@hqt-.*"), _own("@hqt-vip-.*")),
        aliases=(_open("#hqa-shared-.*"), _open("#hqopen-.*"), _own("#hqb-.*"), _open("#hqt-.*"), _own("#hqt-vip-.*")),
        rooms=None,
        extra={"protocols": ["hqp-multi", "hqp-b"]},
    ),
    Role(
        "C",
        "hq-rooms",
        "interested in about half of all rooms by their IDs, and in nothing else",
        base_path="/as/rooms",
        users=None,
        aliases=None,
        rooms=(_open("![A-Ma-m0-4].*"),),
        extra={"receive_ephemeral": False},
    ),
    Role(
        "N",
        "hq-null",
        "wants no traffic: its url is null",
        base_path=None,
        users=(_own("@hqn-.*"),),
        aliases=(_own("#hqn-.*"),),
        extra={"protocols": ["hqp-null"]},
    ),
    Role(
        "D",
        "hq-dead",
        "can never be reached: nothing listens on its port",
        users=(_own("@hqd-.*"),),
        aliases=(_own("#hqd-.*"),),
        listens=False,
    ),
    Role(
        "Q",
        "hq-query",
        "answers queries about users and aliases",
        users=(_own("@hqq-.*"),),
        aliases=(_own("#hqq-.*"), _open("#hqqopen-.*")),
    ),
    Role(
        "L",
        "hq-legacy",
        "knows the legacy routes only",
        users=(_own("@hql-.*"),),
        aliases=(_own("#hql-.*"),),
        extra={"protocols": ["hqp-legacy"]},
    ),
    Role(
        "V1",
        "hq-v1",
        "is made to fail; its regex ends in the server name",
        base_path="/as/v1",
        users=(_own(f"@hqv1-.*:{SERVER_NAME}"),),
    ),
    Role("V2", "hq-v2", "is made to fail", base_path="/as/v2", users=(_own("@hqv2-.*"),)),
    Role("V3", "hq-v3", "is made to hang", users=(_own("@hqv3-.*"),)),
    Role(
        "V4",
        "hq-v4",
        "is made to fail for long; receives ephemeral data",
        base_path="/as/v4",
        users=(_own("@hqv4-.*"),),
        extra={"receive_ephemeral": True},
    ),
    Role("V5", "hq-v5", "has many short outages", base_path="/as/v5", users=(_own("@hqv5-.*"),)),
    Role("V6", "hq-v6", "stops in the middle of an answer", base_path="/as/v6", users=(_own("@hqv6-.*"),)),
    Role(
        "X",
        "hq-limited",
        "is rate limited; its url ends in a slash",
        base_path="/as/limited/",
        users=(_own("@hqx-.*"),),
        extra={"rate_limited": True},
    ),
)

#: Those of a second homeserver, which is started beside the run to be stopped and started again.
RESTARTED: tuple[Role, ...] = tuple(
    Role(
        f"R{number}",
        f"hq-restart-{number}",
        purpose,
        base_path=f"/as/r{number}",
        users=(_own(f"@hqr{number}-.*"),),
        aliases=(_own(f"#hqr{number}-.*"),),
    )
    for number, purpose in enumerate(
        (
            "is healthy across restarts",
            "is down when the homeserver is stopped",
            "is slow when the homeserver is stopped",
            "is slow when the homeserver crashes",
            "is well when the homeserver crashes",
            "has a transaction under way when the homeserver crashes",
            "is down across a restart",
        ),
        1,
    )
)

#: Those of another homeserver beside the run, on which a query hangs.
HUNG: tuple[Role, ...] = tuple(
    Role(code, f"hq-{code.lower()}", purpose, base_path=f"/as/{code.lower()}", users=(_own(f"@hq{code.lower()}-.*"),))
    for code, purpose in (
        # Whoever is served in the order of registration is asked before one of the others and after the other.
        ("K1", "is well while a query to K2 hangs"),
        ("K2", "never answers the query about a user"),
        ("K3", "is well while a query to K2 hangs"),
    )
)

#: Those that register themselves in the dialects of 2015, beside the roster; see :mod:`conformance.dialects`.
DRAFTED: tuple[Role, ...] = (
    Role(
        "I",
        "hq-irc",
        "plays the worked IRC example of the drafts",
        base_path="/as/irc",
        users=(_own(r"@irc\.freenode\.net/.*"),),
        aliases=(_own(r"#irc\.freenode\.net/.*"),),
        rooms=(_own(r"!irc\.freenode\.net/.*"),),
    ),
    Role(
        "S",
        "hq-sigils",
        "has regexes that match with and without sigil",
        users=(_own(".*hqs-.*"),),
        aliases=(_own(".*hqs-.*"),),
    ),
    Role("E", "hq-early", "registers in the middle of the run", users=(_own("@hqe-.*"),), aliases=(_own("#hqe-.*"),)),
    Role("U", "hq-unregistered", "unregisters", users=(_own("@hqu-.*"),), aliases=(_own("#hqu-.*"),)),
    Role("W", "hq-wrong", "tries to register wrongly", users=(_own("@hqw-.*"),), aliases=(_own("#hqw-.*"),)),
)

#: Those of them that a check registers when it comes to it.
LATE = ("I", "E", "W")

#: Those whose registration a homeserver may be unable to read: only one requirement needs each.
OPTIONAL: tuple[Role, ...] = (
    Role(
        "P",
        "hq-posix",
        "has a bracket class in its regex",
        base_path="/as/posix",
        users=(_own("@hqp-[[:digit:]]{3}-.*"),),
    ),
)

#: Those whose url names its host in another way than by an IPv4 address. They play where the fleet is on the loopback
#: interface of a machine that has such a host.
ELSEWHERE: tuple[Role, ...] = (
    Role(
        "Y",
        "hq-ipv6",
        "has an IPv6 address in its url",
        base_path="/as/ipv6",
        users=(_own("@hqy-.*"),),
        host="[::1]",
    ),
    Role(
        "Z",
        "hq-named",
        "has a host name in its url",
        base_path="/as/named",
        users=(_own("@hqz-.*"),),
        host="localhost",
    ),
)

#: The code of each appservice by the `id` in its registration file.
CODES_BY_ID: dict[str, str] = {role.id: role.code for role in ROSTER}

#: Those whose namespaces are drawn from a seed; see :func:`fuzzed`.
FUZZED: tuple[Role, ...] = tuple(
    Role(f"F{number}", f"hq-fuzz-{number}", "has generated namespaces", base_path=path)
    for number, path in ((1, "/as/fuzz-1"), (2, "/as/fuzz-2"), (3, None))
)

#: The roles by code.
ROLES: dict[str, Role] = {
    role.code: role for role in (*ROSTER, *OPTIONAL, *ELSEWHERE, *FUZZED, *RESTARTED, *HUNG, *DRAFTED)
}


def fuzzed(seed: int, server_name: str) -> tuple[Role, ...]:
    """The appservices with generated namespaces (:mod:`conformance.namespaces`), with those of a seed."""
    from conformance.namespaces.cells import namespaces

    drawn = namespaces(seed, server_name)
    return tuple(replace(role, users=drawn[role.code, "users"], aliases=drawn[role.code, "aliases"]) for role in FUZZED)


def of_dialect(dialect: Dialect) -> tuple[Role, ...]:
    """The appservices that play in a dialect: where they register themselves, each needs a url."""
    if dialect.admission is None:
        return (*ROSTER, *OPTIONAL)
    return (*(role for role in ROSTER if role.base_path is not None), *DRAFTED)


def enlist(server_name: str, as_url: str, ports: Iterator[int], roles: Iterable[Role] = ROSTER) -> list[Registration]:
    """The registrations of some appservices, the fleet's if not said otherwise, with fresh tokens.

    :param server_name: of the homeserver that will load them.
    :param as_url: scheme and host under which the homeserver reaches the fleet, without a port.
    :param ports: a port for every appservice but the one whose url is null.
    """
    return [_enlist(role, server_name, as_url.rstrip("/"), ports) for role in roles]


def elsewhere() -> tuple[Role, ...]:
    """Those of :data:`ELSEWHERE` whose host this machine has."""
    return tuple(role for role in ELSEWHERE if _can_listen(role.host.strip("[]")))


def _can_listen(host: str) -> bool:
    try:
        for family, kind, proto, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, proto) as probe:
                probe.bind(address)
    except OSError:
        return False
    return True


def _enlist(role: Role, server_name: str, as_url: str, ports: Iterator[int]) -> Registration:
    # B's token has the characters that a careless homeserver pastes into a URL as they are.
    awkward = "+/=" if role.code == "B" else ""
    as_url = f"http://{role.host}" if role.host else as_url
    return Registration(
        code=role.code,
        id=role.id,
        url=None if role.base_path is None else f"{as_url}:{next(ports)}{role.base_path}",
        as_token=f"hq-as-{role.code.lower()}-{secrets.token_hex(16)}",
        hs_token=f"hq-hs-{role.code.lower()}-{awkward}{secrets.token_hex(16)}",
        sender_localpart=role.sender_localpart,
        users=_filled(role.users, server_name),
        aliases=_filled(role.aliases, server_name),
        rooms=_filled(role.rooms, server_name),
        extra=dict(role.extra),
    )


def _filled(entries: tuple[Namespace, ...] | None, server_name: str) -> tuple[Namespace, ...] | None:
    if entries is None:
        return None
    escaped = re.escape(server_name).replace(r"\-", "-")  # an escaped hyphen means nothing in POSIX
    return tuple(Namespace(entry.regex.replace(SERVER_NAME, escaped), entry.exclusive) for entry in entries)


def free_ports(host: str) -> Iterator[int]:
    """Ports that are free now and not in the range from which the system gives out ports of its own accord."""
    for port in _shuffled(range(20000, 32000)):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        yield port


def _shuffled(ports: range) -> list[int]:
    shuffled = list(ports)
    secrets.SystemRandom().shuffle(shuffled)
    return shuffled
