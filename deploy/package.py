#!/usr/bin/env python3
"""Makes the Debian package of a program: the program, its unit of systemd, its user, its folder of
settings, and the example of them. It starts nothing: there are no settings yet.

Usage: package.py PROGRAM FOLDER. Run it on the Debian that the package is for, after
`cargo build --locked --release`. The same inputs give the same package, whose path is printed.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
ABOUT = {
    "kms-server": ("Key management system for Telegram wallets",
                   "Holds the encrypted keys of wallets, signs payments, and serves the bot."),
    "kms-bot": ("Telegram bot of the wallet key management system",
                "The chat in which people use their wallets; it holds no key."),
}
# Of the first second of 2026; a file's time would make each package another one.
EPOCH = "1767225600"

POSTINST = """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    systemd-sysusers NAME.conf
    # Secrets are in it.
    install -d -m 700 -o NAME -g NAME /etc/NAME
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        # An upgrade; `migrate` of kms-server is to be run first, so that it is not done here.
        if systemctl is-active --quiet NAME; then
            echo "NAME still runs as the older version: see docs/operating/upgrade.md"
        fi
    fi
fi
"""

PRERM = """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now NAME
fi
"""

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Files: *
Copyright: 2026 the authors of this repository
License: MIT or Apache-2.0
 On Debian, /usr/share/common-licenses/Apache-2.0 has the second one.
"""

# Tags of lintian, which package_check.py runs.
OVERRIDES = """\
# Operators make it for their own machines; the Debian archive never has it.
NAME: bogus-mail-host
NAME: root-in-contact
NAME: no-changelog
# With its symbols, the backtrace of a panic has the names of functions.
NAME: unstripped-binary-or-object
# `kms-server --help` and the pages of docs/operating are the manual.
NAME: no-manual-page
# debhelper, which writes this in other packages, is not used.
NAME: maintainer-script-calls-systemctl
"""


def output(*command, cwd=ROOT):
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout


def dependencies(program, folder):
    """The packages of the libraries that the program is linked with."""
    (folder / "debian").mkdir()
    (folder / "debian/control").write_text("Source: kms\n\nPackage: kms\nArchitecture: any\n")
    found = output("dpkg-shlibdeps", "-O", str(program), cwd=folder)
    shutil.rmtree(folder / "debian")
    return found.strip().removeprefix("shlibs:Depends=")


def main():
    program, out = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    name = program.name
    about, more = ABOUT[name]
    version = output(str(program), "--version").split()[1]
    architecture = output("dpkg", "--print-architecture").strip()
    with tempfile.TemporaryDirectory() as directory:
        folder = pathlib.Path(directory)
        depends = dependencies(program, folder)
        unit = (ROOT / f"deploy/systemd/{name}.service").read_text()
        files = {
            "DEBIAN/control": f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
                              f"Maintainer: the operators <root@localhost>\nSection: net\nPriority: optional\n"
                              f"Depends: {depends}, ca-certificates, systemd\nDescription: {about}\n {more}\n",
            "DEBIAN/postinst": POSTINST.replace("NAME", name),
            "DEBIAN/prerm": PRERM.replace("NAME", name),
            f"usr/lib/systemd/system/{name}.service": unit.replace("/usr/local/bin/", "/usr/bin/"),
            f"usr/lib/sysusers.d/{name}.conf": f'u {name} - "{about}" /nonexistent\n',
            f"usr/share/doc/{name}/copyright": COPYRIGHT,
            f"usr/share/lintian/overrides/{name}": OVERRIDES.replace("NAME", name),
            f"usr/share/doc/{name}/env.example":
                (ROOT / f"deploy/{name.removeprefix('kms-')}.env.example").read_text(),
        }
        for path, text in files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755 if path.endswith(("postinst", "prerm")) else 0o644)
        binary = folder / f"usr/bin/{name}"
        binary.parent.mkdir(parents=True)
        shutil.copyfile(program, binary)
        binary.chmod(0o755)
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)
        package = out / f"{name}_{version}_{architecture}.deb"
        command = ["dpkg-deb", "--root-owner-group", "-Zxz", "-z1", "--build", folder, package]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
        subprocess.run(command, check=True, capture_output=True, env=environment)
    print(package)


main()
