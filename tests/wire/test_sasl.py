"""SASL mechanisms; SCRAM against scramp's client as a stranger, and against the RFC's own example."""

from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient, ScramException

from mailkeep.errors import BadCredentials, MailkeepError, ProtocolError
from mailkeep.wire import sasl
from mailkeep.wire.sasl import Challenge, LoginServer, PasswordClaim, PlainServer, ScramKeys, ScramServer, ScramVerified

BINDINGS = {"tls-server-end-point": b"e" * 32, "tls-unique": b"u" * 12}


def test_plain() -> None:
    machine = PlainServer()
    assert machine.step(None) == Challenge(b"")
    assert machine.step(b"\0demo\0pa ss") == PasswordClaim("demo", "pa ss")
    assert machine.step(b"demo\0demo\0x") == PasswordClaim("demo", "x")
    assert "geheim" not in repr(machine.step(b"\0demo\0geheim"))
    with pytest.raises(BadCredentials):
        machine.step(b"root\0demo\0x")
    for bad in (b"", b"demo\0x", b"\0\0x", b"\0a\0b\0c", b"\0a\0\xff", b"\0a\0\x01", b"\0" + b"a" * 2000 + b"\0x"):
        with pytest.raises(ProtocolError):
            machine.step(bad)


def test_names_are_prepared() -> None:
    # RFC 4013 section 3: soft hyphen vanishes, NFKC, no control characters.
    assert PlainServer().step("\0I\u00adX\0\u2168".encode()) == PasswordClaim("IX", "IX")


def test_login() -> None:
    machine = LoginServer()
    assert machine.step(None) == Challenge(b"Username:")
    assert machine.step(b"demo") == Challenge(b"Password:")
    assert machine.step(b"secret") == PasswordClaim("demo", "secret")
    machine = LoginServer()  # the name as initial response
    assert machine.step(b"demo") == Challenge(b"Password:")


# RFC 7677 section 3.
def test_scram_example_of_the_rfc() -> None:
    from scramp.core import ScramMechanism

    salt = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    _, stored, server, count = ScramMechanism("SCRAM-SHA-256").make_auth_info("pencil", 4096, salt)
    machine = ScramServer(
        "SCRAM-SHA-256",
        {},
        lambda login: ScramKeys(salt, stored, server, count),
        nonce="%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
    )
    first = machine.step(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    assert first == Challenge(b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
    final = machine.step(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert final == Challenge(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    assert machine.step(b"") == ScramVerified("user")


def scram(mechanism: str, password: str, *, bindings: dict[str, bytes], binding: tuple[str, bytes] | None) -> str:
    keys = sasl.make_keys(mechanism.removesuffix("-PLUS"), "pencil,=ü", iterations=4096)
    server = ScramServer(mechanism, bindings, lambda login: keys)
    client = ScramClient([mechanism], "us,e=r", password, channel_binding=binding)
    challenge = server.step(client.get_client_first().encode())
    assert isinstance(challenge, Challenge)
    client.set_server_first(challenge.data.decode())
    assert server.proving
    challenge = server.step(client.get_client_final().encode())
    assert isinstance(challenge, Challenge)
    client.set_server_final(challenge.data.decode())
    result = server.step(b"")
    assert isinstance(result, ScramVerified)
    return result.login


@pytest.mark.parametrize("mechanism", sasl.SCRAM)
def test_scram(mechanism: str) -> None:
    assert scram(mechanism, "pencil,=ü", bindings={}, binding=None) == "us,e=r"
    with pytest.raises(BadCredentials):
        scram(mechanism, "pencil", bindings={}, binding=None)


@pytest.mark.parametrize("name", BINDINGS)
@pytest.mark.parametrize("mechanism", sasl.PLUS)
def test_scram_plus(mechanism: str, name: str) -> None:
    binding = (name, BINDINGS[name])
    assert scram(mechanism, "pencil,=ü", bindings=BINDINGS, binding=binding) == "us,e=r"
    with pytest.raises(BadCredentials):  # somebody else's TLS on the way
        scram(mechanism, "pencil,=ü", bindings={**BINDINGS, name: b"other"}, binding=binding)
    with pytest.raises(ProtocolError):
        scram(mechanism, "pencil,=ü", bindings={}, binding=binding)


def test_scram_downgrade_is_noticed() -> None:
    with pytest.raises(BadCredentials):
        ScramServer("SCRAM-SHA-256", BINDINGS, lambda _: KEYS).step(b"y,,n=user,r=abc")
    assert isinstance(ScramServer("SCRAM-SHA-256", {}, lambda _: KEYS).step(b"y,,n=user,r=abc"), Challenge)


def test_scram_identity() -> None:
    assert isinstance(ScramServer("SCRAM-SHA-1", {}, lambda _: KEYS).step(b"n,a=user,n=user,r=abc"), Challenge)
    with pytest.raises(BadCredentials):
        ScramServer("SCRAM-SHA-1", {}, lambda _: KEYS).step(b"n,a=root,n=user,r=abc")


KEYS = ScramKeys(b"salt", b"s" * 20, b"k" * 20, 4096)


@pytest.mark.parametrize(
    "message",
    [b"", b"n", b"n,,", b"n,,n=,r=a", b"n,,n=a", b"n,,m=x,n=a,r=b", b"n,,n=a=b,r=c", b"p=,,n=a,r=b", b"n,,n=a,r=b\0",
     b"p=tls-exporter,,n=a,r=b", b"x,,n=a,r=b", b"\xff,,n=a,r=b"],
)  # fmt: skip
def test_scram_bad_first(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        ScramServer("SCRAM-SHA-1", BINDINGS, lambda _: KEYS).step(message)


@given(st.binary(max_size=60))
def test_scram_bad_final(message: bytes) -> None:
    machine = ScramServer("SCRAM-SHA-1", {}, lambda _: KEYS, nonce="n")
    machine.step(b"n,,n=a,r=b")
    with pytest.raises(MailkeepError):
        machine.step(message)


def test_scram_nonce_must_be_ours() -> None:
    keys = sasl.make_keys("SCRAM-SHA-256", "x", iterations=4096)
    server = ScramServer("SCRAM-SHA-256", {}, lambda _: keys)
    client = ScramClient(["SCRAM-SHA-256"], "user", "x")
    server.step(client.get_client_first().encode())
    with pytest.raises(ScramException):
        client.set_server_first("r=forged,s=c2FsdHNhbHRzYWx0,i=4096")
