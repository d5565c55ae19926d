"""`python -m tests.mutation.servers`: a PostgreSQL and a Redis for many runs of tests, until its input ends.

Prints one line when they serve: the variables that tests/integration/conftest.py looks for.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def servers(root: Path, *, env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Run the servers with the migrations of the code in this folder, if it has tests for them; yield the variables."""
    if not (root / "tests" / "integration").exists():
        yield {}
        return
    with subprocess.Popen(
        [sys.executable, "-m", __name__], cwd=root, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise AssertionError
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()


def main() -> None:
    """Serve."""
    # Here, as the other end of the pipe must not load the code that its children mutate.
    from devstack.postgres import PostgresServer  # noqa: PLC0415  only where it is needed
    from devstack.redis import RedisServer, find_redis  # noqa: PLC0415  only where it is needed
    from tests.integration.conftest import prepare  # noqa: PLC0415  only where it is needed

    home = Path(tempfile.mkdtemp(prefix="shop-mutation-"))  # PostgreSQL's user must reach it
    home.chmod(0o711)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home)
        server = stack.enter_context(PostgresServer(home / "postgres"))
        prepare(server)
        variables = {"TEST_POSTGRES": f"{server.port}:{home / 'postgres'}"}
        if program := find_redis():
            redis = RedisServer(program, home / "redis")
            stack.callback(redis.close)
            redis.start()
            variables["TEST_REDIS"] = str(redis.port)
        print(json.dumps(variables), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
