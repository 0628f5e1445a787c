"""What mutants of several areas share."""

# mypy: disable-error-code="no-untyped-def, method-assign, assignment"

from __future__ import annotations

from importlib import import_module


def claim_newest() -> None:
    """Have Synapse claim v1.19, so that rules newer than those it really claims are judged."""
    from synapse.rest.client.versions import VersionsRestServlet

    original = VersionsRestServlet.on_GET

    async def on_GET(self, request):
        status, answer = await original(self, request)
        return status, {**answer, "versions": [*answer["versions"], "v1.19"]}

    VersionsRestServlet.on_GET = on_GET


def uncached(name: str):
    """What decides whether something interests an appservice, without the memory of it, which would get in the way."""
    from types import SimpleNamespace

    from synapse.appservice import ApplicationService

    original = ApplicationService.__dict__[name].orig
    context = SimpleNamespace(invalidate=lambda: None)

    async def interested(self, *args, **others):
        return await original(self, *args, context)

    return interested


def memberships():
    """The handler of memberships, imported in an order in which Synapse's circular imports work."""
    import_module("synapse.server")
    from synapse.handlers.room_member import RoomMemberMasterHandler

    return RoomMemberMasterHandler
