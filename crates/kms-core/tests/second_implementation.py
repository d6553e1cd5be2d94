"""Opens a wallet and its wrapped SCK from FORMAT.md alone.

Shares no code with kms-core. Reads a JSON document on standard input: the rows as they are
stored (hex), the password hash, the pepper, and the KMS key with its passphrase. Prints `ok`.
"""

import hashlib
import hmac
import json
import sys

from argon2.low_level import Type, hash_secret_raw
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def hkdf(salt, secret, info):
    return HKDF(hashes.SHA256(), 32, salt, info).derive(secret)


def stretch(kdf, password_hash, salt):
    name, costs = kdf.split(":")
    costs = dict(cost.split("=") for cost in costs.split(","))
    if name == "argon2id":
        return hash_secret_raw(
            password_hash,
            salt,
            time_cost=int(costs["t"]),
            memory_cost=int(costs["m"]),
            parallelism=int(costs["p"]),
            hash_len=32,
            type=Type.ID,
            version=0x13,
        )
    assert name == "pbkdf2-sha256", name
    return hashlib.pbkdf2_hmac("sha256", password_hash, salt, int(costs["i"]))


def open_key(row, sck):
    assert hmac.compare_digest(hkdf(None, sck, b"wallet-kms/v1/commit").hex(), row["commitment"])
    sealed = bytes.fromhex(row["sealed_key"])
    assert sealed[0] == 1 and len(sealed) == 61
    aad = (
        b"wallet-kms/v1/private-key"
        + bytes.fromhex(row["account_id"])
        + row["telegram_id"].to_bytes(8, "big", signed=True)
        + bytes.fromhex(row["address"])
        + bytes.fromhex(row["sck_id"])
    )
    key = AESGCM(hkdf(None, sck, b"wallet-kms/v1/seal")).decrypt(sealed[1:13], sealed[13:], aad)
    public = ec.derive_private_key(int.from_bytes(key, "big"), ec.SECP256K1()).public_key()
    point = public.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    assert point.hex() == row["public_key"]
    return key


def main():
    row = json.load(sys.stdin)
    password_hash = hashlib.pbkdf2_hmac(
        "sha256",
        row["password"].encode(),
        b"wallet-kms/v1/password-hash:" + str(row["telegram_id"]).encode(),
        600_000,
    )
    assert password_hash.hex() == row["password_hash"]
    stretched = stretch(row["kdf"], password_hash, bytes.fromhex(row["salt"]))
    sck = hkdf(bytes.fromhex(row["pepper"]), stretched, b"wallet-kms/v1/sck")
    by_password = open_key(row, sck)

    kms_key = serialization.load_pem_private_key(
        row["kms_key"].encode(), row["kms_passphrase"].encode()
    )
    plain = kms_key.decrypt(
        bytes.fromhex(row["wrapped_sck"]),
        padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None),
    )
    owner = "01" + row["account_id"] + row["address"] + row["sck_id"]
    assert len(plain) == 85 and plain[:53].hex() == owner
    assert open_key(row, plain[53:]) == by_password
    print("ok")


main()
