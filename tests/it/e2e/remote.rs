//! What a git server over http can do to a deployment: refuse, lie, break off, send us elsewhere; and who gets the token.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::peers::{Forge, make_certificate};
use crate::support::{Daemon, House, Setup};

const TOKEN: &str = "token-of-the-house-0123456789abcdef";

/// Points the house at this URL, with its token or without.
fn point(house: &House, url: &str, has_token: bool) {
    let token = if has_token { "\ntoken = { file = \"{house}/token\" }" } else { "" };
    let repository = format!("url = \"{url}\"\nforge = \"github\"{token}");
    house.configure(&Setup { repository: &repository, ..Setup::default() });
}

/// A server of a few lines, which notes what it is sent.
#[derive(Debug)]
struct Fake {
    address: String,
    heard: Arc<Mutex<String>>,
    has_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Answers each request by its head, lower-case.
    fn start(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let heard = Arc::new(Mutex::new(String::new()));
        let notes = heard.clone();
        Self::with(heard, move |mut stream| {
            let lines = BufReader::new(stream.try_clone().expect("a stream")).lines().map_while(Result::ok);
            let head: String =
                lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase() + "\n").collect();
            *notes.lock().expect("notes") += &head;
            // A client that has gone has its reasons.
            drop(stream.write_all(answer(&head).as_bytes()));
        })
    }

    /// Passes on what is sent, and no more than this much of what is answered.
    fn cutting(to: String, most: u64) -> Self {
        Self::with(Arc::default(), move |stream| {
            let server = TcpStream::connect(&to).expect("the server");
            let (mut from_client, mut to_server) =
                (stream.try_clone().expect("a stream"), server.try_clone().expect("a stream"));
            let up = std::thread::spawn(move || drop(std::io::copy(&mut from_client, &mut to_server)));
            drop(std::io::copy(
                &mut server.try_clone().expect("a stream").take(most),
                &mut stream.try_clone().expect("a stream"),
            ));
            for end in [&stream, &server] {
                drop(end.shutdown(Shutdown::Both));
            }
            up.join().expect("a thread");
        })
    }

    fn with(heard: Arc<Mutex<String>>, serve: impl Fn(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let has_ended = Arc::new(AtomicBool::new(false));
        let end = has_ended.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                serve(stream);
            }
        });
        Self { address, heard, has_ended, thread: Some(thread) }
    }

    fn heard(&self) -> String {
        self.heard.lock().expect("notes").clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(&self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a thread");
        }
    }
}

const UNAUTHORIZED: &str =
    "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

fn redirect(to: &str) -> String {
    let path = "acme/blog.git/info/refs?service=git-upload-pack";
    format!("HTTP/1.1 302 Away\r\nLocation: {to}/{path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// Answers that no repository can be fetched by.
const ODD_PLACES: &str = "
    location /dumb/ { alias {directory}/dumb/; }
    location /forbidden/ { return 403; }
    location /missing/ { return 404; }
    location /broken/ { return 500; }
    location /login/ { default_type text/html; return 200 'please log in'; }
    location /moved/ { rewrite ^/moved/(.*) /acme/$1 redirect; }
";

fn odd_forge(house: &House) -> Forge {
    Forge::with(&house.origin.bare, ODD_PLACES, "", |place| {
        std::fs::create_dir(place.join("dumb")).expect("a directory");
        let copy = place.join("dumb/blog.git").to_string_lossy().into_owned();
        house.origin.git_bare(&["clone", "--quiet", "--bare", ".", &copy]);
        house.origin.git_bare(&["-C", &copy, "update-server-info"]);
    })
}

#[test]
#[ignore = "needs nginx and fcgiwrap: tests/run.sh brings them"]
fn what_the_server_does_not_give_fails_the_deployment_and_the_site_stays() {
    let house = House::new();
    let first = house.origin.commit(&[("index.html", "one")]);
    let forge = odd_forge(&house);
    point(&house, &forge.url("/moved/blog.git"), false);
    house.deploy().expect(0);
    let live = house.current();
    house.origin.commit(&[("index.html", "two")]);
    let table = [
        ("/acme/gone.git", "does not exist or is not visible"),
        ("/missing/blog.git", "does not exist or is not visible"),
        ("/forbidden/blog.git", "access denied\nhelp: check `token` or `ssh_key` of the repository"),
        ("/broken/blog.git", "500"),
        ("/login/blog.git", "text/html"),
        ("/dumb/blog.git", "content-type"),
    ];
    for (path, reason) in table {
        point(&house, &forge.url(path), false);
        let ran = house.deploy().expect(1);
        assert!(ran.stderr.contains(reason), "{path}: {}", ran.stderr);
        assert!(ran.stderr.contains(&forge.url(path)), "{path}: {}", ran.stderr);
        assert_eq!((house.current(), house.live("index.html").as_str()), (live.clone(), "one"), "{path}");
        house.check();
    }
    point(&house, &forge.url("/acme/blog.git"), false);
    house.origin.git_bare(&["branch", "--move", "main", "other"]);
    let ran = house.deploy().expect(1);
    assert!(ran.stderr.contains("`refs/heads/main` does not exist"), "{}", ran.stderr);
    assert_eq!(house.current(), live);
    house.origin.git_bare(&["branch", "main", &first]);
    house.deploy().expect(0);
}

#[test]
#[ignore = "needs nginx and fcgiwrap: tests/run.sh brings them"]
fn a_server_that_is_not_there_fails_the_deployment() {
    let house = House::new();
    let forge = Forge::start(&house.origin.bare);
    point(&house, &forge.url("/acme/blog.git"), false);
    house.origin.commit(&[("index.html", "one")]);
    drop(forge);
    let ran = house.deploy().expect(1);
    assert!(ran.stderr.contains("cannot fetch from"), "{}", ran.stderr);
    assert_eq!((house.current(), house.states()), (None, vec!["failed".to_owned()]));
}

#[test]
#[ignore = "needs nginx and fcgiwrap: tests/run.sh brings them"]
fn an_answer_that_breaks_off_fails_the_deployment_and_the_next_one_is_whole() {
    let house = House::new();
    // What no compression makes small.
    let noise: String = (0..20_000_u64).map(|at| format!("{:x}", at.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    house.origin.commit(&[("noise", &noise), ("index.html", "one")]);
    let forge = Forge::start(&house.origin.bare);
    let fake = Fake::cutting(format!("127.0.0.1:{}", forge.port()), 50_000);
    point(&house, &format!("http://{}/acme/blog.git", fake.address), false);
    let ran = house.deploy().expect(1);
    assert!(ran.stderr.contains("cannot fetch from"), "{}", ran.stderr);
    assert_eq!((house.current(), house.releases().len()), (None, 0));
    point(&house, &forge.url("/acme/blog.git"), false);
    house.deploy().expect(0);
    assert_eq!(house.live("noise"), noise);
}

/// Every file below a directory that holds this text.
fn files_with(directory: &Path, text: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let metadata = path.symlink_metadata().expect("an entry");
        if metadata.is_dir() {
            found.extend(files_with(&path, text));
        } else if metadata.is_file() {
            let content = std::fs::read(&path).expect("a file");
            if content.windows(text.len()).any(|part| part == text) {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found
}

/// A forge that asks for this token.
fn guarded_forge(house: &House, listen: &str, more: &str) -> Forge {
    let lines = format!("{more} auth_basic forge; auth_basic_user_file {{directory}}/users;");
    Forge::with(&house.origin.bare, &lines, listen, |place| {
        std::fs::write(place.join("users"), format!("x-access-token:{{PLAIN}}{TOKEN}\n")).expect("a file");
        if !listen.is_empty() {
            make_certificate(place, "forge.example.com");
        }
    })
}

#[test]
#[ignore = "needs nginx and fcgiwrap: tests/run.sh brings them"]
fn a_token_opens_the_repository_and_is_never_seen() {
    let house = House::new();
    let forge = guarded_forge(&house, "", "");
    // Whoever looks at the processes while a hook runs sees only the token's file.
    house.origin.write(
        ".landfall/after.pull",
        "for process in /proc/[0-9]*; do cat $process/cmdline $process/environ; done >>\"$SEEN\" 2>/dev/null; true",
    );
    house.origin.commit(&[("index.html", "one")]);
    house.write_secret("token", &format!("{TOKEN}\n"));
    let repository = format!(
        "url = \"{}\"\nforge = \"github\"\ntoken = {{ file = \"{{house}}/token\" }}",
        forge.url("/acme/blog.git")
    );
    house.configure(&Setup { repository: &repository, site: "env = { SEEN = \"{house}/seen\" }", ..Setup::default() });
    let mut command = house.command(&["serve"]);
    command.env("LANDFALL_LOG", "trace");
    let daemon = Daemon::start(command);
    let answer = daemon.push("1", &house.origin.head()).expect(202, "queued");
    assert_eq!(house.wait_for_end(answer.deployment())["state"], "succeeded");
    let (_, log) = daemon.stop();
    assert!(house.read("seen").contains("SEEN="), "the hook has looked");
    for form in [TOKEN.to_owned(), STANDARD.encode(format!("x-access-token:{TOKEN}"))] {
        assert!(!log.contains(&form), "{log}");
        let found = files_with(&house.path(), form.as_bytes());
        let right: Vec<_> = found.iter().filter(|path| !path.ends_with("/token")).collect();
        assert!(right.is_empty(), "{right:?}");
    }
    assert!(!house.log(answer.deployment()).contains(TOKEN));
}

#[test]
#[ignore = "needs nginx and fcgiwrap: tests/run.sh brings them"]
fn a_wrong_token_or_none_fails_the_deployment_and_names_the_keys() {
    let house = House::new();
    let forge = guarded_forge(&house, "", "");
    house.origin.commit(&[("index.html", "one")]);
    let url = forge.url("/acme/blog.git");
    for (token, has_token) in [("", false), ("a-wrong-token-of-16-bytes", true)] {
        house.write_secret("token", token);
        point(&house, &url, has_token);
        let ran = house.deploy().expect(1);
        let message = format!("cannot fetch from `{url}`: access denied\nhelp: check `token` or `ssh_key`");
        assert!(ran.stderr.contains(&message), "{}", ran.stderr);
        assert!(!ran.stderr.contains("a-wrong-token"), "{}", ran.stderr);
        let checked = house.landfall(&["check", "--online"]);
        assert!(checked.code == Some(2) && checked.stderr.contains("access denied"), "{}", checked.stderr);
        assert_eq!((house.current(), house.releases().len()), (None, 0));
    }
}

#[test]
#[ignore = "needs nginx, fcgiwrap and openssl: tests/run.sh brings them"]
fn a_token_goes_over_https_only_to_a_server_with_a_good_certificate() {
    let house = House::new();
    let lines = "ssl_certificate {directory}/certificate; ssl_certificate_key {directory}/key;";
    let forge = guarded_forge(&house, "ssl", lines);
    house.origin.commit(&[("index.html", "one")]);
    house.write_secret("token", TOKEN);
    let url = forge.url("/acme/blog.git").replace("http://", "https://");
    point(&house, &url, true);
    let deploy = |url: &str, certificates: &Path| {
        point(&house, url, true);
        let output =
            house.command(&["deploy", "blog"]).env("SSL_CERT_FILE", certificates).output().expect("the binary");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, message) = deploy(&url, Path::new("/dev/null"));
    assert!(code == Some(1) && message.contains("certificate"), "{message}");
    let (code, message) = deploy(&url.replace("127.0.0.1", "localhost"), &forge.path("certificate"));
    assert!(code == Some(1) && message.contains("certificate"), "{message}");
    assert_eq!(house.current(), None);
    assert_eq!(deploy(&url, &forge.path("certificate")).0, Some(0));
    assert_eq!(house.live("index.html"), "one");
}

#[test]
#[ignore = "needs nginx and fcgiwrap: tests/run.sh brings them"]
fn a_redirect_to_another_host_or_port_does_not_get_the_token() {
    let house = House::new();
    house.origin.commit(&[("index.html", "one")]);
    house.write_secret("token", TOKEN);
    for (asks_first, host) in [(false, "localhost"), (true, "localhost"), (false, "127.0.0.1"), (true, "127.0.0.1")] {
        let elsewhere = Fake::start(|_| UNAUTHORIZED.to_owned());
        let away = elsewhere.address.replace("127.0.0.1", &format!("http://{host}"));
        let forge = Fake::start(move |head| {
            let is_known = head.contains("\nauthorization:");
            if asks_first && !is_known { UNAUTHORIZED.to_owned() } else { redirect(&away) }
        });
        point(&house, &format!("http://{}/acme/blog.git", forge.address), true);
        let ran = house.deploy().expect(1);
        assert!(ran.stderr.contains("access denied"), "{}", ran.stderr);
        assert_eq!(forge.heard().contains("\nauthorization:"), asks_first, "{}", forge.heard());
        let heard = elsewhere.heard();
        assert!(heard.starts_with("get ") && !heard.contains("authorization"), "{asks_first} {host}: {heard}");
    }
}
