//! Every way that a probe can go, one by one. The simulation goes them all at once.

use super::*;

const S: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Instant {
    Instant::from_ns(seconds * 1_000_000_000)
}

fn wall(seconds: u64) -> WallTime {
    WallTime::from_unix_ns((1_000_000 + seconds) * 1_000_000_000)
}

fn new(id: u64) -> NewProbe {
    NewProbe { id, nonce: id + 7, route: "r".to_owned(), timeout: 60 * S, threshold: 10 * S }
}

/// A table with one probe that was sent at second 100.
fn started() -> (Table, Token) {
    let mut table = Table::default();
    let token = table.start(new(1), at(100), wall(100)).unwrap();
    (table, token)
}

fn outcome(arrival: Arrival) -> (Outcome, bool, Option<Duration>) {
    match arrival {
        Arrival::Ended(ended) => (ended.outcome, ended.was_lost, ended.round_trip),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_arrival_is_in_time_or_late_by_the_threshold() {
    for (second, expected) in [(103, Outcome::Ok), (110, Outcome::Ok), (111, Outcome::Late)] {
        let (mut table, token) = started();
        let arrival = table.arrived(&token, at(second), wall(second), Vec::new());
        assert_eq!(outcome(arrival), (expected, false, Some(S * (second as u32 - 100))));
        assert_eq!(table.arrived(&token, at(112), wall(112), Vec::new()), Arrival::Duplicate);
        assert_eq!(table.expire(at(1_000)), []);
        assert_eq!(table.outstanding("r"), 0);
    }
}

#[test]
fn the_wall_clock_may_step_while_the_process_lives() {
    for stepped in [0, 50, 1_000_000] {
        let (mut table, token) = started();
        let arrival = table.arrived(&token, at(103), wall(stepped), Vec::new());
        assert_eq!(outcome(arrival), (Outcome::Ok, false, Some(3 * S)));
    }
}

#[test]
fn what_does_not_arrive_is_lost_once_and_late_when_it_is_found() {
    let (mut table, token) = started();
    assert_eq!(table.next_deadline(), Some(at(160)));
    assert_eq!(table.expire(at(159)), []);
    let lost = table.expire(at(160));
    assert_eq!((lost.len(), lost[0].outcome, lost[0].was_lost), (1, Outcome::Lost, false));
    assert_eq!((table.expire(at(161)), table.next_deadline()), (Vec::new(), None));
    let arrival = table.arrived(&token, at(500), wall(500), Vec::new());
    assert_eq!(outcome(arrival), (Outcome::Late, true, Some(400 * S)));
    assert_eq!(table.arrived(&token, at(501), wall(501), Vec::new()), Arrival::Duplicate);
}

#[test]
fn what_could_not_be_sent_has_failed_and_a_copy_of_it_changes_nothing() {
    let (mut table, token) = started();
    let legs = Legs { connect_s: Some(0.1), ..Legs::default() };
    let ended = table.posted(1, Sent::Failed("451 no\r\nroom".to_owned()), legs, at(101)).unwrap();
    assert_eq!((ended.outcome, ended.was_lost), (Outcome::SendFailed, false));
    assert_eq!(table.get(1).unwrap().detail.as_deref(), Some("451 no  room"));
    assert_eq!(table.arrived(&token, at(101), wall(101), Vec::new()), Arrival::Unsent);
    assert_eq!(table.expire(at(1_000)), []);
    assert_eq!(table.get(1).unwrap().outcome, Some(Outcome::SendFailed));
}

#[test]
fn what_may_have_been_sent_is_waited_for() {
    let (mut table, token) = started();
    assert_eq!(table.posted(1, Sent::Unsure("no reply".to_owned()), Legs::default(), at(101)), None);
    assert_eq!(outcome(table.arrived(&token, at(101), wall(101), Vec::new())).0, Outcome::Ok);
    // And what has arrived was sent, whatever the sender heard.
    let (mut table, token) = started();
    table.arrived(&token, at(101), wall(101), Vec::new());
    assert_eq!(table.posted(1, Sent::Failed("reset".to_owned()), Legs::default(), at(101)), None);
    assert_eq!(table.get(1).unwrap().outcome, Some(Outcome::Ok));
}

#[test]
fn transit_is_from_the_reply_to_the_arrival_whichever_is_heard_of_first() {
    let legs = Legs { submit_s: Some(0.5), ..Legs::default() };
    let transit = |table: &Table| table.get(1).unwrap().legs.transit_s;
    let (mut table, token) = started();
    table.posted(1, Sent::Accepted { at: at(101) }, legs, at(101));
    table.arrived(&token, at(104), wall(104), Vec::new());
    assert_eq!(transit(&table), Some(3.0));
    assert_eq!(table.get(1).unwrap().legs.submit_s, Some(0.5));
    let (mut table, token) = started();
    table.arrived(&token, at(104), wall(104), Vec::new());
    table.posted(1, Sent::Accepted { at: at(101) }, legs, at(101));
    assert_eq!(transit(&table), Some(3.0));
    let (mut table, token) = started();
    table.arrived(&token, at(101), wall(101), Vec::new());
    table.posted(1, Sent::Accepted { at: at(104) }, legs, at(104));
    assert_eq!(transit(&table), Some(0.0), "a server may deliver before it answers");
}

#[test]
fn a_header_that_only_has_the_number_of_a_probe_is_not_it() {
    let (mut table, token) = started();
    for other in [
        Token { id: 2, ..token.clone() },
        Token { nonce: 0, ..token.clone() },
        Token { route: "s".to_owned(), ..token.clone() },
        Token { sent: wall(99), ..token.clone() },
    ] {
        assert_eq!(table.arrived(&other, at(101), wall(101), Vec::new()), Arrival::Unknown);
    }
    let future = Token { id: 2, sent: wall(102), ..token };
    assert_eq!(table.arrived(&future, at(101), wall(101), Vec::new()), Arrival::Future);
    assert_eq!(table.outstanding("r"), 1);
}

#[test]
fn what_is_not_there_at_its_threshold_is_overdue_at_once_and_once() {
    let (mut table, token) = started();
    assert_eq!(table.overdue(at(110)), []);
    let overdue = Overdue { id: 1, order: wall(100).as_unix_ns(), route: "r".to_owned(), is_excused: false };
    assert_eq!((table.overdue(at(111)), table.overdue(at(112))), (vec![overdue], vec![]));
    assert_eq!((table.outstanding("r"), table.outstanding_overdue("r"), table.get(1).unwrap().outcome), (1, 1, None));
    let mut lost = Table::restored(vec![table.get(1).unwrap().clone()], at(0), wall(112), Some(wall(112)));
    assert_eq!(lost.overdue(at(47)), [], "nor after a restart");
    let ended = lost.expire(at(48)).pop().unwrap();
    assert!(ended.outcome == Outcome::Lost && ended.was_overdue, "{ended:?}");
    let Arrival::Ended(ended) = table.arrived(&token, at(120), wall(120), Vec::new()) else { panic!() };
    assert!(ended.outcome == Outcome::Late && ended.was_overdue, "{ended:?}");
    let (mut table, token) = started();
    table.arrived(&token, at(103), wall(103), Vec::new());
    assert_eq!((table.overdue(at(200)), table.outstanding_overdue("r")), (vec![], 0));
    assert_eq!((table.last_ok("r"), table.last_ok("s")), (Some(wall(103)), None));
}

#[test]
fn the_time_in_which_nobody_was_there_is_no_part_of_the_round_trip_and_extends_the_deadlines() {
    let (table, token) = started();
    let mut again = restarted(&table);
    assert_eq!(again.next_deadline(), Some(at(40)), "20 of 60 seconds had passed");
    assert_eq!(again.overdue(at(1)).len(), 1, "20 of 10 seconds had passed");
    let arrival = again.arrived(&token, at(5), wall(505), Vec::new());
    let Arrival::Ended(ended) = arrival else { panic!("{arrival:?}") };
    assert_eq!((ended.outcome, ended.round_trip), (Outcome::Late, Some(25 * S)));
    assert_eq!(restarted(&again).arrived(&token, at(5), wall(505), Vec::new()), Arrival::Duplicate);
    let ended = restarted(&table).expire(at(40));
    assert!(ended.len() == 1 && ended[0].outcome == Outcome::Lost, "{ended:?}");
}

/// The table as a service finds it that was down from second 120 to second 500; its own clock begins at 0.
fn restarted(table: &Table) -> Table {
    let stored = serde_json::to_string(&table.last("r", 10)).unwrap();
    Table::restored(serde_json::from_str(&stored).unwrap(), at(0), wall(500), Some(wall(120)))
}

/// A probe with an hour's time limit, sent at second 100, behind a restart from second 120 to 120 + `down`.
fn restarted_after(down: u64) -> Table {
    let mut table = Table::default();
    table.start(NewProbe { timeout: 3_600 * S, ..new(1) }, at(100), wall(100)).unwrap();
    table.posted(1, Sent::Accepted { at: at(101) }, Legs::default(), at(101));
    Table::restored(vec![table.get(1).unwrap().clone()], at(0), wall(120 + down), Some(wall(120)))
}

#[test]
fn a_restart_excuses_what_was_on_its_way_for_as_long_as_servers_back_off_and_no_longer() {
    let mut table = restarted_after(1);
    assert!(table.overdue(at(1))[0].is_excused, "it may have come in that second");
    let lost = table.expire(at(3_580));
    assert!(lost[0].outcome == Outcome::Lost && !lost[0].is_excused, "an hour later that is no reason: {lost:?}");
    for (down, second, is_excused) in
        [(1, 599, true), (1, 600, false), (1_000, 999, true), (1_000, 1_000, false), (80_000, 4_299, true)]
    {
        assert_eq!(restarted_after(down).overdue(at(second))[0].is_excused, is_excused, "{down} {second}");
    }
    assert!(!restarted_after(80_000).overdue(at(4_300))[0].is_excused);
}

#[test]
fn what_is_sent_after_a_restart_is_excused_for_as_long_as_we_were_down_and_ten_minutes_at_most() {
    for (down, second, is_excused) in [(1, 20, false), (300, 299, true), (300, 300, false), (80_000, 600, false)] {
        let mut table = restarted_after(down);
        table.start(new(2), at(1), wall(10_000)).unwrap();
        let overdue = table.overdue(at(second));
        assert_eq!(overdue.iter().find(|one| one.id == 2).unwrap().is_excused, is_excused, "{down} {second}");
    }
    let mut first = Table::restored(Vec::new(), at(0), wall(0), None);
    first.start(new(2), at(0), wall(0)).unwrap();
    assert!(!first.overdue(at(11))[0].is_excused, "a first start was down for no time");
}

#[test]
fn a_probe_that_was_sent_after_the_last_sign_of_life_was_down_no_longer_than_it_was_on_its_way() {
    let (table, _) = started();
    let probes = table.last("r", 10).into_iter().cloned().collect();
    let again = Table::restored(probes, at(0), wall(103), Some(wall(90)));
    assert_eq!(again.next_deadline(), Some(at(60)));
    assert_eq!(again.get(1).unwrap().down_ns, 3_000_000_000);
}

#[test]
fn a_clock_that_went_back_over_a_restart_is_skew_and_no_measurement() {
    let (table, token) = started();
    let probes: Vec<Probe> = table.last("r", 10).into_iter().cloned().collect();
    let mut again = Table::restored(probes, at(0), wall(50), Some(wall(101)));
    assert_eq!(again.next_deadline(), Some(at(60)), "at most the whole time limit once more");
    let arrival = again.arrived(&token, at(1), wall(51), Vec::new());
    let Arrival::Ended(ended) = arrival else { panic!("{arrival:?}") };
    assert_eq!((ended.outcome, ended.round_trip, ended.skewed), (Outcome::Ok, None, true));
}

/// Without a round trip all that is known is whether it was there at its threshold.
#[test]
fn a_probe_that_was_overdue_is_not_in_time_because_a_clock_went_back() {
    let (mut table, token) = started();
    assert_eq!(table.overdue(at(111)).len(), 1);
    let probes: Vec<Probe> = table.last("r", 10).into_iter().cloned().collect();
    let mut again = Table::restored(probes, at(0), wall(50), Some(wall(111)));
    let arrival = again.arrived(&token, at(1), wall(51), Vec::new());
    let Arrival::Ended(ended) = arrival else { panic!("{arrival:?}") };
    assert_eq!((ended.outcome, ended.round_trip, ended.was_overdue), (Outcome::Late, None, true));
}

/// Of a probe that was being sent when the service ended nobody knows whether it ever left.
#[test]
fn a_probe_of_which_it_is_not_known_that_it_was_handed_over_calls_nobody_after_a_restart() {
    for (is_known, is_excused) in [(false, true), (true, false)] {
        let mut table = Table::default();
        table.start(NewProbe { timeout: 3_600 * S, ..new(1) }, at(100), wall(100)).unwrap();
        if is_known {
            table.posted(1, Sent::Accepted { at: at(101) }, Legs::default(), at(101));
        }
        let mut again = restarted(&table);
        assert_eq!(again.overdue(at(3_000))[0].is_excused, is_excused);
        assert_eq!(again.expire(at(4_000))[0].is_excused, is_excused);
    }
}

/// A process that is stopped from second 102 to second 130, with a probe of threshold 10 on its way since second 100.
#[test]
fn what_is_slept_through_is_down_time_and_calls_nobody() {
    let slept = || {
        let (mut table, token) = started();
        table.posted(1, Sent::Accepted { at: at(101) }, Legs::default(), at(101));
        table.slept(at(102), at(130));
        (table, token)
    };
    // What waited in our socket is taken at the end of the sleep.
    let (mut table, token) = slept();
    assert_eq!(table.overdue(at(130)), []);
    let arrival = table.arrived(&token, at(130), wall(130), Vec::new());
    assert_eq!(outcome(arrival), (Outcome::Ok, false, Some(2 * S)));
    assert_eq!(table.get(1).unwrap().down_ns, 28_000_000_000);
    // A server that was not answered comes again later.
    let (mut table, token) = slept();
    assert_eq!(table.overdue(at(138)), []);
    assert!(table.overdue(at(139))[0].is_excused && table.get(1).unwrap().excused);
    let Arrival::Ended(ended) = table.arrived(&token, at(150), wall(150), Vec::new()) else { panic!() };
    assert!(ended.outcome == Outcome::Late && ended.was_excused && ended.is_excused, "{ended:?}");
    let (mut table, _) = slept();
    assert!(!table.overdue(at(159))[0].is_excused, "for as long as it slept");
    assert_eq!((table.expire(at(187)), table.expire(at(188)).len()), (vec![], 1));
    // What was sent later is excused as long.
    for (second, is_excused) in [(157, true), (158, false)] {
        let (mut table, _) = slept();
        table.start(new(2), at(131), wall(131)).unwrap();
        assert_eq!(table.overdue(at(second)).last().unwrap().is_excused, is_excused, "{second}");
    }
    // An arrival that was stamped meanwhile shows that only control slept.
    let (mut table, token) = slept();
    let arrival = table.arrived(&token, at(125), wall(125), Vec::new());
    assert_eq!(outcome(arrival), (Outcome::Late, false, Some(25 * S)));
    // What was being sent meanwhile could not be, for want of us.
    let (mut table, _) = started();
    table.slept(at(102), at(130));
    let ended = table.posted(1, Sent::Failed("timed out".to_owned()), Legs::default(), at(131)).unwrap();
    assert!(ended.outcome == Outcome::SendFailed && ended.is_excused, "{ended:?}");
    // Servers that waited in vain come again when servers do.
    let (mut table, _) = started();
    table.slept(at(102), at(202));
    assert!(table.overdue(at(800))[0].is_excused);
}

#[test]
fn nothing_grows_without_bound() {
    let mut table = Table::default();
    for id in 0..OUTSTANDING_MAX as u64 {
        table.start(new(id), at(0), wall(0)).unwrap();
    }
    assert_eq!(table.start(new(1 << 40), at(0), wall(0)), Err(StartFault::Full));
    assert_eq!(table.expire(at(60)).len(), OUTSTANDING_MAX);
    assert_eq!(table.start(new(0), at(61), wall(61)), Err(StartFault::Taken));
    for id in 0..10 {
        table.start(new(1_000_000 + id), at(61), wall(61)).unwrap();
    }
    table.expire(at(1_000));
    assert_eq!(table.take_forgotten(), (0..10).collect::<Vec<u64>>());
    assert_eq!(table.last("r", usize::MAX).len(), ENDED_KEPT);
    assert_eq!(table.last("r", 1)[0].id, 1_000_009);
    table.keep_routes(|route| route != "r");
    assert_eq!((table.take_forgotten().len(), table.last("r", 1).len()), (ENDED_KEPT, 0));
}
