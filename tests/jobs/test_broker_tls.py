"""Brokers behind TLS: tasks get through to the right one, and to no other that only pretends."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from support.brokers import RabbitTls, RedisTls, missing
from support.services import missing_service

from hyblink.app.core.settings import JobsSettings, Settings
from hyblink.app.jobs.celery_jobs import ENCODE, celery_for

pytestmark = pytest.mark.services
KINDS: dict[str, Callable[[Path, Path], RedisTls | RabbitTls]] = {"redis": RedisTls, "rabbitmq": RabbitTls}


def certificate(path: Path, name: str) -> Path:
    """Key and self-signed certificate of a host, in one file."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize("kind", list(KINDS))
def test_only_the_broker_that_is_meant_gets_tasks(kind: str, tmp_path: Path) -> None:
    if lacking := missing(kind):
        missing_service(lacking)
    good = certificate(tmp_path / "good.pem", "localhost")
    other = certificate(tmp_path / "other.pem", "localhost")
    elsewhere = certificate(tmp_path / "elsewhere.pem", "queue.example.org")

    def send(url: str, authority: Path | None) -> str:
        """Send a task and read it back; what was read, or why not."""
        jobs = JobsSettings(broker=url, ca_file=authority)  # type: ignore[arg-type]
        celery = celery_for(Settings(data_dir=tmp_path / "data", jobs=jobs))
        try:
            with celery.connection(connect_timeout=10) as connection:
                connection.ensure_connection(max_retries=1, timeout=15)
                celery.send_task(ENCODE, args=["notes", "g000001"], queue="encode", connection=connection)
                queue = connection.SimpleQueue(celery.amqp.queues["encode"])
                message = queue.get(timeout=15)
                message.ack()
                return str(message.payload[0])
        except Exception as error:
            return f"{type(error).__name__} {error}"
        finally:
            celery.close()

    broker = KINDS[kind](tmp_path / "broker", good)
    broker.start()
    try:
        assert send(broker.url, good) == "['notes', 'g000001']"
        assert "certificate verify failed" in send(broker.url, other).lower()
        assert "certificate verify failed" in send(broker.url, None).lower()
        plain = broker.url.replace("rediss", "redis").replace("amqps", "amqp")
        assert "notes" not in send(plain, good)
    finally:
        broker.stop()
    pretender = KINDS[kind](tmp_path / "pretender", elsewhere)
    pretender.start()
    try:
        refused = send(pretender.url, elsewhere).lower()
        assert "hostname" in refused or "certificate verify failed" in refused, refused
    finally:
        pretender.stop()
