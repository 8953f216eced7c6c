//! Finds the broken relative links in HTML pages: links, images and scripts that lead to no file or
//! folder. One JSON line for each: {link, page}.
//!
//!     cargo run --release --example broken_links -- FOLDER
//!
//! The same over a coordinator, with as many workers as you like, each of them this program again:
//!
//!     cargo run --release --example broken_links -- coordinator
//!     cargo run --release --example broken_links -- worker
//!     cargo run --release --example broken_links -- --coordinator 127.0.0.1:7400 FOLDER
//!
//! `broken-links.yaml` beside it does the same without a program. Here the stages are Rust functions of
//! Rust types ([`stages`]), shared by client and worker.

mod html;
mod stages;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use futures_util::StreamExt;
use serde_json::json;
use stageline::{Client, Error};

const USAGE: &str = "write: broken_links [--coordinator HOST:PORT] FOLDER, or \
    broken_links worker --help";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let found = match arguments[..] {
        // The command line of `stageline`, with our stages in it.
        ["worker" | "coordinator" | "jobs", ..] => return stageline::main(stages::registry()),
        ["--coordinator", address, folder] => find(Some(address), Path::new(folder)),
        [folder] if !folder.starts_with('-') => find(None, Path::new(folder)),
        _ => Err(USAGE.into()),
    };
    match found {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error that cannot be written to leaves nobody to tell.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

type AnyError = Box<dyn std::error::Error>;

/// Prints what is broken in the pages below a folder. A page that cannot be read is named, and the
/// others go on.
#[tokio::main]
async fn find(coordinator: Option<&str>, folder: &Path) -> Result<(), AnyError> {
    let mut pages = Vec::new();
    add_pages(folder, &mut pages)
        .map_err(|error| format!("cannot read the folder {}: {error}", folder.display()))?;
    // The only line that differs between one process and many.
    let client = match coordinator {
        Some(address) => Client::connect(address).await?,
        None => Client::embedded(stages::registry()),
    };
    let mut results = stages::broken_links(pages).results(&client);
    let mut out = std::io::stdout();
    while let Some(result) = results.next().await {
        match result {
            Ok(link) => writeln!(out, "{}", json!({"page": link.page, "link": link.link}))?,
            Err(Error::Item(failed)) => writeln!(std::io::stderr(), "{failed}")?,
            Err(Error::Job(error)) => return Err(error.into()),
        }
    }
    client.close().await;
    Ok(())
}

fn add_pages(folder: &Path, pages: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            add_pages(&path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "html") {
            pages.push(path.display().to_string());
        }
    }
    Ok(())
}
