"""compose.yaml without a Docker engine: contexts, commands, settings, health checks, volumes."""

from __future__ import annotations

import re
import shlex
import ssl
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from support.pin_images import main as pin_images
from support.pin_images import named

from hyblink.app.cli.main import cli
from hyblink.app.core.settings import Settings
from hyblink.app.jobs.celery_jobs import uses_celery
from hyblink.app.operations.secrets import make_secrets

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
LAPTOP: dict[str, Any] = yaml.safe_load((ROOT / "compose.laptop.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
_KNOWN = {
    "build", "command", "depends_on", "deploy", "environment", "healthcheck", "image", "ports", "profiles", "restart",
    "stop_grace_period", "ulimits", "user", "volumes",
}  # fmt: skip


def parsed(command: list[str]) -> None:
    """The command line is one that our CLI takes: known commands, known options, good values."""
    found: Any = typer.main.get_command(cli)
    words = command[1:]
    while hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    found.make_context(found.name, words)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_whole(name: str) -> None:
    service = SERVICES[name]
    assert set(service) <= _KNOWN, "no key that compose does not know"
    once = name == "setup"
    assert service["restart"] == ("no" if once else "unless-stopped")
    assert once or service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    for other, wanted in service.get("depends_on", {}).items():
        ended = {"condition": "service_completed_successfully"}
        assert wanted == (ended if other == "setup" else {"condition": "service_healthy"})
        assert other == "setup" or "healthcheck" in SERVICES[other]
    for volume in service.get("volumes", []):
        assert volume.split(":")[0] in COMPOSE["volumes"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "nothing is open to others by itself"
    if "build" in service:
        folder = ROOT / service["build"]["context"]
        assert (folder / service["build"].get("dockerfile", "Dockerfile")).is_file()


@pytest.mark.parametrize("name", [name for name, one in SERVICES.items() if one.get("command", [""])[0] == "hyblink"])
def test_our_commands_and_settings_are_good(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parsed(SERVICES[name]["command"])
    if name == "setup":
        return
    make_secrets(tmp_path, {})
    environment = SERVICES[name]["environment"]
    assert environment.pop("SECRETS_FILE", "/secrets/hyblink/env") == "/secrets/hyblink/env"
    secret = dict(re.findall(r"^export (\w+)='(.*)'$", (tmp_path / "hyblink" / "env").read_text(), re.MULTILINE))
    for more, host, scheme in (
        (secret, "https://opensearch:9200", "rediss"),
        (LAPTOP["services"][name]["environment"], "http://opensearch:9200", "redis"),
    ):
        with monkeypatch.context() as patch:
            for variable, value in {**environment, **more}.items():
                patch.setenv(variable, re.sub(r"\$\{\w+:-(\w+)\}", r"\1", value))  # the default of a variable
            settings = Settings()
        assert settings.engine == "opensearch"
        assert settings.opensearch.hosts == (host,)
        assert uses_celery(settings)
        assert settings.jobs.broker.get_secret_value().partition("://")[0] == scheme
        assert settings.jobs.workers == 0
        for section, key in (
            one.removeprefix("HYBLINK_").lower().split("__") for one in {**environment, **more} if "__" in one
        ):
            assert key in type(getattr(settings, section)).model_fields


def test_the_laptop_overrides_what_is_there() -> None:
    assert set(LAPTOP["services"]) <= set(SERVICES)
    for name, service in LAPTOP["services"].items():
        assert set(service) <= {"command", "environment", "healthcheck"}, name
    secured = [name for name, one in SERVICES.items() if any("secrets" in v for v in one.get("volumes", []))]
    assert set(secured) <= set(LAPTOP["services"])


def test_images_have_exact_versions() -> None:
    for path in ("compose.yaml", "app/Dockerfile", "opensearch/Dockerfile"):
        for name, tag in named((ROOT / path).read_text()):
            assert re.match(r"\d+\.\d+\.\d+", tag), f"{path}: {name}:{tag}"


def test_images_are_pinned_where_a_registry_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = "sha256:" + "ab" * 32

    class Registry(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            known = self.path.startswith("/v2/library/redis/")
            self.send_response(200 if known else 404)
            self.send_header("Docker-Content-Digest", digest)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for path in ("compose.yaml", "app/Dockerfile", "opensearch/Dockerfile"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text((ROOT / path).read_text())
    assert pin_images([f"http://127.0.0.1:{server.server_port}"], tmp_path) == 1, "some could not be asked"
    server.shutdown()
    server.server_close()
    compose = (tmp_path / "compose.yaml").read_text()
    assert f"redis:7.4.2-alpine@{digest}" in compose
    assert named(compose) == named((ROOT / "compose.yaml").read_text())
    assert (tmp_path / "app/Dockerfile").read_text() == (ROOT / "app/Dockerfile").read_text()
    assert "stays as it is" in capsys.readouterr().out


def test_secrets_are_made_once_and_are_for_their_owners_only(tmp_path: Path) -> None:
    assert make_secrets(tmp_path, {}) == ["opensearch", "redis", "hyblink"]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(before) == 10
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert make_secrets(tmp_path, {}) == []
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert b"PRIVATE" not in (tmp_path / "hyblink" / "env").read_bytes()


def test_the_certificates_let_a_client_verify_the_servers(tmp_path: Path) -> None:
    make_secrets(tmp_path, {})
    for name in ("opensearch", "redis"):
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(tmp_path / name / "server.pem", tmp_path / name / "server-key.pem")
        client = ssl.create_default_context(cafile=str(tmp_path / "hyblink" / "ca.pem"))
        for asked, right in ((name, True), ("elsewhere", False)):
            into_client, from_client = ssl.MemoryBIO(), ssl.MemoryBIO()
            ours = client.wrap_bio(into_client, from_client, server_hostname=asked)
            theirs = server.wrap_bio(from_client, into_client, server_side=True)
            try:
                for _ in range(4):
                    for side in (ours, theirs):
                        with suppress(ssl.SSLWantReadError):
                            side.do_handshake()
                verified = ours.getpeercert() is not None
            except ssl.SSLCertVerificationError:
                verified = False
            assert verified is right


def test_the_checks_can_fail() -> None:
    for bad in (
        ["hyblink", "serf"],
        ["hyblink", "serve", "--prot", "1"],
        ["hyblink", "worker", "--concurrency", "none"],
    ):
        with pytest.raises(Exception, match=r"serf|prot|valid integer"):
            parsed(bad)


def test_the_readme_of_compose_is_good_too() -> None:
    commands = re.findall(r"docker compose run --rm api (hyblink .*?)  ", (ROOT / "compose.yaml").read_text())
    assert commands
    for command in commands:
        parsed(shlex.split(command))


def test_the_image_has_what_its_dockerfile_copies() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "app" / "Dockerfile").read_text(), re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for sources in copied:
        for source in sources.replace("${LOCK}", "requirements-light.lock").split():
            assert (ROOT / source).exists(), source
            assert f"!{source.split('/')[0]}" in ignored, source
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= {source for sources in copied for source in sources.split()}
