#!/bin/sh
# A data directory at the first start, the password from the environment; runs as the postgres user.
set -e
data=${PGDATA:-/tmp/data}
bin=/usr/lib/postgresql/15/bin
if [ ! -s "$data/PG_VERSION" ]; then
    echo "${POSTGRES_PASSWORD:-postgres}" > /tmp/password
    $bin/initdb -D "$data" -U "${POSTGRES_USER:-postgres}" --pwfile=/tmp/password -A scram-sha-256 --no-sync >/dev/null
    rm /tmp/password
    printf "listen_addresses = '*'\nunix_socket_directories = '/tmp'\njit = off\nfsync = off\n" >> "$data/postgresql.conf"
    echo 'host all all all scram-sha-256' >> "$data/pg_hba.conf"
fi
exec $bin/postgres -D "$data"
