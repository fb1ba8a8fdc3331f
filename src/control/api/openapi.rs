//! The OpenAPI 3.1 document of the API. Schemas come from the types that are read and written; what else there is to say
//! of an operation stands in `paths`.

use serde_json::json;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Content, InfoBuilder, License, OpenApiBuilder, PathItem, PathsBuilder, Ref, Required, Response, ResponseBuilder,
};
use utoipa::{PartialSchema as _, ToSchema as _};

use crate::control::faults::{FaultList, FaultRequest};
use crate::job::record::{JobList, JobView};
use crate::job::request::JobRequest;
use crate::probe::view::{RouteFired, RouteList, RouteView};

const JSON: &str = "application/json";
/// The content type of `/metrics`: Prometheus' text format.
const METRICS: &str = "text/plain";

/// Schemas without a type of their own.
const REASON: &str = "Reason";
const STATUS: &str = "Status";

/// The document as JSON.
pub fn document() -> String {
    let info = InfoBuilder::new()
        .title("timecop")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Loads SMTP servers and reports what came of every message; sends probes and measures how long they take to \
             arrive. Bodies are JSON; an error is an object with \
             the key Reason, which says what was expected, what came and what to do about it.",
        ))
        .license(Some(License::new(env!("CARGO_PKG_LICENSE"))))
        .build();
    let bearer = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("Needed where the service has a token, which is everywhere but on loopback."))
        .build();
    let reason = ObjectBuilder::new()
        .property("Reason", ObjectBuilder::new().schema_type(Type::String))
        .required("Reason")
        .description(Some("Why a request was not answered as it was meant to be."));
    let status = ObjectBuilder::new()
        .property("status", ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["ok"])))
        .required("status")
        .description(Some("All is well."));
    let mut schemas = vec![(JobRequest::name().into_owned(), JobRequest::schema())];
    schemas.push((JobView::name().into_owned(), JobView::schema()));
    schemas.push((JobList::name().into_owned(), JobList::schema()));
    schemas.push((RouteView::name().into_owned(), RouteView::schema()));
    schemas.push((RouteList::name().into_owned(), RouteList::schema()));
    schemas.push((RouteFired::name().into_owned(), RouteFired::schema()));
    schemas.push((FaultRequest::name().into_owned(), FaultRequest::schema()));
    schemas.push((FaultList::name().into_owned(), FaultList::schema()));
    FaultList::schemas(&mut schemas);
    JobList::schemas(&mut schemas); // all that they refer to
    RouteList::schemas(&mut schemas);
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .schema(REASON, reason)
        .schema(STATUS, status)
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .build();
    let document = OpenApiBuilder::new()
        .info(info)
        .paths(paths())
        .components(Some(components))
        .security(Some([SecurityRequirement::default(), SecurityRequirement::new("bearer", Vec::<String>::new())]))
        .build();
    document.to_json().expect("the document is made of strings and numbers")
}

/// Every operation with every status that it may answer, and why.
fn paths() -> PathsBuilder {
    let id = || {
        ParameterBuilder::new()
            .name("id")
            .parameter_in(ParameterIn::Query)
            .required(Required::True)
            .description(Some("The job's id."))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String).min_length(Some(1))))
            .example(Some(json!("1234")))
    };
    let job = |words| answer(words, JSON, Some("Job"));
    let request = RequestBodyBuilder::new()
        .content(JSON, Content::new(Some(Ref::from_schema_name("JobRequest"))))
        .required(Some(Required::True))
        .build();

    let run = post("job.run", "Start a job.")
        .request_body(Some(request))
        .response("200", job("The job, which runs."))
        .response("422", reason("An unknown key, a wrong value, or something that is not built yet; named."))
        .response("429", reason("As many jobs run, or connections are open, as may at once."))
        .response("503", reason(
            "The service is ending, its store can give no id, or too many bodies or look-ups are under way; see Retry-After.",
        ))
        .response("504", reason("The target's name servers did not answer in time."));
    let result = ParameterBuilder::new()
        .name("result")
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some("Whether the job is shown with its result, which may be large."))
        .schema(Some(ObjectBuilder::new().schema_type(Type::Boolean).default(Some(json!(true)))))
        .example(Some(json!(false)));
    let get = post("job.get", "Show a job and what came of it so far.")
        .parameter(id())
        .parameter(result)
        .response("200", job("The job with its result, or without."))
        .response("404", reason("No job has this id."))
        .response("503", reason("The store cannot be read."));
    let stop = post("job.stop", "Stop a job. Messages in flight have 10 s to end.")
        .parameter(id())
        .response("200", job("The job; one that was over before is as it was."))
        .response("404", reason("No job has this id."))
        .response("503", reason("The store cannot be read."));
    let list = post("job.list", "List the jobs, the newest first, without their results.")
        .response("200", answer("The jobs.", JSON, Some("JobList")));

    let name = || {
        ParameterBuilder::new()
            .name("name")
            .parameter_in(ParameterIn::Query)
            .required(Required::True)
            .description(Some("The route's name."))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String).min_length(Some(1))))
            .example(Some(json!("mailgun")))
    };
    let route_list = post("route.list", "List the prober's routes, without their probes.")
        .response("200", answer("The routes; none where no prober is configured.", JSON, Some("RouteList")));
    let id = ParameterBuilder::new()
        .name("id")
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some("A probe's number, of which alone the route is shown with, if it is known."))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9a-f]{16}$"))))
        .example(Some(json!("00000000000000ab")));
    let route_get = post("route.get", "Show a route with its last probes, or with one of them.")
        .parameter(name())
        .parameter(id)
        .response("200", answer("The route.", JSON, Some("Route")))
        .response("404", reason("No route has this name."));
    let route_fire = post("route.fire", "Send a probe by a route now, beside those of its schedule.")
        .parameter(name())
        .response("200", answer("The probe; route.get shows what becomes of it.", JSON, Some("RouteFired")))
        .response("404", reason("No route has this name."))
        .response("429", reason("As many probes of the route are on their way, or being sent, as may be; or as many hosts being looked up."))
        .response("503", reason("The service is ending."));

    let faults = |words| answer(words, JSON, Some("FaultList"));
    let rules = RequestBodyBuilder::new()
        .content(JSON, Content::new(Some(Ref::from_schema_name("FaultRequest"))))
        .required(Some(Required::True))
        .build();
    let fault_set = post("fault.set", "Put faults of the sink in force, in the place of those that are.")
        .request_body(Some(rules))
        .response("200", faults("The faults in force."))
        .response("404", reason("The service has no sink."))
        .response("422", reason("A rule is none; it is named by its place."));
    let fault_list =
        post("fault.list", "List the faults of the sink that are in force, and how often each has struck.")
            .response("200", faults("The faults in force."))
            .response("404", reason("The service has no sink."));
    let fault_clear = post("fault.clear", "Let nothing go wrong at the sink any more.")
        .response("200", faults("The faults in force, which are none."))
        .response("404", reason("The service has no sink."));

    let healthz = operation("healthz", "Whether the service lives. Needs no token.")
        .security(SecurityRequirement::default())
        .response("200", answer("It does.", JSON, Some(STATUS)));
    let readyz = guarded("readyz", "Whether jobs can be run and kept.")
        .response("200", answer("They can.", JSON, Some(STATUS)))
        .response("503", reason("They cannot."));
    let metrics = guarded("metrics", "Counters and histograms of all jobs for Prometheus.")
        .response("200", answer("Prometheus' text format.", METRICS, None));
    let document = guarded("openapi", "This document.").response("200", answer("An OpenAPI 3.1 document.", JSON, None));

    let by_post = |operation| PathItem::new(HttpMethod::Post, operation);
    let by_get = |operation| PathItem::new(HttpMethod::Get, operation);
    PathsBuilder::new()
        .path("/v1/hammer/job.run", by_post(run))
        .path("/v1/hammer/job.get", by_post(get))
        .path("/v1/hammer/job.list", by_post(list))
        .path("/v1/hammer/job.stop", by_post(stop))
        .path("/v1/probe/route.list", by_post(route_list))
        .path("/v1/probe/route.get", by_post(route_get))
        .path("/v1/probe/route.fire", by_post(route_fire))
        .path("/v1/sink/fault.set", by_post(fault_set))
        .path("/v1/sink/fault.list", by_post(fault_list))
        .path("/v1/sink/fault.clear", by_post(fault_clear))
        .path("/healthz", by_get(healthz))
        .path("/readyz", by_get(readyz))
        .path("/metrics", by_get(metrics))
        .path("/openapi.json", by_get(document))
}

/// An operation with what every one may answer.
fn operation(name: &str, summary: &str) -> OperationBuilder {
    OperationBuilder::new()
        .operation_id(Some(name))
        .summary(Some(summary))
        .response("400", reason("The request is malformed."))
        .response("403", reason("Host or Origin is foreign."))
}

/// An operation that needs the token, where there is one.
fn guarded(name: &str, summary: &str) -> OperationBuilder {
    operation(name, summary).response("401", reason("The token is missing or wrong."))
}

/// A guarded operation that may have a body, or be sent one.
fn post(name: &str, summary: &str) -> OperationBuilder {
    guarded(name, summary)
        .response("413", reason("The body is too large."))
        .response("415", reason("The body is not announced as application/json."))
}

fn reason(words: &str) -> Response {
    answer(words, JSON, Some(REASON))
}

fn answer(words: &str, content_type: &str, schema: Option<&str>) -> Response {
    let content = Content::new(schema.map(Ref::from_schema_name));
    ResponseBuilder::new().description(words).content(content_type, content).build()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::job::request::KEYS;

    #[test]
    fn the_document_names_every_operation_key_and_status() {
        let document: Value = serde_json::from_str(&document()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let statuses = |path: &str, method: &str| {
            let responses = document["paths"][path][method]["responses"].as_object().unwrap();
            let mut statuses: Vec<_> = responses.keys().map(String::as_str).collect();
            statuses.sort_unstable();
            statuses.join(" ")
        };
        assert_eq!(statuses("/v1/hammer/job.run", "post"), "200 400 401 403 413 415 422 429 503 504");
        assert_eq!(statuses("/v1/hammer/job.get", "post"), "200 400 401 403 404 413 415 503");
        assert_eq!(statuses("/v1/hammer/job.stop", "post"), "200 400 401 403 404 413 415 503");
        assert_eq!(statuses("/v1/hammer/job.list", "post"), "200 400 401 403 413 415");
        assert_eq!(statuses("/v1/probe/route.list", "post"), "200 400 401 403 413 415");
        assert_eq!(statuses("/v1/probe/route.get", "post"), "200 400 401 403 404 413 415");
        assert_eq!(statuses("/v1/probe/route.fire", "post"), "200 400 401 403 404 413 415 429 503");
        assert_eq!(statuses("/v1/sink/fault.set", "post"), "200 400 401 403 404 413 415 422");
        assert_eq!(statuses("/v1/sink/fault.list", "post"), "200 400 401 403 404 413 415");
        assert_eq!(statuses("/v1/sink/fault.clear", "post"), "200 400 401 403 404 413 415");
        assert_eq!(statuses("/healthz", "get"), "200 400 403");
        assert_eq!(statuses("/readyz", "get"), "200 400 401 403 503");
        assert_eq!(statuses("/metrics", "get"), "200 400 401 403");
        assert_eq!(statuses("/openapi.json", "get"), "200 400 401 403");
        let schemas = &document["components"]["schemas"];
        for key in KEYS {
            assert!(schemas["JobRequest"]["properties"][key].is_object(), "{key}");
            assert!(schemas["JobEcho"]["properties"][key].is_object(), "{key}");
        }
        assert_eq!(schemas["JobEcho"]["properties"]["body"]["type"], "object");
        assert_eq!(schemas["Job"]["required"], json!(["id", "job", "start_time", "stop_time", "state"]));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document: Value = serde_json::from_str(&document()).unwrap();
        let mut pending = vec![&document];
        let mut references = 0;
        while let Some(value) = pending.pop() {
            if let Some(reference) = value["$ref"].as_str() {
                let target = document.pointer(reference.trim_start_matches('#'));
                assert!(target.is_some(), "{reference}");
                references += 1;
            }
            match value {
                Value::Object(object) => pending.extend(object.values()),
                Value::Array(list) => pending.extend(list),
                _ => {}
            }
        }
        assert!(references > 50, "{references}");
    }
}
