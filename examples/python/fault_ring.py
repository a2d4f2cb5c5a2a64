"""The ring of faults and page requests (docs/container.md, PALISADE_FAULT_RING)."""

import collections
import mmap
import os
import select
import struct
import threading

from palisade_container import FAULT_RING, REQUEST

RING_ENTRIES = 4096
ENTRY_FAULT = 1
HAS_PASID, IS_LAST = 1, 2
# Words of the head.
HEAD, TAIL, ENTRIES, ENTRY_BYTES = 0, 1, 2, 3

Fault = collections.namedtuple("Fault", "place code pasid permissions address")
PageRequest = collections.namedtuple(
    "PageRequest", "place pasid group permissions address is_last"
)


class FaultRing:
    """There is one for a VMM at a time. It goes with its connection."""

    def __init__(self, container):
        self.eventfd = os.eventfd(0)
        argument = struct.pack("<IIQ", 16, 0, 0)
        _, told, (file,) = container.exchange(REQUEST, FAULT_RING, argument, [self.eventfd])
        self.region = mmap.mmap(file, struct.unpack_from("<Q", told, 8)[0])
        os.close(file)
        # Each of these is read and written as a whole, which `struct` does not promise.
        self.words = memoryview(self.region)[:16].cast("I")
        self.barrier = threading.Lock()

    def take(self):
        """The next entry; None where there is none."""
        tail = self.words[TAIL]
        if self.words[HEAD] == tail:
            return None
        size = self.words[ENTRY_BYTES]
        at = RING_ENTRIES + size * (tail % self.words[ENTRIES])
        entry = self.region[at:at + size]
        self.words[TAIL] = (tail + 1) & 0xFFFFFFFF
        # Taking a lock is the full barrier that the next look at the head needs.
        with self.barrier:
            return entry_of(entry)

    def wait(self, seconds):
        """The next entry, once there is one."""
        entry = self.take()
        while entry is None:
            if not select.select([self.eventfd], [], [], seconds)[0]:
                raise TimeoutError("nothing came into the ring")
            os.eventfd_read(self.eventfd)
            entry = self.take()
        return entry


def entry_of(entry):
    kind, place, code = struct.unpack_from("<IHB", entry)
    if kind == ENTRY_FAULT:
        flags, pasid, permissions, address = struct.unpack_from("<IIIQ", entry, 12)
        return Fault(place, code, pasid if flags & HAS_PASID else None, permissions, address)
    flags, pasid, group, permissions, address = struct.unpack_from("<IIIIQ", entry, 8)
    pasid, is_last = pasid if flags & HAS_PASID else None, bool(flags & IS_LAST)
    return PageRequest(place, pasid, group, permissions, address, is_last)
