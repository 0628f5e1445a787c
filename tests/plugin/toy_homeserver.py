"""A homeserver that knows just enough to pass the preflight: ``toy_homeserver.py PORT REGISTRATIONS_DIR [MISDEED]``.

Misdeeds: ``closed`` for registration of humans, ``deaf`` never calls the fleet, ``forgets`` the registration of B.
It dies when asked for /_toy/die and hangs on /_toy/hang.
"""

from __future__ import annotations

import http.server
import json
import os
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any


class Toy(http.server.BaseHTTPRequestHandler):
    """One request."""

    registrations: dict[str, dict[str, Any]] = {}
    misdeeds: set[str] = set()
    users: dict[str, str] = {}
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer what the preflight asks."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if self.path == "/_matrix/client/versions":
            self.reply(200, {"versions": ["v1.1", "v1.11"]})
        elif self.path == "/_toy/die":
            print("the toy dies", flush=True)
            os._exit(3)
        elif self.path == "/_toy/hang":
            threading.Event().wait()
        elif self.path.startswith("/_matrix/client/v3/account/whoami") and token in self.registrations:
            user = f"@{self.registrations[token]['sender_localpart']}:hq.test"
            self.reply(200, {"user_id": user})
        elif self.path.startswith("/_matrix/client/v3/account/whoami") and token in self.users:
            self.reply(200, {"user_id": self.users[token]})
        elif "whoami" in self.path:
            self.reply(401, {"errcode": "M_UNKNOWN_TOKEN", "error": "unknown"})
        else:
            self.reply(404, {"errcode": "M_UNRECOGNIZED", "error": "unknown"})

    def do_POST(self) -> None:
        """Register anybody, and call the fleet at every chance."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if "/register" in self.path and body.get("type") is None and "closed" in self.misdeeds:
            self.reply(403, {"errcode": "M_FORBIDDEN", "error": "closed"})
        elif "/register" in self.path:
            user = f"@{body.get('username')}:hq.test"
            token = f"toy-token-of-{user}"
            self.users[token] = user
            self.call_the_fleet()
            self.reply(200, {"user_id": user, "access_token": token, "device_id": "TOY"})
        else:
            self.reply(404, {"errcode": "M_UNRECOGNIZED", "error": "unknown"})

    do_PUT = do_POST

    def call_the_fleet(self) -> None:
        """Ping A."""
        registration = next(each for each in self.registrations.values() if each["id"] == "hq main")
        if "deaf" in self.misdeeds:
            return
        request = urllib.request.Request(
            f"{registration['url']}/_matrix/app/v1/ping",
            data=b"{}",
            headers={"Authorization": f"Bearer {registration['hs_token']}"},
        )
        urllib.request.urlopen(request, timeout=5).read()

    def reply(self, status: int, content: dict[str, Any]) -> None:
        """Send JSON."""
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """Stay quiet."""


def main() -> None:
    """Serve until killed."""
    port, directory, *misdeeds = sys.argv[1:]
    Toy.misdeeds = set(misdeeds)
    for path in sorted(Path(directory).glob("*.yaml")):
        content = json.loads(path.read_text())
        if not ("forgets" in misdeeds and content["id"] == "hq-second"):
            Toy.registrations[content["as_token"]] = content
    http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Toy).serve_forever()


if __name__ == "__main__":
    main()
