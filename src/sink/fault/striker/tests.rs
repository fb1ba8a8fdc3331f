//! When rules strike, and how often.

use super::*;

fn faults(rules: &[&str]) -> Faults {
    Faults::new(rules.iter().map(|rule| rule.parse().unwrap()), FaultCounters::default()).unwrap()
}

fn striker(faults: &Faults) -> Box<Striker> {
    Striker::new(faults, Instant::ZERO, 1).unwrap()
}

fn at_ms(ms: u64) -> Instant {
    Instant::from_ns(ms * 1_000_000)
}

fn mail(from: &str) -> Question<'_> {
    Question::Mail { reverse_path: from.as_bytes(), size: None }
}

fn rcpt(to: &str) -> Question<'_> {
    Question::Rcpt { forward_path: to.as_bytes() }
}

const DATA: Question<'static> = Question::Data { recipients: 1 };

fn code(struck: &Struck) -> Option<u16> {
    struck.refusal.as_ref().map(|refusal| refusal.code_and_text().0)
}

#[test]
fn faults_strike_as_often_as_was_asked_for_and_are_counted() {
    let counters = FaultCounters::default();
    let rules = ["mail=delay:exp:10ms", "rcpt=451,20%", "rcpt=550,50%", "data=drop,5%"];
    let faults = Faults::new(rules.map(|rule| rule.parse().unwrap()), counters.clone()).unwrap();
    let mut striker = striker(&faults);
    let (mut hold, mut first, mut second, mut drops) = (Duration::ZERO, 0, 0, 0);
    for _ in 0..10_000 {
        hold += striker.ask(at_ms(0), &mail("a@x"), false).hold;
        match code(&striker.ask(at_ms(0), &rcpt("b@x"), false)) {
            Some(451) => first += 1,
            Some(_) => second += 1,
            None => {}
        }
        drops += u64::from(striker.ask(at_ms(0), &DATA, false).drop);
        assert_eq!(striker.ask(at_ms(0), &Question::Quit, false), Struck::default());
    }
    assert!((97..103).contains(&hold.as_secs()), "{hold:?}");
    assert!((1_850..2_150).contains(&first), "{first}");
    // Half of those that the first reply left.
    assert!((3_850..4_150).contains(&second), "{second}");
    assert!((430..570).contains(&drops), "{drops}");
    let counts: Vec<_> = counters.counts().iter().map(|c| (c.phase, c.action, c.count)).collect();
    let expected = [("mail", "delay", 10_000), ("rcpt", "reply", first + second), ("data", "drop", drops)];
    assert_eq!(counts, expected);
    let struck: Vec<u64> = faults.rules().map(|(_, struck)| struck).collect();
    assert_eq!(struck, [10_000, first, second, drops]);
}

#[test]
fn delays_add_up_and_of_the_others_the_first_one_holds() {
    let mut striker = striker(&faults(&["mail=delay:1s", "mail=reset", "mail=550", "mail=delay:2s", "mail=drop"]));
    let struck = striker.ask(at_ms(0), &mail("a@x"), false);
    let expected = Struck { reset: true, hold: Duration::from_secs(3), ..Struck::default() };
    assert_eq!(struck, expected);
}

#[test]
fn a_pattern_strikes_recipients_and_the_messages_that_one_of_them_gets() {
    let mut striker = striker(&faults(&["rcpt:no@*=550", "data:slow@*=delay:1s", "final:slow@*=452"]));
    for number in [1, 2] {
        striker.enter(number, None);
    }
    let final_ = Question::Message { bytes: 1, recipients: 1, content: b"" };
    let mut send = |number: usize, recipients: &[&str]| {
        striker.attend(number);
        striker.ask(at_ms(0), &mail("a@x"), false);
        let mut codes = Vec::new();
        for to in recipients {
            let struck = striker.ask(at_ms(0), &rcpt(to), false);
            codes.push(code(&struck));
            if struck == Struck::default() {
                striker.accepted(to.as_bytes());
            }
        }
        let hold = striker.ask(at_ms(0), &DATA, false).hold.as_secs();
        (codes, hold, code(&striker.ask(at_ms(0), &final_, false)))
    };
    assert_eq!(send(1, &["no@x", "slow@x", "b@x"]), (vec![Some(550), None, None], 1, Some(452)));
    assert_eq!(send(2, &["b@x"]), (vec![None], 0, None), "another connection");
    assert_eq!(send(1, &["b@x"]), (vec![None], 0, None), "another message");
}

#[test]
fn only_what_comes_above_a_rate_is_struck_over_all_shards() {
    let faults = faults(&["mail=421,above:2/s"]);
    let mut shards = [striker(&faults), striker(&faults)];
    let mut ask = |shard: usize, ms: u64| code(&shards[shard].ask(at_ms(ms), &mail("a@x"), false));
    assert_eq!([ask(0, 0), ask(1, 0), ask(0, 0), ask(1, 100)], [None, None, Some(421), Some(421)]);
    assert_eq!([ask(1, 1_000), ask(0, 1_000), ask(1, 1_000)], [None, None, Some(421)]);
}

#[test]
fn connections_are_capped_over_all_shards_and_for_each_address() {
    let faults = faults(&["banner=421,connections:1/address", "connect=drop,connections:3"]);
    let mut shards = [striker(&faults), striker(&faults)];
    let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse::<IpAddr>().unwrap());
    let mut enter = |shard: usize, number: usize, address: Option<IpAddr>| {
        let striker = &mut shards[shard];
        striker.enter(number, address);
        striker.attend(number);
        let dropped = striker.strike(at_ms(0), FaultPhase::Connect, None).drop;
        (dropped, code(&striker.ask(at_ms(0), &Question::Connect, false)))
    };
    assert_eq!(enter(0, 0, Some(one)), (false, None));
    assert_eq!(enter(1, 0, "::ffff:192.0.2.1".parse().ok()), (false, Some(421)), "the same address");
    assert_eq!(enter(1, 1, Some(other)), (false, None));
    assert_eq!(enter(0, 1, None), (true, None), "the fourth of all");
    shards[1].leave(0);
    shards[1].leave(0);
    shards[0].leave(0);
    let table = faults.0.as_ref().unwrap();
    assert_eq!((table.open.all.load(Relaxed), lock(&table.open.of_address).len()), (2, 1));
}

#[test]
fn a_greylist_knows_sender_recipient_and_client_on_every_shard() {
    let faults = faults(&["rcpt=450,greylist:1m"]);
    let mut shards = [striker(&faults), striker(&faults)];
    let mut ask = |shard: usize, client: &str, from: &str, ms: u64| {
        let striker = &mut shards[shard];
        striker.enter(0, client.parse().ok());
        striker.attend(0);
        striker.ask(at_ms(ms), &mail(from), false);
        let code = code(&striker.ask(at_ms(ms), &rcpt("b@y"), false));
        striker.leave(0);
        code
    };
    assert_eq!(ask(0, "192.0.2.1", "a@x", 0), Some(450));
    assert_eq!(ask(1, "192.0.2.1", "a@x", 59_999), Some(450), "too early, on another shard");
    assert_eq!(ask(1, "192.0.2.1", "a@x", 60_000), None);
    assert_eq!(ask(0, "192.0.2.1", "a@x", 60_000), None);
    assert_eq!(ask(0, "192.0.2.2", "a@x", 60_000), Some(450), "another client");
    assert_eq!(ask(0, "192.0.2.1", "c@x", 60_000), Some(450), "another sender");
}

#[test]
fn other_rules_take_over_at_the_next_question_and_know_the_connections_that_there_are() {
    let mut striker = striker(&faults(&["mail=451"]));
    for number in 0..3 {
        striker.enter(number, "192.0.2.1".parse().ok());
    }
    striker.leave(1);
    assert_eq!(code(&striker.ask(at_ms(0), &mail("a@x"), false)), Some(451));
    let new = faults(&["mail=550,connections:1/address", "rcpt=slow:5/s"]);
    striker.replace(&new);
    assert_eq!(code(&striker.ask(at_ms(0), &mail("a@x"), false)), Some(550));
    striker.leave(2);
    assert_eq!(code(&striker.ask(at_ms(0), &mail("a@x"), false)), None);
    assert_eq!(striker.take_slow(), None);
    striker.ask(at_ms(0), &rcpt("b@y"), false);
    assert_eq!([striker.take_slow(), striker.take_slow()], [Some(5), None], "said once");
}

#[test]
fn rules_are_few_and_none_need_no_striker() {
    let rules = |count| vec!["mail=451".parse::<Rule>().unwrap(); count];
    assert!(Faults::new(rules(RULES_MAX), FaultCounters::default()).is_some());
    assert!(Faults::new(rules(RULES_MAX + 1), FaultCounters::default()).is_none());
    let none = Faults::new([], FaultCounters::default()).unwrap();
    assert!(none.is_empty() && Striker::new(&none, Instant::ZERO, 1).is_none());
    let all = faults(&["ehlo=without:SIZE", "ehlo=without:AUTH"]);
    assert_eq!(all.withheld().iter().map(|c| c.name()).collect::<Vec<_>>(), ["SIZE", "AUTH"]);
    assert!(!all.want_addresses() && faults(&["rcpt=450,greylist:1s"]).want_addresses());
}
