"""Keys and credentials as NATS has them: what ``nk`` and ``nsc`` write, for servers that tests begin."""

import base64
import json
from binascii import crc_hqx
from pathlib import Path
from typing import Any

import pytest

ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519", reason="there is no cryptography")

KINDS = {"operator": 14 << 3, "account": 0, "user": 20 << 3}
"""The first byte of a public key; its first five bits are the letter with which that begins: O, A, U."""
SEED = 18 << 3
UNBOUND = {"subs": -1, "data": -1, "payload": -1}
OF_ACCOUNT = {**UNBOUND, **dict.fromkeys(("imports", "exports", "conn", "leaf"), -1), "wildcards": True}
WITH_JETSTREAM = {**OF_ACCOUNT, **dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)}
"""The system's own account may have none."""


def _written(data: bytes) -> str:
    return base64.b32encode(data + crc_hqx(data, 0).to_bytes(2, "little")).decode().rstrip("=")


def _for_web(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Key:
    """A new key of a kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._key = ed25519.Ed25519PrivateKey.generate()
        prefix = KINDS[kind]
        self.public = _written(bytes([prefix]) + self._key.public_key().public_bytes_raw())
        """``UABC…``, as a server's file has it."""
        seed = bytes([SEED | prefix >> 5, (prefix & 31) << 3]) + self._key.private_bytes_raw()
        self.seed = _written(seed)
        """``SUABC…``, which is secret."""

    def says(self, of: "Key", **claims: Any) -> str:
        """A JWT about a key, signed by this one."""
        body = {
            "iss": self.public,
            "sub": of.public,
            "name": of.kind,
            "iat": 1,
            "jti": of.public,
            "nats": {"type": of.kind, "version": 2, **claims},
        }
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        text = ".".join(_for_web(json.dumps(part).encode()) for part in (head, body))
        return f"{text}.{_for_web(self._key.sign(text.encode()))}"


class Operator:
    """Who says which accounts there are, and one account with JetStream."""

    def __init__(self) -> None:
        self._key, self._account, system = Key("operator"), Key("account"), Key("account")
        limits = {self._account: WITH_JETSTREAM, system: OF_ACCOUNT}
        accounts = {one.public: self._key.says(one, limits=of_it) for one, of_it in limits.items()}
        preload = "\n".join(f"{public}: {jwt}" for public, jwt in accounts.items())
        self.config = (
            f"operator: {self._key.says(self._key)}\nsystem_account: {system.public}\n"
            f"resolver: MEMORY\nresolver_preload: {{\n{preload}\n}}"
        )
        """What stands in a server's file."""

    def credentials(self, file: Path, signer: Key | None = None) -> Path:
        """Write those of a new user, as ``nsc`` does; signed by the account, unless by somebody else."""
        user = Key("user")
        jwt = (signer or self._account).says(user, **UNBOUND)
        file.write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            "************************* IMPORTANT *************************\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )
        return file
