#!/usr/bin/env python3
"""Plays a search index for the demo: as much of OpenSearch's bulk, mapping and search API as a FileRoute and the demo use, in memory.

usage: search_index.py PORT
"""
import http.server
import json
import sys

indices: dict[str, dict] = {}


def values(document, field):
    for name in field.split("."):
        document = document.get(name, {}) if isinstance(document, dict) else {}
    return document if isinstance(document, list) else [document]


def matches(query, document):
    (kind, inner), = query.items()
    if kind == "bool":
        return all(matches(part, document) for part in inner.get("filter", [])) and \
            not any(matches(part, document) for part in inner.get("must_not", []))
    if kind in ("term", "terms"):
        return all(any(value in (wanted if isinstance(wanted, list) else [wanted]) for value in values(document, field))
                   for field, wanted in inner.items())
    return kind == "match_all"


class Index(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_call(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        name, _, call = self.path.split("?")[0].strip("/").partition("/")
        if self.command == "PUT" and not call:
            indices[name] = {"properties": json.loads(body or "{}").get("mappings", {}).get("properties", {}), "documents": {}}
            return self.answer(200, {"acknowledged": True})
        if name not in indices:
            return self.answer(404, {"error": {"type": "index_not_found_exception", "reason": "no such index"}, "status": 404})
        index = indices[name]
        documents = index["documents"]
        if call == "_mapping":
            return self.answer(200, {name: {"mappings": {"properties": index["properties"]}}})
        if call == "_bulk":
            return self.answer(200, {"took": 1, "errors": False, "items": list(self.write(documents, body.splitlines()))})
        if call == "_search":
            query = json.loads(body)
            hits = [{"_id": key, "_version": version, "_source": document} for key, (version, document) in documents.items()
                    if document is not None and matches(query["query"], document)]
            return self.answer(200, {"timed_out": False, "_shards": {"total": 1, "failed": 0}, "hits": {"hits": hits}})
        if call.startswith("_doc/"):
            version, document = documents.get(call[5:], (0, None))
            found = document is not None
            return self.answer(200 if found else 404, {"_id": call[5:], "found": found, "_version": version, "_source": document})
        return self.answer(200, {"_shards": {"total": 1, "successful": 1, "failed": 0}})

    @staticmethod
    def write(documents, lines):
        lines = iter(lines)
        for line in lines:
            (action, meta), = json.loads(line).items()
            document = json.loads(next(lines)) if action == "index" else None
            known, _ = documents.get(meta["_id"], (0, None))
            item = {"_index": "0", "_id": meta["_id"], "status": 200, "_version": meta["version"]}
            if known > meta["version"]:
                item |= {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "a newer one is there"}}
            else:
                documents[meta["_id"]] = (meta["version"], document)
                if action == "delete":
                    item["result"] = "deleted"
            yield {action: item}

    do_GET = do_POST = do_PUT = handle_call

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Index).serve_forever()
