"""What schemathesis must know that no JSON schema says."""

import schemathesis
from hypothesis import strategies as st

# In lower case an address carries no checksum, so every such address is valid (EIP-55).
ADDRESSES = st.text("0123456789abcdef", min_size=40, max_size=40).map(lambda digits: "0x" + digits)
schemathesis.openapi.format("eip55", ADDRESSES)
