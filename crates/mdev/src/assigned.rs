use std::sync::Arc;

use palisade_dsa::{DsaFunction, PasidPolicy};
use palisade_pci::Function;
use palisade_vfio::Attachment;

/// A device that a tenant has: the function to serve, and its place on the host. Dropping it gives the
/// device back, as [`Assigned::release`] does.
pub struct Assigned {
    function: Arc<dyn Function>,
    retire: Box<dyn Fn() + Send + Sync>,
    attachment: Attachment,
    /// The claim on the parent's queues; goes last.
    _use: Box<dyn Send + Sync>,
}

impl Assigned {
    pub(crate) fn new<P: PasidPolicy + 'static>(
        function: Arc<DsaFunction<P>>,
        attachment: Attachment,
        claim: impl Send + Sync + 'static,
    ) -> Self {
        let retired = Arc::clone(&function);
        Self {
            function,
            retire: Box::new(move || retired.retire()),
            attachment,
            _use: Box::new(claim),
        }
    }

    /// The function, to be served to the tenant's VMM.
    #[must_use]
    pub fn function(&self) -> Arc<dyn Function> {
        Arc::clone(&self.function)
    }

    /// The function's attachment to the tenant: its memory, and what is bound on it.
    #[must_use]
    pub const fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Gives the device back: its work is dropped, its PASIDs are unbound and drained, then its queues
    /// are free for others. Whoever still has the function finds that it answers no more.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        // First the work, which has holds of its own; then what it was bound to.
        (self.retire)();
        self.attachment.detach();
    }
}
