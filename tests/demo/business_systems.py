#!/usr/bin/env python3
"""Plays a CRM, a ticket system and an ERP system for the demo.

usage: business_systems.py PORT FOLDER

FOLDER/won.json is what the CRM lists as won. What the systems are told is kept in FOLDER: deal-<id>.json and deal-<id>.log (CRM), ticket-<number>.json
and ticket-<number>.log (tickets), and price-list-<number> (ERP).
"""
import http.server
import json
import pathlib
import sys
import threading

folder = pathlib.Path(sys.argv[2])
lock = threading.Lock()
numbers: dict[tuple[str, str], int] = {}


class Systems(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def number(self, kind):
        """The same for a call that is repeated."""
        with lock:
            key = (kind, self.headers.get("Idempotency-Key", ""))
            return numbers.setdefault(key, sum(known == kind for known, _ in numbers) + 1)

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_call(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match self.command, self.path.split("?")[0].strip("/").split("/"):
            case "GET", ["api", "opportunities"]:
                self.answer(200, {"records": json.loads((folder / "won.json").read_text())})
            case "PATCH", ["api", "opportunities", deal]:
                self.keep(f"deal-{deal}", body)
                self.answer(200, {})
            case "POST", ["api", "requests"]:
                number = self.number("ticket")
                self.keep(f"ticket-{number}", body)
                self.answer(201, {"number": number})
            case "POST", ["api", "requests", number, "events"]:
                with (folder / f"ticket-{number}.log").open("ab") as file:
                    file.write(body + b"\n")
                self.answer(200, {})
            case "POST", ["api", "price-lists"]:
                (folder / f"price-list-{self.number('price-list')}").write_bytes(body)
                self.answer(201, {})
            case _:
                self.answer(404, {"error": "no such thing"})

    @staticmethod
    def keep(name, body):
        (folder / f"{name}.json").write_bytes(body)
        with (folder / f"{name}.log").open("ab") as file:
            file.write(body + b"\n")

    do_GET = do_POST = do_PATCH = handle_call

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Systems).serve_forever()
