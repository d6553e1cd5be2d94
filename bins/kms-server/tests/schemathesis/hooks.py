"""Rules for schemathesis that no JSON schema expresses."""

import json
import os

import schemathesis
from hypothesis import strategies as st

# In lower case an address carries no checksum, so every such address is valid (EIP-55).
ADDRESSES = st.text("0123456789abcdef", min_size=40, max_size=40).map(lambda digits: "0x" + digits)
schemathesis.openapi.format("eip55", ADDRESSES)


with open(os.environ["KMS_SEEDS"], encoding="utf-8") as file:
    SEEDS = json.load(file)
# How many valid requests of each operation were sent.
TURNS = {}


@schemathesis.hook
def before_call(context, case, kwargs):
    """Sends a request that was prepared in place of a valid generated one, see `seeds.rs`."""
    if not case.meta.generation.mode.is_positive:
        return
    operation = operation_id(case)
    seeds = [seed for seed in SEEDS if seed["operation"] == operation]
    turn = TURNS[operation] = TURNS.get(operation, -1) + 1
    if not seeds or turn % 2:
        return
    seed = seeds[turn // 2 % len(seeds)]
    case.path_parameters = {**(case.path_parameters or {}), **seed["path"]}
    if "body" in seed:
        case.body = seed["body"]


@schemathesis.hook
def after_call(context, case, response):
    """Records the status, and drops a seed with a body that succeeded."""
    operation = operation_id(case)
    with open(os.environ["KMS_STATUSES"], "a", encoding="utf-8") as file:
        file.write(f"{operation} {response.status_code}\n")
    if 200 <= response.status_code < 300:
        SEEDS[:] = [seed for seed in SEEDS if "body" not in seed or seed["body"] != case.body]


def operation_id(case):
    return case.operation.definition.raw["operationId"]


@schemathesis.hook
def map_body(context, body):
    """Writes 50.0 as 50: both are integers for JSON Schema, the server accepts the latter only."""
    return as_integers(body)


@schemathesis.hook
def map_query(context, query):
    """Waits for events for at most a second: the server answers a long poll when it ends."""
    wait = (query or {}).get("wait")
    if str(wait).isdecimal() and 1 < int(wait) <= 60:
        return {**query, "wait": int(wait) % 2}
    return query


def as_integers(value):
    if isinstance(value, dict):
        return {key: as_integers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [as_integers(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
