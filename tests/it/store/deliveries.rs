//! What is kept of deliveries, and many of them in one transaction.

use std::sync::Arc;

use landfall::store::{Delivery, DeliveryFilter, DeliveryRetention, Replay, RepositoryId, Ticket};

use super::*;

stories! {
    a_delivery_comes_back_as_it_was_decided,
    each_arrival_of_a_key_is_an_attempt,
    a_body_is_kept_once_and_comes_back_as_it_was,
    the_first_id_of_a_repository_is_remembered_and_another_one_refused,
    a_push_of_another_repository_is_not_taken_for_a_lost_one,
    what_is_old_or_too_much_is_dropped_the_oldest_first,
    an_ignored_push_stays_as_long_as_it_is_the_last_of_its_ref,
    bodies_are_dropped_by_their_last_use,
    many_at_once_are_decided_in_their_order,
    a_delivery_that_cannot_be_written_takes_nothing_from_the_others,
    a_panic_while_one_is_decided_does_not_close_the_door,
    two_writers_with_the_same_delivery_make_one_deployment,
    an_old_row_without_the_new_columns_can_be_read,
}

fn all(store: &Store) -> Vec<Delivery> {
    store.deliveries(&DeliveryFilter { limit: 1000, ..DeliveryFilter::default() }).expect("an answer")
}

fn accept(store: &Store, sent: NewDelivery, verdict: Verdict) -> Acceptance {
    let received_at = sent.received_at;
    store.accept(submission(sent, verdict, received_at), &nothing_is_live).expect("an answer")
}

fn acceptance(ticket: Ticket) -> Result<Acceptance, StoreError> {
    runtime().block_on(ticket.acceptance())
}

fn a_delivery_comes_back_as_it_was_decided(store: &Fresh) {
    let mut verdicts = ["blog", "shop"].map(|site| verdict(site, 'a'));
    verdicts[1].route = Route::Ignore("another branch".into());
    let replay = Replay { of: 7, asked_by: "ada".into() };
    let sent = NewDelivery { replay: Some(replay.clone()), ..delivery("d1", 'a') };
    let accepted = accept(store, sent.clone(), Verdict::Sites(verdicts.into()));
    let kept = store.delivery(accepted.delivery).expect("an answer").expect("a delivery");
    assert_eq!(
        (kept.repository, kept.key, kept.event, kept.digest),
        (sent.repository, sent.key, sent.event, sent.digest)
    );
    assert_eq!((kept.changes, kept.headers), (sent.changes, sent.headers));
    assert_eq!((kept.received_at, kept.source.as_deref()), (sent.received_at, Some("127.0.0.1")));
    assert_eq!((kept.body_size, kept.replay, kept.reason), (Some(13), Some(replay), None));
    assert_eq!(kept.status, DeliveryStatus::Of(SiteStatus::Queued));
    assert!(kept.latency_us.is_some_and(|latency| (0..60_000_000).contains(&latency)), "{:?}", kept.latency_us);
    let sites: Vec<_> =
        kept.sites.into_iter().map(|it| (it.site, it.status, it.reason, it.ref_name, it.deployment)).collect();
    let queued = Some((DeploymentId(1), StateName::Queued));
    let blog = (name("blog"), SiteStatus::Queued, None, Some(branch()), queued);
    assert_eq!(sites, [blog, (name("shop"), SiteStatus::Ignored, Some("another branch".into()), None, None)]);
    store.cancel_waiting(DeploymentId(1), "no", at(1)).expect("an answer");
    let later = store.delivery(accepted.delivery).expect("an answer").expect("a delivery");
    assert_eq!(later.sites[0].deployment, Some((DeploymentId(1), StateName::Cancelled)), "as far as it is now");
    assert!(store.delivery(99).expect("an answer").is_none());
}

fn each_arrival_of_a_key_is_an_attempt(store: &Fresh) {
    for (id, digit) in [("d1", 'a'), ("d2", 'a'), ("d1", 'a'), ("d1", 'b')] {
        push(store, "blog", id, digit);
    }
    let attempts: Vec<_> = all(store).iter().map(|kept| (kept.key.to_string(), kept.attempt)).collect();
    let expected = [("d1", 3), ("d1", 2), ("d2", 1), ("d1", 1)].map(|(key, attempt)| (key.to_owned(), attempt));
    assert_eq!(attempts, expected, "newest first");
    let of_key = DeliveryFilter { key: Some(key("d1")), limit: 2, ..DeliveryFilter::default() };
    assert_eq!(store.deliveries(&of_key).expect("an answer").len(), 2);
    let of_other = DeliveryFilter { repository: RepositoryName::parse("shop").ok(), limit: 9, key: None };
    assert_eq!(store.deliveries(&of_other).expect("an answer").len(), 0);
}

fn a_body_is_kept_once_and_comes_back_as_it_was(store: &Fresh) {
    let bodies = [b"\xff\0{}".to_vec(), Vec::new(), b"{}".repeat(100_000)];
    for (number, body) in bodies.iter().enumerate() {
        let digest = number.to_string().repeat(64);
        for id in ["d1", "d2"] {
            accept(
                store,
                NewDelivery { body: body.clone(), digest: digest.clone(), ..delivery(id, 'a') },
                pushed(&["blog"], 'a'),
            );
        }
        assert_eq!(store.body(&digest).expect("an answer").as_ref(), Some(body));
    }
    assert_eq!(store.body("none").expect("an answer"), None);
    assert_eq!(store.count("SELECT COUNT(*) FROM body"), 3);
    assert!(store.count("SELECT CAST(SUM(packed_size) AS BIGINT) FROM body") < 1000, "they are compressed");
}

fn the_first_id_of_a_repository_is_remembered_and_another_one_refused(store: &Fresh) {
    let from = |id: Option<&str>, digit: char| {
        let sent = NewDelivery { repository_id: id.map(of_blog), ..delivery("d", digit) };
        accept(store, sent, pushed(&["blog"], digit))
    };
    assert_eq!(from(None, 'a').status, DeliveryStatus::Of(SiteStatus::Queued));
    assert_eq!(from(Some("42"), 'b').status, DeliveryStatus::Of(SiteStatus::Duplicate));
    let refused = from(Some("43"), 'c');
    assert_eq!((refused.status, refused.sites.len()), (DeliveryStatus::Of(SiteStatus::Ignored), 1));
    assert_eq!(look(store, 'c', 9), Reconciled::Left(Reason::Busy));
    let reason = refused.reason.expect("a reason");
    assert!(reason.contains("`43`") && reason.contains("`42`") && reason.contains("`repository_id`"), "{reason}");
    assert_eq!(store.delivery(refused.delivery).expect("an answer").expect("a row").reason, Some(reason));
    assert_eq!(from(Some("42"), 'd').sites.len(), 1);
    assert_eq!(from(None, 'e').sites.len(), 1, "what says nothing does not contradict");
    let shop = RepositoryName::parse("shop").expect("a name");
    let other = NewDelivery { repository: shop, repository_id: Some(of_blog("43")), ..delivery("d", 'f') };
    assert_eq!(accept(store, other, pushed(&["shop"], 'f')).reason, None, "each repository has its own");
    let elsewhere = RepositoryId { of: "gitlab acme/blog".into(), id: "7".into() };
    let moved = NewDelivery { repository_id: Some(elsewhere), ..delivery("d", 'f') };
    assert_eq!(accept(store, moved, pushed(&["wiki"], 'f')).reason, None, "another forge was configured");
}

fn of_blog(id: &str) -> RepositoryId {
    RepositoryId { of: "github acme/blog".into(), id: id.into() }
}

fn a_push_of_another_repository_is_not_taken_for_a_lost_one(store: &Fresh) {
    let from = |id: &str, digit: char| NewDelivery { repository_id: Some(of_blog(id)), ..delivery("d", digit) };
    accept(store, from("42", 'a'), pushed(&["shop"], 'a'));
    let refused = accept(store, from("43", 'b'), pushed(&["blog"], 'b'));
    assert_eq!(refused.sites[0].status, SiteStatus::Ignored);
    assert_eq!(look(store, 'b', 9), Reconciled::Left(Reason::Refused));
}

fn retention(keep_secs: u64, keep_count: i64, keep_bodies: i64) -> DeliveryRetention {
    DeliveryRetention { keep: Duration::from_secs(keep_secs), keep_count, keep_bodies }
}

fn what_is_old_or_too_much_is_dropped_the_oldest_first(store: &Fresh) {
    for number in 0..1200 {
        let sent = NewDelivery { received_at: at(number), ..delivery(&format!("d{number}"), 'a') };
        accept(store, sent, pushed(&["blog"], 'a'));
    }
    let prune = |retention: DeliveryRetention| {
        let mut steps = 0;
        while store.prune_deliveries(&retention, at(1200)).expect("an answer") > 0 {
            steps += 1;
        }
        let left: Vec<_> = store
            .deliveries(&DeliveryFilter { limit: 2000, ..DeliveryFilter::default() })
            .expect("an answer")
            .iter()
            .map(|kept| kept.id)
            .collect();
        (steps, left.len(), left.first().copied(), left.last().copied())
    };
    assert_eq!(prune(retention(5000, 5000, 1 << 30)), (0, 1200, Some(1200), Some(1)));
    assert_eq!(prune(retention(1100, 5000, 1 << 30)), (1, 1100, Some(1200), Some(101)), "by age");
    assert_eq!(prune(retention(1100, 10, 1 << 30)), (3, 10, Some(1200), Some(1191)), "by number, in parts");
    assert_eq!(store.count("SELECT COUNT(*) FROM delivery_site"), 10);
    assert_eq!(waiting(store, &web1()), 1, "no deployment goes");
}

fn an_ignored_push_stays_as_long_as_it_is_the_last_of_its_ref(store: &Fresh) {
    let Route::Deploy(wanted) = verdict("blog", 'a').route else { panic!("no route") };
    let skip = VerdictFor { route: Route::Skip(wanted, "the commit says so".into()), ..verdict("blog", 'a') };
    for id in ["d1", "d2"] {
        let site = only(accept(store, delivery(id, 'a'), Verdict::Sites(vec![skip.clone()])));
        assert_eq!((site.status, site.reason.as_deref()), (SiteStatus::Ignored, Some("the commit says so")));
    }
    for number in 0..5 {
        push(store, "shop", &format!("s{number}"), 'a');
    }
    store.prune_deliveries(&retention(5000, 1, 1 << 30), at(9)).expect("an answer");
    assert_eq!(all(store).iter().map(|kept| kept.id).collect::<Vec<_>>(), [7, 2]);
    assert_eq!(look(store, 'a', 9), Reconciled::Left(Reason::Refused));
    assert_eq!(waiting(store, &web1()), 1, "the shop's");
}

fn bodies_are_dropped_by_their_last_use(store: &Fresh) {
    let mut noise = 1_u32;
    let mut body = || {
        let byte = || {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            noise.to_be_bytes()[0]
        };
        std::iter::repeat_with(byte).take(1000).collect::<Vec<_>>()
    };
    let send = |number: i64, body: &[u8], second: i64| {
        let digest = number.to_string().repeat(64);
        let sent = NewDelivery { body: body.to_vec(), digest, received_at: at(second), ..delivery("d", 'a') };
        accept(store, sent, pushed(&["blog"], 'a'));
    };
    let bodies = [body(), body(), body()];
    for (number, body) in (0..).zip(&bodies) {
        send(number, body, number);
    }
    send(0, &bodies[0], 10);
    let there =
        || [0, 1, 2].map(|number: i64| store.body(&number.to_string().repeat(64)).expect("an answer").is_some());
    store.prune_deliveries(&retention(1000, 1000, 2500), at(10)).expect("an answer");
    assert_eq!(there(), [true, false, true], "the one that was unused longest");
    store.prune_deliveries(&retention(5, 1000, 2500), at(10)).expect("an answer");
    assert_eq!(there(), [true, false, false]);
}

fn many_at_once_are_decided_in_their_order(store: &Fresh) {
    let acceptor = store.acceptor(Arc::new(nothing_is_live)).expect("a writer");
    let digit = |number: usize| char::from_digit((number % 15 + 1) as u32, 16).expect("a digit");
    let tickets: Vec<_> = (0..300)
        .map(|number| {
            let sent = submission(
                delivery(&format!("d{}", number % 200), digit(number)),
                pushed(&["blog", "shop"], digit(number)),
                at(0),
            );
            acceptor.submit(sent).expect("a ticket")
        })
        .collect();
    let answers: Vec<_> = tickets.into_iter().map(|ticket| acceptance(ticket).expect("an answer")).collect();
    let numbers: Vec<_> = answers.iter().map(|answer| answer.delivery).collect();
    assert_eq!(numbers, (1..=300).collect::<Vec<_>>());
    assert_eq!(all(store).len(), 300);
    let newest = answers.last().expect("an answer").sites[0].deployment;
    let waits = store.pending(&name("blog")).expect("an answer");
    assert_eq!(
        waits.iter().map(|row| (row.id, row.after.clone())).collect::<Vec<_>>(),
        [(newest.expect("one").0, Some(commit(digit(299), digit(299))))]
    );
    let queued: usize =
        answers.iter().flat_map(|answer| &answer.sites).filter(|site| site.status == SiteStatus::Queued).count();
    let rows = store.count("SELECT COUNT(*) FROM deployment");
    assert_eq!(usize::try_from(rows).expect("a count"), queued);
    let superseded =
        store.count("SELECT COUNT(*) FROM deployment WHERE state = 'superseded' AND superseded_by IS NOT NULL");
    assert_eq!(superseded, rows - 2, "all but the newest of each site");
}

fn a_delivery_that_cannot_be_written_takes_nothing_from_the_others(store: &Fresh) {
    let acceptor = store.acceptor(Arc::new(nothing_is_live)).expect("a writer");
    // Twice the same site in one delivery breaks a rule of the schema.
    let tickets: Vec<_> = (0..40)
        .map(|number| {
            let sites: &[&str] = if number % 10 == 3 { &["blog", "blog"] } else { &["blog"] };
            acceptor
                .submit(submission(delivery(&format!("d{number}"), 'a'), pushed(sites, 'a'), at(0)))
                .expect("a ticket")
        })
        .collect();
    let accepted: Vec<_> = tickets.into_iter().map(|ticket| acceptance(ticket).is_ok()).collect();
    assert_eq!(accepted, (0..40).map(|number| number % 10 != 3).collect::<Vec<_>>());
    assert_eq!(all(store).len(), 36);
}

fn a_panic_while_one_is_decided_does_not_close_the_door(store: &Fresh) {
    let live = |site: &SiteName| {
        assert_eq!(site.as_str(), "blog", "a bug of the one who asks the disk");
        None
    };
    let acceptor = store.acceptor(Arc::new(live)).expect("a writer");
    let send =
        |site: &str| acceptor.submit(submission(delivery("d", 'a'), pushed(&[site], 'a'), at(0))).expect("a ticket");
    assert!(matches!(acceptance(send("shop")), Err(StoreError::Batch(_))));
    assert_eq!(acceptance(send("blog")).expect("an answer").status, DeliveryStatus::Of(SiteStatus::Queued));
    assert_eq!(store.count("SELECT COUNT(*) FROM delivery"), 1);
}

fn two_writers_with_the_same_delivery_make_one_deployment(store: &Fresh) {
    let other = Store::open(&store.url).expect("the store again");
    let writers = [&**store, &other].map(|store| store.acceptor(Arc::new(nothing_is_live)).expect("a writer"));
    for round in 0..20 {
        let digit = char::from_digit((round % 15 + 1) as u32, 16).expect("a digit");
        let sent = || submission(delivery(&format!("d{round}"), digit), pushed(&["blog"], digit), at(0));
        let tickets = writers.each_ref().map(|writer| writer.submit(sent()).expect("a ticket"));
        let mut found = tickets.map(|ticket| only(acceptance(ticket).expect("an answer")));
        found.sort_by_key(|site| site.status);
        assert_eq!(found.each_ref().map(|site| site.status), [SiteStatus::Queued, SiteStatus::Duplicate]);
        assert_eq!(found[0].deployment, found[1].deployment);
    }
}

fn an_old_row_without_the_new_columns_can_be_read(store: &Fresh) {
    store.execute(
        "INSERT INTO delivery (id, repository, forge_key, attempt, event, digest, ref_name, before_id, after_id, status, \
         reason, received_at) VALUES (7, 'blog', 'old', 1, 'push', 'x', 'refs/heads/main', NULL, \
         '1111111111111111111111111111111111111111', 'ignored', 'hold: freeze', 1795000000000)",
    );
    let kept = store.delivery(7).expect("an answer").expect("a delivery");
    assert_eq!(kept.changes.len(), 1);
    assert_eq!((&kept.changes[0].ref_name, kept.changes[0].before.is_some()), (&branch(), false));
    assert_eq!((kept.headers.len(), kept.body_size, kept.latency_us, kept.replay), (0, None, None, None));
    assert_eq!(kept.reason.as_deref(), Some("hold: freeze"));
}
