"""Signed prefix files: golden bytes, what is covered, whose keys count. Spec:
docs/prefix-file.md.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from prefixes import small_prefix

from edgeprefix.runtime.contracts.prefix_file import Prefix, read_signature, sign_prefix
from edgeprefix.runtime.contracts.signature import (
    SIGNATURE_KEY,
    SigningKey,
    TrustedKeys,
    write_key_pair,
)
from edgeprefix.runtime.errors import (
    MissingExtraError,
    OutputError,
    PrefixFileError,
    SignatureError,
)

SEED = bytes(range(32))


@pytest.fixture
def key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(SEED))


@pytest.fixture
def trusted(key: SigningKey) -> TrustedKeys:
    return TrustedKeys(frozenset([bytes.fromhex(key.public_hex)]))


def with_claim(data: bytes, claim: Any) -> bytes:
    """A file whose signature entry holds something else."""
    (length,) = struct.unpack("<Q", data[:8])
    entries = json.loads(data[8 : 8 + length])
    entries["__metadata__"][SIGNATURE_KEY] = claim
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def test_golden_bytes(key: SigningKey) -> None:
    """Ed25519 is deterministic: one prefix and one key give one file, for ever."""
    data = sign_prefix(small_prefix().to_bytes(), key)
    assert (
        hashlib.sha256(data).hexdigest()
        == "bc82d3f24f59f8e0b33e1a093c8b1be65ff9e87c25ba902b8f028fa9fb8c4e10"
    )
    assert sign_prefix(data, key) == data, "a second signature takes the first one's place"


def test_a_signed_file_is_the_same_prefix(key: SigningKey, trusted: TrustedKeys) -> None:
    plain = small_prefix().to_bytes()
    signed = sign_prefix(plain, key)
    assert Prefix.from_bytes(signed, trusted_keys=trusted).to_bytes() == plain
    assert Prefix.from_bytes(signed).to_bytes() == plain, "who does not insist reads it too"
    (length,) = struct.unpack("<Q", signed[:8])
    assert (length % 8, signed[8 + length :]) == (0, plain[-64:])


def test_every_altered_byte_is_refused_or_harmless(key: SigningKey, trusted: TrustedKeys) -> None:
    data = sign_prefix(small_prefix().to_bytes(), key)
    plain = small_prefix().to_bytes()
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1
        try:
            again = Prefix.from_bytes(bytes(altered), trusted_keys=trusted)
        except PrefixFileError:  # or SignatureError, which is one
            continue
        assert again.to_bytes() == plain, f"byte {position} changed the prefix unnoticed"


CLAIMS: list[tuple[str, Any]] = [
    ("cannot be read", "no json"),
    ("cannot be read", "[]"),
    ("cannot be read", "{}"),
    ("cannot be read", "[" * 5_000),
    ("cannot be read: not Ed25519", '{"algorithm":"none","key":"","signature":""}'),
    ("cannot be read", '{"algorithm":"ed25519","key":7,"signature":"00"}'),
    ("is none of the 1 trusted", json.dumps({"algorithm": "ed25519", "key": "0" * 64,
                                             "signature": "0" * 128})),
]  # fmt: skip


@pytest.mark.parametrize(("message", "claim"), CLAIMS)
def test_hostile_signatures(trusted: TrustedKeys, message: str, claim: str) -> None:
    data = with_claim(small_prefix().to_bytes(), claim)
    with pytest.raises(SignatureError, match=f"x: has a signature that {message}|{message}"):
        Prefix.from_bytes(data, source="x", trusted_keys=trusted)


def test_a_signature_of_another_file_or_task_does_not_fit(
    key: SigningKey, trusted: TrustedKeys
) -> None:
    claim = read_signature(sign_prefix(small_prefix().to_bytes(), key))
    for other in (small_prefix(name="u"), small_prefix(dtype="fp16")):
        data = with_claim(other.to_bytes(), claim)
        with pytest.raises(SignatureError, match="has a signature that does not fit its content"):
            Prefix.from_bytes(data, trusted_keys=trusted)
    with pytest.raises(SignatureError, match=r"is not signed; sign it with `edgeprefix sign FILE"):
        Prefix.from_bytes(small_prefix().to_bytes(), trusted_keys=trusted)
    with pytest.raises(SignatureError, match="does not fit"):  # the hash itself, without the words
        trusted.require(
            json.dumps(
                {
                    "algorithm": "ed25519",
                    "key": key.public_hex,
                    "signature": Ed25519PrivateKey.from_private_bytes(SEED).sign(b"a" * 64).hex(),
                }
            ),
            "a" * 64,
        )


def test_keys_are_files_of_ones_own(tmp_path: Path) -> None:
    private, public = write_key_pair(tmp_path / "keys" / "me")
    assert (private.stat().st_mode & 0o777, public.stat().st_mode & 0o077) == (0o600, 0o044)
    write_key_pair(tmp_path / "keys" / "you")
    both = TrustedKeys.load(tmp_path / "keys")
    assert len(both.keys) == 2
    pair = tmp_path / "both.pem"
    pair.write_text(public.read_text() + (tmp_path / "keys" / "you.pub").read_text())
    assert TrustedKeys.load([pair]) == both
    assert TrustedKeys.load(both) is both
    data = sign_prefix(small_prefix().to_bytes(), SigningKey.load(private))
    assert Prefix.from_bytes(data, trusted_keys=both).name == "t"
    with pytest.raises(OutputError, match=r"me\.key exists already; choose another --out"):
        write_key_pair(tmp_path / "keys" / "me")


def test_what_is_no_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pub").write_text("no key")
    (tmp_path / "bad.pub").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----")
    (tmp_path / "binary.pub").write_bytes(b"\xff\xfe")
    curve = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "curve.pub").write_bytes(
        curve.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    for name, message in (
        ("empty", "no public key was given"),
        ("none", "none cannot be read: No such file"),
        ("text.pub", r"text\.pub holds no Ed25519 public key"),
        ("bad.pub", r"bad\.pub is no file of public keys"),
        ("binary.pub", r"binary\.pub is no file of public keys"),
        ("curve.pub", "or one of another kind"),
    ):
        with pytest.raises(SignatureError, match=message):
            TrustedKeys.load(tmp_path / name)
    own = Ed25519PrivateKey.generate()
    locked = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    (tmp_path / "locked.key").write_bytes(locked)
    (tmp_path / "curve.key").write_bytes(
        curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    for name, message in (
        ("none", "cannot be read: No such file"),
        ("text.pub", r"text\.pub is no private key as"),
        ("locked.key", r"locked\.key is no private key as .*Password"),
        ("curve.key", "of another kind, expected Ed25519"),
    ):
        with pytest.raises(SignatureError, match=message):
            SigningKey.load(tmp_path / name)


def test_without_cryptography_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        __import__("sys").modules, "cryptography.hazmat.primitives.asymmetric", None
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'edgeprefix\[sign\]'"):
        write_key_pair(tmp_path / "me")
