//! `deploy.toml`: every mistake with its place, its key and what is allowed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use landfall::config::{Config, ConfigError, Problem, Secrets};

use crate::support::source;

fn fixture(path: &str) -> PathBuf {
    source().join(path)
}

fn files(directory: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(fixture(directory)).expect("a directory of fixtures");
    let files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    assert!(!files.is_empty(), "{directory} has no fixtures");
    files
}

fn problems(text: &str) -> Vec<Problem> {
    match Config::parse(text, Path::new("deploy.toml"), "web1") {
        Err(ConfigError::Problems(problems)) => problems,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => Vec::new(),
    }
}

#[test]
fn every_mistake_is_reported_with_its_place_key_and_what_is_allowed() {
    for file in files("fixtures/config/bad") {
        let text = std::fs::read_to_string(&file).expect("a fixture");
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#! ")).collect();
        let found = problems(&text);
        let shown = found.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n");
        assert_eq!(found.len(), expected.len(), "{}:\n{shown}", file.display());
        for line in expected {
            let (place, rest) = line.split_once(' ').expect("a place and the rest");
            let (key, message) = rest.split_once(": ").unwrap_or(("", rest));
            let matches = |problem: &&Problem| {
                format!("{}:{}", problem.place.line, problem.place.column) == place
                    && problem.key == key
                    && (message == "syntax" || problem.message.contains(message))
            };
            assert!(found.iter().any(|problem| matches(&problem)), "{}: no `{line}` in\n{shown}", file.display());
        }
    }
}

#[test]
fn good_files_and_the_example_are_accepted() {
    let example = [fixture("deploy.toml.example")];
    for file in files("fixtures/config/good").iter().chain(&example) {
        if let Err(error) = Config::load(file, "web1") {
            panic!("{}:\n{error}", file.display());
        }
    }
}

#[test]
fn the_example_names_every_key_that_is_accepted() {
    let example = std::fs::read_to_string(fixture("deploy.toml.example")).expect("the example");
    for line in problems("x = 1\n[server]\nx = 1\n[repositories.r]\nx = 1\n[sites.s]\nx = 1") {
        let Some((_, keys)) = line.message.split_once("unknown key; allowed: ") else { continue };
        for key in keys.split(", ") {
            assert!(example.contains(&format!("{key} = ")) || example.contains(&format!("[{key}")), "{key}");
        }
    }
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = Config::load(&fixture("fixtures/config/good/small.toml"), "web1.example.com").expect("a good file");
    assert_eq!(config.state_dir, Path::new("/var/lib/landfall"));
    assert_eq!(config.store_url, "sqlite:/var/lib/landfall/landfall.db");
    assert_eq!((config.workers, config.node.as_str()), (2, "web1.example.com"));
    assert_eq!(config.reconcile.as_secs(), 300);
    assert_eq!((config.server.listen.to_string().as_str(), config.server.body_limit), ("127.0.0.1:9000", 25 << 20));
    let (_, site) = config.sites.first_key_value().expect("a site");
    assert_eq!((site.environment.as_str(), site.keep, site.hook_timeout.as_secs()), ("blog", 5, 600));
    let (_, repository) = config.repositories.first_key_value().expect("a repository");
    assert_eq!((repository.identity.as_str(), repository.forge.as_str()), ("acme/blog", "github"));
}

#[test]
fn an_interval_is_between_a_second_and_a_day_or_off() {
    for (text, seconds) in [("0s", 0), ("1s", 1), ("24h", 86_400), ("0h", 0)] {
        let config = Config::parse(&format!("reconcile = \"{text}\""), Path::new("deploy.toml"), "web1");
        assert_eq!(config.ok().map(|config| config.reconcile.as_secs()), Some(seconds), "{text}");
    }
    for text in ["25h", "5", "", "-1s", "86401s", "5d"] {
        let found = problems(&format!("reconcile = \"{text}\""));
        assert_eq!(found.len(), 1, "{text}");
        assert!(found[0].message.contains("allowed: a time from \"1s\" to \"24h\""), "{}", found[0]);
    }
}

#[test]
fn a_file_that_cannot_be_read_says_which() {
    let error = Config::load(Path::new("/nonexistent/deploy.toml"), "web1").expect_err("no file");
    assert!(error.to_string().contains("/nonexistent/deploy.toml"), "{error}");
}

/// Reads the secrets of two repositories, whose secrets are in these files with these modes.
fn read_secrets(blog: (&str, u32), shop: (&str, u32)) -> Result<Secrets, String> {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, (text, mode)) in [("blog", blog), ("shop", shop)] {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a secret");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let text = format!(
        "[repositories.blog]\nurl = \"https://github.com/acme/blog\"\nsecret = {{ file = \"{0}/blog\" }}\n\
         [repositories.shop]\nurl = \"https://github.com/acme/shop\"\nsecret = [{{ file = \"{0}/shop\" }}, {{ env = \"SHOP\" }}]\n",
        directory.path().display()
    );
    let config = Config::parse(&text, Path::new("deploy.toml"), "web1").expect("a good text");
    let environment = BTreeMap::from([("SHOP", OsString::from("the-older-secret-of-shop"))]);
    Secrets::read(&config, &|name| environment.get(name).cloned())
        .map_err(|problems| problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_secret_that_would_let_anyone_in_is_refused_with_its_place() {
    let good = ("0123456789abcdef0123\n", 0o600);
    let table = [
        (("", 0o600), "is empty"),
        (("short\n", 0o600), "has 5 bytes; use 16 or more"),
        (("changeme-changeme-changeme", 0o600), "is a placeholder"),
        (("another-good-secret-here", 0o604), "is open to others; run: chmod o= "),
        (("0123456789abcdef0123", 0o600), "is the same as that of repository `blog`"),
        (("the-older-secret-of-shop", 0o600), ""),
    ];
    for (shop, expected) in table {
        match read_secrets(good, shop) {
            Ok(secrets) => {
                assert_eq!(expected, "", "{shop:?} was accepted");
                assert_eq!(secrets.webhook.values().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
            }
            Err(error) => {
                assert!(!expected.is_empty() && error.contains(expected), "{shop:?}: {error}");
                assert!(error.starts_with("deploy.toml:6:1: repositories.shop.secret: "), "{error}");
                assert!(shop.0.len() < 6 || !error.contains(shop.0), "the secret is shown: {error}");
            }
        }
    }
}

#[test]
fn the_identity_is_what_the_forge_calls_the_repository_and_the_host_tells_the_forge() {
    let config = Config::load(&fixture("fixtures/config/good/forges.toml"), "web1").expect("a good file");
    let table = [
        ("azure", "azure", "My Shop/web", 1),
        ("azure-named", "azure", "My Shop/My Blog", 1),
        ("bitbucket", "bitbucket", "acme/blog", 1),
        ("bitbucket-dc", "bitbucket-dc", "acme/blog", 1),
        ("sourcehut", "sourcehut", "~acme/blog", 0),
        ("sourcehut-own", "sourcehut", "~acme/blog", 1),
        ("standard", "standard", "srv/blog", 1),
    ];
    let found = config.repositories.iter().map(|(name, repository)| {
        (name.as_str(), repository.forge.as_str(), repository.identity.as_str(), repository.secrets.len())
    });
    assert_eq!(found.collect::<Vec<_>>(), table);
}

/// Reads the secret of one repository of this forge, and of another one that has the same.
fn read_secrets_of(forge: &str, secret: &str) -> Result<Vec<usize>, String> {
    let table = |name| {
        format!(
            "[repositories.{name}]\nurl = \"https://git.example.com/acme/{name}\"\nforge = \"{forge}\"\nsecret = {{ env = \"S\" }}\n"
        )
    };
    let read = |text: &str| {
        let config = Config::parse(text, Path::new("deploy.toml"), "web1").expect("a good text");
        Secrets::read(&config, &|_| Some(OsString::from(secret)))
            .map(|secrets| secrets.webhook.values().map(Vec::len).collect())
            .map_err(|problems| problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))
    };
    read(&table("blog"))?;
    read(&(table("blog") + &table("shop")))
}

#[test]
fn a_secret_that_its_forge_could_not_use_is_refused_before_the_first_delivery() {
    const KEY: &str = "uX7KWyyDNMaBma4aVbJ/cbUQpdjqczuCyK/HxzV/u+4=";
    let table = [
        ("github", "0123456789abcdef", "is the same as that of repository `blog`"),
        ("standard", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDazkIxYDE5xg=", "is the same as that of repository `blog`"),
        ("standard", "0123456789abcdef0123", "is no secret of Standard Webhooks"),
        ("standard", "whpk_uX7KWyyDNMaBma4aVbJ/cbUQpdjqczuCyK/HxzV/u+4=", ""),
        ("sourcehut", KEY, ""),
        ("sourcehut", "0123456789abcdef0123", "is no public key of a SourceHut instance"),
        ("gitlab", "whsec_0123456789abcdef!", "begins with `whsec_`, but is not that and the base64"),
        ("azure", "a-user-with-a-long-name:short", "has a weak password behind the user: it has 5 bytes"),
    ];
    for (forge, secret, expected) in table {
        match read_secrets_of(forge, secret) {
            Ok(read) => assert_eq!((expected, read), ("", vec![1, 1]), "{forge} {secret}"),
            Err(error) => {
                assert!(!expected.is_empty() && error.contains(expected), "{forge} {secret}: {error}");
                assert!(!error.contains(secret), "the secret is shown: {error}");
            }
        }
    }
}

#[test]
fn a_name_may_have_blanks_only_where_the_forge_has_such_names() {
    let problems_of = |forge: &str, name: &str| {
        let text = format!(
            "[repositories.r]\nurl = \"https://git.example.com/a/b\"\nrepository = \"{name}\"\nforge = \"{forge}\"\nsecret = {{ env = \"S\" }}\n"
        );
        problems(&text).iter().map(|problem| problem.key.clone()).collect::<Vec<_>>()
    };
    for (forge, name, is_good) in [
        ("azure", "My Shop/My Blog", true),
        ("azure", " My Shop/blog", false),
        ("azure", "My\\tShop/blog", false),
        ("github", "acme/my blog", false),
        ("github", "acme/blog", true),
    ] {
        let expected: &[&str] = if is_good { &[] } else { &["repositories.r.repository"] };
        assert_eq!(problems_of(forge, name), expected, "{forge} {name}");
    }
}

#[test]
fn only_sourcehut_goes_without_a_secret() {
    for forge in ["github", "gitlab", "bitbucket", "bitbucket-dc", "azure", "standard", "sourcehut"] {
        let text = format!("[repositories.r]\nurl = \"https://git.example.com/a/b\"\nforge = \"{forge}\"\n");
        let keys: Vec<_> = problems(&text).iter().map(|problem| problem.key.clone()).collect();
        let expected: &[&str] = if forge == "sourcehut" { &[] } else { &["repositories.r.secret"] };
        assert_eq!(keys, expected, "{forge}");
        assert_eq!(problems(&format!("{text}secret = []\n")).len(), 1, "{forge}: an empty list is a mistake");
    }
}
