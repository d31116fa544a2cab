"""The encoder against the fastest that Python has: ``pytest bench/micro/test_encode.py --benchmark-group-by=group``.

A message of some 500 bytes as a relay of odds publishes it. Compare inside a group and inside one run only.
"""

import json
from collections.abc import Callable
from typing import Any

import msgpack
import orjson
import ormsgpack
import pytest
from fanwire._engine import encode_json, encode_msgpack

ODDS: dict[str, Any] = {
    "type": 1,
    "target": "OddsChanged",
    "arguments": [
        {
            "matchId": "BR-2026-9001",
            "home": "Team A1",
            "away": "Team U21",
            "minute": 57,
            "score": [1, 2],
            "markets": [
                {
                    "id": 1,
                    "name": "Match Result",
                    "selections": [
                        {"id": 0, "price": 1.85, "suspended": False},
                        {"id": 1, "price": 3.4, "suspended": False},
                        {"id": 2, "price": 4.25, "suspended": True},
                    ],
                },
                {
                    "id": 2,
                    "name": "Total Goals 2.5",
                    "selections": [
                        {"id": 0, "price": 1.95, "suspended": False},
                        {"id": 1, "price": 1.9, "suspended": False},
                    ],
                },
                {
                    "id": 3,
                    "name": "Next Goal",
                    "selections": [{"id": 0, "price": 2.125, "suspended": True}],
                },
            ],
        }
    ],
}


def dumps(data: Any) -> bytes:
    """``json`` at its fastest for this work: bytes out, no spaces."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.mark.benchmark(group="json 500 B")
@pytest.mark.parametrize("encode", [encode_json, orjson.dumps, dumps], ids=["fanwire", "orjson", "json"])
def test_json_of_500_bytes(benchmark: Any, encode: Callable[[Any], bytes]) -> None:
    assert json.loads(benchmark(encode, ODDS)) == ODDS


@pytest.mark.benchmark(group="msgpack 500 B")
@pytest.mark.parametrize(
    "encode", [encode_msgpack, ormsgpack.packb, msgpack.packb], ids=["fanwire", "ormsgpack", "msgpack"]
)
def test_msgpack_of_500_bytes(benchmark: Any, encode: Callable[[Any], bytes]) -> None:
    assert msgpack.unpackb(benchmark(encode, ODDS)) == ODDS
