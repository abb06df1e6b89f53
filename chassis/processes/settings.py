from pydantic import BaseModel, Field

from chassis.settings.types import Seconds


class ProcessesSettings(BaseModel):
    count: int = Field(1, ge=1, description="Processes per worker for CPU-bound work")
    max_waiting: int = Field(
        16, ge=1, description="Requests per worker that may wait for a process, uploads included"
    )
    max_wait: Seconds = Field(
        5, description="Longest expected wait for a process (above it 503), s"
    )
    timeout: Seconds = Field(10, description="Timeout for one task in a process, s")
