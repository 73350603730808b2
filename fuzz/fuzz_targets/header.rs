//! Headers of anybody: what is believed was signed with the secret, or is a copy of what was.

#![no_main]

use std::sync::LazyLock;

use landfall::domain::forge::Forge;
use landfall::webhook::{accepts_media_type, authenticate, check_head};
use landfall_fuzz::{SENDERS, assert_showable, input_of, now, plant, sent, values};
use libfuzzer_sys::fuzz_target;

/// What the proofs of the seeds cover, by sender: nothing else has been signed.
static SIGNED: LazyLock<Vec<Vec<Vec<Vec<u8>>>>> =
    LazyLock::new(|| SENDERS.iter().map(|sender| sender.composed().iter().map(sender.proven).collect()).collect());

fuzz_target!(
    init: plant(SENDERS.iter().flat_map(|sender| sender.composed().into_iter().map(|request| input_of(sender, &request)))),
    |input: &[u8]| {
        let Some((sender, request)) = sent(input) else { return };
        let secrets = sender.secrets();
        let head = check_head(sender.forge, &request, &secrets);
        match authenticate(sender.forge, request.clone(), &secrets, now()) {
            Ok(_) => {
                head.expect("what is believed is not refused before its body is read");
                for name in sender.proof {
                    assert_eq!(values(&request, name).len(), 1, "`{name}` decides, and is there once");
                }
                let index = SENDERS.iter().position(|other| std::ptr::eq(other, sender)).expect("a sender");
                let proven = (sender.proven)(&request);
                assert!(SIGNED[index].contains(&proven), "believed, and never signed: {proven:?}");
            }
            Err(refusal) => {
                let text = refusal.to_string();
                assert_showable(&text);
                assert!(!text.contains(sender.secret), "{text}");
            }
        }
        let media_types = values(&request, "content-type");
        if let Some(Ok(text)) = media_types.first().map(|value| std::str::from_utf8(value)) {
            // A parameter changes nothing.
            let with_parameter = format!("{text}; x=y");
            for forge in Forge::ALL {
                let accepted = accepts_media_type(forge, Some(text));
                assert_eq!(accepted, accepts_media_type(forge, Some(&with_parameter)), "{text}");
            }
        }
    }
);
