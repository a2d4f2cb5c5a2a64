//! The constants of the layouts, by their names.

use palisade_container::wire;
use palisade_vfio::abi::layout as abi;

/// One of them.
pub(crate) struct Constant {
    pub(crate) name: &'static str,
    pub(crate) value: u64,
}

macro_rules! constants {
    ($($from:ident: $($name:ident),*;)*) => {
        /// All of them, in the order of the layouts.
        pub(crate) const CONSTANTS: &[Constant] = &[$($(Constant {
            name: stringify!($name),
            value: $from::$name as u64,
        }),*),*];
    };
}

constants! {
    wire: MAJOR, MINOR, MAX_MESSAGE_BYTES, MAX_DESCRIPTORS, IOMMUFD;
    abi: PASID_ALLOCATE, PASID_FREE;
    abi: BIND, UNBIND, OP_BIND, OP_UNBIND, OP_INVALIDATE;
    abi: BIND_VERSION, FORMAT_VTD, GUEST_PASID_VALID;
    abi: VTD_SRE, VTD_EAFE, VTD_PCD, VTD_PWT, VTD_EMTE, VTD_CD;
    abi: INVALIDATE_VERSION, CACHE_IOTLB, CACHE_DEVICE_IOTLB, CACHE_PASID;
    abi: GRANULARITY_DOMAIN, GRANULARITY_PASID, GRANULARITY_ADDRESS;
    abi: INVALIDATE_HAS_PASID, INVALIDATE_HAS_ARCHID, INVALIDATE_LEAF;
    abi: INFO_PAGE_SIZES, INFO_CAPABILITIES;
    abi: CAPABILITY_V1, CAPABILITY_V7, CAPABILITY_VERSION, V1_PASID_REQUESTS, V1_STAGE1_VTD;
    abi: FEATURE_SYSTEM_WIDE_PASID, FEATURE_BIND, FEATURE_INVALIDATE;
    abi: MAP_READ, MAP_WRITE, UNMAP_ALL, FUNCTION_ATTACHED, FUNCTION_OFFERED;
    abi: RING_ENTRIES, ENTRY_FAULT, ENTRY_PAGE_REQUEST;
    abi: FAULT_HAS_PASID, FAULT_HAS_ADDRESS, FAULT_HAS_FETCH_ADDRESS;
    abi: PERMISSION_READ, PERMISSION_WRITE, PERMISSION_EXECUTE, PERMISSION_PRIVILEGED;
    abi: REQUEST_HAS_PASID, REQUEST_IS_LAST, REQUEST_HAS_PRIVATE, RESPONSE_NEEDS_PASID;
    abi: RESPONSE_VERSION, RESPONSE_HAS_PASID, RESPONSE_SUCCESS, RESPONSE_INVALID, RESPONSE_FAILURE;
}
