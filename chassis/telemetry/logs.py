"""Log lines on stdout, JSON or coloured, written by a thread."""

import contextlib
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from chassis.request_context import current_request
from chassis.telemetry.log_lines import (
    Line,
    hide_secret_fields,
    hide_secrets,
    render_console,
    render_json,
    timestamp,
)
from chassis.telemetry.settings import LogSettings

STDOUT = 1
DEFAULT_COLUMNS = 80
MAX_WAITING = 10_000  # lines; further ones are dropped and counted
MAX_WRITE = 4096  # bytes; a pipe does not mix writes of other workers into so few
BATCH_DELAY = 0.05  # s; lines of this time are written together
STOP_TIMEOUT = 1.0  # s; a stalled reader must not keep the process from ending

# They have handlers of their own: each line would appear twice, in two formats.
_FOREIGN = ("gunicorn.error", "uvicorn", "uvicorn.error")
# They log each request, each new pool, the values of each statement.
_VERBOSE = ("httpx2", "chassis.database.timing.TimedPool", "aiosqlite")
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "color_message", "taskName"}
_STANDARD |= {"time", "level"}  # names of our own fields


class Output:
    """Writes log lines to a file descriptor (docs/observability.md).

    A stalled reader blocks writes to a pipe, which must not block the event loop. So between
    `start` and `stop` lines go through a bounded queue to a thread; lines beyond it are dropped and
    counted.
    """

    def __init__(
        self, render: Callable[[Line], bytes], lowest: int = logging.INFO, fd: int = STDOUT
    ) -> None:
        self.render = render
        self.fd = fd
        self.lowest = lowest
        self.dropped = 0
        self._waiting: deque[bytes] = deque()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def write(self, level: int, message: str, fields: Line | None = None) -> None:
        if level < self.lowest:
            return
        name = logging.getLevelName(level)
        line = {"time": timestamp(time.time()), "level": name, "message": message}
        if fields is not None:
            line.update(fields)
        data = self._render(line)  # here: it costs less than handing over the parts
        if self._thread is None:
            self._write(data)
        elif len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
        else:
            self._waiting.append(data)
            if not self._wake.is_set():
                self._wake.set()

    def start(self) -> None:
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._stopped.set()
            self._wake.set()
            self._thread.join(STOP_TIMEOUT)
            self._thread = None
            self.dropped += len(self._waiting)

    def _run(self) -> None:
        reported = 0
        while not self._stopped.is_set() or self._waiting:
            self._wake.wait()
            self._wake.clear()
            self._stopped.wait(BATCH_DELAY)
            self._flush()
            if dropped := self.dropped - reported:
                line = {"time": timestamp(time.time()), "level": "WARNING"}
                line["message"] = f"{dropped} log lines dropped: the reader is too slow"
                self._write(self._render(line))
                reported = self.dropped  # this line included, if it is dropped too

    def _flush(self) -> None:
        batch = b""
        while self._waiting:
            line = self._waiting.popleft()
            if len(batch) + len(line) > MAX_WRITE:
                self._write(batch)
                batch = b""
            batch += line
        self._write(batch)

    def _render(self, line: Line) -> bytes:
        try:
            return self._render_within(line, MAX_WRITE)
        except Exception as error:  # of values that a library put into its line
            message = f"{line['message']!a} ({error!a})"
            own = {name: line[name] for name in ("time", "level")}
            return self._render_within(own | {"message": message}, MAX_WRITE)

    def _render_within(self, line: Line, limit: int) -> bytes:
        """Cut the beginning of the traceback, then of the message, from a line above `limit`."""
        data = self.render(line)
        for name in ("exception", "message"):
            if (excess := len(data) - limit) > 0 and name in line:
                line[name] = "... " + line[name][excess + 4 :]
                data = self.render(line)
        return data

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                # Without a thread this is the master, or a worker that stops: it must not block.
                if self._thread is None and not self._is_writable(STOP_TIMEOUT):
                    raise TimeoutError
                try:
                    rest = rest[os.write(self.fd, rest) :]
                except BlockingIOError:  # the descriptor is set to non-blocking
                    self._is_writable(None)
        except OSError:
            # The reader is gone: the service goes on without a log.
            self.dropped += data.count(b"\n")

    def _is_writable(self, timeout: float | None) -> bool:
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        return bool(poll.poll(None if timeout is None else timeout * 1000))


class LineHandler(logging.Handler):
    """Sends the records of `logging` to an Output, without secrets and with the request id."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self.output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields: Line = {"logger": record.name}
            extra = {name: v for name, v in vars(record).items() if name not in _STANDARD}
            fields |= hide_secret_fields(extra)
            if (request := current_request.get()) is not None:
                fields["request_id"] = request.id
                if request.trace_id is not None:
                    fields["trace_id"] = request.trace_id
            if record.exc_info:
                exception = logging.Formatter().formatException(record.exc_info)
                fields["exception"] = hide_secrets(exception)
            self.output.write(record.levelno, hide_secrets(record.getMessage()), fields)
        except Exception:
            self.handleError(record)


def configure_logs(settings: LogSettings) -> Output:
    """Send the lines of all loggers of this process to one output."""
    lowest = logging.getLevelNamesMapping()[settings.level]
    console = settings.format == "console" or (settings.format == "auto" and os.isatty(STDOUT))
    output = Output(_render_for_people if console else render_json, lowest)
    logging.basicConfig(level=settings.level, handlers=[LineHandler(output)], force=True)
    for name in _VERBOSE:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _FOREIGN:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(settings.level)
    return output


@contextlib.asynccontextmanager
async def open_logs(settings: LogSettings) -> AsyncIterator[Output]:
    output = configure_logs(settings)
    output.start()
    try:
        yield output
    finally:
        output.stop()


def _render_for_people(line: Line) -> bytes:
    try:
        # 0 on a terminal of unknown size; it may change at any time.
        columns = os.get_terminal_size(STDOUT).columns or DEFAULT_COLUMNS
    except OSError:
        columns = None
    return render_console(line, columns)
