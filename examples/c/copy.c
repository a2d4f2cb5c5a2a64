/*
 * A VMM's part in a copy that a device makes for a process of its guest:
 *
 *     copy CONTAINER-SOCKET DEVICE-SOCKET
 *
 * docs/clients.md tells how to build it. The guest is a file in memory whose tables are written here, as the guest's
 * kernel would. The device's registers are no business of the container socket: a guest's driver writes those of a real
 * one, over vfio-user. Here they are a socket on which a copy is asked for, and the status comes back.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <palisade.h>

/* Guest physical addresses: one page to copy from, one to copy into, and the tables from the middle on. */
enum { RAM_BYTES = 1 << 20, PAGE_BYTES = 4096, SOURCE = 0x1000, DESTINATION = 0x2000, TABLES = RAM_BYTES / 2 };

/* What the guest calls the PASID, and the process's addresses of the two pages. */
enum { GUEST_PASID = 700 };
static const uint64_t FROM = 0x7f0000000000, TO = 0x7f0000001000;

static unsigned char *ram;
static uint64_t next_table = TABLES;

/* What every call is wrapped in: goes on with what it returned, or says why it failed. */
static int must(int returned, const char *call)
{
    if (returned >= 0)
        return returned;
    char *why = palisade_last_error();
    fprintf(stderr, "%s: %s (%s)\n", call, why ? why : "?", strerror(-returned));
    palisade_free_text(why);
    exit(EXIT_FAILURE);
}

static uint64_t new_table(void)
{
    uint64_t table = next_table;
    next_table += PAGE_BYTES;
    return table;
}

/* Enters a page into a process's tables of four levels. The device may be walking them at the same time. */
static void enter(uint64_t root, uint64_t address, uint64_t page)
{
    const uint64_t present_writable_user = 7;
    uint64_t table = root;
    for (int shift = 39; shift >= 12; shift -= 9) {
        uint64_t *entry = (uint64_t *)(ram + table) + (address >> shift & 511);
        if (*entry == 0) {
            uint64_t next = shift == 12 ? page : new_table();
            __atomic_store_n(entry, next | present_writable_user, __ATOMIC_RELEASE);
        }
        table = *entry & ~(uint64_t)0xfff;
    }
}

static void print_place(uint32_t bdf)
{
    printf("%02x:%02x.%x", bdf >> 8, bdf >> 3 & 31, bdf & 7);
}

/* Attaches the first function that the host offers. */
static uint32_t attach_one(palisade_client_t *vmm)
{
    palisade_function_list_t *list;
    palisade_function_t function;
    must(palisade_functions(vmm, &list), "functions");
    for (size_t i = 0; i < palisade_function_count(list); i++) {
        must(palisade_function_at(list, i, &function), "function");
        if (function.attaching == PALISADE_OFFERED) {
            palisade_free_function_list(list);
            must(palisade_attach(vmm, function.guest_bdf), "attach");
            return function.guest_bdf;
        }
    }
    fprintf(stderr, "the host offers no function\n");
    exit(EXIT_FAILURE);
}

/* Writes the device's registers, so to say. */
static int start_copy(const char *device_socket)
{
    const struct { uint32_t pasid, len_bytes; uint64_t from, to; } registers = { GUEST_PASID, PAGE_BYTES, FROM, TO };
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    strncpy(at.sun_path, device_socket, sizeof at.sun_path - 1);
    int device = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(device, (struct sockaddr *)&at, sizeof at) != 0
        || write(device, &registers, sizeof registers) != sizeof registers) {
        perror(device_socket);
        exit(EXIT_FAILURE);
    }
    return device;
}

/* The device waits for a page of the process: it comes in, and the device is told. */
static void page_in(palisade_client_t *vmm, uint64_t root, const palisade_record_t *wanted)
{
    uint32_t response = PALISADE_RESPONSE_INVALID;
    printf("page request of ");
    print_place(wanted->guest_bdf);
    printf(": PASID %u, %s at %#llx\n", wanted->pasid, wanted->access & PALISADE_ACCESS_WRITE ? "write" : "read",
           (unsigned long long)wanted->at);
    if (wanted->pasid == GUEST_PASID && wanted->at == TO) {
        enter(root, TO, DESTINATION);
        response = PALISADE_RESPONSE_SUCCESS;
    }
    if (wanted->flags & PALISADE_RECORD_LAST)
        must(palisade_respond(vmm, wanted->guest_bdf, wanted->pasid, wanted->group, response), "respond");
}

int main(int count, char **arguments)
{
    if (count != 3) {
        fprintf(stderr, "copy CONTAINER-SOCKET DEVICE-SOCKET\n");
        return EXIT_FAILURE;
    }

    /* The connection, and what the platform can do. */
    palisade_client_t *vmm;
    palisade_info_t info;
    must(palisade_connect(arguments[1], PALISADE_ABI_V7, &vmm), "connect");
    must(palisade_set_nesting(vmm, PALISADE_NESTING_ON), "nesting");
    must(palisade_get_info(vmm, &info), "info");
    printf("PASIDs have %u bits, addresses %u\n", info.pasid_bits, info.address_bits);

    /* The guest's memory, and a function that reaches it. The descriptor is not needed any more afterwards. */
    int fd = memfd_create("guest", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, RAM_BYTES) != 0)
        return EXIT_FAILURE;
    ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (ram == MAP_FAILED)
        return EXIT_FAILURE;
    must(palisade_map(vmm, 0, RAM_BYTES, fd, 0, PALISADE_MAP_READ_WRITE), "map");
    close(fd);
    uint32_t bdf = attach_one(vmm);
    print_place(bdf);
    printf(" is attached\n");

    /* Where faults and page requests come. */
    palisade_fault_queue_t *faults;
    must(palisade_open_fault_queue(vmm, &faults), "fault queue");

    /* A process of the guest, of which one page is there, and a PASID for it. */
    palisade_process_t process = { .root = new_table(), .levels = 4 };
    enter(process.root, FROM, SOURCE);
    strcpy((char *)ram + SOURCE, "from one process to itself, by its own addresses");
    uint32_t pasid;
    must(palisade_alloc_pasid(vmm, 1, 0xfffff, &pasid), "PASID");
    must(palisade_bind(vmm, pasid, GUEST_PASID, &process), "bind");
    printf("bound: the guest's PASID %u\n", GUEST_PASID);

    /* The device copies. It finds one page missing, and waits for it. */
    int device = start_copy(arguments[2]);
    palisade_record_t record;
    while (must(palisade_wait_fault(faults, 10000, &record), "wait") == 1) {
        if (record.kind == PALISADE_PAGE_REQUEST) {
            page_in(vmm, process.root, &record);
            break;
        }
        printf("fault %#x at %#llx\n", record.reason, (unsigned long long)record.at);
    }
    uint32_t status = 1;
    if (read(device, &status, sizeof status) != sizeof status || status != 0)
        fprintf(stderr, "the device says %u\n", status);
    close(device);
    printf("copied: %s\n", (char *)ram + DESTINATION);

    /* When this is answered, the device reaches nothing by that PASID, and its table may go. */
    must(palisade_unbind(vmm, pasid), "unbind");
    must(palisade_free_pasid(vmm, pasid), "free");
    int again = palisade_unbind(vmm, pasid);
    char *why = palisade_last_error();
    printf("unbound again: %s, %s\n", strerror(-again), why ? why : "?");
    palisade_free_text(why);

    must(palisade_detach(vmm, bdf), "detach");
    palisade_free_fault_queue(faults);
    palisade_disconnect(vmm);
    munmap(ram, RAM_BYTES);
    return status == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
