use crate::{
    Bar, BarKind, BarSpec, ConfigSpaceBuilder, Field, Identity,
    capability::{CONTROL, DEVICE_CONTROL, INITIATE_RESET, PRI_STATUS, extended_id, id},
};

/// The size of the configuration space of a PCI Express function.
pub const CONFIG_SPACE_BYTES: usize = 4096;

/// What a write to configuration space asks for beyond the bits that it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum ConfigEffect {
    /// Nothing.
    None,
    /// The driver started a function-level reset (PCIe 6.6.2): the function resets itself, this space
    /// with it ([`ConfigSpace::reset`]).
    FunctionLevelReset,
}

/// What a function reports in the status register of PRI (PCIe 10.5.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageRequestProblem {
    /// A response said "failure".
    ResponseFailure,
    /// A response named a group that was not outstanding.
    UnexpectedGroup,
}

/// The bytes are not of a space of this shape, or no driver wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("configuration space differs at {at:#05x}, where no driver can change it")]
pub struct NotOfThisSpace {
    /// Where they differ first.
    pub at: usize,
}

pub(crate) type Bytes = Box<[u8; CONFIG_SPACE_BYTES]>;

/// What a builder has put together.
pub(crate) struct Parts {
    pub(crate) values: Bytes,
    pub(crate) writable: Bytes,
    pub(crate) write_one_clears: Bytes,
    pub(crate) bars: [Option<BarSpec>; 6],
    bar_registers_taken: [bool; 6],
    pub(crate) capabilities: Vec<(u8, u16)>,
    pub(crate) extended: Vec<(u16, u16)>,
}

impl Default for Parts {
    fn default() -> Self {
        let empty = || Box::new([0; CONFIG_SPACE_BYTES]);
        Self {
            values: empty(),
            writable: empty(),
            write_one_clears: empty(),
            bars: [None; 6],
            bar_registers_taken: [false; 6],
            capabilities: Vec::new(),
            extended: Vec::new(),
        }
    }
}

impl Parts {
    /// Whether the register was free.
    pub(crate) fn take_bar_register(&mut self, bar: Bar) -> bool {
        !std::mem::replace(
            &mut self.bar_registers_taken[usize::from(bar.index())],
            true,
        )
    }

    /// Places fields at offsets counted from `base`; the caller has checked that they fit.
    pub(crate) fn place(&mut self, base: usize, fields: &[Field]) {
        for (offset, value, writable, clears) in fields.iter().flat_map(Field::bytes) {
            self.values[base + offset] = value;
            self.writable[base + offset] = writable;
            self.write_one_clears[base + offset] = clears;
        }
    }
}

/// The 4096 bytes that software sees of a function, and what writing does to each bit.
///
/// BAR sizing needs no state of its own: the bits below a BAR's size cannot be written.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    values: Bytes,
    after_reset: Bytes,
    writable: Bytes,
    write_one_clears: Bytes,
    bars: [Option<BarSpec>; 6],
    capabilities: Vec<(u8, u16)>,
    extended: Vec<(u16, u16)>,
}

impl ConfigSpace {
    /// Starts a type 0 header without BARs and capabilities.
    pub fn builder(identity: Identity) -> ConfigSpaceBuilder {
        ConfigSpaceBuilder::new(identity)
    }

    pub(crate) fn from_parts(parts: Parts) -> Self {
        Self {
            after_reset: parts.values.clone(),
            values: parts.values,
            writable: parts.writable,
            write_one_clears: parts.write_one_clears,
            bars: parts.bars,
            capabilities: parts.capabilities,
            extended: parts.extended,
        }
    }

    /// Reads from `offset` on; bytes past the end of the space read as ones, as nothing answers there.
    pub fn read(&self, offset: u16, into: &mut [u8]) {
        let start = usize::from(offset).min(CONFIG_SPACE_BYTES);
        let inside = into.len().min(CONFIG_SPACE_BYTES - start);
        let (there, beyond) = into.split_at_mut(inside);
        there.copy_from_slice(&self.values[start..start + inside]);
        beyond.fill(0xff);
    }

    /// Writes from `offset` on, each bit as its mask says; bytes past the end of the space are dropped.
    pub fn write(&mut self, offset: u16, from: &[u8]) -> ConfigEffect {
        for (at, new) in (usize::from(offset)..CONFIG_SPACE_BYTES).zip(from) {
            let writable = self.writable[at];
            let kept = self.values[at] & !writable & !(new & self.write_one_clears[at]);
            self.values[at] = kept | (new & writable);
        }
        self.update_stopped();
        if self.starts_reset(offset, from) {
            ConfigEffect::FunctionLevelReset
        } else {
            ConfigEffect::None
        }
    }

    /// Brings every register to its value after a reset, BARs included.
    pub fn reset(&mut self) {
        self.values.copy_from_slice(&self.after_reset[..]);
    }

    /// Takes over what [`ConfigSpace::read`] gave of a whole space of this shape.
    ///
    /// # Errors
    /// [`NotOfThisSpace`]; nothing has changed then.
    pub fn restore(&mut self, from: &[u8; CONFIG_SPACE_BYTES]) -> Result<(), NotOfThisSpace> {
        let before = self.values.clone();
        for (at, new) in from.iter().enumerate() {
            let changes = self.writable[at] | self.write_one_clears[at];
            self.values[at] = (self.after_reset[at] & !changes) | (new & changes);
        }
        self.update_stopped();
        let differs = |(new, taken): (&u8, &u8)| new != taken;
        if let Some(at) = from.iter().zip(self.values.iter()).position(differs) {
            self.values = before;
            return Err(NotOfThisSpace { at });
        }
        Ok(())
    }

    /// The size of a BAR in bytes; 0 where none starts.
    #[must_use]
    pub fn bar_len_bytes(&self, bar: Bar) -> u64 {
        self.bars[usize::from(bar.index())].map_or(0, |spec| spec.len_bytes)
    }

    /// The address that software wrote into a BAR; `None` where none starts.
    #[must_use]
    pub fn bar_address(&self, bar: Bar) -> Option<u64> {
        let spec = self.bars[usize::from(bar.index())]?;
        let low = u64::from(self.dword(bar.config_offset()) & !0xf);
        let high = match (spec.kind, bar.next()) {
            (BarKind::Memory64, Some(upper)) => u64::from(self.dword(upper.config_offset())),
            _ => 0,
        };
        Some(low | (high << 32))
    }

    /// COMMAND: the BARs are decoded (PCIe 7.5.1.1.3).
    #[must_use]
    pub fn memory_enabled(&self) -> bool {
        self.word(0x04) & (1 << 1) != 0
    }

    /// COMMAND: the function may send requests, message-signalled interrupts included.
    #[must_use]
    pub fn bus_master(&self) -> bool {
        self.word(0x04) & (1 << 2) != 0
    }

    /// MSI-X is on; without the capability, no.
    #[must_use]
    pub fn msix_enabled(&self) -> bool {
        self.capability_offset(id::MSIX)
            .is_some_and(|at| self.word(at + 2) & (1 << 15) != 0)
    }

    /// The driver let the function put PASIDs on its requests; without the capability, no.
    #[must_use]
    pub fn pasid_enabled(&self) -> bool {
        self.extended_word(extended_id::PASID, CONTROL) & 1 != 0
    }

    /// The driver let the function ask for translations; without the capability, no.
    #[must_use]
    pub fn ats_enabled(&self) -> bool {
        self.extended_word(extended_id::ATS, CONTROL) & (1 << 15) != 0
    }

    /// The driver let the function ask for pages; without the capability, no.
    #[must_use]
    pub fn pri_enabled(&self) -> bool {
        self.extended_word(extended_id::PRI, 0x04) & 1 != 0
    }

    /// How many page requests the driver allows to be outstanding; 0 without the capability.
    #[must_use]
    pub fn pri_allocation(&self) -> u32 {
        self.extended_capability_offset(extended_id::PRI)
            .map_or(0, |at| self.dword(at + 0x0c))
    }

    /// Reports a problem with a page response; the driver clears it by writing a one.
    pub fn report_page_request_problem(&mut self, problem: PageRequestProblem) {
        let bit = match problem {
            PageRequestProblem::ResponseFailure => 1 << 0,
            PageRequestProblem::UnexpectedGroup => 1 << 1,
        };
        if let Some(at) = self.extended_capability_offset(extended_id::PRI) {
            self.values[usize::from(at + PRI_STATUS)] |= bit;
        }
    }

    /// Where a capability starts.
    #[must_use]
    pub fn capability_offset(&self, id: u8) -> Option<u16> {
        let found = self.capabilities.iter().find(|(other, _)| *other == id);
        found.map(|(_, at)| *at)
    }

    /// Where an extended capability starts.
    #[must_use]
    pub fn extended_capability_offset(&self, id: u16) -> Option<u16> {
        let found = self.extended.iter().find(|(other, _)| *other == id);
        found.map(|(_, at)| *at)
    }

    /// PRI's Stopped bit mirrors the enable bit: drivers wait for it before they enable, and a function
    /// whose requests are still out when PRI is disabled gets their answers regardless.
    fn update_stopped(&mut self) {
        let Some(at) = self.extended_capability_offset(extended_id::PRI) else {
            return;
        };
        let stopped = u8::from(!self.pri_enabled());
        let high_byte = &mut self.values[usize::from(at + PRI_STATUS) + 1];
        *high_byte = (*high_byte & !1) | stopped;
    }

    fn starts_reset(&self, offset: u16, from: &[u8]) -> bool {
        let Some(at) = self.capability_offset(id::EXPRESS) else {
            return false;
        };
        let high_byte = usize::from(at + DEVICE_CONTROL) + 1;
        let [_, bit] = INITIATE_RESET.to_le_bytes();
        let written = high_byte
            .checked_sub(usize::from(offset))
            .and_then(|i| from.get(i));
        written.is_some_and(|byte| byte & bit != 0)
    }

    fn extended_word(&self, id: u16, offset: u16) -> u16 {
        self.extended_capability_offset(id)
            .map_or(0, |at| self.word(at + offset))
    }

    fn word(&self, at: u16) -> u16 {
        let mut bytes = [0; 2];
        self.read(at, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    fn dword(&self, at: u16) -> u32 {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests;
