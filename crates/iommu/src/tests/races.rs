use std::sync::atomic::AtomicBool;

use palisade_units::Access;

use super::*;

/// Ends the other thread's loop, also when this one fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// While one thread reads without pause, another moves the page and invalidates. Whatever the
/// invalidation has answered is never contradicted: a read that starts afterwards sees the new page.
#[test]
fn r41_r44_a_read_that_starts_after_an_invalidation_sees_what_it_made_visible() {
    let tenant = Tenant::alone();
    let function = function(&Iommu::new());
    let _claim = tenant.own(&function);
    let process = tenant.process();
    process.map(0x5000, 0);
    function
        .bind(tag(1), tenant.hold(), process.binding(1, 1))
        .unwrap();
    for page in 0..512 {
        tenant.shared.store_u64(page << 12, page).unwrap();
    }
    let (promised, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut port = function.port();
            let mut reads = 0_u64;
            while !stop.load(Ordering::SeqCst) || reads == 0 {
                let before = promised.load(Ordering::SeqCst);
                let seen = read(&mut port, tag(1), 0x5000).unwrap();
                assert!(seen >= before, "read {seen} after {before} was promised");
                reads += 1;
            }
        });
        let _stop = Stop(&stop);
        for page in 1..512 {
            process.map(0x5000, page << 12);
            function.invalidate(Scope::Tag(tag(1)), Cached::InUnit);
            promised.store(page, Ordering::SeqCst);
        }
    });
}

/// After an unbind has returned, nothing is written any more.
#[test]
fn r39_no_write_lands_after_an_unbind_has_returned() {
    let tenant = Tenant::alone();
    let function = function(&Iommu::new());
    let _claim = tenant.own(&function);
    let (hold, stop) = (tenant.hold(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut port = function.port();
            while !stop.load(Ordering::SeqCst) {
                let data = [0xff; 0x3000];
                let _ = port.write(by(tag(1)), Iova::new(0x1000), &data);
            }
        });
        let _stop = Stop(&stop);
        for _ in 0..300 {
            function
                .bind(tag(1), hold.clone(), tenant.pass_through(1))
                .unwrap();
            std::thread::yield_now();
            function.unbind(tag(1), UserId(1)).unwrap();
            tenant.shared.fill(0x1000, 0x3000, 0).unwrap();
            std::thread::yield_now();
            for at in [0x1000, 0x2ff8, 0x3ff8] {
                assert_eq!(tenant.shared.load_u64(at), Ok(0));
            }
        }
    });
}

/// Every waiter is called exactly once, however requests, responses and unbinds interleave.
#[test]
fn r63_r65_each_request_is_answered_exactly_once_while_the_tag_comes_and_goes() {
    const REQUESTS: u64 = 3000;
    let tenant = Tenant::alone();
    let function = function(&Iommu::new());
    let _claim = tenant.own(&function);
    let process = tenant.process();
    let hold = tenant.hold();
    let bind = || {
        function
            .bind(tag(1), hold.clone(), process.binding(1, 1))
            .unwrap()
    };
    bind();
    let calls: Arc<Vec<AtomicU64>> = Arc::new((0..REQUESTS).map(|_| AtomicU64::new(0)).collect());
    let (refused, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let port = function.port();
            for number in 0..REQUESTS {
                let calls = calls.clone();
                let waiter = Box::new(move |_| {
                    let slot = usize::try_from(number).unwrap();
                    calls[slot].fetch_add(1, Ordering::SeqCst);
                });
                if port
                    .request_page(by(tag(1)), Iova::new(0), Access::READ, waiter)
                    .is_err()
                {
                    refused.fetch_add(1, Ordering::SeqCst);
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        let mut answered = 0;
        while !done.load(Ordering::SeqCst) {
            let requests = tenant.sink.requests();
            for request in requests.iter().skip(answered) {
                let _ = function.respond(tag(1), request.group, PageResponse::Success);
            }
            answered = requests.len();
            function.unbind(tag(1), UserId(1)).unwrap();
            bind();
        }
    });
    function.unbind(tag(1), UserId(1)).unwrap();
    let counts: Vec<u64> = calls
        .iter()
        .map(|calls| calls.load(Ordering::SeqCst))
        .collect();
    assert!(counts.iter().all(|count| *count <= 1));
    assert_eq!(
        counts.iter().sum::<u64>() + refused.load(Ordering::SeqCst),
        REQUESTS
    );
}
