//! php-fpm with OPcache behind the nginx of README.md: each request runs in one release, and none is lost at a flip.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::peers::{Front, Peer, open_directory};
use crate::support::{House, is_root, wait_for};

/// A pool of workers that never look at a file again: with the path of `current` they would serve the first version for ever.
struct Php {
    _peer: Peer,
    _directory: tempfile::TempDir,
    socket: PathBuf,
}

impl Php {
    fn start() -> Self {
        let directory = open_directory();
        let place = directory.path();
        let socket = place.join("php.sock");
        let user = if is_root() { "user = www-data\ngroup = www-data\nlisten.mode = 0666\n" } else { "" };
        let text = format!(
            "[global]\nerror_log = {place}/fpm.log\npid = {place}/fpm.pid\n[www]\n{user}listen = {socket}\npm = static\n\
             pm.max_children = 3\ncatch_workers_output = yes\n",
            place = place.display(),
            socket = socket.display(),
        );
        std::fs::write(place.join("fpm.conf"), text).expect("a configuration");
        let mut command = Command::new(program());
        command.arg("--nodaemonize").arg("--fpm-config").arg(place.join("fpm.conf"));
        command.args(["-d", "opcache.enable=1", "-d", "opcache.validate_timestamps=0"]);
        let peer = Peer::start(&mut command, place).wait_for_file(&socket).expect("php-fpm");
        Self { _peer: peer, _directory: directory, socket }
    }
}

/// Debian has its version in the name.
fn program() -> PathBuf {
    let named = |directory: &str| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("/php-fpm"))
    };
    ["/usr/sbin", "/usr/local/sbin", "/usr/bin"].into_iter().find_map(named).expect("php-fpm")
}

/// A page in two files; the version is in both.
fn commit(house: &House, version: &str) {
    let page = format!(
        "<?php $slow = isset($_GET['slow']) ? $_GET['slow'] : ''; if ($slow) {{ touch(\"$slow/began\"); \
         while (!file_exists(\"$slow/go\")) {{ usleep(10000); clearstatcache(); }} }} \
         $cache = opcache_get_status(false); echo $cache['opcache_enabled'] ? 'cached' : 'plain', ' {version} '; \
         require __DIR__ . '/../part.php';"
    );
    let part = format!("<?php echo '{version}';");
    house.origin.commit(&[("public/index.php", &page), ("part.php", &part)]);
}

#[test]
#[ignore = "needs nginx, php-fpm with OPcache and curl: tests/run.sh brings them"]
fn the_next_request_runs_the_new_code_and_one_under_way_ends_with_the_old() {
    let house = House::new();
    commit(&house, "one");
    house.deploy().expect(0);
    let php = Php::start();
    let front = Front::start(&house, None, &php.socket);
    assert_eq!(front.get("/"), (200, "cached one one".into()));
    let signs = open_directory();
    std::fs::set_permissions(signs.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("a mode");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| front.get(&format!("/index.php?slow={}", signs.path().display())));
        wait_for("the slow request to begin", || signs.path().join("began").exists().then_some(()));
        commit(&house, "two");
        house.deploy().expect(0);
        let next = front.get("/");
        std::fs::write(signs.path().join("go"), "").expect("a file");
        assert_eq!(next, (200, "cached two two".into()));
        assert_eq!(slow.join().expect("an answer"), (200, "cached one one".into()));
    });
    assert_eq!(front.get("/nice/address"), (200, "cached two two".into()), "what is no file is the application's");
    assert_eq!((front.get("/.git/config").0, front.get("/part.php").0), (403, 404));
    house.landfall(&["rollback", "blog"]).expect(0);
    assert_eq!(front.get("/"), (200, "cached one one".into()));
}

#[test]
#[ignore = "needs nginx, php-fpm with OPcache and curl: tests/run.sh brings them"]
fn no_request_is_lost_or_mixed_during_twenty_deployments() {
    let house = House::new();
    commit(&house, "1");
    house.deploy().expect(0);
    let php = Php::start();
    let front = Front::start(&house, None, &php.socket);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let visitor = scope.spawn(|| visit(&front, &is_over));
        let end = AtTheEnd(&is_over);
        for version in 2..=21 {
            commit(&house, &version.to_string());
            house.deploy().expect(0);
            assert_eq!(front.get("/"), (200, format!("cached {version} {version}")));
        }
        drop(end);
        let seen = visitor.join().expect("a visitor");
        assert!(seen.len() >= 5, "few versions were seen: {seen:?}");
    });
}

/// Lets the visitors go home, also when the story fails.
struct AtTheEnd<'a>(&'a AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Asks for the page until it is over; gives back the versions it saw.
fn visit(front: &Front, is_over: &AtomicBool) -> Vec<u32> {
    let mut seen: Vec<u32> = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        let (status, page) = front.get("/");
        let words: Vec<_> = page.split(' ').collect();
        assert!(status == 200 && words.len() == 3 && words[1] == words[2], "{status} {page}");
        let version = words[1].parse().expect("a version");
        let newest = seen.last().copied().unwrap_or_default();
        assert!(version >= newest, "{version} after {newest}");
        if version > newest {
            seen.push(version);
        }
    }
    seen
}
