//! What jobs by HTTP are asked for.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::job::spec::http::JobType;

/// The requests of a job by HTTP.
#[derive(Debug, Args)]
pub(in crate::cli) struct HttpArguments {
    #[command(flatten)]
    pub(in crate::cli) form: FormArguments,
    /// A further header field of each request; repeatable
    #[arg(long, value_name = "NAME: VALUE", help_heading = "HTTP")]
    pub(in crate::cli) header: Vec<String>,
    /// The method of http.raw [default: POST]
    #[arg(long, value_name = "METHOD", help_heading = "HTTP")]
    pub(in crate::cli) method: Option<String>,
    /// The body of http.raw, in which %recipient%, %from%, %message_id%, %date% and %sequence% are replaced, in the way of
    /// its Content-Type [default: application/json, unless --header says otherwise]
    #[arg(long, value_name = "FILE", help_heading = "HTTP")]
    pub(in crate::cli) data: Option<PathBuf>,
}

/// What a job of a service may say of it, too.
#[derive(Debug, Args)]
pub(in crate::cli) struct FormArguments {
    /// What messages are sent by [default: http for a target of http:// or https://, else smtp]
    #[arg(long = "type", value_enum, value_name = "TYPE", help_heading = "Message")]
    pub(in crate::cli) job_type: Option<JobTypeArgument>,
    /// An option of the API, such as o:testmode=yes, h:Reply-To=a@b.example or v:name=value; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = option, help_heading = "HTTP")]
    pub(in crate::cli) option: Vec<(String, String)>,
}

/// `--type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum JobTypeArgument {
    /// SMTP sessions
    Smtp,
    /// The form API of Mailgun: URL/messages
    Http,
    /// The same with whole messages: URL/messages.mime
    #[value(name = "http.mime")]
    HttpMime,
    /// Requests to any API: the URL itself
    #[value(name = "http.raw")]
    HttpRaw,
}

impl From<JobTypeArgument> for JobType {
    fn from(argument: JobTypeArgument) -> JobType {
        match argument {
            JobTypeArgument::Smtp => JobType::Smtp,
            JobTypeArgument::Http => JobType::Http,
            JobTypeArgument::HttpMime => JobType::HttpMime,
            JobTypeArgument::HttpRaw => JobType::HttpRaw,
        }
    }
}

fn option(text: &str) -> Result<(String, String), String> {
    let found = text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    found.ok_or_else(|| format!("expected NAME=VALUE, such as o:testmode=yes, got {text:?}"))
}
