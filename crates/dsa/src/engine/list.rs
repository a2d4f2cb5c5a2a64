//! The short way through a descriptor that succeeds and tells so by its record alone, as one piece of work; and runs
//! through the list of a batch, of which several are read at a time.

use palisade_iommu::{OnMiss, PieceOfWork, Requester};
use palisade_units::{Iova, PAGE_BYTES};
use zerocopy::IntoBytes;

use super::{Engine, recorder, work};
use crate::check::{Origin, check};
use crate::lane::{LaneShared, TASK_COST_BYTES};
use crate::op::{self, Means, Scratch, SoFar, Stop};
use crate::record;
use crate::session::Session;
use crate::spec::{CompletionRecord, DESCRIPTOR_BYTES, Descriptor, Flags, Opcode, Status};
use crate::task::{Batch, Blocked, Stage, Work};

/// How many descriptors of a list are read at a time. A device may read ahead: a driver leaves the list alone until
/// the batch has completed (DSA §3.8).
const AHEAD: usize = 16;
const STEP_BYTES: u64 = DESCRIPTOR_BYTES as u64;

/// Descriptors of a list, as they were read.
pub(super) type List = [Descriptor; AHEAD];

/// Why a run through a list ended. All that was taken is done, but for the one that is told to be at work.
pub(super) enum Run {
    /// The list is at its end, or a fence is next that does not let it go on.
    Over,
    /// The work may have been dropped.
    Interrupted,
    /// The next one was not taken.
    Untaken(Stop),
    /// One is at work.
    AtWork(LongWay),
}

/// Why a descriptor goes on by the long way.
pub(super) enum LongWay {
    /// There is something to tell.
    Tells,
    /// Its record could not be written.
    Unrecorded(Blocked),
    /// It stopped.
    Stopped(Stop),
}

/// Who makes the requests of a session.
struct Requesters {
    /// Those of descriptors that do not wait for pages.
    hasty: Requester,
    /// Those of descriptors that do, and of records.
    patient: Requester,
}

impl Requesters {
    fn of(session: &Session) -> Self {
        let patient = recorder(session);
        let hasty = Requester {
            on_miss: OnMiss::Fault,
            ..patient
        };
        Self { hasty, patient }
    }

    #[inline]
    const fn with(&self, flags: Flags) -> Requester {
        if flags.contains(Flags::BLOCK_ON_FAULT) {
            self.patient
        } else {
            self.hasty
        }
    }
}

impl Engine {
    /// Runs descriptors of a batch's list until its turn is over or one takes the long way.
    ///
    /// All accesses are one piece of work. Nobody is called in it, so a descriptor that tells its client anything but by its record
    /// goes the long way, as does one with which something is wrong. It is `at_work` then.
    pub(super) fn run_list(
        &mut self,
        (batch, at_work): (&mut Batch, &mut Work),
        session: &Session,
        shared: &LaneShared,
        left_bytes: &mut u64,
    ) -> Run {
        let Self {
            port,
            scratch,
            list,
            ..
        } = self;
        let by = Requesters::of(session);
        let Descriptor { first, size, .. } = batch.work.descriptor;
        let by_list = by.with(batch.work.descriptor.flags());
        port.in_one_piece(|piece| {
            while batch.taken < size {
                let at = first + u64::from(batch.taken) * STEP_BYTES;
                let ahead = &mut list[..room(at, size - batch.taken)];
                if let Err(error) = piece.read(by_list, Iova::new(at), ahead.as_mut_bytes()) {
                    return Run::Untaken(error.into());
                }
                for descriptor in &*ahead {
                    if *left_bytes == 0 {
                        return Run::Untaken(Stop::TurnOver);
                    }
                    if shared.is_aborted(session) || shared.hands.are_off() {
                        return Run::Interrupted;
                    }
                    let flags = descriptor.flags();
                    if flags.contains(Flags::FENCE) && batch.failed > 0 {
                        return Run::Over;
                    }
                    batch.taken += 1;
                    let mut way = ShortWay {
                        piece,
                        scratch,
                        by: by.with(flags),
                        by_record: by.patient,
                        left_bytes,
                    };
                    let mut stage = Stage::Fresh;
                    match way.run(descriptor, Origin::Batch, session, &mut stage) {
                        Ok(status) => batch.count(status),
                        Err(long_way) => {
                            *at_work = Work {
                                descriptor: *descriptor,
                                stage,
                            };
                            return Run::AtWork(long_way);
                        }
                    }
                }
            }
            Run::Over
        })
    }
}

impl Engine {
    /// Runs a descriptor from a portal that was not begun. A batch has nothing but the long way.
    pub(super) fn run_single(
        &mut self,
        at_work: &mut Work,
        session: &Session,
        left_bytes: &mut u64,
    ) -> Result<(), LongWay> {
        let Work { descriptor, stage } = at_work;
        if descriptor.opcode() == Opcode::BATCH {
            return Err(LongWay::Tells);
        }
        let Self { port, scratch, .. } = self;
        let by = Requesters::of(session);
        port.in_one_piece(|piece| {
            let mut way = ShortWay {
                piece,
                scratch,
                by: by.with(descriptor.flags()),
                by_record: by.patient,
                left_bytes,
            };
            way.run(descriptor, Origin::Portal, session, stage)
                .map(|_| ())
        })
    }
}

/// How many descriptors can be read at once from here: no more than a page has, so that one that cannot be read
/// holds none up that can.
fn room(at: u64, left: u32) -> usize {
    let in_page = (PAGE_BYTES - at % PAGE_BYTES) / STEP_BYTES;
    let count = in_page.min(AHEAD as u64).min(left.into());
    usize::try_from(count).unwrap_or_default()
}

/// The record of a move that came to its end.
static MOVED: CompletionRecord = CompletionRecord {
    status: Status::SUCCESS.0,
    result: 0,
    reserved: 0,
    bytes_completed: 0,
    fault_address: 0,
    specific: [0; 16],
};

/// The means of a descriptor on the short way.
struct ShortWay<'a, 'p> {
    piece: &'a mut PieceOfWork<'p>,
    scratch: &'a mut Scratch,
    by: Requester,
    by_record: Requester,
    left_bytes: &'a mut u64,
}

impl ShortWay<'_, '_> {
    /// Runs one that was taken; `stage` is where it is if it goes on by the long way.
    #[inline]
    fn run(
        &mut self,
        descriptor: &Descriptor,
        origin: Origin,
        session: &Session,
        stage: &mut Stage,
    ) -> Result<Status, LongWay> {
        let flags = descriptor.flags();
        let interrupts = flags.contains(Flags::REQUEST_INTERRUPT);
        if interrupts || check(descriptor, origin, session).is_err() {
            return Err(LongWay::Tells);
        }
        *self.left_bytes = self.left_bytes.saturating_sub(TASK_COST_BYTES);
        let mut so_far = SoFar::default();
        let mut means = Means {
            port: self.piece.port(),
            by: self.by,
            scratch: self.scratch,
            left_bytes: self.left_bytes,
        };
        let is_move = descriptor.opcode() == Opcode::MEMORY_MOVE;
        if is_move && op::move_at_once(&mut means, descriptor) {
            return self.conclude(descriptor, &MOVED, stage);
        }
        match work(&mut means, descriptor, &mut so_far) {
            Ok(record) => self.conclude(descriptor, &record, stage),
            Err(stop) => {
                *stage = Stage::Running(so_far);
                Err(LongWay::Stopped(stop))
            }
        }
    }

    /// Writes the record of one that is done.
    #[inline]
    fn conclude(
        &mut self,
        descriptor: &Descriptor,
        record: &CompletionRecord,
        stage: &mut Stage,
    ) -> Result<Status, LongWay> {
        let status = record.status();
        if record::is_wanted(descriptor.flags(), status) {
            let to = Iova::new(descriptor.completion_address);
            let written = self.piece.publish(self.by_record, to, record.as_bytes());
            if let Err(error) = written {
                *stage = Stage::Recording(*record);
                return Err(match error.into() {
                    Stop::Faulted(on) => LongWay::Unrecorded(on),
                    stop => LongWay::Stopped(stop),
                });
            }
        } else if !status.is_success() {
            *stage = Stage::Recording(*record);
            return Err(LongWay::Tells);
        }
        Ok(status)
    }
}
