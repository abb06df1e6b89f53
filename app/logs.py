"""One line per event on stdout, JSON or coloured, written by a thread."""

import contextlib
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from app.log_lines import (
    Line,
    hide_secret_fields,
    hide_secrets,
    render_console,
    render_json,
    timestamp,
)
from app.request_context import current_request
from app.settings import LogSettings

STDOUT = 1
USUAL_COLUMNS = 80
MAX_WAITING = 10_000  # lines; above it they are dropped and counted
MAX_WRITE = 4096  # bytes; a pipe takes that much without mixing in another worker's lines
BATCH_DELAY = 0.05  # s; lines that arrive meanwhile are written together
STOP_TIMEOUT = 1.0  # s; a reader that has stalled must not keep the process from ending

# These bring handlers of their own: each line would appear twice, in two formats.
_FOREIGN = ("gunicorn.error", "uvicorn", "uvicorn.error")
# Each request, each new pool, the values of each statement.
_TALKATIVE = ("httpx2", "app.database_timing.TimedPool", "aiosqlite", "taskiq")
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "color_message", "taskName"}
_STANDARD |= {"time", "level"}  # these are ours


class Output:
    """Lines on a file descriptor: written at once, or by a thread between `start` and `stop`.

    A reader that stalls blocks whoever writes to the pipe. The event loop must never be
    that one, so its lines wait in a bounded queue.
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
        data = self._render(line)  # at once: it costs less than handing over the parts
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
                self._write(self._drops(dropped))
                reported = self.dropped  # this line included, if nobody has read it either

    def _drops(self, count: int) -> bytes:
        line = {"time": timestamp(time.time()), "level": "WARNING"}
        return self._render(
            line | {"message": f"{count} log lines dropped: nobody read them in time"}
        )

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
        except Exception as error:  # whatever a library has put into its line
            message = f"{line['message']!a} ({error!a})"
            own = {name: line[name] for name in ("time", "level")}
            return self._render_within(own | {"message": message}, MAX_WRITE)

    def _render_within(self, line: Line, limit: int) -> bytes:
        """A line that is too long loses the beginning of its traceback, then of its message."""
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
                # Without a thread, the one that would wait is the master, or a worker that stops.
                if self._thread is None and not self._is_writable(STOP_TIMEOUT):
                    raise TimeoutError
                try:
                    rest = rest[os.write(self.fd, rest) :]
                except BlockingIOError:  # somebody made it so
                    self._is_writable(None)
        except OSError:
            # Whoever read our lines may be gone: the service goes on without them.
            self.dropped += data.count(b"\n")

    def _is_writable(self, timeout: float | None) -> bool:
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        return bool(poll.poll(None if timeout is None else timeout * 1000))


class LineHandler(logging.Handler):
    """The way of every library that logs through `logging`."""

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
    """Send every logger of this process to one output, each line once."""
    lowest = logging.getLevelNamesMapping()[settings.level]
    output = Output(_render_for_people if _is_console(settings) else render_json, lowest)
    logging.basicConfig(level=settings.level, handlers=[LineHandler(output)], force=True)
    for name in _TALKATIVE:
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


def _is_console(settings: LogSettings) -> bool:
    return settings.format == "console" or (settings.format == "auto" and os.isatty(STDOUT))


def _render_for_people(line: Line) -> bytes:
    try:
        # A terminal that does not know its size says 0; it may change while we run.
        columns = os.get_terminal_size(STDOUT).columns or USUAL_COLUMNS
    except OSError:
        columns = None
    return render_console(line, columns)
