//! A rollback: an older release becomes live, with no fetch and no build, and the site is held until somebody lifts it;
//! and which releases are there to go back to.

use serde_json::Value;

use crate::support::{House, Ran, Setup, is_root};

/// A house with these versions deployed, one after the other.
fn house_with(versions: &[&str], setup: &Setup<'_>) -> House {
    let house = House::with(setup);
    for version in versions {
        deploy(&house, version);
    }
    house
}

fn house(versions: &[&str]) -> House {
    house_with(versions, &Setup::default())
}

fn deploy(house: &House, version: &str) -> String {
    let commit = house.origin.commit(&[("index.html", version)]);
    house.deploy().expect(0);
    assert_eq!(house.live("index.html"), version);
    commit
}

/// Writes hooks for the next commit: each notes its name and whatever this text says.
fn write_hooks(house: &House, names: &[&str], more: &str) {
    for name in names {
        let script = format!("echo \"$TARGET_HOOK {more}\" >> {}/ran\n", house.path().display());
        house.origin.write(&format!(".landfall/{name}"), &script);
    }
}

fn rollback(house: &House, more: &[&str]) -> Ran {
    house.landfall(&[&["rollback", "blog"], more].concat())
}

fn hold(house: &House) -> Value {
    house.landfall(&["status", "blog", "--json"]).expect(0).json()["hold"]["reason"].clone()
}

/// The versions of all releases, oldest first.
fn versions(house: &House) -> Vec<String> {
    let read = |id: &String| std::fs::read_to_string(house.root.join("release").join(id).join("index.html"));
    house.releases().iter().map(|id| read(id).expect("a version")).collect()
}

#[test]
fn a_bare_rollback_makes_the_one_before_live_and_holds_the_site() {
    let house = house(&["one", "two"]);
    let releases = house.releases();
    let ended = rollback(&house, &["--json"]).expect(0).json();
    assert_eq!((&ended["kind"], &ended["state"]), (&"rollback".into(), &"succeeded".into()));
    assert_eq!(ended["release"], releases[0].as_str());
    assert_eq!(house.live("index.html"), "one");
    assert_eq!(house.releases(), releases, "nothing is discarded");
    assert_eq!(hold(&house), format!("rolled back to {}", releases[0]));
}

#[test]
fn a_second_bare_rollback_goes_further_back_and_never_to_what_was_rolled_away_from() {
    let house = house(&["one", "two", "three"]);
    rollback(&house, &[]).expect(0);
    rollback(&house, &[]).expect(0);
    assert_eq!(house.live("index.html"), "one");
    deploy(&house, "four");
    rollback(&house, &[]).expect(0);
    assert_eq!(house.live("index.html"), "one", "two and three were rolled away from");
    let listed = house.landfall(&["releases", "blog", "--json"]).expect(0).json();
    let away: Vec<_> = listed.as_array().expect("a list").iter().map(|found| found["rolled_away"].clone()).collect();
    assert_eq!(away, [true, true, true, false], "newest first");
}

#[test]
fn without_an_older_good_release_it_ends_with_3_and_nothing_happens() {
    for versions in [&[][..], &["one"], &["one", "two"]] {
        let house = house(versions);
        if versions.len() == 2 {
            rollback(&house, &[]).expect(0);
        }
        let (before, count) = (house.current(), house.deployments().len());
        let refused = rollback(&house, &[]).expect(3);
        assert!(refused.stderr.contains("no older good release"), "{}", refused.stderr);
        assert_eq!((house.current(), house.deployments().len()), (before, count));
    }
}

#[test]
fn to_names_any_release_also_a_newer_one_or_one_that_was_rolled_away_from() {
    let house = house(&["one", "two", "three"]);
    let releases = house.releases();
    for (place, version) in [(0, "one"), (2, "three"), (1, "two"), (2, "three")] {
        rollback(&house, &["--to", &releases[place]]).expect(0);
        assert_eq!(house.live("index.html"), version);
    }
    let unknown = rollback(&house, &["--to", "2020-01-01T00:00:00.000000.1a2b3c4"]).expect(3);
    assert!(unknown.stderr.contains("has no release `2020"), "{}", unknown.stderr);
    rollback(&house, &["--to", "../../etc"]).expect(2);
    assert_eq!(house.live("index.html"), "three");
}

#[test]
fn a_rollback_to_what_is_live_changes_nothing_and_holds_nothing() {
    let house = house(&["one", "two"]);
    let live = house.releases()[1].clone();
    assert_eq!(rollback(&house, &["--to", &live, "--json"]).expect(0).json()["state"], "current");
    assert_eq!((house.live("index.html").as_str(), hold(&house)), ("two", Value::Null));
}

#[test]
fn its_hooks_run_from_the_release_that_is_live_when_it_starts_and_no_others_do() {
    let house = House::new();
    let all = ["before.pull", "after.pull", "before.deploy", "after.deploy", "deploy.success", "deploy.failure"];
    let both = ["rollback/before", "rollback/after"];
    for version in ["one", "two"] {
        write_hooks(&house, &all, version);
        let now_live = "$(cat $CURRENT_PATH/index.html) $(cat index.html) $RELEASE_ID $COMMIT_ID";
        write_hooks(&house, &both, &format!("{version} {now_live}"));
        deploy(&house, version);
    }
    std::fs::remove_file(house.path().join("ran")).expect("the notes of the deployments");
    rollback(&house, &[]).expect(0);
    let (release, commit) = (&house.releases()[1], house.origin.head());
    let expected =
        format!("rollback/before two two two {release} {commit}\nrollback/after two one two {release} {commit}\n");
    assert_eq!(house.read("ran"), expected);
}

#[test]
fn a_failing_hook_puts_the_old_link_back_discards_nothing_and_sets_no_hold() {
    for hook in ["rollback/before", "rollback/after"] {
        let house = house(&["one"]);
        write_hooks(&house, &["deploy.failure"], "");
        house.origin.write(&format!(".landfall/{hook}"), "exit 7");
        deploy(&house, "two");
        let (before, releases) = (house.current(), house.releases());
        let failed = rollback(&house, &[]).expect(1);
        assert!(failed.stderr.contains(hook) && failed.stderr.contains("status 7"), "{}", failed.stderr);
        assert_eq!((house.current(), house.releases()), (before, releases), "{hook}");
        assert_eq!((hold(&house), house.read("ran").as_str()), (Value::Null, ""), "{hook}");
        assert_eq!(house.states(), ["succeeded", "succeeded", "failed"]);
        // It is no reason to choose another one the next time.
        rollback(&house, &["--force"]).expect(0);
        assert_eq!(house.live("index.html"), "one");
    }
}

#[test]
fn force_skips_the_hooks() {
    let house = House::new();
    write_hooks(&house, &["rollback/before", "rollback/after"], "");
    house.origin.write(".landfall/rollback/before", "exit 1");
    for version in ["one", "two"] {
        deploy(&house, version);
    }
    rollback(&house, &["--force"]).expect(0);
    assert_eq!((house.live("index.html").as_str(), house.read("ran").as_str()), ("one", ""));
    assert!(hold(&house).is_string());
}

#[test]
fn a_held_site_takes_no_push_until_a_manual_deploy_lifts_the_hold() {
    let house = house(&["one", "two"]);
    rollback(&house, &[]).expect(0);
    let server = house.serve();
    let commit = house.origin.commit(&[("index.html", "three")]);
    let ignored = server.push("p-1", &commit).expect(200, "ignored").json();
    assert!(ignored["sites"][0]["reason"].as_str().is_some_and(|reason| reason.contains("hold")), "{ignored}");
    // The commit that is live is held too: a hold beats current.
    server.push("p-2", &house.origin.git(&["rev-parse", "HEAD~2"])).expect(200, "ignored");
    assert_eq!(house.live("index.html"), "one");
    house.deploy().expect(0);
    assert_eq!((house.live("index.html").as_str(), hold(&house)), ("three", Value::Null));
    let commit = house.origin.commit(&[("index.html", "four")]);
    let id = server.push("p-3", &commit).expect(202, "queued").deployment();
    assert_eq!(house.wait_for_end(id)["state"], "succeeded");
}

#[test]
fn a_rollback_goes_through_a_server_that_runs() {
    let house = house(&["one", "two"]);
    let _server = house.serve();
    rollback(&house, &[]).expect(0);
    assert_eq!(house.live("index.html"), "one");
    assert_eq!(house.states(), ["succeeded", "succeeded", "succeeded"]);
}

#[test]
fn the_newest_releases_stay_and_the_oldest_go() {
    let house = house_with(&["one", "two", "three", "four"], &Setup { site: "keep = 2", ..Setup::default() });
    assert_eq!(versions(&house), ["three", "four"]);
}

#[test]
fn failed_deployments_never_count_as_releases_to_keep() {
    let house = house_with(&["one", "two"], &Setup { site: "keep = 2", ..Setup::default() });
    house.origin.commit(&[("index.html", "bad"), (".landfall/after.deploy", "exit 1")]);
    for _ in 0..3 {
        house.deploy().expect(1);
    }
    assert_eq!(versions(&house), ["one", "two"]);
    rollback(&house, &[]).expect(0);
    assert_eq!(house.live("index.html"), "one");
}

#[test]
fn the_live_and_the_previous_release_stay_however_old_they_are() {
    let house = house_with(&["one", "two", "three"], &Setup { site: "keep = 3", ..Setup::default() });
    let oldest = house.releases()[0].clone();
    rollback(&house, &["--to", &oldest]).expect(0);
    house.configure(&Setup { site: "keep = 1", ..Setup::default() });
    // The previous one is not among the newest, and is what one would go back to.
    deploy(&house, "four");
    assert_eq!(versions(&house), ["one", "four"]);
    rollback(&house, &[]).expect(0);
    assert_eq!(house.live("index.html"), "one");
    deploy(&house, "five");
    assert_eq!(versions(&house), ["one", "five"]);
}

#[test]
fn names_grow_also_when_a_release_is_dated_in_the_future() {
    let house = house(&["one"]);
    let future = "2199-12-31T23:59:59.999998.1a2b3c4";
    // As a clock that was wrong would have left it.
    let (release, records) = (house.root.join("release"), house.state.join("releases/blog"));
    let first = house.releases()[0].clone();
    std::fs::rename(release.join(&first), release.join(future)).expect("a release");
    let record = std::fs::read_to_string(records.join(format!("{first}.json"))).expect("a record");
    std::fs::write(records.join(format!("{future}.json")), record.replace(&first, future)).expect("a record");
    std::fs::remove_file(records.join(format!("{first}.json"))).expect("a record to remove");
    std::fs::remove_file(house.root.join("current")).expect("a link");
    std::os::unix::fs::symlink(release.join(future), house.root.join("current")).expect("a link");
    deploy(&house, "two");
    deploy(&house, "three");
    let releases = house.releases();
    assert_eq!(releases[0], future);
    assert!(releases[1].starts_with("2199-12-31T23:59:59.999999."), "{releases:?}");
    assert!(releases[2].starts_with("2200-01-01T00:00:00.000000."), "{releases:?}");
    rollback(&house, &[]).expect(0);
    assert_eq!(house.live("index.html"), "two");
}

#[test]
fn names_have_no_colon_where_the_site_says_so_and_both_forms_are_one_row() {
    let compact = Setup { site: "release_name = \"compact\"", ..Setup::default() };
    let house = house(&["one"]);
    house.configure(&compact);
    deploy(&house, "two");
    house.configure(&Setup::default());
    deploy(&house, "three");
    let colons: Vec<_> = ["one", "two", "three"]
        .map(|version| {
            let named = |id: &&String| {
                std::fs::read_to_string(house.root.join("release").join(id).join("index.html")).expect("a version")
                    == version
            };
            house.releases().iter().find(named).expect("a release").matches(':').count()
        })
        .into();
    assert_eq!(colons, [2, 0, 2]);
    for version in ["two", "one"] {
        rollback(&house, &[]).expect(0);
        assert_eq!(house.live("index.html"), version);
    }
}

#[test]
fn a_push_of_the_live_tip_is_current_and_a_manual_deploy_builds_it_anew() {
    let house = House::new();
    let commit = deploy(&house, "one");
    let server = house.serve();
    server.push("p-1", &commit).expect(200, "current");
    assert_eq!(house.releases().len(), 1);
    // Another commit was pushed, and taken back before it was fetched: the tip is live already.
    let id = server.push("p-2", &"5".repeat(40)).expect(202, "queued").deployment();
    assert_eq!(house.wait_for_end(id)["state"], "current");
    assert_eq!(house.releases().len(), 1);
    house.deploy().expect(0);
    assert_eq!(house.releases().len(), 2);
    assert_eq!(house.current().as_deref(), house.root.join("release").join(&house.releases()[1]).to_str());
}

#[test]
#[ignore = "needs unshare, of util-linux: tests/run.sh has it"]
fn what_is_mounted_in_an_old_release_is_not_emptied_with_it() {
    // Only root mounts anything.
    if !is_root() {
        return;
    }
    let house = House::with(&Setup { site: "keep = 1", ..Setup::default() });
    house.origin.commit(&[("index.html", "one")]);
    house.deploy().expect(0);
    let inside = house.root.join("release").join(&house.releases()[0]).join("mounted");
    let precious = house.path().join("precious");
    std::fs::create_dir(&inside).expect("a directory");
    std::fs::create_dir(&precious).expect("a directory");
    std::fs::write(precious.join("data"), "precious").expect("a file");
    // Twice: the first leaves the previous release alone. The mount is seen by these commands only, and ends with them.
    let script = "mount --bind \"$1\" \"$2\" && shift 2 && \"$@\" && \"$@\"";
    let deploy = house.command(&["deploy", "blog"]);
    let mut apart = std::process::Command::new("unshare");
    apart.args(["--mount", "bash", "-c", script, "bash"]).arg(&precious).arg(&inside);
    apart.arg(deploy.get_program()).args(deploy.get_args());
    assert!(apart.status().expect("unshare").success());
    assert_eq!(std::fs::read_to_string(precious.join("data")).expect("the file"), "precious");
    assert!(house.releases().iter().any(|name| name.starts_with(".trash-")), "it was on its way out");
    house.deploy().expect(0);
    assert_eq!(house.releases().len(), 2, "without the mount it goes");
}
