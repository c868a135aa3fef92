"""Who signs: a certificate of the user's, or one that lasts as long as the process.

Such certificates are signed by nobody else. They prove that a file is as it was signed, not who made it; for that, a
certificate of an authority that C2PA trusts is needed, which any place that takes one here may name.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consistentid.errors import InvalidSettings

if TYPE_CHECKING:
    from cryptography import x509

CERTIFICATE, KEY = "certificate.pem", "key.pem"
THROW_AWAY = "consistentid (throw-away certificate)"
_DAYS = 365 * 30  # files carry no trusted time stamp, so they are valid for as long as their certificate is


@dataclass(frozen=True)
class Signer:
    """A certificate and its key.

    Attributes:
        name: whom the certificate names.
        chain: PEM, the signing certificate first.
        key: PEM, PKCS 8.
        algorithm: of the key, as C2PA calls it.
    """

    name: str
    chain: bytes
    key: bytes
    algorithm: str = "es256"

    def __repr__(self) -> str:
        """Without the key, so that no log or traceback shows it."""
        return f"Signer(name={self.name!r}, algorithm={self.algorithm!r})"


@cache
def throw_away_signer() -> Signer:
    """A certificate of this process, whose key is nowhere else: no two sessions can be told to be of one person."""
    return make_signer(THROW_AWAY)


def make_signer(name: str) -> Signer:
    """A new certificate, signed by a root of the same name whose key is forgotten at once.

    Args:
        name: whom it names; 1 to 64 characters.

    Raises:
        InvalidSettings: the name does not fit into a certificate.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    try:
        root = _certificate(f"{name} root"[:64], f"{name} root"[:64], root_key, root_key, is_root=True)
        leaf = _certificate(name, f"{name} root"[:64], key, root_key, is_root=False)
    except ValueError as error:
        raise InvalidSettings(f"{name!r} cannot be the name in a certificate ({error}); take 1 to 64 letters") from None
    return Signer(name, _pem(leaf) + _pem(root), _key_pem(key))


def save_signer(signer: Signer, folder: Path) -> Path:
    """Write `certificate.pem` and, for its owner alone, `key.pem`; what is there is never written over.

    Returns:
        Path of the certificate.

    Raises:
        InvalidSettings: there is a certificate already, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, content, mode in ((KEY, signer.key, 0o600), (CERTIFICATE, signer.chain, 0o644)):
            handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
    except FileExistsError:
        raise InvalidSettings(f"{folder} holds a certificate already; move it away to make another one") from None
    except OSError as error:
        raise InvalidSettings(f"cannot write to {folder}: {error.strerror or error}; choose another folder") from None
    return folder / CERTIFICATE


def load_signer(certificate: str | Path, key: str | Path) -> Signer:
    """A certificate of the user's, checked so far that a signature cannot fail for its sake later.

    Args:
        certificate: PEM file of the signing certificate and those above it.
        key: PEM file of its private key, without a password.

    Raises:
        InvalidSettings: a file is missing or malformed, the key is of another certificate, or the time is over.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    chain, private = _read(certificate, "certificate"), _read(key, "key")
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
        secret: Any = load_pem_private_key(private, password=None)
    except (ValueError, TypeError) as error:
        raise InvalidSettings(
            f"{certificate} and {key} are no certificate with its key ({error}); give PEM files, the key without a "
            "password"
        ) from None
    if leaf.public_key() != secret.public_key():
        raise InvalidSettings(f"{key} is not the key of {certificate}; give the two that belong together")
    now = datetime.now(UTC)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        raise InvalidSettings(
            f"{certificate} is valid from {leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}, "
            "not today; renew it"
        )
    return Signer(_name_of(leaf), chain, _key_pem(secret), _algorithm(secret, certificate))


def _read(path: str | Path, what: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise InvalidSettings(f"the {what} {path} cannot be read ({error.strerror}); check the path") from None


def _name_of(certificate: "x509.Certificate") -> str:
    from cryptography.x509.oid import NameOID

    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else certificate.subject.rfc4514_string()


def _algorithm(key: Any, certificate: str | Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    curves = {256: "es256", 384: "es384", 521: "es512"}
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size in curves:
        return curves[key.curve.key_size]
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise InvalidSettings(f"{certificate} has a key that C2PA cannot sign with; take P-256, Ed25519 or RSA")


def _certificate(name: str, issuer: str, key: Any, issuer_key: Any, *, is_root: bool) -> "x509.Certificate":
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(common_name: str) -> x509.Name:
        oids = (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
        return x509.Name([x509.NameAttribute(oid, common_name) for oid in oids])

    yesterday = datetime.now(UTC) - timedelta(days=1)  # clocks differ
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"), False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(yesterday)
        .not_valid_after(yesterday + timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=0 if is_root else None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not is_root:  # C2PA asks for a purpose, and takes this one
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purpose, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _pem(certificate: "x509.Certificate") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    content: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return content
