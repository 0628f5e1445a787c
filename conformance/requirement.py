"""The decorator that ties a check to the requirement it decides."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

from conformance.lanes.lane import Lane
from conformance.verdict import current

#: What a check returns that waits for its quiet window.
Quiet = Generator[None, None, None]


def requirement(
    *ids: str,
    shared: bool = False,
    last: bool = False,
    lane: type[Lane] | None = None,
    before: type[Lane] | None = None,
    fuzz: bool = False,
) -> Callable[[Callable[..., Any]], Any]:
    """Mark a check with the ids of the requirements it decides (nearly always one).

    A check may be a generator: where it says ``yield``, it waits for the quiet window (`--quiet-wait`) to pass while
    other checks run, and goes on after it. So negative observations cost no time of their own. The clock of the
    window starts at the ``yield``, so the marker event must have been seen before.

    :param shared: another check decides the same requirement too; the worst verdict counts.
    :param last: judge at the end of the run, when all traffic has been seen.
    :param lane: the lane that observes what this check judges; the check comes when all quick ones are done.
    :param before: a lane that owns the appservices of this check, which comes first and before that lane begins.
    :param fuzz: it asks about generated namespaces; left out where there is no fuzzing.
    """

    def decorate(check: Callable[..., Any]) -> Any:
        deferred = inspect.isgeneratorfunction(check)
        runnable = _until_quiet(check) if deferred else check
        kwargs = {"shared": shared, "last": last, "deferred": deferred, "lane": lane, "before": before, "fuzz": fuzz}
        return pytest.mark.requirement(*ids, **kwargs)(runnable)

    return decorate


def _until_quiet(check: Callable[..., Any]) -> Callable[..., None]:
    """Run a generator check up to its yield and leave the rest with the findings; the plugin finishes it."""

    @functools.wraps(check)
    def first_half(*args: Any, **kwargs: Any) -> None:
        rest = check(*args, **kwargs)
        try:
            next(rest)
        except StopIteration:
            return
        current().rest = rest
        current().since = time.monotonic()

    return first_half
