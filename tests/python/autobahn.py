"""Autobahn's cases, as kosoku drives them, against the server at an address: `case verdict verdict-of-its-end`, a line each.

The further arguments are patterns of cases that are left out.
"""

import asyncio
import os
import sys

from kosoku import FailureError, run_fuzzingclient


async def main():
    address, *exclude = sys.argv[1:]
    try:
        results = await run_fuzzingclient(address, None, exclude, concurrency=4)
    except FailureError as failure:
        results = failure.results
    for result in results:
        print(result.case_id, result.behavior.value, result.behavior_close.value, sep="\t")


asyncio.run(main())
sys.stdout.flush()
# The runner's own threads may still be at work when the interpreter is taken down, and crash it.
os._exit(0)
