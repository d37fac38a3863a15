"""The form of a scheduler's address."""

import re

from ..errors import UsageError

_ADDRESS = re.compile(r"([a-z]+://)?(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})/?")


def check_address(address: str) -> None:
    """Check the form of a scheduler's address.

    Raises:
        UsageError: the address is malformed.
    """
    match = _ADDRESS.fullmatch(address)
    if not match or not 0 < int(match[3]) < 2**16:
        raise UsageError(f"scheduler '{address}': give an address such as tcp://node1:8786")
