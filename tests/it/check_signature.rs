//! Why a webhook is (not) believed: `check-signature` with what a person saved, and the server's log for what came.

use std::io::Write;
use std::process::{Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

use crate::support::{Delivery, House, Ran, SECRET, Setup, github_signature, wait_for};

const SIGNING_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDazkIxYDE5xg=";
const SHOP_SECRET: &str = "0123456789abcdef0123456789abcdef-shop";

/// A house that also has the repository `shop`.
fn house() -> House {
    let more = "[repositories.shop]\nurl = \"{house}/origin.git\"\nrepository = \"acme/shop\"\nforge = \"github\"\n\
                secret = { file = \"{house}/shop\" }\n";
    let house = House::with(&Setup { more, ..Setup::default() });
    house.write_secret("shop", SHOP_SECRET);
    house
}

fn push(ref_name: &str) -> Delivery {
    Delivery::push("d1", ref_name, &"0".repeat(40), &"1".repeat(40))
}

/// Saves a delivery as a person would, and asks.
fn check(house: &House, delivery: &Delivery, more: &[&str]) -> Ran {
    let lines: String = delivery.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    std::fs::write(house.path().join("headers"), lines).expect("a file");
    std::fs::write(house.path().join("body"), &delivery.body).expect("a file");
    check_files(house, &delivery.repository, more)
}

fn check_files(house: &House, repository: &str, more: &[&str]) -> Ran {
    let path = |name: &str| house.path().join(name).display().to_string();
    let (headers, body) = (path("headers"), path("body"));
    house.landfall(&[&["check-signature", repository, "--headers", &headers, "--body", &body], more].concat())
}

/// The value of a line of the answer.
fn line(ran: &Ran, key: &str) -> String {
    let found = ran.stdout.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
    found.unwrap_or_else(|| panic!("no `{key}` in {ran:?}")).trim().to_owned()
}

/// The value of the header that GitHub proves itself with.
fn proof(delivery: &Delivery) -> String {
    let found = delivery.headers.iter().find(|(name, _)| name == "x-hub-signature-256");
    found.map(|(_, value)| value.clone()).expect("a signature")
}

#[test]
fn a_webhook_that_is_believed_is_told_what_becomes_of_it() {
    let house = house();
    let ran = check(&house, &push("refs/heads/main"), &[]).expect(0);
    assert_eq!(line(&ran, "signature"), "right");
    assert_eq!(line(&ran, "event"), "push, key d1");
    assert_eq!(line(&ran, "ref"), "refs/heads/main from nothing to 1111111");
    assert_eq!(line(&ran, "site"), "blog deploys it");

    let ran = check(&house, &push("refs/heads/draft"), &[]).expect(0);
    assert_eq!(line(&ran, "site"), "blog ignores it: `refs/heads/draft` is not the site's branch `main`");
    let ran = check(&house, &Delivery::github("d2", "ping", "{}".into()), &[]).expect(0);
    assert_eq!(line(&ran, "verdict"), "pong");
    let ran = check(&house, &Delivery::github("d3", "issues", "{}".into()), &[]).expect(0);
    assert_eq!(line(&ran, "verdict"), "ignored: event `issues` is no push");
    let ran = check(&house, &Delivery::github("d4", "push", "{}".into()), &[]).expect(0);
    let verdict = line(&ran, "verdict");
    assert!(verdict.starts_with("malformed: ") && verdict.contains("missing field `ref`"), "{ran:?}");
    let text = push("refs/heads/main").header("content-type", Some("text/plain"));
    assert!(
        line(&check(&house, &text, &[]).expect(0), "but").ends_with("its `content-type` is none that the forge sends")
    );
    assert!(!house.state.exists(), "a question makes nothing");
}

#[test]
fn a_webhook_that_is_not_believed_is_told_why_and_what_would_have_matched() {
    let house = house();
    let good = push("refs/heads/main");
    let text = String::from_utf8(good.body.clone()).expect("JSON");
    let came = |body: String| Delivery { body: body.into(), ..good.clone() };
    let of_key = |key: &str| good.clone().header("x-hub-signature-256", Some(&github_signature(key, &good.body)));
    let table = [
        (came(text.clone() + "\n"), "would match if the body had no newline at its end"),
        (came(text.replace(',', ", ").replace(':', ": ")), "would match if the body had its JSON without white space"),
        (came(String::new()), "the body is empty"),
        (of_key(&format!("{SECRET}\n")), "would match if the configured secret ended with a newline"),
        (of_key(SHOP_SECRET), "would match with the secret of repository `shop`"),
    ];
    for (delivery, hint) in table {
        let ran = check(&house, &delivery, &[]).expect(1);
        assert!(line(&ran, "signature").starts_with("refused, header `x-hub-signature-256` does not match"), "{ran:?}");
        assert!(line(&ran, "help").starts_with(hint), "{hint}: {ran:?}");
        assert!(!ran.stdout.contains("site:") && !ran.stdout.contains("event:"), "what is not believed is not read");
    }
    let cut = came(text[..20].to_owned()).header("content-length", Some("200"));
    assert_eq!(
        line(&check(&house, &cut, &[]).expect(1), "help"),
        "the body has 20 bytes, but `content-length` says 200"
    );
    let bare = good.clone().header("x-hub-signature-256", None);
    assert!(line(&check(&house, &bare, &[]).expect(1), "signature").contains("is absent"));
    let forged = check(&house, &of_key("another secret of some length"), &[]).expect(1);
    assert!(!forged.stdout.contains("help:"), "{forged:?}");

    // The operator's own mistake: a blank line in the secret's file.
    house.write_secret("secret", &format!("{SECRET}\n\n"));
    let ran = check(&house, &good, &[]).expect(1);
    assert_eq!(line(&ran, "help"), "would match if the configured secret had no newline at its end");
}

#[test]
fn an_old_signature_is_right_and_a_replay_of_it_would_be_refused() {
    let mut house =
        House::with(&Setup { repository: "url = \"/nowhere.git\"\nforge = \"gitlab\"", ..Setup::default() });
    house.leave_unclean();
    house.write_secret("secret", SIGNING_SECRET);
    let body = json!({ "object_kind": "push", "ref": "refs/heads/main", "before": "0".repeat(40), "after": "1".repeat(40),
        "project": { "path_with_namespace": "acme/blog" } });
    let sent = |ago: TimeDelta| {
        let (body, time) = (body.to_string(), (Utc::now() - ago).timestamp().to_string());
        let key = STANDARD.decode(SIGNING_SECRET.trim_start_matches("whsec_")).expect("base64");
        let mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key").chain_update(format!("d1.{time}.{body}"));
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        let headers = [
            ("content-type", "application/json"),
            ("x-gitlab-event", "Push Hook"),
            ("webhook-id", "d1"),
            ("webhook-timestamp", &time),
            ("webhook-signature", &signature),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Delivery { repository: "blog".into(), headers, body: body.into_bytes() }
    };
    let ran = check(&house, &sent(TimeDelta::zero()), &[]).expect(0);
    assert!(!ran.stdout.contains("sent:"), "{ran:?}");
    let ran = check(&house, &sent(TimeDelta::days(3)), &[]).expect(0);
    assert_eq!(line(&ran, "signature"), "right");
    assert_eq!(line(&ran, "sent"), "3 d ago: a replay of it would be refused now");
    assert_eq!(line(&ran, "site"), "blog deploys it");
    let report = check(&house, &sent(TimeDelta::days(-3)), &["--json"]).expect(0).json();
    assert!(report["age_secs"].as_i64().is_some_and(|age| (-259_200..-259_000).contains(&age)), "{report}");
    let mut changed = sent(TimeDelta::days(3));
    changed.body.push(b' ');
    let ran = check(&house, &changed, &[]).expect(1);
    assert!(line(&ran, "help").starts_with("would match if the body had no white space around it"), "{ran:?}");
}

#[test]
fn the_same_is_told_to_programs() {
    let house = house();
    let report = check(&house, &push("refs/heads/draft"), &["--json"]).expect(0).json();
    let expected = json!({ "repository": "blog", "forge": "github", "matches": true, "refusal": null, "reason": null,
        "hints": [], "age_secs": null, "obstacle": null, "malformed": null, "event": "push", "key": "d1",
        "refs": [{ "ref": "refs/heads/draft", "before": null, "after": "1".repeat(40) }],
        "status": null, "status_reason": null, "sites": [{ "site": "blog", "deploys": false,
            "reason": "`refs/heads/draft` is not the site's branch `main`" }] });
    assert_eq!(report, expected);
    let mut changed = push("refs/heads/main");
    changed.body.push(b'\n');
    let report = check(&house, &changed, &["--json"]).expect(1).json();
    assert_eq!(
        (&report["matches"], &report["refusal"], &report["event"]),
        (&json!(false), &json!("mismatch"), &json!(null))
    );
    assert_eq!(report["hints"].as_array().map(Vec::len), Some(1), "{report}");
}

#[test]
fn a_request_is_read_as_it_was_saved() {
    let house = house();
    let good = push("refs/heads/main");
    let lines = |before: &str| -> String {
        good.headers.iter().map(|(name, value)| format!("{before}{name}: {value}\r\n")).collect()
    };
    std::fs::write(house.path().join("body"), &good.body).expect("a file");
    for saved in [
        format!("POST /hooks/blog HTTP/1.1\r\n{}\r\n", lines("")),
        format!("Request URL: https://example.com/hooks/blog\nRequest method: POST\n{}", lines("")),
        format!("*   Trying 192.0.2.1:443...\n> POST /hooks/blog HTTP/2\n{}> \n< HTTP/2 401 \n< x: y\n", lines("> ")),
    ] {
        std::fs::write(house.path().join("headers"), &saved).expect("a file");
        assert_eq!(line(&check_files(&house, "blog", &[]).expect(0), "signature"), "right", "{saved}");
    }
    let piped = |args: &[&str], input: &[u8]| -> Output {
        let mut command = house.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary");
        child.stdin.take().expect("a pipe").write_all(input).expect("it listens");
        child.wait_with_output().expect("an end")
    };
    let (headers, body) = (house.path().join("headers"), house.path().join("body"));
    let (headers, body) = (headers.to_str().expect("UTF-8"), body.to_str().expect("UTF-8"));
    let of_body = piped(&["check-signature", "blog", "--headers", headers, "--body", "-"], &good.body);
    let of_headers = piped(&["check-signature", "blog", "--headers", "-", "--body", body], lines("").as_bytes());
    assert_eq!((of_body.status.code(), of_headers.status.code()), (Some(0), Some(0)), "{of_body:?} {of_headers:?}");

    let fails = |args: &[&str], code: i32, text: &str| {
        let ran = house.landfall(&[&["check-signature"], args].concat()).expect(code);
        assert!(ran.stderr.contains(text) && ran.stdout.is_empty(), "{ran:?}");
    };
    fails(&["blog", "--headers", "-", "--body", "-"], 2, "only one of --headers and --body can be `-`");
    fails(&["blog", "--headers", "/nowhere", "--body", body], 2, "cannot read `/nowhere`");
    fails(&["blog", "--headers", body, "--body", body], 2, "line 1 does not begin with the name of a header");
    fails(
        &["nobody", "--headers", headers, "--body", body],
        3,
        "there is no repository `nobody`; configured: blog, shop",
    );
}

#[test]
fn neither_a_secret_nor_a_signature_is_shown() {
    let house = house();
    let good = push("refs/heads/main");
    let key = format!("{SECRET}\n");
    let other = good.clone().header("x-hub-signature-256", Some(&github_signature(&key, &good.body)));
    let mut changed = good.clone();
    changed.body.push(b'\n');
    let right = proof(&good)["sha256=".len()..].to_owned();
    let right_of_changed = github_signature(SECRET, &changed.body)["sha256=".len()..].to_owned();
    let token = good.clone().header("x-gitlab-token", Some(SECRET)).header("x-hub-signature-256", None);
    for delivery in [&good, &other, &changed, &token] {
        for more in [&[][..], &["--json"]] {
            let ran = check(&house, delivery, more);
            for hidden in [SECRET, SHOP_SECRET, &right, &right_of_changed, &proof(&other)["sha256=".len()..]] {
                assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(hidden), "{ran:?}");
            }
        }
    }
}

#[test]
fn the_log_says_what_would_have_matched_in_one_line_and_the_sender_is_told_nothing() {
    let house = house();
    let daemon = house.serve();
    let good = push("refs/heads/main");
    let mut changed = good.clone();
    changed.body.push(b'\n');
    let wrong_url = Delivery { repository: "shop".into(), ..good.clone() };
    let forged = good.clone().header("x-hub-signature-256", Some(&github_signature("forged with this", &good.body)));
    // Refused by its head alone, before there is a body.
    let stranger = good.clone().header("x-hub-signature-256", None).header("x-github-event", None);
    let stranger = stranger.header("x-gitlab-event", Some("Push Hook"));
    let answers: Vec<_> = [&changed, &wrong_url, &forged, &stranger].map(|delivery| daemon.send(delivery).body).into();
    assert!(answers.iter().all(|body| body == "{\"status\":\"unauthorized\"}"), "{answers:?}");
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0));
    let refusals: Vec<_> = log.lines().filter(|line| line.contains("refused a delivery")).collect();
    let [changed_line, url_line, forged_line, stranger_line] = refusals[..] else { panic!("{log}") };
    assert!(changed_line.contains("(help: would match if the body had no newline at its end: "), "{changed_line}");
    assert!(url_line.contains("(help: would match with the secret of repository `blog`: "), "{url_line}");
    assert!(!forged_line.contains("help:"), "{forged_line}");
    let hint = "is absent: is a secret set on the forge? (help: header `x-gitlab-event` is one of `gitlab`, but `github` is \
                configured) repository=blog";
    assert!(stranger_line.contains(hint), "{stranger_line}");
    for (line, keys) in
        [(changed_line, "repository=blog"), (url_line, "repository=shop"), (forged_line, "repository=blog")]
    {
        assert!(line.ends_with(&format!("{keys} source=127.0.0.1")), "{line}");
    }
    for hidden in [SECRET, SHOP_SECRET, &proof(&good)[7..], &github_signature(SECRET, &changed.body)[7..]] {
        assert!(!log.contains(hidden), "{log}");
    }
}

#[test]
fn each_refusal_is_counted_with_its_reason_also_those_that_are_not_logged() {
    let house = house();
    let daemon = house.serve();
    let good = push("refs/heads/main");
    let bare = good.clone().header("x-hub-signature-256", None);
    let mut changed = good.clone();
    changed.body.push(b'\n');
    for _ in 0..12 {
        daemon.send(&changed);
    }
    for _ in 0..3 {
        daemon.send(&bare);
    }
    daemon.send(&Delivery { repository: "shop".into(), ..bare });
    wait_for("the refusal of the other repository", || daemon.log().contains("repository=shop").then_some(()));
    let (_, log) = daemon.stop();
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(count("refused a delivery"), 11, "{log}");
    assert_eq!(count("help:"), 10, "a hint costs more than a number: {log}");
    assert_eq!(count("refused deliveries since the start: 15 (absent 3, mismatch 12) repository=blog"), 1, "{log}");
    assert_eq!(count("refused deliveries since the start: 1 (absent 1) repository=shop"), 1, "{log}");
    house.check();
}

#[test]
fn whoever_sends_large_rubbish_does_not_buy_work_with_it() {
    let house = house();
    let daemon = house.serve();
    let mut small = push("refs/heads/main");
    small.body.push(b'\n');
    // Can be written in many ways, and none of them is what was signed.
    let rubbish = format!("[ {}0]", "\"\u{fc}/<\", ".repeat(15_500));
    let mut large = Delivery::github("d1", "push", rubbish);
    large.body[..2].copy_from_slice(b" [");
    let mut too_large = small.clone();
    too_large.body = vec![b' '; 128 << 10];
    too_large.body.push(b' ');
    let sent = [vec![&small], vec![&large; 7], vec![&small, &too_large]].concat();
    for delivery in sent {
        daemon.send(delivery);
    }
    let (_, log) = daemon.stop();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("refused a delivery")).collect();
    let told = |text: &str| lines.iter().map(|line| line.contains(text)).collect::<Vec<_>>();
    let [first, last] = [0, 9].map(|number| (0..10).map(|index| index == number).collect::<Vec<_>>());
    assert_eq!(told("had no newline at its end"), first, "the minute's effort is spent: {log}");
    assert_eq!(told("has more than 131072 bytes"), last, "{log}");
}
