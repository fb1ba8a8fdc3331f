//! What a worker makes of peers that are no mail servers.

use super::*;

#[test]
fn a_reply_without_end_ends_the_session() {
    for (reply, kind) in
        [("250-".to_owned() + &"x".repeat(5_000) + "\r\n", "protocol"), ("250-more\r\n".repeat(200), "protocol")]
    {
        let mut play = Play::new(|_| {});
        play.session("");
        play.say(&reply);
        assert_eq!((play.messages().failed, play.error()), (1, Some((kind, Phase::Mail))));
        assert_eq!(play.closed(), [0]);
    }
}

#[test]
fn a_port_of_another_protocol_is_told_by_how_it_greets() {
    let example = |play: &mut Play| play.worker.delta_mut().errors[0].example.clone();
    let mut play = Play::new(|raw| raw.timeout = Some(SECOND.into()));
    play.connect(0);
    play.wait_for_deadline(0);
    assert_eq!(play.error(), Some(("timeout", Phase::Banner)));
    assert!(example(&mut play).contains("smtps://"));
    let mut play = Play::new(|_| {});
    play.connect(0);
    play.worker.closed(0, play.now, None, &mut play.links);
    assert_eq!(play.error(), Some(("closed", Phase::Banner)));
    assert!(example(&mut play).contains("http://"));
    let mut play = Play::new(|_| {});
    play.connect(0);
    play.say("HTTP/1.1 400 Bad Request\r\n");
    assert_eq!(play.error(), Some(("protocol", Phase::Banner)));
    assert!(example(&mut play).contains("no mail server"));
}
