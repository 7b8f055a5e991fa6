"""Redaction of credentials in URLs, for all that a run writes or prints. Has no side effects."""

from __future__ import annotations

import re
import urllib.parse

REDACTED = "REDACTED"

# `user:password@` of a URL's authority; the password may contain an unescaped @.
_USERINFO = re.compile(r"(?<=://)[^\s/?#<>]*@")
_PARAMETER = re.compile(r"(?<=[?&;#])([^\s=?&;#]+)=([^\s&;#\"'<>]*)")

# Parameters that grant access: signed URLs of AWS, Google Cloud, Azure, Alibaba, Tencent,
# CloudFront and Akamai, and the usual names of tokens.
_GRANTS_ACCESS = re.compile(
    r"x-(amz|goog|oss)-(signature|credential|security-token)"
    r"|awsaccesskeyid|googleaccessid|ossaccesskeyid|(q-)?signature|key-pair-id|policy|sig|hmac|jwt"
    r"|hdnts|hdnea|__gda__"
    r"|([a-z]+[_-])*(token|secret|password|passwd|pwd)|(api|access)[_-]?key|auth|authorization",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return a text with the credentials of the URLs in it replaced by `REDACTED`.

    Replaces the userinfo of an authority, and the values of query and fragment parameters that
    grant access or hold a URL with credentials.

    >>> redact("https://me:pw@a.example/b.jpg?size=2&X-Amz-Signature=0f3c")
    'https://REDACTED@a.example/b.jpg?size=2&X-Amz-Signature=REDACTED'
    """
    if "://" not in text:
        return text
    return _PARAMETER.sub(_redact_parameter, _USERINFO.sub(f"{REDACTED}@", text))


def _redact_parameter(match: re.Match[str]) -> str:
    name, value = match.groups()
    decoded = urllib.parse.unquote(value)
    if _GRANTS_ACCESS.fullmatch(urllib.parse.unquote(name)) or (
        decoded != value and redact(decoded) != decoded
    ):
        return f"{name}={REDACTED}"
    return match[0]
