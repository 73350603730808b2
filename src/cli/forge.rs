//! `webhook` and `send-test`: setting a forge up, and trying it without one.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use crate::app::{self, AppError};
use crate::config::{Config, Repository};
use crate::domain::name::RepositoryName;
use crate::domain::push::RefName;
use crate::domain::revision::Revision;
use crate::domain::secret::Secret;
use crate::webhook::{CannotSign, Request, TestKind, TestMessage, compose};

use super::forge_form::Form;
use super::orders::parse_ref;
use super::{CliError, Shell, now, tell, variable};

/// What to paste into the forge.
#[derive(Debug, Serialize)]
struct WebhookReport {
    repository: RepositoryName,
    forge: &'static str,
    url: String,
    content_type: &'static str,
    secret: String,
    events: &'static str,
    deploy_key: Option<String>,
}

pub(super) fn webhook(shell: &Shell, name: &RepositoryName) -> Result<(), CliError> {
    let config = shell.load()?;
    let repository = config.repositories.get(name).ok_or_else(|| app::unknown_repository(&config, name))?;
    let secrets = app::webhook_secrets(&config, name, &variable)?;
    if secrets.len() > 1 {
        tell("the repository has several secrets, since one is being replaced: this is the first");
    }
    let (url, secret) = (hook_url(&base_url(&config), name), secrets.first().map(shown).unwrap_or_default());
    let form = Form::of(repository, &url, &secret);
    let report = WebhookReport {
        repository: name.clone(),
        forge: repository.forge.as_str(),
        url,
        content_type: "application/json",
        secret,
        events: form.events,
        deploy_key: repository.ssh_key.as_deref().and_then(public_key),
    };
    shell.print(&report, || text_of(&report, form, repository.ssh_key.as_deref()))
}

fn text_of(report: &WebhookReport, form: Form, ssh_key: Option<&Path>) -> String {
    let mut lines = form.lines();
    match (&report.deploy_key, ssh_key) {
        (Some(key), _) => lines.push(format!("Deploy key (read only):\n  {key}")),
        (None, Some(path)) => lines.push(format!(
            "Deploy key (read only): the public half of `{0}`\n  help: `ssh-keygen -y -f {0}` prints it",
            path.display()
        )),
        (None, None) => {}
    }
    lines.join("\n") + "\n"
}

/// Only this command shows a secret: it is what it is for.
fn shown(secret: &Secret) -> String {
    String::from_utf8_lossy(secret.expose()).into_owned()
}

/// The public half, where `ssh-keygen` puts it.
fn public_key(private: &Path) -> Option<String> {
    let mut path = private.as_os_str().to_owned();
    path.push(".pub");
    Some(std::fs::read_to_string(path).ok()?.trim_end().to_owned())
}

/// How the outside reaches us; without `public_url`, how this machine does.
fn base_url(config: &Config) -> String {
    config.server.public_url.clone().unwrap_or_else(|| {
        tell("help: set `server.public_url` to how the forge reaches this machine");
        local_url(config)
    })
}

fn local_url(config: &Config) -> String {
    let mut address = config.server.listen;
    if address.ip().is_unspecified() {
        // Where it listens on every address, this machine reaches it by its own.
        let own =
            if address.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        address.set_ip(own);
    }
    format!("http://{address}")
}

fn hook_url(base: &str, name: &RepositoryName) -> String {
    format!("{}/hooks/{name}", base.trim_end_matches('/'))
}

pub(super) fn send_test(
    shell: &Shell,
    name: &RepositoryName,
    wanted: Option<&str>,
    url: Option<&str>,
) -> Result<(), CliError> {
    let ref_name = wanted.map(parse_ref).transpose()?;
    let config = shell.load()?;
    let repository = config.repositories.get(name).ok_or_else(|| app::unknown_repository(&config, name))?;
    let secrets = app::webhook_secrets(&config, name, &variable)?;
    let secret = secrets.first().ok_or_else(|| CliError::Usage(format!("repository `{name}` has no secret")))?;
    let pushed = match ref_name {
        Some(ref_name) => Some((tip(&config, name, &ref_name)?, ref_name)),
        None => None,
    };
    let kind = match &pushed {
        Some((after, ref_name)) => TestKind::Push { ref_name, before: None, after },
        None => TestKind::Ping,
    };
    let url = hook_url(url.unwrap_or(&local_url(&config)), name);
    let answer = send(&url, test_request(repository, secret, kind)?)?;
    shell.print(&answer, || format!("{} {}\n", answer.status, answer.body))?;
    if (200..300).contains(&answer.status) {
        return Ok(());
    }
    Err(CliError::Refused(format!("`{url}` answered {}", answer.status)))
}

fn test_request(repository: &Repository, secret: &Secret, kind: TestKind<'_>) -> Result<Request, CannotSign> {
    let time = now();
    let key = format!("landfall-test-{}", time.timestamp_micros());
    let message = TestMessage { key: &key, repository: repository.identity.as_str(), kind };
    compose(repository.forge, secret, &message, time)
}

fn tip(config: &Config, name: &RepositoryName, ref_name: &RefName) -> Result<Revision, CliError> {
    let tip = app::remote_tip(config, name, ref_name, &variable)?;
    Ok(tip.ok_or_else(|| AppError::NotFound(format!("`{ref_name}` does not exist in the remote of `{name}`")))?)
}

/// What a server answered.
#[derive(Debug, Serialize)]
pub(super) struct ServerAnswer {
    pub(super) status: u16,
    pub(super) body: serde_json::Value,
}

/// Sends a request as a forge does: once, without following redirects.
pub(super) fn send(url: &str, request: Request) -> Result<ServerAnswer, CliError> {
    let Request { headers, body } = request;
    let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(RootCerts::PlatformVerifier).build();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(ANSWER_LIMIT))
        .build()
        .into();
    let unreachable = |error: &dyn std::fmt::Display| CliError::Unreachable(format!("cannot reach `{url}`: {error}"));
    let mut builder = ureq::http::Request::post(url);
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    let request = builder.body(body).map_err(|error| unreachable(&error))?;
    let response = agent.run(request).map_err(|error| unreachable(&error))?;
    let status = response.status().as_u16();
    let mut text = String::new();
    let reader = response.into_body().into_reader();
    reader.take(LONGEST_ANSWER).read_to_string(&mut text).map_err(|error| unreachable(&error))?;
    let body = serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text));
    Ok(ServerAnswer { status, body })
}

/// GitHub gives up after 10 s; a store that is busy with another process may take as long, and says so then.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// An answer of ours is a few hundred bytes.
const LONGEST_ANSWER: u64 = 1 << 20;
