"""Verifies what kms-core and kms-store write, from FORMAT.md alone. Shares no code with them.

    second_implementation.py wallet              a live wallet, as JSON on standard input
    second_implementation.py vectors             vectors/v1.json
    second_implementation.py rows [ROWS.JSON]    vectors/rows.json: MACs, audit chain, checkpoints

Prints `ok`, or fails. The fields of row MACs are read from the tables of FORMAT.md.
"""

import hashlib
import hmac
import json
import pathlib
import re
import sys
import unicodedata
import uuid

from argon2.low_level import Type, hash_secret_raw
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CRATE = pathlib.Path(__file__).parent.parent
VECTORS = CRATE / "vectors"


def hkdf(salt, secret, info):
    return HKDF(hashes.SHA256(), 32, salt, info).derive(secret)


def i64(value):
    return value.to_bytes(8, "big", signed=True)


def framed(fields):
    return b"".join(len(field).to_bytes(8, "big") + field for field in fields)


def mac(key, fields):
    return hmac.digest(key, framed(fields), "sha256")


def code(tag):
    return f"{int.from_bytes(tag[:8], 'big') % 10**8:08}"


# Password hash, KDF, SCK


def password_hash(password, telegram_id):
    salt = f"wallet-kms/v1/password-hash:{telegram_id}".encode()
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 600_000)


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


def derive_sck(pepper, stretched):
    return hkdf(pepper, stretched, b"wallet-kms/v1/sck")


# Sealed and wrapped keys. `row` has binary columns in hex.


def open_key(row, sck):
    assert hmac.compare_digest(hkdf(None, sck, b"wallet-kms/v1/commit").hex(), row["commitment"])
    sealed = bytes.fromhex(row["sealed_key"])
    assert sealed[0] == 1 and len(sealed) == 61
    aad = (
        b"wallet-kms/v1/private-key"
        + bytes.fromhex(row["account_id"])
        + i64(int(row["telegram_id"]))
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


def unwrap_sck(row, pem, passphrase):
    kms_key = serialization.load_pem_private_key(pem.encode(), passphrase.encode())
    plain = kms_key.decrypt(
        bytes.fromhex(row["wrapped_sck"]),
        padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None),
    )
    owner = "01" + row["account_id"] + row["address"] + row["sck_id"]
    assert len(plain) == 85 and plain[:53].hex() == owner
    return plain[53:]


def open_by_server(purpose, contact_key, owner, sealed):
    label = b"wallet-kms/v1/" + purpose
    assert sealed[:2] == b"\x01\x01"
    key = hkdf(None, contact_key, label)
    return AESGCM(key).decrypt(sealed[2:14], sealed[14:], label + owner)


def verify_wallet(row):
    hashed = password_hash(row["password"], row["telegram_id"])
    assert hashed.hex() == row["password_hash"]
    stretched = stretch(row["kdf"], hashed, bytes.fromhex(row["salt"]))
    by_password = open_key(row, derive_sck(bytes.fromhex(row["pepper"]), stretched))
    assert open_key(row, unwrap_sck(row, row["kms_key"], row["kms_passphrase"])) == by_password


def verify_vectors(vectors):
    v = {
        name: bytes.fromhex(text) if re.fullmatch("([0-9a-f]{2})+", text) else text
        for name, text in vectors.items()
    }
    assert hmac.digest(v["pepper"], b"wallet-kms/v1/check", "sha256") == v["pepper_check_value"]
    for kdf in ["argon2id", "pbkdf2"]:
        stretched = stretch(v[f"{kdf}_text"], v["password_hash"], v["salt"])
        assert stretched == v[f"{kdf}_stretched"]
    sck = derive_sck(v["pepper"], v["argon2id_stretched"])
    assert sck == v["sck"] and hkdf(None, sck, b"wallet-kms/v1/seal") == v["seal_key"]
    row = dict(
        vectors,
        address=vectors["address"].removeprefix("0x").lower(),
        sealed_key=vectors["sealed_private_key"],
    )
    assert open_key(row, sck) == v["private_key"]
    pem = (VECTORS / "test-kms-key.txt").read_text()
    passphrase = (VECTORS / "test-kms-key-passphrase.txt").read_text()
    assert unwrap_sck(row, pem, passphrase) == sck
    for purpose, owner, sealed, plain in [
        (b"contact", v["account_id"] + b"email", "sealed_email", b"ann@example.org"),
        (
            b"transaction",
            v["transfer_id"] + b"payment",
            "sealed_transaction",
            v["transaction"],
        ),
    ]:
        assert open_by_server(purpose, v["contact_key"], owner, v[sealed]) == plain
    at = i64(int(vectors["requested_at"]))
    recovery = [v["recovery_id"], v["account_id"], at]
    assert code(mac(v["codes_key"], [b"recovery-code", *recovery])) == vectors["recovery_code"]
    assert mac(v["codes_key"], [b"recovery-cancel", *recovery]) == v["recovery_cancel_mac"][1:]
    freeze = [b"freeze-link", v["account_id"], at]
    assert mac(v["codes_key"], freeze) == v["freeze_link_mac"][1:]
    email = [b"email-code", v["account_id"], at, v["sealed_email"]]
    assert code(mac(v["codes_key"], email)) == vectors["email_code"]


# Row MACs


def row_formats():
    """The fields of each row's MAC as FORMAT.md lists them: column, encoding, condition."""
    page = (CRATE / "FORMAT.md").read_text()
    formats = {}
    for section in re.split(r"^##+ ", page, flags=re.MULTILINE):
        heading = re.match(r"Row `(\w+)`\n", section)
        if not heading:
            continue
        fields = []
        for line in re.findall(r"^\|(.*)\|$", section, flags=re.MULTILINE)[2:]:
            column, encoding, condition = (cell.strip().strip("`") for cell in line.split("|"))
            fields.append((column, encoding, condition))
        formats[heading[1]] = fields
    return formats


def encode(value, encoding):
    if encoding.startswith('"'):
        return encoding.strip('"').encode()
    if encoding.endswith(" or empty") and value is None:
        return b""
    if encoding == "i64 or -1":
        return i64(-1 if value is None else value)
    match encoding.removesuffix(" or empty"):
        case "text":
            return value.encode()
        case "uuid":
            return uuid.UUID(value).bytes
        case "address":
            address = bytes.fromhex(value.removeprefix("0x"))
            assert len(address) == 20
            return address
        case "blob":
            return bytes.fromhex(value)
        case "i64":
            return i64(value)
        case "u8":
            return bytes([value])
    raise ValueError(encoding)


def row_mac(key, table, row, fields):
    present = [field for field in fields if not field[2] or row[field[2]] is not None]
    return mac(key, [table.encode(), *(encode(row.get(c), e) for c, e, _ in present)])


def verify_rows(document):
    key_id, key = document["row_key"].split(":")
    key = bytes.fromhex(key)
    wallets = {wallet["account_id"]: wallet for wallet in document["wallets"]}
    formats = row_formats()
    assert formats.keys() == document["tables"].keys(), "FORMAT.md and the vectors differ"
    for table, rows in document["tables"].items():
        covered = {column for column, _, _ in formats[table] if column}
        for stored in rows:
            row = {f"{table}.{column}": value for column, value in stored.items()}
            if table == "accounts":
                wallet = wallets[stored["id"]]
                row |= {f"wallets.{column}": value for column, value in wallet.items()}
            assert covered <= row.keys(), f"{table} has no {covered - row.keys()}"
            assert stored["mac_key"] == int(key_id)
            found = row_mac(key, table, row, formats[table]).hex()
            assert found == stored["mac"], f"{table}: {stored}"
    verify_claims(document["tables"]["names"])
    for line in document["pause_lines"]:
        paused, at, tag = line.split(" ")
        fields = [b"switches", b"recoveries", bytes([int(paused)]), i64(int(at))]
        assert tag == f"{int(key_id):02x}" + mac(key, fields).hex()


def verify_claims(rows):
    newest = {}
    for row in rows:
        name = row["canonical"]
        assert row["previous"] == newest.get(name, "00" * 32), f"a claim on {name} is missing"
        fields = [
            b"wallet-kms/v1/claim",
            i64(row["telegram_id"]),
            name.encode(),
            i64(row["claimed_at"]),
            bytes([row["reassigned"]]),
            bytes.fromhex(row["previous"]),
        ]
        framed = b"".join(len(field).to_bytes(8, "big") + field for field in fields)
        newest[name] = hashlib.sha256(framed).hexdigest()


# Audit


def optional(value):
    return b"" if value is None else b"\x01" + value


def text(value):
    return optional(value and value.encode())


def verify_details(details):
    lines = [line.split("=", 1) for line in details.split("\n")] if details else []
    names = [name for name, _ in lines]
    assert names == sorted(set(names)) and all(re.fullmatch("[a-z_]+", name) for name in names)
    assert not any(unicodedata.category(letter) == "Cc" for _, value in lines for letter in value)


def verify_audit(document):
    key_id, key = document["audit_key"].split(":")
    key = bytes.fromhex(key)
    public_keys = {}
    for entry in document["checkpoint_public_key"].split(","):
        version, public_key = entry.split(":")
        public_key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        public_keys[version] = public_key
    previous, known, place = bytes(32), {}, 0
    for number, row in enumerate(document["audit"], 1):
        assert row["chain_seq"] == number and row["seq"] > place and row["key_id"] == int(key_id)
        assert row["prev_hash"] == previous.hex(), f"row {number} does not follow"
        telegram_id = row["telegram_id"]
        fields = [
            b"wallet-kms/v2/audit",
            previous,
            i64(number),
            i64(row["at"]),
            row["actor"].encode(),
            row["request_id"].encode(),
            row["action"].encode(),
            text(row["subject"]),
            text(row["account_id"]),
            optional(None if telegram_id is None else i64(telegram_id)),
            row["phase"].encode(),
            text(row["outcome"]),
            row["details"].encode(),
        ]
        previous, place = hashlib.sha256(framed(fields)).digest(), row["seq"]
        assert row["hash"] == previous.hex(), f"row {number} was modified"
        keyed = mac(key, [b"wallet-kms/v2/audit-row", previous])
        assert row["keyed_hash"] == keyed.hex(), f"row {number} was not written with the audit key"
        verify_details(row["details"])
        known[number] = previous
    for line in document["checkpoints"]:
        version, number, digest, at, signer, signature = line.split(" ")
        assert version == "v2"
        assert known[int(number)].hex() == digest, f"checkpoint {number} is of another chain"
        fields = [b"wallet-kms/v2/audit-checkpoint", i64(int(number)), bytes.fromhex(digest)]
        message = framed([*fields, i64(int(at))])
        public_keys[signer].verify(bytes.fromhex(signature), message)
    assert known and document["checkpoints"]


def main():
    match sys.argv[1:]:
        case ["wallet"]:
            verify_wallet(json.load(sys.stdin))
        case ["vectors"]:
            verify_vectors(json.loads((VECTORS / "v1.json").read_text()))
        case ["rows", *path]:
            path = pathlib.Path(path[0]) if path else VECTORS / "rows.json"
            document = json.loads(path.read_text())
            verify_rows(document)
            verify_audit(document)
        case _:
            sys.exit(__doc__)
    print("ok")


main()
