//! Every recorded delivery of a forge, as it is and in every way that it must not be believed in.

use super::dialect::{Dialect, Fixture, Says};
use super::proofs::{hmac_sha1_hex, of_all_forges};
use crate::support::{Answer, Daemon, Delivery, source};

/// What a spoiled delivery is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// It is not believed: 401, and the one opaque body.
    Refused,
    /// The proof does not depend on the body, so it is taken for what it says: anything but 401.
    TakenAsItIs,
}

/// The file of a fixture's headers.
pub fn headers_of(file: &str) -> String {
    format!("{}.headers", file.rsplit_once('.').expect("an ending").0)
}

pub fn every_fixture_opens_the_door_and_none_that_is_spoiled(dialect: &Dialect) {
    let house = dialect.house();
    // What is queued stays: the first of each site waits at the gate, and the others behind it.
    let gate = house.gate("build");
    house.origin.commit(&[(".landfall/after.pull", &gate.hook())]);
    house.origin.git(&["push", "--quiet", &house.origin.bare.to_string_lossy(), "HEAD:refs/tags/v1.0.0"]);
    let mut command = house.command(&["serve"]);
    command.env("LANDFALL_LOG", "trace");
    let daemon = Daemon::start(command);
    let mut queued = 0;
    for fixture in dialect.fixtures {
        let recorded = load(dialect, fixture.file);
        if dialect.signs_time {
            assert_refused(&daemon, "an old one", fixture, &recorded);
        }
        let good = if dialect.signs_time { dialect.signed(recorded) } else { recorded };
        if matches!(fixture.says, Says::NoSecret) {
            assert_refused(&daemon, "the whole", fixture, &good);
            continue;
        }
        queued += check(&daemon.send(&good), fixture);
        for (what, spoiled, expected) in spoiled(dialect, &good) {
            match expected {
                Expected::Refused => assert_refused(&daemon, what, fixture, &spoiled),
                Expected::TakenAsItIs => {
                    let answer = daemon.send(&spoiled);
                    assert!(matches!(answer.status, 200 | 202 | 400), "{what} of {}: {answer:?}", fixture.file);
                }
            }
        }
    }
    if dialect.signs_body {
        assert_eq!(house.deployments().len(), queued, "something else than the fixtures was queued");
    }
    gate.open();
    house.wait_for_quiet();
    // Some forges send the secret along, in a header or, as old Gitea and Gogs, in the payload.
    let told = daemon.log();
    assert!(told.contains("TRACE"), "the log is not as loud as it can be");
    for secret in [dialect.secret, dialect.other_secret] {
        let line = told.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a secret is logged");
        let store = std::fs::read(house.state.join("landfall.db")).expect("the store");
        assert!(!contains(&store, secret.as_bytes()), "a secret is stored");
        let waiting = std::fs::read(house.state.join("landfall.db-wal")).unwrap_or_default();
        assert!(!contains(&waiting, secret.as_bytes()), "a secret is about to be stored");
    }
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|found| found == part)
}

/// Reads a fixture; what belongs to the connection is left to the sender.
fn load(dialect: &Dialect, file: &str) -> Delivery {
    let directory = source().join("fixtures/webhooks").join(dialect.forge);
    let text = std::fs::read_to_string(directory.join(headers_of(file))).expect("headers");
    let headers = text.lines().map(|line| line.split_once(':').expect("a header"));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    let of_connection = ["host", "content-length", "connection"];
    Delivery {
        repository: "forge".into(),
        headers: headers.filter(|(name, _)| !of_connection.contains(&name.as_str())).collect(),
        body: std::fs::read(directory.join(file)).expect("a body"),
    }
}

/// Looks at the answer to a fixture; gives back how many deployments it has queued.
#[track_caller]
fn check(answer: &Answer, fixture: &Fixture) -> usize {
    let Fixture { file, says } = fixture;
    let json = answer.json();
    let (status, words): (u16, &[&str]) = match says {
        Says::Pong => (200, &["pong"]),
        Says::Ignored(_) | Says::NoSecret => (200, &["ignored"]),
        Says::Malformed(reason) => {
            assert!(answer.status == 400 && json["status"] == "malformed", "{file}: {answer:?}");
            assert!(answer.body.contains(reason), "{file}: `{reason}` is not in {}", answer.body);
            return 0;
        }
        Says::Deploys(_) => (202, &["queued", "duplicate"]),
    };
    let word = json["status"].as_str().expect("a word");
    assert!(answer.status == status && words.contains(&word), "{file}: {answer:?}");
    let deployments = json["deployments"].as_array().expect("a list");
    let sites: Vec<_> = deployments.iter().map(|deployment| deployment["site"].as_str().expect("a site")).collect();
    let expected: &[&str] = match says {
        Says::Pong | Says::Ignored(_) | Says::Malformed(_) | Says::NoSecret => &[],
        Says::Deploys(sites) => sites,
    };
    assert_eq!(sites, expected, "{file}: {answer:?}");
    if let Says::Ignored(reason) = says {
        assert!(answer.body.contains(reason), "{file}: `{reason}` is not in {}", answer.body);
    }
    json["sites"].as_array().expect("a list").iter().filter(|site| site["status"] == "queued").count()
}

#[track_caller]
fn assert_refused(daemon: &Daemon, what: &str, fixture: &Fixture, delivery: &Delivery) {
    let answer = daemon.send(delivery);
    let expected = (401, "{\"status\":\"unauthorized\"}");
    assert_eq!((answer.status, answer.body.as_str()), expected, "{what} of {}", fixture.file);
}

/// Every way of spoiling a good delivery.
fn spoiled(dialect: &Dialect, good: &Delivery) -> Vec<(&'static str, Delivery, Expected)> {
    let of_body = if dialect.signs_body { Expected::Refused } else { Expected::TakenAsItIs };
    let with_body = |body: &[u8]| Delivery { body: body.to_vec(), ..good.clone() };
    let mut changed = good.body.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let proof = proof_of(dialect, good);
    let without = good.clone().header(dialect.proof, None);
    let mut twice = good.clone();
    twice.headers.push((dialect.proof.to_owned(), proof.clone()));
    let mut first_is_bad = good.clone();
    first_is_bad.headers.insert(0, (dialect.proof.to_owned(), "?".to_owned()));
    let sha1 = format!("sha1={}", hmac_sha1_hex(dialect.secret, &good.body));
    let mut all = vec![
        ("the wrong secret", (dialect.sign)(good.clone(), dialect.other_secret), Expected::Refused),
        ("no header", without.clone(), Expected::Refused),
        ("a cut body", with_body(&good.body[..good.body.len() - 1]), of_body),
        ("a body without its beginning", with_body(&good.body[1..]), of_body),
        ("no body", with_body(b""), of_body),
        ("a longer body", with_body(&[&good.body[..], b" "].concat()), of_body),
        ("a changed byte", with_body(&changed), of_body),
        ("a header line twice", twice, Expected::Refused),
        ("a bad header line before the good one", first_is_bad, Expected::Refused),
        ("SHA-1 only", without.header("x-hub-signature", Some(&sha1)), Expected::Refused),
        ("the proofs of all other forges", with_other_proofs(dialect, good), Expected::Refused),
    ];
    let bad = (dialect.bad_proofs)(&proof).into_iter();
    all.extend(bad.map(|(what, value)| (what, good.clone().header(dialect.proof, Some(&value)), Expected::Refused)));
    all
}

fn proof_of(dialect: &Dialect, delivery: &Delivery) -> String {
    let found = delivery.headers.iter().find(|(name, _)| name == dialect.proof);
    found.unwrap_or_else(|| panic!("no `{}`", dialect.proof)).1.clone()
}

/// Right ones, by the fixtures' secret, but not this forge's own.
fn with_other_proofs(dialect: &Dialect, good: &Delivery) -> Delivery {
    let others = of_all_forges(&good.body).into_iter().filter(|(name, _)| *name != dialect.proof);
    others.fold(good.clone().header(dialect.proof, None), |delivery, (name, value)| delivery.header(name, Some(&value)))
}
