"""The same as session.py in the form of an iommufd: python3 iommufd_session.py CONTAINER FUNCTION

The slice is a device of the iommufd, and reaches what is mapped there, and nothing else.
"""

import os
import sys

import palisade_iommufd as iommufd
from accelerator import Slice
from guest import Guest
from session import FROM, NAME, PAGE_MISSING, RECORD, SUCCESS, TO, completion, refused

YES, NO = 0, 1


def nothing_to_read(file):
    os.set_blocking(file, False)
    try:
        return os.read(file, 40)
    except BlockingIOError:
        return "nothing"


def main():
    path, function = sys.argv[1], sys.argv[2]
    guest, fd, accelerator = Guest(1 << 20), iommufd.Iommufd(path), Slice(function)
    (place, state), = fd.functions()
    print(f"function {place >> 8:02x}:{place >> 3 & 31:02x}.{place & 7}, state {state}")
    root, source, destination, record = (guest.take_page() for _ in range(4))
    guest.map(root, FROM, source)
    guest.map(root, RECORD, record)

    device, space = fd.bind(place), fd.new_space()
    fd.map(space, guest.file, guest.size, 0)
    parent = fd.new_parent(device, space)
    queue, file = fd.new_fault_queue()
    table = fd.new_nested(device, parent, root, queue)
    fd.attach(place, NAME, table)

    # The page that the copy writes to is not there until it is asked for.
    accelerator.enable(NAME)
    guest.memory[source:source + 5] = b"hello"
    accelerator.copy(FROM, TO, 5, RECORD)
    pasid, permissions, address, cookie = iommufd.take_page_request(file)
    print(f"page request: PASID {pasid}, wants {permissions}, {address:#x}")
    guest.map(root, TO, destination)
    iommufd.answer_page_request(file, cookie, YES)
    is_done = completion(guest, record) == SUCCESS
    print("copied:", is_done, guest.memory[destination:destination + 5])

    # The page moves.
    moved = guest.take_page()
    guest.map(root, TO, moved)
    fd.invalidate(table, [(TO, 1)])
    accelerator.copy(FROM, TO, 5, RECORD)
    is_done = completion(guest, record) == SUCCESS
    print("moved:", is_done, guest.memory[moved:moved + 5])

    # It goes, and does not come back.
    guest.unmap(root, TO)
    fd.invalidate(table, [iommufd.EVERYTHING])
    accelerator.copy(FROM, TO, 5, RECORD)
    cookie = iommufd.take_page_request(file)[3]
    iommufd.answer_page_request(file, cookie, NO)
    print("given up:", completion(guest, record) == PAGE_MISSING)

    fd.detach(place, NAME)
    print("detached; in the queue:", nothing_to_read(file))
    fd.close_device(place)
    print("closed; attaching it:", refused(fd.attach, place, NAME, table))
    fd.bind(place)
    print("bound again")


if __name__ == "__main__":
    main()
