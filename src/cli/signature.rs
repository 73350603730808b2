//! `check-signature`: why a saved request was (not) believed.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::app::examine::examine;
use crate::domain::name::RepositoryName;
use crate::view::signature::SignatureReport;
use crate::webhook::Request;

use super::{CliError, Shell, now, tell, variable};

pub(super) fn check_signature(
    shell: &Shell,
    repository: &RepositoryName,
    headers: &Path,
    body: &Path,
) -> Result<(), CliError> {
    if headers == Path::new(STDIN) && body == Path::new(STDIN) {
        return Err(CliError::Usage("only one of --headers and --body can be `-`".into()));
    }
    // Before `load`, after which root may be somebody who cannot read them.
    let (headers_text, body) = (read(headers)?, read(body)?);
    let headers = parse_headers(&headers_text)
        .map_err(|reason| CliError::Usage(format!("cannot read `{}`: {reason}", headers.display())))?;
    let config = shell.load()?;
    let examination = examine(&config, repository, Request { headers, body }, &variable, now())?;
    let report = SignatureReport::from(&examination);
    shell.print(&report, || report.text())?;
    if !examination.proof.is_right() {
        return Err(CliError::NotAuthentic);
    }
    if report.deploys() {
        tell("holds, earlier deliveries and what is live already are not looked at");
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let source: io::Result<Box<dyn Read>> = if path == Path::new(STDIN) {
        Ok(Box::new(io::stdin().lock()))
    } else {
        File::open(path).map(|file| Box::new(file) as _)
    };
    let mut bytes = Vec::new();
    let read = source.and_then(|source| source.take(LONGEST_INPUT + 1).read_to_end(&mut bytes));
    read.map_err(|error| CliError::Usage(format!("cannot read `{}`: {error}", path.display())))?;
    if bytes.len() as u64 > LONGEST_INPUT {
        return Err(CliError::Usage(format!(
            "`{}` has more than {LONGEST_INPUT} bytes: is it the right file?",
            path.display()
        )));
    }
    Ok(bytes)
}

/// Reads `Name: value` lines as a forge's page shows them or `curl -v` prints them.
///
/// Of curl's output only what was sent counts (`> `). Lines that begin a message, and what GitHub's page calls `Request URL` and
/// `Request method`, are no headers. An error never shows a value.
fn parse_headers(text: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let lines =
        || text.split(|byte| *byte == b'\n').enumerate().map(|(index, line)| (index + 1, line.trim_ascii_end()));
    let is_curl = lines().any(|(_, line)| line.starts_with(SENT));
    let mut headers = Vec::new();
    for (number, line) in lines() {
        let line = match line.strip_prefix(SENT) {
            Some(sent) => sent,
            None if is_curl => continue,
            None => line,
        };
        if line.is_empty() || line.starts_with(b":") || is_no_header(line) {
            continue;
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(format!("line {number} begins with white space: write each header on one line"));
        }
        let colon =
            line.iter().position(|byte| *byte == b':').ok_or_else(|| format!("line {number} is no `Name: value`"))?;
        let name = std::str::from_utf8(&line[..colon]).ok().filter(|name| is_token(name));
        let name = name.ok_or_else(|| format!("line {number} does not begin with the name of a header"))?;
        headers.push((name.to_ascii_lowercase(), line[colon + 1..].trim_ascii().to_vec()));
    }
    if headers.is_empty() { Err("it has no headers".into()) } else { Ok(headers) }
}

/// A request line, a status line, or a line of GitHub's page that looks like a header.
fn is_no_header(line: &[u8]) -> bool {
    let line = line.to_ascii_lowercase();
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    line.starts_with(b"http/")
        || words.len() == 3 && words[2].starts_with(b"http/")
        || line.starts_with(b"request url:")
        || line.starts_with(b"request method:")
}

fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

const STDIN: &str = "-";

/// How curl marks what it sends.
const SENT: &[u8] = b"> ";

/// The largest webhook of any forge has 25 MiB.
const LONGEST_INPUT: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_pages_and_programs_show_them() {
        let table = [
            ("A: 1\nB-c:2\r\n", "a=1 b-c=2"),
            ("POST /hooks/blog HTTP/1.1\nHost: x\n\nA:  1 \n", "host=x a=1"),
            ("HTTP/1.1 200 OK\na: 1", "a=1"),
            ("Request URL: https://x/hooks/blog\nRequest method: POST\nAccept: */*\n", "accept=*/*"),
            (
                "* Connected to x\n> POST /hooks/blog HTTP/2\n> Host: x\n> A: b: c\n> \n< HTTP/2 401\n< Server: y\n{ [5 bytes data]",
                "host=x a=b: c",
            ),
            (":method: POST\n:path: /\na: 1", "a=1"),
            ("a: 1\na: 2", "a=1 a=2"),
            ("a:", "a="),
        ];
        for (text, expected) in table {
            let headers = parse_headers(text.as_bytes()).unwrap();
            let shown: Vec<_> =
                headers.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect();
            assert_eq!(shown.join(" "), expected, "{text}");
        }
        assert_eq!(parse_headers(b"a: \xff").unwrap()[0].1, b"\xff");
    }

    #[test]
    fn what_is_no_header_is_named_by_its_line_and_not_shown() {
        for (text, reason) in [
            ("", "no headers"),
            ("\n\nPOST / HTTP/1.1\n", "no headers"),
            ("a: 1\nhunter2\n", "line 2 is no"),
            ("a: 1\n hunter2: x\n", "line 2 begins with white space"),
            ("hunter 2: x\n", "line 1 does not begin with the name of a header"),
            ("{\"hunter2\": 1}", "line 1 does not begin with the name of a header"),
        ] {
            let error = parse_headers(text.as_bytes()).unwrap_err();
            assert!(error.contains(reason) && !error.contains("hunter"), "{text}: {error}");
        }
    }
}
