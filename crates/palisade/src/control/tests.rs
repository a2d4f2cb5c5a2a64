use std::os::fd::AsFd;

use proptest::prelude::*;

use super::*;
use crate::config::FunctionKind;

struct Few;

impl Books for Few {
    fn ledger(&self) -> Ledger {
        Ledger {
            outstanding: 3,
            tenants: Vec::new(),
        }
    }

    fn events(&self, since: u64) -> EventPage {
        EventPage {
            events: Vec::new(),
            dropped: 0,
            next: since,
        }
    }

    fn groups(&self) -> Groups {
        Groups {
            current: 3,
            left: 4,
            tenants: Vec::new(),
            groups: Vec::new(),
        }
    }

    fn reserved(&self) -> Reserved {
        Reserved { ranges: Vec::new() }
    }

    fn mdevs(&self) -> Mdevs {
        Mdevs { mdevs: Vec::new() }
    }

    fn change(&self, change: Change) -> Result<Changed, Refusal> {
        match change {
            Change::Quota { .. } => Ok(Changed {
                change,
                kept: Kept::OverRestarts,
            }),
            _ => Err(Refusal::new(Errno::NOSPC, "no")),
        }
    }
}

fn ask(question: &str) -> String {
    ask_bytes(question.as_bytes())
}

fn ask_bytes(question: &[u8]) -> String {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(question).unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    let (stop, _rung_by) = UnixStream::pair().unwrap();
    answer(&ours, stop.as_fd(), &Few).unwrap();
    drop(ours);
    let mut text = String::new();
    // What was too long is not read to its end, and the answer comes before that error.
    let _ = theirs.read_to_string(&mut text);
    text
}

#[test]
fn a_question_is_a_line_and_its_answer_one_document() {
    assert_eq!(ask("\"ledger\"\n"), r#"{"outstanding":3,"tenants":[]}"#);
    assert_eq!(
        ask("{\"events\":{\"since\":7}}\n"),
        r#"{"events":[],"dropped":0,"next":7}"#
    );
    assert_eq!(
        ask("\"groups\"\n"),
        r#"{"current":3,"left":4,"tenants":[],"groups":[]}"#
    );
    assert_eq!(ask("\"reserved\"\n"), r#"{"ranges":[]}"#);
    assert_eq!(ask("\"mdevs\"\n"), r#"{"mdevs":[]}"#);
    let quota = r#"{"quota":{"tenant":"alice","quota":{"number":7}}}"#;
    assert_eq!(
        ask(&format!("{{\"change\":{quota}}}\n")),
        format!(r#"{{"change":{quota},"kept":"over-restarts"}}"#)
    );
}

#[test]
fn a_refusal_has_the_name_of_its_error() {
    assert_eq!(
        ask("{\"change\":{\"reserve\":{\"min\":1,\"max\":2}}}\n"),
        r#"{"error":"no","errno":"ENOSPC"}"#
    );
}

#[test]
fn anything_else_is_refused_in_words() {
    for question in [
        "",
        "\n",
        "ledger\n",
        "\"ledgers\"\n",
        "{\"events\":{\"since\":-1}}\n",
        "{\"events\":{\"since\":1,\"until\":2}}\n",
        "{\"change\":{\"quota\":{\"tenant\":\"alice\"}}}\n",
        &"[".repeat(5000),
        &format!("\"{}\"\n", "x".repeat(3000)),
        "\u{0}\u{1}\n",
    ] {
        let answer = ask(question);
        assert!(answer.contains("this is no question"), "{answer}");
        assert!(answer.contains("EINVAL"), "{answer}");
    }
}

#[test]
fn only_the_owner_and_root_may_ask() {
    let user = Uid::from_raw;
    assert!(may_ask(user(1000), user(1000)));
    assert!(may_ask(Uid::ROOT, user(1000)));
    assert!(!may_ask(user(1001), user(1000)));
    assert!(!may_ask(user(1000), Uid::ROOT));
}

fn question() -> impl Strategy<Value = Question> {
    let name = "[ -~]{0,80}";
    let quota = prop_oneof![
        any::<u32>().prop_map(NewQuota::Number),
        Just(NewQuota::Configured)
    ];
    let limit = prop_oneof![
        any::<u32>().prop_map(NewLimit::Max),
        Just(NewLimit::Unlimited),
        Just(NewLimit::Configured)
    ];
    let kind = prop::sample::select(&FunctionKind::ALL);
    let path = prop::option::of("[ -~]{0,107}");
    let change = prop_oneof![
        (name, quota).prop_map(|(tenant, quota)| Change::Quota { tenant, quota }),
        (name, limit.clone(), prop::option::of(name))
            .prop_map(|(name, max, parent)| Change::CreateGroup { name, max, parent }),
        (name, limit).prop_map(|(name, max)| Change::LimitGroup { name, max }),
        name.prop_map(|name| Change::RemoveGroup { name }),
        any::<(u32, u32)>().prop_map(|(min, max)| Change::Reserve { min, max }),
        any::<(u32, u32)>().prop_map(|(min, max)| Change::Unreserve { min, max }),
        (name, kind, name, path).prop_map(|(parent, kind, tenant, path)| Change::CreateMdev {
            parent,
            kind,
            tenant,
            uuid: Some("f81d4fae-7dec-11d0-a765-00a0c91e6bf6".to_owned()),
            socket: path,
            guest_bdf: Some("00:1e.7".to_owned()),
        }),
        name.prop_map(|uuid| Change::RemoveMdev { uuid }),
    ];
    prop_oneof![
        Just(Question::Ledger),
        any::<u64>().prop_map(|since| Question::Events { since }),
        Just(Question::Groups),
        Just(Question::Reserved),
        Just(Question::Mdevs),
        change.prop_map(Question::Change),
    ]
}

proptest! {
    /// The longest names fit, and so does what JSON makes of their worst bytes.
    #[test]
    fn every_question_is_one_short_line_and_is_understood(question in question()) {
        let line = serde_json::to_string(&question).unwrap();
        prop_assert!(!line.contains('\n'));
        let refused = ask(&format!("{line}\n")).contains("this is no question");
        prop_assert!(!refused, "{}", line);
    }

    #[test]
    fn r78_no_bytes_stop_it_from_answering(bytes in prop::collection::vec(any::<u8>(), 0..2000), cut in 0_usize..60) {
        let whole = br#"{"change":{"create-group":{"name":"a","max":{"max":3},"parent":"b"}}}"#;
        let bytes = [&whole[..cut], &bytes].concat();
        let answer: serde_json::Value = serde_json::from_str(&ask_bytes(&bytes)).unwrap();
        prop_assert_eq!(&answer["errno"], "EINVAL");
    }
}
