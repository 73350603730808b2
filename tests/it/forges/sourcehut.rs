//! SourceHut: Ed25519 over the body and a nonce behind it, and the answer to a query of GraphQL for a payload.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::dialect::{Dialect, Fixture, Says, Told, delivery};
use super::proofs::{OTHER_PUBLIC_KEY, PUBLIC_KEY, bad_ed25519, sign_ed25519};
use crate::support::Delivery;

/// An instance of one's own, with the key of the fixtures. That of sr.ht itself nobody else has.
pub const SOURCEHUT: Dialect = Dialect {
    forge: "sourcehut",
    repository: "~acme/blog",
    secret: PUBLIC_KEY,
    other_secret: OTHER_PUBLIC_KEY,
    proof: "x-payload-signature",
    signs_body: true,
    signs_time: false,
    sign,
    bad_proofs: |good| bad_ed25519("", good),
    push,
    tag,
    pongs: |told| vec![push(&Told { after: told.before, commit: told.before, ..told.clone() })],
    ignored,
    form: &[
        "Public key:",
        "Query:",
        "GIT_POST_RECEIVE",
        "only the tip of the configured ref is ever deployed",
        "does not name new branches",
    ],
    fixtures: &[
        Fixture { file: "push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "force-push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "tag.json", says: Says::Deploys(&["tags"]) },
        Fixture { file: "annotated-tag.json", says: Says::Deploys(&["tags"]) },
        Fixture { file: "several.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "create-branch.json", says: Says::Ignored("does not name new refs") },
        Fixture { file: "create-branch-named.json", says: Says::Ignored("`refs/heads/release/2.0` is not the site's") },
        Fixture { file: "delete.json", says: Says::Ignored("`refs/heads/release/2.0` was deleted") },
        Fixture { file: "delete-tag.json", says: Says::Ignored("`refs/tags/v1.0.0` was deleted") },
        Fixture { file: "pre-receive.json", says: Says::Ignored("event `GIT_PRE_RECEIVE` is no push") },
        Fixture { file: "errors.json", says: Says::Malformed("Access denied for OBJECTS") },
    ],
};

fn sign(delivery: Delivery, public_key: &str) -> Delivery {
    let sent = delivery.headers.iter().find(|(name, _)| name == "x-payload-nonce").map(|(_, value)| value.clone());
    let nonce = sent.unwrap_or_else(|| "0123456789abcdef".to_owned());
    let signature = sign_ed25519(public_key, &[&delivery.body, nonce.as_bytes()]);
    delivery.header("x-payload-nonce", Some(&nonce)).header("x-payload-signature", Some(&STANDARD.encode(signature)))
}

fn push(told: &Told<'_>) -> Delivery {
    update(told, json!({ "id": told.after, "message": "A page" }))
}

fn tag(told: &Told<'_>) -> Delivery {
    update(told, json!({ "id": told.after, "target": { "id": told.commit } }))
}

fn update(told: &Told<'_>, new: Value) -> Delivery {
    let zero = |id: &str| id.bytes().all(|byte| byte == b'0');
    let old = if zero(told.before) { Value::Null } else { json!({ "id": told.before }) };
    let new = if zero(told.after) { Value::Null } else { new };
    event(told, "GIT_POST_RECEIVE", &json!([{ "ref": { "name": told.ref_name }, "old": old, "new": new }]))
}

fn event(told: &Told<'_>, event: &str, updates: &Value) -> Delivery {
    let (owner, name) = told.repository.split_once('/').expect("an owner");
    let repository = json!({ "id": 42, "name": name, "owner": { "canonicalName": owner } });
    let webhook = json!({ "uuid": told.id, "event": event, "repository": repository, "updates": updates });
    // What stands in the headers counts for nothing, since it is not signed.
    let headers = [
        ("content-type", "application/json"),
        ("x-webhook-event", "GIT_POST_RECEIVE"),
        ("x-webhook-delivery", "6b8a1c1e-5a55-4a27-a0d7-9e0f7d3b8c11"),
    ];
    delivery(&headers, json!({ "data": { "webhook": webhook } }).to_string())
}

fn ignored(told: &Told<'_>) -> Vec<(Delivery, &'static str)> {
    let deleted = Told { after: "0000000000000000000000000000000000000000", ..told.clone() };
    let unnamed = json!([{ "ref": null, "old": null, "new": null }]);
    vec![
        (event(told, "REPO_UPDATE", &json!(null)), "event `REPO_UPDATE` is no push"),
        (event(told, "GIT_POST_RECEIVE", &unnamed), "does not name new refs"),
        (event(told, "GIT_POST_RECEIVE", &json!([])), "the push names no ref"),
        (push(&deleted), "`refs/heads/main` was deleted"),
        // Case tells two repositories apart there.
        (push(&Told { repository: "~Acme/blog", ..told.clone() }), "another repository"),
    ]
}

super::contract::stories!(SOURCEHUT);
