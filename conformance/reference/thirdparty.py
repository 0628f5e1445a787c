"""Third-party networks: their metadata and look-ups in them (AS and CS: Third-party networks)."""

from __future__ import annotations

import time
from typing import Any

from conformance.appservice.registration import Registration
from conformance.reference.outgoing import NoResponse, To
from conformance.reference.policy import MatrixError, Policy, endpoint
from conformance.reference.store import JsonObject
from conformance.reference.web import Call

#: Where the legacy routes are (AS: Legacy routes).
_LEGACY = "/_matrix/app/unstable"

_KINDS: dict[str, type] = {
    "user_fields": list,
    "location_fields": list,
    "icon": str,
    "field_types": dict,
    "instances": list,
}


def unknown_protocol() -> MatrixError:
    """404 M_NOT_FOUND."""
    return MatrixError(404, "M_NOT_FOUND", "no appservice knows that protocol")


class ThirdParty(Policy):
    """What appservices say about the networks that they bridge."""

    #: Seconds, before scaling, that metadata is kept.
    kept = 60.0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._metadata: dict[tuple[str, str], tuple[float, JsonObject]] = {}

    @endpoint("GET", "/thirdparty/protocols", waits=True)
    def protocols(self, call: Call) -> JsonObject:
        """The metadata of all protocols whose appservices answer with any."""
        declared = dict.fromkeys(each for appservice in self.hs.appservices for each in appservice.protocols)
        found = {protocol: self.merged(protocol) for protocol in declared}
        return {protocol: metadata for protocol, metadata in found.items() if metadata is not None}

    @endpoint("GET", "/thirdparty/protocol/<protocol>", waits=True)
    def protocol(self, call: Call, protocol: str) -> JsonObject:
        """The metadata of one protocol."""
        metadata = self.merged(protocol)
        if metadata is None:
            raise unknown_protocol()
        return metadata

    def merged(self, protocol: str) -> JsonObject | None:
        """What the appservices say about a protocol: the first one's words, the instances of all."""
        merged: JsonObject | None = None
        for appservice in self.those_with(protocol):
            metadata = self.metadata(appservice, protocol)
            if metadata is None:
                continue
            instances = [
                {**instance, "instance_id": self.instance_id(appservice, protocol, instance)}
                for instance in metadata["instances"]
            ]
            if merged is None:
                merged = {**metadata, "instances": instances}
            else:
                merged["instances"] += instances
        return merged

    def those_with(self, protocol: str) -> list[Registration]:
        """The appservices that declare a protocol and can be asked about it."""
        return [each for each in self.hs.appservices if protocol in each.protocols and each.url is not None]

    def instance_id(self, appservice: Registration, protocol: str, instance: JsonObject) -> str:
        """An ID that no other instance has (CS: Instance, since v1.14)."""
        segment = self.hs.outgoing.segment
        return f"{segment(appservice.id)}/{segment(protocol)}/{segment(str(instance['network_id']))}"

    def network_of(self, instance_id: str) -> tuple[str, str]:
        """The appservice and the network of an instance; empty when there is none."""
        for appservice in self.hs.appservices:
            for protocol in appservice.protocols:
                _, metadata = self._metadata.get((appservice.id, protocol), (0, {}))
                for instance in metadata.get("instances", ()):
                    if self.instance_id(appservice, protocol, instance) == instance_id:
                        return appservice.id, str(instance["network_id"])
        return "", instance_id

    def metadata(self, appservice: Registration, protocol: str) -> JsonObject | None:
        """What an appservice says about a protocol; None when it says nothing usable."""
        until, kept = self._metadata.get((appservice.id, protocol), (0.0, {}))
        if until > time.monotonic():
            return kept
        path = f"/thirdparty/protocol/{self.hs.outgoing.segment(protocol)}"
        fetched = self.fetched(appservice, To.PROTOCOL, path, {})
        if not self.is_metadata(fetched):
            return None
        until = time.monotonic() + self.hs.clock.scaled(self.kept)
        self._metadata[appservice.id, protocol] = until, fetched
        return dict(fetched)

    def is_metadata(self, value: Any) -> bool:
        """Whether that has the form of a protocol's metadata (CS: Protocol); anything else is left out."""
        if not isinstance(value, dict) or not all(isinstance(value.get(key), kind) for key, kind in _KINDS.items()):
            return False
        return all(isinstance(each, dict) and isinstance(each.get("network_id"), str) for each in value["instances"])

    def fetched(self, appservice: Registration, about: To, path: str, query: dict[str, str]) -> Any:
        """The JSON of a successful answer; None when there is none."""
        try:
            reply = self.hs.outgoing.ask(appservice, about, "GET", path, legacy=_LEGACY + path, query=query)
        except NoResponse:
            return None
        return reply.json if reply.ok else None

    # Look-ups

    @endpoint("GET", "/thirdparty/user/<protocol>", waits=True)
    def users(self, call: Call, protocol: str) -> list[JsonObject]:
        """Look up users of a protocol by its fields."""
        return self.found(call, To.THIRD_PARTY_USER, "user", protocol)

    @endpoint("GET", "/thirdparty/location/<protocol>", waits=True)
    def locations(self, call: Call, protocol: str) -> list[JsonObject]:
        """Look up locations of a protocol by its fields."""
        return self.found(call, To.THIRD_PARTY_LOCATION, "location", protocol)

    def found(self, call: Call, about: To, kind: str, protocol: str) -> list[JsonObject]:
        """What the protocol's appservices find."""
        appservices = self.those_with(protocol)
        if not appservices:
            raise unknown_protocol()
        path = f"/thirdparty/{kind}/{self.hs.outgoing.segment(protocol)}"
        return self.collected(appservices, about, path, self.fields(call))

    def fields(self, call: Call) -> dict[str, str]:
        """The search fields: the whole query but for what authenticates the call."""
        own = {"access_token"} | ({"user_id", "device_id"} if call.requester.appservice else set())
        return {key: value for key, value in call.query.items() if key not in own}

    @endpoint("GET", "/thirdparty/user", waits=True)
    def user(self, call: Call) -> list[JsonObject]:
        """Look up whom a Matrix user stands for."""
        query = {"userid": call.query.get("userid", "")}
        return self.collected(self.bridges(), To.THIRD_PARTY_USER, "/thirdparty/user", query)

    @endpoint("GET", "/thirdparty/location", waits=True)
    def location(self, call: Call) -> list[JsonObject]:
        """Look up what a room alias stands for."""
        query = {"alias": call.query.get("alias", "")}
        return self.collected(self.bridges(), To.THIRD_PARTY_LOCATION, "/thirdparty/location", query)

    def bridges(self) -> list[Registration]:
        """The appservices that declare any protocol and can be asked."""
        return [each for each in self.hs.appservices if each.protocols and each.url is not None]

    def collected(
        self, appservices: list[Registration], about: To, path: str, query: dict[str, str]
    ) -> list[JsonObject]:
        """What several appservices find.

        :raises MatrixError: 404 M_NOT_FOUND: nothing.
        """
        found: list[JsonObject] = []
        for appservice in appservices:
            entries = self.fetched(appservice, about, path, query)
            found += [each for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []
        if not found:
            raise MatrixError(404, "M_NOT_FOUND", "nothing was found")
        return found
