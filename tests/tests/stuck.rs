//! Calls that never return, evaluations without an end, and values without a bottom: none of them takes its
//! worker with it, nor the other functions there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is tests, helpers too")]

use std::fs;
use std::process::{Command, Output};
use std::thread;

use stageline_tests::cluster::{Cluster, eventually, guarded, processes};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet");

/// A cluster with one worker, which has so many slots for a function.
async fn start(slots: &[&str]) -> Cluster {
    let mut cluster = Cluster::start(PROGRAM).await;
    let address = cluster.address.clone();
    let slots: Vec<&str> = slots.iter().flat_map(|slots| ["--slots", *slots]).collect();
    cluster.worker_at("a", &[], &address, &slots).await;
    cluster
}

/// Runs a pipeline of these stages over these lines, on the workers.
async fn run(cluster: &Cluster, name: &str, lines: &str, stages: &str) -> Output {
    let dir = cluster.dir.path();
    let (input, file) = (dir.join(format!("{name}.txt")), dir.join(format!("{name}.yaml")));
    fs::write(&input, lines).unwrap();
    let pipeline = format!("source: {{ lines: {input:?} }}\nstages: [{stages}]\n");
    fs::write(&file, pipeline).unwrap();
    let file = file.to_str().unwrap();
    guarded(cluster.run(&["run", file, "--coordinator", &cluster.address])).await
}

/// What a worker, or the coordinator, has logged so far.
fn log_of(cluster: &Cluster, who: &str) -> String {
    match cluster.workers.get(who) {
        Some(worker) => worker.log(),
        None => cluster.coordinator.log(),
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Named pipes that nobody writes to: to open one for reading never returns.
fn pipes(cluster: &Cluster, count: usize) -> Vec<String> {
    let paths = (0..count).map(|n| cluster.dir.path().join(format!("pipe-{n}")));
    let made = paths.map(|path| {
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path.to_str().unwrap().to_owned()
    });
    made.collect()
}

#[tokio::test]
async fn a_function_whose_calls_never_return_is_withdrawn_and_its_worker_goes_on() {
    let cluster = start(&["read=2"]).await;
    let paths = pipes(&cluster, 3);
    let lines = paths.join("\n");
    let stuck = run(&cluster, "stuck", &lines, "{ name: r, read: , timeout: 50ms }");
    let (stuck, ()) = tokio::join!(stuck, async {
        let logged = async |who: &str, what: &str| {
            eventually(what, async || log_of(&cluster, who).contains(what)).await;
        };
        logged("a", "nobody waits for any more still runs").await;
        logged("coordinator", "runs \"read\" no longer: 2 calls of it").await;
        let known = processes(&cluster.address).await;
        let told: Vec<_> = known.iter().flat_map(|process| &process.abandoned).collect();
        assert_eq!(
            told.iter().map(|calls| (&*calls.function, calls.calls)).collect::<Vec<_>>(),
            [("read", 2)]
        );

        // What else the worker offers goes on.
        let other = run(&cluster, "other", "1\n2\n", "{ jq: 'tonumber + 1' }").await;
        let mut results: Vec<&str> = text(&other.stdout).lines().collect();
        results.sort_unstable();
        assert_eq!(results, ["2", "3"]);

        // Somebody writes at last: the calls return, and the third is not held up any more.
        for path in paths.clone() {
            thread::spawn(move || fs::write(path, "written"));
        }
        logged("coordinator", "runs \"read\" again").await;
    });
    let told = text(&stuck.stderr);
    assert_eq!(stuck.status.code(), Some(1), "{told}");
    let read = text(&stuck.stdout).lines().filter(|line| line.contains("written")).count();
    assert_eq!((read, told.matches("timeout: no answer within 50ms").count()), (1, 2), "{told}");
}

#[tokio::test]
async fn an_evaluation_ends_with_the_job_that_it_is_of() {
    let cluster = start(&["jq=1"]).await;
    let endless = run(&cluster, "endless", "1\n", "{ jq: 'last(range(infinite))' }");
    let (endless, job) = tokio::join!(endless, async {
        let mut job = String::new();
        eventually("it runs", async || {
            let listed = cluster.run(&["jobs", "--json", "--coordinator", &cluster.address]).await;
            let jobs: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
            let text = jobs.to_string();
            let started = text.contains("\"endless\"") && text.contains("running");
            if let Some(id) =
                text.split("\"job\":\"").nth(1).and_then(|rest| rest.split('"').next())
            {
                job = id.to_owned();
            }
            started && !job.is_empty()
        })
        .await;
        // Its only slot is in use now, or will be.
        let arguments = ["jobs", "cancel", &job, "--coordinator", &cluster.address];
        let cancelled = cluster.run(&arguments).await;
        assert!(cancelled.status.success(), "{}", text(&cancelled.stderr));
        job
    });
    assert_eq!(endless.status.code(), Some(2), "{job}: {}", text(&endless.stderr));
    let next = run(&cluster, "next", "1\n", "{ jq: 'tonumber' }").await;
    assert_eq!(text(&next.stdout), "1\n", "the slot is free again: {}", text(&next.stderr));
}

/// Whatever is nested deep: the line that it is of fails, and the worker lives.
#[tokio::test]
async fn no_depth_of_a_value_or_an_expression_kills_a_worker() {
    let cluster = start(&[]).await;
    let before = processes(&cluster.address).await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases = [
        ("parsed", "fromjson | length", "nested more than 1000 deep"),
        ("recursive", "def f: 1 + f; if . == \"1\" then 1 else f end", "recurses too deep"),
        (
            "built",
            "if . == \"1\" then 1 else reduce range(100000) as $i (0; {a: .}) end",
            "nested more than 1000 deep",
        ),
        (
            "assigned",
            "if . == \"1\" then 1 else reduce range(100000) as $i (0; . as $x | {} | .a = $x) end",
            "nested more than 1000 deep",
        ),
        (
            "made",
            "if . == \"1\" then 1 else reduce range(200) as $i (0; [.]) end",
            "nested more than 128 deep",
        ),
    ];
    for (name, expression, why) in cases {
        let lines = format!("{deep}\n1\n");
        let ran = run(&cluster, name, &lines, &format!("{{ jq: '{expression}' }}")).await;
        let told = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{name}: {told}");
        assert!(told.contains(why), "{name}: {told}");
        assert_eq!(text(&ran.stdout), "1\n", "{name}: {told}");
    }
    let after = processes(&cluster.address).await;
    let lives = |list: &[stageline_protocol::control::ProcessStatus]| -> Vec<_> {
        list.iter().filter(|p| p.name == "a").map(|p| p.incarnation).collect()
    };
    assert_eq!(lives(&before), lives(&after), "it is the same worker");
}

/// Expressions that are themselves nested deep, or have no end.
#[tokio::test]
async fn no_expression_kills_the_command_that_checks_it() {
    let cluster = Cluster::start(PROGRAM).await;
    let dir = cluster.dir.path();
    for (name, expression) in [
        ("brackets", format!("{}1{}", "(".repeat(8_000), ")".repeat(8_000))),
        ("pipes", vec!["."; 8_000].join("|")),
        ("signs", format!("{}1", "-".repeat(16_000))),
        ("long", format!("\"{}\"", "x".repeat(100_000))),
    ] {
        let file = dir.join(format!("{name}.yaml"));
        let pipeline = format!("source: {{ lines: in.txt }}\nstages: [{{ jq: '{expression}' }}]\n");
        fs::write(&file, pipeline).unwrap();
        let checked = cluster.run(&["check", file.to_str().unwrap()]).await;
        let code = checked.status.code();
        assert!(matches!(code, Some(0..=2)), "{name}: {code:?} {}", text(&checked.stderr));
    }
}
