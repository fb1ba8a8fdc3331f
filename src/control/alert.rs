//! Tells PagerDuty: alerts from outcomes, events from alerts, and a thread that delivers them.
//!
//! What is to be told is a row of the store until PagerDuty has taken it, or has said that it never will. Control decides
//! and keeps the queue; the thread has one event at a time and may be held up by the network as long as it likes.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::store::{Row, RowKey, Store};
use crate::alert::event::{Event, Severity, Trigger, cut};
use crate::alert::policy::{Action, Kind, RouteAlerts, Rule};
use crate::alert::queue::{Answer, Pushed, Queue};
use crate::config::PagerDuty;
use crate::time::{Instant, WallTime};

/// How long PagerDuty may take to answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Octets of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 4_096;
/// Characters of an answer that are logged.
const ANSWER_CHARS_MAX: usize = 300;
/// The beginning of the names of notes about a route's alerts.
const NOTE: &str = "alert/";

/// A client of the Events API v2. It blocks.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    url: String,
    routing_key: SecretString,
}

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What it means for the event.
    pub answer: Answer,
    /// The status; `None` without an answer.
    pub status: Option<u16>,
    /// The answer, or why there is none; short, and without the key.
    pub words: String,
}

impl Client {
    /// For an integration.
    pub fn new(config: &PagerDuty) -> Client {
        Client::answering_within(config, ANSWER_WITHIN)
    }

    fn answering_within(config: &PagerDuty, within: Duration) -> Client {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A redirection would hand the key to somebody else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(within))
            .build()
            .new_agent();
        Client { agent, url: config.url.clone(), routing_key: config.routing_key.clone() }
    }

    /// Sends one event, and waits for the answer.
    pub fn tell(&self, event: &Event) -> Told {
        let key = self.routing_key.expose_secret();
        let shown = |text: &str| cut(&text.replace(key, "[key]").replace(char::is_control, " "), ANSWER_CHARS_MAX);
        let request = self.agent.post(&self.url).content_type("application/json");
        let mut answer = match request.send(event.body(key)) {
            Ok(answer) => answer,
            Err(error) => {
                return Told { answer: Answer::Failed(None), status: None, words: shown(&error.to_string()) };
            }
        };
        let after = answer.headers().get("Retry-After").and_then(|value| retry_after(value.to_str().ok()?));
        let status = answer.status().as_u16();
        let meaning = match status {
            // Another 2xx is that of somebody between us and PagerDuty.
            202 => Answer::Taken,
            429 => Answer::TooMany(after),
            // What PagerDuty itself refuses stays refused; all else, from a proxy for one, may pass.
            400 | 413 => Answer::Refused,
            _ => Answer::Failed(after),
        };
        let mut words = Vec::new();
        // The status says enough where the rest does not come.
        let _ = answer.body_mut().as_reader().take(ANSWER_BYTES_MAX).read_to_end(&mut words);
        Told { answer: meaning, status: Some(status), words: shown(&String::from_utf8_lossy(&words)) }
    }
}

/// `Retry-After` (RFC 9110 §10.2.3): seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Duration::try_from(date.duration_since(Timestamp::now())).ok()
}

/// What is known of a probe that was not well, for whoever is called.
#[derive(Debug)]
pub struct Account<'a> {
    /// The route's name.
    pub route: &'a str,
    /// The probe's number.
    pub probe: u64,
    /// Its place in the order in which all are sent.
    pub order: u64,
    /// How bad the route's failure is.
    pub severity: Severity,
    /// One sentence.
    pub summary: String,
    /// Whatever helps.
    pub details: Map<String, Value>,
}

/// Counts of what was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlertCounts {
    /// Events that PagerDuty has taken.
    pub taken: u64,
    /// Events that it never will.
    pub refused: u64,
    /// Events that were given up because too many waited.
    pub dropped: u64,
    /// Tries that were answered by 429.
    pub throttled: u64,
    /// Tries that failed otherwise.
    pub failed: u64,
    /// Events that wait.
    pub waiting: u64,
    /// Alerts that are open.
    pub open: u64,
}

/// The alerts of all routes, and what is to be told about them.
pub struct Alerts {
    routes: BTreeMap<String, OfRoute>,
    queue: Queue,
    /// `None` where nobody is to be told.
    courier: Option<Courier>,
    store: Rc<Store>,
    /// This service's name.
    source: String,
    /// What keeps the keys of its alerts apart from those of other services.
    address: String,
    client_url: Option<String>,
    counts: AlertCounts,
}

/// How a route stands, and what its alerts are known by.
#[derive(Debug, Default, Serialize, Deserialize)]
struct OfRoute {
    #[serde(flatten)]
    alerts: RouteAlerts,
    /// The probes' address as it was when the first of the open alerts began, so that another one in the configuration
    /// leaves no alert open for ever. `None` where none has been open since.
    #[serde(default)]
    address: Option<String>,
}

/// How this service is known in what PagerDuty is told.
#[derive(Clone, Debug)]
pub struct Names {
    /// Which service noticed it: its host's name.
    pub source: String,
    /// What stands in every `dedup_key`: the probes' address, which the service keeps when it moves to another host, and
    /// which no other has.
    pub address: String,
}

/// The thread that delivers, one event at a time.
struct Courier {
    work: mpsc::SyncSender<(u64, Event)>,
    done: Receiver<((u64, Event), Told)>,
    is_busy: bool,
    thread: JoinHandle<()>,
}

impl Alerts {
    /// Goes on from what an earlier service has left.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn new(
        pagerduty: Option<&PagerDuty>,
        names: Names,
        store: Rc<Store>,
        events: &[(u64, String)],
        notes: &BTreeMap<String, String>,
    ) -> std::io::Result<Alerts> {
        let route = |(name, text): (&String, &String)| {
            let route = name.strip_prefix(NOTE)?;
            Some((route.to_owned(), read(&format!("how the alerts of route {route} stand"), text)?))
        };
        let event = |(id, text): &(u64, String)| Some((*id, read(&format!("alert event {id}"), text)?));
        let events = events.iter().filter_map(event).collect();
        Ok(Alerts {
            routes: notes.iter().filter_map(route).collect(),
            queue: Queue::restored(events),
            courier: pagerduty.map(Courier::telling).transpose()?,
            store,
            source: names.source,
            address: names.address,
            client_url: pagerduty.and_then(|config| config.client_url.clone()),
            counts: AlertCounts::default(),
        })
    }

    /// The kinds of a route's alerts that are open.
    pub fn open(&self, route: &str) -> &[Kind] {
        self.routes.get(route).map_or(&[], |route| route.alerts.open())
    }

    /// What was told so far.
    pub fn counts(&self) -> AlertCounts {
        let open = self.routes.values().map(|route| route.alerts.open().len() as u64).sum();
        AlertCounts { waiting: self.queue.len() as u64, dropped: self.queue.dropped(), open, ..self.counts }
    }

    /// A probe of a route was well; its place in the order in which all are sent.
    pub fn well(&mut self, route: &str, order: u64, rule: Rule) {
        let actions = self.route(route).well(order, rule);
        self.act(route, actions, None);
    }

    /// A probe of a route was not well.
    pub fn bad(&mut self, kind: Kind, rule: Rule, wall: WallTime, account: Account<'_>) {
        let was_open = self.open(account.route).contains(&kind);
        let actions = self.route(account.route).bad(account.probe, account.order, kind, rule);
        if !was_open && !actions.is_empty() {
            tracing::warn!(route = account.route, kind = kind.name(), "alert: {}", account.summary);
        }
        self.act(account.route, actions, Some((wall, &account)));
    }

    /// A probe of a route that was lost has arrived.
    pub fn found(&mut self, route: &str, probe: u64) {
        let actions = self.route(route).found(probe);
        self.act(route, actions, None);
    }

    /// Resolves what is open of routes that there no longer are, and forgets them.
    pub fn keep_routes(&mut self, is_route: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.routes.keys().filter(|route| !is_route(route)).cloned().collect();
        for route in gone {
            let actions = self.route(&route).resolve_all();
            self.act(&route, actions, None);
            self.routes.remove(&route);
            self.store.drop_row(RowKey::Note(format!("{NOTE}{route}")));
        }
    }

    fn route(&mut self, route: &str) -> &mut RouteAlerts {
        &mut self.routes.entry(route.to_owned()).or_default().alerts
    }

    fn act(&mut self, route: &str, actions: Vec<Action>, account: Option<(WallTime, &Account<'_>)>) {
        for action in actions {
            let kind = match action {
                Action::Trigger(kind) | Action::Resolve(kind) => kind,
            };
            let trigger = match (action, account) {
                (Action::Trigger(_), Some((wall, account))) => Some(self.trigger(kind, wall, account)),
                _ => None,
            };
            if trigger.is_none() {
                tracing::info!(route, kind = kind.name(), "alert resolved");
            }
            let of_route = self.routes.entry(route.to_owned()).or_default();
            if self.courier.is_some() {
                let address = of_route.address.get_or_insert_with(|| self.address.clone());
                let dedup_key = dedup_key(address, route, kind);
                self.put(Event { dedup_key, trigger });
            } else if trigger.is_some() {
                // Should there be somebody one day, he is told by the next bad probe.
                of_route.alerts.told_nobody(kind);
            }
        }
        if let Some(of_route) = self.routes.get_mut(route).filter(|of_route| of_route.alerts.open().is_empty()) {
            // Unless its end is to be told once more.
            if !of_route.alerts.is_unended() {
                of_route.address = None;
            }
        }
        // Behind the events: an alert that is noted as open and was never told would never be.
        self.note(route);
    }

    fn note(&self, route: &str) {
        let Some(alerts) = self.routes.get(route) else { return };
        let note = serde_json::to_string(alerts).expect("counts and names can be written");
        self.store.keep(RowKey::Note(format!("{NOTE}{route}")), Row::note(note));
    }

    /// An event is given up. A trigger that has reached nobody is told again by the route's next bad probe, the end of an
    /// alert by the next one that is well.
    fn told_nobody(&mut self, event: &Event) {
        let Some((route, kind, address)) = of_key(&event.dedup_key) else { return };
        let Some(of_route) = self.routes.get_mut(route) else { return };
        match event.trigger {
            Some(_) => of_route.alerts.told_nobody(kind),
            None => {
                of_route.alerts.end_told_nobody(kind);
                of_route.address.get_or_insert_with(|| address.to_owned());
            }
        }
        self.note(route);
    }

    fn trigger(&self, kind: Kind, wall: WallTime, account: &Account<'_>) -> Trigger {
        let at = i64::try_from(wall.unix_seconds()).ok().and_then(|second| Timestamp::from_second(second).ok());
        Trigger {
            summary: account.summary.clone(),
            source: self.source.clone(),
            severity: account.severity,
            timestamp: at.unwrap_or_default().to_string(),
            component: account.route.to_owned(),
            class: kind.name().to_owned(),
            custom_details: account.details.clone(),
            client_url: self.client_url.clone(),
        }
    }

    fn put(&mut self, event: Event) {
        let text = serde_json::to_string(&event).expect("an event is made of strings");
        let subject = event.dedup_key.clone();
        let Pushed { id, gone } = self.queue.push(event);
        if let Some(id) = id {
            self.store.keep(RowKey::Event(id), Row { subject, sent_unix_ns: 0, outcome: None, text });
        }
        let Some((gone, event)) = gone else { return };
        self.store.drop_row(RowKey::Event(gone));
        if id.is_none() {
            tracing::info!(event = gone, "an alert is over that PagerDuty has not heard of, and is told to nobody");
        } else {
            tracing::error!(event = gone, "an alert's event was given up, because too many wait for PagerDuty");
            self.told_nobody(&event);
        }
    }

    /// Whether events can be delivered, or why not.
    ///
    /// # Errors
    ///
    /// The thread that delivers has ended.
    pub fn health(&self) -> Result<(), String> {
        match &self.courier {
            Some(courier) if courier.thread.is_finished() => {
                Err("the thread that tells PagerDuty has ended, so that nobody is called: restart the service"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Hands the thread what is due and takes what it has done; to be called a few times a second.
    pub fn look(&mut self, now: Instant) {
        while let Some((event, told)) = self.courier.as_mut().and_then(Courier::done) {
            let (id, event) = event;
            let is_done = self.queue.answered(id, &told.answer, now, &mut rand::rng());
            let (status, words) = (told.status, &told.words);
            let count = match told.answer {
                Answer::Taken => &mut self.counts.taken,
                Answer::Refused => &mut self.counts.refused,
                Answer::TooMany(_) => &mut self.counts.throttled,
                Answer::Failed(_) => &mut self.counts.failed,
            };
            *count += 1;
            match told.answer {
                Answer::Taken => tracing::info!(event = id, "PagerDuty has taken an event"),
                Answer::Refused => tracing::error!(event = id, status, "PagerDuty refused an event for good: {words}"),
                _ => tracing::warn!(
                    event = id,
                    status,
                    "PagerDuty has not taken an event, which is tried again: {words}"
                ),
            }
            if is_done {
                self.store.drop_row(RowKey::Event(id));
            }
            if told.answer == Answer::Refused {
                self.told_nobody(&event);
            }
        }
        if let Some(courier) = &mut self.courier
            && !courier.is_busy
            && let Some(work) = self.queue.take(now)
        {
            // There is room for one. Of a thread that has ended, health says so.
            courier.is_busy = courier.work.try_send(work).is_ok();
        }
    }
}

impl Courier {
    fn telling(config: &PagerDuty) -> std::io::Result<Courier> {
        let client = Client::new(config);
        Courier::start(move |event| client.tell(event))
    }

    fn start(tell: impl Fn(&Event) -> Told + Send + 'static) -> std::io::Result<Courier> {
        let (work, works) = mpsc::sync_channel::<(u64, Event)>(1);
        let (sender, done): (Sender<((u64, Event), Told)>, _) = async_channel::bounded(1);
        let thread = thread::Builder::new().name("timecop-alert".to_owned()).spawn(move || {
            for (id, event) in works {
                let told = tell(&event);
                let _ = sender.send_blocking(((id, event), told));
            }
        })?;
        Ok(Courier { work, done, is_busy: false, thread })
    }

    /// An event that was told, and what was answered.
    fn done(&mut self) -> Option<((u64, Event), Told)> {
        let done = self.done.try_recv().ok()?;
        self.is_busy = false;
        Some(done)
    }
}

/// What an alert is known by. What may be cut off of it comes last.
fn dedup_key(address: &str, route: &str, kind: Kind) -> String {
    format!("timecop/{route}/{}/{address}", kind.name())
}

/// Route, kind and address of a key.
fn of_key(key: &str) -> Option<(&str, Kind, &str)> {
    let (route, rest) = key.strip_prefix("timecop/")?.split_once('/')?;
    let (kind, address) = rest.split_once('/')?;
    Some((route, Kind::parse(kind)?, address))
}

/// A row of the store that an earlier service has left; one that cannot be read is said to be so, and stays there.
pub(super) fn read<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Option<T> {
    serde_json::from_str(text)
        .map_err(|error| tracing::error!(%error, "{what} in the store cannot be read, and is passed over"))
        .ok()
}

/// The two events of `timecop alert test`: one that begins an alert of the lowest severity, and one that ends it.
pub fn test_events(source: &str, wall: WallTime, client_url: Option<String>) -> [Event; 2] {
    let at = i64::try_from(wall.unix_seconds()).ok().and_then(|second| Timestamp::from_second(second).ok());
    let dedup_key = format!("timecop/{source}/test/{}", wall.as_unix_ns());
    let trigger = Trigger {
        summary: format!("timecop on {source}: a test, which is resolved at once"),
        source: source.to_owned(),
        severity: Severity::Info,
        timestamp: at.unwrap_or_default().to_string(),
        component: "test".to_owned(),
        class: "test".to_owned(),
        custom_details: Map::from_iter([("test".to_owned(), json!(true))]),
        client_url,
    };
    [Event { dedup_key: dedup_key.clone(), trigger: Some(trigger) }, Event { dedup_key, trigger: None }]
}

#[cfg(test)]
mod tests;
