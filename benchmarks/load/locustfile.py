"""What the users of a catalogue do, how many there are when, and what they accept.

It runs in locust's own environment, below var/, and imports nothing of the service. The variable
LOAD names a file with what benchmarks/load/__main__.py has prepared.
"""

import json
import os
import random
from pathlib import Path
from typing import Any

from locust import FastHttpUser, LoadTestShape, between, events, task

LOAD = json.loads(Path(os.environ["LOAD"]).read_text())
BOOKS: list[int] = LOAD["books"]
SEARCHES: list[str] = LOAD["searches"]
EMAILS: list[str] = LOAD["emails"]  # of readers
STAGES: list[tuple[str, float, int]] = LOAD["stages"]  # name, s, users
COVER = Path(LOAD["cover"]).read_bytes()
MAX_ERRORS = 0.01  # of the requests
# ms; of the responses to each kind of request 95 % must be faster.
MAX_P95 = {
    "first page": 300,
    "next page": 300,
    "book": 300,
    "search": 600,
    "rankings": 600,
    "reviews": 300,
    "offers": 600,
    "review": 800,
    "dashboard": 800,
    "log in": 3000,
    "cover": 4000,
}

chance = random.Random()  # noqa: S311 - what users do is no secret


class Stages(LoadTestShape):
    def tick(self) -> tuple[int, float] | None:
        elapsed = self.get_run_time()
        for _, seconds, users in STAGES:
            if elapsed < seconds:
                return users, max(1, users / 5)  # all of them within five seconds
            elapsed -= seconds
        return None


class Visitor(FastHttpUser):
    """Reads without an account."""

    weight = 8
    wait_time = between(0.5, 3)
    after: str | None = None

    @task(6)
    def browse(self) -> None:
        query = f"?after={self.after}" if self.after else ""
        name = "next page" if self.after else "first page"
        with self.client.get(f"/v1/books{query}", name=name, catch_response=True) as response:
            page = response.json() if response.status_code == 200 else {}
            self.after = page.get("next") if chance.random() < 0.8 else None

    @task(10)
    def read(self) -> None:
        # Some books are read by everybody, and most by few.
        number = min(int(chance.paretovariate(0.5)), len(BOOKS))
        book = BOOKS[number - 1]
        self.client.get(f"/v1/books/{book}", name="book")
        if chance.random() < 0.3:
            self.client.get(f"/v1/books/{book}/reviews", name="reviews")
        if chance.random() < 0.1:
            self.client.get(f"/v1/books/{book}/offers", name="offers")

    @task(3)
    def search(self) -> None:
        self.client.get(chance.choice(SEARCHES), name="search")

    @task(1)
    def look_at_rankings(self) -> None:
        self.client.get("/v1/rankings/books?limit=10", name="rankings")


class Reader(Visitor):
    """Has an account, and writes reviews."""

    weight = 2
    headers: dict[str, str]

    def on_start(self) -> None:
        self.log_in(chance.choice(EMAILS))

    def log_in(self, email: str) -> None:
        form = {"grant_type": "password", "username": email, "password": LOAD["password"]}
        with self.client.post("/v1/tokens", form, name="log in", catch_response=True) as response:
            found: dict[str, Any] = response.json() if response.status_code == 200 else {}
            self.headers = {"Authorization": f"Bearer {found.get('access_token')}"}

    def request(self, method: str, path: str, name: str, **arguments: Any) -> None:
        """As this account; logs in again when its token has expired."""
        arguments |= {"name": name, "catch_response": True}
        headers = {**self.headers, **arguments.pop("headers", {})}
        with self.client.request(method, path, headers=headers, **arguments) as response:
            if response.status_code == 401:
                response.success()
                self.on_start()
            elif response.status_code == 409:  # this account has reviewed that book already
                response.success()

    @task(4)
    def write_review(self) -> None:
        review = {"rating": chance.randint(1, 5), "text": "I read it in one night."}
        path = f"/v1/books/{chance.choice(BOOKS)}/reviews"
        self.request("POST", path, "review", json=review)

    @task(1)
    def look_at_dashboard(self) -> None:
        self.request("GET", "/v1/users/me/dashboard", "dashboard")

    @task(1)
    def log_in_again(self) -> None:
        self.on_start()


class Editor(Reader):
    """One of them, who uploads covers."""

    fixed_count = 1

    def on_start(self) -> None:
        self.log_in(LOAD["editor"])

    @task(4)
    def upload_cover(self) -> None:
        path = f"/v1/books/{chance.choice(BOOKS)}/cover"
        kind = {"Content-Type": "image/jpeg"}
        self.request("PUT", path, "cover", data=COVER, headers=kind)


@events.quitting.add_listener
def judge(environment: Any, **_: Any) -> None:
    """Exit with 1 where users were not served as they accept."""
    total, faults = environment.stats.total, []
    if total.num_requests == 0 or total.fail_ratio > MAX_ERRORS:
        faults.append(f"{total.fail_ratio:.1%} of {total.num_requests} requests failed")
    for entry in environment.stats.entries.values():
        p95 = entry.get_response_time_percentile(0.95)
        if p95 > MAX_P95[entry.name]:
            faults.append(f"{entry.name}: p95 {p95} ms, more than {MAX_P95[entry.name]}")
    for fault in faults:
        print(f"FAILED  {fault}")
    if not faults:
        print(f"PASSED  {total.num_requests} requests, {total.fail_ratio:.2%} errors")
    environment.process_exit_code = int(bool(faults))
