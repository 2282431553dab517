//! Patterns of `redis.include`: a path whose last component may hold `*`.

use std::fs;
use std::path::Path;

/// Checks the form of a pattern.
pub(super) fn pattern(text: &str) -> Result<String, String> {
    let (directory, name) = text.rsplit_once('/').unwrap_or(("", text));
    match text {
        text if !text.starts_with('/') => Err("not an absolute path".to_owned()),
        _ if name.is_empty() => Err("no file is named".to_owned()),
        _ if directory.contains('*') => Err("'*' in the name of a directory".to_owned()),
        // Each becomes one word of a redis configuration.
        text if text.contains(|c: char| c.is_control() || c.is_whitespace() || matches!(c, '"' | '\'')) => {
            Err("a space, a quote or a control character in a path".to_owned())
        }
        text => Ok(text.to_owned()),
    }
}

/// The files that `pattern` stands for here and now, sorted. A `*` never stands for the dot of a hidden file.
pub(super) fn expand(pattern: &str) -> Vec<String> {
    let (directory, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    if !name.contains('*') {
        return Path::new(pattern).exists().then(|| pattern.to_owned()).into_iter().collect();
    }
    let listed = fs::read_dir(format!("{directory}/")).into_iter().flatten().flatten();
    let names = listed.filter_map(|entry| entry.file_name().into_string().ok());
    let fits = |candidate: &String| name.starts_with('.') == candidate.starts_with('.') && matches(name, candidate);
    let mut files: Vec<String> = names.filter(fits).map(|found| format!("{directory}/{found}")).collect();
    files.retain(|file| Path::new(file).is_file() && self::pattern(file).is_ok());
    files.sort();
    files
}

/// Whether `name` is `pattern` with each `*` replaced by any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name) in [("*.conf", "a.conf"), ("a*b*c", "abc"), ("a*b*c", "a-b-b-c"), ("*", "x"), ("x", "x")] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*.conf", "a.conf~"), ("a*a", "a"), ("a*b*c", "ac"), ("x", "xy"), ("*b", "a")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn expansion_is_sorted_and_leaves_out_hidden_files_and_directories() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.conf", "a.conf", ".c.conf", "d.conf~", "e f.conf"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        fs::create_dir(directory.path().join("g.conf")).unwrap();
        let at = directory.path().to_str().unwrap();
        assert_eq!(expand(&format!("{at}/*.conf")), [format!("{at}/a.conf"), format!("{at}/b.conf")]);
        assert_eq!(expand(&format!("{at}/a.conf")), [format!("{at}/a.conf")]);
        assert!(expand(&format!("{at}/none.conf")).is_empty() && expand("/nowhere/at/all/*").is_empty());
    }
}
