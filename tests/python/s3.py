"""An S3 server on loopback with one bucket: prints its port, serves until standard input ends."""

import sys
import urllib.request

from moto.moto_server.threaded_moto_server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
_, port = server.get_host_and_port()
urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/lake", method="PUT")).read()
print(port, flush=True)
sys.stdin.read()
