/*
 * libpalisade: a VMM's requests at the container socket of palisade.
 * Made from crates/capi by its tests, which also check that it is up to date.
 */

#ifndef PALISADE_H
#define PALISADE_H



/*
 * What holds for every call:
 *
 * - It returns 0, or what its description says, or an errno, negated, of which the description names those
 *   that mean something. Any call may also end with an errno of the socket: ECONNRESET when the server has
 *   closed the connection, EPROTO when it does not speak the protocol. palisade_last_error has the reason in words.
 * - What is passed stays the caller's: texts, structures and descriptors are not kept. What is given out through a
 *   pointer to a pointer is to be given back, once, to the function that the description names. Nothing is written through
 *   other pointers unless the call succeeds.
 * - A handle may be used by several threads, whose calls on it wait for one another. While one gives it back, no other
 *   may use it. A fault queue is a handle of its own: one thread can wait at it while others make requests.
 *   Calls on the queues of an iommufd do not wait for one another.
 * - As long as the VMM has no function, PASIDs are neither given nor taken back, bound, unbound or invalidated: EFAULT
 *   in version 1, EOPNOTSUPP in version 7. palisade_ioasid_alloc and palisade_ioasid_free need none.
 * - A call waits for the server's answer, however long that takes.
 * - A null pointer where something is needed, a number that does not exist and a length that cannot be are EINVAL.
 * - A bug in the library is ENOTRECOVERABLE, from then on for every call on the same handle.
 * - A child of fork must not use its parent's handles. Descriptors are closed by exec.
 * - palisade_open_fault_queue installs a handler of SIGBUS, which passes on what is not about the queue's memory.
 *   Handlers that are installed later must do the same. SIGPIPE is never raised.
 */

/* The place of a function in the guest. */
#define PALISADE_BDF(bus, device, function) \
    ((uint32_t) ((bus) << 8 | (device) << 3 | (function)))


#ifdef __cplusplus
extern "C" {
#endif


#include <stddef.h>
#include <stdint.h>

/** \brief
 *  The first form of the requests.
 */
#define PALISADE_ABI_V1 ((uint32_t) 1)

/** \brief
 *  The last form of the requests.
 */
#define PALISADE_ABI_V7 ((uint32_t) 7)

/** \brief
 *  An access: execute.
 */
#define PALISADE_ACCESS_EXECUTE ((uint32_t) 4)

/** \brief
 *  An access: privileged.
 */
#define PALISADE_ACCESS_PRIVILEGED ((uint32_t) 8)

/** \brief
 *  An access: read.
 */
#define PALISADE_ACCESS_READ ((uint32_t) 1)

/** \brief
 *  An access: write.
 */
#define PALISADE_ACCESS_WRITE ((uint32_t) 2)

/** \brief
 *  A function that the VMM has attached.
 */
#define PALISADE_ATTACHED_BY_CLIENT ((uint32_t) 3)

/** \brief
 *  A function that the host has attached.
 */
#define PALISADE_ATTACHED_BY_HOST ((uint32_t) 1)

/** \brief
 *  Invalidates translations that devices keep.
 */
#define PALISADE_CACHE_DEVICES ((uint32_t) 2)

/** \brief
 *  Invalidates entries of PASIDs.
 */
#define PALISADE_CACHE_PASIDS ((uint32_t) 4)

/** \brief
 *  Invalidates translations that the IOMMU unit keeps.
 */
#define PALISADE_CACHE_UNIT ((uint32_t) 1)

/** \brief
 *  A record: a request was refused.
 */
#define PALISADE_FAULT ((uint32_t) 1)

/** \brief
 *  Memory that functions may read.
 */
#define PALISADE_MAP_READ ((uint32_t) 1)

/** \brief
 *  Memory that functions may read and write.
 */
#define PALISADE_MAP_READ_WRITE ((uint32_t) 3)

/** \brief
 *  `palisade_set_nesting`: PASIDs cannot be asked for.
 */
#define PALISADE_NESTING_OFF ((uint32_t) 0)

/** \brief
 *  `palisade_set_nesting`: PASIDs may be asked for and bound.
 */
#define PALISADE_NESTING_ON ((uint32_t) 1)

/** \brief
 *  In the place of a PASID: none.
 */
#define PALISADE_NO_PASID ((uint32_t) 4294967295)

/** \brief
 *  In the place of a queue's id: none.
 */
#define PALISADE_NO_QUEUE ((uint32_t) 0)

/** \brief
 *  A function that the VMM may attach, and has not.
 */
#define PALISADE_OFFERED ((uint32_t) 2)

/** \brief
 *  A record: a device waits for a page, until `palisade_respond`.
 */
#define PALISADE_PAGE_REQUEST ((uint32_t) 2)

/** \brief
 *  A process: the extended accessed flag is set in its table.
 */
#define PALISADE_PROCESS_EXTENDED_ACCESSED ((uint32_t) 2)

/** \brief
 *  A process: privileged requests are allowed.
 */
#define PALISADE_PROCESS_SUPERVISOR ((uint32_t) 1)

/** \brief
 *  A range: nothing but leaves of the table has changed.
 */
#define PALISADE_RANGE_LEAVES ((uint32_t) 1)

/** \brief
 *  A fault: the function asked for a translation, or used one.
 */
#define PALISADE_RECORD_ATS ((uint32_t) 1)

/** \brief
 *  A page request: it is the last of its group, which may be answered now.
 */
#define PALISADE_RECORD_LAST ((uint32_t) 2)

/** \brief
 *  A response: something failed, ask for no more.
 */
#define PALISADE_RESPONSE_FAILURE ((uint32_t) 2)

/** \brief
 *  A response: the pages will not come, give up.
 */
#define PALISADE_RESPONSE_INVALID ((uint32_t) 1)

/** \brief
 *  A response: the pages are there, try again.
 */
#define PALISADE_RESPONSE_SUCCESS ((uint32_t) 0)

/** \brief
 *  A table: PASIDs may be attached to it.
 */
#define PALISADE_TABLE_PASID ((uint32_t) 1)

/** \brief
 *  A connection to a container socket.
 */
typedef struct palisade_client palisade_client_t;

/** \brief
 *  Returns which form of the requests a client speaks: 1 or 7. EINVAL.
 */
int32_t
palisade_abi (
    palisade_client_t const * client);

/** \brief
 *  Takes the lowest free PASID of a range, both ends included. EINVAL, ENOSPC; EOPNOTSUPP without nesting.
 */
int32_t
palisade_alloc_pasid (
    palisade_client_t const * client,
    uint32_t min,
    uint32_t max,
    uint32_t * pasid);

/** \brief
 *  Attaches a function that is offered, by its place in the guest. It reaches the memory that the VMM has mapped; what is
 *  bound before is not bound on it.
 *
 *  EINVAL; ENODEV where none is offered, EEXIST where it is attached, EBUSY where another tenant has it, ENOSPC beyond
 *  the quota.
 */
int32_t
palisade_attach (
    palisade_client_t const * client,
    uint32_t guest_bdf);

/** \brief
 *  A guest process's page table.
 */
typedef struct palisade_process {
    /** \brief
     *  The guest physical address of the top table.
     */
    uint64_t root;

    /** \brief
     *  How many levels it has: 4 or 5.
     */
    uint32_t levels;

    /** \brief
     *  `PALISADE_PROCESS_SUPERVISOR`, `PALISADE_PROCESS_EXTENDED_ACCESSED`, both or 0.
     */
    uint32_t flags;
} palisade_process_t;

/** \brief
 *  Binds a process to a PASID that was taken, on all functions or on none; what was bound to it is replaced.
 *  `guest_pasid` is what the guest calls it, `PALISADE_NO_PASID` where it goes by its number. The structure is only
 *  read during the call; the table is read by the device until the PASID is unbound.
 *
 *  EINVAL, ENOENT, EACCES, EBUSY, EOPNOTSUPP; without a function to bind it on EFAULT in version 1, EOPNOTSUPP in
 *  version 7.
 */
int32_t
palisade_bind (
    palisade_client_t const * client,
    uint32_t pasid,
    uint32_t guest_pasid,
    palisade_process_t const * process);

/** \brief
 *  What VFIO_CHECK_EXTENSION says of an extension, by its number: 0 in `*value` where it is not there. EINVAL.
 */
int32_t
palisade_check_extension (
    palisade_client_t const * client,
    uint32_t extension,
    int32_t * value);

/** \brief
 *  Connects to the container socket at a path, to speak one form of the requests: `PALISADE_ABI_V1` or `PALISADE_ABI_V7`.
 *  `*client` is for `palisade_disconnect` to take back; it is null where this fails.
 *
 *  EINVAL; ENOENT, ECONNREFUSED and EACCES where nobody is there or one may not connect; ECONNRESET where the server
 *  does not let this user in; EPROTONOSUPPORT where it speaks another version.
 */
int32_t
palisade_connect (
    char const * socket_path,
    uint32_t abi,
    palisade_client_t * * client);

/** \brief
 *  Detaches a function that the VMM attached. When this returns, everything on it is unbound and drained. EINVAL,
 *  ENODEV.
 */
int32_t
palisade_detach (
    palisade_client_t const * client,
    uint32_t guest_bdf);

/** \brief
 *  Ends a connection and gives the client back. With the last one of a VMM, the host takes back all PASIDs, functions
 *  and memory. Null is passed over.
 */
void
palisade_disconnect (
    palisade_client_t * client);

/** \brief
 *  Where a VMM is told of faults and page requests.
 */
typedef struct palisade_fault_queue palisade_fault_queue_t;

/** \brief
 *  Returns the descriptor that polls as readable when there is something to take. It is the queue's: do not
 *  read or close it. After it polls as readable, call `palisade_wait_fault` with a timeout of 0 for as long as that returns
 *  1. The end of the connection is not to be seen there. EINVAL.
 */
int32_t
palisade_fault_eventfd (
    palisade_fault_queue_t const * queue);

/** \brief
 *  Gives a queue back, and closes its eventfd. What is delivered from then on is not looked at; page requests wait until
 *  their PASID is unbound or the connection ends. Null is passed over.
 */
void
palisade_free_fault_queue (
    palisade_fault_queue_t * queue);

/** \brief
 *  Functions, in the order of their places.
 */
typedef struct palisade_function_list palisade_function_list_t;

/** \brief
 *  Gives a list back. Null is passed over.
 */
void
palisade_free_function_list (
    palisade_function_list_t * list);

/** \brief
 *  Frees a PASID. EINVAL; of one that is not this VMM's ENOENT or EACCES in version 1, nothing in version 7.
 */
int32_t
palisade_free_pasid (
    palisade_client_t const * client,
    uint32_t pasid);

/** \brief
 *  Version 7: frees what this VMM took in a range, both ends included. EINVAL; ENOTTY in version 1.
 */
int32_t
palisade_free_pasids (
    palisade_client_t const * client,
    uint32_t min,
    uint32_t max);

/** \brief
 *  Gives back a text that `palisade_last_error` gave out. Null is passed over.
 */
void
palisade_free_text (
    char * text);

/** \brief
 *  A function of a VMM.
 */
typedef struct palisade_function {
    /** \brief
     *  Its place in the guest, by `PALISADE_BDF`.
     */
    uint32_t guest_bdf;

    /** \brief
     *  `PALISADE_ATTACHED_BY_HOST`, `PALISADE_OFFERED` or `PALISADE_ATTACHED_BY_CLIENT`.
     */
    uint32_t attaching;
} palisade_function_t;

/** \brief
 *  Tells a function of a list, counted from 0. EINVAL where the list ends before it.
 */
int32_t
palisade_function_at (
    palisade_function_list_t const * list,
    size_t index,
    palisade_function_t * function);

/** \brief
 *  How many functions a list has; 0 for null.
 */
size_t
palisade_function_count (
    palisade_function_list_t const * list);

/** \brief
 *  Lists the functions that the VMM has or may have. `*list` is for `palisade_free_function_list` to take back; it is
 *  null where this fails. EINVAL.
 */
int32_t
palisade_functions (
    palisade_client_t const * client,
    palisade_function_list_t * * list);

/** \brief
 *  What a platform tells of itself.
 */
typedef struct palisade_info {
    /** \brief
     *  The sizes of pages that memory may be mapped in, or'ed together.
     */
    uint64_t page_sizes;

    /** \brief
     *  Version 7: CAP_REG of the guest's IOMMU unit.
     */
    uint64_t cap;

    /** \brief
     *  Version 7: ECAP_REG.
     */
    uint64_t ecap;

    /** \brief
     *  Which capability of nesting there is: `PALISADE_ABI_V1`, `PALISADE_ABI_V7`, or 0 without nesting. What the other
     *  version alone tells is 0.
     */
    uint32_t capability;

    /** \brief
     *  Version 1: 1 where PASIDs may be asked for.
     */
    uint32_t nesting;

    /** \brief
     *  Version 1: first stages, bit 0 for VT-d's. Version 7: the one, 1 for VT-d's.
     */
    uint32_t formats;

    /** \brief
     *  Version 7: bit 0, PASIDs have to be asked for; bit 1, page tables may be bound; bit 2, caches may be invalidated.
     */
    uint32_t features;

    /** \brief
     *  Version 7: how many bits of an address a first stage translates.
     */
    uint32_t address_bits;

    /** \brief
     *  Version 7: how many bits a PASID has.
     */
    uint32_t pasid_bits;
} palisade_info_t;

/** \brief
 *  Tells what the platform can do. EINVAL.
 */
int32_t
palisade_get_info (
    palisade_client_t const * client,
    palisade_info_t * info);

/** \brief
 *  Has caches forget everything, and returns when they have: `PALISADE_CACHE_UNIT` or `PALISADE_CACHE_PASIDS`. EINVAL.
 */
int32_t
palisade_invalidate_all (
    palisade_client_t const * client,
    uint32_t caches);

/** \brief
 *  Has caches forget a PASID, by the host's number, and returns when they have. EINVAL, ENOENT, EACCES.
 */
int32_t
palisade_invalidate_pasid (
    palisade_client_t const * client,
    uint32_t caches,
    uint32_t pasid);

/** \brief
 *  Addresses whose translations are to be forgotten.
 */
typedef struct palisade_range {
    /** \brief
     *  Where the range starts: a multiple of `granule_bytes`.
     */
    uint64_t at;

    /** \brief
     *  A power of two, 4096 at least.
     */
    uint64_t granule_bytes;

    /** \brief
     *  How many granules it has, one at least.
     */
    uint64_t count;

    /** \brief
     *  The host's PASID; `PALISADE_NO_PASID` for requests without one.
     */
    uint32_t pasid;

    /** \brief
     *  `PALISADE_RANGE_LEAVES` or 0.
     */
    uint32_t flags;
} palisade_range_t;

/** \brief
 *  Has caches forget a range, and returns when they have: `PALISADE_CACHE_UNIT`, `PALISADE_CACHE_DEVICES` or both.
 *  EINVAL, ENOENT, EACCES.
 */
int32_t
palisade_invalidate_range (
    palisade_client_t const * client,
    uint32_t caches,
    palisade_range_t const * range);

/** \brief
 *  Takes the lowest free PASID of a range, both ends included, without nesting and without a function. EINVAL, ENOSPC.
 */
int32_t
palisade_ioasid_alloc (
    palisade_client_t const * client,
    uint32_t min,
    uint32_t max,
    uint32_t * pasid);

/** \brief
 *  How many bits a PASID has. EINVAL.
 */
int32_t
palisade_ioasid_bits (
    palisade_client_t const * client,
    uint32_t * bits);

/** \brief
 *  Frees a PASID of this VMM, however it was taken. EINVAL, ENOENT, EACCES.
 */
int32_t
palisade_ioasid_free (
    palisade_client_t const * client,
    uint32_t pasid);

/** \brief
 *  A queue of page requests, with its file.
 */
typedef struct palisade_page_queue palisade_page_queue_t;

/** \brief
 *  Answers a page request group once, by the cookie of its last request: `PALISADE_RESPONSE_SUCCESS`, or one after it, which
 *  all say that the pages will not come. A cookie that nothing waits under is passed over. EINVAL; ECONNRESET where the queue
 *  has gone.
 */
int32_t
palisade_iommufd_answer (
    palisade_page_queue_t const * queue,
    uint32_t cookie,
    uint32_t response);

/** \brief
 *  A connection to a container socket that is an iommufd.
 */
typedef struct palisade_iommufd palisade_iommufd_t;

/** \brief
 *  Attaches a device, or a PASID of it, to a table; or to a space, for which there is a table then. Without a PASID
 *  `guest_pasid` is `PALISADE_NO_PASID`. Tells which table it is, unless `attached` is null. What it was attached to is
 *  replaced in one step, and stays where the new one is refused.
 *
 *  EINVAL, also where the table was not made for PASIDs; ENOENT, ENODEV where the device has gone, EBUSY where another device
 *  has the PASID attached to another table on the same parent, ENOSPC beyond the quota.
 */
int32_t
palisade_iommufd_attach (
    palisade_iommufd_t const * iommufd,
    uint32_t guest_bdf,
    uint32_t guest_pasid,
    uint32_t table,
    uint32_t * attached);

/** \brief
 *  Binds the device at a place in the guest, and tells its id. It reaches nothing until it is attached.
 *
 *  EINVAL, also where it is bound; ENODEV where there is none, EEXIST and EBUSY where another connection has it, EBUSY where
 *  another tenant has, ENOSPC beyond the quota.
 */
int32_t
palisade_iommufd_bind (
    palisade_iommufd_t const * iommufd,
    uint32_t guest_bdf,
    uint32_t * device);

/** \brief
 *  Closes a device: it is detached, and no longer bound. EINVAL, ENODEV.
 */
int32_t
palisade_iommufd_close (
    palisade_iommufd_t const * iommufd,
    uint32_t guest_bdf);

/** \brief
 *  Connects to the container socket at a path, as an iommufd. `*iommufd` is for `palisade_iommufd_disconnect` to take back; it
 *  is null where this fails. The errors are those of `palisade_connect`.
 */
int32_t
palisade_iommufd_connect (
    char const * socket_path,
    palisade_iommufd_t * * iommufd);

/** \brief
 *  Destroys an object that nothing uses. A queue is used by its file, until that is given back. EINVAL; ENOENT, EBUSY.
 */
int32_t
palisade_iommufd_destroy (
    palisade_iommufd_t const * iommufd,
    uint32_t id);

/** \brief
 *  Detaches a device, or a PASID of it. When this returns, nothing of it uses the table any more. EINVAL, also where the
 *  device is not bound.
 */
int32_t
palisade_iommufd_detach (
    palisade_iommufd_t const * iommufd,
    uint32_t guest_bdf,
    uint32_t guest_pasid);

/** \brief
 *  Ends a connection and gives the iommufd back: its devices are detached and closed, and its objects are gone. Null is
 *  passed over.
 */
void
palisade_iommufd_disconnect (
    palisade_iommufd_t * iommufd);

/** \brief
 *  A queue of a virtual unit's events, with its file.
 */
typedef struct palisade_event_queue palisade_event_queue_t;

/** \brief
 *  Returns the descriptor that polls as readable when there is an event to take, or the queue has gone. It is the queue's:
 *  do not read or close it. EINVAL.
 */
int32_t
palisade_iommufd_event_queue_fd (
    palisade_event_queue_t const * queue);

/** \brief
 *  The id of a queue, to destroy it by when it was given back; 0 for null.
 */
uint32_t
palisade_iommufd_event_queue_id (
    palisade_event_queue_t const * queue);

/** \brief
 *  Gives a queue back, and closes its file. Null is passed over.
 */
void
palisade_iommufd_free_event_queue (
    palisade_event_queue_t * queue);

/** \brief
 *  Gives a queue back, and closes its file: what waits in it is answered by the host, as not to come. Null is passed over.
 */
void
palisade_iommufd_free_page_queue (
    palisade_page_queue_t * queue);

/** \brief
 *  Lists the functions that the VMM has or may have, as `palisade_functions` does. All of them may be bound.
 */
int32_t
palisade_iommufd_functions (
    palisade_iommufd_t const * iommufd,
    palisade_function_list_t * * list);

/** \brief
 *  What the unit of a device can do.
 */
typedef struct palisade_hardware {
    /** \brief
     *  CAP_REG, of a VT-d unit.
     */
    uint64_t cap;

    /** \brief
     *  ECAP_REG.
     */
    uint64_t ecap;

    /** \brief
     *  How many bits a PASID has, 0 where there are none.
     */
    uint32_t pasid_bits;

    /** \brief
     *  1 where it is a VT-d unit.
     */
    uint32_t is_vtd;
} palisade_hardware_t;

/** \brief
 *  Tells what the unit of a device can do. EINVAL, ENOENT.
 */
int32_t
palisade_iommufd_hardware (
    palisade_iommufd_t const * iommufd,
    uint32_t device,
    palisade_hardware_t * hardware);

/** \brief
 *  Has caches forget so many pages of 4096 bytes of a nested table, and returns when they have. `flags` are
 *  `PALISADE_RANGE_LEAVES` or 0. EINVAL, ENOENT.
 */
int32_t
palisade_iommufd_invalidate (
    palisade_iommufd_t const * iommufd,
    uint32_t table,
    uint64_t at,
    uint64_t page_count,
    uint32_t flags);

/** \brief
 *  Has caches forget all of a nested table, and returns when they have. EINVAL, ENOENT.
 */
int32_t
palisade_iommufd_invalidate_all (
    palisade_iommufd_t const * iommufd,
    uint32_t table);

/** \brief
 *  Maps a part of a file into a space, as `palisade_map` does.
 *
 *  EBADF; EINVAL; ENOENT, EEXIST where there is memory, EACCES where the file is not open for it, ENODEV where it cannot
 *  be mapped, ENOSPC.
 */
int32_t
palisade_iommufd_map (
    palisade_iommufd_t const * iommufd,
    uint32_t space,
    uint64_t at,
    uint64_t len_bytes,
    int32_t fd,
    uint64_t offset_bytes,
    uint32_t protection);

/** \brief
 *  Makes a table of a guest's process, over a parent or a virtual unit. `flags` are `PALISADE_TABLE_PASID` or 0; page
 *  requests go to the queue with the id `queue`, and end at once if that is `PALISADE_NO_QUEUE`.
 *
 *  EINVAL; ENOENT, ENOMEM, EOPNOTSUPP.
 */
int32_t
palisade_iommufd_nested (
    palisade_iommufd_t const * iommufd,
    uint32_t device,
    uint32_t over,
    palisade_process_t const * process,
    uint32_t flags,
    uint32_t queue,
    uint32_t * table);

/** \brief
 *  Makes the queue of a virtual unit's events. `*queue` is for `palisade_iommufd_free_event_queue` to take back, before the
 *  iommufd or after it; it is null where this fails.
 *
 *  EINVAL; ENOENT, EEXIST where it has one, and the errors of `palisade_iommufd_open_page_queue`.
 */
int32_t
palisade_iommufd_open_event_queue (
    palisade_iommufd_t const * iommufd,
    uint32_t unit,
    palisade_event_queue_t * * queue);

/** \brief
 *  Makes a queue of page requests. `*queue` is for `palisade_iommufd_free_page_queue` to take back, before the iommufd or after
 *  it; it is null where this fails.
 *
 *  EINVAL; EOPNOTSUPP where the host tells somebody else, EBUSY where another connection of the VMM is told, ENOMEM.
 */
int32_t
palisade_iommufd_open_page_queue (
    palisade_iommufd_t const * iommufd,
    palisade_page_queue_t * * queue);

/** \brief
 *  Returns the descriptor that polls as readable when there is a page request to take, or the queue has gone. It is the
 *  queue's: do not read or close it. EINVAL.
 */
int32_t
palisade_iommufd_page_queue_fd (
    palisade_page_queue_t const * queue);

/** \brief
 *  The id of a queue, for tables to name; `PALISADE_NO_QUEUE` for null.
 */
uint32_t
palisade_iommufd_page_queue_id (
    palisade_page_queue_t const * queue);

/** \brief
 *  Makes a table of a space that others may be nested in. EINVAL; ENOENT, ENOMEM, EOPNOTSUPP.
 */
int32_t
palisade_iommufd_parent (
    palisade_iommufd_t const * iommufd,
    uint32_t device,
    uint32_t space,
    uint32_t * table);

/** \brief
 *  Tells the first and the last address of a range of a space where memory may be mapped, by its index from 0 on. Returns
 *  1, or 0 where there are no more. EINVAL, ENOENT.
 */
int32_t
palisade_iommufd_range (
    palisade_iommufd_t const * iommufd,
    uint32_t space,
    size_t index,
    uint64_t * first,
    uint64_t * last);

/** \brief
 *  Makes a space, in which nothing is mapped. EINVAL; ENOMEM where the client has too many.
 */
int32_t
palisade_iommufd_space (
    palisade_iommufd_t const * iommufd,
    uint32_t * space);

/** \brief
 *  Unmaps every map in a range, which may have holes, and tells how many bytes that were, unless `unmapped_bytes` is null.
 *  When this returns, no device reaches it. EINVAL; ENOENT where the range cuts a map, or has none.
 */
int32_t
palisade_iommufd_unmap (
    palisade_iommufd_t const * iommufd,
    uint32_t space,
    uint64_t at,
    uint64_t len_bytes,
    uint64_t * unmapped_bytes);

/** \brief
 *  Unmaps all of a space, and tells how many bytes that were, unless `unmapped_bytes` is null. EINVAL, ENOENT.
 */
int32_t
palisade_iommufd_unmap_all (
    palisade_iommufd_t const * iommufd,
    uint32_t space,
    uint64_t * unmapped_bytes);

/** \brief
 *  Gives a device its name at a virtual unit, a place by `PALISADE_BDF`. EINVAL; ENOENT, EEXIST.
 */
int32_t
palisade_iommufd_virtual_device (
    palisade_iommufd_t const * iommufd,
    uint32_t unit,
    uint32_t device,
    uint32_t guest_bdf,
    uint32_t * virtual_device);

/** \brief
 *  Makes a virtual unit over a parent. EINVAL; ENOENT, EOPNOTSUPP.
 */
int32_t
palisade_iommufd_virtual_unit (
    palisade_iommufd_t const * iommufd,
    uint32_t device,
    uint32_t parent,
    uint32_t * unit);

/** \brief
 *  An event of a virtual unit: a fault, as the guest's driver reads it.
 */
typedef struct palisade_event {
    /** \brief
     *  The lower half of the fault record (VT-d §11.4.7.6): the page.
     */
    uint64_t low;

    /** \brief
     *  The upper half: the source, by the device's name at the unit, the reason, and the PASID.
     */
    uint64_t high;

    /** \brief
     *  Its number. Numbers that are missing are of events that found no room.
     */
    uint32_t sequence;

    /** \brief
     *  Zero.
     */
    uint32_t reserved;
} palisade_event_t;

/** \brief
 *  Waits for an event, so many milliseconds at the most, without a limit if negative, and takes it. Returns 1, or 0 where
 *  none came, or a signal did. EINVAL; ECONNRESET where the queue has gone.
 */
int32_t
palisade_iommufd_wait_event (
    palisade_event_queue_t const * queue,
    int32_t timeout_ms,
    palisade_event_t * event);

/** \brief
 *  A page request that waits for its answer.
 */
typedef struct palisade_page_request {
    /** \brief
     *  The address of the page.
     */
    uint64_t at;

    /** \brief
     *  The id of the device.
     */
    uint32_t device;

    /** \brief
     *  The PASID; `PALISADE_NO_PASID` for a request without one.
     */
    uint32_t pasid;

    /** \brief
     *  What is wanted: `PALISADE_ACCESS_READ` and those after it, or'ed together.
     */
    uint32_t access;

    /** \brief
     *  `PALISADE_RECORD_LAST` where the group is complete, so that it may be answered.
     */
    uint32_t flags;

    /** \brief
     *  What it is answered by.
     */
    uint32_t cookie;

    /** \brief
     *  Zero.
     */
    uint32_t reserved;
} palisade_page_request_t;

/** \brief
 *  Waits for a page request, so many milliseconds at the most, without a limit if negative, and takes it. Returns 1, or 0
 *  where none came, or a signal did. EINVAL; ECONNRESET where the queue has gone.
 */
int32_t
palisade_iommufd_wait_page (
    palisade_page_queue_t const * queue,
    int32_t timeout_ms,
    palisade_page_request_t * request);

/** \brief
 *  Why the last call of this thread that failed did so, in words; null where none has. It stays until the next failure.
 *  Give it back to `palisade_free_text`.
 */
char *
palisade_last_error (void);

/** \brief
 *  How many faults found no room. EINVAL.
 */
int32_t
palisade_lost_faults (
    palisade_fault_queue_t const * queue,
    uint64_t * lost);

/** \brief
 *  Maps a part of a file as guest memory: `len_bytes` of it from `offset_bytes` on, at a guest physical address, all
 *  multiples of 4096. `protection` is `PALISADE_MAP_READ` or `PALISADE_MAP_READ_WRITE`. The descriptor stays the caller's
 *  and may be closed afterwards.
 *
 *  EBADF; EINVAL; EEXIST where there is memory, EACCES where the file is not open for it, ENODEV where it cannot be
 *  mapped, ENOSPC.
 */
int32_t
palisade_map (
    palisade_client_t const * client,
    uint64_t guest_address,
    uint64_t len_bytes,
    int32_t fd,
    uint64_t offset_bytes,
    uint32_t protection);

/** \brief
 *  Has faults and page requests delivered, as long as this connection lasts. `*queue` is for `palisade_free_fault_queue` to
 *  take back, before the client or after it; it is null where this fails.
 *
 *  EINVAL; EOPNOTSUPP where the host tells somebody else, EBUSY where the VMM has a queue.
 */
int32_t
palisade_open_fault_queue (
    palisade_client_t const * client,
    palisade_fault_queue_t * * queue);

/** \brief
 *  Answers a page request group once, in the names of its last request, by `PALISADE_RESPONSE_SUCCESS` or one after it.
 *  EINVAL; ENODEV and ENOENT where no such group waits, as after its first answer.
 */
int32_t
palisade_respond (
    palisade_client_t const * client,
    uint32_t guest_bdf,
    uint32_t guest_pasid,
    uint32_t group,
    uint32_t response);

/** \brief
 *  Chooses nesting, `PALISADE_NESTING_ON`, or not, once for a connection. EINVAL the second time.
 */
int32_t
palisade_set_nesting (
    palisade_client_t const * client,
    uint32_t nesting);

/** \brief
 *  What a VMM is told of its functions, in its guest's names.
 */
typedef struct palisade_record {
    /** \brief
     *  The address of the request that was refused, or of the page that is wanted.
     */
    uint64_t at;

    /** \brief
     *  `PALISADE_FAULT` or `PALISADE_PAGE_REQUEST`.
     */
    uint32_t kind;

    /** \brief
     *  The function's place in the guest, by `PALISADE_BDF`.
     */
    uint32_t guest_bdf;

    /** \brief
     *  The guest's PASID; `PALISADE_NO_PASID` for a request without one.
     */
    uint32_t pasid;

    /** \brief
     *  What was wanted: `PALISADE_ACCESS_READ` and those after it, or'ed together.
     */
    uint32_t access;

    /** \brief
     *  A fault: the reason, as VT-d numbers it (VT-d §7.1.3). Otherwise 0.
     */
    uint32_t reason;

    /** \brief
     *  A page request: its group. Otherwise 0.
     */
    uint32_t group;

    /** \brief
     *  `PALISADE_RECORD_ATS` or `PALISADE_RECORD_LAST` where they hold.
     */
    uint32_t flags;

    /** \brief
     *  Zero.
     */
    uint32_t reserved;
} palisade_record_t;

/** \brief
 *  Takes the oldest record, without waiting. Returns 1, or 0 where there is none. EINVAL.
 */
int32_t
palisade_take_fault (
    palisade_fault_queue_t const * queue,
    palisade_record_t * record);

/** \brief
 *  Unbinds a PASID from all functions. When this returns, no access uses the table any more. The PASID stays
 *  allocated. EINVAL, EACCES; ENOENT where it is bound nowhere.
 */
int32_t
palisade_unbind (
    palisade_client_t const * client,
    uint32_t pasid);

/** \brief
 *  Unmaps memory, of whole maps. When this returns, no function reaches it. EINVAL; ENOENT where the range has a hole
 *  or cuts a map.
 */
int32_t
palisade_unmap (
    palisade_client_t const * client,
    uint64_t guest_address,
    uint64_t len_bytes);

/** \brief
 *  Unmaps all memory, and tells how many bytes that were, unless `len_bytes` is null. EINVAL.
 */
int32_t
palisade_unmap_all (
    palisade_client_t const * client,
    uint64_t * len_bytes);

/** \brief
 *  Waits for a record, so many milliseconds at the most, without a limit if negative, and takes it. Returns 1, or 0
 *  where none came or a signal did. Other calls on the queue wait as long. EINVAL; ECONNRESET where there is none and the
 *  connection has ended.
 */
int32_t
palisade_wait_fault (
    palisade_fault_queue_t const * queue,
    int32_t timeout_ms,
    palisade_record_t * record);


#ifdef __cplusplus
} /* extern \"C\" */
#endif

#endif /* PALISADE_H */
