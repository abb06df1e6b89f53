"""One line per event on stdout, JSON or coloured, written by a thread."""

import contextlib
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from app.log_lines import Line, hide_secrets, render_console, render_json, timestamp
from app.request_context import current_request
from app.settings import LogSettings

STDOUT = 1
MAX_WAITING = 10_000  # lines; above it they are dropped and counted
MAX_WRITE = 4096  # bytes; a pipe takes that much without mixing in another worker's lines
BATCH_DELAY = 0.05  # s; lines that arrive meanwhile are written together
STOP_TIMEOUT = 1.0  # s; a reader that has stalled must not keep the process from ending

# These bring handlers of their own: each line would appear twice, in two formats.
_FOREIGN = ("gunicorn.error", "uvicorn", "uvicorn.error")
# Each request, each new pool, the values of each statement.
_TALKATIVE = ("httpx2", "app.database_timing.TimedPool", "aiosqlite")
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
        self._stopping = False

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
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._stopping = True
            self._wake.set()
            self._thread.join(STOP_TIMEOUT)
            self._thread = None

    def _run(self) -> None:
        reported = 0
        while not self._stopping or self._waiting:
            self._wake.wait()
            self._wake.clear()
            time.sleep(BATCH_DELAY)
            self._flush()
            if dropped := self.dropped - reported:
                reported = self.dropped
                self.write(
                    logging.WARNING, f"{dropped} log lines dropped: nobody read them in time"
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
            return self.render(line)
        except Exception as error:  # whatever a library has put into its line
            message = f"{line['message']!a} ({error!a})"
            return self.render(
                {name: line[name] for name in ("time", "level")} | {"message": message}
            )

    def _write(self, data: bytes) -> None:
        # Whoever read our lines may be gone: the service goes on without them.
        with contextlib.suppress(OSError):
            if self._thread is None and not self._is_writable():
                self.dropped += 1
            else:
                os.write(self.fd, data)

    def _is_writable(self) -> bool:
        """Without a thread, the one that would wait is the master, or a worker that stops."""
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        return bool(poll.poll(STOP_TIMEOUT * 1000))


class LineHandler(logging.Handler):
    """The way of every library that logs through `logging`."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self.output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = {"logger": record.name}
            fields |= {
                name: hide_secrets(value) if isinstance(value, str) else value
                for name, value in vars(record).items()
                if name not in _STANDARD
            }
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
    output = Output(render_console if _is_console(settings) else render_json, lowest)
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
