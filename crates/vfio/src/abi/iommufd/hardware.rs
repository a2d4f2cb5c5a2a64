//! IOMMU_GET_HW_INFO.

use zerocopy::IntoBytes;

use super::argument::{Message, known_flags, reserved};
use super::layout::{HW_INFO_INPUT_TYPE, HW_INFO_NONE, HW_INFO_VTD, HwInfo, HwInfoVtd};
use super::{Iommufd, IommufdError, ObjectId};
use crate::abi::Answer;

pub(super) fn info(session: &Iommufd, message: Message<'_>) -> Result<Answer, IommufdError> {
    let mut request: HwInfo = message.read()?;
    known_flags(request.flags.get(), HW_INFO_INPUT_TYPE)?;
    reserved(request.reserved.iter().copied().map(u32::from).sum())?;
    session
        .objects()
        .device(ObjectId::new(request.dev_id.get()))?;
    let nested = session.vmm().nested;
    let known = if nested.has_format() {
        HW_INFO_VTD
    } else {
        HW_INFO_NONE
    };
    let wanted = match request.flags.get() {
        0 => HW_INFO_NONE,
        _ => request.data_type.get(),
    };
    if wanted != HW_INFO_NONE && wanted != known {
        return Err(IommufdError::NotOffered("information of that type"));
    }
    let told = HwInfoVtd {
        cap_reg: nested.cap.into(),
        ecap_reg: nested.ecap.into(),
        ..HwInfoVtd::default()
    };
    let told = if known == HW_INFO_VTD {
        told.as_bytes()
    } else {
        &[]
    };
    let (at, room) = (request.data_uptr.get(), u64::from(request.data_len.get()));
    request.data_len = u32::try_from(told.len()).unwrap_or(u32::MAX).into();
    request.data_type = known.into();
    let bits = if nested.has_pasids() {
        nested.pasid_bits
    } else {
        0
    };
    request.out_max_pasid_log2 = u8::try_from(bits).unwrap_or(u8::MAX);
    request.out_capabilities = 0.into();
    message.written_with(&request, (at, room), told)
}
