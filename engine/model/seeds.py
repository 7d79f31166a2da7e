"""Seeds of every random draw, which depend on the purpose and values of the draw only."""

import hashlib


def derived_seed(purpose: str, *of: object) -> int:
    """Return a seed in [0, 2**63) from a purpose and the values that determine the draw."""
    name = "/".join([purpose, *(str(value) for value in of)])
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1
