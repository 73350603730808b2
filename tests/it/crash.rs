//! `kill -9` at any moment: afterwards `current` is the old release or the new one and whole, nothing counts as running,
//! an accepted push is deployed in the end, and nobody had to do anything but start the server again.
//!
//! Some moments are chosen by a hook that waits, some at random, and some by strace, which kills at the n-th system call
//! of a kind or makes one fail.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::support::{Daemon, House, Setup, processes_with, wait_for};

const HOOKS: [&str; 6] =
    ["before.pull", "after.pull", "before.deploy", "after.deploy", "deploy.success", "deploy.failure"];

/// A house whose first release is live, with every hook; each notes that it ran, for which deployment. `trap` is the hook
/// that then does something else, once.
fn house_with(hooks: &[&str], trap: &str, what: &str, setup: &Setup<'_>) -> House {
    let house = House::with(setup);
    let path = house.path();
    let path = path.display();
    for hook in hooks {
        let spring = if *hook == trap { what } else { "true" };
        let script = format!(
            "echo \"$TARGET_HOOK $DEPLOYMENT_ID\" >> {path}/ran\n\
             if [ -e {path}/armed ] && mkdir {path}/sprung 2>/dev/null; then {spring}; fi\n"
        );
        // Only the trap is sprung: the others must not use it up.
        let script = if *hook == trap { script } else { script.lines().next().expect("a line").to_owned() };
        house.origin.write(&format!(".landfall/{hook}"), &script);
    }
    house
}

/// The same with its first release live and the trap armed.
fn armed_house(hooks: &[&str], trap: &str, what: &str) -> House {
    let house = house_with(hooks, trap, what, &Setup::default());
    house.origin.commit(&[("index.html", "one")]);
    house.deploy().expect(0);
    arm(&house);
    house
}

fn arm(house: &House) {
    std::fs::write(house.path().join("armed"), "").expect("a file");
    std::fs::write(house.path().join("ran"), "").expect("a file");
}

/// Sleeps in short naps, so that what ends it is the signal and not its child's end.
const FOR_EVER: &str = "while true; do sleep 0.05; done";

/// What the hooks noted since the trap was armed.
fn ran(house: &House) -> Vec<String> {
    house.read("ran").lines().map(str::to_owned).collect()
}

fn wait_for_hook(house: &House, line: &str) {
    wait_for(&format!("hook {line}"), || ran(house).iter().any(|found| found == line).then_some(()));
}

/// Kills the server while this hook of deployment 2, which the push of `two` makes, waits for ever. Its process has a
/// session of its own, and lives on.
fn kill_during(house: &House, hook: &str) {
    let server = house.serve();
    let commit = house.origin.commit(&[("index.html", "two")]);
    assert_eq!(server.push("p-1", &commit).expect(202, "queued").deployment(), 2);
    wait_for_hook(house, &format!("{hook} 2"));
    server.kill();
    let cookie = format!("CURRENT_PATH={}", house.root.join("current").display());
    assert!(!processes_with(&cookie).is_empty(), "the hook survived");
}

/// Starts the server again and waits until it has nothing to do.
fn restart(house: &House) -> Daemon {
    let server = house.serve();
    house.wait_for_quiet();
    server
}

#[test]
fn a_kill_during_a_hook_before_the_decision_is_undone_and_tried_once_more() {
    std::thread::scope(|scope| {
        for (place, hook) in ["before.pull", "after.pull", "before.deploy"].into_iter().enumerate() {
            scope.spawn(move || {
                let house = armed_house(&HOOKS, hook, FOR_EVER);
                kill_during(&house, hook);
                assert_eq!(house.live("index.html"), "one");
                let _server = restart(&house);
                assert_eq!(house.states(), ["succeeded", "interrupted", "succeeded"], "{hook}");
                let retry = house.deployment(3);
                assert_eq!((&retry["retry_of"], &retry["attempt"]), (&2.into(), &2.into()));
                assert_eq!(house.live("index.html"), "two");
                let begun = HOOKS[..=place].iter().map(|hook| format!("{hook} 2"));
                let again = HOOKS[..5].iter().map(|hook| format!("{hook} 3"));
                let expected: Vec<_> = begun.chain(["deploy.failure 2".into()]).chain(again).collect();
                assert_eq!(ran(&house), expected);
            });
        }
    });
}

#[test]
fn a_kill_during_a_hook_after_the_flip_is_recovered_forward() {
    std::thread::scope(|scope| {
        for hook in ["after.deploy", "deploy.success"] {
            scope.spawn(move || {
                let house = armed_house(&HOOKS, hook, FOR_EVER);
                kill_during(&house, hook);
                let after_kill = house.current();
                assert_eq!(house.live("index.html"), "two", "it was flipped");
                let _server = restart(&house);
                assert_eq!(house.states(), ["succeeded", "succeeded"], "{hook}");
                assert_eq!(house.current(), after_kill);
                let times = |line: &str| ran(&house).iter().filter(|found| *found == line).count();
                assert_eq!((times("before.deploy 2"), times(&format!("{hook} 2"))), (1, 2));
                assert_eq!((times("deploy.success 2") >= 1, times("deploy.failure 2")), (true, 0));
            });
        }
    });
}

#[test]
fn a_kill_during_deploy_failure_ends_as_failed_and_does_not_run_it_again() {
    let house = armed_house(&HOOKS, "deploy.failure", FOR_EVER);
    house.origin.write(".landfall/before.deploy", "exit 3");
    kill_during(&house, "deploy.failure");
    let _server = restart(&house);
    assert_eq!(house.states(), ["succeeded", "failed"]);
    assert!(house.deployment(2)["reason"].as_str().expect("a reason").contains("before.deploy"));
    assert_eq!(ran(&house), ["before.pull 2", "after.pull 2", "deploy.failure 2"]);
    assert_eq!(house.live("index.html"), "one");
}

#[test]
fn a_recovery_that_is_killed_is_recovered() {
    // The trap is in the hook that the recovery runs; what the first kill interrupts waits for ever by itself.
    let house = armed_house(&["deploy.failure"], "deploy.failure", FOR_EVER);
    house.origin.write(
        ".landfall/after.pull",
        &format!(
            "echo \"$TARGET_HOOK $DEPLOYMENT_ID\" >> {0}/ran; [ $DEPLOYMENT_ID != 2 ] || {FOR_EVER}",
            house.path().display()
        ),
    );
    kill_during(&house, "after.pull");
    let recovering = house.serve();
    wait_for_hook(&house, "deploy.failure 2");
    recovering.kill();
    let _server = restart(&house);
    assert_eq!(house.states(), ["succeeded", "interrupted", "succeeded"]);
    assert_eq!(ran(&house), ["after.pull 2", "deploy.failure 2", "after.pull 3"]);
    assert_eq!(house.live("index.html"), "two");
}

#[test]
fn what_runs_again_on_the_way_forward_does_not_run_beside_itself() {
    let overlap = "echo $$ > \"$STORAGE_DIRECTORY/first\"; while true; do sleep 0.05; done";
    let house = house_with(&["after.deploy"], "after.deploy", overlap, &Setup::default());
    let script = std::fs::read_to_string(house.origin.work().join(".landfall/after.deploy")).expect("a hook");
    // Not `kill -0`, which a zombie that nobody has reaped yet answers too; its environment is empty.
    let look = "if grep -qs DEPLOYMENT_ID \"/proc/$(cat \"$STORAGE_DIRECTORY/first\")/environ\"; then exit 9; fi\n";
    house.origin.commit(&[("index.html", "one"), (".landfall/after.deploy", &format!("{look}{script}"))]);
    house.deploy().expect(0);
    arm(&house);
    kill_during(&house, "after.deploy");
    wait_for("the hook to say who it is", || house.root.join("storage/first").exists().then_some(()));
    let _server = restart(&house);
    assert_eq!(house.states(), ["succeeded", "succeeded"]);
}

#[test]
fn a_first_ever_deployment_that_is_killed_leaves_no_current_and_is_deployed_in_the_end() {
    let house = house_with(&["after.pull", "deploy.failure"], "after.pull", FOR_EVER, &Setup::default());
    arm(&house);
    let server = house.serve();
    let commit = house.origin.commit(&[("index.html", "one")]);
    server.push("p-1", &commit).expect(202, "queued");
    wait_for_hook(&house, "after.pull 1");
    server.kill();
    assert_eq!(house.current(), None);
    let _server = restart(&house);
    assert_eq!(house.states(), ["interrupted", "succeeded"]);
    assert_eq!(ran(&house), ["after.pull 1", "deploy.failure 1", "after.pull 2"]);
    assert_eq!(house.live("index.html"), "one");
}

#[test]
fn a_first_ever_flip_that_fails_after_a_kill_leaves_no_current() {
    let house = House::new();
    let path = house.path();
    let hook = format!("[ ! -e {0}/sprung ] || exit 1; mkdir {0}/sprung; kill -9 $PPID; {FOR_EVER}", path.display());
    house.origin.commit(&[("index.html", "one"), (".landfall/after.deploy", &hook)]);
    assert_eq!(house.deploy().code, None);
    assert_eq!(house.live("index.html"), "one");
    let _server = restart(&house);
    assert_eq!((house.states(), house.current(), house.releases()), (vec!["failed".into()], None, vec![]));
}

#[test]
fn where_the_flip_comes_last_a_kill_during_after_deploy_is_undone() {
    let setup = Setup { site: "activate = \"last\"", ..Setup::default() };
    let house = house_with(&HOOKS, "after.deploy", FOR_EVER, &setup);
    house.origin.commit(&[("index.html", "one")]);
    house.deploy().expect(0);
    arm(&house);
    kill_during(&house, "after.deploy");
    assert_eq!(house.live("index.html"), "one");
    let _server = restart(&house);
    assert_eq!(house.states(), ["succeeded", "interrupted", "succeeded"]);
    assert_eq!(house.live("index.html"), "two");
}

#[test]
fn a_rollback_that_is_killed_is_undone_or_goes_forward() {
    for (hook, states) in [
        ("rollback/before", vec!["succeeded", "succeeded", "interrupted", "succeeded"]),
        ("rollback/after", vec!["succeeded", "succeeded", "succeeded"]),
    ] {
        let house = armed_house(&["rollback/before", "rollback/after"], hook, FOR_EVER);
        house.origin.commit(&[("index.html", "two")]);
        house.deploy().expect(0);
        let mut rollback = house.command(&["rollback", "blog"]).stderr(Stdio::null()).spawn().expect("the binary");
        wait_for_hook(&house, &format!("{hook} 3"));
        rollback.kill().expect("a signal");
        rollback.wait().expect("an end");
        let _server = restart(&house);
        assert_eq!(house.states(), states, "{hook}");
        assert_eq!((house.live("index.html").as_str(), house.releases().len()), ("one", 2));
        let status = house.landfall(&["status", "blog", "--json"]).expect(0).json();
        assert!(
            status["hold"]["reason"].as_str().is_some_and(|reason| reason.starts_with("rolled back to")),
            "{status}"
        );
    }
}

#[test]
fn a_command_line_that_is_killed_is_recovered_by_the_next_one_or_by_a_server() {
    for (is_server, states) in
        [(false, vec!["succeeded", "interrupted", "succeeded"]), (true, vec!["succeeded", "interrupted", "succeeded"])]
    {
        let house = armed_house(&HOOKS, "before.deploy", FOR_EVER);
        house.origin.commit(&[("index.html", "two")]);
        let mut deploy = house.command(&["deploy", "blog"]).stderr(Stdio::null()).spawn().expect("the binary");
        wait_for_hook(&house, "before.deploy 2");
        deploy.kill().expect("a signal");
        deploy.wait().expect("an end");
        assert_eq!(house.live("index.html"), "one");
        let _server = is_server.then(|| restart(&house));
        if !is_server {
            house.deploy().expect(0);
        }
        assert_eq!(house.states(), states);
        assert_eq!(house.live("index.html"), "two");
        assert_eq!(ran(&house).iter().filter(|line| line.starts_with("deploy.failure")).count(), 1);
    }
}

/// Starts the server as a service manager does, whenever it has died, until nothing waits or runs. Gives back how often
/// it died.
fn keep_serving(house: &House) -> usize {
    for deaths in 0..12 {
        let mut server = house.command(&["serve"]).stderr(Stdio::null()).spawn().expect("the binary");
        let died = wait_for("the server to die or to have nothing to do", || {
            if server.try_wait().expect("a status").is_some() {
                return Some(true);
            }
            let busy = house.states().iter().any(|state| matches!(state.as_str(), "queued" | "running"));
            (!busy).then_some(false)
        });
        if !died {
            server.kill().expect("a signal");
            server.wait().expect("an end");
            return deaths;
        }
    }
    panic!("the server dies again and again");
}

#[test]
fn a_hook_that_always_kills_the_server_does_not_do_so_for_ever() {
    std::thread::scope(|scope| {
        for hook in HOOKS {
            scope.spawn(move || {
                let house = House::new();
                let ran_file = house.path().join("ran");
                let note = format!("echo \"$TARGET_HOOK $DEPLOYMENT_ID\" >> {}; ", ran_file.display());
                house.origin.write(".landfall/deploy.failure", &note);
                // `before.pull` is that of the live release.
                let (kills, name) = (format!("{note} kill -9 $PPID; {FOR_EVER}"), format!(".landfall/{hook}"));
                let guarded = format!("[ -e {0}/armed ] || exit 0; {kills}", house.path().display());
                house.origin.commit(&[("index.html", "one"), (&name, &guarded)]);
                house.deploy().expect(0);
                arm(&house);
                if hook == "deploy.failure" {
                    house.origin.write(".landfall/after.pull", "exit 3");
                }
                house.origin.commit(&[("index.html", "two")]);
                house.landfall(&["deploy", "blog", "--no-wait"]).expect(0);
                // Two attempts; behind the decision each of them goes forward once.
                let most = match hook {
                    "deploy.failure" => 1,
                    "after.deploy" | "deploy.success" => 4,
                    _ => 2,
                };
                assert_eq!(keep_serving(&house), most, "{hook}: {:?}", house.states());
                // What is left is whole, and the site goes on.
                let lines = ran(&house);
                for id in 2..=3 {
                    let failures = lines.iter().filter(|line| **line == format!("deploy.failure {id}")).count();
                    assert!(failures <= 1, "{hook}: {lines:?}");
                }
                assert_eq!(house.live("index.html"), "one", "{hook}: {:?}", house.states());
                std::fs::remove_file(house.path().join("armed")).expect("a file to remove");
                if hook == "deploy.failure" {
                    std::fs::remove_file(house.origin.work().join(".landfall/after.pull")).expect("a hook");
                }
                house.origin.commit(&[("index.html", "three")]);
                house.deploy().expect(0);
                assert_eq!(house.live("index.html"), "three");
            });
        }
    });
}

#[test]
fn an_interruption_before_the_first_hook_does_not_count() {
    let house = armed_house(&["deploy.failure"], "deploy.failure", "true");
    // A remote that takes the call and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    silent.set_nonblocking(true).expect("a listener that can be asked");
    let url = format!("url = \"http://{}/blog.git\"\nforge = \"github\"", silent.local_addr().expect("an address"));
    house.configure(&Setup { repository: &url, ..Setup::default() });
    let commit = house.origin.commit(&[("index.html", "two")]);
    let mut server = house.serve();
    server.push("p-1", &commit).expect(202, "queued");
    for _ in 0..3 {
        let _call = wait_for("a fetch", || silent.accept().ok());
        server.kill();
        server = house.serve();
    }
    server.kill();
    house.configure(&Setup::default());
    let _server = restart(&house);
    let deployments = house.deployments();
    assert_eq!((&deployments[0]["state"], &deployments[0]["attempt"]), (&"succeeded".into(), &1.into()));
    assert_eq!(house.live("index.html"), "two");
}

/// Numbers that look random and come again with the same seed, which a failure tells.
pub(super) struct Dice(u64, u64);

impl Dice {
    pub(super) fn new() -> Self {
        let given = std::env::var("LANDFALL_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_micros() as u64;
        let seed = given.unwrap_or_else(now);
        Self(seed, seed)
    }

    /// Below the limit.
    pub(super) fn roll(&mut self, limit: u64) -> u64 {
        self.1 = self.1.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.1 >> 33) % limit
    }
}

impl Drop for Dice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let told = format!("run it again with LANDFALL_TEST_SEED={}\n", self.0);
            std::io::stderr().write_all(told.as_bytes()).expect("a message");
        }
    }
}

/// Whatever was killed: the live release is whole, all of one version.
#[track_caller]
fn assert_whole(house: &House, files: usize) {
    let Some(current) = house.current() else { return };
    let version = house.live("index.html");
    for number in 0..files {
        let path = Path::new(&current).join(format!("part/{number}"));
        assert_eq!(std::fs::read_to_string(&path).ok().as_ref(), Some(&version), "{}", path.display());
    }
}

fn write_version(house: &House, version: &str, files: usize) -> String {
    for number in 0..files {
        house.origin.write(&format!("part/{number}"), version);
    }
    house.origin.commit(&[("index.html", version)])
}

#[test]
fn twenty_five_kills_at_random_moments_leave_a_whole_site_and_lose_no_push() {
    const FILES: usize = 150;
    let house = house_with(&HOOKS, "", "", &Setup { site: "keep = 2", ..Setup::default() });
    let mut dice = Dice::new();
    let mut last = String::new();
    for round in 0..25 {
        last = format!("version {round}");
        let commit = write_version(&house, &last, FILES);
        let server = house.serve();
        server.push(&format!("p-{round}"), &commit).expect(202, "queued");
        std::thread::sleep(Duration::from_millis(dice.roll(500)));
        server.kill();
        assert_whole(&house, FILES);
    }
    let _server = restart(&house);
    assert_whole(&house, FILES);
    assert_eq!(house.live("index.html"), last, "{:?}", house.states());
    assert!(house.deployments().iter().all(|found| found["attempt"].as_i64().is_some_and(|attempt| attempt <= 2)));
    let mut failures = BTreeMap::new();
    for line in ran(&house).iter().filter(|line| line.starts_with("deploy.failure")) {
        *failures.entry(line.clone()).or_insert(0) += 1;
    }
    assert!(failures.values().all(|times| *times == 1), "{failures:?}");
}

/// The command below strace, with these injections. Not with `--seccomp-bpf`: it is faster, but then signals are not
/// injected.
pub(super) fn below_strace(house: &House, options: &[&str], args: &[&str]) -> Command {
    let inner = house.command(args);
    let mut command = Command::new("strace");
    command.args(["-f", "-qqq"]).args(options);
    if !options.contains(&"-o") {
        command.args(["-o", "/dev/null"]);
    }
    command.arg(inner.get_program()).args(inner.get_args()).env_clear().stdin(Stdio::null());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// Runs `deploy` and kills it when it makes its `number`-th call of this kind; false if it makes fewer.
fn deploy_killed_at(house: &House, calls: &str, number: usize) -> bool {
    let inject = format!("inject={calls}:signal=KILL:when={number}");
    let mut command = below_strace(house, &["-e", &format!("trace={calls}"), "-e", &inject], &["deploy", "blog"]);
    let output = command.output().expect("strace");
    if output.status.signal() == Some(Signal::SIGKILL as i32) || output.status.code() == Some(137) {
        return true;
    }
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// Kills a deployment at every `step`-th call of a kind, each time later, and looks what a plain `deploy` makes of what was
/// left. There are at least `least` of them: else strace, or the deployment, is not what this test takes it for.
fn kill_at_every(calls: &str, step: usize, least: usize) {
    const FILES: usize = 3;
    let house = house_with(&HOOKS, "", "", &Setup { site: "keep = 1", ..Setup::default() });
    write_version(&house, "version 0", FILES);
    house.deploy().expect(0);
    let mut killed = 0;
    for number in (1..).step_by(step) {
        let version = format!("version {number}");
        write_version(&house, &version, FILES);
        let died = deploy_killed_at(&house, calls, number);
        assert_whole(&house, FILES);
        house.deploy().expect(0);
        assert_whole(&house, FILES);
        assert_eq!(house.live("index.html"), version);
        house.check();
        if !died {
            break;
        }
        killed += 1;
    }
    assert!(killed >= least, "only {killed} times: {calls}");
}

#[test]
#[ignore = "needs strace: tests/run.sh brings it"]
fn a_kill_at_any_rename_link_or_removal_leaves_a_whole_site() {
    kill_at_every("rename,renameat,renameat2", 1, 4);
    kill_at_every("symlink,symlinkat", 1, 1);
    kill_at_every("unlink,unlinkat,rmdir", 1, 8);
    kill_at_every("mkdir,mkdirat", 1, 8);
}

#[test]
#[ignore = "needs strace: tests/run.sh brings it"]
fn a_kill_at_any_sync_leaves_a_whole_site() {
    kill_at_every("fsync,fdatasync,syncfs", 1, 15);
}

#[test]
#[ignore = "needs strace: tests/run.sh brings it"]
fn a_kill_at_any_write_to_the_store_leaves_a_whole_site() {
    kill_at_every("pwrite64", 7, 20);
}

/// Leaves what a first process left, which this hook killed, to a recovery that is killed at every call of a kind.
fn kill_recovery_at_every(hook: &str, calls: &str, step: usize, least: usize) {
    const FILES: usize = 3;
    let house = house_with(&HOOKS, hook, &format!("kill -9 $PPID; {FOR_EVER}"), &Setup::default());
    write_version(&house, "version 0", FILES);
    house.deploy().expect(0);
    let mut killed = 0;
    for number in (1..).step_by(step) {
        write_version(&house, &format!("version {number}"), FILES);
        arm(&house);
        assert_eq!(house.deploy().code, None, "the hook kills it");
        assert_whole(&house, FILES);
        let version = format!("recovered {number}");
        write_version(&house, &version, FILES);
        let died = deploy_killed_at(&house, calls, number);
        assert_whole(&house, FILES);
        house.deploy().expect(0);
        assert_eq!(house.live("index.html"), version);
        assert_whole(&house, FILES);
        house.check();
        let failures = ran(&house).iter().filter(|line| line.starts_with("deploy.failure")).count();
        assert!(failures <= if died { 2 } else { 1 }, "{:?}", ran(&house));
        std::fs::remove_dir(house.path().join("sprung")).expect("a directory");
        std::fs::remove_file(house.path().join("armed")).expect("a file");
        if !died {
            break;
        }
        killed += 1;
    }
    assert!(killed >= least, "only {killed} times: {calls}");
}

#[test]
#[ignore = "needs strace: tests/run.sh brings it"]
fn a_recovery_backwards_is_recovered_wherever_it_is_killed() {
    kill_recovery_at_every("before.deploy", "rename,renameat,renameat2", 1, 4);
    kill_recovery_at_every("before.deploy", "unlink,unlinkat,rmdir", 4, 2);
}

#[test]
#[ignore = "needs strace: tests/run.sh brings it"]
fn a_recovery_forwards_is_recovered_wherever_it_is_killed() {
    kill_recovery_at_every("after.deploy", "rename,renameat,renameat2", 1, 4);
    kill_recovery_at_every("after.deploy", "unlink,unlinkat,rmdir", 4, 2);
}

/// Lets the calls of a kind that `when` picks fail in a deployment, the first, the second and so on, until there are no
/// more of them: it succeeds or fails, and nothing in between. Then the disk works again.
fn fail_at_every(calls: &str, error: &str, when: &str, least: usize) {
    const FILES: usize = 3;
    let house = house_with(&["deploy.failure"], "", "", &Setup { site: "keep = 1", ..Setup::default() });
    write_version(&house, "version 0", FILES);
    house.deploy().expect(0);
    let log = house.path().join("strace");
    let (trace, mut failed) = (format!("trace={calls}"), 0);
    for number in 1.. {
        let (before, version) = (house.live("index.html"), format!("version {number}"));
        write_version(&house, &version, FILES);
        let inject = format!("inject={calls}:error={error}:when={number}{when}");
        let options = ["-o", log.to_str().expect("UTF-8"), "-e", &trace, "-e", &inject];
        let output = below_strace(&house, &options, &["deploy", "blog"]).output().expect("strace");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_whole(&house, FILES);
        let expected = if output.status.success() { &version } else { &before };
        if matches!(output.status.code(), Some(0 | 1)) && when.is_empty() {
            assert_eq!(house.live("index.html"), *expected, "{calls} {number}: {told}");
            house.check();
        }
        let again = format!("{version} again");
        write_version(&house, &again, FILES);
        house.deploy().expect(0);
        assert_eq!(house.live("index.html"), again);
        assert_whole(&house, FILES);
        house.check();
        if !house.read("strace").contains("(INJECTED)") {
            break;
        }
        failed += 1;
    }
    assert!(failed >= least, "only {failed} times: {calls}");
}

#[test]
#[ignore = "needs strace: tests/run.sh brings it"]
fn a_call_that_fails_once_fails_the_deployment_whole_or_not_at_all() {
    fail_at_every("rename,renameat,renameat2", "EIO", "", 4);
    fail_at_every("symlink,mkdir,mkdirat", "ENOSPC", "", 8);
    fail_at_every("syncfs", "EIO", "", 1);
}

#[test]
#[ignore = "needs strace: tests/run.sh brings it"]
fn a_disk_that_breaks_for_good_leaves_a_site_that_is_recovered_when_it_works_again() {
    fail_at_every("rename,renameat,renameat2", "EIO", "+", 4);
    fail_at_every("symlink", "EROFS", "+", 1);
    fail_at_every("syncfs", "EIO", "+", 1);
}

#[test]
#[ignore = "needs strace: tests/run.sh brings it"]
fn a_disk_that_fails_fails_the_deployment_and_not_the_service() {
    for (call, error, reason) in [("syncfs", "EIO", "cannot sync"), ("symlink", "ENOSPC", "cannot replace")] {
        let house = House::with(&Setup { top: "workers = 1", ..Setup::default() });
        house.origin.commit(&[("index.html", "one")]);
        house.deploy().expect(0);
        let (before, releases) = (house.current(), house.releases());
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={error}:when=1"));
        let mut server = Daemon::start(below_strace(&house, &["-e", &trace, "-e", &inject], &["serve"]));
        let commit = house.origin.commit(&[("index.html", "two")]);
        let ended = house.wait_for_end(server.push("p-1", &commit).expect(202, "queued").deployment());
        assert_eq!(ended["state"], "failed", "{ended}");
        assert!(ended["reason"].as_str().is_some_and(|text| text.contains(reason)), "{ended}");
        assert_eq!((house.current(), house.releases()), (before, releases));
        house.check();
        assert_eq!(server.get("/healthz").status, 200);
        let ended = house.wait_for_end(server.push("p-1", &commit).expect(202, "queued").deployment());
        assert_eq!(ended["state"], "succeeded", "a redelivery is a new attempt: {ended}");
        assert_eq!(house.live("index.html"), "two");
        stop_below_strace(&mut server);
    }
}

/// Ends the server below strace, and strace with it: a strace that is killed leaves what it traces.
fn stop_below_strace(strace: &mut Daemon) {
    let children = format!("/proc/{0}/task/{0}/children", strace.pid());
    let children = std::fs::read_to_string(children).expect("the children of strace");
    let server = children.trim().parse().expect("one child");
    nix::sys::signal::kill(Pid::from_raw(server), Signal::SIGTERM).expect("a signal");
    assert_eq!(strace.wait().0, Some(0));
}

#[test]
fn a_file_that_cannot_be_written_fails_the_deployment_and_leaves_nothing() {
    let house = House::new();
    house.origin.commit(&[("index.html", "one")]);
    house.deploy().expect(0);
    let (before, releases) = (house.current(), house.releases());
    // It packs small, so that only the checkout meets the limit.
    house.origin.commit(&[("index.html", "two"), ("large", &"0".repeat(20 << 20))]);
    let inner = house.command(&["deploy", "blog"]);
    let mut limited = Command::new("bash");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 10240; exec \"$@\"", "-"]).arg(inner.get_program());
    let output = limited.args(inner.get_args()).output().expect("bash");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("large") && told.contains("File too large"), "{told}");
    assert_eq!((house.current(), house.releases()), (before, releases));
}
