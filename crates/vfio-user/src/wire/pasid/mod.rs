//! The extension by which PASIDs cross a connection: tagged reads and writes, translation, page requests, and the
//! container's requests. `docs/vfio-user-pasid.md` proposes it to the protocol.
//!
//! None of it is sent unless both sides named it in VERSION ([`PasidCapability`]). Its commands have numbers from
//! 0x8000 on, which the protocol does not use, so that neither grows into the other.

mod capability;
mod container;
mod invalidate;
mod page;
mod tag;
mod translate;

pub use capability::{PASID_VERSION, PasidCapability, RequestAbi};
pub use container::{ContainerAnswer, ContainerRequest, MAX_ARGUMENT_BYTES};
pub use invalidate::{Invalidate, InvalidateFlags, Invalidation, PasidScope};
pub use page::{
    MAX_GROUP_PAGES, MAX_PAGE_GROUPS, PageEntry, PageGroup, PageGroupAnswer, PageRequest,
    PageResponse, WantedPage,
};
pub use tag::{Tag, TaggedAccess};
pub use translate::{MAX_RANGES, Range, Ranges, RangesHead, TranslateRequest, Translation, Wanted};
