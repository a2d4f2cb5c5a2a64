//! PASIDs, and what is bound to them.

use palisade_ioasid::PasidRange;
use palisade_iommu::{ExtendedAccessed, Levels, SupervisorRequests};
use palisade_units::{Gpa, GuestPasid, HostPasid, Iova};
use palisade_vfio::Abi;
use palisade_vfio::abi::Request;
use palisade_vfio::abi::layout::{
    BIND, BIND_VERSION, BindData, CACHE_DEVICE_IOTLB, CACHE_IOTLB, CACHE_PASID, FORMAT_VTD,
    GRANULARITY_ADDRESS, GRANULARITY_DOMAIN, GRANULARITY_PASID, GUEST_PASID_VALID, Head,
    INVALIDATE_HAS_PASID, INVALIDATE_LEAF, INVALIDATE_VERSION, InvalidateAddress, InvalidateData,
    InvalidatePasid, OP_BIND, OP_INVALIDATE, OP_UNBIND, PASID_ALLOCATE, PASID_FREE,
    PasidAllocateV1, PasidFreeV1, PasidRequestV7, UNBIND, VTD_EAFE, VTD_SRE,
};
use zerocopy::IntoBytes;

use super::{Client, ClientError, starts_with};

/// A guest process's page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// The top table.
    pub root: Gpa,
    /// Four or five.
    pub levels: Levels,
    /// Whether privileged requests are allowed.
    pub supervisor: SupervisorRequests,
    /// Whether the extended accessed flag is set.
    pub extended_accessed: ExtendedAccessed,
}

impl Process {
    /// A table of four levels for user requests.
    #[must_use]
    pub const fn at(root: Gpa) -> Self {
        Self {
            root,
            levels: Levels::Four,
            supervisor: SupervisorRequests::Refused,
            extended_accessed: ExtendedAccessed::Off,
        }
    }
}

/// Which caches are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The unit's translations.
    Translations,
    /// Those that devices keep.
    InDevices,
    /// Both.
    TranslationsAndDevices,
    /// Entries of PASIDs.
    PasidEntries,
}

/// What is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidate {
    /// Everything of the container.
    All,
    /// One PASID.
    Pasid(HostPasid),
    /// A range of one PASID, or of requests without one: `count` granules of `granule_bytes` from `at` on.
    Pages {
        /// Whose.
        pasid: Option<HostPasid>,
        /// Where the range starts.
        at: Iova,
        /// A power of two, 4 KiB at least.
        granule_bytes: u64,
        /// How many.
        count: u64,
    },
    /// The same, where nothing but leaves of the table has changed.
    Leaves {
        /// Whose.
        pasid: Option<HostPasid>,
        /// Where the range starts.
        at: Iova,
        /// A power of two, 4 KiB at least.
        granule_bytes: u64,
        /// How many.
        count: u64,
    },
}

impl Client {
    /// Takes the lowest free PASID of a range.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: EINVAL, ENOSPC, EOPNOTSUPP.
    pub fn alloc_pasid(&mut self, range: PasidRange) -> Result<HostPasid, ClientError> {
        let raw = match self.abi {
            Abi::V1 => {
                let request = PasidAllocateV1 {
                    argsz: PasidAllocateV1::ARGSZ.into(),
                    flags: PASID_ALLOCATE.into(),
                    min: range.min.into(),
                    max: range.max.into(),
                    result: 0.into(),
                };
                let reply = self.request(Request::PasidRequestV1, request.as_bytes())?;
                starts_with::<PasidAllocateV1>(&reply.written)?.result.get()
            }
            Abi::V7 => {
                let request = range_v7(PASID_ALLOCATE, range);
                let reply = self.request(Request::PasidRequestV7, request.as_bytes())?;
                reply.value.cast_unsigned()
            }
        };
        Ok(HostPasid::new(raw)?)
    }

    /// Frees a PASID.
    ///
    /// # Errors
    /// [`ClientError::Refused`]; of one that is not the client's in version 1 alone, with ENOENT or EACCES.
    pub fn free_pasid(&mut self, pasid: HostPasid) -> Result<(), ClientError> {
        match self.abi {
            Abi::V1 => {
                let request = PasidFreeV1 {
                    argsz: PasidFreeV1::ARGSZ.into(),
                    flags: PASID_FREE.into(),
                    free_pasid: pasid.get().into(),
                };
                self.request(Request::PasidRequestV1, request.as_bytes())?;
                Ok(())
            }
            Abi::V7 => self.free_pasids(PasidRange::only(pasid.get())),
        }
    }

    /// Version 7: frees what the client took in a range.
    ///
    /// # Errors
    /// [`ClientError::NotInThisVersion`]; [`ClientError::Refused`] with EINVAL for an inverted range.
    pub fn free_pasids(&mut self, range: PasidRange) -> Result<(), ClientError> {
        if self.abi == Abi::V1 {
            return Err(ClientError::NotInThisVersion(Request::PasidRequestV7));
        }
        let request = range_v7(PASID_FREE, range);
        self.request(Request::PasidRequestV7, request.as_bytes())?;
        Ok(())
    }

    /// Binds a process to a PASID, on all functions or on none. `name` is what the guest calls the PASID, where it
    /// does not go by its number.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: EINVAL, ENOENT, EACCES, EOPNOTSUPP, EBUSY.
    pub fn bind(
        &mut self,
        pasid: HostPasid,
        name: Option<GuestPasid>,
        process: Process,
    ) -> Result<(), ClientError> {
        let bits = process.levels.address_bits();
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let supervisor = process.supervisor == SupervisorRequests::Allowed;
        let accessed = process.extended_accessed == ExtendedAccessed::On;
        let data = BindData {
            flags: name.map_or(0, |_| GUEST_PASID_VALID).into(),
            gpgd: process.root.get().into(),
            gpasid: name.map_or(0, |name| u64::from(name.get())).into(),
            addr_width: bits.into(),
            vtd_flags: (flag(supervisor, VTD_SRE) | flag(accessed, VTD_EAFE)).into(),
            ..of(pasid)
        };
        match self.abi {
            Abi::V1 => self.with_data(Request::Bind, BIND, data.as_bytes()),
            Abi::V7 => self.with_data(Request::NestingOp, OP_BIND, data.as_bytes()),
        }
    }

    /// Unbinds a PASID from all functions. It stays allocated.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENOENT where it is bound nowhere, EACCES.
    pub fn unbind(&mut self, pasid: HostPasid) -> Result<(), ClientError> {
        let data = of(pasid);
        match self.abi {
            Abi::V1 => self.with_data(Request::Bind, UNBIND, data.as_bytes()),
            Abi::V7 => self.with_data(Request::NestingOp, OP_UNBIND, data.as_bytes()),
        }
    }

    /// Has caches forget.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: EINVAL where a cache does not have the granularity, and those of ownership.
    pub fn invalidate(&mut self, which: Which, what: Invalidate) -> Result<(), ClientError> {
        let (granularity, form) = match what {
            Invalidate::All => (GRANULARITY_DOMAIN, Vec::new()),
            Invalidate::Pasid(pasid) => {
                let form = InvalidatePasid {
                    flags: INVALIDATE_HAS_PASID.into(),
                    archid: 0.into(),
                    pasid: u64::from(pasid.get()).into(),
                };
                (GRANULARITY_PASID, form.as_bytes().to_vec())
            }
            Invalidate::Pages {
                pasid,
                at,
                granule_bytes,
                count,
            } => (
                GRANULARITY_ADDRESS,
                range(0, pasid, at, (granule_bytes, count)),
            ),
            Invalidate::Leaves {
                pasid,
                at,
                granule_bytes,
                count,
            } => {
                let form = range(INVALIDATE_LEAF, pasid, at, (granule_bytes, count));
                (GRANULARITY_ADDRESS, form)
            }
        };
        let size = InvalidateData::ARGSZ + size_of_form(&form);
        let head = InvalidateData {
            version_or_argsz: match self.abi {
                Abi::V1 => INVALIDATE_VERSION,
                Abi::V7 => size,
            }
            .into(),
            cache: match which {
                Which::Translations => CACHE_IOTLB,
                Which::InDevices => CACHE_DEVICE_IOTLB,
                Which::TranslationsAndDevices => CACHE_IOTLB | CACHE_DEVICE_IOTLB,
                Which::PasidEntries => CACHE_PASID,
            },
            granularity,
            padding: [0; 2],
        };
        let data = [head.as_bytes(), &form].concat();
        match self.abi {
            Abi::V1 => self.with_data(Request::CacheInvalidate, 0, &data),
            Abi::V7 => self.with_data(Request::NestingOp, OP_INVALIDATE, &data),
        }
    }

    fn with_data(&mut self, request: Request, flags: u32, data: &[u8]) -> Result<(), ClientError> {
        let head = Head {
            argsz: (Head::ARGSZ + size_of_form(data)).into(),
            flags: flags.into(),
        };
        self.request(request, &[head.as_bytes(), data].concat())?;
        Ok(())
    }
}

/// What comes after a head is a hundred bytes at the most.
fn size_of_form(form: &[u8]) -> u32 {
    u32::try_from(form.len()).unwrap_or(u32::MAX)
}

fn of(pasid: HostPasid) -> BindData {
    BindData {
        version: BIND_VERSION.into(),
        format: FORMAT_VTD.into(),
        hpasid: u64::from(pasid.get()).into(),
        ..BindData::default()
    }
}

fn range_v7(flags: u32, range: PasidRange) -> PasidRequestV7 {
    PasidRequestV7 {
        argsz: PasidRequestV7::ARGSZ.into(),
        flags: flags.into(),
        min: range.min.into(),
        max: range.max.into(),
    }
}

fn range(
    flags: u32,
    pasid: Option<HostPasid>,
    at: Iova,
    (granule_bytes, count): (u64, u64),
) -> Vec<u8> {
    InvalidateAddress {
        flags: (flags | pasid.map_or(0, |_| INVALIDATE_HAS_PASID)).into(),
        archid: 0.into(),
        pasid: pasid.map_or(0, |pasid| u64::from(pasid.get())).into(),
        addr: at.get().into(),
        granule_size: granule_bytes.into(),
        nb_granules: count.into(),
    }
    .as_bytes()
    .to_vec()
}
