//! Requests that were really made wrong, each in its way, and what is told about them.

use std::collections::BTreeSet;

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::*;
use crate::webhook::signature::Signature;
use crate::webhook::{CONTENT_TYPE, FORM, JSON, TestKind, TestMessage, check_secret, compose, fixtures};

const SECRET: &str = "5f2b8c1d9e3a7f605f2b8c1d9e3a7f60";
const WHSEC: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDazkIxYDE5xg=";
const BODY: &str = "{\"ref\":\"refs/heads/main\",\"by\":\"J\u{fc}rgen <j@example.com>\"}";

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_787_392_881, 0).unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

/// A request as GitHub sends it, with a signature by this key over what may be another body.
fn github(key: &[u8], signed: &[u8], body: &[u8]) -> Request {
    let mut request = Request { headers: Vec::new(), body: body.to_vec() };
    request.push_header(CONTENT_TYPE, JSON);
    request.push_header("x-github-event", "push");
    let digits = hex::encode(Signature::new(key, &[signed]).into_bytes());
    request.push_header("x-hub-signature-256", format!("sha256={digits}"));
    request
}

/// A request as Standard Webhooks has it, with a signature by this key.
fn standard(key: &[u8]) -> Request {
    use base64::Engine;
    let time = now().timestamp().to_string();
    let signature = Signature::new(key, &[b"id.", time.as_bytes(), b".", BODY.as_bytes()]).into_bytes();
    let mut request = Request { headers: Vec::new(), body: BODY.into() };
    request.push_header(CONTENT_TYPE, JSON);
    request.push_header("x-gitlab-event", "Push Hook");
    request.push_header("webhook-id", "id");
    request.push_header("webhook-timestamp", time);
    let encoded = base64::engine::general_purpose::STANDARD.encode(signature);
    request.push_header("webhook-signature", format!("v1,{encoded}"));
    request
}

fn token(sent: &str) -> Request {
    let mut request = Request { headers: Vec::new(), body: BODY.into() };
    request.push_header(CONTENT_TYPE, JSON);
    request.push_header("x-gitlab-event", "Push Hook");
    request.push_header("x-gitlab-token", sent);
    request
}

fn hints(forge: Forge, request: &Request, configured: &str) -> Vec<Hint> {
    hints_for(forge, request, configured, &Allowance::for_operators())
}

fn hints_for(forge: Forge, request: &Request, configured: &str, allowance: &Allowance) -> Vec<Hint> {
    let secrets = [secret(configured)];
    let refused = prove(forge, request, &secrets, now());
    assert!(refused.is_err(), "the request was really made wrong");
    explain(&Doubt { forge, request, secrets: &secrets, others: &[], now: now(), allowance })
}

#[test]
fn each_way_to_get_a_secret_wrong_is_told() {
    let of_key = |key: &str| github(key.as_bytes(), BODY.as_bytes(), BODY.as_bytes());
    let bytes = hex::decode(SECRET).unwrap();
    let whsec_text = &WHSEC["whsec_".len()..];
    use base64::Engine;
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let table: Vec<(Forge, Request, String, &str)> = vec![
        (Forge::Github, of_key(SECRET), format!("{SECRET}\n\n"), "had no newline at its end"),
        (Forge::Github, of_key(SECRET), format!("{SECRET}\r\n"), "had no newline at its end"),
        (Forge::Github, of_key(SECRET), format!(" {SECRET}"), "had no white space around it"),
        (Forge::Gitlab, token(SECRET), format!("{SECRET} "), "had no white space around it"),
        (Forge::Github, of_key(&format!("{SECRET}\n")), SECRET.into(), "ended with a newline"),
        (Forge::Github, of_key(&format!("{SECRET}\r\n")), SECRET.into(), "ended with a carriage return and a newline"),
        (Forge::Gitlab, token(&format!("{SECRET} ")), SECRET.into(), "ended with a space"),
        (Forge::Github, of_key(&format!(" {SECRET}")), SECRET.into(), "began with a space"),
        (Forge::Github, of_key(SECRET), format!("\"{SECRET}\""), "had no quotation marks around it"),
        (Forge::Gitlab, token(SECRET), format!("'{SECRET}'"), "had no quotation marks around it"),
        (Forge::Github, of_key(SECRET), format!("SECRET={SECRET}"), "had no `NAME=` before it"),
        (Forge::Github, of_key(SECRET), format!("\u{feff}{SECRET}"), "did not begin with a byte order mark"),
        (
            Forge::Github,
            github(&bytes, BODY.as_bytes(), BODY.as_bytes()),
            base64(&bytes),
            "were the bytes that it is the base64 of",
        ),
        (
            Forge::Github,
            github(&bytes, BODY.as_bytes(), BODY.as_bytes()),
            format!("whsec_{}", base64(&bytes)),
            "were the bytes that it is the base64 of",
        ),
        (
            Forge::Github,
            github(&bytes, BODY.as_bytes(), BODY.as_bytes()),
            SECRET.into(),
            "were the bytes that it is the hex of",
        ),
        (Forge::Github, of_key(&base64(SECRET.as_bytes())), SECRET.into(), "were given as its base64"),
        (Forge::Gitlab, token(&hex::encode(SECRET)), SECRET.into(), "were given as its hex"),
        (Forge::Github, of_key(WHSEC), whsec_text.into(), "had `whsec_` before it"),
        (Forge::Github, of_key(whsec_text), WHSEC.into(), "had no `whsec_` before it"),
        (Forge::Gitlab, standard(WHSEC.as_bytes()), WHSEC.into(), "were taken as text with its `whsec_`"),
        (Forge::Gitlab, standard(whsec_text.as_bytes()), WHSEC.into(), "were taken as text after its `whsec_`"),
        (Forge::Gitlab, standard(SECRET.as_bytes()), SECRET.into(), "were taken as text and not as base64"),
    ];
    let mut told = BTreeSet::new();
    for (forge, request, configured, expected) in table {
        let hints = hints(forge, &request, &configured);
        let [Hint::Secret(words)] = hints[..] else { panic!("{expected}: {hints:?}") };
        assert!(words.starts_with(expected), "{expected}: {words}");
        told.insert(words);
    }
    assert_eq!(told, secrets::CHANGES.iter().map(|(words, _)| *words).collect(), "each of them");
}

#[test]
fn each_way_to_change_a_body_is_told() {
    let table = [
        ("{}", "{}\n", "had no newline at its end"),
        ("{}", "{}\r\n", "had no newline at its end"),
        ("{}\n", "{}", "had a newline at its end"),
        ("{}\r\n", "{}", "had a carriage return and a newline at its end"),
        ("{}", " {}\n\n", "had no white space around it"),
        ("{\n\"a\":\n1}", "{\r\n\"a\":\r\n1}", "had LF where it has CR LF"),
        ("{\r\n\"a\":\r\n1}", "{\n\"a\":\r\n1}", "had CR LF where it has LF"),
        ("{}", "\u{feff}{}", "did not begin with a byte order mark"),
        ("\u{feff}{}", "{}", "began with a byte order mark"),
        ("payload=%7B%22a%22%3A+1%7D", "{\"a\": 1}", "were the form with it in the field `payload`"),
        ("{\"a\":1}", "{ \"a\": 1 }", "had its JSON without white space"),
        (
            "{\"a\":\"\\u00fc\"}",
            "{\n  \"a\": \"\u{fc}\"\n}",
            "had its JSON without white space and with escapes for all",
        ),
    ];
    let mut told = BTreeSet::new();
    for (sent, came, expected) in table {
        let found = hints(Forge::Github, &github(SECRET.as_bytes(), sent.as_bytes(), came.as_bytes()), SECRET);
        let [Hint::Body(change)] = found[..] else { panic!("{expected}: {found:?}") };
        assert!(change.to_string().starts_with(expected), "{expected}: {change}");
        told.insert(change.to_string());
    }
    assert!(bodies::BYTES.iter().all(|(words, _)| told.contains(*words)), "each of them: {told:?}");

    let form = |sent: &str, came: &str| {
        let mut request = github(SECRET.as_bytes(), sent.as_bytes(), came.as_bytes());
        request.headers[0].1 = FORM.into();
        hints(Forge::Github, &request, SECRET)
    };
    for (sent, came, expected) in [
        ("{\"a\": 1}", "payload=%7B%22a%22%3A+1%7D", "were the JSON in the form's field"),
        ("payload=%7B%22a%22%3A+1%7D", "x=1&payload=%7b%22a%22:%201}", "were the form encoded anew"),
    ] {
        let found = form(sent, came);
        assert!(matches!(found[..], [Hint::Body(change)] if change.to_string().starts_with(expected)), "{found:?}");
    }
    // A signature over id, time and body is no other than one over the body.
    let mut request = standard(&hex::decode(SECRET).unwrap());
    request.body.push(b'\n');
    let key = format!("whsec_{}", {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(hex::decode(SECRET).unwrap())
    });
    assert_eq!(hints(Forge::Gitlab, &request, &key), [Hint::Body(BodyChange::Bytes("had no newline at its end"))]);
}

#[test]
fn the_wrong_forge_and_the_wrong_url_are_told() {
    let message = TestMessage { key: "k", repository: "acme/blog", kind: TestKind::Ping };
    let from_github = compose(Forge::Github, &secret(SECRET), &message, now()).unwrap();
    let from_gitlab = compose(Forge::Gitlab, &secret(SECRET), &message, now()).unwrap();
    let forge = |sender, configured| vec![Hint::Forge { sender, configured }];
    assert_eq!(hints(Forge::Gitlab, &from_github, SECRET), forge("github", Forge::Gitlab));
    assert_eq!(hints(Forge::Github, &from_gitlab, SECRET), forge("gitlab", Forge::Github));
    // Gitea also signs as GitHub does; its own header says who it is.
    let mut from_gitea = github(SECRET.as_bytes(), BODY.as_bytes(), BODY.as_bytes());
    from_gitea.push_header("x-gitea-event", "push");
    assert_eq!(hints(Forge::Gitlab, &from_gitea, SECRET), forge("gitea", Forge::Gitlab));
    // With another secret there is only the header to go by.
    let stranger = |sender, header, configured| vec![Hint::Stranger { sender, header, configured }];
    let wrong = "another secret of some length";
    assert_eq!(hints(Forge::Gitlab, &from_gitea, wrong), stranger("gitea", "x-gitea-event", Forge::Gitlab));
    assert_eq!(hints(Forge::Github, &from_gitlab, wrong), stranger("gitlab", "x-gitlab-event", Forge::Github));
    assert_eq!(hints(Forge::Github, &from_gitea, wrong), [], "it also sends the configured one's header");

    let (shop, mall) = (RepositoryName::parse("shop").unwrap(), RepositoryName::parse("mall").unwrap());
    let (mall_secrets, shop_secrets) = ([secret("the secret of the mall")], [secret(wrong), secret(SECRET)]);
    let others = [
        Other { name: &mall, forge: Forge::Gitlab, secrets: &mall_secrets },
        Other { name: &shop, forge: Forge::Github, secrets: &shop_secrets },
    ];
    let own = [secret("the secret of the blog")];
    let of = |request: &Request, forge| {
        explain(&Doubt {
            forge,
            request,
            secrets: &own,
            others: &others,
            now: now(),
            allowance: &Allowance::for_operators(),
        })
    };
    assert_eq!(of(&from_github, Forge::Github), [Hint::Repository(shop.clone())]);
    assert_eq!(of(&from_github, Forge::Gitlab), [Hint::Repository(shop.clone())], "whatever the forge of this one");
    assert_eq!(of(&from_gitlab, Forge::Gitlab), [], "its forge has to fit too");
}

#[test]
fn what_each_forge_sends_is_recognised_where_another_is_configured() {
    let signed_at = DateTime::from_timestamp(fixtures::SIGNED_AT, 0).unwrap();
    let table = [
        (Forge::Github, vec!["push.json", "push-form.form"], fixtures::SECRET),
        (Forge::Gitlab, vec!["push.json"], fixtures::SECRET),
        (Forge::Gitea, vec!["push.json", "push-form.form"], fixtures::SECRET),
        (Forge::Forgejo, vec!["push.json", "push-form.form"], fixtures::SECRET),
        (Forge::Gogs, vec!["push.json", "push-form.form"], fixtures::SECRET),
        (Forge::Bitbucket, vec!["push.json"], fixtures::SECRET),
        (Forge::BitbucketDc, vec!["push.json"], fixtures::SECRET),
        (Forge::Azure, vec!["push.json"], fixtures::SECRET),
        (Forge::Sourcehut, vec!["push.json"], fixtures::PUBLIC_KEY),
        (Forge::Standard, vec!["push.json"], fixtures::SIGNING_SECRET),
    ];
    assert_eq!(table.each_ref().map(|(forge, ..)| *forge), Forge::ALL);
    for (from, files, proof) in table {
        let (mut told, secrets) = (0, [secret(proof)]);
        for file in files {
            let request = fixtures::load(from.as_str(), file);
            assert_eq!(prove(from, &request, &secrets, signed_at), Ok(()), "{from} {file}");
            let refuses = |other: &Forge| prove(*other, &request, &secrets, signed_at).is_err();
            let may_have = |other: &Forge| check_secret(*other, &secrets[0]).is_ok();
            for configured in Forge::ALL.into_iter().filter(|other| refuses(other) && may_have(other)) {
                let doubt = Doubt {
                    forge: configured,
                    request: &request,
                    secrets: &secrets,
                    others: &[],
                    now: signed_at,
                    allowance: &Allowance::for_operators(),
                };
                let expected = Hint::Forge { sender: from.as_str(), configured };
                assert_eq!(explain(&doubt), [expected], "{from} {file} at {configured}");
                told += 1;
            }
        }
        assert!(told >= 5, "{from}: {told}");
    }
}

#[test]
fn with_a_public_key_anybody_can_sign_and_gets_no_hint_for_it() {
    let of_key = |key: &str| github(key.as_bytes(), BODY.as_bytes(), BODY.as_bytes());
    let public = "whpk_uX7KWyyDNMaBma4aVbJ/cbUQpdjqczuCyK/HxzV/u+4=";
    let stranger = |sender, header, configured| vec![Hint::Stranger { sender, header, configured }];
    let from_github = stranger("github", "x-github-event", Forge::Sourcehut);
    assert_eq!(hints(Forge::Sourcehut, &of_key(fixtures::PUBLIC_KEY), fixtures::PUBLIC_KEY), from_github);
    let from_gitlab = stranger("gitlab", "x-gitlab-event", Forge::Standard);
    assert_eq!(hints(Forge::Standard, &token(public), public), from_gitlab);
    let mut signed = standard(public.as_bytes());
    signed.headers.retain(|(name, _)| name != "x-gitlab-event");
    assert_eq!(hints(Forge::Standard, &signed, public), []);

    let mut old = of_key("another key");
    let mac = Hmac::<Sha1>::new_from_slice(fixtures::PUBLIC_KEY.as_bytes()).unwrap().chain_update(BODY);
    old.push_header("x-hub-signature", format!("sha1={}", hex::encode(mac.finalize().into_bytes())));
    assert_eq!(hints(Forge::Sourcehut, &old, fixtures::PUBLIC_KEY), from_github);

    // All repositories of one instance have the same key: that it fits says nothing about the URL.
    let (name, theirs, own) =
        (RepositoryName::parse("srht").unwrap(), [secret(fixtures::PUBLIC_KEY)], [secret(SECRET)]);
    let others = [Other { name: &name, forge: Forge::Sourcehut, secrets: &theirs }];
    let request = fixtures::load("sourcehut", "push.json");
    let doubt = Doubt {
        forge: Forge::Github,
        request: &request,
        secrets: &own,
        others: &others,
        now: now(),
        allowance: &Allowance::for_operators(),
    };
    assert_eq!(explain(&doubt), stranger("sourcehut", "x-payload-signature", Forge::Github));
}

#[test]
fn an_older_signature_and_a_clock_tell_that_the_secret_is_right() {
    let mac = Hmac::<Sha1>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(BODY);
    let value = format!("sha1={}", hex::encode(mac.finalize().into_bytes()));
    let mut old = github(b"another key", BODY.as_bytes(), BODY.as_bytes());
    old.push_header("x-hub-signature", value);
    assert_eq!(hints(Forge::Github, &old, SECRET), [Hint::Sha1], "the better one was changed");
    old.headers.retain(|(name, _)| name != "x-hub-signature-256");
    assert_eq!(hints(Forge::Github, &old, SECRET), [Hint::Sha1], "the better one is not there");
    assert_eq!(hints(Forge::Github, &old, "another secret of some length"), []);

    let request = compose(
        Forge::Gitlab,
        &secret(WHSEC),
        &TestMessage { key: "k", repository: "a/b", kind: TestKind::Ping },
        now(),
    )
    .unwrap();
    for skew in [-3600, 3600] {
        let now = now() + chrono::TimeDelta::seconds(skew);
        let doubt = Doubt {
            forge: Forge::Gitlab,
            request: &request,
            secrets: &[secret(WHSEC)],
            others: &[],
            now,
            allowance: &Allowance::for_operators(),
        };
        assert_eq!(explain(&doubt), [Hint::Clock], "{skew}");
    }
}

#[test]
fn a_body_that_is_not_whole_is_only_told_where_it_matters() {
    let mut request = github(SECRET.as_bytes(), BODY.as_bytes(), b"");
    assert_eq!(hints(Forge::Github, &request, SECRET), [Hint::EmptyBody]);
    request.push_header(CONTENT_LENGTH, BODY.len().to_string());
    assert_eq!(hints(Forge::Github, &request, SECRET), [Hint::CutBody { announced: BODY.len(), found: 0 }]);
    request.body = vec![b'x'; BODY.len()];
    assert_eq!(hints(Forge::Github, &request, SECRET), []);
    // A token does not depend on it, and a request that is refused by its head has none yet.
    let mut empty = token("another token");
    empty.body.clear();
    assert_eq!(hints(Forge::Gitlab, &empty, SECRET), []);
    request.headers.retain(|(name, _)| name != "x-hub-signature-256");
    request.body.clear();
    assert_eq!(hints(Forge::Github, &request, SECRET), []);
}

#[test]
fn a_long_body_is_explained_to_an_operator_and_not_for_a_stranger() {
    let cut = |length: usize| {
        let body = [b"[\"", &vec![b'x'; length - 5][..], b"\"]\n"].concat();
        github(SECRET.as_bytes(), &body[..length - 1], &body)
    };
    let strangers = || Allowance::for_strangers(usize::MAX);
    for (allowance, longest) in [(strangers(), 128 << 10), (Allowance::for_operators(), 1 << 20)] {
        let found = hints_for(Forge::Github, &cut(longest), SECRET, &allowance);
        assert!(matches!(found[..], [Hint::Body(_)]), "{found:?}");
        let left = allowance.left();
        assert_eq!(hints_for(Forge::Github, &cut(longest + 1), SECRET, &allowance), [Hint::TooLong(longest)]);
        assert_eq!(allowance.left(), left, "it is not looked at");
    }
}

/// What is written and signed for this request.
fn cost(request: &Request) -> usize {
    let allowance = Allowance::for_strangers(usize::MAX);
    assert_eq!(hints_for(Forge::Github, request, SECRET, &allowance), []);
    usize::MAX - allowance.left()
}

#[test]
fn what_a_stranger_can_cause_grows_with_the_body_alone() {
    // Each zero is a line of its own below a thousand brackets: indented, this is two thousand times as long.
    let tower = format!("{}{}0{}", "[".repeat(1_000), "0,".repeat(12_000), "]".repeat(1_000));
    assert!((25 << 10..27 << 10).contains(&tower.len()));
    let flat = format!("[{}0]", "0,".repeat(13_000));
    let cost = |body: &str| cost(&github(b"another key", b"", body.as_bytes()));
    let (of_tower, of_flat) = (cost(&tower), cost(&flat));
    assert!(of_tower <= 100 * tower.len() && of_tower <= 2 * of_flat, "{of_tower} {of_flat}");
    assert!(of_flat >= 30 * flat.len(), "each attempt is paid for: {of_flat}");
}

#[test]
fn what_is_not_paid_for_is_not_tried() {
    let body = format!("{{\"a\": \"{}\"}}\n", "x".repeat(10_000));
    let request = github(SECRET.as_bytes(), body.trim_end().as_bytes(), body.as_bytes());
    let told = |bytes| hints_for(Forge::Github, &request, SECRET, &Allowance::for_strangers(bytes));
    assert!(matches!(told(100 * body.len())[..], [Hint::Body(_)]));
    assert_eq!((told(10 * body.len()), told(0)), (vec![], vec![]));
    // The very first attempt is that of the clock.
    let right = github(SECRET.as_bytes(), body.as_bytes(), body.as_bytes());
    let secrets = [secret(SECRET)];
    for (bytes, expected) in [(body.len() - 1, vec![]), (body.len(), vec![Hint::Clock])] {
        let allowance = &Allowance::for_strangers(bytes);
        let doubt =
            Doubt { forge: Forge::Github, request: &right, secrets: &secrets, others: &[], now: now(), allowance };
        assert_eq!(explain(&doubt), expected);
    }
}

#[test]
fn a_request_that_is_simply_wrong_gets_no_hint_and_no_hint_shows_a_secret() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_le_bytes()
    };
    let others_name = RepositoryName::parse("shop").unwrap();
    for _ in 0..50 {
        let key = [next(), next()].concat();
        let body = format!("{{\"a\": [{:?}, \"\\u00fc/\"]}}\n", u64::from_le_bytes(next()));
        let requests = [github(&key, body.as_bytes(), body.as_bytes()), standard(&key), token(&hex::encode(&key))];
        for (request, forge) in requests.iter().zip([Forge::Github, Forge::Gitlab, Forge::Gitlab]) {
            for configured in [SECRET, WHSEC] {
                let (secrets, others) = ([secret(configured)], [secret("the secret of the shop")]);
                let others = [Other { name: &others_name, forge, secrets: &others }];
                let doubt = Doubt {
                    forge,
                    request,
                    secrets: &secrets,
                    others: &others,
                    now: now(),
                    allowance: &Allowance::for_operators(),
                };
                assert_eq!(explain(&doubt), []);
            }
        }
    }
    let request = github(SECRET.as_bytes(), b"{}", b"{}\n");
    let (found, without) =
        (hints(Forge::Github, &request, SECRET), hints(Forge::Github, &request, &format!("{SECRET}x")));
    assert_eq!(without, []);
    assert!(!format!("{found:?} {}", found[0]).contains(SECRET));
}

#[test]
fn what_is_left_of_a_secret_and_can_be_guessed_gets_no_hint() {
    for (key, configured) in [("=", "c2VjcmV0LW9mLXRoZQ=="), ("", "        \n"), ("", "whsec_"), ("short", "\"short\"")]
    {
        let secrets = [secret(configured)];
        let request = github(key.as_bytes(), BODY.as_bytes(), BODY.as_bytes());
        let doubt = Doubt {
            forge: Forge::Github,
            request: &request,
            secrets: &secrets,
            others: &[],
            now: now(),
            allowance: &Allowance::for_operators(),
        };
        assert_eq!(explain(&doubt), [], "{configured}");
    }
}

#[test]
fn a_hint_is_one_line_in_the_operators_words() {
    let table = [
        (Hint::Secret("had no newline at its end"), "would match if the configured secret had no newline at its end"),
        (
            Hint::Body(BodyChange::Bytes("had no newline at its end")),
            "would match if the body had no newline at its end: it was changed on its way, or when it was saved",
        ),
        (
            Hint::Forge { sender: "gitea", configured: Forge::Gitlab },
            "would match with `forge = \"gitea\"`, but `gitlab` is configured",
        ),
        (
            Hint::Stranger { sender: "gitea", header: "x-gitea-event", configured: Forge::Gitlab },
            "header `x-gitea-event` is one of `gitea`, but `gitlab` is configured",
        ),
        (Hint::CutBody { announced: 3, found: 2 }, "the body has 2 bytes, but `content-length` says 3"),
    ];
    for (hint, text) in table {
        assert_eq!(hint.to_string(), text);
    }
}
