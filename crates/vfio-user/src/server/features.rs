use std::sync::Arc;

use palisade_pci::Function;
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::{
    migration::Migrating,
    session::{has_room, starts_with},
    write_log::WriteLog,
};
use crate::{
    ClientMemory,
    wire::{
        Feature, FeatureFlags, FeatureRequest, Methods, MigrationFlags, MigrationState,
        MigrationSupport,
    },
};

/// What DEVICE_FEATURE is about: migration, where the function has it, and the log of written pages, where the
/// peer's memory has it. The errors are those of VFIO: ENOTTY for a feature that is not there, EINVAL for a request that
/// makes no sense.
pub(crate) struct Features {
    pub(crate) migrating: Migrating,
    log: WriteLog,
}

impl Features {
    pub(crate) fn new(function: Arc<dyn Function>, memory: Arc<dyn ClientMemory>) -> Self {
        Self {
            migrating: Migrating::new(function),
            log: WriteLog::new(memory),
        }
    }

    /// Does what a request says and appends the payload of its reply to `out`.
    pub(crate) fn request(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Errno> {
        let (request, data) = starts_with::<FeatureRequest>(payload)?;
        has_room(request.argsz.get(), FeatureRequest::ARGSZ)?;
        let flags = FeatureFlags::from_raw(request.flags.get()).ok_or(Errno::INVAL)?;
        let feature = Feature::from_index(flags.index).filter(|it| self.offers(*it));
        let feature = feature.ok_or(Errno::NOTTY)?;
        if !(feature.methods() | Methods::PROBE).contains(flags.methods) {
            return Err(Errno::INVAL);
        }
        if flags.methods == Methods::GET {
            return self.get(feature, &request, data, out);
        }
        // The reply is as long as the request.
        let len = u32::try_from(payload.len()).map_err(|_| Errno::INVAL)?;
        has_room(request.argsz.get(), len)?;
        out.extend_from_slice(request.as_bytes());
        if flags.methods == Methods::SET {
            return self.set(feature, data, out);
        }
        out.extend_from_slice(data);
        Ok(())
    }

    fn offers(&self, feature: Feature) -> bool {
        match feature {
            Feature::Migration | Feature::DeviceState => self.migrating.is_offered(),
            Feature::LoggingStart | Feature::LoggingStop | Feature::LoggingReport => {
                self.log.is_offered()
            }
        }
    }

    fn get(
        &mut self,
        feature: Feature,
        request: &FeatureRequest,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        match feature {
            Feature::Migration => {
                let flags = MigrationFlags::STOP_COPY.bits().into();
                give(request, MigrationSupport { flags }.as_bytes(), out)
            }
            Feature::DeviceState => {
                let state = MigrationState {
                    state: self.migrating.state().raw().into(),
                    data_fd: 0.into(),
                };
                give(request, state.as_bytes(), out)
            }
            Feature::LoggingReport => self.log.report(request, data, out),
            Feature::LoggingStart | Feature::LoggingStop => Err(Errno::INVAL),
        }
    }

    /// Appends the data of the reply to `out`.
    fn set(&mut self, feature: Feature, data: &[u8], out: &mut Vec<u8>) -> Result<(), Errno> {
        match feature {
            Feature::DeviceState => {
                let (request, _) = starts_with::<MigrationState>(data)?;
                self.migrating.set(request.state.get())?;
            }
            Feature::LoggingStart => return self.log.start(data, out),
            Feature::LoggingStop => self.log.stop(),
            Feature::Migration | Feature::LoggingReport => return Err(Errno::INVAL),
        }
        out.extend_from_slice(data);
        Ok(())
    }
}

/// Appends a reply to GET.
fn give(request: &FeatureRequest, data: &[u8], out: &mut Vec<u8>) -> Result<(), Errno> {
    let len = FeatureRequest::BYTES + data.len();
    let argsz = u32::try_from(len).map_err(|_| Errno::INVAL)?;
    has_room(request.argsz.get(), argsz)?;
    let reply = FeatureRequest {
        argsz: argsz.into(),
        ..*request
    };
    out.extend_from_slice(reply.as_bytes());
    out.extend_from_slice(data);
    Ok(())
}
