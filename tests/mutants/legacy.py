"""Mutants of area LEGACY: Synapse knows no legacy routes, so that these bring some with them."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment"

from __future__ import annotations

from collections.abc import Callable

from tests.mutants import mutant
from tests.mutants._wire import requests


@mutant("LEGACY-01", also=("LEGACY-11",))
def alias_queries_are_of_before() -> None:
    """Queries about aliases come on the legacy route at once."""

    def change(request):
        if "/_matrix/app/v1/rooms/" in request.uri:
            request.uri = request.uri.replace("/_matrix/app/v1", "", 1)

    requests(change)


@mutant("LEGACY-01", also=("LEGACY-11",))
def transactions_are_of_before() -> None:
    """Every tenth transaction comes on the legacy route at once."""
    numbers = iter(range(1, 1_000_000))

    def change(request):
        if "/transactions/" in request.uri and next(numbers) % 10 == 0:
            request.uri = request.uri.replace("/_matrix/app/v1", "", 1)

    requests(change)


def _repeated(when: Callable[[str, int], bool], make: Callable[[str], str]) -> None:
    """Repeat a request at the path that `make(uri)` makes, when `when(uri, status)` says so."""
    from synapse.appservice.api import ApplicationServiceApi

    plain = ApplicationServiceApi.request

    async def request(self, method, uri, data=None, headers=None):
        response = await plain(self, method, uri, data, headers)
        return await plain(self, method, make(uri), data, headers) if when(uri, response.code) else response

    ApplicationServiceApi.request = request


@mutant("LEGACY-11")
def transactions_come_on_both_routes() -> None:
    """A transaction that is accepted on the present route is sent on the legacy one as well."""
    _repeated(
        lambda uri, status: status == 200 and "/transactions/" in uri, lambda uri: uri.replace("/_matrix/app/v1", "", 1)
    )


@mutant("LEGACY-14")
def pings_have_a_legacy_route() -> None:
    """A ping that is answered 404 is tried on an unstable route."""
    _repeated(lambda uri, status: status == 404 and "/ping" in uri, lambda uri: uri.replace("/v1/", "/unstable/"))
