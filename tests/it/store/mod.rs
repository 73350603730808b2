//! The store's stories. Each is written once and told on SQLite and on PostgreSQL.
//!
//! PostgreSQL is the server that `LANDFALL_TEST_POSTGRES` names, where each story gets a schema of its own.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use tempfile::TempDir;

use landfall::domain::admission::{DeliveryStatus, SiteStatus};
use landfall::domain::deployment::{
    Cause, DeploymentId, Entry, Failure, Kind, Outcome, StateName, Step, Trigger, Undo,
};
use landfall::domain::hook_name::HookName;
use landfall::domain::name::{NodeName, RepositoryName, SiteName};
use landfall::domain::push::{Change, DeliveryKey, RefName};
use landfall::domain::reconcile::{Reason, Sighting};
use landfall::domain::release_id::ReleaseId;
use landfall::domain::revision::Revision;
use landfall::domain::routing::{Route, Wanted};
use landfall::store::{
    Acceptance, Claim, DeploymentFilter, FollowUp, Hold, NewDelivery, NewDeployment, Reconciled, SiteAcceptance, Store,
    StoreError, Submission, Verdict, VerdictFor,
};

macro_rules! stories {
    ($($story:ident,)+) => {
        mod sqlite {
            $(#[test] fn $story() { super::$story(&super::Fresh::sqlite()); })+
        }

        mod postgres {
            $(
                #[test]
                #[ignore = "needs PostgreSQL: tests/run.sh starts one"]
                fn $story() { super::$story(&super::Fresh::postgres("")); }
            )+
        }
    };
}

mod deliveries;

stories! {
    a_push_is_queued_and_answered_with_its_number,
    each_site_of_a_delivery_has_its_own_verdict,
    a_delivery_for_no_site_is_kept_and_queues_nothing,
    a_delivery_that_cannot_be_stored_queues_nothing,
    one_delivery_twenty_times_at_once_is_one_deployment,
    the_same_commit_in_another_delivery_is_a_duplicate,
    a_redelivery_of_what_did_not_work_is_a_new_attempt,
    a_live_commit_is_current_only_while_nothing_else_is_on_its_way,
    a_hold_beats_everything,
    a_newer_push_takes_the_place_of_the_waiting_one_never_of_the_running_one,
    of_three_pushes_during_a_deployment_the_last_one_waits,
    a_manual_deploy_is_never_a_duplicate_and_takes_the_waiting_place,
    many_claimers_never_run_two_of_a_site_and_none_twice,
    sites_run_side_by_side_oldest_first,
    a_node_claims_only_what_is_its_own,
    claim_one_takes_only_that_one,
    what_waits_when_the_site_is_claimed_is_what_runs,
    a_token_counts_for_nothing_after_a_take_over,
    tokens_differ_even_at_the_same_time_for_the_same_owner,
    only_what_waits_can_be_cancelled_in_the_queue,
    a_site_tells_what_it_waits_for_and_what_ended_last,
    renew_extends_only_what_its_owner_runs,
    unfinished_lists_what_runs_then_what_is_stuck,
    what_is_stuck_waits_with_its_undo_while_another_of_the_site_runs,
    a_push_that_gave_way_to_a_rollback_is_deployed_if_that_does_not_come_about,
    what_was_stored_under_an_earlier_name_of_the_machine_is_its_own,
    an_interrupted_deployment_is_queued_once_more,
    an_interrupted_deployment_gives_way_to_what_waits,
    the_hold_and_the_bad_release_of_a_rollback_are_kept_until_a_manual_deploy,
    a_push_that_waited_while_the_rollback_ran_does_not_undo_it,
    a_manual_deploy_that_waited_while_the_rollback_ran_is_the_last_word,
    a_journal_comes_back_in_order_and_its_row_follows,
    a_journal_that_makes_no_sense_is_refused,
    a_reason_with_any_byte_in_it_can_be_stored,
    the_newest_release_survives_a_failure,
    a_tip_whose_push_was_lost_is_queued_once,
    a_tip_is_left_alone_while_anything_speaks_against_it,
    a_tip_that_was_seen_before_a_deployment_ended_is_left_alone,
    a_tip_whose_push_was_ignored_is_not_lost,
    a_push_and_a_look_at_the_remote_at_once_are_one_deployment,
    a_site_knows_the_ref_it_was_last_to_deploy,
    everything_is_there_after_a_restart,
    two_processes_see_what_the_other_wrote,
    many_processes_open_a_fresh_store_at_once,
    a_newer_schema_is_refused,
    writers_that_cross_never_lock_each_other_out,
    deployments_are_listed_newest_first_by_site_and_number,
    a_store_that_cannot_be_written_says_so,
}

// --- Deliveries -----------------------------------------------------------------------------------------------------

fn a_push_is_queued_and_answered_with_its_number(store: &Fresh) {
    let accepted = store
        .accept(submission(delivery("d1", 'a'), pushed(&["blog"], 'a'), at(0)), &nothing_is_live)
        .expect("an answer");
    assert_eq!((accepted.delivery, accepted.sites.len()), (1, 1));
    let site = only(accepted);
    assert_eq!((site.status, site.reason), (SiteStatus::Queued, None));
    let (id, state) = site.deployment.expect("a deployment");
    assert_eq!(state, StateName::Queued);
    let row = store.deployment(id).expect("an answer").expect("a row");
    assert_eq!((row.site, row.node, row.kind, row.trigger), (name("blog"), web1(), Kind::Deploy, Trigger::Push));
    assert_eq!((row.ref_name, row.before, row.after), (Some(branch()), Some(commit('0', '1')), Some(commit('a', 'a'))));
    assert_eq!((row.delivery, row.queued_at, row.attempt), (Some(key("d1")), at(0), 1));
    assert_eq!(waiting(store, &web1()), 1);
    assert_eq!(store.deployment(DeploymentId(99)).expect("an answer"), None);
}

fn each_site_of_a_delivery_has_its_own_verdict(store: &Fresh) {
    let mut verdicts = ["shop", "blog", "wiki"].map(|site| verdict(site, 'a'));
    verdicts[1].route = Route::Ignore("another branch".into());
    let wiki_is_live = |site: &SiteName| (site.as_str() == "wiki").then(|| commit('a', 'a'));
    let verdicts = Verdict::Sites(verdicts.into());
    let accepted = store.accept(submission(delivery("d1", 'a'), verdicts, at(0)), &wiki_is_live).expect("an answer");
    let answers: Vec<_> =
        accepted.sites.iter().map(|site| (site.site.as_str(), site.status, site.reason.as_deref())).collect();
    assert_eq!(
        answers,
        [
            ("shop", SiteStatus::Queued, None),
            ("blog", SiteStatus::Ignored, Some("another branch")),
            ("wiki", SiteStatus::Current, None)
        ],
    );
    let all = store.deployments(&DeploymentFilter { site: None, limit: 9 }).expect("an answer");
    assert_eq!(all.len(), 1);
}

fn a_delivery_for_no_site_is_kept_and_queues_nothing(store: &Fresh) {
    for (number, (status, reason)) in
        [(DeliveryStatus::Pong, None), (DeliveryStatus::Of(SiteStatus::Ignored), Some("a deletion".into()))]
            .into_iter()
            .enumerate()
    {
        let accepted = store
            .accept(submission(delivery("d1", 'a'), Verdict::Whole { status, reason }, at(0)), &nothing_is_live)
            .expect("an answer");
        assert_eq!((accepted.delivery, accepted.sites.len()), (number as i64 + 1, 0));
    }
    assert_eq!(waiting(store, &web1()), 0);
}

fn a_delivery_that_cannot_be_stored_queues_nothing(store: &Fresh) {
    store.execute("ALTER TABLE delivery_site RENAME TO gone");
    let refused = store.accept(submission(delivery("d1", 'a'), pushed(&["blog"], 'a'), at(0)), &nothing_is_live);
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert_eq!(waiting(store, &web1()), 0);
    store.execute("ALTER TABLE gone RENAME TO delivery_site");
    let accepted = store
        .accept(submission(delivery("d1", 'a'), pushed(&["blog"], 'a'), at(0)), &nothing_is_live)
        .expect("an answer");
    assert_eq!(accepted.delivery, 1, "no number was used up");
}

fn one_delivery_twenty_times_at_once_is_one_deployment(store: &Fresh) {
    let start = Barrier::new(20);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    push(store, "blog", "d1", 'a')
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread that ends well")).collect()
    });
    let queued = answers.iter().filter(|answer| answer.status == SiteStatus::Queued).count();
    let duplicates = answers.iter().filter(|answer| answer.status == SiteStatus::Duplicate).count();
    assert_eq!((queued, duplicates), (1, 19));
    let named: BTreeSet<_> = answers.iter().map(number).collect();
    assert_eq!(named.len(), 1, "all name the one deployment");
    assert_eq!(store.deployments(&DeploymentFilter { site: None, limit: 50 }).expect("an answer").len(), 1);
}

fn the_same_commit_in_another_delivery_is_a_duplicate(store: &Fresh) {
    let first = number(&push(store, "blog", "d1", 'a'));
    let while_it_waits = push(store, "blog", "d2", 'a');
    assert_eq!((while_it_waits.status, number(&while_it_waits)), (SiteStatus::Duplicate, first));
    claim(store, "w");
    let while_it_runs = push(store, "blog", "d3", 'a');
    assert_eq!(while_it_runs.deployment, Some((first, StateName::Running)));
    assert_eq!(push(store, "blog", "d1", 'b').status, SiteStatus::Duplicate, "the same delivery, whatever it says");
    assert_eq!(push(store, "shop", "d1", 'a').status, SiteStatus::Queued, "another site has its own verdict");
}

fn a_redelivery_of_what_did_not_work_is_a_new_attempt(store: &Fresh) {
    for (outcome, state) in [
        (Outcome::of(failure(Cause::Error("x".into()))), StateName::Failed),
        (Outcome::of(failure(Cause::Cancelled("x".into()))), StateName::Cancelled),
        (Outcome::of(failure(Cause::Interrupted("x".into()))), StateName::Interrupted),
    ] {
        let before = push(store, "blog", "d1", 'a');
        assert_eq!(before.status, SiteStatus::Queued);
        finish(store, &claim(store, "w"), &outcome);
        assert_eq!(state_of(store, number(&before)), state);
    }
    assert_eq!(push(store, "blog", "d1", 'a').status, SiteStatus::Queued);
}

fn a_live_commit_is_current_only_while_nothing_else_is_on_its_way(store: &Fresh) {
    push(store, "blog", "d1", 'a');
    finish(store, &claim(store, "w"), &Outcome::Live);
    let again = push_live(store, "blog", "d1", 'a');
    assert_eq!((again.status, again.deployment), (SiteStatus::Current, None));
    push(store, "blog", "d2", 'b');
    assert_eq!(push_live(store, "blog", "d1", 'a').status, SiteStatus::Queued, "else b would win");
}

fn a_hold_beats_everything(store: &Fresh) {
    roll_back(store, "blog", "a bad day");
    for answer in [push(store, "blog", "d1", 'a'), push_live(store, "blog", "d2", 'b')] {
        assert_eq!((answer.status, answer.reason.as_deref()), (SiteStatus::Ignored, Some("hold: a bad day")));
    }
    assert_eq!(push(store, "shop", "d1", 'a').status, SiteStatus::Queued, "another site is not held");
}

fn a_newer_push_takes_the_place_of_the_waiting_one_never_of_the_running_one(store: &Fresh) {
    let running = number(&push(store, "blog", "d1", 'a'));
    claim(store, "w");
    let waiting = number(&push(store, "blog", "d2", 'b'));
    let newest = number(&push(store, "blog", "d3", 'c'));
    let replaced = store.deployment(waiting).expect("an answer").expect("a row");
    assert_eq!((replaced.state, replaced.superseded_by), (StateName::Superseded, Some(newest)));
    assert!(replaced.finished_at.is_some());
    assert_eq!((state_of(store, running), state_of(store, newest)), (StateName::Running, StateName::Queued));
}

fn of_three_pushes_during_a_deployment_the_last_one_waits(store: &Fresh) {
    push(store, "blog", "d0", 'a');
    let running = claim(store, "w");
    let last = ['b', 'c', 'd'].map(|digit| number(&push(store, "blog", &digit.to_string(), digit)))[2];
    assert_eq!(waiting(store, &web1()), 1);
    finish(store, &running, &Outcome::Live);
    assert_eq!(claim(store, "w").deployment.id, last);
}

fn a_manual_deploy_is_never_a_duplicate_and_takes_the_waiting_place(store: &Fresh) {
    let waiting = number(&push(store, "blog", "d1", 'a'));
    let manual = store.enqueue(&order("blog", Kind::Deploy), at(1)).expect("a number");
    let again = store.enqueue(&order("blog", Kind::Deploy), at(2)).expect("a number");
    let states = [waiting, manual, again].map(|id| state_of(store, id));
    assert_eq!(states, [StateName::Superseded, StateName::Superseded, StateName::Queued]);
    let row = store.deployment(again).expect("an answer").expect("a row");
    assert_eq!((row.trigger, row.requested_by.as_deref(), row.force), (Trigger::Manual, Some("ada"), true));
}

// --- Lost pushes ----------------------------------------------------------------------------------------------------

fn a_tip_whose_push_was_lost_is_queued_once(store: &Fresh) {
    push(store, "blog", "d1", 'a');
    find(store, 'a', &Outcome::Live);
    let Reconciled::Queued(id) = look(store, 'b', 9) else { panic!("it was not queued") };
    let row = store.deployment(id).expect("an answer").expect("a row");
    assert_eq!(
        (row.trigger, row.kind, row.state, row.force),
        (Trigger::Reconcile, Kind::Deploy, StateName::Queued, false)
    );
    assert_eq!((row.before, row.after), (Some(commit('a', 'a')), Some(commit('b', 'b'))));
    assert_eq!((row.ref_name, row.requested_by, row.delivery), (Some(branch()), None, None));
    assert_eq!((row.node, row.attempt, row.queued_at), (web1(), 1, at(9)));
    assert_eq!(look(store, 'b', 9), Reconciled::Left(Reason::Busy));
    assert_eq!(number(&push(store, "blog", "d2", 'b')), id, "the push that comes late is a duplicate");
    find(store, 'b', &Outcome::of(failure(Cause::Error("x".into()))));
    assert_eq!(look(store, 'b', 9), Reconciled::Left(Reason::Tried));
    assert!(matches!(look(store, 'c', 9), Reconciled::Queued(_)));
    let newer = number(&push(store, "blog", "d3", 'd'));
    assert_eq!(claim(store, "w").deployment.id, newer, "a push takes its place");
}

fn a_tip_is_left_alone_while_anything_speaks_against_it(store: &Fresh) {
    assert_eq!(look_live(store, 'a'), Reconciled::Left(Reason::Live));
    push(store, "blog", "d1", 'a');
    assert_eq!(look(store, 'b', 9), Reconciled::Left(Reason::Busy), "something waits");
    let running = claim(store, "w");
    assert_eq!(look(store, 'b', 9), Reconciled::Left(Reason::Busy), "something runs");
    finish(store, &running, &Outcome::Live);
    roll_back(store, "blog", "a bad day");
    assert_eq!(look(store, 'b', 9), Reconciled::Left(Reason::Held));
    assert_eq!(waiting(store, &web1()), 0);
    let elsewhere = NodeName::parse("web2").expect("a name");
    let seen = Sighting { ref_name: branch(), tip: commit('b', 'b'), asked_at: at(9) };
    let shop = store.reconcile(&name("shop"), &elsewhere, &seen, &nothing_is_live, at(9)).expect("an answer");
    assert!(matches!(shop, Reconciled::Queued(_)), "another site is not held");
}

fn a_tip_that_was_seen_before_a_deployment_ended_is_left_alone(store: &Fresh) {
    push(store, "blog", "d1", 'b');
    find(store, 'b', &Outcome::Live);
    // It ended at 4: who asked before may have been shown what was there before the push.
    assert_eq!(look(store, 'a', 4), Reconciled::Left(Reason::Overtaken));
    assert!(matches!(look(store, 'a', 5), Reconciled::Queued(_)));
}

fn a_tip_whose_push_was_ignored_is_not_lost(store: &Fresh) {
    let mut ignored = verdict("blog", 'a');
    let Route::Deploy(wanted) = ignored.route else { panic!("no route") };
    ignored.route = Route::Skip(wanted, "the message says so".into());
    let answer = store.accept(submission(delivery("d1", 'a'), Verdict::Sites(vec![ignored]), at(0)), &nothing_is_live);
    assert_eq!(only(answer.expect("an answer")).status, SiteStatus::Ignored);
    assert_eq!(look(store, 'a', 9), Reconciled::Left(Reason::Refused));
    let redelivered = number(&push(store, "blog", "d2", 'a'));
    store.cancel_waiting(redelivered, "x", at(1)).expect("an answer");
    assert_eq!(look(store, 'a', 9), Reconciled::Left(Reason::Cancelled));
    assert!(matches!(look(store, 'b', 9), Reconciled::Queued(_)));
}

fn a_push_and_a_look_at_the_remote_at_once_are_one_deployment(store: &Fresh) {
    for digit in ['a', 'b', 'c', 'd', 'e', 'f'] {
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                start.wait();
                look(store, digit, 9)
            });
            let pushing = scope.spawn(|| {
                start.wait();
                push(store, "blog", &digit.to_string(), digit)
            });
            let (looked, pushed) = (looking.join().expect("an end"), pushing.join().expect("an end"));
            let expected = match looked {
                Reconciled::Queued(id) => (SiteStatus::Duplicate, id),
                Reconciled::Left(_) => (SiteStatus::Queued, number(&pushed)),
            };
            assert_eq!((pushed.status, number(&pushed)), expected);
        });
        assert_eq!(waiting(store, &web1()), 1);
        find(store, digit, &Outcome::Live);
    }
    assert_eq!(store.deployments(&DeploymentFilter { site: None, limit: 50 }).expect("an answer").len(), 6);
}

fn a_site_knows_the_ref_it_was_last_to_deploy(store: &Fresh) {
    let last = || store.last_ref(&name("blog"), &web1()).expect("an answer");
    store.enqueue(&order("blog", Kind::Deploy), at(0)).expect("a number");
    assert_eq!(last(), None, "an order says nothing of what the site is for");
    push(store, "shop", "d1", 'a');
    assert_eq!(last(), None);
    push(store, "blog", "d2", 'a');
    assert_eq!(last(), Some(branch()));
    store.enqueue(&NewDeployment { ref_name: None, ..order("blog", Kind::Rollback) }, at(0)).expect("a number");
    assert_eq!(last(), None, "what was superseded was not deployed");
}

// --- Claims and leases ----------------------------------------------------------------------------------------------

fn many_claimers_never_run_two_of_a_site_and_none_twice(store: &Fresh) {
    const ROUNDS: usize = 8;
    let sites = ["blog", "docs", "shop", "wiki"];
    let other = store.again();
    let running = Mutex::new(BTreeSet::new());
    let claimed = Mutex::new(Vec::new());
    let queued = Mutex::new(Vec::new());
    let pushers = Mutex::new(sites.len());
    let deadline = Instant::now() + Duration::from_secs(60);
    let work = |store: &Store, owner: &str| {
        loop {
            let none_comes = *pushers.lock().expect("a lock") == 0;
            let Some(claim) = claim_oldest(store, &web1(), owner, Utc::now()) else {
                if none_comes && waiting(store, &web1()) == 0 {
                    return;
                }
                assert!(Instant::now() < deadline, "the queue is never empty");
                std::thread::yield_now();
                continue;
            };
            let site = claim.deployment.site.clone();
            assert!(running.lock().expect("a lock").insert(site.clone()), "two of {site} run");
            claimed.lock().expect("a lock").push(claim.deployment.id);
            std::thread::yield_now();
            assert!(running.lock().expect("a lock").remove(&site));
            finish(store, &claim, &Outcome::Live);
        }
    };
    std::thread::scope(|scope| {
        for site in sites {
            let (queued, pushers) = (&queued, &pushers);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let id = store.enqueue(&order(site, Kind::Deploy), at(round as i64)).expect("a number");
                    queued.lock().expect("a lock").push(id);
                }
                *pushers.lock().expect("a lock") -= 1;
            });
        }
        for (number, store) in [&**store, &other, &**store, &other, &**store, &other].into_iter().enumerate() {
            let work = &work;
            scope.spawn(move || work(store, &format!("worker {number}")));
        }
    });
    let claimed = claimed.into_inner().expect("a lock");
    let each: BTreeSet<_> = claimed.iter().copied().collect();
    assert_eq!(each.len(), claimed.len(), "one was claimed twice");
    for id in queued.into_inner().expect("a lock") {
        let expected = if each.contains(&id) { StateName::Succeeded } else { StateName::Superseded };
        assert_eq!(state_of(store, id), expected, "deployment {id}");
    }
}

fn sites_run_side_by_side_oldest_first(store: &Fresh) {
    for site in ["wiki", "blog", "shop"] {
        push(store, site, "d1", 'a');
    }
    push(store, "wiki", "d2", 'b');
    let order: Vec<_> = (0..3).map(|_| claim(store, "w").deployment.site.as_str().to_owned()).collect();
    assert_eq!(order, ["blog", "shop", "wiki"], "wiki's second push took the place of its first");
    push(store, "blog", "d3", 'c');
    assert!(claim_oldest(store, &web1(), "w", at(1)).is_none(), "blog runs already");
}

fn a_node_claims_only_what_is_its_own(store: &Fresh) {
    push(store, "blog", "d1", 'a');
    let other = NodeName::parse("web2").expect("a name");
    assert!(claim_oldest(store, &other, "w", at(1)).is_none());
    assert_eq!(waiting(store, &other), 0);
    claim(store, "w");
    assert!(store.unfinished(&other).expect("an answer").is_empty());
}

fn what_waits_when_the_site_is_claimed_is_what_runs(store: &Fresh) {
    push(store, "blog", "d1", 'a');
    let sites = store.waiting_sites(&web1()).expect("an answer");
    assert_eq!(sites, [name("blog")]);
    let newer = number(&push(store, "blog", "d2", 'b'));
    let claim = || store.claim_next(&sites[0], &web1(), "w", LEASE, at(1)).expect("an answer");
    assert_eq!(claim().map(|claim| claim.deployment.id), Some(newer), "not the one that was seen before");
    push(store, "blog", "d3", 'c');
    assert!(claim().is_none(), "one runs");
    assert_eq!(store.waiting_sites(&web1()).expect("an answer"), []);
}

fn claim_one_takes_only_that_one(store: &Fresh) {
    let first = number(&push(store, "blog", "d1", 'a'));
    let second = number(&push(store, "shop", "d1", 'a'));
    let take = |id| store.claim_one(id, "w", LEASE, at(1)).expect("an answer").map(|claim| claim.deployment.id);
    assert_eq!(take(second), Some(second));
    assert_eq!(state_of(store, first), StateName::Queued);
    assert_eq!(take(second), None, "it runs already");
    assert_eq!(take(DeploymentId(99)), None);
    let next = number(&push(store, "shop", "d2", 'b'));
    assert_eq!(take(next), None, "another of its site runs");
}

fn only_what_waits_can_be_cancelled_in_the_queue(store: &Fresh) {
    push(store, "blog", "d1", 'a');
    let running = claim(store, "w").deployment.id;
    let waiting = number(&push(store, "blog", "d2", 'b'));
    for id in [running, waiting] {
        store.cancel_waiting(id, "nobody wants it", at(2)).expect("an answer");
    }
    assert_eq!(state_of(store, running), StateName::Running);
    let row = store.deployment(waiting).expect("an answer").expect("a row");
    assert_eq!((row.state, row.reason.as_deref()), (StateName::Cancelled, Some("nobody wants it")));
    assert_eq!(row.finished_at, Some(at(2)));
    let unknown = store.cancel_waiting(DeploymentId(99), "nobody wants it", at(2));
    assert!(matches!(unknown, Err(StoreError::NotFound(_))), "{unknown:?}");
}

fn a_site_tells_what_it_waits_for_and_what_ended_last(store: &Fresh) {
    assert!(store.pending(&name("blog")).expect("an answer").is_empty());
    assert!(store.last_ended(&name("blog")).expect("an answer").is_none());
    push(store, "blog", "d1", 'a');
    let first = claim(store, "w");
    finish(store, &first, &Outcome::Live);
    push(store, "blog", "d2", 'b');
    let second = claim(store, "w");
    let superseded = number(&push(store, "blog", "d3", 'c'));
    let waiting = number(&push(store, "blog", "d4", 'd'));
    push(store, "shop", "d1", 'a');
    let pending: Vec<_> =
        store.pending(&name("blog")).expect("an answer").iter().map(|row| (row.id, row.state)).collect();
    assert_eq!(pending, [(second.deployment.id, StateName::Running), (waiting, StateName::Queued)]);
    assert_eq!(state_of(store, superseded), StateName::Superseded);
    let last = store.last_ended(&name("blog")).expect("an answer").expect("a row");
    assert_eq!(last.id, first.deployment.id);
}

fn a_token_counts_for_nothing_after_a_take_over(store: &Fresh) {
    push(store, "blog", "d1", 'a');
    let old = claim(store, "the dead");
    let id = old.deployment.id;
    store.append(id, &old.token, &Entry::Entered(Step::Fetch), at(1)).expect("a line");
    let new = store.take_over(id, "the heir", LEASE, at(2)).expect("a claim");
    let appended = store.append(id, &old.token, &Entry::Entered(Step::Checkout), at(3));
    assert!(matches!(appended, Err(StoreError::LostLease)), "{appended:?}");
    let hold = FollowUp { hold: Some(hold("never")), ..FollowUp::default() };
    let finished = store.finish(id, &old.token, &Outcome::Live, &hold, at(3));
    assert!(matches!(finished, Err(StoreError::LostLease)), "{finished:?}");
    assert_eq!(store.hold(&name("blog")).expect("an answer"), None, "what is refused leaves nothing");
    assert_eq!(entries(store, id), [Entry::Claimed, Entry::Entered(Step::Fetch), Entry::Claimed]);
    finish(store, &new, &Outcome::Live);
    let ended = store.take_over(id, "too late", LEASE, at(4));
    assert!(matches!(ended, Err(StoreError::NotFound(_))), "{ended:?}");
}

fn tokens_differ_even_at_the_same_time_for_the_same_owner(store: &Fresh) {
    push(store, "blog", "d1", 'a');
    let first = claim(store, "w");
    let second = store.take_over(first.deployment.id, "w", LEASE, at(1)).expect("a claim");
    let third = store.take_over(first.deployment.id, "w", LEASE, at(1)).expect("a claim");
    let tokens = BTreeSet::from([first.token, second.token, third.token]);
    assert_eq!(tokens.len(), 3, "{tokens:?}");
}

fn renew_extends_only_what_its_owner_runs(store: &Fresh) {
    for site in ["blog", "shop", "wiki"] {
        push(store, site, "d1", 'a');
    }
    let mine = claim(store, "me");
    claim(store, "me");
    claim(store, "you");
    assert_eq!(store.renew("me", LEASE, at(9)).expect("an answer"), 2);
    assert_eq!(store.renew("nobody", LEASE, at(9)).expect("an answer"), 0);
    let until = at(9).timestamp_millis() + 30_000;
    assert_eq!(store.count(&format!("SELECT COUNT(*) FROM deployment WHERE lease_until = {until}")), 2);
    finish(store, &mine, &Outcome::Live);
    assert_eq!(store.renew("me", LEASE, at(10)).expect("an answer"), 1, "what has ended needs no lease");
}

fn unfinished_lists_what_runs_then_what_is_stuck(store: &Fresh) {
    push(store, "blog", "d1", 'a');
    let first_stuck = claim(store, "w");
    finish(store, &first_stuck, &stuck_outcome());
    push(store, "blog", "d1", 'a');
    let stuck = claim(store, "w");
    finish(store, &stuck, &stuck_outcome());
    push(store, "shop", "d1", 'a');
    let ended = claim(store, "w");
    finish(store, &ended, &Outcome::Live);
    push(store, "blog", "d2", 'b');
    let running = claim(store, "the dead");
    push(store, "wiki", "d1", 'a');
    let found: Vec<_> =
        store.unfinished(&web1()).expect("an answer").into_iter().map(|found| (found.id, found.state)).collect();
    let expected = [
        (running.deployment.id, StateName::Running),
        (stuck.deployment.id, StateName::Stuck),
        (first_stuck.deployment.id, StateName::Stuck),
    ];
    assert_eq!(found, expected, "what runs has to end before what is stuck, and that is undone newest first");
}

fn what_is_stuck_waits_with_its_undo_while_another_of_the_site_runs(store: &Fresh) {
    push(store, "blog", "d1", 'a');
    let stuck = claim(store, "w");
    finish(store, &stuck, &stuck_outcome());
    push(store, "blog", "d2", 'b');
    let running = claim(store, "w");
    let refused = store.take_over(stuck.deployment.id, "w", LEASE, at(2));
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(state_of(store, stuck.deployment.id), StateName::Stuck);
    finish(store, &running, &Outcome::Live);
    let taken = store.take_over(stuck.deployment.id, "w", LEASE, at(3)).expect("a claim");
    assert_eq!(taken.deployment.state, StateName::Running);
    push(store, "blog", "d3", 'c');
    assert!(claim_oldest(store, &web1(), "w", at(4)).is_none(), "its undo keeps the site");
    finish(store, &taken, &Outcome::of(failure(Cause::Error("x".into()))));
    assert_eq!(state_of(store, stuck.deployment.id), StateName::Failed);
}

// --- Ends -----------------------------------------------------------------------------------------------------------

fn an_interrupted_deployment_is_queued_once_more(store: &Fresh) {
    let first = number(&push(store, "blog", "d1", 'a'));
    let retried = finish_with(store, &claim(store, "w"), &interrupted(), &retry(2)).expect("a new attempt");
    let row = store.deployment(retried).expect("an answer").expect("a row");
    assert_eq!((row.attempt, row.retry_of, row.trigger), (2, Some(first), Trigger::Retry));
    assert_eq!((row.ref_name, row.after, row.delivery), (Some(branch()), Some(commit('a', 'a')), Some(key("d1"))));
    assert_eq!(row.state, StateName::Queued);
    assert_eq!(number(&push(store, "blog", "d1", 'a')), retried, "a redelivery is a duplicate of the new attempt");
}

fn an_interrupted_deployment_gives_way_to_what_waits(store: &Fresh) {
    push(store, "blog", "d1", 'a');
    let running = claim(store, "w");
    let newer = number(&push(store, "blog", "d2", 'b'));
    assert_eq!(finish_with(store, &running, &interrupted(), &retry(2)), None);
    assert_eq!(claim(store, "w").deployment.id, newer);
}

fn the_hold_and_the_bad_release_of_a_rollback_are_kept_until_a_manual_deploy(store: &Fresh) {
    roll_back(store, "blog", "a bad day");
    assert_eq!(store.hold(&name("blog")).expect("an answer"), Some(hold("a bad day")));
    let bad = || store.bad_releases(&name("blog"), &web1()).expect("an answer");
    assert_eq!(bad(), BTreeSet::from([release(1)]));
    store.enqueue(&order("blog", Kind::Rollback), at(5)).expect("a number");
    assert!(store.hold(&name("blog")).expect("an answer").is_some(), "a rollback lifts no hold");
    store.enqueue(&order("blog", Kind::Deploy), at(6)).expect("a number");
    assert_eq!(store.hold(&name("blog")).expect("an answer"), None);
    assert_eq!(bad(), BTreeSet::from([release(1)]), "it stays bad");
    assert_eq!(store.bad_releases(&name("shop"), &web1()).expect("an answer"), BTreeSet::new());
}

fn a_push_that_waited_while_the_rollback_ran_does_not_undo_it(store: &Fresh) {
    let rollback = store.enqueue(&order("blog", Kind::Rollback), at(0)).expect("a number");
    let running = claim(store, "w");
    let waiting = number(&push(store, "blog", "d1", 'a'));
    let follow_up = FollowUp { hold: Some(hold("a bad day")), ..FollowUp::default() };
    finish_with(store, &running, &Outcome::Live, &follow_up);
    let row = store.deployment(waiting).expect("an answer").expect("a row");
    assert_eq!((row.state, row.superseded_by), (StateName::Superseded, Some(rollback)));
    assert_eq!(push(store, "blog", "d1", 'a').status, SiteStatus::Ignored);
}

fn a_manual_deploy_that_waited_while_the_rollback_ran_is_the_last_word(store: &Fresh) {
    store.enqueue(&order("blog", Kind::Rollback), at(0)).expect("a number");
    let running = claim(store, "w");
    let manual = store.enqueue(&order("blog", Kind::Deploy), at(1)).expect("a number");
    let follow_up = FollowUp { hold: Some(hold("a bad day")), ..FollowUp::default() };
    finish_with(store, &running, &Outcome::Live, &follow_up);
    assert_eq!(store.hold(&name("blog")).expect("an answer"), None, "a manual deploy lifts the hold");
    assert_eq!(state_of(store, manual), StateName::Queued);
}

// --- Journals -------------------------------------------------------------------------------------------------------

fn a_push_that_gave_way_to_a_rollback_is_deployed_if_that_does_not_come_about(store: &Fresh) {
    let fail = |store: &Store, claimed: &Claim| {
        let outcome = Outcome::Failed(failure(Cause::Error("x".into())));
        finish_with(store, claimed, &outcome, &FollowUp::default())
    };
    push(store, "blog", "d1", 'a');
    let running = claim(store, "w");
    push(store, "blog", "d2", 'b');
    let rollback = store.enqueue(&order("blog", Kind::Rollback), at(1)).expect("a number");
    let ignored = push(store, "blog", "d3", 'c');
    let expected = (SiteStatus::Ignored, Some(format!("hold: rollback {rollback} waits")), None);
    assert_eq!((ignored.status, ignored.reason, ignored.deployment), expected);
    finish(store, &running, &Outcome::Live);
    let interrupted = claim(store, "w");
    assert_eq!(interrupted.deployment.id, rollback);
    let again = finish_with(store, &interrupted, &self::interrupted(), &retry(2)).expect("a new attempt");
    let retried = claim(store, "w");
    assert_eq!(retried.deployment.id, again);
    let back = fail(store, &retried).expect("the push");
    let row = store.deployment(back).expect("an answer").expect("a row");
    assert_eq!((row.kind, row.state, row.after), (Kind::Deploy, StateName::Queued, Some(commit('c', 'c'))));
    assert_eq!(row.delivery, Some(key("d3")), "the newest one");
    let cancelled = store.enqueue(&order("blog", Kind::Rollback), at(2)).expect("a number");
    assert_eq!(state_of(store, back), StateName::Superseded);
    store.cancel_waiting(cancelled, "nobody wants it", at(3)).expect("an answer");
    assert_eq!(claim(store, "w").deployment.after, Some(commit('c', 'c')));
}

fn what_was_stored_under_an_earlier_name_of_the_machine_is_its_own(store: &Fresh) {
    push(store, "blog", "d1", 'a');
    let renamed = NodeName::parse("renamed").expect("a name");
    let adopted = store.adopt(&renamed).expect("an answer");
    let found = store.waiting_sites(&renamed).expect("an answer");
    // With PostgreSQL another name is another machine.
    let expected = if store.is_sqlite() { (1, vec![name("blog")]) } else { (0, vec![]) };
    assert_eq!((adopted, found), expected);
}

fn a_journal_comes_back_in_order_and_its_row_follows(store: &Fresh) {
    push(store, "blog", "d1", 'a');
    let claim = claim(store, "w");
    let id = claim.deployment.id;
    assert_eq!((claim.deployment.state, claim.deployment.started_at), (StateName::Running, Some(at(1))));
    let written = [
        Entry::Entered(Step::Fetch),
        Entry::Resolved(commit('c', 'c')),
        Entry::WillUndo(Undo::Discard(release(1))),
        Entry::Entered(Step::AfterPull),
        Entry::Hook(HookName::AfterPull),
        Entry::Failed(failure(Cause::Error("it broke".into()))),
        Entry::Undone(Undo::Discard(release(1))),
    ];
    for (number, entry) in written.iter().enumerate() {
        store.append(id, &claim.token, entry, at(2 + number as i64)).expect("a line");
    }
    let undoing = store.deployment(id).expect("an answer").expect("a row");
    assert_eq!((undoing.state, undoing.step), (StateName::Running, Some(Step::AfterPull)));
    assert_eq!((undoing.commit, undoing.release), (Some(commit('c', 'c')), Some(release(1))));
    let outcome = Outcome::of(failure(Cause::Error("it broke".into())));
    store.finish(id, &claim.token, &outcome, &FollowUp::default(), at(50)).expect("the end");
    let ended = store.deployment(id).expect("an answer").expect("a row");
    assert_eq!((ended.state, ended.step, ended.finished_at), (StateName::Failed, Some(Step::AfterPull), Some(at(50))));
    assert_eq!(ended.reason.as_deref(), Some("after.pull: it broke"));
    let lines = store.journal(id).expect("an answer");
    assert_eq!(lines.iter().map(|line| line.seq).collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
    assert_eq!((lines[1].at, lines[8].at), (at(2), at(50)));
    let expected: Vec<_> = [Entry::Claimed].into_iter().chain(written).chain([Entry::Finished(outcome)]).collect();
    assert_eq!(lines.into_iter().map(|line| line.entry).collect::<Vec<_>>(), expected);
}

fn a_journal_that_makes_no_sense_is_refused(store: &Fresh) {
    push(store, "blog", "d1", 'a');
    let claim = claim(store, "w");
    let id = claim.deployment.id;
    let not_yet_failed = store.append(id, &claim.token, &Entry::Undone(Undo::Discard(release(1))), at(2));
    assert!(matches!(not_yet_failed, Err(StoreError::Corrupt(_))), "{not_yet_failed:?}");
    finish(store, &claim, &Outcome::Live);
    for entry in [Entry::Entered(Step::Prune), Entry::Finished(Outcome::Current)] {
        assert!(store.append(id, &claim.token, &entry, at(3)).is_err(), "{entry:?} after the end");
    }
    assert_eq!(entries(store, id), [Entry::Claimed, Entry::Finished(Outcome::Live)]);
    assert_eq!(state_of(store, id), StateName::Succeeded);
}

fn a_reason_with_any_byte_in_it_can_be_stored(store: &Fresh) {
    push(store, "blog", "d1", 'a');
    let claim = claim(store, "w");
    let odd = "nul \0, quote ', escape \u{1b}[1m, \u{1f6a8}";
    let outcome = Outcome::of(failure(Cause::Error(odd.into())));
    finish_with(store, &claim, &outcome, &FollowUp { hold: Some(hold(odd)), ..FollowUp::default() });
    let row = store.deployment(claim.deployment.id).expect("an answer").expect("a row");
    let readable = odd.replace('\0', "\u{fffd}");
    assert_eq!(row.reason, Some(format!("after.pull: {readable}")));
    assert_eq!(entries(store, row.id).last(), Some(&Entry::Finished(outcome)), "the journal keeps it as it is");
    let refused = push(store, "blog", "d2", 'b');
    assert_eq!(refused.reason, Some(format!("hold: {readable}")));
    let ignored = Verdict::Whole { status: DeliveryStatus::Of(SiteStatus::Ignored), reason: Some(odd.into()) };
    store.accept(submission(delivery("d3", 'a'), ignored, at(2)), &nothing_is_live).expect("an answer");
}

fn the_newest_release_survives_a_failure(store: &Fresh) {
    let newest = || store.newest_release(&name("blog"), &web1()).expect("an answer");
    assert_eq!(newest(), None);
    for number in 1..=2 {
        push(store, "blog", "d1", 'a');
        let claim = claim(store, "w");
        let will_discard = Entry::WillUndo(Undo::Discard(release(number)));
        store.append(claim.deployment.id, &claim.token, &will_discard, at(2)).expect("a line");
        finish(store, &claim, &Outcome::of(failure(Cause::Error("x".into()))));
    }
    assert_eq!(newest(), Some(release(2)));
    push(store, "blog", "d1", 'a');
    finish(store, &claim(store, "w"), &Outcome::of(failure(Cause::Error("no release yet".into()))));
    store.enqueue(&order("blog", Kind::Rollback), at(3)).expect("a number");
    let rollback = claim(store, "w");
    let back = Entry::WillUndo(Undo::FlipBack { from: None, to: release(1) });
    store.append(rollback.deployment.id, &rollback.token, &back, at(4)).expect("a line");
    assert_eq!(newest(), Some(release(2)), "a rollback makes no release");
}

// --- The whole store ------------------------------------------------------------------------------------------------

fn everything_is_there_after_a_restart(fresh: &Fresh) {
    let before = fresh.again();
    roll_back(&before, "shop", "a bad day");
    push(&before, "blog", "d1", 'a');
    let running = claim(&before, "the dead");
    push(&before, "blog", "d2", 'b');
    let all = DeploymentFilter { site: None, limit: 50 };
    let (deployments, journal) = (before.deployments(&all), before.journal(running.deployment.id));
    drop(before);
    let after = fresh.again();
    assert_eq!(after.deployments(&all).expect("an answer"), deployments.expect("an answer"));
    assert_eq!(after.journal(running.deployment.id).expect("an answer"), journal.expect("an answer"));
    assert_eq!(after.hold(&name("shop")).expect("an answer"), Some(hold("a bad day")));
    assert_eq!(push(&after, "blog", "d2", 'b').status, SiteStatus::Duplicate);
    after.append(running.deployment.id, &running.token, &Entry::Entered(Step::Fetch), at(3)).expect("a line");
}

fn two_processes_see_what_the_other_wrote(server: &Fresh) {
    let command_line = server.again();
    let id = command_line.enqueue(&order("blog", Kind::Deploy), at(0)).expect("a number");
    let running = claim(server, "the server");
    assert_eq!((running.deployment.id, state_of(&command_line, id)), (id, StateName::Running));
    finish(server, &running, &Outcome::Live);
    assert_eq!(state_of(&command_line, id), StateName::Succeeded);
    assert_eq!(entries(&command_line, id), [Entry::Claimed, Entry::Finished(Outcome::Live)]);
}

fn many_processes_open_a_fresh_store_at_once(fresh: &Fresh) {
    let empty = fresh.elsewhere();
    let url = empty.url("");
    let start = Barrier::new(6);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                start.wait();
                let opened = Store::open(&url);
                assert!(opened.is_ok(), "{opened:?}");
            });
        }
    });
}

fn a_newer_schema_is_refused(store: &Fresh) {
    store.execute(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         SELECT 9999, 'from the future', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
    );
    let refused = Store::open(&store.url);
    assert!(matches!(refused, Err(StoreError::Newer(9999))), "{refused:?}");
}

fn writers_that_cross_never_lock_each_other_out(store: &Fresh) {
    const ROUNDS: usize = 25;
    let start = Barrier::new(6);
    std::thread::scope(|scope| {
        for (thread, sites) in [["blog", "shop"], ["shop", "blog"]].into_iter().enumerate() {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    let digit = char::from_digit((round % 15) as u32 + 1, 16).expect("a digit");
                    let sent = delivery(&format!("{thread}-{round}"), digit);
                    store
                        .accept(submission(sent, pushed(&sites, digit), at(round as i64)), &nothing_is_live)
                        .expect("an answer");
                }
            });
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    store.enqueue(&order(sites[0], Kind::Deploy), at(round as i64)).expect("a number");
                }
            });
            scope.spawn(move || {
                start.wait();
                for _ in 0..ROUNDS {
                    let owner = format!("worker {thread}");
                    let Some(claim) = claim_oldest(store, &web1(), &owner, Utc::now()) else {
                        continue;
                    };
                    store.renew(&owner, LEASE, Utc::now()).expect("an answer");
                    let follow_up = FollowUp { hold: Some(hold("x")), retry: Some(2), ..FollowUp::default() };
                    finish_with(store, &claim, &interrupted(), &follow_up);
                }
            });
        }
    });
}

fn deployments_are_listed_newest_first_by_site_and_number(store: &Fresh) {
    let ids: Vec<_> = ["blog", "shop", "blog", "blog"]
        .into_iter()
        .map(|site| store.enqueue(&order(site, Kind::Deploy), at(0)).expect("a number").0)
        .collect();
    assert_eq!(ids, [1, 2, 3, 4]);
    let list = |site: Option<&str>, limit| -> Vec<i64> {
        let filter = DeploymentFilter { site: site.map(name), limit };
        store.deployments(&filter).expect("an answer").into_iter().map(|found| found.id.0).collect()
    };
    assert_eq!(list(None, 50), [4, 3, 2, 1]);
    assert_eq!(list(None, 2), [4, 3]);
    assert_eq!(list(Some("blog"), 2), [4, 3]);
    assert_eq!(list(Some("blog"), 50), [4, 3, 1]);
    assert_eq!(list(Some("wiki"), 50), Vec::<i64>::new());
}

fn a_store_that_cannot_be_written_says_so(store: &Fresh) {
    store.check_writable().expect("a store that can be written");
    store.refuse_writes();
    let answer = store.check_writable();
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert!(store.accept(submission(delivery("d1", 'a'), pushed(&["blog"], 'a'), at(0)), &nothing_is_live).is_err());
    assert_eq!(waiting(store, &web1()), 0);
}

// --- What is true of one database only ------------------------------------------------------------------------------

#[test]
fn sqlite_keeps_a_write_ahead_log() {
    let store = Fresh::sqlite();
    let mode = runtime().block_on(async {
        let mut connection = SqliteConnection::connect(&store.url).await?;
        sqlx::query_scalar::<_, String>("PRAGMA journal_mode").fetch_one(&mut connection).await
    });
    assert_eq!(mode.expect("an answer"), "wal");
    // `synchronous` belongs to a connection and cannot be asked from another one.
}

#[test]
#[ignore = "needs PostgreSQL: tests/run.sh starts one"]
fn a_server_with_stricter_defaults_makes_no_difference() {
    let store = Fresh::postgres("-c default_transaction_isolation=serializable");
    one_delivery_twenty_times_at_once_is_one_deployment(&store);
    writers_that_cross_never_lock_each_other_out(&store);
}

// --- What the stories are made of -----------------------------------------------------------------------------------

const LEASE: Duration = Duration::from_secs(30);

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_000_000 + seconds, 123_000_000).expect("a time")
}

fn name(text: &str) -> SiteName {
    SiteName::parse(text).expect("a name")
}

fn web1() -> NodeName {
    NodeName::parse("web1").expect("a name")
}

fn key(text: &str) -> DeliveryKey {
    DeliveryKey::parse(text).expect("a delivery id")
}

fn branch() -> RefName {
    RefName::parse("refs/heads/main").expect("a ref")
}

fn commit(first: char, rest: char) -> Revision {
    Revision::parse(&format!("{first}{}", rest.to_string().repeat(39))).expect("a commit id")
}

fn release(second: u32) -> ReleaseId {
    ReleaseId::parse(&format!("2026-11-22T10:15:{second:02}.000000.1a2b3c4")).expect("a release name")
}

fn failure(cause: Cause) -> Failure {
    Failure { step: Step::AfterPull, cause }
}

fn interrupted() -> Outcome {
    Outcome::of(failure(Cause::Interrupted("the process that ran it ended".into())))
}

fn stuck_outcome() -> Outcome {
    Outcome::Stuck { failure: failure(Cause::Error("x".into())), left: vec![Undo::Discard(release(1))] }
}

fn hold(reason: &str) -> Hold {
    Hold { reason: reason.into(), owner: "ada".into(), since: at(4) }
}

fn retry(attempt: i64) -> FollowUp {
    FollowUp { retry: Some(attempt), ..FollowUp::default() }
}

fn order(site: &str, kind: Kind) -> NewDeployment {
    NewDeployment {
        site: name(site),
        node: web1(),
        kind,
        ref_name: Some(branch()),
        rollback_to: None,
        force: true,
        requested_by: "ada".into(),
    }
}

fn delivery(id: &str, digit: char) -> NewDelivery {
    NewDelivery {
        repository: RepositoryName::parse("blog").expect("a name"),
        repository_id: None,
        key: key(id),
        event: "push".into(),
        digest: digit.to_string().repeat(64),
        changes: vec![Change {
            ref_name: branch(),
            before: Some(commit('0', '1')),
            after: Some(commit(digit, digit)),
            message: None,
        }],
        headers: vec![("x-github-event".into(), "push".into())],
        body: format!("the body of {digit}").into_bytes(),
        source: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        replay: None,
        received_at: at(0),
    }
}

fn pushed(sites: &[&str], digit: char) -> Verdict {
    Verdict::Sites(sites.iter().map(|site| verdict(site, digit)).collect())
}

fn verdict(site: &str, digit: char) -> VerdictFor {
    let wanted = Wanted { ref_name: branch(), before: Some(commit('0', '1')), after: commit(digit, digit) };
    VerdictFor { site: name(site), node: web1(), route: Route::Deploy(wanted) }
}

fn push(store: &Store, site: &str, id: &str, digit: char) -> SiteAcceptance {
    only(
        store
            .accept(submission(delivery(id, digit), pushed(&[site], digit), at(0)), &nothing_is_live)
            .expect("an answer"),
    )
}

fn submission(delivery: NewDelivery, verdict: Verdict, received_at: DateTime<Utc>) -> Submission {
    Submission { delivery: NewDelivery { received_at, ..delivery }, verdict, arrived: Instant::now() }
}

/// What becomes of this tip of the branch, which a remote that was asked at this second shows.
fn look(store: &Store, digit: char, asked_at: i64) -> Reconciled {
    let seen = Sighting { ref_name: branch(), tip: commit(digit, digit), asked_at: at(asked_at) };
    store.reconcile(&name("blog"), &web1(), &seen, &nothing_is_live, at(9)).expect("an answer")
}

/// The same for a commit that is live.
fn look_live(store: &Store, digit: char) -> Reconciled {
    let seen = Sighting { ref_name: branch(), tip: commit(digit, digit), asked_at: at(9) };
    store.reconcile(&name("blog"), &web1(), &seen, &move |_| Some(commit(digit, digit)), at(9)).expect("an answer")
}

/// Runs what waits: it finds this tip, and ends at 4 like everything here.
fn find(store: &Store, digit: char, outcome: &Outcome) {
    let claim = claim(store, "w");
    let found = Entry::Resolved(commit(digit, digit));
    store.append(claim.deployment.id, &claim.token, &found, at(2)).expect("a line");
    finish(store, &claim, outcome);
}

fn nothing_is_live(_: &SiteName) -> Option<Revision> {
    None
}

/// The same for a commit that is live when the push arrives.
fn push_live(store: &Store, site: &str, id: &str, digit: char) -> SiteAcceptance {
    only(
        store
            .accept(submission(delivery(id, digit), pushed(&[site], digit), at(0)), &move |_| {
                Some(commit(digit, digit))
            })
            .expect("an answer"),
    )
}

fn only(accepted: Acceptance) -> SiteAcceptance {
    accepted.sites.into_iter().next().expect("a site")
}

fn number(answer: &SiteAcceptance) -> DeploymentId {
    answer.deployment.expect("a deployment").0
}

fn claim(store: &Store, owner: &str) -> Claim {
    claim_oldest(store, &web1(), owner, at(1)).expect("something to do")
}

/// As a worker does it: each site in a transaction of its own.
fn claim_oldest(store: &Store, node: &NodeName, owner: &str, now: DateTime<Utc>) -> Option<Claim> {
    let sites = store.waiting_sites(node).expect("an answer");
    sites.iter().find_map(|site| store.claim_next(site, node, owner, LEASE, now).expect("an answer"))
}

fn finish(store: &Store, claim: &Claim, outcome: &Outcome) {
    assert_eq!(finish_with(store, claim, outcome, &FollowUp::default()), None);
}

fn finish_with(store: &Store, claim: &Claim, outcome: &Outcome, follow_up: &FollowUp) -> Option<DeploymentId> {
    store.finish(claim.deployment.id, &claim.token, outcome, follow_up, at(4)).expect("the end")
}

fn roll_back(store: &Store, site: &str, reason: &str) {
    store.enqueue(&order(site, Kind::Rollback), at(0)).expect("a number");
    let follow_up = FollowUp { hold: Some(hold(reason)), bad_release: Some(release(1)), retry: None };
    finish_with(store, &claim(store, "w"), &Outcome::Live, &follow_up);
}

/// How many deployments of a node wait.
fn waiting(store: &Store, node: &NodeName) -> usize {
    let all = store.deployments(&DeploymentFilter { site: None, limit: 10_000 }).expect("an answer");
    all.iter().filter(|found| found.node == *node && found.state == StateName::Queued).count()
}

fn state_of(store: &Store, id: DeploymentId) -> StateName {
    store.deployment(id).expect("an answer").expect("a deployment").state
}

fn entries(store: &Store, id: DeploymentId) -> Vec<Entry> {
    store.journal(id).expect("an answer").into_iter().map(|line| line.entry).collect()
}

/// A store that nothing else uses; it is gone with the story.
struct Fresh {
    store: Store,
    url: String,
    place: Place,
}

enum Place {
    Directory(TempDir),
    Schema(Schema),
}

impl Place {
    fn url(&self, options: &str) -> String {
        match self {
            Self::Directory(directory) => format!("sqlite:{}", directory.path().join("landfall.db").display()),
            Self::Schema(schema) => schema.url(options),
        }
    }
}

impl Deref for Fresh {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Fresh {
    fn sqlite() -> Self {
        Self::at(Place::Directory(tempfile::tempdir().expect("a directory")), "")
    }

    /// A schema of its own, in sessions with these options of PostgreSQL.
    fn postgres(options: &str) -> Self {
        let server = std::env::var("LANDFALL_TEST_POSTGRES")
            .expect("LANDFALL_TEST_POSTGRES names a PostgreSQL server, as postgres://user@host:port/database");
        Self::at(Place::Schema(Schema::new(server)), options)
    }

    fn at(place: Place, options: &str) -> Self {
        let url = place.url(options);
        Self { store: Store::open(&url).expect("a store"), url, place }
    }

    fn is_sqlite(&self) -> bool {
        matches!(self.place, Place::Directory(_))
    }

    /// Another process with the same store.
    fn again(&self) -> Store {
        Store::open(&self.url).expect("a store")
    }

    /// Another place of the same kind, where no store was made yet.
    fn elsewhere(&self) -> Place {
        match &self.place {
            Place::Directory(_) => Place::Directory(tempfile::tempdir().expect("a directory")),
            Place::Schema(schema) => Place::Schema(Schema::new(schema.server.clone())),
        }
    }

    /// Behind the store's back.
    fn execute(&self, sql: &str) {
        let done = match &self.place {
            Place::Directory(_) => runtime().block_on(async {
                let mut connection = SqliteConnection::connect(&self.url).await?;
                connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.map(drop)
            }),
            Place::Schema(_) => execute_postgres(&self.url, sql),
        };
        done.expect("a statement that works");
    }

    /// Asks for one number behind the store's back.
    fn count(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        let count = runtime().block_on(async {
            match &self.place {
                Place::Directory(_) => {
                    let mut connection = SqliteConnection::connect(&self.url).await?;
                    sqlx::query_scalar(sql).fetch_one(&mut connection).await
                }
                Place::Schema(_) => {
                    let mut connection = PgConnection::connect(&self.url).await?;
                    sqlx::query_scalar(sql).fetch_one(&mut connection).await
                }
            }
        });
        count.expect("a number")
    }

    /// From now on every write fails, as on a full disk, and reading goes on. Taking away the right to write would not
    /// do: the store has its file open, and root may always write.
    fn refuse_writes(&self) {
        match &self.place {
            Place::Directory(_) => self.execute(
                "CREATE TRIGGER full BEFORE UPDATE ON counter BEGIN SELECT RAISE(ABORT, 'the disk is full'); END",
            ),
            Place::Schema(_) => self.execute(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE disk_full; END $$; \
                 CREATE TRIGGER full_disk BEFORE UPDATE ON counter FOR EACH ROW EXECUTE FUNCTION full_disk()",
            ),
        }
    }
}

/// A schema on a PostgreSQL server, dropped with this.
struct Schema {
    server: String,
    name: String,
}

impl Schema {
    /// Its name is unlike that of any other story, process and run.
    fn new(server: String) -> Self {
        static STORIES: AtomicU64 = AtomicU64::new(0);
        let story = STORIES.fetch_add(1, Ordering::Relaxed);
        let name = format!("landfall_{}_{}_{story}", Utc::now().timestamp_micros(), std::process::id());
        execute_postgres(&server, &format!("CREATE SCHEMA {name}")).expect("a server where schemas can be made");
        Self { server, name }
    }

    fn url(&self, options: &str) -> String {
        let separator = if self.server.contains('?') { '&' } else { '?' };
        let options = format!("-c search_path={} {options}", self.name);
        let encoded = options.trim_end().replace(' ', "%20").replace('=', "%3D");
        format!("{}{separator}options={encoded}", self.server)
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let dropped = execute_postgres(&self.server, &format!("DROP SCHEMA {} CASCADE", self.name));
        // A second panic would hide the first.
        assert!(dropped.is_ok() || std::thread::panicking(), "{dropped:?}");
    }
}

fn execute_postgres(url: &str, sql: &str) -> Result<(), sqlx::Error> {
    runtime().block_on(async {
        let mut connection = PgConnection::connect(url).await?;
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.map(drop)
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
