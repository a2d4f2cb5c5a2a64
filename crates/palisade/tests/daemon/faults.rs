//! What the operator reads of faults.

use palisade_driver::{Copy, FunctionAddress, SweepMode, SweepPlan, Tenant};
use palisade_units::{Bdf, Iova};
use serde_json::Value;

use crate::host::{Daemon, FIRST, TenantProcess, copy_of_a_page, palisade};

const MIB: u64 = 1 << 20;
/// Where bob's guest sees the function that he has to himself.
const OWN: Bdf = Bdf::new(0, 0x12, 0);

/// The faults in what `palisade ctl events --json` prints.
fn faults(daemon: &Daemon) -> Vec<Value> {
    let said = palisade()
        .args(["ctl", "events", "--json", "--socket"])
        .arg(daemon.socket("control"))
        .output()
        .unwrap();
    let page: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(page["dropped"], 0);
    let events = page["events"].as_array().unwrap().iter();
    let faults = events.filter(|event| event["what"] == "faulted");
    faults.cloned().collect()
}

#[test]
fn r16_r77_r79_the_operator_reads_which_wrong_pasids_an_exclusive_owner_programmed() {
    let daemon = Daemon::start();
    let alice = TenantProcess::start(&daemon, "alice", 8 * MIB);
    let hers = alice.wait_for("copied")["host_pasids"][0].as_u64().unwrap();
    assert!(hers < 16);
    let functions = [FunctionAddress {
        bdf: OWN,
        socket: daemon.socket("bob-1"),
    }];
    let mut bob = Tenant::connect(&daemon.socket("bob-unit"), &functions, 64 * MIB).unwrap();
    let own = bob.start_process().unwrap().get();
    let plan = SweepPlan {
        mode: SweepMode::Exclusive,
        pasids: 0..16,
        targets: vec![Iova::new(0x5000_0000_0000)],
        secret: vec![7; 64],
    };
    let outcome = bob.sweep(OWN, &plan, &mut |_| {}).unwrap();
    assert_eq!((outcome.tried, outcome.own), (16, 1));
    let faults = faults(&daemon);
    let read: Vec<_> = faults
        .iter()
        .map(|fault| (fault["pasid"].clone(), fault["detail"].clone()))
        .collect();
    // His own leads to his tables, where the page is missing; nothing is bound to the others.
    let expected: Vec<_> = (0..16)
        .map(|pasid| (pasid, if pasid == own { "71h" } else { "59h" }))
        .map(|(pasid, code)| (Value::from(pasid), Value::from(code)))
        .collect();
    assert_eq!(read, expected);
    // Also where the number is alice's, or nobody's.
    for fault in &faults {
        assert_eq!(
            (&fault["tenant"], &fault["function"]),
            (&"bob".into(), &"6f:01.0".into())
        );
    }
    alice.finish();
}

#[test]
fn r77_r79_the_operator_reads_whose_walk_faulted_on_a_shared_parent() {
    let daemon = Daemon::start();
    let mut alice = daemon.connect("alice", 64 * MIB).unwrap();
    // Not canonical. A page that is merely missing is no fault of a function that may ask for it.
    let copy = Copy {
        from: Iova::new(1 << 60),
        ..copy_of_a_page(alice.start_process().unwrap())
    };
    alice.plant(copy.process, copy.to, &[0; 4096]).unwrap();
    alice.copy(FIRST, copy).unwrap();
    let faults = faults(&daemon);
    let [fault] = &faults[..] else {
        panic!("one fault, not {faults:?}");
    };
    // The host's PASID; her guest's allocator gave it to her under the same number.
    let read = ["tenant", "pasid", "function", "detail"].map(|key| fault[key].clone());
    let expected: [Value; 4] = [
        "alice".into(),
        copy.process.get().into(),
        "6a:01.0".into(),
        "80h".into(),
    ];
    assert_eq!(read, expected);
}
