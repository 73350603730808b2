//! What load balancers and watchdogs are told.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection, Executor, SqliteConnection};

use crate::support::{Answer, Daemon, House, is_root, request};

fn ask(daemon: &Daemon, line: &str) -> Answer {
    request(&daemon.address, &format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"), b"")
}

#[test]
fn a_process_that_answers_is_alive_also_while_the_store_does_not() {
    let house = House::new();
    let daemon = house.serve();
    let url = format!("sqlite:{}", house.state.join("landfall.db").display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut writer = runtime.block_on(SqliteConnection::connect(&url)).expect("a connection");
    runtime.block_on(writer.execute("BEGIN IMMEDIATE")).expect("the place of the only writer");
    let asked = Instant::now();
    let (get, head) = (ask(&daemon, "GET /healthz"), ask(&daemon, "HEAD /healthz"));
    // Whoever waits for the store now waits for 10 s.
    assert!(asked.elapsed() < Duration::from_secs(5));
    assert_eq!((get.status, get.body.as_str()), (200, "ok\n"));
    assert!(get.head.contains("\r\ncontent-type: text/plain"), "{}", get.head);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    runtime.block_on(writer.close()).expect("an end");
}

#[test]
fn a_service_that_could_deploy_now_is_ready_and_says_what_it_looked_at() {
    let house = House::new();
    let daemon = house.serve();
    let answer = daemon.get("/readyz");
    let ok = json!({ "ok": true });
    let checks = json!({ "store": ok, "workers": ok, "roots": ok, "disk": ok, "draining": ok });
    assert_eq!((answer.status, answer.json()), (200, json!({ "ready": true, "checks": checks })));
    assert_eq!((ask(&daemon, "HEAD /readyz").status, ask(&daemon, "HEAD /readyz").body.as_str()), (200, ""));
    assert_eq!(house.deployments(), Vec::<Value>::new(), "asking changes nothing");
}

#[test]
fn a_root_that_is_no_directory_is_not_ready() {
    let house = House::new();
    let daemon = house.serve();
    std::fs::write(&house.root, "in the way").expect("a file");
    std::fs::set_permissions(&house.root, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    assert_not_ready(&house, &daemon, "the root of site `blog` is not writable");
    std::fs::remove_file(&house.root).expect("a file");
    assert_eq!(daemon.get("/readyz").status, 200);
}

#[test]
fn a_root_that_cannot_be_written_is_not_ready() {
    // Root may write everywhere.
    if is_root() {
        return;
    }
    let house = House::new();
    std::fs::create_dir(&house.root).expect("a root");
    let daemon = house.serve();
    let set_mode = |mode| std::fs::set_permissions(&house.root, std::fs::Permissions::from_mode(mode)).expect("a mode");
    set_mode(0o555);
    assert_not_ready(&house, &daemon, "the root of site `blog` is not writable");
    set_mode(0o755);
    assert_eq!(daemon.get("/readyz").status, 200);
}

#[track_caller]
fn assert_not_ready(house: &House, daemon: &Daemon, reason: &str) {
    let answer = daemon.get("/readyz");
    assert_eq!((answer.status, &answer.json()["ready"]), (503, &json!(false)), "{answer:?}");
    assert_eq!(answer.json()["checks"]["roots"], json!({ "ok": false, "reason": reason }));
    assert!(!answer.body.contains(&*house.path().to_string_lossy()), "strangers are told no path: {}", answer.body);
}

#[test]
fn what_is_not_there_is_told_in_json() {
    let house = House::new();
    let daemon = house.serve();
    let table = [
        ("GET /", 404, "not_found", None),
        ("GET /healthz/", 404, "not_found", None),
        ("GET /hooks", 404, "not_found", None),
        ("GET /../etc/passwd", 404, "not_found", None),
        ("POST /healthz", 405, "method_not_allowed", Some("allow: get, head")),
        ("DELETE /readyz", 405, "method_not_allowed", Some("allow: get, head")),
    ];
    for (line, status, word, allow) in table {
        let answer = ask(&daemon, line);
        assert_eq!((answer.status, &answer.json()["status"]), (status, &json!(word)), "{line}: {answer:?}");
        assert!(answer.head.contains("\r\ncontent-type: application/json"), "{line}: {}", answer.head);
        assert_eq!(answer.head.lines().find(|line| line.starts_with("allow: ")), allow, "{line}");
    }
}

#[test]
fn a_site_with_something_in_its_way_is_not_ready() {
    let mut house = House::new();
    let daemon = house.serve();
    std::fs::create_dir_all(house.root.join("current")).expect("a directory");
    let answer = daemon.get("/readyz");
    let roots = &answer.json()["checks"]["roots"];
    assert_eq!((answer.status, &roots["ok"]), (503, &serde_json::json!(false)), "{answer:?}");
    assert_eq!(roots["reason"], "something is in the way in the root of site `blog`; see `landfall check`");
    house.leave_unclean();
}
