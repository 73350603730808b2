//! An operator sends again what is kept: the rules are those of a redelivery by the forge, and it says who asked.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::deliveries::{MAIN, commit, gitlab, house, listed, redeliver, shown};
use crate::support::{Delivery, House, Setup, wait_for};

#[test]
fn what_failed_is_deployed_by_redelivering_it_with_and_without_a_server() {
    for is_server in [false, true] {
        let house = house();
        let hook = format!("echo talk; [ -e {}/fixed ]", house.path().display());
        let tip = house.origin.commit(&[(".landfall/before.deploy", &hook)]);
        let daemon = house.serve();
        assert_eq!(house.wait_for_end(daemon.push("d1", &tip).deployment())["state"], "failed");
        let daemon = is_server.then_some(daemon);
        let failed = house.landfall(&["redeliver", "1"]).expect(1);
        assert_eq!(failed.stdout, "");
        assert!(failed.stderr.contains("── before.deploy\ntalk\n"), "{}", failed.stderr);
        assert!(failed.stderr.contains("landfall: delivery 2: queued\ndeployment 2 failed: "), "{}", failed.stderr);
        let answer = redeliver(&house, 1).expect(1).json();
        assert_eq!(answer["deployments"], json!([{ "id": 3, "site": "blog", "state": "failed" }]));
        std::fs::write(house.path().join("fixed"), "").expect("a file");
        let ran = house.landfall(&["redeliver", "1"]).expect(0);
        assert!(ran.stdout.starts_with("delivery 4: queued\ndeployment 4 succeeded: blog is at "), "{}", ran.stdout);
        assert_eq!(house.states(), ["failed", "failed", "failed", "succeeded"]);
        let new = house.deployment(4);
        assert_eq!(
            (&new["commit"], &new["delivery_key"], &new["trigger"]),
            (&json!(tip), &json!("d1"), &json!("push"))
        );
        assert_eq!(shown(&house, 1)["sites"][0]["deployment"], json!({ "id": 1, "state": "failed" }), "that stays");
        if let Some(daemon) = daemon {
            assert!(daemon.log().contains("site=blog deployment=4"), "the server does it: {}", daemon.log());
        }
    }
}

#[test]
fn what_is_live_is_current_and_a_ping_is_answered_again() {
    let house = house();
    let daemon = house.serve();
    house.wait_for_end(daemon.push("d1", &house.origin.head()).deployment());
    daemon.send(&Delivery::github("d2", "ping", "{}".into())).expect(200, "pong");
    drop(daemon);
    let before = house.current();
    assert_eq!(house.landfall(&["redeliver", "1"]).expect(0).stdout, "delivery 3: current\n");
    assert_eq!(house.landfall(&["redeliver", "2"]).expect(0).stdout, "delivery 4: pong\n");
    assert_eq!((house.states(), house.current()), (vec!["succeeded".to_owned()], before));
}

#[test]
fn what_runs_is_followed_and_what_waits_is_done_and_never_made_twice() {
    let house = house();
    let gate = house.gate("build");
    let tip = house.origin.commit(&[(".landfall/after.pull", &gate.hook())]);
    let daemon = house.serve();
    daemon.push("d1", &tip).expect(202, "queued");
    gate.wait_for(1);
    let answer = house.landfall(&["redeliver", "1", "--no-wait", "--json"]).expect(0).json();
    assert_eq!(answer["status"], "duplicate");
    assert_eq!(answer["deployments"], json!([{ "id": 1, "site": "blog", "state": "running" }]));
    let mut following = house.command(&["redeliver", "1"]);
    let following = following.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary");
    wait_for("the replay", || listed(&house, &[]).contains(&3).then_some(()));
    gate.open();
    let ended = following.wait_with_output().expect("an end");
    let told = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success() && told.starts_with("delivery 3: duplicate\ndeployment 1 succeeded: "), "{told}");
    drop(daemon);

    let next = house.origin.commit(&[("index.html", "two")]);
    let daemon = house.serve();
    let hold = house.gate("hold");
    house.origin.commit(&[(".landfall/after.pull", &hold.hook())]);
    daemon.push("d2", &next).expect(202, "queued");
    hold.wait_for(1);
    daemon.kill();
    hold.open();
    let ran = house.landfall(&["redeliver", "4", "--no-wait"]).expect(0);
    assert!(ran.stderr.contains("no server runs here"), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("delivery 5: duplicate"), "{}", ran.stdout);
    let ran = house.landfall(&["redeliver", "4"]);
    // What the dead server ran was interrupted, and is tried once more by whoever comes next.
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("deployment 2 interrupted"), "{}", ran.stderr);
    let _daemon = house.serve();
    house.wait_for_quiet();
    assert_eq!(
        (house.states(), house.live("index.html").as_str()),
        (["succeeded", "interrupted", "succeeded"].map(str::to_owned).into(), "two")
    );
}

#[test]
fn what_was_superseded_takes_nothing_back() {
    let house = house();
    let gate = house.gate("build");
    let commits: Vec<_> = ["one", "two", "three"]
        .into_iter()
        .map(|content| house.origin.commit(&[("index.html", content), (".landfall/after.pull", &gate.hook())]))
        .collect();
    let daemon = house.serve();
    daemon.push("d1", &commits[0]).expect(202, "queued");
    gate.wait_for(1);
    daemon.push("d2", &commits[1]).expect(202, "queued");
    daemon.push("d3", &commits[2]).expect(202, "queued");
    assert_eq!(shown(&house, 2)["sites"][0]["deployment"]["state"], "superseded");
    gate.open();
    house.wait_for_quiet();
    let before = house.current();
    let answer = redeliver(&house, 2).expect(0).json();
    assert_eq!((&answer["status"], &answer["deployments"][0]["state"]), (&json!("queued"), &json!("current")));
    assert_eq!((house.current(), house.live("index.html").as_str()), (before, "three"));
}

#[test]
fn an_old_delivery_after_five_newer_pushes_takes_nothing_back_whoever_sends_it_again() {
    let house = house();
    let daemon = house.serve();
    let old = Delivery::push("old", MAIN, &commit("1"), &house.origin.head());
    house.wait_for_end(daemon.send(&old).expect(202, "queued").deployment());
    for round in 0..5 {
        let tip = house.origin.commit(&[("index.html", &round.to_string())]);
        house.wait_for_end(daemon.push(&format!("d{round}"), &tip).expect(202, "queued").deployment());
    }
    let (before, releases) = (house.current(), house.releases());
    assert_eq!(house.wait_for_end(daemon.send(&old).expect(202, "queued").deployment())["state"], "current");
    assert_eq!(redeliver(&house, 1).expect(0).json()["deployments"][0]["state"], "current");
    drop(daemon);
    assert_eq!(redeliver(&house, 1).expect(0).json()["deployments"][0]["state"], "current");
    assert_eq!((house.current(), house.releases(), house.live("index.html").as_str()), (before, releases, "4"));
}

#[test]
fn a_site_on_hold_and_a_delivery_for_nobody_are_refused_with_the_reason() {
    let house = house();
    let daemon = house.serve();
    let push = Delivery::push("d1", MAIN, &commit("1"), &house.origin.head());
    house.wait_for_end(daemon.send(&push).expect(202, "queued").deployment());
    let tip = house.origin.commit(&[("index.html", "two")]);
    house.wait_for_end(daemon.push("d2", &tip).expect(202, "queued").deployment());
    daemon.send(&Delivery::push("d3", "refs/heads/draft", &commit("1"), &tip)).expect(200, "ignored");
    house.landfall(&["rollback", "blog"]).expect(0);
    let (before, deployments) = (house.current(), house.deployments().len());
    let held = house.landfall(&["redeliver", "2"]).expect(4);
    assert!(held.stderr.contains("landfall: delivery 4: ignored (blog: hold: rolled back to "), "{}", held.stderr);
    assert_eq!(held.stdout, "");
    let answer = redeliver(&house, 2).expect(4).json();
    assert_eq!((&answer["status"], &answer["sites"][0]["status"]), (&json!("ignored"), &json!("ignored")));
    let other = house.landfall(&["redeliver", "3"]).expect(4);
    assert!(other.stderr.contains("delivery 6: ignored (blog: `refs/heads/draft` is not"), "{}", other.stderr);
    assert_eq!((house.current(), house.deployments().len()), (before, deployments));
    assert_eq!(shown(&house, 5)["sites"][0]["status"], "ignored", "and that is kept too");
}

#[test]
fn a_replay_says_who_asked_and_by_the_configuration_of_now() {
    let house = house();
    let daemon = house.serve();
    house.origin.push("draft");
    let push = Delivery::push("d1", "refs/heads/draft", &commit("1"), &house.origin.head());
    daemon.send(&push).expect(200, "ignored");
    drop(daemon);
    house.configure(&Setup { site: "branch = \"draft\"", ..Setup::default() });
    let mut command = house.command(&["redeliver", "1"]);
    let output = command.env("SUDO_USER", "ada").output().expect("the binary");
    assert!(output.status.success(), "{output:?}");
    let replay = shown(&house, 2);
    assert_eq!((&replay["replay_of"], &replay["asked_by"]), (&json!(1), &json!("ada")));
    assert_eq!((&replay["key"], &replay["status"], &replay["source"]), (&json!("d1"), &json!("queued"), &Value::Null));
    assert_eq!((&replay["body"], &replay["headers"]), (&shown(&house, 1)["body"], &shown(&house, 1)["headers"]));
    assert!(house.landfall(&["delivery", "2"]).expect(0).stdout.contains("\nreplay:     ada sent 1 again\n"));
    assert!(house.landfall(&["deliveries"]).expect(0).stdout.contains("  ada sent 1 again\n"));
    assert_eq!(house.states(), ["succeeded"]);
}

#[test]
fn what_is_not_there_or_not_kept_cannot_be_sent_again() {
    let house = house();
    let daemon = house.serve();
    daemon.send(&Delivery::github("d1", "ping", "{}".into())).expect(200, "pong");
    daemon.send(&gitlab("d2", "Issue Hook", &json!({}))).expect(200, "ignored");
    drop(daemon);
    for command in ["delivery", "redeliver"] {
        let ran = house.landfall(&[command, "99"]).expect(3);
        assert!(ran.stderr.contains("there is no delivery 99\nhelp: `landfall deliveries` lists"), "{}", ran.stderr);
        house.landfall(&[command, "last"]).expect(2);
    }
    house.configure(&Setup { more: "[deliveries]\nkeep_bodies = \"0B\"", ..Setup::default() });
    assert_eq!(listed(&house, &["--repository", "shop"]), [2], "what is not configured any more has a past");
    let ran = house.landfall(&["redeliver", "2"]).expect(3);
    assert!(
        ran.stderr.contains("delivery 2 has nowhere to go: there is no repository `shop`; configured: blog"),
        "{ran:?}"
    );
    let daemon = house.serve();
    wait_for("the bodies to go", || daemon.log().contains("dropped 1 deliveries and bodies").then_some(()));
    let ran = house.landfall(&["redeliver", "1"]).expect(4);
    assert!(
        ran.stderr.contains("the body of delivery 1 is not kept") && ran.stderr.contains("\nhelp: redeliver it in"),
        "{ran:?}"
    );
    assert_eq!(shown(&house, 1)["body"], Value::Null);
    assert!(house.landfall(&["delivery", "1"]).expect(0).stdout.ends_with("body:       2 bytes, not kept\n"));
    assert_eq!(listed(&house, &[]), [2, 1], "nothing was stored for what was refused");
}

#[test]
fn a_delivery_of_another_forge_than_is_configured_now_is_refused() {
    let house = house();
    house.serve().send(&Delivery::github("d1", "ping", "{}".into())).expect(200, "pong");
    let gitlab = format!("url = \"{}\"\nforge = \"gitlab\"", house.origin.bare.display());
    house.configure(&Setup { repository: &gitlab, ..Setup::default() });
    let ran = house.landfall(&["redeliver", "1"]).expect(4);
    assert!(
        ran.stderr.contains("delivery 1 makes no sense to forge `gitlab`") && ran.stderr.contains("\nhelp: "),
        "{ran:?}"
    );
}

#[test]
fn what_cannot_be_done_is_not_stored_either() {
    let house = house();
    house.serve().send(&Delivery::github("d1", "ping", "{}".into())).expect(200, "pong");
    house.write_secret("secret", "short");
    assert!(house.landfall(&["redeliver", "1"]).expect(2).stderr.contains("repositories.blog.secret"));
    assert_eq!(listed(&house, &[]), [1]);
    // Whoever only reads, or leaves the work to a server, needs no secret.
    assert_eq!(house.landfall(&["redeliver", "1", "--no-wait"]).expect(0).stdout, "delivery 2: pong\n");
}

#[test]
fn of_several_sites_each_is_seen_to_its_end_and_the_worst_counts() {
    let two = "[sites.mirror]\nrepository = \"blog\"\nbranch = \"main\"\nroot = \"{house}/mirror\"\n";
    let house = House::with(&Setup { more: two, ..Setup::default() });
    let hook = "[ \"$ENVIRONMENT_NAME\" = mirror ] || exit 3";
    let tip = house.origin.commit(&[("index.html", "one"), (".landfall/before.deploy", hook)]);
    let daemon = house.serve();
    daemon.push("d1", &tip).expect(202, "queued");
    house.wait_for_quiet();
    std::fs::remove_file(house.path().join("mirror/current")).expect("a link");
    drop(daemon);
    let ran = house.landfall(&["redeliver", "1"]).expect(1);
    assert!(
        ran.stderr.contains("deployment 3 failed: ") && ran.stderr.contains("\ndeployment 4 succeeded: mirror"),
        "{ran:?}"
    );
    assert_eq!(house.states(), ["failed", "succeeded", "failed", "succeeded"]);
}

#[test]
fn a_signal_ends_what_runs_and_what_still_waits() {
    let two = "[sites.mirror]\nrepository = \"blog\"\nbranch = \"main\"\nroot = \"{house}/mirror\"\n";
    let house = House::with(&Setup { more: two, ..Setup::default() });
    let tip = house.origin.commit(&[(".landfall/before.deploy", "exit 3")]);
    let daemon = house.serve();
    daemon.push("d1", &tip).expect(202, "queued");
    house.wait_for_quiet();
    drop(daemon);
    let gate = house.gate("build");
    house.origin.commit(&[(".landfall/before.deploy", &gate.hook())]);
    let mut command = house.command(&["redeliver", "1"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary");
    gate.wait_for(1);
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGINT).expect("a signal");
    house.wait_for_end(3);
    gate.open();
    let ended = child.wait_with_output().expect("an end");
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(130), "{told}");
    assert!(told.contains("interrupted: delivery 2: queued\ndeployment 3 cancelled: "), "{told}");
    assert_eq!(house.states(), ["failed", "failed", "cancelled", "cancelled"]);
}
