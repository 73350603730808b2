//! The table of the contract over a real socket, for one forge: what each kind of delivery is answered.

use super::dialect::{Dialect, MAIN, Told, delivery, expect, id, zeros};
use super::proofs::PUBLIC_KEY;
use crate::support::{Daemon, Delivery};

/// The stories of a dialect, as tests of the module that names it.
macro_rules! stories {
    ($dialect:expr) => {
        #[test]
        fn a_push_is_deployed_once_however_often_it_is_told() {
            crate::forges::contract::a_push_is_deployed_once(&$dialect);
        }

        #[test]
        fn a_redelivery_of_what_failed_is_a_new_attempt() {
            crate::forges::contract::a_redelivery_of_what_failed_is_a_new_attempt(&$dialect);
        }

        #[test]
        fn what_was_sent_is_kept_without_its_secret_and_can_be_sent_again() {
            crate::forges::contract::what_was_sent_is_kept_and_can_be_sent_again(&$dialect);
        }

        #[test]
        fn a_tag_deploys_the_site_of_tags() {
            crate::forges::contract::a_tag_deploys_the_site_of_tags(&$dialect);
        }

        #[test]
        fn what_is_for_nobody_is_200_with_the_reason() {
            crate::forges::contract::what_is_for_nobody_is_200_with_the_reason(&$dialect);
        }

        #[test]
        fn what_makes_no_sense_is_400_and_what_is_no_payload_415() {
            crate::forges::contract::what_makes_no_sense_is_400(&$dialect);
        }

        #[test]
        fn the_commands_speak_as_the_forge_does() {
            crate::forges::contract::the_commands_speak_as_the_forge_does(&$dialect);
        }

        #[test]
        fn every_fixture_opens_the_door_and_none_that_is_spoiled() {
            crate::forges::fixtures::every_fixture_opens_the_door_and_none_that_is_spoiled(&$dialect);
        }
    };
}
pub(super) use stories;

impl Dialect {
    fn pushed(&self, daemon: &Daemon, id: &str, after: &str) -> crate::support::Answer {
        daemon.send(&self.signed((self.push)(&Told::push(self, id, MAIN, &zeros(), after))))
    }
}

pub fn a_push_is_deployed_once(dialect: &Dialect) {
    let house = dialect.house();
    let gate = house.gate("build");
    let tip = house.origin.commit(&[("index.html", "one"), (".landfall/after.pull", &gate.hook())]);
    let daemon = house.serve();
    let first = dialect.pushed(&daemon, "d-1", &tip).expect(202, "queued").deployment();
    gate.wait_for(1);
    for again in ["d-1", "d-2"] {
        assert_eq!(dialect.pushed(&daemon, again, &tip).expect(202, "duplicate").deployment(), first, "{again}");
    }
    gate.open();
    assert_eq!(house.wait_for_end(first)["state"], "succeeded");
    let live = std::fs::read_to_string(house.path().join("main/current/index.html"));
    assert_eq!(live.expect("a live file"), "one");
    for again in ["d-1", "d-3"] {
        dialect.pushed(&daemon, again, &tip).expect(200, "current");
    }
    assert_eq!(house.deployments().len(), 1);
}

pub fn a_redelivery_of_what_failed_is_a_new_attempt(dialect: &Dialect) {
    let house = dialect.house();
    let hook = format!("test -e {}/mended", house.path().display());
    let tip = house.origin.commit(&[("index.html", "one"), (".landfall/after.pull", &hook)]);
    let daemon = house.serve();
    for again in ["d-1", "d-1", "d-2"] {
        let attempt = dialect.pushed(&daemon, again, &tip).expect(202, "queued").deployment();
        assert_eq!(house.wait_for_end(attempt)["state"], "failed", "{again}");
    }
    std::fs::write(house.path().join("mended"), "").expect("a file");
    let attempt = dialect.pushed(&daemon, "d-1", &tip).expect(202, "queued").deployment();
    assert_eq!(house.wait_for_end(attempt)["state"], "succeeded");
    dialect.pushed(&daemon, "d-1", &tip).expect(200, "current");
    assert_eq!(house.deployments().len(), 4);
}

pub fn what_was_sent_is_kept_and_can_be_sent_again(dialect: &Dialect) {
    let house = dialect.house();
    let tip = house.origin.commit(&[("index.html", "one")]);
    let daemon = house.serve();
    let push = dialect.signed((dialect.push)(&Told::push(dialect, "d-1", MAIN, &zeros(), &tip)));
    house.wait_for_end(daemon.send(&push).expect(202, "queued").deployment());
    let pong = (dialect.pongs)(&Told::push(dialect, "d-2", MAIN, &tip, &tip)).remove(0);
    daemon.send(&dialect.signed(pong)).expect(200, "pong");
    drop(daemon);
    let shown = |id: i64| house.landfall(&["delivery", &id.to_string(), "--json"]).expect(0).json();
    for (id, word) in [(1, "current"), (2, "pong")] {
        let answer = house.landfall(&["redeliver", &id.to_string(), "--json"]).expect(0).json();
        assert_eq!(answer["status"], word, "{answer}");
        let (sent, again) = (shown(id), shown(id + 2));
        for key in ["key", "event", "refs", "digest", "body", "headers"] {
            assert_eq!(again[key], sent[key], "{key}");
        }
        assert_eq!((&again["attempt"], &again["replay_of"]), (&2.into(), &id.into()));
        assert!(!sent.to_string().contains(dialect.secret), "{sent}");
    }
    let kept = shown(1);
    assert_eq!(kept["body"]["text"], String::from_utf8_lossy(&push.body).as_ref());
    let (_, proof) = push.headers.iter().find(|(name, _)| name == dialect.proof).expect("a proof");
    let shows_proof = kept.to_string().contains(proof);
    assert_eq!(
        shows_proof, dialect.signs_body,
        "a signature is no secret, and whatever is one does not depend on the body"
    );
    assert_eq!(house.deployments().len(), 1);
}

pub fn a_tag_deploys_the_site_of_tags(dialect: &Dialect) {
    let house = dialect.house();
    let commit = house.origin.commit(&[("index.html", "tagged")]);
    house.origin.git(&["tag", "--annotate", "--message", "the first", "v1.0"]);
    house.origin.git(&["push", "--quiet", &house.origin.bare.to_string_lossy(), "v1.0"]);
    let tag = house.origin.git(&["rev-parse", "v1.0"]);
    assert_ne!(tag, commit, "an annotated tag is an object of its own");
    let daemon = house.serve();
    let zeros = zeros();
    let told = Told { commit: &commit, ..Told::push(dialect, "d-1", "refs/tags/v1.0", &zeros, &tag) };
    let answer = daemon.send(&dialect.signed((dialect.tag)(&told))).expect(202, "queued");
    assert_eq!(answer.json()["deployments"][0]["site"], "tags", "{answer:?}");
    assert_eq!(house.wait_for_end(answer.deployment())["state"], "succeeded");
    let live = std::fs::read_to_string(house.path().join("tags/current/index.html"));
    assert_eq!(live.expect("a live file"), "tagged");
}

pub fn the_commands_speak_as_the_forge_does(dialect: &Dialect) {
    let house = dialect.house();
    house.origin.commit(&[("index.html", "one")]);
    house.origin.git(&["push", "--quiet", &house.origin.bare.to_string_lossy(), "HEAD:refs/tags/v1.0"]);
    let shown = house.landfall(&["webhook", "forge"]).expect(0).stdout;
    // A user and a password are told apart from each other.
    for text in dialect.secret.split(':').chain(["/hooks/forge"]).chain(dialect.form.iter().copied()) {
        assert!(shown.contains(text), "`{text}` is not in {shown}");
    }
    let json = house.landfall(&["webhook", "forge", "--json"]).expect(0).json();
    assert_eq!((&json["forge"], &json["secret"]), (&dialect.forge.into(), &dialect.secret.into()));
    if dialect.secret.contains(PUBLIC_KEY) {
        for more in [&[][..], &["--ref", "main"]] {
            let ran = house.landfall(&[&["send-test", "forge"], more].concat()).expect(4);
            assert!(ran.stderr.contains("can sign"), "{}", ran.stderr);
        }
        return;
    }
    let daemon = house.serve();
    let url = format!("http://{}", daemon.address);
    let sent = |more: &[&str]| {
        let args = [&["send-test", "forge", "--json", "--url", &url], more].concat();
        house.landfall(&args).expect(0).json()["body"].clone()
    };
    assert_eq!(sent(&[])["status"], "pong");
    for (name, site) in [("refs/heads/main", "main"), ("refs/tags/v1.0", "tags")] {
        let body = sent(&["--ref", name]);
        assert_eq!((&body["status"], &body["deployments"][0]["site"]), (&"queued".into(), &site.into()), "{body}");
        let number = body["deployments"][0]["id"].as_i64().expect("a number");
        assert_eq!(house.wait_for_end(number)["state"], "succeeded", "{name}");
    }
}

pub fn what_is_for_nobody_is_200_with_the_reason(dialect: &Dialect) {
    let house = dialect.house();
    house.origin.commit(&[("index.html", "one")]);
    let daemon = house.serve();
    let (one, two, zeros) = (id("1"), id("2"), zeros());
    let told = |ref_name, before, after| Told::push(dialect, "d-1", ref_name, before, after);
    let main = told(MAIN, &one, &two);
    for ping in (dialect.pongs)(&main) {
        expect(&daemon, &dialect.signed(ping), 200, "pong", "");
    }
    let ignored = [
        ((dialect.push)(&told("refs/heads/main2", &one, &two)), "`refs/heads/main2` is not the site's"),
        ((dialect.tag)(&told("refs/tags/main", &zeros, &two)), "`refs/tags/main` is not the site's"),
        ((dialect.push)(&Told { repository: "evil/blog", ..main.clone() }), "another repository"),
    ];
    for (delivery, reason) in ignored.into_iter().chain((dialect.ignored)(&main)) {
        expect(&daemon, &dialect.signed(delivery), 200, "ignored", reason);
    }
    assert_eq!(house.deployments(), Vec::<serde_json::Value>::new());
}

pub fn what_makes_no_sense_is_400(dialect: &Dialect) {
    let house = dialect.house();
    let daemon = house.serve();
    let (one, two) = (id("1"), id("2"));
    let of = |ref_name, before, after| (dialect.push)(&Told::push(dialect, "d-1", ref_name, before, after));
    let good = of(MAIN, &one, &two);
    let with_body = |body: Vec<u8>| Delivery { body, ..good.clone() };
    let text = String::from_utf8(good.body.clone()).expect("JSON");
    let twice = text.replacen('{', "{\"twice\":1,\"twice\":2,", 1);
    let nonsense = [
        ("nothing", with_body(Vec::new())),
        ("no JSON", with_body(b"ref=main".to_vec())),
        ("half of it", with_body(text.as_bytes()[..text.len() / 2].to_vec())),
        ("a list", with_body(b"[]".to_vec())),
        ("a tower", with_body(b"[".repeat(100_000))),
        ("no UTF-8", with_body([text.as_bytes(), b"\xff"].concat())),
        ("a key twice", with_body(twice.into_bytes())),
        ("a ref that climbs", of("refs/heads/../../etc", &one, &two)),
        ("a ref with a space", of("refs/heads/main ", &one, &two)),
        ("39 digits", of(MAIN, &one, &two[1..])),
        ("no digits", of(MAIN, &one, "HEAD")),
        ("an option", of(MAIN, "--upload-pack=x", &two)),
    ];
    for (what, delivery) in nonsense {
        let answer = daemon.send(&dialect.signed(delivery));
        assert_eq!((answer.status, answer.json()["status"].as_str()), (400, Some("malformed")), "{what}: {answer:?}");
        assert!(answer.json()["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{what}: {answer:?}");
    }
    for (name, value) in [("content-type", "text/plain"), ("content-encoding", "gzip")] {
        expect(&daemon, &dialect.signed(good.clone()).header(name, Some(value)), 415, "unsupported", "");
    }
    let unproved = daemon.send(&delivery(&[("content-type", "application/json")], "{}"));
    assert_eq!((unproved.status, unproved.body.as_str()), (401, "{\"status\":\"unauthorized\"}"));
    assert_eq!(house.deployments(), Vec::<serde_json::Value>::new());
}
