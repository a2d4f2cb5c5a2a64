//! R78: bytes of no sense.

use proptest::prelude::*;

use super::*;

fn any_abi() -> impl Strategy<Value = Abi> {
    prop_oneof![Just(Abi::V1), Just(Abi::V7)]
}

/// Bytes that often look like a request: a plausible size and flags, and small numbers after them.
fn argument() -> impl Strategy<Value = Vec<u8>> {
    let small = prop_oneof![4 => 0_u8..4, 1 => any::<u8>()];
    let plausible = (
        prop_oneof![0_u32..120, any::<u32>()],
        prop_oneof![0_u32..4, any::<u32>()],
        proptest::collection::vec(small, 0..120),
    );
    prop_oneof![
        3 => plausible.prop_map(|(argsz, flags, rest)| {
            [&argsz.to_le_bytes(), &flags.to_le_bytes(), &rest[..]].concat()
        }),
        1 => proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

/// A good bind with a few of its bytes changed.
fn bent_bind(abi: Abi, data: BindData, bends: &[(usize, u8)]) -> (Request, Vec<u8>) {
    let (request, flags) = match abi {
        Abi::V1 => (Request::Bind, 1),
        Abi::V7 => (Request::NestingOp, 0),
    };
    let mut bytes = headed(flags, data.as_bytes());
    for (at, value) in bends {
        let at = at % bytes.len();
        bytes[at] = *value;
    }
    (request, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Nothing panics, and what a client may have out stays within its quota; at its end all is as before.
    #[test]
    fn r78_random_requests_are_done_or_refused(
        abi in any_abi(),
        requests in proptest::collection::vec((0..Request::ALL.len(), argument()), 1..60),
        bends in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
    ) {
        let (host_side, alice, _function, _attachment) = alone(Sharing::Mediated);
        let books = host_side.books();
        let client = Client::nesting(&vmm(&alice), abi);
        let n = client.any();
        let process = alice.process(&[(BUFFER, 0x1000)]);
        let (request, argument) = bent_bind(abi, named(n, 77, process), &bends);
        let _ = client.ask(request, &argument);
        for (index, argument) in requests {
            let _ = client.ask(Request::ALL[index], &argument);
        }
        prop_assert!(alice.container.set().outstanding() <= 1000);
        drop(client);
        prop_assert_eq!(host_side.books(), books);
    }

    /// The same with a descriptor beside each, of memory or of something else.
    #[test]
    fn r78_random_requests_with_descriptors_are_done_or_refused(
        abi in any_abi(),
        requests in proptest::collection::vec(
            (0..Request::ALL.len(), 0_u64..4, 0_u64..4, 0_u64..4, 0_u32..5, any::<bool>()),
            1..60,
        ),
    ) {
        let world = Alone::new();
        let books = world.host_side.books();
        let client = world.client(abi);
        client.any();
        let memory = world.alice.ram.backing().fd;
        for (index, offset, at, len, flags, is_memory) in requests {
            let request = map_request(flags, offset << 12, at << 12, len << 12);
            let fd = match is_memory {
                true => memory.try_clone().unwrap(),
                false => std::fs::File::open("/dev/null").unwrap().into(),
            };
            let _ = client.ask_with(Request::ALL[index], request.as_bytes(), fd);
            let unmap = UnmapDma {
                argsz: 24.into(),
                flags: flags.into(),
                iova: (at << 12).into(),
                size: (len << 12).into(),
            };
            let _ = client.ask(Request::ALL[index], unmap.as_bytes());
        }
        drop(client);
        prop_assert_eq!(world.host_side.books(), books);
    }

    /// What stands past argsz has no effect: the answer is the same whatever it is, and so is what is written.
    #[test]
    fn r25_bytes_past_argsz_make_no_difference(
        abi in any_abi(),
        index in 0..Request::ALL.len(),
        argument in argument(),
        rest in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let request = Request::ALL[index];
        // These take a number and have no argsz.
        let numbers = [Request::SetIommu, Request::CheckExtension, Request::IoasidFree];
        prop_assume!(!numbers.contains(&request));
        prop_assume!(argument.len() >= 4);
        let argsz = u32::from_le_bytes([argument[0], argument[1], argument[2], argument[3]]);
        let argsz = usize::try_from(argsz).unwrap();
        let mut other = argument.clone();
        other.truncate(argsz.max(4));
        // With all bytes that the size speaks of, so that it decides, and not what came.
        prop_assume!(other.len() == argsz.max(4));
        let other = [other, rest].concat();
        let answers = [argument, other].map(|argument| {
            let (host_side, _alice, _function, _attachment, client) = client(abi);
            let answer = client.ask(request, &argument);
            (answer.map(|answer| (answer.value, answer.written)), host_side.books())
        });
        if let Ok((_, written)) = &answers[0].0 {
            prop_assert!(written.len() <= argsz);
        }
        prop_assert_eq!(&answers[0], &answers[1]);
    }
}
