//! Where results, error items and inputs meet: one file for two things, named pipes, slow readers.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use stageline_protocol::control::ProcessKind;
use stageline_tests::cluster::{Cluster, Process, eventually, guarded, processes};

use crate::{PROGRAM, command, run};

/// Numbers, of which one fails.
const HALVES: &str = "source: { lines: numbers.txt }\nstages: [{ jq: 'tonumber | if . == 2 then error(\"two\") end' }]\n";

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("p.yaml"), HALVES).unwrap();
    fs::write(dir.path().join("numbers.txt"), "1\n2\n3\n").unwrap();
    dir
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// The lines of a file: results come in the order in which they are ready.
fn sorted(path: &Path) -> Vec<String> {
    let mut lines: Vec<String> =
        fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn one_place_for_two_things_is_refused_before_anything_is_lost() {
    let dir = folder();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("real")).unwrap();
    fs::write(at("there"), "old\n").unwrap();
    symlink("real", at("linked")).unwrap();
    symlink("there", at("to-there")).unwrap();
    symlink("new", at("to-new")).unwrap();
    pipe(&at("pipe"));
    for (output, errors) in [
        ("out", "out"),
        ("out", "./out"),
        ("real/out", "linked/out"),
        ("there", "to-there"),
        ("to-new", "new"),
        ("real/../there", "there"),
        ("pipe", "./pipe"),
    ] {
        let ran = run(command(dir.path(), &["run", "p.yaml", "-o", output, "--errors", errors]));
        let ran = ran.await;
        assert_eq!(ran.code, Some(2), "{output} and {errors}: {}", ran.told);
        let named = [format!("--output {output}"), format!("--errors {errors}")];
        assert!(named.iter().all(|named| ran.told.contains(named)), "{}", ran.told);
    }
    for option in ["--output", "--errors"] {
        let ran = run(command(dir.path(), &["run", "p.yaml", option, "./p.yaml"])).await;
        assert_eq!(ran.code, Some(2), "{option}: {}", ran.told);
        assert!(ran.told.contains(option) && ran.told.contains("pipeline file"), "{}", ran.told);
    }
    let mut shell = command(dir.path(), &["run", "p.yaml", "--errors", "shell.jsonl"]);
    shell.stdout(File::create(at("shell.jsonl")).unwrap()).stderr(Stdio::piped());
    let child = shell.spawn().unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    let ended = guarded(ended).await.unwrap().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{told}");
    assert!(told.contains("standard output") && told.contains("--errors shell.jsonl"), "{told}");

    assert_eq!(fs::read_to_string(at("there")).unwrap(), "old\n");
    assert_eq!(fs::read_to_string(at("p.yaml")).unwrap(), HALVES);
    assert!(!at("out").exists() && !at("new").exists());
    // Nothing is lost in a device, and two files are what they always were.
    for (output, errors) in [("/dev/null", "/dev/null"), ("out", "failed")] {
        let ran = run(command(dir.path(), &["run", "p.yaml", "-o", output, "--errors", errors]));
        assert_eq!(ran.await.code, Some(1));
    }
    assert_eq!(sorted(&at("out")), ["1", "3"]);
}

#[tokio::test]
async fn a_check_refuses_it_too() {
    let dir = folder();
    let yaml = format!("{HALVES}sink: {{ file: out }}\nerrors: ./out\n");
    fs::write(dir.path().join("p.yaml"), yaml).unwrap();
    let ran = run(command(dir.path(), &["check", "p.yaml"])).await;
    assert_eq!(ran.code, Some(2), "{}", ran.results);
    assert!(ran.told.contains("out and --errors ./out"), "{}", ran.told);
}

#[tokio::test]
async fn an_input_may_be_replaced_by_what_comes_of_it() {
    for option in ["--output", "--errors"] {
        let dir = folder();
        let ran = run(command(dir.path(), &["run", "p.yaml", option, "numbers.txt"])).await;
        assert_eq!(ran.code, Some(1), "{}", ran.told);
        let lines = sorted(&dir.path().join("numbers.txt"));
        assert!(lines == ["1", "3"] || lines[0].contains("\"two\""), "{lines:?}");
    }
    let dir = folder();
    pipe(&dir.path().join("pipe"));
    let yaml = HALVES.replace("numbers.txt", "pipe");
    fs::write(dir.path().join("p.yaml"), yaml).unwrap();
    let ran = run(command(dir.path(), &["run", "p.yaml", "--output", "./pipe"])).await;
    assert_eq!(ran.code, Some(2), "a pipe that feeds itself: {}", ran.told);
    assert!(ran.told.contains("--output ./pipe"), "{}", ran.told);
}

#[tokio::test]
async fn a_named_pipe_is_read_once_and_whole() {
    let dir = folder();
    let at = |name: &str| dir.path().join(name).display().to_string();
    pipe(Path::new(&at("pipe")));
    let yaml = format!("source: {{ lines: '{}' }}\nstages: [{{ jq: tonumber }}]\n", at("pipe"));
    fs::write(at("p.yaml"), yaml).unwrap();
    for round in 0..10 {
        let (pipe, output) = (at("pipe"), at(&format!("out-{round}")));
        let writes = std::thread::spawn(move || {
            File::options().write(true).open(pipe)?.write_all(b"1\n2\n3\n")
        });
        let arguments = ["run", &at("p.yaml"), "--output", &output];
        let mut process = Process::start(PROGRAM, &arguments, dir.path(), "run");
        let mut code = None;
        eventually("it reads the pipe to its end", async || {
            code = process.ended();
            code.is_some()
        })
        .await;
        assert_eq!(code, Some(0), "round {round}: {}", process.log());
        assert_eq!(sorted(Path::new(&output)), ["1", "2", "3"], "round {round}");
        writes.join().unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_holds_up_no_signal() {
    let cluster = Cluster::start(PROGRAM).await;
    let dir = folder();
    let at = |name: &str| dir.path().join(name).display().to_string();
    pipe(Path::new(&at("pipe")));
    fs::write(at("p.yaml"), HALVES.replace("numbers.txt", &at("numbers.txt"))).unwrap();
    for (option, signal) in [("--output", "INT"), ("--output", "TERM"), ("--errors", "INT")] {
        let (file, pipe) = (at("p.yaml"), at("pipe"));
        let arguments = ["run", &file, option, &pipe, "--coordinator", &cluster.address];
        let mut process = Process::start(PROGRAM, &arguments, dir.path(), "run");
        eventually("it is connected", async || {
            let known = processes(&cluster.address).await;
            known.iter().any(|process| process.kind == ProcessKind::Client)
        })
        .await;
        process.signal(signal);
        let mut code = None;
        eventually("the signal ends it", async || {
            code = process.ended();
            code.is_some()
        })
        .await;
        assert_eq!(code, Some(2), "{option} {signal}: {}", process.log());
        eventually("it is gone", async || processes(&cluster.address).await.is_empty()).await;
    }
}
