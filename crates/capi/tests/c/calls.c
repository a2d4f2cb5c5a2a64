/* Every call, in one version of the requests: calls CONTAINER-SOCKET 1|7. Prints nothing unless something is wrong. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "is.h"

static void nothing_is_refused(palisade_client_t *vmm)
{
    palisade_client_t *none = (palisade_client_t *)&none;
    palisade_process_t process = { .root = 0x1000, .levels = 4 };
    palisade_range_t range = { .granule_bytes = 4096, .count = 1, .pasid = PALISADE_NO_PASID };
    palisade_record_t record;
    palisade_function_t function;
    palisade_function_list_t *list;
    palisade_fault_queue_t *queue;
    palisade_info_t info;
    uint32_t number;
    int32_t value;

    IS(-EINVAL, palisade_connect(NULL, 7, &none));
    IS(1, none == NULL);
    IS(-EINVAL, palisade_connect("/nowhere", 7, NULL));
    IS(-EINVAL, palisade_connect("/nowhere", 2, &none));
    IS(-ENOENT, palisade_connect("/nowhere", 7, &none));
    char too_long[200] = "/";
    memset(too_long + 1, 'x', sizeof too_long - 2);
    IS(-EINVAL, palisade_connect(too_long, 7, &none));
    palisade_disconnect(NULL);
    palisade_free_text(NULL);
    palisade_free_function_list(NULL);
    palisade_free_fault_queue(NULL);

    IS(-EINVAL, palisade_abi(NULL));
    IS(-EINVAL, palisade_check_extension(NULL, 6, &value));
    IS(-EINVAL, palisade_check_extension(vmm, 6, NULL));
    IS(-EINVAL, palisade_set_nesting(NULL, 1));
    IS(-EINVAL, palisade_set_nesting(vmm, 2));
    IS(-EINVAL, palisade_get_info(NULL, &info));
    IS(-EINVAL, palisade_get_info(vmm, NULL));
    IS(-EINVAL, palisade_alloc_pasid(NULL, 0, 1, &number));
    IS(-EINVAL, palisade_alloc_pasid(vmm, 0, 1, NULL));
    IS(-EINVAL, palisade_free_pasid(NULL, 1));
    IS(-EINVAL, palisade_free_pasid(vmm, 1 << 20));
    IS(-EINVAL, palisade_free_pasids(NULL, 0, 1));
    IS(-EINVAL, palisade_bind(NULL, 1, 1, &process));
    IS(-EINVAL, palisade_bind(vmm, 1, 1, NULL));
    IS(-EINVAL, palisade_bind(vmm, 1 << 20, 1, &process));
    IS(-EINVAL, palisade_bind(vmm, 1, 1 << 20, &process));
    process.levels = 3;
    IS(-EINVAL, palisade_bind(vmm, 1, 1, &process));
    process.levels = 5, process.flags = 4;
    IS(-EINVAL, palisade_bind(vmm, 1, 1, &process));
    IS(-EINVAL, palisade_unbind(NULL, 1));
    IS(-EINVAL, palisade_unbind(vmm, UINT32_MAX));
    IS(-EINVAL, palisade_invalidate_all(NULL, PALISADE_CACHE_UNIT));
    IS(-EINVAL, palisade_invalidate_all(vmm, 0));
    IS(-EINVAL, palisade_invalidate_all(vmm, PALISADE_CACHE_UNIT | PALISADE_CACHE_PASIDS));
    IS(-EINVAL, palisade_invalidate_pasid(NULL, PALISADE_CACHE_UNIT, 1));
    IS(-EINVAL, palisade_invalidate_pasid(vmm, PALISADE_CACHE_UNIT, PALISADE_NO_PASID));
    IS(-EINVAL, palisade_invalidate_range(NULL, PALISADE_CACHE_UNIT, &range));
    IS(-EINVAL, palisade_invalidate_range(vmm, PALISADE_CACHE_UNIT, NULL));
    range.flags = 2;
    IS(-EINVAL, palisade_invalidate_range(vmm, PALISADE_CACHE_UNIT, &range));
    IS(-EINVAL, palisade_functions(NULL, &list));
    IS(1, list == NULL);
    IS(-EINVAL, palisade_functions(vmm, NULL));
    IS(0, palisade_function_count(NULL));
    IS(-EINVAL, palisade_function_at(NULL, 0, &function));
    IS(-EINVAL, palisade_attach(NULL, 0));
    IS(-EINVAL, palisade_attach(vmm, 0x10000));
    IS(-EINVAL, palisade_detach(vmm, UINT32_MAX));
    IS(-EINVAL, palisade_map(NULL, 0, 4096, 0, 0, PALISADE_MAP_READ));
    IS(-EINVAL, palisade_map(vmm, 0, 4096, 0, 0, 2));
    IS(-EBADF, palisade_map(vmm, 0, 4096, -1, 0, PALISADE_MAP_READ));
    IS(-EBADF, palisade_map(vmm, 0, 4096, 999, 0, PALISADE_MAP_READ));
    IS(-EINVAL, palisade_unmap(NULL, 0, 4096));
    IS(-EINVAL, palisade_unmap_all(NULL, NULL));
    IS(-EINVAL, palisade_open_fault_queue(NULL, &queue));
    IS(1, queue == NULL);
    IS(-EINVAL, palisade_open_fault_queue(vmm, NULL));
    IS(-EINVAL, palisade_fault_eventfd(NULL));
    IS(-EINVAL, palisade_take_fault(NULL, &record));
    IS(-EINVAL, palisade_wait_fault(NULL, 0, &record));
    IS(-EINVAL, palisade_lost_faults(NULL, NULL));
    IS(-EINVAL, palisade_respond(NULL, 0, 1, 0, 0));
    IS(-EINVAL, palisade_respond(vmm, 0, 1, 512, 0));
    IS(-EINVAL, palisade_respond(vmm, 0, 1, 0, 3));
    IS(-EINVAL, palisade_ioasid_bits(vmm, NULL));
    IS(-EINVAL, palisade_ioasid_alloc(vmm, 0, 1, NULL));
    IS(-EINVAL, palisade_ioasid_free(vmm, UINT32_MAX));
}

/* One of several threads with one client. Reasons are each thread's own. */
static void *take_and_give(void *client)
{
    palisade_client_t *vmm = client;
    uint32_t pasid;
    IS(1, palisade_last_error() == NULL);
    for (int i = 0; i < 50; i++) {
        IS(0, palisade_alloc_pasid(vmm, 1, 0xfffff, &pasid));
        IS(-ENOENT, palisade_unbind(vmm, pasid));
        IS(0, palisade_free_pasid(vmm, pasid));
    }
    return NULL;
}

/* One that waits at the queue meanwhile, for something that does not come. */
static void *wait_for_nothing(void *queue)
{
    palisade_record_t record;
    IS(0, palisade_wait_fault(queue, 200, &record));
    return NULL;
}

int main(int count, char **arguments)
{
    if (count != 3)
        return EXIT_FAILURE;
    const uint32_t abi = (uint32_t)atoi(arguments[2]), bdf = PALISADE_BDF(0, 4, 0);
    const uint64_t ram_bytes = 1 << 16;
    palisade_client_t *vmm;
    IS(0, palisade_connect(arguments[1], abi, &vmm));
    IS((int)abi, palisade_abi(vmm));
    nothing_is_refused(vmm);

    palisade_info_t info;
    int32_t value;
    IS(0, palisade_check_extension(vmm, 6, &value));
    IS(1, value);
    IS(0, palisade_check_extension(vmm, 77, &value));
    IS(0, value);
    IS(0, palisade_get_info(vmm, &info));
    IS(0, (int)info.capability);
    uint32_t pasid, other;
    IS(-EOPNOTSUPP, palisade_alloc_pasid(vmm, 1, 5, &pasid));
    IS(0, palisade_set_nesting(vmm, PALISADE_NESTING_ON));
    IS(-EINVAL, palisade_set_nesting(vmm, PALISADE_NESTING_OFF));
    IS(0, palisade_get_info(vmm, &info));
    IS((int)abi, (int)info.capability);
    IS(1, (int)info.formats);
    IS(abi == 1 ? 1 : 0, (int)info.nesting);
    IS(abi == 7 ? 7 : 0, (int)info.features);
    IS(1, info.page_sizes == ~(uint64_t)0xfff);
    IS(1, (info.cap != 0) == (abi == 7) && (info.ecap != 0) == (abi == 7));

    int fd = memfd_create("guest", MFD_CLOEXEC);
    IS(0, ftruncate(fd, (off_t)ram_bytes));
    IS(-EINVAL, palisade_map(vmm, 0, 123, fd, 0, PALISADE_MAP_READ_WRITE));
    IS(0, palisade_map(vmm, 0, ram_bytes, fd, 0, PALISADE_MAP_READ_WRITE));
    IS(-EEXIST, palisade_map(vmm, 0, 4096, fd, 0, PALISADE_MAP_READ));
    IS(1, fcntl(fd, F_GETFD) >= 0);

    palisade_function_list_t *list;
    palisade_function_t function;
    IS(0, palisade_functions(vmm, &list));
    IS(1, (int)palisade_function_count(list));
    IS(0, palisade_function_at(list, 0, &function));
    IS(1, function.guest_bdf == bdf && function.attaching == PALISADE_OFFERED);
    IS(-EINVAL, palisade_function_at(list, 1, &function));
    palisade_free_function_list(list);
    IS(-ENODEV, palisade_attach(vmm, PALISADE_BDF(0, 5, 1)));

    /* There is no function yet. */
    const int nowhere = abi == 1 ? -EFAULT : -EOPNOTSUPP;
    palisade_process_t process = { .root = 0x1000, .levels = 4, .flags = PALISADE_PROCESS_SUPERVISOR };
    IS(0, palisade_ioasid_alloc(vmm, 40, 40, &pasid));
    IS(nowhere, palisade_alloc_pasid(vmm, 1, 5, &other));
    IS(nowhere, palisade_bind(vmm, pasid, PALISADE_NO_PASID, &process));
    IS(nowhere, palisade_unbind(vmm, pasid));
    IS(nowhere, palisade_free_pasid(vmm, pasid));
    IS(nowhere, palisade_invalidate_pasid(vmm, PALISADE_CACHE_UNIT, pasid));
    IS(nowhere, palisade_invalidate_all(vmm, PALISADE_CACHE_UNIT));
    IS(0, palisade_ioasid_free(vmm, pasid));

    IS(0, palisade_attach(vmm, bdf));
    IS(-EEXIST, palisade_attach(vmm, bdf));

    palisade_fault_queue_t *queue, *second;
    palisade_record_t record;
    uint64_t lost = 1;
    IS(0, palisade_open_fault_queue(vmm, &queue));
    IS(-EBUSY, palisade_open_fault_queue(vmm, &second));
    IS(1, second == NULL);
    struct pollfd bell = { .fd = palisade_fault_eventfd(queue), .events = POLLIN };
    IS(0, poll(&bell, 1, 0));
    IS(0, palisade_take_fault(queue, &record));
    IS(0, palisade_wait_fault(queue, 1, &record));
    IS(-EINVAL, palisade_wait_fault(queue, -1, NULL));
    IS(0, palisade_lost_faults(queue, &lost));
    IS(0, (int)lost);

    palisade_range_t range = { .granule_bytes = 4096, .count = 2, .flags = PALISADE_RANGE_LEAVES };
    IS(0, palisade_alloc_pasid(vmm, 10, 20, &pasid));
    IS(10, (int)pasid);
    IS(-ENOSPC, palisade_alloc_pasid(vmm, 10, 10, &other));
    IS(-ENOENT, palisade_unbind(vmm, pasid));
    IS(0, palisade_bind(vmm, pasid, PALISADE_NO_PASID, &process));
    IS(-EINVAL, palisade_bind(vmm, pasid, 700, &process));
    IS(0, palisade_unbind(vmm, pasid));
    IS(0, palisade_bind(vmm, pasid, 700, &process));
    range.pasid = pasid;
    IS(0, palisade_invalidate_range(vmm, PALISADE_CACHE_UNIT | PALISADE_CACHE_DEVICES, &range));
    range.pasid = PALISADE_NO_PASID, range.count = 0, range.flags = 0;
    IS(-EINVAL, palisade_invalidate_range(vmm, PALISADE_CACHE_DEVICES, &range));
    IS(0, palisade_invalidate_pasid(vmm, PALISADE_CACHE_PASIDS, pasid));
    IS(-ENOENT, palisade_invalidate_pasid(vmm, PALISADE_CACHE_UNIT, 999));
    IS(0, palisade_invalidate_all(vmm, PALISADE_CACHE_UNIT));
    IS(-ENOENT, palisade_respond(vmm, bdf, 700, 0, PALISADE_RESPONSE_FAILURE));
    IS(0, palisade_unbind(vmm, pasid));
    IS(0, palisade_free_pasid(vmm, pasid));
    IS(abi == 1 ? -ENOENT : 0, palisade_free_pasid(vmm, pasid));
    IS(abi == 1 ? -ENOTTY : 0, palisade_free_pasids(vmm, 0, UINT32_MAX));

    IS(0, palisade_ioasid_bits(vmm, &other));
    IS(20, (int)other);
    IS(0, palisade_ioasid_alloc(vmm, 40, 40, &pasid));
    IS(40, (int)pasid);
    IS(-ENOSPC, palisade_ioasid_alloc(vmm, 40, 40, &other));
    IS(0, palisade_ioasid_free(vmm, pasid));
    IS(-ENOENT, palisade_ioasid_free(vmm, pasid));

    pthread_t threads[5];
    for (int i = 0; i < 5; i++) {
        IS(0, pthread_create(&threads[i], NULL, i ? take_and_give : wait_for_nothing, i ? (void *)vmm : (void *)queue));
    }
    for (int i = 0; i < 5; i++)
        IS(0, pthread_join(threads[i], NULL));

    uint64_t unmapped = 0;
    IS(-ENOENT, palisade_unmap(vmm, 0, 4096));
    IS(0, palisade_unmap(vmm, 0, ram_bytes));
    IS(0, palisade_map(vmm, 0, 4096, fd, 4096, PALISADE_MAP_READ));
    IS(0, palisade_unmap_all(vmm, &unmapped));
    IS(4096, (int)unmapped);
    IS(0, palisade_unmap_all(vmm, NULL));
    IS(0, palisade_detach(vmm, bdf));
    IS(-ENODEV, palisade_detach(vmm, bdf));
    palisade_disconnect(vmm);
    IS(0, palisade_take_fault(queue, &record));
    IS(-ECONNRESET, palisade_wait_fault(queue, -1, &record));
    palisade_free_fault_queue(queue);
    return EXIT_SUCCESS;
}
