//! One function of a tenant: what it is made of, and the socket behind which its guest gets it.

use std::{
    io,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    listener::{AtOnce, Listener},
    source::Source,
    stop::Stop,
    tenant::Tenant,
};
use crate::{
    config::FunctionConfig,
    control::{MdevLine, Origin},
};

/// A function, whether the configuration or the operator made it.
pub(crate) struct Function {
    pub(super) config: FunctionConfig,
    pub(super) origin: Origin,
    pub(super) tenant: Arc<Tenant>,
    pub(super) source: Source,
    life: Mutex<Life>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Idle,
    /// A client is served, or asks to be.
    Connected,
    /// It is being removed: nobody is let in any more.
    Leaving,
}

/// A client has the function.
#[derive(Debug)]
pub(super) struct InUse;

impl Function {
    pub(super) fn new(
        config: FunctionConfig,
        origin: Origin,
        tenant: Arc<Tenant>,
        source: Source,
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            origin,
            tenant,
            source,
            life: Mutex::new(Life::Idle),
        })
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves it to one client, to its end.
    fn serve(&self, stream: UnixStream) {
        let mut life = self.life();
        if *life != Life::Idle {
            return;
        }
        *life = Life::Connected;
        drop(life);
        let connected = Connected(self);
        let guest_bdf = self.config.guest_bdf;
        let Some(admission) = self.tenant.admit(&guest_bdf.to_string(), &stream) else {
            return;
        };
        self.tenant
            .serve_function(guest_bdf, &self.source, stream, &admission);
        // First the function is idle, then the tenant may be gone: who sees the latter may remove the former.
        drop(connected);
    }

    /// Lets nobody in any more, unless somebody is.
    pub(super) fn shut(&self) -> Result<(), InUse> {
        let mut life = self.life();
        if *life == Life::Connected {
            return Err(InUse);
        }
        *life = Life::Leaving;
        Ok(())
    }

    /// Lets clients in again.
    pub(super) fn reopen(&self) {
        *self.life() = Life::Idle;
    }

    /// Whose it is and, where a process has it, whose number that is.
    pub(super) fn holder(&self) -> String {
        let tenant = self.tenant.name();
        match self.client() {
            Some(pid) => format!("tenant {tenant:?} (process {pid})"),
            None => format!("tenant {tenant:?}"),
        }
    }

    fn client(&self) -> Option<i32> {
        let connected = *self.life() == Life::Connected;
        self.tenant.process().filter(|_| connected)
    }

    /// As the operator reads it.
    pub(super) fn line(&self) -> MdevLine {
        let FunctionConfig {
            parent,
            kind,
            uuid,
            socket,
            guest_bdf,
        } = &self.config;
        let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.clone());
        MdevLine {
            uuid: uuid.to_string(),
            parent: parent.clone(),
            kind: *kind,
            queue: self.source.queue(),
            tenant: self.tenant.name().to_owned(),
            client: self.client(),
            guest_bdf: guest_bdf.to_string(),
            socket: socket.display().to_string(),
            origin: self.origin,
        }
    }
}

/// A client's time, until dropped.
struct Connected<'a>(&'a Function);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.reopen();
    }
}

/// The open socket of a function.
pub(super) struct Door {
    stop: Arc<Stop>,
    listener: Listener,
}

impl Door {
    /// Opens the socket; on return clients may come.
    pub(super) fn open(function: &Arc<Function>) -> io::Result<Self> {
        let stop = Arc::new(Stop::new()?);
        let served = Arc::clone(function);
        let (path, name) = (&function.config.socket, function.config.guest_bdf);
        let serve = move |stream| served.serve(stream);
        let listener = Listener::open(
            path,
            function.tenant.permissions(),
            &name.to_string(),
            &stop,
            AtOnce::One,
            serve,
        )?;
        Ok(Self { stop, listener })
    }

    /// Lets no more clients come. One that is served goes on.
    pub(super) fn ring(&self) {
        self.stop.ring();
    }

    /// [`Door::close`], but that the client is waited for until this moment at the latest.
    pub(super) fn close_by(mut self, deadline: Instant) {
        self.ring();
        self.listener.join_by(deadline);
    }

    /// Waits for the client that is served, and takes the socket away.
    pub(super) fn close(mut self) {
        self.ring();
        self.listener.join();
    }
}
