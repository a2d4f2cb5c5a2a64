//! R30, R31, R34: what a client is told.

use super::*;

fn info(client: &Client, argsz: u32) -> Vec<u8> {
    let mut argument = vec![0xee; 256];
    argument[..4].copy_from_slice(&argsz.to_le_bytes());
    client.ask(Request::GetInfo, &argument).unwrap().written
}

fn head(bytes: &[u8]) -> Info {
    Info::read_from_bytes(&bytes[..24]).unwrap()
}

#[test]
fn r30_the_chain_is_there_exactly_with_nesting() {
    for abi in BOTH {
        let (_host, alice, _function, _attachment, nesting) = client(abi);
        let plain = Client::plain(&vmm(&alice), abi);
        let flat = info(&plain, 256);
        assert_eq!((flat.len(), head(&flat).flags.get()), (24, 1));
        assert_eq!(head(&flat).cap_offset.get(), 0);
        assert_eq!(head(&flat).iova_pgsizes.get(), !0xfff);
        plain.ask(Request::SetIommu, &1_u32.to_le_bytes()).unwrap();
        assert_eq!(info(&plain, 256), flat);
        let full = info(&nesting, 256);
        assert_eq!(head(&full).flags.get(), 3);
        assert_eq!(head(&full).cap_offset.get(), 24);
    }
}

#[test]
fn r30_version_1_has_capability_2_and_version_7_capability_3() {
    let (_host, _alice, _function, _attachment, one) = client(Abi::V1);
    let full = info(&one, 256);
    // id 2, version 1; no next; PASID requests; VT-d.
    assert_eq!(full[24..], [2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    let (_host, _alice, _function, _attachment, seven) = client(Abi::V7);
    let full = info(&seven, 256);
    let capability = NestingCapabilityV7::read_from_bytes(&full[24..]).unwrap();
    let expected = NestingCapabilityV7 {
        id: 3.into(),
        version: 1.into(),
        size: 48.into(),
        format: 1.into(),
        features: 7.into(),
        addr_width: 57.into(),
        pasid_bits: 20.into(),
        vtd_cap: UNIT.cap.into(),
        vtd_ecap: UNIT.ecap.into(),
        ..NestingCapabilityV7::default()
    };
    assert_eq!(capability, expected);
}

#[test]
fn r25_r30_a_client_without_room_is_told_how_much_it_takes() {
    for (abi, whole) in [(Abi::V1, 40), (Abi::V7, 80)] {
        let (_host, _alice, _function, _attachment, client) = client(abi);
        for argsz in 16..whole {
            let short = info(&client, argsz);
            assert!(short.len() <= argsz as usize, "{argsz}");
            assert_eq!(short[..4], whole.to_le_bytes());
            assert_eq!(short[4], 3);
            if argsz >= 20 {
                assert_eq!(short[16..20], [0; 4]);
            }
        }
        for argsz in [whole, whole + 1, u32::MAX] {
            let full = info(&client, argsz);
            assert_eq!(full.len(), whole as usize);
            assert_eq!(full[..4], argsz.to_le_bytes());
        }
    }
}

#[test]
fn r30_mixed_formats_clear_the_features_and_get_info_goes_on() {
    let other = Unit {
        format: StageFormat::Other(2),
        ..UNIT
    };
    for units in [&[UNIT, other][..], &[other, other], &[]] {
        for abi in BOTH {
            let (_host, alice, _function, _attachment) = alone(Sharing::Mediated);
            let vmm = Vmm::new(alice.container.clone(), units);
            let client = Client::nesting(&vmm, abi);
            let full = info(&client, 256);
            assert_eq!(head(&full).flags.get(), 3);
            match abi {
                Abi::V1 => assert_eq!(full[32..40], [0; 8]),
                Abi::V7 => assert_eq!(full[36..80], [0; 44]),
            }
            assert_eq!(client.alloc(1, 9), Err(EOPNOTSUPP));
        }
    }
}

#[test]
fn r31_what_is_told_is_what_all_units_have() {
    let narrow = Unit {
        format: StageFormat::VtD,
        address_bits: 48,
        pasid_bits: 16,
        // MGAW 38 and ND 1, without a bit that the other has, with one that it has not.
        cap: UNIT.cap & !(0x3f << 16 | 7 | 1 << 54) | 38 << 16 | 1 | 1 << 59,
        // PSS 15, without a bit that the other has.
        ecap: UNIT.ecap & !(0x1f << 35 | 1 << 26) | 15 << 35,
    };
    for units in [[UNIT, narrow], [narrow, UNIT]] {
        let nested = nested_of(&units);
        assert_eq!((nested.address_bits, nested.pasid_bits), (48, 16));
        assert_eq!(nested.cap, narrow.cap & !(1 << 59));
        assert_eq!(nested.ecap, narrow.ecap);
    }
    // Numbers are not bits: of 5 and 6 the lower one, not 4.
    let [five, six] = [5, 6].map(|number| Unit {
        cap: number << 48,
        ecap: number << 35,
        ..UNIT
    });
    let nested = nested_of(&[six, five]);
    assert_eq!((nested.cap >> 48, nested.ecap >> 35), (5, 5));
    assert_eq!(nested_of(&[UNIT]).ecap, UNIT.ecap);
}

#[test]
fn r34_version_1_finds_the_bind_data_by_extension_9() {
    let check = |abi, extension: u32| {
        let (_host, _alice, _function, _attachment, client) = client(abi);
        let answer = client.ask(Request::CheckExtension, &extension.to_le_bytes());
        answer.unwrap().value
    };
    assert_eq!(check(Abi::V1, 9), 1);
    assert_eq!(check(Abi::V7, 9), 0);
    for abi in BOTH {
        for (extension, expected) in [
            (1, 1),
            (3, 1),
            (6, 1),
            (0, 0),
            (2, 0),
            (10, 0),
            (u32::MAX, 0),
        ] {
            assert_eq!(check(abi, extension), expected, "{extension}");
        }
    }
}

#[test]
fn nesting_is_chosen_once_and_by_a_number_that_is_known() {
    let (_host, alice, _function, _attachment) = alone(Sharing::Mediated);
    let client = Client::plain(&vmm(&alice), Abi::V7);
    let choose = |number: u32| client.ask(Request::SetIommu, &number.to_le_bytes());
    for number in [0, 2, 7, 9, u32::MAX] {
        assert_eq!(choose(number).unwrap_err(), EINVAL);
    }
    assert_eq!(client.ask(Request::SetIommu, &[6, 0]).unwrap_err(), EFAULT);
    assert_eq!(choose(6).unwrap().value, 0);
    assert_eq!(choose(6).unwrap_err(), EINVAL);
    assert_eq!(choose(3).unwrap_err(), EINVAL);
    client.any();
}
