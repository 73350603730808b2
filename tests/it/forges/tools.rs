//! What the commands say of forges that have no form: SourceHut is asked, Standard Webhooks is signed with a script.

use std::process::Command;

use serde_json::{Value, json};

use super::{sourcehut, standard};
use crate::support::{Daemon, House, Setup};

/// Names the address of a server in the configuration, as the outside would reach it.
fn publish(house: &House, daemon: &Daemon) {
    let text = std::fs::read_to_string(&house.config).expect("a configuration");
    let public = text.replace("[server]", &format!("[server]\npublic_url = \"http://{}\"", daemon.address));
    std::fs::write(&house.config, public).expect("a configuration");
}

/// What `bash` makes of the printed calls of `curl`: their last argument is the body.
fn bodies_of_curl(text: &str) -> Vec<Value> {
    let calls = text.lines().filter(|line| line.starts_with("  curl "));
    let script = format!("curl() {{ printf '%s\\0' \"${{@: -1}}\"; }}\n{}", calls.collect::<Vec<_>>().join("\n"));
    let script = script.replace("REPOSITORY_ID", "42");
    let ran = Command::new("bash").args(["-c", &script]).output().expect("bash");
    let bodies = String::from_utf8(ran.stdout).expect("text");
    bodies.split_terminator('\0').map(|body| serde_json::from_str(body).expect(body)).collect()
}

#[test]
fn webhook_tells_how_sourcehut_is_asked() {
    let house = sourcehut::SOURCEHUT.house();
    let text = std::fs::read_to_string(&house.config).expect("a configuration");
    let public = text.replace("[server]", "[server]\npublic_url = \"https://deploy.example.com/it's\"");
    std::fs::write(&house.config, public).expect("a configuration");
    let text = house.landfall(&["webhook", "forge"]).expect(0).stdout;
    let [find, create] = &bodies_of_curl(&text)[..] else { panic!("two calls in\n{text}") };
    assert_eq!(find["variables"], json!({ "name": "blog" }));
    assert_eq!(create["variables"]["url"], "https://deploy.example.com/it's/hooks/forge");
    assert_eq!(create["variables"]["id"], 42);
    let query = create["variables"]["query"].as_str().expect("a query");
    for field in ["uuid", "event", "repository { id name owner { canonicalName } }", "ref { name }", "target { id }"] {
        assert!(query.contains(field), "`{field}` is not in {query}");
    }
    assert_eq!(query.matches('{').count(), query.matches('}').count(), "{query}");
    assert!(!query.contains("  "), "{query}");
}

#[test]
fn without_a_secret_sr_hts_own_key_is_the_one() {
    let more = "[repositories.forge]\nurl = \"https://git.sr.ht/~acme/blog\"\n[repositories.other]\n\
                url = \"https://git.sr.ht/~acme/other\"\n";
    let house = House::with(&Setup { more, ..Setup::default() });
    house.landfall(&["check"]).expect(0);
    let json = house.landfall(&["webhook", "forge", "--json"]).expect(0).json();
    let key = "uX7KWyyDNMaBma4aVbJ/cbUQpdjqczuCyK/HxzV/u+4=";
    assert_eq!((&json["forge"], &json["secret"]), (&json!("sourcehut"), &json!(key)));
    house.origin.commit(&[("index.html", "one")]);
    let daemon = house.serve();
    let recorded = sourcehut::SOURCEHUT.signed((sourcehut::SOURCEHUT.push)(&super::dialect::Told::push(
        &sourcehut::SOURCEHUT,
        "d-1",
        "refs/heads/main",
        &"1".repeat(40),
        &"2".repeat(40),
    )));
    assert_eq!(daemon.send(&recorded).status, 401, "signed by another instance");
}

#[test]
#[ignore = "needs openssl and curl: tests/run.sh brings them"]
fn the_printed_script_sends_what_is_believed() {
    let dialect = &standard::SHARED;
    let house = dialect.house();
    house.origin.commit(&[("index.html", "one")]);
    let daemon = house.serve();
    publish(&house, &daemon);
    let text = house.landfall(&["webhook", "forge"]).expect(0).stdout;
    let script = text.lines().skip_while(|line| !line.starts_with("  URL=")).take_while(|line| line.starts_with("  "));
    let script = script.collect::<Vec<_>>().join("\n");
    let run = |secret: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-euc", &script]).env("SECRET", secret).current_dir(house.origin.work());
        bash.output().expect("bash")
    };
    let ran = run(dialect.secret);
    assert!(String::from_utf8_lossy(&ran.stdout).contains("\"status\":\"queued\""), "{ran:?}\n{script}");
    house.wait_for_quiet();
    let live = std::fs::read_to_string(house.path().join("main/current/index.html"));
    assert_eq!(live.expect("a live file"), "one");
    let ran = run(dialect.other_secret);
    assert_eq!((ran.status.code(), &*ran.stdout), (Some(22), &b"{\"status\":\"unauthorized\"}"[..]), "{ran:?}");
}
