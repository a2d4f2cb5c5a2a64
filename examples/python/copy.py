"""The part of a VMM in a copy for a process of its guest, as examples/c/copy.c has it:

    python3 copy.py FORM CONTAINER DEVICE

FORM is 1, 7 or 3, which is the iommufd's. The host at CONTAINER offers a function, which is attached here. At DEVICE
a copy is asked for, in place of the registers of a device, and the status comes back.
"""

import os
import socket
import struct
import sys

import palisade_container as api
import palisade_iommufd as iommufd
from fault_ring import FaultRing
from guest import PAGE, Guest

NAME = 700
FROM, TO = 0x7F0000000000, 0x7F0000001000
OFFERED = 2
PATIENCE = 60


class Copy:
    """A copy of the guest's process, whose destination is not present yet."""

    def __init__(self):
        self.guest = Guest(1 << 20)
        pages = (self.guest.take_page() for _ in range(3))
        self.root, self.source, self.destination = pages
        self.guest.map(self.root, FROM, self.source)
        self.guest.memory[self.source:self.source + PAGE] = b"palisade" * (PAGE // 8)

    def start(self, path):
        self.device = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.device.connect(path)
        self.device.sendall(struct.pack("<IIQQ", NAME, PAGE, FROM, TO))

    def bring(self, pasid, permissions, address):
        print(f"page request: PASID {pasid}, wants {permissions}, {address:#x}")
        self.guest.map(self.root, address, self.destination)

    def end(self):
        status = self.device.recv(4, socket.MSG_WAITALL)
        at, memory = self.destination, self.guest.memory
        print("status", *status, "copied", memory[at:at + PAGE] == b"palisade" * (PAGE // 8))


def by_proposal(form, path, device):
    """In version 1 or 7."""
    container, copy = api.Container(path, form), Copy()
    place = next(place for place, state in container.functions() if state & OFFERED)
    container.map(copy.guest.file, copy.guest.size, 0)
    container.attach(place)
    ring = FaultRing(container)
    pasid = container.alloc_pasid(1, (1 << 20) - 1)
    container.bind(pasid, copy.root, NAME)
    copy.start(device)
    request = ring.wait(PATIENCE)
    copy.bring(request.pasid, request.permissions, request.address)
    container.respond(request, api.RESPONSE_SUCCESS)
    copy.end()
    container.unbind(pasid)
    container.free_pasid(pasid)
    container.detach(place)
    print("unmapped", container.unmap_all())


def by_iommufd(path, device_socket):
    """In the form of an iommufd."""
    fd, copy = iommufd.Iommufd(path), Copy()
    place = next(place for place, state in fd.functions() if state & OFFERED)
    device = fd.bind(place)
    print("PASIDs have %d bits, CAP %#x, ECAP %#x" % fd.hardware(device))
    space = fd.new_space()
    print("ranges", *(f"{first:#x}-{last:#x}" for first, last in fd.ranges(space)))
    fd.map(space, copy.guest.file, copy.guest.size, 0)
    parent = fd.new_parent(device, space)
    queue, file = fd.new_fault_queue()
    table = fd.new_nested(device, parent, copy.root, queue)
    fd.attach(place, NAME, table)
    copy.start(device_socket)
    pasid, permissions, address, cookie = iommufd.take_page_request(file)
    copy.bring(pasid, permissions, address)
    iommufd.answer_page_request(file, cookie, 0)
    copy.end()
    print("invalidated", fd.invalidate(table, [(FROM, 2), iommufd.EVERYTHING]))
    fd.detach(place, NAME)
    fd.close_device(place)
    # A queue is kept by its file.
    os.close(file)
    for thing in (table, parent, queue, space):
        fd.destroy(thing)


def main():
    form, path, device = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    if form == api.IOMMUFD:
        by_iommufd(path, device)
    else:
        by_proposal(form, path, device)


if __name__ == "__main__":
    main()
