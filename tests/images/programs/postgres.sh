#!/bin/sh
# As the well-known image does: a data directory at the first start, the password from the environment.
set -e
data=${PGDATA:-/var/lib/postgresql/data}
bin=/usr/lib/postgresql/15/bin
mkdir -p "$data" /run/postgresql
chown -R postgres:postgres "$data" /run/postgresql
if [ ! -s "$data/PG_VERSION" ]; then
    echo "${POSTGRES_PASSWORD:-postgres}" > /tmp/password
    chown postgres /tmp/password
    setuidgid postgres $bin/initdb -D "$data" -U "${POSTGRES_USER:-postgres}" --pwfile=/tmp/password -A scram-sha-256 --no-sync >/dev/null
    rm /tmp/password
    printf "listen_addresses = '*'\njit = off\nfsync = off\n" >> "$data/postgresql.conf"
    echo 'host all all all scram-sha-256' >> "$data/pg_hba.conf"
fi
exec setuidgid postgres $bin/postgres -D "$data"
