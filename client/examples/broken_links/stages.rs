//! The pipeline, and its stages: what client and worker share.

use std::path::Path;

use serde::{Deserialize, Serialize};
use stageline::{Registry, Stage, StageError, Stream};

use super::html;

/// A page and its text.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Page {
    path: String,
    text: String,
}

/// A relative link of a page.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Link {
    /// The page's path.
    pub(crate) page: String,
    /// The link as it stands there, without its query and fragment.
    pub(crate) link: String,
}

const READ: Stage<String, Page> = Stage::named("read_page");
const LINKS: Stage<Page, Link> = Stage::named("links");
const BROKEN: Stage<Link, Link> = Stage::named("is_broken");

/// From the paths of pages to the broken links in them.
pub(crate) fn broken_links(pages: Vec<String>) -> Stream<Link> {
    Stream::from_iter(pages)
        .pipeline_name("broken-links")
        .try_map(READ)
        .flat_map(LINKS)
        .filter(BROKEN)
}

/// The stages' functions. All of them wait for the disk or compute, so none of them is async.
pub(crate) fn registry() -> Registry {
    Registry::new()
        .try_blocking_map(READ, |path: String| -> Result<Page, StageError> {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| StageError::from(error).context(format_args!("{path:?}")))?;
            Ok(Page { path, text })
        })
        .blocking_flat_map(LINKS, |page: Page| {
            let links = html::relative_links(&page.text).into_iter();
            links.map(|link| Link { page: page.path.clone(), link }).collect::<Vec<_>>()
        })
        .blocking_filter(BROKEN, |link: Link| {
            let folder = Path::new(&link.page).parent().unwrap_or(Path::new(""));
            !folder.join(html::file_name(&link.link)).exists()
        })
}
