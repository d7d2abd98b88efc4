"""The result page: counts of votes, read from postgres at each request."""
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2


def counts():
    with psycopg2.connect(host="db", user="postgres", password="postgres", connect_timeout=3) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT vote, COUNT(id) FROM votes GROUP BY vote")
        return dict(cursor.fetchall())


class Result(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            status, answer = 200, {"a": 0, "b": 0} | counts()
        except psycopg2.Error as error:
            status, answer = 503, {"error": str(error)}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("", 80), Result).serve_forever()
