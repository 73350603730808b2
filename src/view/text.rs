//! Text for a terminal: columns, ages, and nothing in it that could move the cursor.

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use crate::app::orders::Chunk;
use crate::app::report::{DeploymentReport, ReleaseReport, SiteReport};
use crate::domain::deployment::Entry;
use crate::store::JournalLine;

/// All sites, a line each.
pub fn sites(sites: &[SiteReport], now: DateTime<Utc>) -> String {
    let header = ["SITE", "LIVE", "COMMIT", "AGE", "LAST DEPLOYMENT", "NOW", "HOLD"];
    let rows = sites.iter().map(|site| {
        let live = site.live.as_ref();
        let last = site.last.as_ref().map(|last| format!("#{} {}", last.id, last.state));
        [
            site.site.to_string(),
            live.map_or_else(
                || site.problem.as_ref().map_or_else(nothing, |_| "?".into()),
                |live| live.release.to_string(),
            ),
            live.map_or_else(nothing, |live| live.commit.short().to_owned()),
            live.map_or_else(nothing, |live| age(now - live.made_at)),
            last.unwrap_or_else(nothing),
            now_of(site),
            site.hold.as_ref().map_or_else(nothing, |hold| harmless(&hold.reason)),
        ]
    });
    table(header, rows)
}

fn now_of(site: &SiteReport) -> String {
    let running = site.running.as_ref().map(|running| match running.step {
        Some(step) => format!("#{} {step}", running.id),
        None => format!("#{}", running.id),
    });
    let queued = site.queued.as_ref().map(|queued| format!("#{} queued", queued.id));
    let words: Vec<_> = [running, queued].into_iter().flatten().collect();
    if words.is_empty() { nothing() } else { words.join(", ") }
}

/// One site, a line for each fact.
pub fn site(site: &SiteReport, now: DateTime<Utc>) -> String {
    let mut lines = vec![
        ("site", site.site.to_string()),
        ("repository", format!("{}, {}", site.repository, site.refs)),
        ("root", site.root.clone()),
    ];
    match &site.live {
        Some(live) => {
            lines.push((
                "live",
                format!("{} ({} ago, by deployment {})", live.release, age(now - live.made_at), live.deployment),
            ));
            lines.push(("commit", live.commit.to_string()));
        }
        None => lines.push(("live", site.problem.as_deref().map_or_else(|| "nothing yet".into(), harmless))),
    }
    lines.extend(site.running.as_ref().map(|running| ("running", headline(running))));
    lines.extend(site.queued.as_ref().map(|queued| ("queued", headline(queued))));
    lines.extend(site.last.as_ref().map(|last| ("last", headline(last))));
    if let Some(hold) = &site.hold {
        let since = age(now - hold.since);
        lines.push((
            "hold",
            format!(
                "{}, by {} {since} ago; `landfall deploy {}` lifts it",
                harmless(&hold.reason),
                harmless(&hold.owner),
                site.site
            ),
        ));
    }
    facts(&lines)
}

/// A line for each fact.
pub(super) fn facts(lines: &[(&str, String)]) -> String {
    lines.iter().fold(String::new(), |mut text, (key, value)| {
        writeln!(text, "{:<12}{value}", format!("{key}:")).unwrap_or_default();
        text
    })
}

/// Releases, a line each.
pub fn releases(releases: &[ReleaseReport], now: DateTime<Utc>) -> String {
    let header = ["RELEASE", "COMMIT", "AGE", "DEPLOYMENT", ""];
    let rows = releases.iter().map(|release| {
        let mark = match (release.live, release.rolled_away) {
            (true, _) => "live",
            (false, true) => "rolled away from",
            (false, false) => "",
        };
        [
            release.release.to_string(),
            release.commit.short().to_owned(),
            age(now - release.made_at),
            release.deployment.to_string(),
            mark.to_owned(),
        ]
    });
    table(header, rows)
}

/// Deployments, a line each.
pub fn deployments(deployments: &[DeploymentReport], now: DateTime<Utc>) -> String {
    let header = ["ID", "SITE", "KIND", "STATE", "REF", "COMMIT", "BY", "QUEUED", "TOOK", "REASON"];
    let rows = deployments.iter().map(|deployment| {
        let took = deployment.started_at.zip(deployment.finished_at).map(|(from, to)| duration(to - from));
        [
            deployment.id.to_string(),
            deployment.site.to_string(),
            deployment.kind.to_string(),
            deployment.state.to_string(),
            deployment.ref_name.as_deref().map_or_else(nothing, short_ref),
            deployment.commit.as_ref().map_or_else(nothing, |commit| commit.short().to_owned()),
            deployment.requested_by.as_deref().map_or_else(|| deployment.trigger.to_string(), harmless),
            format!("{} ago", age(now - deployment.queued_at)),
            took.unwrap_or_else(nothing),
            deployment.reason.as_deref().map_or_else(String::new, harmless),
        ]
    });
    table(header, rows)
}

/// A deployment in a line: number, state, and why or where.
pub fn headline(deployment: &DeploymentReport) -> String {
    let mut text = format!("deployment {} {}", deployment.id, deployment.state);
    let superseded = deployment.superseded_by.map(|newer| format!("by deployment {newer}"));
    if let Some(reason) = superseded.or_else(|| deployment.reason.as_deref().map(harmless)) {
        write!(text, ": {reason}").unwrap_or_default();
        return text;
    }
    if let Some(release) = &deployment.release {
        write!(text, ": {} is at {release}", deployment.site).unwrap_or_default();
    }
    text
}

/// A journal, a line for each entry with its time.
pub fn journal(lines: &[JournalLine]) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        let at = line.at.to_rfc3339_opts(SecondsFormat::Millis, true);
        writeln!(text, "{at}  {}", harmless(&entry(&line.entry))).unwrap_or_default();
        text
    })
}

fn entry(entry: &Entry) -> String {
    match entry {
        Entry::Claimed => "a worker takes it".into(),
        Entry::Entered(step) => format!("{step} begins"),
        Entry::Resolved(revision) => format!("the tip is {revision}"),
        Entry::Hook(hook) => format!("runs hook {hook}"),
        Entry::HookIgnored { hook, end } => format!("hook {hook} {end}, which is allowed"),
        Entry::WillUndo(undo) => format!("a failure from here on will {undo}"),
        Entry::Decided => "decided: from here on a crash is recovered forward".into(),
        Entry::Failed(failure) => format!("fails: {failure}"),
        Entry::Undone(undo) => format!("taken back: {undo}"),
        Entry::Warning(text) => format!("warning: {text}"),
        Entry::Finished(outcome) => format!("ends as {}", outcome.state()),
    }
}

/// A log as it is printed: each file under its name, which begins a line whatever the file before it ended with.
#[derive(Debug, Default)]
pub struct LogText {
    is_within_line: bool,
}

impl LogText {
    /// The next bytes to print.
    pub fn next(&mut self, chunk: &Chunk) -> Vec<u8> {
        let mut text = Vec::new();
        if chunk.begins {
            let end = if self.is_within_line { "\n" } else { "" };
            text.extend_from_slice(format!("{end}── {}\n", harmless(&chunk.name)).as_bytes());
        }
        text.extend_from_slice(&chunk.bytes);
        self.is_within_line = text.last().is_some_and(|last| *last != b'\n');
        text
    }

    /// What comes after the last bytes, before anything else is printed.
    pub fn end(self) -> &'static str {
        if self.is_within_line { "\n" } else { "" }
    }
}

/// A ref as people write it.
pub(super) fn short_ref(name: &str) -> String {
    let short = name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/"));
    harmless(short.unwrap_or(name))
}

/// Text of others in one line: what could move the cursor, or change the order of letters, is spelled out.
pub fn harmless(text: &str) -> String {
    text.chars().fold(String::new(), |mut shown, letter| {
        match letter {
            // Our own reasons have several lines.
            '\n' => shown.push(' '),
            _ if letter.is_control() || INVISIBLE.iter().any(|range| range.contains(&letter)) => {
                shown.extend(letter.escape_default());
            }
            _ => shown.push(letter),
        }
        shown
    })
}

pub(super) fn nothing() -> String {
    "-".into()
}

/// How long ago, in the largest unit that says something.
pub(super) fn age(time: TimeDelta) -> String {
    let seconds = time.num_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn duration(time: TimeDelta) -> String {
    let millis = time.num_milliseconds().max(0);
    if millis < 60_000 { format!("{}.{} s", millis / 1000, millis % 1000 / 100) } else { age(time) }
}

/// Left-aligned columns, two spaces apart. An empty list is the header alone.
pub(super) fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = [header.map(str::to_owned)].into_iter().chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// Letters without a shape: they separate lines, turn the direction of writing, or hide.
const INVISIBLE: [std::ops::RangeInclusive<char>; 6] = [
    '\u{61c}'..='\u{61c}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{feff}'..='\u{feff}',
    '\u{e0000}'..='\u{e007f}',
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_in_the_largest_unit_that_says_something() {
        let table = [(-5, "0 s"), (119, "119 s"), (120, "2 min"), (7_199, "119 min"), (7_200, "2 h"), (172_800, "2 d")];
        for (seconds, expected) in table {
            assert_eq!(age(TimeDelta::seconds(seconds)), expected);
        }
        assert_eq!(duration(TimeDelta::milliseconds(1_250)), "1.2 s");
        assert_eq!(duration(TimeDelta::seconds(180)), "3 min");
    }

    #[test]
    fn columns_line_up_and_nothing_moves_the_cursor() {
        let rows = [["blog".to_owned(), harmless("a\u{1b}[2Jb\nc")], ["s".to_owned(), String::new()]];
        assert_eq!(table(["SITE", "HOLD"], rows.into_iter()), "SITE  HOLD\nblog  a\\u{1b}[2Jb c\ns\n");
    }
}
