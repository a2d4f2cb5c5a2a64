//! What the platform can do, and the choice of nesting.

use palisade_vfio::abi::layout::{
    CAPABILITY_V1, CAPABILITY_V7, INFO_CAPABILITIES, Info as InfoLayout, NestingCapabilityV1,
    NestingCapabilityV7,
};
use palisade_vfio::abi::{EXTENSIONS, Extension, Request};
use palisade_vfio::{Abi, Nesting};
use zerocopy::IntoBytes;

use super::{Client, ClientError, starts_with};

/// Room for everything that GET_INFO may tell.
const INFO_ROOM: u32 = 1024;

/// What a platform with nesting says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// In version 1.
    V1 {
        /// `V1_PASID_REQUESTS` or nothing.
        nesting: u32,
        /// `V1_STAGE1_VTD` or nothing.
        formats: u32,
    },
    /// In version 7.
    V7 {
        /// VT-d's, 1, or none, 0.
        format: u32,
        /// `FEATURE_SYSTEM_WIDE_PASID` and those after it.
        features: u32,
        /// How many bits of an address a first stage translates.
        address_bits: u16,
        /// How many bits a PASID has.
        pasid_bits: u16,
        /// CAP_REG.
        cap: u64,
        /// ECAP_REG.
        ecap: u64,
    },
}

/// What GET_INFO tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The sizes of pages that memory may be mapped in, or'ed together.
    pub page_sizes: u64,
    /// There with nesting, and only then.
    pub capability: Option<Capability>,
}

impl Client {
    /// What CHECK_EXTENSION says of an extension: 0 where it is not there.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn check_extension(&mut self, extension: Extension) -> Result<i32, ClientError> {
        self.number(Request::CheckExtension, extension)
    }

    /// Chooses nesting, or not. This can be done once.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with EINVAL the second time.
    pub fn set_nesting(&mut self, nesting: Nesting) -> Result<(), ClientError> {
        let kind = match nesting {
            Nesting::Off => Extension::Type1V2,
            Nesting::On => Extension::Nesting,
        };
        self.number(Request::SetIommu, kind)?;
        Ok(())
    }

    fn number(&mut self, request: Request, extension: Extension) -> Result<i32, ClientError> {
        let known = EXTENSIONS.iter().find(|(_, one, _)| *one == extension);
        let (number, ..) = known.ok_or(ClientError::Answer)?;
        Ok(self.request(request, &number.to_le_bytes())?.value)
    }

    /// What the platform can do.
    ///
    /// # Errors
    /// Those of the socket; [`ClientError::Answer`] where what comes makes no sense.
    pub fn info(&mut self) -> Result<Info, ClientError> {
        let wanted = InfoLayout {
            argsz: INFO_ROOM.into(),
            ..InfoLayout::default()
        };
        let reply = self.request(Request::GetInfo, wanted.as_bytes())?;
        let info: InfoLayout = starts_with(&reply.written)?;
        let has_capabilities = info.flags.get() & INFO_CAPABILITIES != 0;
        let first = info.cap_offset.get() as usize;
        let capability = match has_capabilities {
            true => Some(capability(self.abi, &reply.written, first)?),
            false => None,
        };
        Ok(Info {
            page_sizes: info.iova_pgsizes.get(),
            capability,
        })
    }
}

fn capability(abi: Abi, written: &[u8], at: usize) -> Result<Capability, ClientError> {
    let bytes = written.get(at..).ok_or(ClientError::Answer)?;
    match abi {
        Abi::V1 => {
            let told: NestingCapabilityV1 = starts_with(bytes)?;
            if told.id.get() != CAPABILITY_V1 {
                return Err(ClientError::Answer);
            }
            Ok(Capability::V1 {
                nesting: told.nesting_capabilities.get(),
                formats: told.stage1_formats.get(),
            })
        }
        Abi::V7 => {
            let told: NestingCapabilityV7 = starts_with(bytes)?;
            if told.id.get() != CAPABILITY_V7 {
                return Err(ClientError::Answer);
            }
            Ok(Capability::V7 {
                format: told.format.get(),
                features: told.features.get(),
                address_bits: told.addr_width.get(),
                pasid_bits: told.pasid_bits.get(),
                cap: told.vtd_cap.get(),
                ecap: told.vtd_ecap.get(),
            })
        }
    }
}
