use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
};

use anyhow::{Context, Result, bail, ensure};
use palisade_vfio_user::wire::{
    Capabilities, Command, HEADER_BYTES, Header, RegionAccess, Version, push_frame,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::registers::Registers;

/// What both servers cannot do with less of: one receive and one send for each message. It knows nothing but
/// a client's whole accesses to registers of eight bytes, one at a time, and takes no descriptors.
pub(crate) fn serve(listener: &UnixListener) -> Result<()> {
    let (mut stream, _) = listener.accept()?;
    let registers = Registers::new();
    let mut message = [0; 4096];
    let mut reply = Vec::new();
    agree(&mut stream, &mut message)?;
    loop {
        let len = stream.read(&mut message)?;
        if len == 0 {
            return Ok(());
        }
        answer(&registers, &message[..len], &mut reply)?;
        stream.write_all(&reply)?;
    }
}

fn agree(stream: &mut UnixStream, message: &mut [u8]) -> Result<()> {
    let len = stream.read(message)?;
    ensure!(len > HEADER_BYTES, "no version");
    let (header, _) = Header::read_from_prefix(message).ok().context("a header")?;
    let version = Version {
        major: 0.into(),
        minor: 0.into(),
    };
    let mut reply = Vec::new();
    let text = Capabilities::own(8).text();
    push_frame(
        &mut reply,
        Header::reply(&header),
        &[version.as_bytes(), &text],
    );
    Ok(stream.write_all(&reply)?)
}

fn answer(registers: &Registers, message: &[u8], reply: &mut Vec<u8>) -> Result<()> {
    let (header, rest) = Header::read_from_prefix(message).ok().context("a header")?;
    let (access, data) = RegionAccess::read_from_prefix(rest)
        .ok()
        .context("an access")?;
    let at = access.offset_bytes.get();
    reply.clear();
    let done = match Command::from_raw(header.command.get()) {
        Some(Command::RegionRead) => {
            let mut value = [0; 8];
            let done = registers.read(at, &mut value);
            let parts = [access.as_bytes(), &value];
            push_frame(reply, Header::reply(&header), &parts);
            done
        }
        Some(Command::RegionWrite) => {
            let done = registers.write(at, data);
            push_frame(reply, Header::reply(&header), &[access.as_bytes()]);
            done
        }
        _ => bail!("more than registers is asked for"),
    };
    done.context("a register")
}
