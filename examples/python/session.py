"""A VMM with an IOMMU of its own, at `palisade serve`: python3 session.py FORM CONTAINER FUNCTION

FORM is the version of the requests, 1 or 7; CONTAINER and FUNCTION are sockets of one tenant, which has a slice with a
queue of its own. Prints what comes of each step. What an iommufd does there is in iommufd_session.py.
"""

import errno
import struct
import sys
import time

import palisade_container as api
from accelerator import Slice
from fault_ring import FaultRing
from guest import Guest

# What the guest calls its process, and where that has its pages.
NAME = 700
FROM, TO, RECORD = 0x5000_0000_0000, 0x5000_0000_1000, 0x5000_0000_2000
SUCCESS, PAGE_MISSING = 1, 4
PATIENCE = 60


def refused(call, *arguments):
    """The name of the errno that a call is refused with."""
    try:
        call(*arguments)
    except OSError as refusal:
        return "EOPNOTSUPP" if refusal.errno == errno.EOPNOTSUPP else errno.errorcode[refusal.errno]
    return "not refused"


def completion(guest, record):
    """The status of a copy, once it has one."""
    end = time.monotonic() + PATIENCE
    while not guest.memory[record]:
        if time.monotonic() > end:
            raise TimeoutError("the copy does not end")
        time.sleep(0.001)
    status = guest.memory[record] & 0x3F
    guest.memory[record:record + 32] = bytes(32)
    return status


def refusals(container, pasid):
    """What a client gets for what cannot be."""
    is_v7 = container.form == api.V7
    number = api.PASID_REQUEST_V7 if is_v7 else api.PASID_REQUEST_V1
    other = api.PASID_REQUEST_V1 if is_v7 else api.PASID_REQUEST_V7
    wrong = struct.pack("<IIIII", 12, api.PASID_ALLOCATE, 1, 9, 0)
    print("too small a size:", refused(container.ioctl, number, wrong))
    wrong = struct.pack("<II", 20, api.PASID_ALLOCATE)
    print("fewer bytes than the size:", refused(container.ioctl, number, wrong))
    wrong = struct.pack("<IIIII", 20, 4, 1, 9, 0)
    print("unknown flags:", refused(container.ioctl, number, wrong))
    print("the other version:", refused(container.ioctl, other, wrong))
    print("no request:", refused(container.ioctl, 0x3BFF))
    print("no file:", refused(container.ioctl, api.MAP_DMA, bytes(32)))
    # The host takes one for each slice, which is not the VMM's to free: 1 for the slice that was connected
    # first, of whatever tenant.
    for one in (1, 2, 9999):
        free = refused(container.ioctl, api.IOASID_FREE, struct.pack("<I", one))
        print(f"freeing PASID {one}: {free}")
    print("a second ring:", refused(FaultRing, container))
    print("an address between pages:", refused(container.invalidate_pages, pasid, 1, 1))


def main():
    form, path, function = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    early = api.Connection(path)
    print("a request before the version:", refused(early.functions))
    print("another form:", refused(api.Connection(path).agree, 9))

    guest = Guest(1 << 20)
    container = api.Container(path, form)
    print("the server speaks version", "%d.%d" % container.server_version)
    print("without a function:", refused(container.alloc_pasid, 10, 20))
    accelerator = Slice(function)
    accelerator.announce(guest.file, guest.size)
    for place, state in container.functions():
        print(f"function {place >> 8:02x}:{place >> 3 & 31:02x}.{place & 7}, state {state}")
    print("attaching it:", refused(container.attach, place))
    print("detaching it:", refused(container.detach, place))
    print("capability", struct.unpack_from("<H", container.capability())[0])

    ring = FaultRing(container)
    print("in the ring:", ring.take())
    pasid = container.alloc_pasid(10, 20)
    print("PASID", pasid)
    root, source, destination, record = (guest.take_page() for _ in range(4))
    guest.map(root, FROM, source)
    guest.map(root, RECORD, record)
    container.bind(pasid, root, NAME)
    print("bound: the guest's PASID", NAME)
    refusals(container, pasid)

    elsewhere = root + 8 * 511
    print("a root between pages:", refused(container.bind, pasid, elsewhere, NAME))
    print("another name:", refused(container.bind, pasid, root, NAME + 1))

    # The page that the copy writes to is not there until it is asked for.
    accelerator.enable(NAME)
    guest.memory[source:source + 5] = b"hello"
    accelerator.copy(FROM, TO, 5, RECORD)
    request = ring.wait(PATIENCE)
    print(f"page request: PASID {request.pasid}, wants {request.permissions}, {request.address:#x}")
    guest.map(root, TO, destination)
    container.respond(request, api.RESPONSE_SUCCESS)
    is_done = completion(guest, record) == SUCCESS
    print("copied:", is_done, guest.memory[destination:destination + 5])
    print("answered again:", refused(container.respond, request, api.RESPONSE_SUCCESS))

    # The page moves.
    moved = guest.take_page()
    guest.map(root, TO, moved)
    container.invalidate_pages(pasid, TO, 1)
    accelerator.copy(FROM, TO, 5, RECORD)
    is_done = completion(guest, record) == SUCCESS
    print("moved:", is_done, guest.memory[moved:moved + 5])

    # It goes, and does not come back.
    guest.unmap(root, TO)
    container.invalidate_pasid(pasid)
    container.invalidate_all()
    accelerator.copy(FROM, TO, 5, RECORD)
    container.respond(ring.wait(PATIENCE), api.RESPONSE_INVALID)
    print("given up:", completion(guest, record) == PAGE_MISSING)

    container.unbind(pasid)
    print("unbound; once more:", refused(container.unbind, pasid))
    accelerator.copy(FROM, TO, 5, RECORD)
    fault = ring.wait(PATIENCE)
    print(f"fault: PASID {fault.pasid}, reason {fault.code:#x}, {fault.address:#x}")
    container.free_pasid(pasid)
    print("freed; binding it:", refused(container.bind, pasid, root, NAME))
    container.close()


if __name__ == "__main__":
    main()
