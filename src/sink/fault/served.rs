//! Rules that can never strike, since the sink does not serve what they concern.

use super::phase::FaultPhase;
use super::striker::Faults;

/// What a sink serves of what rules may concern.
#[derive(Clone, Copy, Debug, Default)]
pub struct Served {
    /// SMTP.
    pub smtp: bool,
    /// HTTP.
    pub http: bool,
    /// Connections that begin with TLS, of either.
    pub implicit_tls: bool,
    /// STARTTLS.
    pub starttls: bool,
    /// AUTH.
    pub logins: bool,
}

impl Served {
    /// What a rule of this phase lacks to ever strike.
    fn lacks(self, phase: FaultPhase) -> Option<&'static str> {
        let Served { smtp, http, implicit_tls, starttls, logins } = self;
        let (is_there, what) = match phase {
            FaultPhase::Connect => (true, ""),
            FaultPhase::Http => (http, "HTTP"),
            FaultPhase::Auth => (logins, "AUTH"),
            FaultPhase::StartTls => (starttls, "STARTTLS"),
            FaultPhase::Tls => (starttls || implicit_tls, "TLS"),
            _ => (smtp, "SMTP"),
        };
        (!is_there).then_some(what)
    }
}

impl Faults {
    /// What is to be said of the rules that can never strike at a sink that serves no more than this.
    pub fn warnings(&self, served: Served) -> Vec<String> {
        let warning = |(rule, _): (&super::Rule, u64)| {
            let what = served.lacks(rule.phase)?;
            Some(format!("{rule}: it never strikes, since this sink does not serve {what}"))
        };
        self.rules().filter_map(warning).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::FaultCounters;

    #[test]
    fn rules_that_can_never_strike_are_named() {
        let rules = ["connect=drop", "tls=expired", "starttls=454", "auth=535", "rcpt=451", "http=503"];
        let faults = Faults::new(rules.map(|rule| rule.parse().unwrap()), FaultCounters::default()).unwrap();
        let all = Served { smtp: true, http: true, implicit_tls: false, starttls: true, logins: true };
        assert_eq!(faults.warnings(all), Vec::<String>::new());
        let idle = |served: Served| {
            let warnings = faults.warnings(served);
            warnings.iter().map(|warning| warning.split(':').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            idle(Served { smtp: true, ..Served::default() }),
            ["tls=expired", "starttls=454", "auth=535", "http=503"]
        );
        assert_eq!(
            idle(Served { smtp: true, implicit_tls: true, logins: true, ..Served::default() }),
            ["starttls=454", "http=503"]
        );
        assert_eq!(
            idle(Served { http: true, ..Served::default() }),
            ["tls=expired", "starttls=454", "auth=535", "rcpt=451"]
        );
        let said = "http=503: it never strikes, since this sink does not serve HTTP";
        assert_eq!(faults.warnings(Served { http: false, ..all }), [said]);
    }
}
