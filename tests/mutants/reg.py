"""Mutants of area REG."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment, misc"

from __future__ import annotations

from tests.mutants import mutant


def _loaded(change) -> None:
    """Change the list of appservices as Synapse has loaded it."""
    from synapse.storage.databases.main import appservice

    plain = appservice.load_appservices
    appservice.load_appservices = lambda hostname, files: change(plain(hostname, files))


def _matching(seen) -> None:
    """Match regexes against something else than the ID."""
    from synapse.appservice import ApplicationService

    plain = ApplicationService._matches_regex
    ApplicationService._matches_regex = lambda self, key, text: plain(self, key, seen(text))


def _entries(change) -> None:
    """Change the compiled entries of every list of namespaces."""
    from synapse.appservice import ApplicationService

    plain = ApplicationService._check_namespaces

    def check(self, namespaces):
        return {key: change(entries) for key, entries in plain(self, namespaces).items()}

    ApplicationService._check_namespaces = check


@mutant("REG-01")
def only_the_first_registration_is_loaded() -> None:
    """Of several registration files only the first is loaded."""
    _loaded(lambda services: services[:1])


@mutant("REG-01")
def null_urls_are_not_loaded() -> None:
    """A registration without a url is not loaded."""
    _loaded(lambda services: [each for each in services if each.url is not None])


@mutant("REG-01", "REG-02")
def registrations_without_users_are_dropped() -> None:
    """A registration whose namespaces lack users is not loaded."""
    _loaded(lambda services: [each for each in services if each.namespaces["users"]])


@mutant("REG-02")
def without_users_nothing_is_of_interest() -> None:
    """An appservice without users is interested in nothing."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    plain = ApplicationServicesHandler._get_services_for_event

    async def interested(self, event):
        return [service for service in await plain(self, event) if service.namespaces["users"]]

    ApplicationServicesHandler._get_services_for_event = interested


def _rerouted(part: str) -> None:
    """Lose the path of the url in requests whose target contains `part`."""
    import re

    from synapse.http.client import SimpleHttpClient

    plain = SimpleHttpClient.request

    async def request(self, method, uri, data=None, headers=None):
        if part in uri:
            uri = re.sub(r"(https?://[^/]+).*?(/_matrix/)", r"\1\2", uri)
        return await plain(self, method, uri, data, headers)

    SimpleHttpClient.request = request


@mutant("REG-03")
def the_path_of_the_url_is_lost() -> None:
    """The path of an appservice's url is dropped."""
    _rerouted("/_matrix/")


@mutant("REG-03")
def the_path_of_the_url_is_lost_in_pings() -> None:
    """The path of an appservice's url is dropped for pings only."""
    _rerouted("/ping")


@mutant("REG-03")
def the_path_of_the_url_is_lost_in_user_queries() -> None:
    """The path of an appservice's url is dropped for user queries only."""
    _rerouted("/users/")


@mutant("REG-04")
def a_url_with_a_final_slash_is_useless() -> None:
    """Nothing is sent to an appservice whose url ends in a slash."""
    from synapse.appservice import ApplicationService

    plain = ApplicationService.__init__

    def init(self, token, id, sender, url=None, **kwargs):
        plain(self, token, id, sender, None if url and url.endswith("/") else url, **kwargs)

    ApplicationService.__init__ = init


def _without_url(verb: str) -> None:
    """Fail where an appservice without a url is asked something."""
    from synapse.appservice.api import ApplicationServiceApi

    plain = getattr(ApplicationServiceApi, verb)

    async def query(self, service, *args):
        if service.url is None:
            raise RuntimeError("no url")
        return await plain(self, service, *args)

    setattr(ApplicationServiceApi, verb, query)


@mutant("REG-05")
def aliases_of_a_null_url_are_a_server_error() -> None:
    """The join of an unknown alias of an appservice without a url fails with an internal error."""
    _without_url("query_alias")


@mutant("REG-05")
def ghosts_of_a_null_url_cannot_speak() -> None:
    """Messages of ghosts whose appservice has no url fail with an internal error."""
    from synapse.rest.client.room import RoomSendEventRestServlet

    plain = RoomSendEventRestServlet._do

    async def do(self, request, requester, *args):
        if requester.app_service_id == "hq-null":
            raise RuntimeError("no url")
        return await plain(self, request, requester, *args)

    RoomSendEventRestServlet._do = do


@mutant("REG-08", also=("REG-09",))
def only_the_first_entry_counts() -> None:
    """Of each list of namespaces only the first entry is used."""
    _entries(lambda entries: entries[:1])


@mutant("REG-08", also=("REG-09",))
def only_the_last_entry_counts() -> None:
    """Of each list of namespaces only the last entry is used."""
    _entries(lambda entries: entries[-1:])


@mutant("REG-09")
def backslashes_are_lost() -> None:
    """A backslash in a regex is lost when the file is read."""
    import re

    _entries(lambda entries: [type(each)(each.exclusive, re.compile(each.regex.pattern.replace("\\.", ".")))
                              for each in entries])  # fmt: skip


@mutant("REG-09")
def regexes_are_quoted() -> None:
    """Escapes in a regex are taken literally: the backslash itself is looked for."""
    import re

    _entries(lambda entries: [type(each)(each.exclusive, re.compile(each.regex.pattern.replace("\\.dot", "\\\\.dot")))
                              for each in entries])  # fmt: skip


@mutant("REG-11")
def sigils_are_stripped() -> None:
    """IDs are matched without their sigil."""
    _matching(lambda text: text[1:])


@mutant("REG-11")
def sigils_of_aliases_are_stripped() -> None:
    """Aliases are matched without their sigil."""
    _matching(lambda text: text.lstrip("#"))


@mutant("REG-12")
def server_names_are_not_matched() -> None:
    """IDs are matched without the server name."""
    _matching(lambda text: text.partition(":")[0])


@mutant("REG-13")
def anybody_can_register_an_appservice() -> None:
    """The registration endpoint of the drafts is still there."""
    from synapse.app.homeserver import SynapseHomeServer
    from twisted.web.resource import Resource

    class Register(Resource):
        isLeaf = True

        def render_POST(self, request):
            return b'{"hs_token": "for you"}'

    plain = SynapseHomeServer._configure_named_resource

    def configure(self, name, compress=False):
        return plain(self, name, compress) | {"/_matrix/appservice/v1/register": Register()}

    SynapseHomeServer._configure_named_resource = configure


@mutant("REG-13")
def anybody_can_unregister_an_appservice() -> None:
    """The endpoint that ends an appservice is still there, and whoever knows its token can use it."""
    import json

    from synapse.app.homeserver import SynapseHomeServer
    from twisted.web.resource import Resource

    class Unregister(Resource):
        isLeaf = True

        def __init__(self, hs) -> None:
            self.store = hs.get_datastores().main

        def render_POST(self, request):
            token = json.load(request.content).get("as_token")
            for service in self.store.services_cache:
                if service.token == token:
                    service.url = None
            return b"{}"

    plain = SynapseHomeServer._configure_named_resource

    def configure(self, name, compress=False):
        return plain(self, name, compress) | {"/unregister": Unregister(self)}

    SynapseHomeServer._configure_named_resource = configure
