"""The configuration file: strict, with errors that name the line and the remedy."""

from pathlib import Path

import pytest

from mailkeep import config
from mailkeep.errors import ConfigError


def load(tmp_path: Path, text: str, **words: object) -> config.Config:
    file = tmp_path / "mailkeep.toml"
    file.write_text(text)
    return config.load(file, **words)  # type: ignore[arg-type]  # words are what a test is about


def test_every_key_is_read(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        """
        data = "mail"
        hostname = "mail.example.org"
        workers = 3
        domains = ["Example.org", "example.net."]
        postmaster = "anna"
        listen.imap = ["127.0.0.1:143", "[::1]:143"]
        listen.imaps = "*:993"
        listen.pop3 = "none"
        listen.pop3s = "127.0.0.1:0"
        listen.lmtp = "/run/lmtp"
        tls.certificate = "tls/cert.pem"
        tls.key = "/etc/key.pem"
        [limits]
        message_size = "10 MiB"
        connections = 5
        connections_per_peer = 6
        sessions_per_user = 7
        recipients = 8
        login_timeout = 9
        idle_timeout = "2h"
        pop3_timeout = "11m"
        lmtp_timeout = "12s"
        [store]
        quota = "1.5G"
        retention = "4w"
        gc_grace = "90m"
        gc_every = 0
        search_index = false
        [log]
        level = "debug"
        format = "json"
        """,
    )
    assert found.data == tmp_path / "mail" and found.tls_certificate == tmp_path / "tls/cert.pem"
    assert found.tls_key == Path("/etc/key.pem") and found.hostname == "mail.example.org" and found.workers == 3
    assert found.domains == {"example.org", "example.net"} and found.postmaster == "anna"
    assert [str(at) for at in found.listen["imap"]] == ["127.0.0.1:143", "[::1]:143"]
    assert found.listen["imaps"][0].host == "0.0.0.0" and found.listen["pop3"] == ()
    assert found.listen["lmtp"][0].path == Path("/run/lmtp")
    assert (found.message_size_max, found.connections_max, found.connections_per_peer_max) == (10 << 20, 5, 6)
    assert (found.sessions_per_user_max, found.lmtp_recipients_max, found.login_timeout_s) == (7, 8, 9)
    assert (found.idle_timeout_s, found.pop3_timeout_s, found.lmtp_timeout_s) == (7200, 660, 12)
    assert (found.quota_default, found.retention_s, found.gc_grace_s) == (3 << 29, 28 * 86400, 5400)
    assert (found.gc_every_s, found.search_index, found.log_level, found.log_format) == (0, False, "debug", "json")
    text = (tmp_path / "mailkeep.toml").read_text()
    assert all(key.rpartition(".")[2] in text for key in config.KEYS), "a key that this test does not know"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[store]\nretenton = "3d"\n', ["mailkeep.toml:2", "store.retenton", "did you mean store.retention"]),
        ("\n\nworkrs = 2\n", ["mailkeep.toml:3", "did you mean workers"]),
        ('retention = "3d"\n', ["mailkeep.toml:1", "did you mean store.retention"]),
        ("[storage]\n", ["mailkeep.toml:1", "storage"]),
        ("[wholly]\nother = 1\n", ["mailkeep.toml:2", "docs/configuration.md"]),
        ("workers = 0\n", ["mailkeep.toml:1", "from 1 to 256"]),
        ('workers = "2"\n', ["whole number"]),
        ("workers = true\n", ["whole number"]),
        ('[store]\nquota = "lots"\n', ["mailkeep.toml:2", "such as 500M"]),
        ('listen.imap = "143"\n', ["HOST:PORT"]),
        ('listen.imap = "/run/imap"\n', ["HOST:PORT"]),
        ('listen.imap = "::1:143"\n', ["HOST:PORT"]),
        ('listen.imap = "h:70000"\n', ["HOST:PORT"]),
        ('[log]\nlevel = "loud"\n', ["debug, info, warning, error"]),
        ('[tls]\ncertificate = "x"\n', ["key is missing"]),
        ('[tls]\nkey = "x"\n', ["certificate is missing"]),
        ("workers = \n", ["not valid TOML", "line 1"]),
        ('domains = ["a@b"]\n', ["domain names"]),
    ],
)
def test_errors_name_the_line_and_the_remedy(tmp_path: Path, text: str, told: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text)
    for word in told:
        assert word in raised.value.text
    assert "\n" not in raised.value.text


def test_doors_of_the_command_line(tmp_path: Path) -> None:
    def opened(text: str, words: dict[str, tuple[str, ...]]) -> dict[str, list[str]]:
        found = load(tmp_path, text, listen=words)
        return {door: [str(at) for at in listen] for door, listen in found.listen.items() if listen}

    assert opened("", {}) == {door: [at] for door, at in config.DEFAULT_LISTEN.items()}
    assert opened("", {"imap": ("127.0.0.1:0",)}) == {"imap": ["127.0.0.1:0"]}
    both = 'listen.imap = "127.0.0.1:1"\nlisten.pop3 = "127.0.0.1:2"\n'
    assert opened(both, {"imap": ("h:3", "h:4"), "pop3": ("none",)}) == {"imap": ["h:3", "h:4"]}
    with pytest.raises(ConfigError, match="--lmtp must be HOST:PORT"):
        load(tmp_path, "", listen={"lmtp": ("nowhere",)})


def test_a_file_that_was_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        config.load(tmp_path / "none.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert config.load().data == tmp_path / "share" / "mailkeep"
    (tmp_path / "mailkeep").mkdir()
    (tmp_path / "mailkeep" / "mailkeep.toml").write_text("workers = 2\n")
    assert config.load().workers == 2 and config.load(workers=3).workers == 3


@pytest.mark.parametrize(("text", "size"), [("5G", 5 << 30), ("1.5 MiB", 3 << 19), ("10", 10), (10, 10), ("2kB", 2048)])
def test_sizes(text: object, size: int) -> None:
    assert config.size(text) == size
