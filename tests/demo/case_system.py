#!/usr/bin/env python3
"""Plays a case system for the demo: keeps what it gets in a folder and answers with a number.

usage: case_system.py PORT FOLDER
"""
import http.server
import json
import os
import sys


class Cases(http.server.BaseHTTPRequestHandler):
    numbers: dict[str, int] = {}

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = self.headers.get("Idempotency-Key", "")
        number = self.numbers.setdefault(key, len(self.numbers) + 1)
        name = self.path.strip("/").replace("/", "_")
        with open(os.path.join(sys.argv[2], f"{number}-{name}"), "wb") as file:
            file.write(body)
        answer = json.dumps({"id": f"CASE-{number}"}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Cases).serve_forever()
