//! Lists of addresses and networks.

use crate::domain::network::{Network, NetworkError};

use super::reader::{Field, Reader};

/// Reads a list, which may be empty.
pub(super) fn read(reader: &mut Reader<'_>, field: Field<'_>) -> Vec<Network> {
    let elements = reader.list(field, &format!("a list of {ALLOWED}"));
    let parse = |text: &str| {
        Network::parse(text).map_err(|error| match error {
            NetworkError::Syntax => String::new(),
            NetworkError::Bits(_) => error.to_string(),
        })
    };
    elements.iter().filter_map(|element| reader.parsed(element, ALLOWED, parse)).collect()
}

/// Reads a list of who may do something: with an empty one that would be nobody, which is a slip rather than a wish.
pub(super) fn read_some(reader: &mut Reader<'_>, field: Field<'_>) -> Vec<Network> {
    if reader.is_list(&field) && reader.list(field.clone(), ALLOWED).is_empty() {
        reader.fail(&field, format!("is empty, and nobody could send; allowed: a list of {ALLOWED}, or no such key"));
    }
    read(reader, field)
}

const ALLOWED: &str = "addresses and networks, such as \"127.0.0.1\", \"140.82.112.0/20\" or \"2606:50c0::/32\"";
