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
