"""Mutants of area AUTH."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment"

from __future__ import annotations

from urllib.parse import quote

from tests.mutants import mutant
from tests.mutants._wire import requests


def _without_header(part: str) -> None:
    requests(lambda request: request.headers.removeHeader("Authorization") if part in request.uri else None)


@mutant("AUTH-01")
def transactions_have_no_token() -> None:
    """Transactions carry no Authorization header."""
    _without_header("/transactions/")


@mutant("AUTH-01")
def transactions_have_two_tokens() -> None:
    """Transactions carry the Authorization header twice."""

    def twice(request):
        if "/transactions/" in request.uri:
            request.headers.setRawHeaders("Authorization", request.headers.getRawHeaders("Authorization") * 2)

    requests(twice)


@mutant("AUTH-01")
def transactions_have_a_bare_token() -> None:
    """The Authorization header of transactions has no scheme."""

    def bare(request):
        if "/transactions/" in request.uri:
            (value,) = request.headers.getRawHeaders("Authorization")
            request.headers.setRawHeaders("Authorization", [value.removeprefix("Bearer ")])

    requests(bare)


@mutant("AUTH-01")
def ephemeral_transactions_have_no_token() -> None:
    """Transactions without events, for ephemeral data, carry no Authorization header."""

    def drop(request):
        if "/transactions/" in request.uri and b'"events":[]' in request.data:
            request.headers.removeHeader("Authorization")

    requests(drop)


@mutant("AUTH-02")
def user_queries_have_no_token() -> None:
    """User queries carry no Authorization header."""
    _without_header("/users/")


@mutant("AUTH-03")
def alias_queries_have_no_token() -> None:
    """Room alias queries carry no Authorization header."""
    _without_header("/app/v1/rooms/")


@mutant("AUTH-04")
def lookups_have_no_token() -> None:
    """Third-party look-ups carry no Authorization header."""
    _without_header("/thirdparty/")


@mutant("AUTH-04")
def location_lookups_have_no_token() -> None:
    """Third-party look-ups of locations, and only these, carry no Authorization header."""
    _without_header("/thirdparty/location/")


@mutant("AUTH-05")
def pings_have_no_token() -> None:
    """Pings carry no Authorization header."""
    _without_header("/ping")


@mutant("AUTH-01", "AUTH-02", "AUTH-03", "AUTH-04", "AUTH-05", "AUTH-10")
def the_as_token_is_sent() -> None:
    """Requests to an appservice carry its as_token in place of the hs_token."""
    from synapse.appservice.api import ApplicationServiceApi

    ApplicationServiceApi._get_headers = lambda self, service: {b"Authorization": [f"Bearer {service.token}".encode()]}


def _token_of(place: int) -> None:
    from synapse.appservice.api import ApplicationServiceApi
    from synapse.config import appservice as config

    tokens: list[str] = []
    plain = config.load_appservices

    def load(hostname, files):
        services = plain(hostname, files)
        tokens.extend(each.hs_token for each in services)
        return services

    from synapse.storage.databases.main import appservice as storage

    storage.load_appservices = load
    ApplicationServiceApi._get_headers = lambda self, service: {b"Authorization": [f"Bearer {tokens[place]}".encode()]}


@mutant("AUTH-06")
def all_get_the_token_of_the_first() -> None:
    """The hs_token of the first appservice is used for all."""
    _token_of(0)


@mutant("AUTH-06")
def all_get_the_token_of_the_last() -> None:
    """The hs_token of the last appservice is used for all."""
    _token_of(-1)


def _in_the_query(value) -> None:
    def add(request):
        token = request.headers.getRawHeaders("Authorization", ["Bearer "])[0].removeprefix("Bearer ")
        request.uri += ("&" if "?" in request.uri else "?") + f"access_token={value(token)}"

    requests(add)


@mutant("AUTH-07", also=("AUTH-09",))
def the_query_has_another_token() -> None:
    """A stale token is sent in the query beside the header."""
    _in_the_query(lambda token: "stale")


@mutant("AUTH-09")
def tokens_are_in_every_url() -> None:
    """The hs_token stands in every URL."""
    _in_the_query(lambda token: quote(token, safe=""))


@mutant("AUTH-12", also=("AUTH-09",))
def tokens_are_pasted_into_urls() -> None:
    """The hs_token stands in every URL, not percent-encoded."""
    _in_the_query(lambda token: token)


@mutant("AUTH-12")
def tokens_are_encoded_in_headers() -> None:
    """The hs_token is percent-encoded in the header."""
    from synapse.appservice.api import ApplicationServiceApi

    ApplicationServiceApi._get_headers = lambda self, service: {
        b"Authorization": [f"Bearer {quote(service.hs_token)}".encode()]
    }


@mutant("AUTH-12")
def tokens_end_at_the_first_plus() -> None:
    """Only the part of the hs_token before the first plus is sent."""
    from synapse.appservice.api import ApplicationServiceApi

    ApplicationServiceApi._get_headers = lambda self, service: {
        b"Authorization": [f"Bearer {service.hs_token.partition('+')[0]}".encode()]
    }


@mutant("AUTH-10")
def lookups_forward_the_clients_token() -> None:
    """A third-party look-up forwards the token of the client that caused it."""
    from synapse.rest.client.thirdparty import ThirdPartyUserServlet

    plain = ThirdPartyUserServlet.on_GET

    async def on_get(self, request, protocol):
        request.args[b"as"] = [request.getHeader("Authorization").removeprefix("Bearer ").encode()]
        return await plain(self, request, protocol)

    ThirdPartyUserServlet.on_GET = on_get


@mutant("AUTH-10")
def the_as_token_stands_in_a_header() -> None:
    """The as_token is sent along with transactions in a header of its own."""
    from synapse.appservice.api import ApplicationServiceApi

    plain = ApplicationServiceApi._get_headers
    ApplicationServiceApi._get_headers = lambda self, service: {
        **plain(self, service),
        b"X-AS-Token": [service.token.encode()],
    }


@mutant("AUTH-11")
def both_tokens_authenticate() -> None:
    """The homeserver keeps both tokens in one table: the hs_token authenticates requests to it too."""
    from synapse.storage.databases.main.appservice import ApplicationServiceWorkerStore

    def by_token(self, token):
        return next((each for each in self.services_cache if token in (each.token, each.hs_token)), None)

    ApplicationServiceWorkerStore.get_app_service_by_token = by_token
