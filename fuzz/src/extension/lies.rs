//! Messages that a hostile side makes up, from what it was asked and from nothing.

use arbitrary::{Result, Unstructured};
use palisade_units::{Access, Gpa, PAGE_BYTES};
use palisade_vfio_user::Errno;
use palisade_vfio_user::wire::pasid::{PageResponse, Ranges, Translation};
use palisade_vfio_user::wire::{Command, Header, ReplyWanted};

use super::answer::Question;
use super::values::{
    address, command, len_bytes, message, one_of, pasid, raw_tag, some_bytes, words,
};

/// An answer that fits.
fn fitting(to: &Question, input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut payload = to.payload.get(..24).unwrap_or_default().to_vec();
    match to.command {
        Command::PasidDmaRead => {
            let len = payload.len() + usize::try_from(to.count()).unwrap_or(0);
            payload.resize(len, input.arbitrary()?);
            Ok(payload)
        }
        Command::PasidTranslate => {
            let count = one_of(&[1, 0, 2, 600], input)?;
            let may_keep: bool = input.arbitrary()?;
            let Some(wanted) = to.wanted() else {
                return Ok(Vec::new());
            };
            let page = |n: u64| {
                let at = wanted.at.page_base().checked_add(n * PAGE_BYTES)?;
                at.checked_add(PAGE_BYTES - 1)?;
                Some(Translation {
                    at,
                    len_bytes: PAGE_BYTES,
                    permissions: Access::READ,
                    translated: may_keep.then_some(Gpa::new(n * PAGE_BYTES)),
                })
            };
            let pages = (0..count).map_while(page);
            let pages = pages.take(wanted.max_ranges as usize).collect();
            Ok(Ranges::new(pages, &wanted).map_or(Vec::new(), |it| it.message()))
        }
        Command::PasidPageRequest => {
            let code = one_of(&[0, 1, 15], input)?;
            Ok(words(&[to.group().unwrap_or(0), code]))
        }
        _ => Ok(payload),
    }
}

/// An answer to one of these, or what looks like one.
pub(super) fn answer(unanswered: &[Question], input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let how = input.int_in_range(0..=15)?;
    let which: u8 = input.arbitrary()?;
    let Some(to) = unanswered.get(usize::from(which) % unanswered.len().max(1)) else {
        // Of what nobody asked.
        let number = one_of(
            &[0x8001, 0x8002, 0x8003, 0x8004, 0x8005, 12, 1, 0x9000],
            input,
        )?;
        let header = command(number, input)?;
        return Ok(message(Header::reply(&header), &[]));
    };
    let mut header = Header::reply(&to.header);
    let mut payload = fitting(to, input)?;
    match how {
        8 | 9 => {
            let errno = one_of(&[13_u32, 14, 0, 95, 4095, 4096, u32::MAX], input)?;
            header = Header::refusal(&to.header, Errno::INVAL);
            header.error = errno.into();
            if how == 8 {
                payload.clear();
            }
        }
        10 => {
            payload.pop();
        }
        11 if !payload.is_empty() => {
            let at = usize::from(input.arbitrary::<u16>()?) % payload.len();
            payload[at] = input.arbitrary()?;
        }
        12 => payload.extend(some_bytes(input)?),
        13 => header.message_id = (to.header.message_id.get() ^ 1).into(),
        14 => header.command = one_of(&[0x8001_u16, 0x8002, 0x8003, 0x8004, 12], input)?.into(),
        15 => return Ok([message(header, &[&payload]), message(header, &[&payload])].concat()),
        _ => {}
    }
    Ok(message(header, &[&payload]))
}

pub(super) fn invalidation(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let header = command(Command::PasidInvalidate.raw(), input)?;
    let raw = pasid(input)?;
    let flags: u8 = input.arbitrary()?;
    let flags = u32::from(flags & 7) | u32::from(flags & 0x80) << 24;
    let (at, len) = if flags & 2 != 0 {
        (0, 0)
    } else {
        (address(input)?, len_bytes(input)?)
    };
    let range = [at, len].map(u64::to_ne_bytes).concat();
    let raw = if flags >> 31 == 0 { 0 } else { raw };
    Ok(message(header, &[&words(&[raw, flags]), &range]))
}

pub(super) fn container_request(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let header = command(Command::ContainerRequest.raw(), input)?;
    let number = u32::from(input.arbitrary::<u8>()?);
    let reserved = u32::from(input.ratio(1, 16)?);
    let len = one_of(&[8, 0, 100, 4080, 4081], input)?;
    let argument = vec![0x5a; len];
    Ok(message(header, &[&words(&[number, reserved]), &argument]))
}

/// What a server asks, well-formed but odd.
pub(super) fn question(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let kind = input.int_in_range(0..=3_u16)?;
    let header = command(0x8001 + kind, input)?;
    if kind == 3 {
        return pages(header, input);
    }
    let tag = words(&raw_tag(input)?);
    let at = address(input)?.to_ne_bytes();
    let rest = match kind {
        0 => len_bytes(input)?.to_ne_bytes().to_vec(),
        1 => {
            let len = len_bytes(input)?;
            let data = vec![0x3c; usize::try_from(len.min(0x1000)).unwrap_or(0)];
            [&len.to_ne_bytes()[..], &data].concat()
        }
        _ => {
            let len = len_bytes(input)?.to_ne_bytes();
            let max = one_of(&[1, 2, 512, 0, 513], input)?;
            let reserved = u32::from(input.ratio(1, 16)?);
            [&len[..], &words(&[max, reserved])].concat()
        }
    };
    Ok(message(header, &[&tag, &at, &rest]))
}

fn pages(header: Header, input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let [raw, access] = raw_tag(input)?;
    let group = one_of(&[0, 1, 2, 3, 511, 512], input)?;
    let count = one_of(&[1, 2, 64, 0, 65], input)?;
    let at = address(input)?;
    let page = [&at.to_ne_bytes()[..], &words(&[access & 0x1f, 0])].concat();
    let head = words(&[raw, access & 1 << 31, group, count]);
    let pages = page.repeat(count as usize);
    Ok(message(header, &[&head, &pages]))
}

/// Any command at all.
pub(super) fn any_command(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const NUMBERS: [u16; 14] = [
        13, 4, 5, 7, 2, 3, 16, 9, 1, 12, 0x8003, 0x8006, 0x8007, 0x7fff,
    ];
    let header = command(one_of(&NUMBERS, input)?, input)?;
    let payload = some_bytes(input)?;
    Ok(message(header, &[&payload]))
}

/// The address and the answer of a group that a VMM answers late.
pub(super) fn late_answer(input: &mut Unstructured<'_>) -> Result<(u16, PageResponse)> {
    use PageResponse as R;
    let group = one_of(&[0, 1, 2, 3, 511, 512], input)?;
    let response = one_of(&[R::Success, R::InvalidRequest, R::ResponseFailure], input)?;
    Ok((group, response))
}

/// A write into memory by a server.
pub(super) fn memory_write(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut header = command(Command::DmaWrite.raw(), input)?;
    let at = address(input)?.to_ne_bytes();
    let data = some_bytes(input)?;
    let count = data.len() as u64 + u64::from(input.ratio(1, 16)?);
    if input.ratio(1, 16)? {
        header = Header::command(0, Command::DmaRead, ReplyWanted::Yes);
    }
    Ok(message(header, &[&at, &count.to_ne_bytes(), &data]))
}
