//! What a VMM asks of its container for PASIDs, with the conditions and errors that the proposed
//! requests have. Their bytes are in [`abi`](crate::abi).

use palisade_ioasid::{IoasidError, PasidRange};
use palisade_units::HostPasid;

use crate::{Container, VfioError};

/// Which of the two proposals of 2020 a client speaks. They differ in one error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abi {
    /// Version 1: a request without a domain is EFAULT.
    V1,
    /// Version 7: a request without a domain is EOPNOTSUPP.
    V7,
}

/// Whether a client chose nested translation, or PASIDs of the whole system, for its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nesting {
    /// It did not: it cannot ask for PASIDs.
    Off,
    /// It did.
    On,
}

/// A client's way to ask a container for PASIDs.
#[derive(Clone, Debug)]
pub struct PasidRequests {
    container: Container,
    abi: Abi,
    nesting: Nesting,
}

impl Container {
    /// The requests of a client that speaks one of the proposals.
    #[must_use]
    pub fn pasid_requests(&self, abi: Abi, nesting: Nesting) -> PasidRequests {
        PasidRequests {
            container: self.clone(),
            abi,
            nesting,
        }
    }
}

impl PasidRequests {
    /// Takes the lowest free PASID of a range, as [`Container::alloc_pasid`].
    ///
    /// # Errors
    /// [`VfioError::NestingOff`] (EOPNOTSUPP); EINVAL where the tenant is gone; [`VfioError::NoDomain`]
    /// while no function is attached (EFAULT in version 1, EOPNOTSUPP in version 7); then those of
    /// [`Container::alloc_pasid`].
    pub fn alloc(&self, range: PasidRange) -> Result<HostPasid, VfioError> {
        self.check()?;
        self.container.alloc_pasid(range)
    }

    /// Frees what the client's guest allocated in a range, as [`Container::free_range`].
    ///
    /// # Errors
    /// The first three of [`PasidRequests::alloc`]; EINVAL for an inverted range.
    pub fn free(&self, range: PasidRange) -> Result<u32, VfioError> {
        self.check()?;
        if range.min > range.max {
            return Err(IoasidError::InvalidRange { range }.into());
        }
        Ok(self.container.free_range(range))
    }

    /// Frees a PASID, as [`Container::free_pasid`].
    ///
    /// # Errors
    /// The first three of [`PasidRequests::alloc`]; those of [`Container::free_pasid`].
    pub fn free_one(&self, pasid: HostPasid) -> Result<(), VfioError> {
        self.check()?;
        self.container.free_pasid(pasid)
    }

    /// Whether the client may ask at all.
    pub(crate) fn check(&self) -> Result<(), VfioError> {
        if self.nesting == Nesting::Off {
            return Err(VfioError::NestingOff);
        }
        let set = self.container.set();
        if set.is_closed() {
            let tenant = set.tenant();
            return Err(IoasidError::Closed { tenant }.into());
        }
        if self.container.guest_bdfs().is_empty() {
            return Err(VfioError::NoDomain { abi: self.abi });
        }
        Ok(())
    }
}
