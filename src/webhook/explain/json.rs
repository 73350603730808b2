//! The same JSON, written as another program would: what a proxy that reads and writes it does to a body.
//!
//! Works on the text and not on values: order, numbers and doubled keys stay as they are, since what signed them had them so.

use std::borrow::Cow;
use std::fmt;

use serde::de::IgnoredAny;

use super::Allowance;

/// How JSON is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewriting {
    layout: Layout,
    escapes: Escapes,
}

/// Where white space stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Where it stood.
    Kept,
    /// Nowhere.
    Compact,
    /// After commas and colons, as Python's default has it.
    Spaced,
    /// A line for each value, with this many spaces for each level.
    Indented(usize),
}

/// Which characters of a text are escaped beyond those that must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escapes {
    /// Those that were.
    Kept,
    /// None.
    Fewest,
    /// All but ASCII, as Python's default has it.
    Ascii,
    /// Those that mean something in HTML, as Go's and Rails' defaults have it.
    Html,
    /// All but ASCII, and slashes, as PHP's default has it.
    Slashes,
}

/// A piece of JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token<'a> {
    Space(&'a [u8]),
    Open(u8),
    Close(u8),
    Comma,
    Colon,
    /// With its quotation marks.
    Text(Cow<'a, [u8]>),
    /// A number or a word.
    Scalar(&'a [u8]),
}

/// The ways of writing this JSON; none if it is no JSON, and no more than the allowance is good for. Those that get much
/// longer than it is are left out: nothing that is sent does, and a tower of brackets grows with every level that is indented.
pub(super) fn rewritings<'a>(
    json: &'a [u8],
    allowance: &'a Allowance,
) -> impl Iterator<Item = (Rewriting, Vec<u8>)> + 'a {
    let sound = allowance.spend(json.len()) && serde_json::from_slice::<IgnoredAny>(json).is_ok();
    let original = if sound { tokens(json) } else { Vec::new() };
    let longest = json.len().saturating_mul(MOST_GROWTH).max(SHORT);
    let escapings = ESCAPES.into_iter().filter_map(move |escapes| {
        let is_due = !original.is_empty() && allowance.spend(json.len());
        let escaped = is_due.then(|| with_escapes(&original, escapes))?;
        let says_something = escapes == Escapes::Kept || escaped != original;
        says_something.then_some((escapes, escaped))
    });
    escapings.flat_map(move |(escapes, tokens)| {
        LAYOUTS.into_iter().filter_map(move |layout| {
            let written = (allowance.left() > 0).then(|| write(&tokens, layout, longest))?;
            let is_whole = allowance.spend(written.len()) && written.len() <= longest;
            is_whole.then_some((Rewriting { layout, escapes }, written))
        })
    })
}

fn tokens(json: &[u8]) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = json;
    while let Some(first) = rest.first() {
        let length = match first {
            b'"' => text_length(rest),
            b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
            _ => {
                let is_space = first.is_ascii_whitespace();
                let goes_on = |byte: &u8| byte.is_ascii_whitespace() == is_space && !b"\"{}[],:".contains(byte);
                rest.iter().take_while(|byte| goes_on(byte)).count()
            }
        };
        let (piece, after) = rest.split_at(length);
        tokens.push(match first {
            b'"' => Token::Text(Cow::Borrowed(piece)),
            b'{' | b'[' => Token::Open(*first),
            b'}' | b']' => Token::Close(*first),
            b',' => Token::Comma,
            b':' => Token::Colon,
            space if space.is_ascii_whitespace() => Token::Space(piece),
            _ => Token::Scalar(piece),
        });
        rest = after;
    }
    tokens
}

/// With both quotation marks; all there is if the second is missing.
fn text_length(json: &[u8]) -> usize {
    let mut escaped = false;
    let end = json.iter().skip(1).position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    end.map_or(json.len(), |end| end + 2)
}

fn with_escapes<'a>(tokens: &[Token<'a>], escapes: Escapes) -> Vec<Token<'a>> {
    let again = |token: &Token<'a>| match token {
        Token::Text(text) if escapes != Escapes::Kept => match escape_anew(text, escapes) {
            Some(again) => Token::Text(Cow::Owned(again)),
            None => token.clone(),
        },
        other => other.clone(),
    };
    tokens.iter().map(again).collect()
}

/// None if it cannot be read, such as half of a pair of `\u` escapes.
fn escape_anew(text: &[u8], escapes: Escapes) -> Option<Vec<u8>> {
    let read: String = serde_json::from_slice(text).ok()?;
    let mut written = String::with_capacity(text.len());
    written.push('"');
    for letter in read.chars() {
        let is_escaped = match escapes {
            Escapes::Kept | Escapes::Fewest => false,
            Escapes::Ascii | Escapes::Slashes => !letter.is_ascii(),
            Escapes::Html => matches!(letter, '<' | '>' | '&' | '\u{2028}' | '\u{2029}'),
        };
        match letter {
            '/' if escapes == Escapes::Slashes => written.push_str("\\/"),
            '"' => written.push_str("\\\""),
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            '\u{8}' => written.push_str("\\b"),
            '\u{c}' => written.push_str("\\f"),
            '\0'..' ' => push_units(&mut written, letter),
            _ if is_escaped => push_units(&mut written, letter),
            other => written.push(other),
        }
    }
    written.push('"');
    Some(written.into_bytes())
}

fn push_units(written: &mut String, letter: char) {
    for unit in letter.encode_utf16(&mut [0; 2]) {
        written.push_str(&format!("\\u{unit:04x}"));
    }
}

/// Ends within a token of the longest that is wanted.
fn write(tokens: &[Token<'_>], layout: Layout, longest: usize) -> Vec<u8> {
    let mut written = Vec::new();
    let mut depth = 0_usize;
    let mut was_open = false;
    for token in tokens {
        let spaces = matches!(token, Token::Space(_));
        if spaces && layout != Layout::Kept {
            continue;
        }
        let is_close = matches!(token, Token::Close(_));
        depth = depth.saturating_sub(usize::from(is_close));
        // Empty brackets stay on their line.
        if was_open != is_close {
            break_line(&mut written, layout, depth);
        }
        match token {
            Token::Space(piece) | Token::Scalar(piece) => written.extend_from_slice(piece),
            Token::Text(piece) => written.extend_from_slice(piece),
            Token::Open(bracket) | Token::Close(bracket) => written.push(*bracket),
            Token::Comma => {
                written.push(b',');
                break_line(&mut written, layout, depth);
                written.extend_from_slice(if layout == Layout::Spaced { b" " } else { b"" });
            }
            Token::Colon => {
                let spaced = matches!(layout, Layout::Spaced | Layout::Indented(_));
                written.extend_from_slice(if spaced { b": " } else { b":" });
            }
        }
        was_open = matches!(token, Token::Open(_));
        depth += usize::from(was_open);
        if written.len() > longest {
            break;
        }
    }
    written
}

fn break_line(written: &mut Vec<u8>, layout: Layout, depth: usize) {
    if let Layout::Indented(width) = layout {
        written.push(b'\n');
        written.resize(written.len() + depth * width, b' ');
    }
}

impl fmt::Display for Rewriting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layout, escapes } = self;
        let layout = match layout {
            Layout::Kept => None,
            Layout::Compact => Some("without white space".to_owned()),
            Layout::Spaced => Some("with a space after each comma and colon".to_owned()),
            Layout::Indented(width) => Some(format!("indented by {width}")),
        };
        let escapes = match escapes {
            Escapes::Kept => None,
            Escapes::Fewest => Some("without needless escapes".to_owned()),
            Escapes::Ascii => Some("with escapes for all that is not ASCII".to_owned()),
            Escapes::Html => Some("with escapes for `<`, `>` and `&`".to_owned()),
            Escapes::Slashes => Some("with escapes for slashes and all that is not ASCII".to_owned()),
        };
        let both: Vec<_> = layout.into_iter().chain(escapes).collect();
        formatter.write_str(&both.join(" and "))
    }
}

const LAYOUTS: [Layout; 5] = [Layout::Compact, Layout::Indented(2), Layout::Indented(4), Layout::Spaced, Layout::Kept];

const ESCAPES: [Escapes; 5] = [Escapes::Kept, Escapes::Fewest, Escapes::Ascii, Escapes::Html, Escapes::Slashes];

/// Real payloads grow by a third when they are indented, and texts in Chinese by two when they are escaped.
const MOST_GROWTH: usize = 2;

/// In what is this short, brackets may be most of it.
const SHORT: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// One document as several programs write it, the first as forges send it.
    const WRITTEN: [(&str, &str); 7] = [
        ("without white space", "{\"z\":[1.0,{\"b\":\"\u{fc}/<\u{1f600}\\n\"}],\"a\":{},\"d\":[],\"a\":null}"),
        (
            "indented by 2",
            "{\n  \"z\": [\n    1.0,\n    {\n      \"b\": \"\u{fc}/<\u{1f600}\\n\"\n    }\n  ],\n  \"a\": {},\n  \"d\": [],\n  \"a\": null\n}",
        ),
        (
            "with a space after each comma and colon",
            "{\"z\": [1.0, {\"b\": \"\u{fc}/<\u{1f600}\\n\"}], \"a\": {}, \"d\": [], \"a\": null}",
        ),
        (
            "without white space and with escapes for all that is not ASCII",
            "{\"z\":[1.0,{\"b\":\"\\u00fc/<\\ud83d\\ude00\\n\"}],\"a\":{},\"d\":[],\"a\":null}",
        ),
        (
            "without white space and with escapes for `<`, `>` and `&`",
            "{\"z\":[1.0,{\"b\":\"\u{fc}/\\u003c\u{1f600}\\n\"}],\"a\":{},\"d\":[],\"a\":null}",
        ),
        (
            "without white space and with escapes for slashes and all that is not ASCII",
            "{\"z\":[1.0,{\"b\":\"\\u00fc\\/<\\ud83d\\ude00\\n\"}],\"a\":{},\"d\":[],\"a\":null}",
        ),
        (
            "indented by 4 and with escapes for all that is not ASCII",
            "{\n    \"z\": [\n        1.0,\n        {\n            \"b\": \"\\u00fc/<\\ud83d\\ude00\\n\"\n        }\n    ],\n    \"a\": {},\n    \"d\": [],\n    \"a\": null\n}",
        ),
    ];

    fn found(from: &str, to: &str) -> Option<String> {
        let allowance = Allowance::for_operators();
        rewritings(from.as_bytes(), &allowance)
            .find(|(_, json)| json == to.as_bytes())
            .map(|(rewriting, _)| rewriting.to_string())
    }

    #[test]
    fn what_one_program_wrote_is_found_in_what_another_made_of_it() {
        for (_, from) in WRITTEN {
            for (words, to) in WRITTEN {
                let told = found(from, to).unwrap_or_else(|| panic!("{from} is not taken back to {to}"));
                // What is the same in both is not named, or what is the least.
                let layout = |words: &str| words.split(" and with").next().unwrap_or_default().to_owned();
                assert_eq!(layout(&told).replace(" and without needless escapes", ""), layout(words), "{from} to {to}");
            }
        }
        assert_eq!(
            found(WRITTEN[6].1, WRITTEN[0].1).as_deref(),
            Some("without white space and without needless escapes")
        );
        assert_eq!(found(WRITTEN[0].1, WRITTEN[6].1).as_deref(), Some(WRITTEN[6].0));
        assert_eq!(found(WRITTEN[2].1, WRITTEN[4].1).as_deref(), Some(WRITTEN[4].0));
    }

    #[test]
    fn white_space_that_stays_stays_as_it_was() {
        let table = [
            ("{ \"a\" :\t\"\\u00fc\" }\n", "{ \"a\" :\t\"\u{fc}\" }\n", "without needless escapes"),
            ("[\"\\\\\",\"\\\"]\"]", "[\"\\\\\", \"\\\"]\"]", "with a space after each comma and colon"),
            // Half of a pair is no character, and stays as it is.
            (
                "[\"\\ud83d\", \"\\u00fc\"]",
                "[\"\\ud83d\",\"\u{fc}\"]",
                "without white space and without needless escapes",
            ),
        ];
        for (from, to, words) in table {
            assert_eq!(found(from, to).as_deref(), Some(words), "{from}");
        }
    }

    #[test]
    fn what_is_no_json_is_not_written_anew() {
        for json in ["", "{", "{]", "[1] [2]", "\"a", "nul", "\u{feff}[]", &"[".repeat(10_000)] {
            assert_eq!(rewritings(json.as_bytes(), &Allowance::for_operators()).count(), 0, "{json}");
        }
        assert_eq!(rewritings(b"\xff", &Allowance::for_operators()).count(), 0);
    }

    #[test]
    fn a_tower_is_not_written_much_longer_than_it_is() {
        // Zeros at the top of a tower: each is a line, indented by the whole height.
        for (depth, zeros) in [(1_000, 12_000), (120, 200_000), (250_000, 1)] {
            let tower = format!("{}{}0{}", "[".repeat(depth), "0,".repeat(zeros), "]".repeat(depth));
            let allowance = Allowance::for_strangers(usize::MAX);
            let lengths: Vec<_> = rewritings(tower.as_bytes(), &allowance).map(|(_, json)| json.len()).collect();
            assert!(lengths.len() > 1 && lengths.iter().all(|length| *length <= 2 * tower.len()), "{lengths:?}");
            // Each way costs what is written, also if it is given up.
            let spent = usize::MAX - allowance.left();
            let most = (LAYOUTS.len() + ESCAPES.len()) * (2 * tower.len() + 4 * depth) + tower.len();
            assert!(spent >= (lengths.len() + 1) * tower.len() && spent <= most, "{spent} {most}");
        }
    }

    #[test]
    fn what_nobody_pays_for_is_not_written() {
        let json = format!("[{}0]", "\"\\u00fc\",".repeat(5_000));
        let all = rewritings(json.as_bytes(), &Allowance::for_operators()).count();
        let some = rewritings(json.as_bytes(), &Allowance::for_strangers(4 * json.len())).count();
        assert!(all > 10 && (1..4).contains(&some), "{some} of {all}");
        assert_eq!(rewritings(json.as_bytes(), &Allowance::for_strangers(0)).count(), 0);
    }
}
