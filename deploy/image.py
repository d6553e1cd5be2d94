#!/usr/bin/env python3
"""Makes the image of a program: an OCI layout with one layer, which has the program, the libraries
that it is linked with, the certificate authorities of Debian's package, and nothing else.

Usage: image.py PROGRAM OUT [FILE:PATH]... Each FILE is copied to PATH in the image. Run it on the
Debian whose libraries the image is to have, after `cargo build --locked --profile dist`. The same
inputs give the same digest, which is printed. A registry takes the layout by
`skopeo copy oci:OUT docker://REGISTRY/NAME`.
"""

import gzip
import hashlib
import io
import json
import pathlib
import platform
import re
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
USER = 10001
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
# Without those that were added to this machine.
MOZILLA = pathlib.Path("/usr/share/ca-certificates/mozilla")
# What glibc reads to resolve names, and who the user is.
TEXTS = {
    "etc/passwd": f"kms:x:{USER}:{USER}::/etc/kms:/\n",
    "etc/group": f"kms:x:{USER}:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
# Owned by the user: settings, and what a program may write if a volume is mounted there.
FOLDERS = {"server": ["etc/kms", "var/lib/kms-audit"], "bot": ["etc/kms", "var/lib/kms-bot"]}


def output(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def libraries(program):
    """The paths of the libraries and of the loader, as the program names them."""
    listed = output("ldd", str(program))
    if "not found" in listed:
        sys.exit(f"a library is missing:\n{listed}")
    return sorted(re.findall(r"(?:=> |^\t)(/\S+) \(0x", listed, re.M))


def debian_package(path):
    """The package of a library and its version."""
    for known in [path, f"/usr{path}"]:
        found = subprocess.run(["dpkg", "-S", known], capture_output=True, text=True)
        if found.returncode == 0:
            name = found.stdout.split(": ")[0]
            return name.split(":")[0], output("dpkg-query", "-W", "-f", "${Version}", name)
    sys.exit(f"{path} is of no package")


def crates(name):
    """The crates that are linked into a program, from its lock file."""
    target = f"{platform.machine()}-unknown-linux-gnu"
    metadata = json.loads(output("cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target))
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    [first] = [key for key, package in packages.items() if package["name"] == name]
    found, rest = set(), [first]
    while rest:
        key = rest.pop()
        if key in found:
            continue
        found.add(key)
        for dependency in nodes[key]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                rest.append(dependency["pkg"])
    return sorted((packages[key]["name"], packages[key]["version"], packages[key]["license"]) for key in found)


def bill_of_materials(program, paths):
    """What the image is made of, as CycloneDX."""
    components = [
        {"type": "library", "name": name, "version": version, "purl": f"pkg:cargo/{name}@{version}",
         **({"licenses": [{"expression": terms.replace("/", " OR ")}]} if terms else {})}
        for name, version, terms in crates(program)
    ]
    for name, version in sorted({debian_package(path) for path in paths}):
        components.append({"type": "library", "name": name, "version": version,
                           "purl": f"pkg:deb/debian/{name}@{version}"})
    subject = {"type": "application", "name": program}
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
            "metadata": {"component": subject}, "components": components}


def layer(files, folders):
    """A tar archive that depends on its contents alone: files have a mode and bytes."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        parents = {str(parent) for path in [*files, *folders] for parent in pathlib.PurePath(path).parents}
        for path in sorted((parents - {"."}) | set(folders)):
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o700 if path in folders else 0o755
            entry.uid = entry.gid = USER if path in folders else 0
            tar.addfile(entry)
        for path, (mode, content) in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.mode, entry.size = mode, len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def store(out, content):
    digest = hashlib.sha256(content).hexdigest()
    (out / "blobs/sha256" / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def compact(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def main():
    program, out = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    name = program.name
    files = {f"usr/local/bin/{name}": (0o755, program.read_bytes())}
    paths = libraries(program)
    for path in paths:
        files[path.lstrip("/")] = (0o755, pathlib.Path(path).read_bytes())
    authorities = [path.read_bytes() for path in sorted(MOZILLA.glob("*.crt"))]
    if not authorities:
        sys.exit("no certificate authorities; install ca-certificates")
    files[AUTHORITIES.lstrip("/")] = (0o644, b"".join(authorities))
    for path, text in TEXTS.items():
        files[path] = (0o644, text.encode())
    for given in sys.argv[3:]:
        source, _, path = given.partition(":")
        files[path.lstrip("/")] = (0o644, pathlib.Path(source).read_bytes())
    origins = [*paths, str(min(MOZILLA.glob("*.crt")))]
    bill = json.dumps(bill_of_materials(name, origins), indent=1, sort_keys=True).encode()
    files[f"usr/share/sbom/{name}.cdx.json"] = (0o644, bill)

    out.joinpath("blobs/sha256").mkdir(parents=True)
    tar = layer(files, FOLDERS[name.removeprefix("kms-")])
    zipped = store(out, gzip.compress(tar, compresslevel=9, mtime=0))
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    config = store(out, compact({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": f"{USER}:{USER}",
            "Entrypoint": [f"/usr/local/bin/{name}"],
            "Cmd": ["serve"],
            "Env": ["PATH=/usr/local/bin", f"SSL_CERT_FILE={AUTHORITIES}"],
            "WorkingDir": "/etc/kms",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
    }))
    oci = "application/vnd.oci.image"
    manifest = store(out, compact({
        "schemaVersion": 2,
        "mediaType": f"{oci}.manifest.v1+json",
        "config": {"mediaType": f"{oci}.config.v1+json", **config},
        "layers": [{"mediaType": f"{oci}.layer.v1.tar+gzip", **zipped}],
    }))
    index = {"schemaVersion": 2, "manifests": [{"mediaType": f"{oci}.manifest.v1+json", **manifest}]}
    (out / "index.json").write_bytes(compact(index))
    (out / "oci-layout").write_bytes(compact({"imageLayoutVersion": "1.0.0"}))
    print(manifest["digest"])


main()
