"""Compressed messages that a careful client never sends, and those that a strange one may: what each is answered with.

The servers are fanwire's own listener and its protocol for uvicorn, which echo what they take.
"""

import random
import resource
import socket
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress

import fanwire
import pytest
from anyio.to_thread import run_sync
from hypothesis import example, given
from hypothesis import strategies as st
from support.deflating import COMPRESSES, TAIL, agreed
from support.raw import frame, open_socket, read_close, read_frame, read_head, request_text, upgraded
from support.uvicorns import echo, served

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]
MESSAGE_BYTES_MAX = 64 << 10
OFFER = "permessage-deflate; client_no_context_takeover; client_max_window_bits"
RSV1 = 4
PROTOCOL_ERROR, INVALID_DATA, TOO_BIG = 1002, 1007, 1009
GROWTH_BYTES_MAX = 48 << 20
"""What a hundred bombs may add to the process: each is 60 MB, and what all of them may have together is 13 MB."""


@pytest.fixture(params=["listener", "uvicorn"])
async def address(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Where an echo listens that takes 64 KiB; skipped where it does not negotiate, as long as the engine cannot."""
    if request.param == "uvicorn":
        async with served(echo, "fanwire.uvicorn:Protocol", ws_max_size=MESSAGE_BYTES_MAX) as at:
            yield at
        return
    hub = fanwire.Hub({"a": fanwire.Channel(**({"compression": True, "compression_readers": 1} if COMPRESSES else {}))})
    hub.on_message(lambda client, data: client.send(data))
    async with hub.serve("127.0.0.1:0", message_bytes_max=MESSAGE_BYTES_MAX, drain_timeout=0.5) as serving:
        if not COMPRESSES and not await run_sync(agrees, serving.address):
            pytest.skip("the engine's listener does not negotiate permessage-deflate")
        yield serving.address


def agrees(address: str) -> bool:
    """Whether it takes the offer."""
    with open_socket(address) as connection:
        connection.sendall(request_text("/ws?channel=a", sec_websocket_extensions=OFFER))
        return agreed(read_head(connection)) is not None


def opened(address: str, offer: str = OFFER) -> tuple[socket.socket, dict[str, int | None]]:
    """A connection for which compression is agreed on, and how."""
    connection = open_socket(address)
    connection.sendall(request_text("/ws?channel=a", sec_websocket_extensions=offer))
    agreement = agreed(read_head(connection))
    assert agreement is not None
    return connection, agreement


def window_of(agreement: dict[str, int | None]) -> int:
    """Bits of the client's window; one who may choose has 9 at least, for zlib knows no smaller one."""
    return max(9, agreement.get("client_max_window_bits") or 15)


def deflated(data: bytes, *, bits: int = 15, level: int = 6, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """One message's data (RFC 7692 §7.2.1)."""
    stream = zlib.compressobj(level, zlib.DEFLATED, -bits, 9, strategy)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def last_block(data: bytes) -> bytes:
    """The same with BFINAL set, and the byte that has to follow (RFC 7692 §7.2.3.4)."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -9)
    return stream.compress(data) + stream.flush(zlib.Z_FINISH) + b"\0"


def answers(address: str, *frames: bytes, count: int = 1) -> list[tuple[int, bytes]]:
    """Opcode and payload of the next `count` frames; what is compressed is inflated."""
    connection, _ = opened(address, OFFER + "; server_no_context_takeover")
    with connection:
        connection.sendall(b"".join(frames))
        return [read_inflated(connection) for _ in range(count)]


def read_inflated(connection: socket.socket) -> tuple[int, bytes]:
    """The next frame's opcode and payload, where the server takes no context over."""
    is_compressed = bool(connection.recv(1, socket.MSG_PEEK)[0] & 0x40)
    got = read_frame(connection)
    payload = zlib.decompressobj(-15).decompress(got.payload + TAIL) if is_compressed else got.payload
    return got.opcode, payload


def close_code(address: str, *frames: bytes) -> int:
    """What `frames` are closed with."""
    connection, _ = opened(address)
    with connection:
        connection.sendall(b"".join(frames))
        return read_close(connection)[0]


SIZES = [0, 1, 2, 125, 126, 127, 1_000, 16_383, MESSAGE_BYTES_MAX - 1, MESSAGE_BYTES_MAX]


class TestWhatIsRight:
    @pytest.mark.parametrize("size", SIZES)
    async def test_a_message_of_any_size_up_to_the_bound_comes_back(self, address: str, size: int) -> None:
        for data in (bytes(size), random.Random(size).randbytes(size)):
            sent = frame(2, deflated(data, bits=9), reserved=RSV1)
            assert await run_sync(answers, address, sent) == [(2, data)]

    @pytest.mark.parametrize("level", [0, 1, 9])
    @pytest.mark.parametrize(
        "strategy", [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED]
    )
    async def test_blocks_of_every_kind_are_read(self, address: str, level: int, strategy: int) -> None:
        data = b"".join(b"%d odds " % (number * number) for number in range(900))
        sent = frame(1, deflated(data, bits=9, level=level, strategy=strategy), reserved=RSV1)
        assert await run_sync(answers, address, sent) == [(1, data)]

    async def test_a_message_may_be_of_several_flushes_and_of_last_blocks(self, address: str) -> None:
        stream = zlib.compressobj(6, zlib.DEFLATED, -9)
        parts = [stream.compress(b"%d" % number) + stream.flush(zlib.Z_SYNC_FLUSH) for number in range(10)]
        parts += [stream.compress(b"!") + stream.flush(zlib.Z_FULL_FLUSH)]
        whole = frame(1, b"".join(parts).removesuffix(TAIL), reserved=RSV1)
        last = frame(1, last_block(b"last"), reserved=RSV1)
        plain = frame(1, b"plain")
        expected = [(1, b"0123456789!"), (1, b"last"), (1, b"plain"), (1, b"last")]
        found = await run_sync(lambda: answers(address, whole, last, plain, last, count=4))
        assert found == expected

    async def test_fragments_are_one_stream_with_pings_in_between(self, address: str) -> None:
        data = deflated(("çédille " * 900).encode(), bits=9)
        first = frame(1, data[:1], is_final=False, reserved=RSV1)
        between = [frame(0, data[at : at + 1], is_final=False) for at in range(1, len(data) - 1)]
        rest = [frame(9, b"ping"), frame(0, b"", is_final=False), frame(0, data[-1:])]
        found = await run_sync(lambda: answers(address, first, *between, *rest, count=2))
        assert found == [(10, b"ping"), (1, ("çédille " * 900).encode())]

    @pytest.mark.parametrize(
        "offer",
        ["permessage-deflate", *(f"permessage-deflate; client_max_window_bits={bits}" for bits in range(8, 16))],
    )
    async def test_what_is_agreed_on_for_the_client_holds(self, address: str, offer: str) -> None:
        """Its window, and whether it takes its context over."""

        def talk() -> list[tuple[int, bytes]]:
            connection, agreement = opened(address, f"{offer}; server_no_context_takeover")
            bits = window_of(agreement)
            stream = zlib.compressobj(9, zlib.DEFLATED, -bits)
            with connection:
                for data in said:
                    if "client_no_context_takeover" in agreement:
                        stream = zlib.compressobj(9, zlib.DEFLATED, -bits)
                    sent = stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)
                    connection.sendall(frame(2, sent.removesuffix(TAIL), reserved=RSV1))
                return [read_inflated(connection) for _ in said]

        chance = random.Random(1)
        said = [chance.randbytes(3_000) * 4 for _ in range(4)] * 2
        assert await run_sync(talk) == [(2, data) for data in said]


def bomb() -> bytes:
    """60 MB in less than 64 KiB, as much as may come; never whole in this process, whose memory is looked at."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [stream.compress(bytes(1_000_000)) for _ in range(60)]
    return b"".join([*parts, stream.flush(zlib.Z_SYNC_FLUSH)]).removesuffix(TAIL)


BOMB = bomb()


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("frames", "code"),
        [
            ([frame(1, b"\xff" * 20, reserved=RSV1)], PROTOCOL_ERROR),
            ([frame(1, b"\x06" + bytes(20), reserved=RSV1)], PROTOCOL_ERROR),  # a block of type 3
            ([frame(2, b"\x00\x05\x00\x00\x00hello", reserved=RSV1)], PROTOCOL_ERROR),  # LEN and NLEN disagree
            ([frame(2, b"\x4b\x04\x12\x00", reserved=RSV1)], PROTOCOL_ERROR),  # a distance before the beginning
            ([frame(1, b"x", is_final=False), frame(0, b"x", reserved=RSV1)], PROTOCOL_ERROR),
            ([frame(1, deflated(b"x"), is_final=False, reserved=RSV1), frame(0, b"", reserved=RSV1)], PROTOCOL_ERROR),
            ([frame(0, deflated(b"x"), reserved=RSV1)], PROTOCOL_ERROR),
            ([frame(9, deflated(b"x"), reserved=RSV1)], PROTOCOL_ERROR),
            ([frame(10, deflated(b"x"), reserved=RSV1)], PROTOCOL_ERROR),
            ([frame(8, deflated(b"\x03\xe8"), reserved=RSV1)], PROTOCOL_ERROR),
            ([frame(1, deflated(b"x"), reserved=RSV1 | 2)], PROTOCOL_ERROR),
            ([frame(1, deflated(b"x"), reserved=RSV1 | 1)], PROTOCOL_ERROR),
            ([frame(3, deflated(b"x"), reserved=RSV1)], PROTOCOL_ERROR),
            ([frame(1, deflated(b"\xff"), reserved=RSV1)], INVALID_DATA),
            ([frame(1, deflated("é".encode()[:1]), reserved=RSV1)], INVALID_DATA),
            ([frame(2, deflated(bytes(MESSAGE_BYTES_MAX + 1)), reserved=RSV1)], TOO_BIG),
            ([frame(2, BOMB, reserved=RSV1)], TOO_BIG),
            ([frame(2, BOMB[:100], is_final=False, reserved=RSV1), frame(0, BOMB[100:])], TOO_BIG),
            ([frame(2, last_block(bytes(40_000))[:-1] * 3 + b"\0", reserved=RSV1)], TOO_BIG),
        ],
    )
    async def test_a_misdeed_has_its_close_code(self, address: str, frames: list[bytes], code: int) -> None:
        assert len(BOMB) < MESSAGE_BYTES_MAX
        assert await run_sync(close_code, address, *frames) == code

    async def test_rsv1_without_an_agreement_is_1002(self, address: str) -> None:
        def close() -> int:
            with upgraded(address, "/ws?channel=a") as connection:
                connection.sendall(frame(1, deflated(b"x"), reserved=RSV1))
                return read_close(connection)[0]

        assert await run_sync(close) == PROTOCOL_ERROR

    async def test_a_hundred_bombs_cost_no_more_than_their_bounds_and_disturb_nobody(self, address: str) -> None:
        """Half of them are never finished; who is beside them is answered all the while."""

        def explode() -> int:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            beside, _ = opened(address, OFFER + "; server_no_context_takeover")
            bombs = [opened(address)[0] for _ in range(100)]
            for number, connection in enumerate(bombs):
                connection.sendall(frame(2, BOMB, reserved=RSV1, is_final=number % 2 == 0))
                if number % 10 == 0:
                    beside.sendall(frame(1, deflated(b"still there", bits=9), reserved=RSV1))
                    assert read_inflated(beside) == (1, b"still there")
            for number, connection in enumerate(bombs):
                with connection, suppress(ConnectionError if number % 2 else ()):  # who sends on may be reset
                    if number % 2:
                        connection.sendall(frame(0, b"", is_final=True))
                    assert read_close(connection)[0] == TOO_BIG
            beside.close()
            return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10

        assert await run_sync(explode) < GROWTH_BYTES_MAX

    async def test_a_message_cut_off_anywhere_is_no_worse_than_a_wrong_one(self, address: str) -> None:
        data = b"".join(b"%d odds " % (number * number) for number in range(40))
        whole = deflated(data, bits=9)

        def cut() -> None:
            for end in range(len(whole)):
                outcome_of(address, whole[:end])
            connection, _ = opened(address)  # and cut off with its connection
            with connection:
                connection.sendall(frame(2, whole, reserved=RSV1)[:-3])

        await run_sync(cut)
        assert await run_sync(answers, address, frame(2, whole, reserved=RSV1)) == [(2, data)]

    @pytest.mark.slow
    async def test_any_bytes_are_inflated_as_zlib_does_or_closed(self, address: str) -> None:
        kinds = st.sampled_from([deflated(b"odds " * 300, bits=9), deflated(bytes(range(256)) * 4, bits=9), BOMB])
        changes = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4)

        @given(st.binary(max_size=300) | st.builds(changed, kinds, changes))
        @example(b"")
        @example(last_block(b"a") + deflated(b"b"))
        @example(b"\x01\x00\x00\xff\xff")
        def holds(data: bytes) -> None:
            outcome_of(address, data)

        await run_sync(holds)


def changed(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    """The data with some bytes replaced."""
    made = bytearray(data)
    for place, byte in changes:
        made[place % len(made)] = byte
    return bytes(made)


def outcome_of(address: str, data: bytes) -> None:
    """Send that as a message: it is echoed if zlib inflates it, else the connection is closed with a code that fits."""
    stream = zlib.decompressobj(-15)
    try:
        plain: bytes | None = stream.decompress(data + TAIL, MESSAGE_BYTES_MAX + 1)
    except zlib.error:
        plain = None
    connection, _ = opened(address, OFFER + "; server_no_context_takeover")
    with connection:
        connection.sendall(frame(2, data, reserved=RSV1))
        opcode, payload = read_inflated(connection)
    code = int.from_bytes(payload[:2]) if opcode == 8 else None
    assert code in (None, PROTOCOL_ERROR, TOO_BIG)
    if plain is None:
        assert code in (PROTOCOL_ERROR, TOO_BIG), payload
    elif stream.eof:  # what follows a last block is read as well, and may be wrong or too much
        assert code is not None or payload.startswith(plain)
    elif len(plain) > MESSAGE_BYTES_MAX:
        assert code == TOO_BIG
    elif code is None:
        assert payload == plain
    else:
        # zlib takes a message that ends within a block, or reaches further back than was agreed on.
        assert code == PROTOCOL_ERROR
