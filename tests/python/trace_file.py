"""Op traces read and written by docs/op_traces.md alone."""

import struct
from dataclasses import dataclass

import xxhash

HEAD = b"PKVTRACE" + struct.pack("<I", 1)
MANAGER, REQUEST, TOKENS, CALL, ANSWER, END = range(1, 7)


def digest(data):
    return xxhash.xxh3_128(data).digest()


def read_records(path):
    """The payloads, every checksum checked."""
    data = path.read_bytes()
    assert data.startswith(HEAD)
    at, last, payloads = len(HEAD), digest(HEAD), []
    while at < len(data):
        length, guard = struct.unpack_from("<II", data, at)
        assert digest(last + data[at : at + 4])[:4] == struct.pack("<I", guard)
        payload = data[at + 8 : at + 8 + length]
        last = digest(last + payload)
        at += 8 + length + 8
        assert last[:8] == data[at - 8 : at]
        payloads.append(payload)
    return payloads


def write_records(path, payloads):
    data, last = bytearray(HEAD), digest(HEAD)
    for payload in payloads:
        length = struct.pack("<I", len(payload))
        data += length + digest(last + length)[:4] + payload
        last = digest(last + payload)
        data += last[:8]
    path.write_bytes(data)


@dataclass
class Payload:
    """The values in a payload, one after the other."""

    data: bytes
    at: int = 0

    def uint(self):
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def int(self):
        value = self.uint()
        return value >> 1 ^ -(value & 1)

    def ints(self):
        return [self.int() for _ in range(self.uint())]

    def raw(self, size):
        self.at += size
        return self.data[self.at - size : self.at]

    def text(self):
        return self.raw(self.uint()).decode()


def put_uint(value):
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def put_int(value):
    return put_uint(value << 1 ^ -(value < 0))
