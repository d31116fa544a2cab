"""One hub on several machines: `python examples/machines.py 8001` and `… 8002`, with a Redis on port 6379.

Then `curl -N 'http://127.0.0.1:8001/events?channel=odds:7'`. docs/machines.md goes on from there.
"""

import sys

import fanwire

port, redis = (*sys.argv[1:], "redis://127.0.0.1:6379")[:2]
hub = fanwire.Hub(channels={"odds:*": fanwire.Channel(history=100)}, backbone=redis)

if __name__ == "__main__":
    print(f"http://127.0.0.1:{port}/events?channel=odds:7", flush=True)
    hub.run(f"127.0.0.1:{port}")
