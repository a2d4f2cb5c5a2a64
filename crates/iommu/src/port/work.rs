use palisade_units::{Access, Iova};

use super::{DmaError, DmaPort, Partial, Requester};
use crate::epoch::Work;

/// Accesses of a port that are announced together: see [`DmaPort::in_one_piece`].
pub struct PieceOfWork<'a> {
    port: &'a mut DmaPort,
    /// How accesses came before.
    before: Work,
}

impl DmaPort {
    /// Makes several accesses as one piece of work. To announce an access costs more than a translation that
    /// is cached; here one announcement is for up to 64 accesses or 64 KiB.
    ///
    /// Invalidations, unbinds and releases of the function wait meanwhile, so `work` must be short, and
    /// must neither call for one itself nor drop what does: that would wait for its own end.
    pub fn in_one_piece<R>(&mut self, work: impl FnOnce(&mut PieceOfWork<'_>) -> R) -> R {
        let before = self.presence.set_work(Work::Piece);
        work(&mut PieceOfWork { port: self, before })
    }
}

impl Drop for PieceOfWork<'_> {
    fn drop(&mut self) {
        self.port.presence.set_work(self.before);
    }
}

impl PieceOfWork<'_> {
    /// Says that an address will be accessed soon, a few accesses from now: what its translation will be read
    /// from is fetched meanwhile. Nothing is translated, marked or refused. For who has more addresses
    /// than are cached, and knows them ahead, as an engine knows its next descriptors.
    #[inline]
    pub fn expect(&mut self, by: Requester, at: Iova) {
        let caches = &self.port.caches;
        let key = caches.key(by.tag, by.kind(Access::READ));
        caches.fetch_ahead(key, at);
    }

    /// As [`DmaPort::read`].
    ///
    /// # Errors
    /// As there. Sinks are called when nothing is in flight, here too.
    #[inline]
    pub fn read(&mut self, by: Requester, from: Iova, into: &mut [u8]) -> Result<(), DmaError> {
        self.port.read(by, from, into)
    }

    /// As [`DmaPort::write`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn write(&mut self, by: Requester, to: Iova, data: &[u8]) -> Result<(), DmaError> {
        self.port.write(by, to, data)
    }

    /// As [`DmaPort::publish`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn publish(&mut self, by: Requester, to: Iova, data: &[u8]) -> Result<(), DmaError> {
        self.port.publish(by, to, data)
    }

    /// The port, for what takes one: its accesses belong to the piece.
    #[inline]
    pub fn port(&mut self) -> &mut DmaPort {
        self.port
    }

    /// As [`DmaPort::copy`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn copy(
        &mut self,
        source: Requester,
        from: Iova,
        destination: Requester,
        to: Iova,
        len_bytes: u64,
    ) -> Result<(), Partial> {
        self.port.copy(source, from, destination, to, len_bytes)
    }
}
