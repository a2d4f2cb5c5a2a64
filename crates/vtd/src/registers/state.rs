//! What of the registers outlives the unit.

use super::{FaultRecords, Registers};
use crate::spec::command::{Command, RootTableAddress};
use crate::spec::event::{EventControl, FaultStatus, FaultStatusRegister};
use crate::spec::register::{self as reg, REGISTERS, Register, Width};
use crate::spec::virtual_command::{Layout, VirtualCommand};
use crate::unit::{UnitConfig, VcmdLayout};

/// The registers of version 1 of the state, in the order in which they stand there: all whose value is
/// not a constant.
pub(crate) const KEPT: [u64; 27] = [
    reg::GSTS,
    reg::RTADDR,
    reg::CCMD,
    reg::FSTS,
    reg::FECTL,
    reg::FEDATA,
    reg::FEADDR,
    reg::FEUADDR,
    reg::IQH,
    reg::IQT,
    reg::IQA,
    reg::ICS,
    reg::IECTL,
    reg::IEDATA,
    reg::IEADDR,
    reg::IEUADDR,
    reg::IQER,
    reg::PQH,
    reg::PQT,
    reg::PQA,
    reg::PRS,
    reg::PECTL,
    reg::PEDATA,
    reg::PEADDR,
    reg::PEUADDR,
    reg::IVA,
    reg::IOTLB,
];

/// The values of the registers, and what stands behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegistersState {
    /// Those of [`KEPT`].
    pub(crate) values: [u64; KEPT.len()],
    /// The root table address that SRTP took over.
    pub(crate) root: u64,
    /// The fault records that are not empty, by index, ascending.
    pub(crate) records: Vec<(u8, [u8; 16])>,
    /// The index of the next record to fill, and FRI.
    pub(crate) positions: [u8; 2],
    pub(crate) virtual_command: u64,
    pub(crate) virtual_response: u64,
    pub(crate) response_pending: bool,
}

/// CAIG of CCMD_REG (VT-d §11.4.6.1).
const CONTEXT_ACTUAL: u64 = 0b11 << 59;
/// IAIG of IOTLB_REG (VT-d §11.4.6.3).
const IOTLB_ACTUAL: u64 = 0b11 << 57;

/// The bits of a register that the unit itself sets, beside those that software has a hand in.
fn set_by_the_unit(offset: u64) -> u64 {
    let status =
        Command::SET_ROOT_TABLE | Command::TRANSLATION_ENABLE | Command::QUEUED_INVALIDATION_ENABLE;
    match offset {
        reg::GSTS => status.bits().into(),
        reg::CCMD => CONTEXT_ACTUAL,
        reg::IOTLB => IOTLB_ACTUAL,
        reg::FSTS => FaultStatusRegister::new(FaultStatus::PENDING, u8::MAX)
            .into_bits()
            .into(),
        reg::FECTL | reg::IECTL | reg::PECTL => {
            EventControl::new().with_pending(true).into_bits().into()
        }
        reg::IQH => register(reg::IQT).map_or(0, |tail| tail.writable),
        reg::IQER => u64::MAX,
        _ => 0,
    }
}

fn register(offset: u64) -> Option<&'static Register> {
    REGISTERS.iter().find(|register| register.offset == offset)
}

impl Registers {
    /// How the unit was made.
    pub(crate) fn config(&self) -> UnitConfig {
        self.config
    }

    /// What outlives the unit.
    pub(crate) fn save(&self) -> RegistersState {
        let value = |offset| {
            let width = register(offset).map_or(Width::Qword, |register| register.width);
            self.get(offset, width)
        };
        let of_layout = |offset: fn(Layout) -> u64| {
            self.config
                .vcmd
                .layout()
                .map_or(0, |layout| self.qword(offset(layout)))
        };
        RegistersState {
            values: KEPT.map(value),
            root: self.root.into_bits(),
            records: self.records.filled().collect(),
            positions: self.records.positions(),
            virtual_command: of_layout(Layout::command_offset),
            virtual_response: of_layout(Layout::response_offset),
            response_pending: self.response_pending,
        }
    }

    /// The registers as they were saved. What is constant is this unit's own.
    pub(crate) fn restored(config: UnitConfig, state: &RegistersState) -> Self {
        let mut registers = Self::new(config);
        for (offset, value) in KEPT.into_iter().zip(state.values) {
            let width = register(offset).map_or(Width::Qword, |register| register.width);
            registers.set(offset, width, value);
        }
        registers.root = RootTableAddress::from_bits(state.root);
        registers.records = FaultRecords::restored(&state.records, state.positions);
        if let Some(layout) = config.vcmd.layout() {
            registers.set_qword(layout.command_offset(), state.virtual_command);
            registers.set_qword(layout.response_offset(), state.virtual_response);
            registers.response_pending = state.response_pending;
        }
        registers
    }

    /// The virtual command that has no response yet.
    pub(crate) fn unanswered_command(&self) -> Option<VirtualCommand> {
        let layout = self.config.vcmd.layout();
        let layout = layout.filter(|_| self.response_pending)?;
        Some(layout.decode_command(self.qword(layout.command_offset())))
    }
}

impl RegistersState {
    /// Whether registers of a unit can be so.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn check(&self, config: UnitConfig) -> Result<(), &'static str> {
        for (offset, value) in KEPT.into_iter().zip(self.values) {
            let known =
                register(offset).map_or(0, |register| register.writable | register.clear_on_one);
            if value & !(known | set_by_the_unit(offset)) != 0 {
                return Err("a register has a bit that is never set");
            }
        }
        let takes = register(reg::RTADDR).map_or(0, |register| register.writable);
        if self.root & !takes != 0 {
            return Err("the root table address has a bit that is never set");
        }
        let quiet =
            self.virtual_command == 0 && self.virtual_response == 0 && !self.response_pending;
        if config.vcmd == VcmdLayout::Off && !quiet {
            return Err("there is a virtual command, and none are offered");
        }
        let indexes = self.records.iter().map(|(index, _)| *index);
        let filled = self.records.iter().all(|(_, record)| *record != [0; 16]);
        if !filled || !indexes.is_sorted_by(|one, next| one < next) {
            return Err("the fault records are not in their order");
        }
        let mut registers = Registers::restored(config, self);
        let saved = registers.dword(reg::FSTS);
        registers.update_fault_status(registers.fault_status());
        if registers.dword(reg::FSTS) != saved {
            return Err("the fault status does not fit the fault records");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_is_kept_but_for_constants_and_for_what_is_handed_over() {
        for register in REGISTERS {
            let constant = [reg::VER, reg::CAP, reg::ECAP].contains(&register.offset);
            let handed_over = register.offset == reg::GCMD;
            let kept = KEPT.contains(&register.offset);
            assert_eq!(kept, !constant && !handed_over, "{}", register.name);
        }
    }
}
