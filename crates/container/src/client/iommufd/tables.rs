//! Spaces and tables.

use std::os::fd::AsFd;

use palisade_iommu::{ExtendedAccessed, SupervisorRequests};
use palisade_memory::{Backing, Protection};
use palisade_units::{Gpa, Iova};
use palisade_vfio::abi::iommufd::layout::{
    Destroy, HWPT_DATA_VTD_S1, HWPT_FAULT_ID_VALID, HWPT_NEST_PARENT, HWPT_PASID, HwptAlloc,
    HwptInvalidate, HwptVtdStage1, INVALIDATE_DATA_VTD_S1, IOAS_MAP_FIXED_IOVA, IOAS_MAP_READABLE,
    IOAS_MAP_WRITEABLE, IoasAlloc, IoasIovaRanges, IoasMapFile, IoasUnmap, IovaRange, VTD_INV_LEAF,
    VTD_S1_EAFE, VTD_S1_SRE, VtdStage1Invalidate,
};
use palisade_vfio::abi::iommufd::{IommufdRequest, ObjectId, On};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::super::{ClientError, Process, Reply, starts_with};
use super::IommufdClient;

/// Whether PASIDs may be attached to a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PasidUse {
    /// They may, and it may stand beside tables of PASIDs.
    #[default]
    Allowed,
    /// Neither.
    Refused,
}

/// How a table is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// Whether PASIDs may be attached to it.
    pub pasids: PasidUse,
    /// The queue of its page requests; without one they end at once.
    pub faults: Option<ObjectId>,
}

impl TableOptions {
    fn flags(self) -> u32 {
        let pasids = match self.pasids {
            PasidUse::Allowed => HWPT_PASID,
            PasidUse::Refused => 0,
        };
        pasids | self.faults.map_or(0, |_| HWPT_FAULT_ID_VALID)
    }
}

/// How much of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// All of it.
    All,
    /// So many pages of 4 KiB from here on.
    From(Iova, u64),
    /// The same, where nothing but leaves has changed.
    Leaves(Iova, u64),
}

/// Of an invalidation, what was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalidated {
    /// How many ranges were done, in their order.
    pub done: u32,
    /// Why the next one was not.
    pub refused: Option<Errno>,
}

impl IommufdClient {
    /// Makes a space, in which nothing is mapped.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENOMEM where the client has too many.
    pub fn space(&mut self) -> Result<ObjectId, ClientError> {
        let request = IoasAlloc {
            size: IoasAlloc::ARGSZ.into(),
            ..IoasAlloc::default()
        };
        let reply = self.ask(IommufdRequest::IoasAlloc, &request)?;
        let told: IoasAlloc = starts_with(&reply.written)?;
        Ok(ObjectId::new(told.out_ioas_id.get()))
    }

    /// Where in a space memory may be mapped: the first and the last address of each range.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENOENT.
    pub fn ranges(&mut self, space: ObjectId) -> Result<Vec<(Gpa, Gpa)>, ClientError> {
        const ROOM: u32 = 64;
        let request = IoasIovaRanges {
            size: IoasIovaRanges::ARGSZ.into(),
            ioas_id: space.get().into(),
            num_iovas: ROOM.into(),
            allowed_iovas: u64::from(IoasIovaRanges::ARGSZ).into(),
            ..IoasIovaRanges::default()
        };
        let reply = self.ask(IommufdRequest::IoasIovaRanges, &request)?;
        let told: IoasIovaRanges = starts_with(&reply.written)?;
        let ranges = reply.written.get(IoasIovaRanges::BYTES..);
        let ranges = ranges.unwrap_or_default().chunks(IovaRange::BYTES);
        let ranges = ranges.take(told.num_iovas.get() as usize);
        let range = |range: &[u8]| {
            let range: IovaRange = starts_with(range)?;
            Ok((Gpa::new(range.start.get()), Gpa::new(range.last.get())))
        };
        ranges.map(range).collect()
    }

    /// Maps a part of a file into a space.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENOENT, EINVAL, EEXIST where there is memory, EACCES where the file is not open for
    /// it, ENODEV where it cannot be mapped, ENOSPC.
    pub fn map(
        &mut self,
        space: ObjectId,
        at: Gpa,
        len_bytes: u64,
        (backing, protection): (&Backing, Protection),
    ) -> Result<(), ClientError> {
        let access = match protection {
            Protection::ReadOnly => IOAS_MAP_READABLE,
            Protection::ReadWrite => IOAS_MAP_READABLE | IOAS_MAP_WRITEABLE,
        };
        let request = IoasMapFile {
            size: IoasMapFile::ARGSZ.into(),
            flags: (IOAS_MAP_FIXED_IOVA | access).into(),
            ioas_id: space.get().into(),
            fd: 0.into(),
            start: backing.offset_bytes.into(),
            length: len_bytes.into(),
            iova: at.get().into(),
        };
        let number = IommufdRequest::IoasMapFile.number();
        let file = [backing.fd.as_fd()];
        self.ioctl(On::Iommufd, number, request.as_bytes(), &file)?;
        Ok(())
    }

    /// Unmaps every map in a range, which may have holes, and says how many bytes that were. When this returns, no device reaches it.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: EINVAL; ENOENT where the range cuts a map, or has none.
    pub fn unmap(&mut self, space: ObjectId, at: Gpa, len_bytes: u64) -> Result<u64, ClientError> {
        let request = IoasUnmap {
            size: IoasUnmap::ARGSZ.into(),
            ioas_id: space.get().into(),
            iova: at.get().into(),
            length: len_bytes.into(),
        };
        let reply = self.ask(IommufdRequest::IoasUnmap, &request)?;
        Ok(starts_with::<IoasUnmap>(&reply.written)?.length.get())
    }

    /// Unmaps everything.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENOENT.
    pub fn unmap_all(&mut self, space: ObjectId) -> Result<u64, ClientError> {
        self.unmap(space, Gpa::new(0), u64::MAX)
    }

    /// Makes a table of a space that others may be nested in.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENOENT, ENOMEM, EOPNOTSUPP.
    pub fn parent(&mut self, device: ObjectId, space: ObjectId) -> Result<ObjectId, ClientError> {
        let request = HwptAlloc {
            flags: (HWPT_NEST_PARENT | HWPT_PASID).into(),
            ..of(device, space)
        };
        let reply = self.ask(IommufdRequest::HwptAlloc, &request)?;
        made(&reply)
    }

    /// Makes a table of a guest's process, over a parent or a virtual unit.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENOENT, EINVAL, ENOMEM, EOPNOTSUPP.
    pub fn nested(
        &mut self,
        device: ObjectId,
        over: ObjectId,
        process: Process,
        options: TableOptions,
    ) -> Result<ObjectId, ClientError> {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let supervisor = process.supervisor == SupervisorRequests::Allowed;
        let accessed = process.extended_accessed == ExtendedAccessed::On;
        let data = HwptVtdStage1 {
            flags: (flag(supervisor, VTD_S1_SRE) | flag(accessed, VTD_S1_EAFE)).into(),
            pgtbl_addr: process.root.get().into(),
            addr_width: process.levels.address_bits().into(),
            reserved: 0.into(),
        };
        let request = HwptAlloc {
            flags: options.flags().into(),
            data_type: HWPT_DATA_VTD_S1.into(),
            data_len: HwptVtdStage1::ARGSZ.into(),
            data_uptr: u64::from(HwptAlloc::ARGSZ).into(),
            fault_id: options.faults.map_or(0, ObjectId::get).into(),
            ..of(device, over)
        };
        let argument = [request.as_bytes(), data.as_bytes()].concat();
        let number = IommufdRequest::HwptAlloc.number();
        let reply = self.ioctl(On::Iommufd, number, &argument, &[])?;
        made(&reply)
    }

    /// Has caches forget parts of a nested table.
    ///
    /// # Errors
    /// Those of the socket. What a range is refused for stands in what is returned, beside how many were done.
    pub fn invalidate(
        &mut self,
        table: ObjectId,
        ranges: &[Pages],
    ) -> Result<Invalidated, ClientError> {
        let entry = |pages: &Pages| {
            let (addr, npages, flags) = match pages {
                Pages::All => (0, u64::MAX, 0),
                Pages::From(at, count) => (at.get(), *count, 0),
                Pages::Leaves(at, count) => (at.get(), *count, VTD_INV_LEAF),
            };
            VtdStage1Invalidate {
                addr: addr.into(),
                npages: npages.into(),
                flags: flags.into(),
                reserved: 0.into(),
            }
        };
        let entries: Vec<_> = ranges.iter().map(entry).collect();
        let count = u32::try_from(ranges.len()).map_err(|_| ClientError::TooLong)?;
        let request = HwptInvalidate {
            size: HwptInvalidate::ARGSZ.into(),
            hwpt_id: table.get().into(),
            data_uptr: u64::from(HwptInvalidate::ARGSZ).into(),
            data_type: INVALIDATE_DATA_VTD_S1.into(),
            entry_len: VtdStage1Invalidate::ARGSZ.into(),
            entry_num: count.into(),
            reserved: 0.into(),
        };
        let argument = [request.as_bytes(), entries.as_bytes()].concat();
        let number = IommufdRequest::HwptInvalidate.number();
        let answer = self.link.call(number, On::Iommufd.raw(), &argument, &[])?;
        let told: HwptInvalidate = starts_with(&answer.payload)?;
        Ok(Invalidated {
            done: told.entry_num.get(),
            refused: answer.head.header.outcome().err(),
        })
    }

    /// Destroys an object that nothing uses.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENOENT, EBUSY.
    pub fn destroy(&mut self, id: ObjectId) -> Result<(), ClientError> {
        let request = Destroy {
            size: Destroy::ARGSZ.into(),
            id: id.get().into(),
        };
        self.ask(IommufdRequest::Destroy, &request)?;
        Ok(())
    }
}

fn of(device: ObjectId, over: ObjectId) -> HwptAlloc {
    HwptAlloc {
        size: HwptAlloc::ARGSZ.into(),
        dev_id: device.get().into(),
        pt_id: over.get().into(),
        ..HwptAlloc::default()
    }
}

fn made(reply: &Reply) -> Result<ObjectId, ClientError> {
    let told: HwptAlloc = starts_with(&reply.written)?;
    Ok(ObjectId::new(told.out_hwpt_id.get()))
}
