# SPDX-License-Identifier: Apache-2.0
"""Reads a TLS ClientHello (RFC 8446 4.1.2) from the raw bytes of a connection, so that a test knows
what the client said even when no handshake follows."""

RECORD_HANDSHAKE = 22

_SERVER_NAME = 0
_ALPN = 16
_SESSION_TICKET = 35
_PRE_SHARED_KEY = 41
_EARLY_DATA = 42
_SUPPORTED_VERSIONS = 43


class ClientHello:
    """`server_name` (None without SNI), `alpn` (list), `offers_resumption`, `offers_early_data`,
    `versions` (list of numbers, 0x0304 is TLS 1.3)."""

    def __init__(self, extensions):
        name = extensions.get(_SERVER_NAME)
        self.server_name = name[5:].decode() if name else None
        self.alpn = [part.decode() for part in _vectors(extensions.get(_ALPN, b"\0\0")[2:])]
        self.offers_resumption = (_PRE_SHARED_KEY in extensions
                                  or bool(extensions.get(_SESSION_TICKET)))
        self.offers_early_data = _EARLY_DATA in extensions
        versions = extensions.get(_SUPPORTED_VERSIONS, b"\0")[1:]
        self.versions = [int.from_bytes(versions[at:at + 2], "big")
                         for at in range(0, len(versions), 2)]


def _vectors(data):
    while data:
        yield data[1:1 + data[0]]
        data = data[1 + data[0]:]


def _handshake_bytes(raw):
    """The contents of the handshake records at the start, without record headers."""
    content = b""
    while len(raw) >= 5 and raw[0] == RECORD_HANDSHAKE:
        length = int.from_bytes(raw[3:5], "big")
        content += raw[5:5 + length]
        raw = raw[5 + length:]
    return content


def parse(raw):
    """The ClientHello at the start of `raw`, or None when it is not whole yet or is something
    else."""
    content = _handshake_bytes(raw)
    if len(content) < 4 or content[0] != 1:
        return None
    body = content[4:4 + int.from_bytes(content[1:4], "big")]
    if len(body) < int.from_bytes(content[1:4], "big"):
        return None
    at = 34                                             # version and random
    at += 1 + body[at]                                  # session ID
    at += 2 + int.from_bytes(body[at:at + 2], "big")    # cipher suites
    at += 1 + body[at]                                  # compression methods
    end = at + 2 + int.from_bytes(body[at:at + 2], "big")
    at += 2
    extensions = {}
    while at < end:
        kind = int.from_bytes(body[at:at + 2], "big")
        length = int.from_bytes(body[at + 2:at + 4], "big")
        extensions[kind] = body[at + 4:at + 4 + length]
        at += 4 + length
    return ClientHello(extensions)
