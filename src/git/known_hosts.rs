//! OpenSSH's `known_hosts` file: which host keys are trusted. Format: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

/// What the file says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The host has this key.
    Trusted,
    /// The key must not be used any more.
    Revoked,
    /// The host has another key of this type.
    Different,
    /// The file does not know it.
    Unknown,
}

/// Looks up the key (in its wire form) that a host showed.
pub(super) fn check(text: &str, host: &str, port: Option<u16>, key: &[u8]) -> Verdict {
    let name = name_of(host, port);
    let mut verdict = Verdict::Unknown;
    for entry in text.lines().filter_map(Entry::parse).filter(|entry| entry.names(&name)) {
        match (entry.key == key, entry.marker) {
            (true, Some("@revoked")) => return Verdict::Revoked,
            (true, None) => verdict = Verdict::Trusted,
            (false, None) if verdict == Verdict::Unknown && key_type(&entry.key) == key_type(key) => {
                verdict = Verdict::Different;
            }
            // `@cert-authority` lines are for certificates, which libssh2 cannot check.
            (true | false, Some(_)) | (false, None) => {}
        }
    }
    verdict
}

/// The line that makes a key trusted.
pub(super) fn line(host: &str, port: Option<u16>, key: &[u8]) -> String {
    let kind = key_type(key).map_or_else(|| "?".into(), String::from_utf8_lossy);
    format!("{} {kind} {}", name_of(host, port), STANDARD.encode(key))
}

fn name_of(host: &str, port: Option<u16>) -> String {
    match port {
        None | Some(22) => host.to_ascii_lowercase(),
        Some(port) => format!("[{}]:{port}", host.to_ascii_lowercase()),
    }
}

struct Entry<'a> {
    marker: Option<&'a str>,
    hosts: &'a str,
    key: Vec<u8>,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().peekable();
        let marker = words.next_if(|word| word.starts_with('@'));
        let hosts = words.next().filter(|hosts| !hosts.starts_with('#'))?;
        let key = STANDARD.decode(words.nth(1)?).ok()?;
        Some(Self { marker, hosts, key })
    }

    fn names(&self, name: &str) -> bool {
        if let Some(hashed) = self.hosts.strip_prefix("|1|") {
            return is_hash_of(hashed, name);
        }
        let patterns: Vec<&str> = self.hosts.split(',').collect();
        let excluded = patterns.iter().filter_map(|one| one.strip_prefix('!')).any(|one| matches(one, name));
        !excluded && patterns.iter().any(|one| matches(one, name))
    }
}

fn is_hash_of(hashed: &str, name: &str) -> bool {
    let Some((salt, hash)) = hashed.split_once('|') else { return false };
    let decode = |text: &str| STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok();
    let (Some(salt), Some(hash)) = (decode(salt), decode(hash)) else { return false };
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(&salt) else { return false };
    mac.update(name.as_bytes());
    mac.verify_slice(&hash).is_ok()
}

/// `*` and `?`, as OpenSSH's patterns.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase(), name.as_bytes());
    let pattern = pattern.as_bytes();
    let (mut at, mut from, mut star) = (0, 0, None);
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(letter) if *letter == b'?' || *letter == name[from] => {
                at += 1;
                from += 1;
            }
            Some(_) | None => match star {
                Some((star_at, star_from)) => {
                    at = star_at + 1;
                    from = star_from + 1;
                    star = Some((star_at, from));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|letter| *letter == b'*')
}

/// A key in its wire form begins with its type, four bytes of length before it.
fn key_type(key: &[u8]) -> Option<&[u8]> {
    let (length, rest) = key.split_first_chunk::<4>()?;
    rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: &str, body: u8) -> Vec<u8> {
        let mut key = u32::try_from(kind.len()).expect("a length").to_be_bytes().to_vec();
        key.extend(kind.bytes());
        key.extend([body; 32]);
        key
    }

    fn hashed(name: &str) -> String {
        let mut mac = Hmac::<Sha1>::new_from_slice(b"01234567890123456789").expect("a key");
        mac.update(name.as_bytes());
        format!("|1|{}|{}", STANDARD.encode(b"01234567890123456789"), STANDARD.encode(mac.finalize().into_bytes()))
    }

    #[test]
    fn hosts_are_matched_as_openssh_does() {
        let (ours, other, rsa) = (key("ssh-ed25519", 1), key("ssh-ed25519", 2), key("ssh-rsa", 1));
        let entry = |hosts: &str, key: &[u8]| format!("{hosts} kind {}", STANDARD.encode(key));
        let table = [
            (String::new(), None, Verdict::Unknown),
            (format!("# comment\n\n{}", entry("git.example.com", &ours)), None, Verdict::Trusted),
            (entry("other.example.com,git.example.com", &ours), None, Verdict::Trusted),
            (entry("*.example.com", &ours), None, Verdict::Trusted),
            (entry("*.example.com,!git.example.com", &ours), None, Verdict::Unknown),
            (entry("g?t.example.com", &ours), None, Verdict::Trusted),
            (entry("git.example.com", &other), None, Verdict::Different),
            (entry("git.example.com", &rsa), None, Verdict::Unknown),
            (entry("git.example.com", &ours), Some(2222), Verdict::Unknown),
            (entry("[git.example.com]:2222", &ours), Some(2222), Verdict::Trusted),
            (entry("git.example.com", &ours), Some(22), Verdict::Trusted),
            (entry(&hashed("git.example.com"), &ours), None, Verdict::Trusted),
            (entry(&hashed("[git.example.com]:2222"), &ours), Some(2222), Verdict::Trusted),
            (entry(&hashed("other.example.com"), &ours), None, Verdict::Unknown),
            (format!("{}\n@revoked {}", entry("*", &ours), entry("git.example.com", &ours)), None, Verdict::Revoked),
            (format!("@cert-authority {}", entry("*", &ours)), None, Verdict::Unknown),
            (format!("{}\n{}", entry("git.example.com", &other), entry("*", &ours)), None, Verdict::Trusted),
        ];
        for (text, port, expected) in table {
            assert_eq!(check(&text, "git.example.com", port, &ours), expected, "{text}");
        }
    }

    #[test]
    fn the_line_to_add_is_understood() {
        let key = key("ssh-ed25519", 7);
        for port in [None, Some(2222)] {
            let line = line("Git.Example.com", port, &key);
            assert_eq!(check(&line, "git.example.com", port, &key), Verdict::Trusted, "{line}");
        }
    }
}
