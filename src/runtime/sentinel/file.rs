//! Saves the state into `sentinel.conf`: as a whole or not at all.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::config::sentinel::Document;
use crate::cores::sentinel::State;
use crate::runtime::replace::{ReplaceError, Rights, replace};

/// Permissions of a file that was there at the start and is gone: it holds passwords.
const MODE: u32 = 0o600;

/// The file could not be replaced. It is as it was.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {action}: {source}", path.display())]
pub struct SaveError {
    /// The file.
    pub path: PathBuf,
    /// What was tried.
    pub action: &'static str,
    /// What the system said.
    pub source: io::Error,
}

/// Replaces the file of `document` by one that says `state`. Blocks until it is on disk. Keeps mode and owner; a link stays a
/// link, and its target is replaced. What somebody wrote into comments meanwhile is kept.
pub fn save(document: &Document, state: &State) -> Result<(), SaveError> {
    let path = document.path();
    let failed = |action| move |source| SaveError { path: path.to_owned(), action, source };
    let (target, text, about) = match fs::canonicalize(path) {
        Ok(target) => {
            let about = fs::metadata(&target).map_err(failed("look at the file"))?;
            if !about.is_file() {
                return Err(failed("replace it")(io::Error::other("it is not a regular file")));
            }
            let now = fs::read(&target).map_err(failed("read the file"))?;
            (target, document.refreshed(&now).rewritten(state), Some(about))
        }
        // Deleted: everything that is known of it is written again.
        Err(error) if error.kind() == io::ErrorKind::NotFound => (path.to_owned(), document.rewritten(state), None),
        Err(error) => return Err(failed("find the file")(error)),
    };
    let rights = about.as_ref().map_or(Rights::Mode(MODE), Rights::Like);
    replace(&target, &text, rights).map_err(|ReplaceError { action, source }| failed(action)(source))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use super::*;
    use crate::config::sentinel::Additions;
    use crate::cores::sentinel::{MasterConfig, MasterState, Place};

    fn document(path: &Path, text: &str) -> (Document, State) {
        fs::write(path, text).unwrap();
        let (document, _, state) = Document::read(path, &Additions::default(), Path::new("/")).unwrap();
        (document, state)
    }

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn the_target_of_a_link_is_replaced_and_keeps_its_mode_and_owner() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real.conf"), directory.path().join("link.conf"));
        symlink("real.conf", &link).unwrap();
        let (document, mut state) = document(&link, "# mine\nport 1\n");
        fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        let root = nix::unistd::geteuid().is_root();
        if root {
            std::os::unix::fs::chown(&real, Some(12), Some(34)).unwrap();
        }
        state.current_epoch = 7;
        save(&document, &state).unwrap();
        let about = fs::symlink_metadata(&real).unwrap();
        assert_eq!(about.mode() & 0o7777, 0o640);
        assert!(!root || (about.uid(), about.gid()) == (12, 34));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let text = fs::read_to_string(&real).unwrap();
        assert!(text.starts_with("# mine\nport 1\n") && text.contains("sentinel current-epoch 7\n"), "{text}");
        assert_eq!(names(directory.path()), ["link.conf", "real.conf"]);
    }

    #[test]
    fn a_directory_in_its_place_is_an_error_and_stays_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sentinel.conf");
        let (document, state) = document(&path, "port 1\n");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let said = save(&document, &state).unwrap_err().to_string();
        assert!(said.contains("sentinel.conf: cannot replace it: it is not a regular file"), "{said}");
        assert_eq!(names(directory.path()), ["sentinel.conf"]);
        assert_eq!(names(&path), Vec::<String>::new());
    }

    #[test]
    fn comments_written_meanwhile_are_kept_and_a_deleted_file_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sentinel.conf");
        let (document, mut state) = document(&path, "port 1\n# old\n");
        state
            .masters
            .push(MasterState::new(MasterConfig::new("m", 2), Place { host: "127.0.0.1".to_owned(), port: 6379 }));
        fs::write(&path, "port 1\n# new\nsentinel monitor other 127.0.0.1 1 1\nrubbish \"\n").unwrap();
        save(&document, &state).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("port 1\n# new\nsentinel monitor m 127.0.0.1 6379 2\n# ??? rubbish \"\n"), "{text}");
        fs::remove_file(&path).unwrap();
        save(&document, &state).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("port 1\n# old\n") && text.contains("sentinel monitor m"), "{text}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }
}
