//! The limits of the door: what a stranger costs, and that what was meant for us comes in all the same.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Daemon, Delivery, House, SECRET, Setup, github_signature, names, wait_for};

const REFUSED: (u16, &str) = (401, "{\"status\":\"unauthorized\"}");
const LARGEST: usize = 25 << 20;

/// A connection that is used by hand.
struct Client(TcpStream);

impl Client {
    fn new(daemon: &Daemon) -> Self {
        let stream = TcpStream::connect(&daemon.address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        Self(stream)
    }

    fn say(&mut self, text: &str) -> &mut Self {
        self.0.write_all(text.replace('\n', "\r\n").as_bytes()).expect("an open connection");
        self
    }

    /// The next answer with its status, and its body as far as one is announced.
    fn answer(&mut self) -> (u16, String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(self.0.read(&mut byte).expect("an answer"), 1, "{}", String::from_utf8_lossy(&head));
            head.extend(byte);
        }
        let head = String::from_utf8(head).expect("text").to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let mut body = vec![0; length.parse().expect("a length")];
        self.0.read_exact(&mut body).expect("a body");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, head, String::from_utf8(body).expect("text"))
    }

    /// Whether the server closes the connection, and says nothing more.
    fn ends(&mut self) -> bool {
        let mut rest = Vec::new();
        // A reset is an end as well: it says that not all was read.
        let read = self.0.read_to_end(&mut rest);
        rest.is_empty() && read.map_or_else(|error| error.kind() == std::io::ErrorKind::ConnectionReset, |_| true)
    }

    /// Sends up to this many bytes; tells how many went before the connection was closed.
    fn flood(&mut self, most: usize) -> usize {
        let block = b"10000\r\n".iter().copied().chain([b' '; 0x10000]).chain(*b"\r\n").collect::<Vec<_>>();
        let mut sent = 0;
        while sent < most && self.0.write_all(&block).is_ok() {
            sent += block.len();
        }
        sent
    }
}

fn head(more: &str) -> String {
    format!("POST /hooks/blog HTTP/1.1\nhost: x\ncontent-type: application/json\nx-github-event: ping\n{more}\n")
}

/// A signature that looks like one, and is that of another body.
fn wrong() -> String {
    format!("x-hub-signature-256: {}\n", github_signature(SECRET, b"another body"))
}

fn refused(answer: &(u16, String, String)) -> bool {
    (answer.0, answer.2.as_str()) == REFUSED
}

#[test]
fn who_cannot_be_authentic_is_refused_before_any_of_the_body_comes() {
    let house = House::new();
    let daemon = house.serve();
    let proofs = ["", "x-hub-signature: sha1=00\n", "x-hub-signature-256: sha256=00\n", "x-gitlab-token: token\n"];
    for proof in proofs {
        let mut client = Client::new(&daemon);
        let answer = client.say(&head(&format!("{proof}content-length: {LARGEST}\n"))).answer();
        assert!(refused(&answer), "{proof}: {answer:?}");
        assert!(answer.1.contains("\r\nconnection: close"), "{proof}: {}", answer.1);
        assert!(client.ends(), "{proof}");
        let mut client = Client::new(&daemon);
        let answer = client.say(&head(&format!("{proof}transfer-encoding: chunked\n"))).answer();
        assert!(refused(&answer), "{proof}: {answer:?}");
    }
    // A small body that does not come is not waited for either.
    assert!(refused(&Client::new(&daemon).say(&head("content-length: 100\n")).answer()));
}

#[test]
fn what_a_stranger_sends_is_not_read() {
    let house = House::new();
    let daemon = house.serve();
    // What lies in the kernel's buffers counts as sent: some megabytes.
    const FLOOD: usize = 64 << 20;
    for announced in [format!("content-length: {}\n", 25 << 20), "transfer-encoding: chunked\n".to_owned()] {
        let mut client = Client::new(&daemon);
        client.say(&head(&announced));
        let sent = client.flood(FLOOD);
        assert!(sent < 20 << 20, "{announced}: {sent} bytes were taken");
    }
    assert_eq!(daemon.get("/healthz").status, 200);
}

#[test]
fn who_asks_before_sending_a_body_keeps_the_body_or_is_told_to_send_it() {
    let house = House::new();
    let daemon = house.serve();
    let expecting = |more: &str| head(&format!("expect: 100-continue\ncontent-length: 2\n{more}"));
    let mut client = Client::new(&daemon);
    let answer = client.say(&expecting("")).answer();
    assert!(refused(&answer), "{answer:?}");
    for header in ["cache-control: no-store", "x-content-type-options: nosniff", "content-type: application/json"] {
        assert!(answer.1.contains(&format!("\r\n{header}\r\n")), "{}", answer.1);
    }
    assert!(client.ends());
    let mut client = Client::new(&daemon);
    let good = format!("x-hub-signature-256: {}\n", github_signature(SECRET, b"{}"));
    assert_eq!(client.say(&expecting(&good)).answer().0, 100);
    assert_eq!(client.say("{}").answer().0, 200);
    let elsewhere = "POST /nowhere HTTP/1.1\nhost: x\nexpect: 100-continue\ncontent-length: 2\n\n";
    let mut client = Client::new(&daemon);
    assert_eq!(client.say(elsewhere).answer().0, 100);
    assert_eq!(client.answer().0, 404);
}

#[test]
fn a_connection_goes_on_after_the_refusal_of_a_small_body() {
    let house = House::new();
    let daemon = house.serve();
    let mut client = Client::new(&daemon);
    let body = " ".repeat(8 << 10);
    for _ in 0..3 {
        let answer = client.say(&head(&format!("content-length: {}\n", body.len()))).say(&body).answer();
        assert!(refused(&answer), "{answer:?}");
        let good = github_signature(SECRET, b"{}");
        client.say(&head(&format!("x-hub-signature-256: {good}\ncontent-length: 2\n"))).say("{}");
        assert_eq!(client.answer().0, 200);
    }
}

#[test]
fn a_head_larger_than_any_forges_is_refused_with_the_limit() {
    let house = House::new();
    let daemon = house.serve();
    let get =
        |headers: &str| Client::new(&daemon).say(&format!("GET /healthz HTTP/1.1\nhost: x\n{headers}\n")).answer();
    let many = |count: usize| (0..count).map(|number| format!("x-{number}: 1\n")).collect::<String>();
    let long = |length: usize| format!("x-long: {}\n", "x".repeat(length));
    // The host counts too.
    for (headers, status) in [(many(63), 200), (many(64), 431), (long(16_000), 200), (long(17_000), 431)] {
        let answer = get(&headers);
        assert_eq!(answer.0, status, "{answer:?}");
        assert!(status == 200 || answer.2.contains("the headers are longer than 16384 bytes, or more than 64"));
    }
    let target = format!("GET /{} HTTP/1.1\nhost: x\n\n", "x".repeat(17_000));
    assert_eq!(Client::new(&daemon).say(&target).answer().0, 431);
    // Here actix gives up, and has no more to say.
    for headers in [many(97), long(200_000)] {
        let mut client = Client::new(&daemon);
        // It may be closed before all of it is sent.
        let sent = client.0.write_all(format!("GET / HTTP/1.1\r\nhost: x\r\n{headers}\n").as_bytes());
        assert_eq!(client.answer().0, 431, "{sent:?}");
    }
}

#[test]
fn bodies_that_find_no_room_are_asked_to_come_again_and_a_push_finds_some() {
    let house = House::new();
    let commit = house.origin.commit(&[("index.html", "one")]);
    let daemon = house.serve();
    // All but the last byte, so that they stay. Four of them are more than there is room for.
    let answers = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::new(&daemon);
                    client.say(&head(&format!("{}content-length: {LARGEST}\n", wrong())));
                    let sent = client.0.write_all(&vec![b' '; LARGEST - 1]);
                    client.0.set_read_timeout(Some(Duration::from_secs(3))).expect("a limit");
                    let mut first = [0];
                    let answered = client.0.peek(&mut first).is_ok_and(|length| length > 0);
                    (client, answered, sent.is_ok())
                })
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().expect("a sender")).collect::<Vec<_>>()
    });
    let (busy, held): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, answered, _)| *answered);
    assert_eq!((busy.len(), held.len()), (2, 2));
    for (mut client, _, _) in busy {
        let answer = client.answer();
        assert_eq!(answer.0, 503, "{answer:?}");
        assert!(answer.1.contains("\r\nretry-after: 30"), "{}", answer.1);
    }
    daemon.push("d1", &commit).expect(202, "queued");
    house.wait_for_quiet();
    // What they had is given back.
    drop(held);
    wait_for("room", || {
        let mut client = Client::new(&daemon);
        client.say(&head(&format!("{}content-length: {LARGEST}\n", wrong())));
        let sent = client.0.write_all(&vec![b' '; LARGEST]);
        let answer = client.answer();
        assert!(refused(&answer) || answer.0 == 503, "{sent:?} {answer:?}");
        refused(&answer).then_some(())
    });
}

#[test]
#[ignore = "takes 10 s: tests/run.sh has the time"]
fn no_head_is_waited_for_for_ever_also_not_the_second_one_of_a_connection() {
    let house = House::new();
    let daemon = house.serve();
    let mut first = Client::new(&daemon);
    first.say("GET /heal");
    let mut second = Client::new(&daemon);
    assert_eq!(second.say("GET /healthz HTTP/1.1\nhost: x\n\n").answer().0, 200);
    second.say("G");
    let mut chunked = Client::new(&daemon);
    assert!(refused(&chunked.say(&head("transfer-encoding: chunked\n")).answer()));
    let mut idle = Client::new(&daemon);
    assert_eq!(idle.say("GET /healthz HTTP/1.1\nhost: x\n\n").answer().0, 200);
    assert_eq!(first.answer().0, 408);
    for (what, mut client) in [("first", first), ("second", second), ("chunked", chunked), ("idle", idle)] {
        assert!(client.ends(), "{what}");
    }
}

#[test]
#[ignore = "takes 20 s: tests/run.sh has the time"]
fn a_body_in_chunks_that_does_not_come_is_not_waited_for_after_its_answer_either() {
    let house = House::new();
    house.configure(&Setup { server: "body_limit = \"1KiB\"", ..Setup::default() });
    let daemon = house.serve();
    let mut client = Client::new(&daemon);
    client.say(&head(&format!("{}transfer-encoding: chunked\n", wrong()))).say("100\n");
    assert_eq!(client.answer().0, 408);
    assert!(client.ends());
}

/// A signed ping that a proxy passes on, on behalf of these.
fn ping_for(forwarded: &[&str]) -> Delivery {
    let mut delivery = Delivery::github("d", "ping", "{}".into());
    delivery.headers.extend(forwarded.iter().map(|value| ("x-forwarded-for".to_owned(), (*value).to_owned())));
    delivery
}

/// A house whose repository takes webhooks from two networks.
fn house_that_is_choosy(server: &str) -> House {
    let house = House::new();
    let url = format!("url = \"{}\"\nforge = \"github\"", house.origin.bare.display());
    let repository = format!("{url}\nallow_from = [\"192.0.2.0/24\", \"2001:db8::/32\"]");
    house.configure(&Setup { server, repository: &repository, ..Setup::default() });
    house
}

#[test]
fn a_source_counts_as_far_as_trusted_proxies_vouch_for_it() {
    let house = house_that_is_choosy("trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.1\"]");
    let daemon = house.serve();
    let table: [(&[&str], u16, &str); 9] = [
        (&["192.0.2.1"], 200, "192.0.2.1"),
        (&["198.51.100.7, 192.0.2.2"], 200, "192.0.2.2"),
        (&["192.0.2.3", "10.0.0.1"], 200, "192.0.2.3"),
        (&["[2001:db8::7]:4711, 10.0.0.1"], 200, "2001:db8::7"),
        (&[], 401, "127.0.0.1"),
        (&["192.0.2.1, 198.51.100.7"], 401, "198.51.100.7"),
        (&["192.0.2.1", "198.51.100.8"], 401, "198.51.100.8"),
        (&["192.0.2.1, 10.0.0.2"], 401, "10.0.0.2"),
        (&["192.0.2.1, rubbish, 10.0.0.1"], 401, "10.0.0.1"),
    ];
    for (forwarded, status, source) in table {
        let before = daemon.log().len();
        let answer = daemon.send(&ping_for(forwarded));
        assert_eq!(answer.status, status, "{forwarded:?}: {answer:?}");
        let line = wait_for("a line", || {
            let log = daemon.log();
            log[before..].lines().find(|line| line.contains("source=")).map(str::to_owned)
        });
        assert!(line.ends_with(&format!("source={source}")), "{forwarded:?}: {line}");
        assert_eq!(line.contains("its source is in no network of `allow_from`"), status == 401, "{line}");
    }
}

#[test]
fn a_source_that_is_not_allowed_learns_nothing_at_all() {
    let house = house_that_is_choosy("");
    let daemon = house.serve();
    // Without a trusted proxy nobody vouches for the peer.
    let authentic = daemon.send(&ping_for(&["192.0.2.1"]));
    let unsigned = ping_for(&[]).header("x-hub-signature-256", None);
    let strange = ping_for(&[]).header("content-type", Some("text/plain")).header("content-encoding", Some("gzip"));
    for answer in [authentic, daemon.send(&unsigned), daemon.send(&strange)] {
        assert_eq!((answer.status, answer.body.as_str()), REFUSED);
    }
    let answer = Client::new(&daemon).say(&head("content-length: 99999999\n")).answer();
    assert!(refused(&answer), "{answer:?}");
    let log = wait_for("the lines", || Some(daemon.log()).filter(|log| log.matches("refused a delivery").count() == 4));
    assert_eq!(log.matches("`allow_from` repository=blog source=127.0.0.1").count(), 4, "{log}");
}

#[test]
fn check_warns_of_networks_that_no_source_can_be_in() {
    let warning = "repository `blog` has `allow_from`, but the server listens on 127.0.0.1";
    let warned = |house: &House| house.landfall(&["check"]).expect(0).stderr.contains(warning);
    assert!(warned(&house_that_is_choosy("")));
    assert!(!warned(&house_that_is_choosy("trusted_proxies = [\"127.0.0.1\"]")));
    assert!(!warned(&House::new()));
}

#[test]
fn the_log_has_ten_lines_of_refusals_and_then_their_number() {
    let house = House::new();
    let daemon = house.serve();
    for _ in 0..200 {
        assert!(refused(&Client::new(&daemon).say(&head("content-length: 2\n")).say("{}").answer()));
    }
    let (_, log) = daemon.stop();
    assert_eq!(log.matches("refused a delivery: header `x-hub-signature-256` is absent").count(), 10, "{log}");
    let counted = "refused 190 more deliveries, which were only counted (absent 190) repository=blog";
    assert_eq!(log.matches(counted).count(), 1, "{log}");
    assert_eq!(log.matches("refused deliveries since the start: 200 (absent 200) repository=blog").count(), 1, "{log}");
    assert_eq!(log.matches("refused").count(), 12, "{log}");
}

#[test]
fn the_server_asks_for_the_open_files_it_needs_and_makes_do_with_what_it_gets() {
    let house = House::new();
    let serve = |ulimit: &str| {
        let serve = house.command(&["serve"]);
        let mut limited = Command::new("bash");
        limited.args(["-c", &format!("ulimit {ulimit}; exec \"$@\""), "bash"]).arg(serve.get_program());
        limited.args(serve.get_args()).env_clear();
        limited.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let daemon = Daemon::start(limited);
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).expect("its limits");
        let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
        (soft.expect("a limit").to_owned(), daemon.stop().1)
    };
    let warning = "takes fewer connections for it";
    let (soft, log) = serve("-Sn 300");
    assert!(soft == "1536" && !log.contains(warning), "{soft} {log}");
    let (soft, log) = serve("-n 600");
    assert!(soft == "600" && log.contains("may open 600 files only") && log.contains(warning), "{soft} {log}");
}

/// The server below strace, which writes calls down that change or sync a file.
fn serve_below_strace(house: &House) -> (Daemon, Pid) {
    let serve = house.command(&["serve"]);
    let mut strace = Command::new("strace");
    let calls = "trace=fsync,fdatasync,syncfs,write,writev,pwrite64,pwritev,ftruncate,rename,unlink";
    strace.args(["-f", "-qqq", "-y", "-e", calls, "-o"]).arg(house.path().join("calls"));
    strace.arg(serve.get_program()).args(serve.get_args()).env_clear();
    strace.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let daemon = Daemon::start(strace);
    let tracer = daemon.pid();
    let children = std::fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children")).expect("its children");
    let served = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("the server");
    (daemon, Pid::from_raw(served))
}

#[test]
#[ignore = "needs strace: tests/run.sh brings it"]
fn a_refusal_touches_no_store() {
    let house = House::new();
    let (mut daemon, served) = serve_below_strace(&house);
    let touches = || {
        let calls = std::fs::read_to_string(house.path().join("calls")).expect("the calls");
        calls.lines().filter(|line| line.contains("landfall.db") || line.contains("sync")).count()
    };
    // It opens the store, and writes down what it takes: else strace does not see what this story is about.
    let before_a_ping = touches();
    daemon.send(&Delivery::github("d", "ping", "{}".into())).expect(200, "pong");
    assert!(touches() > before_a_ping);
    let before = touches();
    for number in 0..200 {
        // By the head, and by the whole body.
        let proof = if number % 2 == 0 { String::new() } else { wrong() };
        let answer = Client::new(&daemon).say(&head(&format!("{proof}content-length: 2\n"))).say("{}").answer();
        assert!(refused(&answer), "{answer:?}");
    }
    assert_eq!(touches() - before, 0);
    kill(served, Signal::SIGTERM).expect("a signal");
    let (_, log) = daemon.wait();
    assert_eq!(log.matches("refused a delivery: ").count(), 10, "{log}");
    assert!(log.contains("refused 190 more deliveries, which were only counted (absent 95, mismatch 95)"), "{log}");
    assert!(!names(&house.state).is_empty());
}
