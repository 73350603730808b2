//! Typed reading of TOML that goes on after a mistake, and knows where each key stands.
//!
//! Absent: which keys there are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::{Place, Problem};

/// Collects mistakes and the places of keys while a text is read.
pub(super) struct Reader<'t> {
    text: &'t str,
    file: PathBuf,
    pub(super) problems: Vec<Problem>,
    pub(super) places: BTreeMap<String, Place>,
}

/// A table whose keys are taken one by one; what is left at the end is unknown.
pub(super) struct Table<'t> {
    path: String,
    place: Place,
    entries: BTreeMap<String, Field<'t>>,
    known: Vec<&'static str>,
}

/// A key with its value.
#[derive(Clone)]
pub(super) struct Field<'t> {
    /// With its tables: `sites.production.keep`.
    pub(super) key: String,
    pub(super) place: Place,
    value: DeValue<'t>,
}

impl<'t> Reader<'t> {
    /// Reads the syntax; where that is broken, what follows would be guesses.
    pub(super) fn new(text: &'t str, file: &Path) -> Result<(Self, Table<'t>), Vec<Problem>> {
        let mut reader = Self { text, file: file.to_owned(), problems: Vec::new(), places: BTreeMap::new() };
        match DeTable::parse(text) {
            Ok(document) => {
                let root = reader.open(String::new(), Place { line: 1, column: 1 }, document.into_inner());
                Ok((reader, root))
            }
            Err(error) => {
                let place = reader.place(error.span().map_or(0, |span| span.start));
                reader.report(place, String::new(), error.message().to_owned());
                Err(reader.problems)
            }
        }
    }

    fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let column = before[line_start..].chars().count() + 1;
        Place { line: before.matches('\n').count() + 1, column }
    }

    fn open<'v>(&mut self, path: String, place: Place, table: DeTable<'v>) -> Table<'v> {
        let mut entries = BTreeMap::new();
        for (name, value) in table {
            let key_place = self.place(name.span().start);
            let name = name.into_inner().into_owned();
            let shown = if name.contains('.') { format!("\"{name}\"") } else { name.clone() };
            let key = if path.is_empty() { shown } else { format!("{path}.{shown}") };
            self.places.insert(key.clone(), key_place);
            entries.insert(name, Field { key, place: key_place, value: value.into_inner() });
        }
        Table { path, place, entries, known: Vec::new() }
    }

    /// Reports a mistake at a place.
    pub(super) fn report(&mut self, place: Place, key: String, message: String) {
        self.problems.push(Problem { file: self.file.clone(), place, key, message });
    }

    /// Reports a mistake in a field.
    pub(super) fn fail(&mut self, field: &Field<'_>, message: impl Into<String>) {
        self.report(field.place, field.key.clone(), message.into());
    }

    /// Reports that a field is of another type than `allowed`.
    fn fail_type(&mut self, field: &Field<'_>, allowed: &str) {
        let message = format!("a {} is not allowed here; allowed: {allowed}", field.value.type_str());
        self.fail(field, message);
    }

    /// The text of a field.
    pub(super) fn text(&mut self, field: &Field<'_>, allowed: &str) -> Option<String> {
        match &field.value {
            DeValue::String(text) => Some(text.clone().into_owned()),
            _ => {
                self.fail_type(field, allowed);
                None
            }
        }
    }

    /// The value of a text field, as `parse` understands it; its error, or else `allowed`, says what would be right.
    pub(super) fn parsed<T>(
        &mut self,
        field: &Field<'_>,
        allowed: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(field, allowed)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(reason) => {
                let shown = text.escape_debug();
                let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
                self.fail(field, format!("`{shown}` is not allowed{reason}; allowed: {allowed}"));
                None
            }
        }
    }

    /// One word out of a few.
    pub(super) fn word<T: Copy>(&mut self, field: &Field<'_>, words: &[(&str, T)]) -> Option<T> {
        let allowed = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        self.parsed(field, &allowed, |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(String::new)
        })
    }

    /// A whole number in a range.
    pub(super) fn number(&mut self, field: &Field<'_>, least: usize, most: usize) -> Option<usize> {
        let allowed = format!("a whole number from {least} to {most}");
        let DeValue::Integer(integer) = &field.value else {
            self.fail_type(field, &allowed);
            return None;
        };
        let number = usize::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.fail(field, format!("`{}` is not allowed; allowed: {allowed}", integer.as_str()));
        }
        number
    }

    /// The elements of an array.
    pub(super) fn list<'v>(&mut self, field: Field<'v>, allowed: &str) -> Vec<Field<'v>> {
        let Field { key, place, value } = field;
        match value {
            DeValue::Array(array) => {
                let element = |value: toml::Spanned<DeValue<'v>>, reader: &Self| Field {
                    key: key.clone(),
                    place: reader.place(value.span().start),
                    value: value.into_inner(),
                };
                array.into_iter().map(|value| element(value, self)).collect()
            }
            value => {
                self.fail_type(&Field { key, place, value }, allowed);
                Vec::new()
            }
        }
    }

    /// Whether a field is an array.
    pub(super) fn is_list(&self, field: &Field<'_>) -> bool {
        field.value.is_array()
    }

    /// Whether a field is a text.
    pub(super) fn is_text(&self, field: &Field<'_>) -> bool {
        field.value.is_str()
    }

    /// The table a field holds.
    pub(super) fn table<'v>(&mut self, field: Field<'v>) -> Option<Table<'v>> {
        let Field { key, place, value } = field;
        match value {
            DeValue::Table(table) => Some(self.open(key, place, table)),
            value => {
                self.fail_type(&Field { key, place, value }, "a table");
                None
            }
        }
    }

    /// The field of a key that has to be there.
    pub(super) fn required<'v>(
        &mut self,
        table: &mut Table<'v>,
        key: &'static str,
        allowed: &str,
    ) -> Option<Field<'v>> {
        let field = table.take(key);
        if field.is_none() {
            let missing = table.dotted(key);
            self.report(table.place, missing, format!("is missing; allowed: {allowed}"));
        }
        field
    }

    /// Refuses keys whose feature does not exist yet: to accept one and ignore it would be a lie.
    pub(super) fn refuse_later(&mut self, table: &mut Table<'_>, keys: &[&'static str]) {
        for key in keys {
            if let Some(field) = table.entries.remove(*key) {
                self.fail(&field, "is not supported by this version yet; remove it");
            }
        }
    }

    /// Refuses what nobody took, with the nearest key that exists.
    pub(super) fn finish(&mut self, table: Table<'_>) {
        let Table { known, entries, .. } = table;
        for (name, field) in entries {
            let nearest = known.iter().max_by(|left, right| likeness(&name, left).total_cmp(&likeness(&name, right)));
            let hint = match nearest {
                Some(key) if likeness(&name, key) > LIKE_ENOUGH => format!("did you mean `{key}`? "),
                Some(_) | None => String::new(),
            };
            let mut allowed = known.clone();
            allowed.sort_unstable();
            self.fail(&field, format!("unknown key; {hint}allowed: {}", allowed.join(", ")));
        }
    }
}

impl<'t> Table<'t> {
    /// Takes the field of a key, if it is there.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Field<'t>> {
        self.known.push(key);
        self.entries.remove(key)
    }

    /// Takes everything: the keys of this table are names of the operator's.
    pub(super) fn take_all(&mut self) -> Vec<(String, Field<'t>)> {
        std::mem::take(&mut self.entries).into_iter().collect()
    }

    /// A key of this table with its tables.
    pub(super) fn dotted(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where it begins.
    pub(super) fn place(&self) -> Place {
        self.place
    }
}

fn likeness(left: &str, right: &str) -> f64 {
    strsim::jaro_winkler(left, right)
}

/// Below this two words only share a few letters.
const LIKE_ENOUGH: f64 = 0.8;
