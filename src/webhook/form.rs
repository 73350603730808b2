//! Payloads that come as a form, with the JSON in its field `payload`.

use std::borrow::Cow;

use super::{Malformed, Request};

/// The JSON of a request: its body, or the field of the form.
pub(super) fn json_of(request: &Request) -> Result<Cow<'_, [u8]>, Malformed> {
    if request.is_form()? {
        Ok(Cow::Owned(field(&request.body, b"payload")?))
    } else {
        Ok(Cow::Borrowed(&request.body))
    }
}

/// The decoded value of a field that must be in the form exactly once.
pub(super) fn field(form: &[u8], name: &[u8]) -> Result<Vec<u8>, Malformed> {
    // The content type is not signed. Who could change it on the way could else have JSON read as a form, and a part of it,
    // such as the name of a branch, as the payload.
    if form.trim_ascii_start().starts_with(b"{") {
        return Err(Malformed::new("the body is JSON, and no form as its `content-type` says"));
    }
    let mut found = None;
    for pair in form.split(|byte| *byte == b'&') {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let (key, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
        if decode(key)? == name && found.replace(decode(value)?).is_some() {
            return Err(Malformed::new("the form has the field `payload` more than once"));
        }
    }
    found.ok_or_else(|| Malformed::new("the form has no field `payload`"))
}

fn decode(text: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        let value = match byte {
            b'+' => b' ',
            b'%' => hex_value(bytes.next())
                .zip(hex_value(bytes.next()))
                .map(|(high, low)| high << 4 | low)
                .ok_or_else(|| Malformed::new("the form has a `%` that is not followed by two hex digits"))?,
            other => *other,
        };
        decoded.push(value);
    }
    Ok(decoded)
}

fn hex_value(digit: Option<&u8>) -> Option<u8> {
    char::from(*digit?).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    #[test]
    fn forms_are_decoded_strictly() {
        let field =
            |form: &str| super::field(form.as_bytes(), b"payload").ok().map(|value| String::from_utf8(value).unwrap());
        let table = [
            ("payload=a+b%20c%2B%3d&other=%7B", Some("a b c+=")),
            ("other=1&%70ayload=x=y", Some("x=y")),
            ("payload=", Some("")),
            ("payload", Some("")),
            ("", None),
            ("other=1", None),
            ("payload=1&payload=1", None),
            ("payload=1&%70ayload=2", None),
            ("payload=%", None),
            ("payload=%4", None),
            ("payload=%4g", None),
            ("payload=%+1", None),
            ("payload=1&x%zz=1", None),
            (r#"{"ref":"refs/heads/a&payload=%7B%7D&b"}"#, None),
            ("\n{&payload=1", None),
            ("x={&payload=1", Some("1")),
        ];
        for (form, expected) in table {
            assert_eq!(field(form).as_deref(), expected, "{form}");
        }
    }
}
