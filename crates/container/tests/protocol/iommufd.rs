//! What the page says of the third form of the requests.

use palisade_units::Field;
use palisade_vfio::abi::iommufd::IommufdRequest;
use palisade_vfio::abi::iommufd::layout as abi;
use palisade_vfio::abi::iommufd::layout::{
    BindIommufd, Destroy, DeviceAttach, DeviceDetach, FaultQueueAlloc, HwInfo, HwInfoVtd,
    HwptAlloc, HwptInvalidate, HwptPageResponse, HwptPgfault, HwptVtdStage1, IoasAlloc,
    IoasIovaRanges, IoasMapFile, IoasUnmap, IovaRange, VdeviceAlloc, VeventHeader, VeventVtd,
    VeventqAlloc, ViommuAlloc, VtdStage1Invalidate,
};

use crate::constants::Constant;

pub(crate) const FRONT: &str = "
## The form of an iommufd

A connection of form 3 (since version 1.1) is an iommufd of its own, with the device files of the functions that are
offered: the objects of `linux/iommufd.h` and the requests of `linux/vfio.h` that attach devices to them, as they are in Linux 6.15.
Nothing of what stands above under the requests is there but PALISADE_FUNCTION_LIST and, as closing a device file, PALISADE_FUNCTION_DETACH.
Objects belong to the connection. When it ends, its devices are detached, drained and no longer bound, its page requests are
answered, and its objects are gone. VMMs that use this form and another one at a time see the functions of both.

The file that a call is made on stands in `value` of the request's header: 0 for the iommufd, 0x10000 and the place of the
function in the guest for its device file. Anything else is EBADF, and a request on a file that does not have it ENOTTY.

An argument begins with its size. One that is smaller than the table says is EINVAL; one that is larger than the structure
told here is accepted where the rest is zero, and E2BIG where it is not; what is left out counts as zero. No more than the
size is written back. Those of VFIO begin with `argsz` and have the rules of all that do. Unknown flags, reserved fields that
are not zero, and known fields with a value that is not offered are EOPNOTSUPP (of VFIO's: EINVAL). Ids go from 1; an unknown id, or one of an object
of another type, is ENOENT.

A field that is an address in Linux, as `data_uptr`, is an offset here: the data stands in the same message behind the
argument, so many bytes after the argument's start; less than the size, or what passes the message's end, is EFAULT. What is
written back there stands in the answer, whose payload ends at byte 4080 at the latest; the request need not have the room.
A file that comes beside a message, or its answer, is named by its place among the descriptors: 0.

An answer with an errno has no payload, but for IOMMU_HWPT_INVALIDATE and IOMMU_IOAS_IOVA_RANGES.
";

/// The errors that mean something else here than above.
pub(crate) const ERRORS: &[(&str, u32, &str)] = &[
    (
        "ENOENT",
        2,
        "there is no such object of the type that is taken; the range cuts a map, or has none",
    ),
    (
        "E2BIG",
        7,
        "the argument has something where nothing is known",
    ),
    (
        "EBADF",
        9,
        "the file is not the one that came, or there is none",
    ),
    (
        "ENOMEM",
        12,
        "the client has 4096 objects, 16 spaces or 64 queues",
    ),
    (
        "EBUSY",
        16,
        "the object is in use; another connection of the VMM is told of faults",
    ),
    (
        "EEXIST",
        17,
        "there is memory in the range, or such an object; another connection has the device",
    ),
    (
        "ENOSPC",
        28,
        "as much is mapped as the space may have, or the quota of PASIDs is used up",
    ),
    ("EOVERFLOW", 75, "the range passes the end of all addresses"),
    ("EMSGSIZE", 90, "there is no room for all ranges"),
];

/// What the page says of a request.
pub(crate) struct Told {
    pub(crate) descriptors: &'static str,
    pub(crate) says: &'static str,
    pub(crate) layouts: &'static [(&'static str, &'static [Field])],
}

const NOTHING: Told = Told {
    descriptors: "none",
    says: "",
    layouts: &[],
};

/// The structures that the page tells of.
pub(crate) fn layouts() -> Vec<&'static str> {
    let requests = IommufdRequest::ALL.iter();
    let titles = requests.flat_map(|request| told(*request).layouts);
    let names = titles.filter_map(|(title, _)| title.split(' ').next());
    names.collect()
}

const TABLE_SAYS: &str = "Makes a table that devices are attached to. Over an IOAS it translates nothing, so that addresses \
are those of the IOAS; with `HWPT_NEST_PARENT` others may be nested in it. Over such a parent, or over a virtual unit, it \
is a guest's first stage in VT-d's format, whose tables and results are addresses in the parent's IOAS. With \
`HWPT_PASID` PASIDs may be attached to it. With a fault queue, devices that are attached to it may ask for pages; without one they are told at once that \
they get none. A parent has no fault queue: EOPNOTSUPP.";

const ATTACH_SAYS: &str = "Attaches a device, or a PASID of it by the guest's number, to a table; or to an IOAS, for which a table is made \
that goes with its last device. What it was attached to is replaced in one step: each request of the device meets the one table \
or the other, and where the new one is refused the old one stays. Page requests to the old one that wait are answered with \
`PAGE_RESPONSE_INVALID`. The first PASID of the guest under a number takes one PASID of the quota until nothing is attached \
under it any more. EINVAL where the device is not bound, and where PASIDs meet a table that was made without `HWPT_PASID`, \
also beside it on the same device. EBUSY where another device of the VMM has the PASID attached to another table on the same parent.";

const FAULT_SAYS: &str = "Makes a queue of page requests, with a file. From the file, each read gives one HwptPgfault; \
each write is one or more HwptPageResponse. It is a socket that keeps records apart (`SOCK_SEQPACKET`), blocks as long as the \
client does not have it otherwise, and ends with the connection. A request is answered once, by its cookie; what answers nothing is passed over. \
A page request that finds no room in the file is answered by the server with a failure, and so is each one once the \
client has closed it; what waits then is answered with `PAGE_RESPONSE_INVALID`. One connection of a VMM has queues at a time: EBUSY; EOPNOTSUPP where the host tells somebody else of faults.";

const EVENTS_SAYS: &str = "Makes the queue of a virtual unit's events, with a file: a fault of a device that has a virtual device at the unit. From \
the file, which is as that of page requests, each read gives one VeventHeader with a VeventVtd behind it. An event that finds no room is lost; a \
VeventHeader alone, with `VEVENTQ_LOST_EVENTS`, tells of those before the next one that finds room. A virtual unit has one such queue. Linux has no such queue for VT-d; the type is of this protocol alone.";

pub(crate) fn told(request: IommufdRequest) -> Told {
    match request {
        IommufdRequest::Destroy => Told {
            says: "Destroys an object that nothing uses: EBUSY where something does. A device and a queue are in use until their files are closed.",
            layouts: &[("Destroy", Destroy::FIELDS)],
            ..NOTHING
        },
        IommufdRequest::IoasAlloc => Told {
            says: "Makes a space of addresses (IOAS), in which nothing is mapped.",
            layouts: &[("IoasAlloc", IoasAlloc::FIELDS)],
            ..NOTHING
        },
        IommufdRequest::IoasIovaRanges => Told {
            says: "Tells where in a space memory may be mapped: in any but where interrupts go. The ranges stand in the answer at \
                   `allowed_iovas`. With room for fewer it is EMSGSIZE, and the answer says how many there are.",
            layouts: &[
                ("IoasIovaRanges", IoasIovaRanges::FIELDS),
                ("IovaRange", IovaRange::FIELDS),
            ],
            ..NOTHING
        },
        IommufdRequest::IoasMapFile => Told {
            descriptors: "a file",
            says: "Maps a part of a file into a space. Addresses are not chosen here, and memory that may only be written is \
                   not offered: EOPNOTSUPP.",
            layouts: &[("IoasMapFile", IoasMapFile::FIELDS)],
        },
        IommufdRequest::IoasUnmap => Told {
            says: "Unmaps every map in a range, which may have holes, or everything. ENOENT where the range cuts a map, or has \
                   none. When it is answered, no device reaches it, by whatever table.",
            layouts: &[("IoasUnmap", IoasUnmap::FIELDS)],
            ..NOTHING
        },
        IommufdRequest::HwptAlloc => Told {
            says: TABLE_SAYS,
            layouts: &[
                ("HwptAlloc", HwptAlloc::FIELDS),
                ("HwptVtdStage1", HwptVtdStage1::FIELDS),
            ],
            ..NOTHING
        },
        IommufdRequest::GetHwInfo => Told {
            says: "Tells what the unit of a device can do: what holds for all units of the VMM. As much of HwInfoVtd as there is \
                   room for stands in the answer at `data_uptr`, zeroes behind it. Units of different formats have no information, and no PASIDs.",
            layouts: &[("HwInfo", HwInfo::FIELDS), ("HwInfoVtd", HwInfoVtd::FIELDS)],
            ..NOTHING
        },
        IommufdRequest::HwptInvalidate => Told {
            says: "Makes caches forget parts of a nested table, on every device that is attached to it, those of devices included, and is answered when they \
                   have. The entries are done in their order up to the first that is refused; the answer says how many were \
                   done, also with an errno. No entries is a question whether the type is known. By a virtual unit it is EOPNOTSUPP.",
            layouts: &[
                ("HwptInvalidate", HwptInvalidate::FIELDS),
                ("VtdStage1Invalidate", VtdStage1Invalidate::FIELDS),
            ],
            ..NOTHING
        },
        IommufdRequest::FaultQueueAlloc => Told {
            descriptors: "the answer: a file",
            says: FAULT_SAYS,
            layouts: &[
                ("FaultQueueAlloc", FaultQueueAlloc::FIELDS),
                ("HwptPgfault", HwptPgfault::FIELDS),
                ("HwptPageResponse", HwptPageResponse::FIELDS),
            ],
        },
        IommufdRequest::ViommuAlloc => Told {
            says: "Makes a virtual unit over a parent. Linux has none for VT-d; the type is of this protocol alone, and the others are EOPNOTSUPP.",
            layouts: &[("ViommuAlloc", ViommuAlloc::FIELDS)],
            ..NOTHING
        },
        IommufdRequest::VdeviceAlloc => Told {
            says: "Gives a device the name that it has at a virtual unit, for its events. A device has one, which goes with its \
                   device file.",
            layouts: &[("VdeviceAlloc", VdeviceAlloc::FIELDS)],
            ..NOTHING
        },
        IommufdRequest::VeventqAlloc => Told {
            descriptors: "the answer: a file",
            says: EVENTS_SAYS,
            layouts: &[
                ("VeventqAlloc", VeventqAlloc::FIELDS),
                ("VeventHeader", VeventHeader::FIELDS),
                ("VeventVtd", VeventVtd::FIELDS),
            ],
        },
        IommufdRequest::FunctionList => Told {
            says: "As in the other forms. All of them may be bound.",
            ..NOTHING
        },
        IommufdRequest::DeviceBind => Told {
            says: "Binds a device to the iommufd. It reaches nothing until it is attached. One that is offered takes one PASID of \
                   the quota; one that the host attached is the iommufd's until it is closed, or until the host takes it away, and \
                   what the proposals bind on every function passes it over. EINVAL where it is bound already; where \
                   another connection has it EEXIST for one that is offered and EBUSY for the other, EBUSY also where one of its PASIDs \
                   is bound; ENODEV where there is none at the place.",
            layouts: &[("BindIommufd", BindIommufd::FIELDS)],
            ..NOTHING
        },
        IommufdRequest::DeviceAttach => Told {
            says: ATTACH_SAYS,
            layouts: &[("DeviceAttach", DeviceAttach::FIELDS)],
            ..NOTHING
        },
        IommufdRequest::DeviceDetach => Told {
            says: "Detaches a device, or a PASID of it. When it is answered, nothing uses the table under it any more, and page \
                   requests were answered. What is not attached is detached already.",
            layouts: &[("DeviceDetach", DeviceDetach::FIELDS)],
            ..NOTHING
        },
        IommufdRequest::DeviceClose => Told {
            says: "Closes a device file, with the argument that it has in the other forms: the device is detached and no longer \
                   bound; its id and its virtual device are gone.",
            ..NOTHING
        },
    }
}

macro_rules! constants {
    ($($name:ident),* $(,)?) => {
        /// All constants, in the order of the layouts.
        pub(crate) const CONSTANTS: &[Constant] = &[$(Constant {
            name: stringify!($name),
            value: abi::$name as u64,
        }),*];
    };
}

constants! {
    IOAS_MAP_FIXED_IOVA, IOAS_MAP_WRITEABLE, IOAS_MAP_READABLE,
    HWPT_NEST_PARENT, HWPT_DIRTY_TRACKING, HWPT_FAULT_ID_VALID, HWPT_PASID,
    HWPT_DATA_NONE, HWPT_DATA_VTD_S1, VTD_S1_SRE, VTD_S1_EAFE, VTD_S1_WPE,
    HW_INFO_INPUT_TYPE, HW_INFO_NONE, HW_INFO_VTD, INVALIDATE_DATA_VTD_S1, VTD_INV_LEAF,
    DEVICE_ATTACH_PASID, DEVICE_DETACH_PASID,
    PGFAULT_PASID_VALID, PGFAULT_LAST_PAGE, PAGE_RESPONSE_SUCCESS, PAGE_RESPONSE_INVALID,
    VIOMMU_TYPE_VTD, VEVENTQ_TYPE_VTD, VEVENTQ_LOST_EVENTS,
}
