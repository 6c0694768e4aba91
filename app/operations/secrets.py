"""Passwords and certificates for the parts of an installation in containers: made once, never shown."""

from __future__ import annotations

import datetime as dt
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAYS = 3650
SERVERS = ("opensearch", "redis")
CLIENT = "hyblink"
USER = "hyblink"


def make_secrets(folder: Path, owners: Mapping[str, int]) -> list[str]:
    """Make what is missing of the secrets in a folder; return the names of the parts that were made.

    Each part (`opensearch`, `redis`, `hyblink`) has a folder that only its user may read: `owners` are user ids.
    All have `ca.pem`. Servers have `server.pem`, `server-key.pem` and `password`. Ours has `env`, the settings that
    reach them. Parts that are there stay as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = [*SERVERS, CLIENT]
    if all((folder / part / "ca.pem").exists() for part in parts):
        return []
    authority, key = _authority()
    ca = authority.public_bytes(serialization.Encoding.PEM)
    passwords = {server: secrets.token_urlsafe(32) for server in SERVERS}
    for server in SERVERS:
        own, certificate = _certificate(server, authority, key)
        _write(folder / server, owners.get(server), {
            "server.pem": certificate, "server-key.pem": own, "password": passwords[server].encode(), "ca.pem": ca,
        })  # fmt: skip
    settings = {
        "HYBLINK_OPENSEARCH__USER": USER,
        "HYBLINK_OPENSEARCH__PASSWORD": passwords["opensearch"],
        "HYBLINK_OPENSEARCH__CA_FILE": folder / CLIENT / "ca.pem",
        "HYBLINK_JOBS__BROKER": f"rediss://:{passwords['redis']}@redis:6379/0",
        "HYBLINK_JOBS__CA_FILE": folder / CLIENT / "ca.pem",
    }
    env = "".join(f"export {name}='{value}'\n" for name, value in settings.items())
    _write(folder / CLIENT, owners.get(CLIENT), {"env": env.encode(), "ca.pem": ca})
    return parts


def _write(folder: Path, owner: int | None, files: Mapping[str, bytes]) -> None:
    """Write the files for one user only; `ca.pem` comes last, so that a part that has it is whole."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if owner is not None:
            os.chown(path, owner, owner)
    if owner is not None:
        os.chown(folder, owner, owner)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    made = (
        _begun("hyblink's own authority", _named("hyblink's own authority"), key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return made, key


def _certificate(host: str, authority: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[bytes, bytes]:
    """(private key, certificate) in PEM of a server that is reached under the name `host`."""
    own = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName(host), x509.DNSName("localhost")]
    made = (
        _begun(host, authority.subject, own.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, made.public_bytes(serialization.Encoding.PEM)


def _begun(name: str, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    began = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(began - dt.timedelta(hours=1))
        .not_valid_after(began + dt.timedelta(days=_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
