"""A secret that is replaced reaches each process that has it: the recipes of the documents forget none."""

from __future__ import annotations

import re
from typing import Final

import yaml

from devstack.settings import REPOSITORY
from tests.support.documents import code

# The files that `make secrets` makes again after one was removed.
_MADE_WITH: Final = {
    "user_svc_password": {"user_svc_database_url"},
    "redis_password": {"redis_conf", "redis_url"},
    "keys_secret": {"keys_secret"},
}


_EVERY_WORKER: Final = "$(docker compose config --services | grep -e -worker)"


def test_a_secret_s_recipe_replaces_each_container_that_has_it() -> None:
    services = yaml.safe_load((REPOSITORY / "docker" / "compose.yaml").read_text())["services"]
    recipes = [each for each in code() if "rm docker/secrets/" in each.text and "--force-recreate" in each.text]

    replaced = set()
    for recipe in recipes:
        [secret] = re.findall(r"rm docker/secrets/(\w+)", recipe.text)
        [names] = re.findall(r"up --detach --force-recreate --wait (.+)", recipe.text)
        names = names.replace(_EVERY_WORKER, " ".join(name for name in services if name.endswith("-worker")))
        # Migrations run again by themselves, before what waits for them.
        having = {
            name
            for name, service in services.items()
            if not name.endswith("-migrate") and _MADE_WITH[secret] & _secrets_of(service)
        }
        assert set(names.split()) == having, recipe.where
        replaced.add(secret)

    assert replaced == _MADE_WITH.keys()


def _secrets_of(service: dict[str, list[str | dict[str, str]]]) -> set[str]:
    return {each if isinstance(each, str) else each["source"] for each in service.get("secrets", [])}
