"""The console script ``as-conformance``: what surrounds a run.

Exit codes: 0 done, 1 the kill matrix found something wrong or results differ, 4 wrong options or files.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

#: Exit status for wrong options or files, as pytest has it.
USAGE = 4

#: The first port of registration files unless told otherwise; below the range that systems give out by themselves.
PORT_BASE = 29400

_LOADING = """
Load them into the homeserver, start (or restart) it, then run the suite:

  Synapse      in homeserver.yaml, and raise its rate limits (docs/getting-started.md):
                 app_service_config_files:
{files}
  Dendrite     in dendrite.yaml, under app_service_api, as config_files: the same list
  Continuwuity, conduwuit, Tuwunel
               in the admin room, for each file: !admin appservices register, followed by the content of the file in a
               code block; Tuwunel also reads the files of the directory that is appservice_dir in tuwunel.toml
  Conduit      likewise: @conduit:{server_name}: register-appservice
  others       as their documentation says

  pytest --hs-url http://localhost:8008 --as-registrations {directory}
"""


#: The drafts in which appservices register themselves.
_DRAFTS = ("draft-003", "draft-001", "draft-000", "draft-004")

_STORING = """
The appservices register themselves over HTTP. Have the homeserver's administrator store the as_token of each file; the
hs_token, the url and the namespaces are of no use to the homeserver. Then run the suite:

  pytest --hs-url http://localhost:8008 --as-registrations {directory} --spec {spec}

--hs-client-path and --hs-appservice-path say where its APIs are, if they are not at /_matrix/client/api/v1 and
/_matrix/appservice/v1.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the exit status."""
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as error:
        # argparse says 2, which is "interrupted" to pytest and to this suite's users.
        return USAGE if error.code else 0
    try:
        return int(arguments.function(arguments) or 0)
    except BrokenPipeError:
        sys.stderr.close()  # the reader has seen enough; Python must not complain at exit
        return 0
    except _Usage as error:
        print(f"as-conformance {arguments.command}: {error}", file=sys.stderr)
        return USAGE


class _Usage(Exception):
    """Wrong options or files; one sentence."""


def _parser() -> argparse.ArgumentParser:
    from conformance import __version__

    parser = argparse.ArgumentParser(
        prog="as-conformance",
        description="Conformance of homeservers to the Matrix Application Service API; the runs are pytest's: "
        "`pytest --hs synapse`, `pytest --hs-url URL --as-registrations DIR`.",
    )
    parser.add_argument("--version", action="version", version=f"as-conformance {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    registrations = commands.add_parser(
        "registrations",
        help="write the registration files of the fleet",
        description="Write the registration files of the fleet, to be loaded into a homeserver before it starts.",
    )
    registrations.add_argument(
        "directory", metavar="DIR", type=Path, help="where to; files of earlier calls are replaced"
    )
    registrations.add_argument(
        "--server-name", required=True, help="server name of the homeserver: the part after the colon in its user IDs"
    )
    registrations.add_argument(
        "--as-url",
        default="http://127.0.0.1",
        metavar="URL",
        help="scheme and host at which the homeserver reaches the fleet, without a port (http://127.0.0.1)",
    )
    registrations.add_argument(
        "--port-base",
        type=int,
        default=PORT_BASE,
        metavar="N",
        help=f"the fleet listens on ports from N on, one for each appservice ({PORT_BASE})",
    )
    registrations.add_argument(
        "--posix",
        action="store_true",
        help="write a file more, for REG-10: its regex has a bracket class, [[:digit:]], and a homeserver that cannot "
        "read it may refuse to start",
    )
    registrations.add_argument(
        "--fuzz-seed",
        type=int,
        default=1,
        metavar="N",
        help="three of the files have some 150 generated namespaces, for NSUSER-13, NSALIAS-16 and NSALIAS-19, drawn "
        "from this seed (%(default)s); 0: leave them out",
    )
    registrations.add_argument(
        "--spec",
        choices=_DRAFTS,
        help="for a homeserver that speaks a draft of 2015: write the files of the appservices that play in it. They "
        "register themselves over HTTP; the administrator has to store the as_token of each file",
    )
    registrations.set_defaults(function=_registrations)

    requirements = commands.add_parser(
        "requirements", help="print the catalogue", description="Print the catalogue of requirements."
    )
    requirements.add_argument("--area", metavar="A", help="only this area, such as TXN")
    requirements.add_argument("--format", choices=("table", "json", "markdown"), default="table")
    requirements.set_defaults(function=_requirements)

    matrix = commands.add_parser(
        "kill-matrix",
        help="prove the checks: run them against the defects of the reference homeserver",
        description="Run the suite against the defects and variants of the reference homeserver and compare what it "
        "blames with what they say of themselves. Exit code 1: something was missed or blamed wrongly.",
    )
    matrix.add_argument("--defect", metavar="ID", action="append", help="only this defect or variant; repeatable")
    matrix.add_argument("--area", metavar="A", help="only defects of this area, such as TXN")
    matrix.add_argument("--full", action="store_true", help="each against all checks, not its own areas only")
    matrix.add_argument("--first", action="store_true", help="a quick look: only the first defect of each requirement")
    matrix.add_argument("--jobs", type=int, metavar="N", help="how many at once (as many as there are processors)")
    matrix.add_argument("--list", action="store_true", help="run nothing: name the defects and variants")
    matrix.add_argument("--format", choices=("table", "json", "markdown"), default="table")
    matrix.set_defaults(function=_kill_matrix)

    example = commands.add_parser(
        "example",
        help="play the worked IRC example of the drafts of 2015 and print it",
        description="Play the worked IRC example of the drafts of 2015 on the reference homeserver, and print every "
        "request and answer: an introduction to the whole protocol. Exit code 1: a step went wrong.",
    )
    example.add_argument(
        "--spec",
        choices=("draft-004", "draft-001"),
        default="draft-004",
        help="whose example: the later drafts', in which the appservice makes room and user (draft-004), or the "
        "second draft's, in which the homeserver makes them out of its answers (draft-001)",
    )
    example.set_defaults(function=_example)

    compare = commands.add_parser(
        "compare",
        help="show on which requirements runs differ",
        description="Show the requirements whose verdicts differ between runs. Exit code 1: there are some.",
    )
    compare.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULTS",
        help="results.json, or the directory of a report; two or more",
    )
    compare.set_defaults(function=_compare)
    return parser


def _registrations(arguments: argparse.Namespace) -> None:
    from conformance.appservice.registration import BadRegistration, write
    from conformance.appservice.roster import OPTIONAL, ROSTER, enlist, fuzzed, of_dialect
    from conformance.dialects import DIALECTS

    parts = urlsplit(arguments.as_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.netloc != _host(parts.netloc):
        raise _Usage(f"--as-url {arguments.as_url}: wants scheme and host without a port, such as http://127.0.0.1")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise _Usage(f"--as-url {arguments.as_url}: the appservices have paths of their own, leave it out")
    if not arguments.server_name or set(arguments.server_name) & set("@#!/ "):
        raise _Usage(f"--server-name {arguments.server_name}: not a server name such as example.org or localhost:8448")
    try:
        roles = (*ROSTER, *OPTIONAL) if arguments.posix else ROSTER
        if arguments.spec is not None:
            roles = of_dialect(DIALECTS[arguments.spec])
        elif arguments.fuzz_seed:
            roles = (*roles, *fuzzed(arguments.fuzz_seed, arguments.server_name))
        ports = _ports(arguments.port_base, len(roles))
        written = write(arguments.directory, enlist(arguments.server_name, arguments.as_url, ports, roles))
    except BadRegistration as error:
        raise _Usage(str(error)) from error
    files = "\n".join(f"                   - {path.resolve()}" for path in written)
    print(f"{len(written)} registration files in {arguments.directory}")
    if arguments.spec is not None:
        print(_STORING.format(directory=arguments.directory, spec=arguments.spec), end="")
        return
    print(_LOADING.format(files=files, directory=arguments.directory, server_name=arguments.server_name), end="")


def _host(netloc: str) -> str:
    """The host of a URL's authority without its port; IPv6 literals keep their brackets."""
    return netloc if netloc.endswith("]") else netloc.rpartition(":")[0] or netloc


def _ports(base: int, count: int) -> Iterator[int]:
    if not 1 <= base <= 65535 - count:
        raise _Usage(f"--port-base {base}: not a port with {count} more after it")
    return itertools.count(base)


def _requirements(arguments: argparse.Namespace) -> None:
    from conformance.catalogue import load, printing

    catalogue = load()
    chosen = tuple(catalogue)
    if arguments.area is not None:
        try:
            chosen = catalogue.of_area(arguments.area.upper())
        except KeyError:
            names = ", ".join(area.name for area in catalogue.areas)
            raise _Usage(f"there is no area {arguments.area}; there are {names}") from None
    show = {"table": printing.table, "json": printing.as_json, "markdown": printing.markdown}[arguments.format]
    print(show(chosen), end="")


def _kill_matrix(arguments: argparse.Namespace) -> int:
    from conformance import kill_matrix
    from conformance.report import killing

    if arguments.jobs is not None and arguments.jobs < 1:
        raise _Usage(f"--jobs {arguments.jobs}: at least one")
    area = arguments.area.upper() if arguments.area else None
    try:
        chosen = kill_matrix.subjects(arguments.defect or (), area, arguments.full)
    except KeyError as error:
        raise _Usage(f"there is no defect or variant {error}; --list names them all") from None
    if arguments.first:
        chosen = kill_matrix.first_of_each(chosen)
    if not chosen:
        raise _Usage(f"there are no defects of an area {arguments.area}")
    if arguments.list and arguments.format == "markdown":
        print(killing.registry(chosen), end="")
        return 0
    if arguments.list:
        for each in chosen:
            print(f"{each.id}: {each.sentence}")
        return 0

    def told(case: kill_matrix.Case) -> None:
        print(killing.line(case), file=sys.stderr, flush=True)

    cases = kill_matrix.run(chosen, arguments.full, arguments.jobs or os.cpu_count() or 1, told)
    show = {"table": killing.table, "json": killing.as_json, "markdown": killing.markdown}[arguments.format]
    print(show(cases), end="")
    return 0 if all(case.right for case in cases) else 1


def _example(arguments: argparse.Namespace) -> int:
    from conformance.example import performance

    problem = False
    for line in performance(arguments.spec):
        print(line)
        problem = problem or line.lstrip().startswith("WRONG")
    return int(problem)


def _compare(arguments: argparse.Namespace) -> int:
    from conformance.report.comparing import BadResults, compare

    if len(arguments.results) < 2:
        raise _Usage("there is nothing to compare with: give two results or more")
    try:
        comparison = compare(arguments.results)
    except BadResults as error:
        raise _Usage(str(error)) from error
    print(comparison)
    return 1 if comparison.differing else 0


if __name__ == "__main__":
    sys.exit(main())
