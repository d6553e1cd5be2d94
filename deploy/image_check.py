#!/usr/bin/env python3
"""Makes the image of each given program twice, and checks what must be true of it. Needs root: it
runs the program in the unpacked layer, as its user.

Usage: image_check.py PROGRAM...
"""

import gzip
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
IMAGE = HERE / "image.py"
# Names that operators keep secrets under, where they run the script.
PLANTED = ["keys/row", "server.pem", ".env", "bot-token", "kms.db"]
SECRET = b"hunter2-planted-secret"
VECTORS = HERE.parent / "crates/kms-core/vectors"
MANUAL = HERE.parent / "docs/operating/aws.md"
SIGN = "ssh-keygen -Y sign -f release-key -n kms-image digest"
VERIFY = "ssh-keygen -Y verify -f allowed-signers -I release -n kms-image -s digest.sig <digest"


def fail(what):
    sys.exit(f"image: {what}")


def make(program, out, folder):
    command = [sys.executable, IMAGE, program, out, f"{folder / 'rds.pem'}:/etc/ssl/rds.pem"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def blob(out, descriptor):
    algorithm, digest = descriptor["digest"].split(":")
    content = (out / "blobs" / algorithm / digest).read_bytes()
    if hashlib.sha256(content).hexdigest() != digest or len(content) != descriptor["size"]:
        fail(f"{digest} is not its content")
    return content


def check(program, folder):
    for path in PLANTED:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(SECRET)
    (folder / "rds.pem").write_text("the authorities of RDS\n")
    out = folder / "image"
    digests = {make(program, out, folder), make(program, folder / "again", folder)}
    if len(digests) != 1:
        fail(f"not reproducible: {digests}")
    [descriptor] = json.loads((out / "index.json").read_text())["manifests"]
    manifest = json.loads(blob(out, descriptor))
    config = json.loads(blob(out, manifest["config"]))
    if config["config"]["User"] != "10001:10001":
        fail("runs as root")
    [layer] = manifest["layers"]
    tar = gzip.decompress(blob(out, layer))
    if [f"sha256:{hashlib.sha256(tar).hexdigest()}"] != config["rootfs"]["diff_ids"]:
        fail("the layer is not the one of the configuration")
    for path in (out / "blobs/sha256").iterdir():
        if SECRET in path.read_bytes():
            fail("a planted secret is in the image")
    if SECRET in tar:
        fail("a planted secret is in the layer")
    root = folder / "root"
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        entries = archive.getmembers()
        archive.extractall(root, filter="fully_trusted")
    names = {entry.name for entry in entries}
    wanted = {f"usr/local/bin/{program.name}", "etc/ssl/certs/ca-certificates.crt", "etc/ssl/rds.pem"}
    if not wanted <= names:
        fail(f"missing: {wanted - names}")
    for entry in entries:
        if entry.mode & 0o6022 or not (entry.isreg() or entry.isdir()):
            fail(f"{entry.name}: another mode or kind")
        if entry.isreg() and entry.uid != 0:
            fail(f"{entry.name} belongs to the user")
        if pathlib.PurePath(entry.name).name in {"sh", "bash", "dash", "busybox", "apt", "perl"}:
            fail(f"{entry.name} is not needed")
    bill = json.loads((root / f"usr/share/sbom/{program.name}.cdx.json").read_text())
    kinds = [component["purl"].split("/")[0] for component in bill["components"]]
    crates = kinds.count("pkg:cargo")
    if crates < 200 or "pkg:deb" not in kinds:
        fail(f"the bill of materials has {len(kinds)} entries")

    def command(*arguments):
        return [shutil.which("chroot"), "--userspec=10001:10001", root, f"/usr/local/bin/{program.name}", *arguments]

    def run(*arguments, **variables):
        return subprocess.run(command(*arguments), env=variables, capture_output=True, text=True, timeout=120)

    version = run("--version")
    if version.returncode != 0 or not version.stdout.startswith(program.name):
        fail(f"--version: {version.stdout}{version.stderr}")
    nothing = run("check-config")
    if nothing.returncode != 1 or "nothing is configured" not in nothing.stderr:
        fail(f"check-config: {nothing.stdout}{nothing.stderr}")
    if program.name == "kms-server":
        serves(command, run, root)
    signature(next(iter(digests)), folder)
    size = layer["size"] // 1_000_000
    print(f"{program.name}: {digests.pop()}, {size} MB, {len(entries)} entries, {crates} crates")


def signature(digest, folder):
    """The manual's commands sign a digest, and refuse another one."""
    if not all(command in MANUAL.read_text() for command in [SIGN, VERIFY]):
        fail("docs/operating/aws.md signs in another way")
    run = lambda command: subprocess.run(["sh", "-ec", command], cwd=folder, capture_output=True, text=True)
    run("ssh-keygen -q -t ed25519 -N '' -f release-key && echo release $(cat release-key.pub) >allowed-signers")
    (folder / "digest").write_text(f"{digest}\n")
    for command in [SIGN, VERIFY]:
        done = run(command)
        if done.returncode != 0:
            fail(f"{command}: {done.stdout}{done.stderr}")
    (folder / "digest").write_text(f"sha256:{'0' * 64}\n")
    if run(VERIFY).returncode == 0:
        fail("a signature holds for another digest")


def serves(command, run, root):
    """The server makes its databases, reads its settings, serves and is healthy in the image, as its
    user."""
    name = "localhost"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", "key", "-out", "pem", "-days", "9", "-subj", f"/CN={name}",
                        "-addext", f"subjectAltName=DNS:{name}"], cwd=folder, check=True, capture_output=True)
        certificate, key = [(pathlib.Path(folder) / file).read_text() for file in ["pem", "key"]]
    keys = {f"KMS_SERVER__SERVER_KEYS__{key}": f"1:{'1' * 64}"
            for key in ["PEPPER", "CONTACT", "ROW", "AUDIT", "CODES", "CHECKPOINT"]}
    settings = {
        "KMS_SERVER__TLS__CERTIFICATE": certificate,
        "KMS_SERVER__TLS__KEY": key,
        "KMS_SERVER__DATABASE__URL": "sqlite:/var/lib/kms-audit/accounts.db",
        "KMS_SERVER__KEY_DATABASE__URL": "sqlite:/var/lib/kms-audit/keys.db",
        "KMS_SERVER__KMS_KEY__ID": "test",
        "KMS_SERVER__KMS_KEY__PATH": "/etc/kms/test-kms-key.txt",
        "KMS_SERVER__KMS_KEY__PASSPHRASE_FILE": "/etc/kms/test-kms-key-passphrase.txt",
        "KMS_SERVER__LISTEN": "127.0.0.1:0",
        "KMS_SERVER__PAGE__LISTEN": "127.0.0.1:0",
        "KMS_SERVER__OPS__LISTEN": "127.0.0.1:0",
        "KMS_SERVER__CHAINS__ETHEREUM__RPC_URLS": "https://rpc.invalid",
        "KMS_SERVER__CHAINS__ETHEREUM__CHAIN_ID": "1",
        "KMS_SERVER__CHAINS__ETHEREUM__NAME": "Ethereum",
        **keys,
    }
    for name in ["test-kms-key.txt", "test-kms-key-passphrase.txt"]:
        path = root / "etc/kms" / name
        path.write_bytes((VECTORS / name).read_bytes())
        path.chmod(0o600)
        os.chown(path, 10001, 10001)
    migrated = run("migrate", **settings)
    if migrated.returncode != 0:
        fail(f"migrate: {migrated.stdout}{migrated.stderr}")
    report = run("check-config", **settings).stdout
    for line in ["ok      tls", "ok      key_database", "ok      database.schema", "failed  chains.ethereum.rpc_urls 1"]:
        if line not in report:
            fail(f"check-config: no {line}: {report}")
    server = subprocess.Popen(command("serve"), env=settings, stdout=subprocess.PIPE, text=True)
    try:
        started = next((line for line in server.stdout if '"listening"' in line), None) or fail("serve ended")
        address = json.loads(started)["ops_address"]
        for _ in range(50):
            healthy = run("healthcheck", "--address", address)
            if healthy.returncode == 0:
                break
            time.sleep(0.1)
        server.terminate()
        if healthy.returncode != 0 or server.wait(timeout=60) != 0:
            fail(f"serve: {healthy.stdout}{healthy.stderr}")
    finally:
        server.kill()


def main():
    if os.geteuid() != 0:
        sys.exit("image_check.py needs root, for chroot")
    for program in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as directory:
            folder = pathlib.Path(directory)
            # The user of the image passes through it.
            folder.chmod(0o755)
            check(pathlib.Path(program).resolve(), folder)


main()
