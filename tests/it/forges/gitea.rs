//! Gitea, and Forgejo, which differs in the names of its headers: each sends its ancestors' headers too.

use serde_json::json;

use super::dialect::{Dialect, Fixture, PLAIN, Says, Told, delivery, expect};
use super::proofs::{bad_hex, hmac_hex};
use crate::support::Delivery;

const DEPLOYS_MAIN: Says = Says::Deploys(&["main"]);
const DEPLOYS_TAGS: Says = Says::Deploys(&["tags"]);

/// What both of them send.
const FIXTURES: [Fixture; 16] = [
    Fixture { file: "push.json", says: DEPLOYS_MAIN },
    Fixture { file: "push-form.form", says: DEPLOYS_MAIN },
    Fixture { file: "capped-push.json", says: DEPLOYS_MAIN },
    Fixture { file: "force-push.json", says: DEPLOYS_MAIN },
    Fixture { file: "sha256-push.json", says: DEPLOYS_MAIN },
    Fixture { file: "tag.json", says: DEPLOYS_TAGS },
    Fixture { file: "annotated-tag.json", says: DEPLOYS_TAGS },
    Fixture { file: "create-branch.json", says: Says::Ignored("`refs/heads/release/2.0` is not the site's") },
    Fixture { file: "create-branch-event.json", says: Says::Ignored("event `create` is no push") },
    Fixture { file: "create-tag-event.json", says: Says::Ignored("event `create` is no push") },
    Fixture { file: "delete-branch-event.json", says: Says::Ignored("event `delete` is no push") },
    Fixture { file: "delete-tag-event.json", says: Says::Ignored("event `delete` is no push") },
    Fixture { file: "delete-tag.json", says: Says::Ignored("`refs/tags/v1.0.0` was deleted") },
    Fixture { file: "issues.json", says: Says::Ignored("event `issues` is no push") },
    Fixture { file: "no-secret.json", says: Says::NoSecret },
    Fixture { file: "test.json", says: Says::Pong },
];

pub const GITEA: Dialect = Dialect {
    forge: "gitea",
    repository: "acme/blog",
    secret: PLAIN,
    other_secret: "another secret of the fixtures",
    proof: "x-gitea-signature",
    signs_body: true,
    signs_time: false,
    sign: |delivery, secret| {
        let signature = hmac_hex(secret, &delivery.body);
        delivery.header("x-gitea-signature", Some(&signature))
    },
    bad_proofs: |good| bad_hex("", good),
    push,
    tag: push,
    pongs: |told| vec![push(&Told { after: told.before, commit: told.before, ..told.clone() })],
    ignored: |told| {
        let gone = Told { ref_name: "refs/tags/v1", after: "0000000000000000000000000000000000000000", ..told.clone() };
        vec![
            (event(told.id, "issues", "{}"), "event `issues` is no push"),
            (event(told.id, "delete", r#"{"ref":"main","ref_type":"branch"}"#), "event `delete` is no push"),
            (event(told.id, "create", r#"{"ref":"v1","ref_type":"tag"}"#), "event `create` is no push"),
            (push(&gone), "`refs/tags/v1` was deleted"),
        ]
    },
    form: &["> Gitea", "Target URL:", "POST Content Type:  application/json", "Secret:", "Push Events"],
    fixtures: &{
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = FIXTURES;
        [Fixture { file: "old-push.json", says: DEPLOYS_MAIN }, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    },
};

pub const FORGEJO: Dialect = Dialect {
    forge: "forgejo",
    proof: "x-forgejo-signature",
    sign: |delivery, secret| {
        let signature = hmac_hex(secret, &delivery.body);
        delivery.header("x-forgejo-signature", Some(&signature))
    },
    form: &["> Forgejo", "Target URL:", "POST Content Type:  application/json", "Secret:", "Push Events"],
    fixtures: &FIXTURES,
    ..GITEA
};

fn push(told: &Told<'_>) -> Delivery {
    let Told { id, repository, ref_name, before, after, commit } = told;
    let deleted = after.bytes().all(|byte| byte == b'0');
    let head = if deleted { json!(null) } else { json!({ "id": commit, "message": "a change\n" }) };
    let body = json!({ "ref": ref_name, "before": before, "after": after, "commits": [], "total_commits": 0,
        "head_commit": head, "repository": { "id": 27, "full_name": repository } });
    event(id, "push", &body.to_string())
}

/// An event with the headers of both, each of which looks at its own.
fn event(id: &str, event: &str, body: &str) -> Delivery {
    let headers = [
        ("content-type", "application/json"),
        ("x-forgejo-event", event),
        ("x-forgejo-delivery", id),
        ("x-gitea-event", event),
        ("x-gitea-delivery", id),
    ];
    delivery(&headers, body)
}

/// The envelope of a form is not signed: whoever changes it changes nothing.
#[test]
fn of_a_form_only_the_signed_field_counts() {
    let house = GITEA.house();
    let daemon = house.serve();
    let still = push(&Told::push(&GITEA, "d-1", "refs/heads/main", &"1".repeat(40), &"1".repeat(40)));
    let signature = hmac_hex(PLAIN, &still.body);
    let encoded = |bytes: &[u8]| bytes.iter().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let form = |text: String| {
        Delivery { body: text.into_bytes(), ..still.clone() }
            .header("content-type", Some("application/x-www-form-urlencoded"))
            .header("x-gitea-signature", Some(&signature))
    };
    let payload = encoded(&still.body);
    for good in [format!("payload={payload}"), format!("ref=refs%2Fheads%2Fevil&payload={payload}&secret=x")] {
        expect(&daemon, &form(good), 200, "pong", "");
    }
    let evil = encoded(b"{\"ref\":\"refs/heads/main\"}");
    for bad in [
        format!("payload={payload}&payload={evil}"),
        format!("payload={evil}&payload={payload}"),
        format!("payload={payload}%"),
        format!("Payload={payload}"),
        format!("payload={payload}+"),
        encoded(&still.body),
        String::new(),
    ] {
        assert_eq!(daemon.send(&form(bad.clone())).status, 401, "{bad}");
    }
    let as_json = form(format!("payload={payload}")).header("content-type", Some("application/json"));
    assert_eq!(daemon.send(&as_json).status, 401, "the content type says what is signed");
}

mod as_gitea {
    super::super::contract::stories!(super::GITEA);
}

mod as_forgejo {
    super::super::contract::stories!(super::FORGEJO);
}
