//! What a VMM asks of an iommufd, with answers to page requests beside it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use arbitrary::Unstructured;
use palisade_vfio::abi::iommufd::Iommufd;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::calls::{self, Call, words};
use crate::requests::{Device, STEPS, all_is_given_back, beside, world};

/// The files of queues that the client has.
type Files = Vec<Arc<OwnedFd>>;

pub(crate) fn requests_iommufd(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let world = world();
    let (vmm, function) = world.vmm();
    let session = vmm.connect_iommufd();
    let mut device = Device::of(function);
    let mut files = Files::new();
    let opening = calls::opening(&mut input).unwrap_or(0);
    let first = |step| calls::first_of_iommufd(&world, step);
    for call in (0..opening).filter_map(first) {
        ask(&session, &mut files, call);
    }
    for _ in 0..STEPS {
        let step = beside(&world, &mut device, &mut input)
            .and_then(|()| answer(&session, &mut files, &mut input))
            .and_then(|()| calls::of_iommufd(&world, &mut input))
            .map(|call| ask(&session, &mut files, call));
        if step.is_err() {
            break;
        }
    }
    world.check();
    drop(session);
    all_is_given_back(&world, &device);
}

fn ask(session: &Iommufd, files: &mut Files, call: Call) {
    let answer = session.ioctl(call.on, call.number, &call.argument, call.descriptors);
    match answer {
        Ok(answer) => files.extend(answer.descriptors),
        // No more is told than was asked for.
        Err(refused) => assert!(refused.written.len() <= call.argument.len()),
    }
}

/// The client reads or writes a file, or closes it.
fn answer(
    session: &Iommufd,
    files: &mut Files,
    input: &mut Unstructured<'_>,
) -> arbitrary::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let file = input.choose_index(files.len())?;
    match input.int_in_range(0..=7)? {
        0 => {
            files.swap_remove(file);
        }
        1 => {
            let _ = recv(&*files[file], &mut [0; 64], RecvFlags::DONTWAIT);
        }
        2 => {
            let len = input.int_in_range(0..=64)?;
            let bytes = input.bytes(len.min(input.len()))?;
            let _ = send(
                &*files[file],
                bytes,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            );
        }
        3 | 4 => {
            let answer = words([input.int_in_range(0..=8)?, input.int_in_range(0..=2)?]);
            let _ = send(
                &*files[file],
                &answer,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            );
        }
        _ => {}
    }
    for queue in session.queues() {
        session.serve(&queue);
    }
    Ok(())
}
