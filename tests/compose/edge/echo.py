"""Says what nginx sent: in place of the service, to see what the edge does to a request."""

import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are sent apart

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):  # whatever the method
            return self.respond
        raise AttributeError(name)

    def respond(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        seen = {name.lower(): value for name, value in self.headers.items()}
        body = json.dumps({"path": self.path, "headers": seen}).encode()
        asked = re.match(r"/status/(\d{3})$", self.path)
        self.send_response(int(asked[1]) if asked else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in json.loads(self.headers.get("X-Echo") or "{}").items():
            self.send_header(name, value)
        # sample: begin
        if self.path.startswith("/v1/rankings/"):
            self.send_header("Cache-Control", "public, max-age=60")
        # sample: end
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


ThreadingHTTPServer(("0.0.0.0", 8000), Echo).serve_forever()
