"""Mutants of area INV."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment"

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from tests.mutants import mutant
from tests.mutants._wire import requests


def _errors(change) -> None:
    """Change the JSON object of every error answer."""
    from synapse.api.errors import SynapseError

    for kind in (SynapseError, *SynapseError.__subclasses__()):
        if "error_dict" in vars(kind):
            _changed_errors(kind, change)


def _changed_errors(kind, change) -> None:
    plain = kind.error_dict

    def error_dict(self, config):
        found = dict(plain(self, config))
        change(self, found)
        return found

    kind.error_dict = error_dict


#: The homeserver, once it has been made.
HS: list[Any] = []


@mutant("INV-01", also=("INV-03", "INV-09"))
def errors_have_no_errcode() -> None:
    """Error answers have no errcode."""
    _errors(lambda error, found: found.pop("errcode", None))


@mutant("INV-01")
def what_is_not_found_has_a_numeric_errcode() -> None:
    """The errcode of answers about what is not found is a number."""
    _errors(lambda error, found: found.update(errcode=404) if found.get("errcode") == "M_NOT_FOUND" else None)


@mutant("INV-01")
def errors_have_no_text() -> None:
    """Error answers have no error text."""
    _errors(lambda error, found: found.pop("error", None))


@mutant("INV-01")
def broken_json_is_answered_in_html() -> None:
    """The answer to a body that is not JSON is an HTML page."""
    from synapse.http import server

    plain = server.return_json_error

    def answer(failure, request, config):
        if getattr(failure.value, "errcode", "") != "M_NOT_JSON":
            return plain(failure, request, config)
        request.setResponseCode(400)
        request.write(b"<html>no</html>")
        request.finish()
        return None

    server.return_json_error = answer


def _before_each_push(method, path) -> None:
    """Have another request made before every transaction."""
    from synapse.appservice.api import ApplicationServiceApi

    plain = ApplicationServiceApi.push_bulk

    async def push(self, service, *args, **kwargs):
        if service.url:
            await self.request(method, service.url + path)
        return await plain(self, service, *args, **kwargs)

    ApplicationServiceApi.push_bulk = push


@mutant("INV-02")
def appservices_are_probed() -> None:
    """Before each transaction the homeserver probes the appservice's base path."""
    _before_each_push("GET", "/")


@mutant("INV-02")
def transactions_are_listed() -> None:
    """Before each transaction the homeserver asks for a list of transactions."""
    _before_each_push("GET", "/_matrix/app/v1/transactions")


@mutant("INV-02")
def alias_queries_are_heads() -> None:
    """Alias queries are made with another method."""
    requests(lambda request: setattr(request, "method", "POST" if "/app/v1/rooms/" in request.uri else request.method))


@mutant("INV-03")
def unknown_methods_are_not_found() -> None:
    """A wrong method is answered 404 like an unknown endpoint."""
    from synapse.api.errors import UnrecognizedRequestError

    plain = UnrecognizedRequestError.__init__
    UnrecognizedRequestError.__init__ = lambda self, msg="?", code=404: plain(self, msg, 404)


@mutant("INV-03")
def unknown_endpoints_are_bad_requests() -> None:
    """An unknown endpoint is answered with M_NOT_FOUND."""
    from synapse.api.errors import UnrecognizedRequestError

    def change(error, found):
        if isinstance(error, UnrecognizedRequestError) and error.code == 404:
            found["errcode"] = "M_NOT_FOUND"

    _errors(change)


@mutant("INV-04")
def unknown_keys_of_ghosts_are_stripped() -> None:
    """external_url is stripped from what ghosts send."""
    _content_of_ghosts(lambda content: content.pop("external_url", None))


@mutant("INV-04")
def urls_of_ghosts_are_encoded() -> None:
    """The external_url of what ghosts send is percent-encoded once more."""

    def change(content):
        if "external_url" in content:
            content["external_url"] = quote(content["external_url"], safe=":/")

    _content_of_ghosts(change)


def _content_of_ghosts(change) -> None:
    from synapse.handlers.message import EventCreationHandler

    plain = EventCreationHandler.create_event

    async def create(self, requester, event_dict, *args, **kwargs):
        if requester.app_service_id:
            change(event_dict["content"])
        return await plain(self, requester, event_dict, *args, **kwargs)

    EventCreationHandler.create_event = create


def _on_404(fails, verb, outcome) -> None:
    """Have a query end otherwise when its 404 is such that `fails(body)`."""
    from synapse.api.errors import HttpResponseException, SynapseError
    from synapse.appservice.api import ApplicationServiceApi

    async def query(self, service, subject):
        path = {"query_user": "users", "query_alias": "rooms"}[verb]
        if service.url is None:
            return False
        try:
            uri = f"{service.url}/_matrix/app/v1/{path}/{quote(subject)}"
            await self.get_json(uri, headers=self._get_headers(service))
            return True
        except HttpResponseException as error:
            if error.code == 404 and fails(error.response):
                if isinstance(outcome, int):
                    raise SynapseError(outcome, "bad appservice") from error
                await outcome(self, subject)
            return False

    setattr(ApplicationServiceApi, verb, query)


@mutant("INV-05")
def a_404_about_an_alias_needs_a_body() -> None:
    """The join of an alias fails with a server error when the appservice's 404 has no body."""
    _on_404(lambda body: not body, "query_alias", 502)


@mutant("INV-05")
def a_404_about_an_alias_needs_a_known_errcode() -> None:
    """The join of an alias fails with a server error when the appservice's 404 has an errcode of its own."""
    _on_404(lambda body: b"errcode" in body and b"M_NOT_FOUND" not in body, "query_alias", 500)


@mutant("INV-05")
def a_404_about_a_user_needs_a_body() -> None:
    """A user is created when the appservice's 404 has no body."""

    async def create(api, user_id):
        await HS[0].get_datastores().main.register_user(user_id=user_id)

    _remember_the_homeserver()
    _on_404(lambda body: not body, "query_user", create)


def _remember_the_homeserver() -> None:
    from synapse.appservice.api import ApplicationServiceApi

    plain = ApplicationServiceApi.__init__

    def init(self, hs):
        HS.append(hs)
        plain(self, hs)

    ApplicationServiceApi.__init__ = init


def _strict(verb) -> None:
    """Take a successful answer with any key for a failure."""
    from synapse.appservice.api import ApplicationServiceApi

    plain = getattr(ApplicationServiceApi, verb)

    async def call(self, *args, **kwargs):
        answer = await plain(self, *args, **kwargs)
        if isinstance(answer, dict) and "extra" in answer:
            raise ValueError("unknown keys")
        return answer

    setattr(ApplicationServiceApi, verb, call)


@mutant("INV-06")
def acknowledgements_are_decoded_strictly() -> None:
    """A transaction whose 200 has unknown keys is retried."""
    _strict("put_json")


@mutant("INV-06")
def answers_to_queries_are_decoded_strictly() -> None:
    """A query whose 200 has unknown keys has failed."""
    _strict("get_json")


@mutant("INV-06")
def answers_to_pings_are_decoded_strictly() -> None:
    """A ping whose 200 has unknown keys has failed."""
    _strict("post_json_get_json")


@mutant("REG-04")
def one_appservice_is_forgotten() -> None:
    """Nothing is pushed to one of the healthy appservices."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    plain = ApplicationServicesHandler._get_services_for_event

    async def interested(self, event):
        return [service for service in await plain(self, event) if service.id != "hq-limited"]

    ApplicationServicesHandler._get_services_for_event = interested


@mutant("INV-07")
def an_as_token_expires() -> None:
    """The as_token of an appservice works once only."""
    from synapse.storage.databases.main.appservice import ApplicationServiceWorkerStore

    plain = ApplicationServiceWorkerStore.get_app_service_by_token
    uses: list[str] = []

    def by_token(self, token):
        service = plain(self, token)
        if service is not None and service.id == "hq-v5":
            uses.append(token)
        return service if service is None or service.id != "hq-v5" or len(uses) < 2 else None

    ApplicationServiceWorkerStore.get_app_service_by_token = by_token


@mutant("INV-08")
def messages_wait_for_appservices() -> None:
    """The answer to a message waits until the appservice Q has acknowledged what it was sent."""
    from synapse.rest.client.room import RoomSendEventRestServlet
    from synapse.util.duration import Duration

    plain = RoomSendEventRestServlet._do

    async def do(self, *args):
        answer = await plain(self, *args)
        hs = self.event_creation_handler.hs
        queuer = hs.get_application_service_scheduler().queuer
        await hs.get_clock().sleep(Duration(milliseconds=50))
        while "hq-query" in queuer.requests_in_flight:
            await hs.get_clock().sleep(Duration(milliseconds=20))
        return answer

    RoomSendEventRestServlet._do = do


@mutant("INV-08")
def appservices_judge_messages() -> None:
    """A message whose transaction an appservice answers 403 is shown to nobody any more."""
    from synapse.appservice.api import ApplicationServiceApi
    from synapse.events.utils import EventClientSerializer

    refused: set[str] = set()
    push, serialize = ApplicationServiceApi.push_bulk, EventClientSerializer.serialize_event

    async def pushed(self, service, events, *args, **kwargs):
        taken = await push(self, service, events, *args, **kwargs)
        if not taken:
            refused.update(event.event_id for event in events)
        return taken

    async def serialized(self, event, *args, **kwargs):
        shown = await serialize(self, event, *args, **kwargs)
        return {**shown, "content": {}} if shown.get("event_id") in refused else shown

    ApplicationServiceApi.push_bulk = pushed
    EventClientSerializer.serialize_event = serialized
