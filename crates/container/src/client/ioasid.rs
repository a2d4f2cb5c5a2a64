//! The requests of the proposed `/dev/ioasid`.

use palisade_ioasid::PasidRange;
use palisade_units::HostPasid;
use palisade_vfio::abi::Request;
use palisade_vfio::abi::layout::{IoasidAllocate, IoasidInfo};
use zerocopy::IntoBytes;

use super::{Client, ClientError, starts_with};

impl Client {
    /// How many bits a PASID has.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn ioasid_bits(&mut self) -> Result<u32, ClientError> {
        let wanted = IoasidInfo {
            argsz: IoasidInfo::ARGSZ.into(),
            ..IoasidInfo::default()
        };
        let reply = self.request(Request::IoasidGetInfo, wanted.as_bytes())?;
        Ok(starts_with::<IoasidInfo>(&reply.written)?.ioasid_bits.get())
    }

    /// Takes the lowest free PASID of a range, without nesting and without a function.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: EINVAL, ENOSPC.
    pub fn ioasid_alloc(&mut self, range: PasidRange) -> Result<HostPasid, ClientError> {
        let request = IoasidAllocate {
            argsz: IoasidAllocate::ARGSZ.into(),
            flags: 0.into(),
            min: range.min.into(),
            max: range.max.into(),
        };
        let reply = self.request(Request::IoasidAllocate, request.as_bytes())?;
        Ok(HostPasid::new(reply.value.cast_unsigned())?)
    }

    /// Frees a PASID of this VMM, however it was taken.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: EINVAL, ENOENT, EACCES.
    pub fn ioasid_free(&mut self, pasid: HostPasid) -> Result<(), ClientError> {
        self.request(Request::IoasidFree, &pasid.get().to_le_bytes())?;
        Ok(())
    }
}
