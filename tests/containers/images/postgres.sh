#!/bin/bash
# As the official image: makes the cluster once, with a server that listens on its socket only, and becomes PostgreSQL.
set -euo pipefail
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --pgdata "$PGDATA" --username postgres --pwfile "$POSTGRES_PASSWORD_FILE" --encoding UTF8 \
    --auth-local trust --auth-host scram-sha-256 >/dev/null
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  pg_ctl --wait --pgdata "$PGDATA" --options "-c listen_addresses='' -c unix_socket_directories=/tmp" start >/dev/null
  for script in /docker-entrypoint-initdb.d/*.sh; do PGHOST=/tmp bash "$script"; done
  pg_ctl --wait --pgdata "$PGDATA" --mode fast stop >/dev/null
fi
exec "$@" -c "listen_addresses=*" -c unix_socket_directories=/tmp
