//! Names and texts of others: they are shown as they are, and steer no terminal.

use std::fs;

use stageline_tests::cluster::Cluster;

use crate::{PROGRAM, command, run};

/// What nothing that is shown may contain.
fn steers(text: &str) -> bool {
    text.chars().any(|c| c.is_control() && c != '\n')
}

#[tokio::test]
async fn a_name_that_steers_a_terminal_is_refused_where_it_is_made() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("numbers.txt"), "1\n").unwrap();
    let source = "source: { lines: numbers.txt }";
    for (yaml, place) in [
        (format!("name: \"a\\e]0;PWN\\a\\e[2J\\nx\"\n{source}\nstages: []\n"), "p.yaml:1:7: "),
        (format!("{source}\nstages:\n  - {{ name: \"a\\nb\", jq: . }}\n"), "p.yaml:3:"),
        (format!("{source}\nstages:\n  - {{ run: \"a\\eb\" }}\n"), "p.yaml:3:"),
        (format!("{source}\nstages:\n  - \"a\\rb\"\n"), "p.yaml:3:"),
    ] {
        fs::write(dir.path().join("p.yaml"), &yaml).unwrap();
        for verb in ["run", "check"] {
            let ran = run(command(dir.path(), &[verb, "p.yaml"])).await;
            assert_eq!(ran.code, Some(2), "{yaml}: {}{}", ran.results, ran.told);
            assert!(ran.told.contains(place), "{yaml}: {}", ran.told);
            assert!(ran.told.contains("control character"), "{yaml}: {}", ran.told);
            assert!(!steers(&ran.told) && ran.told.trim_end().lines().count() == 1, "{}", ran.told);
        }
    }
    for name in ["w\n2026 INFO forged", "w\x1b[2J", "\u{9b}2J", "a\u{202e}b"] {
        let arguments = ["worker", "--name", name, "--coordinator", "127.0.0.1:1"];
        let more = ["--connect-timeout", "100ms"];
        let ran = run(command(dir.path(), &[&arguments[..], &more].concat())).await;
        assert_eq!(ran.code, Some(2), "{name:?}: {}", ran.told);
        assert!(ran.told.contains("control character"), "{name:?}: {}", ran.told);
        assert!(!steers(&ran.told), "{name:?}: {}", ran.told);
    }
}

#[tokio::test]
async fn what_an_item_or_a_file_says_steers_no_terminal() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("numbers.txt"), "1\n").unwrap();
    let yaml =
        "source: { lines: numbers.txt }\nstages: [{ jq: 'error(\"\\u001b[2Ja\\nERROR b\")' }]\n";
    // A file may be called anything.
    let name = "p\x1b[2J\nforged.yaml";
    fs::write(dir.path().join(name), yaml.replace("\\\\", "\\")).unwrap();
    for arguments in [&["run", name][..], &["run", name, "--fail-fast"], &["check", name]] {
        let ran = run(command(dir.path(), arguments)).await;
        let shown = [ran.results.as_str(), &ran.told].concat();
        assert!(!steers(&shown), "{arguments:?}: {shown:?}");
        let forged = |line: &str| line.starts_with("forged") || line.starts_with("ERROR b");
        assert!(!shown.lines().any(forged), "{arguments:?}: {shown}");
        assert!(ran.told.is_empty() || shown.contains("\\u{1b}[2J"), "{arguments:?}: {shown}");
    }
}

#[tokio::test]
async fn what_a_peer_says_steers_neither_log_nor_table() {
    let cluster = Cluster::start(PROGRAM).await;
    let name = "c\n2026-01-01 INFO forged\x1b[2J".to_owned();
    let client = stageline::Client::builder().name(name).connect(&cluster.address).await;
    let error = client.unwrap_err().to_string();
    assert!(error.contains("control character") && !steers(&error), "{error}");

    let client = cluster.client().await;
    let job = stageline::Stream::from_iter(0..3_u64).name("a\x1b[2J\nb").collect(&client).await;
    let error = job.unwrap_err().to_string();
    assert!(error.contains("control character") && !steers(&error), "{error}");
    let arguments = ["jobs", "--coordinator", &cluster.address];
    let table = run(command(cluster.dir.path(), &arguments)).await.results;
    assert!(!steers(&table), "{table:?}");
    let log = cluster.coordinator.log();
    assert!(
        !steers(&log)
            && !log
                .lines()
                .any(|line| line.contains(" INFO forged") && line.starts_with("2026-01-01")),
        "{log}"
    );
}
