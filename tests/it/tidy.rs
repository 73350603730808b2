//! The laws of the house, as a table. Each has a text that breaks it, and finds it; each exception has a reason, and is
//! still needed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::support::source;

/// A file of `src/`: its path below it, and what of it is neither a comment nor a test.
struct Source<'a> {
    path: &'a str,
    text: String,
}

struct Law {
    /// What it says, after "the law is that".
    says: &'static str,
    /// What breaks it in a file.
    find: fn(&Source<'_>) -> Vec<String>,
    /// Files that break it, with what they may have and why.
    except: &'static [(&'static str, &'static str, &'static str)],
    /// Files that would break it.
    broken_by: &'static [(&'static str, &'static str)],
}

const LAWS: &[Law] = &[
    Law {
        says: "imports go down only, and the hands do not know each other",
        find: imports_up,
        except: &[],
        broken_by: &[
            ("domain/name.rs", "use crate::sys::fs;"),
            ("sys/fs.rs", "use crate::domain::name::SiteName;"),
            ("site/mod.rs", "use crate::store::Store;"),
            ("git/mirror.rs", "fn f() { crate::hook::run() }"),
            ("webhook/mod.rs", "use crate::engine::Target;"),
            ("engine/deploy.rs", "use crate::app::App;"),
            ("engine/deploy.rs", "use crate::config::Config;"),
            ("config/mod.rs", "use crate::app::App;"),
            ("app/mod.rs", "use crate::http::Server;"),
            ("app/mod.rs", "use crate::view::text;"),
            ("http/mod.rs", "use crate::cli::Shell;"),
            // Neither of these could be followed.
            ("domain/name.rs", "use crate::{sys, site};"),
            ("domain/name.rs", "use super::super::sys;"),
            ("utils/mod.rs", "use crate::domain::name::SiteName;"),
        ],
    },
    Law {
        says: "git2 is only in git/",
        find: |source| outside(source, &["git/"], &["git2"]),
        except: &[],
        broken_by: &[("engine/deploy.rs", "let repository = git2::Repository::open(path);")],
    },
    Law {
        says: "SQL is only in store/",
        find: |source| outside(source, &["store/"], &["sqlx", "SELECT", "INSERT INTO", "UPDATE", "DELETE FROM"]),
        except: &[("webhook/bitbucket_dc.rs", "UPDATE", "Bitbucket's word for a ref that moved")],
        broken_by: &[
            ("app/report.rs", "use sqlx::SqlitePool;"),
            ("app/report.rs", "let text = \"SELECT * FROM deployment\";"),
        ],
    },
    Law {
        says: "system calls are only in sys/, site/ and git/checkout.rs",
        find: |source| outside(source, &["sys/", "site/", "git/checkout.rs"], &["nix", "libc", "unsafe"]),
        except: &[("git/mod.rs", "unsafe", "libgit2's process-wide options are unsafe to set")],
        broken_by: &[("engine/undo.rs", "nix::sys::signal::kill(pid, None)"), ("hook.rs", "unsafe { libc::fork() }")],
    },
    Law {
        says: "files are written only in sys/, site/ and git/checkout.rs",
        find: writes_files,
        except: &[
            ("cli/demo/stage.rs", "fs::write", "the demo plays the developer and the operator"),
            ("cli/demo/stage.rs", "fs::set_permissions", "the same"),
            ("cli/demo/stage.rs", "create_dir_all", "the same"),
        ],
        broken_by: &[
            ("engine/deploy.rs", "std::fs::write(path, text)?;"),
            ("app/setup.rs", "fs::remove_dir_all(path)?;"),
            ("hook.rs", "let file = File::create(path)?;"),
            ("store/mod.rs", "std::os::unix::fs::symlink(a, b)"),
        ],
    },
    Law {
        says: "async is only in http/ and store/",
        find: |source| outside(source, &["http/", "store/"], &["async", "await", "tokio", "actix_web"]),
        except: &[],
        broken_by: &[("app/receive.rs", "pub async fn receive() {}"), ("sys/stop.rs", "use tokio::sync::Notify;")],
    },
    Law {
        says: "nothing but site/current.rs touches `current`",
        find: |source| {
            outside(
                source,
                &["site/current.rs"],
                &["replace_symlink", "remove_link", "point_at", ".disk.current", "CURRENT"],
            )
        },
        except: &[
            ("sys/fs.rs", "replace_symlink", "the system call, which knows no `current`"),
            ("sys/fs.rs", "remove_link", "the same"),
            ("site/mod.rs", "CURRENT", "names the path, as it names all of them"),
            ("engine/run.rs", ".disk.current", "tells hooks the path"),
            ("engine/undo.rs", ".disk.current", "knows hooks by the path they were told"),
        ],
        broken_by: &[
            ("engine/deploy.rs", "fs::replace_symlink(root, name, target)?;"),
            ("site/release.rs", "std::fs::remove_file(disk.root().join(CURRENT))"),
            ("engine/rollback.rs", "std::fs::read_link(run.target.disk.current())"),
        ],
    },
    Law {
        says: "nothing but engine/undo.rs undoes",
        find: |source| outside(source, &["engine/undo.rs"], &["discard(", "flip_back("]),
        except: &[
            ("site/release.rs", "discard(", "the act itself"),
            ("site/current.rs", "flip_back(", "the act itself"),
        ],
        broken_by: &[
            ("engine/deploy.rs", "release::discard(run.lock, disk, id)?;"),
            ("engine/recover.rs", "current::flip_back(lock, disk, None, id)?;"),
        ],
    },
    Law {
        says: "nothing but http/error.rs chooses a status code",
        find: |source| {
            outside(source, &["http/error.rs"], &["StatusCode", "HttpResponse::Ok", "HttpResponse::NotFound"])
        },
        except: &[("http/health.rs", "HttpResponse::Ok", "that the process answers has no other answer")],
        broken_by: &[("http/webhook.rs", "HttpResponse::build(StatusCode::ACCEPTED)")],
    },
    Law {
        says: "nothing outside of webhook/ names a forge's header",
        find: |source| {
            let text = Source { path: source.path, text: source.text.to_lowercase() };
            let headers = ["x-hub-", "x-github-", "x-gitlab-", "webhook-signature", "webhook-id"];
            let more = [
                "x-gitea-",
                "x-forgejo-",
                "x-gogs-",
                "x-event-key",
                "x-request-",
                "x-payload-",
                "x-webhook-",
                "basic \"",
            ];
            [&headers[..], &more].iter().flat_map(|words| outside(&text, &["webhook/"], words)).collect()
        },
        except: &[],
        broken_by: &[
            ("http/webhook.rs", "headers.get(\"X-Hub-Signature-256\")"),
            ("app/receive.rs", "headers.get(\"x-gitlab-token\")"),
            ("cli/forge.rs", "headers.get(\"X-Gitea-Signature\")"),
            ("app/receive.rs", "headers.get(\"X-Event-Key\")"),
            ("http/webhook.rs", "if value.starts_with(\"Basic \")"),
        ],
    },
    Law {
        says: "the time is passed in",
        find: |source| outside(source, &[], &["Utc::now", "Local::now", "SystemTime::now"]),
        except: &[("app/mod.rs", "Utc::now", "the service's clock"), ("cli/mod.rs", "Utc::now", "a command's clock")],
        broken_by: &[("engine/worker.rs", "let now = Utc::now();"), ("store/mod.rs", "SystemTime::now()")],
    },
    Law {
        says: "nothing is left to do",
        find: |source| outside(source, &[], &["todo!", "unimplemented!", "dbg!"]),
        except: &[],
        broken_by: &[("engine/deploy.rs", "todo!()"), ("hook.rs", "unimplemented!(\"later\")")],
    },
    Law {
        says: "tests are at the bottom, and nothing else is compiled for them",
        find: below_the_tests,
        except: &[],
        broken_by: &[
            ("site/mod.rs", "#[cfg(test)]\nmod tests {\n}\n\nfn hidden() {}\n"),
            ("site/mod.rs", "fn f() {\n    #[cfg(test)]\n    g();\n}\n"),
            ("site/mod.rs", "#[cfg(test)]\nfn only_for_tests() {}\n"),
        ],
    },
];

/// From the ground up. Rooms of a level do not know each other, apart from `NEIGHBOURS`.
const LEVELS: &[&[&str]] = &[
    &["domain", "sys"],
    &["site", "git", "hook", "store", "webhook", "notify"],
    &["engine"],
    &["app", "config", "view"],
    &["cli", "http", "main"],
];

/// Who may know a room of the same level: the first knows the second.
const NEIGHBOURS: &[(&str, &str)] = &[("app", "config"), ("view", "app"), ("cli", "http"), ("main", "cli")];

fn level(room: &str) -> Option<usize> {
    LEVELS.iter().position(|rooms| rooms.contains(&room))
}

fn room(path: &str) -> &str {
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs")
}

fn imports_up(source: &Source<'_>) -> Vec<String> {
    let own = room(source.path);
    let ways: [(&str, &str); 3] = [("crate::", ""), ("landfall::", ""), ("super::super::", "super::super::")];
    let depth = source.path.matches('/').count();
    let mut found = Vec::new();
    for (way, shown) in ways {
        // Two levels up from a file in a room is the crate; from one in a room of a room, the room.
        if way.starts_with("super") && depth > 1 {
            continue;
        }
        for rest in source.text.split(way).skip(1) {
            let named: String = rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
            let allowed = named == own
                || NEIGHBOURS.contains(&(own, named.as_str()))
                || level(own).zip(level(&named)).is_some_and(|(own, named)| named < own);
            // The crate's root declares rooms and holds nothing.
            if !allowed && own != "lib" {
                found.push(format!("{shown}{named}"));
            }
        }
    }
    found
}

fn outside(source: &Source<'_>, rooms: &[&str], words: &[&'static str]) -> Vec<String> {
    if rooms.iter().any(|room| source.path.starts_with(room)) {
        return Vec::new();
    }
    words.iter().filter(|word| has_word(&source.text, word)).map(|word| (*word).to_owned()).collect()
}

/// Whether the text has it, and not as a part of a longer name.
fn has_word(text: &str, word: &str) -> bool {
    let is_letter = |letter: char| letter.is_alphanumeric() || letter == '_';
    let (starts, ends) = (word.starts_with(is_letter), word.ends_with(is_letter));
    text.match_indices(word).any(|(place, _)| {
        let (before, after) = (&text[..place], &text[place + word.len()..]);
        !(starts && before.ends_with(is_letter) || ends && after.starts_with(is_letter))
    })
}

fn writes_files(source: &Source<'_>) -> Vec<String> {
    let words = [
        "fs::write",
        "fs::set_permissions",
        "fs::rename",
        "fs::copy",
        "fs::hard_link",
        "fs::create_dir",
        "create_dir_all",
        "fs::remove_dir",
        "remove_dir_all",
        "DirBuilder",
        "OpenOptions",
        "File::create",
        "File::create_new",
        "File::options",
        "unix::fs::symlink",
        "unix::fs::chown",
        "unix::fs::lchown",
    ];
    let mut found = outside(source, &["sys/", "site/", "git/checkout.rs"], &words);
    // `sys::fs` has a function of this name.
    if source.path.starts_with("git/") {
        found.extend(outside(source, &["git/checkout.rs"], &["remove_file"]));
    } else {
        found.extend(outside(source, &["sys/", "site/"], &["std::fs::remove_file"]));
    }
    found
}

fn below_the_tests(source: &Source<'_>) -> Vec<String> {
    let Some((_, below)) = source.text.split_once("#[cfg(test)]") else { return Vec::new() };
    let is_allowed = |line: &str| {
        let starts = ["mod ", "pub(super) mod ", "pub(crate) mod ", "#[cfg(test)]", "}"];
        line.is_empty() || line.starts_with("    ") || starts.iter().any(|start| line.starts_with(start))
    };
    let is_inner = source.text.lines().any(|line| line.starts_with(' ') && line.contains("#[cfg(test)]"));
    let strange = below.lines().filter(|line| !is_allowed(line)).map(str::to_owned);
    strange.chain(is_inner.then(|| "#[cfg(test)] in an item".to_owned())).collect()
}

/// Without comments.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// Without what is only compiled for tests, which is at the bottom.
fn without_tests(text: &str) -> String {
    text.split_once("#[cfg(test)]").map_or(text, |(above, _)| above).to_owned()
}

fn offences(law: &Law, path: &str, text: &str) -> Vec<String> {
    let about_tests = law.says.starts_with("tests are");
    let text = code(text);
    let text = if about_tests { text } else { without_tests(&text) };
    (law.find)(&Source { path, text })
}

/// Every file below a directory of the sources, by its path below it.
fn files(directory: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![source().join(directory)];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(&next).expect("a directory") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(source().join(directory)).expect("below");
                found.insert(below.display().to_string(), std::fs::read_to_string(&path).expect("a file"));
            }
        }
    }
    assert!(found.len() > 1, "{directory} has files");
    found
}

#[test]
fn the_laws_of_the_house_hold() {
    let sources = files("src");
    let mut broken = Vec::new();
    for law in LAWS {
        for (path, text) in &sources {
            for offence in offences(law, path, text) {
                if !law.except.iter().any(|(file, word, _)| file == path && *word == offence) {
                    broken.push(format!("the law is that {}: {path} has `{offence}`", law.says));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn each_law_finds_what_breaks_it() {
    for law in LAWS {
        assert!(!law.broken_by.is_empty(), "{}", law.says);
        for (path, text) in law.broken_by {
            assert!(!offences(law, path, text).is_empty(), "the law that {} does not see {path}: {text}", law.says);
            let excused = offences(law, path, &format!("// {}", text.replace('\n', "\n// ")));
            assert!(excused.is_empty(), "a comment is no offence: {excused:?}");
        }
    }
}

#[test]
fn each_exception_is_needed_and_has_a_reason() {
    let sources = files("src");
    for law in LAWS {
        for (path, word, reason) in law.except {
            let text = sources.get(*path).unwrap_or_else(|| panic!("there is no {path}"));
            assert!(offences(law, path, text).iter().any(|found| found == word), "{path} has no `{word}` any more");
            assert!(!reason.is_empty(), "{path}");
        }
    }
}

/// The rooms that `lib.rs` declares.
fn rooms() -> BTreeSet<String> {
    let text = std::fs::read_to_string(source().join("src/lib.rs")).expect("lib.rs");
    text.lines().filter_map(|line| Some(line.strip_prefix("pub mod ")?.trim_end_matches(';').to_owned())).collect()
}

#[test]
fn every_room_is_on_the_map_and_has_a_level() {
    let text = std::fs::read_to_string(source().join("src/lib.rs")).expect("lib.rs");
    let map = text.split("```").nth(1).expect("a map");
    for room in rooms() {
        assert!(level(&room).is_some(), "{room} has no level");
        assert!(has_word(map, &room), "{room} is not on the map in lib.rs");
    }
    assert!(!has_word(map, "cellar"), "the map does not show just anything");
}

#[test]
fn every_file_says_what_it_is_for() {
    let says = |text: &str| text.starts_with("//! ");
    for directory in ["src", "tests/it", "fuzz/fuzz_targets"] {
        for (path, text) in files(directory) {
            assert!(says(&text), "{directory}/{path} does not begin with `//! `");
        }
    }
    assert!(!says("use std::fs;") && !says("//!\n"));
}

/// The paths that only this or that machine has. Written so that this file does not break the law.
fn machine_paths(text: &str) -> Vec<&str> {
    let roots = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];
    text.lines().filter(|line| roots.iter().any(|root| line.contains(root))).collect()
}

#[test]
fn no_file_knows_a_path_of_the_machine_it_was_written_on() {
    for directory in ["src", "tests/it", "fuzz/fuzz_targets"] {
        for (path, text) in files(directory) {
            assert_eq!(machine_paths(&text), Vec::<&str>::new(), "{directory}/{path}");
        }
    }
    assert_eq!(machine_paths(concat!("cd /ro", "ot/landfall")).len(), 1);
}

/// The modules that a text declares.
fn declared(text: &str) -> BTreeSet<&str> {
    let names = text.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    names.filter_map(|name| name.strip_suffix(';')).collect()
}

/// The modules whose files or directories are beside a `main.rs` or `mod.rs`.
fn present(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let names: BTreeSet<_> = names.map(|name| name.trim_end_matches(".rs").to_owned()).collect();
    names.into_iter().filter(|name| !matches!(name.as_str(), "main" | "mod")).collect()
}

#[test]
fn no_test_file_is_forgotten() {
    let roots = [
        ("tests/it", "main.rs"),
        ("tests/it/e2e", "mod.rs"),
        ("tests/it/forges", "mod.rs"),
        ("tests/it/support", "mod.rs"),
    ];
    for (directory, root) in roots {
        let directory = source().join(directory);
        let text = std::fs::read_to_string(directory.join(root)).expect("the declarations");
        let declared: BTreeSet<_> = declared(&text).into_iter().map(str::to_owned).collect();
        assert_eq!(declared, present(&directory), "{}", directory.display());
    }
    assert_eq!(declared("mod one;\nmod two {}\n"), BTreeSet::from(["one"]));
}

/// The packages of a lock file, with their versions.
fn locked(path: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(source().join(path)).expect("a lock file");
    let packages = text.split("[[package]]\n").skip(1);
    packages.map(|package| package.lines().take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn what_is_fuzzed_is_what_is_built() {
    let (built, fuzzed) = (locked("Cargo.lock"), locked("fuzz/Cargo.lock"));
    let missing: Vec<_> = built.difference(&fuzzed).collect();
    let again = "cp Cargo.lock fuzz/Cargo.lock && cargo metadata --manifest-path fuzz/Cargo.toml >/dev/null";
    assert!(missing.is_empty(), "fuzz/Cargo.lock has not {missing:?}; make it again: {again}");
    assert!(built.len() > 100 && !fuzzed.is_subset(&built), "the fuzzer itself is not in the product");
}

#[test]
fn what_is_not_there_and_what_only_looks_like_it_is_not_found() {
    assert!(!has_word("a libgit2_sys b", "git2") && has_word("git2::Oid", "git2"));
    assert!(!has_word("async_trait", "async") && has_word("pub async fn", "async"));
    assert_eq!(
        imports_up(&Source { path: "engine/run.rs", text: "use crate::site::current;".into() }),
        Vec::<String>::new()
    );
    assert_eq!(
        imports_up(&Source { path: "store/statements/row.rs", text: "use super::super::types;".into() }),
        Vec::<String>::new()
    );
    assert_eq!(without_tests("fn f() {}\n#[cfg(test)]\nmod tests { use git2; }"), "fn f() {}\n");
}
