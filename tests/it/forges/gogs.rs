//! Gogs, which tells of tags by `create` alone.

use serde_json::json;

use super::contract::stories;
use super::dialect::{Dialect, Fixture, PLAIN, Says, Told, delivery};
use super::proofs::{bad_hex, hmac_hex};
use crate::support::Delivery;

pub const GOGS: Dialect = Dialect {
    forge: "gogs",
    repository: "acme/blog",
    secret: PLAIN,
    other_secret: "another secret of the fixtures",
    proof: "x-gogs-signature",
    signs_body: true,
    signs_time: false,
    sign: |delivery, secret| {
        let signature = hmac_hex(secret, &delivery.body);
        delivery.header("x-gogs-signature", Some(&signature))
    },
    bad_proofs: |good| bad_hex("", good),
    push,
    tag,
    pongs: |told| vec![push(&Told { after: told.before, commit: told.before, ..told.clone() })],
    ignored: |told| {
        let of_tag =
            |sha| json!({ "ref": "v1", "ref_type": "tag", "sha": sha, "repository": { "full_name": "acme/blog" } });
        let of_branch =
            json!({ "ref": "main", "ref_type": "branch", "sha": "", "repository": { "full_name": "acme/blog" } });
        vec![
            (event(told.id, "issues", "{}"), "event `issues` is no push"),
            (event(told.id, "delete", r#"{"ref":"main","ref_type":"branch"}"#), "event `delete` is no push"),
            (event(told.id, "create", &of_branch.to_string()), "event `create` is no push"),
            (event(told.id, "create", &of_tag("").to_string()), "does not say which commit the new tag names"),
        ]
    },
    form: &["Payload URL:", "Content Type:", "Secret:", "for sites with tags: Let me choose, Push and Create"],
    fixtures: &[
        Fixture { file: "push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "push-form.form", says: Says::Deploys(&["main"]) },
        Fixture { file: "old-push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "force-push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "create-tag-event.json", says: Says::Deploys(&["tags"]) },
        Fixture { file: "create-annotated-tag-event.json", says: Says::Deploys(&["tags"]) },
        Fixture { file: "old-create-tag-event.json", says: Says::Ignored("does not say which commit") },
        Fixture { file: "create-branch.json", says: Says::Ignored("`refs/heads/release/2.0` is not the site's") },
        Fixture { file: "create-branch-event.json", says: Says::Ignored("event `create` is no push") },
        Fixture { file: "delete-branch-event.json", says: Says::Ignored("event `delete` is no push") },
        Fixture { file: "delete-tag-event.json", says: Says::Ignored("event `delete` is no push") },
        Fixture { file: "issues.json", says: Says::Ignored("event `issues` is no push") },
        Fixture { file: "no-secret.json", says: Says::NoSecret },
        Fixture { file: "test.json", says: Says::Pong },
    ],
};

fn push(told: &Told<'_>) -> Delivery {
    let Told { id, repository, ref_name, before, after, commit } = told;
    let commits = json!([{ "id": commit, "message": "a change\n" }]);
    let body = json!({ "ref": ref_name, "before": before, "after": after, "commits": commits,
        "repository": { "id": 27, "full_name": repository } });
    event(id, "push", &body.to_string())
}

fn tag(told: &Told<'_>) -> Delivery {
    let Told { id, repository, ref_name, after, before: _, commit: _ } = told;
    let body = json!({ "ref": ref_name.trim_start_matches("refs/tags/"), "ref_type": "tag", "sha": after,
        "default_branch": "main", "repository": { "id": 27, "full_name": repository } });
    event(id, "create", &body.to_string())
}

fn event(id: &str, event: &str, body: &str) -> Delivery {
    let headers = [("content-type", "application/json"), ("x-gogs-event", event), ("x-gogs-delivery", id)];
    delivery(&headers, body)
}

stories!(GOGS);
