"""Rules for schemathesis that no JSON schema expresses."""

import schemathesis
from hypothesis import strategies as st

# In lower case an address carries no checksum, so every such address is valid (EIP-55).
ADDRESSES = st.text("0123456789abcdef", min_size=40, max_size=40).map(lambda digits: "0x" + digits)
schemathesis.openapi.format("eip55", ADDRESSES)


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
