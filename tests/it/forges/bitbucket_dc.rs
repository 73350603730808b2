//! Bitbucket Data Center: the signature of Bitbucket Cloud, zeros for what is not there, and a test of the connection.

use serde_json::{Value, json};

use super::dialect::{Dialect, Fixture, PLAIN, Says, Told, delivery};
use super::proofs::{bad_hex, hmac_hex};
use crate::support::Delivery;

pub const BITBUCKET_DC: Dialect = Dialect {
    forge: "bitbucket-dc",
    // As a URL has it; the payloads have the project's key in capitals.
    repository: "acme/blog",
    secret: PLAIN,
    other_secret: "another secret of the fixtures",
    proof: "x-hub-signature",
    signs_body: true,
    signs_time: false,
    sign,
    bad_proofs: |good| bad_hex("sha256=", good),
    push,
    tag: push,
    pongs,
    ignored,
    form: &["Create webhook", "Repository: Push", "Secret:", "`Test connection`"],
    fixtures: &[
        Fixture { file: "push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "push-old-server.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "force-push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "tag.json", says: Says::Deploys(&["tags"]) },
        Fixture { file: "annotated-tag.json", says: Says::Deploys(&["tags"]) },
        Fixture { file: "several.json", says: Says::Deploys(&["main", "tags"]) },
        Fixture { file: "create-branch.json", says: Says::Ignored("`refs/heads/release/2.0` is not the site's") },
        Fixture { file: "delete.json", says: Says::Ignored("`refs/heads/release/2.0` was deleted") },
        Fixture { file: "delete-tag.json", says: Says::Ignored("`refs/tags/v1.0.0` was deleted") },
        Fixture { file: "personal.json", says: Says::Ignored("another repository") },
        Fixture { file: "pull-request.json", says: Says::Ignored("event `pr:opened` is no push") },
        Fixture { file: "ping.json", says: Says::Pong },
    ],
};

fn sign(delivery: Delivery, secret: &str) -> Delivery {
    let signature = format!("sha256={}", hmac_hex(secret, &delivery.body));
    delivery.header("x-hub-signature", Some(&signature))
}

fn push(told: &Told<'_>) -> Delivery {
    hook(told.id, "repo:refs_changed", &body(told, &json!([change(told)])))
}

fn body(told: &Told<'_>, changes: &Value) -> Value {
    let (key, slug) = told.repository.split_once('/').expect("a project");
    let repository = json!({ "slug": slug, "id": 84, "project": { "key": key.to_uppercase() } });
    json!({ "eventKey": "repo:refs_changed", "repository": repository, "changes": changes })
}

fn change(told: &Told<'_>) -> Value {
    let zero = |id: &str| id.bytes().all(|byte| byte == b'0');
    let kind = if zero(told.before) {
        "ADD"
    } else if zero(told.after) {
        "DELETE"
    } else {
        "UPDATE"
    };
    json!({ "ref": { "id": told.ref_name }, "refId": told.ref_name, "fromHash": told.before, "toHash": told.after,
        "type": kind })
}

fn hook(id: &str, event: &str, body: &Value) -> Delivery {
    let headers = [("content-type", "application/json; charset=utf-8"), ("x-event-key", event), ("x-request-id", id)];
    delivery(&headers, body.to_string())
}

fn pongs(told: &Told<'_>) -> Vec<Delivery> {
    vec![
        hook(told.id, "diagnostics:ping", &json!({ "test": true })),
        push(&Told { after: told.before, commit: told.before, ..told.clone() }),
    ]
}

fn ignored(told: &Told<'_>) -> Vec<(Delivery, &'static str)> {
    let deleted = Told { after: "0000000000000000000000000000000000000000", ..told.clone() };
    vec![
        (hook(told.id, "repo:modified", &json!({})), "event `repo:modified` is no push"),
        (hook(told.id, "repo:refs_changed", &body(told, &json!([]))), "the push names no ref"),
        (push(&deleted), "`refs/heads/main` was deleted"),
    ]
}

super::contract::stories!(BITBUCKET_DC);
