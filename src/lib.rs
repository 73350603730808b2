//! **Landfall**: `git push`, and the new version is live, atomically, or nothing has changed at all.
//!
//! One binary receives signed push webhooks, matches the branch to a configured site, makes a new release directory as a
//! `git pull` would, runs the repository's hooks, and as the final step replaces the `current` link. Whatever fails, the
//! live site is untouched.
//!
//! # The map
//!
//! Imports run downwards only.
//!
//! ```text
//!  doors    main   cli   http                 parse what comes in, print what goes out
//!             │     │     │
//!  house      └── app · view · config         use cases, composition root
//!                   │
//!  engine         engine                      what comes after what
//!                   │
//!  hands    site  git  hook  store │ webhook  one effect each; the hands never call one another
//!             │         │             │
//!  ground    sys ───────┘           domain    the machine │ the words
//! ```
//!
//! | a line that …                              | lives in                        |
//! |--------------------------------------------|---------------------------------|
//! | decides something from values              | [`domain`]                      |
//! | knows a header name or payload field       | [`webhook`], a file per forge   |
//! | names a path under a site's root           | [`site`]                        |
//! | makes a system call                        | [`sys`]                         |
//! | knows git                                  | [`git`]                         |
//! | starts a hook                              | [`hook`]                        |
//! | is SQL                                     | [`store`]                       |
//! | says what comes after what                 | [`engine`], `deploy`            |
//! | says what happens when it fails            | [`domain::remedy`]              |
//! | takes something back                       | [`engine::undo`]                |
//! | looks up what the configuration names      | [`app`], `setup`                |
//! | is a column width or the JSON of an answer | [`view`]                        |
//! | is an exit code or a status code           | [`cli`], `http::error`          |
//!
//! # The way of a push
//!
//! ```text
//! http::webhook::receive        streams the raw body under a limit
//! app::Service::submit          proves and reads it, and judges it by the configuration
//!   webhook::authenticate       → Verified, the only way to webhook::parse
//!   domain::routing::route      a verdict for each site, with its reason
//! store::Acceptor               ONE transaction for all that wait: deliveries, decisions, queued and superseded deployments
//! app::Service::receipt         the answer is sent
//!   …
//! store::Store::claim_next      a worker thread takes what waits longest for a site that has nothing running
//! engine::deploy                Revision → Staging → Release → Flip, each announced in the journal before it happens
//! engine::undo                  if anything fails, also after a crash: newest first, twice is harmless
//! ```
//!
//! # The laws
//!
//! Imports go down only, and the hands do not know each other. [`domain`] and [`sys`] import nothing of ours. `git2` only in
//! [`git`], SQL only in [`store`]. Async only in [`http`] and [`store`]. Nothing but `site/current.rs` touches `current`,
//! nothing but `engine/undo.rs` undoes. The time is passed in. `tests/it/tidy.rs` holds them.

pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod engine;
pub mod git;
pub mod hook;
pub mod http;
pub mod site;
pub mod store;
pub mod sys;
pub mod view;
pub mod webhook;
