//! However a deployment fails, the end is the same: `current` is what it was, no release is left, and it is told why.

use std::net::TcpListener;
use std::thread;

use crate::support::{House, Setup, check_site, is_root, names};

/// The ways in which a hook can fail: a script, and what is told of it.
const ENDS: [(&str, &str); 3] = [
    ("exit 3", "exited with status 3"),
    ("kill -KILL $$", "was ended by signal 9"),
    ("sleep 1000", "ran into its time limit of 1 s"),
];

/// A `deploy.failure` that tells who it is, where it runs, whether its release is still there, and what is live.
const TELL: &str = "echo \"$TARGET_HOOK $RELEASE_ID $(pwd -P) $(ls -d \"$PWD/index.html\") \
                    live:$(readlink \"$CURRENT_PATH\")\" >> \"$STORAGE_DIRECTORY/notes\"\n";

/// A house whose deployments fail: what was before is kept, to be compared.
struct Story {
    house: House,
    current: Option<String>,
    releases: Vec<String>,
}

impl Story {
    /// A story of a first deployment, or of one that finds another live.
    fn new(is_first: bool, setup: &Setup<'_>) -> Self {
        let house = House::with(setup);
        house.origin.write("index.html", "one");
        house.origin.write(".landfall/deploy.failure", TELL);
        if !is_first {
            house.origin.push("main");
            house.deploy().expect(0);
        }
        Self { current: house.current(), releases: house.releases(), house }
    }

    /// Deploys, and checks that nothing has changed and that it is told why.
    fn fail(&self, reason: &str) {
        let ran = self.house.deploy().expect(1);
        assert!(ran.stderr.contains(reason), "no `{reason}` in {}", ran.stderr);
        self.check_nothing_changed(reason);
        let last = &self.house.deployments()[0];
        assert_eq!(last["state"], "failed");
        assert!(last["reason"].as_str().is_some_and(|told| told.contains(reason)), "{last}");
    }

    fn check_nothing_changed(&self, what: &str) {
        assert_eq!(self.house.current(), self.current, "{what}: the link");
        assert_eq!(self.house.releases(), self.releases, "{what}: the releases");
        check_site(&self.house.root, &self.house.state, "blog");
    }

    /// `deploy.failure` ran once, from the failed release, which was there and not live any more.
    fn check_failure_hook_of_failed_release(&self, what: &str) {
        let notes = self.house.notes();
        assert_eq!(notes.len(), 1, "{what}: {notes:?}");
        let id = notes[0].split(' ').nth(1).expect("a release");
        assert!(!self.releases.iter().any(|release| release == id), "{what}: {notes:?}");
        let path = self.house.root.join("release").join(id);
        let (path, live) = (path.display(), self.current.as_deref().unwrap_or_default());
        assert_eq!(notes[0], format!("deploy.failure {id} {path} {path}/index.html live:{live}"), "{what}");
    }

    /// `deploy.failure` ran once, from the live release.
    fn check_failure_hook_of_live_release(&self, what: &str) {
        let Some(live) = &self.current else {
            assert_eq!(self.house.notes(), Vec::<String>::new(), "{what}");
            return;
        };
        let id = &self.releases[0];
        let expected = format!("deploy.failure {id} {live} {live}/index.html live:{live}");
        assert_eq!(self.house.notes(), [expected], "{what}");
    }
}

/// Runs all stories of a table at once, since most of them only wait.
fn in_parallel<T: Sync>(table: &[T], story: impl Fn(&T) + Sync) {
    thread::scope(|scope| {
        for row in table {
            scope.spawn(|| story(row));
        }
    });
}

fn check_every_hook(end: usize) {
    let hooks = ["after.pull", "before.deploy", "after.deploy", "deploy.success"];
    let table: Vec<_> = hooks.iter().flat_map(|hook| [(hook, true), (hook, false)]).collect();
    let (script, told) = ENDS[end];
    in_parallel(&table, |(hook, is_first)| {
        let what = format!("{hook}, {script}, first: {is_first}");
        let story = Story::new(*is_first, &Setup { site: "hook_timeout = \"1s\"", ..Setup::default() });
        story.house.origin.write(&format!(".landfall/{hook}"), script);
        story.house.origin.push("main");
        story.fail(&format!("hook `{hook}` {told}"));
        story.check_failure_hook_of_failed_release(&what);
    });
}

#[test]
fn a_hook_that_exits_with_a_status_fails_the_deployment() {
    check_every_hook(0);
}

#[test]
fn a_hook_that_a_signal_ends_fails_the_deployment() {
    check_every_hook(1);
}

#[test]
fn a_hook_at_its_time_limit_fails_the_deployment() {
    check_every_hook(2);
}

#[test]
fn however_before_pull_ends_the_deployment_goes_on() {
    in_parallel(&ENDS, |(script, told)| {
        let house = House::with(&Setup { site: "hook_timeout = \"1s\"", ..Setup::default() });
        house.origin.commit(&[(".landfall/before.pull", script), (".landfall/deploy.failure", TELL)]);
        house.deploy().expect(0);
        house.origin.push("main");
        house.deploy().expect(0);
        assert_eq!((house.releases().len(), house.notes().len()), (2, 0));
        assert!(house.log(2).contains(&format!("hook before.pull {told}, which is allowed")), "{}", house.log(2));
    });
}

#[test]
fn however_deploy_failure_ends_it_changes_nothing() {
    in_parallel(&ENDS, |(script, _)| {
        let story = Story::new(false, &Setup { site: "hook_timeout = \"1s\"", ..Setup::default() });
        let failure = format!("{TELL}{script}");
        story.house.origin.write(".landfall/after.deploy", "exit 7");
        story.house.origin.write(".landfall/deploy.failure", &failure);
        story.house.origin.push("main");
        story.fail("hook `after.deploy` exited with status 7");
        story.check_failure_hook_of_failed_release(script);
    });
}

#[test]
fn a_link_that_was_not_ours_comes_back_with_the_same_text() {
    let story = Story::new(true, &Setup::default());
    let house = &story.house;
    house.origin.commit(&[(".landfall/after.deploy", "exit 3")]);
    std::fs::create_dir(&house.root).expect("a directory");
    let link = house.root.join("current");
    std::os::unix::fs::symlink("../elsewhere//app", &link).expect("a link");
    house.deploy().expect(1);
    assert_eq!((house.current().as_deref(), house.releases().len()), (Some("../elsewhere//app"), 0));
    // The invariant wants a link of ours.
    std::fs::remove_file(link).expect("a link");
}

#[test]
fn what_failed_can_be_deployed_once_it_is_mended() {
    let story = Story::new(false, &Setup::default());
    story.house.origin.commit(&[(".landfall/before.deploy", "exit 3"), ("index.html", "two")]);
    story.fail("hook `before.deploy` exited with status 3");
    story.house.origin.commit(&[(".landfall/before.deploy", "exit 0")]);
    story.house.deploy().expect(0);
    assert_eq!(story.house.live("index.html"), "two");
}

// ---- the repository ----

/// What can be wrong with a repository: its name, how it is brought about, and what is told of it.
type Trouble = (&'static str, fn(&House), &'static str);

const TROUBLES: [Trouble; 5] = [
    (
        "the repository is gone",
        |house| std::fs::remove_dir_all(&house.origin.bare).expect("a repository"),
        "the repository does not exist or is not visible: there is no such directory",
    ),
    (
        "the branch is gone",
        |house| drop(house.origin.git_bare(&["update-ref", "-d", "refs/heads/main"])),
        "`refs/heads/main` does not exist in",
    ),
    (
        "the repository is empty",
        |house| {
            std::fs::remove_dir_all(&house.origin.bare).expect("a repository");
            std::fs::create_dir(&house.origin.bare).expect("a directory");
            house.origin.git_bare(&["init", "--quiet", "--bare"]);
        },
        "`refs/heads/main` does not exist in",
    ),
    (
        "it is no repository",
        |house| {
            std::fs::remove_dir_all(&house.origin.bare).expect("a repository");
            std::fs::create_dir(&house.origin.bare).expect("a directory");
            std::fs::write(house.origin.bare.join("HEAD"), "no ref at all").expect("a file");
        },
        "the repository does not exist or is not visible",
    ),
    (
        "nobody answers at the ssh port",
        |house| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = listener.local_addr().expect("an address").port();
            drop(listener);
            house.write_secret("key", "never read");
            let repository = format!(
                "url = \"ssh://git@127.0.0.1:{port}/acme/blog.git\"\nforge = \"github\"\nssh_key = \"{{house}}/key\""
            );
            house.configure(&Setup { repository: &repository, ..Setup::default() });
        },
        "fetch: cannot ",
    ),
];

#[test]
fn a_repository_or_branch_that_cannot_be_had_fails_the_deployment() {
    let table: Vec<_> = TROUBLES.iter().flat_map(|trouble| [(trouble, true), (trouble, false)]).collect();
    in_parallel(&table, |((what, bring_about, reason), is_first)| {
        let story = Story::new(*is_first, &Setup::default());
        story.house.origin.push("main");
        bring_about(&story.house);
        story.fail(reason);
        story.check_failure_hook_of_live_release(what);
    });
}

#[test]
fn a_repository_that_comes_back_is_deployed_again() {
    let story = Story::new(false, &Setup::default());
    let (bare, away) = (&story.house.origin.bare, story.house.path().join("away"));
    std::fs::rename(bare, &away).expect("a rename");
    story.fail("the repository does not exist or is not visible");
    std::fs::rename(&away, bare).expect("a rename");
    story.house.origin.commit(&[("index.html", "two")]);
    story.house.deploy().expect(0);
    assert_eq!(story.house.live("index.html"), "two");
}

// ---- the tree ----

/// Writes a tree that `git add` would refuse, and gives back its id. An entry is a mode, a name and an object.
fn tree(house: &House, entries: &[(&str, &str, &str)]) -> String {
    let mut raw = Vec::new();
    for (mode, name, object) in entries {
        raw.extend(format!("{mode} {name}\0").bytes());
        raw.extend(hex::decode(object).expect("an object id"));
    }
    let path = house.path().join("raw-tree");
    std::fs::write(&path, raw).expect("a file");
    house.origin.git_bare(&["hash-object", "-w", "-t", "tree", "--literally", &path.to_string_lossy()])
}

fn blob(house: &House, content: &str) -> String {
    let path = house.path().join("raw-blob");
    std::fs::write(&path, content).expect("a file");
    house.origin.git_bare(&["hash-object", "-w", &path.to_string_lossy()])
}

/// Makes a commit of this tree the tip of `main`, whatever git thinks of it.
fn commit_tree(house: &House, tree: &str) {
    let commit = house.origin.git_bare(&["commit-tree", tree, "-m", "hostile"]);
    house.origin.git_bare(&["update-ref", "refs/heads/main", &commit]);
}

#[test]
fn a_tree_whose_names_lead_elsewhere_is_refused_and_nothing_is_written_outside() {
    let table = [
        ("..", false),
        (".", false),
        (".git", false),
        ("..", true),
        (".GIT", true),
        (".git ", true),
        (".git.", true),
        ("GIT~1", true),
        (".g\u{200c}it", true),
        (".git::$INDEX_ALLOCATION", true),
    ];
    let story = Story::new(false, &Setup::default());
    for (name, is_nested) in table {
        let house = &story.house;
        let victim = blob(house, "attacked");
        let attack = tree(house, &[("100644", "planted", &victim)]);
        let mut hostile = tree(house, &[("40000", name, &attack)]);
        if is_nested {
            hostile = tree(house, &[("40000", "sub", &hostile)]);
        }
        commit_tree(house, &hostile);
        story.fail("cannot check out `");
        for directory in [&house.root, &house.root.join("release"), &house.path()] {
            assert!(!names(directory).contains(&"planted".to_owned()), "{name:?} in {}", directory.display());
        }
    }
}

#[test]
fn a_tree_whose_link_shall_become_a_directory_is_refused_and_nothing_is_written_behind_it() {
    let story = Story::new(false, &Setup::default());
    let house = &story.house;
    let outside = house.path().join("outside");
    std::fs::create_dir(&outside).expect("a directory");
    let link = blob(house, &outside.to_string_lossy());
    let attack = tree(house, &[("100644", "planted", &blob(house, "attacked"))]);
    for entries in
        [[("120000", "a", &*link), ("40000", "a", &*attack)], [("40000", "a", &attack), ("120000", "a", &link)]]
    {
        commit_tree(house, &tree(house, &entries));
        story.fail("checkout: ");
        assert_eq!(names(&outside), Vec::<String>::new());
    }
    // The same with a file: it must not be written through the link.
    std::fs::write(outside.join("victim"), "untouched").expect("a file");
    let link = blob(house, &outside.join("victim").to_string_lossy());
    commit_tree(house, &tree(house, &[("120000", "a", &link), ("100644", "a", &blob(house, "attacked"))]));
    story.fail("checkout: ");
    assert_eq!(std::fs::read_to_string(outside.join("victim")).expect("a file"), "untouched");
}

#[test]
fn what_is_not_supported_yet_is_refused_by_name_and_never_deployed_in_part() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let story = Story::new(false, &Setup::default());
    let house = &story.house;
    let commit = house.origin.head();
    let (file, pointer) = (blob(house, "x"), blob(house, pointer));
    let table = [
        (("160000", "theme", &*commit), "`theme`: it is a submodule"),
        (("100644", "theme", &*pointer), "`theme`: it is a Git LFS pointer"),
        (("60000", "theme", &*file), "`theme`"),
    ];
    for (entry, reason) in table {
        let tree = tree(house, &[("100644", "a", &file), entry]);
        commit_tree(house, &tree);
        story.fail(reason);
    }
    story.house.origin.push("main");
    story.house.deploy().expect(0);
}

// ---- the disk ----

#[test]
fn a_current_that_is_no_link_is_refused_before_any_work_and_stays() {
    for is_directory in [true, false] {
        let mut house = House::new();
        house.leave_unclean();
        house.origin.commit(&[("index.html", "one")]);
        std::fs::create_dir(&house.root).expect("a directory");
        let current = house.root.join("current");
        let precious = if is_directory { current.join("precious") } else { current.clone() };
        if is_directory {
            std::fs::create_dir(&current).expect("a directory");
        }
        std::fs::write(&precious, "precious").expect("a file");
        let ran = house.deploy().expect(2);
        assert!(ran.stderr.contains("help: move it away"), "{}", ran.stderr);
        assert_eq!(std::fs::read_to_string(&precious).expect("a file"), "precious");
        assert_eq!(names(&house.root), ["current"]);
        assert_eq!(house.states(), Vec::<String>::new(), "a refused order must not wait to be worked on");
    }
}

#[test]
fn a_current_that_becomes_a_directory_under_a_running_server_fails_the_deployment_and_stays() {
    let house = House::new();
    house.origin.commit(&[("index.html", "one")]);
    house.deploy().expect(0);
    let server = house.serve();
    let (current, link) = (house.root.join("current"), house.current().expect("a link"));
    std::fs::remove_file(&current).expect("a link");
    std::fs::create_dir(&current).expect("a directory");
    std::fs::write(current.join("precious"), "precious").expect("a file");
    let commit = house.origin.commit(&[("index.html", "two")]);
    let id = server.push("a", &commit).expect(202, "queued").deployment();
    let ended = house.wait_for_end(id);
    assert_eq!(ended["state"], "failed");
    assert!(ended["reason"].as_str().is_some_and(|reason| reason.contains("is a directory")), "{ended}");
    assert_eq!(house.live("precious"), "precious");
    assert_eq!(house.releases().len(), 1);
    std::fs::remove_dir_all(&current).expect("a directory");
    std::os::unix::fs::symlink(link, &current).expect("a link");
}

#[test]
fn a_shared_path_that_would_lead_through_a_link_or_a_file_fails_the_deployment() {
    for is_link in [true, false] {
        let story = Story::new(false, &Setup { site: "shared = [\"storage/app\"]", ..Setup::default() });
        let (house, outside) = (&story.house, story.house.path().join("outside"));
        std::fs::create_dir_all(outside.join("app")).expect("a directory");
        std::fs::write(outside.join("app/precious"), "precious").expect("a file");
        let blocked = house.origin.work().join("storage");
        match is_link {
            true => std::os::unix::fs::symlink(&outside, blocked).expect("a link"),
            false => std::fs::write(blocked, "a file").expect("a file"),
        }
        house.origin.push("main");
        story.fail("`storage` on the way is a link or a file");
        story.check_failure_hook_of_failed_release("blocked");
        assert_eq!(names(&outside.join("app")), ["precious"]);
    }
}

#[test]
fn an_env_file_that_is_gone_fails_the_deployment_and_is_named() {
    let story = Story::new(true, &Setup { site: "env_file = \"{house}/env\"", ..Setup::default() });
    let (house, env_file) = (&story.house, story.house.path().join("env"));
    house.write_secret("env", "A=1\n");
    let commit = house.origin.push("main");
    let server = house.serve();
    std::fs::remove_file(&env_file).expect("a file");
    let ended = house.wait_for_end(server.push("a", &commit).expect(202, "queued").deployment());
    let reason = ended["reason"].as_str().expect("a reason");
    assert_eq!(ended["state"], "failed");
    assert!(reason.contains(&format!("cannot read `{}`", env_file.display())), "{reason}");
    story.check_nothing_changed("no env file");
    story.check_failure_hook_of_failed_release("no env file");
    drop(server);
    assert!(house.deploy().expect(2).stderr.contains("sites.blog.env_file"));
}

#[test]
fn a_root_that_cannot_be_written_fails_the_deployment() {
    // Root may write everywhere.
    if is_root() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let story = Story::new(true, &Setup::default());
    story.house.origin.push("main");
    std::fs::create_dir(&story.house.root).expect("a directory");
    std::fs::set_permissions(&story.house.root, PermissionsExt::from_mode(0o555)).expect("a mode");
    story.fail(&format!("cannot make `{}/release`", story.house.root.display()));
    std::fs::set_permissions(&story.house.root, PermissionsExt::from_mode(0o755)).expect("a mode");
    story.house.deploy().expect(0);
}
