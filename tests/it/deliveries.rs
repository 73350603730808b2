//! What was sent is kept, with why it did (not) deploy, and for a while; what is secret in it is not kept.

use std::process::Command;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Daemon, Delivery, House, Ran, SECRET, Setup, github_signature, names, wait_for};

pub(super) const MAIN: &str = "refs/heads/main";
const TOKEN: &str = "gitlab-token-of-the-shop-0123456789";

pub(super) fn commit(digit: &str) -> String {
    digit.repeat(40)
}

/// A house with `blog` of GitHub and `shop` of GitLab, and something to deploy.
pub(super) fn house() -> House {
    let more = "[repositories.shop]\nurl = \"{house}/origin.git\"\nrepository = \"acme/shop\"\nforge = \"gitlab\"\n\
                secret = { file = \"{house}/token\" }\n\
                [sites.shop]\nrepository = \"shop\"\nbranch = \"main\"\nroot = \"{house}/shop\"\n";
    let house = House::with(&Setup { more, ..Setup::default() });
    house.write_secret("token", TOKEN);
    house.origin.commit(&[("index.html", "one")]);
    house
}

/// An event as GitLab sends it.
pub(super) fn gitlab(id: &str, event: &str, body: &Value) -> Delivery {
    let headers = [
        ("content-type", "application/json"),
        ("x-gitlab-event", event),
        ("idempotency-key", id),
        ("x-gitlab-token", TOKEN),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Delivery { repository: "shop".into(), headers, body: body.to_string().into_bytes() }
}

fn gitlab_push(id: &str, before: &str, after: &str) -> Delivery {
    let body = json!({ "object_kind": "push", "ref": MAIN, "before": before, "after": after, "checkout_sha": after,
        "project": { "id": 15, "path_with_namespace": "acme/shop" } });
    gitlab(id, "Push Hook", &body)
}

pub(super) fn shown(house: &House, id: i64) -> Value {
    house.landfall(&["delivery", &id.to_string(), "--json"]).expect(0).json()
}

pub(super) fn listed(house: &House, args: &[&str]) -> Vec<i64> {
    let list = house.landfall(&[&["deliveries", "--json"], args].concat()).expect(0).json();
    list.as_array().expect("a list").iter().map(|found| found["id"].as_i64().expect("a number")).collect()
}

pub(super) fn redeliver(house: &House, id: i64) -> Ran {
    house.landfall(&["redeliver", &id.to_string(), "--json"])
}

fn hex_digest(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

#[test]
fn a_delivery_tells_everything_about_itself() {
    let house = house();
    let daemon = house.serve();
    let tip = house.origin.head();
    let sent = [
        ("blog", "push", Delivery::push("d1", MAIN, &commit("1"), &tip)),
        ("shop", "Push Hook", gitlab_push("d1", &commit("1"), &tip)),
    ];
    for (number, (repository, event, delivery)) in (1..).zip(&sent) {
        let before = Utc::now();
        house.wait_for_end(daemon.send(delivery).expect(202, "queued").deployment());
        let kept = shown(&house, number);
        let expected = json!({ "id": number, "repository": repository, "key": "d1", "attempt": 1, "event": event,
            "refs": [{ "ref": MAIN, "before": commit("1"), "after": tip }], "status": "queued", "reason": null,
            "sites": [{ "site": repository, "status": "queued", "reason": null, "ref": MAIN,
                "deployment": { "id": number, "state": "succeeded" } }],
            "source": "127.0.0.1", "body_size": delivery.body.len(), "digest": hex_digest(&delivery.body),
            "replay_of": null, "asked_by": null, "body": { "text": String::from_utf8_lossy(&delivery.body) } });
        for (key, value) in expected.as_object().expect("an object") {
            assert_eq!(&kept[key], value, "{key} of {repository}");
        }
        let came: DateTime<Utc> = kept["received_at"].as_str().expect("a time").parse().expect("a time");
        assert!((before - chrono::TimeDelta::seconds(1)..=Utc::now()).contains(&came), "{came}");
        assert!(kept["latency_us"].as_i64().is_some_and(|latency| (1..60_000_000).contains(&latency)), "{kept}");
        let header = |name: &str| {
            let headers = kept["headers"].as_array().expect("a list");
            headers.iter().find(|header| header["name"] == name).map(|header| header["value"].clone())
        };
        for (name, value) in &delivery.headers {
            let value = if name == "x-gitlab-token" { "(redacted)" } else { value };
            assert_eq!(header(name), Some(json!(value)), "{name}");
        }
        assert_eq!(header("host"), Some(json!("x")));
        assert!(kept["headers"].as_array().expect("a list").is_sorted_by_key(|header| header["name"].to_string()));
    }
}

#[test]
fn a_delivery_says_who_matched_and_why_who_did_not() {
    let draft = "[sites.draft]\nrepository = \"blog\"\nbranch = \"draft\"\nroot = \"{house}/draft\"\n";
    let house = House::with(&Setup { more: draft, ..Setup::default() });
    let daemon = house.serve();
    let tip = house.origin.commit(&[("index.html", "one")]);
    daemon.push("d1", &tip).expect(202, "queued");
    daemon.send(&Delivery::github("d2", "issues", "{}".into())).expect(200, "ignored");
    house.wait_for_quiet();
    let sites = shown(&house, 1)["sites"].clone();
    assert_eq!((&sites[0]["site"], &sites[0]["status"]), (&json!("blog"), &json!("queued")));
    let reason = "`refs/heads/main` is not the site's branch `draft`";
    let other = json!({ "site": "draft", "status": "ignored", "reason": reason, "ref": null, "deployment": null });
    assert_eq!(sites[1], other);
    let whole = shown(&house, 2);
    assert_eq!((&whole["reason"], &whole["sites"]), (&json!("event `issues` is no push"), &json!([])));
    let table = house.landfall(&["deliveries"]).expect(0).stdout;
    let rows: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(rows[0], "ID CAME REPOSITORY EVENT REF STATUS ATTEMPT DEPLOYMENT REASON");
    assert!(rows[1].ends_with("ago blog issues - ignored 1 - event `issues` is no push"), "{}", rows[1]);
    assert!(rows[2].ends_with(&format!("ago blog push main queued 1 #1 succeeded draft: {reason}")), "{}", rows[2]);
    let text = house.landfall(&["delivery", "1"]).expect(0).stdout;
    for line in [
        "status:     queued\n",
        "site:       blog queued, refs/heads/main, deployment 1 succeeded\n",
        &format!("site:       draft ignored: {reason}\n"),
        "header:     x-github-event: push\n",
        "\n  \"ref\": \"refs/heads/main\",\n",
    ] {
        assert!(text.contains(line), "`{line}` is not in {text}");
    }
}

#[test]
fn json_of_deliveries_has_the_fields_that_are_documented() {
    let house = house();
    let daemon = house.serve();
    house.wait_for_end(daemon.push("d1", &house.origin.head()).deployment());
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>().join(" ");
    let listed = house.landfall(&["deliveries", "--json"]).expect(0).json();
    assert_eq!(
        keys(&listed[0]),
        "asked_by attempt body_size digest event id key latency_us reason received_at refs replay_of repository sites source \
         status"
    );
    let kept = shown(&house, 1);
    assert_eq!(
        keys(&kept),
        "asked_by attempt attempts body body_size digest event headers id key latency_us reason received_at refs replay_of \
         repository sites source status"
    );
    assert_eq!(keys(&kept["refs"][0]), "after before ref");
    assert_eq!(keys(&kept["sites"][0]), "deployment reason ref site status");
    assert_eq!(keys(&kept["sites"][0]["deployment"]), "id state");
    assert_eq!(keys(&kept["headers"][0]), "name value");
    assert_eq!(keys(&kept["attempts"][0]), "asked_by attempt id received_at replay_of status");
    assert_eq!(keys(&kept["body"]), "text");
    let answer = redeliver(&house, 1).expect(0).json();
    assert_eq!(
        answer,
        json!({ "status": "current", "delivery": 2, "sites": [{ "site": "blog", "status": "current" }],
        "deployments": [] })
    );
    let no_text = Delivery { body: b"\xff".to_vec(), ..Delivery::github("d2", "star", String::new()) };
    let proof = github_signature(SECRET, &no_text.body);
    daemon.send(&no_text.header("x-hub-signature-256", Some(&proof))).expect(200, "ignored");
    assert_eq!(shown(&house, 3)["body"], json!({ "base64": "/w==" }));
    assert!(house.landfall(&["delivery", "3"]).expect(0).stdout.ends_with("\n\n\\xff\n"));
}

#[test]
fn deliveries_are_newest_first_and_end_at_the_limit_and_are_of_a_repository_if_one_is_named() {
    let house = house();
    assert_eq!(listed(&house, &[]), Vec::<i64>::new());
    let daemon = house.serve();
    for id in ["d1", "d2", "d3"] {
        daemon.send(&Delivery::github(id, "ping", "{}".into())).expect(200, "pong");
        daemon.send(&gitlab(id, "Issue Hook", &json!({}))).expect(200, "ignored");
    }
    assert_eq!(listed(&house, &[]), [6, 5, 4, 3, 2, 1]);
    assert_eq!(listed(&house, &["--limit", "2"]), [6, 5]);
    assert_eq!(listed(&house, &["--repository", "shop"]), [6, 4, 2]);
    assert_eq!(listed(&house, &["--repository", "blog", "--limit", "1"]), [5]);
    let ran = house.landfall(&["deliveries", "--repository", "wiki"]).expect(3);
    assert!(ran.stderr.contains("there is no repository `wiki`; configured: blog, shop"), "{}", ran.stderr);
}

#[test]
fn each_arrival_of_an_id_is_an_attempt() {
    let house = house();
    let daemon = house.serve();
    let push = Delivery::push("d1", "refs/heads/draft", &commit("1"), &commit("2"));
    daemon.send(&push).expect(200, "ignored");
    daemon.send(&Delivery::push("d2", "refs/heads/draft", &commit("1"), &commit("2"))).expect(200, "ignored");
    daemon.send(&push).expect(200, "ignored");
    redeliver(&house, 3).expect(4);
    let attempts = shown(&house, 3)["attempts"].clone();
    let told = attempts.as_array().expect("a list").iter().map(|found| {
        (found["id"].as_i64(), found["attempt"].as_i64(), found["replay_of"].as_i64(), found["status"].as_str())
    });
    let expected = [(4, 3, Some(3)), (3, 2, None), (1, 1, None)];
    let expected = expected.map(|(id, attempt, of)| (Some(id), Some(attempt), of, Some("ignored")));
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert_eq!((&shown(&house, 3)["attempt"], &shown(&house, 4)["attempt"]), (&json!(2), &json!(3)));
}

/// Every file of the store, as bytes.
fn store_files(house: &House) -> Vec<u8> {
    let files: Vec<_> = names(&house.state).into_iter().filter(|name| name.starts_with("landfall.db")).collect();
    assert!(files.len() > 1, "the store has a log: {files:?}");
    files.iter().flat_map(|name| std::fs::read(house.state.join(name)).expect("a file of the store")).collect()
}

/// A secret that is spelled in another way in JSON and in a form.
const ODD: &str = "a/\"quoted\"&secret+of 32 bytes!!";
const PROXY: &str = "Basic cHJveHk6aHVudGVyMi1odW50ZXIy";

/// As forms spell it.
fn in_a_form(text: &str) -> String {
    let spell = |byte: u8| match byte {
        b' ' => "+".to_owned(),
        plain if plain.is_ascii_alphanumeric() || b"*-._".contains(&plain) => char::from(plain).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(spell).collect()
}

/// With what proxies and clients add, and a header that has the secret in it.
fn indiscreet(delivery: Delivery, secret: &str) -> Delivery {
    let hidden = delivery.header("authorization", Some(PROXY)).header("cookie", Some("session=crumbs-of-a-login"));
    hidden.header("x-forwarded-secret", Some(&format!("before {secret} after")))
}

/// Deliveries with the secret in their headers and bodies, as old Gitea sends it.
fn indiscreet_deliveries() -> [Delivery; 3] {
    let body = |repository: &str, secret: &str| {
        json!({ "object_kind": "push", "ref": "refs/heads/draft", "before": commit("1"), "after": commit("2"),
            "checkout_sha": commit("2"), "secret": secret, "plain": "this stays",
            "repository": { "full_name": repository }, "project": { "path_with_namespace": repository } })
    };
    let github = |id: &str, media: &str, body: String| {
        let proof = github_signature(ODD, body.as_bytes());
        let delivery = Delivery::github(id, "push", body).header("x-hub-signature-256", Some(&proof));
        indiscreet(delivery.header("content-type", Some(media)), ODD)
    };
    let blog = body("acme/blog", ODD).to_string();
    [
        github("d1", "application/json", blog.clone()),
        // Without an id it is known by its digest, also when the secret in it is not there any more.
        github("d2", "application/x-www-form-urlencoded", format!("payload={}", in_a_form(&blog)))
            .header("x-github-delivery", None),
        indiscreet(gitlab("d3", "Push Hook", &body("acme/shop", TOKEN)), TOKEN),
    ]
}

#[test]
fn nothing_secret_is_kept_shown_or_logged() {
    let house = house();
    house.write_secret("secret", ODD);
    let mut command = house.command(&["serve"]);
    command.env("LANDFALL_LOG", "trace");
    let daemon = Daemon::start(command);
    let mut told = Vec::new();
    for (id, delivery) in (1..).zip(&indiscreet_deliveries()) {
        daemon.send(delivery).expect(200, "ignored");
        told.push(shown(&house, id).to_string());
        told.push(house.landfall(&["delivery", &id.to_string()]).expect(0).stdout);
        let body = shown(&house, id)["body"]["text"].as_str().expect("a text").to_owned();
        assert!(body.contains("(redacted)") && body.contains("plain") && body.contains("stays"), "{body}");
        assert_eq!(shown(&house, id)["digest"], hex_digest(&delivery.body), "of what was sent");
    }
    for id in 1..=3 {
        redeliver(&house, id).expect(4);
        let (sent, again) = (shown(&house, id), shown(&house, id + 3));
        for key in ["digest", "body", "key"] {
            assert_eq!(again[key], sent[key], "{key}");
        }
        assert_eq!(again["attempt"], 2);
        told.push(again.to_string());
    }
    told.push(house.landfall(&["deliveries", "--json"]).expect(0).stdout);
    told.push(String::from_utf8_lossy(&store_files(&house)).into_owned());
    let (code, log) = daemon.stop();
    assert!(code == Some(0) && log.contains("TRACE"), "the log is not as loud as it can be");
    told.push(log);
    let in_json = serde_json::to_string(ODD).expect("JSON").trim_matches('"').to_owned();
    let secrets =
        [ODD, &in_json, &in_a_form(ODD), &in_a_form(&in_json), TOKEN, PROXY, "crumbs-of-a-login", "32 bytes!!"];
    for secret in secrets {
        assert!(told.iter().all(|text| !text.contains(secret)), "{secret} is shown");
    }
}

#[test]
fn more_than_is_kept_is_dropped_when_the_server_starts() {
    let house = house();
    let daemon = house.serve();
    let tip = house.origin.head();
    for id in 0..6 {
        daemon.push(&format!("d{id}"), &tip);
    }
    house.wait_for_quiet();
    drop(daemon);
    assert_eq!(listed(&house, &[]), [6, 5, 4, 3, 2, 1]);
    let deployments = house.deployments();
    house.configure(&Setup { more: "[deliveries]\nkeep_count = 3", ..Setup::default() });
    house.landfall(&["redeliver", "6"]).expect(0);
    assert_eq!(listed(&house, &[]).len(), 7, "a command drops nothing");
    let daemon = house.serve();
    wait_for("the past to go", || (listed(&house, &[]) == [7, 6, 5]).then_some(()));
    wait_for("the log", || daemon.log().contains("dropped 4 deliveries and bodies").then_some(()));
    house.landfall(&["delivery", "4"]).expect(3);
    assert_eq!(house.deployments(), deployments, "no deployment goes");
    assert_eq!(house.live("index.html"), "one");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn nothing_in_a_delivery_moves_the_cursor() {
    let house = house();
    let daemon = house.serve();
    let hostile = "a\u{9b}2Jb\u{202e}c";
    let name = format!("refs/heads/{hostile}");
    let body = json!({ "ref": name, "before": commit("1"), "after": commit("2"), "message": "\u{1b}[2J",
        "repository": { "full_name": "acme/blog" } });
    let raw = body.to_string().replace("\\u001b", "\u{7f}");
    let push = Delivery::github("d1", "push", raw.clone()).header("x-note", Some("tab\there \u{9b}31m"));
    daemon.send(&push).expect(200, "ignored");
    let mut command: Command = house.command(&["redeliver", "1"]);
    assert_eq!(command.env("SUDO_USER", "eve\u{1b}[2J").output().expect("the binary").status.code(), Some(4));
    for args in [&["deliveries"][..], &["delivery", "1"], &["delivery", "2"], &["redeliver", "1"]] {
        let ran = house.landfall(args);
        let text = ran.stdout + &ran.stderr;
        let control = text.chars().find(|letter| letter.is_control() && *letter != '\n');
        assert_eq!(control, None, "{args:?}: {text:?}");
    }
    let text = house.landfall(&["delivery", "2"]).stdout;
    for told in [
        "refs/heads/a\\u{9b}2Jb\\u{202e}c from ",
        "replay:     eve\\u{1b}[2J sent 1 again",
        "x-note: tab\\there \\u{9b}31m",
    ] {
        assert!(text.contains(told), "`{told}` is not in {text}");
    }
    assert_eq!(shown(&house, 1)["body"]["text"], raw, "programs get what was sent");
}

#[test]
fn a_push_of_several_refs_says_which_went_where() {
    let setup = Setup {
        repository: "url = \"{house}/origin.git\"\nforge = \"bitbucket\"",
        more: "[sites.tags]\nrepository = \"blog\"\ntags = \"^v1\"\nroot = \"{house}/tags\"\n",
        ..Setup::default()
    };
    let house = House::with(&setup);
    let tip = house.origin.commit(&[("index.html", "one")]);
    house.origin.git_bare(&["update-ref", "refs/tags/v1", &tip]);
    let daemon = house.serve();
    let side =
        |kind: &str, name: &str| json!({ "type": kind, "name": name, "target": { "type": "commit", "hash": tip } });
    let moved = |kind: &str, name: &str| json!({ "old": null, "new": side(kind, name) });
    let gone = json!({ "old": side("branch", "old"), "new": null });
    let changes = json!([moved("branch", "main"), moved("tag", "v1"), moved("branch", "x"), gone]);
    let body = json!({ "push": { "changes": changes }, "repository": { "full_name": "acme/blog" } }).to_string();
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("x-event-key", "repo:push".to_owned()),
        ("x-request-uuid", "d1".to_owned()),
        ("x-hub-signature", github_signature(SECRET, body.as_bytes())),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value)).into();
    daemon.send(&Delivery { repository: "blog".into(), headers, body: body.into_bytes() }).expect(202, "queued");
    house.wait_for_quiet();
    let kept = shown(&house, 1);
    let refs: Vec<_> = kept["refs"].as_array().expect("a list").iter().map(|moved| moved["ref"].clone()).collect();
    assert_eq!(refs, [MAIN, "refs/tags/v1", "refs/heads/x", "refs/heads/old"]);
    let sites =
        kept["sites"].as_array().expect("a list").iter().map(|site| (site["site"].clone(), site["ref"].clone()));
    assert_eq!(sites.collect::<Vec<_>>(), [(json!("blog"), json!(MAIN)), (json!("tags"), json!("refs/tags/v1"))]);
    let text = house.landfall(&["delivery", "1"]).expect(0).stdout;
    assert!(text.contains("\nsite:       tags queued, refs/tags/v1, deployment 2 succeeded\n"), "{text}");
    assert!(text.contains(&format!("\nref:        refs/heads/x created at {tip}\n")), "{text}");
    assert!(text.contains(&format!("\nref:        refs/heads/old deleted, was at {tip}\n")), "{text}");
    assert!(house.landfall(&["deliveries"]).expect(0).stdout.contains("  main, v1, x, and 1 more  "));
}
