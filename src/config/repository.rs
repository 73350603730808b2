//! The keys of a repository: where it is, who tells of pushes to it and proves that, and what opens it.

use crate::domain::forge::Forge;
use crate::domain::identity::Identity;
use crate::domain::remote_url::{RemoteUrl, Scheme};

use super::parse::is_variable;
use super::reader::{Field, Reader, Table};
use super::{Repository, SecretSource, networks};

/// Reads a table of `[repositories]`; none where it has a mistake.
pub(super) fn read(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Option<Repository> {
    let url = reader.required(table, "url", URL);
    let url = url
        .and_then(|field| reader.parsed(&field, URL, |text| RemoteUrl::parse(text).map_err(|error| error.to_string())));
    let forge_id = read_forge_id(reader, table);
    let forge = read_forge(reader, table, url.as_ref());
    let identity = read_identity(reader, table, forge);
    let secrets = read_secrets(reader, table, forge);
    let allow_from = table.take("allow_from").map(|field| networks::read_some(reader, field));
    let is_ssh = url.as_ref().is_none_or(|url| url.scheme() == Scheme::Ssh);
    let mut for_ssh = |key| {
        let field = table.take(key)?;
        if !is_ssh {
            reader.fail(&field, "is for ssh URLs only: nothing else has a use for it");
        }
        reader.path(&field)
    };
    let (ssh_key, known_hosts) = (for_ssh("ssh_key"), for_ssh("known_hosts"));
    let token_field = table.take("token");
    let token = token_field.clone().and_then(|field| read_secret(reader, field));
    let url = url?;
    if let Some(field) = &token_field
        && !may_carry_token(&url)
    {
        reader.fail(field, "a token needs an https URL: over anything else it could be read on the way");
    }
    if url.scheme() == Scheme::Ssh && ssh_key.is_none() {
        let key = table.dotted("ssh_key");
        reader.report(table.place(), key, "is missing; allowed: the absolute path of a private key".into());
    }
    let forge = forge?;
    let identity = identity.map_or_else(|| Identity::of_url(forge, &url), |text| Identity::new(forge, &text));
    Some(Repository { identity, forge_id, forge, secrets, allow_from, ssh_key, known_hosts, token, url })
}

/// Over https, or within this machine.
fn may_carry_token(url: &RemoteUrl) -> bool {
    let is_here = matches!(url.host(), Some("127.0.0.1" | "::1" | "localhost"));
    url.scheme() == Scheme::Https || (url.scheme() == Scheme::Http && is_here)
}

fn read_forge_id(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Option<String> {
    let field = table.take("repository_id")?;
    reader.parsed(&field, "the forge's own id of the repository, as text", |text| {
        let plain = !text.is_empty() && text.len() <= LONGEST_ID && text.chars().all(|letter| !letter.is_control());
        if plain { Ok(text.to_owned()) } else { Err(String::new()) }
    })
}

fn read_identity(reader: &mut Reader<'_>, table: &mut Table<'_>, forge: Option<Forge>) -> Option<String> {
    let field = table.take("repository")?;
    reader.parsed(&field, "its name on the forge, such as \"acme/blog\"", |text| {
        // Projects and repositories of Azure may have blanks in their names, but not around them.
        let blank = |letter: char| letter.is_whitespace() && (letter != ' ' || forge != Some(Forge::Azure));
        let strange = |letter: char| blank(letter) || letter.is_control();
        let plain = !text.is_empty() && text.trim() == text && !text.chars().any(strange);
        if plain { Ok(text.to_owned()) } else { Err(String::new()) }
    })
}

fn read_forge(reader: &mut Reader<'_>, table: &mut Table<'_>, url: Option<&RemoteUrl>) -> Option<Forge> {
    let allowed = Forge::ALL.map(|forge| format!("\"{forge}\"")).join(", ");
    let Some(field) = table.take("forge") else {
        let known = url?.forge();
        if known.is_none() {
            let message = format!("is missing, and the host of the url does not tell it; allowed: {allowed}");
            reader.report(table.place(), table.dotted("forge"), message);
        }
        return known;
    };
    reader.parsed(&field, &allowed, |text| Forge::parse(text).ok_or_else(String::new))
}

fn read_secrets(reader: &mut Reader<'_>, table: &mut Table<'_>, forge: Option<Forge>) -> Vec<SecretSource> {
    // SourceHut signs with a key that everybody knows.
    let may_lack_secret = forge == Some(Forge::Sourcehut);
    let secret = if may_lack_secret { table.take("secret") } else { reader.required(table, "secret", SECRET) };
    secret.map(|field| read_secret_list(reader, field)).unwrap_or_default()
}

fn read_secret_list(reader: &mut Reader<'_>, field: Field<'_>) -> Vec<SecretSource> {
    if !reader.is_list(&field) {
        return read_secret(reader, field).into_iter().collect();
    }
    let elements = reader.list(field.clone(), SECRET);
    if elements.is_empty() {
        reader.fail(&field, format!("is empty, and anyone could deploy; allowed: {SECRET}"));
    }
    elements.into_iter().filter_map(|element| read_secret(reader, element)).collect()
}

/// Reads where one secret lies.
pub(super) fn read_secret(reader: &mut Reader<'_>, field: Field<'_>) -> Option<SecretSource> {
    if reader.is_text(&field) {
        reader.fail(&field, format!("a secret never stands in this file; allowed: {SECRET}"));
        return None;
    }
    let whole = field.clone();
    let mut table = reader.table(field)?;
    let file = table.take("file").and_then(|field| reader.path(&field)).map(SecretSource::File);
    let env = table.take("env").and_then(|field| {
        reader.parsed(&field, "the name of a variable", |text| {
            if is_variable(text) { Ok(SecretSource::Env(text.to_owned())) } else { Err(String::new()) }
        })
    });
    let credential = table.take("credential").and_then(|field| {
        reader.parsed(&field, "the name of a systemd credential", |text| {
            let plain = !text.is_empty() && !text.contains('/') && !text.starts_with('.');
            if plain { Ok(SecretSource::Credential(text.to_owned())) } else { Err(String::new()) }
        })
    });
    let problems = reader.problems.len();
    reader.finish(table);
    let mut sources = [file, env, credential].into_iter().flatten();
    match (sources.next(), sources.next()) {
        (Some(source), None) => Some(source),
        (None, _) | (Some(_), Some(_)) => {
            if reader.problems.len() == problems {
                reader.fail(&whole, format!("names not exactly one place; allowed: {SECRET}"));
            }
            None
        }
    }
}

/// Numbers and UUIDs.
const LONGEST_ID: usize = 100;

const URL: &str = "\"https://…\", \"ssh://…\", \"git@host:path\", \"http://…\", \"git://…\" or \"file:///…\"";
const SECRET: &str = "{ file = \"/path\" }, { env = \"NAME\" } or { credential = \"name\" }, or a list of these";
