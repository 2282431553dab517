//! A file that is replaced durably, as a whole or not at all.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

/// The file could not be replaced. It is as it was.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {source}")]
pub struct ReplaceError {
    /// What was tried.
    pub action: &'static str,
    /// What the system said.
    pub source: io::Error,
}

/// Who may read and write the new file.
#[derive(Clone, Copy, Debug)]
pub enum Rights<'a> {
    /// This process's user, with this mode.
    Mode(u32),
    /// As with this file: owner, group and mode.
    Like(&'a Metadata),
}

/// Replaces the file at `path`: a temporary file beside it, which nobody can have prepared, synchronised, renamed, and the
/// directory synchronised. Blocks until it is on disk.
pub fn replace(path: &Path, bytes: &[u8], rights: Rights<'_>) -> Result<(), ReplaceError> {
    let failed = |action| move |source| ReplaceError { action, source };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".");
    // Until it is renamed it is removed with the value: what an error leaves behind would only confuse.
    let mut file = tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".new")
        .tempfile_in(directory)
        .map_err(failed("create a temporary file beside it"))?;
    let written =
        give(file.as_file(), rights).and_then(|()| file.write_all(bytes)).and_then(|()| file.as_file().sync_all());
    written.map_err(failed("write the temporary file"))?;
    file.persist(path).map_err(|error| match error.error.kind() {
        // Containers are often given a single file.
        io::ErrorKind::ResourceBusy => failed("replace a file that is mounted alone; mount its directory")(error.error),
        _ => failed("replace the file")(error.error),
    })?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("synchronise its directory"))
}

fn give(file: &File, rights: Rights<'_>) -> io::Result<()> {
    let mode = match rights {
        Rights::Mode(mode) => mode,
        Rights::Like(old) => {
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
                // Only root may give a file away. The file is then its own, and stays readable for it.
                let _ = fchown(file, Some(old.uid()), Some(old.gid()));
            }
            old.mode() & 0o7777
        }
    };
    file.set_permissions(Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for (text, mode) in [("one", 0o600), ("two", 0o640)] {
            replace(&path, text.as_bytes(), Rights::Mode(mode)).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        }
        assert_eq!(names(directory.path()), ["file"]);
    }

    #[test]
    fn an_error_names_what_was_tried_and_leaves_all_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let said = replace(&directory.path().join("none/file"), b"", Rights::Mode(0o600)).unwrap_err().to_string();
        assert!(said.starts_with("cannot create a temporary file beside it: "), "{said}");
        let path = directory.path().join("directory");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("file"), "").unwrap();
        let said = replace(&path, b"", Rights::Mode(0o600)).unwrap_err().to_string();
        assert!(said.starts_with("cannot replace the file: "), "{said}");
        assert_eq!((names(directory.path()), names(&path)), (vec!["directory".to_owned()], vec!["file".to_owned()]));
    }
}
