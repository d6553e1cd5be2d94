#!/usr/bin/env python3
"""Runs the stacks in moto, which enforces the policies of their roles, until standard input ends.

Prints one line of JSON: the endpoint, the bucket of checkpoints, and the variables of a server, of
an auditor and of an operator.
"""

import json
import os
import signal
import sys

import yaml

import check
import checkpoints


def main():
    # A terminal sends it to the whole process group; the parent's end closes standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    check.start_aws()
    container = check.deploy(check.HERE)
    template = yaml.load((check.HERE / "data.yaml").read_text(), check.Tagged)
    bucket, roles = checkpoints.enforce(container, template)
    print(json.dumps({"endpoint": os.environ["AWS_ENDPOINT_URL"], "bucket": bucket, **roles}), flush=True)
    sys.stdin.read()


main()
