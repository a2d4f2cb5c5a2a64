"""A guest's memory, with page tables of processes in it (Intel SDM volume 3, chapter 5.5)."""

import mmap
import os
import struct

PAGE = 4096
PRESENT_WRITABLE_USER = 7


class Guest:
    """Memory from the guest physical address 0 on."""

    def __init__(self, size):
        self.file, self.size = os.memfd_create("guest"), size
        os.ftruncate(self.file, size)
        self.memory = mmap.mmap(self.file, size)
        self.free = PAGE

    def take_page(self):
        """The address of a page that was not used yet."""
        self.free += PAGE
        return self.free - PAGE

    def map(self, root, at, page):
        """Makes a page present at an address of the process whose top table this is."""
        table = root
        for shift in (39, 30, 21):
            entry = table + 8 * (at >> shift & 511)
            if not self.load(entry):
                self.store(entry, self.take_page() | PRESENT_WRITABLE_USER)
            table = self.load(entry) & 0xFFFFFFFFFF000
        self.store(table + 8 * (at >> 12 & 511), page | PRESENT_WRITABLE_USER)

    def unmap(self, root, at):
        table = root
        for shift in (39, 30, 21):
            table = self.load(table + 8 * (at >> shift & 511)) & 0xFFFFFFFFFF000
        self.store(table + 8 * (at >> 12 & 511), 0)

    def load(self, at):
        return struct.unpack_from("<Q", self.memory, at)[0]

    def store(self, at, value):
        memoryview(self.memory)[at:at + 8].cast("Q")[0] = value
