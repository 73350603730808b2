//! The webhook door: what becomes of each kind of delivery, and what nobody gets in with.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{Answer, Daemon, Delivery, House, SECRET, Setup, github_signature, request, source, wait_for};

const MAIN: &str = "refs/heads/main";
const GITLAB_TOKEN: &str = "gitlab-token-of-the-shop-0123456789";
const OLD_TOKEN: &str = "gitlab-token-before-the-rotation";
const SIGNING_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDazkIxYDE5xg=";

fn zeros() -> String {
    "0".repeat(40)
}

fn commit(digit: &str) -> String {
    digit.repeat(40)
}

/// A house with three repositories: `blog` of GitHub, `shop` of GitLab with a token, `mall` of GitLab with a signature.
fn house() -> House {
    let table = |name: &str, secret: &str| {
        format!(
            "[repositories.{name}]\nurl = \"{{house}}/origin.git\"\nrepository = \"acme/{name}\"\nforge = \"gitlab\"\n\
             secret = {secret}\n[sites.{name}]\nrepository = \"{name}\"\nbranch = \"main\"\nroot = \"{{house}}/{name}\"\n"
        )
    };
    let more = table("shop", "[{ file = \"{house}/old\" }, { file = \"{house}/token\" }]")
        + &table("mall", "{ file = \"{house}/signing\" }");
    let mut house = House::with(&Setup::default());
    for (name, secret) in [("old", OLD_TOKEN), ("token", GITLAB_TOKEN), ("signing", SIGNING_SECRET)] {
        house.write_secret(name, secret);
    }
    house.configure(&Setup { more: &more, ..Setup::default() });
    house.origin.commit(&[("index.html", "one")]);
    // What a story of this file has queued may be in the middle when it is over.
    house.leave_unclean();
    house
}

/// A push as GitLab sends it, without any proof.
fn gitlab(repository: &str, id: &str, before: &str, after: &str) -> Delivery {
    let body = json!({ "object_kind": "push", "event_name": "push", "ref": MAIN, "before": before, "after": after,
        "checkout_sha": after, "project": { "path_with_namespace": format!("acme/{repository}") } });
    gitlab_event(repository, id, "Push Hook", &body)
}

fn gitlab_event(repository: &str, id: &str, event: &str, body: &Value) -> Delivery {
    let headers = [("content-type", "application/json"), ("x-gitlab-event", event), ("idempotency-key", id)];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Delivery { repository: repository.into(), headers, body: body.to_string().into_bytes() }
}

fn with_token(delivery: Delivery) -> Delivery {
    delivery.header("x-gitlab-token", Some(GITLAB_TOKEN))
}

/// Signs as Standard Webhooks has it, as if it were sent this many seconds from now.
fn signed(delivery: Delivery, seconds: i64) -> Delivery {
    let timestamp = (Utc::now().timestamp() + seconds).to_string();
    let key = STANDARD.decode(SIGNING_SECRET.trim_start_matches("whsec_")).expect("base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
    mac.update(format!("id-1.{timestamp}.").as_bytes());
    mac.update(&delivery.body);
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    delivery
        .header("webhook-id", Some("id-1"))
        .header("webhook-timestamp", Some(&timestamp))
        .header("webhook-signature", Some(&signature))
}

/// Waits until the server has logged this.
fn wait_for_log(daemon: &Daemon, text: &str) {
    wait_for(&format!("`{text}` in the log"), || daemon.log().contains(text).then_some(()));
}

/// What was answered, apart from the date.
fn without_date(answer: &Answer) -> String {
    let mut head: Vec<_> = answer.head.lines().filter(|line| !line.starts_with("date: ")).collect();
    // Their order is another one in each of the server's threads.
    head.sort();
    format!("{}\n\n{}", head.join("\n"), answer.body)
}

fn raw(daemon: &Daemon, head: &str, body: &[u8]) -> Answer {
    request(&daemon.address, &head.replace('\n', "\r\n"), body)
}

#[test]
fn the_answer_to_a_push_has_the_shape_of_the_contract() {
    let house = House::new();
    let gate = house.gate("build");
    let commit = house.origin.commit(&[(".landfall/after.pull", &gate.hook())]);
    let daemon = house.serve();
    let answer = daemon.push("d1", &commit);
    assert_eq!(answer.status, 202);
    assert!(answer.head.contains("\r\ncontent-type: application/json"), "{}", answer.head);
    assert_eq!(
        answer.body,
        r#"{"status":"queued","delivery":1,"sites":[{"site":"blog","status":"queued"}],"deployments":[{"id":1,"site":"blog","state":"queued"}]}"#
    );
    gate.wait_for(1);
    assert_eq!(
        daemon.push("d1", &commit).body,
        r#"{"status":"duplicate","delivery":2,"sites":[{"site":"blog","status":"duplicate"}],"deployments":[{"id":1,"site":"blog","state":"running"}]}"#
    );
    gate.open();
    house.wait_for_quiet();
    assert_eq!(
        daemon.push("d1", &commit).body,
        r#"{"status":"current","delivery":3,"sites":[{"site":"blog","status":"current"}],"deployments":[]}"#
    );
    let other = Delivery::push("d2", "refs/heads/draft", &zeros(), &commit);
    assert_eq!(
        daemon.send(&other).body,
        r#"{"status":"ignored","reason":"`refs/heads/draft` is not the site's branch `main`","delivery":4,"sites":[{"site":"blog","status":"ignored","reason":"`refs/heads/draft` is not the site's branch `main`"}],"deployments":[]}"#
    );
    let ping = Delivery::github("d3", "ping", "{}".into());
    assert_eq!(daemon.send(&ping).body, r#"{"status":"pong","delivery":5,"sites":[],"deployments":[]}"#);
}

#[test]
fn each_authentic_delivery_of_github_is_answered_by_the_table_of_the_contract() {
    let house = house();
    let daemon = house.serve();
    let push = |name: &str, after: &str| Delivery::push("d", name, &commit("1"), after);
    let body = |repository: &str, deleted: bool| {
        json!({ "ref": MAIN, "before": commit("1"), "after": commit("2"), "deleted": deleted, "forced": true,
            "repository": { "full_name": repository } })
        .to_string()
    };
    let form = format!("payload={}", body("acme/blog", true).replace('"', "%22").replace(' ', "+"));
    let form = Delivery::github("d", "push", form)
        .header("content-type", Some("application/x-www-form-urlencoded; charset=utf-8"));
    let fixture = |event: &str, name: &str| {
        let path = source().join("fixtures/webhooks/github").join(name);
        Delivery::github("d", event, std::fs::read_to_string(path).expect("a fixture"))
    };
    let table = [
        ("a ping", Delivery::github("d", "ping", "{}".into()), "pong", ""),
        ("GitHub's own ping", fixture("ping", "ping.json"), "pong", ""),
        ("a push that moves nothing", push(MAIN, &commit("1")), "pong", ""),
        ("another event", Delivery::github("d", "issues", "{}".into()), "ignored", "event `issues` is no push"),
        ("an event that is no JSON", Delivery::github("d", "star", "?".into()), "ignored", "event `star` is no push"),
        ("a branch of no site", push("refs/heads/main2", &commit("2")), "ignored", "`refs/heads/main2` is not"),
        ("a tag named like the branch", push("refs/tags/main", &commit("2")), "ignored", "`refs/tags/main` is not"),
        ("GitHub's own tag", fixture("push", "tag.json"), "ignored", "is not the site's branch"),
        (
            "another repository",
            Delivery::github("d", "push", body("acme/shop", false)),
            "ignored",
            "another repository",
        ),
        ("a deletion by its id", push(MAIN, &zeros()), "ignored", "`refs/heads/main` was deleted"),
        ("a deletion of 64 zeros", push(MAIN, &"0".repeat(64)), "ignored", "`refs/heads/main` was deleted"),
        ("a deletion by its flag", Delivery::github("d", "push", body("acme/blog", true)), "ignored", "was deleted"),
        ("GitHub's own deletion", fixture("push", "delete.json"), "ignored", "deleted"),
        ("a form", form, "ignored", "`refs/heads/main` was deleted"),
    ];
    for (what, delivery, status, reason) in table {
        let answer = daemon.send(&delivery);
        assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some(status)), "{what}: {answer:?}");
        assert!(answer.json()["reason"].as_str().unwrap_or_default().contains(reason), "{what}: {answer:?}");
        assert_eq!(answer.json()["deployments"], json!([]), "{what}");
    }
    assert_eq!(house.deployments(), Vec::<Value>::new());
}

#[test]
fn a_push_of_any_kind_deploys_the_tip_of_the_branch() {
    let house = house();
    let tip = house.origin.head();
    let daemon = house.serve();
    let forced = json!({ "ref": MAIN, "before": commit("1"), "after": tip, "forced": true, "created": false,
        "repository": { "full_name": "Acme/Blog", "unknown": [{}] } });
    let form = forced.to_string().bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let table = [
        ("a created branch", Delivery::push("d1", MAIN, &zeros(), &tip), "succeeded"),
        ("an id of 64 digits", Delivery::push("d2", MAIN, &"1".repeat(64), &"a".repeat(64)), "current"),
        ("an id in capitals", Delivery::push("d3", MAIN, &commit("1"), &commit("A")), "current"),
    ];
    for (what, delivery, state) in table {
        let answer = daemon.send(&delivery).expect(202, "queued");
        assert_eq!(house.wait_for_end(answer.deployment())["state"], state, "{what}");
    }
    assert_eq!((house.live("index.html").as_str(), house.releases().len()), ("one", 1));
    let form = Delivery::github("d4", "push", format!("a=b&payload={form}"))
        .header("content-type", Some("application/x-www-form-urlencoded"));
    daemon.send(&form).expect(200, "current");
}

#[test]
fn an_authentic_delivery_that_makes_no_sense_is_400_with_the_reason() {
    let house = house();
    let daemon = house.serve();
    let sound = json!({ "ref": MAIN, "before": commit("1"), "after": commit("2"),
        "repository": { "full_name": "acme/blog" } });
    let with = |key: &str, value: Value| {
        let mut changed = sound.clone();
        changed[key] = value;
        Delivery::github("d", "push", changed.to_string())
    };
    let text = |text: &str| Delivery::github("d", "push", text.to_owned());
    let form = |text: &str| {
        Delivery::github("d", "push", text.to_owned()).header("content-type", Some("application/x-www-form-urlencoded"))
    };
    let twice = sound.to_string().replacen('{', "{\"ref\":\"refs/heads/draft\",", 1);
    let twice_below = sound.to_string().replace("\"full_name\"", "\"full_name\":\"evil/blog\",\"full_name\"");
    let escaped = sound.to_string().replacen('{', "{\"r\\u0065f\":\"refs/heads/draft\",", 1);
    let mut no_utf8 = sound.to_string().into_bytes();
    no_utf8.push(0xff);
    let no_utf8 = Delivery { body: no_utf8.clone(), ..text("") }
        .header("x-hub-signature-256", Some(&github_signature(SECRET, &no_utf8)));
    let nested = "[".repeat(100_000);
    let table = [
        ("nothing", text(""), "EOF"),
        ("no JSON", text("ref=main"), "expected"),
        ("JSON that goes on", text(&format!("{sound}{sound}")), "trailing"),
        ("a list", text("[]"), ""),
        ("a tower", text(&nested), "recursion limit"),
        ("no UTF-8", no_utf8, "not UTF-8"),
        ("a key twice", text(&twice), "`ref` is there twice"),
        ("a key twice, once in disguise", text(&escaped), "`ref` is there twice"),
        ("a key twice further down", text(&twice_below), "`full_name` is there twice"),
        ("no ref", text(&sound.to_string().replace("\"ref\"", "\"fer\"")), "missing field `ref`"),
        ("a ref of no namespace", with("ref", json!("main")), "no full ref name"),
        ("a ref that climbs", with("ref", json!("refs/heads/../../etc")), "no full ref name"),
        ("a ref with a newline", with("ref", json!("refs/heads/main\n")), "no full ref name"),
        ("a ref that is a number", with("ref", json!(7)), "expected a string"),
        ("39 digits", with("after", json!("a".repeat(39))), "`after`: a commit id has 40 or 64 hex digits, not 39"),
        ("no digit", with("after", json!("g".repeat(40))), "`after`: a commit id has hex digits only"),
        ("an option", with("before", json!(format!("--upload-pack={}", "a".repeat(26)))), "`before`: a commit id"),
        ("no event", text("{}").header("x-github-event", None), "header `x-github-event` is absent"),
        ("a form without a payload", form("a=b"), "no field `payload`"),
        ("a form with two payloads", form("payload={}&payload={}"), "more than once"),
        ("a form with half an escape", form("payload=%7"), ""),
    ];
    for (what, delivery, reason) in table {
        let proof = github_signature(SECRET, &delivery.body);
        let answer = daemon.send(&delivery.header("x-hub-signature-256", Some(&proof)));
        assert_eq!((answer.status, answer.json()["status"].as_str()), (400, Some("malformed")), "{what}: {answer:?}");
        let given = answer.json()["reason"].as_str().expect("a reason").to_owned();
        assert!(!given.is_empty() && given.len() < 400 && given.contains(reason), "{what}: {given}");
    }
    assert_eq!(house.deployments(), Vec::<Value>::new());
}

#[test]
fn whoever_cannot_prove_it_gets_the_very_same_401_and_the_operator_the_reason() {
    let house = house();
    let daemon = house.serve();
    let good = Delivery::push("d", MAIN, &zeros(), &house.origin.head());
    let proof = |value: &str| good.clone().header("x-hub-signature-256", Some(value));
    let right = github_signature(SECRET, &good.body);
    let mut twice = good.clone();
    twice.headers.push(("x-hub-signature-256".into(), right.clone()));
    let mut changed = good.clone();
    changed.body.push(b' ');
    let other_door = Delivery { repository: "shop".into(), ..good.clone() };
    let table = [
        (proof(""), "does not begin with `sha256=`"),
        (proof(&right.replace("sha256", "sha1")), "does not begin with `sha256=`"),
        (proof("sha256="), "a signature of 0 characters"),
        (proof(&right[..70]), "a signature of 63 characters"),
        (proof(&format!("{right}0")), "a signature of 65 characters"),
        (proof(&right.replace("sha256=", "sha256=g")[..71]), "something else than hex digits"),
        (proof(&github_signature("another secret of 16 bytes", &good.body)), "`x-hub-signature-256` does not match"),
        (twice, "was sent more than once"),
        (good.clone().header("x-hub-signature-256", None), "`x-hub-signature-256` is absent"),
        (proof("").header("x-hub-signature-256", None).header("x-hub-signature", Some("sha1=00")), "only a SHA-1"),
    ];
    let mut answers: Vec<_> = table.iter().map(|(delivery, _)| daemon.send(delivery)).collect();
    for (_, reason) in &table {
        wait_for_log(&daemon, reason);
    }
    // From here on the log is silent about this repository, for a while.
    answers.push(daemon.send(&changed));
    answers.push(daemon.send(&other_door));
    for _ in 0..50 {
        answers.push(daemon.send(&proof(&right[..70])));
    }
    let first = without_date(&answers[0]);
    assert!(first.contains("http/1.1 401 ") && first.ends_with("{\"status\":\"unauthorized\"}"), "{first}");
    assert!(answers.iter().all(|answer| without_date(answer) == first), "{answers:?}");
    daemon.send(&good).expect(202, "queued");
    wait_for_log(&daemon, "delivery 1: queued");
    let is_refusal =
        |line: &&str| line.contains("refused a delivery") && line.ends_with("repository=blog source=127.0.0.1");
    assert_eq!(daemon.log().lines().filter(is_refusal).count(), 10, "{}", daemon.log());
}

#[test]
fn a_gitlab_token_opens_its_own_door_only() {
    let house = house();
    let daemon = house.serve();
    let good = gitlab("shop", "d1", &zeros(), &house.origin.head());
    let token = |value: &str| good.clone().header("x-gitlab-token", Some(value));
    let mut twice = with_token(good.clone());
    twice.headers.push(("x-gitlab-token".into(), GITLAB_TOKEN.into()));
    let by_github = good.clone().header("x-hub-signature-256", Some(&github_signature(GITLAB_TOKEN, &good.body)));
    let refused = [
        (good.clone(), "`x-gitlab-token` is absent"),
        (token(""), "`x-gitlab-token` does not match"),
        (token(&GITLAB_TOKEN[1..]), "does not match"),
        (token(&format!("{GITLAB_TOKEN}x")), "does not match"),
        (token(SECRET), "does not match"),
        (twice, "more than once"),
        (signed(good.clone(), 0), "a signature was sent, but the configured secret is a plain token"),
        (by_github, "is absent"),
    ];
    for (delivery, reason) in &refused {
        let answer = daemon.send(delivery);
        assert_eq!((answer.status, answer.body.as_str()), (401, "{\"status\":\"unauthorized\"}"), "{reason}");
        wait_for_log(&daemon, reason);
    }
    let accepted = daemon.send(&with_token(good)).expect(202, "queued");
    house.wait_for_end(accepted.deployment());
    let live = std::fs::read_to_string(house.path().join("shop/current/index.html")).expect("a live file");
    assert_eq!(live, "one");
}

#[test]
fn each_of_several_secrets_opens_the_door_while_one_is_being_replaced() {
    let house = house();
    let daemon = house.serve();
    let test = |token: &str| gitlab("shop", "d", &commit("1"), &commit("1")).header("x-gitlab-token", Some(token));
    daemon.send(&test(OLD_TOKEN)).expect(200, "pong");
    daemon.send(&test(GITLAB_TOKEN)).expect(200, "pong");
    assert_eq!(daemon.send(&test("gitlab-token-that-nobody-knows")).status, 401);
}

#[test]
fn each_authentic_delivery_of_gitlab_is_answered_by_the_table_of_the_contract() {
    let house = house();
    let daemon = house.serve();
    let moved = |kind: &str, name: &str, after: &str, checkout: Value, project: &str| {
        let event = if kind == "push" { "Push Hook" } else { "Tag Push Hook" };
        let body = json!({ "object_kind": kind, "ref": name, "before": commit("1"), "after": after,
            "checkout_sha": checkout, "project": { "path_with_namespace": project } });
        gitlab_event("shop", "d", event, &body)
    };
    let tag = "refs/tags/v1";
    let table = [
        ("a test", moved("push", MAIN, &commit("1"), json!(commit("1")), "acme/shop"), 200, "pong", ""),
        (
            "a tag",
            moved("tag_push", tag, &commit("2"), json!(commit("2")), "acme/shop"),
            200,
            "ignored",
            "refs/tags/v1",
        ),
        ("a deletion", moved("push", MAIN, &zeros(), Value::Null, "acme/shop"), 200, "ignored", "was deleted"),
        (
            "another project",
            moved("push", MAIN, &commit("2"), json!(commit("2")), "x/y"),
            200,
            "ignored",
            "another repo",
        ),
        (
            "another branch",
            moved("push", "refs/heads/a", &commit("2"), json!(commit("2")), "acme/shop"),
            200,
            "ignored",
            "refs/heads/a",
        ),
        (
            "another event",
            gitlab_event("shop", "d", "Merge Request Hook", &json!({})),
            200,
            "ignored",
            "Merge Request Hook",
        ),
        ("a bad id", moved("push", MAIN, "HEAD", json!("HEAD"), "acme/shop"), 400, "malformed", "`after`"),
        (
            "a kind that lies",
            moved("issue", MAIN, &commit("2"), json!(commit("2")), "acme/shop"),
            400,
            "malformed",
            "object_kind",
        ),
        ("no JSON", Delivery { body: b"?".to_vec(), ..gitlab("shop", "d", "", "") }, 400, "malformed", "expected"),
    ];
    for (what, delivery, status, word, reason) in table {
        let answer = daemon.send(&with_token(delivery));
        assert_eq!((answer.status, answer.json()["status"].as_str()), (status, Some(word)), "{what}: {answer:?}");
        assert!(answer.json()["reason"].as_str().unwrap_or_default().contains(reason), "{what}: {answer:?}");
    }
    assert_eq!(house.deployments(), Vec::<Value>::new());
}

#[test]
fn a_signature_of_standard_webhooks_counts_for_five_minutes_and_nothing_less_counts_at_all() {
    let house = house();
    let daemon = house.serve();
    let test = || gitlab("mall", "d", &commit("1"), &commit("1"));
    let good = signed(test(), 0);
    let value = |name: &str| good.headers.iter().find(|(found, _)| found == name).expect("a header").1.clone();
    let signature = value("webhook-signature");
    let proof = |value: &str| good.clone().header("webhook-signature", Some(value));
    let mut changed = good.clone();
    changed.body.push(b' ');
    let wrong = format!("v1,{}", STANDARD.encode([7; 32]));
    let refused = [
        (signed(test(), -330), "s old: a replay"),
        (signed(test(), 330), "ahead of this machine's clock"),
        (
            test().header("x-gitlab-token", Some(SIGNING_SECRET)),
            "a token was sent, but the configured secret is a signing",
        ),
        (test(), "`webhook-signature` is absent"),
        (proof(&wrong).header("x-gitlab-token", Some(SIGNING_SECRET)), "`webhook-signature` does not match"),
        (changed, "does not match"),
        (good.clone().header("webhook-id", Some("id-2")), "does not match"),
        (good.clone().header("webhook-id", None), "`webhook-id` is absent"),
        (good.clone().header("webhook-timestamp", Some("soon")), "no number of seconds"),
        (proof(&signature.replace("v1,", "v1a,")), "no entry of version `v1`"),
    ];
    for (delivery, reason) in &refused {
        let answer = daemon.send(delivery);
        assert_eq!((answer.status, answer.body.as_str()), (401, "{\"status\":\"unauthorized\"}"), "{reason}");
        wait_for_log(&daemon, reason);
    }
    for accepted in [signed(test(), -270), signed(test(), 270), proof(&format!("v2,x {wrong} {signature}")), good] {
        daemon.send(&accepted).expect(200, "pong");
    }
}

#[test]
fn what_is_no_webhook_is_named_and_refused() {
    let house = House::new();
    let daemon = house.serve();
    let head = |first: &str, more: &str| format!("{first} HTTP/1.1\nhost: x\nconnection: close\n{more}\n");
    let json = "content-type: application/json\ncontent-length: 2\n";
    let post = "POST /hooks/blog";
    let many: String = (0..97).map(|number| format!("x-{number}: 1\n")).collect();
    let table = [
        ("unknown repository", head("POST /hooks/shop", json), 404, "not_found"),
        ("a name that is none", head("POST /hooks/..%2fblog", json), 404, "not_found"),
        ("unknown path", head("POST /hook/blog", json), 404, "not_found"),
        ("a path below", head("POST /hooks/blog/x", json), 404, "not_found"),
        ("GET", head("GET /hooks/blog", ""), 405, "method_not_allowed"),
        ("PUT", head("PUT /hooks/blog", json), 405, "method_not_allowed"),
        ("DELETE", head("DELETE /hooks/blog", ""), 405, "method_not_allowed"),
        ("gzip", head(post, &format!("{json}content-encoding: gzip\n")), 415, "unsupported"),
        ("no media type", head(post, "content-length: 2\n"), 415, "unsupported"),
        ("text", head(post, "content-length: 2\ncontent-type: text/plain\n"), 415, "unsupported"),
        ("a length over the limit", head(post, &json.replace(": 2", ": 26214401")), 413, "too_large"),
        ("two lengths", head(post, &format!("{json}content-length: 3\n")), 400, ""),
        ("a length and chunks", head(post, &format!("{json}transfer-encoding: chunked\n")), 400, ""),
        ("no length at all", head(post, "content-type: application/json\n"), 401, "unauthorized"),
        ("more headers than anyone sends", head("GET /healthz", &many), 431, ""),
        ("no HTTP", "hello\n\n".into(), 400, ""),
    ];
    for (what, head, status, word) in table {
        let has_body = head.contains("content-length: ") || head.contains("chunked");
        let answer = raw(&daemon, &head, if has_body { b"{}" } else { b"" });
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        if !word.is_empty() {
            assert_eq!(answer.json()["status"], word, "{what}: {answer:?}");
        }
        let allow = answer.head.lines().find(|line| line.starts_with("allow: "));
        assert_eq!(allow, (status == 405).then_some("allow: post"), "{what}");
        assert!(!answer.head.contains("\r\nlocation: "), "{what}");
    }
    assert_eq!(daemon.get("/healthz").status, 200);
}

#[test]
fn strangers_cannot_fill_the_log() {
    let house = House::new();
    let daemon = house.serve();
    let before = daemon.log();
    for _ in 0..20 {
        assert_eq!(raw(&daemon, "hello\n\n", b"").status, 400);
        assert_eq!(raw(&daemon, "POST /hooks/nobody HTTP/1.1\nhost: x\nconnection: close\n\n", b"").status, 404);
    }
    let (_, log) = daemon.stop();
    let said = log.strip_prefix(&before).expect("the same log");
    assert_eq!(said.lines().count(), 2, "more than the signal and the end:\n{said}");
}

#[test]
fn a_body_over_the_limit_is_refused_also_when_it_comes_in_pieces() {
    let setup = Setup { more: "", ..Setup::default() };
    let house = House::with(&setup);
    let text = std::fs::read_to_string(&house.config).expect("a configuration");
    std::fs::write(&house.config, text.replace("[server]", "[server]\nbody_limit = \"64KiB\""))
        .expect("a configuration");
    let daemon = house.serve();
    let body = format!("{{{}}}", " ".repeat(65_534));
    let answer = daemon.send(&Delivery::github("d", "ping", body));
    assert_eq!(answer.status, 200, "{answer:?}");
    let head = format!(
        "POST /hooks/blog HTTP/1.1\nhost: x\ncontent-type: application/json\nx-hub-signature-256: {}\n\
         transfer-encoding: chunked\n\n",
        github_signature(SECRET, b"another body")
    );
    let chunks: String = (0..5).map(|_| format!("4000\r\n{}\r\n", "x".repeat(0x4000))).collect();
    let answer = raw(&daemon, &head, format!("{chunks}0\r\n\r\n").as_bytes());
    assert_eq!((answer.status, answer.json()["status"].as_str()), (413, Some("too_large")));
    assert!(answer.head.contains("\r\nconnection: close"), "{}", answer.head);
}

#[test]
fn a_chunked_body_is_verified_as_the_bytes_that_it_stands_for() {
    let house = House::new();
    let daemon = house.serve();
    let proof = github_signature(SECRET, b"{ \"zen\": 1 }");
    let head = format!(
        "POST /hooks/blog HTTP/1.1\nhost: x\nconnection: close\ncontent-type: application/json\nx-github-event: ping\n\
         x-hub-signature-256: {proof}\ntransfer-encoding: chunked\n\n"
    );
    raw(&daemon, &head, b"5\r\n{ \"ze\r\n7\r\nn\": 1 }\r\n0\r\n\r\n").expect(200, "pong");
}

#[test]
#[ignore = "takes 10 s: tests/run.sh has the time"]
fn a_body_that_does_not_come_is_not_waited_for() {
    let house = House::new();
    let daemon = house.serve();
    let head = format!(
        "POST /hooks/blog HTTP/1.1\nhost: x\ncontent-type: application/json\nx-hub-signature-256: {}\n\
         content-length: 100\n\n",
        github_signature(SECRET, b"{")
    );
    let answer = raw(&daemon, &head, b"{");
    assert_eq!((answer.status, answer.json()["status"].as_str()), (408, Some("timeout")));
}

#[test]
fn a_delivery_that_cannot_be_stored_is_503_and_is_taken_when_it_comes_again() {
    let house = House::new();
    let commit = house.origin.commit(&[("index.html", "one")]);
    // A limit of 0 makes every write to a file fail, as a full disk does; the signal is ignored, as a service's usually is.
    let serve = house.command(&["serve"]);
    let mut deaf = std::process::Command::new("bash");
    deaf.args(["-c", "trap '' XFSZ; exec \"$@\"", "bash"]).arg(serve.get_program());
    deaf.args(serve.get_args()).env_clear();
    deaf.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let daemon = Daemon::start(deaf);
    let limit_files = |limit: &str| {
        let args = ["--pid", &daemon.pid().to_string(), &format!("--fsize={limit}:unlimited")];
        assert!(std::process::Command::new("prlimit").args(args).status().expect("prlimit, of util-linux").success());
    };
    limit_files("0");
    for _ in 0..3 {
        let answer = daemon.push("lost", &commit);
        assert_eq!((answer.status, answer.json()["status"].as_str()), (503, Some("unavailable")), "{answer:?}");
        assert!(answer.head.contains("\r\nretry-after: 30"), "{}", answer.head);
        let ready = daemon.get("/readyz");
        assert_eq!((ready.status, &ready.json()["checks"]["store"]["ok"]), (503, &json!(false)), "{ready:?}");
    }
    assert_eq!(daemon.get("/healthz").status, 200);
    assert_eq!(house.deployments(), Vec::<Value>::new(), "what was refused is not there");

    // There is room again, and the very same process takes pushes.
    limit_files("unlimited");
    assert_eq!(daemon.get("/readyz").status, 200, "{}", daemon.log());
    let answer = daemon.push("lost", &commit).expect(202, "queued");
    assert_eq!(house.wait_for_end(answer.deployment())["state"], "succeeded");
}

#[test]
fn a_delivery_that_was_answered_is_on_disk() {
    let house = House::new();
    for round in 0..4 {
        let (content, daemon) = (round.to_string(), house.serve());
        let commit = house.origin.commit(&[("index.html", &content)]);
        let answer = daemon.push(&format!("d{round}"), &commit).expect(202, "queued");
        daemon.kill();
        let daemon = house.serve();
        assert!(!house.deployment(answer.deployment()).is_null());
        house.wait_for_quiet();
        assert_eq!(house.live("index.html"), content);
        let (code, _) = daemon.stop();
        assert_eq!(code, Some(0));
    }
}

#[test]
fn a_service_that_stops_ends_its_work_and_takes_no_more() {
    let house = House::new();
    let gate = house.gate("build");
    let commit = house.origin.commit(&[("index.html", "one"), (".landfall/after.pull", &gate.hook())]);
    let mut daemon = house.serve();
    let running = daemon.push("d1", &commit).expect(202, "queued").deployment();
    gate.wait_for(1);
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    let refused = wait_for("a refusal", || {
        let answer = daemon.push("d2", &commit);
        (answer.status != 202).then_some(answer)
    });
    assert_eq!((refused.status, refused.json()["status"].as_str()), (503, Some("unavailable")), "{refused:?}");
    assert!(refused.head.contains("\r\nretry-after: 30"), "{}", refused.head);
    let ready = daemon.get("/readyz");
    assert_eq!((ready.status, &ready.json()["checks"]["draining"]["ok"]), (503, &json!(false)), "{ready:?}");
    assert_eq!(daemon.get("/healthz").status, 200);
    gate.open();
    let (code, log) = daemon.wait();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(house.deployment(running)["state"], "succeeded");
    assert_eq!(house.live("index.html"), "one");
}

#[test]
fn no_secret_is_ever_logged_or_answered() {
    let house = house();
    let mut command = house.command(&["serve"]);
    command.env("LANDFALL_LOG", "trace");
    let daemon = Daemon::start(command);
    let head = house.origin.head();
    let deliveries = [
        Delivery::push("d1", MAIN, &zeros(), &head),
        Delivery::push("d2", MAIN, &zeros(), &head).header("x-hub-signature-256", Some(SECRET)),
        Delivery::github("d3", SECRET, "{}".into()).header("x-hub-signature-256", None),
        with_token(gitlab("shop", "d4", &zeros(), &head)),
        gitlab("shop", "d5", &zeros(), &head).header("x-gitlab-token", Some(SECRET)),
        gitlab("shop", "d6", &zeros(), &head).header("x-gitlab-token", Some(OLD_TOKEN)),
        signed(gitlab("mall", "d7", &zeros(), &head), 0),
        gitlab("mall", "d8", &zeros(), &head).header("x-gitlab-token", Some(SIGNING_SECRET)),
    ];
    let answers: Vec<_> = deliveries.iter().map(|delivery| format!("{:?}", daemon.send(delivery))).collect();
    house.wait_for_quiet();
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0));
    assert!(log.contains("TRACE"), "the log is not as loud as it can be");
    for secret in [SECRET, GITLAB_TOKEN, OLD_TOKEN, SIGNING_SECRET, &SIGNING_SECRET[6..]] {
        for text in answers.iter().chain([&log]) {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "a secret is shown");
        }
    }
}

#[test]
fn the_log_says_why_a_push_was_not_deployed_and_in_one_line() {
    let house = House::new();
    let daemon = house.serve();
    let (zero, one) = ("0".repeat(40), "1".repeat(40));
    daemon.send(&Delivery::push("d1", "refs/heads/draft", &zero, &one)).expect(200, "ignored");
    let expected = "ignored (blog: `refs/heads/draft` is not the site's branch `main`) repository=blog event=\"push\" \
                    ref=\"refs/heads/draft\" key=d1";
    let log = wait_for("the line", || Some(daemon.log()).filter(|log| log.contains("key=d1")));
    assert!(log.contains(expected), "{log}");
}

#[test]
fn another_repository_of_the_same_name_is_ignored_until_the_operator_says_that_it_is_meant() {
    let pinned = "[repositories.pinned]\nurl = \"{house}/origin.git\"\nrepository = \"acme/blog\"\nforge = \"github\"\n\
                  secret = { file = \"{house}/pinned-secret\" }\nrepository_id = \"7\"\n\
                  [sites.pinned]\nrepository = \"pinned\"\nbranch = \"main\"\nroot = \"{house}/pinned\"\n";
    let house = House::with(&Setup { more: pinned, ..Setup::default() });
    house.write_secret("pinned-secret", GITLAB_TOKEN);
    let head = house.origin.commit(&[("index.html", "one")]);
    let daemon = house.serve();
    let push = |repository: &str, id: u64| {
        let body = json!({ "ref": MAIN, "before": zeros(), "after": head, "repository": { "id": id, "full_name": "acme/blog" } });
        let delivery = Delivery::github(&format!("{repository}-{id}"), "push", body.to_string());
        let secret = if repository == "pinned" { GITLAB_TOKEN } else { SECRET };
        let signature = github_signature(secret, &delivery.body);
        let delivery = delivery.header("x-hub-signature-256", Some(&signature));
        daemon.send(&Delivery { repository: repository.into(), ..delivery })
    };
    push("blog", 42).expect(202, "queued");
    house.wait_for_quiet();
    for (repository, id, word) in [("blog", 7, "`42`"), ("pinned", 42, "`7`")] {
        let answer = push(repository, id);
        assert_eq!(answer.status, 200, "{answer:?}");
        let reason = answer.json()["reason"].as_str().expect("a reason").to_owned();
        assert!(reason.contains(&format!("`{id}`")) && reason.contains(word), "{reason}");
        assert_eq!(answer.json()["sites"][0]["reason"], reason, "{answer:?}");
    }
    push("blog", 42).expect(200, "current");
    push("pinned", 7).expect(202, "queued");
    house.wait_for_quiet();
}
