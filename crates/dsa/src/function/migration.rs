//! How a function stops, and goes on there or elsewhere (R74).

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use palisade_pci::{AccessError, Bar, CONFIG_SPACE_BYTES, Function, Migration, MigrationError};
use palisade_units::{GuestPasid, PasidTag};
use rustix::io::Errno;

use super::command::{enabled_queues, name_of, rules};
use super::events::{EventWords, Permission};
use super::portal::{Open, Shared, Target};
use super::saved::{
    FunctionState, Held, QueueState, RegistersState, RunningState, device, hold, max_len_bytes,
};
use super::stale::Stale;
use super::state::{QueueWords, State, UseOf, Waiting, Work};
use super::{DsaFunction, EntryPoint, PasidPolicy, PasidRefused};
use crate::lock::locked;
use crate::spec::{CommandStatus, Descriptor, InterruptPermission};
use crate::task::LaneWork;
use crate::{Client, Identity, Lane, PasidUse, Session};

/// What the driver's PASIDs of a restored function mean on this host.
struct Meanings {
    /// Of the permissions that have one, by vector.
    permissions: Vec<(usize, InterruptPermission, Identity)>,
    /// Of the enabled queues.
    queues: HashMap<usize, QueueMeaning>,
}

enum QueueMeaning {
    Dedicated(Identity),
    /// Of those of its descriptors.
    Shared(HashMap<GuestPasid, Identity>),
}

impl QueueMeaning {
    /// What all requests of the queue carry, where it is the same.
    const fn tag(&self) -> Option<PasidTag> {
        match self {
            Self::Dedicated(identity) => identity.tag,
            Self::Shared(_) => None,
        }
    }
}

impl<P: PasidPolicy> Migration for DsaFunction<P> {
    /// A command that is being given runs to its end first, or until it waits beside. From then on what the driver
    /// writes to registers and portals is kept; configuration space takes it at once.
    fn stop(&self) {
        let mut state = locked(&self.state);
        if state.held.is_some() {
            return;
        }
        state.held = Some(Vec::new());
        self.stopped.store(true, Ordering::SeqCst);
        for port in &self.ports {
            locked(port).stopped = true;
        }
        self.lanes.iter().for_each(Lane::pause);
        self.lanes.iter().for_each(Lane::wait_until_left);
        self.events.close();
    }

    /// What was only stopped goes on. What was restored asks the policy first for the meaning of every PASID that was
    /// programmed, but for those that meant nothing any more where it was saved: these reach no memory here. When it
    /// refuses one, nothing has changed, and the function can be started again once the PASID is bound here.
    fn start(&self) -> Result<(), MigrationError> {
        self.check_present()?;
        let mut state = locked(&self.state);
        if state.held.is_none() {
            return Ok(());
        }
        if let Some(waiting) = state.waiting.take() {
            match self.meanings(&state, &waiting) {
                Ok(meanings) => self.bring_to_life(&mut state, waiting, meanings),
                Err(error) => {
                    state.waiting = Some(waiting);
                    return Err(error);
                }
            }
        }
        self.stopped.store(false, Ordering::SeqCst);
        self.events.open();
        if !locked(&self.config).bus_master() {
            self.halt_if_enabled(&mut state);
        }
        self.lanes.iter().for_each(Lane::go_on);
        for write in state.held.take().unwrap_or_default() {
            match write {
                Held::Word { offset, value } => self.write_word(&mut state, offset, value),
                Held::Descriptor(target, descriptor) => self.submit_held(target, &descriptor),
            }
        }
        // Who came meanwhile waits for the state, and then finds that nothing is held.
        for port in &self.ports {
            locked(port).stopped = false;
        }
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>, MigrationError> {
        self.check_present()?;
        let mut state = locked(&self.state);
        check_stopped(&state)?;
        self.reap(&mut state);
        Ok(self.state_now(&state).to_bytes(&self.layout))
    }

    fn restore(&self, bytes: &[u8]) -> Result<(), MigrationError> {
        self.check_present()?;
        check_stopped(&locked(&self.state))?;
        self.reset();
        for port in &self.ports {
            locked(port).clear_pieces();
        }
        let saved = FunctionState::from_bytes(bytes, &self.layout)?;
        let device = device(saved.registers.device);
        let device = device.ok_or_else(|| MigrationError::senseless("GENSTS is not known"))?;
        let taken = locked(&self.config).restore(&saved.config);
        taken.map_err(|error| MigrationError::senseless(error.to_string()))?;
        // With PASIDs on the function's own table takes entries, which the unit makes before the function goes on.
        self.follow_config();
        let registers = saved.registers;
        self.events.set_words(&EventWords {
            cause: registers.cause,
            error: registers.error,
            control: registers.general_control,
            permissions: saved.permissions,
            owed: saved.owed,
        });
        for (queue, piece) in &saved.pieces {
            if let Some(port) = self.ports.get(usize::from(*queue)) {
                locked(port).put_piece(piece);
            }
        }
        let mut state = locked(&self.state);
        state.general_config = registers.general_config;
        state.device = device;
        state.status = CommandStatus::from_bits(registers.command_status);
        state.queues = saved.queues.iter().map(QueueState::queue_words).collect();
        state.groups = saved.groups;
        state.vectors = saved.vectors;
        state.held = Some(saved.held);
        state.waiting = Some(Waiting {
            work: saved.queues.into_iter().map(|queue| queue.work).collect(),
            running: saved.running,
            stale: saved.stale,
        });
        Ok(())
    }

    fn max_state_len_bytes(&self) -> usize {
        max_len_bytes(&self.layout)
    }
}

fn check_stopped(state: &State) -> Result<(), MigrationError> {
    if state.held.is_some() {
        Ok(())
    } else {
        Err(MigrationError::new(
            Errno::BUSY,
            "the function runs: stop it first",
        ))
    }
}

/// A descriptor of a shared queue has one.
fn name_in(descriptor: &Descriptor) -> Option<GuestPasid> {
    GuestPasid::new(descriptor.pasid()).ok()
}

impl<P: PasidPolicy> DsaFunction<P> {
    fn check_present(&self) -> Result<(), MigrationError> {
        if self.gone.load(Ordering::SeqCst) {
            let what = "the function was taken out of service";
            return Err(MigrationError::new(Errno::NODEV, what));
        }
        Ok(())
    }

    /// Keeps a descriptor that came to a stopped function; one that has gone on meanwhile takes it.
    pub(super) fn hold_descriptor(
        &self,
        target: Target,
        descriptor: &Descriptor,
    ) -> Result<(), AccessError> {
        let mut state = locked(&self.state);
        let has_room = self.has_room(&state, target);
        if let Some(held) = &mut state.held {
            if !has_room {
                return Err(AccessError::Retry { bar: Bar::Bar2 });
            }
            return hold(held, vec![Held::Descriptor(target, *descriptor)], Bar::Bar2);
        }
        drop(state);
        self.submit(target, descriptor)
    }

    fn state_now(&self, state: &State) -> FunctionState {
        let mut config = Box::new([0; CONFIG_SPACE_BYTES]);
        self.config_read(0, &mut config[..]);
        let EventWords {
            cause,
            error,
            control,
            permissions,
            owed,
        } = self.events.words();
        let queues = state.queues.iter().zip(&self.lanes).enumerate();
        let queues: Vec<_> = queues
            .map(|(index, (queue, lane))| QueueState {
                words: queue.words,
                enabled: queue.enabled,
                privileged: queue.privileged,
                work: match &state.waiting {
                    Some(waiting) => waiting.work.get(index).cloned().unwrap_or_default(),
                    None => lane.work(),
                },
            })
            .collect();
        let stale = self.stale_now(state, &queues);
        let pieces = (0..).zip(&self.ports).flat_map(|(queue, port)| {
            let port = locked(port);
            let pieces: Vec<_> = port.pieces().map(|piece| (queue, piece)).collect();
            pieces
        });
        FunctionState {
            config,
            registers: RegistersState {
                general_config: state.general_config,
                general_control: control,
                device: state.device as u8,
                cause,
                command_status: state.status.into_bits(),
                error,
            },
            groups: state.groups.clone(),
            queues,
            vectors: state.vectors.clone(),
            permissions,
            owed,
            running: match &state.waiting {
                Some(waiting) => waiting.running.clone(),
                None => running_now(state),
            },
            pieces: pieces.collect(),
            held: state.held.clone().unwrap_or_default(),
            stale,
        }
    }

    /// Asks the policy for everything before anything is done.
    fn meanings(&self, state: &State, waiting: &Waiting) -> Result<Meanings, MigrationError> {
        let mut permissions = Vec::new();
        for (vector, (entry, _)) in (0..=u8::MAX).zip(self.events.permissions()) {
            if entry.pasid_enable() && !waiting.stale.contains(&Stale::Permission { vector }) {
                let name = GuestPasid::new(entry.pasid()).ok();
                let meaning = self.meaning(name, EntryPoint::InterruptPermission)?;
                permissions.push((vector.into(), entry, meaning));
            }
        }
        let mut queues = HashMap::new();
        for (number, (words, work)) in (0..=u8::MAX).zip(state.queues.iter().zip(&waiting.work)) {
            if !words.enabled {
                continue;
            }
            let config = words.config();
            let meaning = if config.mode.dedicated() {
                let name = name_of(&config)
                    .map_err(|_| MigrationError::senseless("a queue has no such PASID"))?;
                let at = EntryPoint::QueueConfig;
                QueueMeaning::Dedicated(self.meaning_on(number, name, at, &waiting.stale)?)
            } else {
                QueueMeaning::Shared(self.meanings_of_work(number, work, &waiting.stale)?)
            };
            queues.insert(number.into(), meaning);
        }
        Ok(Meanings {
            permissions,
            queues,
        })
    }

    fn meanings_of_work(
        &self,
        number: u8,
        work: &LaneWork,
        stale: &BTreeSet<Stale>,
    ) -> Result<HashMap<GuestPasid, Identity>, MigrationError> {
        let mut meanings = HashMap::new();
        let begun = work.begun.iter().map(|task| task.submitted());
        for name in begun.chain(&work.fresh).filter_map(name_in) {
            if let Entry::Vacant(place) = meanings.entry(name) {
                let at = EntryPoint::Descriptor;
                place.insert(self.meaning_on(number, Some(name), at, stale)?);
            }
        }
        Ok(meanings)
    }

    /// What a PASID means on a queue, where it may be one that means nothing any more.
    fn meaning_on(
        &self,
        number: u8,
        name: Option<GuestPasid>,
        at: EntryPoint,
        stale: &BTreeSet<Stale>,
    ) -> Result<Identity, MigrationError> {
        match name {
            Some(name) if stale.contains(&Stale::Queue { number, name }) => {
                let identity = self.policy.resolve_stale(name, at);
                identity.map_err(|PasidRefused| {
                    let what = format!(
                        "nothing here can stand for PASID {name}, which the driver had freed: raise its quota"
                    );
                    MigrationError::new(Errno::NOSPC, what)
                })
            }
            name => self.meaning(name, at),
        }
    }

    fn meaning(
        &self,
        name: Option<GuestPasid>,
        at: EntryPoint,
    ) -> Result<Identity, MigrationError> {
        self.resolve(name, at).map_err(|_| {
            let what = name.map_or_else(
                || "the requests without a PASID mean nothing on this host yet".to_owned(),
                |name| format!("the driver's PASID {name} means nothing on this host yet"),
            );
            let what = format!("{what}: restore the unit that it is bound in, then start again");
            MigrationError::new(Errno::NOENT, what)
        })
    }

    /// Gives lanes and portals what was restored. The lanes are paused, and nothing here can fail.
    fn bring_to_life(&self, state: &mut State, waiting: Waiting, meanings: Meanings) {
        let Meanings {
            permissions,
            mut queues,
        } = meanings;
        for (vector, entry, identity) in permissions {
            let identity = Some(identity);
            self.events
                .set_permission(vector, Permission { entry, identity });
        }
        let after = waiting.running.as_ref().map(|running| running.after);
        let closing = after.map_or(0, |after| after.closing(enabled_queues(state)));
        let wanted = waiting.running.as_ref().map(|running| &running.uses[..]);
        let (mut uses, mut tags) = (Vec::new(), Vec::new());
        for (number, (words, work)) in (0_u8..).zip(state.queues.iter().zip(&waiting.work)) {
            let index = usize::from(number);
            let Some(meaning) = queues.remove(&index) else {
                continue;
            };
            let (Some(lane), Some(port)) = (self.lanes.get(index), self.ports.get(index)) else {
                continue;
            };
            tags.push((index, meaning.tag()));
            let open = self.fill(lane, number, words, work, meaning);
            if let Open::Shared(shared) = &open {
                let of_queue = wanted.unwrap_or_default().iter();
                let names = of_queue.filter(|(queue, _)| *queue == number);
                uses.extend(names.filter_map(|(_, name)| {
                    let used = Arc::clone(shared.uses.get(name)?);
                    Some(UseOf {
                        queue: index,
                        name: *name,
                        used,
                    })
                }));
            }
            if closing & (1 << index) == 0 {
                locked(port).open = Some(open);
            } else {
                lane.close();
            }
        }
        for (index, tag) in tags {
            if let Some(words) = state.queues.get_mut(index) {
                words.tag = tag;
            }
        }
        if let Some(running) = waiting.running {
            let queues = running.queues;
            let work = Work { queues, uses };
            self.drain_beside(state, work, running.after, running.interrupt);
        }
    }

    /// Gives a lane its work, and says how its portal is opened.
    fn fill(
        &self,
        lane: &Lane,
        number: u8,
        words: &QueueWords,
        work: &LaneWork,
        meaning: QueueMeaning,
    ) -> Open {
        let config = words.config();
        let rules = rules(number, &config, words.privileged);
        match meaning {
            QueueMeaning::Dedicated(identity) => {
                // What has no name was looked for without one.
                let name = name_of(&config).ok().flatten();
                lane.open(Some(self.session(identity, name, &config, rules)));
                lane.bring(work, |_| None);
                Open::Dedicated {
                    size: config.size,
                    name,
                }
            }
            QueueMeaning::Shared(meanings) => {
                let mut uses: HashMap<GuestPasid, Arc<PasidUse>> = HashMap::new();
                lane.open(None);
                lane.bring(work, |descriptor| {
                    let name = name_in(descriptor)?;
                    let Identity { tag, hold } = meanings.get(&name)?;
                    let identity = Identity {
                        tag: *tag,
                        hold: hold.clone(),
                    };
                    let privilege = rules.privilege_of(descriptor);
                    let client = Arc::clone(&self.events) as Arc<dyn Client>;
                    let session = Session::new(identity, privilege, Some(name), rules, client);
                    let used = Arc::clone(uses.entry(name).or_default());
                    Some(Arc::new(session.counted_in(used)))
                });
                Open::Shared(Shared {
                    rules,
                    threshold: config.threshold,
                    uses,
                })
            }
        }
    }
}

/// The command that waits, as it goes on elsewhere: for what is left.
fn running_now(state: &State) -> Option<RunningState> {
    let running = state.running.as_ref()?;
    let left = running
        .work
        .uses
        .iter()
        .filter(|one| one.used.pending() != 0);
    let uses = left.filter_map(|one| Some((u8::try_from(one.queue).ok()?, one.name)));
    Some(RunningState {
        after: running.after,
        interrupt: running.completion.interrupt(),
        queues: running.work.queues,
        uses: uses.collect(),
    })
}
