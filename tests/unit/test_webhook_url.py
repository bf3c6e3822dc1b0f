"""A webhook's URL goes out as it was registered, byte for byte; what could break a request never does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.api.webhook_fields import check_url
from broker.webhook_url import WebhookUrl

VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#\\")


@given(path=st.text(VISIBLE, max_size=40), query=st.text(VISIBLE, max_size=40))
def test_the_path_and_the_query_are_the_bytes_that_were_registered(path: str, query: str) -> None:
    url = f"https://example.com/{path}?{query}"
    assert check_url(url) == url
    assert WebhookUrl.of(url).target == f"/{path}?{query}"


@given(target=st.text(st.characters(min_codepoint=0xA1, exclude_categories=["Cs", "Z"]), max_size=20))
def test_what_is_not_ascii_is_escaped_as_utf_8(target: str) -> None:
    sent = WebhookUrl.of(f"http://example.com/{target}").target
    assert sent == "/" + "".join(f"%{byte:02X}" for byte in target.encode())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://example.com", ("example.com", 80, "example.com", "/")),
        ("HTTPS://Example.COM?a=%40", ("example.com", 443, "example.com", "/?a=%40")),
        (
            "https://bücher.example:8443/ü",
            ("xn--bcher-kva.example", 8443, "xn--bcher-kva.example:8443", "/%C3%BC"),
        ),
        ("http://[::1]:8080/", ("::1", 8080, "[::1]:8080", "/")),
    ],
)
def test_the_host_is_written_for_the_name_service(url: str, expected: tuple[str, int, str, str]) -> None:
    assert WebhookUrl.of(url)[1:] == expected


@given(
    url=st.text(max_size=60),
    unsafe=st.sampled_from("\r\n\t \x00\x0b\x7f\x85\xa0\u2028"),
    at=st.integers(0, 60),
)
def test_no_url_brings_the_end_of_a_line_a_blank_or_a_control_character_into_a_request(
    url: str, unsafe: str, at: int
) -> None:
    for taken in (WebhookUrl.of, check_url):
        with pytest.raises(ValueError, match=r".+"):
            taken(f"http://example.com/{url[:at]}{unsafe}{url[at:]}")


@given(url=st.text(max_size=60).map(lambda rest: "http://" + rest))
def test_what_may_be_registered_can_be_sent(url: str) -> None:
    try:
        check_url(url)
    except ValueError:
        return
    sent = WebhookUrl.of(url)
    assert all(0x20 < ord(character) < 0x7F for character in sent.target + sent.host_header)
