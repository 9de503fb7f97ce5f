"""Octets of a fuzzer as words of a protocol, which octets alone would take for ever to spell."""

from collections.abc import Sequence


def spelled(data: bytes, words: Sequence[bytes]) -> tuple[int, bytes]:
    """(the first octet, for switches; the rest). If the first is odd, each octet below 0x80 stands for a word."""
    switches, octets = data[0] if data else 0, data[1:]
    if switches & 1:
        octets = b"".join(words[octet % len(words)] if octet < 0x80 else bytes((octet - 0x80,)) for octet in octets)
    return switches, octets
