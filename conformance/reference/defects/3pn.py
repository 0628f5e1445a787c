"""Defects of area 3PN: third-party networks."""

# ruff: noqa: N999 (the file is called like its area)

from __future__ import annotations

from typing import Any
from urllib.parse import quote, quote_plus, unquote

from conformance.appservice.registration import Registration
from conformance.reference.defects import defect
from conformance.reference.identity import Identity, Requester
from conformance.reference.outgoing import NoResponse, To
from conformance.reference.policy import MatrixError, endpoint
from conformance.reference.store import JsonObject
from conformance.reference.thirdparty import ThirdParty
from conformance.reference.web import Call

# The list


@defect("3PN-01")
class OnlyTheFirstAppservicesProtocolsAreListed(ThirdParty):
    """The list has the protocols of the first appservice with any."""

    def protocols(self, call: Call) -> JsonObject:
        first = next(iter(self.bridges())).protocols
        return {protocol: entry for protocol, entry in super().protocols(call).items() if protocol in first}


@defect("3PN-01")
class ProtocolsOfSeveralAreNotListed(ThirdParty):
    """A protocol that two appservices declare is not in the list."""

    def protocols(self, call: Call) -> JsonObject:
        listed = super().protocols(call).items()
        return {protocol: entry for protocol, entry in listed if len(self.those_with(protocol)) == 1}


@defect("3PN-01")
class TheListIsNotThere(ThirdParty):
    """There is no list of protocols."""

    def protocols(self, call: Call) -> JsonObject:
        raise self.hs.errors.unknown_path()


# Metadata


@defect("3PN-02", also=("ROOMDIR-01",))
class MetadataIsNeverFetched(ThirdParty):
    """No appservice is asked for metadata."""

    def metadata(self, appservice: Registration, protocol: str) -> JsonObject | None:
        return None


@defect("3PN-02")
class OnlyTheFirstAppserviceIsAsked(ThirdParty):
    """Only the first appservice with any protocols is asked for metadata."""

    def metadata(self, appservice: Registration, protocol: str) -> JsonObject | None:
        return super().metadata(appservice, protocol) if appservice is self.bridges()[0] else None


@defect("3PN-02")
class MetadataIsFetchedFromTheOldPath(ThirdParty):
    """Metadata is fetched from the unstable path only."""

    def fetched(self, appservice: Registration, about: To, path: str, query: dict[str, str]) -> Any:
        if about is not To.PROTOCOL:
            return super().fetched(appservice, about, path, query)
        try:
            reply = self.hs.outgoing.once(appservice, about, "GET", f"/_matrix/app/unstable{path}", query, None)
        except NoResponse:
            return None
        return reply.json if reply.ok else None


class _Shown(ThirdParty):
    """Metadata is shown otherwise than the appservice gives it."""

    def merged(self, protocol: str) -> JsonObject | None:
        metadata = super().merged(protocol)
        return None if metadata is None else self.shown(dict(metadata))

    def shown(self, metadata: JsonObject) -> JsonObject:
        """What is shown."""
        return metadata | {"instances": [self.shown_instance(dict(each)) for each in metadata["instances"]]}

    def shown_instance(self, instance: JsonObject) -> JsonObject:
        """What is shown of an instance."""
        return instance


@defect("3PN-03")
class InstancesAreMissing(_Shown):
    """Metadata is shown without its instances."""

    def shown(self, metadata: JsonObject) -> JsonObject:
        return {key: value for key, value in metadata.items() if key != "instances"}


@defect("3PN-03")
class IconsAreMissing(_Shown):
    """Metadata is shown without its icon."""

    def shown(self, metadata: JsonObject) -> JsonObject:
        return {key: value for key, value in metadata.items() if key != "icon"}


@defect("3PN-03")
class InstancesHaveNoDescription(_Shown):
    """Instances are shown without their desc."""

    def shown_instance(self, instance: JsonObject) -> JsonObject:
        return {key: value for key, value in instance.items() if key != "desc"}


@defect("3PN-03")
class FieldTypesAreTexts(_Shown):
    """The type of a field is shown as its regular expression, without a placeholder."""

    def shown(self, metadata: JsonObject) -> JsonObject:
        return metadata | {"field_types": {key: each["regexp"] for key, each in metadata["field_types"].items()}}


@defect("3PN-04")
class FieldTypesAreDropped(_Shown):
    """Metadata is shown with no types of fields."""

    def shown(self, metadata: JsonObject) -> JsonObject:
        return metadata | {"field_types": {}}


@defect("3PN-04")
class FieldsAreSorted(_Shown):
    """The names of fields are shown in alphabetical order."""

    def shown(self, metadata: JsonObject) -> JsonObject:
        return metadata | {"location_fields": sorted(metadata["location_fields"])}


@defect("3PN-04")
class MetadataIsReadAsLatin1(_Shown):
    """Metadata is shown with its letters beyond ASCII mangled."""

    def shown(self, metadata: JsonObject) -> JsonObject:
        types = {
            name: {key: text.encode().decode("latin-1") for key, text in each.items()}
            for name, each in metadata["field_types"].items()
        }
        return metadata | {"field_types": types}


@defect("3PN-04")
class FieldsOfInstancesAreDropped(_Shown):
    """Instances are shown without the values of their fields."""

    def shown_instance(self, instance: JsonObject) -> JsonObject:
        return instance | {"fields": {}}


@defect("3PN-04")
class InstancesLoseTheirIcons(_Shown):
    """Instances are shown without icons of their own."""

    def shown_instance(self, instance: JsonObject) -> JsonObject:
        return {key: value for key, value in instance.items() if key != "icon"}


@defect("3PN-04")
class RegexesAreEscaped(_Shown):
    """Backslashes in the regexes of fields are doubled."""

    def shown(self, metadata: JsonObject) -> JsonObject:
        types = {
            name: {**each, "regexp": each["regexp"].replace("\\", "\\\\")}
            for name, each in metadata["field_types"].items()
        }
        return metadata | {"field_types": types}


@defect("3PN-05")
class InstancesHaveTheirNetworksId(ThirdParty):
    """The instance_id of an instance is its network_id."""

    def instance_id(self, appservice: Registration, protocol: str, instance: JsonObject) -> str:
        return str(instance["network_id"])


@defect("3PN-05")
class InstanceIdsDoNotTellAppservicesApart(ThirdParty):
    """The instance_id of an instance is made of its protocol and network only."""

    def instance_id(self, appservice: Registration, protocol: str, instance: JsonObject) -> str:
        return f"{protocol}|{instance['network_id']}"


@defect("3PN-05")
class InstanceIdsAreNumbers(_Shown):
    """The instance_id of an instance is a number."""

    def shown_instance(self, instance: JsonObject) -> JsonObject:
        return instance | {"instance_id": hash(instance["instance_id"])}


@defect("3PN-05", also=("ROOMDIR-05", "ROOMDIR-06", "ROOMDIR-07", "ROOMDIR-08"))
class InstancesHaveNoId(_Shown):
    """Instances are shown without an instance_id."""

    def shown_instance(self, instance: JsonObject) -> JsonObject:
        return {key: value for key, value in instance.items() if key != "instance_id"}


class _Single(ThirdParty):
    """A single protocol is shown otherwise than in the list."""

    def protocol(self, call: Call, protocol: str) -> JsonObject:
        return self.single(protocol, super().protocol(call, protocol))

    def single(self, protocol: str, metadata: JsonObject) -> JsonObject:
        """What is shown."""
        raise NotImplementedError


@defect("3PN-06")
class ASingleProtocolIsNotMerged(_Single):
    """The metadata of a single protocol has the instances of the first appservice only."""

    def single(self, protocol: str, metadata: JsonObject) -> JsonObject:
        first = self.metadata(self.those_with(protocol)[0], protocol) or {}
        return metadata | {"instances": metadata["instances"][: len(first.get("instances", ()))]}


@defect("3PN-06")
class ASingleProtocolHasNoInstanceIds(_Single):
    """The metadata of a single protocol is as the appservice gives it, without instance_ids."""

    def single(self, protocol: str, metadata: JsonObject) -> JsonObject:
        instances = [{key: each[key] for key in each if key != "instance_id"} for each in metadata["instances"]]
        return metadata | {"instances": instances}


@defect("3PN-06")
class ASingleProtocolStandsInAnObject(_Single):
    """The metadata of a single protocol is answered as a list of one."""

    def single(self, protocol: str, metadata: JsonObject) -> JsonObject:
        return {protocol: metadata}


class _Unknown(ThirdParty):
    """What nobody declares is answered otherwise."""

    def protocol(self, call: Call, protocol: str) -> JsonObject:
        if not any(protocol in each.protocols for each in self.hs.appservices):
            return self.unknown(protocol)
        return super().protocol(call, protocol)

    def unknown(self, protocol: str) -> JsonObject:
        """The answer for a protocol that nobody declares."""
        raise NotImplementedError


@defect("3PN-07")
class UnknownProtocolsAreEmpty(_Unknown):
    """The metadata of a protocol that nobody declares is {}."""

    def unknown(self, protocol: str) -> JsonObject:
        return {}


@defect("3PN-07")
class UnknownProtocolsAreForbidden(_Unknown):
    """A protocol that nobody declares is answered 403."""

    def unknown(self, protocol: str) -> JsonObject:
        raise MatrixError(403, "M_FORBIDDEN", "there is no such protocol")


@defect("3PN-07")
class UnknownProtocolsAreUnrecognized(_Unknown):
    """A protocol that nobody declares is answered 404 M_UNRECOGNIZED."""

    def unknown(self, protocol: str) -> JsonObject:
        raise MatrixError(404, "M_UNRECOGNIZED", "there is no such protocol")


@defect("3PN-07")
class AppservicesAreAskedAboutUnknownProtocols(_Unknown):
    """Every appservice is asked about a protocol that nobody declares."""

    def unknown(self, protocol: str) -> JsonObject:
        for appservice in self.bridges():
            self.metadata(appservice, protocol)
        raise MatrixError(404, "M_NOT_FOUND", "there is no such protocol")


class _Denied(ThirdParty):
    """Metadata that an appservice answers with an error is treated otherwise."""

    def merged(self, protocol: str) -> JsonObject | None:
        return self.instead(protocol) if self.denied(protocol) else super().merged(protocol)

    def denied(self, protocol: str) -> bool:
        """Whether all who declare a protocol answer with an error."""
        path = f"/thirdparty/protocol/{self.hs.outgoing.segment(protocol)}"
        asked = self.those_with(protocol)
        return bool(asked) and all(self.fetched(each, To.PROTOCOL, path, {}) is None for each in asked)

    def instead(self, protocol: str) -> JsonObject | None:
        """What such a protocol is."""
        raise NotImplementedError


@defect("3PN-09")
class AFailingAppserviceBreaksTheList(_Denied):
    """Where metadata is answered with an error, the whole list is answered with 502."""

    def instead(self, protocol: str) -> JsonObject | None:
        raise MatrixError(502, "M_UNKNOWN", "the appservice failed")


@defect("3PN-09", also=("3PN-20",))
class DeniedProtocolsAreEmpty(_Denied):
    """A protocol whose metadata is answered with an error is listed as {}."""

    def instead(self, protocol: str) -> JsonObject | None:
        return {}


@defect("3PN-09", also=("3PN-01", "3PN-02"))
class TheListEndsWithTheFirstFailure(_Denied):
    """The list ends with the first protocol whose metadata is answered with an error."""

    def protocols(self, call: Call) -> JsonObject:
        listed: JsonObject = {}
        for protocol in dict.fromkeys(each for appservice in self.hs.appservices for each in appservice.protocols):
            metadata = self.merged(protocol)
            if metadata is None:
                return listed
            listed[protocol] = metadata
        return listed

    def instead(self, protocol: str) -> JsonObject | None:
        return None


# Look-ups


class _LookUps(ThirdParty):
    """One kind of look-ups is passed on otherwise."""

    #: The kind; None: both.
    kind: To | None = None

    def collected(
        self, appservices: list[Registration], about: To, path: str, query: dict[str, str]
    ) -> list[JsonObject]:
        if self.kind in (None, about) and path.count("/") == 3:
            return self.looked_up(appservices, about, path, query)
        return super().collected(appservices, about, path, query)

    def looked_up(
        self, appservices: list[Registration], about: To, path: str, query: dict[str, str]
    ) -> list[JsonObject]:
        """What is found."""
        found = super().collected(appservices, about, path, self.changed_fields(query))
        return [each for each in map(self.result, found) if each is not None]

    def changed_fields(self, query: dict[str, str]) -> dict[str, str]:
        """The fields that are passed on."""
        return query

    def result(self, entry: JsonObject) -> JsonObject | None:
        """What the client gets of something found; None: nothing."""
        return entry


class _UserLookUps(_LookUps):
    kind = To.THIRD_PARTY_USER


class _LocationLookUps(_LookUps):
    kind = To.THIRD_PARTY_LOCATION


@defect("3PN-10")
class SearchFieldsForUsersAreDropped(_UserLookUps):
    """Look-ups of users are passed on without search fields."""

    def changed_fields(self, query: dict[str, str]) -> dict[str, str]:
        return {}


@defect("3PN-10", "3PN-12")
class SearchFieldsAreBracketed(_LookUps):
    """Search fields are passed on as fields[name]."""

    def changed_fields(self, query: dict[str, str]) -> dict[str, str]:
        return {f"fields[{key}]": value for key, value in query.items()}


@defect("3PN-10", "3PN-12")
class SearchFieldsAreEncodedTwice(_LookUps):
    """The values of search fields are encoded twice."""

    def changed_fields(self, query: dict[str, str]) -> dict[str, str]:
        return {key: quote(value) for key, value in query.items()}


@defect("3PN-10")
class OnlyOneSearchFieldForUsers(_UserLookUps):
    """Look-ups of users are passed on with their first search field."""

    def changed_fields(self, query: dict[str, str]) -> dict[str, str]:
        return dict(list(query.items())[:1])


@defect("3PN-10", "3PN-12")
class SearchFieldsHaveALimit(_LookUps):
    """A further search field is passed on."""

    def changed_fields(self, query: dict[str, str]) -> dict[str, str]:
        return query | {"limit": "10"}


@defect("3PN-10")
class EmptySearchFieldsAreDropped(ThirdParty):
    """Search fields without a value are not passed on."""

    def fields(self, call: Call) -> dict[str, str]:
        return {key: value for key, value in super().fields(call).items() if value}


@defect("3PN-10")
class SearchFieldsCalledLimitAreDropped(ThirdParty):
    """Search fields that are called like a parameter of other calls are not passed on."""

    def fields(self, call: Call) -> dict[str, str]:
        return {key: value for key, value in super().fields(call).items() if key not in ("limit", "from", "dir")}


@defect("3PN-11", "3PN-13")
class AppservicesCannotLookUp(ThirdParty):
    """Look-ups are for clients: appservices are refused with 403."""

    def found(self, call: Call, about: To, kind: str, protocol: str) -> list[JsonObject]:
        if call.requester.appservice is not None:
            raise MatrixError(403, "M_FORBIDDEN", "for clients only")
        return super().found(call, about, kind, protocol)


@defect("3PN-11")
class OnlyTheFirstUserIsFound(_UserLookUps):
    """Only the first of the users found is given to the client."""

    def looked_up(
        self, appservices: list[Registration], about: To, path: str, query: dict[str, str]
    ) -> list[JsonObject]:
        return super().looked_up(appservices, about, path, query)[:1]


@defect("3PN-11")
class FoundUsersHaveNoFields(_UserLookUps):
    """The users found are given to the client without their fields."""

    def result(self, entry: JsonObject) -> JsonObject | None:
        return entry | {"fields": {}}


@defect("3PN-11")
class OnlyOwnUsersAreFound(_UserLookUps):
    """Users found are given to the client only when they are local."""

    def result(self, entry: JsonObject) -> JsonObject | None:
        return entry if self.hs.is_local(str(entry.get("userid"))) else None


@defect("3PN-12")
class LocationsAreLookedUpAsUsers(_LocationLookUps):
    """A look-up of locations is passed on as one of users."""

    def looked_up(
        self, appservices: list[Registration], about: To, path: str, query: dict[str, str]
    ) -> list[JsonObject]:
        return super().looked_up(appservices, about, path.replace("/location/", "/user/"), query)


@defect("3PN-12")
class SearchFieldsForLocationsAreCutAtTheHash(_LocationLookUps):
    """The values of search fields for locations end before a #."""

    def changed_fields(self, query: dict[str, str]) -> dict[str, str]:
        return {key: value.partition("#")[0] for key, value in query.items()}


@defect("3PN-13")
class FoundLocationsHaveNoAlias(_LocationLookUps):
    """The locations found are given to the client without their alias."""

    def result(self, entry: JsonObject) -> JsonObject | None:
        return {key: value for key, value in entry.items() if key != "alias"}


@defect("3PN-13")
class FoundLocationsStandInAnObject(_LocationLookUps):
    """The locations found are given to the client in an object."""

    def looked_up(self, appservices: list[Registration], about: To, path: str, query: dict[str, str]) -> Any:
        return {"chunk": super().looked_up(appservices, about, path, query)}


class _Askers(ThirdParty):
    """Appservices are asked about protocols that they do not declare; what they say is not used."""

    def those_with(self, protocol: str) -> list[Registration]:
        return self.bridges() if super().those_with(protocol) else []

    def fetched(self, appservice: Registration, about: To, path: str, query: dict[str, str]) -> Any:
        found = None
        segments = path.split("/")
        declared = len(segments) < 4 or segments[3] in map(self.hs.outgoing.segment, appservice.protocols)
        if declared or self.asks(about):
            found = super().fetched(appservice, about, path, query)
        return found if declared else None

    def asks(self, about: To) -> bool:
        """Whether this is asked of all."""
        raise NotImplementedError


@defect("3PN-14")
class AllAreAskedForLookUps(_Askers):
    """Every appservice with protocols is asked for every look-up."""

    def asks(self, about: To) -> bool:
        return about is not To.PROTOCOL


@defect("3PN-14")
class AllAreAskedForMetadata(_Askers):
    """Every appservice with protocols is asked for the metadata of all declared ones."""

    def asks(self, about: To) -> bool:
        return about is To.PROTOCOL


class _NothingFound(_LookUps):
    """What finds nothing is answered otherwise."""

    def looked_up(
        self, appservices: list[Registration], about: To, path: str, query: dict[str, str]
    ) -> list[JsonObject]:
        try:
            return super().looked_up(appservices, about, path, query)
        except MatrixError:
            return self.nothing()

    def nothing(self) -> list[JsonObject]:
        """The answer where nothing is found."""
        raise NotImplementedError


@defect("3PN-15")
class NothingFoundIsAServerError(_NothingFound):
    """A look-up that finds nothing is answered with 500."""

    def nothing(self) -> list[JsonObject]:
        raise RuntimeError("nothing found")


@defect("3PN-15")
class NothingFoundIsAnEmptyList(_NothingFound):
    """A look-up that finds nothing is answered with an empty list."""

    def nothing(self) -> list[JsonObject]:
        return []


@defect("3PN-15")
class NoLocationFoundIsBadRequest(_NothingFound):
    """A look-up of locations that finds nothing is answered with 400."""

    kind = To.THIRD_PARTY_LOCATION

    def nothing(self) -> list[JsonObject]:
        raise MatrixError(400, "M_INVALID_PARAM", "no such location")


@defect("3PN-15")
class TheErrorOfTheAppserviceIsPassedOn(_NothingFound):
    """A look-up that finds nothing is answered with the errcode of the appservice."""

    def nothing(self) -> list[JsonObject]:
        raise MatrixError(404, "HQ.CONFORMANCE.NOT_FOUND", "nothing found")


class _Reverse(ThirdParty):
    """Reverse look-ups are passed on otherwise."""

    def collected(
        self, appservices: list[Registration], about: To, path: str, query: dict[str, str]
    ) -> list[JsonObject]:
        if path.count("/") == 2:
            return self.reverse(appservices, about, path, query)
        return super().collected(appservices, about, path, query)

    def reverse(self, appservices: list[Registration], about: To, path: str, query: dict[str, str]) -> list[JsonObject]:
        """What is found."""
        return super().collected(appservices, about, path, query)


@defect("3PN-16", "3PN-17")
class ReverseLookUpsAreOfTheProtocolNone(_Reverse):
    """A reverse look-up is passed on as one in a protocol called None."""

    def reverse(self, appservices: list[Registration], about: To, path: str, query: dict[str, str]) -> list[JsonObject]:
        return super().reverse(appservices, about, f"{path}/None", query)


@defect("3PN-16")
class UsersAreNotLookedUpInReverse(ThirdParty):
    """There is no reverse look-up of users."""

    def user(self, call: Call) -> list[JsonObject]:
        raise self.hs.errors.unknown_path()


@defect("3PN-16", "3PN-17")
class WhatIsFoundInReverseIsDropped(_Reverse):
    """What an appservice finds in a reverse look-up does not reach the client."""

    def reverse(self, appservices: list[Registration], about: To, path: str, query: dict[str, str]) -> list[JsonObject]:
        super().reverse(appservices, about, path, query)
        return []


@defect("3PN-16", "3PN-17")
class PlusSignsOfReverseLookUpsAreBlanks(_Reverse):
    """A plus sign in what is looked up in reverse is passed on as a blank."""

    def reverse(self, appservices: list[Registration], about: To, path: str, query: dict[str, str]) -> list[JsonObject]:
        return super().reverse(appservices, about, path, {key: value.replace("+", " ") for key, value in query.items()})


@defect("3PN-17")
class AliasesOfReverseLookUpsAreDecodedTwice(_Reverse):
    """What looks percent-encoded in an alias is decoded before it is looked up in reverse."""

    def reverse(self, appservices: list[Registration], about: To, path: str, query: dict[str, str]) -> list[JsonObject]:
        return super().reverse(appservices, about, path, {key: unquote(value) for key, value in query.items()})


@defect("3PN-17")
class AliasesAreCutAtTheHash(_Reverse):
    """The alias of a reverse look-up is not encoded, and lost from its # on."""

    def reverse(self, appservices: list[Registration], about: To, path: str, query: dict[str, str]) -> list[JsonObject]:
        cut = {key: value.partition("#")[0] for key, value in query.items()}
        return super().reverse(appservices, about, path, cut)


@defect("3PN-17")
class AliasesAreLookedUpAsUsers(_Reverse):
    """The alias of a reverse look-up is passed on in userid."""

    def reverse(self, appservices: list[Registration], about: To, path: str, query: dict[str, str]) -> list[JsonObject]:
        return super().reverse(appservices, about, path, {"userid": next(iter(query.values()))})


@defect("3PN-18")
class LookUpsNeedNoToken(ThirdParty):
    """Anybody may look up users."""

    @endpoint("GET", "/thirdparty/user/<protocol>", authenticated=False, waits=True)
    def users(self, call: Call, protocol: str) -> list[JsonObject]:
        """Look up users of a protocol by its fields."""
        return self.found(call, To.THIRD_PARTY_USER, "user", protocol)

    def fields(self, call: Call) -> dict[str, str]:
        return {key: value for key, value in call.query.items() if key not in ("access_token", "user_id")}


@defect("3PN-18")
class TheListNeedsNoToken(ThirdParty):
    """Anybody may list the protocols."""

    @endpoint("GET", "/thirdparty/protocols", authenticated=False, waits=True)
    def protocols(self, call: Call) -> JsonObject:
        """The metadata of all protocols whose appservices answer with any."""
        return super().protocols(call)


@defect("3PN-18")
class AppservicesAreAskedForStrangers(Identity):
    """A look-up without a token is passed on before it is refused."""

    def of(self, call: Call) -> Requester:
        if call.token is None and call.path.endswith("/thirdparty/location"):
            for appservice in self.hs.third_party.bridges():
                query = {"alias": call.query.get("alias", "")}
                self.hs.third_party.fetched(appservice, To.THIRD_PARTY_LOCATION, "/thirdparty/location", query)
        return super().of(call)


@defect("3PN-18")
class StrangersAreForbiddenToLookUp(Identity):
    """A look-up without a token is refused with 403 M_FORBIDDEN."""

    def of(self, call: Call) -> Requester:
        if call.token is None and "/thirdparty/" in call.path:
            raise MatrixError(403, "M_FORBIDDEN", "log in first")
        return super().of(call)


class _Paths(ThirdParty):
    """Protocol IDs are written otherwise into paths."""

    def fetched(self, appservice: Registration, about: To, path: str, query: dict[str, str]) -> Any:
        for protocol in appservice.protocols:
            ending = f"/{self.hs.outgoing.segment(protocol)}"
            if path.endswith(ending):
                path = f"{path.removesuffix(ending)}/{self.written(about, protocol)}"
                break
        return super().fetched(appservice, about, path, query)

    def written(self, about: To, protocol: str) -> str:
        """A protocol ID in a path."""
        raise NotImplementedError


@defect("3PN-19")
class ProtocolIdsAreEncodedTwice(_Paths):
    """Protocol IDs are encoded twice."""

    def written(self, about: To, protocol: str) -> str:
        return quote(quote(protocol, safe=""), safe="")


@defect("3PN-19")
class ProtocolIdsAreEncodedAsForms(_Paths):
    """The blank of a protocol ID is written as a plus."""

    def written(self, about: To, protocol: str) -> str:
        return quote_plus(protocol)


@defect("3PN-19")
class SlashesOfProtocolIdsAreNotEncoded(_Paths):
    """The slash of a protocol ID is written as it is."""

    def written(self, about: To, protocol: str) -> str:
        return quote(protocol)


@defect("3PN-19")
class ProtocolIdsAreCutInLookUps(_Paths):
    """A look-up is passed on in what of the protocol ID stands before a blank."""

    def written(self, about: To, protocol: str) -> str:
        return quote(protocol if about is To.PROTOCOL else protocol.partition(" ")[0], safe="")


@defect("3PN-19")
class HashesOfProtocolIdsBeginAFragment(_Paths):
    """The hash of a protocol ID is written as it is, so that the rest is lost."""

    def written(self, about: To, protocol: str) -> str:
        return quote(protocol.partition("#")[0], safe="")


@defect("3PN-19")
class ProtocolIdsAreLatin1(_Paths):
    """The characters of a protocol ID are encoded as Latin-1."""

    def written(self, about: To, protocol: str) -> str:
        return quote(protocol.encode("latin-1", "replace"), safe="")


class _Malformed(ThirdParty):
    """Malformed metadata is treated otherwise."""

    def merged(self, protocol: str) -> JsonObject | None:
        for appservice in self.those_with(protocol):
            path = f"/thirdparty/protocol/{self.hs.outgoing.segment(protocol)}"
            fetched = self.fetched(appservice, To.PROTOCOL, path, {})
            if fetched is not None and not self.is_metadata(fetched):
                replaced: JsonObject | None = self.instead(fetched)
                return replaced
        return super().merged(protocol)

    def instead(self, fetched: Any) -> Any:
        """What the protocol is."""
        raise NotImplementedError


@defect("3PN-20")
class MalformedMetadataIsPassedOn(_Malformed):
    """Malformed metadata stands in the list as it is."""

    def instead(self, fetched: Any) -> Any:
        return fetched


@defect("3PN-20")
class MalformedMetadataBreaksTheList(_Malformed):
    """Malformed metadata of one protocol makes the list fail with 500."""

    def instead(self, fetched: Any) -> Any:
        raise TypeError("no metadata")


@defect("3PN-20")
class MalformedMetadataIsListedEmpty(_Malformed):
    """A protocol with malformed metadata is listed as {}."""

    def instead(self, fetched: Any) -> Any:
        return {}


@defect("3PN-20")
class ProtocolsOfFailingAppservicesAreEmpty(ThirdParty):
    """A protocol whose metadata is answered with 500 is listed as {}."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._failing: set[str] = set()

    def fetched(self, appservice: Registration, about: To, path: str, query: dict[str, str]) -> Any:
        try:
            reply = self.hs.outgoing.ask(appservice, about, "GET", path, query=query)
        except NoResponse:
            return None
        if reply.status >= 500:
            self._failing.add(path.rpartition("/")[2])
        return reply.json if reply.ok else None

    def merged(self, protocol: str) -> JsonObject | None:
        metadata = super().merged(protocol)
        return {} if metadata is None and self.hs.outgoing.segment(protocol) in self._failing else metadata


@defect("3PN-21")
class AppservicesWithoutUrlAreAsked(ThirdParty):
    """A protocol of an appservice without a url makes the list and its own look-up fail with 500."""

    def those_with(self, protocol: str) -> list[Registration]:
        return [each for each in self.hs.appservices if protocol in each.protocols]

    def fetched(self, appservice: Registration, about: To, path: str, query: dict[str, str]) -> Any:
        if appservice.url is None:
            raise TypeError("there is no url")
        return super().fetched(appservice, about, path, query)


@defect("3PN-21")
class AppservicesWithoutUrlBreakTheList(ThirdParty):
    """A protocol of an appservice without a url makes the list fail with 500, not its own look-up."""

    def protocols(self, call: Call) -> JsonObject:
        if any(each.protocols and each.url is None for each in self.hs.appservices):
            raise TypeError("there is no url")
        return super().protocols(call)


@defect("3PN-21")
class ProtocolsWithoutUrlFail(ThirdParty):
    """The look-up of a protocol of an appservice without a url fails with 500; it is left out of the list."""

    def protocol(self, call: Call, protocol: str) -> JsonObject:
        if not self.those_with(protocol) and any(protocol in each.protocols for each in self.hs.appservices):
            raise TypeError("there is no url")
        return super().protocol(call, protocol)


class _OneFailingLookUpFailsAll(ThirdParty):
    """A look-up fails as a whole when one of several appservices has no answer to it."""

    #: What is looked up.
    about: To

    def collected(
        self, appservices: list[Registration], about: To, path: str, query: dict[str, str]
    ) -> list[JsonObject]:
        if about is self.about and any(self.fetched(each, about, path, query) is None for each in appservices):
            raise MatrixError(404, "M_NOT_FOUND", "nothing was found")
        return super().collected(appservices, about, path, query)


@defect("3PN-11", also=("3PN-10", "3PN-16"))
class OneFailingLookUpOfUsersFailsAll(_OneFailingLookUpFailsAll):
    """A look-up of users finds nothing when one of several appservices knows nothing."""

    about = To.THIRD_PARTY_USER


@defect("3PN-13", also=("3PN-12", "3PN-17"))
class OneFailingLookUpOfLocationsFailsAll(_OneFailingLookUpFailsAll):
    """A look-up of locations finds nothing when one of several appservices knows nothing."""

    about = To.THIRD_PARTY_LOCATION


@defect("3PN-10", "3PN-12")
class WhoAsksIsToldToo(ThirdParty):
    """The `user_id` of an appservice that looks something up as a ghost is passed on like a search field."""

    def fields(self, call: Call) -> dict[str, str]:
        own = {key: value for key, value in call.query.items() if key == "user_id"}
        return super().fields(call) | own
