//! A hostile server of our client, and the VMM behind it.
//!
//! All in one thread: what the server says is in the client's socket before the client is called.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use arbitrary::{Result, Unstructured};
use palisade_units::Iova;
use palisade_vfio_user::wire::pasid::{
    ContainerAnswer, ContainerRequest, Invalidation, MAX_ARGUMENT_BYTES, PageRequest,
    PasidCapability, PasidScope,
};
use palisade_vfio_user::wire::{Capabilities, Command, Header, MAX_DESCRIPTORS, ReplyWanted};
use palisade_vfio_user::{Client, ClientError, ContainerReply, Errno, RequestNumber};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zerocopy::{FromBytes, IntoBytes};

use super::lies;
use super::sent_by_server::{Known, Reply};
use super::socket::{Due, Socket};
use super::values::{address, capability, message, one_of, some_bytes, words};
use super::vmm::Vmm;

/// How many steps one input makes.
const STEPS: usize = 128;
/// No more than this waits in a socket: nobody else would empty it.
const MOST_WAITING_BYTES: usize = 48 << 10;

/// Bytes are a server's VERSION, and then steps of the server and of the VMM.
pub(crate) fn extension_client(bytes: &[u8]) {
    let _ = play(bytes);
}

/// Which commands came to a good end.
pub(super) fn play(bytes: &[u8]) -> BTreeSet<u16> {
    let mut input = Unstructured::new(bytes);
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let mut hostile = Hostile {
        socket: Socket::new(theirs),
        known: Known::default(),
        vmm: Vmm::new(PasidCapability::default()),
        said_bytes: 0,
        next_id: 1,
        has_closed: false,
        splits: false,
        pipes: Vec::new(),
    };
    if let Ok(Some(client)) = hostile.negotiate(ours, &mut input) {
        // What follows the end of the input is nothing.
        let _ = hostile.run(client, &mut input);
    }
    assert_eq!(hostile.open_pipes(), 0, "a descriptor outlives the client");
    while let Some(message) = hostile.socket.next(Due::Yes) {
        hostile.known.take(message);
    }
    hostile.known.reached
}

struct Hostile {
    socket: Socket,
    known: Known,
    vmm: Vmm,
    /// What waits in the client's socket.
    said_bytes: usize,
    /// The id of the client's next message.
    next_id: u16,
    has_closed: bool,
    /// A descriptor came in the middle of a message: whose it is, is anybody's guess.
    splits: bool,
    /// The other ends of the descriptors that were sent.
    pipes: Vec<OwnedFd>,
}

/// What the client asks.
enum Asks {
    Invalidation(Invalidation),
    Request(u32, Vec<u8>),
    Reset,
}

impl Asks {
    fn any(input: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match input.int_in_range(0..=2_u8)? {
            0 => {
                let whole = input.arbitrary()?;
                let at = Iova::new(address(input)? & !0xfff);
                Self::Invalidation(Invalidation {
                    pasids: PasidScope::All,
                    range: if whole { None } else { Some((at, 0x1000)) },
                })
            }
            1 => {
                let number = u32::from(input.arbitrary::<u8>()?);
                let len = one_of(&[8, 0, 100, MAX_ARGUMENT_BYTES], input)?;
                Self::Request(number, vec![0x5a; len])
            }
            _ => Self::Reset,
        })
    }

    fn command(&self) -> Command {
        match self {
            Self::Invalidation(_) => Command::PasidInvalidate,
            Self::Request(..) => Command::ContainerRequest,
            Self::Reset => Command::DeviceReset,
        }
    }

    fn is_agreed(&self, agreed: Option<PasidCapability>) -> bool {
        match self {
            Self::Invalidation(_) => agreed.is_some_and(|it| it.max_invalidations > 0),
            Self::Request(..) => agreed.is_some_and(|it| it.requests.is_some()),
            Self::Reset => true,
        }
    }

    /// What stands in the message.
    fn payload(&self) -> Vec<u8> {
        match self {
            Self::Invalidation(what) => what.message().as_bytes().to_vec(),
            Self::Request(number, argument) => {
                let head = ContainerRequest {
                    number: (*number).into(),
                    reserved: 0.into(),
                };
                [head.as_bytes(), argument].concat()
            }
            Self::Reset => Vec::new(),
        }
    }

    /// Whether an answer fits.
    fn fits(&self, payload: &[u8]) -> bool {
        match self {
            Self::Request(..) => {
                let answer = ContainerAnswer::read_from_prefix(payload);
                answer.is_ok_and(|(head, written)| {
                    head.reserved.get() == 0 && written.len() <= MAX_ARGUMENT_BYTES
                })
            }
            _ => payload.is_empty(),
        }
    }

    fn make(
        &self,
        client: &mut Client,
    ) -> std::result::Result<Option<ContainerReply>, ClientError> {
        match self {
            Self::Invalidation(what) => client.invalidate(*what).map(|()| None),
            Self::Request(number, argument) => {
                let number = RequestNumber::new(*number);
                client.container_request(number, argument, &[]).map(Some)
            }
            Self::Reset => client.reset().map(|()| None),
        }
    }
}

impl Hostile {
    /// Answers VERSION. `None` where the client wants no more after it.
    fn negotiate(
        &mut self,
        ours: UnixStream,
        input: &mut Unstructured<'_>,
    ) -> Result<Option<Client>> {
        let proposal = capability(input)?;
        let kind = input.int_in_range(0..=7_u8)?;
        let said = capability(input)?;
        let own = Capabilities::own(8);
        let text = match kind {
            5 => own.text_with(Some(&said)),
            6 => own.text(),
            7 => {
                let object = String::from_utf8_lossy(&some_bytes(input)?).into_owned();
                format!("{{\"capabilities\":{{\"pasid\":{object}}}}}\0").into_bytes()
            }
            _ => own.text_with(Some(&said.and(&proposal))),
        };
        let agreed = PasidCapability::parse_answer(&text);
        let is_good = Capabilities::parse(&text).is_ok()
            && matches!(agreed, Ok(it) if it.is_none_or(|it| it.is_within(&proposal)));
        if input.ratio(1, 8)? {
            self.say(&lies::question(input)?);
        }
        self.known.outstanding = Some((0, Command::Version));
        let header = Header::command(0, Command::Version, ReplyWanted::Yes);
        self.say(&message(Header::reply(&header), &[&words(&[0]), &text]));
        self.known.answer = None;
        let agreed = agreed.ok().flatten().filter(|_| is_good);
        self.known.agreed = agreed;
        self.vmm = Vmm::new(agreed.unwrap_or_default());
        if input.ratio(1, 4)? {
            // Behind it and before the client has looked at it.
            self.say(&lies::question(input)?);
        }
        let client = Client::with_pasids(ours, proposal, Box::new(self.vmm.clone()));
        assert_eq!(client.is_ok(), is_good);
        let Ok(mut client) = client else {
            return Ok(None);
        };
        assert_eq!(client.pasids(), agreed);
        client.flush().expect("a socket with room");
        self.said_bytes = 0;
        self.listen();
        assert!(matches!(&self.known.came[..], [hello] if hello.header.command == header.command));
        self.known.came.clear();
        Ok(Some(client))
    }

    fn run(&mut self, mut client: Client, input: &mut Unstructured<'_>) -> Result<()> {
        for _ in 0..STEPS {
            if input.is_empty() {
                break;
            }
            let goes_on = match input.int_in_range(0..=15_u8)? {
                0..=5 => {
                    self.say(&lies::question(input)?);
                    true
                }
                6 => {
                    self.say(&lies::memory_write(input)?);
                    true
                }
                7 => {
                    self.say(&lies::any_command(input)?);
                    true
                }
                8 => {
                    let said = if input.ratio(1, 4)? {
                        some_bytes(input)?
                    } else {
                        lies::answer(&[], input)?
                    };
                    if input.ratio(1, 4)? {
                        self.say(&said);
                    }
                    true
                }
                9 => self.poll(&mut client) && self.descriptors(input)?,
                10 => self.poll(&mut client) && self.respond(&mut client, input)?,
                11..=14 => {
                    self.poll(&mut client) && self.ask(&mut client, &Asks::any(input)?, input)?
                }
                _ => self.poll(&mut client),
            };
            let is_full = self.said_bytes.max(self.known.owed_bytes) > MOST_WAITING_BYTES;
            if !goes_on || is_full && !self.poll(&mut client) {
                return Ok(());
            }
        }
        self.poll(&mut client);
        Ok(())
    }

    fn say(&mut self, bytes: &[u8]) {
        self.known.sent(bytes);
        self.said_bytes += bytes.len();
        self.socket.send(bytes, &[]);
    }

    /// Sends this with descriptors beside it.
    fn say_beside(&mut self, bytes: &[u8], count: usize) {
        let (theirs, ours) = rustix::pipe::pipe().expect("descriptors");
        let takes_them = self.known.agreed.is_some_and(|it| it.requests.is_some());
        if takes_them && count > MAX_DESCRIPTORS {
            // Of the message nothing is looked at.
            self.known.has_ended = true;
        }
        self.known.sent(bytes);
        self.said_bytes += bytes.len();
        self.socket.send(bytes, &vec![ours.as_fd(); count]);
        self.pipes.push(theirs);
        self.splits |= !self.known.is_whole();
    }

    /// The client takes in all that was said. Whether the connection goes on.
    fn poll(&mut self, client: &mut Client) -> bool {
        let mut writes = 0;
        let polled = client.poll_messages(|_| writes += 1);
        self.said_bytes = 0;
        assert_eq!(writes, std::mem::take(&mut self.known.writes));
        assert_eq!(polled.is_err(), self.known.has_ended || self.has_closed);
        polled.is_ok() && self.check()
    }

    /// All that was due has come, from the client and to its handler. Always true.
    fn check(&mut self) -> bool {
        self.listen();
        assert!(self.known.came.is_empty(), "nobody asked");
        let calls = std::mem::take(&mut *self.vmm.log());
        assert_eq!(calls, std::mem::take(&mut self.known.calls));
        let most = if self.splits { MAX_DESCRIPTORS } else { 0 };
        assert!(
            self.open_pipes() <= most,
            "a descriptor outlives its message"
        );
        true
    }

    fn listen(&mut self) {
        while self.known.is_owed() {
            let message = self.socket.next(Due::Yes);
            self.known.take(message.expect("a reply that is owed"));
        }
        while let Some(message) = self.socket.next(Due::No) {
            self.known.take(message);
        }
    }

    /// How many of the descriptors that were sent are open somewhere.
    fn open_pipes(&mut self) -> usize {
        let at_once = Timespec::default();
        self.pipes.retain(|pipe| {
            let mut fds = [PollFd::new(pipe, PollFlags::IN)];
            let polled = poll(&mut fds, Some(&at_once));
            polled.is_err() || !fds[0].revents().contains(PollFlags::HUP)
        });
        self.pipes.len()
    }

    /// Descriptors beside something. Whether it was said.
    fn descriptors(&mut self, input: &mut Unstructured<'_>) -> Result<bool> {
        let count = one_of(&[1, 2, MAX_DESCRIPTORS, MAX_DESCRIPTORS + 1], input)?;
        let mut bytes = lies::memory_write(input)?;
        if input.ratio(1, 8)? {
            let rest = bytes.split_off(bytes.len() / 2);
            self.say_beside(&bytes, count);
            bytes = rest;
        }
        self.say_beside(&bytes, count);
        Ok(true)
    }

    /// A late answer to a group.
    fn respond(&mut self, client: &mut Client, input: &mut Unstructured<'_>) -> Result<bool> {
        let (group, response) = lies::late_answer(input)?;
        let header = self.known.groups.remove(&group);
        let responded = client.respond_to_pages(group, response);
        match (header, responded) {
            (Some(header), Ok(())) => {
                let answer = PageRequest::answer(group, response);
                let reply = Reply::Done(answer.as_bytes().to_vec());
                self.known.owe(header, reply);
            }
            (None, Err(ClientError::NoSuchGroup(_))) => assert!(self.known.agreed.is_some()),
            (None, Err(ClientError::NotAgreed)) => assert!(self.known.agreed.is_none()),
            (_, other) => panic!("{other:?}"),
        }
        Ok(self.check())
    }

    /// The client asks and waits. Whether the connection goes on.
    fn ask(
        &mut self,
        client: &mut Client,
        asks: &Asks,
        input: &mut Unstructured<'_>,
    ) -> Result<bool> {
        if !asks.is_agreed(self.known.agreed) {
            assert!(matches!(asks.make(client), Err(ClientError::NotAgreed)));
            return Ok(self.check());
        }
        let id = self.next_id;
        self.next_id += 1;
        self.known.outstanding = Some((id, asks.command()));
        for _ in 0..input.int_in_range(0..=2_u8)? {
            self.say(&lies::question(input)?);
        }
        let beside = self.answer(id, asks, input)?;
        if self.known.answer.is_none() && !self.known.has_ended {
            // It would wait for ever.
            self.socket.close();
            self.has_closed = true;
        }
        let made = asks.make(client);
        self.said_bytes = 0;
        let answer = self.known.answer.take().filter(|_| !self.known.has_ended);
        match (answer, made) {
            (Some(Ok(payload)), Ok(reply)) => {
                assert!(asks.fits(&payload));
                self.known.reached.insert(asks.command().raw());
                if let Some(reply) = reply {
                    assert_eq!(payload.get(8..), Some(&reply.written[..]));
                    assert!(self.splits || reply.descriptors.len() == beside);
                }
            }
            (Some(Ok(payload)), Err(ClientError::Answer(_))) => {
                assert!(!asks.fits(&payload));
                return Ok(false);
            }
            (Some(Err(errno)), Err(ClientError::Refused(command, found))) => {
                assert_eq!((asks.command(), errno), (command, found));
            }
            (None, Err(error)) => {
                assert!(error.errno().is_none());
                return Ok(false);
            }
            (_, made) => panic!("{made:?}"),
        }
        self.listen();
        let came = std::mem::take(&mut self.known.came);
        let [asked] = &came[..] else {
            panic!("{} messages for one question", came.len());
        };
        let name = (asked.header.message_id.get(), asked.header.command.get());
        assert_eq!(name, (id, asks.command().raw()));
        assert_eq!(asked.payload, asks.payload());
        Ok(self.check())
    }

    /// Answers, or not. How many descriptors go beside it.
    fn answer(&mut self, id: u16, asks: &Asks, input: &mut Unstructured<'_>) -> Result<usize> {
        let to = Header::command(id, asks.command(), ReplyWanted::Yes);
        let mut header = Header::reply(&to);
        let mut payload = match asks {
            Asks::Request(..) => words(&[7, 0]),
            _ => Vec::new(),
        };
        if matches!(asks, Asks::Request(..)) {
            payload.extend(some_bytes(input)?);
        }
        let count = one_of(&[0, 0, 1, MAX_DESCRIPTORS], input)?;
        match input.int_in_range(0..=15_u8)? {
            8..=10 => {
                header = Header::refusal(&to, Errno::PERM);
                payload.clear();
            }
            11 => payload.extend([1; 4090]),
            12 => header.message_id = (id ^ 1).into(),
            13 => header.command = Command::RegionRead.raw().into(),
            14 => {
                let once = message(header, &[&payload]);
                self.say(&once.repeat(2));
                return Ok(0);
            }
            15 => return Ok(0),
            _ => {}
        }
        let bytes = message(header, &[&payload]);
        if count == 0 {
            self.say(&bytes);
        } else {
            self.say_beside(&bytes, count);
        }
        let takes_them = self.known.agreed.is_some_and(|it| it.requests.is_some());
        Ok(if takes_them { count } else { 0 })
    }
}
