//! R35, R36, R39, R42, R43: BIND and NESTING_OP.

use std::thread;

use palisade_iommu::{FaultReason, PasidEnable};

use super::*;

#[test]
fn r3_r35_what_a_client_binds_is_reached_by_its_function() {
    for abi in BOTH {
        let (_host, alice, function, _attachment, client) = client(abi);
        alice.ram.store_u64(0x1000, 0xa1).unwrap();
        let process = alice.process(&[(BUFFER, 0x1000)]);
        let n = client.any();
        let mut port = function.port();
        let tag = Some(host(n).into());
        let absent = Err(FaultReason::PasidEntryNotPresent);
        assert_eq!(read(&mut port, tag, BUFFER), absent, "taken, not bound");
        client.bind(data(n, process)).unwrap();
        assert_eq!(read(&mut port, tag, BUFFER), Ok(0xa1));
        client.unbind(n).unwrap();
        assert_eq!(read(&mut port, tag, BUFFER), absent);
    }
}

#[test]
fn r35_bind_data_that_cannot_be_is_einval_and_changes_nothing() {
    for abi in BOTH {
        let (host_side, alice, _function, _attachment, client) = client(abi);
        let n = client.any();
        let good = named(n, 77, alice.process(&[]));
        let books = host_side.books();
        let padding = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        for (name, wrong) in [
            (
                "version 0",
                BindData {
                    version: 0.into(),
                    ..good
                },
            ),
            (
                "version 2",
                BindData {
                    version: 2.into(),
                    ..good
                },
            ),
            (
                "format 0",
                BindData {
                    format: 0.into(),
                    ..good
                },
            ),
            (
                "format 2",
                BindData {
                    format: 2.into(),
                    ..good
                },
            ),
            (
                "flags",
                BindData {
                    flags: 3.into(),
                    ..good
                },
            ),
            (
                "PASID 0",
                BindData {
                    hpasid: 0.into(),
                    ..good
                },
            ),
            (
                "PASID 2^20",
                BindData {
                    hpasid: (1 << 20).into(),
                    ..good
                },
            ),
            (
                "PASID 2^32",
                BindData {
                    hpasid: (u64::from(n) | 1 << 32).into(),
                    ..good
                },
            ),
            (
                "guest PASID 0",
                BindData {
                    gpasid: 0.into(),
                    ..good
                },
            ),
            (
                "guest PASID 2^20",
                BindData {
                    gpasid: (1 << 20).into(),
                    ..good
                },
            ),
            (
                "39 bits",
                BindData {
                    addr_width: 39.into(),
                    ..good
                },
            ),
            (
                "0 bits",
                BindData {
                    addr_width: 0.into(),
                    ..good
                },
            ),
            ("padding", BindData { padding, ..good }),
            (
                "VT-d flags",
                BindData {
                    vtd_flags: (1 << 6).into(),
                    ..good
                },
            ),
            (
                "root",
                BindData {
                    gpgd: 0x123.into(),
                    ..good
                },
            ),
        ] {
            assert_eq!(client.bind(wrong), Err(EINVAL), "{name}");
        }
        for memory_type in [VTD_PCD, VTD_PWT, VTD_EMTE, VTD_CD] {
            let wrong = BindData {
                vtd_flags: (memory_type | VTD_SRE).into(),
                ..good
            };
            assert_eq!(client.bind(wrong), Err(EOPNOTSUPP));
        }
        assert_eq!(host_side.books(), books);
        client.bind(good).unwrap();
    }
}

#[test]
fn r12_r35_a_pasid_that_the_client_did_not_take_is_not_bound() {
    for abi in BOTH {
        let (host_side, [alice, bob], _parent, _slices) = neighbours(slot(4), slot(4));
        let hers = Client::nesting(&vmm(&alice), abi);
        let his = Client::nesting(&vmm(&bob), abi);
        let n = hers.any();
        hers.bind(data(n, alice.process(&[]))).unwrap();
        let of_the_function = bob.container.default_hold(slot(4)).unwrap().pasid().get();
        let process = bob.process(&[]);
        let books = host_side.books();
        for (pasid, refused) in [(n, EACCES), (999, ENOENT), (of_the_function, ENOENT)] {
            assert_eq!(his.bind(data(pasid, process)), Err(refused));
            assert_eq!(his.bind(named(pasid, 5, process)), Err(refused));
            assert_eq!(his.unbind(pasid), Err(refused));
            assert_eq!(host_side.books(), books);
        }
    }
}

#[test]
fn r49_a_client_says_what_its_guest_calls_a_pasid() {
    for abi in BOTH {
        let (_host, alice, function, _attachment, client) = client(abi);
        alice.ram.store_u64(0x1000, 0xa1).unwrap();
        let process = alice.process(&[(BUFFER, 0x1000)]);
        let (n, m) = (client.any(), client.any());
        client.bind(named(n, 700, process)).unwrap();
        let hold = alice.container.translate(slot(4), guest(700)).unwrap();
        assert_eq!(hold.pasid(), host(n));
        let mut port = function.port();
        assert_eq!(read(&mut port, holding(&hold), BUFFER), Ok(0xa1));
        // Faults speak the guest's language (R66).
        read(&mut port, holding(&hold), BUFFER + 0x1000).unwrap_err();
        assert_eq!(alice.faults()[0].pasid, Some(guest(700)));

        assert_eq!(
            client.bind(named(m, 700, process)),
            Err(EINVAL),
            "a duplicate"
        );
        assert_eq!(
            client.bind(named(n, 701, process)),
            Err(EINVAL),
            "two names"
        );
        assert_eq!(client.bind(data(n, process)), Err(EINVAL));
        client.bind(named(n, 700, alice.process(&[]))).unwrap();
        drop(hold);
        client.unbind(n).unwrap();
        assert!(alice.container.translate(slot(4), guest(700)).is_err());
        client.bind(named(m, 700, process)).unwrap();
        client.bind(named(n, 701, process)).unwrap();
        client.free(m).unwrap();
        client.free(n).unwrap();
        assert_eq!(alice.container.set().outstanding(), 1);
        assert_eq!(alice.container.bound(slot(4)).len(), 1);
    }
}

#[test]
fn r49_a_name_under_which_nothing_is_bound_may_be_given_to_another_pasid() {
    for abi in BOTH {
        let (_host, alice, function, attachment, client) = client(abi);
        let process = alice.process(&[(BUFFER, 0x1000)]);
        let (n, m) = (client.any(), client.any());
        client.bind(named(n, 700, process)).unwrap();
        attachment.detach();
        let _again = alice.mediated(slot(4), &function);
        let set = alice.container.set();
        // A bind that fails leaves every name where it was.
        function.set_pasid_enabled(PasidEnable::Off);
        assert_eq!(client.bind(named(m, 700, process)), Err(EOPNOTSUPP));
        assert_eq!(set.guest_of(host(n)), Some(guest(700)));
        assert_eq!(set.guest_of(host(m)), Some(guest(m)));
        function.set_pasid_enabled(PasidEnable::On);

        client.bind(named(m, 700, process)).unwrap();
        assert_eq!(set.guest_of(host(m)), Some(guest(700)));
        // The number of another that is not bound is free to be a name, too; that one needs another then.
        client.bind(named(n, m, process)).unwrap();
        client.unbind(m).unwrap();
        assert_eq!(client.bind(data(m, process)), Err(EINVAL));
        client.bind(named(m, n, process)).unwrap();
        for (pasid, name) in [(n, m), (m, n)] {
            let hold = alice.container.translate(slot(4), guest(name)).unwrap();
            assert_eq!(hold.pasid(), host(pasid));
            assert!(read(&mut function.port(), holding(&hold), BUFFER).is_ok());
        }
        client.free(n).unwrap();
        client.free(m).unwrap();
        assert_eq!(set.outstanding(), 1);
    }
}

#[test]
fn r36_a_bind_is_on_every_function_or_on_none() {
    for abi in BOTH {
        let host_side = Host::new();
        let alice = host_side.tenant(1);
        let parents: Vec<_> = (1..=3).map(|n| host_side.parent(n)).collect();
        let _attachments: Vec<_> = (1..=3)
            .zip(&parents)
            .map(|(n, parent)| alice.mediated(slot(n), parent))
            .collect();
        let client = Client::nesting(&vmm(&alice), abi);
        let n = client.any();
        let process = alice.process(&[(BUFFER, 0x1000)]);
        for faulty in &parents {
            faulty.set_pasid_enabled(PasidEnable::Off);
            let books = host_side.books();
            assert_eq!(client.bind(named(n, 9, process)), Err(EOPNOTSUPP));
            assert_eq!(host_side.books(), books);
            faulty.set_pasid_enabled(PasidEnable::On);
        }
        client.bind(data(n, process)).unwrap();
        for parent in &parents {
            assert!(read(&mut parent.port(), Some(host(n).into()), BUFFER).is_ok());
        }
        client.unbind(n).unwrap();
        for parent in &parents {
            assert!(read(&mut parent.port(), Some(host(n).into()), BUFFER).is_err());
        }
    }
}

#[test]
fn r39_unbind_takes_access_away_and_the_pasid_stays_for_another_bind() {
    for abi in BOTH {
        let (_host, alice, function, _attachment, client) = client(abi);
        alice.ram.store_u64(0x1000, 0xa1).unwrap();
        alice.ram.store_u64(0x2000, 0xa2).unwrap();
        let n = client.any();
        let mut port = function.port();
        for (page, value) in [(0x1000, 0xa1), (0x2000, 0xa2)] {
            let process = alice.process(&[(BUFFER, page)]);
            client.bind(data(n, process)).unwrap();
            assert_eq!(read(&mut port, Some(host(n).into()), BUFFER), Ok(value));
            client.unbind(n).unwrap();
            assert!(read(&mut port, Some(host(n).into()), BUFFER).is_err());
            assert_eq!(client.unbind(n), Err(ENOENT));
            assert_eq!(alice.container.allocated(), [guest(n)]);
        }
    }
}

#[test]
fn r42_bind_and_free_of_one_pasid_at_once_end_in_one_of_two_states() {
    for abi in BOTH {
        let (_host, alice, _function, _attachment, client) = client(abi);
        let process = alice.process(&[]);
        for round in 0..200 {
            let n = client.any();
            let bind = named(n, 700 + round % 2, process);
            let bound = thread::scope(|scope| {
                let freeing = scope.spawn(|| client.free(n));
                let bound = client.bind(bind);
                freeing.join().unwrap().unwrap();
                bound
            });
            // Bound and then freed, or freed and then refused: either way nothing is left.
            assert!(matches!(bound, Ok(()) | Err(ENOENT)), "{bound:?}");
            assert_eq!(alice.container.bound(slot(4)).len(), 1);
            assert_eq!(alice.container.set().outstanding(), 1);
        }
    }
}

#[test]
fn r43_detaching_a_function_unbinds_what_a_client_bound_on_it() {
    for abi in BOTH {
        let (host_side, alice, function, attachment, client) = client(abi);
        let process = alice.process(&[(BUFFER, 0x1000)]);
        let n = client.any();
        client.bind(named(n, 9, process)).unwrap();
        attachment.detach();
        assert_eq!(host_side.iommu.audit(), []);
        assert!(read(&mut function.port(), Some(host(n).into()), BUFFER).is_err());
        let _again = alice.mediated(slot(4), &function);
        assert_eq!(client.unbind(n), Err(ENOENT));
        client.bind(data(n, process)).unwrap();
        let entries = host_side.iommu.audit();
        let owner = alice.container.set().tenant();
        assert!(entries.iter().all(|entry| entry.tenant == owner));
        assert_eq!(entries.len(), 2);
    }
}

#[test]
fn five_levels_privileged_requests_and_the_extended_accessed_flag_are_taken_over() {
    let (_host, alice, _function, _attachment, client) = client(Abi::V7);
    let n = client.any();
    let wide = BindData {
        addr_width: 57.into(),
        vtd_flags: (VTD_SRE | VTD_EAFE).into(),
        ..data(n, alice.process(&[]))
    };
    client.bind(wide).unwrap();
    let bound = alice.container.bound(slot(4));
    let (_, Space::FirstStage(stage)) = bound[1] else {
        panic!("{bound:?}");
    };
    use palisade_iommu::{ExtendedAccessed, Levels, NoExecute, SupervisorRequests};
    assert_eq!(stage.levels, Levels::Five);
    assert_eq!(stage.supervisor, SupervisorRequests::Allowed);
    assert_eq!(stage.extended_accessed, ExtendedAccessed::On);
    assert_eq!(stage.no_execute, NoExecute::Honoured);
    assert_eq!(stage.root.get(), wide.gpgd.get());
}

#[test]
fn r31_r35_what_the_units_do_not_all_have_is_not_bound() {
    const SRS: u64 = 1 << 31;
    const EAFS: u64 = 1 << 34;
    for abi in BOTH {
        let (host_side, alice, _function, _attachment) = alone(Sharing::Mediated);
        let narrow = Unit {
            address_bits: 48,
            ecap: UNIT.ecap & !(SRS | EAFS),
            ..UNIT
        };
        let vmm = Vmm::new(alice.container.clone(), &[UNIT, narrow]);
        let client = Client::nesting(&vmm, abi);
        let n = client.any();
        let good = data(n, alice.process(&[]));
        let books = host_side.books();
        let wide = BindData {
            addr_width: 57.into(),
            ..good
        };
        assert_eq!(client.bind(wide), Err(EINVAL));
        for flag in [VTD_SRE, VTD_EAFE] {
            let wrong = BindData {
                vtd_flags: flag.into(),
                ..good
            };
            assert_eq!(client.bind(wrong), Err(EOPNOTSUPP), "{flag}");
        }
        assert_eq!(host_side.books(), books);
        client.bind(good).unwrap();
    }
}
