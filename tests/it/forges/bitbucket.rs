//! Bitbucket Cloud: SHA-256 in `X-Hub-Signature`, null for what is not there, several refs in one push.

use serde_json::{Value, json};

use super::dialect::{Dialect, Fixture, PLAIN, Says, Told, delivery};
use super::proofs::{bad_hex, hmac_hex};
use crate::support::Delivery;

pub const BITBUCKET: Dialect = Dialect {
    forge: "bitbucket",
    repository: "acme/blog",
    secret: PLAIN,
    other_secret: "another secret of the fixtures",
    proof: "x-hub-signature",
    signs_body: true,
    signs_time: false,
    sign,
    bad_proofs: |good| bad_hex("sha256=", good),
    push,
    // Its target is the commit, also of an annotated tag.
    tag: |told| push(&Told { after: told.commit, ..told.clone() }),
    pongs: |told| vec![push(&Told { after: told.before, commit: told.before, ..told.clone() })],
    ignored,
    form: &["Repository settings > Webhooks", "Triggers:  Repository push", "Secret:", "256 kB"],
    fixtures: &[
        Fixture { file: "push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "force-push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "truncated.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "tag.json", says: Says::Deploys(&["tags"]) },
        Fixture { file: "several.json", says: Says::Deploys(&["main", "tags"]) },
        Fixture { file: "create-branch.json", says: Says::Ignored("`refs/heads/release/2.0` is not the site's") },
        Fixture { file: "delete.json", says: Says::Ignored("`refs/heads/release/2.0` was deleted") },
        Fixture { file: "delete-tag.json", says: Says::Ignored("`refs/tags/v1.0.0` was deleted") },
        Fixture { file: "pull-request.json", says: Says::Ignored("event `pullrequest:created` is no push") },
    ],
};

fn sign(delivery: Delivery, secret: &str) -> Delivery {
    let signature = format!("sha256={}", hmac_hex(secret, &delivery.body));
    delivery.header("x-hub-signature", Some(&signature))
}

fn push(told: &Told<'_>) -> Delivery {
    hook(told.id, "repo:push", &json!({ "push": { "changes": [change(told)] }, "repository": repository(told) }))
}

fn change(told: &Told<'_>) -> Value {
    let (kind, name) = match told.ref_name.strip_prefix("refs/tags/") {
        Some(tag) => ("tag", tag),
        None => ("branch", told.ref_name.trim_start_matches("refs/heads/")),
    };
    let side = |id: &str| match id.bytes().all(|byte| byte == b'0') {
        true => Value::Null,
        false => json!({ "type": kind, "name": name, "target": { "type": "commit", "hash": id } }),
    };
    json!({ "old": side(told.before), "new": side(told.after), "forced": false, "truncated": false })
}

fn repository(told: &Told<'_>) -> Value {
    json!({ "full_name": told.repository, "uuid": "{673a6070-3421-46c9-9d48-90745f7bfe8e}" })
}

fn hook(id: &str, event: &str, body: &Value) -> Delivery {
    let headers = [
        ("content-type", "application/json"),
        ("x-event-key", event),
        ("x-request-uuid", id),
        ("x-hook-uuid", "4c4c5e7a-0b0e-4b7e-8f0a-1d3c9b1f2a77"),
        ("x-attempt-number", "1"),
    ];
    delivery(&headers, body.to_string())
}

fn ignored(told: &Told<'_>) -> Vec<(Delivery, &'static str)> {
    let deleted = Told { after: "0000000000000000000000000000000000000000", ..told.clone() };
    let of_draft = |told: &Told<'_>| change(&Told { ref_name: "refs/heads/draft", ..told.clone() });
    let several = json!({ "push": { "changes": [of_draft(told), of_draft(told)] }, "repository": repository(told) });
    let nothing = json!({ "push": { "changes": [] }, "repository": repository(told) });
    vec![
        (hook(told.id, "repo:commit_status_created", &json!({})), "event `repo:commit_status_created` is no push"),
        (hook(told.id, "repo:push", &several), "none of the 2 refs is the site's"),
        (hook(told.id, "repo:push", &nothing), "the push names no ref"),
        (push(&deleted), "`refs/heads/main` was deleted"),
    ]
}

super::contract::stories!(BITBUCKET);
