"""Ids that are hashes of canonical content."""

import hashlib
import json


def content_id(content: object) -> str:
    """Return the blake2b-128 hex digest of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
