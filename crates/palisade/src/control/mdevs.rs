//! The tenants' functions, as the operator reads them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits::Origin;
use crate::config::FunctionKind;

/// The functions of all tenants: slices of parents, and whole ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mdevs {
    /// By UUID.
    pub mdevs: Vec<MdevLine>,
}

/// One function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MdevLine {
    /// Its name.
    pub uuid: String,
    /// The parent that it is made of.
    pub parent: String,
    /// What it is made of.
    #[serde(rename = "type")]
    pub kind: FunctionKind,
    /// Which of the parent's queues; all of them for an exclusive one.
    pub queue: Option<u8>,
    /// Whose it is.
    pub tenant: String,
    /// The process that uses it at the moment.
    pub client: Option<i32>,
    /// Where the guest finds it.
    pub guest_bdf: String,
    /// The absolute path of its socket.
    pub socket: String,
    /// Who made it.
    pub origin: Origin,
}

const HEADING: [&str; 9] = [
    "uuid",
    "parent",
    "type",
    "queue",
    "tenant",
    "client",
    "place",
    "at run time",
    "socket",
];

impl MdevLine {
    fn cells(&self) -> [String; 9] {
        let or_none = |text: Option<String>| text.unwrap_or("-".to_owned());
        let at_run_time = match self.origin {
            Origin::Configuration => "-",
            Origin::RunTime => "made",
        };
        [
            self.uuid.clone(),
            self.parent.clone(),
            self.kind.to_string(),
            or_none(self.queue.map(|queue| queue.to_string())),
            self.tenant.clone(),
            or_none(self.client.map(|pid| pid.to_string())),
            self.guest_bdf.clone(),
            at_run_time.to_owned(),
            self.socket.clone(),
        ]
    }
}

impl fmt::Display for Mdevs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = HEADING.map(str::to_owned);
        let rows: Vec<_> = std::iter::once(heading)
            .chain(self.mdevs.iter().map(MdevLine::cells))
            .collect();
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max();
        let widths: [usize; 9] = std::array::from_fn(|column| width(column).unwrap_or(0));
        for (index, row) in rows.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let (last, others) = row.split_last().unwrap_or((&row[0], &[]));
            for (cell, width) in others.iter().zip(widths) {
                write!(f, "{cell:<width$}  ")?;
            }
            f.write_str(last)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r68_functions_are_read_with_whose_they_are_and_who_uses_them() {
        let slice = MdevLine {
            uuid: "f81d4fae-7dec-11d0-a765-00a0c91e6bf6".to_owned(),
            parent: "dsa0".to_owned(),
            kind: FunctionKind::DedicatedQueue,
            queue: Some(3),
            tenant: "alice".to_owned(),
            client: Some(4711),
            guest_bdf: "00:12.0".to_owned(),
            socket: "/run/a b.sock".to_owned(),
            origin: Origin::RunTime,
        };
        let whole = MdevLine {
            parent: "dsa1".to_owned(),
            kind: FunctionKind::Exclusive,
            queue: None,
            client: None,
            origin: Origin::Configuration,
            ..slice.clone()
        };
        let mdevs = Mdevs {
            mdevs: vec![slice, whole],
        };
        let name = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
        let blank = " ".repeat(name.len() - 4);
        assert_eq!(
            mdevs.to_string(),
            format!(
                "uuid{blank}  parent  type             queue  tenant  client  place    at run time  socket\n\
                 {name}  dsa0    dedicated-queue  3      alice   4711    00:12.0  made         /run/a b.sock\n\
                 {name}  dsa1    exclusive        -      alice   -       00:12.0  -            /run/a b.sock"
            )
        );
    }
}
