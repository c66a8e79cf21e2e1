"""Uploads as a client does that reads nothing before it has written all it can: `requests` and `urllib` are such clients.

Prints a JSON object per try: the status that was read in the end, the reason in Proxy-Status, whether writing failed.
"""

import http.client
import json
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor


def body(size: int):
    piece = b"x" * 65536
    while size > 0:
        yield piece[:size]
        size -= len(piece)


def attempt(scheme: str, host: str, port: int, root: str, framing: str, size: int) -> dict:
    if scheme == "https":
        context = ssl.create_default_context(cafile=root)
        connection = http.client.HTTPSConnection(host, port, context=context, timeout=20)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=20)
    headers = {"Content-Length": str(size)} if framing == "length" else {}
    cut = False
    try:
        connection.request("POST", "/upload", body(size), headers, encode_chunked=framing == "chunked")
    except OSError:
        cut = True
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return {"status": response.status, "whole": len(text) > 0, "detail": response.getheader("proxy-status"), "cut": cut}


def main() -> None:
    scheme, host, port, root, framing, size, tries = sys.argv[1:]
    with ThreadPoolExecutor(int(tries)) as pool:
        attempts = [pool.submit(attempt, scheme, host, int(port), root, framing, int(size)) for _ in range(int(tries))]
        for ended in attempts:
            print(json.dumps(ended.result()))


if __name__ == "__main__":
    main()
