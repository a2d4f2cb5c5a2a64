use super::*;

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
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(question.as_bytes()).unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    answer(&ours, &Few).unwrap();
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
