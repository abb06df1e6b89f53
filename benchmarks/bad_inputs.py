"""The worst requests of a megabyte, for every route that reads a body, and the worst heads."""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

SIZE = 1_048_576  # bytes: REQUEST_MAX_BODY
FORM_SIZE = 65_536  # bytes: what a form may have
HEADER = 60_000  # bytes of what stands before a body
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=a"
IMAGES = {"PNG": b"\x89PNG\r\n\x1a\n", "JPEG": b"\xff\xd8\xff", "WebP": b"RIFF"}  # sample
MARKS = "\u0301\u0323"  # whose order normalisation has to change
# Method, path, fields, and whether an editor sends it.
ROUTES = (
    # sample: begin
    ("POST", "/v1/books", ("title", "isbn13", "language", "published_year", "author_ids"), True),
    ("PATCH", "/v1/books/7", ("title",), True),
    ("POST", "/v1/authors", ("name",), True),
    ("PATCH", "/v1/authors/7", ("name",), True),
    ("POST", "/v1/books/7/reviews", ("text",), True),
    ("POST", "/v1/books", (), False),
    ("DELETE", "/v1/books/7", (), False),
    # sample: end
    ("PATCH", "/v1/users/me", ("name", "password"), True),
    ("POST", "/v1/users", ("email", "name", "password"), False),
    ("POST", "/v1/tokens/refresh", ("refresh_token",), False),
)
LISTS: tuple[str, ...] = ()
LISTS = ("/v1/books", "/v1/rankings/books")  # sample
QUERIES = {"names": "a%d&", "short names": "a&", "escapes": "%61", "ands": "&"}
VALUES = {"letters": "a", "digits": "9", "marks": "%CC%81%CC%A3", "dashes": "-a"}
PATHS = {"digits": "9", "escapes": "%61", "slashes": "/", "zeros": "%00", "dots": "../"}
FIELDS = (
    *(("If-None-Match", part) for part in ('"a",', '"', ", ", "W/")),
    *(("X-Forwarded-For", part) for part in ("1.2.3.4, ", "127.0.0.1,", ":")),
    *(("Authorization", part) for part in ("Bearer a", "Bearer a.", "Bearer eyJ9.")),
    ("Cache-Control", "no-cache, "),
    ("Cookie", "a=b; "),
    ("X-Request-ID", "a"),
    ("traceparent", "0"),
)
LINES = ("a: b", 'If-None-Match: "a"', "X-Forwarded-For: 1.2.3.4", "Authorization: a")


@dataclass
class Input:
    name: str
    method: str
    path: str
    body: bytes = b""
    type: str = JSON
    headers: str = ""
    chunked: bool = False


def inputs(editor: str) -> Iterator[Input]:
    """`editor`: the header that proves one."""
    yield from heads()
    for method, path, fields, needs_editor in ROUTES:
        headers = editor if needs_editor else ""
        for name, body in json_bodies(fields):
            yield Input(name, method, path, body, headers=headers)
    for key in ("", 'Idempotency-Key: "a"\r\n'):
        for name, body, type in form_bodies():
            yield Input(name, "POST", "/v1/tokens", body, type, key)
    # sample: begin
    for name, start in IMAGES.items():
        body = fill(start, b"a", b"")
        yield Input(name, "PUT", "/v1/books/7/cover", body, f"image/{name.lower()}", editor)
    # sample: end
    chunks = fill(b"", b"1\r\na\r\n", b"0\r\n\r\n")
    yield Input("small chunks", "POST", "/v1/users", chunks, chunked=True)


def fill(before: bytes, part: bytes, after: bytes, size: int = SIZE) -> bytes:
    """As many parts as there is room for."""
    count = (size - len(before) - len(after)) // len(part)
    return before + part * count + after


def numbered(before: bytes, part: str, after: bytes, size: int = SIZE) -> bytes:
    """The same, with parts that differ by a number."""
    count = (size - len(before) - len(after)) // len(part % (size // 10))
    return before + "".join(part % n for n in range(count)).encode() + after


def json_values() -> Iterator[tuple[str, bytes]]:
    """What takes the place of one value."""
    yield "long string", fill(b'"', b"a", b'"')
    yield "escaped string", fill(b'"', b"\\u00e9", b'"')
    yield "control characters", fill(b'"', b"\\u0000", b'"')
    yield "lone surrogates", fill(b'"', b"\\ud800", b'"')
    yield "combining marks", fill(b'"', MARKS.encode(), b'"')
    yield "escaped combining marks", fill(b'"', b"\\u0301\\u0323", b'"')
    yield "spaces", fill(b'"', b" ", b'"')
    yield "wide characters", fill(b'"', "\ufdfa".encode(), b'"')
    yield "at signs", fill(b'"a@', b"a.", b'"')
    yield "number of 4,000 digits", b"9" * 4000
    yield "number of a million digits", fill(b"", b"9", b"")
    yield "fraction of a million digits", fill(b"0.", b"1", b"")
    yield "numbers of 4,000 digits", fill(b"[", b"9" * 4000 + b",", b"1]")
    yield "ids", fill(b"[", b"1,", b"1]")
    yield "different ids", numbered(b"[", "%d,", b"1]")
    yield "no ids", fill(b"[", b"0,", b"0]")
    yield "strings", fill(b"[", b'"",', b'""]')
    yield "lists", fill(b"[", b"[],", b"[]]")
    yield "objects", fill(b"[", b"{},", b"{}]")
    yield "nested lists", fill(b"", b"[", b"")
    yield "nested objects", fill(b"", b'{"a":', b"1")
    yield "lists nested 100 times", fill(b"[", b"[" * 100 + b"]" * 100 + b",", b"1]")
    yield "lists nested 900 times", fill(b"[", b"[" * 900 + b"]" * 900 + b",", b"1]")
    yield "exponents", fill(b"[", b"1e999,", b"1]")


def json_bodies(fields: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    for name, value in json_values():
        for field in fields:
            around = b"".join(b'"%b": 1, ' % other.encode() for other in fields if other != field)
            around = b'{%b"%b": ' % (around, field.encode())
            yield f"{field}: {name}", around + value[: SIZE - len(around) - 1] + b"}"
        yield name, value
    yield "unknown fields", numbered(b"{", '"%d":1,', b'"a":1}')
    yield "the same field again", fill(b"{", b'"a":1,', b'"a":1}')
    yield "long name", fill(b'{"', b"a", b'":1}')
    yield "escaped name", fill(b'{"', b"\\u0000", b'":1}')
    yield "spaces around", fill(b"", b" ", b"{}")
    yield "no JSON", fill(b"", b"a", b"")
    yield "no UTF-8", fill(b'"', b"\xff", b'"')
    yield "UTF-16", fill("{}".encode("utf-16"), b" \0", b"")


def form_bodies(size: int = SIZE) -> Iterator[tuple[str, bytes, str]]:
    """Of that size, and as large as a form may be."""
    yield "fields", numbered(b"username=a&password=b&", "a%d=&", b"a=", size), FORM
    yield "empty fields", fill(b"", b"&", b"a=", size), FORM
    yield "short fields", fill(b"", b"a&", b"a", size), FORM
    yield "long name", fill(b"", b"a", b"=1", size), FORM
    form = urlencode({"username": "a", "password": "b", "grant_type": "password"})
    for field in ("username", "password", "grant_type", "scope", "unknown"):
        for name, part in VALUES.items() | {("escapes", "%61"), ("spaces", "+")}:
            body = fill(f"{form}&{field}=".encode(), part.encode(), b"", size)
            yield f"{field} of {name}", body, FORM
    field_head = b'--a\r\nContent-Disposition: form-data; name="b"'
    content, end = b"\r\n\r\n1\r\n", b"\r\n--a--"
    yield "parts", fill(b"", field_head + content, end, size), MULTIPART
    yield "files", fill(b"", field_head + b'; filename="c"' + content, end, size), MULTIPART
    yield "options of a part", fill(field_head, b"; a=b", content + end, size), MULTIPART
    yield "quotes of a part", fill(field_head + b'; a="', b'\\"', content + end, size), MULTIPART
    yield "header lines", fill(field_head, b"\r\na: b", content + end, size), MULTIPART
    yield "long header", fill(field_head + b"\r\na: ", b"b", content + end, size), MULTIPART
    yield "almost ends", fill(field_head + b"\r\n\r\n", b"\r\n--", end, size), MULTIPART
    yield "long part", fill(field_head + b"\r\n\r\n", b"a", end, size), MULTIPART
    yield "line breaks", fill(b"", b"\r\n", b"--a--", size), MULTIPART
    long = b"a" * HEADER
    kind = f"multipart/form-data; boundary={long.decode()}"
    yield "long boundary", fill(b"--" + long + b"\r\n", b"\r\n--a", b"", SIZE), kind
    if size != FORM_SIZE:
        yield from form_bodies(FORM_SIZE)


def heads() -> Iterator[Input]:
    for name, part in QUERIES.items():
        query = "".join(part % n if "%d" in part else part for n in range(HEADER))
        for path in (*LISTS, "/health", "/nowhere", "/docs"):
            for size in (HEADER, HEADER // 2):
                yield Input(f"{size} bytes of {name}", "GET", f"{path}?{query[:size]}")
    # sample: begin
    for field in ("q", "after", "limit", "language", "author_id", "sort"):
        for name, part in VALUES.items():
            value = repeat(part, HEADER // 2)
            yield Input(f"{field} of {name}", "GET", f"/v1/books?{field}={value}")
    # sample: end
    for name, part in PATHS.items():
        for before in ("/", *(f"{path}/" for path in LISTS), "/files/", "/docs/assets/"):
            yield Input(f"path of {name}", "GET", before + repeat(part, HEADER))
    for path in (*LISTS, "/v1/users/me"):
        for field, part in FIELDS:
            yield Input(f"{field} of {part}", "GET", path, headers=header(field, part))
        for line in LINES:
            lines = repeat(f"{line}\r\n", HEADER)
            yield Input(f"lines of {line}", "GET", path, headers=lines)
    for field in ("If-Match", "If-None-Match"):
        for part in ('"a",', '"', ", ", "W/"):
            yield Input(f"{field} of {part}", "PATCH", "/v1/users/me", headers=header(field, part))


def repeat(part: str, size: int) -> str:
    return part * (size // len(part))


def header(field: str, part: str) -> str:
    return f"{field}: {repeat(part, HEADER)}\r\n"
