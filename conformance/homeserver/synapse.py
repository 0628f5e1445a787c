"""The Synapse of this Python environment as a target, on SQLite and loopback."""

from __future__ import annotations

import base64
import importlib.util
import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conformance.appservice.registration import Registration
from conformance.homeserver.process import TargetFailed
from conformance.homeserver.target import SERVER_NAME, Managed

_UNLIMITED = {"per_second": 10000, "burst_count": 10000}
#: Finite, so that the rows about rate limits meet one within 300 messages even at 9 messages a second, on a busy
#: machine; about what the other rows need of one user.
_MESSAGES = {"per_second": 6, "burst_count": 100}


class Synapse(Managed):
    """Synapse with a configuration of its own in a directory of its own."""

    def __init__(self, directory: Path, registrations: Sequence[Registration]) -> None:
        if importlib.util.find_spec("synapse") is None:
            raise TargetFailed(
                f"Synapse is not installed in this environment ({sys.prefix}): "
                "pip install 'matrix-appservice-conformance[synapse]', or run `tox -e synapse`"
            )
        super().__init__("synapse", SERVER_NAME, directory, registrations)
        self._config = write_configuration(directory, self.port, self.registration_files)

    def command(self) -> list[str]:
        """Synapse's main process."""
        return [sys.executable, "-m", "synapse.app.homeserver", "-c", str(self._config)]


def write_configuration(directory: Path, port: int, registration_files: Sequence[Path]) -> Path:
    """Write Synapse's configuration, log configuration and signing key to a directory; the configuration's path."""
    path = directory / "homeserver.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(_configuration(directory, port, registration_files), indent=2), encoding="utf-8")
    (directory / "log.yaml").write_text(json.dumps(_LOGGING, indent=2), encoding="utf-8")
    seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    (directory / "signing.key").write_text(f"ed25519 a_hq {seed}\n", encoding="utf-8")
    return path


def _configuration(directory: Path, port: int, registration_files: Sequence[Path]) -> dict[str, Any]:
    limits: dict[str, Any] = {
        "rc_message": _MESSAGES,
        "rc_registration": _UNLIMITED,
        "rc_registration_token_validity": _UNLIMITED,
        "rc_login": dict.fromkeys(("address", "account", "failed_attempts"), _UNLIMITED),
        "rc_admin_redaction": _UNLIMITED,
        "rc_joins": {"local": _UNLIMITED, "remote": _UNLIMITED},
        "rc_joins_per_room": _UNLIMITED,
        "rc_3pid_validation": _UNLIMITED,
        "rc_invites": dict.fromkeys(("per_room", "per_user", "per_issuer"), _UNLIMITED),
        "rc_presence": {"per_user": _UNLIMITED},
        "rc_room_creation": _UNLIMITED,
        "rc_media_create": _UNLIMITED,
        "rc_key_requests": _UNLIMITED,
        "rc_delayed_event_mgmt": _UNLIMITED,
        "rc_reports": _UNLIMITED,
    }
    return {
        "server_name": SERVER_NAME,
        "public_baseurl": f"http://127.0.0.1:{port}/",
        "pid_file": str(directory / "homeserver.pid"),
        "listeners": [
            {
                "port": port,
                "bind_addresses": ["127.0.0.1"],
                "type": "http",
                "resources": [{"names": ["client"]}],
            }
        ],
        "database": {"name": "sqlite3", "args": {"database": str(directory / "homeserver.db")}},
        "log_config": str(directory / "log.yaml"),
        "media_store_path": str(directory / "media"),
        "signing_key_path": str(directory / "signing.key"),
        "macaroon_secret_key": secrets.token_hex(16),
        "form_secret": secrets.token_hex(16),
        "registration_shared_secret": secrets.token_hex(16),
        "trusted_key_servers": [],
        "suppress_key_server_warning": True,
        # Federation to nobody: what a check says about other servers must not leave this machine.
        "federation_domain_whitelist": [],
        "report_stats": False,
        "enable_registration": True,
        "enable_registration_without_verification": True,
        "bcrypt_rounds": 4,
        "presence": {"enabled": True},
        "room_list_publication_rules": [{"action": "allow"}],
        "app_service_config_files": [str(path) for path in registration_files],
        **limits,
    }


_LOGGING = {
    "version": 1,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"output": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"level": "WARNING", "handlers": ["output"]},
    "disable_existing_loggers": False,
}
