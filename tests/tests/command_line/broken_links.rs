//! The example on real pages: it finds what a plain checker finds, in one process and over several.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use stageline::Client;
use stageline_tests::cluster::{Cluster, eventually, guarded};
use tempfile::TempDir;

use crate::{PROGRAM, checker, command, jobs, run, stages};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../client/examples/broken-links.yaml");

/// Real pages with real faults, and a copy of some with many: only every second page was copied, and
/// nothing but pages.
struct Pages {
    _copy: TempDir,
    glob: String,
    paths: Vec<PathBuf>,
    /// What a plain checker finds.
    broken: Vec<String>,
}

fn real_pages() -> Pages {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap().stdout;
    let html = Path::new(String::from_utf8(sysroot).unwrap().trim()).join("share/doc/rust/html");
    let original = html.join("alloc/task");
    assert!(original.is_dir(), "{html:?} is missing: `rustup component add rust-docs`");
    let copy = tempfile::tempdir().unwrap();
    for page in checker::pages(&html.join("nomicon")).iter().step_by(2).take(16) {
        fs::copy(page, copy.path().join(page.file_name().unwrap())).unwrap();
    }
    let pages = [checker::pages(&original), checker::pages(copy.path())].concat();
    let broken = checker::broken_links(&pages);
    assert!(pages.len() > 15 && broken.len() > 100, "{} in {}", broken.len(), pages.len());
    let glob = format!("{{{},{}}}/**/*.html", original.display(), copy.path().display());
    Pages { _copy: copy, glob, paths: pages, broken }
}

/// Runs a pipeline file on pages, and answers its results, sorted.
async fn run_on(dir: &Path, file: &str, pages: &str, arguments: &[&str]) -> Vec<String> {
    let mut command = command(dir, &[&["run", file], arguments].concat());
    command.env("PAGES", pages);
    let ran = run(command).await;
    assert_eq!(ran.code, Some(0), "{}", ran.told);
    let mut lines: Vec<String> = ran.results.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Runs the same as an SDK program does, and answers its results, sorted.
async fn run_program(pages: &[PathBuf]) -> Vec<String> {
    let client = Client::embedded(stages::registry());
    let paths = pages.iter().map(|path| path.display().to_string()).collect();
    let links = guarded(stages::broken_links(paths).collect(&client)).await.unwrap();
    let line = |link: &stages::Link| json!({"page": link.page, "link": link.link}).to_string();
    let mut lines: Vec<String> = links.iter().map(line).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn it_finds_exactly_the_known_faults_of_a_tree() {
    let tree = tempfile::tempdir().unwrap();
    let mut faults = Vec::new();
    for page in 0..30 {
        let path = tree.path().join(format!("part-{}/page-{page}.html", page % 3));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut html = "<!DOCTYPE html><title>A page</title>\n".to_owned();
        for other in 0..10 {
            // Pages from 30 on are not there, and a page is in the part that its number says.
            let (number, part) = (page + other * 3, (page + other) % 3);
            let link = format!("../part-{part}/page-{number}.html");
            html += &format!("<p><a class=x href='{link}#top'>page {number}</a>\n");
            if number >= 30 || number % 3 != part {
                faults.push(json!({"page": path, "link": link}).to_string());
            }
        }
        fs::write(path, html).unwrap();
    }
    faults.sort();
    assert_eq!(checker::broken_links(&checker::pages(tree.path())), faults);
    let glob = format!("{}/**/*.html", tree.path().display());
    assert_eq!(run_on(tree.path(), EXAMPLE, &glob, &[]).await, faults);
    assert_eq!(run_program(&checker::pages(tree.path())).await, faults);
}

#[tokio::test]
async fn it_finds_what_a_plain_checker_finds_in_one_process_and_over_three_workers() {
    let pages = real_pages();
    let mut cluster = Cluster::start(PROGRAM).await;
    for name in ["a", "b", "c"] {
        cluster.worker(name, &[]).await;
    }
    let dir = cluster.dir.path();
    let embedded = run_on(dir, EXAMPLE, &pages.glob, &[]).await;
    assert_eq!(embedded, pages.broken);
    assert_eq!(run_program(&pages.paths).await, pages.broken);

    let over = ["--coordinator", &cluster.address];
    let fleet = run_on(dir, EXAMPLE, &pages.glob, &over).await;
    assert_eq!(fleet, embedded, "the same bytes, sorted");
    let all = jobs(&cluster, &[]).await;
    assert_eq!(all[0]["state"], "completed");
    let items = items_by_worker(&shown(&cluster, &all[0]).await);
    let total: u64 = items.values().sum();
    for name in ["a", "b", "c"] {
        assert!(items[name] * 10 >= total, "{name} ran less than a tenth: {items:?}");
    }
}

#[tokio::test]
async fn it_is_listed_while_it_runs_and_a_worker_that_joins_runs_some() {
    let pages = real_pages();
    let mut cluster = Cluster::start(PROGRAM).await;
    for name in ["a", "b", "c"] {
        cluster.worker(name, &[]).await;
    }
    // The example, held before it looks at what links lead to.
    let example = fs::read_to_string(EXAMPLE).unwrap();
    let held = example.replace("  - stat\n", "  - { run: hold, workers_per: 8 }\n  - stat\n");
    assert_ne!(held, example);
    let file = cluster.dir.path().join("broken-links.yaml").display().to_string();
    fs::write(&file, held).unwrap();
    cluster.close_gate("hold");
    let (dir, address) = (cluster.dir.path().to_owned(), cluster.address.clone());
    let glob = pages.glob.clone();
    let job =
        tokio::spawn(async move { run_on(&dir, &file, &glob, &["--coordinator", &address]).await });
    let busy = |job: &Value| stage(job, "hold")["busy"].as_u64();
    eventually("three workers hold items", async || {
        let all = jobs(&cluster, &[]).await;
        all[0]["state"] == "running" && busy(&all[0]) == Some(24)
    })
    .await;
    let listed = run(command(cluster.dir.path(), &["jobs", "--coordinator", &cluster.address]));
    let listed = listed.await.results;
    assert!(listed.contains("running") && listed.contains("broken-links"), "{listed}");

    cluster.worker("d", &[]).await;
    eventually("the fourth holds items, too", async || {
        busy(&jobs(&cluster, &[]).await[0]) == Some(32)
    })
    .await;
    cluster.open_gate("hold");
    let results = guarded(job).await.unwrap();
    assert_eq!(results, pages.broken);
    let all = jobs(&cluster, &[]).await;
    let shown = shown(&cluster, &all[0]).await;
    let fourth = &stage(&shown, "hold")["by_worker"]["d"];
    assert!(fourth.as_u64().is_some_and(|items| items >= 8), "{shown}");
}

/// A job that was listed, with its figures by worker.
async fn shown(cluster: &Cluster, listed: &Value) -> Value {
    jobs(cluster, &["show", listed["job"].as_str().unwrap()]).await
}

fn stage<'a>(job: &'a Value, name: &str) -> &'a Value {
    let stages = job["stages"].as_array().unwrap();
    stages.iter().find(|stage| stage["name"] == name).unwrap()
}

/// How many items each worker ran, over all stages between source and sink.
fn items_by_worker(job: &Value) -> BTreeMap<String, u64> {
    let mut items = BTreeMap::new();
    let stages = job["stages"].as_array().unwrap();
    for stage in &stages[1..stages.len() - 1] {
        for (worker, count) in stage["by_worker"].as_object().unwrap() {
            *items.entry(worker.clone()).or_default() += count.as_u64().unwrap();
        }
    }
    items
}
