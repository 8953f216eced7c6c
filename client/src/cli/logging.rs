//! Log lines: to standard error, above the progress lines, for people or as JSON. An event is one line,
//! and steers no terminal.

use stageline_protocol::text::shown;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use super::args::LogFormat;
use super::progress::Screen;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is none.
    #[error(
        "--log {filter:?} is no filter: {error}. Write a level (error, warn, info, debug, trace), or for example `warn,stageline=debug`"
    )]
    Filter {
        /// The text.
        filter: String,
        /// What is wrong with it.
        error: ParseError,
    },
    /// One of its words is no level.
    #[error(
        "--log {filter:?}: {word:?} is no level. Write one of error, warn, info, debug, trace and off, or for example `warn,stageline=debug`"
    )]
    Level {
        /// The text.
        filter: String,
        /// What is no level.
        word: String,
    },
    /// The program has set up logging of its own.
    #[error("logging is set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// Starts logging for the whole process.
///
/// # Errors
/// The filter is none, or logging is set up already.
pub fn init(format: LogFormat, filter: &str, screen: &Screen) -> Result<(), LoggingError> {
    let filter = parse(filter)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(screen.clone());
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Human => {
            use std::io::IsTerminal as _;
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            // An event is one line, whatever the texts of others in it are.
            let fields = debug_fn(|writer, field, value| {
                let text = format!("{value:?}");
                match field.name() {
                    "message" => writer.write_str(&shown(&text)),
                    name => write!(writer, "{name}={}", shown(&text)),
                }
            });
            let lines = lines.fmt_fields(fields.delimited(" "));
            registry.with(lines.with_target(false).with_ansi(colours)).try_init()?;
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
    }
    Ok(())
}

fn parse(filter: &str) -> Result<EnvFilter, LoggingError> {
    let word = |part: &&str| !part.contains(['=', '[']) && !part.contains("::");
    let level = |part: &str| part.parse::<LevelFilter>().is_ok();
    // A word alone would be taken for the name of a program's part, and silence all others.
    if let Some(word) = filter.split(',').map(str::trim).filter(word).find(|part| !level(part)) {
        return Err(LoggingError::Level { filter: filter.to_owned(), word: word.to_owned() });
    }
    EnvFilter::try_new(filter)
        .map_err(|error| LoggingError::Filter { filter: filter.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_a_list() {
        for good in ["info", "warn,stageline=debug", "off"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        let error = parse("wran").expect_err("no level").to_string();
        assert!(error.contains("\"wran\" is no level"), "{error}");
        let error = parse("stageline=loud").expect_err("no level").to_string();
        assert!(error.contains("stageline=loud") && error.contains("debug"), "{error}");
    }
}
