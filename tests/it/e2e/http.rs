//! A forge over http, nginx in front, and a webhook that curl sends and openssl signs: nothing of ours but the server.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::peers::{Forge, Front};
use crate::support::{Answer, House, Setup, is_root, source};

/// Signs and sends a body as GitHub does, or sends it with a token as GitLab does.
const SEND: &str = r#"
set -euo pipefail
if [ "$FORGE" = github ]; then
  signature=$(openssl dgst -sha256 -hmac "$SECRET" "$BODY")
  set -- "$@" -H 'X-GitHub-Event: push' -H "X-GitHub-Delivery: $ID" -H "X-Hub-Signature-256: sha256=${signature##* }"
else
  set -- "$@" -H 'X-Gitlab-Event: Push Hook' -H "Idempotency-Key: $ID" -H "X-Gitlab-Token: $SECRET"
fi
exec curl "$@" -H 'Content-Type: application/json' --data-binary "@$BODY" --write-out '\n%{http_code}' \
  https://deploy.example.com/hooks/blog
"#;

/// Sends a push through nginx, as its forge would.
#[track_caller]
fn send(house: &House, front: &Front, forge: &str, id: &str, body: &str) -> Answer {
    send_with(&house.read("secret"), house, front, forge, id, body)
}

#[track_caller]
fn send_with(secret: &str, house: &House, front: &Front, forge: &str, id: &str, body: &str) -> Answer {
    let file = house.path().join("body.json");
    std::fs::write(&file, body).expect("a body");
    let output = Command::new("bash")
        .args(["-c", SEND, "send"])
        .args(front.curl())
        .envs([("FORGE", forge), ("SECRET", secret), ("ID", id)])
        .env("BODY", &file)
        .output()
        .expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let (body, status) = text.rsplit_once('\n').expect("a status");
    Answer { status: status.parse().expect("a number"), head: String::new(), body: body.to_owned() }
}

/// A push as this forge has recorded it, with commits of ours.
fn payload(forge: &str, before: &str, after: &str) -> String {
    let file = source().join(format!("fixtures/webhooks/{forge}/push.json"));
    let text = std::fs::read_to_string(file).expect("a recorded push");
    let text = text.replace("6113728f27ae82c7b1a177c8d03f9e96e0adf246", before);
    text.replace("0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c", after).replace("acme/web/blog", "acme/blog")
}

/// Whose the releases of these stories are: as root somebody else's, as README.md has it.
fn people() -> &'static str {
    if is_root() { "owner = \"www-data\"\ngroup = \"daemon\"\nrun_as = \"daemon\"" } else { "" }
}

fn at(url: &str, forge: &str) -> String {
    format!("url = \"{url}\"\nforge = \"{forge}\"")
}

/// The names, modes and blobs below a directory are those of the commit, and the modes and owners those of a release.
#[track_caller]
fn check_tree(house: &House, commit: &str, release: &Path) {
    let listed = house.origin.git(&["ls-tree", "-r", "-z", "--full-tree", commit]);
    let mut expected = BTreeSet::new();
    for entry in listed.split('\0').filter(|entry| !entry.is_empty()) {
        let (head, path) = entry.split_once('\t').expect("an entry");
        let (mode, blob) = (&head[..6], &head[12..]);
        let file = release.join(path);
        let metadata = file.symlink_metadata().unwrap_or_else(|error| panic!("{path}: {error}"));
        if mode == "120000" {
            let target = std::fs::read_link(&file).expect("a link");
            std::fs::write(house.path().join("target"), target.as_os_str().as_bytes()).expect("a file");
            assert_eq!(
                house.origin.git(&["hash-object", "--no-filters", &house.path().join("target").to_string_lossy()]),
                blob
            );
        } else {
            assert_eq!(house.origin.git(&["hash-object", "--no-filters", &file.to_string_lossy()]), blob, "{path}");
            let right = if mode == "100755" { 0o775 } else { 0o664 };
            assert_eq!(metadata.permissions().mode() & 0o7777, right, "{path}");
        }
        expected.insert(file);
    }
    let (files, directories) = walk(release);
    assert_eq!(files, expected);
    for directory in &directories {
        assert_eq!(directory.metadata().expect("a directory").permissions().mode() & 0o7777, 0o2775, "{directory:?}");
    }
    let me = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let number = |kind: &str, name: &str| -> u32 {
        let entry = super::peers::run("getent", &[kind, name]);
        entry.split(':').nth(2).and_then(|number| number.parse().ok()).expect("a number")
    };
    let right = if is_root() { (number("passwd", "www-data"), number("group", "daemon")) } else { me };
    for path in files.iter().chain(&directories) {
        let found = path.symlink_metadata().expect("an entry");
        assert_eq!((found.uid(), found.gid()), right, "{path:?}");
    }
}

/// All that is no directory, and all that is, the directory itself too.
fn walk(directory: &Path) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
    let (mut files, mut directories) = (BTreeSet::new(), BTreeSet::from([directory.to_owned()]));
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.symlink_metadata().expect("an entry").is_dir() {
            let (more_files, more_directories) = walk(&path);
            files.extend(more_files);
            directories.extend(more_directories);
        } else {
            files.insert(path);
        }
    }
    (files, directories)
}

/// The name says when, by a clock of UTC, and which commit.
#[track_caller]
fn check_name(name: &str, commit: &str, began: chrono::DateTime<chrono::Utc>) {
    let (time, short) = name.rsplit_once('.').expect("a commit");
    assert_eq!(short, &commit[..7]);
    let shape: String = time.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000000");
    let time = chrono::NaiveDateTime::parse_from_str(time, "%Y-%m-%dT%H:%M:%S%.6f").expect("a time").and_utc();
    let now = chrono::Utc::now();
    // The name has no more than six digits.
    assert!(began - chrono::TimeDelta::milliseconds(1) <= time && time <= now, "{began} {time} {now}");
}

/// A site with everything that a tree can hold.
fn write_site(house: &House) {
    house.origin.write("public/index.html", "one");
    house.origin.write("public/größe und mehr.txt", "\u{fc}");
    house.origin.write("src/deep/er/crlf.txt", "a\r\nb\r\n");
    house.origin.write(".gitattributes", "*.txt text eol=lf\nsecret.html export-ignore\n");
    house.origin.write("secret.html", "kept");
    house.origin.write("bin/run", "#!/bin/sh\n");
    house.origin.make_executable("bin/run");
    std::fs::write(house.origin.work().join("empty"), "").expect("a file");
    std::fs::write(house.origin.work().join("bytes"), [0, 255, 10, 13, 10]).expect("a file");
    std::os::unix::fs::symlink("public/index.html", house.origin.work().join("link")).expect("a link");
    std::os::unix::fs::symlink("/nowhere/at all", house.origin.work().join("dangling")).expect("a link");
}

fn tells_of_a_push(forge: &str) {
    let house = House::new();
    let origin = Forge::start(&house.origin.bare);
    house.configure(&Setup {
        repository: &at(&origin.url("/acme/blog.git"), forge),
        site: people(),
        ..Setup::default()
    });
    write_site(&house);
    let daemon = house.serve();
    let front = Front::start(&house, Some(&daemon), Path::new("/nowhere/php.sock"));
    let (began, zeros) = (chrono::Utc::now(), "0".repeat(40));

    let first = house.origin.push("main");
    let answer = send(&house, &front, forge, "delivery-1", &payload(forge, &zeros, &first)).expect(202, "queued");
    assert_eq!(house.wait_for_end(answer.deployment())["state"], "succeeded");
    let release = house.current().expect("a link");
    assert_eq!(Path::new(&release).parent(), Some(house.root.join("release").as_path()));
    check_name(release.rsplit('/').next().expect("a name"), &first, began);
    check_tree(&house, &first, Path::new(&release));
    assert_eq!(front.get("/"), (200, "one".into()));

    let second = house.origin.commit(&[("public/index.html", "two"), ("public/new.html", "new"), ("secret.html", "")]);
    let answer = send(&house, &front, forge, "delivery-2", &payload(forge, &first, &second)).expect(202, "queued");
    house.wait_for_end(answer.deployment());
    check_tree(&house, &second, Path::new(&house.current().expect("a link")));
    assert_eq!((front.get("/"), front.get("/new.html").0), ((200, "two".into()), 200));

    house.origin.git(&["reset", "--quiet", "--hard", &first]);
    let forced = house.origin.commit(&[("public/index.html", "three, by force")]);
    let answer = send(&house, &front, forge, "delivery-3", &payload(forge, &second, &forced)).expect(202, "queued");
    house.wait_for_end(answer.deployment());
    check_tree(&house, &forced, Path::new(&house.current().expect("a link")));
    assert_eq!(front.get("/"), (200, "three, by force".into()));
    send(&house, &front, forge, "delivery-3", &payload(forge, &second, &forced)).expect(200, "current");
    let forged = payload(forge, &forced, &first);
    assert_eq!(send_with("not the secret of this house", &house, &front, forge, "delivery-4", &forged).status, 401);
    assert_eq!((house.states(), house.releases().len()), (vec!["succeeded".to_owned(); 3], 3));
}

#[test]
#[ignore = "needs nginx, fcgiwrap, curl and openssl: tests/run.sh brings them"]
fn a_push_that_curl_sends_and_openssl_signs_is_the_release_that_nginx_serves() {
    tells_of_a_push("github");
}

#[test]
#[ignore = "needs nginx, fcgiwrap, curl and openssl: tests/run.sh brings them"]
fn a_push_with_gitlabs_token_is_the_release_that_nginx_serves() {
    tells_of_a_push("gitlab");
}

#[test]
#[ignore = "needs nginx, fcgiwrap, curl and openssl: tests/run.sh brings them"]
fn a_push_of_megabytes_gets_through_nginx_with_its_signature_whole() {
    let house = House::new();
    let commit = house.origin.commit(&[("public/index.html", "one")]);
    let daemon = house.serve();
    let front = Front::start(&house, Some(&daemon), Path::new("/nowhere/php.sock"));
    let body = payload("github", &"0".repeat(40), &commit);
    let body = format!("{{\"padding\": \"{}\", {}", "x".repeat(5 << 20), &body.trim_start()[1..]);
    let answer = send(&house, &front, "github", "large", &body).expect(202, "queued");
    assert_eq!(house.wait_for_end(answer.deployment())["state"], "succeeded");
}

#[test]
#[ignore = "needs nginx and openssl: tests/run.sh brings them"]
fn a_test_delivery_goes_over_https_only_to_a_server_with_a_good_certificate() {
    let house = House::new();
    let daemon = house.serve();
    let front = Front::start(&house, Some(&daemon), Path::new("/nowhere/php.sock"));
    let mut command = house.command(&["send-test", "blog", "--url", &front.url()]);
    let refused = command.output().expect("the binary");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(5), "{text}");
    assert!(text.contains("certificate"), "{text}");
    let sent = command.env("SSL_CERT_FILE", front.certificate()).output().expect("the binary");
    let text = String::from_utf8_lossy(&sent.stdout).into_owned();
    assert_eq!((sent.status.code(), text.contains("pong")), (Some(0), true), "{text}");
}
