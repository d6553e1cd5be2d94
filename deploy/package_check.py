#!/usr/bin/env python3
"""Makes the Debian package of each given program twice, unpacks it, and checks what must be true of
it. Neither installs nor starts anything on this machine.

Usage: package_check.py PROGRAM...
"""

import pathlib
import re
import subprocess
import sys
import tempfile

PACKAGE = pathlib.Path(__file__).resolve().parent / "package.py"


def fail(what):
    sys.exit(f"package: {what}")


def output(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def check(program, folder):
    name = program.name
    made = []
    for place in ["first", "second"]:
        (folder / place).mkdir()
        made.append(pathlib.Path(output(sys.executable, PACKAGE, program, folder / place)))
    if made[0].read_bytes() != made[1].read_bytes():
        fail("not reproducible")
    output("lintian", "--fail-on", "error,warning", made[0])
    for line in output("dpkg-deb", "--contents", made[0]).splitlines():
        mode, owner, path = line.split()[0], line.split()[1], line.split()[-1]
        if owner != "root/root" or mode[0] not in "d-" or re.search("[sStT]", mode) or mode[8] == "w":
            fail(f"{path}: {mode} {owner}")
        if path.startswith("./etc"):
            fail(f"{path}: an upgrade would replace settings")
    root = folder / "root"
    output("dpkg-deb", "--raw-extract", made[0], root)
    if (root / "usr/bin" / name).read_bytes() != program.read_bytes():
        fail("another program")
    for script in ["postinst", "prerm"]:
        output("sh", "-n", root / "DEBIAN" / script)
    control = (root / "DEBIAN/control").read_text()
    libraries = {"kms-server": ["libc6", "libssl3"], "kms-bot": ["libc6"]}[name]
    for library in libraries:
        if f"{library} (>= " not in control:
            fail(f"does not depend on {library}: {control}")
    unit = root / f"usr/lib/systemd/system/{name}.service"
    [start] = re.findall("^ExecStart=(\\S+)", unit.read_text(), re.M)
    if start != f"/usr/bin/{name}":
        fail(f"the unit starts {start}")
    output("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", unit)
    # The user that the unit names, made in the unpacked folder.
    (root / "etc").mkdir()
    output("systemd-sysusers", f"--root={root}")
    [user] = re.findall("^User=(\\S+)", unit.read_text(), re.M)
    if not re.search(f"^{user}:.*nologin$", (root / "etc/passwd").read_text(), re.M):
        fail("the unit's user is not made")
    print(f"{made[0].name}: {made[0].stat().st_size // 1_000_000} MB")


def main():
    for program in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as directory:
            check(pathlib.Path(program).resolve(), pathlib.Path(directory))


main()
