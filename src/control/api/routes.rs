//! What each path of the API does.

use std::cell::RefCell;
use std::rc::Rc;

use form_urlencoded;
use hyper::body::Bytes;
use hyper::{Method, StatusCode, header};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::http::{Refusal, Request, Response, reason, shown};
use super::openapi;
use crate::control::draft::{Busy, Helpers};
use crate::control::faults::{FaultRequest, SinkFaults};
use crate::control::jobs::{JobRefusal, Jobs};
use crate::control::metrics::{self, Gauges};
use crate::control::probe::driver::{self, FireError, Prober};
use crate::control::targets::{ResolveError, Resolver, Targets, Unresolved};
use crate::job::record::{self, JobList, JobRecord};
use crate::job::request::{JobRequest, JobType, RequestError};
use crate::job::spec::SpecError;
use crate::probe::view::RouteList;
use crate::sink::Rule;
use crate::time::WallTime;

/// What the routes work on. One thread owns it, so nothing here is locked; no borrow outlives an `await`.
pub struct Api {
    /// The jobs.
    pub jobs: Rc<RefCell<Jobs>>,
    /// The round trip, where it is configured.
    pub prober: Option<Rc<RefCell<Prober>>>,
    /// The faults of the sink, where there is one.
    pub faults: Option<RefCell<SinkFaults>>,
    /// Where jobs may go.
    pub targets: RefCell<Targets>,
    /// Turns host names into addresses.
    pub resolver: Resolver,
    /// Handle what is large.
    pub helpers: Helpers,
    /// When the service began.
    pub began: WallTime,
}

impl Api {
    /// Answers one request that the guard has admitted.
    pub async fn answer(&self, request: Request) -> Response {
        let path = request.uri().path();
        let (methods, allow) = match path {
            "/v1/hammer/job.run" | "/v1/hammer/job.get" | "/v1/hammer/job.list" | "/v1/hammer/job.stop" => {
                (&[Method::POST][..], "POST")
            }
            "/v1/probe/route.list" | "/v1/probe/route.get" | "/v1/probe/route.fire" => (&[Method::POST][..], "POST"),
            "/v1/sink/fault.set" | "/v1/sink/fault.list" | "/v1/sink/fault.clear" => (&[Method::POST][..], "POST"),
            "/healthz" | "/readyz" | "/metrics" | "/openapi.json" => (&[Method::GET, Method::HEAD][..], "GET, HEAD"),
            _ => return reason(StatusCode::NOT_FOUND, "no such path; /openapi.json lists those that there are"),
        };
        if !methods.contains(request.method()) {
            let mut refusal = reason(StatusCode::METHOD_NOT_ALLOWED, &format!("expected {allow} for this path"));
            refusal.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allow));
            return refusal;
        }
        match path {
            "/v1/hammer/job.run" => self.run(request.into_body()).await.unwrap_or_else(Into::into),
            "/v1/hammer/job.list" => self.list(),
            "/v1/hammer/job.get" => match asked_of_job(request.uri().query()) {
                Ok((id, true)) => self.get(id).await,
                Ok((id, false)) => self.get_record(id),
                Err(refusal) => refusal.into(),
            },
            "/v1/hammer/job.stop" => match id(request.uri().query()) {
                Ok(id) => self.stop(id).await,
                Err(refusal) => refusal.into(),
            },
            "/v1/probe/route.list" => self.route_list(),
            "/v1/probe/route.get" => self.route_get(request.uri().query()).unwrap_or_else(Into::into),
            "/v1/probe/route.fire" => self.route_fire(request.uri().query()).await.unwrap_or_else(Into::into),
            "/v1/sink/fault.set" => self.fault_set(&request.into_body()).unwrap_or_else(Into::into),
            "/v1/sink/fault.list" => self.fault_list().unwrap_or_else(Into::into),
            "/v1/sink/fault.clear" => self.fault_change(Vec::new()).unwrap_or_else(Into::into),
            "/healthz" => json(&all_is_well()),
            "/readyz" => self.ready(),
            "/metrics" => answer(METRICS, self.metrics()),
            _ => answer(JSON, openapi::document()),
        }
    }

    async fn run(&self, body: Bytes) -> Result<Response, Refusal> {
        self.jobs.borrow().admit().map_err(refused)?;
        let read = self.helpers.read(body).await.map_err(busy)?.map_err(|error| match error {
            RequestError::NotJson(_) => Refusal::new(StatusCode::BAD_REQUEST, error.to_string()),
            RequestError::Field(_) => unprocessable(error),
        })?;
        let unresolved = self.choose(&read.request).map_err(unprocessable)?;
        let unresolved = match read.request.seed {
            Some(seed) => unresolved.with_seed(seed),
            None => unresolved,
        };
        let target = self.resolver.resolve(unresolved).await.map_err(unresolvable)?;
        let draft = self.jobs.borrow().draft(read, target);
        let built = self.helpers.build(draft).await.map_err(busy)?.map_err(unprocessable)?;
        let record = self.jobs.borrow_mut().start(built).map_err(refused)?;
        Ok(job(&record, None))
    }

    fn choose(&self, request: &JobRequest) -> Result<Unresolved, SpecError> {
        let connection = request.smtp_connection_type;
        let auth = request.auth.unwrap_or(false);
        let (targets, target) = (self.targets.borrow(), request.target.as_deref());
        match request.job_type() {
            JobType::Smtp => targets.choose(target, connection, auth, request.skip_verify),
            kind => targets.choose_http(kind, target, auth, request.skip_verify),
        }
    }

    async fn get(&self, id: u64) -> Response {
        let found = self.jobs.borrow().get(id);
        match found {
            None => unknown_job(id).into(),
            Some((record, Some(live))) => job(&record, Some(live)),
            Some((record, None)) => self.with_stored_result(record).await,
        }
    }

    fn get_record(&self, id: u64) -> Response {
        self.jobs.borrow().record(id).map_or_else(|| unknown_job(id).into(), |record| job(record, None))
    }

    async fn stop(&self, id: u64) -> Response {
        let stopped = self.jobs.borrow_mut().stop(id);
        match stopped {
            None => unknown_job(id).into(),
            Some(_) => self.get(id).await,
        }
    }

    async fn with_stored_result(&self, record: JobRecord) -> Response {
        let result = self.jobs.borrow().store().result(record.id);
        let why = match result.recv().await {
            Ok(Ok(result)) => return job(&record, result),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the service is ending".to_owned(),
        };
        reason(StatusCode::SERVICE_UNAVAILABLE, &format!("the job's result cannot be read: {why}"))
    }

    fn list(&self) -> Response {
        let jobs = self.jobs.borrow();
        json(&JobList { items: jobs.list().map(|record| record.view(None)).collect() })
    }

    fn route_list(&self) -> Response {
        let routes = self.prober.as_ref().map(|prober| prober.borrow().list());
        json(&routes.unwrap_or(RouteList { items: Vec::new() }))
    }

    fn route_get(&self, query: Option<&str>) -> Result<Response, Refusal> {
        let name = name(query)?;
        let id = given(query, "id").map(|text| {
            u64::from_str_radix(&text, 16).map_err(|_| {
                let why =
                    format!("id: expected a probe's number of 16 hexadecimal digits, got {}", shown(text.as_bytes()));
                Refusal::new(StatusCode::BAD_REQUEST, why)
            })
        });
        let id = id.transpose()?;
        let found = self.prober.as_ref().and_then(|prober| prober.borrow().get(&name, id));
        found.map(|route| json(&route)).ok_or_else(|| unknown_route(&name))
    }

    async fn route_fire(&self, query: Option<&str>) -> Result<Response, Refusal> {
        let name = name(query)?;
        let prober = self.prober.as_ref().ok_or_else(|| unknown_route(&name))?;
        let fired = driver::fire(prober, &name).await.map_err(|error| match error {
            FireError::Unknown(_) => unknown_route(&name),
            FireError::Busy(_) => Refusal::new(StatusCode::TOO_MANY_REQUESTS, error.to_string()),
            FireError::Closing => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        })?;
        Ok(json(&fired))
    }

    fn fault_set(&self, body: &[u8]) -> Result<Response, Refusal> {
        if body.len() > FAULTS_BYTES_MAX {
            let why = format!("expected at most {FAULTS_BYTES_MAX} octets of rules, got {}", body.len());
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        let request: FaultRequest = serde_json::from_slice(body).map_err(|error| match error.classify() {
            Category::Data => unprocessable(format_args!("expected {FAULTS_EXAMPLE}, got another body: {error}")),
            _ => Refusal::new(StatusCode::BAD_REQUEST, format!("expected JSON, such as {FAULTS_EXAMPLE}: {error}")),
        })?;
        self.fault_change(request.parse().map_err(unprocessable)?)
    }

    fn fault_change(&self, rules: Vec<Rule>) -> Result<Response, Refusal> {
        let faults = self.faults.as_ref().ok_or_else(no_sink)?;
        faults.borrow_mut().set(rules, self.jobs.borrow().pool()).map_err(unprocessable)?;
        self.fault_list()
    }

    fn fault_list(&self) -> Result<Response, Refusal> {
        let faults = self.faults.as_ref().ok_or_else(no_sink)?;
        Ok(json(&faults.borrow().list()))
    }

    fn ready(&self) -> Response {
        let alerts = self.prober.as_ref().map_or(Ok(()), |prober| prober.borrow().health());
        match self.jobs.borrow().readiness().and(alerts) {
            Ok(()) => json(&all_is_well()),
            Err(why) => reason(StatusCode::SERVICE_UNAVAILABLE, &why),
        }
    }

    fn metrics(&self) -> String {
        if let Some(prober) = &self.prober {
            prober.borrow().measure();
        }
        let jobs = self.jobs.borrow();
        let (descriptors_open, descriptors_max) = metrics::descriptors();
        let (file_slots_used, file_slots) = jobs.pool().file_slots();
        jobs.metrics().render(&Gauges {
            jobs_running: jobs.running() as u64,
            connections_open: jobs.connections_open(),
            shards: jobs.pool().len() as u64,
            file_slots_used,
            file_slots,
            store_writable: jobs.store().health().is_ok(),
            descriptors_open,
            descriptors_max,
            start_unix_ns: self.began.as_unix_ns(),
        })
    }
}

const JSON: &str = "application/json";
/// Octets of the largest body that `fault.set` takes: it is read while nobody else is answered.
const FAULTS_BYTES_MAX: usize = 256 << 10;
/// What `fault.set` takes.
const FAULTS_EXAMPLE: &str = r#"{"rules": ["rcpt=451,5%"]}"#;
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn all_is_well() -> serde_json::Value {
    serde_json::json!({ "status": "ok" })
}

/// The value of a key of the query.
fn said(query: Option<&str>, key: &str) -> Option<String> {
    let query = query.unwrap_or_default();
    let found = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == key);
    found.map(|(_, value)| value.into_owned())
}

/// The same, unless it is empty.
fn given(query: Option<&str>, key: &str) -> Option<String> {
    said(query, key).filter(|value| !value.is_empty())
}

/// The route that a request names.
fn name(query: Option<&str>) -> Result<String, Refusal> {
    given(query, "name").ok_or_else(|| {
        let expected = "name: expected a route's name in the query, as in ?name=mailgun, got none";
        Refusal::new(StatusCode::BAD_REQUEST, expected)
    })
}

fn unknown_route(name: &str) -> Refusal {
    let got = shown(name.as_bytes());
    Refusal::new(StatusCode::NOT_FOUND, format!("name: expected a route of /v1/probe/route.list, got {got}"))
}

/// The job that a request names.
fn id(query: Option<&str>) -> Result<u64, Refusal> {
    match given(query, "id") {
        None => {
            Err(Refusal::new(StatusCode::BAD_REQUEST, "id: expected a job's id in the query, as in ?id=1234, got none"))
        }
        Some(given) => record::parse_id(&given).ok_or_else(|| unknown_job(shown(given.as_bytes()))),
    }
}

/// The job that `job.get` names, and whether its result is asked for.
fn asked_of_job(query: Option<&str>) -> Result<(u64, bool), Refusal> {
    let id = id(query)?;
    match said(query, "result").as_deref() {
        None | Some("true") => Ok((id, true)),
        Some("false") => Ok((id, false)),
        Some(other) => {
            let why = format!("result: expected true or false, got {}", shown(other.as_bytes()));
            Err(Refusal::new(StatusCode::BAD_REQUEST, why))
        }
    }
}

fn refused(refusal: JobRefusal) -> Refusal {
    let status = match &refusal {
        JobRefusal::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        JobRefusal::Busy(_) => StatusCode::TOO_MANY_REQUESTS,
        JobRefusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refusal::new(status, refusal.to_string())
}

fn busy(error: Busy) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

fn unresolvable(error: ResolveError) -> Refusal {
    let status = match &error {
        ResolveError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        ResolveError::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
        ResolveError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
    };
    Refusal::new(status, error.to_string())
}

fn unprocessable(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
}

fn no_sink() -> Refusal {
    let why = "the service has no sink: expected an address in listen of [sink] in its configuration, got none";
    Refusal::new(StatusCode::NOT_FOUND, why)
}

fn unknown_job(id: impl std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("id: expected a job of /v1/hammer/job.list, got {id}"))
}

fn job(record: &JobRecord, result: Option<String>) -> Response {
    // What is stored was written as JSON by us.
    let result = result.and_then(|result| RawValue::from_string(result).ok());
    json(&record.view(result.as_deref()))
}

fn json(value: &impl serde::Serialize) -> Response {
    answer(JSON, serde_json::to_vec(value).expect("a view is made of numbers and strings"))
}

fn answer(content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
