//! A toy function, and a server for it on a thread of its own.
#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod guest;
pub(crate) mod raw;

use std::{
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use palisade_memory::GuestMemory;
use palisade_pci::{AccessError, Bar, Function, Interrupt, Migration, MigrationError};
use palisade_vfio_user::{Client, Connection, ConnectionError, End, Errno, PasidOffer, PeerHandle};

pub(crate) const BAR0_BYTES: u64 = 0x4000;
/// BAR 2 takes accesses of eight bytes and no others.
pub(crate) const BAR2_BYTES: u64 = 0x2_0000;
pub(crate) const VECTORS: u16 = 24;
/// Writing a vector number to BAR 0 here fires the vector.
pub(crate) const FIRE_AT: u64 = 0x3ff8;

/// How long the state of a [`Toy`] is, so that it goes in pieces: BAR 0 once, what BAR 2 has counted, and filling.
pub(crate) const STATE_BYTES: usize = 200_000;

/// What a [`Toy`] that can migrate was told to do, and what it is to fail at.
#[derive(Default)]
pub(crate) struct Moves {
    pub(crate) told: Mutex<Vec<&'static str>>,
    pub(crate) fails: Mutex<Option<(&'static str, Errno)>>,
    /// What waits while it is stopped.
    waiting: Mutex<Option<u64>>,
}

impl Moves {
    /// What it was told since this was asked last.
    pub(crate) fn told(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.told.lock().unwrap())
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.waiting.lock().unwrap().is_some()
    }

    fn tell(&self, what: &'static str) -> Result<(), MigrationError> {
        self.told.lock().unwrap().push(what);
        match *self.fails.lock().unwrap() {
            Some((fails, errno)) if fails == what => Err(MigrationError::new(errno, what)),
            _ => Ok(()),
        }
    }
}

/// Memory of bytes behind BAR 0 and in configuration space; BAR 2 counts what is written.
pub(crate) struct Toy {
    pub(crate) moves: Option<Moves>,
    pub(crate) bar0: Mutex<Vec<u8>>,
    pub(crate) config: Mutex<Vec<u8>>,
    pub(crate) vectors: Mutex<Vec<Option<Arc<dyn Interrupt>>>>,
    pub(crate) written: AtomicU64,
    pub(crate) resets: AtomicU64,
}

impl Toy {
    pub(crate) fn new() -> Arc<Self> {
        Self::with(None)
    }

    /// One that can migrate.
    pub(crate) fn movable() -> Arc<Self> {
        Self::with(Some(Moves::default()))
    }

    pub(crate) fn moves(&self) -> &Moves {
        self.moves.as_ref().unwrap()
    }

    fn with(moves: Option<Moves>) -> Arc<Self> {
        Arc::new(Self {
            moves,
            bar0: Mutex::new(vec![0; BAR0_BYTES as usize]),
            config: Mutex::new((0..4096_u32).map(|n| (n % 251) as u8).collect()),
            vectors: Mutex::new(vec![None; VECTORS.into()]),
            written: AtomicU64::new(0),
            resets: AtomicU64::new(0),
        })
    }

    pub(crate) fn connected_vectors(&self) -> usize {
        self.vectors.lock().unwrap().iter().flatten().count()
    }

    pub(crate) fn fire(&self, vector: usize) {
        let interrupt = self.vectors.lock().unwrap()[vector].clone();
        if let Some(interrupt) = interrupt {
            interrupt.signal();
        }
    }
}

impl Function for Toy {
    fn bar_len_bytes(&self, bar: Bar) -> u64 {
        match bar {
            Bar::Bar0 => BAR0_BYTES,
            Bar::Bar2 => BAR2_BYTES,
            _ => 0,
        }
    }

    fn config_read(&self, offset: u16, into: &mut [u8]) {
        let start = usize::from(offset);
        into.copy_from_slice(&self.config.lock().unwrap()[start..start + into.len()]);
    }

    fn config_write(&self, offset: u16, from: &[u8]) {
        let start = usize::from(offset);
        self.config.lock().unwrap()[start..start + from.len()].copy_from_slice(from);
    }

    fn bar_read(&self, bar: Bar, offset_bytes: u64, into: &mut [u8]) -> Result<(), AccessError> {
        let start = offset_bytes as usize;
        if bar == Bar::Bar0 {
            into.copy_from_slice(&self.bar0.lock().unwrap()[start..start + into.len()]);
        } else {
            into.fill(0x5a);
        }
        Ok(())
    }

    fn bar_write(&self, bar: Bar, offset_bytes: u64, from: &[u8]) -> Result<(), AccessError> {
        let start = offset_bytes as usize;
        if bar == Bar::Bar0 {
            self.bar0.lock().unwrap()[start..start + from.len()].copy_from_slice(from);
            if offset_bytes == FIRE_AT {
                self.fire(from[0].into());
            }
            return Ok(());
        }
        let Ok(value) = from.try_into() else {
            return Err(AccessError::Width {
                bar,
                offset_bytes,
                len_bytes: from.len() as u64,
            });
        };
        let value = u64::from_le_bytes(value);
        if let Some(moves) = &self.moves
            && let Some(waiting) = &mut *moves.waiting.lock().unwrap()
        {
            *waiting += value;
            return Ok(());
        }
        self.written.fetch_add(value, Ordering::Relaxed);
        Ok(())
    }

    fn msix_vectors(&self) -> u16 {
        VECTORS
    }

    fn set_vector(&self, vector: u16, interrupt: Option<Arc<dyn Interrupt>>) {
        self.vectors.lock().unwrap()[usize::from(vector)] = interrupt;
    }

    fn reset(&self) {
        self.bar0.lock().unwrap().fill(0);
        self.resets.fetch_add(1, Ordering::Relaxed);
        if let Some(moves) = &self.moves {
            moves.tell("reset").unwrap();
            self.written.store(0, Ordering::Relaxed);
            if let Some(waiting) = &mut *moves.waiting.lock().unwrap() {
                *waiting = 0;
            }
        }
    }

    fn migration(&self) -> Option<&dyn Migration> {
        self.moves.as_ref().map(|_| self as &dyn Migration)
    }
}

impl Migration for Toy {
    fn stop(&self) {
        self.moves().tell("stop").unwrap();
        self.moves().waiting.lock().unwrap().get_or_insert(0);
    }

    fn start(&self) -> Result<(), MigrationError> {
        self.moves().tell("start")?;
        let waiting = self.moves().waiting.lock().unwrap().take();
        self.written
            .fetch_add(waiting.unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>, MigrationError> {
        self.moves().tell("save")?;
        let mut state = self.bar0.lock().unwrap().clone();
        let waiting = self.moves().waiting.lock().unwrap().unwrap();
        for number in [self.written.load(Ordering::Relaxed), waiting] {
            state.extend(number.to_le_bytes());
        }
        state.resize(STATE_BYTES, 0xa5);
        Ok(state)
    }

    fn restore(&self, state: &[u8]) -> Result<(), MigrationError> {
        self.moves().tell("restore")?;
        if state.len() != STATE_BYTES {
            return Err(MigrationError::senseless("of another length"));
        }
        let (bar0, rest) = state.split_at(BAR0_BYTES as usize);
        let numbers: Vec<u64> = rest[..16]
            .chunks(8)
            .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        self.bar0.lock().unwrap().copy_from_slice(bar0);
        self.written.store(numbers[0], Ordering::Relaxed);
        *self.moves().waiting.lock().unwrap() = Some(numbers[1]);
        Ok(())
    }

    fn max_state_len_bytes(&self) -> usize {
        STATE_BYTES + 1
    }
}

/// A server with one connection.
pub(crate) struct Server {
    pub(crate) toy: Arc<Toy>,
    pub(crate) memory: GuestMemory,
    pub(crate) peer: PeerHandle,
    pub(crate) thread: JoinHandle<Result<End, ConnectionError>>,
}

impl Server {
    /// Starts to serve, and gives the other end of the socket.
    pub(crate) fn start() -> (Self, UnixStream) {
        Self::serve(Toy::new())
    }

    pub(crate) fn serve(toy: Arc<Toy>) -> (Self, UnixStream) {
        Self::serve_as(toy, |connection| connection)
    }

    /// One that offers the extension.
    pub(crate) fn offering(offer: PasidOffer) -> (Self, UnixStream) {
        Self::serve_as(Toy::new(), |connection| connection.offer_pasids(offer))
    }

    fn serve_as(toy: Arc<Toy>, how: impl FnOnce(Connection) -> Connection) -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let memory = GuestMemory::new();
        let function: Arc<dyn Function> = toy.clone();
        let connection = how(Connection::new(ours, function, Arc::new(memory.clone())).unwrap());
        let peer = connection.peer();
        let thread = std::thread::spawn(move || connection.run());
        let server = Self {
            toy,
            memory,
            peer,
            thread,
        };
        (server, theirs)
    }

    pub(crate) fn with_client() -> (Self, Client) {
        let (server, stream) = Self::start();
        (server, Client::from_stream(stream).unwrap())
    }

    /// How the connection ended.
    pub(crate) fn end(self) -> Result<End, ConnectionError> {
        self.thread.join().unwrap()
    }
}
