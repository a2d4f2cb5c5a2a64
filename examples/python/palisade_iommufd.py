"""The container socket's form of an iommufd (docs/container.md): a connection of its own."""

import os
import struct

from palisade_container import IOMMUFD, REQUEST, Connection

DESTROY, IOAS_ALLOC, IOAS_IOVA_RANGES, HWPT_ALLOC = 0x3B80, 0x3B81, 0x3B84, 0x3B89
GET_HW_INFO, HWPT_INVALIDATE, FAULT_QUEUE_ALLOC, IOAS_MAP_FILE = 0x3B8A, 0x3B8D, 0x3B8E, 0x3B8F
DEVICE_BIND, DEVICE_ATTACH, DEVICE_DETACH, DEVICE_CLOSE = 0x3B76, 0x3B77, 0x3B78, 0x3BF2

FIXED, WRITEABLE, READABLE = 1, 2, 4
NEST_PARENT, FAULT_ID_VALID, HWPT_PASID = 1, 4, 8
DATA_NONE, DATA_VTD_S1 = 0, 1
DEVICE_PASID = 1
EVERYTHING = 0, (1 << 64) - 1


def device_file(place):
    return 0x10000 | place


def word(argument, at):
    return struct.unpack_from("<I", argument, at)[0]


class Iommufd(Connection):
    def __init__(self, path):
        super().__init__(path)
        self.agree(IOMMUFD)

    def new_space(self):
        return word(self.ioctl(IOAS_ALLOC, struct.pack("<III", 12, 0, 0))[1], 8)

    def ranges(self, space):
        """Where memory may be mapped: first and last addresses."""
        argument = struct.pack("<IIIIQQ", 32, space, 8, 0, 32, 0)
        told = self.ioctl(IOAS_IOVA_RANGES, argument)[1]
        return [struct.unpack_from("<QQ", told, 32 + 16 * n) for n in range(word(told, 8))]

    def map(self, space, file, size, at):
        flags = FIXED | WRITEABLE | READABLE
        argument = struct.pack("<IIIIQQQ", 40, flags, space, 0, 0, size, at)
        self.ioctl(IOAS_MAP_FILE, argument, [file])

    def bind(self, place):
        argument = struct.pack("<IIII", 16, 0, 0, 0)
        return word(self.ioctl(DEVICE_BIND, argument, on=device_file(place))[1], 12)

    def hardware(self, device):
        """How many bits a PASID has, CAP_REG and ECAP_REG."""
        argument = struct.pack("<IIIIQI4xQ", 40, 0, device, 24, 40, 0, 0)
        told = self.ioctl(GET_HW_INFO, argument)[1]
        return told[28], *struct.unpack_from("<QQ", told, 48)

    def new_parent(self, device, space):
        return self.new_table(NEST_PARENT, device, space, DATA_NONE, b"", 0)

    def new_nested(self, device, parent, root, faults):
        first_stage = struct.pack("<QQII", 0, root, 48, 0)
        flags = HWPT_PASID | FAULT_ID_VALID
        return self.new_table(flags, device, parent, DATA_VTD_S1, first_stage, faults)

    def new_table(self, flags, device, over, kind, data, faults):
        """A HWPT. Its data stands behind the argument."""
        at = 48 if data else 0
        fields = (48, flags, device, over, 0, 0, kind, len(data), at, faults, 0)
        argument = struct.pack("<8IQII", *fields) + data
        return word(self.ioctl(HWPT_ALLOC, argument)[1], 16)

    def new_fault_queue(self):
        """Its id, and its file."""
        argument = struct.pack("<IIII", 16, 0, 0, 0)
        _, told, (file,) = self.exchange(REQUEST, FAULT_QUEUE_ALLOC, argument)
        return word(told, 8), file

    def attach(self, place, pasid, table):
        argument = struct.pack("<IIII", 16, DEVICE_PASID, table, pasid)
        self.ioctl(DEVICE_ATTACH, argument, on=device_file(place))

    def detach(self, place, pasid):
        argument = struct.pack("<III", 12, DEVICE_PASID, pasid)
        self.ioctl(DEVICE_DETACH, argument, on=device_file(place))

    def invalidate(self, table, ranges):
        """Forgets ranges, each an address and how many pages; returns how many were done."""
        entries = b"".join(struct.pack("<QQII", at, pages, 0, 0) for at, pages in ranges)
        argument = struct.pack("<IIQIIII", 32, table, 32, 0, 24, len(ranges), 0)
        return word(self.ioctl(HWPT_INVALIDATE, argument + entries)[1], 24)

    def close_device(self, place):
        argument = struct.pack("<III", 12, 0, place)
        self.ioctl(DEVICE_CLOSE, argument, on=device_file(place))

    def destroy(self, thing):
        self.ioctl(DESTROY, struct.pack("<II", 8, thing))


def take_page_request(file):
    """The PASID, the permissions, the address and the cookie of the next page request."""
    fields = struct.unpack("<6IQII", os.read(file, 40))
    return fields[2], fields[4], fields[6], fields[8]


def answer_page_request(file, cookie, code):
    os.write(file, struct.pack("<II", cookie, code))
