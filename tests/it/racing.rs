//! Two of the same at once, and `kill -9` around the answer: what was answered with 202 is deployed, and nothing twice.
//!
//! A real server on real sockets. The short stories always run; the long ones are the same, 200 times.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::crash::{Dice, below_strace};
use crate::support::{Answer, Daemon, Delivery, House, Setup, wait_for};

const SHORT: usize = 12;
const LONG: usize = 200;

fn house() -> House {
    House::with(&Setup { site: "keep = 1", ..Setup::default() })
}

/// Commits what this round is known by, and what the forge sends for it.
fn push_of(house: &House, round: usize) -> Delivery {
    let commit = house.origin.commit(&[("index.html", &round.to_string())]);
    Delivery::push(&format!("d{round}"), "refs/heads/main", &"0".repeat(40), &commit)
}

fn bytes_of(delivery: &Delivery) -> Vec<u8> {
    let Delivery { repository, headers, body } = delivery;
    let mut head = format!("POST /hooks/{repository} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn connect(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(&daemon.address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    stream
}

/// Whether a dying server still answered with 202.
fn is_accepted(mut stream: &TcpStream) -> bool {
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).is_ok() && &answer == b"HTTP/1.1 202"
}

/// Waits until this round is live. Looks at the disk only, which takes no time from the others.
fn wait_until_live(house: &House, round: usize) {
    let path = house.root.join("current/index.html");
    wait_for(&format!("round {round} to be live"), || {
        std::fs::read_to_string(&path).is_ok_and(|live| live == round.to_string()).then_some(())
    });
}

/// For each round exactly one deployment went to its end. Others may have been interrupted, or found it live.
#[track_caller]
fn assert_deployed_once(house: &House, rounds: usize) {
    house.wait_for_quiet();
    let mut succeeded = BTreeMap::new();
    for found in house.deployments() {
        let key = found["delivery_key"].as_str().expect("a delivery").to_owned();
        let state = found["state"].as_str().expect("a state").to_owned();
        assert!(matches!(state.as_str(), "succeeded" | "interrupted"), "{found}");
        *succeeded.entry(key).or_insert(0) += usize::from(state == "succeeded");
    }
    let expected: BTreeMap<_, _> = (0..rounds).map(|round| (format!("d{round}"), 1)).collect();
    assert_eq!(succeeded, expected);
}

fn race(rounds: usize) {
    let house = house();
    let daemon = house.serve();
    for round in 0..rounds {
        let request = bytes_of(&push_of(&house, round));
        let streams = [connect(&daemon), connect(&daemon)];
        let start = Barrier::new(streams.len());
        let mut words = std::thread::scope(|scope| {
            let send = |mut stream: TcpStream| {
                start.wait();
                stream.write_all(&request).expect("a request");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).expect("an answer");
                let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
                let answer = Answer { status: 0, head: String::new(), body: body.to_owned() };
                answer.json()["status"].as_str().expect("a status").to_owned()
            };
            let threads = streams.map(|stream| scope.spawn(move || send(stream)));
            threads.map(|thread| thread.join().expect("a sender"))
        });
        words.sort();
        assert!(matches!([&*words[0], &*words[1]], ["current" | "duplicate", "queued"]), "round {round}: {words:?}");
        wait_until_live(&house, round);
    }
    house.wait_for_quiet();
    assert_eq!(house.states(), vec!["succeeded"; rounds], "one for each");
    assert_deployed_once(&house, rounds);
}

#[test]
fn two_identical_deliveries_that_race_make_one_deployment() {
    race(SHORT);
}

#[test]
#[ignore = "takes half a minute: tests/run.sh has the time"]
fn two_identical_deliveries_that_race_200_times_never_make_two_deployments() {
    race(LONG);
}

fn kill_after_the_answer(rounds: usize) {
    let house = house();
    let mut daemon = house.serve();
    for round in 0..rounds {
        let request = bytes_of(&push_of(&house, round));
        let mut stream = connect(&daemon);
        stream.write_all(&request).expect("a request");
        let accepted = is_accepted(&stream);
        daemon.signal(Signal::SIGKILL);
        assert!(accepted, "round {round}: {}", daemon.log());
        drop(daemon);
        daemon = house.serve();
        wait_until_live(&house, round);
    }
    assert_deployed_once(&house, rounds);
}

#[test]
fn a_push_that_was_answered_survives_a_kill() {
    kill_after_the_answer(SHORT);
}

#[test]
#[ignore = "takes a minute: tests/run.sh has the time"]
fn of_200_pushes_that_were_answered_before_a_kill_none_is_lost() {
    kill_after_the_answer(LONG);
}

/// After a death somewhere around the answer: the forge sends it again, since it may not have got one.
fn send_again(house: &House, delivery: &Delivery, round: usize) -> Daemon {
    let daemon = house.serve();
    let answer = daemon.send(delivery);
    assert!(matches!(answer.status, 200 | 202), "round {round}: {answer:?}");
    assert!(matches!(answer.json()["status"].as_str(), Some("queued" | "duplicate" | "current")), "{answer:?}");
    wait_until_live(house, round);
    daemon
}

fn kill_before_the_answer(rounds: usize) {
    let house = house();
    let (mut dice, mut unanswered) = (Dice::new(), 0);
    let mut daemon = house.serve();
    for round in 0..rounds {
        let delivery = push_of(&house, round);
        let mut stream = connect(&daemon);
        stream.write_all(&bytes_of(&delivery)).expect("a request");
        std::thread::sleep(Duration::from_micros(dice.roll(MOST_MICROS)));
        daemon.signal(Signal::SIGKILL);
        drop(daemon);
        unanswered += usize::from(!is_accepted(&stream));
        daemon = send_again(&house, &delivery, round);
    }
    assert!(rounds < LONG || unanswered > 0, "no kill was early enough");
    assert_deployed_once(&house, rounds);
}

/// An answer takes some milliseconds.
const MOST_MICROS: u64 = 8_000;

#[test]
fn a_push_that_is_sent_again_after_a_kill_is_deployed_once() {
    kill_before_the_answer(SHORT);
}

#[test]
#[ignore = "takes a minute: tests/run.sh has the time"]
fn of_200_pushes_that_are_sent_again_after_a_kill_none_is_deployed_twice() {
    kill_before_the_answer(LONG);
}

#[test]
#[ignore = "needs strace: tests/run.sh brings it"]
fn a_kill_at_any_sync_before_the_answer_is_made_good_by_sending_it_again() {
    let house = house();
    // The store is made before: each start has the same few syncs then.
    house.landfall(&["status"]).expect(0);
    let (mut round, mut killed) = (0, 0);
    for number in 1.. {
        let inject = format!("inject=fsync,fdatasync:signal=KILL:when={number}");
        let options = ["-e", "trace=fsync,fdatasync", "-e", &inject];
        let Some(mut server) = Daemon::try_start(below_strace(&house, &options, &["serve"])) else { continue };
        let delivery = push_of(&house, round);
        let mut stream = connect(&server);
        stream.write_all(&bytes_of(&delivery)).expect("a request");
        let accepted = is_accepted(&stream);
        // If it was not the answer that waited for this sync, then the deployment will.
        server.wait();
        killed += usize::from(!accepted);
        let again = send_again(&house, &delivery, round);
        assert_deployed_once(&house, round + 1);
        assert_eq!(again.stop().0, Some(0));
        round += 1;
        if accepted {
            break;
        }
    }
    assert!(killed > 0, "the answer does not wait for a sync");
}
