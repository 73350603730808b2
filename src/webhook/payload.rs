//! What the payloads of all forges have in common: strict JSON, and two commit ids that say what happened to a ref.
//!
//! Absent: the names of a forge's fields.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::Value;

use super::Malformed;
use crate::domain::push::{Change, Event, Push, RefName};
use crate::domain::revision::Revision;

/// Reads JSON in which no object, at any depth, has a key twice: readers disagree on which of the two counts.
///
/// Unknown keys are ignored. Nesting is limited by `serde_json` (128), so no input can overflow the stack.
pub(super) fn read_strictly<T: DeserializeOwned>(json: &[u8]) -> Result<T, Malformed> {
    let text = text(json)?;
    let UniqueKeys = serde_json::from_str(text).map_err(no_json)?;
    serde_json::from_str(text).map_err(no_json)
}

/// Reads a few fields of an event that may turn out to be none of ours.
pub(super) fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, Malformed> {
    serde_json::from_str(text(json)?).map_err(no_json)
}

/// A ref that moved as payloads write it, before its values are checked.
#[derive(Debug)]
pub(super) struct Moved<'a> {
    /// The full ref name.
    pub(super) ref_name: &'a str,
    /// Zeros if the ref was created.
    pub(super) before: &'a str,
    /// Zeros if the ref was deleted.
    pub(super) after: &'a str,
}

impl Moved<'_> {
    /// Checks the values.
    pub(super) fn check(self) -> Result<Change, Malformed> {
        let Self { ref_name, before, after } = self;
        Ok(Change {
            ref_name: RefName::parse(ref_name).map_err(Malformed::new)?,
            before: revision("before", before)?,
            after: revision("after", after)?,
            message: None,
        })
    }
}

/// What a push says, once its refs were checked: a test if they all stand still.
pub(super) fn push(repository: &str, repository_id: Option<Value>, changes: Vec<Change>) -> Result<Event, Malformed> {
    if repository.is_empty() || repository.len() > LONGEST_REPOSITORY || repository.contains(char::is_control) {
        return Err(Malformed::new("the repository's name is empty, too long or has control characters"));
    }
    let repository_id = match repository_id {
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::String(text)) if !text.is_empty() && text.len() <= LONGEST_ID => Some(text),
        Some(_) | None => None,
    };
    let push = Push { repository: repository.to_owned(), repository_id, changes };
    Ok(if push.is_test() { Event::Ping } else { Event::Push(push) })
}

/// The forge's word for an event that stands in the body: fit for the log, whatever it is.
pub(super) fn word(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(LONGEST_WORD).collect()
}

/// Reads a commit id; zeros are none.
pub(super) fn revision(field: &str, text: &str) -> Result<Option<Revision>, Malformed> {
    Revision::parse_or_zero(text).map_err(|error| Malformed::new(format!("`{field}`: {error}")))
}

/// How a forge writes "no commit" beside this one.
pub(super) fn zeros(beside: &Revision) -> String {
    "0".repeat(beside.as_str().len())
}

fn text(json: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(json).map_err(|error| Malformed::new(format!("the payload is not UTF-8: {error}")))
}

fn no_json(error: serde_json::Error) -> Malformed {
    Malformed::new(format!("the payload is not what was expected: {error}"))
}

/// A JSON value of which only the keys were looked at.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeysVisitor)
    }
}

struct UniqueKeysVisitor;

impl<'de> Visitor<'de> for UniqueKeysVisitor {
    type Value = UniqueKeys;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueKeys, A::Error> {
        let mut seen = Seen::default();
        while let Some(Key(key)) = map.next_key()? {
            if let Some(again) = seen.insert(key) {
                return Err(A::Error::custom(format_args!("the key `{}` is there twice", again.escape_debug())));
            }
            map.next_value::<UniqueKeys>()?;
        }
        Ok(UniqueKeys)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<UniqueKeys, A::Error> {
        while sequence.next_element::<UniqueKeys>()?.is_some() {}
        Ok(UniqueKeys)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_unit<E: de::Error>(self) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }
}

/// A key without a copy, unless it has escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(text.to_owned())))
    }
}

/// The keys of an object. Most have a few, for which a walk is quicker than a hash; the many of a hostile one take no longer
/// than they would anyway.
#[derive(Default)]
struct Seen<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Seen<'de> {
    /// Gives the key back if it was there.
    fn insert(&mut self, key: Cow<'de, str>) -> Option<Cow<'de, str>> {
        if self.many.is_empty() && self.few.len() < FEW {
            if self.few.contains(&key) {
                return Some(key);
            }
            self.few.push(key);
            return None;
        }
        self.many.extend(self.few.drain(..));
        if self.many.contains(&key) {
            return Some(key);
        }
        self.many.insert(key);
        None
    }
}

const FEW: usize = 24;

/// GitLab allows 255 characters a group and 20 nested groups; nobody comes near.
const LONGEST_REPOSITORY: usize = 1024;

/// A word of the forge, not a text.
const LONGEST_WORD: usize = 100;

/// The longest seen is a UUID in braces.
const LONGEST_ID: usize = 100;

/// Stands for a commit in a test delivery, where it is both before and after.
pub(super) const NO_MOVE: &str = "1111111111111111111111111111111111111111";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_there_once() {
        for good in
            [r#"{"a":1,"b":{"a":[{"a":null},{"a":true}]}}"#, r#"{"a":-1.5e3,"A":"x"}"#, "[]", "null", " {\"\":\"\"}\n"]
        {
            assert!(read_strictly::<Value>(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"b":{"a":1,"a":2}}"#,
            r#"[[{"x":[{"a":1,"b":2,"a":3}]}]]"#,
            r#"{"":1,"":2}"#,
        ] {
            let reason = read_strictly::<Value>(bad.as_bytes()).unwrap_err().to_string();
            assert!(reason.contains("there twice"), "{bad}: {reason}");
        }
        for count in 1..100 {
            let keys: Vec<_> = (0..count).map(|number| format!(r#""key{number}":{number}"#)).collect();
            let object = |again: &str| format!("{{{}{again}}}", keys.join(","));
            assert!(read_strictly::<Value>(object("").as_bytes()).is_ok(), "{count}");
            for again in [0, count / 2, count - 1] {
                let bad = object(&format!(r#","key{again}":0"#));
                assert!(read_strictly::<Value>(bad.as_bytes()).is_err(), "{bad}");
            }
        }
    }

    #[test]
    fn what_is_no_json_is_malformed_and_nothing_overflows() {
        let deep = "[".repeat(1_000_000);
        let deep_objects = r#"{"a":"#.repeat(1_000_000);
        for bad in
            ["", " ", "{", "{}{}", "{'a':1}", "{\"a\":1,}", "NaN", "\u{feff}{}", "payload=%7B%7D", &deep, &deep_objects]
        {
            assert!(read_strictly::<Value>(bad.as_bytes()).is_err());
            assert!(read::<Value>(bad.as_bytes()).is_err());
        }
        assert!(read_strictly::<Value>(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn reasons_are_short() {
        let long = "x".repeat(1_000_000);
        let json = format!(r#"{{"{long}":1,"{long}":2}}"#);
        assert!(read_strictly::<Value>(json.as_bytes()).unwrap_err().to_string().len() <= 300);
        assert!(read_strictly::<bool>(format!("\"{long}\"").as_bytes()).unwrap_err().to_string().len() <= 300);
    }

    #[test]
    fn values_are_checked_and_never_trimmed() {
        let (one, two, zero) = ("1".repeat(40), "2".repeat(64), "0".repeat(40));
        let check = |repository: &str, ref_name: &str, before: &str, after: &str| {
            push(repository, None, vec![Moved { ref_name, before, after }.check()?])
        };
        let Event::Push(push) = check("acme/blog", "refs/heads/main", &zero, &two).unwrap() else { panic!("no push") };
        let Change { before, after, .. } = push.changes.into_iter().next().unwrap();
        assert_eq!((before, after.map(|id| id.to_string())), (None, Some(two.clone())));
        assert_eq!(check("acme/blog", "refs/heads/main", &one, &one), Ok(Event::Ping));
        for (repository, ref_name, before, after) in [
            ("", "refs/heads/main", &*one, &*two),
            ("acme\n/blog", "refs/heads/main", &one, &two),
            ("acme/blog", "main", &one, &two),
            ("acme/blog", " refs/heads/main", &one, &two),
            ("acme/blog", "refs/heads/main\n", &one, &two),
            ("acme/blog", "refs/heads/a..b", &one, &two),
            ("acme/blog", "refs/heads/main", "", &two),
            ("acme/blog", "refs/heads/main", &one, "HEAD"),
            ("acme/blog", "refs/heads/main", &one, "0"),
            ("acme/blog", "refs/heads/main", &one, &one[1..]),
        ] {
            assert!(
                check(repository, ref_name, before, after).is_err(),
                "{repository:?} {ref_name:?} {before} {after}"
            );
        }
    }
}
