//! What visitors see while deployments and rollbacks go on: always a whole release, never two halves.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::support::{House, Setup, wait_for};

/// A visitor of a plain web server: the file is there, and is one of the versions.
fn read_by_path(current: &Path) -> Result<(), String> {
    for name in ["index.html", "deep/er/page.html"] {
        let text = std::fs::read_to_string(current.join(name)).map_err(|error| format!("{name}: {error}"))?;
        if !is_version(&text) {
            return Err(format!("{name} is `{text}`"));
        }
    }
    Ok(())
}

/// A request that looks `current` up once, as nginx and php-fpm do with `$realpath_root`: all of its files are of one
/// version.
fn read_by_descriptor(current: &Path) -> Result<(), String> {
    let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(current);
    let directory = OwnedFd::from(opened.map_err(|error| format!("current: {error}"))?);
    let read = |name: &str| read_at(&directory, name).map_err(|error| format!("{name}: {error}"));
    let (first, second) = (read("index.html")?, read("deep/er/page.html")?);
    if first == second && is_version(&first) { Ok(()) } else { Err(format!("`{first}` beside `{second}`")) }
}

fn read_at(directory: &OwnedFd, name: &str) -> io::Result<String> {
    let mut file = File::from(nix::fcntl::openat(directory, name, OFlag::O_RDONLY, Mode::empty())?);
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

fn is_version(text: &str) -> bool {
    matches!(text, "one" | "two")
}

/// Lets visitors read while a server deploys `rounds` times, one version after the other, with a rollback in between now
/// and then.
fn visit_during(rounds: u64) {
    let house = House::with(&Setup { site: "keep = 3", ..Setup::default() });
    let commits =
        ["one", "two"].map(|version| house.origin.commit(&[("index.html", version), ("deep/er/page.html", version)]));
    house.deploy().expect(0);
    let (server, current) = (house.serve(), house.root.join("current"));
    let stop = AtomicBool::new(false);
    let visits = std::thread::scope(|scope| {
        let visitor = scope.spawn(|| visit_until(&stop, &current));
        // Whatever fails below, the visitor must leave, or the scope would wait for it for ever.
        let told = Told(&stop);
        for round in 0..rounds {
            let next = &commits[usize::try_from(round % 2).expect("0 or 1")];
            house.origin.git_bare(&["update-ref", "refs/heads/main", next]);
            let before = house.current();
            server.push(&format!("p-{round}"), next).expect(202, "queued");
            wait_for("the flip", || (house.current() != before).then_some(()));
            if round % 10 == 9 {
                house.landfall(&["rollback", "blog"]).expect(0);
                house.deploy().expect(0);
            }
        }
        drop(told);
        visitor.join().expect("a visitor")
    });
    let visits = visits.unwrap_or_else(|error| panic!("a visitor saw {error}"));
    assert!(visits > 10 * rounds, "only {visits} visits");
    house.wait_for_quiet();
}

/// Reads in a tight loop until it is told to stop; gives back how often, or what was wrong.
fn visit_until(stop: &AtomicBool, current: &Path) -> Result<u64, String> {
    let mut times = 0;
    while !stop.load(Ordering::Relaxed) {
        let read = read_by_path(current).and_then(|()| read_by_descriptor(current));
        read.map_err(|error| format!("after {times} visits: {error}"))?;
        times += 1;
    }
    Ok(times)
}

/// Tells the visitor to leave when it goes.
struct Told<'a>(&'a AtomicBool);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_visitor_never_sees_the_site_missing_or_mixed_during_deployments_and_rollbacks() {
    visit_during(20);
}

#[test]
#[ignore = "takes a minute: tests/run.sh has the time"]
fn a_visitor_never_sees_the_site_missing_or_mixed_during_two_hundred_of_them() {
    visit_during(200);
}

#[test]
fn the_visitors_would_notice() {
    let directory = tempfile::tempdir().expect("a directory");
    let current = directory.path();
    let see = || (read_by_path(current).err(), read_by_descriptor(current).err());
    assert!(
        matches!(see(), (Some(path), Some(descriptor)) if path.contains("index.html") && descriptor.contains("index"))
    );
    std::fs::create_dir_all(current.join("deep/er")).expect("a directory");
    std::fs::write(current.join("index.html"), "one").expect("a file");
    std::fs::write(current.join("deep/er/page.html"), "two").expect("a file");
    let (path, descriptor) = see();
    assert_eq!((path, descriptor.as_deref()), (None, Some("`one` beside `two`")), "a path alone cannot tell");
    std::fs::write(current.join("deep/er/page.html"), "").expect("a file");
    assert!(matches!(see(), (Some(path), Some(_)) if path.contains("page.html is ``")));
}
