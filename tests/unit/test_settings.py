"""Settings as others hand them over: with a newline at the end, by Kubernetes, or too short to be a secret."""

from pathlib import Path

import pytest

from broker.errors import SettingsError
from broker.settings import read_settings
from consumers.cli.client import access_token, base_url
from consumers.credentials import admin_token


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("POSTBOTE_ADMIN_TOKEN", "POSTBOTE_PORT", "POSTBOTE_HOST", "POSTBOTE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("POSTBOTE_DATA_DIR", str(tmp_path / "data"))


@pytest.mark.parametrize("around", ["\n", "\r\n", " ", "\t\n"])
def test_blanks_around_a_secret_are_none_of_it(around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTBOTE_ADMIN_TOKEN", f"a-token-of-24-characters{around}")
    monkeypatch.setenv("POSTBOTE_AMQP_URL", f"amqp://u:p@h/v{around}")
    settings = read_settings()
    assert admin_token(settings) == "a-token-of-24-characters"
    assert settings.amqp_url is not None
    assert settings.amqp_url.get_secret_value() == "amqp://u:p@h/v"
    assert access_token(settings, "ch_1", f"pbc_token{around}") == "pbc_token"


@pytest.mark.parametrize(
    "token", ["x", "fifteen-letters", "with blanks in the middle", "ümlaut-ümlaut-ümlaut"]
)
def test_a_token_that_could_be_guessed_or_not_be_sent_is_refused_in_a_sentence(
    token: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("POSTBOTE_ADMIN_TOKEN", token)
    with pytest.raises(SettingsError, match="POSTBOTE_ADMIN_TOKEN: must"):
        read_settings()
    monkeypatch.delenv("POSTBOTE_ADMIN_TOKEN")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin-token").write_text(token)
    with pytest.raises(SettingsError, match="admin-token"):
        admin_token(read_settings())


@pytest.mark.parametrize("name", ["HOST", "DATA_DIR", "ADMIN_TOKEN", "AMQP_URL", "DATABASE_URL", "PORT"])
@pytest.mark.parametrize("blank", [" ", "\n", "\t \r\n"])
def test_a_setting_of_blanks_is_refused_and_never_means_everything(
    name: str, blank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"POSTBOTE_{name}", blank)
    with pytest.raises(SettingsError, match=f"POSTBOTE_{name}: .*blank"):
        read_settings()


def test_a_database_in_memory_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTBOTE_DATABASE_URL", "sqlite:///:memory:")
    with pytest.raises(SettingsError, match=r"POSTBOTE_DATABASE_URL: .*names a file"):
        read_settings()


def test_the_address_that_kubernetes_sets_is_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTBOTE_PORT", "tcp://10.96.0.17:8080")
    monkeypatch.setenv("POSTBOTE_PORT_8080_TCP_PORT", "8080")
    monkeypatch.setenv("POSTBOTE_SERVICE_HOST", "10.96.0.17")
    assert read_settings().port == 8080


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("::1", "http://[::1]:8080"),
        ("[::1]", "http://[::1]:8080"),
        ("::", "http://[::1]:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("localhost", "http://localhost:8080"),
    ],
)
def test_the_address_of_the_api_is_a_url_whatever_the_host(
    host: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTBOTE_HOST", host)
    assert base_url(read_settings()) == wanted
