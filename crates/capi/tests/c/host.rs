//! A host that offers a function, with a device behind it that copies when it is told to over a socket.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use palisade_container::{AllowedUids, Server};
use palisade_iommu::{DmaError, OnMiss, PageResponse, Requester};
use palisade_units::{GuestPasid, Iova};
use tempfile::TempDir;

use crate::common::{PLACE, World};

pub(crate) struct Host {
    pub(crate) world: World,
    folder: TempDir,
    _server: Server,
}

impl Host {
    pub(crate) fn new() -> Self {
        let world = World::offering();
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("container.sock")).unwrap();
        let gate = Arc::new(AllowedUids::own());
        let server = Server::start(listener, world.vmm.clone(), gate).unwrap();
        Self {
            world,
            folder,
            _server: server,
        }
    }

    pub(crate) fn container_socket(&self) -> PathBuf {
        self.folder.path().join("container.sock")
    }

    /// The device's registers, so to say: one copy is served.
    pub(crate) fn device_socket(&self) -> PathBuf {
        let at = self.folder.path().join("device.sock");
        let _ = std::fs::remove_file(&at);
        let listener = UnixListener::bind(&at).unwrap();
        let container = self.world.container.clone();
        let function = self.world.function.clone();
        std::thread::spawn(move || {
            let (mut driver, _) = listener.accept().unwrap();
            let job = Job::read(&mut driver);
            let guest = GuestPasid::new(job.pasid).unwrap();
            let hold = container.translate(PLACE, guest).unwrap();
            let mut port = function.port();
            let by = Requester {
                on_miss: OnMiss::Ask,
                ..Requester::new(Some(hold.pasid().into()))
            };
            let status = loop {
                port.forget_stale();
                let (from, to) = (Iova::new(job.from), Iova::new(job.to));
                let copied = port.copy(by, from, by, to, job.len_bytes.into());
                match copied.map_err(|stop| stop.error) {
                    Ok(()) => break 0_u32,
                    Err(DmaError::NotPresent { at, access }) => {
                        let (tell, told) = mpsc::channel();
                        let waiter = Box::new(move |response| tell.send(response).unwrap());
                        port.request_page(by, at, access, waiter).unwrap();
                        if told.recv().unwrap() != PageResponse::Success {
                            break 2;
                        }
                    }
                    Err(_) => break 1,
                }
            };
            driver.write_all(&status.to_le_bytes()).unwrap();
        });
        at
    }
}

struct Job {
    pasid: u32,
    len_bytes: u32,
    from: u64,
    to: u64,
}

impl Job {
    fn read(driver: &mut UnixStream) -> Self {
        let mut bytes = [0; 24];
        driver.read_exact(&mut bytes).unwrap();
        let (words, _) = bytes.as_chunks();
        let [first, from, to] = [0, 1, 2].map(|n| u64::from_le_bytes(words[n]));
        let [low, high] = [first & u64::from(u32::MAX), first >> 32];
        Self {
            pasid: low.try_into().unwrap(),
            len_bytes: high.try_into().unwrap(),
            from,
            to,
        }
    }
}
