//! Which pushes become a deployment, in which order, and which do not.

use std::process::Stdio;

use serde_json::json;

use crate::support::{Answer, Daemon, Delivery, House, Setup, check_site, wait_for};

const MAIN: &str = "refs/heads/main";

/// A second site of the same repository, for the branch `staging`.
const STAGING: &str = "[sites.staging]\nrepository = \"blog\"\nbranch = \"staging\"\nroot = \"{house}/staging\"\n";

fn zeros() -> String {
    "0".repeat(40)
}

fn with_staging(top: &str) -> House {
    House::with(&Setup { top, more: STAGING, ..Setup::default() })
}

fn push_staging(daemon: &Daemon, id: &str, after: &str) -> Answer {
    daemon.send(&Delivery::push(id, "refs/heads/staging", &zeros(), after))
}

/// The verdicts of an answer, as `site status`.
fn verdicts(answer: &Answer) -> Vec<String> {
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let sites = answer.json()["sites"].as_array().expect("a list").clone();
    sites.iter().map(|site| format!("{} {}", text(&site["site"]), text(&site["status"]))).collect()
}

#[test]
fn twenty_identical_deliveries_at_once_are_one_deployment() {
    let house = House::new();
    let gate = house.gate("build");
    let commit = house.origin.commit(&[(".landfall/after.pull", &gate.hook())]);
    let daemon = house.serve();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..20).map(|_| scope.spawn(|| daemon.push("d", &commit))).collect();
        senders.into_iter().map(|sender| sender.join().expect("an answer")).collect()
    });
    let count = |word: &str| answers.iter().filter(|answer| answer.json()["status"] == word).count();
    assert_eq!((count("queued"), count("duplicate")), (1, 19));
    assert!(answers.iter().all(|answer| answer.status == 202 && answer.deployment() == 1), "{answers:?}");
    gate.open();
    house.wait_for_quiet();
    assert_eq!(house.states(), ["succeeded"]);
}

#[test]
fn of_three_quick_pushes_the_first_and_the_last_are_deployed() {
    let house = House::new();
    let gate = house.gate("build");
    house.origin.write(".landfall/after.pull", &gate.hook());
    let daemon = house.serve();
    let push = |number: &str| {
        let commit = house.origin.commit(&[("index.html", number)]);
        daemon.push(number, &commit).expect(202, "queued").deployment()
    };
    let first = push("1");
    gate.wait_for(1);
    let (second, third) = (push("2"), push("3"));
    assert_eq!((first, house.states()), (1, vec!["running".into(), "superseded".into(), "queued".into()]));
    assert_eq!(house.deployment(second)["superseded_by"], third);
    gate.open();
    house.wait_for_quiet();
    assert_eq!(house.states(), ["succeeded", "superseded", "succeeded"]);
    assert_eq!(house.live("index.html"), "3");
}

#[test]
fn a_redelivery_of_what_is_live_does_nothing() {
    let house = House::new();
    let commit = house.origin.commit(&[("index.html", "one")]);
    let daemon = house.serve();
    daemon.push("d1", &commit).expect(202, "queued");
    house.wait_for_quiet();
    for id in ["d1", "d2"] {
        assert_eq!(daemon.push(id, &commit).expect(200, "current").json()["deployments"], json!([]));
    }
    assert_eq!((house.states().len(), house.releases().len()), (1, 1));
}

#[test]
fn a_redelivery_of_what_failed_is_a_new_attempt() {
    let house = House::new();
    let broken = house.path().join("broken");
    std::fs::write(&broken, "").expect("a file");
    let hook = format!("[ ! -e {} ]", broken.display());
    let commit = house.origin.commit(&[("index.html", "one"), (".landfall/after.pull", &hook)]);
    let daemon = house.serve();
    let first = daemon.push("d1", &commit).expect(202, "queued").deployment();
    assert_eq!(house.wait_for_end(first)["state"], "failed");
    std::fs::remove_file(&broken).expect("a file");
    let second = daemon.push("d1", &commit).expect(202, "queued").deployment();
    assert_eq!(house.wait_for_end(second)["state"], "succeeded");
    assert_eq!((house.live("index.html").as_str(), house.states()), ("one", vec!["failed".into(), "succeeded".into()]));
}

#[test]
fn the_same_commit_in_another_delivery_is_a_duplicate_while_it_runs_or_waits() {
    let house = House::new();
    let gate = house.gate("build");
    let first = house.origin.commit(&[(".landfall/after.pull", &gate.hook())]);
    let daemon = house.serve();
    daemon.push("d1", &first).expect(202, "queued");
    gate.wait_for(1);
    assert_eq!(daemon.push("d2", &first).expect(202, "duplicate").deployment(), 1);
    let second = house.origin.commit(&[("index.html", "two")]);
    daemon.push("d3", &second).expect(202, "queued");
    assert_eq!(daemon.push("d4", &second).expect(202, "duplicate").deployment(), 2);
    // The delivery of the first one again, while a newer one waits: still the one that runs.
    assert_eq!(daemon.push("d1", &first).expect(202, "duplicate").deployment(), 1);
    gate.open();
    house.wait_for_quiet();
    assert_eq!((house.states().len(), house.live("index.html").as_str()), (2, "two"));
}

#[test]
fn an_old_delivery_never_takes_the_site_back() {
    let house = House::new();
    let daemon = house.serve();
    let old = house.origin.commit(&[("index.html", "old")]);
    daemon.push("d1", &old).expect(202, "queued");
    house.wait_for_quiet();
    let new = house.origin.commit(&[("index.html", "new")]);
    daemon.push("d2", &new).expect(202, "queued");
    house.wait_for_quiet();
    let again = daemon.push("d1", &old).expect(202, "queued").deployment();
    assert_eq!(house.wait_for_end(again)["state"], "current");
    assert_eq!((house.live("index.html").as_str(), house.releases().len()), ("new", 2));
}

#[test]
fn a_force_push_is_deployed_though_the_history_was_rewritten() {
    let house = House::new();
    let base = house.origin.commit(&[("index.html", "base")]);
    let daemon = house.serve();
    let regretted = house.origin.commit(&[("secret.txt", "oops")]);
    daemon.push("d1", &regretted).expect(202, "queued");
    house.wait_for_quiet();
    house.origin.git(&["reset", "--quiet", "--hard", &base]);
    let forced = house.origin.commit(&[("index.html", "rewritten")]);
    daemon.send(&Delivery::push("d2", MAIN, &regretted, &forced)).expect(202, "queued");
    house.wait_for_quiet();
    assert_eq!(house.live("index.html"), "rewritten");
    assert!(!house.root.join("current/secret.txt").exists());
    // Back to an older commit: what GitHub sends when somebody pushes it by force.
    house.origin.git(&["reset", "--quiet", "--hard", &base]);
    house.origin.git(&["push", "--quiet", "--force", &house.origin.bare.to_string_lossy(), "HEAD:main"]);
    daemon.send(&Delivery::push("d3", MAIN, &forced, &base)).expect(202, "queued");
    house.wait_for_quiet();
    assert_eq!(house.live("index.html"), "base");
}

#[test]
fn a_remote_that_has_not_caught_up_is_asked_again() {
    let house = House::new();
    let before = house.origin.commit(&[("index.html", "one")]);
    house.deploy().expect(0);
    let daemon = house.serve();
    house.origin.write("index.html", "two");
    house.origin.git(&["commit", "--quiet", "--all", "--message", "two"]);
    let after = house.origin.head();
    let pushed = daemon.send(&Delivery::push("d1", MAIN, &before, &after)).expect(202, "queued").deployment();
    wait_for("the first look at the remote", || {
        let found = house.deployment(pushed);
        assert!(matches!(found["state"].as_str(), Some("queued" | "running")), "it did not wait: {found}");
        (found["step"] == "fetch").then_some(())
    });
    house.origin.git(&["push", "--quiet", &house.origin.bare.to_string_lossy(), "main"]);
    let ended = house.wait_for_end(pushed);
    assert_eq!((&ended["state"], &ended["commit"]), (&json!("succeeded"), &json!(after)));
    assert_eq!(house.live("index.html"), "two");
}

/// Moves an annotated tag here, and not at the remote; gives back the tag and its commit.
fn move_tag(house: &House, content: &str) -> (String, String) {
    house.origin.write("index.html", content);
    house.origin.git(&["add", "--all"]);
    house.origin.git(&["commit", "--quiet", "--message", content]);
    house.origin.git(&["tag", "--force", "--annotate", "--message", content, "v1"]);
    (house.origin.git(&["rev-parse", "v1"]), house.origin.head())
}

fn push_tag(house: &House) {
    house.origin.git(&["push", "--quiet", "--force", &house.origin.bare.to_string_lossy(), "v1"]);
}

#[test]
fn a_remote_that_has_not_caught_up_with_a_moved_tag_is_asked_again() {
    let house = House::with(&Setup { site: "tags = \"^v\"", ..Setup::default() });
    let daemon = house.serve();
    // As GitHub tells it: the ids of the tags, and the commit that the newer one names.
    let push = |id: &str, before: &str, (tag, commit): &(String, String)| {
        let payload = json!({ "ref": "refs/tags/v1", "before": before, "after": tag, "head_commit": { "id": commit },
            "repository": { "id": 186_853_002, "full_name": "acme/blog" } });
        daemon.send(&Delivery::github(id, "push", payload.to_string())).expect(202, "queued").deployment()
    };
    let old = move_tag(&house, "one");
    assert_ne!(old.0, old.1, "an annotated tag");
    push_tag(&house);
    let first = push("d1", &zeros(), &old);
    assert_eq!(house.wait_for_end(first)["commit"], json!(old.1));
    let new = move_tag(&house, "two");
    let pushed = push("d2", &old.0, &new);
    wait_for("the first look at the remote", || {
        let found = house.deployment(pushed);
        assert!(matches!(found["state"].as_str(), Some("queued" | "running")), "it did not wait: {found}");
        (found["step"] == "fetch").then_some(())
    });
    push_tag(&house);
    let ended = house.wait_for_end(pushed);
    assert_eq!((&ended["state"], &ended["commit"]), (&json!("succeeded"), &json!(new.1)));
    assert_eq!(house.live("index.html"), "two");
    // A tag that was its commit, annotated by now: nothing lags, though the commit is the one from before.
    house.origin.git(&["tag", "--force", "--annotate", "--message", "anew", "v1"]);
    push_tag(&house);
    let tag = house.origin.git(&["rev-parse", "v1"]);
    let annotated = push("d3", &new.1, &(tag.clone(), tag));
    assert_eq!(house.wait_for_end(annotated)["state"], "current");
}

#[test]
#[ignore = "takes 30 s, as long as a forge may need to show what was pushed: tests/run.sh has the time"]
fn a_branch_that_never_appears_fails_the_deployment_and_says_so() {
    let house = House::new();
    house.origin.push("other");
    let daemon = house.serve();
    let pushed = daemon.push("d1", &house.origin.head()).expect(202, "queued").deployment();
    let ended = house.wait_for_end(pushed);
    assert_eq!((&ended["state"], &ended["step"]), (&json!("failed"), &json!("fetch")));
    let reason = ended["reason"].as_str().expect("a reason");
    assert!(reason.contains("`refs/heads/main` does not exist"), "{reason}");
    assert_eq!((house.current(), house.releases().len()), (None, 0));
}

#[test]
fn each_site_of_a_repository_has_its_own_verdict() {
    let house = with_staging("");
    let gate = house.gate("build");
    let commit = house.origin.commit(&[("index.html", "one"), (".landfall/staging/after.pull", &gate.hook())]);
    house.origin.push("staging");
    let daemon = house.serve();
    let answer = daemon.push("d1", &commit).expect(202, "queued");
    assert_eq!(verdicts(&answer), ["blog queued", "staging ignored"]);
    house.wait_for_end(answer.deployment());
    let answer = daemon.push("d1", &commit).expect(200, "current");
    assert_eq!(verdicts(&answer), ["blog current", "staging ignored"]);
    let head = house.origin.head();
    let answer = push_staging(&daemon, "d2", &head).expect(202, "queued");
    assert_eq!(verdicts(&answer), ["blog ignored", "staging queued"]);
    let answer = push_staging(&daemon, "d2", &head).expect(202, "duplicate");
    assert_eq!(verdicts(&answer), ["blog ignored", "staging duplicate"]);
    let answer = daemon.send(&Delivery::push("d3", "refs/heads/draft", &zeros(), &head)).expect(200, "ignored");
    assert_eq!(verdicts(&answer), ["blog ignored", "staging ignored"]);
    assert_eq!(answer.json().get("reason"), None, "each site has its own reason");
    gate.open();
    house.wait_for_quiet();
    check_site(&house.path().join("staging"), &house.state, "staging");
    let live = std::fs::read_to_string(house.path().join("staging/current/index.html")).expect("a live file");
    assert_eq!((live.as_str(), house.releases().len()), ("one", 1));
}

#[test]
fn the_status_of_the_whole_is_the_first_present() {
    let twin = "[sites.twin]\nrepository = \"blog\"\nbranch = \"main\"\nroot = \"{house}/twin\"\n";
    let house = House::with(&Setup { more: twin, ..Setup::default() });
    let gate = house.gate("build");
    let hook = format!("[ $ENVIRONMENT_NAME = blog ] || exit 1\n{}", gate.hook());
    let commit = house.origin.commit(&[(".landfall/after.pull", &hook)]);
    let daemon = house.serve();
    let push = |id: &str, status: u16, word: &str| verdicts(&daemon.push(id, &commit).expect(status, word));
    assert_eq!(push("d1", 202, "queued"), ["blog queued", "twin queued"]);
    gate.wait_for(1);
    house.wait_for_end(2);
    assert_eq!(push("d1", 202, "queued"), ["blog duplicate", "twin queued"]);
    gate.open();
    house.wait_for_quiet();
    assert_eq!(push("d1", 202, "queued"), ["blog current", "twin queued"]);
    house.wait_for_quiet();
    check_site(&house.path().join("twin"), &house.state, "twin");
}

#[test]
fn sites_deploy_side_by_side() {
    let house = with_staging("workers = 2");
    // Each waits for the other: one after the other they would never end.
    let meet = format!(
        "cd {0}; touch here.$ENVIRONMENT_NAME; for i in {{1..500}}; do [ -e here.blog ] && [ -e here.staging ] && exit 0; \
         sleep 0.02; done; exit 1",
        house.path().display()
    );
    let commit = house.origin.commit(&[(".landfall/after.pull", &meet)]);
    let staging = house.origin.push("staging");
    let daemon = house.serve();
    daemon.push("d1", &commit).expect(202, "queued");
    push_staging(&daemon, "d2", &staging).expect(202, "queued");
    house.wait_for_quiet();
    assert_eq!(house.states(), ["succeeded", "succeeded"]);
}

/// A hook that writes when it begins and when it ends, with time in between for another to break in.
fn noisy_hook(house: &House) -> String {
    let file = house.path().join("noise");
    format!("echo begin $DEPLOYMENT_ID >> {0}; sleep 0.1; echo end $DEPLOYMENT_ID >> {0}", file.display())
}

/// Every begin is followed by its own end.
fn assert_one_after_the_other(noise: &str, count: usize) {
    let lines: Vec<_> = noise.lines().collect();
    assert_eq!(lines.len(), 2 * count, "{noise}");
    for pair in lines.chunks(2) {
        assert_eq!(pair[0].replace("begin", "end"), pair[1], "{noise}");
    }
}

#[test]
fn one_worker_deploys_one_site_after_the_other() {
    let house = with_staging("workers = 1");
    let commit = house.origin.commit(&[(".landfall/after.pull", &noisy_hook(&house))]);
    let staging = house.origin.push("staging");
    let daemon = house.serve();
    daemon.push("d1", &commit).expect(202, "queued");
    push_staging(&daemon, "d2", &staging).expect(202, "queued");
    house.wait_for_quiet();
    assert_one_after_the_other(&house.read("noise"), 2);
}

#[test]
fn one_site_never_runs_two_at_once_whoever_asks() {
    let house = House::with(&Setup { top: "workers = 4", ..Setup::default() });
    house.origin.write(".landfall/after.pull", &noisy_hook(&house));
    let daemon = house.serve();
    for number in 0..3 {
        let commit = house.origin.commit(&[("index.html", &number.to_string())]);
        daemon.push(&number.to_string(), &commit).expect(202, "queued");
        // What an operator asks for goes through the same queue.
        house.landfall(&["deploy", "blog", "--no-wait"]).expect(0);
    }
    house.wait_for_quiet();
    let ran = house.states().iter().filter(|state| *state != "superseded").count();
    assert!(ran >= 2, "{:?}", house.states());
    assert_one_after_the_other(&house.read("noise"), ran);
    assert_eq!(house.live("index.html"), "2");
}

#[test]
fn a_manual_deploy_is_never_a_duplicate_and_takes_the_waiting_place() {
    let house = House::new();
    let gate = house.gate("build");
    let commit = house.origin.commit(&[(".landfall/after.pull", &gate.hook())]);
    let daemon = house.serve();
    daemon.push("d1", &commit).expect(202, "queued");
    gate.wait_for(1);
    house.landfall(&["deploy", "blog", "--no-wait"]).expect(0);
    house.landfall(&["deploy", "blog", "--no-wait"]).expect(0);
    gate.open();
    house.wait_for_quiet();
    assert_eq!(house.states(), ["succeeded", "superseded", "succeeded"]);
    assert_eq!(house.releases().len(), 2, "a manual deploy rebuilds what is live");
}

#[test]
fn a_site_that_was_rolled_back_ignores_pushes_until_somebody_deploys() {
    let house = House::new();
    house.origin.commit(&[("index.html", "good")]);
    house.deploy().expect(0);
    let bad = house.origin.commit(&[("index.html", "bad")]);
    house.deploy().expect(0);
    let daemon = house.serve();
    house.landfall(&["rollback", "blog"]).expect(0);
    let ignored = |id: &str, commit: &str| {
        let answer = daemon.push(id, commit).expect(200, "ignored");
        let reason = answer.json()["reason"].as_str().expect("a reason").to_owned();
        assert!(reason.starts_with("hold: rolled back to "), "{reason}");
        assert_eq!(answer.json()["deployments"], json!([]));
    };
    ignored("d1", &bad);
    let better = house.origin.commit(&[("index.html", "better")]);
    ignored("d2", &better);
    // A hold beats current: what is live is no reason to say anything else.
    ignored("d3", &house.origin.git(&["rev-parse", "HEAD~2"]));
    assert_eq!(house.live("index.html"), "good");
    house.landfall(&["deploy", "blog"]).expect(0);
    assert_eq!(house.live("index.html"), "better");
    daemon.push("d2", &better).expect(200, "current");
}

#[test]
fn a_push_before_the_site_was_rolled_back_does_not_come_after_it() {
    let house = House::new();
    for content in ["one", "two"] {
        house.origin.commit(&[("index.html", content)]);
        house.deploy().expect(0);
    }
    let gate = house.gate("build");
    let three = house.origin.commit(&[("index.html", "three"), (".landfall/after.pull", &gate.hook())]);
    let daemon = house.serve();
    let running = daemon.push("d1", &three).expect(202, "queued").deployment();
    gate.wait_for(1);
    let mut rollback =
        house.command(&["rollback", "blog"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("the binary");
    wait_for("a rollback in the queue", || (house.states().len() == 4).then_some(()));
    let four = house.origin.commit(&[("index.html", "four")]);
    let answer = daemon.push("d2", &four).expect(200, "ignored");
    assert_eq!(answer.json()["reason"], "hold: rollback 4 waits");
    gate.open();
    assert_eq!(house.wait_for_end(running)["state"], "succeeded");
    assert!(rollback.wait().expect("an end").success());
    assert_eq!(house.live("index.html"), "two");
}
