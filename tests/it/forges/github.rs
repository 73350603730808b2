//! GitHub, and GitHub Enterprise Server.

use serde_json::json;

use super::contract::stories;
use super::dialect::{Dialect, Fixture, PLAIN, Says, Told, delivery};
use super::proofs::{bad_hex, hmac_hex};
use crate::support::Delivery;

pub const GITHUB: Dialect = Dialect {
    forge: "github",
    repository: "acme/blog",
    secret: PLAIN,
    other_secret: "another secret of the fixtures",
    proof: "x-hub-signature-256",
    signs_body: true,
    signs_time: false,
    sign: |delivery, secret| {
        let signature = format!("sha256={}", hmac_hex(secret, &delivery.body));
        delivery.header("x-hub-signature-256", Some(&signature))
    },
    bad_proofs: |good| bad_hex("sha256=", good),
    push,
    tag: push,
    pongs: |told| {
        let still = Told { after: told.before, commit: told.before, ..told.clone() };
        vec![event(told.id, "ping", r#"{"zen":"Keep it logically awesome."}"#), push(&still)]
    },
    ignored: |told| {
        let deleted = Told { after: ZEROS, ..told.clone() };
        vec![
            (event(told.id, "issues", "{}"), "event `issues` is no push"),
            (event(told.id, "delete", "{}"), "event `delete` is no push"),
            (push(&deleted), "`refs/heads/main` was deleted"),
        ]
    },
    form: &["Payload URL:", "Content type:  application/json", "Secret:", "Just the push event"],
    fixtures: &[
        Fixture { file: "push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "push-form.form", says: Says::Deploys(&["main"]) },
        Fixture { file: "force-push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "ghes-push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "tag.json", says: Says::Deploys(&["tags"]) },
        Fixture { file: "annotated-tag.json", says: Says::Deploys(&["tags"]) },
        Fixture { file: "create-branch.json", says: Says::Ignored("`refs/heads/release/2.0` is not the site's") },
        Fixture { file: "delete.json", says: Says::Ignored("`refs/heads/release/2.0` was deleted") },
        Fixture { file: "delete-tag.json", says: Says::Ignored("`refs/tags/v1.0.0` was deleted") },
        Fixture { file: "create-event.json", says: Says::Ignored("event `create` is no push") },
        Fixture { file: "ping.json", says: Says::Pong },
        Fixture { file: "organization-ping.json", says: Says::Pong },
    ],
};

fn push(told: &Told<'_>) -> Delivery {
    let Told { id, repository, ref_name, before, after, commit } = told;
    let deleted = after.bytes().all(|byte| byte == b'0');
    let head = if deleted { json!(null) } else { json!({ "id": commit, "message": "a change" }) };
    let body = json!({ "ref": ref_name, "before": before, "after": after, "deleted": deleted, "head_commit": head,
        "repository": { "id": 186_853_002, "full_name": repository } });
    event(id, "push", &body.to_string())
}

fn event(id: &str, event: &str, body: &str) -> Delivery {
    delivery(&[("content-type", "application/json"), ("x-github-event", event), ("x-github-delivery", id)], body)
}

const ZEROS: &str = "0000000000000000000000000000000000000000";

stories!(GITHUB);
