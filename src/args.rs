//! The command line. It shows only what this version can do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::base::NodeName;
#[cfg(feature = "demo")]
use crate::operate::demo;

/// Keeps Redis and Valkey available: virtual IP, proxy, Sentinel and supervisor in one program.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(
    name = "vigie",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  \
        vigie check cluster.toml     judge a cluster file before it is installed\n  \
        vigie run --node redis-01    be the node redis-01\n  \
        vigie status                 every node in one table, and why it is as it is\n  \
        vigie why                    why there is, or is not, a failover\n  \
        vigie failover --to redis-02 make redis-02 the master, without losing a write\n\n\
        Exit codes: 0 yes or done, 1 no (unhealthy, invalid, aborted), 2 usage, 3 not reached, 70 internal fault."
)]
pub struct Arguments {
    /// Options that may stand before or after the subcommand.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that may stand before or after the subcommand.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Global {
    /// The cluster file; without it: vigie.config= of the kernel, /etc/vigie/vigie.toml.
    #[arg(long, global = true, value_name = "PATH", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// Which node of the file this is; without it: vigie.node= of the kernel, the host name, an own address.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub node: Option<NodeName>,
    /// More words of the kernel command line: the cmdline.txt of a box.
    #[arg(long, global = true, value_name = "PATH", help_heading = "Global options")]
    pub cmdline: Option<PathBuf>,
    /// Where votes, epochs and data survive a restart.
    #[arg(long, global = true, value_name = "PATH", default_value = "/var/lib/vigie", help_heading = "Global options")]
    pub state_dir: PathBuf,
    /// Where the daemon's socket is.
    #[arg(long, global = true, value_name = "PATH", default_value = "/run/vigie", help_heading = "Global options")]
    pub runtime_dir: PathBuf,
    /// How much is logged.
    #[arg(long, global = true, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Info)]
    #[arg(help_heading = "Global options")]
    pub log: LogLevel,
}

/// Where the cluster file is: where the command line says, else where the kernel's does, else where it is installed.
pub fn cluster_file<'a>(given: Option<&'a Path>, kernel: Option<&'a Path>) -> &'a Path {
    given.or(kernel).unwrap_or_else(|| Path::new("/etc/vigie/vigie.toml"))
}

/// `--log`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Only what a person must act on.
    Error,
    /// Also what works, but worse.
    Warn,
    /// Also changes of state.
    Info,
    /// Also the reasons.
    Debug,
    /// Everything.
    Trace,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Runs the roles of this node until it is told to stop.
    #[command(after_help = "Example:\n  vigie run --config /etc/vigie/vigie.toml --node redis-01")]
    Run(Run),
    /// Shows a whole cluster on this machine, in namespaces of its own, and what failures cost its clients.
    #[cfg(feature = "demo")]
    #[command(after_help = "Examples:\n  \
        vigie demo                                       live, with keys to kill, cut and move things\n  \
        vigie demo | cat                                 as text: the master's redis is killed, the client goes on\n  \
        vigie demo --scenario crash --runs 20 --json     measured, for scripts")]
    Demo(demo::Options),
    /// Is not in this build, and says so.
    #[cfg(not(feature = "demo"))]
    #[command(hide = true, disable_help_flag = true)]
    Demo(NoDemo),
    /// Shows every node, and why it is as it is.
    #[command(after_help = "Examples:\n  \
        vigie status             once; exit 1 if something is unhealthy\n  \
        vigie status --watch     again and again\n  \
        vigie status --json      for scripts")]
    Status(Status),
    /// Tells why there is, or is not, a failover: every gate on the way to one, and what stands in it.
    #[command(after_help = "Examples:\n  \
        vigie why            exit 0 if no failover is needed or one is on its way, 1 if something blocks one\n  \
        vigie why --json     the numbers, for scripts")]
    Why(Why),
    /// Shows what happened here, oldest first.
    #[command(after_help = "Example:\n  vigie events -f     and what happens from now on")]
    Events(Events),
    /// Moves the master to another node without losing a write; waits until it is done (exit 0) or aborted (exit 1).
    #[command(after_help = "Examples:\n  \
        vigie failover                   to the best replica\n  \
        vigie failover --to redis-02     to this one")]
    Failover(Failover),
    /// An operator's override: the sentinel of this node forgets its record and goes on from what all other sentinels have.
    #[command(after_help = "Example:\n  vigie bootstrap     tells what it risks, and asks; --yes does not")]
    Bootstrap(Bootstrap),
    /// An operator's override: most nodes are lost for good, and the redis of this one takes writes without a majority.
    #[command(
        after_help = "Example:\n  vigie takeover     on the node that lives: tells what it risks, and asks; --yes does not"
    )]
    Takeover(Takeover),
    /// Judges a cluster file: every fault at once, and what is legal but unwise.
    #[command(after_help = "Examples:\n  \
        vigie check                  the installed file\n  \
        vigie check cluster.toml     another one; exit 1 if it would be refused\n  \
        vigie check --boot           whether this box can be what its kernel command line says\n  \
        vigie check --stock          what a redis-sentinel among the voters needs in its sentinel.conf")]
    Check(Check),
    /// Is a redis-sentinel: the same arguments, the same file.
    #[command(disable_help_flag = true)]
    #[command(after_help = "Example:\n  vigie sentinel /etc/redis/sentinel.conf --supervised systemd")]
    Sentinel(Sentinel),
    /// Prints the version.
    Version,
}

/// `vigie run`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Run {
    /// The state directory does not survive a restart: this node does not vote.
    #[arg(long)]
    pub volatile: bool,
    /// A hardware watchdog that restarts this machine when the node does not answer any more.
    #[arg(long, value_name = "DEVICE")]
    pub watchdog: Option<PathBuf>,
}

/// `vigie demo` of a build without it: the answer is the same for all arguments.
#[cfg(not(feature = "demo"))]
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct NoDemo {
    /// What the demo would be given.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<OsString>,
}

#[cfg(not(feature = "demo"))]
impl std::fmt::Display for NoDemo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "this build has no demo: it is the one for the disk of a box; the binaries that `make dist` puts into dist/, and a \
             plain `cargo build`, have it",
        )
    }
}

/// `vigie status`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Status {
    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
    /// Shows it again and again until interrupted.
    #[arg(long)]
    pub watch: bool,
    /// Is the screen of a serial console, 80 columns by 24 rows, until a key asks for a shell.
    #[arg(long, conflicts_with_all = ["json", "watch"])]
    pub console: bool,
    /// A file whose lines the console shows above all else.
    #[arg(long, value_name = "PATH", requires = "console")]
    pub notice: Option<PathBuf>,
    /// No key asks for a shell.
    #[arg(long, requires = "console")]
    pub no_shell: bool,
}

/// `vigie why`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Why {
    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
}

/// `vigie events`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Events {
    /// Goes on with what happens from now on.
    #[arg(short, long)]
    pub follow: bool,
}

/// `vigie failover`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Failover {
    /// The node that becomes the master; without it the best replica does.
    #[arg(long, value_name = "NODE")]
    pub to: Option<NodeName>,
}

/// `vigie bootstrap`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Bootstrap {
    /// Does not ask.
    #[arg(long)]
    pub yes: bool,
}

/// `vigie takeover`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Takeover {
    /// Does not ask.
    #[arg(long)]
    pub yes: bool,
}

/// `vigie sentinel`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Sentinel {
    /// What redis-sentinel would be given.
    #[arg(value_name = "CONF [OPTIONS]", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<OsString>,
}

/// `vigie check`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Check {
    /// The cluster file; without it the one of --config.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Also judges what the kernel command line says of this box, and prints what the box is to be, for a shell.
    #[arg(long)]
    pub boot: bool,
    /// Prints the lines by which the sentinel.conf of a stock sentinel among the voters logs in: they hold passwords.
    #[arg(long, conflicts_with = "boot")]
    pub stock: bool,
}

impl Check {
    /// The file to judge, if the command line names one.
    pub fn given<'a>(&'a self, global: &'a Global) -> Option<&'a Path> {
        self.file.as_deref().or(global.config.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::runtime::exit::Exit;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn definitions_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_subcommand() {
        let before =
            parse("vigie --config /c --node n --state-dir /s --runtime-dir /r --log debug status --json").unwrap();
        let after =
            parse("vigie status --json --config /c --node n --state-dir /s --runtime-dir /r --log debug").unwrap();
        assert_eq!(before, after);
        assert_eq!(before.global.log, LogLevel::Debug);
        assert_eq!(
            before.command,
            Command::Status(Status { json: true, watch: false, console: false, notice: None, no_shell: false })
        );
    }

    #[test]
    fn defaults_are_those_of_an_installed_node() {
        let Arguments { global, command } = parse("vigie check").unwrap();
        assert_eq!((global.node.as_ref(), global.log), (None, LogLevel::Info));
        let paths = [&global.state_dir, &global.runtime_dir].map(|path| path.to_str().unwrap());
        assert_eq!(paths, ["/var/lib/vigie", "/run/vigie"]);
        let Command::Check(check) = command else { panic!("check is expected") };
        assert_eq!((check.given(&global), global.config.as_deref()), (None, None));
        assert_eq!(cluster_file(None, None), Path::new("/etc/vigie/vigie.toml"));
    }

    #[test]
    fn a_file_that_is_given_wins_over_the_kernels_even_if_it_is_the_installed_one() {
        let (installed, kernel) = (Path::new("/etc/vigie/vigie.toml"), Path::new("/boot/vigie.toml"));
        for line in ["vigie --config /etc/vigie/vigie.toml check --boot", "vigie check --boot /etc/vigie/vigie.toml"] {
            let Arguments { global, command } = parse(line).unwrap();
            let Command::Check(check) = command else { panic!("check is expected") };
            assert_eq!(cluster_file(check.given(&global), Some(kernel)), installed, "{line}");
        }
        let Arguments { global, .. } = parse("vigie run").unwrap();
        assert_eq!(cluster_file(global.config.as_deref(), Some(kernel)), kernel);
        let both = parse("vigie --config /a check /b").unwrap();
        let Command::Check(check) = both.command else { panic!("check is expected") };
        assert_eq!(check.given(&both.global), Some(Path::new("/b")));
    }

    #[test]
    fn what_follows_sentinel_is_left_to_it() {
        let parsed = parse("vigie --log debug sentinel x.conf --port 1 --config y -").unwrap();
        let Command::Sentinel(Sentinel { words }) = parsed.command else { panic!("sentinel is expected") };
        assert_eq!(words, ["x.conf", "--port", "1", "--config", "y", "-"]);
        assert_eq!(parsed.global.log, LogLevel::Debug);
    }

    #[test]
    fn wrong_lines_are_usage_errors() {
        for wrong in [
            "vigie",
            "vigie top",
            "vigie statsu",
            "vigie run now",
            "vigie failover --to a/b",
            "vigie --node é run",
            "vigie --log loud run",
            "vigie check a b",
        ] {
            assert_eq!(parse(wrong).map_err(|error| error.exit_code()), Err(i32::from(Exit::Usage.code())), "{wrong}");
        }
    }

    #[cfg(feature = "demo")]
    #[test]
    fn wrong_lines_of_the_demo_are_usage_errors() {
        for wrong in [
            "vigie demo --scenario fire",
            "vigie demo --scenario crash --runs 0",
            "vigie demo --json",
            "vigie demo --clients 0",
        ] {
            assert_eq!(parse(wrong).map_err(|error| error.exit_code()), Err(i32::from(Exit::Usage.code())), "{wrong}");
        }
    }

    #[cfg(not(feature = "demo"))]
    #[test]
    fn without_the_demo_it_is_not_offered_and_every_line_of_it_is_understood() {
        assert!(!Arguments::command().render_help().to_string().contains("demo"));
        for line in ["vigie demo", "vigie demo --help", "vigie demo --scenario crash --json", "vigie demo x"] {
            assert!(matches!(parse(line).unwrap().command, Command::Demo(_)), "{line}");
        }
    }

    #[test]
    fn help_shows_examples_and_only_what_exists() {
        let help = Arguments::command().render_help().to_string();
        for there in [
            "run",
            "status",
            "why",
            "events",
            "failover",
            "takeover",
            "check",
            "sentinel",
            "version",
            "Examples:",
            "--state-dir",
        ] {
            assert!(help.contains(there), "{there}:\n{help}");
        }
        assert_eq!(help.contains("demo"), cfg!(feature = "demo"), "{help}");
        for absent in ["  top ", "  import "] {
            assert!(!help.contains(absent), "{absent}:\n{help}");
        }
    }
}
