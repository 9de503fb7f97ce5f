"""SASL from the client's side: the RFCs' own examples, our own server, and servers that cheat."""

from base64 import b64decode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailkeep.errors import BadCredentials, ProtocolError
from mailkeep.wire import sasl
from mailkeep.wire.sasl_client import Mechanism, choose, make, scram

BINDINGS = {"tls-server-end-point": b"e" * 32, "tls-unique": b"u" * 12}
EXAMPLES = [
    (  # RFC 5802 section 5
        "SCRAM-SHA-1",
        "fyko+d2lbbFgONRv9qkxdawL",
        b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
        b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
    (  # RFC 7677 section 3
        "SCRAM-SHA-256",
        "rOprNGfwEbeRWgbNEkqO",
        b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
]


@pytest.mark.parametrize(("name", "nonce", "first", "server_first", "final", "server_final"), EXAMPLES)
def test_scram_examples_of_the_rfcs(
    name: str, nonce: str, *, first: bytes, server_first: bytes, final: bytes, server_final: bytes
) -> None:
    machine = scram(name, "user", "pencil", nonce=nonce)
    assert machine.step(None) == first
    assert machine.step(server_first) == final
    assert not machine.done
    assert machine.step(server_final) == b""
    assert machine.done
    with pytest.raises(ProtocolError):
        machine.step(b"")
    assert not machine.done


def test_scram_servers_that_cheat() -> None:
    name, nonce, _, server_first, _, server_final = EXAMPLES[0]

    def machine() -> Mechanism:
        made = scram(name, "user", "pencil", nonce=nonce)
        made.step(None)
        return made

    for bad in (
        b"",
        server_first.replace(b"fyko", b"fyka"),  # not our nonce
        b"r=fyko+d2lbbFgONRv9qkxdawL,s=QSXCR+Q6sek8bf92,i=4096",  # nothing added to it
        server_first.replace(b"4096", b"1"),  # our answer would be easy to guess at
        server_first.replace(b"4096", b"999999999"),  # hours of work
        b"m=x," + server_first,  # a mandatory extension
        server_first.replace(b"QSXC", b"Q=XC"),
        server_first + b"\xff",
        b"x" * 9000,
    ):
        made = machine()
        with pytest.raises(ProtocolError):
            made.step(bad)
        assert not made.done
    made = machine()
    made.step(server_first)
    with pytest.raises(BadCredentials):
        made.step(b"e=invalid-proof")
    for bad in (b"", b"v=AAAA", server_final.replace(b"rmF9", b"rmF8"), b"v=%%%"):
        made = machine()
        made.step(server_first)
        with pytest.raises(ProtocolError):
            made.step(bad)
        assert not made.done
    with pytest.raises(ProtocolError):
        scram(name, "user", "pencil", nonce=nonce).step(b"surprise")


@pytest.mark.parametrize("name", ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"])
@given(
    user=st.sampled_from(["demo", "a=b,c", "käse", "日本"]), password=st.sampled_from(["x", "pass wörd,=", "p" * 500])
)
@settings(max_examples=6, deadline=None)
def test_scram_against_our_own_server(name: str, user: str, password: str) -> None:
    keys = sasl.make_keys(name.removesuffix("-PLUS"), sasl.prepare(password), iterations=4096)
    bindings = BINDINGS if name.endswith("-PLUS") else {}

    def run(password: str) -> tuple[Mechanism, object]:
        server = sasl.ScramServer(name, bindings, lambda login: keys)
        client = make(name, user, password, bindings=bindings)
        said = server.step(client.step(None))
        while isinstance(said, sasl.Challenge):
            said = server.step(client.step(said.data))
        return client, said

    client, said = run(password)
    assert client.done
    assert said == sasl.ScramVerified(sasl.prepare(user))
    with pytest.raises(BadCredentials):
        run(password + "x")


def test_a_removed_plus_is_told_to_the_server() -> None:
    keys = sasl.make_keys("SCRAM-SHA-256", "x", iterations=4096)
    server = sasl.ScramServer("SCRAM-SHA-256", BINDINGS, lambda login: keys)
    client = make("SCRAM-SHA-256", "demo", "x", bindings=BINDINGS, offered=["SCRAM-SHA-256"])
    with pytest.raises(BadCredentials):
        server.step(client.step(None))
    with pytest.raises(ProtocolError):
        make("SCRAM-SHA-256-PLUS", "demo", "x")


def test_plain_and_login_against_our_own_server() -> None:
    plain = make("PLAIN", "demo", "pässword")
    assert plain.client_first
    assert sasl.PlainServer().step(plain.step(None)) == sasl.PasswordClaim("demo", "pässword")
    assert plain.done
    with pytest.raises(ProtocolError):
        plain.step(b"")
    login, server = make("LOGIN", "demo", "x"), sasl.LoginServer()
    assert not login.client_first
    assert login.step(b"Username:") == b"demo"
    assert not login.done
    server.step(b"demo")
    assert server.step(login.step(b"User Name\0")) == sasl.PasswordClaim("demo", "x")
    assert login.done
    external = make("EXTERNAL", "demo", "")
    assert sasl.ExternalServer().step(external.step(None)) == sasl.ExternalClaim("demo")


# RFC 2195 section 2.
def test_cram_md5_example_of_the_rfc() -> None:
    machine = make("CRAM-MD5", "tim", "tanstaaftanstaaf")
    challenge = b64decode("PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+")
    assert machine.step(challenge) == b64decode("dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw")
    assert machine.done
    with pytest.raises(ProtocolError):
        make("CRAM-MD5", "tim", "x").step(b"")


# RFC 7628 section 4.1 and 4.3; Google's own page on XOAUTH2.
def test_bearer_tokens() -> None:
    machine = make(
        "OAUTHBEARER",
        "user@example.com",
        "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==",
        host="server.example.com",
        port=143,
    )
    expected = (
        "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyI"
        "HZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
    )
    assert machine.step(None) == b64decode(expected)
    assert machine.done
    report = b'{"status":"invalid_token","scope":"example_scope","openid-configuration":"https://example.com/x"}'
    assert machine.step(report) == b"\x01"
    assert not machine.done
    assert machine.problem == "The token was refused: invalid_token"
    with pytest.raises(ProtocolError):
        machine.step(b"")
    machine = make("XOAUTH2", "someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg")
    expected = (
        "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJhZG1semRHRXVZMj"
        "l0Q2cBAQ=="
    )
    assert (
        machine.step(None)
        == b"user=someuser@example.com\x01auth=Bearer ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg\x01\x01"
    )
    assert machine.step(b'{"status":"400","schemes":"Bearer"}') == b""
    assert machine.problem == "The token was refused: 400"
    for report in (b"", b"\xff", b"[" * 5000, b"[1]", b'{"status":"ya29.x\\nsecret and more"}'):
        machine = make("XOAUTH2", "u", "t")
        machine.step(None)
        machine.step(report)
        assert machine.problem == "The token was refused"


def test_the_strongest_is_chosen() -> None:
    everything = ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "XOAUTH2"]
    assert choose(everything, "password", encrypted=True, bindings=True) == "SCRAM-SHA-256-PLUS"
    assert choose(everything, "password", encrypted=True) == "SCRAM-SHA-256"
    assert choose(["CRAM-MD5", "LOGIN", "PLAIN"], "password", encrypted=True) == "PLAIN"
    assert choose(["CRAM-MD5", "LOGIN", "PLAIN"], "password", encrypted=False) == "CRAM-MD5"
    assert choose(["LOGIN", "PLAIN"], "password", encrypted=False) is None
    assert choose(["LOGIN", "PLAIN"], "password", encrypted=False, open_allowed=True) == "PLAIN"
    assert choose(everything, "token", encrypted=True) == "XOAUTH2"
    assert choose(everything, "token", encrypted=False) is None
    assert choose(["OAUTHBEARER", "XOAUTH2"], "token", encrypted=True) == "OAUTHBEARER"
    assert choose(["EXTERNAL", "PLAIN"], "certificate", encrypted=True) == "EXTERNAL"
    assert choose([], "password", encrypted=True) is None


def test_nothing_that_breaks_out_of_its_field_is_sent() -> None:
    for name, user, secret in (
        ("PLAIN", "a\0b", "x"),
        ("PLAIN", "a", "x\0y"),
        ("XOAUTH2", "a\x01auth=", "x"),
        ("XOAUTH2", "a", "x\x01"),
        ("OAUTHBEARER", "a", "tök"),
        ("NTLM", "a", "x"),
    ):
        with pytest.raises(ProtocolError):
            make(name, user, secret)
    assert "geheim" not in repr(make("PLAIN", "demo", "geheim"))
