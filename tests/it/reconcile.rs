//! Lost pushes: what no webhook told of is deployed all the same, and what was tried is left alone.

use std::io::Read;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::{Daemon, House, Setup, wait_for};

const OFTEN: &str = "reconcile = \"1s\"";

/// A house whose sites are compared with their remotes at start and each second.
fn watchful(more: &str) -> House {
    House::with(&Setup { top: OFTEN, more, ..Setup::default() })
}

/// A second repository with a site for `main`; `{house}` and the URL are filled in.
fn second_site(url: &str) -> String {
    format!(
        "[repositories.shop]\nurl = \"{url}\"\nrepository = \"acme/shop\"\nforge = \"github\"\n\
         secret = {{ file = \"{{house}}/shop\" }}\n[sites.shop]\nrepository = \"shop\"\nbranch = \"main\"\n\
         root = \"{{house}}/shop-root\"\n"
    )
}

/// Waits until there are this many deployments, all of which have ended; gives back the newest.
fn wait_for_newest(house: &House, count: usize) -> Value {
    wait_for(&format!("{count} deployments"), || {
        let all = house.deployments();
        let is_over = |found: &Value| !matches!(found["state"].as_str(), Some("queued" | "running"));
        (all.len() >= count && all.iter().all(is_over)).then(|| all[0].clone())
    })
}

fn count(log: &str, words: &str) -> usize {
    log.matches(words).count()
}

/// Waits until the daemon, which tells all, has left a tip alone this many more times.
fn wait_for_rounds(daemon: &Daemon, rounds: usize) {
    let seen = || count(&daemon.log(), "alone: ");
    let before = seen();
    wait_for("more looks at the remote", || (seen() >= before + rounds).then_some(()));
}

fn serve_telling_all(house: &House) -> Daemon {
    let mut command = house.command(&["serve"]);
    command.env("LANDFALL_LOG", "info,landfall::engine::reconcile=debug");
    Daemon::start(command)
}

#[test]
fn a_push_that_no_webhook_told_of_is_deployed_at_start_and_at_the_interval() {
    let house = watchful("");
    let first = house.origin.commit(&[("index.html", "one")]);
    let daemon = house.serve();
    let deployed = wait_for_newest(&house, 1);
    assert_eq!((&deployed["state"], &deployed["trigger"]), (&json!("succeeded"), &json!("reconcile")));
    assert_eq!((&deployed["commit"], &deployed["requested_by"]), (&json!(first), &Value::Null));
    let second = house.origin.commit(&[("index.html", "two")]);
    assert_eq!(wait_for_newest(&house, 2)["commit"], json!(second));
    assert_eq!((house.live("index.html").as_str(), house.states()), ("two", vec!["succeeded".into(); 2]));
    let table = house.landfall(&["deployments"]).expect(0).stdout;
    assert_eq!(count(&table, " reconcile "), 2, "{table}");
    assert!(house.log(2).contains(&format!("{second}, found without a push")), "{}", house.log(2));
    daemon.push("late", &second).expect(200, "current");
    let (_, log) = daemon.stop();
    assert!(log.contains(&format!("queued {first}, the tip of `refs/heads/main`")), "{log}");
    assert!(log.contains("whose push was lost site=blog deployment=1"), "{log}");
}

#[test]
fn a_start_heals_also_with_a_long_interval_and_off_is_off() {
    let house = House::with(&Setup { top: "reconcile = \"24h\"", ..Setup::default() });
    house.origin.commit(&[("index.html", "one")]);
    let daemon = house.serve();
    wait_for_newest(&house, 1);
    daemon.stop();
    house.configure(&Setup { top: "reconcile = \"0s\"", ..Setup::default() });
    let lost = house.origin.commit(&[("index.html", "two")]);
    let daemon = house.serve();
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("threads");
    let names: Vec<_> = threads
        .map(|entry| std::fs::read_to_string(entry.expect("a thread").path().join("comm")).expect("a name"))
        .collect();
    assert!(names.iter().any(|name| name.trim() == "recover"), "{names:?}");
    assert!(!names.iter().any(|name| name.trim() == "reconcile"), "{names:?}");
    assert_eq!(house.states(), ["succeeded"]);
    daemon.push("d1", &lost).expect(202, "queued");
    house.wait_for_quiet();
}

#[test]
fn a_tip_that_failed_is_not_tried_again_until_something_changes() {
    let house = watchful("");
    house.origin.commit(&[("index.html", "one"), (".landfall/after.pull", "exit 1")]);
    let daemon = serve_telling_all(&house);
    assert_eq!(wait_for_newest(&house, 1)["state"], "failed");
    wait_for_rounds(&daemon, 2);
    assert_eq!(house.states(), ["failed"]);
    assert!(daemon.log().contains("alone: it was tried site=blog"), "{}", daemon.log());
    house.origin.commit(&[("index.html", "two"), (".landfall/after.pull", "true")]);
    assert_eq!(wait_for_newest(&house, 2)["state"], "succeeded");
}

#[test]
fn a_site_that_is_held_is_left_alone() {
    let house = House::new();
    for content in ["one", "two"] {
        house.origin.commit(&[("index.html", content)]);
        house.deploy().expect(0);
    }
    house.landfall(&["rollback", "blog"]).expect(0);
    house.configure(&Setup { top: OFTEN, ..Setup::default() });
    house.origin.commit(&[("index.html", "three")]);
    let daemon = serve_telling_all(&house);
    wait_for_rounds(&daemon, 2);
    assert!(daemon.log().contains("alone: the site is held site=blog"), "{}", daemon.log());
    assert_eq!((house.states().len(), house.live("index.html").as_str()), (3, "one"));
}

#[test]
fn a_ref_that_an_operator_has_chosen_stays() {
    let house = House::new();
    house.origin.commit(&[("index.html", "one")]);
    house.origin.push("fix");
    house.landfall(&["deploy", "blog", "--ref", "fix"]).expect(0);
    house.configure(&Setup { top: OFTEN, ..Setup::default() });
    let daemon = serve_telling_all(&house);
    wait_for_rounds(&daemon, 2);
    assert!(daemon.log().contains("alone: somebody has deployed another ref site=blog"), "{}", daemon.log());
    assert_eq!(house.states(), ["succeeded"]);
}

#[test]
fn a_remote_that_is_down_is_told_once_keeps_nobody_waiting_and_heals() {
    let house = watchful(&second_site("{house}/nowhere.git"));
    house.write_secret("shop", "another-secret-of-the-shop-0123456789");
    let away = house.path().join("away.git");
    house.origin.commit(&[("index.html", "one")]);
    std::fs::rename(&house.origin.bare, &away).expect("a move");
    let daemon = house.serve();
    let told = || count(&daemon.log(), "cannot look for lost pushes");
    wait_for("both to be told of", || (told() == 2).then_some(()));
    std::fs::rename(&away, &house.origin.bare).expect("a move");
    assert_eq!(wait_for_newest(&house, 1)["state"], "succeeded");
    house.origin.commit(&[("index.html", "two")]);
    wait_for_newest(&house, 2);
    let (_, log) = daemon.stop();
    assert_eq!(count(&log, "cannot look for lost pushes"), 2, "{log}");
    assert_eq!(count(&log, "looks for lost pushes again repository=blog"), 1, "{log}");
    assert!(log.contains("there is no such directory repository=shop"), "{log}");
}

#[test]
fn a_branch_that_is_not_there_is_told() {
    let house = watchful("");
    house.origin.push("other");
    let daemon = house.serve();
    wait_for("the warning", || daemon.log().contains("has no `refs/heads/main` site=blog").then_some(()));
    house.origin.push("main");
    assert_eq!(wait_for_newest(&house, 1)["state"], "succeeded");
}

#[test]
fn a_push_that_came_while_the_remote_was_down_is_deployed_when_it_is_back() {
    let house = House::new();
    let away = house.path().join("away.git");
    let commit = house.origin.commit(&[("index.html", "one")]);
    std::fs::rename(&house.origin.bare, &away).expect("a move");
    let daemon = house.serve();
    let pushed = daemon.push("d1", &commit).expect(202, "queued").deployment();
    assert_eq!(house.wait_for_end(pushed)["step"], "fetch");
    daemon.stop();
    std::fs::rename(&away, &house.origin.bare).expect("a move");
    house.configure(&Setup { top: OFTEN, ..Setup::default() });
    let _daemon = house.serve();
    let healed = wait_for_newest(&house, 2);
    assert_eq!((&healed["state"], &healed["commit"]), (&json!("succeeded"), &json!(commit)));
}

#[test]
fn what_cannot_be_fetched_is_not_tried_for_ever() {
    let house = watchful("");
    house.origin.commit(&[("index.html", "one")]);
    // Asking works, fetching does not: nobody can lock a directory as a file.
    let lock = house.state.join("repositories/blog.lock");
    std::fs::create_dir_all(&lock).expect("a directory");
    let daemon = serve_telling_all(&house);
    let first = wait_for_newest(&house, 1);
    assert_eq!((&first["state"], &first["step"]), (&json!("failed"), &json!("fetch")));
    wait_for_rounds(&daemon, 2);
    assert!(daemon.log().contains("alone: it was tried in vain site=blog"), "{}", daemon.log());
    assert_eq!(house.states(), ["failed"]);
    std::fs::remove_dir(&lock).expect("a directory");
    let newer = house.origin.commit(&[("index.html", "two")]);
    assert_eq!(wait_for_newest(&house, 2)["commit"], json!(newer));
}

#[test]
fn a_push_and_the_look_at_the_remote_never_deploy_twice() {
    let house = watchful("");
    house.origin.commit(&[("index.html", "0")]);
    let daemon = house.serve();
    wait_for_newest(&house, 1);
    for number in 1..=8 {
        let commit = house.origin.commit(&[("index.html", &number.to_string())]);
        // Whoever is first: the other finds it waiting, running or live.
        daemon.push(&number.to_string(), &commit);
        house.wait_for_quiet();
        assert_eq!(house.live("index.html"), number.to_string());
    }
    assert_eq!(house.states(), vec!["succeeded"; 9]);
}

#[test]
#[ignore = "takes 30 s, as long as a forge may need to show what was pushed: tests/run.sh has the time"]
fn a_lost_push_by_force_back_to_an_older_commit_is_deployed_when_the_remote_is_sure() {
    let house = watchful("");
    let old = house.origin.commit(&[("index.html", "old")]);
    let daemon = serve_telling_all(&house);
    wait_for_newest(&house, 1);
    house.origin.commit(&[("index.html", "new")]);
    wait_for_newest(&house, 2);
    house.origin.git(&["reset", "--quiet", "--hard", &old]);
    house.origin.git(&["push", "--quiet", "--force", &house.origin.bare.to_string_lossy(), "HEAD:main"]);
    wait_for("patience", || daemon.log().contains("alone: the remote may not show yet").then_some(()));
    assert_eq!(house.live("index.html"), "new");
    assert_eq!(wait_for_newest(&house, 3)["commit"], json!(old));
    assert_eq!(house.live("index.html"), "old");
}

#[test]
fn a_remote_that_is_silent_does_not_hold_up_the_stop() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/acme/shop.git", silent.local_addr().expect("an address"));
    let house = watchful(&second_site(&url));
    house.write_secret("shop", "another-secret-of-the-shop-0123456789");
    house.origin.commit(&[("index.html", "one")]);
    let daemon = house.serve();
    wait_for_newest(&house, 1);
    let (mut asking, _) = silent.accept().expect("a question");
    asking.read_exact(&mut [0; 4]).expect("the beginning of a request");
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0));
    // Had it waited for the answer, it would have been told that there is none.
    assert!(log.contains("stopped") && !log.contains("cannot look for lost pushes"), "{log}");
}
