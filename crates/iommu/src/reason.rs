use core::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $words:literal;)*) => {
        /// Why a request was refused, in scalable mode: the fault reason of a fault record
        /// (VT-d §7.1.3, §11.4.10). The value is the architectural code.
        ///
        /// The platform raises those from 45h, 46h, 59h, 5Ch on; those of the root, context and PASID
        /// directory are for the unit that walks a guest's tables of that kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum FaultReason {
            $($(#[$doc])* $name = $code,)*
        }

        impl FaultReason {
            /// Every reason, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason with this code; `None` for one that the specification reserves.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            const fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)*
                }
            }
        }
    };
}

reasons! {
    /// RTA.2: the root table address is not usable.
    RootTableInvalid = 0x30, "the root table address is not valid";
    /// RTA.3: the translation table mode does not allow requests with a PASID.
    ModeForbidsPasid = 0x31, "the translation table mode allows no request with a PASID";
    /// SRT.1: the root entry could not be read.
    RootEntryAccess = 0x38, "the root entry could not be read";
    /// SRT.2: the root entry is not present.
    RootEntryNotPresent = 0x39, "the root entry is not present";
    /// SRT.3: reserved bits of the root entry.
    RootEntryReserved = 0x3a, "the root entry has reserved bits set";
    /// SCT.1: the context entry could not be read.
    ContextEntryAccess = 0x40, "the context entry could not be read";
    /// SCT.2: the context entry is not present.
    ContextEntryNotPresent = 0x41, "the context entry is not present";
    /// SCT.3: reserved bits of the context entry.
    ContextEntryReserved = 0x42, "the context entry has reserved bits set";
    /// SCT.4: the context entry is programmed wrongly.
    ContextEntryInvalid = 0x43, "the context entry is not valid";
    /// SCT.5: a translation request while device TLBs are off.
    DeviceTlbDisabled = 0x44, "the context entry does not allow a device TLB";
    /// SCT.6: a request with a PASID while PASIDs are off.
    PasidDisabled = 0x45, "the function may not use PASIDs";
    /// SCT.7: a PASID beyond the function's width.
    PasidTooLarge = 0x46, "the PASID is larger than the function may use";
    /// SCT.8: a page request while page requests are off.
    PageRequestDisabled = 0x47, "the function may not ask for pages";
    /// SCT.9: the PASID of requests without one is not usable.
    RidPasidInvalid = 0x48, "the PASID for requests without one is not valid";
    /// SPD.1: the PASID directory entry could not be read.
    PasidDirectoryAccess = 0x50, "the PASID directory entry could not be read";
    /// SPD.2: the PASID directory entry is not present.
    PasidDirectoryNotPresent = 0x51, "the PASID directory entry is not present";
    /// SPD.3: reserved bits of the PASID directory entry.
    PasidDirectoryReserved = 0x52, "the PASID directory entry has reserved bits set";
    /// SPT.1: the PASID entry could not be read.
    PasidEntryAccess = 0x58, "the PASID entry could not be read";
    /// SPT.2: nothing is bound to the PASID.
    PasidEntryNotPresent = 0x59, "the PASID entry is not present";
    /// SPT.3: reserved bits of the PASID entry.
    PasidEntryReserved = 0x5a, "the PASID entry has reserved bits set";
    /// SPT.4: the PASID entry is programmed wrongly.
    PasidEntryInvalid = 0x5b, "the PASID entry is not valid";
    /// SPT.5: a request to execute where the PASID entry allows none.
    ExecuteRequestDisabled = 0x5c, "the PASID entry allows no request to execute";
    /// SPT.6: a privileged request where the PASID entry allows none.
    SupervisorRequestDisabled = 0x5d, "the PASID entry allows no privileged request";
    /// SFS.1: a first-stage entry below the root could not be read.
    FirstStageAccess = 0x70, "a first-stage entry could not be read";
    /// SFS.2: a first-stage entry is not present.
    FirstStageNotPresent = 0x71, "a first-stage entry is not present";
    /// SFS.3: reserved bits of a first-stage entry.
    FirstStageReserved = 0x72, "a first-stage entry has reserved bits set";
    /// SFS.4: the first-stage root could not be read.
    FirstStageRootAccess = 0x73, "the first-stage root could not be read";
    /// SFS.5: a first-stage entry leads beyond the width of the second stage.
    FirstStageBeyondWidth = 0x74, "a first-stage entry leads beyond the width of the second stage";
    /// SFS.6: the second stage does not let the first-stage root be read.
    FirstStageRootUnreadable = 0x75, "the second stage does not let the first-stage root be read";
    /// SFS.7: the second stage does not let a first-stage entry be read.
    FirstStageUnreadable = 0x76, "the second stage does not let a first-stage entry be read";
    /// SFS.8: the second stage does not let accessed or dirty bits be set.
    FirstStageUnwritable = 0x77, "the second stage does not let a first-stage entry be marked";
    /// SSS.1: a second-stage entry below the root could not be read.
    SecondStageAccess = 0x78, "a second-stage entry could not be read";
    /// SSS.2: the second stage has neither a readable nor a writable entry there.
    SecondStageNotPresent = 0x79, "a second-stage entry allows neither reads nor writes";
    /// SSS.3: reserved bits of a second-stage entry.
    SecondStageReserved = 0x7a, "a second-stage entry has reserved bits set";
    /// SSS.4: the second-stage root could not be read.
    SecondStageRootAccess = 0x7b, "the second-stage root could not be read";
    /// SSS.5: accessed or dirty bits of a second stage that is not coherent.
    SecondStageMarkIncoherent = 0x7c, "a second-stage entry cannot be marked without snooping";
    /// SSS.6: accessed or dirty bits of a second stage could not be set atomically.
    SecondStageMarkFailed = 0x7d, "a second-stage entry could not be marked accessed or dirty";
    /// SGN.1: the address is not canonical.
    NotCanonical = 0x80, "the address is not canonical";
    /// SGN.2: a user request to a supervisor page.
    SupervisorPage = 0x81, "a user request to a supervisor page";
    /// SGN.3: a request to execute what may not be executed.
    NotExecutable = 0x82, "the page may not be executed";
    /// SGN.4: an address beyond what the host can address.
    BeyondHostWidth = 0x83, "the address is beyond the host's address width";
    /// SGN.5: an address of a request beyond the width of the second stage.
    BeyondSecondStageWidth = 0x84, "the address is beyond the width of the second stage";
    /// SGN.6: a write where the tables allow none.
    NotWritable = 0x85, "the page may not be written";
    /// SGN.7: a read where the tables allow none.
    NotReadable = 0x86, "the page may not be read";
    /// SGN.8: the address is, or leads to, the interrupt address range.
    InterruptRange = 0x87, "the address is in the interrupt range";
    /// SFS.9: accessed or dirty bits of a first stage that is not coherent.
    FirstStageMarkIncoherent = 0x90, "a first-stage entry cannot be marked without snooping";
    /// SFS.10: accessed or dirty bits could not be set atomically.
    FirstStageMarkFailed = 0x91, "a first-stage entry could not be marked accessed or dirty";
}

impl FaultReason {
    /// The architectural code, as a fault record carries it (VT-d §7.1.3).
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for FaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:02x}h)", self.words(), self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn r59_every_architectural_code_has_a_reason() {
        let listed = (0x30..=0x31)
            .chain(0x38..=0x3a)
            .chain(0x40..=0x48)
            .chain(0x50..=0x52)
            .chain(0x58..=0x5d)
            .chain(0x70..=0x7d)
            .chain(0x80..=0x87)
            .chain(0x90..=0x91);
        for code in listed {
            let reason = FaultReason::from_code(code);
            assert_eq!(reason.map(FaultReason::code), Some(code), "{code:#x}");
        }
    }

    #[test]
    fn no_two_reasons_share_words() {
        let words: BTreeSet<String> = FaultReason::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(words.len(), FaultReason::ALL.len());
    }

    #[test]
    fn a_reserved_code_has_no_reason() {
        assert_eq!(FaultReason::from_code(0x33), None);
    }

    #[test]
    fn reads_as_words_and_code() {
        let text = FaultReason::PasidEntryNotPresent.to_string();
        assert_eq!(text, "the PASID entry is not present (59h)");
    }
}
