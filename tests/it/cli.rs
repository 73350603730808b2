//! The command line: what it prints where, and what its exit code says.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{Daemon, House, Ran, SECRET, Setup, is_root, wait_for};

/// Starts a command whose output can be read at its end.
fn start(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary")
}

fn interrupt(child: &Child) {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGINT).expect("a signal");
}

/// Exit code, stdout and stderr of a command that ends by itself.
fn end(child: Child) -> (Option<i32>, String, String) {
    let output = child.wait_with_output().expect("an end");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// What a server says that refuses to start. One that starts all the same is ended, and has no exit code.
fn refused_server(house: &House) -> Ran {
    let mut child = start(house.command(&["serve"]));
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().expect("a status").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("a signal");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let (code, stdout, stderr) = end(child);
    Ran { code, stdout, stderr }
}

#[test]
fn each_command_says_by_its_exit_code_what_went_wrong() {
    let house = House::new();
    house.origin.commit(&[("index.html", "one")]);
    let commit = "a".repeat(40);
    let release = "2026-01-01T00:00:00.000000.abcdef0";
    let table: [(&[&str], i32, &str); 31] = [
        (&["check"], 0, ""),
        (&["check", "--online"], 0, ""),
        (&["status"], 0, ""),
        (&["status", "blog"], 0, ""),
        (&["releases", "blog"], 0, ""),
        (&["deployments"], 0, ""),
        (&["webhook", "blog"], 0, ""),
        (&["--help"], 0, ""),
        (&["--version"], 0, ""),
        (&[], 2, "Usage"),
        (&["undeploy"], 2, "undeploy"),
        (&["deploy"], 2, "<SITE>"),
        (&["deploy", "../blog"], 2, "../blog"),
        (&["deploy", "blog", "--ref", &commit], 2, "a bare commit cannot be deployed"),
        (&["deploy", "blog", "--ref", "a..b"], 2, "`refs/heads/a..b` is no full ref name"),
        (&["deploy", "blog", "--ref", ""], 2, "no full ref name"),
        (&["deployments", "--limit", "0"], 2, "0"),
        (&["rollback", "blog", "--to", "yesterday"], 2, "yesterday"),
        (&["log", "last"], 2, "no number of a deployment"),
        (&["deploy", "shop"], 3, "there is no site `shop`; configured: blog"),
        (&["status", "shop"], 3, "there is no site `shop`"),
        (&["releases", "shop"], 3, "there is no site `shop`"),
        (&["deployments", "shop"], 3, "there is no site `shop`"),
        (&["rollback", "shop"], 3, "there is no site `shop`"),
        (&["rollback", "blog"], 3, "no older good release"),
        (&["rollback", "blog", "--to", release], 3, "has no release"),
        (&["log", "999"], 3, "there is no deployment 999"),
        (&["webhook", "shop"], 3, "there is no repository `shop`; configured: blog"),
        (&["send-test", "shop"], 3, "there is no repository `shop`"),
        (&["send-test", "blog", "--ref", "draft"], 3, "`refs/heads/draft` does not exist"),
        (&["send-test", "blog", "--url", "http://127.0.0.1:1"], 5, "cannot reach"),
    ];
    for (args, code, told) in table {
        let ran = house.landfall(args);
        assert_eq!(ran.code, Some(code), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(told), "{args:?}: {}", ran.stderr);
        assert!(code == 0 || ran.stdout.is_empty(), "{args:?} fails and prints data: {}", ran.stdout);
    }
    assert_eq!(house.deployments(), Vec::<Value>::new(), "what is refused is not queued");
}

#[test]
fn a_deployment_that_fails_is_1_and_names_hook_and_status() {
    let house = House::new();
    house.origin.commit(&[("index.html", "one"), (".landfall/before.deploy", "echo out; echo err >&2; exit 7")]);
    let ran = house.deploy().expect(1);
    assert!(ran.stderr.contains("before.deploy") && ran.stderr.contains('7'), "{}", ran.stderr);
    assert!(ran.stderr.contains("out\nerr\n"), "the hook's output is shown: {}", ran.stderr);
    assert_eq!(ran.stdout, "");
    let ran = house.landfall(&["deploy", "blog", "--json"]).expect(1);
    assert_eq!((&ran.json()["state"], &ran.json()["step"]), (&json!("failed"), &json!("before.deploy")));
    house.serve();
    house.deploy().expect(1);
}

#[test]
fn a_store_that_is_not_there_is_5() {
    let house = House::with(&Setup { more: "[store]\nurl = \"sqlite:{house}/store.db\"", ..Setup::default() });
    std::fs::create_dir(house.path().join("store.db")).expect("a directory in the way");
    let commands = [&["status"][..], &["deploy", "blog"], &["deployments"], &["log", "1"]];
    for ran in commands.into_iter().map(|args| house.landfall(args)).chain([refused_server(&house)]) {
        assert_eq!(ran.code, Some(5), "{ran:?}");
        assert!(ran.stderr.contains("the store is not available"), "{ran:?}");
    }
}

#[test]
fn data_goes_to_stdout_and_talk_to_stderr() {
    let house = House::new();
    house.origin.commit(&[("index.html", "one"), (".landfall/after.pull", "echo talk")]);
    let ran = house.deploy().expect(0);
    assert!(
        ran.stdout.starts_with("deployment 1 succeeded: blog is at ") && ran.stdout.lines().count() == 1,
        "{ran:?}"
    );
    assert!(ran.stderr.contains("── after.pull\ntalk\n"), "{}", ran.stderr);
    for args in
        [&["status"][..], &["status", "blog"], &["releases", "blog"], &["deployments"], &["log", "1"], &["check"]]
    {
        let ran = house.landfall(args).expect(0);
        // Root is told that hooks would run as root.
        let is_quiet = ran.stderr.is_empty() || (is_root() && ran.stderr.contains("run as root"));
        assert!(!ran.stdout.is_empty() && is_quiet, "{args:?}: {ran:?}");
    }
    assert!(house.log(1).contains("── after.pull\ntalk\n"));
}

#[test]
fn json_has_the_fields_that_are_documented() {
    let house = House::new();
    house.origin.commit(&[("index.html", "one"), (".landfall/after.pull", "echo talk")]);
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>().join(" ");
    let ask = |args: &[&str]| house.landfall(&[args, &["--json"]].concat()).expect(0).json();
    let deployment = "attempt commit delivery_key finished_at id kind node queued_at reason ref release requested_by retry_of \
         site started_at state step superseded_by trigger";
    let site = "branch hold last live problem queued refs repository root running site";
    let release = "commit deployment live made_at path release rolled_away";
    assert_eq!(keys(&ask(&["deploy", "blog"])), deployment);
    assert_eq!(keys(&ask(&["status", "blog"])), site);
    assert_eq!(keys(&ask(&["status", "blog"])["live"]), release);
    assert_eq!(keys(&ask(&["status", "blog"])["last"]), deployment);
    assert_eq!(keys(&ask(&["status"])[0]), site);
    assert_eq!(keys(&ask(&["releases", "blog"])[0]), release);
    assert_eq!(keys(&ask(&["deployments"])[0]), deployment);
    let log = ask(&["log", "1"]);
    assert_eq!(keys(&log), "deployment journal logs");
    assert!(log["logs"].as_array().expect("a list").contains(&json!({ "name": "after.pull", "text": "talk\n" })));
    assert_eq!(ask(&["check"]), json!({ "ok": true, "repositories": 1, "sites": 1, "problems": [] }));
    assert_eq!(keys(&ask(&["webhook", "blog"])), "content_type deploy_key events forge repository secret url");
    house.origin.commit(&[("index.html", "two")]);
    house.deploy().expect(0);
    assert_eq!(keys(&ask(&["rollback", "blog"])), deployment);
    assert_eq!(keys(&ask(&["status", "blog"])["hold"]), "owner reason since");
}

#[test]
fn lists_are_newest_first_and_end_at_the_limit() {
    let house = House::new();
    assert_eq!(house.landfall(&["releases", "blog", "--json"]).expect(0).json(), json!([]));
    assert_eq!(house.landfall(&["deployments", "--json"]).expect(0).json(), json!([]));
    house.origin.commit(&[("index.html", "one")]);
    for _ in 0..3 {
        house.deploy().expect(0);
    }
    let ids = |args: &[&str], key: &str| -> Vec<i64> {
        let list = house.landfall(&[args, &["--json"]].concat()).expect(0).json();
        list.as_array().expect("a list").iter().map(|entry| entry[key].as_i64().expect("a number")).collect()
    };
    assert_eq!(ids(&["deployments"], "id"), [3, 2, 1]);
    assert_eq!(ids(&["deployments", "blog", "--limit", "2"], "id"), [3, 2]);
    assert_eq!(ids(&["releases", "blog"], "deployment"), [3, 2, 1]);
    assert_eq!(ids(&["releases", "blog", "--limit", "1"], "deployment"), [3]);
}

#[test]
fn the_configuration_can_be_named_by_a_variable() {
    let house = House::new();
    let without = |house: &House| {
        let mut command = Command::new(house.command(&[]).get_program());
        command.env_clear().arg("check");
        command
    };
    let output = without(&house).env("LANDFALL_CONFIG", &house.config).output().expect("the binary");
    assert!(output.status.success(), "{output:?}");
    let output = without(&house).env("LANDFALL_CONFIG", "/nonexistent/deploy.toml").output().expect("the binary");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/deploy.toml"), "{output:?}");
}

#[test]
fn check_names_every_mistake_with_its_place_and_serve_refuses_to_start_with_it() {
    let other = "[repositories.shop]\nurl = \"https://github.com/acme/shop\"\nsecret = { file = \"{house}/other\" }\n";
    let other = other.to_owned();
    let weak = other.replace("other", "weak");
    let open = other.replace("other", "open");
    let same = other.replace("other", "secret");
    let twin = "[sites.twin]\nrepository = \"blog\"\nbranch = \"draft\"\nroot = \"{house}/root\"\n";
    let orphan = "[sites.orphan]\nrepository = \"wiki\"\nbranch = \"main\"\nroot = \"{house}/orphan\"\n";
    let disguised = "[sites.twin]\nrepository = \"blog\"\nbranch = \"draft\"\nroot = \"{house}/link/root\"\n";
    let keyed = other.clone() + "ssh_key = \"{house}/other\"\n";
    let with_more = |more| Setup { more, ..Setup::default() };
    let with_site = |site| Setup { site, ..Setup::default() };
    let user = "owner = \"no-such-user-here\"\nrun_as = \"no-such-user-here\"";
    let table = [
        (with_more(&weak), "repositories.shop.secret: ", "has 5 bytes; use 16 or more"),
        (with_more(&open), "repositories.shop.secret: ", "is open to others; run: chmod o= "),
        (with_more(&same), "repositories.shop.secret: ", "is the same as that of repository `blog`"),
        (with_site(user), "sites.blog.owner: ", "has no user `no-such-user-here`"),
        (with_site("group = \"no-such-group\""), "sites.blog.group: ", "has no group `no-such-group`"),
        (with_more(twin), "sites.twin.root: ", "is the root of site `blog`"),
        (with_more(orphan), "sites.orphan.repository: ", "there is no repository `wiki`; allowed: \"blog\""),
        (with_site("keeep = 3"), "sites.blog.keeep: ", "did you mean `keep`?"),
        (with_site("keep = 0"), "sites.blog.keep: ", "1 to 1000"),
        (with_site("env_file = \"{house}/none\""), "sites.blog.env_file: ", "cannot read"),
        (with_more(disguised), "sites.twin.root: ", "lies in the root of site `blog`"),
        (with_more(&keyed), "repositories.shop.ssh_key: ", "is for ssh URLs only"),
    ];
    for (setup, key, message) in &table {
        let house = House::new();
        house.write_secret("other", "another-good-secret-of-the-shop");
        house.write_secret("weak", "short");
        house.write_secret("open", "a-good-secret-that-everyone-knows");
        std::os::unix::fs::symlink(house.path(), house.path().join("link")).expect("a link");
        let open = std::fs::Permissions::from_mode(0o604);
        std::fs::set_permissions(house.path().join("open"), open).expect("a mode");
        house.configure(setup);
        let place = format!("{}:", house.config.display());
        for ran in [house.landfall(&["check"]), refused_server(&house)] {
            let ran = ran.expect(2);
            let line = ran.stderr.lines().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{key}: {ran:?}"));
            let rest = line.trim_start_matches("landfall: ").strip_prefix(&place).unwrap_or_else(|| panic!("{line}"));
            let numbers: Vec<_> = rest.splitn(3, ':').map(str::to_owned).collect();
            assert!(numbers[0].parse::<usize>().is_ok_and(|line| line > 1), "{line}");
            assert!(numbers[1].parse::<usize>().is_ok_and(|column| column > 0), "{line}");
            assert!(numbers[2].contains(message), "{line}");
            assert!(!ran.stderr.contains(SECRET) && !ran.stderr.contains("everyone-knows"), "a secret is shown");
        }
        let report = house.landfall(&["check", "--json"]).expect(2).json();
        assert_eq!(report["ok"], json!(false));
        let problem = &report["problems"][0];
        assert_eq!(format!("{}: ", problem["key"].as_str().expect("a key")), *key);
        // The place is the one in the file: there stands what the key is about.
        let text = std::fs::read_to_string(&house.config).expect("a configuration");
        let number = problem["line"].as_u64().and_then(|line| usize::try_from(line).ok()).expect("a number");
        let line = text.lines().nth(number - 1).expect("a line");
        let last = key.trim_end_matches(": ").rsplit('.').next().expect("a word");
        assert!(line.contains(last), "{key} is not in line {number}: {line}");
        assert!(!house.state.exists(), "a service that does not start makes nothing");
    }
}

#[test]
fn a_release_directory_that_is_not_ours_is_refused_before_anything_is_done() {
    let house = House::new();
    std::fs::create_dir_all(house.root.join("current")).expect("a directory in the way");
    for ran in [house.landfall(&["check"]), refused_server(&house), house.deploy()] {
        assert!(ran.expect(2).stderr.contains("sites.blog.root"));
    }
    assert!(house.root.join("current").is_dir());
    std::fs::remove_dir(house.root.join("current")).expect("a directory");
    house.landfall(&["check"]).expect(0);
}

#[test]
fn what_cannot_be_done_is_not_left_in_the_queue() {
    let house = House::new();
    for content in ["one", "two"] {
        house.origin.commit(&[("index.html", content)]);
        house.deploy().expect(0);
    }
    house.write_secret("secret", "short");
    for command in ["deploy", "rollback"] {
        let ran = house.landfall(&[command, "blog"]).expect(2);
        assert!(ran.stderr.contains("repositories.blog.secret"), "{command}: {}", ran.stderr);
    }
    assert_eq!(house.states(), ["succeeded", "succeeded"]);
}

#[test]
fn without_a_server_a_deploy_does_the_work_and_with_one_it_follows_it() {
    let house = House::new();
    house.origin.commit(&[("index.html", "one"), (".landfall/after.pull", "echo talk")]);
    house.deploy().expect(0);
    let daemon = house.serve();
    let ran = house.deploy().expect(0);
    assert!(ran.stdout.starts_with("deployment 2 succeeded: blog is at "), "{}", ran.stdout);
    assert!(ran.stderr.contains("── after.pull\ntalk\n"), "{}", ran.stderr);
    assert!(daemon.log().contains("site=blog deployment=2"), "the server does it: {}", daemon.log());
    assert_eq!(house.releases().len(), 2);
}

#[test]
fn a_deploy_that_does_not_wait_is_queued_and_says_when_nobody_works() {
    let house = House::new();
    house.origin.commit(&[("index.html", "one")]);
    let ran = house.landfall(&["deploy", "blog", "--no-wait", "--json"]).expect(0);
    assert_eq!((&ran.json()["state"], &ran.json()["id"]), (&json!("queued"), &json!(1)));
    assert!(ran.stderr.contains("no server runs here"), "{}", ran.stderr);
    let _daemon = house.serve();
    assert_eq!(house.wait_for_end(1)["state"], "succeeded");
    assert_eq!(house.landfall(&["deploy", "blog", "--no-wait"]).expect(0).stderr, "");
    assert_eq!(house.wait_for_end(2)["state"], "succeeded");
}

#[test]
fn another_branch_or_a_tag_can_be_deployed_by_its_name() {
    let house = House::new();
    for name in ["draft", "v1", "main"] {
        house.origin.write("index.html", name);
        house.origin.push(name);
    }
    house.origin.git_bare(&["update-ref", "refs/tags/v1", "refs/heads/v1"]);
    house.origin.git_bare(&["update-ref", "-d", "refs/heads/v1"]);
    let table = [
        ("draft", "draft", "refs/heads/draft"),
        ("refs/tags/v1", "v1", "refs/tags/v1"),
        ("main", "main", "refs/heads/main"),
    ];
    for (wanted, content, name) in table {
        let ran = house.landfall(&["deploy", "blog", "--ref", wanted, "--json"]).expect(0);
        assert_eq!((ran.json()["ref"].as_str(), house.live("index.html").as_str()), (Some(name), content));
    }
    let ran = house.landfall(&["deploy", "blog", "--ref", "gone"]).expect(1);
    assert!(ran.stderr.contains("`refs/heads/gone` does not exist"), "{}", ran.stderr);
    assert_eq!(house.live("index.html"), "main");
}

#[test]
fn a_deploy_that_a_newer_one_replaces_is_4() {
    let house = House::new();
    let gate = house.gate("build");
    house.origin.commit(&[(".landfall/after.pull", &gate.hook())]);
    let _daemon = house.serve();
    house.landfall(&["deploy", "blog", "--no-wait"]).expect(0);
    gate.wait_for(1);
    let waiting = start(house.command(&["deploy", "blog"]));
    wait_for("two deployments", || (house.states().len() == 2).then_some(()));
    house.landfall(&["deploy", "blog", "--no-wait"]).expect(0);
    let (code, stdout, stderr) = end(waiting);
    assert_eq!((code, stdout.as_str()), (Some(4), ""), "{stderr}");
    assert!(stderr.contains("deployment 2 superseded: by deployment 3"), "{stderr}");
    gate.open();
    house.wait_for_quiet();
}

#[test]
fn ctrl_c_takes_back_what_the_command_itself_has_done() {
    let house = House::new();
    let gate = house.gate("build");
    let failure = format!("echo $TARGET_HOOK >> {}", house.path().join("failures").display());
    house.origin.commit(&[("index.html", "one")]);
    house.deploy().expect(0);
    let before = house.current();
    house.origin.commit(&[(".landfall/after.pull", &gate.hook()), (".landfall/deploy.failure", &failure)]);
    let working = start(house.command(&["deploy", "blog"]));
    gate.wait_for(1);
    interrupt(&working);
    let (code, stdout, stderr) = end(working);
    assert_eq!((code, stdout.as_str()), (Some(130), ""), "{stderr}");
    assert_eq!((house.current(), house.releases().len()), (before, 1));
    assert_eq!(house.read("failures"), "deploy.failure\n");
    assert_eq!(house.states(), ["succeeded", "cancelled"]);
}

#[test]
fn ctrl_c_leaves_the_servers_work_alone() {
    let house = House::new();
    let gate = house.gate("build");
    house.origin.commit(&[("index.html", "one"), (".landfall/after.pull", &gate.hook())]);
    let _daemon = house.serve();
    let following = start(house.command(&["deploy", "blog"]));
    gate.wait_for(1);
    interrupt(&following);
    let (code, _, stderr) = end(following);
    assert_eq!(code, Some(130), "{stderr}");
    assert!(stderr.contains("deployment 1 goes on in the server\nhelp: `landfall log 1 -f` follows it"), "{stderr}");
    gate.open();
    assert_eq!(house.wait_for_end(1)["state"], "succeeded");
}

#[test]
#[ignore = "takes 10 s, as long as a server may be away: tests/run.sh has the time"]
fn a_deploy_whose_server_dies_is_5_and_goes_on_with_the_next_one() {
    let house = House::new();
    let gate = house.gate("build");
    house.origin.commit(&[("index.html", "one"), (".landfall/after.pull", &gate.hook())]);
    let daemon = house.serve();
    let following = start(house.command(&["deploy", "blog"]));
    gate.wait_for(1);
    daemon.kill();
    let (code, _, stderr) = end(following);
    assert_eq!(code, Some(5), "{stderr}");
    assert!(stderr.contains("the server has ended; deployment 1 goes on when it starts again"), "{stderr}");
    gate.open();
    let _daemon = house.serve();
    house.wait_for_quiet();
    assert_eq!(
        (house.states(), house.live("index.html").as_str()),
        (vec!["interrupted".into(), "succeeded".into()], "one")
    );
}

#[test]
fn a_log_is_followed_until_its_deployment_has_ended() {
    let house = House::new();
    let gate = house.gate("build");
    let hook = format!("echo before\n{}echo after", gate.hook());
    house.origin.commit(&[(".landfall/after.pull", &hook)]);
    let _daemon = house.serve();
    house.landfall(&["deploy", "blog", "--no-wait"]).expect(0);
    gate.wait_for(1);
    let mut following = start(house.command(&["log", "1", "-f"]));
    let mut stdout = following.stdout.take().expect("a pipe");
    let mut seen = Vec::new();
    while !seen.ends_with(b"before\n") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).expect("more of the log");
        seen.push(byte[0]);
    }
    gate.open();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the rest of the log");
    assert!(rest.starts_with("after\n"), "{rest}");
    assert!(
        rest.lines().last().is_some_and(|line| line.starts_with("── deployment 1 succeeded: blog is at ")),
        "{rest}"
    );
    assert!(following.wait().expect("an end").success());
    assert!(!house.log(1).is_empty());
}

#[test]
fn a_state_directory_is_served_by_one_process() {
    let house = House::new();
    let daemon = house.serve();
    let ran = refused_server(&house).expect(4);
    assert!(ran.stderr.contains("another Landfall serves the state directory"), "{}", ran.stderr);
    assert_eq!(daemon.get("/healthz").status, 200);
}

#[test]
fn an_address_that_is_taken_is_4() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let house = House::new();
    let text = std::fs::read_to_string(&house.config).expect("a configuration");
    let address = taken.local_addr().expect("an address").to_string();
    std::fs::write(&house.config, text.replace("127.0.0.1:0", &address)).expect("a configuration");
    let ran = refused_server(&house).expect(4);
    assert!(ran.stderr.contains(&format!("cannot listen on {address}")), "{}", ran.stderr);
}

#[test]
fn an_output_that_nobody_reads_is_no_panic() {
    let house = House::new();
    house.origin.commit(&[("index.html", "one")]);
    house.deploy().expect(0);
    let table: [&[&str]; 8] = [
        &["status"],
        &["releases", "blog"],
        &["deployments"],
        &["log", "1"],
        &["webhook", "blog"],
        &["check"],
        &["--help"],
        &["deploy", "blog"],
    ];
    for args in table {
        let mut child = start(house.command(args));
        drop(child.stdout.take());
        let (code, _, stderr) = end(child);
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
        assert_eq!(code, Some(0), "{args:?}: {stderr}");
    }
}

#[test]
fn a_deployment_whose_output_nobody_reads_still_says_how_it_ended() {
    let house = House::new();
    let noise = "for i in {1..2000}; do echo a line of a long log; done; exit 1";
    house.origin.commit(&[(".landfall/after.pull", noise)]);
    let deploy = |args: &[&str], close: fn(&mut Child)| {
        let mut child = start(house.command(args));
        close(&mut child);
        child.wait_with_output().expect("an end").status.code()
    };
    assert_eq!(deploy(&["deploy", "blog"], |child| drop(child.stderr.take())), Some(1), "stderr is closed");
    assert_eq!(deploy(&["deploy", "blog", "--json"], |child| drop(child.stdout.take())), Some(1), "stdout is closed");
    let _daemon = house.serve();
    assert_eq!(deploy(&["deploy", "blog"], |child| drop(child.stderr.take())), Some(1), "with a server");
    assert_eq!(house.states(), ["failed", "failed", "failed"]);
}

#[test]
fn a_test_delivery_is_what_the_forge_would_send() {
    let more = "[repositories.shop]\nurl = \"{house}/origin.git\"\nrepository = \"acme/shop\"\nforge = \"gitlab\"\n\
        secret = { file = \"{house}/token\" }\n[repositories.mall]\nurl = \"{house}/origin.git\"\n\
        repository = \"acme/mall\"\nforge = \"gitlab\"\nsecret = { file = \"{house}/signing\" }\n";
    let house = House::new();
    house.write_secret("token", "gitlab-token-of-the-shop");
    house.write_secret("signing", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDazkIxYDE5xg=");
    house.configure(&Setup { more, ..Setup::default() });
    house.origin.commit(&[("index.html", "one")]);
    let daemon = house.serve();
    let url = format!("http://{}", daemon.address);
    for repository in ["blog", "shop", "mall"] {
        let ran = house.landfall(&["send-test", repository, "--url", &url, "--json"]).expect(0);
        assert_eq!((&ran.json()["status"], &ran.json()["body"]["status"]), (&json!(200), &json!("pong")), "{ran:?}");
    }
    let ran = house.landfall(&["send-test", "blog", "--url", &url, "--ref", "main", "--json"]).expect(0);
    assert_eq!((&ran.json()["status"], &ran.json()["body"]["status"]), (&json!(202), &json!("queued")), "{ran:?}");
    house.wait_for_quiet();
    assert_eq!(house.live("index.html"), "one");
    assert!(house.landfall(&["send-test", "blog", "--url", &url]).expect(0).stdout.starts_with("200 {"));

    house.write_secret("secret", "another-secret-than-the-server-has");
    let ran = house.landfall(&["send-test", "blog", "--url", &url]).expect(4);
    assert!(ran.stderr.contains("answered 401"), "{}", ran.stderr);
    house.write_secret("secret", SECRET);
}

#[test]
fn webhook_prints_what_to_paste_into_the_forge() {
    let house = House::new();
    house.write_secret("key", "a private key");
    std::fs::write(house.path().join("key.pub"), "ssh-ed25519 AAAA landfall\n").expect("a public key");
    let repository = "url = \"git@github.com:acme/blog.git\"\nssh_key = \"{house}/key\"";
    house.configure(&Setup { repository, ..Setup::default() });
    let text = std::fs::read_to_string(&house.config).expect("a configuration");
    let public = text.replace("[server]", "[server]\npublic_url = \"https://deploy.example.com/\"");
    std::fs::write(&house.config, public).expect("a configuration");
    let ran = house.landfall(&["webhook", "blog"]).expect(0);
    for told in ["https://deploy.example.com/hooks/blog\n", SECRET, "application/json", "ssh-ed25519 AAAA landfall\n"] {
        assert!(ran.stdout.contains(told), "`{told}` is not in {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("a private key"));
    assert!(!house.state.exists(), "nothing is made for it");
    std::fs::remove_file(house.path().join("key.pub")).expect("a public key");
    let ran = house.landfall(&["webhook", "blog"]).expect(0);
    assert!(ran.stdout.contains("help: `ssh-keygen -y -f "), "{}", ran.stdout);
}

#[test]
fn nothing_that_others_wrote_moves_the_cursor() {
    let house = House::new();
    house.origin.commit(&[("index.html", "one")]);
    // A control sequence of one letter, which ref names of git may have.
    let hostile = "a\u{9b}2Jb";
    house.landfall(&["deploy", "blog", "--ref", hostile]).expect(1);
    let mut command = house.command(&["deploy", "blog"]);
    command.env("SUDO_USER", "eve\u{1b}[2J");
    assert_eq!(end(start(command)).0, Some(0));
    house.origin.commit(&[("index.html", "two")]);
    house.deploy().expect(0);
    let mut command = house.command(&["rollback", "blog"]);
    command.env("SUDO_USER", "eve\u{1b}[2J");
    assert_eq!(end(start(command)).0, Some(0));
    for args in [&["status"][..], &["status", "blog"], &["releases", "blog"], &["deployments"]] {
        let shown = house.landfall(args).expect(0).stdout;
        let control = shown.chars().find(|letter| letter.is_control() && *letter != '\n');
        assert_eq!(control, None, "{args:?}: {shown:?}");
    }
    assert!(house.landfall(&["deployments"]).stdout.contains("a\\u{9b}2Jb"), "the name is still told");
}

/// Every file below, itself too.
fn everything(path: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![path.to_owned()];
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).expect("a directory") {
            found.extend(everything(&entry.expect("an entry").path()));
        }
    }
    found
}

#[test]
fn root_that_works_on_a_plain_users_state_becomes_that_user() {
    // Only root can become somebody else.
    if !is_root() {
        return;
    }
    let house = House::new();
    let hook = format!("id -un > {}; touch made", house.path().join("who").display());
    house.origin.commit(&[("index.html", "one"), (".landfall/after.pull", &hook)]);
    for directory in [&house.state, &house.root] {
        std::fs::create_dir(directory).expect("a directory");
    }
    // The user daemon has the number 1 on every Linux.
    for path in everything(&house.path()) {
        std::os::unix::fs::lchown(path, Some(1), Some(1)).expect("an owner");
    }
    for args in [
        &["deploy", "blog"][..],
        &["deploy", "blog"],
        &["rollback", "blog"],
        &["status"],
        &["log", "1"],
        &["deployments"],
    ] {
        house.landfall(args).expect(0);
    }
    let daemon = house.serve();
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("a status");
    assert!(status.lines().any(|line| line == "Uid:\t1\t1\t1\t1"), "{status}");
    assert!(status.lines().any(|line| line.starts_with("CapEff:") && line.ends_with("\t0000000000000000")), "{status}");
    house.deploy().expect(0);
    assert_eq!((house.live("index.html").as_str(), house.read("who").as_str()), ("one", "daemon\n"));
    let roots: Vec<_> = [&house.state, &house.root]
        .into_iter()
        .flat_map(|path| everything(path))
        .filter(|path| path.symlink_metadata().expect("metadata").uid() == 0)
        .collect();
    assert_eq!(roots, Vec::<std::path::PathBuf>::new(), "root owns something");
    let made = house.root.join("current/made").metadata().expect("metadata");
    assert_eq!(made.mode() & 0o7777, 0o664);
}

#[test]
fn a_secret_is_shown_by_the_command_that_is_for_it_and_by_no_other() {
    let house = House::with(&Setup { site: "secrets = { KEY = { file = \"{house}/hook\" } }", ..Setup::default() });
    house.write_secret("hook", "the-secret-of-the-hooks");
    house.origin.commit(&[("index.html", "one"), (".landfall/after.pull", "echo key: $KEY")]);
    let daemon = Daemon::start({
        let mut command = house.command(&["serve"]);
        command.env("LANDFALL_LOG", "trace");
        command
    });
    let mut shown = format!("{:?}", house.deploy().expect(0));
    for args in [&["status"][..], &["deployments"], &["log", "1"], &["log", "1", "--json"], &["check", "--json"]] {
        shown += &format!("{:?}", house.landfall(args).expect(0));
    }
    let (_, log) = daemon.stop();
    assert!(shown.contains("key: "), "{shown}");
    for secret in [SECRET, "the-secret-of-the-hooks"] {
        assert!(!shown.contains(secret) && !log.contains(secret), "{shown}\n{log}");
    }
    let kept = everything(&house.state).into_iter().filter(|path| path.is_file());
    for path in kept {
        let bytes = std::fs::read(&path).expect("a file");
        let found = bytes.windows(16).any(|window| window == &b"the-secret-of-the-hooks"[..16]);
        assert!(!found, "{} has a secret", path.display());
    }
}

#[test]
fn a_site_with_something_in_its_way_hides_no_other() {
    let more = "[sites.shop]\nrepository = \"blog\"\nbranch = \"main\"\nroot = \"{house}/shop\"\n";
    let mut house = House::with(&Setup { more, ..Setup::default() });
    house.origin.commit(&[("index.html", "one")]);
    house.deploy().expect(0);
    std::fs::create_dir_all(house.path().join("shop/current")).expect("a directory");
    let sites = house.landfall(&["status", "--json"]).expect(0).json();
    assert!(sites[0]["live"].is_object() && sites[0]["problem"].is_null());
    assert!(sites[1]["problem"].as_str().is_some_and(|text| text.contains("is a directory")), "{sites}");
    house.landfall(&["status"]).expect(0);
    house.leave_unclean();
}

#[test]
fn commands_without_a_server_do_not_take_each_other_for_one() {
    let house = House::new();
    house.origin.commit(&[("index.html", "one")]);
    let codes: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..8).map(|_| scope.spawn(|| house.deploy())).collect();
        running.into_iter().map(|ran| ran.join().expect("a command")).map(|ran| (ran.code, ran.stderr)).collect()
    });
    // Each went live itself, or gave way to a later one.
    assert!(codes.iter().all(|(code, _)| matches!(code, Some(0 | 4))), "{codes:?}");
    assert!(house.states().iter().all(|state| matches!(state.as_str(), "succeeded" | "superseded")));
}

#[test]
fn what_waited_under_another_host_name_is_deployed() {
    let house = House::with(&Setup { more: "[node]\nname = \"before\"", ..Setup::default() });
    house.origin.commit(&[("index.html", "one")]);
    house.landfall(&["deploy", "blog", "--no-wait"]).expect(0);
    house.configure(&Setup { more: "[node]\nname = \"after\"", ..Setup::default() });
    let _daemon = house.serve();
    assert_eq!(house.wait_for_end(1)["state"], "succeeded");
}

#[test]
fn a_root_that_hooks_can_write_is_refused_with_how_to_mend_it() {
    // Only root deploys for another user.
    if !is_root() {
        return;
    }
    let house = House::with(&Setup { site: "run_as = \"daemon\"", ..Setup::default() });
    std::fs::create_dir(&house.root).expect("a directory");
    std::os::unix::fs::chown(&house.root, Some(1), None).expect("an owner");
    let refused = house.landfall(&["check"]).expect(2);
    let help = format!("help: chown root: {0} && chmod go-w {0}", house.root.display());
    assert!(refused.stderr.contains(&help), "{}", refused.stderr);
    std::os::unix::fs::chown(&house.root, Some(0), None).expect("an owner");
    house.landfall(&["check"]).expect(0);

    // Whoever can write above it can exchange it as a whole.
    let above = house.path();
    std::os::unix::fs::chown(&above, Some(1), None).expect("an owner");
    let refused = house.landfall(&["check"]).expect(2);
    assert!(refused.stderr.contains(&format!("chown root: {} ", above.display())), "{}", refused.stderr);
    // But not where entries belong to their owners alone, as in /tmp.
    std::fs::set_permissions(&above, PermissionsExt::from_mode(0o1755)).expect("a mode");
    house.landfall(&["check"]).expect(0);
}
