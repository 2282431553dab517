//! How the program ends, for scripts and service managers.

use std::process::ExitCode;

/// The exit codes of vigie. `vigie sentinel` has those of redis-sentinel instead; after signal n it is 128 + n as everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; the answer is yes.
    Ok = 0,
    /// The answer is no: unhealthy, invalid, aborted, data lost.
    No = 1,
    /// The command line makes no sense. clap uses the same.
    Usage = 2,
    /// The daemon could not be reached.
    Unreachable = 3,
    /// A fault of vigie itself, which may pass (`EX_SOFTWARE` of sysexits).
    Internal = 70,
}

impl Exit {
    /// The number that the system is given.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Yes or no.
    pub const fn answer(yes: bool) -> Self {
        if yes { Self::Ok } else { Self::No }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_that_the_help_tells() {
        let all = [Exit::Ok, Exit::No, Exit::Usage, Exit::Unreachable, Exit::Internal];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3, 70]);
        assert_eq!([true, false].map(Exit::answer), [Exit::Ok, Exit::No]);
    }
}
