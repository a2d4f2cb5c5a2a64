//! The three events: a status that software clears, a mask, and a message (VT-d §7.3, §7.5, §6.5.2.10).

use super::{Registers, Switch};
use crate::spec::event::EventControl;
use crate::spec::register as reg;

/// A message-signalled interrupt: `data` is to be written to `address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) address: u64,
    pub(crate) data: u32,
}

/// Who interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Fault,
    Invalidation,
    PageRequest,
}

impl Event {
    /// Control, data, address and upper address stand one after the other.
    const fn control(self) -> u64 {
        match self {
            Self::Fault => reg::FECTL,
            Self::Invalidation => reg::IECTL,
            Self::PageRequest => reg::PECTL,
        }
    }
}

impl Registers {
    /// An interrupt condition came about: sends the message, or keeps it while masked.
    pub(super) fn raise(&mut self, event: Event) -> Option<Message> {
        let control = self.event_control(event).with_pending(true);
        self.set_event_control(event, control);
        self.unmasked(event)
    }

    /// The message that was held back, if nothing masks it any more.
    pub(super) fn unmasked(&mut self, event: Event) -> Option<Message> {
        let control = self.event_control(event);
        if control.masked() || !control.pending() || self.messages_held == Switch::On {
            return None;
        }
        self.set_event_control(event, control.with_pending(false));
        let base = event.control();
        let [low, high] = [self.dword(base + 8), self.dword(base + 12)];
        Some(Message {
            address: u64::from(high) << 32 | u64::from(low),
            data: self.dword(base + 4),
        })
    }

    /// Sends no message from now on: what comes about is pending.
    pub(crate) fn hold_messages(&mut self) {
        self.messages_held = Switch::On;
    }

    pub(crate) fn holds_messages(&self) -> bool {
        self.messages_held == Switch::On
    }

    /// The messages that were held back, and those of later.
    pub(crate) fn release_messages(&mut self) -> Vec<Message> {
        self.messages_held = Switch::Off;
        let events = [Event::Fault, Event::Invalidation, Event::PageRequest];
        events
            .into_iter()
            .filter_map(|event| self.unmasked(event))
            .collect()
    }

    /// Software has dealt with every condition: nothing is held back any more.
    pub(super) fn withdraw(&mut self, event: Event) {
        let control = self.event_control(event).with_pending(false);
        self.set_event_control(event, control);
    }

    fn event_control(&self, event: Event) -> EventControl {
        EventControl::from_bits(self.dword(event.control()))
    }

    fn set_event_control(&mut self, event: Event, control: EventControl) {
        self.set_dword(event.control(), control.into_bits());
    }
}
