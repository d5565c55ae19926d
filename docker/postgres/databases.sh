#!/bin/bash
# Creates the roles and databases that are missing, and leaves the others as they are. Each argument is role=database.
set -euo pipefail
secrets=${SECRETS_DIR:-/run/secrets}
PGPASSWORD=$(cat "$secrets/postgres_password")
export PGPASSWORD PGHOST=${PGHOST:-postgres} PGUSER=postgres PGDATABASE=postgres

ask() { psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 "$@"; }

for pair; do
  role=${pair%=*}
  ask --set role="$role" --set database="${pair#*=}" --set password="$(cat "$secrets/${role}_password")" <<'SQL'
SELECT format('CREATE ROLE %I LOGIN PASSWORD %L', :'role', :'password')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec
SELECT format('CREATE DATABASE %I OWNER %I', :'database', :'role')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
-- By default every role may connect to a new database.
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
SQL
done
ask --command 'REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC'
