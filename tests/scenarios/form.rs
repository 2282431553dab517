//! The form of a scenario file: read, played, compared, written again.

use std::any::Any;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::words::Words;

/// Between commands and what they are expected to bring about.
const RULE: &str = "----";

/// What the commands of a core's scenarios act upon.
pub(crate) trait World: Sized {
    /// The first command of a file sets the scene.
    fn open(words: &mut Words) -> Result<Self, String>;

    /// Every other one; returns what it brought about.
    fn command(&mut self, words: &mut Words) -> Result<Vec<String>, String>;
}

/// One part of a file. Lines count from 1.
#[derive(Debug)]
enum Part {
    /// A comment or an empty line between steps.
    Aside(String),
    /// Commands, and the transcript expected of them.
    Step { commands: Vec<(usize, String)>, first: usize, expected: Vec<String> },
}

/// What playing a file came to.
#[derive(Debug)]
pub(crate) struct Played {
    /// The file with what really happened.
    pub(crate) text: String,
    /// Where that first differs from what is expected, for a person.
    pub(crate) difference: Option<String>,
}

/// Plays all scenarios of `tests/scenarios/<core>`, or writes their expectations again.
pub(crate) fn run_all<W: World>(core: &str) {
    let update = std::env::var_os("VIGIE_UPDATE").is_some_and(|value| value == "1");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(core);
    let files = files(&directory).unwrap_or_else(|error| panic!("{error}"));
    let mut failures = Vec::new();
    for file in &files {
        let name = format!("{core}/{}", file.file_name().unwrap_or_default().to_string_lossy());
        let result = run_file::<W>(file, &format!("tests/scenarios/{name}"), update);
        println!("scenario {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        failures.extend(result.err());
    }
    println!("{} scenarios of {core}, {} failed", files.len(), failures.len());
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// The scenarios of a directory, in the order of their names. None at all is an error: nothing would be held.
fn files(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(|error| format!("{}: {error}", directory.display()))?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    if files.is_empty() { Err(format!("no scenario in {}", directory.display())) } else { Ok(files) }
}

fn run_file<W: World>(file: &Path, name: &str, update: bool) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
    let played = play::<W>(name, &text)?;
    if update && played.text != text {
        println!("scenario {name} is written again");
        std::fs::write(file, played.text).map_err(|error| format!("{name}: {error}"))
    } else if update {
        Ok(())
    } else {
        played.difference.map_or(Ok(()), Err)
    }
}

/// Plays one scenario. A command that cannot be carried out is an error that names file and line.
pub(crate) fn play<W: World>(name: &str, text: &str) -> Result<Played, String> {
    let mut played = Played { text: String::new(), difference: None };
    let mut world: Option<W> = None;
    for part in parse(text).map_err(|(line, error)| format!("{name}:{line}: {error}"))? {
        let (commands, first, expected) = match part {
            Part::Aside(line) => {
                played.text.extend([&line, "\n"]);
                continue;
            }
            Part::Step { commands, first, expected } => (commands, first, expected),
        };
        let mut got = Vec::new();
        for (line, command) in commands {
            played.text.extend([&command, "\n"]);
            let act = || act(&mut world, &command);
            let done = catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| Err(panic_text(&*panic)));
            got.extend(done.map_err(|error| format!("{name}:{line}: {command}: {error}"))?);
        }
        played.text.extend([RULE, "\n"]);
        got.iter().for_each(|line| played.text.extend([line, "\n"]));
        if got != expected && played.difference.is_none() {
            played.difference = Some(difference(name, first, &expected, &got));
        }
    }
    Ok(played)
}

fn act<W: World>(world: &mut Option<W>, command: &str) -> Result<Vec<String>, String> {
    let mut words = Words::of(command)?;
    let got = match world {
        None => {
            *world = Some(W::open(&mut words)?);
            Vec::new()
        }
        Some(world) => world.command(&mut words)?,
    };
    words.end()?;
    Ok(got)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without a text"))
}

/// Takes a file apart; an error comes with its line.
fn parse(text: &str) -> Result<Vec<Part>, (usize, String)> {
    let mut parts = Vec::new();
    let mut commands: Vec<(usize, String)> = Vec::new();
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let mut steps = 0;
    while let Some((number, line)) = lines.next() {
        if line == RULE {
            if commands.is_empty() {
                return Err((number, format!("{RULE} without a command in front of it")));
            }
            // The empty line belongs to what follows: the end of a file needs none.
            let expected: Vec<_> =
                lines.by_ref().map(|(_, line)| line.to_owned()).take_while(|l| !l.is_empty()).collect();
            steps += 1;
            let first = number + 1;
            let ended = text.lines().count() >= first + expected.len();
            parts.push(Part::Step { commands: std::mem::take(&mut commands), first, expected });
            parts.extend(ended.then(|| Part::Aside(String::new())));
        } else if line.is_empty() || line.starts_with('#') {
            if let Some((number, command)) = commands.first() {
                return Err((*number, format!("{command:?} is not followed by {RULE}")));
            }
            parts.push(Part::Aside(line.to_owned()));
        } else {
            commands.push((number, line.to_owned()));
        }
    }
    match commands.first() {
        Some((number, command)) => Err((*number, format!("{command:?} is not followed by {RULE}"))),
        None if steps == 0 => Err((1, "there is no command in this file".to_owned())),
        None => Ok(parts),
    }
}

fn difference(name: &str, first: usize, expected: &[String], got: &[String]) -> String {
    let same = expected.iter().zip(got).take_while(|(expected, got)| expected == got).count();
    let mut text = format!("{name}:{}: not what is expected\n", first + same);
    for (title, lines) in [("expected", expected), ("got", got)] {
        let _ = writeln!(text, "  {title}:");
        for line in lines {
            let _ = writeln!(text, "    {line}");
        }
        if lines.is_empty() {
            let _ = writeln!(text, "    (nothing)");
        }
    }
    text
}

/// The runner must be able to fail.
#[cfg(test)]
mod tests {
    use super::*;

    /// Says back what it is told.
    struct Echo;

    impl World for Echo {
        fn open(words: &mut Words) -> Result<Self, String> {
            words.keyword("echo").map(|()| Self)
        }

        fn command(&mut self, words: &mut Words) -> Result<Vec<String>, String> {
            match words.next("say or break")?.as_str() {
                "say" => Ok(vec![words.next("a word")?]),
                // A panic that writes no backtrace.
                "break" => std::panic::resume_unwind(Box::new("on purpose")),
                other => Err(format!("{other:?} is no command")),
            }
        }
    }

    const GOOD: &str = "# A comment.\necho\n----\n\n# Another.\nsay one\nsay \"two words\"\n----\none\ntwo words\n";

    fn error(text: &str) -> String {
        play::<Echo>("x.txt", text).expect_err("this scenario is malformed")
    }

    #[test]
    fn a_right_expectation_passes_and_the_file_stays_as_it_is() {
        for text in [GOOD.to_owned(), format!("{GOOD}\n"), format!("{GOOD}\n\n# The end.\n")] {
            let played = play::<Echo>("x.txt", &text).expect("this scenario is well formed");
            assert_eq!((played.difference, played.text), (None, text));
        }
    }

    #[test]
    fn a_wrong_expectation_fails_with_its_line_and_both_sides() {
        for (wrong, line) in [("one\n2\n", 10), ("one\n", 10), ("", 9), ("one\ntwo words\nthree\n", 11)] {
            let text = GOOD.replace("one\ntwo words\n", wrong);
            let played = play::<Echo>("x.txt", &text).expect("this scenario is well formed");
            let difference = played.difference.expect("this expectation is wrong");
            assert!(difference.starts_with(&format!("x.txt:{line}: ")), "{difference}");
            assert!(difference.contains("got:\n    one\n    two words\n"), "{difference}");
            assert_eq!(played.text, GOOD, "an update mends it");
        }
    }

    #[test]
    fn a_malformed_file_fails_with_its_line() {
        for (text, start) in [
            ("", "x.txt:1: there is no command"),
            ("# Only a comment.\n", "x.txt:1: there is no command"),
            ("\n----\n", "x.txt:2: ---- without a command"),
            ("echo\n", "x.txt:1: \"echo\" is not followed by ----"),
            ("echo\n\nsay x\n----\nx\n", "x.txt:1: \"echo\" is not followed by ----"),
            ("say x\n----\nx\n", "x.txt:1: say x: \"say\" where \"echo\""),
            ("echo\n----\n\nsing\n----\n", "x.txt:4: sing: \"sing\" is no command"),
            ("echo\n----\n\nsay\n----\n", "x.txt:4: say: the line ends"),
            ("echo\n----\n\nsay x y\n----\nx\n", "x.txt:4: say x y: \"y\" where the end"),
            ("echo\n----\n\nsay \"x\n----\nx\n", "x.txt:4: say \"x: a closing quote"),
            ("echo\n----\n\nbreak\n----\n", "x.txt:4: break: panicked: on purpose"),
        ] {
            let error = error(text);
            assert!(error.starts_with(start), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_directory_without_scenarios_is_a_failure() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        assert!(files(directory.path()).is_err());
        assert!(files(&directory.path().join("nowhere")).is_err());
        std::fs::write(directory.path().join("one.txt"), GOOD).expect("a file in it");
        assert_eq!(files(directory.path()).map(|files| files.len()), Ok(1));
    }

    #[test]
    fn an_update_writes_what_happened_and_nothing_of_a_malformed_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("one.txt");
        std::fs::write(&file, GOOD.replace("two words\n", "2\n")).expect("a file in it");
        assert!(run_file::<Echo>(&file, "x.txt", false).is_err());
        assert_eq!(run_file::<Echo>(&file, "x.txt", true), Ok(()));
        assert_eq!(run_file::<Echo>(&file, "x.txt", false), Ok(()));
        std::fs::write(&file, "sing\n----\n").expect("a file in it");
        assert!(run_file::<Echo>(&file, "x.txt", true).is_err());
        assert_eq!(std::fs::read_to_string(&file).ok().as_deref(), Some("sing\n----\n"));
    }
}
