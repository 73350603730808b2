//! Which keys there are but those of rooms of their own, what they mean, and what has to hold between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::domain::hook_name::HookName;
use crate::domain::name::{NodeName, RepositoryName, SiteName};
use crate::domain::release_id::ReleaseStyle;
use crate::engine::Activate;
use crate::hook;
use crate::site::permissions::Executable;

use super::reader::{Field, Reader, Table};
use super::{
    Config, Problem, Repository, SecretSource, Server, Site, deliveries, networks, quoted, refs, repository, units,
};

/// Reads a configuration; gives back every mistake, in the order of the file.
pub(super) fn parse(text: &str, file: &Path, host_name: &str) -> Result<Config, Vec<Problem>> {
    let (mut reader, mut root) = Reader::new(text, file)?;
    let state_dir = root.take("state_dir").and_then(|field| reader.path(&field));
    let state_dir = state_dir.unwrap_or_else(|| PathBuf::from(STATE_DIR));
    let workers = root.take("workers").and_then(|field| reader.number(&field, 1, MOST_WORKERS));
    let reconcile = read_reconcile(&mut reader, &mut root);
    let server = read_server(&mut reader, &mut root);
    let store_url = read_store(&mut reader, &mut root);
    let deliveries = deliveries::read(&mut reader, &mut root);
    let node = read_node(&mut reader, &mut root, host_name);
    let repositories = read_repositories(&mut reader, &mut root);
    let sites = read_sites(&mut reader, &mut root);
    reader.finish(root);
    refuse_unknown_repositories(&mut reader, &repositories, &sites);
    refuse_common_roots(&mut reader, &state_dir, &sites);
    let Reader { mut problems, places, .. } = reader;
    let (Some(node), Some(server), true) = (node, server, problems.is_empty()) else {
        problems.sort_by_key(|problem| problem.place);
        return Err(problems);
    };
    let store_url = store_url.unwrap_or_else(|| format!("sqlite:{}", state_dir.join("landfall.db").display()));
    Ok(Config {
        file: file.to_owned(),
        state_dir,
        workers: workers.unwrap_or(WORKERS),
        reconcile: reconcile.unwrap_or(RECONCILE),
        server,
        store_url,
        deliveries,
        node,
        repositories: repositories.into_iter().filter_map(|(name, entry)| entry.map(|entry| (name, entry))).collect(),
        sites: sites.into_iter().filter_map(|(name, entry)| entry.map(|entry| (name, entry))).collect(),
        places,
    })
}

/// Names with what is configured for them; none where that has a mistake.
type Named<K, V> = BTreeMap<K, Option<V>>;

fn read_reconcile(reader: &mut Reader<'_>, root: &mut Table<'_>) -> Option<Duration> {
    let field = root.take("reconcile")?;
    reader.parsed(&field, "a time from \"1s\" to \"24h\", such as \"5m\", or \"0s\" for never", |text| {
        let is_allowed = |time: &Duration| time.is_zero() || (SHORTEST_RECONCILE..=LONGEST_RECONCILE).contains(time);
        units::duration(text).filter(is_allowed).ok_or_else(String::new)
    })
}

fn read_server(reader: &mut Reader<'_>, root: &mut Table<'_>) -> Option<Server> {
    let default_listen = SocketAddr::from(([127, 0, 0, 1], 9000));
    let Some(field) = root.take("server") else {
        let trusted_proxies = Vec::new();
        return Some(Server { listen: default_listen, public_url: None, body_limit: BODY_LIMIT, trusted_proxies });
    };
    let mut table = reader.table(field)?;
    let listen = table.take("listen").and_then(|field| {
        let allowed = "an address with a port, such as \"127.0.0.1:9000\" or \"[::1]:9000\"";
        reader.parsed(&field, allowed, |text| text.parse().map_err(|_| String::new()))
    });
    let public_url = table
        .take("public_url")
        .and_then(|field| reader.parsed(&field, "a URL such as \"https://deploy.example.com\"", parse_public_url));
    let body_limit = table.take("body_limit").and_then(|field| {
        reader.parsed(&field, "a size from \"1KiB\" to \"256MiB\", such as \"25MiB\"", |text| {
            let size = units::size(text).filter(|size| (LEAST_BODY_LIMIT..=MOST_BODY_LIMIT).contains(size));
            size.ok_or_else(String::new)
        })
    });
    let trusted_proxies = table.take("trusted_proxies").map(|field| networks::read(reader, field)).unwrap_or_default();
    reader.finish(table);
    Some(Server {
        listen: listen.unwrap_or(default_listen),
        public_url,
        body_limit: body_limit.unwrap_or(BODY_LIMIT),
        trusted_proxies,
    })
}

fn parse_public_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(String::new)?;
    let plain = !rest.is_empty() && rest.chars().all(|letter| letter.is_ascii_graphic() && !"?#@\"<>".contains(letter));
    if plain { Ok(text.trim_end_matches('/').to_owned()) } else { Err(String::new()) }
}

fn read_store(reader: &mut Reader<'_>, root: &mut Table<'_>) -> Option<String> {
    let field = root.take("store")?;
    let mut table = reader.table(field)?;
    let url = table.take("url").and_then(|field| {
        reader.parsed(&field, "\"sqlite:\" and an absolute path", |text| match text.strip_prefix("sqlite:") {
            Some(path) if path.starts_with('/') && !path.contains('?') => Ok(text.to_owned()),
            Some(_) => Err(String::new()),
            None if text.starts_with("postgres") => Err("PostgreSQL is not supported by this version yet".into()),
            None => Err(String::new()),
        })
    });
    reader.finish(table);
    url
}

fn read_node(reader: &mut Reader<'_>, root: &mut Table<'_>, host_name: &str) -> Option<NodeName> {
    let parse = |text: &str| NodeName::parse(text).map_err(|_| String::new());
    let Some(field) = root.take("node") else { return default_node(reader, root, host_name) };
    let mut table = reader.table(field)?;
    let name = table.take("name").map(|field| reader.parsed(&field, NAME, parse));
    reader.finish(table);
    name.unwrap_or_else(|| default_node(reader, root, host_name))
}

fn default_node(reader: &mut Reader<'_>, root: &Table<'_>, host_name: &str) -> Option<NodeName> {
    let name = NodeName::parse(host_name).ok();
    if name.is_none() {
        let message = format!("is missing, and the host name `{host_name}` cannot be used; allowed: {NAME}");
        reader.report(root.place(), "node.name".into(), message);
    }
    name
}

fn read_repositories(reader: &mut Reader<'_>, root: &mut Table<'_>) -> Named<RepositoryName, Repository> {
    let tables =
        read_named(reader, root, "repositories", |text| RepositoryName::parse(text).map_err(|error| error.to_string()));
    tables
        .into_iter()
        .map(|(name, mut table)| {
            let repository = repository::read(reader, &mut table);
            reader.finish(table);
            (name, repository)
        })
        .collect()
}

fn read_sites(reader: &mut Reader<'_>, root: &mut Table<'_>) -> Named<SiteName, Site> {
    let tables = read_named(reader, root, "sites", |text| SiteName::parse(text).map_err(|error| error.to_string()));
    tables
        .into_iter()
        .map(|(name, mut table)| {
            let site = read_site(reader, &mut table, &name);
            reader.finish(table);
            (name, site)
        })
        .collect()
}

/// The tables of a table whose keys are names of the operator's.
fn read_named<'t, N>(
    reader: &mut Reader<'_>,
    root: &mut Table<'t>,
    key: &'static str,
    parse: impl Fn(&str) -> Result<N, String>,
) -> Vec<(N, Table<'t>)> {
    let Some(mut all) = root.take(key).and_then(|field| reader.table(field)) else { return Vec::new() };
    let mut named = Vec::new();
    for (text, field) in all.take_all() {
        match parse(&text) {
            Ok(name) => named.extend(reader.table(field).map(|table| (name, table))),
            Err(reason) => reader.fail(&field, reason),
        }
    }
    named
}

fn read_site(reader: &mut Reader<'_>, table: &mut Table<'_>, name: &SiteName) -> Option<Site> {
    let repository = reader.required(table, "repository", "the name of one of the [repositories]").and_then(|field| {
        reader.parsed(&field, NAME, |text| RepositoryName::parse(text).map_err(|error| error.to_string()))
    });
    reader.refuse_later(table, &["subdirectory", "paths", "submodules", "lfs", "once", "nodes"]);
    reader.refuse_later(table, &["probe", "reload"]);
    let refs = refs::read(reader, table);
    let skip_markers = table.take("skip_markers").map(|field| refs::read_skip_markers(reader, field));
    let root = reader.required(table, "root", PATH).and_then(|field| reader.path(&field));
    let environment = table.take("environment").map(|field| {
        reader.parsed(&field, NAME, |text| SiteName::parse(text).map(|_| text.to_owned()).map_err(|_| String::new()))
    });
    let owner = table.take("owner").and_then(|field| reader.account(&field));
    let group = table.take("group").and_then(|field| reader.account(&field));
    let run_as = table.take("run_as").and_then(|field| reader.account(&field));
    let keep = table.take("keep").and_then(|field| reader.number(&field, 1, MOST_KEPT));
    let styles = [("timestamp", ReleaseStyle::Timestamp), ("compact", ReleaseStyle::Compact)];
    let release_style = table.take("release_name").and_then(|field| reader.word(&field, &styles));
    let hooks_dir = table.take("hooks_dir").and_then(|field| reader.parsed(&field, BELOW, parse_below));
    let hook_timeout = table.take("hook_timeout").and_then(|field| {
        reader.parsed(&field, "a duration from \"1s\" to \"24h\", such as \"10m\"", |text| {
            let limit = units::duration(text).filter(|limit| (SHORTEST_HOOK..=LONGEST_HOOK).contains(limit));
            limit.ok_or_else(String::new)
        })
    });
    let allow_failure = table.take("allow_failure").map(|field| read_hooks(reader, field));
    let activations = [("first", Activate::First), ("last", Activate::Last)];
    let activate = table.take("activate").and_then(|field| reader.word(&field, &activations));
    let executables = [("keep", Executable::Keep), ("strip", Executable::Strip)];
    let executable = table.take("executable").and_then(|field| reader.word(&field, &executables));
    let env_file = table.take("env_file").and_then(|field| reader.path(&field));
    let env = table.take("env").map(|field| read_env(reader, field)).unwrap_or_default();
    let secrets = table.take("secrets").map(|field| read_hook_secrets(reader, field, &env)).unwrap_or_default();
    let shared = table.take("shared").map(|field| read_shared(reader, field)).unwrap_or_default();
    Some(Site {
        repository: repository?,
        branch: refs.as_ref()?.1.clone(),
        refs: refs?.0,
        skip_markers: skip_markers.unwrap_or_default(),
        root: root?,
        environment: environment.unwrap_or_else(|| Some(name.to_string()))?,
        owner,
        group,
        run_as,
        keep: keep.unwrap_or(KEEP),
        release_style: release_style.unwrap_or(ReleaseStyle::Timestamp),
        hooks_dir,
        hook_timeout: hook_timeout.unwrap_or(HOOK_TIMEOUT),
        allow_failure: allow_failure.unwrap_or_else(|| BTreeSet::from([HookName::BeforePull])),
        activate: activate.unwrap_or(Activate::First),
        executable: executable.unwrap_or(Executable::Keep),
        env_file,
        env,
        secrets,
        shared,
    })
}

fn read_hooks(reader: &mut Reader<'_>, field: Field<'_>) -> BTreeSet<HookName> {
    let allowed = HookName::ALL.map(|hook| format!("\"{hook}\"")).join(", ");
    let elements = reader.list(field, &format!("a list of {allowed}"));
    let parse = |text: &str| HookName::parse(text).ok_or_else(String::new);
    elements.iter().filter_map(|element| reader.parsed(element, &allowed, parse)).collect()
}

fn read_env(reader: &mut Reader<'_>, field: Field<'_>) -> BTreeMap<String, String> {
    let Some(mut table) = reader.table(field) else { return BTreeMap::new() };
    let mut env = BTreeMap::new();
    for (name, field) in table.take_all() {
        refuse_variable(reader, &field, &name);
        let value = reader.parsed(&field, "a text without NUL", |text| {
            if text.contains('\0') { Err(String::new()) } else { Ok(text.to_owned()) }
        });
        env.extend(value.map(|value| (name, value)));
    }
    env
}

fn read_hook_secrets(
    reader: &mut Reader<'_>,
    field: Field<'_>,
    env: &BTreeMap<String, String>,
) -> BTreeMap<String, SecretSource> {
    let Some(mut table) = reader.table(field) else { return BTreeMap::new() };
    let mut secrets = BTreeMap::new();
    for (name, field) in table.take_all() {
        refuse_variable(reader, &field, &name);
        if env.contains_key(&name) {
            reader.fail(&field, "stands in `env` too; keep one of them");
        }
        secrets.extend(repository::read_secret(reader, field).map(|source| (name, source)));
    }
    secrets
}

/// What describes the deployment is not the operator's to change: it also marks the processes of a deployment.
fn refuse_variable(reader: &mut Reader<'_>, field: &Field<'_>, name: &str) {
    if !is_variable(name) {
        reader.fail(field, "is no name of a variable; allowed: letters, digits and `_`, the first no digit");
    }
    if hook::DEPLOYMENT_VARIABLES.contains(&name) {
        reader.fail(field, "is set by Landfall for each deployment; use another name");
    }
}

/// Whether a variable can have this name.
pub(super) fn is_variable(text: &str) -> bool {
    let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    starts_well && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn read_shared(reader: &mut Reader<'_>, field: Field<'_>) -> Vec<String> {
    let mut shared: Vec<String> = Vec::new();
    for element in reader.list(field, &format!("a list of {BELOW}")) {
        let Some(path) = reader.parsed(&element, BELOW, parse_below) else { continue };
        let nested = |other: &&String| Path::new(&path).starts_with(other) || Path::new(other).starts_with(&path);
        if let Some(other) = shared.iter().find(nested) {
            reader.fail(&element, format!("`{path}` and `{other}` lie in each other; keep one of them"));
            continue;
        }
        shared.push(path);
    }
    shared
}

/// A relative path that stays below, in one spelling.
fn parse_below(text: &str) -> Result<String, String> {
    let normal = Path::new(text).components().all(|part| matches!(part, Component::Normal(_)));
    let trimmed = text.trim_end_matches('/');
    if !normal || trimmed.is_empty() || trimmed.contains("//") || text.chars().any(char::is_control) {
        return Err(String::new());
    }
    Ok(trimmed.to_owned())
}

fn refuse_unknown_repositories(
    reader: &mut Reader<'_>,
    repositories: &Named<RepositoryName, Repository>,
    sites: &Named<SiteName, Site>,
) {
    for (name, site) in sites {
        let Some(site) = site else { continue };
        if !repositories.contains_key(&site.repository) {
            let known: Vec<_> = repositories.keys().map(|name| format!("\"{name}\"")).collect();
            let known = if known.is_empty() { "a [repositories.NAME] table first".into() } else { known.join(", ") };
            let message = format!("there is no repository `{}`; allowed: {known}", site.repository);
            reader.fail_at(&format!("sites.{}.repository", quoted(name.as_str())), message);
        }
    }
}

/// Two sites in one directory would flip the same link; a root within another could be pruned by it.
fn refuse_common_roots(reader: &mut Reader<'_>, state_dir: &Path, sites: &Named<SiteName, Site>) {
    let roots: Vec<_> = sites.iter().filter_map(|(name, site)| Some((name, &site.as_ref()?.root))).collect();
    for (index, (name, root)) in roots.iter().enumerate() {
        let key = format!("sites.{}.root", quoted(name.as_str()));
        if let Some((other, _)) = roots.iter().take(index).find(|(_, other)| related(root, other)) {
            reader
                .fail_at(&key, format!("is the root of site `{other}`, or one lies in the other; each needs its own"));
        }
        if related(root, state_dir) {
            reader.fail_at(&key, format!("and the state directory `{}` lie in each other", state_dir.display()));
        }
    }
}

fn related(left: &Path, right: &Path) -> bool {
    left.starts_with(right) || right.starts_with(left)
}

impl Reader<'_> {
    /// An absolute path in one spelling.
    pub(super) fn path(&mut self, field: &Field<'_>) -> Option<PathBuf> {
        self.parsed(field, PATH, |text| {
            let path = Path::new(text);
            let plain = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
            let below_top = path.components().count() > 1;
            let sound = path.is_absolute() && plain && below_top && !text.chars().any(char::is_control);
            // Rebuilt from its components: `/webroot/` and `//webroot` are `/webroot`.
            if sound { Ok(path.components().collect()) } else { Err(String::new()) }
        })
    }

    /// The name of a user or group.
    fn account(&mut self, field: &Field<'_>) -> Option<String> {
        self.parsed(field, "a name of this machine, such as \"www-data\"", |text| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b":/,".contains(&byte));
            if plain { Ok(text.to_owned()) } else { Err(String::new()) }
        })
    }

    /// Reports a mistake at a key that was read.
    fn fail_at(&mut self, key: &str, message: String) {
        let place = self.places.get(key).copied().unwrap_or(super::Place { line: 1, column: 1 });
        self.report(place, key.to_owned(), message);
    }
}

const STATE_DIR: &str = "/var/lib/landfall";
const WORKERS: usize = 2;

/// More would only compete for the disk.
const MOST_WORKERS: usize = 64;

const RECONCILE: Duration = Duration::from_secs(300);
const SHORTEST_RECONCILE: Duration = Duration::from_secs(1);
const LONGEST_RECONCILE: Duration = Duration::from_secs(24 * 3600);

const KEEP: usize = 5;
const MOST_KEPT: usize = 1000;

/// GitHub sends at most 25 MB.
const BODY_LIMIT: usize = 25 << 20;
const LEAST_BODY_LIMIT: usize = 1 << 10;
const MOST_BODY_LIMIT: usize = 256 << 20;

const HOOK_TIMEOUT: Duration = Duration::from_secs(600);
const SHORTEST_HOOK: Duration = Duration::from_secs(1);
const LONGEST_HOOK: Duration = Duration::from_secs(24 * 3600);

const NAME: &str = "1 to 64 letters, digits, `.`, `_` or `-`";
const PATH: &str = "an absolute path without `..`, below `/`";
const BELOW: &str = "a relative path without `.` or `..`";
