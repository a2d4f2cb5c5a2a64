//! What the page says in words.

use palisade_container::wire::Kind;
use palisade_units::Field;
use palisade_vfio::abi::Request;
use palisade_vfio::abi::layout::{
    BindData, FaultEntry, FaultRing, FunctionEntry, FunctionList, FunctionPlace, Head, Info,
    InvalidateAddress, InvalidateData, InvalidatePasid, IoasidAllocate, IoasidInfo, MapDma,
    NestingCapabilityV1, NestingCapabilityV7, PageRequestEntry, PageResponse, PasidAllocateV1,
    PasidFreeV1, PasidRequestV7, RingHead, UnmapDma,
};

pub(crate) const FRONT: &str = "# The container socket

How a VMM in another process maps its guest's memory, attaches functions, asks for PASIDs, binds its guest's page tables to
them, invalidates caches, and is told of faults and page requests: the requests that were proposed for VFIO in 2020,
in both their forms, and a few more, or the objects of today's iommufd, over a Unix socket. A client in any language can be
written from this page: [examples/python](../examples/python) is one, in Python's own library alone, and the tests run it.
Written by `UPDATE_DOCS=1 cargo test -p palisade-container --test protocol` from the code, which also checks that it is true.
The server and a client in Rust are `crates/container`.

## Messages

The socket is a stream (`AF_UNIX`, `SOCK_STREAM`). Messages follow one another in it without anything in between.
All numbers are little-endian. Each message begins with a header of 16 bytes, and what follows it is its payload. A field of
the header that its row gives no meaning in a message is 0.
";

pub(crate) const VERSION: &str = "
A size below 16 or above the limit, a kind that is not in the table or that a client does not send, and more descriptors
than the limit end the connection without an answer. The server reads and answers one message after the other, in
their order; a client may send the next one before it has read an answer. An answer has the id of its question.

## The version

The client's first message is Version. It chooses one of the forms of the requests for this connection: version 1 or
version 7 of the proposals, or the form of an iommufd, 3, of which a chapter of its own tells below. The server answers with VersionAnswer, whose errno is 0 when the client may go on. A client that
speaks a higher minor version than the server's keeps to what the server's has. Otherwise the errno is

- 71 (EPROTO) where the first message was another, or its payload has another size than a version;
- 93 (EPROTONOSUPPORT) for another major version, or a form of the requests that there is not;

and the connection is closed. In either case the payload says what the server speaks. A second Version is answered by an
Answer with 22 (EINVAL), and changes nothing.
";

pub(crate) const REQUESTS: &str = "
## Requests and answers

A Request is a call of `ioctl`: `number_or_errno` is the number of the request, and the payload the bytes of its
argument. The Answer has in `number_or_errno` 0, or the errno that the call fails with. Where it is 0, `value` is what
the call returns, and the payload replaces as many bytes at the beginning of the argument; it is empty where the argument
stays as it was. An answer with an errno has no payload, and nothing has changed. `value` of a request is not looked at, but
in the form of an iommufd.

An argument that begins with `argsz` says by it how many bytes it has. It is read up to there and no further, however many
bytes came. Too small a size for the request is EINVAL; a greater one is accepted. Bytes that the size promises and that
are not in the message are EFAULT where the request needs them. No more than `argsz` bytes are written back, so
the answer's payload can be longer than the request's was.

Descriptors travel beside a message as ancillary data (`SCM_RIGHTS`), sent together with its first byte, in one
`sendmsg` of their own. A request with another number of them than the table says is refused with EINVAL, and the server
closes them. Descriptors of an answer come the same way, so that a client has room for them from the first byte of each
message on.

Who may connect is decided by the user of the process at the other end (`SO_PEERCRED`); others find the connection
closed. The connections of one VMM share one set of PASIDs and one quota. A connection ends when its socket is closed or
when the process that connected it ends, whoever else has the socket by then. With the last one of a VMM, every PASID
that was taken is unbound, its page requests are answered, it is drained and freed; functions that were attached over
the socket are detached, and memory is unmapped.

As long as the VMM has no function, PASID_REQUEST in both its operations, binding, unbinding and invalidating fail, with
EFAULT in version 1 and EOPNOTSUPP in version 7. The requests of IOASID need none.
";

pub(crate) const ERRORS: &[(&str, u32, &str)] = &[
    (
        "ENOENT",
        2,
        "the PASID is not allocated, or not by this VMM's requests, or bound nowhere; the range has a hole; no such group waits",
    ),
    (
        "EACCES",
        13,
        "the PASID is another tenant's; the file is not open for reading, or writing",
    ),
    (
        "EFAULT",
        14,
        "the argument ends before the request does; version 1: there is no function to translate for",
    ),
    (
        "EBUSY",
        16,
        "another function of the tenant has it bound to another space on the same parent; the function is another \
         tenant's; there is a ring already",
    ),
    (
        "EEXIST",
        17,
        "there is memory in the range, or a function at the place",
    ),
    (
        "ENODEV",
        19,
        "no function is there, or to be had; the file cannot be mapped",
    ),
    (
        "EINVAL",
        22,
        "size, flags, a field or a range cannot be; the guest's name for a PASID is another's, or was another; the tenant is \
         gone",
    ),
    (
        "ENOTTY",
        25,
        "there is no such request, or it is of the other version",
    ),
    (
        "ENOSPC",
        28,
        "no PASID is free in the range, or the quota is used up; as much is mapped as the VMM may map",
    ),
    (
        "EOPNOTSUPP",
        95,
        "nesting was not chosen, or the platform does not have it; version 7: there is no function to translate for; \
         something that the text of the request says",
    ),
];

pub(crate) const LIST: &str = "
## The requests

The number is `_IO(';', 100 + n)`, 0x3b64 + n; of those whose name begins with IOASID it is `_IO('i', 100 + n)`, 0x6964 + n.
An argument that is a u32 is that number alone, in four bytes.
";

pub(crate) const EXTENSIONS: &str = "
## Extensions
";

pub(crate) const CONSTANTS: &str = "
## Constants
";

pub(crate) const SERVE: &str = "
## At `palisade serve`

A tenant that has a `container` in its [configuration](configuration.md) is a VMM, and one process at a time: while one has a
connection, others find theirs closed. Eight of its connections are served at a time, and further ones wait until one ends.
The host attaches the tenant's functions itself, each as long as the VMM is connected to
its vfio-user socket, at its `guest_bdf`; the same users may open that. They reach the memory that the VMM tells of there, by
DMA_MAP. So

- a VMM connects to a function before it asks for PASIDs, and binds once more what a function that comes later is to have;
- no function is offered: PALISADE_FUNCTION_ATTACH and PALISADE_FUNCTION_DETACH are ENODEV, and memory that is mapped by
  VFIO_IOMMU_MAP_DMA is reached by nobody;
- an iommufd has them as devices by VFIO_DEVICE_BIND_IOMMUFD. From then on they reach what is mapped into its spaces and
  nothing else, and the VMM need not tell of memory by DMA_MAP. When the device is closed, they reach that again. A device
  ends with the connection to its function: then it can only be closed, and the function that is there after another
  connection is bound anew.

Functions are offered by programs that embed the server.
";

pub(crate) const EXAMPLE: &str = "
## Byte for byte

A client of version 7, whose VMM has a function already, says so, chooses nesting, and takes a PASID between 10 and 20
(each line is one message; `>` is from the client; the test `a_client_made_from_the_page_alone` sends them):

```text
> 18 00 00 00  01 00  01 00  00 00 00 00  00 00 00 00   01 00  01 00  07 00  00 00
< 1c 00 00 00  02 00  01 00  00 00 00 00  00 00 00 00   01 00  01 00  04 00  00 00  00 10 00 00
> 14 00 00 00  03 00  02 00  66 3b 00 00  00 00 00 00   06 00 00 00
< 10 00 00 00  04 00  02 00  00 00 00 00  00 00 00 00
> 20 00 00 00  03 00  03 00  76 3b 00 00  00 00 00 00   10 00 00 00  01 00 00 00  0a 00 00 00  14 00 00 00
< 10 00 00 00  04 00  03 00  00 00 00 00  0a 00 00 00
```
";

/// Who sends a kind of message, and what its payload is.
pub(crate) fn kind_says(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Version => ("client, first and once", "Version"),
        Kind::VersionAnswer => ("server", "VersionAnswer"),
        Kind::Request => ("client", "the argument"),
        Kind::Answer => ("server", "what the argument begins with now"),
    }
}

/// What the argument of a request is.
pub(crate) enum Argument {
    None,
    Number,
    Sized,
}

/// What the page says of a request.
pub(crate) struct Told {
    pub(crate) argument: Argument,
    pub(crate) descriptors: &'static str,
    pub(crate) says: &'static str,
    pub(crate) layouts: &'static [(&'static str, &'static [Field])],
}

const RING_SAYS: &str = "Has faults and page requests of the VMM's functions delivered in a ring of shared memory, as \
long as this connection lasts. The descriptor is an eventfd, the answer's descriptor a file to be mapped, read and write, \
`region_bytes` long. A VMM has one ring at a time: EBUSY; EOPNOTSUPP where the host tells somebody else of its faults.

The region begins with RingHead. Entry n stands at RING_ENTRIES + `entry_bytes` * (n modulo `entries`). Head and tail go \
round at 2^32; there are head - tail entries to take, from the tail on. The client takes them, writes the tail, with a full \
memory barrier after it, and looks at the head once more before it waits for the eventfd, which is written when an entry \
comes into a ring that was empty. Each entry is a FaultEntry or a PageRequestEntry, by its kind. A fault that finds no room \
is counted and dropped; a page request that finds none is answered by the server, with `RESPONSE_FAILURE`. The server reads \
nothing but the tail, as one access of 32 bits, and passes over one that is not between the last one and the head.

Any eventfd will do; another file is EINVAL. While a VMM has no ring, its faults are dropped, uncounted, and its page requests \
are answered with `RESPONSE_FAILURE`.";

const RING_LAYOUTS: &[(&str, &[Field])] = &[
    ("FaultRing", FaultRing::FIELDS),
    ("RingHead", RingHead::FIELDS),
    ("FaultEntry", FaultEntry::FIELDS),
    ("PageRequestEntry", PageRequestEntry::FIELDS),
];

const NOTHING: Told = Told {
    argument: Argument::None,
    descriptors: "none",
    says: "",
    layouts: &[],
};

/// The structures that the page tells of.
pub(crate) fn layouts() -> Vec<&'static str> {
    let titles = Request::ALL
        .iter()
        .flat_map(|request| told(*request).layouts);
    let names = titles.filter_map(|(title, _)| title.split(' ').next());
    names.collect()
}

const BIND_SAYS: &str = "Binds a guest's first stage to a PASID that PASID_REQUEST gave, on every function of the \
VMM or on none; where something was bound under it, that is replaced. The root is a guest physical address. Where the \
flags say so, `gpasid` is what the guest calls the PASID from now on, until it is unbound: unique \
among what is bound, and the number by which its devices are programmed and its faults are told. Otherwise it goes by its own \
number. A name that something else is bound under is EINVAL, and so is another name than the PASID is bound under: unbind it \
first. One that is not bound gives up its own number where another is bound under that: it has no name until it is bound \
again, and faults of it are told nobody. Memory types are not offered: \
`VTD_PCD`, `VTD_PWT`, `VTD_EMTE` and `VTD_CD` are EOPNOTSUPP.

The flags of the head are `BIND` or `UNBIND`. The table is one of a first stage (VT-d §3.6, §9.7), of four levels for 48 bits \
and of five for 57. Requests are a user's unless the device says that they are privileged; accessed and dirty flags are set in \
the table. The root is a multiple of 4 KiB, and looked at when there is a request: memory need not be mapped there yet, and an \
entry that leads nowhere is a fault.

Unbinding takes the same data. Version, format and flags are as in binding and `hpasid` says which; root, width and the part of \
VT-d are not looked at. When it is answered, no access uses the table any more, and page requests that were open were answered. \
The PASID stays allocated; what a device still does for it is a fault, told by its own number. ENOENT where it is bound nowhere.";

const INVALIDATE_SAYS: &str = "Makes caches forget, and is answered when they have. The data is InvalidateData and \
then, by the granularity, nothing (the domain), InvalidatePasid, or InvalidateAddress. Which caches know which granularity:

| granularity | caches |
|---|---|
| GRANULARITY_DOMAIN | CACHE_IOTLB, CACHE_PASID |
| GRANULARITY_PASID | all three |
| GRANULARITY_ADDRESS | CACHE_IOTLB, CACHE_DEVICE_IOTLB |

The flags of the head are zero. Other pairs are EINVAL, and so is no cache at all. Several caches may be or'ed together. An entry of a PASID is never stale \
here, so that CACHE_PASID alone does nothing. `archid` is passed over. A range without a PASID is of requests \
without one; InvalidatePasid without one is EINVAL. PASIDs are those that PASID_REQUEST gave, by their own numbers.";

const BIND_LAYOUTS: &[(&str, &[Field])] = &[
    ("Head", Head::FIELDS),
    ("BindData follows it", BindData::FIELDS),
];

const INVALIDATE_LAYOUTS: &[(&str, &[Field])] = &[
    ("InvalidateData follows a Head", InvalidateData::FIELDS),
    ("InvalidatePasid", InvalidatePasid::FIELDS),
    ("InvalidateAddress", InvalidateAddress::FIELDS),
];

pub(crate) fn told(request: Request) -> Told {
    let sized = Told {
        argument: Argument::Sized,
        ..NOTHING
    };
    match request {
        Request::GetApiVersion => Told {
            says: "Returns 0, the version of VFIO.",
            ..NOTHING
        },
        Request::CheckExtension => Told {
            argument: Argument::Number,
            says: "Returns what the table of extensions says of the number, and 0 for any other.",
            ..NOTHING
        },
        Request::SetIommu => Told {
            argument: Argument::Number,
            says: "Chooses how memory is translated, once for this connection: with VFIO_TYPE1_NESTING_IOMMU PASIDs may be \
                   asked for and bound, with the other two not. Any other number, and a second choice, are EINVAL.",
            ..NOTHING
        },
        Request::GetInfo => Told {
            says: "Tells of the platform. The argument is Info, of which at least 16 bytes must be there, and room behind it. \
                   Exactly where nesting was chosen, a capability follows at `cap_offset`: NestingCapabilityV1 or \
                   NestingCapabilityV7, by the version of the connection. Where `argsz` leaves no room for it, `argsz` \
                   comes back as the size that has, and `cap_offset` as 0. What is told holds for all IOMMU units of the \
                   VMM: the narrowest width, the bits of CAP and ECAP that all have and of numbers the least. Units of \
                   different formats have no format and no features in common; the request succeeds all the same.",
            layouts: &[
                ("Info", Info::FIELDS),
                ("NestingCapabilityV1", NestingCapabilityV1::FIELDS),
                ("NestingCapabilityV7", NestingCapabilityV7::FIELDS),
            ],
            ..sized
        },
        Request::MapDma => Told {
            descriptors: "a file",
            says: "Maps a part of a file as guest memory, for the functions that this VMM attaches. `vaddr` is an offset in \
                   the file, which is EINVAL where it ends before the part does. Functions that the host has attached have their memory from elsewhere. Memory that may only be \
                   written is EOPNOTSUPP.",
            layouts: &[("MapDma", MapDma::FIELDS)],
            ..sized
        },
        Request::UnmapDma => Told {
            says: "Unmaps guest memory: a range that whole maps fill without a hole, or everything. When it is answered, no \
                   function reaches it, by whatever translation.",
            layouts: &[("UnmapDma", UnmapDma::FIELDS)],
            ..sized
        },
        Request::PasidRequestV7 => Told {
            says: "Takes the lowest free PASID of a range, both ends included, and returns it; or frees all in the range that \
                   this VMM took, and returns 0, also where that is none. A number by which the guest calls another PASID is \
                   not free. What is bound is unbound by being freed, and a number that a device still works for is not \
                   given out again until it does not.",
            layouts: &[("PasidRequestV7", PasidRequestV7::FIELDS)],
            ..sized
        },
        Request::NestingOp => Told {
            says: "Binds, unbinds or invalidates, by the low 16 bits of the flags: `OP_BIND`, `OP_UNBIND`, `OP_INVALIDATE`. \
                   The others must be zero. The data follows the head: that of VFIO_IOMMU_BIND and \
                   VFIO_IOMMU_CACHE_INVALIDATE below, and what is said there of it holds, but for the flags of the head. \
                   `version_or_argsz` of InvalidateData is the size of the data.",
            ..sized
        },
        Request::PasidRequestV1 => Told {
            says: "Takes the lowest free PASID of a range, both ends included, which is written back while the call returns \
                   0; or frees one that this VMM took: ENOENT or EACCES for any other. What version 7 says of both holds here.",
            layouts: &[
                ("PasidAllocateV1", PasidAllocateV1::FIELDS),
                ("PasidFreeV1", PasidFreeV1::FIELDS),
            ],
            ..sized
        },
        Request::Bind => Told {
            says: BIND_SAYS,
            layouts: BIND_LAYOUTS,
            ..sized
        },
        Request::CacheInvalidate => Told {
            says: INVALIDATE_SAYS,
            layouts: INVALIDATE_LAYOUTS,
            ..sized
        },
        Request::FunctionList => Told {
            says: "Lists the functions of the VMM: those that are attached, and those that it may attach. As many entries \
                   follow as `argsz` has room for, in the order of their places. One that is attached and not offered was \
                   attached by the host.",
            layouts: &[
                ("FunctionList", FunctionList::FIELDS),
                ("FunctionEntry", FunctionEntry::FIELDS),
            ],
            ..sized
        },
        Request::FunctionAttach => Told {
            says: "Attaches a function that is offered. It reaches the memory that this VMM maps; what is bound before is not \
                   bound on it. It takes one PASID of the quota, for its requests without one.",
            layouts: &[("FunctionPlace", FunctionPlace::FIELDS)],
            ..sized
        },
        Request::FunctionDetach => Told {
            says: "Detaches a function that was attached by the request above, with the same argument. When it is answered, \
                   everything on it is unbound and drained.",
            ..sized
        },
        Request::FaultRing => Told {
            descriptors: "an eventfd; the answer: a file",
            says: RING_SAYS,
            layouts: RING_LAYOUTS,
            ..sized
        },
        Request::IoasidGetApiVersion => Told {
            says: "Returns 0, the version of the proposed /dev/ioasid.",
            ..NOTHING
        },
        Request::IoasidGetInfo => Told {
            says: "Tells how many bits a PASID has.",
            layouts: &[("IoasidInfo", IoasidInfo::FIELDS)],
            ..sized
        },
        Request::IoasidAllocate => Told {
            says: "Takes the lowest free PASID of a range, both ends included, and returns it. Neither nesting nor a function is \
                   needed. It is as one of PASID_REQUEST: charged to the same quota, to be bound and freed by the requests \
                   above.",
            layouts: &[("IoasidAllocate", IoasidAllocate::FIELDS)],
            ..sized
        },
        Request::IoasidFree => Told {
            argument: Argument::Number,
            says: "Frees a PASID that this VMM took, here or by PASID_REQUEST.",
            ..NOTHING
        },
        Request::PageResponse => Told {
            says: "Answers a page request group, once it is complete, in the names that the request had. Accepted once: \
                   ENOENT where no such group waits, ENODEV where the function is gone.",
            layouts: &[("PageResponse", PageResponse::FIELDS)],
            ..sized
        },
    }
}
