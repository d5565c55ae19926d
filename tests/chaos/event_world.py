"""An outbox that is written to, relays, Redis and consumers, without the services around them.

The relays are in the order service's own workers. The consumers are the auditor's, which write down each effect: what
the outbox holds and what they wrote must agree, whatever was killed in between.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import psycopg

from chassis.database import migrations
from chassis.events import redis_streams
from chassis.events.redis_streams import BrokerSettings
from chassis.events.redis_url import RedisUrl
from devstack.postgres import PostgresServer
from devstack.privileges import with_parent_death_signal
from devstack.settings import REPOSITORY
from tests.chaos import auditor
from tests.integration.inprocess import database_settings
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

# Processes that are killed take turns with others on a busy machine.
PATIENCE_S = 120

_NEXT = "UPDATE subjects SET sequence = sequence + 1 WHERE id = %s RETURNING sequence"
_WRITE = """
    INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at)
    VALUES (%s, 'order.status_changed', %s, %s, '{}', '', clock_timestamp())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of the events.

    Attributes:
        events: how many were committed.
        lost: of them without effect.
        doubled: effects besides the first.
        inverted: effects after one of a later event of the same subject.
    """

    events: int
    lost: int
    doubled: int
    inverted: int

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.inverted)

    def __str__(self) -> str:
        return f"{self.events} events, {self.lost} lost, {self.doubled} doubled, {self.inverted} inverted"


class Worker:
    """A worker as a process."""

    def __init__(self, words: tuple[str, ...], *, log: Path, env: dict[str, str]) -> None:
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                with_parent_death_signal((sys.executable, "-m", *words), signal=signal.SIGKILL),
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": "generated", **env},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def until_started(self) -> None:
        until(lambda: bool(re.search(rf'"pid":{self.process.pid}\b', self._log.read_text())), timeout_s=PATIENCE_S)

    def until_killed(self) -> None:
        assert self.process.wait(120) == -signal.SIGKILL

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


class Load:
    """Writers of events, each transaction the next change of some subject.

    Attributes:
        written: how many were committed so far.
        ended: set to end it.
    """

    def __init__(self, url: str, ids: list[uuid.UUID]) -> None:
        self.written = 0
        self.ended = threading.Event()
        self._url = url
        self._ids = ids

    def goes_on(self, events: int = 60) -> None:
        """Return once this number of further events is committed."""
        enough = self.written + events
        until(lambda: self.written >= enough, timeout_s=PATIENCE_S)

    def write(self, seed: int) -> None:
        choose = random.Random(seed)
        while not self.ended.is_set():
            # When the server is away, once more from the start.
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self._url) as connection:
                while not self.ended.wait(0.005):
                    subject = choose.choice(self._ids)
                    with connection.transaction():
                        [(sequence,)] = connection.execute(_NEXT, (subject,)).fetchall()
                        connection.execute(_WRITE, (uuid.uuid4(), subject, sequence))
                    self.written += 1


class Carrier(Protocol):
    """The broker of the events: one Redis, or several servers that replicate."""

    @property
    def url(self) -> str: ...

    def start(self) -> None: ...

    def close(self) -> None: ...


class EventWorld:
    """All of it.

    Attributes:
        postgres: with the database of the outbox, and the one of the effects.
    """

    def __init__(self, home: Path, carrier: Carrier) -> None:
        self._home = home
        self._carrier = carrier
        self._running: list[Worker] = []

    def __enter__(self) -> Self:
        self.postgres = PostgresServer(self._home / "postgres")
        self.postgres.start()
        self._carrier.start()
        self.postgres.process.restarts = True
        for package in ("order_svc", "user_svc"):
            self.postgres.create_database(package)
            migrations.upgrade(package, database_settings(self.postgres.superuser_url(package)))
        self.source, self.sink = (self.postgres.superuser_url(name) for name in ("order_svc", "user_svc"))
        self.run(self.source, "CREATE TABLE subjects (id uuid PRIMARY KEY, sequence bigint NOT NULL)")
        self.run(self.sink, auditor.DDL)
        return self

    def __exit__(self, *_: object) -> None:
        self.end_workers()
        self._carrier.close()
        self.postgres.close()

    def end_workers(self) -> None:
        """Kill every worker."""
        while self._running:
            self._running.pop().kill()

    def relay(self, *, dies_at: tuple[str, int] | None = None) -> Worker:
        """Start a worker of the order service. It publishes the events; users, which it reads, have none here."""
        module = ("tests.chaos.crashing", dies_at[0], str(dies_at[1])) if dies_at else ("order_svc",)
        return self._start("relay", module, DATABASE_URL=self.source)

    def consumer(self, *, dies_at: tuple[str, int] | None = None, **env: str) -> Worker:
        """Start a worker of the auditor, which reads the events and publishes none."""
        module = ("tests.chaos.crashing", dies_at[0], str(dies_at[1])) if dies_at else ("tests.chaos.auditor",)
        return self._start("consumer", module, DATABASE_URL=self.sink, **env)

    def counter(self) -> Worker:
        """Start a worker of the user service, which counts the orders of each user."""
        return self._start("counter", ("user_svc",), DATABASE_URL=self.sink)

    def command(self, *words: str) -> str:
        """Run a command of the auditor's to its end and return what it said."""
        ended = subprocess.run(
            [sys.executable, "-m", "tests.chaos.auditor", *words],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": "generated", "REDIS_URL": self._carrier.url, "DATABASE_URL": self.sink},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return ended.stdout

    def _start(self, role: str, module: tuple[str, ...], **env: str) -> Worker:
        log = self._home / f"{role}.log"
        worker = Worker((*module, "worker"), log=log, env={"REDIS_URL": self._carrier.url, **env})
        self._running.append(worker)
        return worker

    def client(self) -> contextlib.AbstractContextManager[redis.Redis]:
        return redis_streams.connect(BrokerSettings(url=RedisUrl.parse(self._carrier.url)))

    @staticmethod
    def run(url: str, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement; again while the server is away."""
        rows: list[tuple[Any, ...]] = []

        def has_run() -> bool:
            try:
                with psycopg.connect(url, autocommit=True) as connection:
                    cursor = connection.execute(statement.encode(), parameters)
                    rows.extend(cursor.fetchall() if cursor.description else ())
            except psycopg.OperationalError:
                return False
            return True

        until(has_run, timeout_s=60)
        return rows

    def empty(self) -> None:
        """Remove every event and its traces."""
        self.run(self.source, "TRUNCATE outbox, subjects, relay_state")
        self.run(self.sink, "TRUNCATE audit, poison, inbox, inbox_state, dead_letters")
        with self.client() as client:
            client.flushall()

    @contextlib.contextmanager
    def written(self, *, writers: int = 4, subjects: int = 40) -> Iterator[Load]:
        """Write events while the block runs."""
        ids = [uuid.uuid4() for _ in range(subjects)]
        with psycopg.connect(self.source) as connection:
            connection.cursor().executemany("INSERT INTO subjects VALUES (%s, 0)", [(each,) for each in ids])
        load = Load(self.source, ids)
        threads = [threading.Thread(target=load.write, args=(number,)) for number in range(writers)]
        for thread in threads:
            thread.start()
        try:
            yield load
        finally:
            load.ended.set()
            for thread in threads:
                thread.join()

    def longest_wait_s(self, *, newest: int) -> float:
        """Return how old one of the newest effects was at most when it happened."""
        ages = "SELECT extract(epoch FROM at - occurred_at) AS age FROM audit ORDER BY position DESC LIMIT %s"
        [(longest,)] = self.run(self.sink, f"SELECT max(age) FROM ({ages}) AS newest", newest)
        return float(longest)

    def is_all_published(self) -> bool:
        return self.run(self.source, "SELECT 1 FROM outbox WHERE published_at IS NULL LIMIT 1") == []

    def settled(self, *, timeout_s: float = 90) -> Verdict:
        """Return what became of the events, once each has had its effect; or when the time is over."""
        with contextlib.suppress(AssertionError):
            until(lambda: self.verdict().lost == 0, timeout_s=timeout_s)
        return self.verdict()

    def verdict(self) -> Verdict:
        """Compare the outbox with the effects as they are now."""
        written = {tuple(row) for row in self.run(self.source, "SELECT subject, sequence FROM outbox")}
        effects = self.run(self.sink, "SELECT subject, sequence FROM audit ORDER BY position")
        highest: dict[uuid.UUID, int] = defaultdict(int)
        inverted = 0
        for subject, sequence in effects:
            inverted += sequence < highest[subject]
            highest[subject] = max(highest[subject], sequence)
        return Verdict(
            events=len(written),
            lost=len(written - set(effects)),
            doubled=len(effects) - len(set(effects)),
            inverted=inverted,
        )
