use palisade_units::Access;

use super::*;

/// What the waiters of a test were told, in order.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<Vec<PageResponse>>>);

impl Answers {
    fn waiter(&self) -> PageWaiter {
        let answers = self.0.clone();
        Box::new(move |response| answers.lock().unwrap().push(response))
    }

    fn take(&self) -> Vec<PageResponse> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

fn ask(port: &DmaPort, tag: Option<PasidTag>, at: u64, answers: &Answers) {
    port.request_page(by(tag), Iova::new(at), Access::WRITE, answers.waiter())
        .unwrap();
}

/// A shared function with an empty process bound for one user.
fn bound(tenant: &Tenant) -> (FunctionHandle, Claim, Option<PasidTag>) {
    let function = function(&Iommu::new());
    let claim = function.claim(tenant.id, Sharing::Mediated).unwrap();
    let _other = tenant.hold();
    let hold = tenant.hold();
    let pasid = shared_tag(hold.pasid());
    function
        .bind(pasid, hold, tenant.process().binding(1, 40))
        .unwrap();
    (function, claim, pasid)
}

#[test]
fn r62_r66_a_request_reaches_the_guest_in_its_names_and_each_response_its_waiter() {
    let tenant = Tenant::alone();
    let (function, _claim, pasid) = bound(&tenant);
    let (port, answers) = (function.port(), Answers::default());
    for response in [
        PageResponse::Success,
        PageResponse::Invalid,
        PageResponse::Failure,
    ] {
        ask(&port, pasid, 0x5123, &answers);
        let request = *tenant.sink.requests().last().unwrap();
        let expected = PageRequest {
            bdf: GUEST,
            pasid: Some(guest(40)),
            at: Iova::new(0x5000),
            access: Access::WRITE,
            group: request.group,
            last_in_group: PlaceInGroup::Last,
        };
        assert_eq!(request, expected);
        assert_eq!(answers.take(), []);
        function.respond(pasid, request.group, response).unwrap();
        assert_eq!(answers.take(), [response]);
    }
}

#[test]
fn r62_a_group_of_several_pages_has_one_index_and_one_answer() {
    let tenant = Tenant::alone();
    let (function, _claim, pasid) = bound(&tenant);
    let (port, answers) = (function.port(), Answers::default());
    let wanted = [
        (Iova::new(0x5123), Access::READ),
        (Iova::new(0x9000), Access::WRITE),
        (Iova::new(0x7fff), Access::READ),
    ];
    port.request_pages(by(pasid), wanted[0], &wanted[1..], answers.waiter())
        .unwrap();
    let requests = tenant.sink.requests();
    let group = requests[0].group;
    let seen: Vec<_> = requests
        .iter()
        .map(|request| (request.at.get(), request.access, request.last_in_group))
        .collect();
    let expected = [
        (0x5000, Access::READ, PlaceInGroup::MoreFollow),
        (0x9000, Access::WRITE, PlaceInGroup::MoreFollow),
        (0x7000, Access::READ, PlaceInGroup::Last),
    ];
    assert_eq!(seen, expected);
    assert!(requests.iter().all(|request| request.group == group));
    assert_eq!(function.outstanding_page_requests(), 1);
    assert_eq!(answers.take(), []);
    function
        .respond(pasid, group, PageResponse::Success)
        .unwrap();
    assert_eq!(answers.take(), [PageResponse::Success]);
    assert!(
        function
            .respond(pasid, group, PageResponse::Success)
            .is_err(),
        "once"
    );
}

#[test]
fn r64_a_group_that_does_not_get_in_fails_as_a_whole_and_once() {
    let tenant = Tenant::alone();
    let (function, _claim, pasid) = bound(&tenant);
    let (port, answers) = (function.port(), Answers::default());
    *tenant.sink.is_full.lock().unwrap() = true;
    let page = (Iova::new(0x5000), Access::READ);
    port.request_pages(by(pasid), page, &[page; 3], answers.waiter())
        .unwrap();
    assert_eq!(answers.take(), [PageResponse::Failure]);
    assert_eq!(function.outstanding_page_requests(), 0);
}

#[test]
fn r62_a_page_that_was_asked_for_is_reached_once_the_guest_has_mapped_it() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = tenant.own(&function);
    let process = tenant.process();
    function
        .bind(tag(1), tenant.hold(), process.binding(1, 1))
        .unwrap();
    let (mut port, answers) = (function.port(), Answers::default());
    let at = Iova::new(0x5008);
    let missed = port.write(asking(tag(1)), at, &[9; 8]);
    assert_eq!(
        missed,
        Err(DmaError::NotPresent {
            at,
            access: Access::WRITE
        })
    );
    assert_eq!(tenant.sink.faults(), []);
    ask(&port, tag(1), 0x5008, &answers);
    process.map(0x5000, 0x1000);
    let group = tenant.sink.requests()[0].group;
    function
        .respond(tag(1), group, PageResponse::Success)
        .unwrap();
    assert_eq!(answers.take(), [PageResponse::Success]);
    assert_eq!(port.write(asking(tag(1)), at, &[9; 8]), Ok(()));
    assert_eq!(tenant.shared.load_u64(0x1008), Ok(0x0909_0909_0909_0909));
}

#[test]
fn r63_a_response_is_accepted_once_and_only_for_its_own_pasid_and_group() {
    let tenant = Tenant::alone();
    let (function, _claim, pasid) = bound(&tenant);
    let (port, answers) = (function.port(), Answers::default());
    ask(&port, pasid, 0, &answers);
    let group = tenant.sink.requests()[0].group;
    let other_group = GroupIndex::new(group.get() + 1);
    for (tag, group) in [(tag(1), group), (None, group), (pasid, other_group)] {
        let refusal = function.respond(tag, group, PageResponse::Success);
        assert!(matches!(refusal, Err(IommuError::NoSuchRequest { .. })));
    }
    assert_eq!(answers.take(), []);
    function
        .respond(pasid, group, PageResponse::Success)
        .unwrap();
    let again = function.respond(pasid, group, PageResponse::Invalid);
    assert_eq!(again.unwrap_err().errno(), 2);
    assert_eq!(answers.take(), [PageResponse::Success]);
}

#[test]
fn r65_an_unbind_answers_what_is_outstanding_before_the_pasid_is_free() {
    let authority = Authority::new(&[]);
    let tenant = Tenant::new(&authority, 1);
    let (function, _claim, pasid) = bound(&tenant);
    let host = HostPasid::new(pasid.unwrap().get()).unwrap();
    tenant.set.free(host).unwrap();
    let port = function.port();
    let seen = Arc::new(Mutex::new(None));
    let (at_answer, owner) = (seen.clone(), authority.clone());
    let waiter: PageWaiter = Box::new(move |response| {
        *at_answer.lock().unwrap() = Some((response, owner.owner_of(host)));
    });
    port.request_page(by(pasid), Iova::new(0), Access::READ, waiter)
        .unwrap();
    function.unbind(pasid, UserId(1)).unwrap();
    assert_eq!(
        *seen.lock().unwrap(),
        Some((PageResponse::Invalid, Some(tenant.id)))
    );
    assert_eq!(authority.owner_of(host), None);
    let group = tenant.sink.requests()[0].group;
    assert!(
        function
            .respond(pasid, group, PageResponse::Success)
            .is_err()
    );
    assert_eq!(function.outstanding_page_requests(), 0);
}

#[test]
fn r65_the_end_of_a_tenants_claim_answers_what_is_outstanding() {
    let tenant = Tenant::alone();
    let (function, claim, pasid) = bound(&tenant);
    let (port, answers) = (function.port(), Answers::default());
    ask(&port, pasid, 0, &answers);
    ask(&port, pasid, 0x1000, &answers);
    drop(claim);
    assert_eq!(answers.take(), [PageResponse::Invalid; 2]);
}

#[test]
fn r65_when_another_user_takes_over_open_requests_are_made_again() {
    let tenant = Tenant::alone();
    let (function, _claim, pasid) = bound(&tenant);
    let host = HostPasid::new(pasid.unwrap().get()).unwrap();
    let root = Gpa::new(FIRST_TABLE);
    let space = Space::FirstStage(FirstStage::new(root, Levels::Four));
    let second = tenant.binding(2, space, Some(guest(40)));
    function
        .bind(pasid, tenant.set.hold(host).unwrap(), second)
        .unwrap();
    let (port, answers) = (function.port(), Answers::default());
    ask(&port, pasid, 0, &answers);
    assert_eq!(function.unbind(pasid, UserId(1)), Ok(Unbound::OthersRemain));
    assert_eq!(answers.take(), [PageResponse::Success]);
    ask(&port, pasid, 0, &answers);
    let group = tenant.sink.requests()[1].group;
    function
        .respond(pasid, group, PageResponse::Success)
        .unwrap();
    assert_eq!(answers.take(), [PageResponse::Success]);
}

#[test]
fn r62_a_full_queue_is_a_failure_at_once() {
    let tenant = Tenant::alone();
    let (function, _claim, pasid) = bound(&tenant);
    *tenant.sink.is_full.lock().unwrap() = true;
    let (port, answers) = (function.port(), Answers::default());
    ask(&port, pasid, 0, &answers);
    assert_eq!(answers.take(), [PageResponse::Failure]);
    assert_eq!(function.outstanding_page_requests(), 0);
}

#[test]
fn r62_outstanding_requests_are_bounded_for_each_tag_and_for_each_guest_function() {
    let tenant = Tenant::alone();
    let function = function(&Iommu::new());
    let _claim = tenant.own(&function);
    let process = tenant.process();
    for number in 0..20 {
        function
            .bind(tag(number), tenant.hold(), process.binding(1, number))
            .unwrap();
    }
    let (port, answers) = (function.port(), Answers::default());
    for page in 0..65 {
        ask(&port, tag(0), page << 12, &answers);
    }
    assert_eq!(
        answers.take(),
        [PageResponse::Failure],
        "the 65th of one tag"
    );
    for number in 1..9 {
        for page in 0..64 {
            ask(&port, tag(number), page << 12, &answers);
        }
    }
    assert_eq!(
        answers.take(),
        [PageResponse::Failure; 64],
        "beyond 512 of one guest function"
    );
    assert_eq!(function.outstanding_page_requests(), 512);

    // Another guest function has groups of its own; that is only for mediated ones, so by user.
    function
        .bind(tag(30), tenant.hold(), process.binding(2, 30))
        .unwrap();
    ask(&port, tag(30), 0, &answers);
    assert_eq!(answers.take(), []);

    // All groups of the first are different.
    let mut groups: Vec<_> = tenant.sink.requests()[..512]
        .iter()
        .map(|r| r.group)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    assert_eq!(groups.len(), 512);
    // One answer makes room for one.
    let first = tenant.sink.requests()[0].group;
    function
        .respond(tag(0), first, PageResponse::Success)
        .unwrap();
    ask(&port, tag(0), 0, &answers);
    assert_eq!(answers.take(), [PageResponse::Success]);
}

#[test]
fn r62_a_group_index_rests_before_it_is_used_again() {
    let tenant = Tenant::alone();
    let (function, _claim, pasid) = bound(&tenant);
    let (port, answers) = (function.port(), Answers::default());
    for _ in 0..600 {
        ask(&port, pasid, 0, &answers);
        let group = tenant.sink.requests().last().unwrap().group;
        function
            .respond(pasid, group, PageResponse::Success)
            .unwrap();
    }
    let groups: Vec<_> = tenant
        .sink
        .requests()
        .iter()
        .map(|r| r.group.get())
        .collect();
    assert!(
        groups
            .iter()
            .zip(0_u16..)
            .all(|(group, n)| *group == n % 512)
    );
}

#[test]
fn r62_a_request_of_a_tag_that_is_not_bound_faults_and_its_waiter_is_not_called() {
    let tenant = Tenant::alone();
    let function = function(&Iommu::new());
    let _claim = tenant.own(&function);
    let (port, answers) = (function.port(), Answers::default());
    let result = port.request_page(by(tag(5)), Iova::new(0), Access::READ, answers.waiter());
    assert_eq!(refused(result), FaultReason::PasidEntryNotPresent);
    assert_eq!(answers.take(), []);
    assert_eq!(tenant.sink.faults().len(), 1);
    function.set_pasid_enabled(PasidEnable::Off);
    let result = port.request_page(by(tag(5)), Iova::new(0), Access::READ, answers.waiter());
    assert_eq!(refused(result), FaultReason::PasidDisabled);
}
