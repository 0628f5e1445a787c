"""The JSON Schemas, and how bodies and files are judged by them."""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import pytest

from conformance import schemas
from conformance.schemas import problems
from conformance.verdict import Verdict
from conformance.wire import jsonl
from conformance.wire.exchange import Direction, Phase
from conformance.wire.journal import Journal
from conformance.wire.redaction import Redactor

# --- examples ---------------------------------------------------------------------------------------------------------

MESSAGE = {
    "event_id": "$kIq3Zr-0Wf",
    "type": "m.room.message",
    "sender": "@hqa-ghost:hs.example",
    "origin_server_ts": 1700000000123,
    "content": {"msgtype": "m.text", "body": "hello"},
    "room_id": "!room:hs.example",
}
STATE = {**MESSAGE, "type": "m.room.topic", "state_key": "", "content": {"topic": "tea"}, "unsigned": {"age": -4}}
TYPING = {"type": "m.typing", "room_id": "!room:hs.example", "content": {"user_ids": ["@h:hs.example"]}}
RECEIPT = {
    "type": "m.receipt",
    "room_id": "!room:hs.example",
    "content": {
        "$kIq3Zr-0Wf": {
            "m.read": {"@h:hs.example": {"ts": 1700000000456, "thread_id": "main"}},
            "m.read.private": {"@hqa-ghost:hs.example": {"ts": 1700000000789}},
        }
    },
}
PRESENCE = {
    "type": "m.presence",
    "sender": "@h:hs.example",
    "content": {
        "presence": "unavailable",
        "last_active_ago": 2.5,
        "currently_active": False,
        "status_msg": "at lunch",
        "displayname": "H",
        "avatar_url": "mxc://hs.example/face",
    },
}
PROTOCOL = {
    "user_fields": ["net", "nick"],
    "location_fields": ["net", "chan"],
    "icon": "mxc://hs.example/icon",
    "field_types": {"nick": {"regexp": "[a-z]+", "placeholder": "jo"}},
    "instances": [
        {"desc": "One", "fields": {"net": "n1"}, "network_id": "n1", "icon": "mxc://x/y", "instance_id": "hqp|n1"}
    ],
}
LOGIN = {
    "user_id": "@hqa-ghost:hs.example",
    "access_token": "tok_1",
    "device_id": "DEV",
    "refresh_token": "ref_1",
    "expires_in_ms": 60000,
    "home_server": "hs.example",
}
ROOM = {
    "room_id": "!room:hs.example",
    "num_joined_members": 3,
    "world_readable": True,
    "guest_can_join": False,
    "canonical_alias": "#room:hs.example",
    "name": "Room",
    "topic": "Talk",
    "avatar_url": "mxc://hs.example/room",
    "join_rule": "knock",
    "room_type": "m.space",
}
HTTP_HEADERS = [["Content-Type", "application/json"], ["X-Twice", "1"], ["X-Twice", "2"]]
ENTRY = {
    "number": 1,
    "direction": "to-appservice",
    "party": "A",
    "method": "PUT",
    "target": "/_matrix/app/v1/transactions/1",
    "started_s": -0.000125,
    "kernel_stamp": True,
    "phase": "done",
    "request": {"headers": HTTP_HEADERS, "body": '{"events": []}', "body_bytes": 14},
    "response": {"status": 200, "headers": [], "body": "{}", "body_bytes": 2},
    "answer_from_s": 0.25,
    "answer_until_s": 0.5,
    "failure": "connection closed half way",
    "notes": ["fault: reset"],
}
ROW = {
    "id": "TXN-13",
    "area": "TXN",
    "level": "MUST",
    "verdict": "fail",
    "title": "Nothing is added to a failed transaction.",
    "expected": "one event",
    "seen": "two events",
    "reason": "known since spring",
    "evidence": [4, 9],
    "duration_s": 0.75,
}
TARGET = {"name": "example", "version": "1.2", "url": "http://localhost:1", "claimed_versions": ["v1.1"]}
RESULTS = {
    "format": 1,
    "suite": {"name": "as-conformance", "version": "0.1"},
    "target": TARGET,
    "reading": "lenient",
    "spec": "v1.19",
    "started": "2024-02-03T04:05:06.789+00:00",
    "duration_s": 12.5,
    "requirements": [ROW],
    "waits": [{"name": "outage", "seconds": 11.5, "longest_server_wait_s": 8.5}],
    "summary": {"fail": 1, "unexpected-pass": 0},
    "notes": ["presence is off"],
}
KNOWN = {
    "id": "USERQ-12b",
    "verdict": "warn",
    "reason": "reported upstream",
    "seen": "410",
    "expires": "2031-01-31",
    "flaky": True,
}

#: One instance of each schema with every key that the schema knows.
COMPLETE: dict[str, Any] = {
    "client-event": STATE,
    "client-event#unsigned": {
        "age": 5,
        "prev_content": {"topic": "coffee"},
        "replaces_state": "$older",
        "redacted_because": MESSAGE,
        "transaction_id": "m1",
        "membership": "join",
    },
    "typing": TYPING,
    "typing#client-format": TYPING,
    "receipt": RECEIPT,
    "receipt#client-format": RECEIPT,
    "presence": PRESENCE,
    "transaction": {"events": [STATE], "ephemeral": [TYPING, RECEIPT, PRESENCE]},
    "transaction#envelope": {"events": [], "ephemeral": []},
    "ping-request": {"transaction_id": 'ü"1'},
    "ping-request#strict": {"transaction_id": 'ü"1'},
    "ping-response": {"duration_ms": 7},
    "ping-response#failure": {"errcode": "M_BAD_STATUS", "error": "it said 403", "status": 403, "body": '{"a": 1}'},
    "error": {"errcode": "M_FORBIDDEN", "error": "no"},
    "error#with-text": {"errcode": "M_FORBIDDEN", "error": "no"},
    "error#rate-limited": {"errcode": "M_LIMIT_EXCEEDED", "error": "slowly", "retry_after_ms": 200},
    "whoami": {"user_id": "@h:hs.example", "device_id": "DEV", "is_guest": False},
    "register": LOGIN,
    "register#logged-in": LOGIN,
    "register#inhibited": {"user_id": "@hqa-ghost:hs.example", "home_server": "hs.example"},
    "login": {**LOGIN, "well_known": {"m.homeserver": {"base_url": "http://hs.example"}}},
    "login-flows": {"flows": [{"type": "m.login.token", "get_login_token": True}]},
    "directory": {"room_id": "!room:hs.example", "servers": ["hs.example"]},
    "public-rooms": {"chunk": [ROOM], "next_batch": "n", "prev_batch": "p", "total_room_count_estimate": 1},
    "public-rooms#room": ROOM,
    "protocol": PROTOCOL,
    "protocol#complete": PROTOCOL,
    "protocols": {"hqp": PROTOCOL},
    "thirdparty-users": [{"userid": "@hqa-jo:hs.example", "protocol": "hqp", "fields": {"nick": "jo"}}],
    "thirdparty-locations": [{"alias": "#hqa-tea:hs.example", "protocol": "hqp", "fields": {"chan": "#tea"}}],
    "registration": {
        "id": "hq main",
        "url": "http://localhost:9999/as",
        "as_token": "as_1",
        "hs_token": "hs_1",
        "sender_localpart": "hqbot",
        "namespaces": {
            "users": [{"regex": "@hqa-.*", "exclusive": True}],
            "rooms": [{"regex": "![a-m].*", "exclusive": False}],
            "aliases": [{"regex": "#hqa-.*", "exclusive": True}],
        },
        "rate_limited": False,
        "receive_ephemeral": True,
        "protocols": ["hqp"],
    },
    "versions": {"versions": ["r0.6.1", "v1.19"], "unstable_features": {"org.example.thing": True}},
    "results": RESULTS,
    "journal-entry": ENTRY,
    "baseline": {"known": [KNOWN]},
}

ROOM_REQUIRED = {"room_id", "num_joined_members", "world_readable", "guest_can_join"}
EVENT_REQUIRED = {"event_id", "type", "sender", "origin_server_ts", "content", "room_id"}
ROW_REQUIRED = set(ROW)
PROTOCOL_REQUIRED = {
    "user_fields",
    "location_fields",
    "field_types",
    "field_types/nick/regexp",
    "field_types/nick/placeholder",
    "instances",
    "instances/0/desc",
    "instances/0/fields",
    "instances/0/network_id",
}


def under(prefix: str, paths: set[str]) -> set[str]:
    """The same paths below another."""
    return {f"{prefix}/{path}" for path in paths}


#: The keys of those instances that must not be missing; every other key may be.
REQUIRED: dict[str, set[str]] = {
    "client-event": EVENT_REQUIRED,
    "client-event#unsigned": set(),
    "typing": {"type", "room_id", "content", "content/user_ids"},
    "typing#client-format": {"type", "content", "content/user_ids"},
    "receipt": {"type", "room_id", "content"},
    "receipt#client-format": {"type", "content"},
    "presence": {"type", "sender", "content", "content/presence"},
    "transaction": {"events"}
    | under("events/0", EVENT_REQUIRED)
    | under("ephemeral/0", {"type", "room_id", "content", "content/user_ids"})
    | under("ephemeral/1", {"type", "room_id", "content"})
    | under("ephemeral/2", {"type", "sender", "content", "content/presence"}),
    "transaction#envelope": {"events"},
    "ping-request": set(),
    "ping-request#strict": set(),
    "ping-response": {"duration_ms"},
    "ping-response#failure": {"errcode"},
    "error": {"errcode"},
    "error#with-text": {"errcode", "error"},
    "error#rate-limited": {"errcode"},
    "whoami": {"user_id"},
    "register": {"user_id"},
    "register#logged-in": {"user_id", "access_token", "device_id"},
    "register#inhibited": {"user_id"},
    "login": {"user_id", "access_token", "device_id"},
    "login-flows": {"flows/0/type"},
    "directory": {"room_id"},
    "public-rooms": {"chunk"} | under("chunk/0", ROOM_REQUIRED),
    "public-rooms#room": ROOM_REQUIRED,
    "protocol": PROTOCOL_REQUIRED,
    "protocol#complete": PROTOCOL_REQUIRED | {"icon"},
    "protocols": under("hqp", PROTOCOL_REQUIRED),
    "thirdparty-users": under("0", {"userid", "protocol", "fields"}),
    "thirdparty-locations": under("0", {"alias", "protocol", "fields"}),
    "registration": {"id", "url", "as_token", "hs_token", "sender_localpart", "namespaces"}
    | {f"namespaces/{kind}/0/{key}" for kind in ("users", "rooms", "aliases") for key in ("regex", "exclusive")},
    "versions": {"versions"},
    "results": (set(RESULTS) - {"notes"})
    | under("suite", {"name", "version"})
    | under("target", {"name", "version", "url", "claimed_versions"})
    | under("requirements/0", ROW_REQUIRED)
    | under("waits/0", {"name", "seconds", "longest_server_wait_s"}),
    "journal-entry": set(ENTRY)
    | under("request", {"headers", "body", "body_bytes"})
    | under("response", {"status", "headers", "body", "body_bytes"}),
    "baseline": under("known/0", {"id", "verdict", "reason"}),
}

#: Where an instance is free: what is below these paths is nobody's business.
FREE: dict[str, tuple[str, ...]] = {
    "client-event": ("content", "unsigned"),
    "client-event#unsigned": ("prev_content", "redacted_because"),
    "transaction": ("events/0/content", "events/0/unsigned"),
    "login": ("well_known",),
    "protocol": ("instances/0/fields",),
    "protocol#complete": ("instances/0/fields",),
    "protocols": ("hqp/instances/0/fields",),
    "thirdparty-users": ("0/fields",),
    "thirdparty-locations": ("0/fields",),
    "versions": ("unstable_features",),
}
#: Values that are not judged at all, not even their type: `unsigned` has a schema of its own.
UNJUDGED = {("client-event", "unsigned"), ("transaction", "events/0/unsigned")}

#: Objects in which a key that nobody knows is a mistake, because their keys mean something or people type them.
CLOSED = {
    ("receipt", "content"),
    ("receipt#client-format", "content"),
    ("transaction", "ephemeral/1/content"),
    ("protocol", "field_types"),
    ("protocol#complete", "field_types"),
    ("protocols", ""),
    ("protocols", "hqp/field_types"),
    ("results", "summary"),
    ("baseline", ""),
    ("baseline", "known/0"),
}


def steps_of(instance: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of everything inside an instance, outermost first."""
    items: Any = ()
    if isinstance(instance, dict):
        items = instance.items()
    elif isinstance(instance, list):
        items = enumerate(instance)
    for key, value in items:
        yield (*path, key)
        yield from steps_of(value, (*path, key))


def at(instance: Any, path: tuple[str | int, ...]) -> Any:
    """What stands at a path."""
    for step in path:
        instance = instance[step]
    return instance


def text(path: tuple[str | int, ...]) -> str:
    """A path as it is written in the tables above."""
    return "/".join(map(str, path))


#: The files, each with what is judged by it: itself and its anchors.
FILES = {
    file: [full for full in COMPLETE if full.partition("#")[0] == file]
    for file in dict.fromkeys(full.partition("#")[0] for full in COMPLETE)
}
KEYS = [(name, path) for name, whole in COMPLETE.items() for path in steps_of(whole) if isinstance(path[-1], str)]
PLACES = [
    (name, path)
    for name, whole in COMPLETE.items()
    for path in steps_of(whole)
    if (name, text(path)) not in UNJUDGED and not any(text(path).startswith(f"{free}/") for free in FREE.get(name, ()))
]
OBJECTS = [
    (name, path)
    for name, whole in COMPLETE.items()
    for path in ((), *steps_of(whole))
    if isinstance(at(whole, path), dict) and (name, text(path)) not in CLOSED
]


def case_id(value: Any) -> str:
    """A readable test id."""
    return (text(value) or "body") if isinstance(value, tuple) else str(value)


# --- the schemas themselves -------------------------------------------------------------------------------------------


def subschemas(node: Any) -> Iterator[dict[str, Any]]:
    """Every object inside a schema file."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from subschemas(value)
    elif isinstance(node, list):
        for value in node:
            yield from subschemas(value)


@pytest.mark.parametrize("name", schemas.names())
def test_every_schema_is_valid_itself(name: str) -> None:
    schema = schemas.load(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]


@pytest.mark.parametrize("name", schemas.names())
def test_every_reference_leads_somewhere(name: str) -> None:
    schema = schemas.load(name)
    resolver = schemas._registry().resolver(base_uri=schema["$id"])
    for node in subschemas(schema):
        if isinstance(node.get("$ref"), str):
            resolver.lookup(node["$ref"])


def test_the_schemas_are_called_as_their_files() -> None:
    assert {*FILES, "common"} <= set(schemas.names())
    for name in (*FILES, "common"):
        assert schemas.load(name)["$id"] == schemas.URN + name


@pytest.mark.parametrize("name", FILES)
def test_every_anchor_has_an_example(name: str) -> None:
    anchors = {node["$anchor"] for node in subschemas(schemas.load(name)) if "$anchor" in node}
    assert {f"{name}#{anchor}" for anchor in anchors} == set(FILES[name]) - {name}


@pytest.mark.parametrize("name", FILES)
def test_every_key_the_schemas_require_is_in_the_table(name: str) -> None:
    listed = {path.rpartition("/")[2] for full in FILES[name] for path in REQUIRED[full]}
    assert {key for node in subschemas(schemas.load(name)) for key in node.get("required", ())} <= listed


@pytest.mark.parametrize("name", FILES)
def test_every_key_the_schemas_describe_is_in_an_example(name: str) -> None:
    shown = {path[-1] for full in FILES[name] for path in steps_of(COMPLETE[full])}
    assert {key for node in subschemas(schemas.load(name)) for key in node.get("properties", {})} <= shown


def test_the_verdicts_are_those_of_the_suite() -> None:
    assert schemas.load("common")["$defs"]["verdict"]["enum"] == [verdict.value for verdict in Verdict]


# --- what every schema accepts and refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPLETE)
def test_a_complete_instance_is_valid(name: str) -> None:
    assert problems(name, COMPLETE[name]) == []


@pytest.mark.parametrize(("name", "path"), KEYS, ids=case_id)
def test_a_key_is_missed_if_and_only_if_it_is_required(name: str, path: tuple[str | int, ...]) -> None:
    instance = copy.deepcopy(COMPLETE[name])
    del at(instance, path[:-1])[path[-1]]
    found = problems(name, instance)
    if text(path) in REQUIRED[name]:
        assert found == [f'{text(path[:-1]) or "body"}: "{path[-1]}" is missing']
    else:
        assert found == []


def test_the_table_of_required_keys_names_only_keys_of_the_examples() -> None:
    assert {name: paths - {text(path) for key, path in KEYS if key == name} for name, paths in REQUIRED.items()} == {
        name: set() for name in COMPLETE
    }


@pytest.mark.parametrize(("name", "path"), PLACES, ids=case_id)
def test_a_value_of_another_type_is_refused(name: str, path: tuple[str | int, ...]) -> None:
    instance = copy.deepcopy(COMPLETE[name])
    value = at(instance, path)
    wrongs: list[Any] = [[]] if isinstance(value, dict) else [{}]
    if isinstance(value, bool):
        wrongs += ["true", 1, None]
    elif isinstance(value, int | float):
        wrongs += [str(value), True]
    elif isinstance(value, str):
        wrongs += [7, False]
    else:
        wrongs += ["text", 7]
    for wrong in wrongs:
        at(instance, path[:-1])[path[-1]] = wrong
        assert problems(name, instance), wrong


@pytest.mark.parametrize("name", COMPLETE)
@pytest.mark.parametrize("wrong", [None, "text", 7, True])
def test_a_body_that_is_no_object_or_list_is_refused(name: str, wrong: object) -> None:
    kind = "array" if isinstance(COMPLETE[name], list) else "object"
    assert f'body: {json.dumps(wrong)} is not of type "{kind}"' in problems(name, wrong)


@pytest.mark.parametrize(("name", "path"), OBJECTS, ids=case_id)
def test_a_key_that_nobody_knows_is_allowed(name: str, path: tuple[str | int, ...]) -> None:
    instance = copy.deepcopy(COMPLETE[name])
    at(instance, path)["org.example.extra"] = {"deep": [None, 1.5, "x"]}
    assert problems(name, instance) == []


# --- no false alarm ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "instance"),
    [
        pytest.param("transaction", {"events": []}, id="a transaction without anything"),
        pytest.param("transaction", {"events": [], "ephemeral": [PRESENCE]}, id="only ephemeral data"),
        pytest.param("transaction", {"events": [MESSAGE] * 150}, id="a large batch"),
        pytest.param(
            "transaction",
            {"events": [], "ephemeral": [{"type": "m.new", "content": {}}], "to_device": [], "device_lists": {}},
            id="data of unstable features",
        ),
        pytest.param(
            "client-event", {**MESSAGE, "room_id": "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM"}, id="v12 room"
        ),
        pytest.param("client-event", {**MESSAGE, "event_id": "$1:hs.example"}, id="event ID of room version 1"),
        pytest.param("client-event", {**MESSAGE, "content": {}}, id="a redacted event"),
        pytest.param("client-event", {**MESSAGE, "origin_server_ts": 1.7e12}, id="an integer written as a float"),
        pytest.param("client-event", {**MESSAGE, "origin_server_ts": -1}, id="a time before the epoch"),
        pytest.param("client-event", {**MESSAGE, "sender": "@"}, id="the sigil alone"),
        pytest.param("client-event", {**MESSAGE, "sender": "@Ünï cödé!:[::1]:8448"}, id="a historical user ID"),
        pytest.param("client-event", {**MESSAGE, "type": ""}, id="an empty event type"),
        pytest.param(
            "client-event",
            {
                "content": {"avatar_url": None, "displayname": "Jo", "membership": "join", "reason": "tea"},
                "event_id": "$9Qkx:hs.example",
                "origin_server_ts": 1600000000000,
                "room_id": "!xyz:hs.example",
                "sender": "@jo:hs.example",
                "state_key": "@jo:hs.example",
                "type": "m.room.member",
                "unsigned": {"age": 12, "membership": "join"},
            },
            id="a membership event",
        ),
        pytest.param(
            "client-event",
            {**MESSAGE, "type": "m.room.redaction", "redacts": "$other", "content": {"redacts": "$other"}},
            id="a redaction that says twice what it redacts",
        ),
        pytest.param(
            "client-event", {**MESSAGE, "age": 3, "user_id": "@x:y", "prev_content": {}}, id="keys of the drafts"
        ),
        pytest.param("client-event#unsigned", {}, id="an empty unsigned"),
        pytest.param("typing", {**TYPING, "content": {"user_ids": []}}, id="nobody types any more"),
        pytest.param("receipt", {**RECEIPT, "type": "m.receipt.private"}, id="the private type"),
        pytest.param("receipt", {**RECEIPT, "content": {}}, id="no receipts"),
        pytest.param("receipt", {**RECEIPT, "content": {"$e": {"m.read": {"@h:x": {}}}}}, id="a receipt without ts"),
        pytest.param("receipt", {**RECEIPT, "content": {"$e": {"org.example.read": 1}}}, id="another receipt type"),
        pytest.param(
            "presence", {"type": "m.presence", "sender": "@h:x", "content": {"presence": "online"}}, id="bare"
        ),
        pytest.param("presence", {**PRESENCE, "room_id": "!r:x"}, id="presence with a room"),
        pytest.param(
            "presence", {**PRESENCE, "content": {"presence": "offline", "status_msg": None}}, id="null status message"
        ),
        pytest.param("ping-request", {}, id="a ping without transaction id"),
        pytest.param("ping-request", {"transaction_id": None}, id="a ping with a null transaction id"),
        pytest.param("ping-response", {"duration_ms": 0}, id="a quick ping"),
        pytest.param("error", {"errcode": "COM.EXAMPLE.HQ_UNAUTHORIZED"}, id="an errcode of one's own"),
        pytest.param("error", {"errcode": "M_UNKNOWN_TOKEN", "error": "", "soft_logout": True}, id="soft logout"),
        pytest.param("ping-response#failure", {"errcode": "M_CONNECTION_FAILED", "error": "refused"}, id="no status"),
        pytest.param("whoami", {"user_id": "@hqbot:hs.example"}, id="an appservice has no device"),
        pytest.param("register", {"user_id": "@hqa-1:hs.example"}, id="an inhibited login"),
        pytest.param("login", {"user_id": "@a:b", "access_token": "t", "device_id": "D"}, id="the least login"),
        pytest.param("login-flows", {"flows": []}, id="no flows"),
        pytest.param("login-flows", {}, id="not even a list of flows"),
        pytest.param("directory", {"room_id": "!abc", "servers": []}, id="a room that no server knows"),
        pytest.param("public-rooms", {"chunk": []}, id="no rooms"),
        pytest.param(
            "protocols",
            {
                "hqp-no-icon": {
                    "user_fields": ["user"],
                    "location_fields": ["place"],
                    "field_types": {"user": {"regexp": ".+", "placeholder": "me"}},
                    "instances": [{"network_id": "n", "desc": "N", "instance_id": "hqp-no-icon-n", "fields": {}}],
                }
            },
            id="a protocol without an icon, as the specification's own example has",
        ),
        pytest.param("protocols", {}, id="no protocols"),
        pytest.param("protocol", {**PROTOCOL, "field_types": {}, "instances": []}, id="a protocol without fields"),
        pytest.param("thirdparty-users", [], id="nobody found"),
        pytest.param("thirdparty-locations", [], id="nothing found"),
        pytest.param(
            "thirdparty-users", [{"userid": "odd", "protocol": "p", "fields": {"n": 1}}], id="the appservice's own"
        ),
        pytest.param("versions", {"versions": []}, id="no versions"),
        pytest.param("versions", {"versions": ["x"], "unstable_features": {"a": "stable"}}, id="an odd feature"),
        pytest.param(
            "registration",
            {
                "id": "n",
                "url": None,
                "as_token": "a",
                "hs_token": "h",
                "sender_localpart": "s",
                "namespaces": {},
                "de.sorunome.msc2409.push_ephemeral": True,
            },
            id="a registration without traffic",
        ),
        pytest.param(
            "journal-entry", {**ENTRY, "response": None, "answer_from_s": None, "answer_until_s": None}, id="open"
        ),
        pytest.param("journal-entry", {**ENTRY, "request": {**ENTRY["request"], "body": None}}, id="no body kept"),  # type: ignore[dict-item]
        pytest.param("journal-entry", {**ENTRY, "failure": None, "notes": []}, id="nothing special"),
        pytest.param("journal-entry", {**ENTRY, "phase": "arriving"}, id="on its way"),
        pytest.param("journal-entry", {**ENTRY, "phase": "pending"}, id="not answered yet"),
        pytest.param(
            "journal-entry",
            {**ENTRY, "response": {"status": 204, "headers": [], "body": None, "body_bytes": 0}},
            id="no body of the response kept",
        ),
        pytest.param("results", {**RESULTS, "reading": "strict"}, id="the strict reading"),
        pytest.param("results", {**RESULTS, "target": {**TARGET, "version": None}}, id="a server of unknown version"),
        pytest.param("results", {**RESULTS, "requirements": [{**ROW, "id": "DRAFT-REG-01"}]}, id="a long id"),
        *(
            pytest.param("results", {**RESULTS, "requirements": [{**ROW, "level": level}]}, id=f"level {level}")
            for level in ("SHOULD", "MAY", "implied")
        ),
        pytest.param("baseline", {"known": [{**KNOWN, "verdict": "fail"}]}, id="a known failure"),
        pytest.param("results", {**RESULTS, "requirements": [], "waits": [], "summary": {}}, id="nothing ran"),
        pytest.param("results", {**RESULTS, "started": "2024-02-03T04:05:06Z"}, id="Zulu time"),
        pytest.param("baseline", {}, id="an empty baseline file"),
        pytest.param("baseline", {"known": []}, id="a baseline without entries"),
    ],
)
def test_there_is_no_false_alarm(name: str, instance: object) -> None:
    assert problems(name, instance) == []


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict not in (Verdict.FAIL, Verdict.WARN)])
def test_only_an_accusation_needs_what_was_expected_and_seen(verdict: Verdict) -> None:
    row = {**ROW, "verdict": verdict.value, "expected": None, "seen": None, "duration_s": None}
    assert problems("results", {**RESULTS, "requirements": [row]}) == []


@pytest.mark.parametrize("verdict", ["inconclusive", "not-claimed", "blocked", "error", "skipped"])
def test_what_was_not_decided_says_why(verdict: str) -> None:
    row = {**ROW, "verdict": verdict, "reason": None}
    assert problems("results", {**RESULTS, "requirements": [row]}) == [
        'requirements/0/reason: null is not of type "string"'
    ]


@pytest.mark.parametrize("verdict", ["pass", "fail", "warn", "recorded", "known-fail", "unexpected-pass"])
def test_what_was_decided_needs_no_reason(verdict: str) -> None:
    row = {**ROW, "verdict": verdict, "reason": None}
    assert problems("results", {**RESULTS, "requirements": [row]}) == []


def test_a_wait_may_have_met_no_wait_of_the_server() -> None:
    waits = [{"name": "outage", "seconds": 1, "longest_server_wait_s": None}]
    assert problems("results", {**RESULTS, "waits": waits}) == []


def test_the_journal_is_written_as_its_schema_says() -> None:
    journal = Journal()
    pending = journal.open(Direction.TO_APPSERVICE, "A", "PUT", "/_matrix/app/v1/transactions/1", (("Host", "x"),))
    done = journal.open(Direction.TO_HOMESERVER, "H1", "GET", "/_matrix/client/versions", ())
    journal.update(done, phase=Phase.DONE, status=200, response_body=b"\xff", answer_from=1.0, answer_until=1.0)
    for exchange in (pending, done):
        line = json.dumps(jsonl.entry(exchange, journal.began, Redactor()))
        assert problems("journal-entry", json.loads(line)) == []


# --- what is wrong, and how it is said --------------------------------------------------------------------------------


def row(**changes: object) -> dict[str, object]:
    """Results with one requirement."""
    return {**RESULTS, "requirements": [{**ROW, **changes}]}


@pytest.mark.parametrize(
    ("name", "instance", "line"),
    [
        ("transaction", {}, 'body: "events" is missing'),
        ("transaction", {"events": None}, 'events: null is not of type "array"'),
        ("transaction", {"events": [None]}, 'events/0: null is not of type "object"'),
        ("transaction", {"events": [], "ephemeral": None}, 'ephemeral: null is not of type "array"'),
        ("transaction", {"events": [], "ephemeral": [{"content": {}}]}, 'ephemeral/0: "type" is missing'),
        ("transaction", {"events": [], "ephemeral": [None]}, 'ephemeral/0: null is not of type "object"'),
        ("transaction", {"events": [], "ephemeral": [{"type": "m.new"}]}, 'ephemeral/0: "content" is missing'),
        (
            "transaction",
            {"events": [], "ephemeral": [{"type": "m.new", "content": []}]},
            'ephemeral/0/content: [] is not of type "object"',
        ),
        (
            "transaction",
            {"events": [], "ephemeral": [{"type": "m.receipt.private", "content": {}}]},
            'ephemeral/0: "room_id" is missing',
        ),
        (
            "transaction",
            {"events": [{**MESSAGE, "origin_server_ts": "12"}]},
            'events/0/origin_server_ts: "12" is not of type "integer"',
        ),
        ("client-event", {**MESSAGE, "origin_server_ts": True}, 'origin_server_ts: true is not of type "integer"'),
        ("client-event", {**MESSAGE, "origin_server_ts": 1.5}, 'origin_server_ts: 1.5 is not of type "integer"'),
        ("client-event", {**MESSAGE, "state_key": None}, 'state_key: null is not of type "string"'),
        ("client-event", {**MESSAGE, "event_id": "kIq3"}, 'event_id: "kIq3" does not match "^\\\\$"'),
        ("client-event", {**MESSAGE, "sender": "hqbot"}, 'sender: "hqbot" does not match "^@"'),
        ("client-event", {**MESSAGE, "room_id": "#a:b"}, 'room_id: "#a:b" does not match "^!"'),
        ("client-event#unsigned", {"age": "4"}, 'age: "4" is not of type "integer"'),
        ("typing", {**TYPING, "type": "m.receipt"}, 'type: "m.receipt" is not "m.typing"'),
        ("typing", {**TYPING, "content": {"user_ids": ["h"]}}, 'content/user_ids/0: "h" does not match "^@"'),
        (
            "typing",
            {"type": "m.typing", "room_id": "!r:x", "content": {"user_id": "@h:x", "typing": True}},
            'content: "user_ids" is missing',
        ),
        (
            "receipt",
            {**RECEIPT, "content": {"!r:x": {"m.read": {"@h:x": {"event_ids": ["$e"], "data": {"ts": 1}}}}}},
            'content: "!r:x" does not match "^\\\\$"',
        ),
        (
            "receipt",
            {**RECEIPT, "content": {"$e": {"m.read": {"@h:x": {"ts": "1"}}}}},
            'content/$e/m.read/@h:x/ts: "1" is not of type "integer"',
        ),
        ("receipt", {**RECEIPT, "type": "m.read"}, 'type: "m.read" is not "m.receipt" or "m.receipt.private"'),
        ("presence", {**PRESENCE, "sender": "h"}, 'sender: "h" does not match "^@"'),
        (
            "presence",
            {"type": "m.presence", "content": {"user_id": "@h:x", "presence": "online"}},
            'body: "sender" is missing',
        ),
        (
            "presence",
            {**PRESENCE, "content": {"presence": "busy"}},
            'content/presence: "busy" is not "online" or "offline" or "unavailable"',
        ),
        ("ping-request", {"transaction_id": 5}, 'transaction_id: 5 is not of type "string" or "null"'),
        ("ping-request#strict", {"transaction_id": None}, 'transaction_id: null is not of type "string"'),
        ("ping-response", {"duration_ms": 0.5}, 'duration_ms: 0.5 is not of type "integer"'),
        (
            "ping-response#failure",
            {"errcode": "M_BAD_STATUS", "body": {"errcode": "X"}},
            'body: {"errcode": "X"} is not of type "string"',
        ),
        ("error", {"error": "no"}, 'body: "errcode" is missing'),
        ("error#with-text", {"errcode": "M_X"}, 'body: "error" is missing'),
        ("whoami", {"user_id": "h"}, 'user_id: "h" does not match "^@"'),
        ("register#inhibited", LOGIN, "access_token: must not be there"),
        ("register#inhibited", LOGIN, "device_id: must not be there"),
        ("register#inhibited", LOGIN, "refresh_token: must not be there"),
        ("register#inhibited", LOGIN, "expires_in_ms: must not be there"),
        ("directory", {"room_id": "#a:b"}, 'room_id: "#a:b" does not match "^!"'),
        ("public-rooms#room", {**ROOM, "canonical_alias": "!r:x"}, 'canonical_alias: "!r:x" does not match "^#"'),
        ("protocols", {"p": []}, 'p: [] is not of type "object"'),
        ("thirdparty-users", {}, 'body: {} is not of type "array"'),
        ("results", {**RESULTS, "format": 2}, "format: 2 is not 1"),
        ("results", {**RESULTS, "started": "yesterday"}, 'started: "yesterday" does not match "^[0-9]{4}-'),
        ("results", {**RESULTS, "duration_s": -1}, "duration_s: -1 does not satisfy minimum 0"),
        ("results", {**RESULTS, "summary": {"passed": 1}}, 'summary: "passed" is not "pass" or "fail"'),
        ("results", row(area="txn"), 'requirements/0/area: "txn" does not match'),
        ("results", row(title=""), 'requirements/0/title: "" does not satisfy minLength 1'),
        ("results", row(level="must"), 'requirements/0/level: "must" is not "MUST" or'),
        ("results", row(verdict="pass", expected=1), 'requirements/0/expected: 1 is not of type "string" or "null"'),
        ("results", row(verdict="pass", seen=1), 'requirements/0/seen: 1 is not of type "string" or "null"'),
        ("results", row(expected=None), 'requirements/0/expected: null is not of type "string"'),
        ("results", row(verdict="warn", seen=None), 'requirements/0/seen: null is not of type "string"'),
        ("results", row(duration_s=-1), "requirements/0/duration_s: -1 does not satisfy minimum 0"),
        ("results", {**RESULTS, "reading": "loose"}, 'reading: "loose" is not "lenient" or "strict"'),
        ("results", {**RESULTS, "spec": ""}, 'spec: "" does not satisfy minLength 1'),
        ("results", {**RESULTS, "summary": {"pass": -1}}, "summary/pass: -1 does not satisfy minimum 0"),
        (
            "results",
            {**RESULTS, "waits": [{"name": "w", "seconds": -1, "longest_server_wait_s": 0}]},
            "waits/0/seconds: -1 does not satisfy minimum 0",
        ),
        (
            "results",
            {**RESULTS, "waits": [{"name": "w", "seconds": 1, "longest_server_wait_s": -1}]},
            "waits/0/longest_server_wait_s: -1 does not satisfy minimum 0",
        ),
        ("results", row(id="txn-13"), 'requirements/0/id: "txn-13" does not match'),
        ("results", row(seen=None), 'requirements/0/seen: null is not of type "string"'),
        ("results", row(verdict="blocked", reason=None), 'requirements/0/reason: null is not of type "string"'),
        ("results", row(evidence=[0]), "requirements/0/evidence/0: 0 does not satisfy minimum 1"),
        ("results", row(evidence=["4"]), 'requirements/0/evidence/0: "4" is not of type "integer"'),
        ("journal-entry", {**ENTRY, "direction": "inwards"}, 'direction: "inwards" is not "to-homeserver" or'),
        ("journal-entry", {**ENTRY, "number": 0}, "number: 0 does not satisfy minimum 1"),
        (
            "journal-entry",
            {**ENTRY, "request": {"headers": [], "body": "", "body_bytes": -1}},
            "request/body_bytes: -1 does not satisfy minimum 0",
        ),
        (
            "journal-entry",
            {**ENTRY, "response": {"status": 200, "headers": [], "body": None, "body_bytes": -1}},
            "response/body_bytes: -1 does not satisfy minimum 0",
        ),
        (
            "journal-entry",
            {**ENTRY, "request": {"headers": [["A", "b", "c"]], "body": None, "body_bytes": 0}},
            "request/headers/0",
        ),
        ("journal-entry", {**ENTRY, "request": {"headers": [["A"]], "body": "", "body_bytes": 0}}, "request/headers/0"),
        ("baseline", {"knwon": []}, 'body: "knwon" is not a known key'),
        ("baseline", {"known": [{**KNOWN, "expire": "2031-01-31"}]}, 'known/0: "expire" is not a known key'),
        ("baseline", {"known": [{**KNOWN, "reason": ""}]}, 'known/0/reason: "" does not'),
        ("baseline", {"known": [{**KNOWN, "reason": " \n"}]}, 'known/0/reason: " \\n" does not'),
        ("baseline", {"known": [{**KNOWN, "verdict": "pass"}]}, 'known/0/verdict: "pass" is not "fail" or "warn"'),
        ("baseline", {"known": [{**KNOWN, "expires": "soon"}]}, 'known/0/expires: "soon" does not match'),
    ],
)
def test_what_is_wrong_is_said_in_one_line(name: str, instance: object, line: str) -> None:
    found = problems(name, instance, limit=0)
    assert [said for said in found if said.startswith(line)], found


def test_a_missing_room_is_not_held_against_the_client_format() -> None:
    for name, item in (("typing", TYPING), ("receipt", RECEIPT)):
        without = {key: value for key, value in item.items() if key != "room_id"}
        assert problems(name, without) == ['body: "room_id" is missing']
        assert problems(f"{name}#client-format", without) == []


def test_the_envelope_of_a_transaction_is_judged_without_its_events() -> None:
    assert problems("transaction#envelope", {"events": [{}, None], "ephemeral": [{}]}) == []


def test_unsigned_is_not_held_against_the_event() -> None:
    assert problems("client-event", {**MESSAGE, "unsigned": {"age": "4"}}) == []


def test_problems_are_sorted_by_path_with_indexes_as_numbers() -> None:
    events: list[dict[str, object]] = [dict(MESSAGE) for _ in range(12)]
    for index in (10, 9, 2):
        events[index]["sender"] = "nobody"
    found = problems("transaction", {"events": events, "ephemeral": 1})
    assert [line.partition(":")[0] for line in found] == [
        "ephemeral",
        "events/2/sender",
        "events/9/sender",
        "events/10/sender",
    ]


def test_problems_are_limited_and_the_last_says_how_many_more_there_are() -> None:
    found = problems("transaction", {"events": [{}] * 10})  # six keys are missing in each
    assert len(found) == 5
    assert found[0] == 'events/0: "content" is missing'
    assert found[-1].endswith(" is missing (and 55 more)")
    assert len(problems("transaction", {"events": [{}] * 10}, limit=2)) == 2
    assert len(problems("transaction", {"events": [{}] * 10}, limit=0)) == 60


def test_a_problem_is_told_once() -> None:
    assert problems("register#logged-in", {}) == [
        'body: "access_token" is missing',
        'body: "device_id" is missing',
        'body: "user_id" is missing',
    ]


def test_long_values_and_long_keys_are_cut() -> None:
    (line,) = problems("client-event", {**MESSAGE, "state_key": ["x" * 10_000]})
    assert line.startswith('state_key: ["xxx')
    assert len(line) < 130
    (line,) = problems("protocols", {"p" * 10_000: None})
    assert len(line) < 130


def test_credentials_are_not_shown() -> None:
    for name, instance in (
        ("login", {**LOGIN, "access_token": ["syt_secret"]}),
        ("login", [{"deep": {"access_token": "syt_secret"}}]),
        ("register#inhibited", {"user_id": "@a:b", "access_token": "syt_secret"}),
        ("registration", {**COMPLETE["registration"], "hs_token": {"is": "syt_secret"}}),
        ("registration", [{"as_token": "syt_secret"}]),
    ):
        found = problems(name, instance)
        assert found
        assert "syt_secret" not in "".join(found)


def test_what_a_terminal_might_obey_is_escaped() -> None:
    nasty = "\x1b[2J\x9b\u202e\ud800\n"
    (line,) = problems("protocols", {nasty: nasty})
    assert line.isprintable()
    assert "\\x1b" in line
    line.encode("utf-8")


def test_a_value_nested_without_end_is_no_trouble() -> None:
    deep: object = []
    for _ in range(100_000):
        deep = [deep]
    assert len(problems("client-event", {**MESSAGE, "state_key": deep})) == 1
    assert problems("client-event", {**MESSAGE, "content": {"deep": deep}}) == []
    while deep:
        (deep,) = deep  # type: ignore[misc]  # taken apart by hand: its destruction would nest as deep


# --- finding, loading, compiling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nothing", "../pyproject", "error#nothing", "error#/$defs/nothing", ""])
def test_a_schema_that_does_not_exist_is_an_error(name: str) -> None:
    with pytest.raises(LookupError, match="schema"):
        problems(name, {})


def test_a_validator_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    original = jsonschema.Draft202012Validator

    def counting(*args: Any, **kwargs: Any) -> Any:
        compiled.append(args[0]["$ref"])
        return original(*args, **kwargs)

    schemas._validator.cache_clear()
    monkeypatch.setattr(jsonschema, "Draft202012Validator", counting)
    try:
        for _ in range(3):
            problems("transaction", COMPLETE["transaction"])
            problems("error#with-text", {})
    finally:
        schemas._validator.cache_clear()
    assert compiled == ["urn:as-conformance:transaction", "urn:as-conformance:error#with-text"]


def test_files_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    problems("transaction", {})
    monkeypatch.setattr(Path, "read_text", lambda *_args, **_kwargs: pytest.fail("read again"))
    assert problems("transaction", {"events": [MESSAGE]}) == []


def test_importing_the_module_loads_no_validator() -> None:
    code = (
        "import sys, conformance.schemas as schemas; schemas.data_dir('schemas');"
        "sys.exit(bool({'jsonschema', 'referencing'} & set(sys.modules)))"
    )
    root = Path(schemas.__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def installed(package: Path) -> ModuleType:
    """The module as it is found in another place."""
    package.mkdir(parents=True)
    spec = importlib.util.spec_from_file_location("elsewhere", shutil.copy(schemas.__file__, package))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_data_are_found_beside_the_package_in_a_checkout() -> None:
    assert schemas.data_dir("schemas") == Path(schemas.__file__).resolve().parent.parent / "schemas"


def test_data_are_found_inside_the_package_in_a_wheel(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "conformance"
    module = installed(package)
    shutil.copytree(schemas.data_dir("schemas"), package / "_data" / "schemas")
    (package.parent / "schemas").mkdir()  # some other project's
    assert module.data_dir("schemas") == package.resolve() / "_data" / "schemas"
    assert module.problems("ping-response", {}) == ['body: "duration_ms" is missing']


def test_missing_data_are_an_error_that_says_so(tmp_path: Path) -> None:
    module = installed(tmp_path / "conformance")
    with pytest.raises(FileNotFoundError, match="installation is incomplete"):
        module.data_dir("schemas")
