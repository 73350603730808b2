//! A real `landfall serve`, and what forges send to it.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sha2::Sha256;

use super::house::SECRET;
use super::wait_for;

/// A server that is killed when it goes.
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    pub address: String,
}

impl fmt::Debug for Daemon {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Daemon({})", self.address)
    }
}

impl Daemon {
    /// Starts it and waits until it listens.
    pub fn start(command: Command) -> Self {
        Self::start_or(command, |status, log| panic!("the server ended with {status}:\n{log}")).expect("a server")
    }

    /// The same for one that may die before; none if it did.
    pub fn try_start(command: Command) -> Option<Self> {
        Self::start_or(command, |_, _| ())
    }

    fn start_or(mut command: Command, died: impl Fn(ExitStatus, &str)) -> Option<Self> {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary");
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, kept) = (child.stderr.take().expect("a pipe"), log.clone());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let mut log = kept.lock().expect("a log");
                *log += &String::from_utf8_lossy(&line);
                *log += "\n";
            }
        });
        let mut daemon = Self { child, log, reader: Some(reader), address: String::new() };
        let address = wait_for("the server to listen", || {
            let log = daemon.log();
            if let Some(status) = daemon.child.try_wait().expect("a status") {
                died(status, &log);
                return Some(None);
            }
            let rest = log.split_once("listens on http://")?.1;
            Some(Some(rest.split_once(' ')?.0.to_owned()))
        });
        daemon.address = address?;
        Some(daemon)
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("a log").clone()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("a signal");
    }

    /// Ends it the hard way.
    pub fn kill(mut self) {
        self.child.kill().expect("a signal");
        self.child.wait().expect("an end");
    }

    /// Asks it to stop; gives back the exit code and the whole log.
    pub fn stop(mut self) -> (Option<i32>, String) {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> (Option<i32>, String) {
        let status = wait_for("the server to end", || self.child.try_wait().expect("a status"));
        if let Some(reader) = self.reader.take() {
            reader.join().expect("a reader");
        }
        (status.code(), self.log())
    }

    pub fn get(&self, path: &str) -> Answer {
        request(&self.address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"), b"")
    }

    /// Sends a delivery and gives back the answer.
    pub fn send(&self, delivery: &Delivery) -> Answer {
        let Delivery { repository, headers, body } = delivery;
        let mut head = format!("POST /hooks/{repository} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        request(&self.address, &head, body)
    }

    /// Sends a push of `main` as GitHub does.
    pub fn push(&self, id: &str, after: &str) -> Answer {
        self.send(&Delivery::push(id, "refs/heads/main", &"0".repeat(40), after))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.child.kill().expect("a signal");
            self.child.wait().expect("an end");
        }
        if std::thread::panicking() {
            // The story failed: what the server saw is what one wants to know.
            std::io::stderr().write_all(self.log().as_bytes()).expect("a message");
        }
    }
}

/// A webhook as it goes over the wire.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub repository: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Delivery {
    /// A push as GitHub sends and signs it.
    pub fn push(id: &str, ref_name: &str, before: &str, after: &str) -> Self {
        let payload = json!({ "ref": ref_name, "before": before, "after": after,
            "deleted": after.bytes().all(|byte| byte == b'0'),
            "repository": { "id": 186_853_002, "full_name": "acme/blog" } });
        Self::github(id, "push", payload.to_string())
    }

    /// Any event as GitHub sends and signs it.
    pub fn github(id: &str, event: &str, body: String) -> Self {
        let headers = [
            ("content-type", "application/json".to_owned()),
            ("x-github-event", event.to_owned()),
            ("x-github-delivery", id.to_owned()),
            ("x-hub-signature-256", github_signature(SECRET, body.as_bytes())),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value)).into();
        Self { repository: "blog".into(), headers, body: body.into_bytes() }
    }

    /// Replaces a header, or removes it.
    pub fn header(mut self, name: &str, value: Option<&str>) -> Self {
        self.headers.retain(|(found, _)| found != name);
        self.headers.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        self
    }
}

pub fn github_signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// The status line and the headers, lower-case.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The number of the only deployment it names.
    #[track_caller]
    pub fn deployment(&self) -> i64 {
        let json = self.json();
        let named = json["deployments"].as_array().expect("a list");
        assert_eq!(named.len(), 1, "{json}");
        named[0]["id"].as_i64().expect("a number")
    }

    #[track_caller]
    pub fn expect(self, status: u16, word: &str) -> Self {
        assert_eq!((self.status, self.json()["status"].as_str()), (status, Some(word)), "{self:?}");
        self
    }
}

/// Sends bytes, reads to the end.
pub fn request(address: &str, head: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    // A server that refuses early closes the connection: its answer counts all the same.
    let read = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        panic!("no answer: sent {sent:?}, read {read:?}: {answer}");
    };
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}
