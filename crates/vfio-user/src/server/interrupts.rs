use std::{os::fd::OwnedFd, sync::Arc};

use palisade_pci::{Function, Interrupt};
use rustix::io::Errno;

use super::signaller::{EventFd, Raise, Signaller};
use crate::wire::{IRQ_IS_EVENTFD, IrqInfo, IrqSet, IrqSetFlags};

/// The interrupt types of a PCI device: INTx, MSI, MSI-X, error, request.
pub(crate) const IRQ_TYPES: u32 = 5;
const MSIX: u32 = 2;

/// The MSI-X vectors that the peer has connected. All are disconnected when this goes.
pub(crate) struct Vectors {
    function: Arc<dyn Function>,
    connected: Vec<Option<Arc<EventFd>>>,
    /// Started when the first vector is connected. Goes last.
    signaller: Option<Signaller>,
}

impl Vectors {
    pub(crate) fn new(function: Arc<dyn Function>) -> Self {
        let count = usize::from(function.msix_vectors());
        Self {
            function,
            connected: vec![None; count],
            signaller: None,
        }
    }

    pub(crate) fn info(&self, index: u32) -> Result<IrqInfo, Errno> {
        if index >= IRQ_TYPES {
            return Err(Errno::INVAL);
        }
        let (flags, count) = if index == MSIX {
            (IRQ_IS_EVENTFD, u32::from(self.function.msix_vectors()))
        } else {
            (0, 0)
        };
        Ok(IrqInfo {
            argsz: IrqInfo::ARGSZ.into(),
            flags: flags.into(),
            index: index.into(),
            count: count.into(),
        })
    }

    pub(crate) fn set(
        &mut self,
        request: &IrqSet,
        data: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Errno> {
        let flags = IrqSetFlags::from_bits(request.flags.get()).ok_or(Errno::INVAL)?;
        let index = request.index.get();
        if request.argsz.get() < IrqSet::ARGSZ || index >= IRQ_TYPES {
            return Err(Errno::INVAL);
        }
        let actions = IrqSetFlags::MASK | IrqSetFlags::UNMASK | IrqSetFlags::TRIGGER;
        let (action, kind) = (flags & actions, flags & !actions);
        let (start, count) = (request.start.get() as usize, request.count.get() as usize);
        if kind != IrqSetFlags::DATA_EVENTFD && !descriptors.is_empty() {
            return Err(Errno::INVAL);
        }
        if flags == IrqSetFlags::TRIGGER | IrqSetFlags::DATA_NONE && (start, count) == (0, 0) {
            if index == MSIX {
                self.disconnect(0, self.connected.len());
            }
            return Ok(());
        }
        let end = start.checked_add(count).ok_or(Errno::INVAL)?;
        if index != MSIX || count == 0 || end > self.connected.len() {
            return Err(Errno::INVAL);
        }
        match action {
            IrqSetFlags::TRIGGER => {}
            // The guest masks a vector in the MSI-X table, which is the function's.
            IrqSetFlags::MASK | IrqSetFlags::UNMASK => return Err(Errno::NOTSUP),
            _ => return Err(Errno::INVAL),
        }
        match kind {
            IrqSetFlags::DATA_NONE => self.fire(start..end),
            IrqSetFlags::DATA_BOOL => {
                if data.len() != count {
                    return Err(Errno::INVAL);
                }
                self.fire((start..end).filter(|vector| data[vector - start] != 0));
            }
            IrqSetFlags::DATA_EVENTFD if descriptors.is_empty() => self.disconnect(start, end),
            IrqSetFlags::DATA_EVENTFD => self.connect(start, count, descriptors)?,
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }

    fn fire(&self, vectors: impl Iterator<Item = usize>) {
        for eventfd in vectors.filter_map(|vector| self.connected[vector].as_ref()) {
            Raise(Arc::clone(eventfd)).signal();
        }
    }

    /// All or, where a descriptor is no eventfd, none.
    fn connect(&mut self, start: usize, count: usize, fds: Vec<OwnedFd>) -> Result<(), Errno> {
        if fds.len() != count {
            return Err(Errno::INVAL);
        }
        let signaller = match &mut self.signaller {
            Some(signaller) => signaller,
            none => none.insert(Signaller::start()?),
        };
        let eventfds: Vec<_> = fds
            .into_iter()
            .map(|fd| EventFd::new(fd, signaller))
            .collect::<Result<_, _>>()?;
        for (vector, eventfd) in (start..).zip(eventfds) {
            let eventfd = Arc::new(eventfd);
            self.connected[vector] = Some(Arc::clone(&eventfd));
            self.tell(vector, Some(Arc::new(Raise(eventfd))));
        }
        Ok(())
    }

    fn disconnect(&mut self, start: usize, end: usize) {
        for vector in start..end {
            if self.connected[vector].take().is_some() {
                self.tell(vector, None);
            }
        }
    }

    fn tell(&self, vector: usize, interrupt: Option<Arc<dyn Interrupt>>) {
        // There are as many places as the function has vectors, which is a 16-bit number.
        if let Ok(vector) = u16::try_from(vector) {
            self.function.set_vector(vector, interrupt);
        }
    }
}

impl Drop for Vectors {
    fn drop(&mut self) {
        self.disconnect(0, self.connected.len());
    }
}
