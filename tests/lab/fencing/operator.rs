//! An operator at the nodes: what is typed, what it has to say, and a transcript of both.

use std::fmt::Write as _;
use std::io::Write;
use std::process::Stdio;
use std::time::Instant;

use super::super::Outcome;
use super::super::whole::{START_TIME, text, wait_ok};
use super::Field;

/// Who types commands on nodes, with all that was typed and read.
pub(super) struct Operator<'f> {
    field: &'f Field,
    said: String,
}

impl<'f> Operator<'f> {
    pub(super) const fn new(field: &'f Field) -> Self {
        Self { field, said: String::new() }
    }

    /// Shows what was typed and read, to those who want to see it.
    pub(super) fn prints(&self) {
        if std::env::var_os("TRANSCRIPT").is_some() {
            println!("{}", self.said);
        }
    }

    pub(super) fn reads(&mut self, line: &str) {
        let _ = writeln!(self.said, "{line}\n");
    }

    fn run(&self, node: &str, words: &[&str], answer: Option<&str>) -> Result<(Option<i32>, String), String> {
        let mut command = self.field.world.cluster.vigie(node);
        command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if answer.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().map_err(text)?;
        if let (Some(mut input), Some(answer)) = (child.stdin.take(), answer) {
            // One that does not read it has said why.
            let _ = input.write_all(answer.as_bytes());
        }
        let output = child.wait_with_output().map_err(text)?;
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok((output.status.code(), said.concat()))
    }

    /// A command, and what it has to end with and to say.
    pub(super) fn types(
        &mut self,
        node: &str,
        words: &[&str],
        answer: Option<&str>,
        code: i32,
        expected: &[&str],
    ) -> Outcome {
        let (ended, said) = self.run(node, words, answer)?;
        let _ = writeln!(self.said, "{node}# vigie {}{}", words.join(" "), typed(answer));
        let _ = writeln!(self.said, "{said}(exit code {ended:?})\n");
        let missing: Vec<_> = expected.iter().filter(|word| !said.contains(**word)).collect();
        if ended == Some(code) && missing.is_empty() {
            return Ok(());
        }
        Err(format!("{}\nexit code {code} is expected; missing: {missing:?}", self.said))
    }

    /// Waits until a command ends so and says so.
    pub(super) fn wait(&mut self, node: &str, word: &str, code: i32, expected: &[&str]) -> Outcome {
        let says = || {
            let (ended, said) = self.run(node, &[word], None)?;
            let all = ended == Some(code) && expected.iter().all(|word| said.contains(word));
            if all { Ok(()) } else { Err(format!("{ended:?} {said}")) }
        };
        wait_ok(&format!("vigie {word} does not say {expected:?}"), Instant::now(), START_TIME, says).map(drop)
    }
}

fn typed(answer: Option<&str>) -> String {
    answer.map_or_else(|| "   (no terminal)".to_owned(), |answer| format!("   (answered {answer:?})"))
}
