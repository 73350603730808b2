//! Standard Webhooks, with a shared secret and with a public key, over the body that Landfall defines.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use serde_json::{Value, json};

use super::dialect::{Dialect, Fixture, Says, Told, WHSEC, delivery};
use super::proofs::{OTHER_PUBLIC_KEY, PUBLIC_KEY, bad_ed25519, bad_standard, sign_ed25519, sign_standard};
use crate::support::Delivery;

/// HMAC-SHA256.
pub const SHARED: Dialect = Dialect {
    forge: "standard",
    repository: "acme/blog",
    secret: WHSEC,
    other_secret: "whsec_QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=",
    proof: "webhook-signature",
    signs_body: true,
    signs_time: true,
    sign: sign_standard,
    bad_proofs: bad_standard,
    push,
    tag: push,
    pongs: |told| vec![hook(told.id, &json!({ "type": "ping" })), push(&Told { after: told.before, ..told.clone() })],
    ignored,
    form: &["Secret:", "openssl dgst", "REPOSITORY='\"acme/blog\"'\n", "\"ref\":\"refs/heads/main\""],
    fixtures: &[
        Fixture { file: "push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "force-push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "long-ids.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "tag.json", says: Says::Deploys(&["tags"]) },
        Fixture { file: "several.json", says: Says::Deploys(&["main", "tags"]) },
        Fixture { file: "create-branch.json", says: Says::Ignored("`refs/heads/release/2.0` is not the site's") },
        Fixture { file: "delete.json", says: Says::Ignored("`refs/heads/release/2.0` was deleted") },
        Fixture { file: "delete-tag.json", says: Says::Ignored("`refs/tags/v1.0.0` was deleted") },
        Fixture { file: "build.json", says: Says::Ignored("event `build.finished` is no push") },
        Fixture { file: "ping.json", says: Says::Pong },
    ],
};

/// Ed25519: what is configured can not sign.
pub const PUBLIC: Dialect = Dialect {
    secret: WHPK,
    other_secret: OTHER_WHPK,
    sign: sign_by_private_key,
    bad_proofs: |good| bad_ed25519("v1a,", good),
    form: &["Public key:", "`v1a`"],
    fixtures: &[Fixture { file: "push-public-key.json", says: Says::Deploys(&["main"]) }],
    ..SHARED
};

const WHPK: &str = "whpk_Lj1GvEKXBCRbWZmhNI0hUkmuh/27Nvu4lcZhH1aiddk=";
const OTHER_WHPK: &str = "whpk_01lnYlTyyaHXVcWy8U8PHievyIfNslizMTT4QMM119U=";

fn sign_by_private_key(delivery: Delivery, public_key: &str) -> Delivery {
    let id = delivery.headers.iter().find(|(name, _)| name == "webhook-id").expect("an id").1.clone();
    let timestamp = Utc::now().timestamp().to_string();
    let public_key = public_key.strip_prefix("whpk_").expect("a public key");
    let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &delivery.body];
    let signature = format!("v1a,{}", STANDARD.encode(sign_ed25519(public_key, &parts)));
    delivery.header("webhook-timestamp", Some(&timestamp)).header("webhook-signature", Some(&signature))
}

fn push(told: &Told<'_>) -> Delivery {
    let Told { id, repository, ref_name, before, after, commit: _ } = told;
    let data = json!({ "repository": repository, "ref": ref_name, "before": before, "after": after });
    hook(id, &json!({ "type": "push", "data": data }))
}

fn hook(id: &str, body: &Value) -> Delivery {
    delivery(&[("content-type", "application/json"), ("webhook-id", id)], body.to_string())
}

fn ignored(told: &Told<'_>) -> Vec<(Delivery, &'static str)> {
    let deleted = Told { after: "0000000000000000000000000000000000000000", ..told.clone() };
    let nothing = json!({ "type": "push", "data": { "repository": told.repository, "changes": [] } });
    vec![
        (hook(told.id, &json!({ "type": "release.published" })), "event `release.published` is no push"),
        (hook(told.id, &nothing), "the push names no ref"),
        (push(&deleted), "`refs/heads/main` was deleted"),
        (push(&Told { repository: "Acme/blog", ..told.clone() }), "another repository"),
    ]
}

#[test]
fn the_keys_are_those_of_sourcehuts_fixtures() {
    assert_eq!((WHPK, OTHER_WHPK), (&*format!("whpk_{PUBLIC_KEY}"), &*format!("whpk_{OTHER_PUBLIC_KEY}")));
}

mod shared {
    super::super::contract::stories!(super::SHARED);
}

mod public {
    super::super::contract::stories!(super::PUBLIC);
}
