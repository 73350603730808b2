//! What `check-signature` says.

use chrono::TimeDelta;
use serde::Serialize;

use crate::app::deliveries::RefReport;
use crate::app::examine::{Examination, Meaning, Proof};
use crate::domain::push::Event;
use crate::domain::revision::Revision;
use crate::domain::routing::Route;
use crate::store::{Verdict, VerdictFor};

use super::text::{age, harmless};

/// The examination of a saved request, as data.
#[derive(Debug, Serialize)]
pub struct SignatureReport {
    repository: String,
    forge: &'static str,
    /// Whether secret and body are right.
    matches: bool,
    /// Why not, in a word and in words.
    refusal: Option<&'static str>,
    reason: Option<String>,
    hints: Vec<String>,
    /// How long ago it was sent, if that alone would have it refused now.
    age_secs: Option<i64>,
    /// Why the server would refuse it before it looks at the proof.
    obstacle: Option<&'static str>,
    /// Why it makes no sense, if it is authentic.
    malformed: Option<String>,
    event: Option<String>,
    key: Option<String>,
    refs: Vec<RefReport>,
    /// What would become of it, if that is decided for the whole.
    status: Option<&'static str>,
    status_reason: Option<String>,
    sites: Vec<SiteVerdict>,
}

#[derive(Debug, Serialize)]
struct SiteVerdict {
    site: String,
    deploys: bool,
    reason: Option<String>,
}

impl From<&Examination> for SignatureReport {
    fn from(examination: &Examination) -> Self {
        let Examination { repository, forge, proof, obstacle, meaning } = examination;
        let (refusal, hints) = match proof {
            Proof::Wrong { refusal, hints } => (Some(refusal), hints.as_slice()),
            Proof::Right | Proof::RightThen(_) => (None, &[][..]),
        };
        let mut report = Self {
            repository: repository.to_string(),
            forge: forge.as_str(),
            matches: proof.is_right(),
            refusal: refusal.map(crate::webhook::Refusal::word),
            reason: refusal.map(ToString::to_string),
            hints: hints.iter().map(ToString::to_string).collect(),
            age_secs: match proof {
                Proof::RightThen(age) => Some(age.num_seconds()),
                Proof::Right | Proof::Wrong { .. } => None,
            },
            obstacle: *obstacle,
            malformed: None,
            event: None,
            key: None,
            refs: Vec::new(),
            status: None,
            status_reason: None,
            sites: Vec::new(),
        };
        match meaning {
            Some(Ok(meaning)) => report.understand(meaning),
            Some(Err(malformed)) => report.malformed = Some(malformed.to_string()),
            None => {}
        }
        report
    }
}

impl SignatureReport {
    fn understand(&mut self, meaning: &Meaning) {
        let Meaning { parsed, verdict } = meaning;
        self.event = Some(parsed.event_name.clone());
        self.key = Some(parsed.key.to_string());
        if let Event::Push(push) = &parsed.event {
            self.refs = push.changes.iter().cloned().map(RefReport::from).collect();
        }
        match verdict {
            Verdict::Whole { status, reason } => {
                (self.status, self.status_reason) = (Some(status.as_str()), reason.clone());
            }
            Verdict::Sites(sites) => self.sites = sites.iter().map(SiteVerdict::of).collect(),
        }
    }

    /// Whether a site would deploy it.
    pub fn deploys(&self) -> bool {
        self.sites.iter().any(|site| site.deploys)
    }

    /// A line for each fact.
    pub fn text(&self) -> String {
        let mut lines = vec![("signature", self.headline())];
        lines.extend(self.hints.iter().map(|hint| ("help", hint.clone())));
        lines.extend(self.age_secs.map(|secs| ("sent", sent(TimeDelta::seconds(secs)))));
        lines.extend(
            self.obstacle.map(|obstacle| ("but", format!("the server would refuse it all the same: {obstacle}"))),
        );
        lines.extend(
            self.event.as_ref().zip(self.key.as_ref()).map(|(event, key)| ("event", format!("{event}, key {key}"))),
        );
        let commit = |id: &Option<Revision>| id.as_ref().map_or("nothing", Revision::short).to_owned();
        lines.extend(self.refs.iter().map(|moved| {
            ("ref", format!("{} from {} to {}", moved.ref_name, commit(&moved.before), commit(&moved.after)))
        }));
        lines.extend(self.malformed.as_ref().map(|reason| ("verdict", format!("malformed: {reason}"))));
        let of = |reason: &Option<String>| reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        lines.extend(self.status.map(|status| ("verdict", format!("{status}{}", of(&self.status_reason)))));
        lines.extend(self.sites.iter().map(|site| {
            let verdict = if site.deploys { "deploys it" } else { "ignores it" };
            ("site", format!("{} {verdict}{}", site.site, of(&site.reason)))
        }));
        lines.iter().map(|(key, value)| format!("{:<12}{}\n", format!("{key}:"), harmless(value))).collect()
    }

    fn headline(&self) -> String {
        self.reason.as_ref().map_or_else(|| "right".to_owned(), |reason| format!("refused, {reason}"))
    }
}

impl SiteVerdict {
    fn of(verdict: &VerdictFor) -> Self {
        let VerdictFor { site, node: _, route } = verdict;
        let (deploys, reason) = match route {
            Route::Deploy(_) => (true, None),
            Route::Ignore(reason) | Route::Skip(_, reason) => (false, Some(reason.clone())),
        };
        Self { site: site.to_string(), deploys, reason }
    }
}

fn sent(ago: TimeDelta) -> String {
    if ago < TimeDelta::zero() {
        return format!("{} ahead of this machine's clock: it would be refused until then", age(-ago));
    }
    format!("{} ago: a replay of it would be refused now", age(ago))
}
