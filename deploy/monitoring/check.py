#!/usr/bin/env python3
"""Checks rules, dashboard and runbooks against each other and against the operators' table.

Runs promtool, which must be on the PATH.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# What Prometheus adds to the families of the table.
DERIVED = re.compile(r"_(bucket|sum|count)$")


def documented():
    """The metrics of the operators' table, and the events below it."""
    page = (ROOT / "docs/operating/monitoring.md").read_text()
    metrics, alarms = page.split("## Metrics")[1].split("## Alarms")
    rows = lambda text: "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    return set(re.findall(r"kms_[a-z_]+", rows(metrics))), set(re.findall(r"`([a-z_]+)`", rows(alarms)))


def main():
    metrics, events = documented()
    problems = []

    def check(where, expression):
        for name in re.findall(r"\bkms_[a-z_]+", expression):
            if name not in metrics and DERIVED.sub("", name) not in metrics:
                problems.append(f"{where}: {name} is not in the operators' table")
        for pattern in re.findall(r'event=~?"([^"]+)"', expression):
            for event in pattern.split("|"):
                if not any(re.fullmatch(event, known) for known in events):
                    problems.append(f"{where}: no event is named {event}")

    rules = yaml.safe_load((HERE / "rules.yml").read_text())["groups"][0]["rules"]
    headings = re.findall(r"^## (\w+)\n\n(.*)", (ROOT / "docs/operating/runbooks.md").read_text(), re.M)
    names = [name for name, _ in headings]
    for rule in rules:
        name = rule["alert"]
        check(name, rule["expr"])
        if name not in names:
            problems.append(f"{name} has no runbook")
        if rule["annotations"]["runbook"] != f"docs/operating/runbooks.md#{name.lower()}":
            problems.append(f"{name} links elsewhere")
    for name, first in headings:
        if name not in [rule["alert"] for rule in rules]:
            problems.append(f"the runbook {name} has no alert")
        if name != "KmsCertificateExpires" and "`" not in first:
            problems.append(f"the runbook {name} does not begin with a command")
    dashboard = json.loads((HERE / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            check(panel["title"], target["expr"])
    for problem in problems:
        print(problem)

    promtool = lambda *arguments: subprocess.run(["promtool", *arguments], check=True)
    promtool("check", "rules", str(HERE / "rules.yml"))
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as tests:
        cases = [sys.executable, str(HERE / "rules_test.py"), str(HERE / "rules.yml")]
        subprocess.run(cases, stdout=tests, check=True)
        promtool("test", "rules", tests.name)
    sys.exit(bool(problems))


main()
