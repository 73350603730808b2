//! A forge over ssh: OpenSSH's own server, deploy keys, and host keys that are pinned.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::peers::{Peer, on_free_ports, open_directory, run};
use crate::support::{House, Ran, Setup};

/// A server with a user `git`, who is whoever runs the test: a plain user can only let itself in, and often has no shell.
#[derive(Debug)]
struct Sshd {
    _peer: Peer,
    directory: TempDir,
    port: u16,
}

impl Sshd {
    /// Starts one with host keys of these types.
    fn start(host_keys: &[&str]) -> Self {
        let directory = open_directory();
        let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        let mut keys = String::new();
        for kind in host_keys {
            make_key(&path(&format!("host_{kind}")), kind);
            keys += &format!("HostKey {}\n", path(&format!("host_{kind}")));
        }
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        let users = format!("git:x:{uid}:{gid}::{}:/bin/sh\nsshd:x:65534:65534::/run/sshd:/bin/false\n", path(""));
        std::fs::write(path("passwd"), users).expect("a list of users");
        std::fs::write(path("group"), format!("git:x:{gid}:\n")).expect("a list of groups");
        std::fs::write(path("authorized_keys"), "").expect("a list of keys");
        let peer = on_free_ports(|[port]| {
            let text = format!(
                "ListenAddress 127.0.0.1:{port}\n{keys}PidFile {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
                 PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n",
                path("sshd.pid"),
                path("authorized_keys"),
            );
            std::fs::write(path("sshd_config"), text).expect("a configuration");
            // It wants to be called by its full name, to call itself again for each connection.
            let program = run("bash", &["-c", "PATH=$PATH:/usr/sbin:/sbin command -v sshd"]);
            let mut command = Command::new(program.trim());
            command.args(["-D", "-e", "-f", &path("sshd_config")]);
            command.env("LD_PRELOAD", "libnss_wrapper.so");
            command.env("NSS_WRAPPER_PASSWD", path("passwd")).env("NSS_WRAPPER_GROUP", path("group"));
            let peer = Peer::start(&mut command, directory.path());
            Ok((peer.wait_for_file(&directory.path().join("sshd.pid"))?, port))
        });
        Self { _peer: peer.0, directory, port: peer.1 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Lets the owner of this public key in.
    fn authorize(&self, public_key: &str) {
        std::fs::write(self.path("authorized_keys"), format!("restrict {public_key}")).expect("a list of keys");
    }

    /// The line for `known_hosts` of a host key.
    fn line(&self, kind: &str) -> String {
        let key = std::fs::read_to_string(self.path(&format!("host_{kind}.pub"))).expect("a key");
        let words: Vec<_> = key.split(' ').take(2).collect();
        format!("[127.0.0.1]:{} {}\n", self.port, words.join(" "))
    }
}

fn make_key(path: &str, kind: &str) {
    let bits: &[&str] = if kind == "rsa" { &["-b", "2048"] } else { &[] };
    run("ssh-keygen", &[&["-q", "-t", kind, "-N", "", "-C", "landfall", "-f", path], bits].concat());
}

/// A house whose repository is reached by ssh, with a deploy key that the server knows.
fn house(sshd: &Sshd, key_kind: &str) -> House {
    let house = House::new();
    house.origin.commit(&[("index.html", "one")]);
    let key = house.path().join("key");
    make_key(&key.to_string_lossy(), key_kind);
    sshd.authorize(&house.read("key.pub"));
    std::fs::write(house.path().join("known_hosts"), "").expect("a file");
    let repository = format!(
        "url = \"ssh://git@127.0.0.1:{}{}\"\nforge = \"github\"\nssh_key = \"{{house}}/key\"\n\
         known_hosts = \"{{house}}/known_hosts\"",
        sshd.port,
        house.origin.bare.display()
    );
    house.configure(&Setup { repository: &repository, ..Setup::default() });
    house
}

fn trust(house: &House, lines: &str) {
    std::fs::write(house.path().join("known_hosts"), lines).expect("a file");
}

#[track_caller]
fn refused(house: &House, reason: &str) -> Ran {
    let ran = house.deploy().expect(1);
    assert!(ran.stderr.contains(reason), "{}", ran.stderr);
    assert_eq!((house.current(), house.releases().len()), (None, 0));
    ran
}

#[test]
#[ignore = "needs sshd and libnss_wrapper: tests/run.sh brings them"]
fn a_deploy_key_of_any_usual_type_opens_the_repository() {
    let sshd = Sshd::start(&["ed25519"]);
    for kind in ["ed25519", "rsa", "ecdsa"] {
        let house = house(&sshd, kind);
        trust(&house, &run("ssh-keyscan", &["-p", &sshd.port.to_string(), "127.0.0.1"]));
        house.landfall(&["check", "--online"]).expect(0);
        house.deploy().expect(0);
        house.origin.commit(&[("index.html", kind)]);
        house.deploy().expect(0);
        assert_eq!(house.live("index.html"), kind);
    }
}

#[test]
#[ignore = "needs sshd and libnss_wrapper: tests/run.sh brings them"]
fn a_push_is_fetched_over_ssh_by_a_server() {
    let sshd = Sshd::start(&["ed25519"]);
    let house = house(&sshd, "ed25519");
    trust(&house, &sshd.line("ed25519"));
    let daemon = house.serve();
    let answer = daemon.push("1", &house.origin.head()).expect(202, "queued");
    assert_eq!(house.wait_for_end(answer.deployment())["state"], "succeeded");
    let shown = house.landfall(&["webhook", "blog"]).expect(0).stdout;
    assert!(shown.contains(house.read("key.pub").trim()), "{shown}");
}

#[test]
#[ignore = "needs sshd and libnss_wrapper: tests/run.sh brings them"]
fn an_unknown_host_key_is_refused_with_the_line_that_makes_it_known() {
    let sshd = Sshd::start(&["ed25519"]);
    let house = house(&sshd, "ed25519");
    let ran = refused(&house, "cannot trust the host key");
    let (_, rest) = ran.stderr.split_once("add the line `").expect("a line");
    let (line, _) = rest.split_once('`').expect("a line");
    assert_eq!(format!("{line}\n"), sshd.line("ed25519"));
    trust(&house, line);
    house.deploy().expect(0);
}

#[test]
#[ignore = "needs sshd and libnss_wrapper: tests/run.sh brings them"]
fn a_host_key_that_has_changed_or_is_revoked_is_refused() {
    let (sshd, other) = (Sshd::start(&["ed25519"]), Sshd::start(&["ed25519"]));
    let house = house(&sshd, "ed25519");
    let old = other.line("ed25519").replace(&other.port.to_string(), &sshd.port.to_string());
    trust(&house, &old);
    let ran = refused(&house, "somebody may be in between");
    assert!(!ran.stderr.contains("add the line"), "{}", ran.stderr);
    trust(&house, &format!("{0}@revoked {0}", sshd.line("ed25519")));
    refused(&house, "it is revoked");
    // A key of the same machine for another port is not this server's.
    trust(&house, &sshd.line("ed25519").replace(&sshd.port.to_string(), "1"));
    refused(&house, "does not have it");
}

#[test]
#[ignore = "needs sshd and libnss_wrapper: tests/run.sh brings them"]
fn hashed_names_in_known_hosts_are_found() {
    let sshd = Sshd::start(&["ed25519"]);
    let house = house(&sshd, "ed25519");
    trust(&house, &sshd.line("ed25519"));
    let file = house.path().join("known_hosts").to_string_lossy().into_owned();
    run("ssh-keygen", &["-q", "-H", "-f", &file]);
    let hashed = house.read("known_hosts");
    assert!(hashed.starts_with("|1|") && !hashed.contains("127.0.0.1"), "{hashed}");
    house.deploy().expect(0);
}

#[test]
#[ignore = "needs sshd and libnss_wrapper: tests/run.sh brings them"]
fn a_key_that_the_server_does_not_know_is_denied() {
    let sshd = Sshd::start(&["ed25519"]);
    let house = house(&sshd, "ed25519");
    trust(&house, &sshd.line("ed25519"));
    sshd.authorize("");
    refused(&house, "access denied\nhelp: check `token` or `ssh_key` of the repository");
    let checked = house.landfall(&["check", "--online"]);
    assert!(checked.code == Some(2) && checked.stderr.contains("access denied"), "{}", checked.stderr);
}

#[test]
#[ignore = "needs sshd and libnss_wrapper: tests/run.sh brings them"]
fn a_repository_that_the_server_does_not_have_is_said_so() {
    let sshd = Sshd::start(&["ed25519"]);
    let house = house(&sshd, "ed25519");
    trust(&house, &sshd.line("ed25519"));
    std::fs::remove_dir_all(&house.origin.bare).expect("a removal");
    refused(&house, "cannot fetch from");
}

#[test]
#[ignore = "needs sshd and libnss_wrapper: tests/run.sh brings them"]
fn of_several_host_keys_it_is_the_first_one_shown_that_has_to_be_known() {
    let sshd = Sshd::start(&["ed25519", "rsa", "ecdsa"]);
    let house = house(&sshd, "ed25519");
    // The server is asked for its newest type of key, whichever is known: not trusted then, and told which line is missing.
    trust(&house, &sshd.line("rsa"));
    refused(&house, "perhaps another type of key of this host");
    trust(&house, &sshd.line("ed25519"));
    house.deploy().expect(0);
}
