//! GitLab, with a token that is sent along and with a signing token.

use serde_json::json;

use super::dialect::{Dialect, Fixture, PLAIN, Says, Told, WHSEC, delivery};
use super::proofs::{bad_standard, bad_tokens, sign_standard};
use crate::support::Delivery;

/// `X-Gitlab-Token`, which says nothing about the body.
pub const TOKEN: Dialect = Dialect {
    forge: "gitlab",
    repository: "acme/web/blog",
    secret: PLAIN,
    other_secret: "another secret of the fixtures",
    proof: "x-gitlab-token",
    signs_body: false,
    signs_time: false,
    sign: |delivery, secret| delivery.header("x-gitlab-token", Some(secret)),
    bad_proofs: bad_tokens,
    push,
    tag: push,
    pongs,
    ignored,
    form: &["URL:", "Secret token:", "Push events; for sites with tags also Tag push events"],
    fixtures: &[
        Fixture { file: "push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "force-push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "group-push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "old-push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "system-push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "sha256-push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "tag.json", says: Says::Deploys(&["tags"]) },
        Fixture { file: "annotated-tag.json", says: Says::Deploys(&["tags"]) },
        Fixture { file: "system-tag.json", says: Says::Deploys(&["tags"]) },
        Fixture { file: "create-branch.json", says: Says::Ignored("`refs/heads/release/2.0` is not the site's") },
        Fixture { file: "delete.json", says: Says::Ignored("`refs/heads/release/2.0` was deleted") },
        Fixture { file: "delete-tag.json", says: Says::Ignored("`refs/tags/v1.0.0` was deleted") },
        Fixture { file: "issue.json", says: Says::Ignored("event `Issue Hook` is no push") },
        Fixture { file: "system-repository-update.json", says: Says::Ignored("let the system hook send push") },
        Fixture { file: "test.json", says: Says::Pong },
    ],
};

/// The signing token of GitLab 19, which is Standard Webhooks.
pub const SIGNED: Dialect = Dialect {
    secret: WHSEC,
    other_secret: "whsec_QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=",
    proof: "webhook-signature",
    signs_body: true,
    signs_time: true,
    sign: sign_standard,
    bad_proofs: bad_standard,
    form: &["URL:", "Signing token:", "Push events"],
    fixtures: &[
        Fixture { file: "signed-push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "signed-and-token-push.json", says: Says::Deploys(&["main"]) },
    ],
    ..TOKEN
};

fn push(told: &Told<'_>) -> Delivery {
    let Told { id, repository, ref_name, before, after, commit } = told;
    let (event, kind) =
        if ref_name.starts_with("refs/tags/") { ("Tag Push Hook", "tag_push") } else { ("Push Hook", "push") };
    let deleted = after.bytes().all(|byte| byte == b'0');
    let checkout = if deleted { json!(null) } else { json!(commit) };
    let body = json!({ "object_kind": kind, "event_name": kind, "ref": ref_name, "before": before, "after": after,
        "checkout_sha": checkout, "project_id": 15, "project": { "id": 15, "path_with_namespace": repository } });
    hook(id, event, &body.to_string())
}

fn hook(id: &str, event: &str, body: &str) -> Delivery {
    delivery(&[("content-type", "application/json"), ("x-gitlab-event", event), ("idempotency-key", id)], body)
}

fn pongs(told: &Told<'_>) -> Vec<Delivery> {
    vec![push(&Told { after: told.before, commit: told.before, ..told.clone() })]
}

fn ignored(told: &Told<'_>) -> Vec<(Delivery, &'static str)> {
    let deleted = Told { after: "0000000000000000000000000000000000000000", ..told.clone() };
    vec![
        (hook(told.id, "Merge Request Hook", "{}"), "event `Merge Request Hook` is no push"),
        (hook(told.id, "System Hook", r#"{"event_name":"project_create"}"#), "event `project_create` is no push"),
        (push(&deleted), "`refs/heads/main` was deleted"),
    ]
}

mod token {
    super::super::contract::stories!(super::TOKEN);
}

mod signed {
    super::super::contract::stories!(super::SIGNED);
}
