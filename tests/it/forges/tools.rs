//! What the commands say and send for each forge.

use std::process::Command;

use serde_json::{Value, json};

use super::dialect::{Dialect, PLAIN, WHSEC};
use super::proofs::PUBLIC_KEY;
use super::{DIALECTS, azure, bitbucket, bitbucket_dc, sourcehut, standard};
use crate::support::{Daemon, House, Setup};

const SEND_TEST: [&str; 2] = ["send-test", "forge"];

/// Names the address of a server in the configuration, as the outside would reach it.
fn publish(house: &House, daemon: &Daemon) {
    let text = std::fs::read_to_string(&house.config).expect("a configuration");
    let public = text.replace("[server]", &format!("[server]\npublic_url = \"http://{}\"", daemon.address));
    std::fs::write(&house.config, public).expect("a configuration");
}

/// Only the sender has the private key.
fn has_public_key(dialect: &Dialect) -> bool {
    dialect.secret.contains(PUBLIC_KEY)
}

#[test]
fn a_test_delivery_is_believed_whatever_the_forge() {
    for dialect in DIALECTS.iter().filter(|dialect| !has_public_key(dialect)) {
        let house = dialect.house();
        house.origin.commit(&[("index.html", "one")]);
        let daemon = house.serve();
        let url = format!("http://{}", daemon.address);
        let send = |more: &[&str]| {
            let args = [&SEND_TEST, &["--url", url.as_str(), "--json"][..], more].concat();
            let json = house.landfall(&args).expect(0).json();
            (json["status"].clone(), json["body"]["status"].clone())
        };
        assert_eq!(send(&[]), (json!(200), json!("pong")), "{} {}", dialect.forge, dialect.secret);
        assert_eq!(send(&["--ref", "main"]), (json!(202), json!("queued")), "{} {}", dialect.forge, dialect.secret);
        house.wait_for_quiet();
        assert_eq!(send(&["--ref", "main"]), (json!(200), json!("current")), "{} {}", dialect.forge, dialect.secret);
    }
}

#[test]
fn where_only_the_sender_can_sign_a_test_delivery_is_refused_and_says_so() {
    for (dialect, told) in [
        (
            &sourcehut::SOURCEHUT,
            "landfall: only SourceHut itself can sign its deliveries\nhelp: push to the repository",
        ),
        (&standard::PUBLIC, "landfall: the configured key is a public one: only the sender can sign"),
    ] {
        assert!(has_public_key(dialect));
        let house = dialect.house();
        house.origin.commit(&[("index.html", "one")]);
        for more in [&[][..], &["--ref", "main"]] {
            let ran = house.landfall(&[&SEND_TEST, more].concat()).expect(4);
            assert!(ran.stderr.contains(told), "{}", ran.stderr);
        }
    }
}

#[test]
fn webhook_names_the_fields_of_the_forges_own_form() {
    let table: [(&Dialect, &[&str]); 6] = [
        (&bitbucket::BITBUCKET, &["Repository settings > Webhooks", "Repository push", PLAIN, "256 kB"]),
        (&bitbucket_dc::BITBUCKET_DC, &["Create webhook", "Repository: Push", PLAIN, "`Test connection`"]),
        (
            &azure::PASSWORD,
            &[
                "Service hooks",
                "Code pushed",
                "Repository:                     blog\n",
                "Basic authentication username:  landfall\n",
                "Basic authentication password:  a secret of the fixtures\n",
                "https",
            ],
        ),
        (
            &azure::WHOLE,
            &[
                "username:  landfall\n",
                "password:  a secret of the fixtures\n",
                "Resource details to send:       All\n",
            ],
        ),
        (&standard::SHARED, &[WHSEC, "openssl dgst", "REPOSITORY='\"acme/blog\"'\n", "\"ref\":\"refs/heads/main\""]),
        (&standard::PUBLIC, &["whpk_", "`v1a`"]),
    ];
    for (dialect, expected) in table {
        let house = dialect.house();
        let text = house.landfall(&["webhook", "forge"]).expect(0).stdout;
        for told in expected.iter().chain(&["/hooks/forge"]) {
            assert!(text.contains(told), "{}: `{told}` is not in\n{text}", dialect.forge);
        }
        let json = house.landfall(&["webhook", "forge", "--json"]).expect(0).json();
        assert_eq!((&json["forge"], &json["secret"]), (&json!(dialect.forge), &json!(dialect.secret)));
    }
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
fn webhook_tells_how_sourcehut_is_asked_and_what_its_signature_proves() {
    let house = sourcehut::SOURCEHUT.house();
    let text = std::fs::read_to_string(&house.config).expect("a configuration");
    let public = text.replace("[server]", "[server]\npublic_url = \"https://deploy.example.com/it's\"");
    std::fs::write(&house.config, public).expect("a configuration");
    let text = house.landfall(&["webhook", "forge"]).expect(0).stdout;
    for told in [PUBLIC_KEY, "only the tip of the configured ref is ever deployed", "does not name new branches"] {
        assert!(text.contains(told), "`{told}` is not in\n{text}");
    }
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
