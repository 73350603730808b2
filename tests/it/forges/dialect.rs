//! How a forge speaks: the headers, payloads and proofs that it would send, made without the code under test.

use crate::support::{Daemon, Delivery, House, Setup};

/// The secret of the fixtures, where a forge takes any text.
pub const PLAIN: &str = "a secret of the fixtures";

/// The secret of the fixtures, where it is a key.
pub const WHSEC: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDazkIxYDE5xg=";

/// The branch of the site `main`.
pub const MAIN: &str = "refs/heads/main";

/// How a forge speaks, with one kind of secret.
#[derive(Debug)]
pub struct Dialect {
    /// The word in the configuration, and the directory of the fixtures.
    pub forge: &'static str,
    /// What the fixtures call the repository.
    pub repository: &'static str,
    /// The secret of the fixtures.
    pub secret: &'static str,
    /// Another one of this kind, which nobody has configured.
    pub other_secret: &'static str,
    /// The header that proves, in lower case.
    pub proof: &'static str,
    /// Whether the proof depends on the body.
    pub signs_body: bool,
    /// Whether the proof depends on the time: then what is recorded is signed anew before it is sent.
    pub signs_time: bool,
    /// Proves a delivery, whatever it had before.
    pub sign: fn(Delivery, &str) -> Delivery,
    /// Ways of spoiling the value of the proof's header, with what is wrong with each.
    pub bad_proofs: fn(&str) -> Vec<(&'static str, String)>,
    /// A push, without a proof.
    pub push: fn(&Told<'_>) -> Delivery,
    /// How the forge tells of an annotated tag, without a proof.
    pub tag: fn(&Told<'_>) -> Delivery,
    /// Pings and tests, without a proof.
    pub pongs: fn(&Told<'_>) -> Vec<Delivery>,
    /// What is no push to a ref that there still is, without a proof, and what the answer says about it. Is given a push of
    /// `main`.
    pub ignored: fn(&Told<'_>) -> Vec<(Delivery, &'static str)>,
    /// What `webhook` names of the forge's form.
    pub form: &'static [&'static str],
    /// Every fixture of this forge with this kind of secret.
    pub fixtures: &'static [Fixture],
}

/// What a delivery says.
#[derive(Debug, Clone)]
pub struct Told<'a> {
    /// The id of the delivery.
    pub id: &'a str,
    /// What the payload calls the repository.
    pub repository: &'a str,
    /// The full name of the ref.
    pub ref_name: &'a str,
    /// Where it was, or zeros.
    pub before: &'a str,
    /// Where it is: of an annotated tag the tag itself.
    pub after: &'a str,
    /// The commit there.
    pub commit: &'a str,
}

/// A recorded delivery: `fixtures/webhooks/<forge>/<file>`, and its headers beside it.
#[derive(Debug)]
pub struct Fixture {
    /// The file of the body.
    pub file: &'static str,
    /// What it says.
    pub says: Says,
}

/// What the server makes of a fixture.
#[derive(Debug, Clone, Copy)]
pub enum Says {
    /// A test, or a ping.
    Pong,
    /// A push for these of the sites `main` and `tags`.
    Deploys(&'static [&'static str]),
    /// Not for any site; the reason has this in it.
    Ignored(&'static str),
    /// Something, but not what we can use; the reason has this in it.
    Malformed(&'static str),
    /// Nothing: the forge has no secret for the hook, and its proof is empty.
    NoSecret,
}

impl<'a> Told<'a> {
    /// A push of a branch, or of a tag that is no object of its own.
    pub fn push(dialect: &Dialect, id: &'a str, ref_name: &'a str, before: &'a str, after: &'a str) -> Self {
        Self { id, repository: dialect.repository, ref_name, before, after, commit: after }
    }
}

impl Dialect {
    /// Proves a delivery with the configured secret.
    pub fn signed(&self, delivery: Delivery) -> Delivery {
        (self.sign)(delivery, self.secret)
    }

    /// A house with a repository `forge` of this forge, and its sites: `main` of the branch, `tags` of tags like `v1`.
    pub fn house(&self) -> House {
        let Self { forge, repository, .. } = self;
        let site = |name: &str, refs: &str| {
            format!("[sites.{name}]\nrepository = \"forge\"\n{refs}\nroot = \"{{house}}/{name}\"\n")
        };
        let more = format!(
            "[repositories.forge]\nurl = \"{{house}}/origin.git\"\nrepository = \"{repository}\"\nforge = \"{forge}\"\n\
             secret = {{ file = \"{{house}}/forge-secret\" }}\n{}{}",
            site("main", "branch = \"main\""),
            site("tags", "tags = \"^v\"")
        );
        let mut house = House::with(&Setup { more: &more, ..Setup::default() });
        house.write_secret("forge-secret", self.secret);
        // What is looked at are the answers; a deployment may be in the middle when a story is over.
        house.leave_unclean();
        house
    }
}

/// A delivery to the repository `forge` that is not proved yet.
pub fn delivery(headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Delivery {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Delivery { repository: "forge".into(), headers, body: body.into() }
}

/// Sends a delivery; the answer has to be this, and to have this text among its reasons.
#[track_caller]
pub fn expect(daemon: &Daemon, delivery: &Delivery, status: u16, word: &str, reason: &str) {
    let answer = daemon.send(delivery).expect(status, word);
    assert!(answer.body.contains(reason), "`{reason}` is not in {}", answer.body);
}

pub fn zeros() -> String {
    "0".repeat(40)
}

/// An id of 40 times this digit.
pub fn id(digit: &str) -> String {
    digit.repeat(40)
}
