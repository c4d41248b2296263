"""A web server for stories: the files of this directory, those called slow* at RATE bytes a second. Says its port.

usage: python3 server.py RATE
"""
import http.server
import os
import re
import sys
import time

rate = int(sys.argv[1])


class Handler(http.server.SimpleHTTPRequestHandler):
    """Ranges, which a download is resumed with, are not known to Python's own."""

    def send_head(self):
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = self.translate_path(self.path)
        if not asked or not os.path.isfile(path):
            self.left = None
            return super().send_head()
        size = os.path.getsize(path)
        first, last = int(asked[1]), min(int(asked[2] or size), size - 1)
        self.left = last - first + 1
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(self.left))
        self.end_headers()
        file = open(path, "rb")
        file.seek(first)
        return file

    def copyfile(self, source, outputfile):
        slow = "slow" in self.path
        while block := source.read(min(rate // 20 if slow else 2**20, 2**20 if self.left is None else self.left)):
            outputfile.write(block)
            if self.left is not None:
                self.left -= len(block)
            if slow:
                time.sleep(0.05)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
