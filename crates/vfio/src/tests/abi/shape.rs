//! R25: sizes and flags.

use palisade_units::Field;

use super::*;

/// A request of each form with its argument as it should be, but that it is for nothing that exists.
fn samples(abi: Abi) -> Vec<(Request, Vec<u8>)> {
    let bind = headed(0, BindData::default().as_bytes());
    let pages = [[0; 8].as_slice(), InvalidateAddress::default().as_bytes()].concat();
    let pages = headed(2, &pages);
    let mut samples = vec![(Request::GetInfo, vec![16, 0, 0, 0, 0, 0, 0, 0])];
    match abi {
        Abi::V1 => samples.extend([
            (Request::PasidRequestV1, sized(&PasidAllocateV1::default())),
            (Request::Bind, bind),
            (Request::CacheInvalidate, pages),
        ]),
        Abi::V7 => samples.extend([
            (Request::PasidRequestV7, sized(&PasidRequestV7::default())),
            (Request::NestingOp, bind),
            (Request::NestingOp, pages),
        ]),
    }
    samples
}

#[test]
fn r25_an_argument_without_its_head_is_efault_and_one_that_says_so_of_itself_is_einval() {
    for abi in BOTH {
        let (_host, _alice, _function, _attachment, client) = client(abi);
        for (request, _) in samples(abi) {
            for len in 0..4 {
                assert_eq!(client.ask(request, &vec![0; len]).unwrap_err(), EFAULT);
            }
            for argsz in 0..8_u32 {
                let argument = [argsz.to_le_bytes(), [0; 4]].concat();
                let refused = client.ask(request, &argument).unwrap_err();
                assert_eq!(refused, EINVAL, "{request:?} of {argsz}");
            }
        }
    }
}

#[test]
fn r25_r26_a_short_argsz_is_einval_and_a_longer_one_is_accepted() {
    for abi in BOTH {
        let (_host, alice, _function, _attachment, client) = client(abi);
        let (request, good) = match abi {
            Abi::V1 => {
                let request = PasidAllocateV1 {
                    argsz: 20.into(),
                    flags: 1.into(),
                    max: 99.into(),
                    ..PasidAllocateV1::default()
                };
                (Request::PasidRequestV1, request.as_bytes().to_vec())
            }
            Abi::V7 => {
                let request = request_v7(1, 0, 99);
                (Request::PasidRequestV7, request.as_bytes().to_vec())
            }
        };
        let before = alice.container.set().outstanding();
        for argsz in 0..u32::try_from(good.len()).unwrap() {
            let short = [&argsz.to_le_bytes(), &good[4..]].concat();
            assert_eq!(client.ask(request, &short).unwrap_err(), EINVAL, "{argsz}");
        }
        // The bytes are not there, whatever the size says.
        for len in 8..good.len() {
            assert_eq!(client.ask(request, &good[..len]).unwrap_err(), EFAULT);
        }
        assert_eq!(alice.container.set().outstanding(), before);
        for argsz in [good.len() + 1, 4096, 0xffff_ffff] {
            let argsz = u32::try_from(argsz).unwrap().to_le_bytes();
            let longer = [&argsz, &good[4..], &[0xee; 100]].concat();
            client.ask(request, &longer).unwrap();
        }
        assert_eq!(alice.container.set().outstanding(), before + 3);
    }
}

#[test]
fn r25_unknown_flags_both_flags_and_none_are_einval() {
    for abi in BOTH {
        let (host_side, alice, _function, _attachment, client) = client(abi);
        let process = alice.process(&[]);
        let books = host_side.books();
        let pasid = match abi {
            Abi::V1 => Request::PasidRequestV1,
            Abi::V7 => Request::PasidRequestV7,
        };
        for flags in [0, 3, 4, 5, 1 << 31, u32::MAX] {
            let argument = headed(flags, &[1; 12]);
            assert_eq!(client.ask(pasid, &argument).unwrap_err(), EINVAL);
        }
        let bind = data(5, process);
        let (request, wrong) = match abi {
            Abi::V1 => (Request::Bind, [0, 3, 4, 5, u32::MAX]),
            Abi::V7 => (Request::NestingOp, [3, 4, 0xffff, 1 << 16, u32::MAX]),
        };
        for flags in wrong {
            let argument = headed(flags, bind.as_bytes());
            assert_eq!(client.ask(request, &argument).unwrap_err(), EINVAL);
        }
        if abi == Abi::V1 {
            let argument = headed(1, &[1, 0, 0, 0, 1, 0, 0, 0]);
            let refused = client.ask(Request::CacheInvalidate, &argument);
            assert_eq!(refused.unwrap_err(), EINVAL);
        }
        assert_eq!(host_side.books(), books);
    }
}

#[test]
fn r24_a_client_speaks_one_of_the_two_and_unknown_numbers_are_enotty() {
    for abi in BOTH {
        let (_host, _alice, _function, _attachment, client) = client(abi);
        for request in Request::ALL {
            let answer = client.ask(*request, &[]);
            let of_other = request.only_in().is_some_and(|only| only != abi);
            assert_eq!(answer.is_err_and(|errno| errno == ENOTTY), of_other);
        }
        for number in [0, 18, 0x3b63, 0x3b67, 0x3b7d, 0x3bff, 0x3c65, u32::MAX] {
            assert_eq!(client.number(number).unwrap_err(), ENOTTY);
        }
        assert_eq!(client.ask(Request::GetApiVersion, &[]).unwrap().value, 0);
    }
}

#[test]
fn r23_r24_layouts_are_gapless_up_to_their_ends() {
    fn gapless(fields: &[Field], bytes: u32) {
        let mut end = 0;
        for field in fields {
            assert_eq!(field.at, end, "{}", field.name);
            end += field.len_bytes;
        }
        assert_eq!(end, bytes as usize);
    }
    gapless(Head::FIELDS, 8);
    gapless(PasidAllocateV1::FIELDS, 20);
    gapless(PasidFreeV1::FIELDS, 12);
    gapless(PasidRequestV7::FIELDS, 16);
    gapless(BindData::FIELDS, 72);
    gapless(InvalidateData::FIELDS, 8);
    gapless(InvalidatePasid::FIELDS, 16);
    gapless(InvalidateAddress::FIELDS, 40);
    gapless(Info::FIELDS, 24);
    gapless(NestingCapabilityV1::FIELDS, 16);
    gapless(NestingCapabilityV7::FIELDS, 56);
    gapless(MapDma::FIELDS, 32);
    gapless(UnmapDma::FIELDS, 24);
    gapless(FunctionList::FIELDS, 12);
    gapless(FunctionEntry::FIELDS, 8);
    gapless(FunctionPlace::FIELDS, 12);
    gapless(FaultRing::FIELDS, 16);
    gapless(RingHead::FIELDS, 24);
    gapless(FaultEntry::FIELDS, 64);
    gapless(PageRequestEntry::FIELDS, 64);
    gapless(PageResponse::FIELDS, 32);
    gapless(IoasidInfo::FIELDS, 12);
    gapless(IoasidAllocate::FIELDS, 16);
}
