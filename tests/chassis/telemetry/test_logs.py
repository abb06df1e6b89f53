import contextlib
import fcntl
import json
import logging
import os
import re
import struct
import subprocess
import sys
import termios
import time
from itertools import pairwise
from typing import Any

import pytest

from chassis.request_context import RequestContext, current_request
from chassis.telemetry.log_lines import hide_secrets, render_console, render_json
from chassis.telemetry.logs import MAX_WAITING, MAX_WRITE, Output, configure_logs
from chassis.telemetry.settings import LogSettings
from tests.process import ROOT


def printed(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_library_lines_are_json_with_level_logger_and_request(capfd: pytest.CaptureFixture[str]):
    configure_logs(LogSettings(format="json"))
    token = current_request.set(RequestContext("abc", None, {}))
    try:
        logging.getLogger("some.library").warning("%d left", 3, extra={"color": "red"})
        logging.getLogger("some.library").debug("unseen")
    finally:
        current_request.reset(token)

    [line] = printed(capfd)

    assert line | {"time": ""} == {
        "time": "",
        "level": "WARNING",
        "message": "3 left",
        "logger": "some.library",
        "color": "red",
        "request_id": "abc",
    }


def test_exception_stays_on_one_line(capfd: pytest.CaptureFixture[str]):
    configure_logs(LogSettings(format="json"))
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("app").exception("Broken")

    [line] = printed(capfd)

    assert "ValueError: two\nlines" in line["exception"]


def test_pipe_gets_json_and_terminal_gets_colours():
    assert configure_logs(LogSettings()).render is render_json
    assert configure_logs(LogSettings(format="console")).render is not render_json

    time = "1970-01-01T00:00:00.000Z"
    line = render_console({"time": time, "level": "ERROR", "message": "Broken", "status": 500})

    plain = re.sub(rb"\x1b\[[\d;]*m", b"", line)
    assert plain == b"00:00:00.000 ERROR   Broken status=500\n"


def test_reader_that_stalls_blocks_nobody_and_drops_are_told():
    reader, writer = os.pipe()
    output = Output(render_json, fd=writer)
    output.start()
    for n in range(2 * MAX_WAITING):
        output.write(logging.INFO, f"line {n}")
    assert output.dropped > 0

    received = b""
    while b"log lines dropped" not in received:
        received += os.read(reader, 65_536)
    output.stop()
    os.close(writer)
    os.close(reader)

    lines = [json.loads(line) for line in received.splitlines()]
    warnings = [line["message"] for line in lines if line["level"] == "WARNING"]
    assert sum(int(warning.split()[0]) for warning in warnings) == output.dropped
    assert [line["message"] for line in lines][:2] == ["line 0", "line 1"]
    assert len(lines) - len(warnings) == 2 * MAX_WAITING - output.dropped


def test_what_was_logged_before_the_stop_is_written(capfd: pytest.CaptureFixture[str]):
    output = Output(render_json)
    output.start()
    for n in range(100):
        output.write(logging.INFO, f"line {n}")
    output.stop()

    assert [line["message"] for line in printed(capfd)] == [f"line {n}" for n in range(100)]


@pytest.mark.parametrize(
    "extra",
    [{"n": 2**70}, {"level": 1}, {"time": "x"}, {"map": {(1, 2): 3}}, {"text": "\ud800"}],
    ids=str,
)
def test_odd_line_of_a_library_is_written_and_harms_nobody(
    capfd: pytest.CaptureFixture[str], extra: dict[str, Any]
):
    output = configure_logs(LogSettings(format="json"))
    output.start()
    logging.getLogger("some.library").info("odd", extra=extra)
    logging.getLogger("some.library").info("even")
    output.stop()

    odd, even = printed(capfd)

    assert "odd" in odd["message"]
    assert (even["level"], even["message"]) == ("INFO", "even")


def test_stalled_reader_does_not_hold_up_a_process_without_the_thread():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, b"x" * 4096):
            pass
    os.set_blocking(writer, True)
    output = Output(render_json, fd=writer)

    output.write(logging.INFO, "lost")

    os.close(reader)
    os.close(writer)
    assert output.dropped == 1


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        ("password=hunter2 wrong", "password=*** wrong"),
        ("{'Authorization': 'Bearer abc.def'}", "{'Authorization': '***'}"),
        ('{"access_token": "abc", "n": 1}', '{"access_token": ***, "n": 1}'),
        ("GET /reset?token=abc&page=2", "GET /reset?token=***&page=2"),
        ("redis://user:pass@host:6379/0", "redis://user:***@host:6379/0"),
        ("X-API-Key: abc", "X-API-Key: ***"),
        ("Authorization: ApiKey abc", "Authorization: ***"),
        ("Cookie: theme=dark; session=abc", "Cookie: ***"),
        ("AWS_SECRET_ACCESS_KEY=abc", "AWS_SECRET_ACCESS_KEY=***"),
        ("[(b'authorization', b'Bearer abc')]", "[(b'authorization', b'***')]"),
        ("[(b'x-api-key', b'abc')]", "[(b'x-api-key', b***)]"),
        (f"GET /orders_key_{'0aZ' * 23}xy/1", "GET /orders_key_***/1"),
        ("GET /orders_key_0aZ/1", "GET /orders_key_0aZ/1"),
        ('password="two words"', "password=***"),
        ("Duplicate entry 'a@b.c' for key 'PRIMARY'", "Duplicate entry *** for key 'PRIMARY'"),
        ("http://127.0.0.1:8000/a@b", "http://127.0.0.1:8000/a@b"),
        ("the token was refused", "the token was refused"),
        ("Login(name='a', otp='287082')", "Login(name='a', otp=***)"),
        ("footprint=3, LIMITS_OTP_RATE=2", "footprint=3, LIMITS_OTP_RATE=2"),
    ],
)
def test_secrets_are_hidden_and_nothing_else(said: str, logged: str):
    assert hide_secrets(said) == logged


@pytest.mark.parametrize("part", ["x", "token", "_key_", "password='", "://a"])
def test_time_to_hide_secrets_grows_with_the_text_and_not_faster(part: str):
    def cost(times: int) -> float:
        text = part * times
        runs = [time.process_time()]
        for _ in range(3):
            hide_secrets(text)
            runs.append(time.process_time())
        return min(after - before for before, after in pairwise(runs))

    assert cost(16_000) < 10 * cost(4_000)  # a pattern that backtracks takes 16 times as long


def test_secret_fields_of_a_line_are_hidden(capfd: pytest.CaptureFixture[str]):
    configure_logs(LogSettings(format="json"))
    extra = {"password": "abc", "headers": {"authorization": "Bearer abc"}, "n": 1}
    logging.getLogger("some.library").warning("sent", extra=extra)

    [line] = printed(capfd)

    assert "abc" not in json.dumps(line)
    assert line["n"] == 1


def test_long_traceback_leaves_the_line_in_one_piece(capfd: pytest.CaptureFixture[str]):
    """Longer ones would be torn where several workers write to one pipe."""
    output = configure_logs(LogSettings(format="json"))
    try:
        raise ValueError("x" * 10_000 + "the end")
    except ValueError:
        logging.getLogger("app").exception("Broken")

    [line] = printed(capfd)

    assert line["exception"].endswith("the end")
    assert len(output.render(line)) <= MAX_WRITE


def test_fields_of_a_line_cannot_command_a_terminal():
    line = {"time": "1970-01-01T00:00:00.000Z", "level": "INFO", "message": "GET"}

    assert render_console(line | {"path": "/\x1b[2J\nforged"}).endswith(b"/\\x1b[2J\\nforged\n")


ACCESS: dict[str, Any] = {
    "time": "2026-01-02T12:01:02.123Z",
    "level": "INFO",
    "message": "GET /v1/users/7 200",
    "method": "GET",
    "path": "/v1/users/7",
    "status": 200,
    "duration_ms": 3.14,
    "client": "127.0.0.1",
    "request_id": "7f3a8c1e99aa",
}


def plain(line: bytes) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", line.decode())


def test_a_request_is_one_line_of_a_terminal_and_says_nothing_twice():
    line = plain(render_console(dict(ACCESS), 80))

    assert line == "12:01:02.123 INFO    GET /v1/users/7 200 3.1 ms  127.0.0.1  7f3a8c1e…\n"


@pytest.mark.parametrize("columns", [60, 80, 132])
@pytest.mark.parametrize("path", ["/v1/" + "x" * 300, "/v1/" + "本" * 100, "/v1/\x1b[2J" * 20])
def test_a_long_path_is_shortened_to_the_width_of_the_terminal(path: str, columns: int):
    line = plain(render_console(ACCESS | {"path": path}, columns)).rstrip("\n")

    wide = line.count("本")
    assert columns - 1 <= len(line) + wide <= columns
    assert line.startswith("12:01:02.123 INFO    GET /v1/")
    assert re.search(r"… 200 3\.1 ms(  127\.0\.0\.1)?  7f3a8c1e…$", line)


def test_a_slow_request_has_what_its_time_was_spent_on_in_a_line_below():
    slow = ACCESS | {
        "message": "GET /v1/users/7 200 was slow",
        "duration_ms": 1203.4,
        "db_ms": 900,
    }

    first, second, _ = plain(render_console(slow, 80)).split("\n")

    assert first.endswith("GET /v1/users/7 200 1203 ms was slow  127.0.0.1  7f3a8c1e…")
    assert second.strip() == "db_ms=900"


def test_lines_are_as_wide_as_the_terminal_that_they_go_to():
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 66, 0, 0))
    write = f"""
from chassis.telemetry.logs import configure_logs
from chassis.telemetry.settings import LogSettings
configure_logs(LogSettings()).write(20, "", {ACCESS | {"path": "/" + "x" * 99}})
"""
    subprocess.run([sys.executable, "-c", write], stdout=theirs, cwd=ROOT, check=True)
    os.close(theirs)

    line = plain(os.read(ours, 4096)).rstrip()
    os.close(ours)

    assert len(line) == 66


def test_lines_are_whole_on_a_pipe_that_does_not_block():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    output = Output(render_json, fd=writer)
    output.start()
    for n in range(2000):
        output.write(logging.INFO, f"line {n}")
    received = b""
    while b"line 1999" not in received:
        received += os.read(reader, 65_536)
    output.stop()
    os.close(reader)
    os.close(writer)

    assert len([json.loads(line) for line in received.splitlines()]) == 2000
    assert output.dropped == 0


def test_lines_that_nobody_can_read_any_more_count_as_dropped():
    reader, writer = os.pipe()
    output = Output(render_json, fd=writer)
    os.close(reader)
    output.start()
    for n in range(100):
        output.write(logging.INFO, f"line {n}")
    output.stop()
    os.close(writer)

    assert output.dropped >= 100  # and the lines that tell so
