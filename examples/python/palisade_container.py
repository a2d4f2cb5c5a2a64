"""The container socket (docs/container.md): its messages, and the requests of versions 1 and 7.

Of Python's own library alone. A request that is refused raises OSError with the errno.
"""

import os
import socket
import struct

VERSION, VERSION_ANSWER, REQUEST, ANSWER = 1, 2, 3, 4
HEADER = struct.Struct("<IHHII")
MAJOR, MINOR = 1, 1
MAX_DESCRIPTORS = 4
V1, V7, IOMMUFD = 1, 7, 3

SET_IOMMU, GET_INFO, MAP_DMA, UNMAP_DMA = 0x3B66, 0x3B70, 0x3B71, 0x3B72
PASID_REQUEST_V7, NESTING_OP = 0x3B76, 0x3B77
PASID_REQUEST_V1, BIND_V1, CACHE_INVALIDATE_V1 = 0x3B7A, 0x3B7B, 0x3B7C
FUNCTION_LIST, FUNCTION_ATTACH, FUNCTION_DETACH = 0x3BF0, 0x3BF1, 0x3BF2
FAULT_RING, PAGE_RESPONSE = 0x3BF3, 0x3BF4
IOASID_FREE = 0x6967

NESTING_IOMMU = 6
MAP_READ_WRITE, UNMAP_ALL = 3, 2
PASID_ALLOCATE, PASID_FREE = 1, 2
BIND, UNBIND = 1, 2
OP_BIND, OP_UNBIND, OP_INVALIDATE = 0, 1, 2
BIND_VERSION = INVALIDATE_VERSION = RESPONSE_VERSION = 1
FORMAT_VTD = GUEST_PASID_VALID = INVALIDATE_HAS_PASID = RESPONSE_HAS_PASID = 1
CACHE_IOTLB, CACHE_DEVICE_IOTLB = 1, 2
GRANULARITY_DOMAIN, GRANULARITY_PASID, GRANULARITY_ADDRESS = 0, 1, 2
RESPONSE_SUCCESS, RESPONSE_INVALID, RESPONSE_FAILURE = 0, 1, 2


class Connection:
    """One connection, which speaks one form of the requests."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.last_id = 0

    def agree(self, form):
        """What is sent first; tells the server's version."""
        self.form = form
        _, told, _ = self.exchange(VERSION, 0, struct.pack("<HHHH", MAJOR, MINOR, form, 0))
        return struct.unpack_from("<HH", told)

    def close(self):
        self.socket.close()

    def exchange(self, kind, number, payload=b"", files=(), on=0):
        """Sends a message; returns the value, the payload and the descriptors of the answer."""
        self.last_id = (self.last_id + 1) & 0xFFFF
        header = HEADER.pack(HEADER.size + len(payload), kind, self.last_id, number, on)
        message = header + payload
        # Descriptors go with the first byte. The rest may take more than one turn.
        sent = socket.send_fds(self.socket, [message], files) if files else 0
        self.socket.sendall(message[sent:])
        header, come = self.receive(HEADER.size)
        size, kind, answered, refusal, value = HEADER.unpack(header)
        payload, more = self.receive(size - HEADER.size)
        if kind not in (VERSION_ANSWER, ANSWER) or answered != self.last_id:
            raise ConnectionError("an answer to no question")
        if refusal:
            raise OSError(refusal, f"{os.strerror(refusal)}: request {number:#x}")
        return value, payload, come + more

    def receive(self, count):
        data, files = b"", []
        while len(data) < count:
            space = count - len(data)
            piece, come, _, _ = socket.recv_fds(self.socket, space, MAX_DESCRIPTORS)
            if not piece:
                raise ConnectionError("the server ended the connection")
            data, files = data + piece, files + come
        return data, files

    def ioctl(self, number, argument=b"", files=(), on=0):
        """Makes a request; returns what it returns, and the argument as it is now."""
        value, written, _ = self.exchange(REQUEST, number, argument, files, on)
        return value, written + argument[len(written):]

    def functions(self):
        """The places of the VMM's functions, each with its state."""
        room = 32
        argument = struct.pack("<III", 12 + 8 * room, 0, 0)
        _, told = self.ioctl(FUNCTION_LIST, argument)
        count = min(struct.unpack_from("<I", told, 8)[0], room)
        return [struct.unpack_from("<II", told, 12 + 8 * n) for n in range(count)]


class Container(Connection):
    """A connection of version 1 or 7, with nesting."""

    def __init__(self, path, form):
        super().__init__(path)
        self.server_version = self.agree(form)
        self.ioctl(SET_IOMMU, struct.pack("<I", NESTING_IOMMU))

    def capability(self):
        """The nesting capability, in its bytes."""
        info = struct.pack("<IIQII", 256, 0, 0, 0, 0)
        _, told = self.ioctl(GET_INFO, info)
        at = struct.unpack_from("<I", told, 16)[0]
        return told[at:]

    def map(self, file, size, at):
        argument = struct.pack("<IIQQQ", 32, MAP_READ_WRITE, 0, at, size)
        self.ioctl(MAP_DMA, argument, [file])

    def unmap_all(self):
        """Returns how many bytes were mapped."""
        _, told = self.ioctl(UNMAP_DMA, struct.pack("<IIQQ", 24, UNMAP_ALL, 0, 0))
        return struct.unpack_from("<Q", told, 16)[0]

    def attach(self, place):
        self.ioctl(FUNCTION_ATTACH, struct.pack("<III", 12, 0, place))

    def detach(self, place):
        self.ioctl(FUNCTION_DETACH, struct.pack("<III", 12, 0, place))

    def alloc_pasid(self, lowest, highest):
        if self.form == V7:
            argument = struct.pack("<IIII", 16, PASID_ALLOCATE, lowest, highest)
            return self.ioctl(PASID_REQUEST_V7, argument)[0]
        argument = struct.pack("<IIIII", 20, PASID_ALLOCATE, lowest, highest, 0)
        return struct.unpack_from("<I", self.ioctl(PASID_REQUEST_V1, argument)[1], 16)[0]

    def free_pasid(self, pasid):
        if self.form == V7:
            argument = struct.pack("<IIII", 16, PASID_FREE, pasid, pasid)
            self.ioctl(PASID_REQUEST_V7, argument)
        else:
            self.ioctl(PASID_REQUEST_V1, struct.pack("<III", 12, PASID_FREE, pasid))

    def bind(self, pasid, root, name):
        """Binds the tables at a guest physical address to a PASID that the guest calls `name`."""
        data = bind_data(pasid, GUEST_PASID_VALID, root, name)
        self.operation(OP_BIND, (BIND_V1, BIND), data)

    def unbind(self, pasid):
        self.operation(OP_UNBIND, (BIND_V1, UNBIND), bind_data(pasid, 0, 0, 0))

    def invalidate_all(self):
        self.invalidate(CACHE_IOTLB, GRANULARITY_DOMAIN, b"")

    def invalidate_pasid(self, pasid):
        what = struct.pack("<IIQ", INVALIDATE_HAS_PASID, 0, pasid)
        self.invalidate(CACHE_IOTLB | CACHE_DEVICE_IOTLB, GRANULARITY_PASID, what)

    def invalidate_pages(self, pasid, at, count):
        what = struct.pack("<IIQQQQ", INVALIDATE_HAS_PASID, 0, pasid, at, 4096, count)
        self.invalidate(CACHE_IOTLB | CACHE_DEVICE_IOTLB, GRANULARITY_ADDRESS, what)

    def invalidate(self, caches, granularity, what):
        first = INVALIDATE_VERSION if self.form == V1 else 8 + len(what)
        data = struct.pack("<IBBH", first, caches, granularity, 0) + what
        self.operation(OP_INVALIDATE, (CACHE_INVALIDATE_V1, 0), data)

    def operation(self, of_v7, of_v1, data):
        """What is one request of version 7 with flags, and a request for each in version 1."""
        request, flags = (NESTING_OP, of_v7) if self.form == V7 else of_v1
        self.ioctl(request, struct.pack("<II", 8 + len(data), flags) + data)

    def respond(self, request, code):
        """Answers a group of page requests, of which this was the last."""
        flags = 0 if request.pasid is None else RESPONSE_HAS_PASID
        pasid, group = request.pasid or 0, request.group
        names = (request.place, RESPONSE_VERSION, flags, pasid, group, code)
        self.ioctl(PAGE_RESPONSE, struct.pack("<8I", 32, 0, *names))


def bind_data(pasid, flags, root, name):
    head = (BIND_VERSION, FORMAT_VTD, flags, root, pasid, name, 48)
    return struct.pack("<IIQQQQI12x", *head) + struct.pack("<QII", 0, 0, 0)
