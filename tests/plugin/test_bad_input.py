"""Bad input gets one clear sentence and a documented exit code, never a traceback."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

USAGE = 4
UNTESTABLE = 7


def refused(pytester: pytest.Pytester, *arguments: str | Path) -> str:
    """The one sentence that a usage error gives."""
    result = pytester.runpytest_subprocess(*arguments)
    output = result.stdout.str() + result.stderr.str()
    assert "Traceback" not in output
    assert result.ret == USAGE, output
    (sentence,) = (line for line in result.stderr.str().splitlines() if line)
    assert sentence.startswith("ERROR: ")
    return sentence


def untestable(pytester: pytest.Pytester, *arguments: str | Path) -> str:
    """What is said about a homeserver that cannot be tested."""
    result = pytester.runpytest_subprocess(*arguments)
    output = result.stdout.str() + result.stderr.str()
    assert "Traceback" not in output
    assert result.ret == UNTESTABLE, output
    assert "nothing could be tested" in output
    return output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--hs", "nonsense"], "--hs nonsense: there is no such homeserver; there are synapse, reference"),
        (["--hs", "reference", "--defect", "no-such"], "there is no such defect or variant"),
        (["--hs", "synapse", "--defect", "batches-of-one"], "only the reference homeserver has defects"),
        (["--hs", "reference", "--hs-user", "alice:secret"], "--hs reference registers its own users"),
        (["--hs", "synapse", "--hs-url", "http://localhost:1"], "--hs-url and --hs name different homeservers"),
        (["--hs-url", "http://localhost:1"], "--hs-url needs --as-registrations DIR"),
        (["--hs-url", "localhost:8008", "--as-registrations", "x"], "not a URL such as http://localhost:8008"),
        (["--hs-url", "http://[::1", "--as-registrations", "x"], "not a URL such as http://localhost:8008"),
        (["--hs", "synapse", "--as-registrations", "x"], "--as-registrations goes with --hs-url"),
        (["--hs", "reference", "--fuzz-seed", "x"], "--fuzz-seed x: not a number from 0 on"),
        (["--hs", "reference", "--fuzz-examples", "-1"], "--fuzz-examples -1: not a number from 0 on"),
        (
            ["--hs-url", "http://localhost:1", "--as-registrations", "x", "--fuzz-namespaces", "9"],
            "--fuzz-namespaces needs a homeserver that the suite starts",
        ),
        (["--hs", "synapse", "--spec", "v1.99"], "'v1.99' is not a version"),
        (["--hs", "synapse", "--spec", "draft-003"], "does not speak the drafts of 2015"),
        (["--hs", "synapse", "--hs-client-path", "/x"], "--hs-client-path goes with the --spec of a draft"),
        (["--hs", "synapse", "--spec", "r0", "--hs-appservice-path", "/x"], "--hs-appservice-path goes with"),
        (["--hs", "reference", "--spec", "draft-003", "--hs-client-path", "x"], "not a path such as"),
        (["--hs", "reference", "--spec", "r0", "--defect", "tokens-are-forgotten"], "no such defect"),
        (["--hs", "reference", "--spec", "r0", "--defect", "anybody-may-register"], "is one of --spec draft-004"),
        (["--hs", "synapse", "--only", "TXM"], "did you mean TXN"),
        (["--hs", "synapse", "--reading", "loose"], "--reading loose: there are lenient and strict"),
        (["--hs", "synapse", "--quiet-wait", "soon"], "--quiet-wait soon: not a number of seconds"),
        (["--hs", "synapse", "--deliver-wait", "-1"], "--deliver-wait -1: not a number of seconds"),
        (["--hs", "synapse", "--hs-user", "alice"], "--hs-user wants USER:PASSWORD"),
        (["--hs", "synapse", "--baseline-update"], "--baseline-update needs --baseline FILE"),
        (["--hs", "synapse", "--baseline", "nowhere.toml"], "cannot read the baseline"),
        (["--hs-command", "serve {prot}"], "unknown placeholder {prot}"),
        (["--hs-command", "serve 'x"], "cannot be read"),
        (["--hs", "synapse", "--conformance-report", "/dev/null/x"], "cannot write there"),
        (["--hs-url", "http://localhost:1", "--as-registrations", "nowhere"], "nowhere is not a directory"),
    ],
)
def test_a_wrong_option_is_one_sentence(pytester: pytest.Pytester, arguments: list[str], said: str) -> None:
    assert said in refused(pytester, *arguments)


def test_a_directory_without_registrations_of_the_fleet_says_how_to_write_them(
    pytester: pytest.Pytester, tmp_path: Path
) -> None:
    (tmp_path / "bridge.yaml").write_text("id: irc\n")
    said = refused(pytester, "--hs-url", "http://localhost:1", "--as-registrations", tmp_path)
    assert "holds no registration of the fleet" in said
    assert "as-conformance registrations" in said


def test_a_registration_file_that_was_cut_is_named(pytester: pytest.Pytester, registrations: Path) -> None:
    path = registrations / "as-conformance-a.yaml"
    path.write_text(path.read_text()[:40])
    said = refused(pytester, "--hs-url", "http://localhost:1", "--as-registrations", registrations)
    assert "as-conformance-a.yaml is not JSON any more" in said


def test_a_registration_file_that_is_no_registration_is_named(pytester: pytest.Pytester, registrations: Path) -> None:
    path = registrations / "as-conformance-a.yaml"
    content = json.loads(path.read_text())
    del content["as_token"]
    path.write_text(json.dumps(content))
    said = refused(pytester, "--hs-url", "http://localhost:1", "--as-registrations", registrations)
    assert "as-conformance-a.yaml is no valid registration" in said
    assert "as_token" in said


def test_a_registration_that_names_a_port_in_use_says_which(pytester: pytest.Pytester, registrations: Path) -> None:
    content = json.loads((registrations / "as-conformance-q.yaml").read_text())
    port = int(content["url"].rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        said = refused(pytester, "--hs-url", "http://localhost:1", "--as-registrations", registrations)
    assert f"port {port} of registration 'hq-query' cannot be listened on" in said


def test_a_url_where_nothing_listens(pytester: pytest.Pytester, registrations: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        said = untestable(pytester, "--hs-url", url, "--as-registrations", registrations)
    assert f"the homeserver at {url} does not answer" in said
    assert "the connection was refused" in said


def test_a_url_that_answers_html(pytester: pytest.Pytester, registrations: Path, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/_matrix/client/versions").respond_with_data("<h1>Hello</h1>", content_type="text/html")
    said = untestable(pytester, "--hs-url", httpserver.url_for(""), "--as-registrations", registrations)
    assert "is no Matrix homeserver: GET /_matrix/client/versions was answered without a list of versions" in said
    assert "text/html" in said


def test_a_url_that_answers_404(pytester: pytest.Pytester, registrations: Path, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/_matrix/client/versions").respond_with_data("", status=404)
    said = untestable(pytester, "--hs-url", httpserver.url_for(""), "--as-registrations", registrations)
    assert "was answered 404" in said


def test_a_url_that_answers_200_to_everything(
    pytester: pytest.Pytester, registrations: Path, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/_matrix/client/versions").respond_with_json({"versions": ["v1.11"]})
    httpserver.expect_request("/_matrix/client/v3/account/whoami").respond_with_json({"user_id": "@all:hq.test"})
    said = untestable(pytester, "--hs-url", httpserver.url_for(""), "--as-registrations", registrations)
    assert "answers 200 to a token that nobody has" in said


def test_a_homeserver_that_loaded_no_registration(
    pytester: pytest.Pytester, registrations: Path, httpserver: HTTPServer
) -> None:
    unknown = {"errcode": "M_UNKNOWN_TOKEN", "error": "unknown"}
    httpserver.expect_request("/_matrix/client/versions").respond_with_json({"versions": ["v1.11"]})
    httpserver.expect_request("/_matrix/client/v3/account/whoami").respond_with_json(unknown, status=401)
    said = untestable(pytester, "--hs-url", httpserver.url_for(""), "--as-registrations", registrations)
    assert "has loaded none of the fleet's registrations" in said
    assert "401 M_UNKNOWN_TOKEN" in said


def test_a_url_that_needs_tls(pytester: pytest.Pytester, registrations: Path) -> None:
    with HTTPServer(host="127.0.0.1", ssl_context=ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)) as server:
        url = f"http://127.0.0.1:{server.port}"
        said = untestable(pytester, "--hs-url", url, "--as-registrations", registrations)
    assert f"the homeserver at {url} does not answer" in said
    assert "https" in said


def test_an_https_url_that_speaks_plain_http(
    pytester: pytest.Pytester, registrations: Path, httpserver: HTTPServer
) -> None:
    url = f"https://127.0.0.1:{httpserver.port}"
    said = untestable(pytester, "--hs-url", url, "--as-registrations", registrations)
    assert "the TLS handshake failed" in said


def test_a_command_that_cannot_be_run(pytester: pytest.Pytester) -> None:
    assert "could not be started" in untestable(pytester, "--hs-command", "/nowhere/homeserver {port}")


def test_a_homeserver_that_dies_at_start_shows_its_last_log_lines(pytester: pytest.Pytester) -> None:
    script = pytester.makepyfile(dying="print('reading my configuration')\nraise SystemExit('no such port as ' + 'x')")
    said = untestable(pytester, "--hs-command", f"python3 {script} {{port}}")
    assert "ended while starting (exit status 1); its last log lines" in said
    assert "reading my configuration" in said
    assert "no such port as x" in said
    assert said.count("no such port as x") == 1


def test_a_foreign_server_on_the_port_is_noticed(pytester: pytest.Pytester) -> None:
    script = pytester.makepyfile(
        foreign="""
        import http.server, json, sys

        class Foreign(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                known = self.path.endswith("/versions")
                self.send_response(200 if known else 401)
                body = json.dumps({"versions": ["v1.11"]} if known else {"errcode": "M_UNKNOWN_TOKEN"}).encode()
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Foreign).serve_forever()
        """
    )
    said = untestable(pytester, "--hs-command", f"python3 {script} {{port}}")
    assert "does not know the registrations of this run" in said


def test_synapse_that_is_not_installed_says_how_to_install_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeconftest(
        """
        import importlib.util

        real = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "synapse" else real(name, *rest)
        """
    )
    said = untestable(pytester, "--hs", "synapse")
    assert "Synapse is not installed in this environment" in said
    assert "tox -e synapse" in said


def test_a_file_of_checks_that_cannot_be_read_is_told_as_pytest_tells_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_checks="import no_such_module")
    result = pytester.runpytest_subprocess("--hs", "reference", "test_checks.py")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*No module named 'no_such_module'"])
    result.stderr.no_fnmatch_line("*Traceback*")
