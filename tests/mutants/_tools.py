"""What mutants of several areas share."""

# mypy: disable-error-code="no-untyped-def, method-assign, assignment"

from __future__ import annotations


def claim_newest() -> None:
    """Have Synapse claim v1.19, so that rules newer than those it really claims are judged."""
    from synapse.rest.client.versions import VersionsRestServlet

    original = VersionsRestServlet.on_GET

    async def on_GET(self, request):
        status, answer = await original(self, request)
        return status, {**answer, "versions": [*answer["versions"], "v1.19"]}

    VersionsRestServlet.on_GET = on_GET
