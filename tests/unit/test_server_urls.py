"""URLs of servers: one that can be read in two ways is refused, and nothing shown or refused tells a secret."""

from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from broker.errors import SettingsError
from broker.server_urls import check_amqp_url, check_database_url, hosts_apart, passwords, shown
from broker.settings import read_settings
from consumers.redaction import Redactor, redactor_of

SECRET = "S3cret-word"
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).map(
    lambda text: f"{SECRET}{text}{SECRET}"
)


def refusal(check: Callable[[str], str], url: str) -> str | None:
    """Return why a URL is refused, or None where it is not."""
    try:
        check(url)
    except ValueError as error:
        return str(error)
    return None


@given(anything)
def test_a_password_that_is_escaped_is_taken_whatever_it_holds(password: str) -> None:
    url = f"amqp://user:{quote(password, safe='')}@host:5672/vhost"
    assert check_amqp_url(url) == url
    assert shown(url) == "amqp://user@host:5672/vhost"


@given(anything)
@example(f"{SECRET}#{SECRET}")
@example(f"{SECRET}/{SECRET}")
@example(f"{SECRET}?{SECRET}")
@example(f"{SECRET}@h/{SECRET}")
@example(f"1/{SECRET}")
def test_a_password_that_is_not_escaped_is_read_as_meant_or_refused_and_never_shown(password: str) -> None:
    for scheme, check in (("amqp", check_amqp_url), ("postgresql", check_database_url)):
        url = f"{scheme}://user:{password}@host:5672/name"
        assert SECRET not in shown(url)
        if (why := refusal(check, url)) is not None:
            assert SECRET not in why
        else:
            assert URL(url).host == "host"
            assert shown(url) == f"{scheme}://user@host:5672/name"


def test_a_password_among_the_parameters_is_not_shown() -> None:
    url = f"postgresql://host/name?user=me&password={SECRET}"
    assert check_database_url(url) == url
    assert shown(url) == "postgresql://host/name"
    assert passwords(url) == [SECRET]


@pytest.mark.parametrize(
    "url",
    [
        "amqp://",
        "amqp://h:port/",
        "amqp://h:70000/",
        "amqp://::1/",
        "amqp://one,two/",
        "amqp://h/ v",
        "amqp://h/?heartbeat=soon",
        "http://h/",
        "amqp:/h",
    ],
)
def test_a_url_of_no_broker_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"must|blank"):
        check_amqp_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///name?host=/var/run/postgresql",
        "postgresql://%2Fvar%2Frun/name",
        "postgres://u:p@[::1]:5432/name?sslmode=require",
        "postgresql://u:p@one:5432,two:5433/name",
        "sqlite:////var/lib/postbote/registry.db",
    ],
)
def test_the_usual_forms_of_a_database_url_are_taken(url: str) -> None:
    assert check_database_url(url) == url


def test_the_hosts_of_a_url_are_told_apart() -> None:
    assert hosts_apart("postgresql://u:p@one:5432,two/name?x=1,2") == [
        "postgresql://u:p@one:5432/name?x=1,2",
        "postgresql://u:p@two/name?x=1,2",
    ]


@pytest.mark.parametrize("name", ["POSTBOTE_AMQP_URL", "POSTBOTE_DATABASE_URL", "POSTBOTE_ADMIN_TOKEN"])
def test_a_setting_that_is_refused_is_named_and_its_value_is_not_told(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"nonsense://u:{SECRET}#x@h:1/ {SECRET}")
    with pytest.raises(SettingsError, match=name) as caught:
        read_settings()
    assert SECRET not in str(caught.value)


def test_what_a_library_says_is_told_without_the_secrets_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POSTBOTE_AMQP_URL", f"amqp://me:{SECRET}%23@h/")
    monkeypatch.setenv("POSTBOTE_DATABASE_URL", f"postgresql://h/d?password={SECRET}-too")
    monkeypatch.setenv("POSTBOTE_ADMIN_TOKEN", f"{SECRET}-of-the-administrator")
    redact = redactor_of(read_settings())
    for said in (
        f"invalid dsn postgresql://me:{SECRET}/x@h/d?password={SECRET}-too",
        f"login with {SECRET}# failed",
        f"Authorization: Bearer {SECRET}-of-the-administrator",
        f"connect(host='h', password={SECRET}-too)",
    ):
        assert SECRET not in redact(said)
    assert redact("a line without any") == "a line without any"


@given(anything)
def test_a_url_within_any_text_is_told_without_its_password(password: str) -> None:
    password = "".join(letter for letter in password if not letter.isspace() and letter not in "'\"<>")
    assert SECRET not in Redactor()(f"cannot connect to amqp://me:{password}@host:5672/, sorry")
