//! Every forge at the door: the table of the contract, and every fixture in every way that it must not be believed in.
//!
//! A file per forge tells in its `Dialect` how the forge speaks, apart from what `src/webhook` makes of it; `contract` and
//! `fixtures` are the stories that each of them goes through.

mod azure;
mod bitbucket;
mod bitbucket_dc;
mod contract;
mod dialect;
mod fixtures;
mod gitea;
mod github;
mod gitlab;
mod gogs;
mod proofs;
mod sourcehut;
mod standard;
mod tools;

use std::collections::BTreeSet;

use crate::support::{names, source};
use dialect::Dialect;

/// Every dialect; a forge with two kinds of secret has two.
const DIALECTS: &[&Dialect] = &[
    &github::GITHUB,
    &gitlab::TOKEN,
    &gitlab::SIGNED,
    &gitea::GITEA,
    &gitea::FORGEJO,
    &gogs::GOGS,
    &bitbucket::BITBUCKET,
    &bitbucket_dc::BITBUCKET_DC,
    &azure::PASSWORD,
    &azure::WHOLE,
    &sourcehut::SOURCEHUT,
    &standard::SHARED,
    &standard::PUBLIC,
];

#[test]
fn no_fixture_is_forgotten() {
    let directory = source().join("fixtures/webhooks");
    let used: BTreeSet<_> = DIALECTS.iter().map(|dialect| dialect.forge.to_owned()).collect();
    assert_eq!(used, names(&directory).into_iter().collect(), "the forges with fixtures");
    for forge in used {
        let of_forge = DIALECTS.iter().filter(|dialect| dialect.forge == forge);
        let told = of_forge.flat_map(|dialect| dialect.fixtures.iter().map(|fixture| fixture.file));
        let expected: BTreeSet<_> = told.flat_map(|file| [file.to_owned(), fixtures::headers_of(file)]).collect();
        assert_eq!(expected, names(&directory.join(&forge)).into_iter().collect(), "the fixtures of {forge}");
    }
}
