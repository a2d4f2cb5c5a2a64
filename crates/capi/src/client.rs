//! A connection.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;

use palisade_container::ClientError;
use palisade_ioasid::PasidRange;
use palisade_units::{GuestPasid, HostPasid};
use palisade_vfio::Abi;
use safer_ffi::prelude::*;

use crate::error::{Failure, call, give_back, locked, needed};

/// The first form of the requests.
#[ffi_export]
pub const PALISADE_ABI_V1: u32 = 1;
/// The last form of the requests.
#[ffi_export]
pub const PALISADE_ABI_V7: u32 = 7;
/// In the place of a PASID: none.
#[ffi_export]
pub const PALISADE_NO_PASID: u32 = u32::MAX;

/// A connection to a container socket.
#[derive_ReprC(rename = "palisade_client")]
#[repr(opaque)]
pub struct Client {
    inner: Mutex<palisade_container::Client>,
}

/// Makes one call of the client.
pub(crate) fn with<T>(
    client: Option<&Client>,
    body: impl FnOnce(&mut palisade_container::Client) -> Result<T, ClientError>,
) -> Result<T, Failure> {
    let client = needed(client, "the client")?;
    Ok(body(&mut *locked(&client.inner)?)?)
}

pub(crate) fn host(pasid: u32) -> Result<HostPasid, Failure> {
    HostPasid::new(pasid).map_err(|error| Failure::invalid(error.to_string()))
}

/// A guest's PASID, or none.
pub(crate) fn guest(pasid: u32) -> Result<Option<GuestPasid>, Failure> {
    if pasid == PALISADE_NO_PASID {
        return Ok(None);
    }
    let pasid = GuestPasid::new(pasid);
    Ok(Some(
        pasid.map_err(|error| Failure::invalid(error.to_string()))?,
    ))
}

pub(crate) const fn range(min: u32, max: u32) -> PasidRange {
    PasidRange { min, max }
}

/// Where a socket is.
pub(crate) fn path<'a>(text: Option<&'a char_p::Ref<'_>>) -> Result<&'a Path, Failure> {
    let text = needed(text, "the path of the socket")?;
    Ok(Path::new(OsStr::from_bytes(text.to_bytes())))
}

/// Connects to the container socket at a path, to speak one form of the requests: `PALISADE_ABI_V1` or `PALISADE_ABI_V7`.
/// `*client` is for `palisade_disconnect` to take back; it is null where this fails.
///
/// EINVAL; ENOENT, ECONNREFUSED and EACCES where nobody is there or one may not connect; ECONNRESET where the server
/// does not let this user in; EPROTONOSUPPORT where it speaks another version.
#[ffi_export]
pub fn palisade_connect(
    socket_path: Option<char_p::Ref<'_>>,
    abi: u32,
    client: Option<Out<'_, Option<repr_c::Box<Client>>>>,
) -> i32 {
    call(|| {
        let mut client = needed(client, "where the client goes")?;
        client.reborrow().write(None);
        let path = path(socket_path.as_ref())?;
        let abi = match abi {
            PALISADE_ABI_V1 => Abi::V1,
            PALISADE_ABI_V7 => Abi::V7,
            other => {
                return Err(Failure::invalid(format!(
                    "there is no version {other} of the requests"
                )));
            }
        };
        let inner = Mutex::new(palisade_container::Client::connect(path, abi)?);
        client.write(Some(Box::new(Client { inner }).into()));
        Ok(0)
    })
}

/// Ends a connection and gives the client back. With the last one of a VMM, the host takes back all PASIDs, functions
/// and memory. Null is passed over.
#[ffi_export]
pub fn palisade_disconnect(client: Option<repr_c::Box<Client>>) {
    give_back(client);
}

/// Returns which form of the requests a client speaks: 1 or 7. EINVAL.
#[ffi_export]
pub fn palisade_abi(client: Option<&Client>) -> i32 {
    call(|| {
        let abi = with(client, |client| Ok(client.abi()))?;
        Ok(match abi {
            Abi::V1 => 1,
            Abi::V7 => 7,
        })
    })
}
