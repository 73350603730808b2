//! The unit, and what a service manager and Landfall tell each other. There is none here: its part is played.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use serde_json::json;

use super::peers::{open_directory, replace};
use crate::support::{Daemon, Delivery, House, Setup, is_root, landfall, source};

fn unit() -> String {
    std::fs::read_to_string(source().join("systemd/landfall.service")).expect("the unit")
}

#[test]
#[ignore = "needs systemd-analyze: tests/run.sh brings it"]
fn systemd_finds_nothing_to_say_about_the_unit() {
    let directory = open_directory();
    let file = directory.path().join("landfall.service");
    // It looks whether the program is there.
    let text = replace(&unit(), "/usr/local/bin/landfall", &landfall().to_string_lossy());
    std::fs::write(&file, text).expect("a unit");
    let output = Command::new("systemd-analyze").arg("verify").arg(&file).output().expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("landfall"), "{said}");
}

#[test]
fn nobody_is_told_of_a_start_that_failed() {
    let house = House::new();
    let socket = UnixDatagram::bind(house.path().join("notify")).expect("a socket");
    socket.set_nonblocking(true).expect("a mode");
    let _first = house.serve();
    let mut command = house.command(&["serve"]);
    let second = command.env("NOTIFY_SOCKET", house.path().join("notify")).output().expect("the binary");
    assert_eq!(second.status.code(), Some(4));
    let error = socket.recv(&mut [0; 1024]).expect_err("silence");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_credential_of_the_service_manager_is_a_secret() {
    let house = House::new();
    std::fs::create_dir(house.path().join("credentials")).expect("a directory");
    house.write_secret("credentials/blog.secret", "a secret that only systemd hands out\n");
    let more = "[repositories.other]\nurl = \"/nowhere/acme/other.git\"\nforge = \"gitlab\"\n\
                secret = { credential = \"blog.secret\" }";
    house.configure(&Setup { more, ..Setup::default() });
    let without = house.landfall(&["check"]).expect(2);
    assert!(without.stderr.contains("repositories.other.secret"), "{}", without.stderr);
    let mut command = house.command(&["serve"]);
    let daemon = Daemon::start({
        command.env("CREDENTIALS_DIRECTORY", house.path().join("credentials"));
        command
    });
    let same = "0".repeat(39) + "1";
    let body = json!({ "object_kind": "push", "ref": "refs/heads/main", "before": same, "after": same,
        "project": { "path_with_namespace": "acme/other" } });
    let mut delivery = Delivery::github("1", "push", body.to_string()).header("x-gitlab-event", Some("Push Hook"));
    delivery.repository = "other".into();
    assert_eq!(
        daemon.send(&delivery.clone().header("x-gitlab-token", Some("another secret of that length"))).status,
        401
    );
    daemon.send(&delivery.header("x-gitlab-token", Some("a secret that only systemd hands out"))).expect(200, "pong");
}

/// The unit's capabilities as setpriv writes them.
fn bounding_set() -> String {
    let unit = unit();
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).expect("capabilities");
    let names = line.split_whitespace().map(|name| name.strip_prefix("CAP_").expect("a capability").to_lowercase());
    names.fold("-all".to_owned(), |set, name| format!("{set},+{name}"))
}

#[test]
#[ignore = "needs setpriv: tests/run.sh brings it"]
fn the_capabilities_of_the_unit_are_enough_for_all_that_landfall_does() {
    if !is_root() {
        // A plain user has no capabilities to lose.
        return;
    }
    let house = House::new();
    let site = "owner = \"www-data\"\ngroup = \"daemon\"\nrun_as = \"daemon\"\nkeep = 1\nhook_timeout = \"2s\"\nshared = [\"up\"]";
    house.configure(&Setup { site, ..Setup::default() });
    // What only the hook's user may enter, what a stranger may not even look at, and what has left the session.
    let mess = "mkdir -p closed/in && echo x >closed/in/file && chmod 000 closed/in/file && chmod 000 closed\n\
                id -un >user; grep -E '^(Cap|NoNewPrivs)' /proc/self/status >privileges\n\
                setsid sleep 600 </dev/null >/dev/null 2>&1 &\n";
    house.origin.write(".landfall/after.pull", mess);
    let daemon = Daemon::start(house.under_the_unit());
    let mut expected = Vec::new();
    for (number, ending) in ["", "", "", "exit 3\n", "sleep 600\n"].into_iter().enumerate() {
        house.origin.write(".landfall/before.deploy", &format!(": {number}\n{ending}"));
        let commit = house.origin.commit(&[("index.html", &number.to_string())]);
        let answer = daemon.push(&number.to_string(), &commit).expect(202, "queued");
        house.wait_for_end(answer.deployment());
        expected.push(if ending.is_empty() { "succeeded" } else { "failed" });
    }
    assert_eq!(house.states(), expected, "{}", daemon.log());
    assert_eq!((house.live("index.html").as_str(), house.live("user").as_str()), ("2", "daemon\n"));
    let none: String = ["Inh", "Prm", "Eff", "Bnd", "Amb"].map(|set| format!("Cap{set}:\t{:016x}\n", 0)).concat();
    assert_eq!(house.live("privileges"), none + "NoNewPrivs:\t1\n");
    assert_eq!(house.releases().len(), 2, "the live one and the one before");
    let file = house.root.join("current/closed/in/file").metadata().expect("a file");
    let closed = house.root.join("current/closed").metadata().expect("a directory");
    assert_eq!((file.permissions().mode() & 0o7777, closed.permissions().mode() & 0o7777), (0o664, 0o2775));
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("a process");
    let bounds: BTreeSet<_> = status
        .lines()
        .filter(|line| line.starts_with("CapBnd") || line.starts_with("CapEff"))
        .map(|line| &line[8..])
        .collect();
    let most = std::fs::read_to_string("/proc/self/status").expect("ourselves");
    assert!(
        bounds.len() == 1 && bounds.iter().all(|bound| !most.contains(*bound)),
        "it has just what the unit gives: {bounds:?}"
    );
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("Operation not permitted"), "{log}");
}

impl House {
    /// A server as the unit starts it, as far as that goes without a service manager.
    fn under_the_unit(&self) -> Command {
        let mask = unit().lines().find_map(|line| line.strip_prefix("UMask=").map(str::to_owned)).expect("a mask");
        let mut command = Command::new("bash");
        command.arg("-c").arg(format!("umask {mask} && exec \"$@\"")).arg("unit");
        command.args(["setpriv", "--no-new-privs", "--inh-caps=-all", &format!("--bounding-set={}", bounding_set())]);
        command.arg(landfall()).arg("--config").arg(&self.config).arg("serve");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }
}
