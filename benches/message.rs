//! Cost of writing one message: what the generator adds to every message besides the protocol.

mod common;

use std::hint::black_box;

use common::Benches;
use timecop::audit::scan::{Found, Scan};
use timecop::audit::sequences::Sequences;
use timecop::audit::stamp::{Key, Signer};
use timecop::message::{
    DateCache, Entry, GeneratedSpec, GivenSpec, Mailbox, RecipientOrder, RecipientVariables, Recipients, ReversePath,
    Sizes, Template,
};
use timecop::outgoing::Outgoing;
use timecop::time::WallTime;

fn recipients(count: usize, per_message: u32) -> Recipients {
    let mailbox = |i| Mailbox::parse(&format!("load{i}@example.com")).expect("the address is valid");
    Recipients::new((0..count).map(mailbox).collect(), per_message).expect("the recipients are valid")
}

fn generated(bytes: u64, recipients: Recipients) -> Template {
    let from = ReversePath::parse("sender@example.com").expect("the address is valid");
    let spec = GeneratedSpec {
        sizes: Sizes::exactly(bytes),
        subject: None,
        from,
        recipients,
        seed: 1,
        run_id: 2,
        host: "localhost".into(),
    };
    Template::generated(spec).expect("the spec is valid")
}

fn pattern() -> Recipients {
    let entry = Entry::parse("user{1..999999999999}@example.com").expect("the pattern is valid");
    Recipients::of_entries(vec![entry], 3, RecipientOrder::Random, 1).expect("the recipients are valid")
}

fn expanded(file: &[u8]) -> Template {
    let variables = RecipientVariables::parse(br#"{"load0@example.com":{"first":"Bob","id":7}}"#);
    let messages = [[file, b"Hi %recipient.first%, %recipient.id%\r\n%recipient%\r\n"].concat().into()];
    let spec = GivenSpec {
        messages: &messages,
        verbatim: false,
        variables: Some(&variables.expect("the variables are valid")),
        expand: true,
        beside: false,
        recipients: &recipients(1, 1),
        run_id: 2,
        host: "localhost",
    };
    Template::of_messages(&spec).expect("the message is valid").0
}

fn signer() -> Signer {
    Signer::new(&Key::new([7; 32]))
}

fn stamped(template: Template) -> Template {
    template.stamped(2, signer()).expect("there is room for a stamp")
}

/// What an audit costs a sink: the stamp found and verified, the body hashed, the number put down.
fn audit(benches: &mut Benches) {
    let (signer, arrived) = (signer(), Sequences::new());
    for (name, bytes) in [("1 kB", 1_024), ("100 kB", 100_000)] {
        let (mut dates, mut out) = (DateCache::new(), Outgoing::new());
        stamped(generated(bytes, recipients(1, 1))).write(1, WallTime::default(), &mut dates, &mut out);
        let (message, mut scan) = (out.to_vec(), Scan::new());
        benches.run("audited arrival", name, || {
            scan.clear();
            message.chunks(2_048).for_each(|piece| scan.update(black_box(piece)));
            let Found::Stamped { stamp, altered: false } = scan.finish(&signer) else { panic!("it is whole") };
            arrived.insert(stamp.sequence)
        });
    }
}

fn write(benches: &mut Benches) {
    let file = [&b"From: <a@example.com>\r\nSubject: x\r\n\r\n"[..], &b"given words\r\n".repeat(70)].concat();
    let templates = [
        ("generated 1 kB", generated(1_024, recipients(1, 1))),
        ("generated 1 kB, 3 of 1,000 recipients", generated(1_024, recipients(1_000, 3))),
        ("generated 1 kB, stamped", stamped(generated(1_024, recipients(1, 1)))),
        ("generated 8 kB, copied", generated(8_192, recipients(1, 1))),
        ("generated 1 MB, shared", generated(1_000_000, recipients(1, 1))),
        ("generated 1 kB, 3 of 10^12 recipients", generated(1_024, pattern())),
        ("given 1 kB, 3 variables replaced", expanded(&file)),
        ("given 1 kB", Template::given(&file, 2, "localhost").expect("the file is valid").0),
    ];
    let wall = WallTime::from_unix_ns(1_700_000_000_000_000_000);
    let (mut dates, mut out) = (DateCache::new(), Outgoing::new());
    for (name, template) in &templates {
        let mut sequence = 0;
        benches.run("message write", name, || {
            out.clear();
            sequence += 1;
            template.write(black_box(sequence), wall, &mut dates, &mut out);
            black_box(&out);
        });
    }
}

fn main() {
    common::main(&[write, audit]);
}
