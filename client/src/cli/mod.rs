//! The command line `stageline`.
//!
//! Its parts are plain and meet in one place: [`args`] is the grammar; [`mod@file`] reads a pipeline
//! file; [`source`] makes its roots, and [`sink`] takes its results; [`progress`] shows how it goes,
//! and how it went; [`logging`] writes the log; [`check`] does all of that which needs no run. `run`,
//! `serve` and `jobs` are the commands that do.
//!
//! Results go to standard output, everything else to standard error.

pub mod args;
pub mod check;
#[cfg(test)]
mod example;
pub mod file;
mod jobs;
pub mod logging;
pub mod progress;
mod run;
mod serve;
pub mod sink;
pub mod source;
pub mod units;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use stageline_protocol::text::shown;

use self::args::{Cli, Command};
use self::progress::Screen;
use self::progress::summary::Exit;
use crate::Registry;

/// How long blocking calls may take to end when the process does; then they are abandoned.
const ABANDON: Duration = Duration::from_millis(100);

/// The whole command line, with these stage functions beside the stock ones: what a worker image
/// runs. A function of the program's own takes the place of a stock one of the same name.
///
/// ```no_run
/// use stageline::{Registry, Stage};
///
/// const SHOUT: Stage<String, String> = Stage::named("shout");
///
/// fn main() -> std::process::ExitCode {
///     stageline::main(Registry::new().map(SHOUT, |s: String| async move { s.to_uppercase() }))
/// }
/// ```
#[must_use]
pub fn main(registry: Registry) -> ExitCode {
    let cli = Cli::parse();
    let screen = Screen::default();
    match start(cli, registry, &screen) {
        Ok(exit) => exit.into(),
        Err(error) => {
            complain(&error);
            Exit::JobFailed.into()
        }
    }
}

fn start(cli: Cli, registry: Registry, screen: &Screen) -> anyhow::Result<Exit> {
    logging::init(cli.log_format, cli.log_filter(), screen)?;
    let registry = registry.with_fallback(crate::stock::registry());
    registry.validate()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(args, registry, screen).await,
            Command::Coordinator(args) => serve::coordinator(args).await,
            Command::Worker(args) => serve::worker(args, registry).await,
            Command::Jobs(args) => jobs::jobs(args).await,
            Command::Check(args) => {
                let text = tokio::task::spawn_blocking(move || check::check(&args.file, &registry))
                    .await??;
                print(&text)?;
                Ok(Exit::Fine)
            }
        }
    });
    runtime.shutdown_timeout(ABANDON);
    result
}

/// Writes to standard output; a reader that has gone is no failure of ours.
fn print(text: &str) -> std::io::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Tells an error, which may quote others: no line of it but the first begins at the margin.
fn complain(error: &anyhow::Error) {
    let text = format!("error: {error:#}");
    let margin = |line: &str| if line.starts_with([' ', '\t']) { "" } else { "    " };
    let mut lines = text.split('\n').map(shown);
    let mut shown = lines.next().unwrap_or_default().into_owned();
    for line in lines {
        shown.push('\n');
        shown.push_str(margin(&line));
        shown.push_str(&line);
    }
    // Standard error that cannot be written to leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "{shown}");
}

/// Hears, from its creation on, that somebody wants the process to end: Ctrl-C, or the system's
/// polite request. What is not heard by one is heard by nobody, so whoever has one waits for it
/// wherever it waits for anything else.
struct Told {
    #[cfg(unix)]
    interrupted: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminated: tokio::signal::unix::Signal,
}

impl Told {
    #[cfg(unix)]
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupted: signal(SignalKind::interrupt())?,
            terminated: signal(SignalKind::terminate())?,
        })
    }

    #[cfg(not(unix))]
    fn listen() -> std::io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for it, and answers by what. Cancel safe.
    async fn ended_by(&mut self) -> By {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupted.recv() => By::Interrupt,
            _ = self.terminated.recv() => By::Terminate,
        }
        #[cfg(not(unix))]
        {
            let _ = tokio::signal::ctrl_c().await;
            By::Interrupt
        }
    }
}

/// How somebody asks the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Now, please.
    Interrupt,
    /// In good order.
    #[cfg_attr(not(unix), allow(dead_code, reason = "only Unix has it"))]
    Terminate,
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "Ctrl-C",
            Self::Terminate => "SIGTERM",
        })
    }
}
