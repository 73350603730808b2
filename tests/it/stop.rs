//! The end of the service: nothing new begins, what runs may end, what does not is undone; and what the service manager
//! is told.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Daemon, House, wait_for};

/// A house whose first release is live and has this hook; `go` is the file that hooks wait for.
fn house_with_hook(hook: &str, script: &str) -> House {
    let house = House::new();
    let script = script.replace("{house}", &house.path().to_string_lossy());
    house.origin.commit(&[("index.html", "one")]);
    house.deploy().expect(0);
    house.origin.write(&format!(".landfall/{hook}"), &script);
    house
}

const WAIT_FOR_GO: &str = "echo begun >> {house}/ran; while [ ! -e {house}/go ]; do sleep 0.02; done";

/// Serves, pushes `two` and waits until its hook has begun.
fn serve_until_hook(house: &House) -> (Daemon, i64) {
    let server = house.serve();
    let commit = house.origin.commit(&[("index.html", "two")]);
    let id = server.push("p-1", &commit).expect(202, "queued").deployment();
    wait_for("the hook", || house.read("ran").contains("begun").then_some(()));
    (server, id)
}

fn let_go(house: &House) {
    std::fs::write(house.path().join("go"), "").expect("a file");
}

/// Asks the server to stop, and waits until it does.
fn ask_to_stop(server: &Daemon) {
    server.signal(Signal::SIGTERM);
    wait_for("the server to begin to stop", || server.log().contains("begins nothing new").then_some(()));
}

#[test]
fn an_idle_server_stops_at_once_with_0_at_each_signal() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let house = House::new();
        let mut server = house.serve();
        server.signal(signal);
        let asked = Instant::now();
        let (code, log) = server.wait();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains(signal.as_str()) && log.contains("stopped"), "{log}");
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
}

#[test]
fn what_runs_may_end_and_what_waits_stays_for_the_next_start() {
    let house = house_with_hook("before.deploy", WAIT_FOR_GO);
    let (mut server, first) = serve_until_hook(&house);
    let commit = house.origin.commit(&[("index.html", "three")]);
    let second = server.push("p-2", &commit).expect(202, "queued").deployment();
    ask_to_stop(&server);
    let_go(&house);
    let (code, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(
        (&house.deployment(first)["state"], &house.deployment(second)["state"]),
        (&"succeeded".into(), &"queued".into())
    );
    assert_eq!(house.live("index.html"), "two");
    let _server = house.serve();
    assert_eq!(house.wait_for_end(second)["state"], "succeeded");
    assert_eq!(house.live("index.html"), "three");
}

#[test]
fn until_the_end_the_doors_answer_503_so_that_the_forge_sends_again() {
    let house = house_with_hook("before.deploy", WAIT_FOR_GO);
    let (mut server, _) = serve_until_hook(&house);
    assert_eq!(server.get("/readyz").status, 200);
    ask_to_stop(&server);
    let refused = server.push("p-2", &house.origin.head()).expect(503, "unavailable");
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    let ready = server.get("/readyz");
    assert_eq!((ready.status, &ready.json()["checks"]["draining"]["ok"]), (503, &false.into()));
    assert_eq!(server.get("/healthz").status, 200, "it lives");
    let_go(&house);
    assert_eq!(server.wait().0, Some(0));
    assert_eq!(house.states(), ["succeeded", "succeeded"], "what was refused is not stored");
}

#[test]
fn a_second_signal_undoes_what_runs_and_the_next_start_tries_it_again() {
    let house = house_with_hook("before.deploy", WAIT_FOR_GO);
    house.origin.write(".landfall/deploy.failure", &format!("echo failure >> {}/ran", house.path().display()));
    let before = house.current();
    let (mut server, id) = serve_until_hook(&house);
    ask_to_stop(&server);
    server.signal(Signal::SIGTERM);
    let asked = Instant::now();
    let (code, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    // The hook ends at TERM: its grace, and that of the deployment, are not waited for.
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    house.check();
    assert_eq!(house.states(), ["succeeded", "interrupted", "queued"]);
    assert!(house.deployment(id)["reason"].as_str().is_some_and(|reason| reason.contains("the service stops")));
    assert_eq!((house.current(), house.releases().len()), (before, 1));
    assert_eq!(house.read("ran"), "begun\nfailure\n");
    let_go(&house);
    let _server = house.serve();
    house.wait_for_quiet();
    assert_eq!(house.states(), ["succeeded", "interrupted", "succeeded"]);
    assert_eq!(house.live("index.html"), "two");
}

#[test]
fn a_second_signal_after_the_flip_takes_the_old_release_back() {
    let house = house_with_hook("after.deploy", WAIT_FOR_GO);
    let before = house.current();
    let (mut server, _) = serve_until_hook(&house);
    assert_eq!(house.live("index.html"), "two");
    ask_to_stop(&server);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().0, Some(0));
    assert_eq!((house.current(), house.releases().len()), (before, 1));
    assert_eq!(house.states(), ["succeeded", "interrupted", "queued"]);
    let_go(&house);
    let _server = house.serve();
    house.wait_for_quiet();
    assert_eq!(house.live("index.html"), "two");
}

#[test]
fn a_hook_that_ignores_term_is_killed_with_all_it_started_after_a_grace() {
    let stubborn = "trap '' TERM; (trap '' TERM; while true; do sleep 0.05; done) & \
                    setsid bash -c \"trap '' TERM; while true; do sleep 0.05; done\" & \
                    echo begun >> {house}/ran; while true; do sleep 0.05; done";
    let house = house_with_hook("before.deploy", stubborn);
    let (mut server, _) = serve_until_hook(&house);
    ask_to_stop(&server);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().0, Some(0));
    // No process of the hook lives, says the house.
    house.check();
    assert_eq!(house.states(), ["succeeded", "interrupted", "queued"]);
}

#[test]
fn a_command_line_that_is_interrupted_takes_its_deployment_back() {
    let house = house_with_hook("before.deploy", WAIT_FOR_GO);
    house.origin.commit(&[("index.html", "two")]);
    let before = house.current();
    let child = house.command(&["deploy", "blog"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let child = child.expect("the binary");
    wait_for("the hook", || house.read("ran").contains("begun").then_some(()));
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, Signal::SIGINT).expect("a signal");
    assert_eq!(child.wait_with_output().expect("an end").status.code(), Some(130));
    assert_eq!(house.states(), ["succeeded", "cancelled"], "and it is not tried again");
    assert_eq!((house.current(), house.releases().len()), (before, 1));
}

/// What a service manager hears.
struct Manager {
    socket: UnixDatagram,
    heard: String,
}

impl Manager {
    fn hear(&mut self, state: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.heard.lines().any(|line| line == state) {
            assert!(Instant::now() < deadline, "waited a minute for {state}: {}", self.heard);
            let mut bytes = [0; 4096];
            let length = self.socket.recv(&mut bytes).expect("a datagram");
            self.heard += &String::from_utf8_lossy(&bytes[..length]);
            self.heard += "\n";
        }
    }
}

/// A server with the variables that systemd sets.
fn managed(house: &House) -> (Daemon, Manager) {
    let path = house.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    let inner = house.command(&["serve"]);
    let mut command = Command::new("bash");
    // The shell becomes the server, so its number is the server's.
    command.args(["-c", "WATCHDOG_PID=$$ exec \"$@\"", "-"]).arg(inner.get_program());
    command.args(inner.get_args()).env_clear().stdin(Stdio::null());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    (Daemon::start(command), Manager { socket, heard: String::new() })
}

#[test]
fn the_service_manager_hears_when_it_is_ready_that_it_lives_and_when_it_stops() {
    let house = house_with_hook("before.deploy", WAIT_FOR_GO);
    let (mut server, mut manager) = managed(&house);
    manager.hear("READY=1");
    assert!(!manager.heard.contains("STOPPING"), "{}", manager.heard);
    manager.hear("WATCHDOG=1");
    let commit = house.origin.commit(&[("index.html", "two")]);
    server.push("p-1", &commit).expect(202, "queued");
    wait_for("the hook", || house.read("ran").contains("begun").then_some(()));
    server.signal(Signal::SIGTERM);
    manager.hear("STOPPING=1");
    // While it waits for what runs it is not dead either.
    manager.heard.clear();
    manager.hear("WATCHDOG=1");
    let_go(&house);
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn hooks_hear_nothing_of_the_service_manager() {
    let house = house_with_hook("before.deploy", "env >> {house}/ran; echo begun >> {house}/ran");
    let (mut server, _manager) = managed(&house);
    let commit = house.origin.commit(&[("index.html", "two")]);
    let id = server.push("p-1", &commit).expect(202, "queued").deployment();
    assert_eq!(house.wait_for_end(id)["state"], "succeeded");
    let environment = house.read("ran");
    assert!(environment.contains("begun") && !environment.contains("NOTIFY_") && !environment.contains("WATCHDOG_"));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().0, Some(0));
}
