"""Mutants of area PING."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment, misc"

from __future__ import annotations

import re

from tests.mutants import mutant
from tests.mutants._outages import is_redirect


async def _who(servlet, request):
    """Who calls; the real servlet will ask again, which Synapse allows once only."""
    requester = await servlet.auth.get_user_by_req(request)
    request._requester = None
    return requester


def _answer_instead(answer) -> None:
    """Have `answer(servlet, request, appservice_id, right)` answer a ping call; `right` is the real one."""
    from synapse.rest.client.appservice_ping import AppservicePingRestServlet

    right = AppservicePingRestServlet.on_POST

    async def answered(self, request, appservice_id):
        return await answer(self, request, appservice_id, right)

    AppservicePingRestServlet.on_POST = answered


def _ping_instead(ping) -> None:
    """Have `ping(api, service, txn_id, right)` ping an appservice; `right` is the real one."""
    from synapse.appservice.api import ApplicationServiceApi

    right = ApplicationServiceApi.ping

    async def pinged(self, service, txn_id):
        await ping(self, service, txn_id, right)

    ApplicationServiceApi.ping = pinged


def _errors_instead(change) -> None:
    """Have `change(error)` change the error that a ping call is answered with."""
    from synapse.api.errors import SynapseError

    async def answer(self, request, appservice_id, right):
        try:
            return await right(self, request, appservice_id)
        except SynapseError as error:
            raise change(error) from error

    _answer_instead(answer)


@mutant("PING-01")
def the_ping_endpoint_is_missing() -> None:
    """Appservices cannot ask for pings."""
    from synapse.rest.client.appservice_ping import AppservicePingRestServlet

    AppservicePingRestServlet.PATTERNS = [re.compile("^/nowhere$")]


@mutant("PING-02", also=("PING-05", "PING-09", "PING-18", "PING-19"))
def nobody_is_pinged() -> None:
    """A ping call is answered 200 without a ping."""

    async def ping(self, service, txn_id, right):
        return None

    _ping_instead(ping)


@mutant("PING-02")
def pings_are_lists() -> None:
    """The body of a ping is a list."""

    async def ping(self, service, txn_id, right):
        await self.post_json_get_json(f"{service.url}/_matrix/app/v1/ping", [txn_id], self._get_headers(service))

    _ping_instead(ping)


@mutant("PING-03")
def pings_have_ids_of_their_own() -> None:
    """The transaction_id of a ping is one that the homeserver makes up."""

    async def ping(self, service, txn_id, right):
        await right(self, service, txn_id and "own")

    _ping_instead(ping)


@mutant("PING-03")
def pings_lose_what_is_not_ascii() -> None:
    """The transaction_id of a ping has no characters beyond ASCII."""

    async def ping(self, service, txn_id, right):
        await right(self, service, txn_id and txn_id.encode("ascii", "ignore").decode())

    _ping_instead(ping)


@mutant("PING-03")
def pings_have_numbers() -> None:
    """A transaction_id of digits becomes a number."""

    async def ping(self, service, txn_id, right):
        await right(self, service, int(txn_id) if txn_id and txn_id.isdecimal() else txn_id)

    _ping_instead(ping)


@mutant("PING-04")
def pings_need_an_id() -> None:
    """A ping call without transaction_id is answered 400."""
    from synapse.http.servlet import assert_params_in_dict, parse_json_object_from_request

    async def answer(self, request, appservice_id, right):
        if (await _who(self, request)).app_service_id == appservice_id:
            assert_params_in_dict(parse_json_object_from_request(request), ["transaction_id"])
            request.content.seek(0)
        return await right(self, request, appservice_id)

    _answer_instead(answer)


@mutant("PING-06")
def the_status_of_the_appservice_is_copied() -> None:
    """A ping call is answered with the status that the appservice gave."""

    def change(error):
        error.code = (error._additional_fields or {}).get("status", error.code)
        return error

    _errors_instead(change)


@mutant("PING-06")
def a_404_is_a_pong() -> None:
    """An appservice that answers a ping with 404 counts as reachable."""
    from synapse.api.errors import HttpResponseException

    async def ping(self, service, txn_id, right):
        try:
            await right(self, service, txn_id)
        except HttpResponseException as error:
            if error.code != 404:
                raise

    _ping_instead(ping)


@mutant("PING-06")
def a_500_is_a_failed_connection() -> None:
    """An appservice that answers a ping with 5xx counts as not connected."""

    def change(error):
        if (error._additional_fields or {}).get("status", 0) >= 500:
            error.errcode = "M_CONNECTION_FAILED"
        return error

    _errors_instead(change)


def _field(name, made) -> None:
    """Have a field of the error made otherwise."""

    def change(error):
        fields = error._additional_fields or {}
        error._additional_fields = {**fields, name: made(fields[name])} if name in fields else fields
        return error

    _errors_instead(change)


@mutant("PING-07")
def the_body_is_parsed() -> None:
    """The body of M_BAD_STATUS is the parsed answer of the appservice."""
    import json

    _field("body", json.loads)


@mutant("PING-07")
def the_body_is_tidied() -> None:
    """The body of M_BAD_STATUS is the text of the appservice's answer, written again."""
    import json

    _field("body", lambda text: json.dumps(json.loads(text)))


@mutant("PING-07")
def the_status_is_a_string() -> None:
    """The status of M_BAD_STATUS is a string."""
    _field("status", str)


@mutant("PING-08", also=("PING-18",))
def a_closed_port_is_a_time_out() -> None:
    """An appservice that is down is reported as one that takes too long."""

    def change(error):
        if error.errcode == "M_CONNECTION_FAILED":
            error.code, error.errcode = 504, "M_CONNECTION_TIMEOUT"
        return error

    _errors_instead(change)


@mutant("PING-10")
def a_null_url_is_a_failed_connection() -> None:
    """An appservice without a url is reported as one that is down."""

    def change(error):
        if error.errcode == "M_URL_NOT_SET":
            error.code, error.errcode = 502, "M_CONNECTION_FAILED"
        return error

    _errors_instead(change)


@mutant("PING-10")
def a_null_url_is_a_pong() -> None:
    """An appservice without a url counts as reachable."""
    from synapse.api.errors import SynapseError

    async def answer(self, request, appservice_id, right):
        try:
            return await right(self, request, appservice_id)
        except SynapseError as error:
            if error.errcode == "M_URL_NOT_SET":
                return 200, {"duration_ms": 0}
            raise

    _answer_instead(answer)


@mutant("PING-11")
def any_appservice_may_be_pinged() -> None:
    """An appservice may have another pinged."""

    async def answer(self, request, appservice_id, right):
        requester = await _who(self, request)
        other = self.store.get_app_service_by_id(appservice_id)
        if requester.app_service_id in (None, appservice_id) or other is None:
            return await right(self, request, appservice_id)
        await self.as_api.ping(other, "x")
        return 200, {"duration_ms": 1}

    _answer_instead(answer)


@mutant("PING-11")
def the_caller_is_pinged_before_the_refusal() -> None:
    """An appservice that asks for a ping of another is pinged itself, and then refused."""

    async def answer(self, request, appservice_id, right):
        requester = await _who(self, request)
        caller = self.store.get_app_service_by_id(requester.app_service_id or "")
        if caller and caller.id != appservice_id and self.store.get_app_service_by_id(appservice_id):
            await self.as_api.ping(caller, "x")
        return await right(self, request, appservice_id)

    _answer_instead(answer)


@mutant("PING-12")
def any_user_may_ping() -> None:
    """A human may have an appservice pinged."""

    async def answer(self, request, appservice_id, right):
        requester = await _who(self, request)
        if requester.app_service_id:
            return await right(self, request, appservice_id)
        await self.as_api.ping(self.store.get_app_service_by_id(appservice_id), "x")
        return 200, {"duration_ms": 1}

    _answer_instead(answer)


@mutant("PING-12")
def a_refused_human_pings_later() -> None:
    """A human is refused, and half a second later the appservice is pinged."""
    from functools import partial

    from synapse.http.servlet import parse_json_object_from_request
    from synapse.util.duration import Duration

    async def answer(self, request, appservice_id, right):
        requester = await _who(self, request)
        if not requester.app_service_id:
            service = self.store.get_app_service_by_id(appservice_id)
            name = parse_json_object_from_request(request).get("transaction_id")
            server = self.scheduler.txn_ctrl.hs
            later = partial(server.run_as_background_process, "ping", self.as_api.ping, service, name)
            self.as_api.clock.call_later(Duration(milliseconds=500), later)
        return await right(self, request, appservice_id)

    _answer_instead(answer)


@mutant("PING-13")
def strangers_may_ping() -> None:
    """A ping is sent before the token is looked at."""

    async def answer(self, request, appservice_id, right):
        if not request.requestHeaders.getRawHeaders("Authorization"):
            await self.as_api.ping(self.store.get_app_service_by_id(appservice_id), "x")
        return await right(self, request, appservice_id)

    _answer_instead(answer)


@mutant("PING-13")
def an_unknown_token_is_forbidden() -> None:
    """A ping call with an unknown token is answered 403."""
    from synapse.api.errors import AuthError, InvalidClientTokenError

    async def answer(self, request, appservice_id, right):
        try:
            return await right(self, request, appservice_id)
        except InvalidClientTokenError as error:
            raise AuthError(403, "unknown token") from error

    _answer_instead(answer)


@mutant("PING-15")
def the_id_is_not_decoded() -> None:
    """The id in the path of a ping call is compared as it stands there."""

    async def answer(self, request, appservice_id, right):
        written = request.path.decode().split("/")[-2]
        return await right(self, request, written)

    _answer_instead(answer)


@mutant("PING-16")
def an_unknown_id_breaks() -> None:
    """A ping call for an unknown id is answered 500."""

    async def answer(self, request, appservice_id, right):
        await _who(self, request)
        assert self.store.get_app_service_by_id(appservice_id)
        return await right(self, request, appservice_id)

    _answer_instead(answer)


@mutant("PING-16")
def an_unknown_id_is_not_found() -> None:
    """A ping call for an unknown id is answered 404."""
    from synapse.api.errors import NotFoundError

    async def answer(self, request, appservice_id, right):
        await _who(self, request)
        if self.store.get_app_service_by_id(appservice_id) is None:
            raise NotFoundError
        return await right(self, request, appservice_id)

    _answer_instead(answer)


@mutant("PING-17")
def pings_and_transactions_share_their_ids() -> None:
    """A transaction whose id a ping has had counts as delivered."""
    from synapse.appservice.api import ApplicationServiceApi

    had: set[tuple[str, str]] = set()
    push = ApplicationServiceApi.push_bulk

    async def ping(self, service, txn_id, right):
        had.add((service.id, str(txn_id)))
        await right(self, service, txn_id)

    async def pushed(self, service, *args, **kwargs):
        txn_id = kwargs.get("txn_id", args[-1] if args else None)
        return (service.id, str(txn_id)) in had or await push(self, service, *args, **kwargs)

    _ping_instead(ping)
    ApplicationServiceApi.push_bulk = pushed


def _told(change) -> None:
    """Have `change(milliseconds)` change the duration that a ping call is answered with."""

    async def answer(self, request, appservice_id, right):
        status, body = await right(self, request, appservice_id)
        return status, {"duration_ms": change(body["duration_ms"])}

    _answer_instead(answer)


@mutant("PING-05")
def durations_are_seconds() -> None:
    """The duration of a ping is told in seconds."""
    _told(lambda duration: duration // 1000)


@mutant("PING-05")
def durations_are_fractions() -> None:
    """The duration of a ping is told with fractions of a millisecond."""
    _told(lambda duration: duration + 0.5)


@mutant("PING-05")
def durations_are_text() -> None:
    """The duration of a ping is a string."""
    _told(str)


@mutant("PING-05")
def durations_are_those_of_the_connection() -> None:
    """The duration of a ping is the time until the appservice was connected."""
    _told(lambda duration: min(duration, 3))


@mutant("PING-09")
def a_ping_that_times_out_is_a_failed_connection() -> None:
    """An appservice that does not answer its ping is reported as one that is down."""

    def change(error):
        if error.errcode == "M_CONNECTION_TIMEOUT":
            error.code, error.errcode = 502, "M_CONNECTION_FAILED"
        return error

    _errors_instead(change)


@mutant("PING-14")
def appservices_are_pinged_with_each_registration() -> None:
    """When an appservice registers a ghost, it is pinged."""
    from synapse.handlers.register import RegistrationHandler

    plain = RegistrationHandler.appservice_register

    async def register(self, user_localpart, as_token):
        service = self.store.get_app_service_by_token(as_token)
        if service is not None and service.url:
            api = self.hs.get_application_service_api()
            self.hs.run_as_background_process("ping", api.ping, service, "hello")
        return await plain(self, user_localpart, as_token)

    RegistrationHandler.appservice_register = register


@mutant("PING-18")
def a_closed_connection_breaks_a_ping() -> None:
    """A ping whose connection is closed is answered 500."""

    def change(error):
        if error.errcode == "M_CONNECTION_TIMEOUT":
            error.code, error.errcode = 500, "M_UNKNOWN"
        return error

    _errors_instead(change)


@mutant("PING-20")
def a_redirect_is_a_pong() -> None:
    """An appservice that answers a ping with a redirect counts as reachable."""

    async def ping(self, service, txn_id, right):
        try:
            await right(self, service, txn_id)
        except Exception as error:
            if not is_redirect(error):
                raise

    _ping_instead(ping)
