use crate::{
    Bar, BarKind, BarSpec, ConfigSpace, Field,
    capability::{Capability, ExtendedCapability},
    config::{CONFIG_SPACE_BYTES, Parts},
};

const HEADER_BYTES: usize = 0x40;
const CONVENTIONAL_BYTES: usize = 0x100;

/// Who a function says it is (PCIe 7.5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class code: base class 23:16, sub-class 15:8, programming interface 7:0.
    pub class: u32,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// The parts do not make a configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A BAR's size cannot be told by its register.
    #[error(
        "{0} cannot be {1:#x} bytes: take a power of two of at least 16 that its width can address"
    )]
    BarSize(Bar, u64),
    /// Two BARs want the same register.
    #[error("{0} is taken: a 64-bit BAR needs its register and the next, and BAR 5 has no next")]
    BarTaken(Bar),
    /// The capability list has no room left.
    #[error("capability {0:#x} does not fit below {CONVENTIONAL_BYTES:#x}: leave one out")]
    NoRoom(u8),
    /// The extended capability list has no room left.
    #[error("extended capability {0:#x} does not fit below {CONFIG_SPACE_BYTES:#x}: leave one out")]
    NoExtendedRoom(u16),
    /// A field of a capability stands outside of it.
    #[error("a field of capability {0:#x} stands outside of its {1} bytes, or on its header")]
    FieldOutside(u16, u16),
}

/// Collects what a function shows, in the order in which the lists shall have it.
#[derive(Clone, Debug)]
#[must_use]
pub struct ConfigSpaceBuilder {
    identity: Identity,
    bars: Vec<(Bar, BarSpec)>,
    capabilities: Vec<Capability>,
    extended: Vec<ExtendedCapability>,
}

impl ConfigSpaceBuilder {
    pub(crate) fn new(identity: Identity) -> Self {
        Self {
            identity,
            bars: Vec::new(),
            capabilities: Vec::new(),
            extended: Vec::new(),
        }
    }

    /// Adds a BAR.
    pub fn bar(mut self, bar: Bar, spec: BarSpec) -> Self {
        self.bars.push((bar, spec));
        self
    }

    /// Adds a capability to the list that starts in the header.
    pub fn capability(mut self, capability: Capability) -> Self {
        self.capabilities.push(capability);
        self
    }

    /// Adds a capability to the list that starts at 0x100.
    pub fn extended_capability(mut self, capability: ExtendedCapability) -> Self {
        self.extended.push(capability);
        self
    }

    /// Puts everything in its place.
    ///
    /// # Errors
    /// [`ConfigError`] where it does not fit.
    pub fn build(self) -> Result<ConfigSpace, ConfigError> {
        let mut parts = Parts::default();
        header(&mut parts, &self.identity);
        for (bar, spec) in &self.bars {
            place_bar(&mut parts, *bar, *spec)?;
        }
        place_capabilities(&mut parts, &self.capabilities)?;
        place_extended(&mut parts, &self.extended)?;
        Ok(ConfigSpace::from_parts(parts))
    }
}

fn header(parts: &mut Parts, identity: &Identity) {
    let [interface, sub_class, base_class, _] = identity.class.to_le_bytes();
    // Memory space, bus master, parity error response, SERR, INTx disable.
    const COMMAND: u32 = 0x0546;
    // Master data parity error and the five error bits at the top.
    const STATUS_ERRORS: u32 = 0xf900;
    parts.place(
        0,
        &[
            Field::word(0x00, identity.vendor),
            Field::word(0x02, identity.device),
            Field::word(0x04, 0).writable(COMMAND),
            Field::word(0x06, 0).write_one_clears(STATUS_ERRORS),
            Field::byte(0x08, identity.revision),
            Field::byte(0x09, interface),
            Field::byte(0x0a, sub_class),
            Field::byte(0x0b, base_class),
            Field::byte(0x0c, 0).writable(0xff),
            Field::word(0x2c, identity.subsystem_vendor),
            Field::word(0x2e, identity.subsystem),
            Field::byte(0x3c, 0).writable(0xff),
        ],
    );
}

fn place_bar(parts: &mut Parts, bar: Bar, spec: BarSpec) -> Result<(), ConfigError> {
    if !spec.is_well_formed() {
        return Err(ConfigError::BarSize(bar, spec.len_bytes));
    }
    let upper = match spec.kind {
        BarKind::Memory32 => None,
        BarKind::Memory64 => Some(bar.next().ok_or(ConfigError::BarTaken(bar))?),
    };
    for register in [Some(bar), upper].into_iter().flatten() {
        if !parts.take_bar_register(register) {
            return Err(ConfigError::BarTaken(register));
        }
    }
    // Sizing falls out of the mask: address bits below the size never stick, so that all ones read back as the mask.
    let address_bits = !(spec.len_bytes - 1);
    let (low_mask, high_mask) = halves(address_bits);
    let (type_bits, _) = halves(spec.type_bits());
    parts.place(
        0,
        &[Field::dword(bar.config_offset(), type_bits).writable(low_mask)],
    );
    if let Some(upper) = upper {
        parts.place(
            0,
            &[Field::dword(upper.config_offset(), 0).writable(high_mask)],
        );
    }
    parts.bars[usize::from(bar.index())] = Some(spec);
    Ok(())
}

fn place_capabilities(parts: &mut Parts, list: &[Capability]) -> Result<(), ConfigError> {
    const STATUS_HAS_LIST: u8 = 1 << 4;
    const FIRST_POINTER: usize = 0x34;
    let mut link = FIRST_POINTER;
    let mut at = HEADER_BYTES;
    for capability in list {
        let len = usize::from(capability.len_bytes);
        check_fields(
            &capability.fields,
            2,
            capability.id.into(),
            capability.len_bytes,
        )?;
        let here = u8::try_from(at).map_err(|_| ConfigError::NoRoom(capability.id))?;
        if at + len > CONVENTIONAL_BYTES {
            return Err(ConfigError::NoRoom(capability.id));
        }
        parts.values[link] = here;
        parts.values[at] = capability.id;
        parts.values[0x06] |= STATUS_HAS_LIST;
        parts.place(at, &capability.fields);
        parts.capabilities.push((capability.id, here.into()));
        link = at + 1;
        at = (at + len).next_multiple_of(4);
    }
    Ok(())
}

fn place_extended(parts: &mut Parts, list: &[ExtendedCapability]) -> Result<(), ConfigError> {
    let mut previous: Option<usize> = None;
    let mut at = CONVENTIONAL_BYTES;
    for capability in list {
        let len = usize::from(capability.len_bytes);
        check_fields(&capability.fields, 4, capability.id, capability.len_bytes)?;
        let here = u16::try_from(at).map_err(|_| ConfigError::NoExtendedRoom(capability.id))?;
        if at + len > CONFIG_SPACE_BYTES {
            return Err(ConfigError::NoExtendedRoom(capability.id));
        }
        let header = u32::from(capability.id) | (u32::from(capability.version) << 16);
        parts.values[at..at + 4].copy_from_slice(&header.to_le_bytes());
        if let Some(previous) = previous {
            // Next pointer: bits 31:20 of the previous header.
            let [low, high] = here.to_le_bytes();
            parts.values[previous + 2] |= low << 4;
            parts.values[previous + 3] = (high << 4) | (low >> 4);
        }
        parts.place(at, &capability.fields);
        parts.extended.push((capability.id, here));
        previous = Some(at);
        at = (at + len).next_multiple_of(4);
    }
    Ok(())
}

fn check_fields(fields: &[Field], header: u16, id: u16, len_bytes: u16) -> Result<(), ConfigError> {
    let len = usize::from(len_bytes);
    let fits = |field: &Field| {
        field.end() <= len
            && field
                .bytes()
                .all(|(offset, ..)| offset >= usize::from(header))
    };
    if len_bytes >= header && fields.iter().all(fits) {
        Ok(())
    } else {
        Err(ConfigError::FieldOutside(id, len_bytes))
    }
}

fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}
