//! Any text as `deploy.toml`: values that hold together, or mistakes that can be found in the text.

#![no_main]

use std::path::Path;

use landfall::config::{Config, ConfigError, Place, Problem};
use landfall::webhook::default_secret;
use landfall_fuzz::{SOURCE, fixtures, plant};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: plant(seeds()), |input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match parse(text) {
        Ok(config) => check(text, &config),
        Err(ConfigError::Problems(problems)) => {
            assert!(!problems.is_empty(), "refused without a reason");
            assert!(problems.is_sorted_by_key(|problem| problem.place), "not in the order of the file: {problems:?}");
            problems.iter().for_each(|problem| check_problem(text, problem));
        }
        Err(error @ ConfigError::Unreadable { .. }) => panic!("no file is read: {error}"),
    }
});

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("deploy.toml"), "web1")
}

fn check(text: &str, config: &Config) {
    let again = parse(text).expect("the same text is the same configuration");
    assert_eq!(format!("{config:?}"), format!("{again:?}"));
    let mut roots: Vec<&Path> = vec![&config.state_dir];
    for (name, site) in &config.sites {
        assert!(config.repositories.contains_key(&site.repository), "{name}: {}", site.repository);
        assert!(site.root.is_absolute() && site.keep > 0 && !site.hook_timeout.is_zero(), "{site:?}");
        for other in &roots {
            assert!(!site.root.starts_with(other) && !other.starts_with(&site.root), "{name} lies in {other:?}");
        }
        roots.push(&site.root);
        check_problem(text, &config.problem(&format!("sites.{name}.root"), "is not a directory".into()));
        check_problem(text, &config.problem(&format!("sites.{name}.no_such_key"), "is missing".into()));
    }
    for (name, repository) in &config.repositories {
        let is_proven = !repository.secrets.is_empty() || default_secret(repository.forge).is_some();
        assert!(is_proven, "{name} would let anyone in");
    }
    assert!((1..=64).contains(&config.workers) && config.server.body_limit > 0);
}

fn check_problem(text: &str, problem: &Problem) {
    let Problem { file, place: Place { line, column }, key: _, message } = problem;
    assert_eq!(file, Path::new("deploy.toml"));
    assert!(!message.is_empty(), "{problem:?}");
    let lines: Vec<&str> = text.split('\n').collect();
    assert!((1..=lines.len()).contains(line), "{problem:?}: the text has {} lines", lines.len());
    let letters = lines[line - 1].chars().count();
    assert!((1..=letters + 1).contains(column), "{problem:?}: the line has {letters} letters");
}

fn seeds() -> Vec<Vec<u8>> {
    let example = std::fs::read(SOURCE.join("deploy.toml.example")).expect("the example");
    fixtures("config").into_iter().map(|(_, text)| text).chain([example]).collect()
}
