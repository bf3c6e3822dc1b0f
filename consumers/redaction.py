"""Take secrets out of what is printed or logged, also where a library's error carries them."""

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

from broker.server_urls import passwords
from broker.settings import Settings

#: A shorter secret is looked for in URLs and parameters only: as a word it would blot out half of the text.
SHORTEST = 8
HIDDEN = "***"

#: The password of a URL, up to the last @, since one that is not escaped may hold any character.
_IN_URL = re.compile(r"(?<=://)([^\s:/@'\"<>]*):[^\s'\"<>]*@")
_PARAMETER = re.compile(
    r"(?i)\b((?:\w*password|passwd|passphrase|passfile|secret|token|access_token|sig|signature)=)[^\s&'\",;)]+"
)


class Redactor:
    """Writes a text without passwords in URLs, without parameters that hold one, and without known secrets."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in (secret, unquote(secret), quote(secret, safe=""))}
        long = sorted((form for form in forms if len(form) >= SHORTEST), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, long))) if long else None

    def __call__(self, text: str) -> str:
        """Return the text without secrets."""
        if "=" in text:
            text = _PARAMETER.sub(rf"\1{HIDDEN}", text)
        if "@" in text:
            text = _IN_URL.sub(rf"\1:{HIDDEN}@", text)
        return text if self._known is None else self._known.sub(HIDDEN, text)


def redactor_of(settings: Settings) -> Redactor:
    """Make the redactor that knows the secrets of these settings."""
    secrets = [] if settings.admin_token is None else [settings.admin_token.get_secret_value()]
    for url in (settings.amqp_url, settings.database_url):
        if url is not None:
            secrets += passwords(url.get_secret_value())
    return Redactor(secrets)
