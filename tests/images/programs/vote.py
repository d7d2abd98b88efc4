"""The voting page: a POST puts one vote onto the redis list that the worker empties."""
import json
import socket
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import redis

PAGE = "<h1>Cats vs Dogs!</h1><form method=post><button name=vote value=a>Cats</button><button name=vote value=b>Dogs</button></form><p>{note}</p><p>Processed by container ID {host}</p>"


class Vote(BaseHTTPRequestHandler):
    def answer(self, note):
        body = PAGE.format(note=note, host=socket.gethostname()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer("")

    def do_POST(self):
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        vote = form["vote"][0]
        voter = form.get("voter", [self.client_address[0]])[0]
        redis.Redis(host="redis", socket_timeout=5).rpush("votes", json.dumps({"voter_id": voter, "vote": vote}))
        print("voted", voter, vote, flush=True)
        self.answer("voted " + vote)


ThreadingHTTPServer(("", 80), Vote).serve_forever()
