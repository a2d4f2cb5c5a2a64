//! Page requests through the file of a queue.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};

use palisade_iommu::{PageResponse, Requester};
use palisade_units::{Access, Iova};

use super::*;
use crate::Abi;
use crate::abi::Request;

/// The client's end.
struct File(UnixDatagram);

impl File {
    fn of(answer: &Answer) -> Self {
        let [fd] = &answer.descriptors[..] else {
            panic!("{answer:?}");
        };
        Self(fd.try_clone().unwrap().into())
    }

    fn read(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 4096];
        let len = self.0.recv(&mut bytes).ok()?;
        bytes.truncate(len);
        Some(bytes)
    }
}

pub(super) type Told = Arc<Mutex<Vec<PageResponse>>>;

impl Rig {
    fn queue(&self) -> (u32, File) {
        let answer = self.ask(FAULT_QUEUE_ALLOC, &words(&[16, 0, 0, 9])).unwrap();
        assert_eq!(word(&answer.written, 12), 0, "the first descriptor");
        (word(&answer.written, 8), File::of(&answer))
    }

    /// The device at slot 4 asks for a page; what it is told comes to stand in what is returned.
    fn ask_page(&self, pasid: u32, at: u64) -> Told {
        let hold = self.alice.container.translate(PLACE, guest(pasid)).unwrap();
        let told = Told::default();
        let waiter = Arc::clone(&told);
        let waiter = Box::new(move |response| waiter.lock().unwrap().push(response));
        let access = Access::READ | Access::WRITE;
        let by = Requester::new(holding(&hold));
        let port = self.parents[0].port();
        let asked = port.request_page(by, Iova::new(at), access, waiter);
        asked.unwrap();
        told
    }

    fn answer(&self, file: &File, answers: &[u32]) {
        file.0.send(&words(answers)).unwrap();
        for queue in self.fd.queues() {
            self.fd.serve(&queue);
        }
    }
}

fn heard(told: &Told) -> Vec<PageResponse> {
    told.lock().unwrap().clone()
}

/// A rig whose PASID 7 is attached to a table with a queue.
fn attached() -> (Rig, u32, u32, File) {
    let rig = Rig::new();
    let (device, parent, process) = rig.begin(0xa1);
    let (queue, file) = rig.queue();
    let flags = PASID | FAULT_ID_VALID;
    let table = rig.nested_with(flags, device, (parent, queue), process);
    let table = table.unwrap();
    rig.attach_pasid(PLACE, 7, table).unwrap();
    (rig, parent, table, file)
}

#[test]
fn r61_r75_a_page_request_is_read_and_answered() {
    let (rig, _, _, file) = attached();
    assert_eq!(file.read(), None);
    let told = rig.ask_page(7, BUFFER + 0x5678);
    let record = file.read().unwrap();
    assert_eq!(record.len(), 40);
    assert_eq!(word(&record, 0), 3, "a PASID, and the last of its group");
    assert_eq!(word(&record, 4), 1, "the device");
    assert_eq!(word(&record, 8), 7, "the guest's own number");
    assert_eq!(word(&record, 16), 3, "read and write");
    assert_eq!(quad(&record, 24), BUFFER + 0x5000);
    assert_eq!(word(&record, 32), 0);
    let cookie = word(&record, 36);
    rig.answer(&file, &[cookie + 1, 0]);
    rig.answer(&file, &[cookie, 2]);
    file.0.send(&[0; 5]).unwrap();
    rig.answer(&file, &[]);
    assert_eq!(heard(&told), [], "none of these is an answer");
    rig.answer(&file, &[cookie, 0]);
    rig.answer(&file, &[cookie, 1]);
    assert_eq!(heard(&told), [PageResponse::Success], "once");
}

#[test]
fn r75_several_answers_are_written_at_once() {
    let (rig, _, _, file) = attached();
    let told = [0, 0x1000, 0x2000].map(|at| rig.ask_page(7, BUFFER + at));
    let cookies: Vec<_> = std::iter::from_fn(|| file.read())
        .map(|one| word(&one, 36))
        .collect();
    assert_eq!(cookies.len(), 3);
    rig.answer(&file, &[cookies[2], 1, cookies[0], 0]);
    let heard: Vec<_> = told.iter().map(heard).collect();
    let (success, invalid) = (vec![PageResponse::Success], vec![PageResponse::Invalid]);
    assert_eq!(heard, [success, vec![], invalid]);
}

#[test]
fn r75_a_detach_answers_and_a_replaced_table_is_asked_no_more() {
    let (rig, parent, _, file) = attached();
    let told = rig.ask_page(7, BUFFER);
    let cookie = word(&file.read().unwrap(), 36);
    let (queue, second) = rig.queue();
    let process = rig.process(0x2000, 0xa2);
    let flags = PASID | FAULT_ID_VALID;
    let table = rig.nested_with(flags, 1, (parent, queue), process).unwrap();
    rig.attach_pasid(PLACE, 7, table).unwrap();
    assert_eq!(
        heard(&told),
        [PageResponse::Invalid],
        "it asks again if it wants"
    );
    rig.answer(&file, &[cookie, 0]);
    let told = rig.ask_page(7, BUFFER);
    assert_eq!(file.read(), None);
    let cookie = word(&second.read().unwrap(), 36);
    rig.detach_pasid(PLACE, 7).unwrap();
    assert_eq!(heard(&told).len(), 1);
    rig.answer(&second, &[cookie, 0]);
    assert_eq!(heard(&told).len(), 1);
}

#[test]
fn r75_without_a_queue_or_a_reader_a_page_request_ends_at_once() {
    let (rig, parent, _, file) = attached();
    drop(file);
    assert_eq!(heard(&rig.ask_page(7, BUFFER)), [PageResponse::Failure]);
    let process = rig.process(0x2000, 0xa2);
    let plain = rig.nested(PASID, 1, parent, process).unwrap();
    rig.attach_pasid(PLACE, 8, plain).unwrap();
    assert_eq!(heard(&rig.ask_page(8, BUFFER)), [PageResponse::Failure]);
}

#[test]
fn r75_a_queue_is_kept_by_its_tables() {
    let (rig, _, table, file) = attached();
    let queue = 4;
    drop(file);
    assert_eq!(rig.destroy(queue), Err(EBUSY));
    rig.detach_pasid(PLACE, 7).unwrap();
    rig.destroy(table).unwrap();
    rig.destroy(queue).unwrap();
    assert_eq!(rig.destroy(queue), Err(ENOENT));
    let (queue, file) = rig.queue();
    assert_eq!(rig.destroy(queue), Err(EBUSY), "and by its file");
    drop(file);
    rig.destroy(queue).unwrap();
}

#[test]
fn r75_one_connection_of_a_vmm_is_told_at_a_time() {
    let (rig, ..) = attached();
    let other = rig.vmm.connect_iommufd();
    let request = words(&[16, 0, 0, 0]);
    let ask = |fd: &Iommufd| {
        let answer = fd.ioctl(
            On::Iommufd,
            Number::new(FAULT_QUEUE_ALLOC),
            &request,
            vec![],
        );
        answer.map(drop).map_err(|refused| refused.errno.get())
    };
    assert_eq!(ask(&other), Err(EBUSY));
    let session = rig.vmm.connect(Abi::V7);
    let ring = [words(&[16, 0]), vec![0; 8]].concat();
    let null = std::fs::File::open("/dev/null").unwrap();
    let ring = session.ioctl(Request::FaultRing.number(), &ring, vec![null.into()]);
    assert_eq!(ring.unwrap_err().get(), EBUSY);
    drop(rig);
    assert_eq!(ask(&other), Ok(()));
}

#[test]
fn r75_where_the_host_tells_somebody_else_there_is_no_queue() {
    let rig = Rig::with(Sharing::Mediated, FaultDelivery::Elsewhere);
    let queue = rig.ask(FAULT_QUEUE_ALLOC, &words(&[16, 0, 0, 0]));
    assert_eq!(queue.unwrap_err(), EOPNOTSUPP);
}

#[test]
fn r78_files_are_bounded() {
    let rig = Rig::new();
    const ENOMEM: i32 = 12;
    let mut files: Vec<_> = (0..64).map(|_| rig.queue()).collect();
    let more = rig.ask(FAULT_QUEUE_ALLOC, &words(&[16, 0, 0, 0]));
    assert_eq!(more.unwrap_err(), ENOMEM);
    let (queue, file) = files.remove(0);
    drop(file);
    rig.destroy(queue).unwrap();
    rig.queue();
}
