"""The headers of every response that tell browsers what they may do with it."""

from collections.abc import Iterable

from chassis.browsers.cors import CorsPolicy, Fields
from chassis.browsers.settings import CorsSettings

# For all that is no page: a page has a policy of its own.
NOTHING = b"default-src 'none'; frame-ancestors 'none'"


class ResponseHeaders:
    """Those of the CORS protocol and of security, for every response, refusals included."""

    def __init__(self, settings: CorsSettings, hsts: str) -> None:
        """`hsts`: the value of Strict-Transport-Security over HTTPS; empty: none."""
        self.cors = CorsPolicy(settings)
        # Pages that may read responses may also show images of the service.
        resources = b"cross-origin" if self.cors.enabled else b"same-origin"
        page = (
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", resources),
            *(self.cors.same_for_all or ()),
        )
        others = (*page, (b"content-security-policy", NOTHING))
        secure: Fields = ((b"strict-transport-security", hsts.encode()),) if hsts else ()
        # Made once: each response has one of them.
        self._http = (others, page)
        self._https = ((*others, *secure), (*page, *secure))

    def of(
        self,
        request: Iterable[tuple[bytes, bytes]],
        scheme: str = "http",
        own: Iterable[tuple[bytes, bytes]] = (),
    ) -> Fields:
        """`request`: the headers of the request; `own`: those that the response has already."""
        is_page = False
        for name, _ in own:
            if name == b"content-security-policy":
                is_page = True
        headers = (self._https if scheme == "https" else self._http)[is_page]
        if self.cors.same_for_all is not None:
            return headers
        return (*headers, *self.cors.headers(request))
