//! The register file: what stands in the registers, and what reading and writing them does that needs
//! nothing but the registers. What a write asks for beyond that comes back as [`Effect`]s.

use palisade_units::Bdf;

use crate::spec::command::{
    Command, ContextCommand, InvalidateAddress, IotlbCommand, RootTableAddress,
};
use crate::spec::event::{CompletionStatus, FaultStatus, FaultStatusRegister, PageRequestStatus};
use crate::spec::queue::{
    InvalidationQueueAddress, PageRequestQueueAddress, QueueError, QueueErrorRecord,
};
use crate::spec::register::{self as reg, REGISTERS, Register, Width};
use crate::spec::virtual_command::{Layout, VirtualCommand, VirtualResponse};

use crate::unit::{CachingMode, UnitConfig};

mod event;
mod faults;
mod page_requests;
mod state;

use event::Event;
use faults::FaultRecords;

pub(crate) use event::Message;
pub(crate) use page_requests::Refusal;
pub(crate) use state::{KEPT, RegistersState};

/// What a write to a register asks the unit to do, in the order of the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// GCMD.
    GlobalCommand(Command),
    /// CCMD with ICC set.
    ContextCommand(ContextCommand),
    /// IOTLB with IVT set.
    IotlbCommand(IotlbCommand),
    /// The tail of the invalidation queue moved, or what stopped the queue was cleared.
    QueueMoved,
    /// VCMD, while no response was pending; the response is pending now.
    VirtualCommand(VirtualCommand),
    /// A message was held back by a mask that is gone.
    Send(Message),
}

/// How requests are translated now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TranslationState {
    /// TES is clear.
    Off,
    /// TES is set, with the root that the last SRTP took over.
    On(RootTableAddress),
}

const QWORDS: usize = 512;
const _: () = assert!(QWORDS as u64 * 8 == reg::REGISTER_PAGE_BYTES);

/// The registers of one unit. Nothing of it calls out: it may be used under a lock.
pub(crate) struct Registers {
    config: UnitConfig,
    page: Box<[u64; QWORDS]>,
    records: FaultRecords,
    /// The root table address that SRTP took over (VT-d §11.4.5).
    root: RootTableAddress,
    response_pending: bool,
    /// Whether messages are held back, whatever masks them: those of a stopped unit.
    messages_held: Switch,
}

impl Registers {
    /// The registers after reset.
    pub(crate) fn new(config: UnitConfig) -> Self {
        let mut registers = Self {
            config,
            page: Box::new([0; QWORDS]),
            records: FaultRecords::new(),
            root: RootTableAddress::new(),
            response_pending: false,
            messages_held: Switch::Off,
        };
        registers.reset();
        registers
    }

    /// Brings every register to its value after reset.
    pub(crate) fn reset(&mut self) {
        self.page.fill(0);
        self.records.clear();
        self.root = RootTableAddress::new();
        self.response_pending = false;
        for register in REGISTERS {
            self.set(register.offset, register.width, register.reset);
        }
        if self.config.caching_mode == CachingMode::Off {
            let capabilities = crate::spec::capability::CAPABILITIES.with_caching_mode(false);
            self.set_qword(reg::CAP, capabilities.into_bits());
        }
        if let Some(layout) = self.config.vcmd.layout() {
            let extended = crate::spec::capability::EXTENDED.with_virtual_commands(true);
            self.set_qword(reg::ECAP, extended.into_bits());
            for register in layout.registers() {
                self.set(register.offset, register.width, register.reset);
            }
        }
    }

    /// Reads from an offset of the BAR on; what holds no register reads as zero.
    pub(crate) fn read(&self, offset_bytes: u64, into: &mut [u8]) {
        for (at, byte) in (offset_bytes..).zip(into) {
            *byte = match at {
                0..reg::REGISTER_PAGE_BYTES => self.page_byte(at),
                reg::FAULT_RECORDS.. => self.records.byte(at - reg::FAULT_RECORDS),
            };
        }
    }

    fn page_byte(&self, at: u64) -> u8 {
        let qword = self.qword(at & !7).to_le_bytes();
        usize::try_from(at % 8).map_or(0, |index| qword[index])
    }

    /// Writes from an offset of the BAR on, each bit as its register says.
    pub(crate) fn write(&mut self, offset_bytes: u64, from: &[u8]) -> Vec<Effect> {
        let mut effects = Vec::new();
        for register in REGISTERS {
            let written = Written::to(register.offset, register.width, offset_bytes, from);
            if let Some(written) = written {
                self.write_register(register, written, &mut effects);
            }
        }
        if let Some(layout) = self.config.vcmd.layout() {
            self.write_virtual_command(layout, offset_bytes, from, &mut effects);
        }
        if self.records.write(offset_bytes, from) {
            self.update_fault_status(FaultStatus::empty());
        }
        effects
    }

    fn write_register(&mut self, register: &Register, written: Written, to: &mut Vec<Effect>) {
        let old = self.get(register.offset, register.width);
        let taken = register.writable & written.mask;
        let cleared = register.clear_on_one & written.value;
        let new = (old & !taken & !cleared) | (written.value & taken);
        self.set(register.offset, register.width, new);
        let handed_over = written.value & register.write_only;
        match register.offset {
            reg::GCMD => {
                let [bytes @ .., _, _, _, _] = written.value.to_le_bytes();
                let command = Command::from_bits_truncate(u32::from_le_bytes(bytes));
                to.push(Effect::GlobalCommand(command));
            }
            reg::CCMD if handed_over != 0 => {
                to.push(Effect::ContextCommand(ContextCommand::from_bits(new)));
            }
            reg::IOTLB if handed_over != 0 => {
                to.push(Effect::IotlbCommand(IotlbCommand::from_bits(new)));
            }
            reg::FSTS => {
                self.update_fault_status(FaultStatus::empty());
                if cleared & u64::from(FaultStatus::STOPS_THE_QUEUE.bits()) & old != 0 {
                    to.push(Effect::QueueMoved);
                }
            }
            reg::IQT => to.push(Effect::QueueMoved),
            reg::ICS if new == 0 => self.withdraw(Event::Invalidation),
            reg::PRS if new == 0 => self.withdraw(Event::PageRequest),
            reg::FECTL => to.extend(self.unmasked(Event::Fault).map(Effect::Send)),
            reg::IECTL => to.extend(self.unmasked(Event::Invalidation).map(Effect::Send)),
            reg::PECTL => to.extend(self.unmasked(Event::PageRequest).map(Effect::Send)),
            _ => {}
        }
    }

    /// A write while a response is pending is dropped (VT-d §11.4.16.1). The lower half has the
    /// command, so 32-bit software writes the upper one first.
    fn write_virtual_command(
        &mut self,
        layout: Layout,
        offset_bytes: u64,
        from: &[u8],
        to: &mut Vec<Effect>,
    ) {
        let [command, ..] = layout.registers();
        let offset = command.offset;
        let Some(written) = Written::to(offset, command.width, offset_bytes, from) else {
            return;
        };
        if self.response_pending {
            return;
        }
        let taken = command.writable & written.mask;
        let new = (self.qword(offset) & !taken) | (written.value & taken);
        self.set_qword(offset, new);
        if written.mask & 0xff != 0 {
            self.response_pending = true;
            let pending = layout.encode_response(VirtualResponse::InProgress);
            self.set_qword(layout.response_offset(), pending);
            to.push(Effect::VirtualCommand(layout.decode_command(new)));
        }
    }

    /// Ends a virtual command.
    pub(crate) fn respond(&mut self, response: VirtualResponse) {
        if let Some(layout) = self.config.vcmd.layout() {
            self.response_pending = false;
            self.set_qword(layout.response_offset(), layout.encode_response(response));
        }
    }

    /// GSTS.
    pub(crate) fn status(&self) -> Command {
        Command::from_bits_truncate(self.dword(reg::GSTS))
    }

    pub(crate) fn set_status(&mut self, bits: Command, set: Switch) {
        let mut status = self.status();
        status.set(bits, set == Switch::On);
        self.set_dword(reg::GSTS, status.bits());
    }

    /// Takes over the root table address (VT-d §11.4.4.1: SRTP).
    pub(crate) fn set_root_table(&mut self) {
        self.root = RootTableAddress::from_bits(self.qword(reg::RTADDR));
    }

    /// The root table address in use.
    pub(crate) fn root(&self) -> RootTableAddress {
        self.root
    }

    pub(crate) fn translation(&self) -> TranslationState {
        if self.status().contains(Command::TRANSLATION_ENABLE) {
            TranslationState::On(self.root)
        } else {
            TranslationState::Off
        }
    }

    /// Ends a context command (VT-d §11.4.6.1).
    pub(crate) fn complete_context(&mut self, command: ContextCommand) {
        self.set_qword(reg::CCMD, command.with_invalidate(false).into_bits());
    }

    /// IVA (VT-d §11.4.6.4).
    pub(crate) fn invalidate_address(&self) -> InvalidateAddress {
        InvalidateAddress::from_bits(self.qword(reg::IVA))
    }

    /// Ends an IOTLB command (VT-d §11.4.6.3).
    pub(crate) fn complete_iotlb(&mut self, command: IotlbCommand) {
        self.set_qword(reg::IOTLB, command.with_invalidate(false).into_bits());
    }

    pub(crate) fn queue_address(&self) -> InvalidationQueueAddress {
        InvalidationQueueAddress::from_bits(self.qword(reg::IQA))
    }

    pub(crate) fn queue_tail(&self) -> u64 {
        self.qword(reg::IQT)
    }

    pub(crate) fn queue_head(&self) -> u64 {
        self.qword(reg::IQH)
    }

    pub(crate) fn set_queue_head(&mut self, offset_bytes: u64) {
        self.set_qword(reg::IQH, offset_bytes);
    }

    /// Whether descriptors are fetched (VT-d §6.5.2).
    pub(crate) fn queue_runs(&self) -> bool {
        self.status().contains(Command::QUEUED_INVALIDATION_ENABLE)
            && !self.fault_status().intersects(FaultStatus::STOPS_THE_QUEUE)
    }

    /// Stops the queue at its head (VT-d §6.5.2.11).
    pub(crate) fn stop_queue(&mut self, error: QueueError) -> Option<Message> {
        let record = QueueErrorRecord::from_bits(self.qword(reg::IQER));
        let record = record.with_error(error.code());
        self.set_qword(reg::IQER, record.into_bits());
        self.raise_fault_event(FaultStatus::QUEUE_ERROR)
    }

    /// Stops the queue because a function's TLB does not answer. The first such function is recorded
    /// (VT-d §6.5.2.11, §11.4.9.9).
    pub(crate) fn time_out(&mut self, function: Bdf) -> Option<Message> {
        if !self.fault_status().contains(FaultStatus::TIME_OUT) {
            let record = QueueErrorRecord::from_bits(self.qword(reg::IQER));
            let record = record.with_time_out_source(function.requester_id());
            self.set_qword(reg::IQER, record.into_bits());
        }
        self.raise_fault_event(FaultStatus::TIME_OUT)
    }

    /// A wait descriptor with its interrupt flag set is complete (VT-d §6.5.2.10).
    pub(crate) fn complete_wait(&mut self) -> Option<Message> {
        let done = CompletionStatus::WAIT_COMPLETE.bits();
        if self.dword(reg::ICS) & done != 0 {
            return None;
        }
        self.set_dword(reg::ICS, done);
        self.raise(Event::Invalidation)
    }

    fn page_queue_address(&self) -> PageRequestQueueAddress {
        PageRequestQueueAddress::from_bits(self.qword(reg::PQA))
    }

    fn page_request_status(&self) -> PageRequestStatus {
        PageRequestStatus::from_bits_truncate(self.dword(reg::PRS))
    }

    fn fault_status(&self) -> FaultStatus {
        FaultStatusRegister::from_bits(self.dword(reg::FSTS)).status()
    }

    fn get(&self, offset: u64, width: Width) -> u64 {
        match width {
            Width::Dword => self.dword(offset).into(),
            Width::Qword => self.qword(offset),
        }
    }

    fn set(&mut self, offset: u64, width: Width, value: u64) {
        match width {
            Width::Dword => {
                let [bytes @ .., _, _, _, _] = value.to_le_bytes();
                self.set_dword(offset, u32::from_le_bytes(bytes));
            }
            Width::Qword => self.set_qword(offset, value),
        }
    }

    /// The qword at a multiple of 8; zero outside of the page.
    fn qword(&self, offset: u64) -> u64 {
        let index = usize::try_from(offset / 8).unwrap_or(QWORDS);
        self.page.get(index).copied().unwrap_or(0)
    }

    fn set_qword(&mut self, offset: u64, value: u64) {
        let index = usize::try_from(offset / 8).unwrap_or(QWORDS);
        if let Some(qword) = self.page.get_mut(index) {
            *qword = value;
        }
    }

    /// The dword at a multiple of 4.
    fn dword(&self, offset: u64) -> u32 {
        let shift = offset % 8 * 8;
        let [bytes @ .., _, _, _, _] = (self.qword(offset & !7) >> shift).to_le_bytes();
        u32::from_le_bytes(bytes)
    }

    fn set_dword(&mut self, offset: u64, value: u32) {
        let shift = offset % 8 * 8;
        let kept = self.qword(offset & !7) & !(0xffff_ffff << shift);
        self.set_qword(offset & !7, kept | u64::from(value) << shift);
    }
}

/// Which way a status bit goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    On,
    Off,
}

/// What of a write falls on one register.
struct Written {
    /// The bits that the write covers.
    mask: u64,
    /// Their values; zero elsewhere.
    value: u64,
}

impl Written {
    fn to(register: u64, width: Width, offset_bytes: u64, from: &[u8]) -> Option<Self> {
        let end = offset_bytes.checked_add(u64::try_from(from.len()).ok()?)?;
        if end <= register || offset_bytes >= register + width.bytes() {
            return None;
        }
        let mut mask = [0; 8];
        let mut value = [0; 8];
        let bytes = (register..register + width.bytes()).zip(mask.iter_mut().zip(&mut value));
        for (at, (mask, value)) in bytes {
            let index = at
                .checked_sub(offset_bytes)
                .and_then(|i| usize::try_from(i).ok());
            if let Some(byte) = index.and_then(|i| from.get(i)) {
                *mask = 0xff;
                *value = *byte;
            }
        }
        Some(Self {
            mask: u64::from_le_bytes(mask),
            value: u64::from_le_bytes(value),
        })
    }
}

#[cfg(test)]
mod access;
#[cfg(test)]
mod tests;
