//! A host name may stand for several addresses: each is tried.

use std::fs;
use std::net::TcpListener;

use stageline_tests::cluster::{Process, eventually, processes};

use crate::{PROGRAM, command, run};

#[tokio::test]
async fn a_coordinator_on_either_loopback_is_found_as_localhost() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("numbers.txt"), "1\n").unwrap();
    fs::write(dir.path().join("p.yaml"), "source: { lines: numbers.txt }\nstages: [{ jq: . }]\n")
        .unwrap();
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        if TcpListener::bind(listen).is_err() {
            continue;
        }
        let arguments = ["coordinator", "--listen", listen, "--store", "none"];
        let mut coordinator = Process::start(PROGRAM, &arguments, dir.path(), "coordinator");
        let line = coordinator.logged("listening on").await;
        let own = line.rsplit(' ').next().unwrap();
        let named = format!("localhost:{}", own.rsplit(':').next().unwrap());
        let arguments = ["worker", "--coordinator", &named, "--name", "w"];
        let worker = Process::start(PROGRAM, &arguments, dir.path(), "w");
        eventually("the worker finds it", async || !processes(own).await.is_empty()).await;
        for arguments in
            [&["jobs", "--coordinator", &named][..], &["run", "p.yaml", "--coordinator", &named]]
        {
            let ran = run(command(dir.path(), arguments)).await;
            assert_eq!(ran.code, Some(0), "{listen}: {}", ran.told);
        }
        drop(worker);
    }
}

#[tokio::test]
async fn an_error_names_each_address_that_was_tried() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["jobs", "--coordinator", "localhost:1", "--connect-timeout", "300ms"];
    let ran = run(command(dir.path(), &arguments)).await;
    assert_eq!(ran.code, Some(2), "{}", ran.told);
    for tried in ["no coordinator at localhost:1: ", "127.0.0.1:1: ", "[::1]:1: "] {
        assert!(ran.told.contains(tried), "{}", ran.told);
    }
}
