#!/bin/bash
# Creates the role and the database of each service. The image runs it once, after it has created an empty cluster.
set -euo pipefail

make_database() { # role database
  psql --quiet --no-psqlrc --username "${POSTGRES_USER:-postgres}" --dbname postgres --set ON_ERROR_STOP=1 \
    --set role="$1" --set database="$2" --set password="$(cat "/run/secrets/$1_password")" <<'SQL'
CREATE ROLE :"role" LOGIN PASSWORD :'password';
CREATE DATABASE :"database" OWNER :"role";
-- By default every role may connect to a new database.
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
SQL
}

make_database user_svc users
make_database order_svc orders
psql --quiet --no-psqlrc --username "${POSTGRES_USER:-postgres}" --dbname postgres --set ON_ERROR_STOP=1 \
  --command 'REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC'
