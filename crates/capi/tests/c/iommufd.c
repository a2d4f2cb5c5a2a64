/* Every call of an iommufd, and a copy whose page is asked for: iommufd CONTAINER-SOCKET DEVICE-SOCKET. Prints nothing
 * unless something is wrong. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "is.h"

enum { RAM_BYTES = 1 << 20, PAGE_BYTES = 4096, SOURCE = 0x1000, DESTINATION = 0x2000, TABLES = RAM_BYTES / 2, NAME = 700 };
static const uint64_t FROM = 0x7f0000000000, TO = 0x7f0000001000;
static const uint32_t BDF = PALISADE_BDF(0, 4, 0);

static unsigned char *ram;
static uint64_t next_table = TABLES;

static uint64_t new_table(void)
{
    uint64_t table = next_table;
    next_table += PAGE_BYTES;
    return table;
}

static void enter(uint64_t root, uint64_t address, uint64_t page)
{
    uint64_t table = root;
    for (int shift = 39; shift >= 12; shift -= 9) {
        uint64_t *entry = (uint64_t *)(ram + table) + (address >> shift & 511);
        if (*entry == 0)
            __atomic_store_n(entry, (shift == 12 ? page : new_table()) | 7, __ATOMIC_RELEASE);
        table = *entry & ~(uint64_t)0xfff;
    }
}

static int start_copy(const char *device_socket)
{
    const struct { uint32_t pasid, len_bytes; uint64_t from, to; } registers = { NAME, PAGE_BYTES, FROM, TO };
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    strncpy(at.sun_path, device_socket, sizeof at.sun_path - 1);
    int device = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    IS(0, connect(device, (struct sockaddr *)&at, sizeof at));
    IS(sizeof registers, (int)write(device, &registers, sizeof registers));
    return device;
}

static void nothing_is_refused(palisade_iommufd_t *fd)
{
    palisade_iommufd_t *none = (palisade_iommufd_t *)&none;
    palisade_process_t process = { .root = 0x1000, .levels = 4 };
    palisade_function_list_t *list;
    palisade_hardware_t hardware;
    palisade_page_queue_t *pages;
    palisade_event_queue_t *events;
    palisade_page_request_t request;
    palisade_event_t event;
    uint64_t first, last;
    uint32_t id;

    IS(-EINVAL, palisade_iommufd_connect(NULL, &none));
    IS(1, none == NULL);
    IS(-EINVAL, palisade_iommufd_connect("/nowhere", NULL));
    IS(-ENOENT, palisade_iommufd_connect("/nowhere", &none));
    palisade_iommufd_disconnect(NULL);
    palisade_iommufd_free_page_queue(NULL);
    palisade_iommufd_free_event_queue(NULL);
    IS(-EINVAL, palisade_iommufd_functions(NULL, &list));
    IS(-EINVAL, palisade_iommufd_destroy(NULL, 1));
    IS(-ENOENT, palisade_iommufd_destroy(fd, 1));
    IS(-EINVAL, palisade_iommufd_bind(fd, BDF, NULL));
    IS(-EINVAL, palisade_iommufd_bind(fd, 0x10000, &id));
    IS(-ENODEV, palisade_iommufd_bind(fd, 1, &id));
    IS(-ENODEV, palisade_iommufd_close(fd, BDF));
    IS(-EINVAL, palisade_iommufd_hardware(fd, 1, NULL));
    IS(-ENOENT, palisade_iommufd_hardware(fd, 1, &hardware));
    IS(-EINVAL, palisade_iommufd_attach(NULL, BDF, NAME, 1, NULL));
    IS(-EINVAL, palisade_iommufd_attach(fd, BDF, 1 << 20, 1, NULL));
    IS(-EINVAL, palisade_iommufd_detach(fd, BDF, NAME));
    IS(-EINVAL, palisade_iommufd_space(fd, NULL));
    IS(-EINVAL, palisade_iommufd_range(fd, 1, 0, NULL, &last));
    IS(-ENOENT, palisade_iommufd_range(fd, 1, 0, &first, &last));
    IS(-EINVAL, palisade_iommufd_map(NULL, 1, 0, 4096, 0, 0, PALISADE_MAP_READ));
    IS(-EINVAL, palisade_iommufd_map(fd, 1, 0, 4096, 0, 0, 2));
    IS(-EBADF, palisade_iommufd_map(fd, 1, 0, 4096, -1, 0, PALISADE_MAP_READ));
    IS(-EINVAL, palisade_iommufd_unmap(NULL, 1, 0, 4096, NULL));
    IS(-ENOENT, palisade_iommufd_unmap_all(fd, 1, NULL));
    IS(-EINVAL, palisade_iommufd_parent(fd, 1, 2, NULL));
    IS(-EINVAL, palisade_iommufd_nested(fd, 1, 2, NULL, 0, PALISADE_NO_QUEUE, &id));
    IS(-EINVAL, palisade_iommufd_nested(fd, 1, 2, &process, 2, PALISADE_NO_QUEUE, &id));
    IS(-ENOENT, palisade_iommufd_nested(fd, 1, 2, &process, 0, PALISADE_NO_QUEUE, &id));
    IS(-EINVAL, palisade_iommufd_invalidate(fd, 1, 0, 1, 2));
    IS(-EINVAL, palisade_iommufd_invalidate_all(NULL, 1));
    IS(-EINVAL, palisade_iommufd_open_page_queue(fd, NULL));
    IS(-EINVAL, palisade_iommufd_open_page_queue(NULL, &pages));
    IS(1, pages == NULL);
    IS(PALISADE_NO_QUEUE, (int)palisade_iommufd_page_queue_id(NULL));
    IS(-EINVAL, palisade_iommufd_page_queue_fd(NULL));
    IS(-EINVAL, palisade_iommufd_wait_page(NULL, 0, &request));
    IS(-EINVAL, palisade_iommufd_answer(NULL, 1, PALISADE_RESPONSE_SUCCESS));
    IS(-EINVAL, palisade_iommufd_virtual_unit(fd, 1, 2, NULL));
    IS(-EINVAL, palisade_iommufd_virtual_device(fd, 1, 2, 0x10000, &id));
    IS(-EINVAL, palisade_iommufd_open_event_queue(fd, 1, NULL));
    IS(-ENOENT, palisade_iommufd_open_event_queue(fd, 1, &events));
    IS(1, events == NULL);
    IS(0, (int)palisade_iommufd_event_queue_id(NULL));
    IS(-EINVAL, palisade_iommufd_event_queue_fd(NULL));
    IS(-EINVAL, palisade_iommufd_wait_event(NULL, 0, &event));
}

int main(int count, char **arguments)
{
    if (count != 3)
        return EXIT_FAILURE;
    palisade_iommufd_t *fd;
    IS(0, palisade_iommufd_connect(arguments[1], &fd));
    nothing_is_refused(fd);

    palisade_function_list_t *list;
    palisade_function_t function;
    IS(0, palisade_iommufd_functions(fd, &list));
    IS(1, (int)palisade_function_count(list));
    IS(0, palisade_function_at(list, 0, &function));
    IS(1, function.guest_bdf == BDF && function.attaching == PALISADE_OFFERED);
    palisade_free_function_list(list);

    /* A device, a space with the guest's memory, and a queue for page requests. */
    uint32_t device, other, space, parent, unit, name, table;
    palisade_hardware_t hardware;
    uint64_t first, last, unmapped;
    IS(0, palisade_iommufd_bind(fd, BDF, &device));
    IS(-EINVAL, palisade_iommufd_bind(fd, BDF, &other));
    IS(0, palisade_iommufd_hardware(fd, device, &hardware));
    IS(1, hardware.pasid_bits == 20 && hardware.is_vtd == 1 && hardware.cap != 0 && hardware.ecap != 0);
    IS(0, palisade_iommufd_space(fd, &space));
    IS(1, palisade_iommufd_range(fd, space, 1, &first, &last));
    IS(1, first == 0xfef00000 && last == 0xfffffffffffff);
    IS(0, palisade_iommufd_range(fd, space, 2, &first, &last));
    int memory = memfd_create("guest", MFD_CLOEXEC);
    IS(0, ftruncate(memory, RAM_BYTES));
    ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    IS(1, ram != MAP_FAILED);
    IS(0, palisade_iommufd_map(fd, space, 0, RAM_BYTES, memory, 0, PALISADE_MAP_READ_WRITE));
    IS(-EEXIST, palisade_iommufd_map(fd, space, 0, 4096, memory, 0, PALISADE_MAP_READ));
    IS(0, palisade_iommufd_parent(fd, device, space, &parent));
    palisade_page_queue_t *pages;
    IS(0, palisade_iommufd_open_page_queue(fd, &pages));
    struct pollfd asked = { .fd = palisade_iommufd_page_queue_fd(pages), .events = POLLIN };
    palisade_page_request_t request;
    IS(0, poll(&asked, 1, 0));
    IS(0, palisade_iommufd_wait_page(pages, 0, &request));

    /* A virtual unit with the device behind it, and its events. */
    palisade_event_queue_t *events;
    palisade_event_t event;
    IS(0, palisade_iommufd_virtual_unit(fd, device, parent, &unit));
    IS(0, palisade_iommufd_virtual_device(fd, unit, device, PALISADE_BDF(1, 2, 3), &name));
    IS(-EEXIST, palisade_iommufd_virtual_device(fd, unit, device, PALISADE_BDF(1, 2, 3), &other));
    IS(0, palisade_iommufd_open_event_queue(fd, unit, &events));
    struct pollfd told = { .fd = palisade_iommufd_event_queue_fd(events), .events = POLLIN };
    IS(0, palisade_iommufd_wait_event(events, 0, &event));

    /* A process whose destination comes when it is asked for. */
    palisade_process_t process = { .root = new_table(), .levels = 4 };
    enter(process.root, FROM, SOURCE);
    memset(ram + SOURCE, 0xa5, PAGE_BYTES);
    uint32_t queue = palisade_iommufd_page_queue_id(pages), attached, status = 1;
    IS(0, palisade_iommufd_nested(fd, device, unit, &process, PALISADE_TABLE_PASID, queue, &table));
    IS(0, palisade_iommufd_attach(fd, BDF, NAME, table, &attached));
    IS((int)table, (int)attached);
    int job = start_copy(arguments[2]);
    IS(1, palisade_iommufd_wait_page(pages, -1, &request));
    IS(1, request.at == TO && request.device == device && request.pasid == NAME);
    IS(1, (request.access & PALISADE_ACCESS_WRITE) && (request.flags & PALISADE_RECORD_LAST));
    enter(process.root, TO, DESTINATION);
    IS(-EINVAL, palisade_iommufd_answer(pages, request.cookie, 3));
    IS(0, palisade_iommufd_answer(pages, request.cookie, PALISADE_RESPONSE_SUCCESS));
    IS(sizeof status, (int)read(job, &status, sizeof status));
    IS(0, (int)status);
    IS(0, memcmp(ram + SOURCE, ram + DESTINATION, PAGE_BYTES));
    IS(0, palisade_iommufd_invalidate(fd, table, FROM, 2, PALISADE_RANGE_LEAVES));
    IS(-EINVAL, palisade_iommufd_invalidate(fd, table, FROM + 1, 1, 0));
    IS(0, palisade_iommufd_invalidate_all(fd, table));
    IS(-EINVAL, palisade_iommufd_invalidate_all(fd, parent));

    /* What is used stays. */
    IS(0, poll(&told, 1, 0));
    IS(-EBUSY, palisade_iommufd_destroy(fd, table));
    IS(0, palisade_iommufd_detach(fd, BDF, NAME));
    IS(0, palisade_iommufd_destroy(fd, table));
    other = palisade_iommufd_event_queue_id(events);
    IS(-EBUSY, palisade_iommufd_destroy(fd, other));
    palisade_iommufd_free_event_queue(events);
    IS(0, palisade_iommufd_destroy(fd, other));
    IS(0, palisade_iommufd_destroy(fd, name));
    IS(0, palisade_iommufd_destroy(fd, unit));
    IS(0, palisade_iommufd_attach(fd, BDF, PALISADE_NO_PASID, space, NULL));
    IS(0, palisade_iommufd_close(fd, BDF));
    IS(0, palisade_iommufd_destroy(fd, parent));
    IS(0, palisade_iommufd_unmap(fd, space, 0, 2 * RAM_BYTES, &unmapped));
    IS(RAM_BYTES, (int)unmapped);
    IS(0, palisade_iommufd_unmap_all(fd, space, &unmapped));
    IS(0, (int)unmapped);
    palisade_iommufd_disconnect(fd);
    IS(-ECONNRESET, palisade_iommufd_wait_page(pages, -1, &request));
    palisade_iommufd_free_page_queue(pages);
    return EXIT_SUCCESS;
}
