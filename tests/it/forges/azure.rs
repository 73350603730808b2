//! Azure DevOps: a user and a password, and nothing signed; the event's name and id in the body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::dialect::{Dialect, Fixture, PLAIN, Says, Told, delivery};
use crate::support::Delivery;

/// The password alone: any user will do.
pub const PASSWORD: Dialect = Dialect {
    forge: "azure",
    repository: "acme/blog",
    secret: PLAIN,
    other_secret: "another secret of the fixtures",
    proof: "authorization",
    signs_body: false,
    signs_time: false,
    sign: |delivery, secret| {
        let credentials = if secret.contains(':') { secret.to_owned() } else { format!("landfall:{secret}") };
        delivery.header("authorization", Some(&format!("Basic {}", STANDARD.encode(credentials))))
    },
    bad_proofs,
    push,
    tag: push,
    pongs: |told| vec![push(&Told { after: told.before, commit: told.before, ..told.clone() })],
    ignored,
    form: &[
        "Service hooks",
        "Code pushed",
        "Repository:                     blog\n",
        "Basic authentication username:  landfall\n",
        "Basic authentication password:  a secret of the fixtures\n",
        "Resource details to send:       All\n",
        "use https",
    ],
    fixtures: &[
        Fixture { file: "push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "force-push.json", says: Says::Deploys(&["main"]) },
        Fixture { file: "tag.json", says: Says::Deploys(&["tags"]) },
        Fixture { file: "annotated-tag.json", says: Says::Deploys(&["tags"]) },
        Fixture { file: "several.json", says: Says::Deploys(&["main", "tags"]) },
        Fixture { file: "create-branch.json", says: Says::Ignored("`refs/heads/release/2.0` is not the site's") },
        Fixture { file: "delete.json", says: Says::Ignored("`refs/heads/release/2.0` was deleted") },
        Fixture { file: "delete-tag.json", says: Says::Ignored("`refs/tags/v1.0.0` was deleted") },
        Fixture { file: "no-refs.json", says: Says::Ignored("the push names no ref") },
        Fixture { file: "blanks.json", says: Says::Ignored("another repository") },
        Fixture { file: "sample.json", says: Says::Ignored("another repository") },
        Fixture { file: "pull-request.json", says: Says::Ignored("event `git.pullrequest.created` is no push") },
    ],
};

/// The user and the password: another user will not do.
pub const WHOLE: Dialect = Dialect {
    secret: "landfall:a secret of the fixtures",
    other_secret: "ada:a secret of the fixtures",
    fixtures: &[Fixture { file: "push.json", says: Says::Deploys(&["main"]) }],
    ..PASSWORD
};

fn bad_proofs(good: &str) -> Vec<(&'static str, String)> {
    let encoded = good.strip_prefix("Basic ").expect("a good header");
    let credentials = String::from_utf8(STANDARD.decode(encoded).expect("base64")).expect("text");
    let (_, password) = credentials.split_once(':').expect("a colon");
    let basic = |credentials: &str| format!("Basic {}", STANDARD.encode(credentials));
    vec![
        ("an empty header", String::new()),
        ("the scheme alone", "Basic".to_owned()),
        ("no credentials", "Basic ".to_owned()),
        ("another scheme", format!("Bearer {encoded}")),
        ("a scheme in capitals", format!("BASIC {encoded}")),
        ("no scheme", encoded.to_owned()),
        ("no base64", format!("Basic {credentials}")),
        ("half of the padding", format!("Basic {}", encoded.trim_end_matches('='))),
        ("no colon", basic(password)),
        ("no password", basic("landfall:")),
        ("the password as the user", basic(&format!("{password}:"))),
        ("a byte less", basic(&credentials[..credentials.len() - 1])),
        ("a byte more", basic(&format!("{credentials}x"))),
        ("a newline more", basic(&format!("{credentials}\n"))),
        ("other capitals", basic(&credentials.to_uppercase())),
        ("twice in a line", format!("{good}, {good}")),
    ]
    .into_iter()
    // Where nothing is padded there is no half of it.
    .filter(|(_, value)| value != good)
    .collect()
}

fn push(told: &Told<'_>) -> Delivery {
    event(told, &json!([update(told)]))
}

fn update(told: &Told<'_>) -> Value {
    json!({ "name": told.ref_name, "oldObjectId": told.before, "newObjectId": told.after })
}

fn event(told: &Told<'_>, updates: &Value) -> Delivery {
    let (project, name) = told.repository.split_once('/').expect("a project");
    hook(&json!({ "id": told.id, "eventType": "git.push", "publisherId": "tfs", "resource": {
        "refUpdates": updates, "repository": { "id": "278d5cd2", "name": name, "project": { "name": project } } } }))
}

fn hook(body: &Value) -> Delivery {
    delivery(&[("content-type", "application/json; charset=utf-8")], body.to_string())
}

fn ignored(told: &Told<'_>) -> Vec<(Delivery, &'static str)> {
    let deleted = Told { after: "0000000000000000000000000000000000000000", ..told.clone() };
    vec![
        (hook(&json!({ "id": told.id, "eventType": "build.complete" })), "event `build.complete` is no push"),
        (event(told, &json!([])), "the push names no ref"),
        (push(&deleted), "`refs/heads/main` was deleted"),
    ]
}

mod password {
    super::super::contract::stories!(super::PASSWORD);
}

mod whole {
    super::super::contract::stories!(super::WHOLE);
}
