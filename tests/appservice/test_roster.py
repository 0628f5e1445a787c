"""The fleet's registrations have no trap in them: what they mean is the same for every homeserver."""

from __future__ import annotations

import itertools
import json
import re
import socket
from collections.abc import Iterator

import pytest

from conformance.appservice.registration import Namespace, Registration
from conformance.appservice.roster import CODES_BY_ID, ROLES, ROSTER, enlist, free_ports
from conformance.catalogue import load
from conformance.schemas import problems

SERVER = "hq-1.test:8448"
FLEET = enlist(SERVER, "http://127.0.0.1/", itertools.count(20000))
BY_CODE = {each.code: each for each in FLEET}


def namespaces(registration: Registration) -> Iterator[tuple[str, Namespace]]:
    """Every namespace with its sigil."""
    kinds = (("@", registration.users), ("#", registration.aliases), ("!", registration.rooms))
    return ((sigil, entry) for sigil, entries in kinds for entry in entries or ())


ENTRIES = [(each.code, sigil, entry) for each in FLEET for sigil, entry in namespaces(each)]


@pytest.mark.parametrize("registration", FLEET, ids=lambda each: str(each.code))
def test_every_registration_is_valid(registration: Registration) -> None:
    assert problems("registration", registration.as_json()) == []
    assert json.loads(json.dumps(registration.as_json())) == registration.as_json()


def test_everything_that_must_be_unique_is() -> None:
    for attribute in ("code", "id", "as_token", "hs_token", "sender_localpart"):
        values = [getattr(each, attribute) for each in FLEET]
        assert len(set(values)) == len(values), attribute
    ports = [each.port for each in FLEET if each.port is not None]
    assert len(set(ports)) == len(ports)
    tokens = [each.as_token for each in FLEET] + [each.hs_token for each in FLEET]
    assert len(set(tokens)) == len(tokens)


def test_tokens_differ_from_run_to_run_and_are_long() -> None:
    again = enlist(SERVER, "http://127.0.0.1", itertools.count(20000))
    for one, other in zip(FLEET, again, strict=True):
        assert one.as_token != other.as_token
        assert one.hs_token != other.hs_token
        assert min(len(one.as_token), len(one.hs_token)) >= 32


def test_one_hs_token_has_the_characters_that_must_be_encoded() -> None:
    assert all(character in BY_CODE["B"].hs_token for character in "+/=")
    assert not any(set(each.as_token + each.hs_token) & set("+/=") for each in FLEET if each.code != "B")


@pytest.mark.parametrize(("code", "sigil", "entry"), ENTRIES, ids=lambda each: str(getattr(each, "regex", each)))
def test_a_regex_means_the_same_however_it_is_anchored(code: str, sigil: str, entry: Namespace) -> None:
    assert entry.regex.startswith(sigil)
    assert entry.regex.endswith((".*", re.escape(SERVER).replace("\\-", "-"))), code
    assert not set(entry.regex) & set("^$|()+?{}")


@pytest.mark.parametrize(("code", "sigil", "entry"), ENTRIES, ids=lambda each: str(getattr(each, "regex", each)))
def test_names_are_lower_case_and_do_not_begin_with_an_underscore(code: str, sigil: str, entry: Namespace) -> None:
    if sigil == "!":  # room IDs are the homeserver's
        return
    assert entry.regex == entry.regex.lower(), code
    assert entry.regex == "@_hqa_.*" or not entry.regex.startswith(f"{sigil}_"), code


def test_no_namespace_covers_a_sender() -> None:
    for sender, (_, sigil, entry) in itertools.product(FLEET, ENTRIES):
        if sigil == "@":
            assert not re.search(entry.regex, f"@{sender.sender_localpart}:{SERVER}", re.IGNORECASE)


def test_two_appservices_never_claim_the_same_ids_exclusively() -> None:
    exclusive = [(code, entry.regex) for code, _, entry in ENTRIES if entry.exclusive]
    for (one, regex), (other, rival) in itertools.combinations(exclusive, 2):
        literal, against = (each.removesuffix(".*").replace("\\", "") for each in (regex, rival))
        if one != other:
            assert not literal.startswith(against), (regex, rival)
            assert not against.startswith(literal), (regex, rival)


def test_the_overlaps_that_rows_are_about_are_there() -> None:
    shared, open_one, vip = "@hqa-shared-x:hs", "@hqopen-x:hs", "@hqt-vip-x:hs"
    assert [entry.exclusive for entry in BY_CODE["A"].users or () if entry.matches(shared)] == [True]
    assert [entry.exclusive for entry in BY_CODE["B"].users or () if entry.matches(shared)] == [False]
    for code in "AB":
        assert [entry.exclusive for entry in BY_CODE[code].users or () if entry.matches(open_one)] == [False]
    assert [entry.exclusive for entry in BY_CODE["B"].users or () if entry.matches(vip)] == [False, True]


def test_namespaces_that_are_none_have_no_key() -> None:
    assert set(BY_CODE["C"].as_json()["namespaces"]) == {"rooms"}
    assert "rooms" not in BY_CODE["B"].as_json()["namespaces"]
    assert BY_CODE["A"].as_json()["namespaces"]["rooms"] == []


def test_the_server_name_in_a_regex_is_taken_literally() -> None:
    assert BY_CODE["V1"].users
    (entry,) = BY_CODE["V1"].users
    assert entry.matches(f"@hqv1-x:{SERVER}")
    assert not entry.matches("@hqv1-x:hq-1xtest:8448")
    assert "\\-" not in entry.regex


def test_urls_join_host_port_and_path() -> None:
    assert BY_CODE["A"].url == "http://127.0.0.1:20000"
    assert str(BY_CODE["B"].url).endswith("/as/second")
    assert str(BY_CODE["X"].url).endswith("/as/limited/")
    assert BY_CODE["N"].url is None
    assert "url" in BY_CODE["N"].as_json()


def test_every_code_that_the_catalogue_needs_is_in_the_fleet_or_known_to_be_optional() -> None:
    needed = {code for requirement in load() for code in requirement.needs}
    lanes_to_come = {"P", "F1", "F2", "F3"}
    other = {"any", "all", "fed", "own boot", "victim"}
    assert {code for code in needed if len(code) <= 2} - set(ROLES) - lanes_to_come - other == set()


def test_roles_are_found_by_code_and_id() -> None:
    assert [ROLES[code].code for code in CODES_BY_ID.values()] == [role.code for role in ROSTER]
    assert CODES_BY_ID["hq main"] == "A"


def test_free_ports_can_be_bound_and_are_not_handed_out_twice() -> None:
    taken = socket.socket()
    ports = free_ports("127.0.0.1")
    with taken:
        taken.bind(("127.0.0.1", 0))
        found = list(itertools.islice(ports, 20))
    assert len(set(found)) == 20
    for port in found:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
