"""As much of vfio-user, and of the accelerator's driver, as a copy takes (docs/slice.md).

A VMM has this side anyway; the container socket has no part in it.
"""

import json
import socket
import struct

VERSION, DMA_MAP, REGION_READ, REGION_WRITE = 1, 2, 9, 10
HEADER = struct.Struct("<HHIII")
ERROR = 0x20
READ_WRITE = 3
BAR0, BAR2, CONFIG = 0, 2, 7
CMD, CMDSTS, GROUP_QUEUES, GROUP_ENGINES, QUEUE = 0xA0, 0xA8, 0x400, 0x420, 0x800
ENABLE_DEVICE, ENABLE_QUEUE = 1 << 20, 6 << 20
LIMITED_PORTAL = 0x1000
BLOCK_ON_FAULT, RECORD_VALID, REQUEST_RECORD = 2, 4, 8
MEMORY_MOVE = 3


class Slice:
    """A slice with a queue of its own."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        capabilities = json.dumps({"capabilities": {}}).encode() + b"\0"
        self.command(VERSION, struct.pack("<HH", 0, 1) + capabilities)

    def command(self, number, payload, files=()):
        message = HEADER.pack(0, number, HEADER.size + len(payload), 0, 0) + payload
        sent = socket.send_fds(self.socket, [message], files) if files else 0
        self.socket.sendall(message[sent:])
        header = self.socket.recv(HEADER.size, socket.MSG_WAITALL)
        _, _, size, flags, refusal = HEADER.unpack(header)
        if flags & ERROR:
            raise OSError(refusal, f"vfio-user command {number}")
        rest = size - HEADER.size
        return self.socket.recv(rest, socket.MSG_WAITALL) if rest else b""

    def announce(self, file, size):
        """Guest physical memory from 0 on is this file."""
        argument = struct.pack("<IIQQQ", 32, READ_WRITE, 0, 0, size)
        self.command(DMA_MAP, argument, [file])

    def read(self, region, at):
        told = self.command(REGION_READ, struct.pack("<QII", at, region, 4))
        return struct.unpack_from("<I", told, 16)[0]

    def write(self, region, at, data):
        self.command(REGION_WRITE, struct.pack("<QII", at, region, len(data)) + data)

    def enable(self, pasid):
        """Has the queue work for a PASID, by the guest's name, and wait for missing pages."""
        # Memory and bus master; PASID, ATS and PRI.
        for at, value in ((0x04, 6), (0x106, 1), (0x10E, 0x8000), (0x114, 1)):
            self.write(CONFIG, at, struct.pack("<H", value))
        dedicated, block_on_fault, priority, has_pasid = 1, 2, 1 << 4, 1 << 28
        mode = dedicated | block_on_fault | priority | pasid << 8 | has_pasid
        registers = (
            (QUEUE, 16),
            (QUEUE + 8, mode),
            (QUEUE + 12, 21 | 4 << 5),
            (GROUP_QUEUES, 1),
            (GROUP_ENGINES, 1),
        )
        for at, value in registers:
            self.write(BAR0, at, struct.pack("<I", value))
        for command in (ENABLE_DEVICE, ENABLE_QUEUE):
            self.write(BAR0, CMD, struct.pack("<I", command))
            error = self.read(BAR0, CMDSTS) & 0xFF
            if error:
                raise RuntimeError(f"command {command >> 20} failed: {error:#x}")

    def copy(self, source, destination, count, record):
        """Submits a copy. When it has ended, the first byte of its record is not 0."""
        flags = BLOCK_ON_FAULT | RECORD_VALID | REQUEST_RECORD
        first = (0, flags | MEMORY_MOVE << 24, record, source, destination, count)
        descriptor = struct.pack("<IIQQQI28x", *first)
        self.write(BAR2, LIMITED_PORTAL, descriptor)
