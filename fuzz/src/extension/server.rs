//! A hostile client of our server, and the device behind it that asks.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use arbitrary::{Result, Unstructured};
use palisade_memory::GuestMemory;
use palisade_units::Gpa;
use palisade_vfio_user::wire::pasid::{PasidCapability, TaggedAccess};
use palisade_vfio_user::wire::{Capabilities, Command, Header, ReplyWanted, Version};
use palisade_vfio_user::{AskError, Connection, Errno, PasidOffer, PeerHandle};
use rustix::event::{EventfdFlags, eventfd};
use zerocopy::IntoBytes;

use super::device::{Bare, Cache, Device, Habit, Requests, outcome};
use super::lies;
use super::questions::{Ask, Asked};
use super::sent_by_client::{Known, Reply, request_reply};
use super::socket::{Due, Socket};
use super::values::{capability, message, one_of, some_bytes, words};

/// How many steps one input makes.
const STEPS: usize = 64;
/// The id of messages that only want to be answered.
const PING: u16 = 0xfffe;

/// How the script came to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Closes,
    IsStopped,
}

/// Bytes are a VERSION, and then steps of the client and of the device.
pub(crate) fn extension_server(bytes: &[u8]) {
    let _ = play(bytes);
}

/// Which commands came to a good end.
pub(super) fn play(bytes: &[u8]) -> BTreeSet<u16> {
    let mut input = Unstructured::new(bytes);
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let memory = Arc::new(GuestMemory::new());
    let connection = Connection::new(ours, Arc::new(Bare), memory).expect("descriptors");
    let (device, of_cache) = (Device::new(), Arc::default());
    let offer = offer(&device, &of_cache, &mut input).unwrap_or_default();
    let connection = match &offer {
        Some(offer) => connection.offer_pasids(offer.clone()),
        None => connection,
    };
    let peer = connection.peer();
    *of_cache.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer.clone());
    let reached = std::thread::scope(|scope| {
        let mut hostile = Hostile {
            socket: Socket::new(theirs),
            out: Vec::new(),
            known: Known::new(None, 0),
            device: device.clone(),
            peer,
        };
        hostile.check_refused();
        let server = scope.spawn(|| connection.run());
        if let Ok(Some(known)) = hostile.negotiate(offer.as_ref(), &mut input) {
            hostile.known = known;
            // What follows the end of the input is nothing.
            let last = hostile.run(&mut input).unwrap_or(Last::Closes);
            hostile.finish(last);
            hostile.known.check_end(&server.join().expect("no panic"));
        } else {
            hostile.socket.close();
            while hostile.socket.next(Due::Yes).is_some() {}
            // Which of the many ways is for the tests to say.
            let _ = server.join().expect("no panic");
        }
        hostile.end()
    });
    assert_eq!(device.state().sessions, 0);
    reached
}

/// What the server offers; now and then nothing at all.
fn offer(
    device: &Device,
    peer: &Arc<Mutex<Option<PeerHandle>>>,
    input: &mut Unstructured<'_>,
) -> Result<Option<PasidOffer>> {
    let parts = input.int_in_range(0..=7_u8)?;
    let cache = Cache {
        device: device.clone(),
        peer: Arc::clone(peer),
    };
    let offer = PasidOffer {
        limits: capability(input)?,
        cache: (parts != 6).then(|| Arc::new(cache) as _),
        requests: (parts != 5).then(|| Arc::new(Requests(device.clone())) as _),
    };
    Ok((parts != 7).then_some(offer))
}

struct Hostile {
    socket: Socket,
    /// What is to be sent with the next message that waits for something.
    out: Vec<u8>,
    known: Known,
    device: Device,
    peer: PeerHandle,
}

impl Hostile {
    /// Sends VERSION. `None` where the server wants no more after it.
    fn negotiate(
        &mut self,
        offer: Option<&PasidOffer>,
        input: &mut Unstructured<'_>,
    ) -> Result<Option<Known>> {
        let own = Capabilities {
            max_data_bytes: one_of(&[0x1_0000, 1 << 20, 0x1000, 8], input)?,
            ..Capabilities::own(8)
        };
        let kind = input.int_in_range(0..=7_u8)?;
        let proposed = capability(input)?;
        let text = match kind {
            6 => own.text(),
            7 => {
                let object = String::from_utf8_lossy(&some_bytes(input)?).into_owned();
                format!("{{\"capabilities\":{{\"pasid\":{object}}}}}\0").into_bytes()
            }
            _ => own.text_with(Some(&proposed)),
        };
        let version = Version {
            major: 0.into(),
            minor: 0.into(),
        };
        let header = Header::command(1, Command::Version, ReplyWanted::Yes);
        let hello = message(header, &[version.as_bytes(), &text]);
        self.socket.send(&hello, &[]);
        let Some(answer) = self.socket.next(Due::Yes) else {
            return Ok(None);
        };
        assert_eq!(answer.header.message_id.get(), 1);
        if answer.header.outcome().is_err() {
            assert_eq!(kind, 7);
            return Ok(None);
        }
        let said = answer.payload.get(4..).expect("a version");
        let agreed = PasidCapability::parse_answer(said).expect("an object");
        // Who does not offer it does not look at what is proposed, either.
        let proposed = match offer {
            Some(_) => PasidCapability::parse(&text).expect("what the server took"),
            None => None,
        };
        assert_eq!(agreed.is_some(), proposed.is_some());
        if let (Some(agreed), Some(proposed), Some(offer)) = (agreed, proposed, offer) {
            let width = offer.limits.width;
            assert!(agreed.is_within(&proposed) && agreed.width <= width);
            assert!(agreed.max_commands <= offer.limits.max_commands);
            assert!(agreed.max_page_groups <= offer.limits.max_page_groups);
            assert!(agreed.max_invalidations <= offer.limits.max_invalidations);
            assert!(offer.cache.is_some() || agreed.max_invalidations == 0);
            assert!(offer.requests.is_some() || agreed.requests.is_none());
        }
        let theirs = Capabilities::parse(&text).expect("what the server took");
        // Who has the answer finds the rest done.
        assert_eq!(self.peer.pasids(), agreed);
        Ok(Some(Known::new(agreed, theirs.max_data_bytes)))
    }

    fn run(&mut self, input: &mut Unstructured<'_>) -> Result<Last> {
        for _ in 0..STEPS {
            if input.is_empty() || !self.known.goes_on() {
                break;
            }
            let step = input.int_in_range(0..=15_u8)?;
            let is_devices = matches!(step, 0..=4 | 10..=14);
            if is_devices {
                self.sync();
                if !self.known.goes_on() {
                    break;
                }
            }
            match step {
                0..=3 => self.ask(&Ask::any(step, input)?),
                4 => self.interrupt(one_of(&[4, 8, 64], input)?),
                5 => {
                    let unanswered: Vec<_> = self.known.unanswered_questions().cloned().collect();
                    self.say(&lies::answer(&unanswered, input)?);
                }
                6 => self.say(&lies::invalidation(input)?),
                7 => self.request(input)?,
                8 => {
                    let lie = if input.ratio(1, 4)? {
                        lies::any_command(input)?
                    } else {
                        lies::question(input)?
                    };
                    self.say(&lie);
                }
                9 => self.say(&some_bytes(input)?),
                10 => self.complete_invalidation(input)?,
                11 => self.complete_request(input)?,
                12 => self.change_habits(input)?,
                13 => self.lose_interest(input)?,
                14 => {
                    if input.ratio(1, 8)? {
                        self.peer.stop();
                        return Ok(Last::IsStopped);
                    }
                }
                _ => self.sync(),
            }
        }
        Ok(Last::Closes)
    }

    /// The server is to hear this with what comes next.
    fn say(&mut self, bytes: &[u8]) {
        self.known.sent(bytes);
        self.out.extend_from_slice(bytes);
    }

    /// Comes to a quiet point: the server has heard all, and has said what it had to.
    fn sync(&mut self) {
        if self.known.goes_on() {
            let header = Header::command(PING, Command::DeviceGetInfo, ReplyWanted::Yes);
            self.say(&message(header, &[&words(&[16, 0, 0, 0])]));
        }
        let out = std::mem::take(&mut self.out);
        self.socket.send(&out, &[]);
        self.listen();
        if self.known.goes_on() {
            self.check();
        }
    }

    /// Takes all replies that are owed, and what else there is.
    fn listen(&mut self) {
        while self.known.is_owed() {
            let message = self.socket.next(Due::Yes);
            self.known.take(message.expect("a reply that is owed"));
        }
        while let Some(message) = self.socket.next(Due::No) {
            self.known.take(message);
        }
    }

    fn check(&mut self) {
        let known = &mut self.known;
        assert!(known.came.is_empty(), "nobody asked");
        for asked in &known.asked {
            asked.check(&self.device);
        }
        known.asked.retain(|asked| asked.answered.is_none());
        self.compare_with_device();
        let state = self.device.state();
        for kept in &state.kept {
            let later = self.known.invalidated.get(kept.epoch..).unwrap_or_default();
            let is_current = self.peer.is_current(&kept.answer);
            if later.iter().any(|what| kept.is_meant_by(what)) {
                assert!(!is_current, "what was invalidated is not current");
            }
            if later.is_empty() {
                assert!(is_current, "what was not is");
            }
        }
    }

    /// The device was told what was sent, in that order.
    fn compare_with_device(&mut self) {
        let (invalidated, requested) = self.device.came();
        assert!(self.known.invalidated.ends_with(&invalidated));
        assert_eq!(std::mem::take(&mut self.known.requested), requested);
        let state = self.device.state();
        assert_eq!(state.forgetting.len(), self.known.forgetting.len());
        assert_eq!(state.waiting.len(), self.known.waiting.len());
    }

    fn ask(&mut self, ask: &Ask) {
        let made = ask.make(&self.peer);
        self.listen();
        let came = std::mem::take(&mut self.known.came);
        let agreed = self.known.agreed.filter(|agreed| ask.is_agreed(agreed));
        let Some(agreed) = agreed else {
            assert!(matches!(made, Err(AskError::NotAgreed)) && came.is_empty());
            return;
        };
        let (pages, others) = self.known.unanswered();
        let coming = match made {
            Ok(coming) => coming,
            Err(error) => {
                assert!(came.is_empty(), "what was not asked is sent");
                let is_full = match ask {
                    Ask::Pages(..) => pages >= agreed.max_page_groups.into(),
                    _ => others >= agreed.max_commands.into(),
                };
                assert!(matches!(error, AskError::Senseless | AskError::Busy));
                assert!(error != AskError::Busy || is_full);
                return;
            }
        };
        let [question] = &came[..] else {
            panic!("{} messages for one question", came.len());
        };
        assert_eq!(question.command, ask.command());
        question.check(&agreed, self.known.max_data_bytes);
        let head = question.payload.get(..TaggedAccess::BYTES);
        match ask {
            Ask::Read(tag, at, len) => {
                assert_eq!(head, Some(tag.at(*at, *len as u64).as_bytes()));
            }
            Ask::Write(tag, at, data) => {
                assert_eq!(head, Some(tag.at(*at, data.len() as u64).as_bytes()));
                assert!(question.payload.ends_with(data));
            }
            Ask::Translate(wanted) => assert_eq!(question.wanted(), Some(*wanted)),
            Ask::Pages(..) => {}
        }
        for other in self.known.unanswered_questions() {
            let (id, group) = (other.header.message_id, other.group());
            assert_ne!(id, question.header.message_id, "an id that is in use");
            if question.command == Command::PasidPageRequest && other.command == question.command {
                assert_ne!(group, question.group(), "a group that is in use");
            }
        }
        self.known.asked.push(Asked {
            question: question.clone(),
            coming: Some(coming),
            answered: None,
        });
        let (pages, others) = self.known.unanswered();
        assert!(pages <= agreed.max_page_groups.into() && others <= agreed.max_commands.into());
    }

    /// A write into memory, which is answered and otherwise none of the extension's business.
    fn interrupt(&mut self, len: usize) {
        let before = self.known.writes;
        let written = self.peer.write_memory(Gpa::new(0x1000), &vec![1; len]);
        assert_eq!(written, Ok(()));
        self.listen();
        let parts = (len as u64).div_ceil(self.known.max_data_bytes);
        assert_eq!(self.known.writes - before, parts);
        self.known.unanswered_writes += parts;
    }

    /// One of the container's requests, now and then with descriptors, which go by themselves.
    fn request(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let bytes = lies::container_request(input)?;
        let count = one_of(&[0, 0, 0, 1, 2], input)?;
        if count == 0 {
            self.say(&bytes);
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        self.socket.send(&out, &[]);
        self.known.sent(&bytes);
        let event: OwnedFd = eventfd(0, EventfdFlags::NONBLOCK).expect("descriptors");
        self.socket.send(&bytes, &vec![event.as_fd(); count]);
        Ok(())
    }

    fn complete_invalidation(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let which = usize::from(input.arbitrary::<u8>()?);
        let is_forgotten = input.ratio(1, 4)?;
        let mut state = self.device.state();
        if state.forgetting.is_empty() {
            return Ok(());
        }
        let index = which % state.forgetting.len();
        let done = state.forgetting.remove(index);
        drop(state);
        let header = self.known.forgetting.remove(index);
        if is_forgotten {
            self.known.owe(header, Reply::Refused(Errno::IO));
            drop(done);
        } else {
            self.known.owe(header, Reply::Done(Vec::new()));
            done.complete();
        }
        self.listen();
        Ok(())
    }

    fn complete_request(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let which = usize::from(input.arbitrary::<u8>()?);
        let mut state = self.device.state();
        if state.waiting.is_empty() {
            return Ok(());
        }
        let index = which % state.waiting.len();
        let waiting = state.waiting.remove(index);
        drop(state);
        let header = self.known.waiting.remove(index);
        let reply = request_reply(waiting.number, &waiting.argument);
        self.known.owe(header, reply.unwrap_or_else(Reply::Refused));
        let outcome = outcome(waiting.number, &waiting.argument);
        waiting.reply.send(outcome);
        self.listen();
        Ok(())
    }

    fn change_habits(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        const HABITS: [Habit; 3] = [Habit::AtOnce, Habit::Later, Habit::Never];
        let habits = [one_of(&HABITS, input)?, one_of(&HABITS, input)?];
        self.known.habits = habits;
        self.device.state().habits = habits;
        Ok(())
    }

    /// Somebody who asked gives up.
    fn lose_interest(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let which = usize::from(input.arbitrary::<u8>()?);
        let count = self.known.asked.len().max(1);
        if let Some(asked) = self.known.asked.get_mut(which % count) {
            asked.coming = None;
        }
        Ok(())
    }

    /// Says the rest, and listens until the server has ended the connection.
    fn finish(&mut self, last: Last) {
        let out = std::mem::take(&mut self.out);
        self.socket.send(&out, &[]);
        if last == Last::Closes {
            self.socket.close();
        }
        while let Some(message) = self.socket.next(Due::Yes) {
            self.known.take(message);
        }
        assert!(!self.known.is_owed(), "a reply that is owed");
    }

    /// The connection is over.
    fn end(mut self) -> BTreeSet<u16> {
        self.compare_with_device();
        for asked in std::mem::take(&mut self.known.asked) {
            asked.end(&self.device);
        }
        self.check_refused();
        let mut state = self.device.state();
        state.forgetting.clear();
        state.waiting.clear();
        drop(state);
        self.known.reached
    }

    /// Who asks where nothing is agreed, or nobody is there any more, is told at once.
    fn check_refused(&mut self) {
        for kind in 0..=3 {
            let ask = Ask::any(kind, &mut Unstructured::new(&[0, 0x81, 0, 0, 0, 0, 0]));
            let made = ask.expect("enough bytes").make(&self.peer);
            assert!(made.is_err());
        }
        assert!(self.socket.next(Due::No).is_none());
    }
}
