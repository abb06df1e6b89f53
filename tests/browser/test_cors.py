"""What a page of another origin can do with the service, in a browser."""

import json
import re
from collections.abc import Iterator
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2 as httpx  # sample
import pytest

from tests.accounts import editors_token
from tests.app.images import image  # sample
from tests.browser.conftest import Render
from tests.process import running
from tests.shop import purchase

PAGE = """<!doctype html><title>A front end</title><pre id="result"></pre>
<img id="image" hidden>
<script>
const api = API, token = TOKEN, path = PATH, cover = COVER;
const authorization = {Authorization: `Bearer ${token}`};
const shown = (response, ...names) =>
  [response.status, ...names.map(name => response.headers.get(name) !== null)];

async function run() {
  const first = await fetch(api + path);
  const etag = first.headers.get("ETag");
  const results = {get: shown(first, "ETag", "X-Request-ID", "RateLimit")};
  // A request of its own, not one that the browser answers from its cache.
  const condition = {cache: "no-store", headers: {"If-None-Match": etag}};
  results.same = shown(await fetch(api + path, condition), "ETag");
  const patch = await fetch(api + path, {
    method: "PATCH",
    headers: {...authorization, "Content-Type": "application/json", "If-Match": etag},
    body: JSON.stringify({note: "From a page"}),
  });
  results.patch = [...shown(patch, "ETag"), (await patch.json()).note];
  const missing = await fetch(api + "/v1/purchases/999999");
  results.missing = [missing.status, (await missing.json()).title];
  if (cover) {
    const body = await (await fetch("cover.png")).blob();
    const put = await fetch(api + cover, {method: "PUT", headers: authorization, body});
    results.upload = [put.status];
    const image = document.getElementById("image");
    const loaded = new Promise((resolve, reject) => {
      [image.onload, image.onerror] = [resolve, reject];
    });
    image.src = api + cover;
    await loaded;
    results.image = [image.naturalWidth > 0];
  }
  let login;
  for (let tries = 0; tries < 5; tries++)
    login = await fetch(api + "/v1/tokens", {
      method: "POST",
      body: new URLSearchParams({grant_type: "password", username: "a@example.com", password: "x"}),
    });
  results.limited = shown(login, "Retry-After");
  return results;
}
run().catch(error => ({error: `${error}`})).then(results => {
  document.getElementById("result").textContent = JSON.stringify(results);
});
</script>
"""


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[str]:
    """Another origin, which serves what is in the folder `page`."""
    (tmp_path / "page").mkdir()
    handler = partial(Quiet, directory=f"{tmp_path}/page")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize("allowed", [True, False])
async def test_page_of_another_origin_can_use_the_service_if_it_is_allowed(
    render: Render, environment: dict[str, Any], origin: str, tmp_path: Path, allowed: bool
):
    token = await editors_token(environment["DATABASE_URL"])
    variables = environment | {
        "CORS_ORIGINS": origin if allowed else "https://app.example.com",
        "LIMITS_ENABLED": True,
        "LIMITS_LOGIN_BURST": 2,
        "WEB_CONCURRENCY": 1,
        "FILES_URL": f"file://{tmp_path}/files",
    }
    async with running(tmp_path / "log", **variables) as service, service.client() as client:
        client.headers["Authorization"] = f"Bearer {token}"
        made = await client.post("/v1/purchases", json=purchase())
        assert made.status_code == 201, made.text
        cover = ""
        cover = await book(client, tmp_path)  # sample
        values = {"API": service.url, "TOKEN": token, "PATH": made.headers["Location"]}
        page = PAGE
        for name, value in (values | {"COVER": cover}).items():
            page = page.replace(f"= {name}", f"= {json.dumps(value)}")
        (tmp_path / "page" / "index.html").write_text(page)
        dom = await render(f"{origin}/index.html", "--dump-dom")

    [text] = re.findall(r'<pre id="result">(.*?)</pre>', dom, re.DOTALL)
    results = json.loads(unescape(text))
    if not allowed:
        assert results == {"error": "TypeError: Failed to fetch"}
        return
    # sample: begin
    assert results.pop("upload") == [200]
    assert results.pop("image") == [True]
    # sample: end
    assert results == {
        "get": [200, True, True, True],
        "same": [304, True],
        "patch": [200, True, "From a page"],
        "missing": [404, "Not Found"],
        "limited": [429, True],
    }


# sample: begin
async def book(client: httpx.AsyncClient, folder: Path) -> str:
    """The path of its cover, which is not there yet."""
    (folder / "page" / "cover.png").write_bytes(image())
    author = await client.post("/v1/authors", json={"name": "Mary Shelley"})
    body = {"title": "Frankenstein", "author_ids": [author.json()["id"]]}
    location = (await client.post("/v1/books", json=body)).headers["Location"]
    return f"{location}/cover"


# sample: end
