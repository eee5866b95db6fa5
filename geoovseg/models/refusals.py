"""Why a file cannot be fetched, in words of what to do about it."""

from __future__ import annotations

import ssl
from http import HTTPStatus

from geoovseg.errors import GeoOVSegError, first_line

AGAIN = "The same command goes on where this one broke off"
_TROUBLE = "the server has trouble; try again in a while"
_SAID = {
    401: "a login is needed",
    403: "it is not for everybody, or not from here",
    404: "there is no such file",
    407: "the proxy wants a login: put it into HTTPS_PROXY, as http://user:password@host:port",
    429: "too many requests; try again in a while",
}
"""What an answer means, by its code."""


class GatedError(GeoOVSegError):
    """The hub gives a file only to those who accepted its terms."""

    def __init__(self, text: str, page: str) -> None:
        super().__init__(text)
        self.page = page


def refused(url: str, code: int, *, repo: str | None = None, why: str | None = None) -> GeoOVSegError:
    """An answer that is no file; of the model hub for a repository, which may say why in a word."""
    said = f"{url} answers {code} {_phrase(code)}"
    if repo is None:
        return GeoOVSegError(f"{said}: {_SAID.get(code, _TROUBLE if code >= 500 else 'it gives no file')}. {AGAIN}")
    if why == "GatedRepo":
        return GatedError(f"{said}: {repo} is gated", url.partition("/resolve/")[0])
    if code == 401 or why == "RepoNotFound":
        return GeoOVSegError(
            f"{said}: {repo} is not there, or is private, or the token of this user is not valid; log in with "
            "`hf auth login`, or set or unset HF_TOKEN"
        )
    if code == 429:
        return GeoOVSegError(f"{said}: too many requests; try again in a while, or log in (HF_TOKEN), who may ask more")
    if code == 403:
        return GeoOVSegError(f"{said}: this user (HF_TOKEN) may not read {repo}, or the hub is closed to this network")
    return GeoOVSegError(f"{said}: {_TROUBLE if code >= 500 else f'{repo} has no such file'}. {AGAIN}")


def _phrase(code: int) -> str:
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return ""


def unreachable(url: str, error: Exception, what: str) -> GeoOVSegError:
    """No answer, or one that broke off."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
        return GeoOVSegError(
            f"cannot download {url}: its certificate is not trusted here ({first_line(reason)}). Where a company's "
            "proxy opens connections, set SSL_CERT_FILE to a file with its certificate"
        )
    return GeoOVSegError(
        f"cannot download {url} ({what}): {first_line(error)}; is there a network? Behind a proxy set "
        f"HTTPS_PROXY. {AGAIN}"
    )


def web_page(url: str) -> GeoOVSegError:
    """An answer that is a page for people."""
    return GeoOVSegError(
        f"{url} answers with a web page instead of a file: it may be the login page of a network or a proxy. Open it "
        "in a browser to see; nothing was kept"
    )
