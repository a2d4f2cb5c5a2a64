//! The requests of the proposed `/dev/ioasid`.

use safer_ffi::prelude::*;

use crate::client::{Client, host, range, with};
use crate::error::{call, needed};

/// How many bits a PASID has. EINVAL.
#[ffi_export]
pub fn palisade_ioasid_bits(client: Option<&Client>, bits: Option<Out<'_, u32>>) -> i32 {
    call(|| {
        let bits = needed(bits, "where the number of bits goes")?;
        bits.write(with(client, |client| client.ioasid_bits())?);
        Ok(0)
    })
}

/// Takes the lowest free PASID of a range, both ends included, without nesting and without a function. EINVAL, ENOSPC.
#[ffi_export]
pub fn palisade_ioasid_alloc(
    client: Option<&Client>,
    min: u32,
    max: u32,
    pasid: Option<Out<'_, u32>>,
) -> i32 {
    call(|| {
        let pasid = needed(pasid, "where the PASID goes")?;
        let taken = with(client, |client| client.ioasid_alloc(range(min, max)))?;
        pasid.write(taken.get());
        Ok(0)
    })
}

/// Frees a PASID of this VMM, however it was taken. EINVAL, ENOENT, EACCES.
#[ffi_export]
pub fn palisade_ioasid_free(client: Option<&Client>, pasid: u32) -> i32 {
    call(|| {
        let pasid = host(pasid)?;
        with(client, |client| client.ioasid_free(pasid))?;
        Ok(0)
    })
}
