"""Regular expressions, IDs and registrations for the tests of :mod:`conformance.namespaces`."""

from __future__ import annotations

import random
from collections.abc import Iterator

from conformance.appservice.registration import Registration
from conformance.namespaces.cells import CODES, Cell, cells_of, namespaces
from conformance.namespaces.ids import is_legal, near
from conformance.namespaces.oracle import Kind

SERVER = "hq.test"
KINDS: tuple[Kind, ...] = ("users", "aliases")


def registrations(seed: int, server_name: str = SERVER) -> list[Registration]:
    """The fuzz registrations of a seed."""
    drawn = namespaces(seed, server_name)
    return [
        Registration(
            code=code,
            id=f"hq-{code}",
            url=None,
            as_token=f"as-{code}",
            hs_token=f"hs-{code}",
            sender_localpart=f"hqbot-{code.lower()}",
            users=drawn[code, "users"],
            aliases=drawn[code, "aliases"],
        )
        for code in CODES
    ]


def ids(seed: int, kind: Kind, count: int, cells: list[Cell] | None = None) -> Iterator[str]:
    """Legal IDs near the namespaces of a seed."""
    rng = random.Random(seed)
    cells = cells_of(registrations(seed), kind) if cells is None else cells
    while count:
        regex = rng.choice(rng.choice(cells).regexes)
        identifier = near(kind, regex, SERVER, rng.randint)
        if is_legal(kind, identifier, SERVER):
            count -= 1
            yield identifier
