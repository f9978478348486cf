"""A web service with the standard library alone; its threads share one engine, which mixes their
requests in one batch.

    python docs/examples/web_handler.py BUNDLE PREFIXES [PORT]
    curl -N localhost:8000/e2e -d 'name: Aromi | food: French'

The path names the task, the body is the prompt, the answer is streamed. A client that goes away
cancels its request.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from edgeprefix.runtime import EdgePrefixError, Engine


class Handler(BaseHTTPRequestHandler):
    engine: Engine

    def do_POST(self) -> None:
        prompt = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            stream = self.engine.stream(prompt, task=self.path.strip("/") or None, timeout_s=60)
        except (
            EdgePrefixError
        ) as error:  # unknown task, prompt too long, queue full: nothing was sent yet
            self.send_error(400, explain=str(error))
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.end_headers()
        with stream:  # leaving it early, as when the connection breaks, cancels the request
            for piece in stream:
                self.wfile.write(piece.text.encode())

    def log_message(self, *arguments: object) -> None:
        """No line for each request."""


def serve(bundle: str, prefixes: str, port: int) -> ThreadingHTTPServer:
    Handler.engine = Engine.load(bundle, prefixes=prefixes, max_length=128)
    Handler.engine.watch(prefixes)  # new prefix files become tasks while the service runs
    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    with serve(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 8000) as server:
        server.serve_forever()
