//! The server beside that of the published crate `vfio_user` 0.1.7: round trips, posted and queued messages,
//! memory, and what waiting for a message costs.
//!
//! Each server has a thread of its own at a socket in a folder. The client is the same for both, and as little as a
//! client can be: it sends bytes and takes bytes, so that servers are compared. Behind both are the same registers
//! of eight bytes, which do nothing, and the same room for the client's memory. Ours judges every frame, range and
//! descriptor before it acts on it; the peer's does not, and a client can end it or bring it out of step.
//!
//! `…_one_core`: client and server are bound to one processor, so that each message is a switch from one to the
//! other and back, and the server sleeps between two. `…_one_core_cpu` is the processor time of both ends together,
//! which is the same without what other programs did on that processor meanwhile. `…_two_cores`: each is bound to
//! one of its own, and the figure is mostly that of waking up a processor, which another program's work on it makes
//! longer at will. There ours looks at its socket for up to 30 µs before it sleeps, if that has paid, which it
//! never does on one core; `…_polling_client` is a client that does so too, without end, as a driver does that
//! waits for a register.
//!
//! `posted_…`: writes without a reply, each its own send, up to a read that is answered when all are done.
//! `64_queued`: 64 messages in one send, of which ours takes as many as there are at a time and answers them
//! together, while the peer's takes each in two or three parts. Goals are for a sleeping server on one core, and
//! for queued messages. A write's goal is that of a read, though the peer answers a read in two parts and a write
//! in one, and most of what is left is the two switches, which are the same for both.
//!
//! `…_beside_bare`: ours beside a loop that does nothing but one receive and one send for each message, takes no
//! descriptors and judges nothing. No server that sleeps is quicker, so what the loop is quicker than the peer's is the
//! most that a ratio on one core can be: some 1.7 for reads, but 1.3 for writes, which is why their goal is out of reach.
//!
//! `dma_map_and_unmap`: a mebibyte comes by its descriptor and is taken back, in two round trips; most of it is the
//! kernel's mapping and unmapping, the same for both.
//!
//! `cpu_…` is the processor time that the server's thread uses for each read, as it tells in a register: without a
//! pause, with pauses of 20 and 50 µs, and with sleeps of 1 ms in between. Beyond what the message itself takes it
//! is what looking costs. Without a pause ours uses less than a server that sleeps, since it neither falls asleep
//! nor is woken up; at 20 µs it looks all the time, and so uses all of the time that the peer leaves it; at 50 µs
//! one look in vain is followed by up to 1,024 sleeps without one; and at 1 ms it never looks.
//!
//! Two runs on a virtual machine of two processors, on which others worked at the same time (load 7 to 8): a read
//! on one core 1.57 and 1.72 times the peer's rate, a write 1.24 and 1.33, which misses its goal; 64 queued
//! messages 31 to 46 times; the processor time for each read without a pause 4.3 and 4.5 µs beside the peer's 8.9
//! and 9.5, at 20 µs 25 beside 14 to 16, at 50 µs and at 1 ms as much as the peer's.
//!
//! What is not included: descriptors of interrupts, long accesses, several connections at a time.

mod bare;
mod client;
mod cores;
mod ours;
mod peer;
mod registers;

use std::{
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use palisade_benches::{Contender, Effort, Options, Report, Unit, medians};
use palisade_memory::SharedMemory;
use palisade_vfio_user::wire::ReplyWanted;

use client::{Client, UntilReply, read_of, write_of};
use cores::{Cores, Placement};
use registers::{CPU_TIME_AT, thread_time_ns};

const PEER: &str = "vfio_user 0.1.7";
const BARE: &str = "bare loop";
/// A register.
const AT: u64 = 0x40;
/// How many messages are sent together.
const QUEUED: u16 = 64;

/// Whose server it is.
#[derive(Clone, Copy, Debug)]
enum Side {
    Ours,
    Peer,
    /// Nobody's: what no server can do with less of.
    Bare,
}

/// What is measured of a connection: what one operation took, in nanoseconds.
type Measure = fn(&mut Client, usize) -> Result<f64>;

/// A line of the report.
struct Line {
    name: &'static str,
    beside: Side,
    placement: Placement,
    measure: Measure,
    operations: usize,
    goal: Option<f64>,
}

const LINES: &[Line] = &[
    Line {
        name: "read_one_core",
        beside: Side::Peer,
        placement: Placement::OneCore,
        measure: reads,
        operations: 2000,
        goal: Some(1.5),
    },
    Line {
        name: "write_one_core",
        beside: Side::Peer,
        placement: Placement::OneCore,
        measure: writes,
        operations: 2000,
        goal: Some(1.5),
    },
    Line {
        name: "read_one_core_beside_bare",
        beside: Side::Bare,
        placement: Placement::OneCore,
        measure: reads,
        operations: 2000,
        goal: None,
    },
    Line {
        name: "write_one_core_beside_bare",
        beside: Side::Bare,
        placement: Placement::OneCore,
        measure: writes,
        operations: 2000,
        goal: None,
    },
    Line {
        name: "read_one_core_cpu",
        beside: Side::Peer,
        placement: Placement::OneCore,
        measure: cpu_of_reads,
        operations: 2000,
        goal: None,
    },
    Line {
        name: "write_one_core_cpu",
        beside: Side::Peer,
        placement: Placement::OneCore,
        measure: cpu_of_writes,
        operations: 2000,
        goal: None,
    },
    Line {
        name: "read_two_cores",
        beside: Side::Peer,
        placement: Placement::TwoCores,
        measure: reads,
        operations: 2000,
        goal: None,
    },
    Line {
        name: "write_two_cores",
        beside: Side::Peer,
        placement: Placement::TwoCores,
        measure: writes,
        operations: 2000,
        goal: None,
    },
    Line {
        name: "read_two_cores_polling_client",
        beside: Side::Peer,
        placement: Placement::TwoCores,
        measure: polled_reads,
        operations: 2000,
        goal: None,
    },
    Line {
        name: "posted_write_one_core",
        beside: Side::Peer,
        placement: Placement::OneCore,
        measure: posted_writes,
        operations: 8192,
        goal: None,
    },
    Line {
        name: "posted_write_two_cores",
        beside: Side::Peer,
        placement: Placement::TwoCores,
        measure: posted_writes,
        operations: 8192,
        goal: None,
    },
    Line {
        name: "read_64_queued_one_core",
        beside: Side::Peer,
        placement: Placement::OneCore,
        measure: queued_reads,
        operations: 16_384,
        goal: Some(8.0),
    },
    Line {
        name: "write_64_queued_one_core",
        beside: Side::Peer,
        placement: Placement::OneCore,
        measure: queued_writes,
        operations: 16_384,
        goal: Some(8.0),
    },
    Line {
        name: "read_64_queued_two_cores",
        beside: Side::Peer,
        placement: Placement::TwoCores,
        measure: queued_reads,
        operations: 16_384,
        goal: None,
    },
    Line {
        name: "dma_map_and_unmap_one_core",
        beside: Side::Peer,
        placement: Placement::OneCore,
        measure: maps_and_unmaps,
        operations: 500,
        goal: None,
    },
    Line {
        name: "cpu_busy_two_cores",
        beside: Side::Peer,
        placement: Placement::TwoCores,
        measure: cpu_without_pause,
        operations: 2000,
        goal: None,
    },
    Line {
        name: "cpu_20us_apart_two_cores",
        beside: Side::Peer,
        placement: Placement::TwoCores,
        measure: cpu_20_us_apart,
        operations: 400,
        goal: None,
    },
    Line {
        name: "cpu_50us_apart_two_cores",
        beside: Side::Peer,
        placement: Placement::TwoCores,
        measure: cpu_50_us_apart,
        operations: 400,
        goal: None,
    },
    Line {
        name: "cpu_1ms_apart_two_cores",
        beside: Side::Peer,
        placement: Placement::TwoCores,
        measure: cpu_1_ms_apart,
        operations: 40,
        goal: None,
    },
];

/// Nanoseconds for each of so many.
fn each(nanoseconds: f64, operations: usize) -> Result<f64> {
    Ok(nanoseconds / f64::from(u32::try_from(operations)?))
}

fn timed(operations: usize, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    run()?;
    each(start.elapsed().as_secs_f64() * 1e9, operations)
}

fn reads(client: &mut Client, operations: usize) -> Result<f64> {
    let mut message = Vec::new();
    read_of(&mut message, 7, AT);
    let figure = timed(operations, || {
        (0..operations).try_for_each(|_| client.read(&message, 1))
    })?;
    client.all_done(1)?;
    Ok(figure)
}

fn polled_reads(client: &mut Client, operations: usize) -> Result<f64> {
    client.until_reply(UntilReply::Polls);
    reads(client, operations)
}

fn writes(client: &mut Client, operations: usize) -> Result<f64> {
    let mut message = Vec::new();
    write_of(&mut message, 8, ReplyWanted::Yes, AT, 0x1234);
    let figure = timed(operations, || {
        (0..operations).try_for_each(|_| client.write(&message, 1))
    })?;
    client.all_done(1)?;
    ensure!(client.value_at(AT)? == 0x1234, "nothing was written");
    Ok(figure)
}

fn cpu_of_reads(client: &mut Client, operations: usize) -> Result<f64> {
    cpu_of_both(client, operations, reads)
}

fn cpu_of_writes(client: &mut Client, operations: usize) -> Result<f64> {
    cpu_of_both(client, operations, writes)
}

/// The processor time of both ends, which share a processor.
fn cpu_of_both(client: &mut Client, operations: usize, measure: Measure) -> Result<f64> {
    let server = client.value_at(CPU_TIME_AT)?;
    let own = thread_time_ns();
    measure(client, operations)?;
    let own = thread_time_ns() - own;
    let server = client.value_at(CPU_TIME_AT)? - server;
    let used = Duration::from_nanos(own + server);
    each(used.as_secs_f64() * 1e9, operations)
}

/// Each by itself, and at the end a read that is answered when all are done.
fn posted_writes(client: &mut Client, operations: usize) -> Result<f64> {
    let (mut message, mut last) = (Vec::new(), Vec::new());
    write_of(&mut message, 9, ReplyWanted::No, AT, 0x5678);
    read_of(&mut last, 10, AT);
    let figure = timed(operations, || {
        for _ in 1..operations {
            client.post(&message)?;
        }
        client.read(&last, 1)
    })?;
    client.all_done(1)?;
    ensure!(client.last_value()? == 0x5678, "nothing was written");
    Ok(figure)
}

fn queued_reads(client: &mut Client, operations: usize) -> Result<f64> {
    let mut messages = Vec::new();
    (0..QUEUED).for_each(|id| read_of(&mut messages, id, AT + 8 * u64::from(id)));
    let together = usize::from(QUEUED);
    let figure = timed(operations, || {
        (0..operations / together).try_for_each(|_| client.read(&messages, together))
    })?;
    client.all_done(together)?;
    Ok(figure)
}

fn queued_writes(client: &mut Client, operations: usize) -> Result<f64> {
    let mut messages = Vec::new();
    (0..QUEUED).for_each(|id| write_of(&mut messages, id, ReplyWanted::Yes, AT, id.into()));
    let together = usize::from(QUEUED);
    let figure = timed(operations, || {
        (0..operations / together).try_for_each(|_| client.write(&messages, together))
    })?;
    client.all_done(together)?;
    ensure!(client.value_at(AT)? == 63, "not all was written");
    Ok(figure)
}

/// A mebibyte, which the server maps into its own memory and takes out of it again.
fn maps_and_unmaps(client: &mut Client, operations: usize) -> Result<f64> {
    const LEN: u64 = 1 << 20;
    let memory = SharedMemory::create("mapped", LEN)?;
    let backing = memory.backing();
    timed(operations, || {
        (0..operations).try_for_each(|_| client.map_and_unmap(LEN, LEN, backing.fd.as_fd()))
    })
}

/// The processor time of the server for each read, with a pause between two.
fn cpu(client: &mut Client, operations: usize, pause: impl Fn()) -> Result<f64> {
    let before = client.value_at(CPU_TIME_AT)?;
    for _ in 0..operations {
        pause();
        client.value_at(AT)?;
    }
    let used = client.value_at(CPU_TIME_AT)? - before;
    each(Duration::from_nanos(used).as_secs_f64() * 1e9, operations)
}

fn cpu_without_pause(client: &mut Client, operations: usize) -> Result<f64> {
    client.until_reply(UntilReply::Polls);
    cpu(client, operations, || {})
}

fn cpu_20_us_apart(client: &mut Client, operations: usize) -> Result<f64> {
    client.until_reply(UntilReply::Polls);
    cpu(client, operations, || spin(Duration::from_micros(20)))
}

fn cpu_50_us_apart(client: &mut Client, operations: usize) -> Result<f64> {
    client.until_reply(UntilReply::Polls);
    cpu(client, operations, || spin(Duration::from_micros(50)))
}

/// A sleep this short would be a long one.
fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn cpu_1_ms_apart(client: &mut Client, operations: usize) -> Result<f64> {
    cpu(client, operations, || {
        thread::sleep(Duration::from_millis(1));
    })
}

/// A connection to a server on a thread of its own, which ends with it.
fn connect(side: Side, cores: Cores, placement: Placement) -> Result<Client> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path)?;
    thread::spawn(move || {
        cores.pin_server(placement)?;
        match side {
            Side::Ours => ours::serve(&listener),
            Side::Peer => peer::serve(listener),
            Side::Bare => bare::serve(&listener),
        }
    });
    let stream = UnixStream::connect(&path).context("connecting to a server")?;
    Client::new(stream)
}

fn contender<'a>(
    side: Side,
    cores: Cores,
    line: &'a Line,
    effort: Effort,
) -> Result<Contender<'a>> {
    let mut client = connect(side, cores, line.placement)?;
    let operations = effort.operations(line.operations);
    Ok(Box::new(move || (line.measure)(&mut client, operations)))
}

fn main() -> Result<()> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        return Ok(());
    };
    let effort = options.effort;
    let cores = Cores::new()?;
    cores.pin_client()?;
    let mut report = Report::new("vfio_user", effort.rounds());
    for line in LINES {
        if line.placement == Placement::TwoCores && !cores.are_two() {
            continue;
        }
        let mut contenders = [
            contender(Side::Ours, cores, line, effort)?,
            contender(line.beside, cores, line, effort)?,
        ];
        let figures = medians(effort.rounds(), &mut contenders)?;
        let both = (figures[0], figures[1]);
        let beside = match line.beside {
            Side::Bare => BARE,
            Side::Ours | Side::Peer => PEER,
        };
        match line.goal {
            Some(goal) => report.add(line.name, Unit::Nanoseconds, both, beside, goal),
            None => report.add_without_goal(line.name, Unit::Nanoseconds, both, beside),
        }
    }
    report.print(options.output)
}
