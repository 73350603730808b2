//! Owner, modes and content of a live release, its shared paths and its `.env`; and that nothing outside of it is touched.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};

use crate::support::{House, Setup, git, is_root, mode, names, wait_for};

fn site(site: &str) -> House {
    House::with(&Setup { site, ..Setup::default() })
}

fn live_path(house: &House) -> PathBuf {
    house.current().expect("a live release").into()
}

/// Deploys with this `after.pull`; gives back the release's path.
fn deploy_with(house: &House, script: &str) -> PathBuf {
    house.origin.commit(&[(".landfall/after.pull", &format!("set -e\n{script}"))]);
    house.deploy().expect(0);
    live_path(house)
}

#[track_caller]
fn owner(path: &Path) -> (u32, u32) {
    let found = std::fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (found.uid(), found.gid())
}

/// Everything in a directory, itself included, not through links.
fn all_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    if directory.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            found.extend(all_below(&entry.expect("an entry").path()));
        }
    }
    found
}

#[test]
fn whatever_modes_hooks_leave_behind_they_are_right_when_the_release_goes_live() {
    let house = House::new();
    house.origin.write("public/index.html", "x");
    house.origin.write("artisan", "x");
    house.origin.make_executable("artisan");
    let release = deploy_with(
        &house,
        "mkdir closed sticky narrow; touch closed/file open private tool setuid setgid group-only\n\
         chmod 000 closed/file closed; chmod 1777 sticky; chmod 700 narrow\n\
         chmod 777 open; chmod 600 private; chmod 100 tool; chmod 4755 setuid; chmod 2644 setgid; chmod 010 group-only\n\
         chmod 555 .; chmod 444 artisan",
    );
    let table = [
        (".", 0o2775),
        ("public", 0o2775),
        (".landfall", 0o2775),
        ("closed", 0o2775),
        ("sticky", 0o2775),
        ("narrow", 0o2775),
        ("public/index.html", 0o664),
        (".landfall/after.pull", 0o664),
        ("closed/file", 0o664),
        ("private", 0o664),
        ("setgid", 0o664),
        ("artisan", 0o664),
        ("open", 0o775),
        ("tool", 0o775),
        ("setuid", 0o775),
        ("group-only", 0o775),
    ];
    for (path, expected) in table {
        assert_eq!(mode(&release.join(path)), expected, "{path}");
    }
}

#[test]
fn executable_bits_are_kept_or_stripped() {
    for (setting, expected) in [("", 0o775), ("executable = \"keep\"", 0o775), ("executable = \"strip\"", 0o664)] {
        let house = site(setting);
        house.origin.write("tool", "x");
        house.origin.make_executable("tool");
        let release = deploy_with(&house, "mkdir sub; touch sub/made; chmod 755 sub/made");
        let modes = ["tool", "sub/made", "sub"].map(|path| mode(&release.join(path)));
        assert_eq!(modes, [expected, expected, 0o2775], "{setting}");
    }
}

#[test]
fn everything_belongs_to_owner_and_group_when_it_goes_live_and_to_the_hooks_before() {
    // Only root can change owners.
    if !is_root() {
        return;
    }
    let user = |name| User::from_name(name).expect("a look-up").expect("a user").uid.as_raw();
    let group = |name| Group::from_name(name).expect("a look-up").expect("a group").gid.as_raw();
    let house = site(
        "owner = \"nobody\"\nrun_as = \"daemon\"\ngroup = \"daemon\"\nshared = [\"uploads\"]\nenv_file = \"{house}/env\"",
    );
    house.write_secret("env", "A=1");
    house.origin.write("deep/er/file", "x");
    symlink("deep", house.origin.work().join("link")).expect("a link");
    let outside = house.path().join("outside");
    std::fs::write(&outside, "x").expect("a file");
    symlink(&outside, house.origin.work().join("out")).expect("a link");
    let release = deploy_with(
        &house,
        "find . ! -user daemon -o ! -group daemon > $STORAGE_DIRECTORY/foreign\nmkdir made; touch made/file uploads/file; ln -s x made/link",
    );
    assert_eq!(house.stored("foreign"), "", "what the hooks did not own");
    for path in all_below(&release) {
        assert_eq!(owner(&path), (user("nobody"), group("daemon")), "{}", path.display());
    }
    for path in [house.storage(), house.storage().join("uploads")] {
        assert_eq!((owner(&path), mode(&path)), ((user("nobody"), group("daemon")), 0o2775), "{}", path.display());
    }
    assert_eq!(owner(&outside), (0, 0));
    // Visitors and hooks must not be able to exchange a release.
    for path in [&house.root, &house.root.join("release")] {
        assert_eq!((owner(path), mode(path)), ((0, 0), 0o755), "{}", path.display());
    }
}

// ---- nothing outside ----

#[test]
fn links_are_never_followed() {
    let house = site("env_file = \"{house}/env\"");
    house.write_secret("env", "A=1");
    let outside = house.path().join("outside");
    std::fs::create_dir(&outside).expect("a directory");
    let file = outside.join("file");
    std::fs::write(&file, "x").expect("a file");
    for path in [&outside, &file] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("a mode");
    }
    symlink(&file, house.origin.work().join("file")).expect("a link");
    symlink("../../../../outside", house.origin.work().join("directory")).expect("a link");
    symlink("nowhere", house.origin.work().join("dangling")).expect("a link");
    let release = deploy_with(&house, &format!("rm .env; ln -s {} .env", file.display()));
    assert_eq!((mode(&outside), mode(&file)), (0o700, 0o700));
    for (path, target) in [("file", &*file), ("directory", Path::new("../../../../outside")), (".env", &*file)] {
        assert_eq!(std::fs::read_link(release.join(path)).expect("a link"), target, "{path}");
    }
    house.origin.commit(&[(".landfall/before.deploy", "exit 3")]);
    house.deploy().expect(1);
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), "x", "a discarded release takes nothing with it");
}

#[test]
fn a_file_with_another_name_elsewhere_is_left_as_it_is_and_warned_about() {
    let house = House::new();
    let release = deploy_with(
        &house,
        "echo x > $STORAGE_DIRECTORY/store; chmod 640 $STORAGE_DIRECTORY/store\n\
         ln $STORAGE_DIRECTORY/store hard; mkdir sub; ln $STORAGE_DIRECTORY/store sub/hard; touch single",
    );
    let modes = ["hard", "sub/hard", "single"].map(|path| mode(&release.join(path)));
    assert_eq!(modes, [0o640, 0o640, 0o664]);
    assert_eq!(mode(&house.storage().join("store")), 0o640);
    let log = house.log(1);
    assert_eq!(log.matches("warning: 2 files with several hard links left as they are").count(), 1, "{log}");
}

#[test]
fn fifos_and_sockets_are_neither_opened_nor_changed() {
    let house = House::new();
    house.origin.commit(&[(
        ".landfall/after.pull",
        "mkfifo -m 400 fifo\nuntil [ -e \"$STORAGE_DIRECTORY/go\" ]; do sleep 0.01; done\n",
    )]);
    let deploying = house.start_deploying();
    let release = wait_for("the fifo", || {
        let release = house.root.join("release").join(house.releases().pop()?);
        release.join("fifo").symlink_metadata().is_ok().then_some(release)
    });
    let _listener = UnixListener::bind(release.join("s")).expect("a socket");
    std::fs::set_permissions(release.join("s"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
    deploying.go_on(&house);
    assert_eq!((mode(&release.join("fifo")), mode(&release.join("s"))), (0o400, 0o600));
    assert!(release.join("s").symlink_metadata().expect("a socket").file_type().is_socket());
    assert!(house.log(1).contains("2 sockets, fifos or devices left as they are"), "{}", house.log(1));
}

// ---- content ----

#[test]
fn the_release_is_the_tree_of_the_commit() {
    let house = House::new();
    let work = house.origin.work();
    // The numbers of a small generator: nothing that compresses to nothing.
    let mut state = 1_u32;
    let large: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(8 << 20)
    .collect();
    std::fs::write(work.join("large"), &large).expect("a file");
    std::fs::write(work.join("empty"), "").expect("a file");
    std::fs::write(work.join(OsStr::from_bytes(b"no-\xff-utf8")), "x").expect("a file");
    std::fs::write(work.join("line\nbreak, space: $(colon) \u{1f600}"), "x").expect("a file");
    std::fs::write(work.join("n".repeat(255)), "x").expect("a file");
    std::fs::write(work.join("-rf"), "dos\r\nlines\r\n").expect("a file");
    house.origin.write(".gitignore", "large\n");
    house.origin.write(&format!("{}file", "deep/".repeat(50)), "x");
    house.origin.write("tool", "#!/bin/sh\n");
    house.origin.make_executable("tool");
    for (text, name) in [("tool", "link"), ("nowhere", "dangling"), ("/etc/passwd", "absolute"), ("..", "up")] {
        symlink(text, work.join(name)).expect("a link");
    }
    house.origin.git(&["add", "--force", "large"]);
    let commit = house.origin.push("main");
    house.deploy().expect(0);

    // Git itself is asked which tree it would make of the release.
    let (bare, release) = (house.origin.bare.display().to_string(), live_path(&house));
    let seen = |args: &[&str]| {
        let place = ["--git-dir", &bare, "--work-tree", &release.to_string_lossy(), "-c", "core.fileMode=true"];
        git(&release, &[&place[..], args].concat())
    };
    seen(&["add", "--all", "--force", "."]);
    assert_eq!(seen(&["write-tree"]), house.origin.git(&["rev-parse", &format!("{commit}^{{tree}}")]));
    assert_eq!(std::fs::read(release.join("large")).expect("a file").len(), large.len());
    assert!(!release.join(".git").exists());
}

#[test]
fn a_second_release_has_nothing_of_the_first() {
    let house = House::new();
    house.origin.commit(&[("old", "x"), ("changed", "one"), ("directory/file", "x")]);
    house.deploy().expect(0);
    std::fs::remove_dir_all(house.origin.work().join("directory")).expect("a directory");
    house.origin.commit(&[("old", ""), ("changed", "two"), ("directory", "now a file")]);
    house.deploy().expect(0);
    assert_eq!(names(&live_path(&house)), ["changed", "directory"]);
    assert_eq!((house.live("changed"), house.live("directory")), ("two".into(), "now a file".into()));
    let first = house.root.join("release").join(&house.releases()[0]);
    assert_eq!(std::fs::read_to_string(first.join("changed")).expect("a file"), "one");
}

// ---- `.env` and shared paths ----

#[test]
fn the_env_file_replaces_what_the_repository_has_and_others_cannot_read_it() {
    for what in ["nothing", "a file", "a directory", "a link"] {
        let house = site("env_file = \"{house}/env\"");
        house.write_secret("env", "SECRET='a b'\r\n# no end");
        match what {
            "a file" => house.origin.write(".env", "FROM=git"),
            "a directory" => house.origin.write(".env/file", "x"),
            "a link" => {
                std::fs::write(house.path().join("victim"), "untouched").expect("a file");
                symlink(house.path().join("victim"), house.origin.work().join(".env")).expect("a link");
            }
            _ => {}
        }
        house.origin.write("sub/.env", "x");
        let release = deploy_with(&house, "cp .env seen-by-hook; chmod 666 .env");
        assert!(release.join(".env").symlink_metadata().expect("a file").is_file(), "{what}");
        assert_eq!(house.live(".env"), "SECRET='a b'\r\n# no end", "{what}");
        assert_eq!(house.live("seen-by-hook"), house.live(".env"), "{what}");
        assert_eq!((mode(&release.join(".env")), mode(&release.join("sub/.env"))), (0o640, 0o664), "{what}");
        assert_eq!(house.read("victim"), if what == "a link" { "untouched" } else { "" }, "{what}");
    }
}

#[test]
fn an_env_that_a_hook_or_the_repository_makes_is_not_for_others_either() {
    let house = House::new();
    let hook = "umask 077; echo KEY=secret >> .env; mkdir sub; cp .env sub";
    house.origin.commit(&[(".env", "FROM=git\n"), (".landfall/after.pull", hook)]);
    house.deploy().expect(0);
    let release = live_path(&house);
    assert_eq!((house.live(".env"), mode(&release.join(".env"))), ("FROM=git\nKEY=secret\n".into(), 0o640));
    assert_eq!(mode(&release.join("sub/.env")), 0o664, "only that of the top is known to be one");
}

#[test]
fn what_a_hook_moves_in_and_does_not_own_is_not_given_away() {
    // Only root gives anything away.
    if !is_root() {
        return;
    }
    let house = site("run_as = \"daemon\"\nowner = \"daemon\"");
    let open = house.path().join("open");
    std::fs::create_dir(&open).expect("a directory");
    std::os::unix::fs::chown(&open, Some(1), Some(1)).expect("an owner");
    std::fs::write(open.join("secret"), "of root").expect("a file");
    std::fs::set_permissions(open.join("secret"), PermissionsExt::from_mode(0o600)).expect("a mode");
    let hook = format!("mv {}/secret stolen", open.display());
    house.origin.commit(&[(".landfall/after.pull", &hook)]);
    house.deploy().expect(0);
    let stolen = live_path(&house).join("stolen");
    let found = std::fs::metadata(&stolen).expect("the file");
    assert_eq!((found.uid(), mode(&stolen)), (0, 0o600));
    assert!(house.log(1).contains("warning: 1 entries of other users left as they are"), "{}", house.log(1));
}

#[test]
fn shared_paths_are_links_into_the_storage_and_what_is_missing_there_is_made() {
    let house = site("shared = [\"uploads\", \"storage/app\", \"a/b/c\", \"db.sqlite\", \"cache\"]");
    std::fs::create_dir_all(house.storage()).expect("a directory");
    std::fs::write(house.storage().join("db.sqlite"), "precious").expect("a file");
    // What the repository has at the place of a shared path gives way.
    house.origin.write("storage/app/from-git", "x");
    house.origin.write("storage/kept", "x");
    house.origin.write("uploads", "a file");
    symlink("/etc", house.origin.work().join("cache")).expect("a link");
    let release = deploy_with(&house, "echo more >> uploads/file; echo x > a/b/c/file");
    for path in ["uploads", "storage/app", "a/b/c", "db.sqlite", "cache"] {
        let target = std::fs::read_link(release.join(path)).expect("a link");
        assert_eq!(target, house.storage().join(path));
    }
    for path in ["uploads", "storage", "storage/app", "a", "a/b", "a/b/c", "cache"] {
        assert_eq!(mode(&house.storage().join(path)), 0o2775, "{path}");
    }
    assert_eq!((house.live("db.sqlite"), house.live("storage/kept")), ("precious".into(), "x".into()));
    assert_eq!((house.stored("uploads/file"), house.stored("a/b/c/file")), ("more\n".into(), "x\n".into()));
    assert_eq!(names(&house.storage().join("storage/app")), Vec::<String>::new());
}

#[test]
fn the_storage_is_never_emptied_or_changed() {
    let house = site("keep = 1\nshared = [\"uploads\"]");
    let precious = house.storage().join("uploads/precious");
    for number in 0..3 {
        house.origin.commit(&[("index.html", &number.to_string())]);
        house.deploy().expect(0);
        if number == 0 {
            std::fs::write(&precious, "precious").expect("a file");
            std::fs::set_permissions(&precious, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
            let uploads = house.storage().join("uploads");
            std::fs::set_permissions(uploads, std::os::unix::fs::PermissionsExt::from_mode(0o750)).expect("a mode");
        }
    }
    assert_eq!(house.releases().len(), 2, "a release was pruned");
    house.origin.commit(&[(".landfall/after.deploy", "exit 3")]);
    house.deploy().expect(1);
    house.landfall(&["rollback", "blog"]).expect(0);
    assert_eq!(house.stored("uploads/precious"), "precious");
    assert_eq!((mode(&precious), mode(&house.storage().join("uploads"))), (0o600, 0o750));
}
