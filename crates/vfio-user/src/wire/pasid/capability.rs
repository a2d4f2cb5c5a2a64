use palisade_units::PASID_BITS;
use serde_json::{Map, Value, json};

use super::MAX_PAGE_GROUPS;
use crate::wire::{BadCapabilities, capabilities::number};

/// The version of the extension that is spoken here.
pub const PASID_VERSION: u64 = 1;

/// Which form of the container's requests a client makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum RequestAbi {
    /// The form of the first proposal.
    V1 = 1,
    /// The form of the seventh.
    V7 = 7,
}

impl RequestAbi {
    /// The form with this number.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match raw {
            1 => Some(Self::V1),
            7 => Some(Self::V7),
            _ => None,
        }
    }

    /// The number in the text.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self as u64
    }
}

/// What one side says of the extension in VERSION: the object `pasid` among the capabilities. In the server's answer
/// it is what both agree to, and no part of it is more than the client proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasidCapability {
    /// How many bits a PASID has, 1 to 20 (PCIe 7.8.8).
    pub width: u8,
    /// How many of the server's commands of the extension may be unanswered at a time, page requests aside.
    pub max_commands: u16,
    /// How many page request groups may be unanswered at a time; with 0, none is sent.
    pub max_page_groups: u16,
    /// How many invalidations may be unanswered at a time; with 0, no translation is asked for.
    pub max_invalidations: u16,
    /// Which form of the container's requests the client makes; `None` if it makes none.
    pub requests: Option<RequestAbi>,
}

impl Default for PasidCapability {
    /// What this implementation can do at the most, without the container's requests.
    fn default() -> Self {
        Self {
            width: 20,
            max_commands: 64,
            max_page_groups: 32,
            max_invalidations: 32,
            requests: None,
        }
    }
}

impl PasidCapability {
    /// The greatest `max_commands` and `max_invalidations` of this implementation.
    pub const MAX_COMMANDS: u16 = 1024;

    /// What a VERSION message says; `None` where the extension is not named.
    ///
    /// # Errors
    /// [`BadCapabilities`] where what is named is no such object, or its numbers leave nothing to work with.
    pub fn parse(text: &[u8]) -> Result<Option<Self>, BadCapabilities> {
        Ok(Self::parse_versioned(text)?.map(|(_, said)| said))
    }

    /// What a server's answer says to who proposed [`PASID_VERSION`].
    ///
    /// # Errors
    /// As [`Self::parse`], and where the version is a later one.
    pub fn parse_answer(text: &[u8]) -> Result<Option<Self>, BadCapabilities> {
        match Self::parse_versioned(text)? {
            Some((version, _)) if version > PASID_VERSION => Err(BadCapabilities(
                "`pasid.version` must not be later than was proposed",
            )),
            other => Ok(other.map(|(_, said)| said)),
        }
    }

    fn parse_versioned(text: &[u8]) -> Result<Option<(u64, Self)>, BadCapabilities> {
        let json = text.strip_suffix(&[0]).unwrap_or(text);
        let top: Value = serde_json::from_slice(json).unwrap_or_default();
        match top.get("capabilities").and_then(|names| names.get("pasid")) {
            None => Ok(None),
            Some(Value::Object(names)) => Self::from_names(names).map(Some),
            Some(_) => Err(BadCapabilities("`pasid` must be an object")),
        }
    }

    fn from_names(names: &Map<String, Value>) -> Result<(u64, Self), BadCapabilities> {
        let number = |name, default| number(names, name, default);
        let bounded = |name, limit: u16| {
            let number = number(name, 0)?;
            Ok(u16::try_from(number).map_or(limit, |number| number.min(limit)))
        };
        // A later version has what this one has.
        let version = number("version", 0)?;
        if version < PASID_VERSION {
            return Err(BadCapabilities("`pasid.version` must be 1 at least"));
        }
        let width = u8::try_from(number("width", PASID_BITS.into())?).unwrap_or(u8::MAX);
        let max_commands = bounded("max_commands", Self::MAX_COMMANDS)?;
        if width == 0 || u32::from(width) > PASID_BITS {
            return Err(BadCapabilities("`pasid.width` must be from 1 to 20"));
        }
        if max_commands == 0 {
            return Err(BadCapabilities("`pasid.max_commands` must be 1 at least"));
        }
        let requests = match number("requests", 0)? {
            0 => None,
            raw => Some(
                RequestAbi::from_raw(raw)
                    .ok_or(BadCapabilities("`pasid.requests` must be 0, 1 or 7"))?,
            ),
        };
        let said = Self {
            width,
            max_commands,
            max_page_groups: bounded("max_page_groups", MAX_PAGE_GROUPS)?,
            max_invalidations: bounded("max_invalidations", Self::MAX_COMMANDS)?,
            requests,
        };
        Ok((version, said))
    }

    /// What both can do. The requests are those that the other side names, if this one names any.
    #[must_use]
    pub fn and(&self, proposed: &Self) -> Self {
        Self {
            width: self.width.min(proposed.width),
            max_commands: self.max_commands.min(proposed.max_commands),
            max_page_groups: self.max_page_groups.min(proposed.max_page_groups),
            max_invalidations: self.max_invalidations.min(proposed.max_invalidations),
            requests: self.requests.and(proposed.requests),
        }
    }

    /// Whether this is no more than what was proposed.
    #[must_use]
    pub fn is_within(&self, proposed: &Self) -> bool {
        self.and(proposed) == *self
            && (self.requests.is_none() || self.requests == proposed.requests)
    }

    pub(in crate::wire) fn json(&self) -> Value {
        let mut names = json!({
            "version": PASID_VERSION,
            "width": self.width,
            "max_commands": self.max_commands,
            "max_page_groups": self.max_page_groups,
            "max_invalidations": self.max_invalidations,
        });
        if let Some(abi) = self.requests {
            names["requests"] = abi.raw().into();
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Capabilities;

    fn parse(object: &str) -> Result<Option<PasidCapability>, BadCapabilities> {
        let text = format!("{{\"capabilities\":{{\"pasid\":{object}}}}}\0");
        PasidCapability::parse(text.as_bytes())
    }

    #[test]
    fn what_is_said_is_heard() {
        for requests in [None, Some(RequestAbi::V1), Some(RequestAbi::V7)] {
            let said = PasidCapability {
                requests,
                ..PasidCapability::default()
            };
            let own = Capabilities::own(16);
            let text = own.text_with(Some(&said));
            assert_eq!(PasidCapability::parse(&text), Ok(Some(said)));
            assert_eq!(Capabilities::parse(&text), Ok(own), "the rest is as it was");
        }
    }

    #[test]
    fn a_text_without_the_name_is_the_plain_one() {
        let own = Capabilities::own(16);
        assert_eq!(own.text_with(None), own.text());
        assert_eq!(PasidCapability::parse(&own.text()), Ok(None));
        assert_eq!(PasidCapability::parse(b""), Ok(None));
    }

    #[test]
    fn an_agreement_is_the_less_of_both() {
        let wide = PasidCapability {
            requests: Some(RequestAbi::V1),
            ..PasidCapability::default()
        };
        let narrow =
            parse("{\"version\":2,\"width\":8,\"max_commands\":70000,\"requests\":7,\"new\":{}}");
        let narrow = narrow.unwrap().unwrap();
        assert_eq!(
            (narrow.width, narrow.max_commands, narrow.max_page_groups),
            (8, 1024, 0)
        );
        let agreed = wide.and(&narrow);
        assert_eq!(
            (agreed.width, agreed.max_commands, agreed.max_invalidations),
            (8, 64, 0)
        );
        assert_eq!(agreed.requests, Some(RequestAbi::V7));
        assert!(agreed.is_within(&narrow) && !wide.is_within(&narrow));
    }

    #[test]
    fn a_later_version_may_be_proposed_and_not_answered() {
        let said = |version| {
            let pasid = format!("{{\"version\":{version},\"max_commands\":1}}");
            format!("{{\"capabilities\":{{\"pasid\":{pasid}}}}}\0").into_bytes()
        };
        assert!(PasidCapability::parse(&said(2)).is_ok());
        assert!(PasidCapability::parse_answer(&said(1)).is_ok());
        assert!(PasidCapability::parse_answer(&said(2)).is_err());
    }

    #[test]
    fn r78_an_object_that_makes_no_sense_is_refused() {
        for object in [
            "true",
            "[]",
            "{}",
            "{\"version\":0,\"max_commands\":1}",
            "{\"version\":\"1\",\"max_commands\":1}",
            "{\"version\":1}",
            "{\"version\":1,\"max_commands\":1,\"width\":0}",
            "{\"version\":1,\"max_commands\":1,\"width\":21}",
            "{\"version\":1,\"max_commands\":1,\"width\":300}",
            "{\"version\":1,\"max_commands\":-1}",
            "{\"version\":1,\"max_commands\":1,\"requests\":2}",
        ] {
            assert!(parse(object).is_err(), "{object}");
        }
    }
}
