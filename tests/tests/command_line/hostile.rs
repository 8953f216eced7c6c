//! Bad inputs that take more than a command: what is sent to ports, pipes that close, signals.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use stageline::{Registry, Stage, Stream};
use stageline_proto::v1::session_client::SessionClient;
use stageline_proto::{Wire, v1};
use stageline_protocol::control::{Down, Hello, ProcessKind, Up};
use stageline_protocol::{Incarnation, VersionRange};
use stageline_tests::cluster::{Cluster, Process, eventually, guarded, processes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{PROGRAM, Ran, command, jobs, run};

/// Numbers, held on a gate.
const HELD: &str = "source: { lines: numbers.txt }\nstages: [hold, { jq: tonumber }]\n";

fn told(told: impl ToString) -> Ran {
    Ran { code: None, results: String::new(), told: told.to_string() }
}

/// A client that believes a function to make something else than it does.
pub(crate) async fn wrong_types(cluster: &Cluster) -> Ran {
    const FIRST: Stage<u64, String> = Stage::named("first");
    let job = Stream::from_iter(0..3u64).map(FIRST);
    let client = cluster.client().await;
    told(guarded(job.collect(&client)).await.unwrap_err())
}

/// A worker of a later age.
pub(crate) async fn wrong_version(cluster: &Cluster) -> Ran {
    let hello = Up::Hello(Hello {
        versions: VersionRange { oldest: 98, newest: 99 },
        kind: ProcessKind::Worker,
        name: "from the future".to_owned(),
        incarnation: Incarnation(99),
        address: None,
        functions: Registry::new().functions(),
        leaving: false,
    });
    let address = format!("http://{}", cluster.address);
    let mut session = SessionClient::connect(address).await.unwrap();
    // It stays open: the refusal is not the answer to a goodbye.
    let (up, ups) = tokio::sync::mpsc::channel::<v1::SessionUp>(1);
    up.send(hello.encode()).await.unwrap();
    let ups = futures_util::stream::unfold(ups, async |mut ups| Some((ups.recv().await?, ups)));
    let mut downs = guarded(session.session(ups)).await.unwrap().into_inner();
    let answer = guarded(downs.message()).await.unwrap().unwrap();
    let Down::Refused(why) = Down::decode(answer).unwrap() else { panic!("not refused") };
    assert_eq!(guarded(downs.message()).await.unwrap(), None, "the session goes on");
    assert!(processes(&cluster.address).await.iter().all(|known| known.name != "from the future"));
    told(why)
}

/// Bytes of all sorts on the ports of the coordinator and of the worker, while a job runs over them.
pub(crate) async fn bytes_on_every_port(cluster: &Cluster) -> Ran {
    let dir = cluster.dir.path();
    fs::write(dir.join("held.yaml"), HELD).unwrap();
    cluster.close_gate("hold");
    let arguments = ["run", "held.yaml", "--coordinator", &cluster.address];
    let job = tokio::spawn(run(command(dir, &arguments)));
    held(cluster).await;
    let known = processes(&cluster.address).await;
    let worker = known.iter().find_map(|process| process.address.clone()).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(100_000).collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let torn = [&preface[..], &noise].concat();
    let http = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n";
    for address in [&cluster.address, &worker] {
        for bytes in [&noise[..], &noise[..1], &torn, &preface[..10], &http[..], &[0; 4096]] {
            say(address, bytes).await;
        }
    }
    cluster.open_gate("hold");
    let ran = guarded(job).await.unwrap();
    let mut results: Vec<&str> = ran.results.lines().collect();
    results.sort_unstable();
    assert_eq!(results, ["1", "2", "3"]);
    ran
}

/// A browser, say.
pub(crate) async fn http_on_the_coordinators_port(cluster: &Cluster) -> Ran {
    told(say(&cluster.address, b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await)
}

/// Says that to a port, hangs up, and answers what came back.
async fn say(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // It may hang up before it has heard all.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = guarded(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Standard output that leads to a device without room.
pub(crate) async fn full_standard_output(cluster: &Cluster) -> Ran {
    let dir = cluster.dir.path();
    fs::write(dir.join("p.yaml"), "source: { lines: numbers.txt }\nstages: []\n").unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = command(dir, &["run", "p.yaml"]);
    command.stdout(full).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let waited = tokio::task::spawn_blocking(move || child.wait_with_output());
    guarded(waited).await.unwrap().unwrap().into()
}

/// `stageline run … | head -1`
pub(crate) async fn closed_pipe(cluster: &Cluster) -> Ran {
    let dir = cluster.dir.path();
    let endless = "source: { lines: numbers.txt }\nstages: [{ jq: 'tonumber | repeat(.)' }]\n";
    fs::write(dir.join("p.yaml"), endless).unwrap();
    let mut command = command(dir, &["run", "p.yaml"]);
    let ran = tokio::task::spawn_blocking(move || first_line_only(&mut command));
    guarded(ran).await.unwrap()
}

fn first_line_only(command: &mut Command) -> Ran {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut results = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut results).unwrap();
    drop(reader);
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(["1\n", "2\n", "3\n"].contains(&results.as_str()), "{results}");
    Ran { code: child.wait().unwrap().code(), results, told }
}

/// Ctrl-C in the middle of a job that writes a file.
pub(crate) async fn ctrl_c(cluster: &Cluster) -> Ran {
    let dir = cluster.dir.path();
    let input = dir.join("numbers.txt").display().to_string();
    fs::write(dir.join("held.yaml"), HELD.replace("numbers.txt", &input)).unwrap();
    let at = |name: &str| dir.join(name).display().to_string();
    let (pipeline, output) = (at("held.yaml"), at("results.jsonl"));
    cluster.close_gate("hold");
    let arguments = ["run", &pipeline, "--coordinator", &cluster.address, "--output", &output];
    let mut process = Process::start(PROGRAM, &arguments, dir, "run");
    let id = held(cluster).await;
    process.signal("INT");
    let mut code = None;
    eventually("Ctrl-C ends it", async || {
        code = process.ended();
        code.is_some()
    })
    .await;
    let job = jobs(cluster, &["show", &id]).await;
    assert_eq!((&job["state"], &job["reason"]), (&"cancelled".into(), &"Ctrl-C".into()));
    eventually("nothing of it runs anywhere", async || {
        let processes = processes(&cluster.address).await;
        processes.iter().all(|p| p.kind == ProcessKind::Worker && p.census.tasks == 0)
    })
    .await;
    for entry in fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(!name.to_string_lossy().contains("results.jsonl"), "{name:?} is left");
    }
    cluster.open_gate("hold");
    Ran { code, results: String::new(), told: process.log() }
}

/// Waits until the one job that runs has all its items at the gate, and answers its id.
async fn held(cluster: &Cluster) -> String {
    let mut id = String::new();
    eventually("three items are held", async || {
        let jobs = jobs(cluster, &[]).await;
        let Some(job) = jobs.as_array().unwrap().iter().find(|job| job["state"] == "running")
        else {
            return false;
        };
        id = job["job"].as_str().unwrap().to_owned();
        let stages = job["stages"].as_array().unwrap();
        stages.iter().any(|stage| stage["name"] == "hold" && stage["busy"] == 3)
    })
    .await;
    id
}
