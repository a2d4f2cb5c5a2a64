//! The calls of an iommufd: objects by their ids, in the words of `linux/iommufd.h`.

pub mod devices;
pub mod page_queue;
pub mod tables;
pub mod virtual_units;

use std::sync::Mutex;

use palisade_container::{ClientError, IommufdClient};
use palisade_vfio::abi::iommufd::ObjectId;
use safer_ffi::prelude::*;

use crate::client::path;
use crate::error::{Failure, call, give_back, locked, needed};
use crate::functions::FunctionList;

/// A connection to a container socket that is an iommufd.
#[derive_ReprC(rename = "palisade_iommufd")]
#[repr(opaque)]
pub struct Iommufd {
    inner: Mutex<IommufdClient>,
}

/// Makes one call of the client.
fn with<T>(
    iommufd: Option<&Iommufd>,
    body: impl FnOnce(&mut IommufdClient) -> Result<T, ClientError>,
) -> Result<T, Failure> {
    let iommufd = needed(iommufd, "the iommufd")?;
    Ok(body(&mut *locked(&iommufd.inner)?)?)
}

/// Makes one call of the client that makes an object, and tells its id.
fn making(
    iommufd: Option<&Iommufd>,
    id: Option<Out<'_, u32>>,
    body: impl FnOnce(&mut IommufdClient) -> Result<ObjectId, ClientError>,
) -> Result<i32, Failure> {
    let id = needed(id, "where the id goes")?;
    id.write(with(iommufd, body)?.get());
    Ok(0)
}

/// Connects to the container socket at a path, as an iommufd. `*iommufd` is for `palisade_iommufd_disconnect` to take back; it
/// is null where this fails. The errors are those of `palisade_connect`.
#[ffi_export]
pub fn palisade_iommufd_connect(
    socket_path: Option<char_p::Ref<'_>>,
    iommufd: Option<Out<'_, Option<repr_c::Box<Iommufd>>>>,
) -> i32 {
    call(|| {
        let mut iommufd = needed(iommufd, "where the iommufd goes")?;
        iommufd.reborrow().write(None);
        let inner = Mutex::new(IommufdClient::connect(path(socket_path.as_ref())?)?);
        iommufd.write(Some(Box::new(Iommufd { inner }).into()));
        Ok(0)
    })
}

/// Ends a connection and gives the iommufd back: its devices are detached and closed, and its objects are gone. Null is
/// passed over.
#[ffi_export]
pub fn palisade_iommufd_disconnect(iommufd: Option<repr_c::Box<Iommufd>>) {
    give_back(iommufd);
}

/// Lists the functions that the VMM has or may have, as `palisade_functions` does. All of them may be bound.
#[ffi_export]
pub fn palisade_iommufd_functions(
    iommufd: Option<&Iommufd>,
    list: Option<Out<'_, Option<repr_c::Box<FunctionList>>>>,
) -> i32 {
    call(|| {
        let mut list = needed(list, "where the list goes")?;
        list.reborrow().write(None);
        let functions = with(iommufd, |client| client.functions())?;
        list.write(Some(Box::new(FunctionList::of(&functions)).into()));
        Ok(0)
    })
}

/// Destroys an object that nothing uses. A queue is used by its file, until that is given back. EINVAL; ENOENT, EBUSY.
#[ffi_export]
pub fn palisade_iommufd_destroy(iommufd: Option<&Iommufd>, id: u32) -> i32 {
    call(|| {
        with(iommufd, |client| client.destroy(ObjectId::new(id)))?;
        Ok(0)
    })
}
