//! Virtual commands: PASIDs from the host (VT-d §11.4.16).
//!
//! Revisions up to 3.2 have the registers at other places and the fields at other bits; guests of that
//! time (Linux 5.8 to 5.14) speak that layout.

use core::ops::Range;

use palisade_units::{GuestPasid, HostPasid, PASID_COUNT};

use super::register::{Register, Width};

/// Which revision's registers stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// From revision 3.3 on.
    Current,
    /// Before it.
    Older,
}

/// What software asks for (VT-d §11.4.16.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtualCommand {
    /// 0: nothing.
    Null,
    /// 1: a PASID.
    AllocatePasid,
    /// 2: a PASID back.
    FreePasid(GuestPasid),
    /// A reserved command.
    Undefined(u8),
}

/// How a command ended (VT-d §11.4.16.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtualResponse {
    /// IP: not yet.
    InProgress,
    /// Done, with nothing to tell.
    Done,
    /// Done: here it is.
    Pasid(HostPasid),
    /// The command is not defined.
    UndefinedCommand,
    /// There is no PASID left.
    NoPasid,
    /// The PASID is not the guest's to give back.
    InvalidPasid,
}

const ALLOCATE: u64 = 1;
const FREE: u64 = 2;
const IN_PROGRESS: u64 = 1;
const STATUS_SHIFT: u32 = 1;
const STATUS_UNDEFINED: u64 = 1;
const PASID_MASK: u64 = PASID_COUNT as u64 - 1;

impl Layout {
    /// Where VCMD_REG stands.
    #[must_use]
    pub const fn command_offset(self) -> u64 {
        match self {
            Self::Current => 0xe00,
            Self::Older => 0xe10,
        }
    }

    /// Where VCRSP_REG stands.
    #[must_use]
    pub const fn response_offset(self) -> u64 {
        match self {
            Self::Current => 0xe10,
            Self::Older => 0xe20,
        }
    }

    /// Where VCCAP_REG stands.
    #[must_use]
    pub const fn capability_offset(self) -> u64 {
        match self {
            Self::Current => 0xe30,
            Self::Older => 0xe00,
        }
    }

    /// The value of VCCAP_REG.
    ///
    /// Bit 0 is PASID allocation up to revision 4, and Linux reads it so; later it is the null command,
    /// with allocation in bit 1 and freeing in bit 2. All of it is there, so all three are set.
    #[must_use]
    pub const fn capability(self) -> u64 {
        match self {
            Self::Current => 0b111,
            Self::Older => 0b1,
        }
    }

    const fn operand_shift(self) -> u32 {
        match self {
            Self::Current => 16,
            Self::Older => 8,
        }
    }

    const fn status_mask(self) -> u64 {
        match self {
            Self::Current => 0x7f,
            Self::Older => 0x3,
        }
    }

    /// "No PASID available" of an allocation, and "invalid PASID" of a free.
    const fn status_refused(self) -> u64 {
        match self {
            Self::Current => 16,
            Self::Older => 2,
        }
    }

    /// VCMD_REG, VCRSP_REG and VCCAP_REG. Software writes the first alone: the command, and its operand above
    /// bits that are reserved in the current layout.
    #[must_use]
    pub const fn registers(self) -> [Register; 3] {
        let reserved = match self {
            Self::Current => 0xff00,
            Self::Older => 0,
        };
        [
            Register::new("VCMD_REG", self.command_offset(), Width::Qword).writable(!reserved),
            Register::new("VCRSP_REG", self.response_offset(), Width::Qword),
            Register::new("VCCAP_REG", self.capability_offset(), Width::Qword)
                .reset(self.capability()),
        ]
    }

    /// The bytes of the page that VCMD_REG takes.
    #[must_use]
    pub const fn command_bytes(self) -> Range<u64> {
        self.command_offset()..self.command_offset() + 8
    }

    /// What a value written to VCMD_REG asks for.
    #[must_use]
    pub fn decode_command(self, register: u64) -> VirtualCommand {
        let [command, ..] = register.to_le_bytes();
        match u64::from(command) {
            0 => VirtualCommand::Null,
            ALLOCATE => VirtualCommand::AllocatePasid,
            FREE => self.pasid_field(register).map_or(
                VirtualCommand::Undefined(command),
                VirtualCommand::FreePasid,
            ),
            _ => VirtualCommand::Undefined(command),
        }
    }

    fn pasid_field(self, register: u64) -> Option<GuestPasid> {
        let raw = register >> self.operand_shift() & PASID_MASK;
        let raw = u32::try_from(raw).ok()?;
        GuestPasid::new(raw).ok()
    }

    /// The value of VCMD_REG that asks for something.
    #[must_use]
    pub fn encode_command(self, command: VirtualCommand) -> u64 {
        match command {
            VirtualCommand::Null => 0,
            VirtualCommand::AllocatePasid => ALLOCATE,
            VirtualCommand::FreePasid(pasid) => {
                u64::from(pasid.get()) << self.operand_shift() | FREE
            }
            VirtualCommand::Undefined(command) => command.into(),
        }
    }

    /// The value of VCRSP_REG that says how a command ended.
    #[must_use]
    pub fn encode_response(self, response: VirtualResponse) -> u64 {
        match response {
            VirtualResponse::InProgress => IN_PROGRESS,
            VirtualResponse::Done => 0,
            VirtualResponse::Pasid(pasid) => u64::from(pasid.get()) << self.operand_shift(),
            VirtualResponse::UndefinedCommand => STATUS_UNDEFINED << STATUS_SHIFT,
            VirtualResponse::NoPasid | VirtualResponse::InvalidPasid => {
                self.status_refused() << STATUS_SHIFT
            }
        }
    }

    /// What a value of VCRSP_REG says of an allocation.
    #[must_use]
    pub fn decode_allocation(self, register: u64) -> VirtualResponse {
        let raw = register >> self.operand_shift() & PASID_MASK;
        let pasid = u32::try_from(raw)
            .ok()
            .and_then(|raw| HostPasid::new(raw).ok());
        self.decode(register, VirtualResponse::NoPasid, pasid)
    }

    /// What a value of VCRSP_REG says of a free.
    #[must_use]
    pub fn decode_free(self, register: u64) -> VirtualResponse {
        self.decode(register, VirtualResponse::InvalidPasid, None)
    }

    fn decode(
        self,
        register: u64,
        refused: VirtualResponse,
        pasid: Option<HostPasid>,
    ) -> VirtualResponse {
        if register & IN_PROGRESS != 0 {
            return VirtualResponse::InProgress;
        }
        match register >> STATUS_SHIFT & self.status_mask() {
            0 => pasid.map_or(VirtualResponse::Done, VirtualResponse::Pasid),
            STATUS_UNDEFINED => VirtualResponse::UndefinedCommand,
            _ => refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Layout; 2] = [Layout::Current, Layout::Older];

    fn host(raw: u32) -> HostPasid {
        HostPasid::new(raw).unwrap()
    }

    #[test]
    fn r55_the_registers_of_a_layout_are_apart() {
        for layout in BOTH {
            let mut offsets = [
                layout.command_offset(),
                layout.response_offset(),
                layout.capability_offset(),
            ];
            offsets.sort_unstable();
            assert!(offsets[0] + 8 <= offsets[1] && offsets[1] + 8 <= offsets[2]);
        }
    }

    #[test]
    fn r56_the_codes_of_both_layouts() {
        let current = Layout::Current;
        let older = Layout::Older;
        let free = VirtualCommand::FreePasid(GuestPasid::new(0x12345).unwrap());
        assert_eq!(current.encode_command(free), 0x1_2345_0002);
        assert_eq!(older.encode_command(free), 0x0123_4502);
        let pasid = VirtualResponse::Pasid(host(0x54321));
        assert_eq!(current.encode_response(pasid), 0x5_4321_0000);
        assert_eq!(older.encode_response(pasid), 0x0543_2100);
        assert_eq!(current.encode_response(VirtualResponse::NoPasid), 16 << 1);
        assert_eq!(older.encode_response(VirtualResponse::NoPasid), 2 << 1);
        assert_eq!(
            current.encode_response(VirtualResponse::InvalidPasid),
            16 << 1
        );
        for layout in BOTH {
            let undefined = layout.encode_response(VirtualResponse::UndefinedCommand);
            assert_eq!(undefined, 1 << 1);
            assert_eq!(layout.encode_response(VirtualResponse::InProgress), 1);
        }
    }

    #[test]
    fn r56_commands_and_responses_come_back_as_they_were() {
        for layout in BOTH {
            for command in [
                VirtualCommand::Null,
                VirtualCommand::AllocatePasid,
                VirtualCommand::FreePasid(GuestPasid::new(0xfffff).unwrap()),
                VirtualCommand::Undefined(3),
                VirtualCommand::Undefined(0xff),
            ] {
                let register = layout.encode_command(command);
                assert_eq!(layout.decode_command(register), command);
            }
            for response in [
                VirtualResponse::InProgress,
                VirtualResponse::Pasid(host(1)),
                VirtualResponse::UndefinedCommand,
                VirtualResponse::NoPasid,
            ] {
                let register = layout.encode_response(response);
                assert_eq!(layout.decode_allocation(register), response);
            }
            for response in [VirtualResponse::Done, VirtualResponse::InvalidPasid] {
                let register = layout.encode_response(response);
                assert_eq!(layout.decode_free(register), response);
            }
        }
    }
}
