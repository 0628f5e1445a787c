"""Mutants of area 3PN."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment"

from __future__ import annotations

from copy import deepcopy

from tests.mutants import mutant


def _mend() -> None:
    """Have an appservice without a url have no metadata: the list of protocols is 500 otherwise."""

    async def get(api, service, protocol, right):
        return await right(api, service, protocol) if service.url else None

    _metadata_instead(get)


def _metadata_instead(get) -> None:
    """Have `get(api, service, protocol, right)` get an appservice's metadata."""
    from synapse.appservice.api import ApplicationServiceApi

    right = ApplicationServiceApi.get_3pe_protocol

    async def got(self, service, protocol):
        return await get(self, service, protocol, right)

    ApplicationServiceApi.get_3pe_protocol = got


def _edited(edit) -> None:
    """Have `edit(service, protocol, metadata)` change metadata."""

    async def get(api, service, protocol, right):
        metadata = deepcopy(await right(api, service, protocol))
        if metadata:
            edit(service, protocol, metadata)
        return metadata

    _metadata_instead(get)


def _listed_instead(make) -> None:
    """Have `make(handler, protocols, only)` make what is told of protocols of what is right."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    right = ApplicationServicesHandler.get_3pe_protocols

    async def get(self, only_protocol=None):
        return await make(self, await right(self, only_protocol), only_protocol)

    ApplicationServicesHandler.get_3pe_protocols = get


def _found_instead(query) -> None:
    """Have `query(api, service, kind, protocol, fields, right)` look something up at an appservice."""
    from synapse.appservice.api import ApplicationServiceApi

    right = ApplicationServiceApi.query_3pe

    async def found(self, service, kind, protocol, fields):
        return await query(self, service, kind, protocol, fields, right)

    ApplicationServiceApi.query_3pe = found


@mutant("3PN-01")
def only_the_first_protocol_is_listed() -> None:
    """Of each appservice the first protocol is listed, and no other."""
    _mend()

    async def make(handler, protocols, only):
        first = {min(each.protocols) for each in handler.store.get_app_services() if each.protocols}
        return protocols if only else {key: value for key, value in protocols.items() if key in first}

    _listed_instead(make)


@mutant("3PN-01", also=("3PN-02", "3PN-06"))
def only_one_appservice_is_listed() -> None:
    """The protocols of the first appservice that has any are listed, and no others."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    _mend()

    right = ApplicationServicesHandler.get_3pe_protocols

    async def get(self, only_protocol=None):
        found = await right(self, only_protocol)
        first = next(each for each in self.store.get_app_services() if each.protocols)
        return found if only_protocol else {key: value for key, value in found.items() if key in first.protocols}

    ApplicationServicesHandler.get_3pe_protocols = get


@mutant("3PN-02", also=("3PN-01", "3PN-06"))
def metadata_is_fetched_when_it_is_asked_for() -> None:
    """The list of protocols has what has been asked for one by one; else nothing is fetched."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    right = ApplicationServicesHandler.get_3pe_protocols
    known: dict[str, object] = {}

    async def get(self, only_protocol=None):
        if only_protocol is None:
            return dict(known)
        found = await right(self, only_protocol)
        known.update(found)
        return found

    ApplicationServicesHandler.get_3pe_protocols = get


@mutant("3PN-03")
def metadata_has_no_icon() -> None:
    """Protocols have no icon."""
    _edited(lambda service, protocol, metadata: metadata.pop("icon", None))


@mutant("3PN-03")
def field_types_are_a_list() -> None:
    """The types of fields are a list."""
    _edited(lambda service, protocol, metadata: metadata.update(field_types=list(metadata["field_types"])))


@mutant("3PN-04")
def regexes_are_escaped() -> None:
    """The regexes of fields are escaped once more."""

    def edit(service, protocol, metadata):
        for each in metadata["field_types"].values():
            each["regexp"] = each["regexp"].replace("\\", "\\\\")

    _edited(edit)


@mutant("3PN-04")
def fields_are_sorted() -> None:
    """The fields of users and locations are sorted by name."""
    _edited(
        lambda service, protocol, metadata: metadata.update(
            user_fields=sorted(metadata["user_fields"]), location_fields=sorted(metadata["location_fields"])
        )
    )


@mutant("3PN-04")
def instances_lose_their_icons() -> None:
    """Instances have no icon of their own."""

    def edit(service, protocol, metadata):
        for each in metadata["instances"]:
            each.pop("icon", None)

    _edited(edit)


def _instances(name) -> None:
    """Give each instance the id that `name(service, protocol, number, instance)` makes."""

    def edit(service, protocol, metadata):
        for number, each in enumerate(metadata["instances"]):
            each["instance_id"] = name(service, protocol, number, each)

    _edited(edit)


@mutant("3PN-05")
def instances_are_numbered() -> None:
    """The ids of instances are their numbers in their protocol."""
    _instances(lambda service, protocol, number, each: f"{protocol}-{number}")


@mutant("3PN-05")
def instances_are_their_networks() -> None:
    """The id of an instance is that of its network."""
    _instances(lambda service, protocol, number, each: each.get("network_id"))


@mutant("3PN-06")
def a_single_protocol_is_that_of_one() -> None:
    """A protocol by itself has the instances of the first appservice only."""
    _mend()

    async def make(handler, protocols, only):
        if only in protocols:
            found = dict(protocols[only])
            found["instances"] = found["instances"][:1]
            return {only: found}
        return protocols

    _listed_instead(make)


@mutant("3PN-06")
def a_single_protocol_has_its_name() -> None:
    """A protocol by itself is told with a key more than in the list."""
    _mend()

    async def make(handler, protocols, only):
        return {key: {**value, "id": key} for key, value in protocols.items()} if only else protocols

    _listed_instead(make)


@mutant("3PN-09")
def what_is_denied_is_empty() -> None:
    """A protocol that its appservice does not know is told without instances."""
    _mend()

    async def get(api, service, protocol, right):
        found = await right(api, service, protocol)
        if found is None and protocol == "hqp-gone":
            return {"user_fields": [], "location_fields": [], "icon": "", "field_types": {}, "instances": []}
        return found

    _metadata_instead(get)


def _fields_instead(kind: str, change) -> None:
    """Have `change(fields)` change the search fields of look-ups of a kind."""

    async def query(api, service, asked, protocol, fields, right):
        changed = change(fields) if asked == kind else fields
        return await right(api, service, asked, protocol, changed)

    _found_instead(query)


@mutant("3PN-10", also=("3PN-16",))
def only_one_field_of_users_is_passed_on() -> None:
    """A look-up of users is passed on with its first search field only."""
    _fields_instead("user", lambda fields: dict(list(fields.items())[:1]))


@mutant("3PN-10", also=("3PN-16",))
def plus_signs_of_users_are_blanks() -> None:
    """Plus signs in the fields of a look-up of users are decoded once too often."""
    _fields_instead("user", lambda fields: {k: [v.replace(b"+", b" ") for v in vs] for k, vs in fields.items()})


@mutant("3PN-12", also=("3PN-17",))
def only_one_field_of_locations_is_passed_on() -> None:
    """A look-up of locations is passed on with its last search field only."""
    _fields_instead("location", lambda fields: dict(list(fields.items())[-1:]))


@mutant("3PN-12", also=("3PN-17",))
def fields_of_locations_are_lower_case() -> None:
    """The fields of a look-up of locations are passed on in ASCII."""
    _fields_instead(
        "location", lambda fields: {k: [v.decode("ascii", "ignore") for v in vs] for k, vs in fields.items()}
    )


def _results_instead(kind: str, change) -> None:
    """Have `change(results)` change what a look-up of a kind finds."""

    async def query(api, service, asked, protocol, fields, right):
        found = await right(api, service, asked, protocol, fields)
        return change(found) if asked == kind else found

    _found_instead(query)


@mutant("3PN-11")
def only_the_first_user_is_found() -> None:
    """Of the users that a look-up finds, clients are told the first."""
    _results_instead("user", lambda found: found[:1])


@mutant("3PN-11")
def found_users_lose_their_fields() -> None:
    """What else is known of a user that was found is not told."""
    _results_instead("user", lambda found: [{**each, "fields": {}} for each in found])


@mutant("3PN-13")
def only_the_first_location_is_found() -> None:
    """Of the locations that a look-up finds, clients are told the first."""
    _results_instead("location", lambda found: found[:1])


@mutant("3PN-13")
def found_locations_have_users() -> None:
    """The alias of a location that was found is told under userid."""
    _results_instead("location", lambda found: [{**each, "userid": each["alias"]} for each in found])


@mutant("3PN-14", also=("3PN-10", "3PN-11", "3PN-12", "3PN-13"))
def everybody_is_asked_about_a_protocol() -> None:
    """A look-up reaches all appservices that have any protocol."""
    from synapse.appservice import ApplicationService

    ApplicationService.is_interested_in_protocol = lambda self, protocol: bool(self.protocols)


def _strangers_may(servlet_name: str) -> None:
    from synapse.rest.client import thirdparty

    servlet = getattr(thirdparty, servlet_name)
    plain = servlet.__init__

    class Anybody:
        async def get_user_by_req(self, request, **options):
            return None

    def init(self, hs):
        plain(self, hs)
        self.auth = Anybody()

    servlet.__init__ = init


@mutant("3PN-18")
def strangers_may_look_users_up() -> None:
    """A look-up of users needs no token."""
    _strangers_may("ThirdPartyUserServlet")


@mutant("3PN-18")
def strangers_may_see_a_protocol() -> None:
    """A single protocol is told without a token."""
    _strangers_may("ThirdPartyProtocolServlet")


@mutant("3PN-20")
def malformed_metadata_has_no_instances() -> None:
    """What an appservice says of a protocol in no form at all is told as metadata without anything."""
    _mend()

    async def get(api, service, protocol, right):
        found = await right(api, service, protocol)
        return {"instances": []} if found is None and protocol == "hqp-bad" else found

    _metadata_instead(get)


@mutant("3PN-20", also=("3PN-01", "3PN-06"))
def malformed_metadata_breaks_the_list() -> None:
    """The list of protocols is answered 500 when an appservice says something else than metadata of one."""
    _mend()

    async def get(api, service, protocol, right):
        found = await right(api, service, protocol)
        assert found is not None or protocol != "hqp-bad"
        return found

    _metadata_instead(get)
