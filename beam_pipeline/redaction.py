"""URLs without their credentials, for all that a run writes or prints. Pure."""

from __future__ import annotations

import re

_REDACTED = "REDACTED"

# `user:password@` of a URL's authority; the password may hold an unescaped @.
_USERINFO = re.compile(r"(?<=://)[^\s/?#\"'<>]*@")

# Query parameters that grant access: signed URLs of AWS, Google Cloud, Azure and CloudFront, and the usual names of tokens.
_PARAMETERS = (
    r"x-(?:amz|goog)-(?:signature|credential|security-token)",
    r"awsaccesskeyid|googleaccessid|signature|key-pair-id|policy|sig",
    r"(?:[a-z]+[_-])*(?:token|secret|password|passwd|pwd)|api[_-]?key|auth|authorization",
)
_QUERY = re.compile(rf"(?i)(?<=[?&;])({'|'.join(_PARAMETERS)})=[^\s&;#\"'<>]*")


def redact(text: str) -> str:
    """Return a text with the credentials of the URLs in it replaced by `REDACTED`.

    Replaces the userinfo of an authority, and the values of query parameters that grant access.

    >>> redact("https://me:pw@a.example/b.jpg?size=2&X-Amz-Signature=0f3c")
    'https://REDACTED@a.example/b.jpg?size=2&X-Amz-Signature=REDACTED'
    """
    if "://" not in text:
        return text
    return _QUERY.sub(rf"\1={_REDACTED}", _USERINFO.sub(f"{_REDACTED}@", text))
