//! `timecop alert`.

use super::args::{AlertArguments, AlertCommand, AlertTestArguments};
use super::output::say;
use super::{NOT_ALL_ACCEPTED, OK, StartError, resources};
use crate::alert::queue::Answer;
use crate::config::Config;
use crate::control::alert::{Client, test_events};
use crate::shard::clock::wall_now;

pub(super) fn run(arguments: &AlertArguments) -> Result<u8, StartError> {
    match &arguments.command {
        AlertCommand::Test(arguments) => test(arguments),
    }
}

/// Sends an alert and its end, one after the other, and says what was answered.
fn test(arguments: &AlertTestArguments) -> Result<u8, StartError> {
    let config = Config::load(&arguments.config).map_err(StartError::new)?;
    let Some(pagerduty) = &config.pagerduty else {
        let file = arguments.config.display();
        return Err(StartError::new(format!("{file}: expected [alert.pagerduty] with a routing_key_file, got none")));
    };
    let source = config.smtp.hostname.clone().unwrap_or_else(resources::host_name);
    let client = Client::new(pagerduty);
    let mut code = OK;
    let events = test_events(&source, wall_now(), pagerduty.client_url.clone());
    for (what, event) in ["trigger", "resolve"].into_iter().zip(events) {
        let told = client.tell(&event);
        let status = told.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        say(format_args!("{what}: {status}: {}", told.words))?;
        if told.answer != Answer::Taken {
            code = NOT_ALL_ACCEPTED;
        }
    }
    Ok(code)
}
