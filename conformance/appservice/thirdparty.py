"""What the fleet answers about third-party networks: fixed for the whole run, because homeservers cache it.

(AS: Third-party networks.) Each protocol has one job; see the requirements of area 3PN.
"""

from __future__ import annotations

from typing import Any

from conformance.appservice.routes import Kind, Route
from conformance.appservice.script import Answer, Reply, answer
from conformance.wire.exchange import Exchange


def _instance(network: str, description: str) -> dict[str, Any]:
    return {
        "network_id": network,
        "desc": description,
        "icon": f"mxc://hq.example/{network}",
        "fields": {"network": network, "nickname": "é\\#"},
    }


def metadata(*instances: dict[str, Any]) -> dict[str, Any]:
    """Complete metadata of a protocol with these instances."""
    return {
        "user_fields": ["network", "nickname"],
        "location_fields": ["network", "channel"],
        "icon": "mxc://hq.example/icon",
        "field_types": {
            "network": {"regexp": "[a-zA-Zé.]+", "placeholder": "net.example"},
            "nickname": {"regexp": r"[^\s#\"<>&/]+\\?", "placeholder": "ñick <&> \\"},
            "channel": {"regexp": "#.+", "placeholder": "#channel"},
        },
        "instances": list(instances),
    }


#: Metadata by appservice and protocol; what is not here is answered 404.
METADATA: dict[tuple[str, str], Any] = {
    ("A", "hqp-meta"): metadata(_instance("meta-net", "The only network")),
    ("A", "hqp-multi"): metadata(_instance("net1", "First"), _instance("net2", "Second")),
    ("A", "hqp-look"): metadata(_instance("look-net", "With look-ups")),
    ("A", "hqp-bad"): ["no", "metadata"],
    ("A", "hqp a/b#é?%2f"): metadata(_instance("blank-net", "A protocol ID that needs encoding")),
    ("B", "hqp-multi"): metadata(_instance("net1", "First, of another appservice")),
    ("B", "hqp-b"): metadata(_instance("b-net", "B's own")),
    ("L", "hqp-legacy"): metadata(_instance("old-net", "On the old routes")),
}

#: Fields of a look-up that finds something, for users and for locations.
KNOWN_USER_FIELDS = {"nickname": "x y", "network": "é"}
KNOWN_LOCATION_FIELDS = {"channel": "#x y", "network": "é"}


def found_users(protocol: str) -> list[dict[str, Any]]:
    """What a look-up of the known user finds."""
    fields = dict(KNOWN_USER_FIELDS)
    return [
        {"userid": "@hqa-one:hq.example", "protocol": protocol, "fields": fields},
        {"userid": "@hqa-two:hq.example", "protocol": protocol, "fields": fields},
    ]


def found_locations(protocol: str) -> list[dict[str, Any]]:
    """What a look-up of the known location finds."""
    fields = dict(KNOWN_LOCATION_FIELDS)
    return [
        {"alias": "#hqa-one:hq.example", "protocol": protocol, "fields": fields},
        {"alias": "#hqa-two:hq.example", "protocol": protocol, "fields": fields},
    ]


def reply(code: str, route: Route, exchange: Exchange) -> Reply:
    """The fixed answer of appservice `code` to a request about third-party networks."""
    if code == "L" and not route.legacy:
        return unrecognized()
    # Homeservers that still speak v1.3 put their token beside the fields (AS: Authorization).
    fields = {key: value for key, value in exchange.query if key != "access_token"}
    if route.kind is Kind.PROTOCOL and route.subject == "hqp-down":
        return answer(500, {"errcode": "M_UNKNOWN", "error": "out of order"})
    if route.kind is Kind.PROTOCOL and (code, route.subject) in METADATA:
        return answer(json=METADATA[code, route.subject])
    if route.kind is Kind.THIRDPARTY_USERS and fields == KNOWN_USER_FIELDS:
        return answer(json=found_users(route.subject))
    if route.kind is Kind.THIRDPARTY_LOCATIONS and fields == KNOWN_LOCATION_FIELDS:
        return answer(json=found_locations(route.subject))
    if route.kind is Kind.REVERSE_USER and fields.get("userid", "").partition(":")[0].endswith("-rev"):
        return answer(json=[{"userid": fields["userid"], "protocol": "hqp-look", "fields": {"nickname": "rev"}}])
    if route.kind is Kind.REVERSE_LOCATION and fields.get("alias", "").partition(":")[0].endswith("-rev"):
        return answer(json=[{"alias": fields["alias"], "protocol": "hqp-look", "fields": {"channel": "#rev"}}])
    return answer(404, {"errcode": "HQ.CONFORMANCE.NOT_FOUND", "error": "nothing known"})


def unrecognized() -> Answer:
    """What an appservice says to a route it does not know (AS: Unknown routes)."""
    return answer(404, {"errcode": "M_UNRECOGNIZED", "error": "unknown route"})
