//! Typed reading of a TOML tree that remembers where everything stood, and goes on after a fault to find the next one.

use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::faults::{Fault, Warning, meant, shown};
use super::keys::{Allowed, KEYS, Key, SECTIONS, SECTIONS_LATER, Written, parse_duration};

const NOT_BUILT: &str = "is not built yet in this version; remove it";

/// A value and the line it was read from; no line: it is the default.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) line: Option<usize>,
}

/// One section: `[cluster]`, or one of the `[[node]]`s.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'t> {
    pub(super) section: &'static str,
    pub(super) line: Option<usize>,
    entries: Option<&'t DeTable<'t>>,
}

/// A value of the file, not judged yet.
#[derive(Clone, Copy, Debug)]
struct Found<'t> {
    value: &'t DeValue<'t>,
    line: usize,
    text: &'t str,
}

/// Reads one file and collects what is wrong with it.
#[derive(Debug)]
pub(super) struct Reader<'t> {
    file: &'t Path,
    text: &'t str,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Warning>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(file: &'t Path, text: &'t str) -> Self {
        Self { file, text, faults: Vec::new(), warnings: Vec::new() }
    }

    /// Notes a fault of what was read as `value` under `section.name`.
    pub(super) fn fault(
        &mut self,
        line: Option<usize>,
        key: impl Into<String>,
        value: Option<&str>,
        expected: impl Into<String>,
    ) {
        let value = value.map(shown);
        self.faults.push(Fault { file: self.file.into(), line, key: key.into(), value, expected: expected.into() });
    }

    pub(super) fn warn(&mut self, line: Option<usize>, key: impl Into<String>, text: impl Into<String>) {
        self.warnings.push(Warning { file: self.file.into(), line, key: key.into(), text: text.into() });
    }

    /// The line of a byte of the file, from 1. A file is short and its faults are few: no table of lines is kept.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        1 + before.iter().fold(0, |lines, byte| lines + usize::from(*byte == b'\n'))
    }

    fn found(&self, value: &'t Spanned<DeValue<'t>>) -> Found<'t> {
        let line = self.line_at(value.span().start);
        Found { value: value.get_ref(), line, text: self.text.get(value.span()).unwrap_or_default() }
    }

    /// Refuses what is no section, or one that is not built yet.
    pub(super) fn check_sections(&mut self, root: &'t DeTable<'t>) {
        for (name, value) in root {
            let (line, name) = (Some(self.line_at(name.span().start)), name.get_ref().as_ref());
            let known = SECTIONS.iter().map(|(section, _)| *section);
            if SECTIONS_LATER.contains(&name) {
                self.fault(line, name, None, format!("section {NOT_BUILT}"));
            } else if !known.clone().any(|section| section == name) {
                let what = if value.get_ref().is_table() { "section" } else { "key" };
                let hint = meant(name, known).map(|section| format!("; did you mean [{section}]?"));
                let hint = hint.or_else(|| home_of(name).map(|home| format!("; it belongs under {home}")));
                let hint = hint.unwrap_or_else(|| {
                    "; the sections are [cluster], [[vip]], [proxy], [redis], [sentinel] and [[node]]".to_owned()
                });
                self.fault(line, shown(name), None, format!("unknown {what}{hint}"));
            }
        }
    }

    /// The section `[name]`, empty if it is absent.
    pub(super) fn table(&mut self, root: &'t DeTable<'t>, section: &'static str) -> Table<'t> {
        let Some(value) = root.get(section) else { return Table { section, line: None, entries: None } };
        let found = self.found(value);
        match found.value {
            DeValue::Table(entries) => self.opened(section, found.line, entries),
            _ => {
                let said = format!("a section is expected; write [{section}] on a line of its own");
                self.fault(Some(found.line), section, None, said);
                Table { section, line: Some(found.line), entries: None }
            }
        }
    }

    /// All the sections `[[name]]`.
    pub(super) fn tables(&mut self, root: &'t DeTable<'t>, section: &'static str) -> Vec<Table<'t>> {
        let Some(value) = root.get(section) else { return Vec::new() };
        let found = self.found(value);
        let said = format!("a list of sections is expected; write [[{section}]] on a line of its own before each");
        let DeValue::Array(list) = found.value else {
            self.fault(Some(found.line), section, None, said);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for element in list {
            let found = self.found(element);
            match found.value {
                DeValue::Table(entries) => tables.push(self.opened(section, found.line, entries)),
                _ => self.fault(Some(found.line), section, Some(found.text), said.clone()),
            }
        }
        tables
    }

    /// Refuses unknown keys of a section, and those that are not built yet.
    fn opened(&mut self, section: &'static str, line: usize, entries: &'t DeTable<'t>) -> Table<'t> {
        let here = || KEYS.iter().filter(move |key| key.section == section);
        for name in entries.keys() {
            let (line, name) = (Some(self.line_at(name.span().start)), name.get_ref().as_ref());
            let path = format!("{section}.{}", shown(name));
            match here().find(|key| key.name == name) {
                Some(key) if key.built => {}
                Some(_) => self.fault(line, path, None, format!("key {NOT_BUILT}")),
                None => {
                    let hint = meant(name, here().map(|key| key.name)).map(|key| format!("; did you mean {key}?"));
                    let hint = hint.or_else(|| home_of(name).map(|home| format!("; it belongs under {home}")));
                    let hint = hint.unwrap_or_else(|| {
                        let names: Vec<&str> = here().filter(|key| key.built).map(|key| key.name).collect();
                        format!("; allowed here: {}", names.join(", "))
                    });
                    self.fault(line, path, None, format!("unknown key{hint}"));
                }
            }
        }
        Table { section, line: Some(line), entries: Some(entries) }
    }

    fn get<T>(&self, table: &Table<'t>, key: &Key<T>) -> Option<Found<'t>> {
        debug_assert_eq!(table.section, key.section, "a key is read from its own section");
        table.entries.and_then(|entries| entries.get(key.name)).map(|value| self.found(value))
    }

    /// Notes that a key which must be there is not.
    pub(super) fn missing<T: Written>(&mut self, table: &Table<'t>, key: &Key<T>) {
        let said = match table.line {
            Some(_) => format!("missing; allowed: {}", key.allowed),
            None => format!("missing, with its whole section [{}]; allowed: {}", table.section, key.allowed),
        };
        self.fault(table.line, path(key), None, said);
    }

    /// A value that `judge` accepts: its default if it is absent, none after a fault or without a default. What `judge`
    /// says of a wrong value goes on with what is allowed.
    fn read<T: Written + PartialOrd>(
        &mut self,
        table: &Table<'t>,
        key: &Key<T>,
        judge: impl Fn(&Found<'t>) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        let Some(found) = self.get(table, key) else {
            return key.default.map(|value| Placed { value, line: None });
        };
        let value = judge(&found).and_then(|value| within(value, &key.allowed).map(|()| value));
        match value {
            Ok(value) => Some(Placed { value, line: Some(found.line) }),
            Err(said) => {
                self.fault(Some(found.line), path(key), Some(found.text), said);
                None
            }
        }
    }

    /// A duration; none after a fault.
    pub(super) fn time(&mut self, table: &Table<'t>, key: &Key<Duration>) -> Option<Placed<Duration>> {
        self.read(table, key, |found| match found.value {
            DeValue::String(text) => parse_duration(text),
            DeValue::Integer(number) => {
                let number = shown(number.as_str());
                Err(format!(
                    "a number alone has no unit; write \"{number}ms\" or \"{number}s\", with quotes \
                     (us, ms, s, m and h are allowed)"
                ))
            }
            _ => Err("not a duration; allowed: a whole number and a unit in quotes, like \"500ms\"".to_owned()),
        })
    }

    /// A whole number. None after a fault, or if it is absent and has no default.
    pub(super) fn number<T: TryFrom<u32>>(&mut self, table: &Table<'t>, key: &Key<u32>) -> Option<Placed<T>> {
        let read = self.read(table, key, |found| match found.value {
            DeValue::Integer(number) => {
                let parsed = u32::from_str_radix(number.as_str(), number.radix());
                parsed.map_err(|_| format!("out of range; allowed: {}", key.allowed))
            }
            DeValue::String(_) => Err(format!("a number without quotes is expected; allowed: {}", key.allowed)),
            _ => Err(format!("a whole number is expected; allowed: {}", key.allowed)),
        });
        let Placed { value, line } = read?;
        // The range of the key is within the type: the conversion only ever succeeds.
        T::try_from(value).ok().map(|value| Placed { value, line })
    }

    /// `true` or `false`; after a fault the default.
    pub(super) fn flag(&mut self, table: &Table<'t>, key: &Key<bool>) -> Placed<bool> {
        let read = self.read(table, key, |found| match found.value {
            DeValue::Boolean(flag) => Ok(*flag),
            _ => Err("true or false, without quotes, is expected".to_owned()),
        });
        read.unwrap_or(Placed { value: false, line: None })
    }

    /// One of the words of the key; after a fault the default.
    pub(super) fn word(&mut self, table: &Table<'t>, key: &Key<&'static str>) -> &'static str {
        self.placed_word(table, key).map(|read| read.value).or(key.default).unwrap_or_default()
    }

    /// The same with its place. None after a fault, or if it is absent and has no default.
    pub(super) fn placed_word(&mut self, table: &Table<'t>, key: &Key<&'static str>) -> Option<Placed<&'static str>> {
        self.read(table, key, |found| {
            let Allowed::OneOf(now, later) = key.allowed else { return Err("no list of words".to_owned()) };
            let text = found.value.as_str().ok_or_else(|| format!("a text is expected; allowed: {}", key.allowed))?;
            let word = now.iter().chain(later).find(|word| **word == text);
            word.copied().ok_or_else(|| format!("unknown; allowed: {}", key.allowed))
        })
    }

    /// A text that `judge` turns into a value, or refuses in words that follow the key and the text. None after a fault
    /// and if it is absent.
    pub(super) fn text<T>(
        &mut self,
        table: &Table<'t>,
        key: &Key<&'static str>,
        judge: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        let Some(found) = self.get(table, key) else {
            return key.default.and_then(|text| judge(text).ok()).map(|value| Placed { value, line: None });
        };
        let text = found.value.as_str().ok_or_else(|| "a text in quotes is expected".to_owned());
        match text.and_then(judge) {
            Ok(value) => Some(Placed { value, line: Some(found.line) }),
            Err(said) => {
                // What stands in the place of a password may be one, whatever is wrong with it.
                let secret = key.name == "password";
                let shown = (!secret).then_some(found.text);
                self.fault(Some(found.line), path(key), shown, format!("{said}; allowed: {}", key.allowed));
                None
            }
        }
    }

    /// A list of texts that `judge` turns into values. None if it is absent, and after a fault of any of them.
    pub(super) fn texts<T>(
        &mut self,
        table: &Table<'t>,
        key: &Key<&'static str>,
        judge: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Placed<Vec<Placed<T>>>> {
        let found = self.get(table, key)?;
        let DeValue::Array(list) = found.value else {
            let said = format!("a list is expected, like [\"…\"]; allowed: {}", key.allowed);
            self.fault(Some(found.line), path(key), Some(found.text), said);
            return None;
        };
        let mut values = Vec::new();
        let faults_before = self.faults.len();
        for element in list {
            let one = self.found(element);
            let text = one.value.as_str().ok_or_else(|| "a text in quotes is expected".to_owned());
            match text.and_then(&judge) {
                Ok(value) => values.push(Placed { value, line: Some(one.line) }),
                Err(said) => {
                    let said = format!("{said}; allowed: {}", key.allowed);
                    self.fault(Some(one.line), path(key), Some(one.text), said);
                }
            }
        }
        let whole = self.faults.len() == faults_before;
        whole.then_some(Placed { value: values, line: Some(found.line) })
    }

    /// Whether the key is written there, right or wrong.
    pub(super) fn has<T>(&self, table: &Table<'t>, key: &Key<T>) -> bool {
        self.get(table, key).is_some()
    }
}

/// `section.name`.
pub(super) fn path<T>(key: &Key<T>) -> String {
    format!("{}.{}", key.section, key.name)
}

fn within<T: Written + PartialOrd>(value: T, allowed: &Allowed<T>) -> Result<(), String> {
    match allowed {
        Allowed::Any(_) => Ok(()),
        Allowed::Range(least, most) if value >= *least && value <= *most => Ok(()),
        // A range of one value stands for a key whose other values are planned.
        Allowed::Range(least, most) if least == most => {
            Err(format!("a value other than {} is not built yet in this version; remove it", least.written()))
        }
        Allowed::Range(..) => Err(format!("out of range; allowed: {allowed}")),
        Allowed::OneOf(now, _) if now.contains(&value) => Ok(()),
        Allowed::OneOf(..) => {
            Err(format!("{} is not built yet in this version; remove it; allowed: {allowed}", value.written()))
        }
    }
}

/// The sections that have a key of that name, as they are written.
fn home_of(name: &str) -> Option<String> {
    let has = |section: &str| KEYS.iter().any(|key| key.built && key.section == section && key.name == name);
    let homes = SECTIONS.iter().filter(|(section, _)| has(section));
    let homes: Vec<_> =
        homes.map(|(section, list)| if *list { format!("[[{section}]]") } else { format!("[{section}]") }).collect();
    (!homes.is_empty()).then(|| homes.join(" or "))
}
