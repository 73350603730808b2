//! Deliveries as text: in columns, and one of them with everything it said. What others wrote is shown, and does nothing.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::app::deliveries::{Attempt, Body, DeliveryDetails, DeliveryReport, RefReport, SiteDecision};

use super::text::{age, facts, harmless, nothing, short_ref, table};

/// Deliveries, a line each.
pub fn deliveries(deliveries: &[DeliveryReport], now: DateTime<Utc>) -> String {
    let header = ["ID", "CAME", "REPOSITORY", "EVENT", "REF", "STATUS", "ATTEMPT", "DEPLOYMENT", "REASON"];
    let rows = deliveries.iter().map(|delivery| {
        [
            delivery.id.to_string(),
            format!("{} ago", age(now - delivery.received_at)),
            delivery.repository.to_string(),
            harmless(&delivery.event),
            refs(&delivery.refs),
            delivery.status.to_owned(),
            delivery.attempt.to_string(),
            led_to(&delivery.sites),
            harmless(&reasons(delivery)),
        ]
    });
    table(header, rows)
}

/// The first of them; some forges tell of dozens at once.
fn refs(refs: &[RefReport]) -> String {
    let shown: Vec<_> = refs.iter().take(SHOWN_REFS).map(|moved| short_ref(&moved.ref_name)).collect();
    match refs.len().saturating_sub(SHOWN_REFS) {
        0 if shown.is_empty() => nothing(),
        0 => shown.join(", "),
        more => format!("{}, and {more} more", shown.join(", ")),
    }
}

fn led_to(sites: &[SiteDecision]) -> String {
    let led: Vec<_> = sites.iter().filter_map(|site| site.deployment.as_ref()).collect();
    let words: Vec<_> = led.iter().map(|deployment| format!("#{} {}", deployment.id, deployment.state)).collect();
    if words.is_empty() { nothing() } else { words.join(", ") }
}

/// Why it went as it did; of several sites each with its name.
fn reasons(delivery: &DeliveryReport) -> String {
    let is_only = delivery.sites.len() == 1;
    let of_site = |site: &SiteDecision| match (&site.reason, is_only) {
        (Some(reason), true) => Some(reason.clone()),
        (Some(reason), false) => Some(format!("{}: {reason}", site.site)),
        (None, _) => None,
    };
    let of_sites = delivery.sites.iter().filter_map(of_site);
    let replay = replay(delivery.replay_of, delivery.asked_by.as_deref());
    replay.into_iter().chain(delivery.reason.clone()).chain(of_sites).collect::<Vec<_>>().join("; ")
}

fn replay(of: Option<i64>, asked_by: Option<&str>) -> Option<String> {
    Some(format!("{} sent {} again", asked_by.unwrap_or("somebody"), of?))
}

/// Everything there is about a delivery.
pub fn delivery(details: &DeliveryDetails, now: DateTime<Utc>) -> String {
    let DeliveryDetails { delivery, headers, body, attempts } = details;
    let came = delivery.received_at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let took = delivery.latency_us.map(|micros| format!(", decided in {}.{} ms", micros / 1000, micros % 1000 / 100));
    let mut lines = vec![
        ("delivery", delivery.id.to_string()),
        ("repository", delivery.repository.to_string()),
        ("event", harmless(&delivery.event)),
        ("key", delivery.key.clone()),
        ("came", format!("{came} ({} ago){}", age(now - delivery.received_at), took.unwrap_or_default())),
    ];
    lines.extend(delivery.source.as_ref().map(|source| ("from", source.clone())));
    lines.extend(replay(delivery.replay_of, delivery.asked_by.as_deref()).map(|replay| ("replay", harmless(&replay))));
    lines.extend(delivery.refs.iter().map(|moved| ("ref", moved_ref(moved))));
    lines.push(("status", with_reason(delivery.status, delivery.reason.as_deref())));
    lines.extend(delivery.sites.iter().map(|site| ("site", decision(site))));
    lines.extend(attempts.iter().map(|found| ("attempt", attempt(found))));
    lines.push(("digest", delivery.digest.clone()));
    lines.extend(headers.iter().map(|header| ("header", harmless(&format!("{}: {}", header.name, header.value)))));
    let size = delivery.body_size.map_or_else(|| "of unknown size".into(), |size| format!("{size} bytes"));
    let fate = if body.is_some() { "" } else { ", not kept" };
    lines.push(("body", size + fate));
    let body = body.as_ref().map(|body| format!("\n{}\n", readable(body)));
    facts(&lines) + &body.unwrap_or_default()
}

fn moved_ref(moved: &RefReport) -> String {
    let RefReport { ref_name, before, after } = moved;
    let name = harmless(ref_name);
    match (before, after) {
        (Some(before), Some(after)) => format!("{name} from {before} to {after}"),
        (None, Some(after)) => format!("{name} created at {after}"),
        (Some(before), None) => format!("{name} deleted, was at {before}"),
        (None, None) => name,
    }
}

fn with_reason(status: &str, reason: Option<&str>) -> String {
    reason.map_or_else(|| status.to_owned(), |reason| format!("{status}: {}", harmless(reason)))
}

fn decision(site: &SiteDecision) -> String {
    let SiteDecision { site, status, reason, ref_name, deployment } = site;
    let of_ref = ref_name.as_ref().map(|name| format!(", {}", harmless(name))).unwrap_or_default();
    let led = deployment.as_ref().map(|led| format!(", deployment {} {}", led.id, led.state)).unwrap_or_default();
    format!("{site} {}{of_ref}{led}", with_reason(status, reason.as_deref()))
}

fn attempt(attempt: &Attempt) -> String {
    let Attempt { id, attempt, status, received_at, replay_of, asked_by } = attempt;
    let came = received_at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let replay = replay(*replay_of, asked_by.as_deref()).map(|replay| format!(", {}", harmless(&replay)));
    format!("{attempt} is delivery {id}, {status}, {came}{}", replay.unwrap_or_default())
}

/// JSON is laid out in lines, without a change to any of its tokens; anything else is as it came.
fn readable(body: &Body) -> String {
    match body {
        Body::Text(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => {
            harmless_lines(&laid_out(text))
        }
        Body::Text(text) => harmless_lines(text),
        Body::Base64(bytes) => bytes.utf8_chunks().fold(String::new(), |mut shown, chunk| {
            shown += &harmless_lines(chunk.valid());
            shown.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
            shown
        }),
    }
}

/// Not by way of values: these would lose keys that are there twice, and digits of numbers.
fn laid_out(json: &str) -> String {
    let (mut text, mut depth, mut in_string, mut is_escaped) = (String::new(), 0_usize, false, false);
    let mut last = ' ';
    for letter in json.chars() {
        if in_string {
            text.push(letter);
            in_string = is_escaped || letter != '"';
            is_escaped = !is_escaped && letter == '\\';
            continue;
        }
        let line = |depth: usize| format!("\n{}", "  ".repeat(depth));
        match letter {
            ' ' | '\t' | '\r' | '\n' => continue,
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !matches!(last, '{' | '[') {
                    text += &line(depth);
                }
            }
            _ if matches!(last, '{' | '[' | ',') => text += &line(depth),
            _ => {}
        }
        text.push(letter);
        match letter {
            '{' | '[' => depth += 1,
            ':' => text.push(' '),
            '"' => in_string = true,
            _ => {}
        }
        last = letter;
    }
    text
}

fn harmless_lines(text: &str) -> String {
    text.split('\n').map(harmless).collect::<Vec<_>>().join("\n")
}

/// As many as a line has room for.
const SHOWN_REFS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_without_a_change_to_its_tokens() {
        let table = [
            ("{}", "{}"),
            ("[ ]", "[]"),
            ("7.10", "7.10"),
            (r#"{"a":1,"a":[true, null]}"#, "{\n  \"a\": 1,\n  \"a\": [\n    true,\n    null\n  ]\n}"),
            (r#"{"a{[,:\"]}\\":{}}"#, "{\n  \"a{[,:\\\"]}\\\\\": {}\n}"),
            ("{\"a\":\r\n\t\" b\"}", "{\n  \"a\": \" b\"\n}"),
        ];
        for (json, expected) in table {
            assert_eq!(readable(&Body::Text(json.into())), expected, "{json}");
        }
    }

    #[test]
    fn nothing_in_a_body_or_a_header_does_anything_to_a_terminal() {
        let hostile = "a\u{1b}[2J\u{9b}1m\u{202e}b\r\tc\u{7f}é\\";
        assert_eq!(harmless(hostile), "a\\u{1b}[2J\\u{9b}1m\\u{202e}b\\r\\tc\\u{7f}é\\");
        assert_eq!(readable(&Body::Text(format!("{hostile}\nx"))), format!("{}\nx", harmless(hostile)));
        assert_eq!(readable(&Body::Base64(b"a\x1b\xff\nb".into())), "a\\u{1b}\\xff\nb");
    }

    #[test]
    fn of_many_refs_the_first_are_named_and_the_others_counted() {
        let moved = |name: &str| RefReport { ref_name: name.into(), before: None, after: None };
        let names = ["refs/heads/a", "refs/tags/b", "refs/x/c", "refs/heads/d", "refs/heads/e"].map(moved);
        assert_eq!(refs(&[]), "-");
        assert_eq!(refs(&names[..3]), "a, b, refs/x/c");
        assert_eq!(refs(&names), "a, b, refs/x/c, and 2 more");
    }
}
