//! The servers around Landfall: a forge that serves git over http, the nginx of README.md, and what guards them all.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::{Daemon, House, is_root, source, wait_for};

/// A server that is stopped, with all its children, when it goes.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    output: PathBuf,
}

impl Peer {
    /// Starts it in a process group of its own; what it says goes to a file of the directory.
    pub fn start(command: &mut Command, directory: &Path) -> Self {
        let name = Path::new(command.get_program()).file_name().expect("a name").to_string_lossy().into_owned();
        let output = directory.join(format!("{name}.out"));
        let file = std::fs::File::create(&output).expect("a file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file"))
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { child, output }
    }

    /// Waits until it has made this file; says why not if it ended before.
    pub fn wait_for_file(mut self, made: &Path) -> Result<Self, String> {
        let is_up = wait_for(&format!("{}", made.display()), || {
            let has_ended = self.child.try_wait().expect("a status").is_some();
            let is_made = std::fs::metadata(made).is_ok_and(|found| !found.is_file() || found.len() > 0);
            (has_ended || is_made).then_some(!has_ended)
        });
        if is_up { Ok(self) } else { Err(self.output()) }
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let group = Pid::from_raw(-i32::try_from(self.child.id()).expect("a pid"));
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut signal = Signal::SIGTERM;
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            // The group of a child that was not waited for is still its own.
            kill(group, signal).expect("a signal");
            std::thread::sleep(Duration::from_millis(20));
            if Instant::now() > deadline {
                signal = Signal::SIGKILL;
            }
        }
        if std::thread::panicking() {
            let said = format!("{}:\n{}\n", self.output.display(), self.output());
            std::io::stderr().write_all(said.as_bytes()).expect("a message");
        }
    }
}

/// Starts a server on ports that are free. Somebody else can be faster: then on others.
pub fn on_free_ports<const N: usize, T>(mut start: impl FnMut([u16; N]) -> Result<T, String>) -> T {
    let mut reason = String::new();
    for _ in 0..10 {
        let probes: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let ports = probes.each_ref().map(|probe| probe.local_addr().expect("an address").port());
        drop(probes);
        match start(ports) {
            Ok(started) => return started,
            Err(error) => reason = error,
        }
    }
    panic!("no server on any port: {reason}");
}

/// A temporary directory that the workers of a server started by root can enter.
pub fn open_directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("a mode");
    directory
}

/// Runs a program that has to succeed; gives back its output.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {} {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Replaces what has to be there.
#[track_caller]
pub fn replace(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "`{old}` is not in: {text}");
    text.replace(old, new)
}

/// A certificate of our own making for a host and for 127.0.0.1: `certificate` and `key` in the directory.
pub fn make_certificate(directory: &Path, host: &str) {
    let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &format!("/CN={host}"),
            "-addext",
            &format!("subjectAltName=DNS:{host},IP:127.0.0.1"),
            "-keyout",
            &path("key"),
            "-out",
            &path("certificate"),
        ],
    );
}

/// An nginx with two ports.
#[derive(Debug)]
pub struct Nginx {
    _peer: Peer,
    pub ports: [u16; 2],
}

impl Nginx {
    /// Starts it in this directory, with the servers that are written for two ports.
    pub fn start(directory: &Path, servers: &dyn Fn([u16; 2]) -> String) -> Self {
        let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
        std::fs::copy("/etc/nginx/fastcgi_params", path("fastcgi_params")).expect("the parameters that nginx brings");
        let user = if is_root() { "user www-data;" } else { "" };
        let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {};\n", path(kind)))
            .concat();
        on_free_ports(|ports| {
            let text = format!(
                "daemon off;\nworker_processes 1;\n{user}\npid {pid};\nerror_log {errors};\nevents {{}}\n\
                 http {{\naccess_log {access};\n{places}\n{servers}\n}}\n",
                pid = path("nginx.pid"),
                errors = path("error.log"),
                access = path("access.log"),
                servers = servers(ports),
            );
            std::fs::write(path("nginx.conf"), text).expect("a configuration");
            let mut command = Command::new("nginx");
            command.args(["-p", &path(""), "-e", &path("error.log"), "-c", &path("nginx.conf")]);
            // It has its ports when it writes its number.
            let peer = Peer::start(&mut command, directory).wait_for_file(&directory.join("nginx.pid"))?;
            Ok(Self { _peer: peer, ports })
        })
    }
}

/// A server that has git repositories: nginx, and git's own program behind it.
#[derive(Debug)]
pub struct Forge {
    nginx: Nginx,
    _wrapper: Peer,
    directory: TempDir,
}

impl Forge {
    /// Serves a bare repository as `/acme/blog.git`. `lines` are added to nginx's server, `{directory}` in them is the
    /// forge's own directory, filled by `prepare`.
    pub fn with(bare: &Path, lines: &str, listen: &str, prepare: impl FnOnce(&Path)) -> Self {
        let directory = open_directory();
        let place = directory.path().canonicalize().expect("a path");
        prepare(&place);
        std::fs::create_dir_all(place.join("repositories/acme")).expect("a directory");
        symlink(bare, place.join("repositories/acme/blog.git")).expect("a link");
        let socket = place.join("git.sock");
        let mut command = Command::new("fcgiwrap");
        command.args(["-f", "-s", &format!("unix:{}", socket.display())]);
        let wrapper = Peer::start(&mut command, &place).wait_for_file(&socket).expect("fcgiwrap");
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777)).expect("a mode");
        let programs = run("git", &["--exec-path"]);
        let lines = lines.replace("{directory}", &place.to_string_lossy());
        let nginx = Nginx::start(&place, &|[port, _]| {
            format!(
                "server {{ listen 127.0.0.1:{port} {listen}; {lines}
                    location /acme/ {{
                        include fastcgi_params;
                        fastcgi_pass unix:{socket};
                        fastcgi_param SCRIPT_FILENAME {programs}/git-http-backend;
                        fastcgi_param GIT_PROJECT_ROOT {place}/repositories;
                        fastcgi_param GIT_HTTP_EXPORT_ALL 1;
                        fastcgi_param GIT_CONFIG_NOSYSTEM 1;
                        fastcgi_param HOME {place};
                        fastcgi_param PATH_INFO $uri;
                    }}
                }}",
                socket = socket.display(),
                programs = programs.trim(),
                place = place.display(),
            )
        });
        Self { nginx, _wrapper: wrapper, directory }
    }

    pub fn start(bare: &Path) -> Self {
        Self::with(bare, "", "", |_| ())
    }

    pub fn port(&self) -> u16 {
        self.nginx.ports[0]
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// The nginx of README.md in front of a house: its text, with the names of this machine put in.
#[derive(Debug)]
pub struct Front {
    nginx: Nginx,
    directory: TempDir,
}

impl Front {
    pub fn start(house: &House, daemon: Option<&Daemon>, php: &Path) -> Self {
        let directory = open_directory();
        let place = directory.path().canonicalize().expect("a path");
        make_certificate(&place, "deploy.example.com");
        let readme = std::fs::read_to_string(source().join("README.md")).expect("README.md");
        let (_, rest) = readme.split_once("```nginx\n").expect("the nginx of README.md");
        let (text, _) = rest.split_once("```").expect("the end of it");
        let certificates = "/etc/letsencrypt/live/deploy.example.com";
        let text = replace(text, &format!("{certificates}/fullchain.pem"), &format!("{}/certificate", place.display()));
        let text = replace(&text, &format!("{certificates}/privkey.pem"), &format!("{}/key", place.display()));
        let text = replace(&text, "/webroot/current", &format!("{}/current", house.root.display()));
        let text = replace(&text, "unix:/run/php/php-fpm.sock", &format!("unix:{}", php.display()));
        let address = daemon.map_or("127.0.0.1:9", |daemon| &daemon.address);
        let text = replace(&text, "127.0.0.1:9000", address);
        let nginx = Nginx::start(&place, &|[hooks, site]| {
            let text = replace(&text, "listen 443 ssl", &format!("listen 127.0.0.1:{hooks} ssl"));
            replace(&text, "listen 80", &format!("listen 127.0.0.1:{site}"))
        });
        Self { nginx, directory }
    }

    /// The certificate of the door to the webhooks.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("certificate")
    }

    /// The door to the webhooks, by the address that is in its certificate too.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.nginx.ports[0])
    }

    /// What curl needs to find the two hosts of README.md here.
    pub fn curl(&self) -> Vec<String> {
        let [hooks, site] = self.nginx.ports;
        let certificate = self.certificate().to_string_lossy().into_owned();
        let ways =
            [format!("deploy.example.com:443:127.0.0.1:{hooks}"), format!("www.example.com:80:127.0.0.1:{site}")];
        let [hooks, site] = ways.map(|way| ["--connect-to".to_owned(), way]);
        let plain = ["--silent", "--show-error", "--max-time", "60", "--noproxy", "*", "--cacert"].map(str::to_owned);
        plain.into_iter().chain([certificate]).chain(hooks).chain(site).collect()
    }

    /// Gets a page of the site; gives back the status and the page.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        let (options, url) = (self.curl(), format!("http://www.example.com{path}"));
        let mut args: Vec<_> = options.iter().map(String::as_str).collect();
        args.extend(["--write-out", "\n%{http_code}", &url]);
        let answer = run("curl", &args);
        let (page, status) = answer.rsplit_once('\n').expect("a status");
        (status.parse().expect("a number"), page.to_owned())
    }
}
