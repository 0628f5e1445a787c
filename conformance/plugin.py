"""The pytest plugin's door: options, and nothing else until a target is named.

It is imported by every pytest session of an environment that has the suite installed, so it imports nothing heavy.
"""

from __future__ import annotations

from typing import Any, Literal

import pytest

#: Option, how many values, help. Each is an ini value too, without the dashes.
_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--hs-url", {"metavar": "URL", "help": "the homeserver to test; needs --as-registrations"}),
    ("--hs", {"metavar": "NAME", "help": "a homeserver the suite starts: synapse (of this environment), reference"}),
    (
        "--hs-command",
        {
            "metavar": "CMD",
            "help": "a homeserver started by this command in the foreground; {port}, {registrations} (a directory), "
            "{data} and {server_name} are filled in; it is ended with SIGTERM",
        },
    ),
    (
        "--hs-restart-command",
        {
            "metavar": "CMD",
            "help": "restarts the homeserver of --hs-url, at the end of the run; {signal} is TERM or KILL; "
            "without it what needs a restart is not decided",
        },
    ),
    (
        "--as-registrations",
        {"metavar": "DIR", "help": "the registration files the homeserver of --hs-url was started with"},
    ),
    ("--as-bind", {"metavar": "HOST", "default": "127.0.0.1", "help": "address the fleet listens on (127.0.0.1)"}),
    (
        "--hs-user",
        {
            "metavar": "USER:PASSWORD",
            "action": "append",
            "help": "an ordinary user, for homeservers without open registration; repeatable (six are wanted)",
        },
    ),
    ("--hs-user-token", {"metavar": "TOKEN", "action": "append", "help": "an ordinary user's token; repeatable"}),
    ("--hs-registration-shared-secret", {"metavar": "SECRET", "help": "registers users by Synapse's admin API"}),
    ("--hs-registration-token", {"metavar": "TOKEN", "help": "registers users by m.login.registration_token"}),
    (
        "--spec",
        {
            "metavar": "VERSION",
            "help": "version to judge by: v1.1 ... v1.19, or latest (all rules, whatever the homeserver claims); "
            "default: the newest that the homeserver claims; or a dialect of 2015: draft-003, draft-001, draft-000, "
            "draft-004, r0",
        },
    ),
    (
        "--hs-client-path",
        {"metavar": "PATH", "help": "with a draft: base path of the client-server API (/_matrix/client/api/v1)"},
    ),
    (
        "--hs-appservice-path",
        {"metavar": "PATH", "help": "with a draft: what stands before /register (/_matrix/appservice/v1)"},
    ),
    ("--only", {"metavar": "LIST", "help": "requirement ids, areas and levels, comma-separated: TXN,RETRY-05,must"}),
    (
        "--reading",
        {
            "metavar": "lenient|strict",
            "default": "lenient",
            "help": "how ambiguities and SHOULDs are judged: warnings (lenient, the default) or failures (strict)",
        },
    ),
    (
        "--backoff-wait",
        {"metavar": "S", "help": "seconds a homeserver's backoff is watched (120; the reference's 12)"},
    ),
    ("--block-wait", {"metavar": "S", "help": "seconds a blocked query is watched (240; the reference's 24)"}),
    (
        "--quiet-wait",
        {"metavar": "S", "help": "seconds in which nothing must arrive after a marker event (3; the reference 0.5)"},
    ),
    (
        "--deliver-wait",
        {"metavar": "S", "help": "seconds that an event may take to be pushed (30; the reference 5)"},
    ),
    (
        "--overall-wait",
        {"metavar": "S", "help": "seconds that the run may last; what is not decided by then never is (3600)"},
    ),
    (
        "--conformance-report",
        {"metavar": "DIR", "help": "write results.json, journal.jsonl and what a managed homeserver left to DIR"},
    ),
    ("--baseline", {"metavar": "FILE", "help": "known deviations (TOML): as listed is fine, a pass or another is not"}),
    (
        "--baseline-update",
        {"action": "store_true", "help": "write --baseline anew from this run: new failures in, passes out"},
    ),
    (
        "--fuzz-seed",
        {
            "metavar": "N",
            "help": "what the fuzzing of namespaces draws from (1); the same seed asks the same questions",
        },
    ),
    (
        "--fuzz-examples",
        {
            "metavar": "N",
            "help": "questions of each kind about generated namespaces (300; the reference 170); 0: no fuzzing",
        },
    ),
    (
        "--fuzz-namespaces",
        {
            "metavar": "N",
            "help": "also draw N worlds of registrations, boot the homeserver with them, and shrink what is wrong; for "
            "homeservers that the suite starts",
        },
    ),
    (
        "--defect",
        {"metavar": "ID", "help": "with --hs reference: break one rule, or differ in one of the ways that are allowed"},
    ),
)


_INI_TYPES: dict[str, Literal["linelist", "bool"]] = {"append": "linelist", "store_true": "bool"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, all in one group of ``pytest --help``."""
    group = parser.getgroup("as-conformance", "conformance of a Matrix homeserver's Application Service API")
    for option, settings in _OPTIONS:
        # Defaults belong to the ini value: the command line has to be able to say nothing.
        given = {name: value for name, value in settings.items() if name != "default"}
        group.addoption(option, dest=_destination(option), **given)
        parser.addini(
            option.lstrip("-"),
            f"{settings['help']} (as {option})",
            type=_INI_TYPES.get(str(settings.get("action")), "string"),
            default=settings.get("default"),
        )


def _destination(option: str) -> str:
    # Not plain "spec" or "only": another plugin might have those.
    return "conformance_" + option.lstrip("-").replace("-", "_")


def option(config: pytest.Config, name: str) -> object:
    """The value of an option (its name without the dashes): of the command line, else of the ini file, else default."""
    given = config.getoption(_destination(name))
    return given if given not in (None, False) else config.getini(name)


def pytest_configure(config: pytest.Config) -> None:
    """Wake the suite up when a target is named."""
    config.addinivalue_line("markers", "requirement(*ids): the requirements of the catalogue that a check decides")
    if any(option(config, name) for name in ("hs-url", "hs", "hs-command")):
        from conformance.running import activate

        activate(config)
