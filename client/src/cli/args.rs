//! The command line's grammar. Every flag can also be set by an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use stageline_protocol::ids::JobId;

use super::units;

/// Where a coordinator is, unless told.
pub const DEFAULT_COORDINATOR: &str = "127.0.0.1:7400";

/// Pipelines of async stages, in one process or over many machines.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "stageline",
    version,
    max_term_width = 100,
    after_help = "Examples:
  stageline run links.yaml                                 the whole job in this process
  stageline coordinator                                    the same job over several processes:
  stageline worker                                           as many of these as you like
  stageline run links.yaml --coordinator 127.0.0.1:7400

Exit codes: 0 all went well, 1 some items failed, 2 the job failed or never started."
)]
pub struct Cli {
    /// How log lines look; they go to standard error.
    #[arg(long, global = true, env = "STAGELINE_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What is logged: a level, or a filter such as `warn,stageline=debug`. Unset: `info`, and of an
    /// embedded coordinator what needs attention.
    #[arg(long = "log", global = true, env = "STAGELINE_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// What is logged: as told, or what suits the command.
    #[must_use]
    pub fn log_filter(&self) -> &str {
        match (&self.log, &self.command) {
            (Some(filter), _) => filter,
            // A coordinator that is nobody's business as long as all goes well: how the job ends is
            // told anyway.
            (None, Command::Run(run)) if run.coordinator.is_none() => {
                "info,stageline_coordinator=error"
            }
            (None, _) => "info",
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run a pipeline file: in this process, or over a coordinator.
    #[command(after_help = "Examples:
  stageline run links.yaml
  stageline run links.yaml --output broken.jsonl --errors errors.jsonl
  stageline run links.yaml --coordinator 10.0.0.5:7400 --wait-stages 5m
  zcat log.gz | stageline run count.yaml                   with `source: stdin`")]
    Run(Run),
    /// Run the coordinator, which workers and clients connect to.
    #[command(after_help = "Examples:
  stageline coordinator
  stageline coordinator --listen 0.0.0.0:7400              for other machines, too
  stageline coordinator --store /var/lib/stageline/coordinator.redb
  stageline coordinator --store none                       in memory: its jobs end with it")]
    Coordinator(Coordinator),
    /// Run a worker, which offers its stage functions to a coordinator.
    #[command(after_help = "Examples:
  stageline worker
  stageline worker --name w1 --slots jq=8 --slots read=32
  stageline worker --grace 5m                              SIGTERM lets long calls finish
  stageline worker --coordinator 10.0.0.5:7400 --listen 0.0.0.0:7401 --advertise 10.0.0.6:7401")]
    Worker(Worker),
    /// List the jobs of a coordinator, show one, or cancel one.
    #[command(after_help = "Examples:
  stageline jobs
  stageline jobs show 1f2e3d4c5b6a7988 --json
  stageline jobs cancel 1f2e3d4c5b6a7988")]
    Jobs(Jobs),
    /// Say what a pipeline file means, and whether it could run, without running it.
    #[command(after_help = "Examples:
  stageline check links.yaml")]
    Check(Check),
}

/// `run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// The pipeline file (YAML).
    pub file: PathBuf,
    /// Run over this coordinator; without it, everything runs in this process.
    #[arg(long, env = "STAGELINE_COORDINATOR", value_name = "HOST:PORT", value_parser = address)]
    pub coordinator: Option<String>,
    /// End the job at the first item that fails.
    #[arg(long, env = "STAGELINE_FAIL_FAST", action = ArgAction::SetTrue)]
    pub fail_fast: bool,
    /// Write the items that fail to this file, as JSON lines.
    #[arg(long, env = "STAGELINE_ERRORS", value_name = "FILE")]
    pub errors: Option<PathBuf>,
    /// Write the results to this file instead of where the pipeline file says; `-` is standard output.
    #[arg(long, short, env = "STAGELINE_OUTPUT", value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How long to wait until workers register all functions; 0 does not wait.
    #[arg(long, env = "STAGELINE_WAIT_STAGES", value_name = "DURATION", default_value = "60s", value_parser = units::duration)]
    pub wait_stages: Duration,
    /// How long to try to reach the coordinator.
    #[arg(long, env = "STAGELINE_CONNECT_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = units::duration)]
    pub connect_timeout: Duration,
}

/// `coordinator`.
#[derive(Clone, Debug, Args)]
pub struct Coordinator {
    /// Where to listen.
    #[arg(long, env = "STAGELINE_LISTEN", value_name = "IP:PORT", default_value = DEFAULT_COORDINATOR)]
    pub listen: SocketAddr,
    /// The file that keeps its jobs, so that they go on when it is started again; `none` keeps them
    /// in memory. Unset: coordinator-PORT.redb in the folder stageline of $XDG_STATE_HOME, or of
    /// ~/.local/state; with port 0, none.
    #[arg(long, env = "STAGELINE_STORE", value_name = "PATH")]
    pub store: Option<PathBuf>,
}

/// `worker`.
#[derive(Clone, Debug, Args)]
pub struct Worker {
    /// The coordinator to offer the stage functions to; the worker tries until it is there.
    #[arg(long, env = "STAGELINE_COORDINATOR", value_name = "HOST:PORT", default_value = DEFAULT_COORDINATOR, value_parser = address)]
    pub coordinator: String,
    /// Where to accept links from other workers; port 0 takes any free one. Unset: any free port
    /// of the local address from which the coordinator is reached.
    #[arg(long, env = "STAGELINE_LISTEN", value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// The address that other workers reach this one by, if it is not the one it listens on.
    #[arg(long, env = "STAGELINE_ADVERTISE", value_name = "HOST:PORT", value_parser = address)]
    pub advertise: Option<String>,
    /// The name that people see, and that a restarted worker keeps. Unset: host name and process id.
    #[arg(long, env = "STAGELINE_NAME")]
    pub name: Option<String>,
    /// Give up if the coordinator is not there after this long. Unset: try until it is.
    #[arg(long, env = "STAGELINE_CONNECT_TIMEOUT", value_name = "DURATION", value_parser = units::duration)]
    pub connect_timeout: Option<Duration>,
    /// How long the worker may take to leave when SIGTERM asks it to: it takes nothing more, gives
    /// back what has not started, and finishes the rest. What is not finished then runs again
    /// elsewhere, and ending takes up to 2 s more. Keep it a few seconds below what sends SIGKILL
    /// behind SIGTERM: Kubernetes does so after 30 s.
    #[arg(long, env = "STAGELINE_GRACE", value_name = "DURATION", default_value = "25s", value_parser = units::duration)]
    pub grace: Duration,
    /// Offer only these functions. Unset: all that this program has.
    #[arg(long, env = "STAGELINE_ONLY", value_name = "FUNCTION", value_delimiter = ',')]
    pub only: Vec<String>,
    /// How many items a function may run at a time here; once for each function.
    #[arg(long, env = "STAGELINE_SLOTS", value_name = "FUNCTION=N", value_delimiter = ',', value_parser = slots)]
    pub slots: Vec<(String, u32)>,
}

/// `jobs`.
#[derive(Clone, Debug, Args)]
pub struct Jobs {
    /// What to do; the default is to list.
    #[command(subcommand)]
    pub action: Option<JobsAction>,
    /// The coordinator.
    #[arg(long, global = true, env = "STAGELINE_COORDINATOR", value_name = "HOST:PORT", default_value = DEFAULT_COORDINATOR, value_parser = address)]
    pub coordinator: String,
    /// Print JSON.
    #[arg(long, global = true, env = "STAGELINE_JSON", action = ArgAction::SetTrue)]
    pub json: bool,
    /// How long to try to reach the coordinator.
    #[arg(long, global = true, env = "STAGELINE_CONNECT_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = units::duration)]
    pub connect_timeout: Duration,
}

/// What to do with jobs.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum JobsAction {
    /// List all jobs.
    List,
    /// Show one job: its stages, its workers, what it waits for.
    Show {
        /// The job, as `jobs` lists it.
        id: JobId,
    },
    /// Cancel one job.
    Cancel {
        /// The job, as `jobs` lists it.
        id: JobId,
    },
}

/// `check`.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// The pipeline file (YAML).
    pub file: PathBuf,
}

/// `HOST:PORT`, with an IPv6 host in brackets.
fn address(text: &str) -> Result<String, String> {
    let wrong = || format!("write HOST:PORT, for example {DEFAULT_COORDINATOR}");
    let plain = text.strip_prefix("http://").unwrap_or(text);
    let (host, port) = plain.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let named = !host.is_empty() && !host.contains(['/', ':', ' ', '[', ']', '@']);
    match port.parse::<u16>() {
        Ok(1..) if bracketed || named => Ok(plain.to_owned()),
        _ => Err(wrong()),
    }
}

fn slots(text: &str) -> Result<(String, u32), String> {
    let wrong = || "write FUNCTION=N, with N of at least 1, for example jq=8".to_owned();
    let (function, number) = text.split_once('=').ok_or_else(wrong)?;
    match number.parse::<u32>() {
        Ok(number @ 1..) if !function.is_empty() => Ok((function.to_owned(), number)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Cli, String> {
        Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn the_grammar_is_sound_and_every_flag_has_its_variable() {
        Cli::command().debug_assert();
        let commands = Cli::command();
        for command in commands.get_subcommands().chain([&commands]) {
            for flag in command
                .get_opts()
                .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
            {
                let variable = flag.get_env().map(|v| v.to_string_lossy().into_owned());
                assert!(variable.is_some_and(|v| v.starts_with("STAGELINE_")), "{flag}");
            }
            assert!(command.get_after_help().is_some(), "{} has no examples", command.get_name());
        }
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let Command::Run(run) = parse("stageline run a.yaml").expect("good").command else {
            panic!("not run")
        };
        assert_eq!(run.wait_stages, Duration::from_secs(60));
        assert_eq!((run.coordinator, run.fail_fast), (None, false));
        let filter = |line| parse(line).expect("good").log_filter().to_owned();
        assert_eq!(filter("stageline run a.yaml"), "info,stageline_coordinator=error");
        assert_eq!(filter("stageline run a.yaml --coordinator h:1"), "info");
        let Command::Coordinator(it) = parse("stageline coordinator").expect("good").command else {
            panic!("not coordinator")
        };
        assert_eq!((it.listen.to_string().as_str(), it.store), (DEFAULT_COORDINATOR, None));
        let Command::Worker(it) = parse("stageline worker").expect("good").command else {
            panic!("not worker")
        };
        assert_eq!(it.grace, Duration::from_secs(25));
        let Command::Jobs(jobs) = parse("stageline jobs").expect("good").command else {
            panic!("not jobs")
        };
        assert_eq!((jobs.action, jobs.json), (None, false));
    }

    #[test]
    fn flags_are_read() {
        let line = "stageline worker --slots jq=8 --slots read=2 --listen [::1]:0 --log debug";
        let cli = parse(line).expect("good");
        assert_eq!(cli.log_filter(), "debug");
        let Command::Worker(worker) = cli.command else { panic!("not worker") };
        assert_eq!(worker.slots, [("jq".to_owned(), 8), ("read".to_owned(), 2)]);
        let line = "stageline jobs show ab --json --coordinator h:1";
        let Command::Jobs(jobs) = parse(line).expect("good").command else { panic!("not jobs") };
        assert_eq!(jobs.action, Some(JobsAction::Show { id: JobId(0xab) }));
        assert_eq!((jobs.coordinator.as_str(), jobs.json), ("h:1", true));
    }

    #[test]
    fn a_bad_value_is_named_with_an_example() {
        for (line, why) in [
            ("stageline run a --wait-stages 10", "10s"),
            ("stageline run a --coordinator here", "HOST:PORT"),
            ("stageline run a --coordinator :7400", "HOST:PORT"),
            ("stageline run a --coordinator https://h:7400", "HOST:PORT"),
            ("stageline run a --coordinator h:0", "HOST:PORT"),
            ("stageline worker --slots jq", "FUNCTION=N"),
            ("stageline worker --slots jq=0", "FUNCTION=N"),
            ("stageline coordinator --listen 7400", "--listen"),
            ("stageline jobs show xyz", "hexadecimal"),
            ("stageline run", "<FILE>"),
            ("stageline chek a", "'check'"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
