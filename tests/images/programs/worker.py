"""Moves votes from redis to postgres; waits for both as long as it takes."""
import json
import time

import psycopg2
import redis


def connected(what, connect):
    while True:
        try:
            return connect()
        except Exception as error:  # noqa: BLE001 - any failure means: not yet
            print("waiting for", what, error, flush=True)
            time.sleep(1)


def database():
    connection = psycopg2.connect(host="db", user="postgres", password="postgres", connect_timeout=3)
    connection.autocommit = True
    connection.cursor().execute("CREATE TABLE IF NOT EXISTS votes (id VARCHAR(255) PRIMARY KEY, vote VARCHAR(255) NOT NULL)")
    return connection


def queue():
    client = redis.Redis(host="redis", socket_timeout=30)
    client.ping()
    return client


db, votes = connected("db", database), connected("redis", queue)
print("connected to db and redis", flush=True)
while True:
    item = votes.blpop("votes", timeout=10)
    if item is None:
        continue
    vote = json.loads(item[1])
    db.cursor().execute(
        "INSERT INTO votes (id, vote) VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET vote = EXCLUDED.vote",
        (vote["voter_id"], vote["vote"]),
    )
    print("processed", vote, flush=True)
