//! R40, R41: CACHE_INVALIDATE and NESTING_OP.

use palisade_iommu::{DmaPort, FaultReason};

use super::*;

const PAGE: u64 = 0x1000;

fn by_pasid(pasid: u32) -> Form {
    Form::Pasid(InvalidatePasid {
        flags: 1.into(),
        pasid: u64::from(pasid).into(),
        ..InvalidatePasid::default()
    })
}

fn pages(flags: u32, pasid: u32, at: u64, granule: u64, count: u64) -> InvalidateAddress {
    InvalidateAddress {
        flags: flags.into(),
        archid: 0.into(),
        pasid: u64::from(pasid).into(),
        addr: at.into(),
        granule_size: granule.into(),
        nb_granules: count.into(),
    }
}

#[test]
fn r40_pairs_of_cache_and_granularity_work_as_the_table_says_and_others_are_einval() {
    for abi in BOTH {
        let (_host, alice, _function, _attachment, client) = client(abi);
        let n = client.any();
        client.bind(data(n, alice.process(&[]))).unwrap();
        for granularity in 0..=255 {
            for cache in 0..=255 {
                let known = match granularity {
                    0 => 1 | 4,
                    1 => 1 | 2 | 4,
                    2 => 1 | 2,
                    _ => 0,
                };
                let form = match granularity {
                    0 => vec![],
                    1 => InvalidatePasid {
                        flags: 1.into(),
                        pasid: u64::from(n).into(),
                        ..InvalidatePasid::default()
                    }
                    .as_bytes()
                    .to_vec(),
                    _ => pages(1, n, BUFFER, PAGE, 1).as_bytes().to_vec(),
                };
                let expected = match cache != 0 && cache & !known == 0 {
                    true => Ok(()),
                    false => Err(EINVAL),
                };
                let answer = client.invalidate_raw(cache, granularity, &form);
                assert_eq!(answer, expected, "{granularity} {cache:#x}");
            }
        }
    }
}

#[test]
fn r40_forms_that_cannot_be_are_einval() {
    for abi in BOTH {
        let (_host, _alice, _function, _attachment, client) = client(abi);
        let n = client.any();
        let refused = |form| assert_eq!(client.invalidate(1, form), Err(EINVAL));
        for flags in [0, 2, 4, 5, u32::MAX] {
            refused(Form::Pasid(InvalidatePasid {
                flags: flags.into(),
                pasid: u64::from(n).into(),
                ..InvalidatePasid::default()
            }));
        }
        for wrong in [
            pages(8, n, 0, PAGE, 1),
            pages(1, 0, 0, PAGE, 1),
            pages(1, 1 << 20, 0, PAGE, 1),
            pages(1, n, 0x800, PAGE, 1),
            pages(1, n, PAGE, 2 * PAGE, 1),
            pages(1, n, 0, 0, 1),
            pages(1, n, 0, 0x800, 1),
            pages(1, n, 0, 3 * PAGE, 1),
            pages(1, n, 0, PAGE, 0),
            pages(1, n, 0, PAGE, u64::MAX),
            pages(1, n, 0, 1 << 63, 3),
            pages(1, n, 1 << 63, 1 << 62, 3),
        ] {
            refused(Form::Address(wrong));
        }
        // The last page, and all pages there are.
        let last = pages(1, n, u64::MAX - 0xfff, PAGE, 1);
        client.invalidate(1, Form::Address(last)).unwrap();
        let most = pages(1, n, 0, 1 << 63, 1);
        client.invalidate(1, Form::Address(most)).unwrap();
        // A form shorter than its granularity.
        let short = client.invalidate_raw(1, 2, &[0; 39]);
        assert_eq!(short, Err(EINVAL));
        assert_eq!(client.invalidate_raw(1, 1, &[0; 15]), Err(EINVAL));
    }
}

#[test]
fn r12_r40_ownership_is_checked_before_anything_is_forgotten() {
    for abi in BOTH {
        let (_host, [alice, bob], _parent, _slices) = neighbours(slot(4), slot(4));
        let hers = Client::nesting(&vmm(&alice), abi);
        let his = Client::nesting(&vmm(&bob), abi);
        let n = hers.any();
        assert_eq!(his.invalidate(1, by_pasid(n)), Err(EACCES));
        let range = Form::Address(pages(1, n, 0, PAGE, 1));
        assert_eq!(his.invalidate(1, range), Err(EACCES));
        assert_eq!(his.invalidate(1, by_pasid(999)), Err(ENOENT));
        assert_eq!(hers.invalidate(1, by_pasid(n)), Ok(()), "taken, not bound");
    }
}

/// A process with two pages, each of which was read through the cache and then unmapped.
struct Stale {
    world: (Host, Tenant, FunctionHandle, Attachment, Client),
    port: DmaPort,
    pasids: [u32; 2],
}

impl Stale {
    fn new(abi: Abi) -> Self {
        let world = client(abi);
        let (_, alice, function, _, client) = &world;
        alice.ram.store_u64(0x1000, 0xa1).unwrap();
        let mut port = function.port();
        let pasids = [client.any(), client.any()];
        for n in pasids {
            let process = alice.process(&[(BUFFER, 0x1000), (BUFFER + PAGE, 0x1000)]);
            client.bind(data(n, process)).unwrap();
            for at in [BUFFER, BUFFER + PAGE] {
                assert_eq!(read(&mut port, Some(host(n).into()), at), Ok(0xa1));
                alice.unmap(process, at);
            }
        }
        Self {
            world,
            port,
            pasids,
        }
    }

    fn client(&self) -> &Client {
        &self.world.4
    }

    /// Which of the four pages are still reached: of the first PASID, then of the second.
    fn reached(&mut self) -> [bool; 4] {
        let [one, two] = self.pasids;
        let all = [(one, 0), (one, PAGE), (two, 0), (two, PAGE)];
        all.map(
            |(n, offset)| match read(&mut self.port, Some(host(n).into()), BUFFER + offset) {
                Ok(value) => value == 0xa1,
                Err(reason) => {
                    assert_eq!(reason, FaultReason::FirstStageNotPresent);
                    false
                }
            },
        )
    }
}

#[test]
fn r41_a_stale_translation_stays_until_its_scope_is_invalidated() {
    for abi in BOTH {
        let all = Stale::new(abi);
        let [n, _] = all.pasids;
        drop(all);
        for (form, left) in [
            (Form::Domain, [false; 4]),
            (by_pasid(n), [false, false, true, true]),
            (
                Form::Address(pages(1, n, BUFFER + PAGE, PAGE, 1)),
                [true, false, true, true],
            ),
            (
                Form::Address(pages(5, n, BUFFER, PAGE, 2)),
                [false, false, true, true],
            ),
        ] {
            let mut stale = Stale::new(abi);
            assert_eq!(stale.reached(), [true; 4], "caches are real");
            stale.client().invalidate(1, form).unwrap();
            assert_eq!(stale.reached(), left);
        }
    }
}

#[test]
fn r41_what_devices_keep_and_entries_of_pasids_are_not_the_units_translations() {
    for abi in BOTH {
        let mut stale = Stale::new(abi);
        let [n, _] = stale.pasids;
        for (cache, form) in [
            (2, by_pasid(n)),
            (4, by_pasid(n)),
            (4, Form::Domain),
            (2, Form::Address(pages(1, n, BUFFER, PAGE, 2))),
            // Requests without a PASID are others.
            (1, Form::Address(pages(0, 0, BUFFER, PAGE, 2))),
        ] {
            stale.client().invalidate(cache, form).unwrap();
            assert_eq!(stale.reached(), [true; 4]);
        }
        stale.client().invalidate(3, by_pasid(n)).unwrap();
        assert_eq!(stale.reached(), [false, false, true, true]);
    }
}

#[test]
fn r25_version_7_reads_no_more_than_the_data_says_it_has() {
    let (_host, _alice, _function, _attachment, client) = client(Abi::V7);
    let n = client.any();
    let form = pages(1, n, BUFFER, PAGE, 1);
    for said in 0..60_u32 {
        let head = [said.to_le_bytes(), [1, 2, 0, 0]].concat();
        let argument = headed(2, &[&head, form.as_bytes(), &[0; 40][..]].concat());
        let answer = client.ask(Request::NestingOp, &argument).map(drop);
        let expected = if said < 48 { Err(EINVAL) } else { Ok(()) };
        assert_eq!(answer, expected, "{said}");
    }
}
