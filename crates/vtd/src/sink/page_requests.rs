//! What becomes of a page request: into the guest's queue, or answered by the unit (VT-d §7.4.1, Table 31).

use std::collections::BTreeSet;

use palisade_iommu::{
    FaultProcessing, GroupIndex, PageRequest, PageResponse, PlaceInGroup, QueueFull,
};
use palisade_units::{Bdf, GuestPasid};
use palisade_vfio::SpaceKey;

use super::asked::{Answered, Group, Opened};
use crate::Unit;
use crate::registers::Refusal;
use crate::spec::event::PageRequestStatus;
use crate::spec::fault::{FaultRecord, RequestKind};
use crate::spec::page_request::PageRequestDescriptor;
use crate::spec::register as reg;
use crate::tables::TableFault;

impl Unit {
    /// Puts a request into the queue that the tables allow.
    ///
    /// # Errors
    /// [`QueueFull`]: there is no queue, or no memory where it should be, or too much waits already.
    pub(super) fn queue_page_request(&self, request: &PageRequest) -> Result<(), QueueFull> {
        let group = Group {
            function: request.bdf,
            pasid: request.pasid,
            index: request.group,
        };
        match self.open(group) {
            Opened::New => {}
            // An answer to that name would be taken for the earlier one's: the device asks again, under
            // the next name.
            Opened::Taken => {
                self.respond_as_unit(group, PageResponse::Success);
                return Ok(());
            }
            Opened::Full | Opened::FullForNow => return Err(QueueFull),
        }
        let descriptor = PageRequestDescriptor {
            requester: request.bdf,
            pasid: request.pasid,
            at: request.at,
            access: request.access,
            group: request.group,
            place: request.last_in_group,
        };
        let pushed = self.registers().push_page_request(&self.memory, descriptor);
        match pushed {
            Ok(message) => {
                self.send(message);
                Ok(())
            }
            Err(Refusal::Overflow(message)) => {
                self.asked.close(group);
                let last = request.last_in_group == PlaceInGroup::Last;
                let kept = !last || self.asked.postpone(group);
                self.send(message);
                // Software may have cleared the overflow in the meantime.
                self.answer_postponed();
                if kept { Ok(()) } else { Err(QueueFull) }
            }
            Err(Refusal::NoQueue) => {
                self.asked.close(group);
                Err(QueueFull)
            }
        }
    }

    fn open(&self, group: Group) -> Opened {
        let opened = self.asked.open(group);
        if opened != Opened::FullForNow {
            return opened;
        }
        self.forget_requests_that_are_over();
        self.asked.open(group)
    }

    /// The platform answers the requests of what is unbound, and the guest need not.
    pub(crate) fn forget_requests_that_are_over(&self) {
        let functions = self.container.guest_bdfs().into_iter();
        let bound: BTreeSet<(Bdf, SpaceKey)> = functions
            .flat_map(|function| {
                let keys = self.container.bound(function).into_iter();
                keys.map(move |(key, _)| (function, key))
            })
            .collect();
        self.asked
            .retain(|group| bound.contains(&(group.function, key(group.pasid))));
    }

    /// The tables do not let the function ask, which is a fault.
    pub(super) fn record_page_request(&self, request: &PageRequest, fault: TableFault) {
        if fault.processing == FaultProcessing::Disabled {
            return;
        }
        let record = FaultRecord::new(
            request.bdf,
            request.pasid,
            request.at,
            request.access,
            RequestKind::PageRequest,
            fault.code,
        );
        let message = self.registers().record(record);
        self.send(message);
    }

    /// Answers a group that the function may not ask for.
    pub(super) fn refuse_page_request(&self, request: &PageRequest) {
        if request.last_in_group == PlaceInGroup::Last {
            let group = Group {
                function: request.bdf,
                pasid: request.pasid,
                index: request.group,
            };
            self.respond_as_unit(group, PageResponse::Invalid);
        }
    }

    /// Has those ask again whose requests found the queue full, once software has dealt with that.
    ///
    /// The answer to them is "success" (VT-d §7.4.1, Table 31), so that the device asks again. It comes
    /// when that can be of use: given at once, it would have the device ask in a circle until the guest
    /// cares for its queue, which a guest need not ever do.
    pub(crate) fn answer_postponed(&self) {
        if !self.asked.has_postponed() {
            return;
        }
        let mut status = [0; 4];
        {
            let registers = self.registers();
            if registers.holds_messages() {
                return;
            }
            registers.read(reg::PRS, &mut status);
        }
        let status = PageRequestStatus::from_bits_truncate(u32::from_le_bytes(status));
        if status.contains(PageRequestStatus::OVERFLOW) {
            return;
        }
        let postponed = self.asked.take_postponed();
        for group in postponed {
            self.respond_as_unit(group, PageResponse::Success);
        }
    }

    /// Answers a page request group for the guest. One that nobody waits for is dropped (VT-d §7.9).
    pub(crate) fn respond(
        &self,
        function: Bdf,
        pasid: Option<GuestPasid>,
        index: GroupIndex,
        response: PageResponse,
    ) {
        let group = Group {
            function,
            pasid,
            index,
        };
        if self.asked.answered(group) == Answered::OfBefore {
            return;
        }
        self.respond_as_unit(group, response);
    }

    fn respond_as_unit(&self, group: Group, response: PageResponse) {
        let Group {
            function,
            pasid,
            index,
        } = group;
        if let Err(error) = self
            .container
            .respond(function, key(pasid), index, response)
            && let Some(count) = self.counts.stray_responses.tick()
        {
            tracing::debug!(%function, %error, count, "a page group response has no request");
        }
    }
}

fn key(pasid: Option<GuestPasid>) -> SpaceKey {
    pasid.map_or(SpaceKey::WithoutPasid, SpaceKey::Pasid)
}
