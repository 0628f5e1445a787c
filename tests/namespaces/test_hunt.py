"""Wrong homeservers are found whatever the seed, and shrunk; right ones never are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from itertools import islice

import pytest

from conformance.namespaces.cells import cells_of
from conformance.namespaces.hunt import Finding, Hunt
from conformance.namespaces.ids import is_legal
from conformance.namespaces.oracle import Cover, Entry, Estate, Kind
from conformance.namespaces.readings import as_basic
from conformance.namespaces.strategies import Probe, probes, sweep
from conformance.settings import EXAMPLES_OF_THE_REFERENCE
from tests.namespaces.drawing import KINDS, SERVER, registrations

Server = Callable[[list[Entry], str], bool]


def matching(covers: Callable[[str, str], object]) -> Server:
    """A homeserver that reserves what an exclusive entry covers in its own way."""
    return lambda entries, identifier: any(
        entry.exclusive and covers(entry.namespace.regex, identifier) for entry in entries
    )


def first_decides(entries: list[Entry], identifier: str) -> bool:
    """A homeserver for which the first entry of each appservice decides."""
    first: dict[str, bool] = {}
    for entry in entries:
        if re.fullmatch(entry.namespace.regex, identifier):
            first.setdefault(entry.owner, entry.exclusive)
    return any(first.values())


def all_exclusive(entries: list[Entry], identifier: str) -> bool:
    """A homeserver for which every namespace is exclusive."""
    return any(re.fullmatch(entry.namespace.regex, identifier) for entry in entries)


def of_one(entries: list[Entry], identifier: str) -> bool:
    """A homeserver that looks at one appservice only."""
    return matching(re.fullmatch)([entry for entry in entries if entry.owner == "F1"], identifier)


def prefix(regex: str, identifier: str) -> bool:
    """A regex taken for a prefix."""
    return identifier.startswith(re.split(r"[][\\.*^$()|+?{}]", regex.removeprefix("^"))[0])


WRONG: dict[str, Server] = {
    "localpart only": matching(lambda regex, id: re.fullmatch(regex, id[1:].partition(":")[0])),
    "server name cut": matching(lambda regex, id: re.fullmatch(regex, id.partition(":")[0])),
    "sigil stripped": matching(lambda regex, id: re.fullmatch(regex[1:] if regex[0] in "@#" else regex, id[1:])),
    "plain prefix": matching(prefix),
    "basic regex": matching(as_basic),
    "glob": matching(lambda regex, id: fnmatchcase(id, regex.replace(".*", "*").replace("\\", ""))),
    "first branch only": matching(lambda regex, id: re.fullmatch(re.sub(r"\|[^)]*", "", regex), id)),
    "backslash lost": matching(lambda regex, id: re.fullmatch(regex.replace("\\.", "."), id)),
    "bound one too low": matching(
        lambda regex, id: re.fullmatch(re.sub(r",(\d+)\}", lambda m: f",{int(m[1]) - 1}}}", regex), id)
    ),
    "bound one too high": matching(
        lambda regex, id: re.fullmatch(re.sub(r",(\d+)\}", lambda m: f",{int(m[1]) + 1}}}", regex), id)
    ),
    "end of range": matching(lambda regex, id: re.fullmatch(regex.replace("a-z", "a-y"), id)),
    "cut at 64": matching(lambda regex, id: re.fullmatch(regex, id[:64])),
    "cut at slash": matching(lambda regex, id: re.fullmatch(regex, id.partition("/")[0])),
    "plus decoded": matching(lambda regex, id: re.fullmatch(regex, id.replace("+", " "))),
    "another's ignored": of_one,
    "open taken for exclusive": all_exclusive,
    "first entry decides": first_decides,
}

RIGHT: dict[str, Server] = {
    "whole": matching(re.fullmatch),
    "prefix": matching(re.match),
    "anywhere": matching(re.search),
    "ignoring case": matching(lambda regex, id: re.search(regex, id, re.IGNORECASE)),
    "like POSIX": matching(lambda regex, id: re.search(regex, id, re.DOTALL)),
    "like RE2": matching(lambda regex, id: re.search(regex, id, re.ASCII)),
}


def hunted(server: Server, kind: Kind, seed: int, examples: int, until: str = "") -> Hunt[Probe]:
    """A hunt on a homeserver that is a function.

    :raises Caught: something of the sort `until` was found.
    """
    loaded = registrations(seed)
    cells, estate = cells_of(loaded, kind), Estate(loaded, kind)
    every = [entry for entries in estate.owners.values() for entry in entries]

    def ask(probe: Probe) -> Finding[Probe] | None:
        if not is_legal(kind, probe.identifier, SERVER):
            return None
        expected, seen = estate.reserved(probe.identifier), server(every, probe.identifier)
        if expected is Cover.OPEN or seen is (expected is Cover.INSIDE):
            return None
        sort = "layered" if estate.is_layered(probe.identifier) else "plain"
        if sort == until:
            raise Caught
        return Finding(sort, probe, str(expected), str(seen))

    hunt = Hunt[Probe](seed, examples)
    first = list(islice(sweep(cells, SERVER, seed), examples // 2))
    hunt.search(probes(cells, SERVER), ask, lambda probe: probe.identifier, first)
    return hunt


class Caught(Exception):
    """A wrong answer was seen: that is enough."""


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_homeserver_is_found_whatever_the_seed(name: str) -> None:
    expected = "layered" if name == "first entry decides" else "plain"
    for seed in range(20):
        for kind in KINDS:
            with pytest.raises(Caught):
                hunted(WRONG[name], kind, seed, EXAMPLES_OF_THE_REFERENCE, until=expected)


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_homeserver_is_never_accused(name: str) -> None:
    for seed, kind in enumerate(KINDS * 2):
        assert hunted(RIGHT[name], kind, seed, EXAMPLES_OF_THE_REFERENCE).findings == {}, (seed, kind)


def test_the_same_seed_finds_the_same() -> None:
    one, other = (hunted(WRONG["cut at slash"], "users", 11, 150).findings["plain"] for _ in range(2))
    assert one == other
    assert one.question.identifier.count("/") == 1


def test_counterexamples_are_small() -> None:
    for seed in range(5):
        found = hunted(WRONG["cut at slash"], "users", seed, 150).findings["plain"].question
        assert len(found.cell.entries) == 1
        assert len(found.identifier) <= len("@hqf000-ab/x:hq.test") + 2, found.identifier


def test_no_question_is_asked_twice_and_shrinking_asks_little() -> None:
    asked: list[str] = []

    def ask(probe: Probe) -> Finding[Probe] | None:
        asked.append(probe.identifier)
        return Finding("plain", probe, "", "") if "/" in probe.identifier else None

    cells = cells_of(registrations(2), "users")
    hunt = Hunt[Probe](2, 100)
    hunt.search(probes(cells, SERVER), ask, lambda probe: probe.identifier)
    assert len(asked) == len(set(asked))
    assert hunt.findings.keys() == {"plain"}
    assert len(asked) <= 100 + 300


def test_what_goes_wrong_while_asking_ends_the_search() -> None:
    def ask(probe: Probe) -> Finding[Probe] | None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        Hunt[Probe](1, 50).search(probes(cells_of(registrations(1), "users"), SERVER), ask, lambda probe: probe)


def test_several_requirements_can_be_blamed_each_with_an_example_of_its_own() -> None:
    def ask(probe: Probe) -> Finding[Probe] | None:
        localpart = probe.identifier.partition(":")[0]
        return Finding("long" if len(localpart) > 30 else "short", probe, "", "")

    hunt = Hunt[Probe](1, 60)
    hunt.search(probes(cells_of(registrations(1), "users"), SERVER), ask, lambda probe: probe.identifier)
    assert hunt.findings.keys() == {"long", "short"}
    assert len(hunt.findings["short"].question.identifier) < 30


def _sorts(kind: Kind) -> Iterator[str]:
    yield from (probe.identifier for probe in sweep(cells_of(registrations(4), kind), SERVER, 4))


def test_the_sweep_is_the_same_each_time() -> None:
    assert list(_sorts("users")) == list(_sorts("users"))
