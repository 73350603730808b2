//! Hooks, as a repository brings them: which file runs, as whom, with what, and what is left of it afterwards.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use nix::unistd::{AccessFlags, Uid, User, access};

use crate::support::{House, Setup, is_root, names, processes_with, wait_for};

/// Adds the hook's name to the notes.
const NOTE: &str = "echo \"$TARGET_HOOK\" >> \"$STORAGE_DIRECTORY/notes\"\n";

/// Adds the hook's name to the notes, with what is live while it runs.
const NOTE_LIVE: &str =
    "echo \"$TARGET_HOOK $(basename \"$(readlink \"$CURRENT_PATH\")\")\" >> \"$STORAGE_DIRECTORY/notes\"\n";

/// Waits until the story goes on.
const WAIT: &str = "until [ -e \"$STORAGE_DIRECTORY/go\" ]; do sleep 0.01; done\n";

/// What tests of another user's hooks have in their configuration.
const AS_DAEMON: &str = "run_as = \"daemon\"\ngroup = \"daemon\"";

/// What only a deployment's own hooks are called.
const OF_A_DEPLOYMENT: [&str; 6] =
    ["before.pull", "after.pull", "before.deploy", "after.deploy", "deploy.success", "deploy.failure"];

fn site(site: &str) -> House {
    House::with(&Setup { site, ..Setup::default() })
}

/// A house whose repository has this one hook.
fn house_with(hook: &str, script: &str) -> House {
    let house = House::new();
    house.origin.commit(&[(&format!(".landfall/{hook}"), script)]);
    house
}

fn write_all_hooks(house: &House, script: &str) {
    for hook in OF_A_DEPLOYMENT.iter().chain(&["rollback/before", "rollback/after"]) {
        house.origin.write(&format!(".landfall/{hook}"), script);
    }
}

/// The file of a hook's output, if it was begun.
fn hook_log(house: &House, id: i64, hook: &str) -> Option<Vec<u8>> {
    let directory = house.state.join("logs").join(id.to_string());
    let name = names(&directory).into_iter().find(|name| name.ends_with(&format!("-{hook}.log")))?;
    Some(std::fs::read(directory.join(name)).expect("a log"))
}

fn release_path(house: &House, index: usize) -> String {
    house.root.join("release").join(&house.releases()[index]).display().to_string()
}

// ---- which file ----

#[test]
fn a_hook_is_a_file_for_bash_with_or_without_an_exec_bit_a_newline_or_a_shebang() {
    let house = House::new();
    house.origin.write(".landfall/after.pull", NOTE.trim_end());
    house.origin.write(".landfall/before.deploy", &format!("#!/bin/false\n[[ $TARGET_HOOK == before.* ]] && {NOTE}"));
    house.origin.write(".landfall/scripts/after", NOTE);
    symlink("scripts/after", house.origin.work().join(".landfall/after.deploy")).expect("a link");
    house.origin.write(".landfall/deploy.success", NOTE);
    house.origin.make_executable(".landfall/deploy.success");
    std::fs::write(house.origin.work().join(".landfall/deploy.failure"), "").expect("a file");
    house.origin.push("main");
    house.deploy().expect(0);
    assert_eq!(house.notes(), ["after.pull", "before.deploy", "after.deploy", "deploy.success"]);
}

#[test]
fn a_hook_with_line_ends_of_windows_fails_as_it_does_in_bash_and_the_log_shows_them() {
    let house = house_with("after.pull", "true\r\nfalse-command\r\n");
    let ran = house.deploy().expect(1);
    assert!(ran.stderr.contains("hook `after.pull` exited with status 127"), "{}", ran.stderr);
    assert!(house.log(1).contains("false-command"), "{}", house.log(1));
}

#[test]
fn the_directory_is_the_setting_else_ours_else_amezmos_and_never_two_of_them() {
    let table = [
        ("", &[".amezmo"][..], ".amezmo"),
        ("", &[".amezmo", ".landfall"], ".landfall"),
        ("hooks_dir = \"ops/hooks\"", &[".amezmo", ".landfall", "ops/hooks"], "ops/hooks"),
        ("hooks_dir = \"ops/hooks\"", &[".landfall"], ""),
    ];
    for (setting, directories, expected) in table {
        let house = site(setting);
        for directory in directories {
            house.origin.write(
                &format!("{directory}/after.pull"),
                &format!("echo {directory} >> \"$STORAGE_DIRECTORY/notes\""),
            );
            // A hook that only the directory which loses has.
            if *directory != expected {
                house.origin.write(&format!("{directory}/before.deploy"), "exit 9");
            }
        }
        house.origin.push("main");
        house.deploy().expect(0);
        assert_eq!(house.notes().join(" "), expected, "{setting} {directories:?}");
    }
}

#[test]
fn a_hook_of_the_environment_wins_over_the_general_one() {
    let house = site("environment = \"staging\"");
    let note = |word: &str| format!("echo {word} >> \"$STORAGE_DIRECTORY/notes\"");
    house.origin.write(".landfall/after.pull", &note("general"));
    house.origin.write(".landfall/staging/after.pull", &note("staging"));
    house.origin.write(".landfall/production/after.pull", &note("production"));
    house.origin.write(".landfall/before.deploy", &note("general"));
    house.origin.write(".landfall/production/deploy.success", &note("production"));
    house.origin.push("main");
    house.deploy().expect(0);
    assert_eq!(house.notes(), ["staging", "general"]);
}

#[test]
fn a_file_that_looks_like_a_hook_and_is_none_is_warned_about() {
    let house = House::new();
    let files = ["after-pull", "staging/deploy.failed", "blog/After.Deploy", "README.md", "rollback/during"];
    for file in files {
        house.origin.write(&format!(".landfall/{file}"), "exit 9");
    }
    house.origin.push("main");
    house.deploy().expect(0);
    let log = house.log(1);
    let warned: Vec<_> = log.lines().filter(|line| line.contains("looks like a hook")).collect();
    let expected = [".landfall/after-pull", ".landfall/blog/After.Deploy", ".landfall/rollback/during"];
    assert_eq!(warned.len(), expected.len(), "{log}");
    for (line, file) in warned.iter().zip(expected) {
        assert!(line.contains(&format!("`{file}`")), "{line}");
    }
}

#[test]
fn a_hook_that_is_a_link_out_of_the_release_is_not_run() {
    let house = House::new();
    let outside = house.path().join("outside");
    std::fs::write(&outside, NOTE).expect("a file");
    std::fs::create_dir(house.origin.work().join(".landfall")).expect("a directory");
    symlink(&outside, house.origin.work().join(".landfall/after.pull")).expect("a link");
    house.origin.push("main");
    let ran = house.deploy().expect(1);
    assert!(ran.stderr.contains("is a link that leaves the release"), "{}", ran.stderr);
    assert_eq!((house.notes(), house.releases().len()), (Vec::new(), 0));
}

#[test]
fn a_hooks_directory_that_is_a_link_out_of_the_release_fails_the_deployment() {
    for target in ["/", "nowhere"] {
        let house = House::new();
        symlink(target, house.origin.work().join(".landfall")).expect("a link");
        house.origin.push("main");
        let ran = house.deploy().expect(1);
        assert!(ran.stderr.contains("is a link that leaves the release"), "{}", ran.stderr);
    }
}

// ---- as whom, with what ----

#[test]
fn a_hook_gets_exactly_the_environment_of_the_contract() {
    let house = site(
        "environment = \"production\"\nenv = { APP_ENV = \"live\", LANG = \"de_DE.UTF-8\" }\n\
         secrets = { STRIPE_KEY = { file = \"{house}/stripe\" } }",
    );
    house.write_secret("stripe", "sk_live_0123456789\n");
    let first = house.origin.commit(&[("index.html", "one")]);
    house.deploy().expect(0);
    let second = house.origin.commit(&[(".landfall/after.pull", "/usr/bin/env -0 > \"$STORAGE_DIRECTORY/env\"")]);
    // Nothing of what Landfall itself was started with gets through.
    let deployed = house.command(&["deploy", "blog"]).envs([("LEAK", "x"), ("BASH_ENV", "/x"), ("TERM", "x")]).output();
    assert!(deployed.expect("the binary").status.success());

    let (root, state) = (house.root.display().to_string(), house.state.display().to_string());
    let (previous, release) = (release_path(&house, 0), release_path(&house, 1));
    let release_id = &house.releases()[1];
    let user = User::from_uid(Uid::effective()).expect("a look-up").expect("a user");
    let home = match access(&user.dir, AccessFlags::W_OK) {
        Ok(()) => user.dir.display().to_string(),
        Err(_) => format!("{state}/home/blog"),
    };
    let expected = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:node_modules/.bin:vendor/bin".to_owned(),
        format!("HOME={home}"),
        format!("USER={}", user.name),
        format!("LOGNAME={}", user.name),
        format!("SHELL={}", user.shell.display()),
        "LANG=de_DE.UTF-8".to_owned(),
        "COMPOSER_MEMORY_LIMIT=-1".to_owned(),
        format!("APPLICATION_ROOT={release}"),
        format!("DEPLOYMENT_DIRECTORY={release}"),
        format!("RELEASE_ID={release_id}"),
        format!("RELEASE_NUMBER={release_id}"),
        format!("COMMIT_ID={second}"),
        "DEPLOY_BRANCH=main".to_owned(),
        "REPO_NAME=acme/blog".to_owned(),
        "TARGET_HOOK=after.pull".to_owned(),
        "ENVIRONMENT_NAME=production".to_owned(),
        format!("STORAGE_DIRECTORY={root}/storage"),
        format!("PERSISTENT_STORAGE_DIRECTORY={root}/storage"),
        format!("CURRENT_PATH={root}/current"),
        format!("PREVIOUS_RELEASE={previous}"),
        format!("PREVIOUS_COMMIT={first}"),
        "DEPLOYMENT_ID=2".to_owned(),
        "APP_ENV=live".to_owned(),
        "STRIPE_KEY=sk_live_0123456789".to_owned(),
        // What bash adds.
        format!("PWD={release}"),
        "_=/usr/bin/env".to_owned(),
    ];
    let given = house.stored("env");
    // How deep a shell is says nothing, and differs between versions of bash.
    let given: BTreeSet<&str> = given.split_terminator('\0').filter(|entry| !entry.starts_with("SHLVL=")).collect();
    assert_eq!(given, expected.iter().map(String::as_str).collect());
}

#[test]
fn on_a_first_deployment_nothing_was_before() {
    let house = house_with("after.pull", "echo \"<$PREVIOUS_RELEASE$PREVIOUS_COMMIT>\" >> $STORAGE_DIRECTORY/notes");
    house.deploy().expect(0);
    assert_eq!(house.notes(), ["<>"]);
}

#[test]
fn a_hook_has_the_release_as_its_directory_no_input_and_files_for_the_group() {
    let house = house_with("after.pull", "pwd; umask; readlink /proc/self/fd/0; cat; ls /proc/self/fd | wc -l");
    house.deploy().expect(0);
    let output = hook_log(&house, 1, "after.pull").expect("a log");
    // Four descriptors: the three that everybody has, and the directory that ls reads.
    let expected = format!("{}\n0002\n/dev/null\n4\n", release_path(&house, 0));
    assert_eq!(String::from_utf8_lossy(&output), expected);
}

/// A field of `/proc/self/status` that a hook copied.
fn status<'a>(status: &'a str, field: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in {status}")).trim()
}

#[test]
fn a_hook_has_no_capabilities_and_can_get_none() {
    let house = house_with("after.pull", "cat /proc/self/status > $STORAGE_DIRECTORY/status");
    house.deploy().expect(0);
    let text = house.stored("status");
    for field in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(&text, field), "0".repeat(16), "{field}");
    }
    if is_root() {
        // A plain user may not change its bounding set, and needs not to: no_new_privs says the same.
        assert_eq!(status(&text, "CapBnd"), "0".repeat(16));
    }
    assert_eq!(status(&text, "NoNewPrivs"), "1");
    for field in ["SigBlk", "SigIgn"] {
        assert_eq!(status(&text, field), "0".repeat(16), "{field}");
    }
}

#[test]
fn hooks_of_another_user_have_its_groups_its_home_and_nothing_of_root() {
    // Only root can start somebody else's process.
    if !is_root() {
        return;
    }
    let house = site(AS_DAEMON);
    house.origin.commit(&[(
        ".landfall/after.pull",
        "cat /proc/self/status > $STORAGE_DIRECTORY/status; touch \"$HOME/is-writable\"\n\
         echo $HOME $USER $LOGNAME $SHELL $PWD $(umask) >> $STORAGE_DIRECTORY/notes",
    )]);
    house.deploy().expect(0);
    let daemon = User::from_name("daemon").expect("a look-up").expect("daemon");
    let text = house.stored("status");
    let (uid, gid) = (daemon.uid.to_string(), daemon.gid.to_string());
    assert_eq!(status(&text, "Uid").split_whitespace().collect::<Vec<_>>(), [uid.as_str(); 4]);
    assert_eq!(status(&text, "Gid").split_whitespace().collect::<Vec<_>>(), [gid.as_str(); 4]);
    let groups = Command::new("id").args(["-G", "daemon"]).output().expect("id").stdout;
    let sorted = |text: &str| text.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(sorted(status(&text, "Groups")), sorted(&String::from_utf8_lossy(&groups)));
    for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(&text, field), "0".repeat(16), "{field}");
    }
    assert_eq!(status(&text, "NoNewPrivs"), "1");
    // The home of daemon in the list of users belongs to root.
    let (home, shell) = (house.state.join("home/blog"), daemon.shell);
    let (home, shell, release) = (home.display(), shell.display(), release_path(&house, 0));
    assert_eq!(house.notes(), [format!("{home} daemon daemon {shell} {release} 0002")]);
}

#[test]
fn hooks_of_another_user_can_write_everywhere_in_the_release_and_not_beside_it() {
    // Only root can start somebody else's process.
    if !is_root() {
        return;
    }
    let house = site(&format!("{AS_DAEMON}\nshared = [\"uploads\"]\nenv_file = \"{{house}}/env\""));
    house.write_secret("env", "A=1\n");
    house.origin.write("deep/er/file", "x");
    house.origin.write("tool", "x");
    house.origin.make_executable("tool");
    house.origin.write(
        ".landfall/after.pull",
        "set -e\n\
         find . -depth -type d -exec sh -c 'mkfifo \"$1/fifo\" && rm \"$1/fifo\" && mkdir \"$1/made\"' sh {} \\;\n\
         find . -type f ! -path './.landfall/*' -exec sh -c 'echo more >> \"$1\"' sh {} \\;\n\
         echo x > uploads/file; mv deep moved; rm -r moved/er; chmod 700 tool; ln -s tool link\n\
         for outside in ../x ../../x \"$CURRENT_PATH\" ../../../state/x; do ! ( : > $outside ) 2>/dev/null; done\n\
         ! mv \"$PWD\" ../away 2>/dev/null\n\
         ! ls ../../../state 2>/dev/null\n",
    );
    house.origin.push("main");
    house.deploy().expect(0);
    assert_eq!(house.live(".env"), "A=1\nmore\n");
    assert_eq!(house.stored("uploads/file"), "x\n");
}

// ---- when ----

#[test]
fn the_hooks_of_a_deployment_run_in_this_order() {
    let house = House::new();
    write_all_hooks(&house, NOTE_LIVE);
    house.origin.push("main");
    house.deploy().expect(0);
    house.origin.push("main");
    house.deploy().expect(0);
    let (one, two) = (&house.releases()[0], &house.releases()[1]);
    let expected = [
        // On a first deployment nothing is live, and there is no current release with a before.pull.
        "after.pull ".to_owned(),
        "before.deploy ".to_owned(),
        format!("after.deploy {one}"),
        format!("deploy.success {one}"),
        format!("before.pull {one}"),
        format!("after.pull {one}"),
        format!("before.deploy {one}"),
        format!("after.deploy {two}"),
        format!("deploy.success {two}"),
    ];
    assert_eq!(house.notes(), expected);
}

#[test]
fn with_activate_last_every_hook_runs_before_the_flip() {
    let house = site("activate = \"last\"");
    write_all_hooks(&house, NOTE_LIVE);
    house.origin.push("main");
    house.deploy().expect(0);
    assert_eq!(house.notes(), ["after.pull ", "before.deploy ", "after.deploy ", "deploy.success "]);
    let first = house.current().expect("a link");
    house.origin.commit(&[(".landfall/after.deploy", "exit 3"), (".landfall/deploy.success", NOTE)]);
    let ran = house.deploy().expect(1);
    assert!(ran.stderr.contains("hook `after.deploy` exited with status 3"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("flipped"), "the release was live for a moment: {}", ran.stderr);
    assert_eq!(house.current(), Some(first));
    assert!(house.notes().last().expect("a note").starts_with("deploy.failure "));
}

#[test]
fn before_pull_is_that_of_the_current_release_and_sees_it_as_the_previous_one() {
    let house = House::new();
    let note = |word: &str| {
        format!(
            "echo {word} $PWD $RELEASE_ID $COMMIT_ID $PREVIOUS_RELEASE $PREVIOUS_COMMIT >> $STORAGE_DIRECTORY/notes"
        )
    };
    let first = house.origin.commit(&[(".landfall/before.pull", &note("old"))]);
    house.deploy().expect(0);
    assert_eq!(house.notes(), Vec::<String>::new(), "the first deployment has no current release");
    house.origin.commit(&[(".landfall/before.pull", &note("new"))]);
    house.deploy().expect(0);
    let (path, id) = (release_path(&house, 0), &house.releases()[0]);
    assert_eq!(house.notes(), [format!("old {path} {id} {first} {path} {first}")]);
}

#[test]
fn a_rollback_runs_its_two_hooks_from_the_release_it_leaves() {
    let house = House::new();
    house.origin.commit(&[(".landfall/rollback/before", "exit 9"), (".landfall/rollback/after", "exit 9")]);
    house.deploy().expect(0);
    write_all_hooks(&house, &NOTE_LIVE.replace("$TARGET_HOOK", "$TARGET_HOOK $RELEASE_ID $COMMIT_ID"));
    let commit = house.origin.push("main");
    house.deploy().expect(0);
    std::fs::remove_file(house.storage().join("notes")).expect("notes");
    house.landfall(&["rollback", "blog"]).expect(0);
    let (one, two) = (&house.releases()[0], &house.releases()[1]);
    let expected = [format!("rollback/before {two} {commit} {two}"), format!("rollback/after {two} {commit} {one}")];
    assert_eq!(house.notes(), expected);
    assert_eq!(house.landfall(&["status", "blog", "--json"]).json()["hold"]["reason"], format!("rolled back to {one}"));
}

#[test]
fn a_rollback_whose_hook_fails_brings_the_link_back_discards_nothing_and_sets_no_hold() {
    for hook in ["rollback/before", "rollback/after"] {
        let house = House::new();
        house.origin.push("main");
        house.deploy().expect(0);
        house.origin.commit(&[(&format!(".landfall/{hook}"), "exit 3"), (".landfall/deploy.failure", NOTE)]);
        house.deploy().expect(0);
        let (current, releases) = (house.current(), house.releases());
        let ran = house.landfall(&["rollback", "blog"]).expect(1);
        assert!(ran.stderr.contains(&format!("hook `{hook}` exited with status 3")), "{}", ran.stderr);
        assert_eq!((house.current(), house.releases()), (current.clone(), releases), "{hook}");
        assert_eq!(house.notes(), Vec::<String>::new(), "a rollback has no deploy.failure");
        assert!(house.landfall(&["status", "blog", "--json"]).json()["hold"].is_null(), "{hook}");
        house.landfall(&["rollback", "blog", "--force"]).expect(0);
        assert_ne!(house.current(), current, "force skips {hook}");
    }
}

#[test]
fn which_hooks_may_fail_is_the_setting() {
    let table = [
        ("", "before.pull", 0),
        ("allow_failure = []", "before.pull", 1),
        ("allow_failure = [\"after.deploy\"]", "before.pull", 1),
        ("allow_failure = [\"after.deploy\"]", "after.deploy", 0),
        ("allow_failure = [\"after.pull\", \"deploy.success\"]", "deploy.success", 0),
        ("allow_failure = [\"after.pull\", \"deploy.success\"]", "before.deploy", 1),
    ];
    for (setting, hook, code) in table {
        let house = site(setting);
        house.origin.commit(&[(".landfall/before.pull", if hook == "before.pull" { "exit 3" } else { "true" })]);
        house.deploy().expect(0);
        house.origin.write(&format!(".landfall/{hook}"), "exit 3");
        house.origin.push("main");
        let ran = house.deploy();
        assert_eq!(ran.code, Some(code), "{setting} {hook}: {}", ran.stderr);
        let allowed = house.log(2).contains(&format!("hook {hook} exited with status 3, which is allowed"));
        assert_eq!(allowed, code == 0, "{setting} {hook}: {}", house.log(2));
    }
}

// ---- what is left of it ----

#[test]
fn nothing_that_a_hook_started_outlives_it() {
    let house = House::new();
    house.origin.write(
        ".landfall/after.pull",
        "cd \"$STORAGE_DIRECTORY\"; touch pids\n\
         stay='echo $BASHPID >> pids; exec sleep 1000'\n\
         bash -c \"$stay\" &\n\
         setsid bash -c \"$stay\" &\n\
         (setsid bash -c \"($stay) &\" &)\n\
         (setsid bash -c \"(trap '' HUP INT; $stay) </dev/null >/dev/null 2>&1 &\" &)\n\
         until [ \"$(wc -l < pids)\" = 4 ]; do sleep 0.01; done\n",
    );
    let look = "for pid in $(cat \"$STORAGE_DIRECTORY/pids\"); do\n\
                grep -sqz ^CURRENT_PATH= /proc/$pid/environ && echo \"$pid lives\"\n\
                done >> \"$STORAGE_DIRECTORY/notes\"; true\n";
    house.origin.write(".landfall/before.deploy", look);
    house.origin.push("main");
    house.deploy().expect(0);
    assert_eq!(house.stored("pids").lines().count(), 4);
    assert_eq!(house.notes(), Vec::<String>::new());
}

#[test]
fn at_its_time_limit_a_hook_is_asked_to_end_first() {
    let house = site("hook_timeout = \"1s\"");
    let script = "trap 'echo cleaned up >> \"$STORAGE_DIRECTORY/notes\"; exit 0' TERM\nsleep 1000 & wait\n";
    house.origin.commit(&[(".landfall/after.pull", script)]);
    let ran = house.deploy().expect(1);
    assert!(ran.stderr.contains("hook `after.pull` ran into its time limit of 1 s"), "{}", ran.stderr);
    assert_eq!(house.notes(), ["cleaned up"]);
}

#[test]
fn a_hook_and_its_children_that_ignore_the_request_to_end_are_killed() {
    let house = site("hook_timeout = \"1s\"");
    let stay = "trap '' TERM HUP INT; echo $BASHPID >> $STORAGE_DIRECTORY/pids; while :; do sleep 1; done";
    let script = format!("setsid bash -c \"{}\" &\n{stay}\n", stay.replace('$', "\\$"));
    house.origin.commit(&[(".landfall/after.pull", &script)]);
    // Takes the whole grace time of 10 s.
    let ran = house.deploy().expect(1);
    assert!(ran.stderr.contains("hook `after.pull` ran into its time limit of 1 s"), "{}", ran.stderr);
    assert_eq!(house.stored("pids").lines().count(), 2);
    let cookie = format!("CURRENT_PATH={}", house.root.join("current").display());
    assert_eq!(processes_with(&cookie), Vec::<i32>::new());
}

#[test]
fn output_can_be_read_while_the_hook_runs() {
    let house = house_with("after.pull", &format!("echo first\n{WAIT}echo second >&2\n"));
    let deploying = house.start_deploying();
    let begun = wait_for("the first line", || hook_log(&house, 1, "after.pull").filter(|log| !log.is_empty()));
    assert_eq!(begun, b"first\n");
    assert!(house.log(1).contains("first\n"));
    deploying.go_on(&house);
    assert_eq!(hook_log(&house, 1, "after.pull").expect("a log"), b"first\nsecond\n");
}

#[test]
fn output_is_kept_as_it_is_up_to_a_limit() {
    let house = House::new();
    house.origin.write(".landfall/after.pull", "printf '\\xff\\x00\\xfe'; head -c 31457280 /dev/zero");
    house.origin.write(".landfall/before.deploy", "printf 'no UTF-8: \\xff\\n'");
    house.origin.push("main");
    house.deploy().expect(0);
    let flood = hook_log(&house, 1, "after.pull").expect("a log");
    assert!(flood.starts_with(b"\xff\x00\xfe\x00"));
    assert!(flood.ends_with("\n[… output beyond 10 MiB is not kept]\n".as_bytes()));
    assert!((10 << 20..(10 << 20) + 100).contains(&flood.len()), "{}", flood.len());
    assert_eq!(hook_log(&house, 1, "before.deploy").expect("a log"), b"no UTF-8: \xff\n");
    let json = house.landfall(&["log", "1", "--json"]).expect(0).json();
    let texts: Vec<_> = json["logs"].as_array().expect("logs").iter().map(|log| log["text"].as_str()).collect();
    assert!(texts.contains(&Some("no UTF-8: \u{fffd}\n")));
}

#[test]
fn a_secret_is_masked_wherever_the_output_is_cut_and_is_kept_nowhere() {
    let house = site("secrets = { KEY = { file = \"{house}/key\" }, PIN = { file = \"{house}/pin\" } }");
    let secret = "sk_live_0123456789abcdef";
    house.write_secret("key", &format!("{secret}\n"));
    house.write_secret("pin", "7531\n");
    let script = format!(
        "echo \"all: $KEY\"\nprintf 'begin:%s' \"${{KEY:0:9}}\"\n{WAIT}echo \"${{KEY:9}}:end\" >&2\n\
         echo \"$KEY$KEY $PIN\" | tee copy\nexit 0\n"
    );
    house.origin.commit(&[(".landfall/after.pull", &script), (".landfall/deploy.success", "echo $KEY")]);
    let deploying = house.start_deploying();
    // Only now comes the rest of the secret, in another read.
    let log = wait_for("the first half", || hook_log(&house, 1, "after.pull").filter(|log| log.ends_with(b"begin:")));
    assert_eq!(log, b"all: ***\nbegin:");
    deploying.go_on(&house);
    let log = hook_log(&house, 1, "after.pull").expect("a log");
    assert_eq!(String::from_utf8_lossy(&log), "all: ***\nbegin:***:end\n****** ***\n");
    assert_eq!(house.live("copy"), format!("{secret}{secret} 7531\n"), "the hook itself has it");
    let found = Command::new("grep").args(["-rlaF", secret]).arg(&house.state).output().expect("grep");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "files of the state with the secret");
    assert!(Path::new(&house.state).join("landfall.db").is_file());
}
